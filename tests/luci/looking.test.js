'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { RESOURCES } = require('./luci');

const REQUIRE = /^'require ([^\s']+)(?: as (\w+))?';$/;

/* whatever is done to it, it is there: LuCI's own modules, as far as these pages go before they show settings */
function anything() {
	return new Proxy(function() {}, {
		get: (_, name) => name === 'then' ? undefined : name === Symbol.toPrimitive ? () => '' : anything(),
		apply: () => anything(),
		construct: () => anything()
	});
}

/* a page for a login that may or may not change things; `asked` are the configurations that it has read */
function page(name, mayChange) {
	const asked = [];
	const uci = new Proxy({ load: config => { asked.push(config); return Promise.resolve() } }, {
		get: (target, wanted) => wanted === 'load' ? target.load : wanted === 'sections' ? () => [] : () => undefined
	});
	const L = {
		bind: (f, self) => f.bind(self), hasViewPermission: () => mayChange, resolveDefault: value => value, resource: text => text,
		toArray: value => value || []
	};
	const E = (tag, attributes, children) => ({ tag, attributes, children, classList: { toggle() {} } });
	const base = { extend: members => class { constructor() { Object.assign(this, members) } } };
	const evaluate = file => {
		const source = fs.readFileSync(path.join(RESOURCES, file), 'utf-8');
		const wanted = source.split('\n').map(line => REQUIRE.exec(line)).filter(Boolean);
		const names = wanted.map(match => match[2] || match[1].replace(/[^a-zA-Z0-9_]/g, '_'));
		const modules = wanted.map(match => match[1] === 'uci' ? uci : /^(baseclass|view)$/.test(match[1]) ? base
			: match[1] === 'cpe-mcp.parts' ? evaluate('cpe-mcp/parts.js') : anything());
		const Module = new Function('document', 'L', 'E', '_', ...names, source)(anything(), L, E, text => text, ...modules);

		return new Module();
	};

	return { asked, view: evaluate(`view/cpe-mcp/${name}.js`) };
}

const words = node => typeof node === 'string' ? node : [].concat(node && node.children || []).map(words).join(' ');

for (const name of [ 'overview', 'connections', 'rules', 'settings' ])
	test(`${name}: settings are read by who may change them, and by nobody else`, async () => {
		const looking = page(name, false), changing = page(name, true);

		await looking.view.load();
		await changing.view.load();
		assert.deepEqual(looking.asked, []);
		assert.ok(changing.asked.includes('cpe-mcp'));
	});

for (const name of [ 'rules', 'settings' ])
	test(`${name}: who may only look is told why there is nothing to see, and has no buttons`, () => {
		const { view } = page(name, false);
		const shown = words(view.render());

		assert.match(shown, /Settings hold keys and passwords/);
		assert.match(shown, /may look but not change/);
		assert.deepEqual([ view.handleSave, view.handleSaveApply, view.handleReset ], [ null, null, null ]);
	});

test('the overview of who may only look goes by what the daemon says', () => {
	for (const [ wans, isFirstUse ] of [ [ [ { name: 'dsl' } ], false ], [ [], true ] ]) {
		const { view } = page('overview', false);

		view.show = () => {};
		view.render([ null, null, [], { status: { wans } } ]);
		assert.equal(view.first !== undefined, isFirstUse);
	}
});
