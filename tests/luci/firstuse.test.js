'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const firstuse = require('./luci').load('cpe-mcp.firstuse');

const DEFAULT4 = [ { target: '0.0.0.0', mask: 0, nexthop: '192.0.2.1' } ];
const DUMP = [
	{ interface: 'loopback', up: true, l3_device: 'lo', proto: 'static' },
	{ interface: 'lan', up: true, l3_device: 'br-lan', proto: 'static', 'ipv4-address': [ { address: '192.168.1.1', mask: 24 } ] },
	{ interface: 'guest', up: true, l3_device: 'br-guest', proto: 'static' },
	{ interface: 'lte', up: true, l3_device: 'wwan0', proto: 'qmi', route: DEFAULT4, 'ipv4-address': [ { address: '10.64.0.9', mask: 30 } ] },
	{ interface: 'wan', up: true, l3_device: 'eth1', proto: 'dhcp', route: DEFAULT4, 'ipv4-address': [ { address: '192.0.2.7', mask: 24 } ] },
	{ interface: 'wan6', up: true, l3_device: 'eth1', proto: 'dhcpv6', 'ipv6-address': [ { address: '2001:db8::7', mask: 64 } ] },
	{ interface: 'wan-b', up: false, proto: 'pppoe' }
];
const ZONES = [
	{ name: 'lan', network: [ 'lan' ] },
	{ name: 'guest', network: [ 'guest' ] },
	{ name: 'wan', network: [ 'wan', 'wan6', 'lte', 'wan-b' ], masq: '1' }
];

const candidates = () => firstuse.candidates(DUMP, ZONES, [ 'br-lan' ]);

test('lines are offered, the LAN, the guests and the IPv6 twin are not', () => {
	assert.deepEqual(candidates().map(row => row.interface), [ 'wan', 'wan-b', 'lte' ]);
	assert.deepEqual(candidates()[0].addresses, [ '192.0.2.7', '2001:db8::7' ]);
});

test('a mobile line and a line without a device are known as such', () => {
	const byName = Object.fromEntries(candidates().map(row => [ row.interface, row ]));

	assert.ok(byName.lte.mobile && !byName.wan.mobile);
	assert.equal(byName['wan-b'].device, '');
	assert.ok(!byName['wan-b'].up);
});

test('without a firewall the default route decides what is likely', () => {
	const rows = firstuse.candidates(DUMP, [], [ 'br-lan' ]);

	assert.deepEqual(rows.filter(row => row.likely).map(row => row.interface), [ 'wan', 'lte' ]);
	assert.deepEqual(firstuse.candidates(undefined, undefined, []), []);
});

test('one WAN is enough, and the page says what a second adds', () => {
	assert.match(firstuse.advice(1), /One WAN works/);
	assert.match(firstuse.advice(1), /second one adds/);
	assert.match(firstuse.advice(3), /With 3 WANs/);
	assert.match(firstuse.missing({ wans: [], concentrator: 'dhcp' }), /at least one/);
	assert.equal(firstuse.missing({ wans: [ candidates()[0] ], concentrator: 'dhcp' }), '');
});

test('what cannot work is not saved', () => {
	const wans = [ candidates()[0] ];

	assert.match(firstuse.missing({ wans: [ { interface: 'wan_b', device: '' } ], concentrator: 'dhcp' }), /no network device/);
	assert.match(firstuse.missing({ wans, concentrator: 'static', address: '' }), /address/);
	assert.match(firstuse.missing({ wans, concentrator: 'static', address: '192.0.2.1', subscriber: 'alice', key: '' }), /belong together/);
	assert.equal(firstuse.missing({ wans, concentrator: 'static', address: '192.0.2.1', subscriber: '', key: '' }), '');
});

test('the plan by DHCP', () => {
	assert.deepEqual(firstuse.plan({ wans: candidates().filter(row => row.device), concentrator: 'dhcp', quic: 'reject' }), [
		{ type: 'global', name: 'global', values: { enabled: '1' } },
		{ type: 'wan', name: 'wan', values: { interface: 'wan', device: 'eth1', preference: '10' } },
		{ type: 'wan', name: 'lte', values: { interface: 'lte', device: 'wwan0', preference: '20' } },
		{ type: 'discovery', name: 'discovery', values: { dhcp: '1' } },
		{ type: 'quic', name: 'quic', values: { policy: 'reject' } }
	]);
});

test('the plan with a concentrator of one\'s own writes what was filled in', () => {
	const plan = firstuse.plan({
		wans: [ { interface: 'wan-b', device: 'pppoe-wan-b', mobile: false } ], concentrator: 'static',
		address: '2001:db8::5', port: '', subscriber: 'alice', key: 'k', quic: 'forward'
	});

	assert.equal(plan[1].name, 'wan_b', 'a name that UCI takes');
	assert.deepEqual(plan[2], { type: 'concentrator', name: 'home', values: { address: [ '2001:db8::5' ], subscriber: 'alice', key: 'k' } });
});
