'use strict';
'require form';
'require uci';
'require view';
'require cpe-mcp.declared as declared';
'require cpe-mcp.fields as fields';
'require cpe-mcp.layout as layout';
'require cpe-mcp.parts as parts';

/* The ordered list of rules: which connections take all WANs, which go directly, which are refused. */

return view.extend({
	load: function() {
		parts.style();

		return parts.settings();
	},

	render: function() {
		if (!L.hasViewPermission()) {
			this.handleSave = this.handleSaveApply = this.handleReset = null;

			return parts.unseen(_('Multipath rules'));
		}

		const map = new form.Map('cpe-mcp', _('Multipath rules'),
			_('The first rule that matches decides; drag them into order. What no rule matches goes as the settings say. Of each condition one value is enough, and all conditions that are set must hold.'));
		const section = map.section(form.GridSection, 'rule');

		section.addremove = true;
		section.anonymous = true;
		section.sortable = true;
		section.nodescriptions = true;
		section.addbtntitle = _('Add rule');
		section.modaltitle = _('Rule');
		fields.fill(section, 'rule');

		const summary = section.taboption('basic', form.DummyValue, '_summary', _('Connections'));

		summary.modalonly = false;
		summary.textvalue = function(section_id) {
			return E('span', {}, [ layout.ruleSummary(uci.get('cpe-mcp', section_id) || {}) ]);
		};

		section.children.forEach(function(o) {
			if (o.option === 'enabled')
				o.editable = true;
		});

		return map.render();
	}
});
