'use strict';
'require baseclass';
'require form';
'require network';
'require uci';
'require tools.widgets as widgets';
'require cpe-mcp.checks as checks';
'require cpe-mcp.declared as declared';
'require cpe-mcp.layout as layout';

/* Turns a declared option into a field of LuCI's form. An option that is not set shows its default and is not written. */

const TABS = { basic: _('Basic'), advanced: _('Advanced') };

function shownDefault(type, name, option) {
	if (option.many)
		return option.default.map(function(value) { return layout.choice(type, name, value) }).join(', ');

	return option.choices ? layout.choice(type, name, option.default) : option.default;
}

/* the widget's class, and what only this kind of option needs */
function widgetOf(type, name, option) {
	if (type === 'wan' && name === 'interface')
		return [ widgets.NetworkSelect, function(o) {
			o.nocreate = true;
			o.onchange = fillDevice;
		} ];

	if (type === 'wan' && name === 'device')
		return [ widgets.DeviceSelect, function(o) {
			o.noaliases = true;
			o.rmempty = false;
		} ];

	if (type === 'global' && name === 'lan')
		return [ widgets.DeviceSelect, function(o) {
			o.multiple = true;
			o.noaliases = true;
		} ];

	if (type === 'discovery' && name === 'interface')
		return [ widgets.NetworkSelect, function(o) {
			o.multiple = true;
			o.nocreate = true;
		} ];

	if (option.kind === 'flag')
		return [ form.Flag, function(o) { o.default = option.default } ];

	if (option.kind === 'scheme')
		return [ form.ListValue, function(o) {
			o.optional = true;
			o.placeholder = _('default: %s').format(layout.choice(type, name, option.default));
			checks.SCHEMES.forEach(function(scheme) { o.value(scheme, layout.choice(type, name, scheme)) });
			uci.sections('cpe-mcp', 'wan').forEach(function(wan) {
				o.value('single:' + wan['.name'], _('only %s, also when it fails').format(wan['.name']));
			});
		} ];

	if (option.kind === 'rule-scheme')
		return [ form.ListValue, function(o) {
			o.optional = true;
			o.placeholder = _('no: as the settings say');
			o.value('lowest-latency', _('the one with the shortest round trip'));
			uci.sections('cpe-mcp', 'wan').forEach(function(wan) {
				o.value('single:' + wan['.name'], _('only %s, also when it fails').format(wan['.name']));
			});
		} ];

	/* not LuCI's MultiValue: that one puts the values into an order of its own, and checks them all as one */
	if (option.choices && option.many)
		return [ form.DynamicList, function(o) {
			if (option.default.length)
				o.placeholder = _('default');

			choices(o, type, name, option);
		} ];

	if (option.choices)
		return [ form.ListValue, function(o) {
			o.optional = true;
			o.placeholder = _('default: %s').format(shownDefault(type, name, option));
			choices(o, type, name, option);
		} ];

	return [ option.many ? form.DynamicList : form.Value, function(o) {
		const standard = shownDefault(type, name, option);

		o.password = option.kind === 'secret';
		o.textvalue = function(section_id) {
			const values = L.toArray(this.cfgvalue(section_id));

			return E('span', {}, [ values.length ? values.join(', ') : standard || '–' ]);
		};

		if (standard !== '' && !o.password)
			o.placeholder = standard + (option.unit ? ' ' + option.unit : '');
	} ];
}

/* in a table: the words, not what the file has */
function choices(o, type, name, option) {
	o.textvalue = function(section_id) {
		const values = L.toArray(this.cfgvalue(section_id) || option.default);

		return E('span', {}, [ values.map(function(value) { return layout.choice(type, name, value) }).join(', ') ]);
	};

	option.choices.forEach(function(value) { o.value(value, layout.choice(type, name, value)) });
}

/* the device belongs to the interface: a person chooses only the latter */
function fillDevice(ev, section_id, value) {
	const device = this.section.getUIElement(section_id, 'device');

	if (!value || !device)
		return;

	return network.getNetwork(value).then(function(found) {
		const l3 = found && (found.getL3Device() || found.getDevice());

		if (l3)
			device.setValue(l3.getName());
	});
}

return baseclass.extend({
	/* every option of a section type goes into `section`: those of `columns` are seen in its table as well */
	fill: function(section, type) {
		const options = declared.sections[type].options;
		const rows = layout.place(type, Object.keys(options));
		const columns = layout.section(type).columns;
		const advanced = rows.some(function(row) { return row.tab === 'advanced' });
		const tabbed = advanced && rows.some(function(row) { return row.tab === 'basic' });

		if (tabbed)
			[ 'basic', 'advanced' ].forEach(function(tab) { section.tab(tab, TABS[tab]) });

		rows.forEach(L.bind(function(row) {
			const o = this.option(section, tabbed ? row.tab : null, type, row, options[row.name]);

			/* a column stands in the table and in the section's own page; false would take it out of the latter */
			if (columns && columns.indexOf(row.name) < 0)
				o.modalonly = true;
		}, this));
	},

	option: function(section, tab, type, row, option) {
		const widget = widgetOf(type, row.name, option);
		const title = row.title, text = option.doc;
		const o = tab ? section.taboption(tab, widget[0], row.name, title, text) : section.option(widget[0], row.name, title, text);

		o.validate = function(section_id, value) { return checks.check(option, value) };
		widget[1](o);

		/* LuCI's choosers of networks and devices cannot show what holds when nothing is chosen, and a list of choices is
		   too long for its field */
		if ((widget[0] === widgets.DeviceSelect || widget[0] === widgets.NetworkSelect || option.choices && option.many)
			&& option.default.length)
			o.description = '%s (%s)'.format(text, _('default: %s').format(shownDefault(type, row.name, option)));

		return o;
	},

	/* a section of which there is one has a place in the file before anything is set in it */
	ensure: function(type) {
		if (!uci.sections('cpe-mcp', type).length)
			uci.add('cpe-mcp', type, type);
	}
});
