'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const { load } = require('./luci');

const trouble = load('cpe-mcp.trouble'), speed = load('cpe-mcp.speed'), layout = load('cpe-mcp.layout');
const words = load('cpe-mcp.words'), declared = load('cpe-mcp.declared'), checks = load('cpe-mcp.checks'), reasons = load('cpe-mcp.reasons');

test('a good reply is no trouble, an empty one neither', () => {
	assert.equal(trouble.ofReply({}), null);
	assert.equal(trouble.ofReply({ wans: [] }), null);
});

test('each kind of silence has a next step', () => {
	for (const [ reply, kind ] of [ [ 4, 'absent' ], [ 6, 'denied' ], [ 7, 'slow' ], [ 9, 'down' ], [ null, 'down' ] ]) {
		const found = trouble.ofReply(reply);

		assert.equal(found.kind, kind);
		assert.ok(found.text && found.next, kind);
	}

	assert.equal(trouble.ofError(new Error('RPC call to cpe-mcp/status failed with error -32000: Object not found')).kind, 'absent');
	assert.equal(trouble.ofError(new Error('RPC call to cpe-mcp/status failed with error -32002: Access denied')).kind, 'denied');
	assert.equal(trouble.ofError(new Error('XHR request timed out')).kind, 'slow');
	assert.equal(trouble.ofReply({ error: 'not-running', text: 'x' }).kind, 'down');
	assert.equal(trouble.ofReply({ error: 'no-answer', text: 'x' }).kind, 'slow');
	assert.deepEqual(trouble.ofReply({ error: 'refused', text: 'dest is missing' }), {
		kind: 'refused', text: 'The multipath daemon refused the request.', next: '', detail: 'dest is missing'
	});
});

test('progress is over all runs, and whole when done', () => {
	assert.equal(speed.progress({ state: 'running', runs: [ { progress: 1 }, { progress: 0.5 }, {} ] }), 0.5);
	assert.equal(speed.progress({ state: 'done', runs: [] }), 1);
	assert.equal(speed.progress({ state: 'idle' }), 0);
});

test('together is compared with the lines one by one', () => {
	const run = (wan, mbit, direction) => ({ wan, direction, mbit, state: 'done' });
	const report = { state: 'done', runs: [ run('dsl', 50, 'down'), run('lte', 40, 'down'), run('', 81, 'down'), run('dsl', 10, 'up') ] };

	assert.deepEqual(speed.conclusions(report), [ 'Download: 81 Mbit/s together, 90 % of what the WANs reach one by one (90 Mbit/s).' ]);
	assert.deepEqual(speed.conclusions({ state: 'running', runs: [] }), []);
	assert.equal(speed.state({ state: 'failed', error: 'no answer' }), 'no answer');
	assert.equal(speed.state({ state: 'stopped', error: '' }), 'ended by hand');
});

test('every declared option has its place and a name for people', () => {
	for (const [ type, kind ] of Object.entries(declared.sections)) {
		const section = layout.section(type);

		assert.ok(section, `section ${type} stands on no page: add it to layout.js`);

		for (const name of Object.keys(kind.options))
			assert.ok(section.basic[name] || section.advanced[name], `${type}.${name} has no name for people: add it to layout.js`);

		for (const name of [ ...Object.keys(section.basic), ...Object.keys(section.advanced), ...section.columns || [] ])
			assert.ok(kind.options[name], `layout.js has ${type}.${name}, which nobody declares any more`);
	}
});

test('an option nobody has placed is last but there', () => {
	assert.deepEqual(layout.place('quic', [ 'policy', 'brand_new' ]).pop(), { name: 'brand_new', title: 'brand_new', tab: 'advanced' });
});

test('every choice that a page words is one that is declared', () => {
	for (const [ type, kind ] of Object.entries(declared.sections))
		for (const [ name, option ] of Object.entries(kind.options))
			for (const value of option.choices || [])
				assert.equal(typeof layout.choice(type, name, value), 'string');

	assert.notEqual(layout.choice('rule', 'action', 'direct'), 'direct');
	assert.equal(layout.choice('rule', 'action', 'new'), 'new');
});

test('a rule in one line', () => {
	assert.equal(layout.ruleSummary({}), 'everything');
	assert.equal(layout.ruleSummary({ domain: [ 'example.com' ], dest_port: '443', src: [ '192.168.1.20' ], proto: [ 'tcp' ] }),
		'to example.com, port 443, from 192.168.1.20, TCP');
	assert.equal(layout.ruleSummary({ dest: [ 'a', 'b', 'c', 'd' ] }), 'to a, b, c …');
});

test('every default passes its own check', () => {
	for (const [ type, kind ] of Object.entries(declared.sections))
		for (const [ name, option ] of Object.entries(kind.options))
			for (const value of [].concat(option.default))
				assert.equal(checks.check(option, value), true, `${type}.${name} ${value}`);
});

test('a refusal says what is allowed', () => {
	const port = declared.sections.concentrator.options.port;

	assert.match(checks.check(port, '70000'), /1 to 65535/);
	assert.match(checks.check({ kind: 'choice', choices: [ 'a', 'b' ] }, 'c'), /a, b/);
	assert.match(checks.check({ kind: 'number', low: 0.1, high: 60, unit: 's' }, 'x'), /0.1 to 60 s/);
	assert.equal(checks.check(port, ''), true);
});

test('what the self-test says is put into words, nested ones too', () => {
	const said = { code: 'subflows-missing', args: [ [ { code: 'count', args: [ 'dsl', 8 ] }, { code: 'count', args: [ 'lte', 0 ] } ], [ 'lte' ] ] };

	assert.equal(words.text(said, 'x'), 'subflows now: dsl 8, lte 0; none on lte');
	assert.equal(words.text({ code: 'because', args: [ 'lte', { code: 'wan-link-down', args: [] } ] }), 'lte: the link is down');
	assert.equal(words.text({ code: 'percent', args: [ 'dsl', 63 ] }), 'dsl 63 %');
	assert.equal(words.text({ code: 'from-the-future', args: [ 1 ] }, 'as the daemon says'), 'as the daemon says');
	assert.equal(words.text({}, ''), '');
	assert.equal(words.text(undefined, 'an older daemon'), 'an older daemon');
});

test('a reason is put into words, and a foreign one is shown as it came', () => {
	assert.equal(reasons.text({ reason: 'wan-link-down', text: 'x' }), reasons.texts['wan-link-down']);
	assert.equal(reasons.text({ reason: 'from-the-future', text: 'as the daemon says' }), 'as the daemon says');
	assert.equal(reasons.text({}), '');
});
