'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const units = require('./luci').load('cpe-mcp.units');

test('bytes are decimal, with a fraction only where it says something', () => {
	assert.equal(units.bytes(0), '0 B');
	assert.equal(units.bytes(999), '999 B');
	assert.equal(units.bytes(1000), '1.0 kB');
	assert.equal(units.bytes(9949), '9.9 kB');
	assert.equal(units.bytes(272000000), '272 MB');
	assert.equal(units.bytes(999600), '1.0 MB');
	assert.equal(units.bytes(7.1e15), '7100 TB');
	assert.equal(units.bytes(null), '–');
	assert.equal(units.bytes(-1), '–');
});

test('rates and round trips', () => {
	assert.equal(units.rate(0), '0.0 Mbit/s');
	assert.equal(units.rate(7.34), '7.3 Mbit/s');
	assert.equal(units.rate(94.6), '95 Mbit/s');
	assert.equal(units.rate(null), '–');
	assert.equal(units.ms(0), '–');
	assert.equal(units.ms(4.04), '4.0 ms');
	assert.equal(units.ms(38.6), '39 ms');
});

test('a duration has its two largest units', () => {
	assert.equal(units.duration(59.9), '59 s');
	assert.equal(units.duration(60), '1 min');
	assert.equal(units.duration(7384), '2 h 3 min');
	assert.equal(units.duration(200000), '2 d 7 h');
	assert.equal(units.duration(null), '–');
});

test('an IPv6 address with a port is bracketed', () => {
	assert.equal(units.endpoint('192.0.2.1', 443), '192.0.2.1:443');
	assert.equal(units.endpoint('2001:db8::1', 443), '[2001:db8::1]:443');
});

test('shares make 100 whatever is rounded', () => {
	assert.deepEqual(units.shares([ 1, 1, 1 ]), [ 34, 33, 33 ]);
	assert.deepEqual(units.shares([ 0, 0 ]), [ 0, 0 ]);
	assert.deepEqual(units.shares([ 5 ]), [ 100 ]);

	for (let i = 0; i < 500; i++) {
		const counts = Array.from({ length: 1 + i % 5 }, () => 1 + Math.floor(Math.random() * 1e9));

		assert.equal(units.shares(counts).reduce((a, b) => a + b), 100, String(counts));
	}
});

test('a per cent is a whole number', () => assert.equal(units.percent(0.634), '63 %'));

test('the used part of a quota', () => {
	assert.equal(units.used({ used_gb: 12.34, limit_gb: 50, percent: 24.6 }), '12.3 GB of 50 GB (24 %)');
	assert.equal(units.used({ used_gb: 0.0005, limit_gb: 0.5, percent: 0.1 }), '500 kB of 500 MB (0 %)');
});
