'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const flows = require('./luci').load('cpe-mcp.flows');

const FLOW = {
	id: '0-7', started: 100, client: '192.168.1.20', client_port: 50000, server: '198.51.100.7', server_port: 443,
	wan: 'dsl', action: 'proxy', concentrator: 'home', bytes_down: 272000000, bytes_up: 4000000, duration_s: 30
};

test('sorting is stable in both directions and knows numbers in addresses', () => {
	const rows = [ 'a', 'b', 'c' ].map((id, i) => ({ ...FLOW, id, client: '192.168.1.' + [ 10, 9, 100 ][i], bytes_down: [ 5, 9, 1 ][i] }));

	assert.deepEqual(flows.sorted(rows, 'client', false).map(row => row.id), [ 'b', 'a', 'c' ]);
	assert.deepEqual(flows.sorted(rows, 'down', true).map(row => row.id), [ 'b', 'a', 'c' ]);
	assert.deepEqual(rows.map(row => row.id), [ 'a', 'b', 'c' ], 'the answer itself is not reordered');
	assert.equal(flows.sorted(rows, 'no such key', false).length, 3);
});

test('a filter looks where the daemon looks, whatever the case', () => {
	for (const text of [ '192.168.1.20', '198.51', 'HOME', 'Dsl', 'proxy', ' ', '' ])
		assert.ok(flows.matches(FLOW, text), text);

	assert.ok(!flows.matches(FLOW, 'lte'));
	assert.ok(flows.matches({ ...FLOW, subflows: [ { wan: 'lte' } ] }, 'lte'));
});

test('WANs of a flow are named once', () => {
	assert.deepEqual(flows.wans({ wan: 'dsl', subflows: [ { wan: 'dsl' }, { wan: 'lte' }, { wan: 'dsl' } ] }), [ 'dsl', 'lte' ]);
	assert.deepEqual(flows.wans({ wan: 'dsl' }), [ 'dsl' ]);
	assert.deepEqual(flows.wans({ wan: '' }), []);
});

test('the proof is one sentence with shares of the larger direction', () => {
	const record = { ...FLOW, bytes_by_wan: { lte: { down: 37, up: 90 }, dsl: { down: 63, up: 10 } } };

	assert.equal(flows.sentence(flows.proof(record)), 'This download (272 MB, 198.51.100.7) used dsl 63 % and lte 37 %.');

	const upload = { ...record, bytes_up: 300000000 };

	assert.equal(flows.sentence(flows.proof(upload)), 'This upload (300 MB, 198.51.100.7) used lte 90 % and dsl 10 %.');

	const three = { ...FLOW, bytes_by_wan: { a: { down: 1 }, b: { down: 1 }, c: { down: 2 }, d: { down: 0 } } };

	assert.equal(flows.sentence(flows.proof(three)), 'This download (272 MB, 198.51.100.7) used c 50 %, a 25 % and b 25 %.');
});

test('one line alone is said to be alone', () => {
	assert.match(flows.sentence(flows.proof({ ...FLOW, bytes_by_wan: { dsl: { down: 9, up: 1 } } })), /used dsl alone\.$/);
});

test('small transfers and unknown ones prove nothing', () => {
	assert.equal(flows.proof({ ...FLOW, bytes_down: flows.PROOF_BYTES - 1, bytes_by_wan: { dsl: { down: 9 } } }), null);
	assert.equal(flows.proof(FLOW), null);
	assert.equal(flows.proof({ ...FLOW, bytes_by_wan: {} }), null);
});

test('the newest proofs come first', () => {
	const rows = [ 1, 3, 2 ].map(started => ({ ...FLOW, started, server: 's' + started, bytes_by_wan: { dsl: { down: 1 } } }));

	assert.deepEqual(flows.proofs(rows, 2).map(proof => proof.site), [ 's3', 's2' ]);
	assert.deepEqual(flows.proofs(undefined, 2), []);
});

test('one click leaves a site to plain forwarding', () => {
	assert.deepEqual(flows.directRule(FLOW),
		{ name: 'Direct: 198.51.100.7', action: 'direct', dest: [ '198.51.100.7' ] });
});
