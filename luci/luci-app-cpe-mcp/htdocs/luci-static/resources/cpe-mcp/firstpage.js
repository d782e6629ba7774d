'use strict';
'require baseclass';
'require dom';
'require uci';
'require ui';
'require cpe-mcp.checks as checks';
'require cpe-mcp.declared as declared';
'require cpe-mcp.firstuse as firstuse';
'require cpe-mcp.parts as parts';

/* What a new user sees in place of the overview: which WANs, which concentrator, what happens to QUIC. */

const el = parts.el;

function radio(name, value, checked, change, title, text) {
	const id = 'cpe-%s-%s'.format(name, value);

	return el('div', { 'class': 'cpe-choice' },
		el('input', { 'type': 'radio', 'name': 'cpe-' + name, 'id': id, 'value': value, 'checked': checked ? '' : null, 'change': change }),
		el('div', {}, el('label', { 'for': id }, el('strong', {}, title)), el('div', { 'class': 'cpe-quiet' }, text)));
}

function field(id, title, kind, placeholder, declaredOption) {
	const input = el('input', { 'type': 'text', 'id': id, 'class': 'cbi-input-text', 'placeholder': placeholder, 'autocomplete': 'off' });

	if (kind === 'secret')
		input.setAttribute('type', 'password');

	ui.addValidator(input, 'string', true, function(value) { return checks.check(declaredOption, value) }, 'blur', 'keyup');

	return [ el('label', { 'for': id }, title), el('div', {}, input) ];
}

return baseclass.extend({
	/* dump: the list of network.interface dump */
	render: function(dump) {
		const lan = L.toArray(uci.get('cpe-mcp', 'global', 'lan'));
		const rows = firstuse.candidates(dump, uci.sections('firewall', 'zone'), lan.length ? lan : [ 'br-lan' ]);
		const options = declared.sections.concentrator.options;

		this.rows = rows;
		this.advice = el('p', { 'id': 'cpe-advice', 'class': 'cpe-quiet' });
		this.wans = rows.map(L.bind(function(row) {
			const id = 'cpe-use-' + firstuse.sectionName(row.interface);
			const box = el('input', {
				'type': 'checkbox', 'id': id, 'data-interface': row.interface,
				'checked': row.likely && row.device ? '' : null, 'disabled': row.device ? null : '',
				'change': L.bind(this.advise, this)
			});

			return { row: row, box: box, node: el('div', { 'class': 'cpe-choice' }, box,
				el('div', {},
					el('label', { 'for': id }, el('strong', {}, row.interface), ' ', row.device ? '(%s)'.format(row.device) : ''),
					' ', row.up ? parts.badge('good', _('up')) : parts.badge('idle', _('down')),
					el('div', { 'class': 'cpe-quiet' }, [
						row.addresses.join(', '),
						row.mobile ? _('a mobile line: used after the others') : '',
						row.device ? '' : _('has no network device yet: bring it up first under Network, Interfaces'),
						row.wanZone ? '' : _('is in no WAN zone of the firewall yet')
					].filter(Boolean).join('; '))))
			};
		}, this));

		const showFields = L.bind(function() {
			this.fields.classList.toggle('hidden', this.value('concentrator') !== 'static');
		}, this);

		this.fields = el('div', { 'class': 'cpe-fields hidden' },
			field('cpe-address', _('Address'), 'text', '192.0.2.1', options.address),
			field('cpe-port', _('Port'), 'text', options.port.default, options.port),
			field('cpe-subscriber', _('Subscriber'), 'text', _('as in the server\'s table'), options.subscriber),
			field('cpe-key', _('Key'), 'secret', '', options.key));

		this.root = el('div', { 'class': 'cbi-map', 'id': 'cpe-firstuse' },
			parts.head(_('Several WANs as one'),
				_('One connection of any device in the LAN can use all access lines of this router at once. Nothing is installed on the devices. A concentrator, a server in the network, puts the parts together again.')),

			parts.section(_('1. Which lines?'),
				rows.length ? this.wans.map(function(wan) { return wan.node })
					: el('p', {}, _('The router has no interface that could be a WAN. Set one up first under Network, Interfaces.')),
				this.advice),

			parts.section(_('2. Which concentrator?'),
				radio('concentrator', 'dhcp', true, showFields, _('My operator has one'),
					_('Its address comes by DHCP with the access line, or from RADIUS. Nothing to type.')),
				radio('concentrator', 'static', false, showFields, _('I have one of my own, or know its address'),
					_('Any rented server can be one. Subscriber and key are those of its table of subscribers.')),
				this.fields,
				el('p', { 'class': 'cpe-quiet' },
					_('Where the operator wants a user name and a password, put them under Settings, Authentication.')),
				el('div', { 'class': 'alert-message notice', 'id': 'cpe-plain' },
					el('p', {}, el('strong', {}, _('The leg to the concentrator is not encrypted by this package.'))),
					el('p', {}, _('What a device encrypts itself (HTTPS and the like) stays encrypted from end to end. Everything else can be read on that leg as on any access line, and at the concentrator. Servers see the address of the concentrator instead of yours.')))),

			parts.section(_('3. What happens to QUIC?'),
				el('p', {}, _('Browsers load much of today\'s web, YouTube first of all, over QUIC. QUIC is not TCP, and only TCP can be spread over several lines.')),
				radio('quic', 'forward', true, null, _('Let it pass'),
					_('QUIC goes out over the best line alone. "YouTube is no faster" is then to be expected.')),
				radio('quic', 'reject', false, null, _('Refuse it'),
					_('Browsers notice at once and use TCP, which runs over all lines.'))),

			this.problem = el('div', { 'id': 'cpe-problem' }));

		this.root.addEventListener('input', L.bind(function() { dom.content(this.problem, []) }, this));
		this.advise();

		if (!L.hasViewPermission())
			this.root.querySelectorAll('input').forEach(function(input) { input.disabled = true });

		return this.root;
	},

	value: function(name) {
		return this.root.querySelector('input[name="cpe-%s"]:checked'.format(name)).value;
	},

	text: function(id) {
		return this.root.querySelector('#' + id).value.trim();
	},

	advise: function() {
		const count = this.wans.filter(function(wan) { return wan.box.checked }).length;

		dom.content(this.advice, [ firstuse.advice(count) ]);
	},

	choice: function() {
		return {
			wans: this.wans.filter(function(wan) { return wan.box.checked }).map(function(wan) { return wan.row }),
			concentrator: this.value('concentrator'),
			address: this.text('cpe-address'),
			port: this.text('cpe-port'),
			subscriber: this.text('cpe-subscriber'),
			key: this.text('cpe-key'),
			quic: this.value('quic')
		};
	},

	/* writes the sections; rejects with what is missing */
	save: function() {
		const choice = this.choice();
		const invalid = choice.concentrator === 'static' ? this.root.querySelector('.cbi-input-invalid') : null;
		const missing = firstuse.missing(choice) || (invalid ? _('A field has a value that is not allowed.') : '');

		if (missing) {
			dom.content(this.problem, [ el('div', { 'class': 'alert-message warning', 'role': 'alert' }, el('p', {}, missing)) ]);
			this.problem.scrollIntoView({ block: 'nearest' });

			return Promise.reject(new Error(missing));
		}

		dom.content(this.problem, []);
		firstuse.plan(choice).forEach(function(section) {
			if (!uci.get('cpe-mcp', section.name))
				uci.add('cpe-mcp', section.type, section.name);

			Object.keys(section.values).forEach(function(name) {
				uci.set('cpe-mcp', section.name, name, section.values[name]);
			});
		});

		return uci.save();
	}
});
