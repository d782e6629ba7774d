'use strict';
'require dom';
'require poll';
'require uci';
'require ui';
'require view';
'require cpe-mcp.api as api';
'require cpe-mcp.flows as flows';
'require cpe-mcp.layout as layout';
'require cpe-mcp.parts as parts';
'require cpe-mcp.units as units';

/* Live connections with their subflows: sort, filter, end one, leave a site to plain forwarding. */

const REFRESH_S = 3;
const LIMIT = 200;

const el = parts.el;

const TITLES = {
	started: _('Newest'),
	client: _('Device'),
	server: _('Site'),
	wans: _('WAN'),
	down: _('Download'),
	up: _('Upload')
};
/* what a first click on a title sorts downwards: newest and largest first */
const LARGEST_FIRST = [ 'started', 'down', 'up' ];

const ACTIONS = { proxy: _('all WANs'), direct: _('direct'), block: _('blocked') };

return view.extend({
	load: function() {
		parts.style();

		return Promise.all([ this.ask(), parts.settings() ]);
	},

	ask: function() {
		return Promise.all([ api.flows(LIMIT, this.filter || undefined), api.status() ]).then(function(replies) {
			return {
				flows: replies[0].flows || [],
				silent: replies[0].silent_workers || 0,
				names: (replies[1].wans || []).map(function(wan) { return wan.name })
			};
		}, function(found) {
			return { trouble: found };
		});
	},

	render: function(loaded) {
		this.readonly = !L.hasViewPermission();
		this.filter = '';
		this.key = 'started';
		this.descending = true;
		this.open = {};
		this.why = {};
		this.notice = el('div', {});
		this.list = el('div', { 'id': 'cpe-flows' });
		this.count = el('span', { 'class': 'cpe-quiet', 'id': 'cpe-count' });
		this.select = el('select', { 'class': 'cbi-input-select', 'aria-label': _('Sort by'), 'change': L.bind(function(ev) { this.sortBy(ev.target.value) }, this) },
			Object.keys(TITLES).map(function(key) { return el('option', { 'value': key }, TITLES[key]) }));

		const page = el('div', { 'class': 'cbi-map' },
			parts.head(_('Connections'), _('What the devices in the LAN are loading over the multipath proxy at this moment, and over which lines.')),
			this.notice,
			this.live = el('div', { 'class': 'cbi-section' },
				el('div', { 'class': 'cpe-bar' },
					el('input', {
						'type': 'search', 'id': 'cpe-filter', 'class': 'cbi-input-text', 'placeholder': _('Device, site or WAN'), 'aria-label': _('Filter'),
						'input': L.bind(function(ev) { this.filter = ev.target.value; this.draw() }, this)
					}),
					this.select, this.count),
				this.list));

		this.list.addEventListener('pointerdown', L.bind(function() { this.pressed = true }, this));
		[ 'pointerup', 'pointercancel' ].forEach(L.bind(function(name) {
			window.addEventListener(name, L.bind(function() { this.pressed = false }, this));
		}, this));

		this.show(loaded[0]);
		poll.add(L.bind(function() {
			return Promise.all([ this.ask() ].concat(Object.keys(this.open).map(L.bind(this.askWhy, this))))
				.then(L.bind(function(answers) { this.show(answers[0]) }, this));
		}, this), REFRESH_S);

		return page;
	},

	show: function(answer) {
		this.live.classList.toggle('hidden', answer.trouble != null);
		dom.content(this.notice, answer.trouble ? parts.trouble(answer.trouble) : []);

		if (answer.trouble)
			return;

		this.answer = answer;

		/* a row that is replaced between press and release would swallow the click */
		if (!this.pressed)
			this.draw();
	},

	/* draws, and leaves the keyboard's place where it was */
	draw: function() {
		if (!this.answer)
			return;

		const focused = this.list.contains(document.activeElement) ? document.activeElement : null;
		const row = focused && focused.closest('[data-flow]');
		const place = focused && (row ? '[data-flow="%s"] [data-act="%s"]'.format(row.dataset.flow, focused.dataset.act)
			: '[data-sort="%s"]'.format(focused.dataset.sort));

		this.fillList();

		const again = place && this.list.querySelector(place);

		if (again)
			again.focus({ preventScroll: true });
	},

	sortBy: function(key) {
		this.descending = key === this.key ? !this.descending : LARGEST_FIRST.indexOf(key) >= 0;
		this.key = key;
		this.draw();
	},

	fillList: function() {
		const names = this.answer.names;
		const shown = flows.sorted(this.answer.flows.filter(L.bind(function(flow) {
			return flows.matches(flow, this.filter);
		}, this)), this.key, this.descending);

		this.select.value = this.key;
		dom.content(this.count, [
			_('%d connections').format(shown.length),
			this.answer.flows.length >= LIMIT ? ' ' + _('(the newest %d; filter to see others)').format(LIMIT) : '',
			this.answer.silent ? ' ' + _('(%d workers did not answer)').format(this.answer.silent) : ''
		]);
		dom.content(this.list, [ this.titles() ].concat(shown.length
			? shown.map(L.bind(this.row, this, names))
			: [ el('p', { 'class': 'cpe-quiet' }, this.filter ? _('No connection matches.') : _('No connection is open.')) ]));
	},

	titles: function() {
		const title = L.bind(function(key) {
			const arrow = key === this.key ? (this.descending ? ' ▼' : ' ▲') : '';

			return el('button', { 'type': 'button', 'data-sort': key, 'click': L.bind(this.sortBy, this, key) }, TITLES[key] + arrow);
		}, this);

		return el('div', { 'class': 'cpe-flow cpe-flow-titles' }, title('server'), title('client'), title('wans'),
			el('span', {}, title('down'), ' / ', title('up')), title('started'));
	},

	row: function(names, flow) {

		return el('div', { 'class': 'cpe-flow', 'data-flow': flow.id },
			el('div', { 'class': 'cpe-flow-site' }, el('strong', {}, units.endpoint(flow.server, flow.server_port))),
			el('div', {}, units.endpoint(flow.client, flow.client_port)),
			el('div', { 'class': 'cpe-flow-wans' },
				flows.wans(flow).map(L.bind(parts.wan, parts, names)),
				flow.action === 'proxy' && !flow.fallback ? null
					: el('span', { 'class': 'cpe-quiet', 'title': flow.fallback || flow.reason || '' },
						flow.fallback ? _('plain TCP') : ACTIONS[flow.action] || flow.action)),
			el('div', {}, parts.pair(units.bytes(flow.bytes_down), units.bytes(flow.bytes_up)),
				flow.down_mbit == null ? null : el('div', {}, parts.pair(units.rate(flow.down_mbit), units.rate(flow.up_mbit))),
				el('div', { 'class': 'cpe-quiet' }, _('for %s').format(units.duration(flow.duration_s)))),
			el('div', { 'class': 'cpe-flow-actions' },
				el('button', { 'class': 'btn cbi-button', 'data-act': 'details', 'aria-expanded': this.open[flow.id] ? 'true' : 'false', 'click': L.bind(this.toggle, this, flow) }, _('Subflows')),
				this.readonly || flow.action !== 'proxy' ? null
					: el('button', { 'class': 'btn cbi-button', 'data-act': 'direct', 'click': L.bind(this.askDirect, this, flow) }, _('Go direct')),
				this.readonly ? null
					: el('button', { 'class': 'btn cbi-button cbi-button-negative', 'data-act': 'drop', 'click': L.bind(this.askDrop, this, flow) }, _('Drop'))),
			this.verdict(names, flow),
			this.open[flow.id] ? this.subflows(names, flow) : null);
	},

	/* what holds it back; a direct one has no lines to choose from */
	verdict: function(names, flow) {
		if (!flow.verdict || flow.action !== 'proxy')
			return null;

		return el('div', { 'class': 'cpe-verdict', 'data-verdict': flow.verdict },
			(flow.verdict_wans || []).map(L.bind(parts.wan, parts, names)),
			parts.reason({ reason: flow.verdict, text: flow.verdict_text }));
	},

	toggle: function(flow) {
		if (this.open[flow.id]) {
			delete this.open[flow.id];
			this.draw();
		}
		else {
			this.open[flow.id] = true;
			this.draw();
			this.askWhy(flow.id).then(L.bind(this.draw, this));
		}
	},

	/* why an opened connection is as fast as it is; one that has ended is closed */
	askWhy: function(id) {
		return api.whyFlow(String(id)).then(L.bind(function(reply) {
			this.why[id] = reply.reasons || [];
		}, this), L.bind(function() {
			delete this.why[id];
		}, this));
	},

	subflows: function(names, flow) {
		const rows = flow.subflows || [];
		const why = (this.why[flow.id] || []).filter(function(row) { return row.reason !== flow.verdict }).map(function(row) {
			return el('li', {}, row.wan ? [ parts.wan(names, row.wan), ' ' ] : null, parts.reason(row));
		});

		return el('div', { 'class': 'cpe-subflows' },
			el('div', { 'class': 'cpe-quiet' }, [
				parts.reason(flow),
				flow.concentrator ? _('concentrator %s').format(flow.concentrator) : '',
				flow.scheme ? layout.choice('paths', 'scheme', flow.scheme) : '',
				flow.congestion_control ? _('sends with %s').format(flow.congestion_control) : '',
				flow.first_byte_ms >= 0 ? _('first byte after %s').format(units.ms(flow.first_byte_ms)) : ''
			].filter(Boolean).join(', ')),
			rows.length ? rows.map(function(subflow) {
				return el('div', { 'class': 'cpe-subflow' },
					parts.wan(names, subflow.wan || '?'),
					subflow.backup ? parts.badge('idle', _('backup')) : parts.badge('good', _('in use')),
					el('span', {}, '%s → %s'.format(subflow.local, subflow.remote)),
					parts.pair(units.bytes(subflow.bytes_down), units.bytes(subflow.bytes_up)),
					parts.pair(units.rate(subflow.down_mbit), units.rate(subflow.up_mbit)),
					el('span', {}, _('round trip %s').format(units.ms(subflow.rtt_ms))),
					el('span', { 'title': _('congestion window: segments that may be under way') }, _('window %s').format(subflow.cwnd == null ? '–' : subflow.cwnd)),
					el('span', {}, _('%d sent again').format(subflow.retransmits || 0)));
			}) : el('p', { 'class': 'cpe-quiet' }, _('No subflows are known of this connection.')),
			why.length ? [ el('div', {}, _('What else is known of its lines:')), el('ul', { 'class': 'cpe-why-flow' }, why) ] : null);
	},

	confirm: function(title, content, label, style, act) {
		ui.showModal(title, content.concat(el('div', { 'class': 'right' },
			el('button', { 'class': 'btn cbi-button', 'click': ui.hideModal }, _('Cancel')), ' ',
			el('button', { 'class': 'btn cbi-button ' + style, 'data-act': 'confirm', 'click': ui.createHandlerFn(this, act) }, label))));
	},

	askDrop: function(flow) {
		this.confirm(_('End this connection?'), [
			el('p', {}, _('The connection of %s to %s ends at once. The device may open it again.').format(flow.client, flow.server))
		], _('Drop'), 'cbi-button-negative', function() {
			return api.drop(String(flow.id)).then(function(reply) {
				ui.hideModal();

				if (!reply.dropped)
					ui.addNotification(null, el('p', {}, _('The connection had ended already.')), 'info');
			}, function(found) {
				ui.hideModal();
				ui.addNotification(null, parts.trouble(found), 'warning');
			});
		});
	},

	askDirect: function(flow) {
		const rule = flows.directRule(flow);

		this.confirm(_('Do not use the concentrator for this site?'), [
			el('p', {}, _('Servers see the address of the concentrator instead of yours. Some sites, banks and video services among them, want yours.')),
			el('p', {}, _('New connections to %s will go out directly, over one WAN. Connections that run now are not touched.').format(flow.server)),
			el('p', { 'class': 'cpe-quiet' }, _('This adds a rule at the top of the list under Rules, where you can change or remove it. Other changes that wait to be applied are applied too.'))
		], _('Save & Apply'), 'cbi-button-positive important', function() {
			const first = uci.sections('cpe-mcp', 'rule')[0];
			const id = uci.add('cpe-mcp', 'rule');

			Object.keys(rule).forEach(function(name) { uci.set('cpe-mcp', id, name, rule[name]) });

			if (first)
				uci.move('cpe-mcp', id, first['.name'], false);

			return uci.save().then(function() {
				ui.hideModal();
				ui.changes.apply(true);
			});
		});
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
