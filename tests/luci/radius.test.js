'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const { load } = require('./luci');

const radius = load('cpe-mcp.radius');

test('a cap in one direction only says so of the other', () => {
	assert.equal(radius.cap(undefined), null, 'of an older daemon');
	assert.equal(radius.cap({ down_mbit: 0, up_mbit: 0 }), null);
	assert.deepEqual(radius.cap({ down_mbit: 100, up_mbit: 0 }), [ '100 Mbit/s', 'no limit' ]);
});

test('why a server gave no answer is put into words, and shown as it came from another daemon', () => {
	const said = [
		{ code: 'server-silent', args: [ { code: 'server-over', args: [ '192.0.2.20:1813', 'lte' ] } ] },
		{ code: 'accounting-no-way', args: [] }
	];

	assert.equal(radius.said(said, 'x'),
		'192.0.2.20:1813 over lte did not answer; no WAN that may carry it is up');
	assert.equal(radius.said(undefined, 'as the daemon says'), 'as the daemon says');
	assert.equal(radius.said([], 'a server\'s own message'), 'a server\'s own message');
	assert.equal(radius.said([], ''), '');
});

test('requests for changes by kind, and what was not carried out in one row', () => {
	assert.deepEqual(radius.requests({}), [ [ 'Requests for changes', 'none yet' ] ]);
	assert.deepEqual(radius.requests({ 'coa-ack': 2, 'coa-nak': 1, 'disconnect-ack': 1, stale: 3, duplicate: 1, newer: 4 }), [
		[ 'CoA-Requests', '2 carried out, 1 refused' ],
		[ 'Disconnect-Requests', '1 carried out, 0 refused' ],
		[ 'Not carried out', '1 sent again, 4 newer, 3 of another time' ]
	]);
});
