'use strict';
'require form';
'require uci';
'require view';
'require cpe-mcp.declared as declared';
'require cpe-mcp.fields as fields';
'require cpe-mcp.layout as layout';
'require cpe-mcp.parts as parts';

/* Every option of /etc/config/cpe-mcp but the rules, which have a page of their own. */

return view.extend({
	load: function() {
		parts.style();

		return parts.settings();
	},

	render: function() {
		if (!L.hasViewPermission()) {
			this.handleSave = this.handleSaveApply = this.handleReset = null;

			return parts.unseen(_('Multipath settings'));
		}

		const map = new form.Map('cpe-mcp', _('Multipath settings'),
			_('What is not set has its default, shown in grey. Running connections are not touched by a change.'));

		map.tabbed = true;

		layout.sections('settings').forEach(function(place) {
			const kind = declared.sections[place.type];

			if (!kind)
				return;

			if (kind.many) {
				const section = map.section(form.GridSection, place.type, place.title, kind.doc);

				section.addremove = true;
				section.anonymous = false;
				section.sortable = true;
				section.nodescriptions = true;
				section.addbtntitle = _('Add');
				section.modaltitle = function(id) { return '%s: %s'.format(place.title, id) };
				fields.fill(section, place.type);
			}
			else {
				fields.ensure(place.type);

				const section = map.section(form.NamedSection, uci.sections('cpe-mcp', place.type)[0]['.name'], place.type, place.title, kind.doc);

				section.addremove = false;
				fields.fill(section, place.type);
			}
		});

		return map.render();
	}
});
