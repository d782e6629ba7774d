/* Loads a module of the LuCI app as LuCI itself does: its text is the body of a function that gets what the leading
   'require' lines name, and returns a class. Only what pure modules use of LuCI is here: baseclass, _(), format(). */

'use strict';

const fs = require('node:fs');
const path = require('node:path');

const RESOURCES = path.join(__dirname, '../../luci/luci-app-cpe-mcp/htdocs/luci-static/resources');
const REQUIRE = /^'require ([^\s']+)(?: as (\w+))?';$/;

/* what LuCI's cbi.js adds to strings, as far as these modules go: %s and %d in turn, %% */
if (!String.prototype.format)
	Object.defineProperty(String.prototype, 'format', {
		value(...values) {
			return this.replace(/%([sd%])/g, (all, kind) => kind === '%' ? '%' : kind === 'd' ? String(Math.trunc(values.shift())) : String(values.shift()));
		}
	});

const baseclass = {
	extend: members => class { constructor() { Object.assign(this, members) } }
};

const loaded = new Map([ [ 'baseclass', baseclass ] ]);

function load(name) {
	if (!loaded.has(name)) {
		if (!name.startsWith('cpe-mcp.'))
			throw new Error(`${name} is not for node: a pure module requires baseclass and its own kind only`);

		const source = fs.readFileSync(path.join(RESOURCES, name.replaceAll('.', '/') + '.js'), 'utf-8');
		const wanted = source.split('\n').map(line => REQUIRE.exec(line)).filter(Boolean);
		const names = wanted.map(match => match[2] || match[1].replace(/[^a-zA-Z0-9_]/g, '_'));
		const factory = new Function('window', 'document', 'L', '_', ...names, source);
		const L = { bind: (f, self, ...args) => f.bind(self, ...args) };
		const Module = factory(undefined, undefined, L, text => text, ...wanted.map(match => load(match[1])));

		loaded.set(name, new Module());
	}

	return loaded.get(name);
}

module.exports = { load, RESOURCES };
