'use strict';
'require dom';
'require network';
'require poll';
'require rpc';
'require uci';
'require ui';
'require view';
'require cpe-mcp.api as api';
'require cpe-mcp.chart as chart';
'require cpe-mcp.firstpage as firstpage';
'require cpe-mcp.flows as flows';
'require cpe-mcp.layout as layout';
'require cpe-mcp.parts as parts';
'require cpe-mcp.radius as radiusWords';
'require cpe-mcp.units as units';
'require cpe-mcp.words as words';

/* The state of everything at one glance, the live graphs, and the proof; or the first-use page where no WAN is set up. */

const REFRESH_S = 2;
/* finished flows change slowly, and asking costs the daemon something: every fifth refresh */
const PROOF_EVERY = 5;
const PROOFS = 5, RECORDS_ASKED = 200;

const el = parts.el;

const callDump = rpc.declare({ object: 'network.interface', method: 'dump', expect: { interface: [] } });

const STATES = {
	up: [ 'good', _('up') ],
	degraded: [ 'busy', _('degraded') ],
	checking: [ 'busy', _('checking') ],
	'held down': [ 'busy', _('held down') ],
	'out of quota': [ 'idle', _('out of quota') ],
	dead: [ 'bad', _('silent') ],
	offline: [ 'bad', _('off') ]
};

const PLACES = {
	carrying: _('in use'),
	backup: _('waits, ready to take over'),
	absent: _('left alone until it is needed')
};

const MPTCP = {
	works: [ 'good', _('gets through') ],
	removed: [ 'bad', _('is removed') ],
	unknown: [ 'idle', _('not seen yet') ]
};

/* what was seen where Multipath TCP does not get through; nothing else is news */
function mptcpEvidence(found) {
	if (!found || found.state !== 'removed')
		return null;

	return el('div', { 'class': 'cpe-why', 'data-mptcp': found.reason }, parts.reason(found),
		el('ul', {}, (found.evidence || []).map(function(row) { return el('li', {}, words.text(row.words, row.text)) })));
}

/* connections that went over plain TCP, though they were to use all lines */
function fallbackLines(fallbacks) {
	return [].concat.apply([], Object.keys(fallbacks || {}).map(function(wan) {
		return Object.keys(fallbacks[wan]).map(function(reason) {
			return el('p', { 'class': 'cpe-why', 'data-fallback': wan },
				_('%d connections over %s were plain TCP: %s').format(fallbacks[wan][reason], wan, parts.reason({ reason: reason })));
		});
	}));
}

function wanTile(names, wan) {
	const state = STATES[wan.state] || [ wan.usable ? 'good' : 'bad', wan.state ];
	const why = wan.state === 'up' && wan.reason === 'wan-up' ? '' : [ parts.reason(wan), wan.detail ].filter(Boolean).join(': ');
	const use = !wan.usable ? _('not used') : PLACES[wan.place] || wan.place;

	return el('div', { 'class': 'cpe-tile', 'data-wan': wan.name, 'style': '--cpe-tile:' + parts.color(names, wan.name) },
		el('div', { 'class': 'cpe-tile-head' }, el('strong', {}, wan.name), parts.badge(state[0], state[1])),
		el('p', { 'class': 'cpe-quiet' }, [ wan.device, wan.address4 || wan.address6 ].filter(Boolean).join(', ')),
		why ? el('p', { 'class': 'cpe-why' }, why) : null,
		parts.fact(_('Now'), parts.pair(units.rate(wan.down_mbit), units.rate(wan.up_mbit))),
		parts.fact(_('Capacity'), parts.pair(
			units.rate(wan.capacity_down_mbit || null), units.rate(wan.capacity_up_mbit || null))),
		parts.fact(_('Round trip'), units.ms(wan.rtt_ms)),
		wan.loss_percent != null ? parts.fact(_('Lost'), _('%s %% of the probes').format(wan.loss_percent)) : null,
		parts.fact(_('Carried'), parts.pair(units.bytes(wan.bytes_down), units.bytes(wan.bytes_up))),
		quotaBar(wan),
		parts.fact(_('Use'), use),
		wan.mptcp ? parts.fact('Multipath TCP', parts.badge.apply(parts, MPTCP[wan.mptcp.state] || [ 'idle', wan.mptcp.state ])) : null,
		mptcpEvidence(wan.mptcp));
}

/* the operator's count is the one that is paid for */
function correctQuota(wan) {
	const input = el('input', { 'class': 'cbi-input-text', 'id': 'cpe-used', 'type': 'text', 'inputmode': 'decimal',
		'value': wan.quota.used_gb.toFixed(2) });

	ui.showModal(_('Used volume of %s').format(wan.name), [
		el('p', {}, _('What your operator says is used since the volume began anew:')),
		el('p', {}, el('label', { 'for': 'cpe-used' }, input, ' GB')),
		el('div', { 'class': 'right' },
			el('button', { 'class': 'btn cbi-button', 'click': ui.hideModal }, _('Cancel')), ' ',
			el('button', { 'class': 'btn cbi-button cbi-button-positive', 'data-act': 'confirm', 'click': ui.createHandlerFn(null, function() {
				return api.quota(wan.name, input.value.trim().replace(',', '.')).then(ui.hideModal, function(found) {
					ui.hideModal();
					ui.addNotification(null, parts.trouble(found), 'warning');
				});
			}) }, _('Save')))
	]);
}

/* what is used of a month's volume, and when it begins anew */
function quotaBar(wan) {
	const quota = wan.quota;

	if (!quota || !quota.limit_gb)
		return null;

	const used = units.used(quota);

	return [
		parts.fact(_('Quota'), used),
		el('div', { 'class': 'cpe-share cpe-quota', 'role': 'img', 'aria-label': used, 'data-quota': quota.state },
			el('i', { 'style': 'width:' + Math.min(100, quota.percent) + '%' })),
		parts.fact(_('Begins anew on'), quota.resets_on || '–'),
		L.hasViewPermission() === false ? null : el('p', {}, el('button', { 'class': 'btn cbi-button', 'data-act': 'quota',
			'click': function() { correctQuota(wan) } }, _('Correct…')))
	];
}

function packageTile(status) {
	const kind = !status.enabled ? 'idle' : status.proxy ? 'good' : 'bad';

	return el('div', { 'class': 'cpe-tile', 'id': 'cpe-package' },
		el('div', { 'class': 'cpe-tile-head' }, el('strong', {}, _('Multipath')),
			parts.badge(kind, !status.enabled ? _('off') : status.proxy ? _('working') : _('direct only'))),
		el('p', {}, parts.reason(status)),
		status.proxy && status.interception && !status.interception.on
			? el('p', { 'class': 'cpe-why' }, parts.reason(status.interception)) : null,
		(status.warnings || []).map(function(text) { return el('p', { 'class': 'cpe-why' }, text) }),
		fallbackLines(status.fallbacks),
		status.scheme ? parts.fact(_('Who carries'), layout.choice('paths', 'scheme', status.scheme.name)) : null,
		status.scheme ? el('p', { 'class': 'cpe-quiet' }, parts.reason(status.scheme)) : null,
		parts.fact(_('Live connections'), String(status.live || 0)),
		parts.fact('QUIC', status.quic === 'reject'
			? _('refused: browsers use TCP') : _('passes, over one line')),
		parts.fact(_('IPv6'), status.interception && status.interception.ipv6 ? _('taken too') : _('left alone')),
		parts.fact(_('Running for'), units.duration(status.uptime_s)));
}

/* what a source said and what is wrong with it */
function sourceLines(sources) {
	return (sources || []).flatMap(function(row) {
		return [
			row.discarded ? '%s %s: %s'.format(layout.source(row.source), row.interface, row.discarded) : null,
			(row.unconfirmed || []).length ? _('%s %s names %s, which is not used: %s').format(layout.source(row.source), row.interface,
				row.unconfirmed.join(', '), parts.reason(row)) + (row.detail ? ' (%s)'.format(row.detail) : '') : null
		];
	}).filter(Boolean).map(function(text) { return el('p', { 'class': 'cpe-why' }, text) });
}

function concentratorTile(status) {
	const rows = status.concentrators || [];
	const first = rows.find(function(row) { return row.usable }) || rows[0];

	if (!first)
		return el('div', { 'class': 'cpe-tile', 'id': 'cpe-concentrator' },
			el('div', { 'class': 'cpe-tile-head' }, el('strong', {}, _('Concentrator')), parts.badge('bad', _('none known'))),
			el('p', {}, _('None is known. Ask your operator for the DHCP option, or add one under Settings, Concentrators.')),
			sourceLines(status.sources));

	return el('div', { 'class': 'cpe-tile', 'id': 'cpe-concentrator' },
		el('div', { 'class': 'cpe-tile-head' }, el('strong', {}, _('Concentrator')),
			first.usable ? parts.badge('good', _('usable')) : parts.badge('bad', _('not usable'))),
		el('p', {}, first.name),
		first.usable ? null : el('p', { 'class': 'cpe-why' }, parts.reason(first),
			first.wait_s ? ' ' + _('(next try in %s)').format(units.duration(first.wait_s)) : null),
		parts.fact(_('Address'), units.endpoint((first.addresses || [ '?' ])[0], first.port)),
		parts.fact(_('Learnt from'), [ layout.source(first.source), first.interface ].filter(Boolean).join(', ')),
		parts.fact(_('Warm connections'), status.pool ? '%d / %d'.format(status.pool.ready, status.pool.size) : '–'),
		((first.health || {}).wans || []).map(function(wan) {
			return parts.fact(_('Over %s').format(wan.name),
				wan.answers ? _('answers in %s ms').format(wan.rtt_ms) : _('no answer: %s').format(wan.detail));
		}),
		rows.length > 1 ? parts.fact(_('Others'), rows.filter(function(row) { return row !== first })
			.map(function(row) {
				return '%s (%s)'.format(row.name, row.usable ? (row.service_class || []).length
					? _('only for %s').format(row.service_class.join(', ')) : _('usable') : parts.reason(row));
			}).join(', ')) : null,
		sourceLines(status.sources));
}

function authenticationTile(status) {
	const radius = status.radius || {}, accounting = radius.accounting || {}, dynamic = radius.dynamic;
	const cap = radiusWords.cap(radius.cap), trouble = radiusWords.said(accounting.trouble_words, accounting.trouble);
	const asked = (status.ident || {}).counters || {};
	const keyed = (status.concentrators || []).some(function(row) { return row.subscriber });
	const badge = !radius.enabled ? parts.badge('idle', keyed ? _('by key') : _('not asked'))
		: radius.accepted ? parts.badge('good', _('accepted')) : parts.badge('bad', _('not accepted'));

	return el('div', { 'class': 'cpe-tile', 'id': 'cpe-authentication' },
		el('div', { 'class': 'cpe-tile-head' }, el('strong', {}, _('Authentication')), badge),
		el('p', {}, radius.enabled ? (radius.accepted ? _('RADIUS has accepted this router.') : parts.reason(radius))
			: keyed ? _('A key shared with the concentrator.') : _('RADIUS is not asked.')),
		radius.detail ? el('p', { 'class': 'cpe-why' }, radiusWords.said(radius.detail_words, radius.detail)) : null,
		radius.enabled ? parts.fact(_('Server'),
			[ radius.server || _('none has answered'), (radius.transport || '').toUpperCase() ].filter(Boolean).join(', ')) : null,
		radius.expires_s != null ? parts.fact(_('Valid for'), units.duration(radius.expires_s)) : null,
		radius.asks_again_s != null ? parts.fact(_('Asks again in'), units.duration(radius.asks_again_s)) : null,
		status.ident ? parts.fact(_('Ident answered at'), status.ident.addresses.join(', ') || _('no address')) : null,
		status.ident ? parts.fact(_('Ident questions'), _('%d answered, %d turned away').format(asked.answered || 0,
			(asked.stranger || 0) + (asked.busy || 0) + (asked.malformed || 0))) : null,
		cap ? parts.fact(_('Rate cap'), parts.pair(cap[0], cap[1])) : null,
		accounting.enabled ? parts.fact(_('Accounting'),
			_('%d sent, %d waiting, %d lost').format(accounting.sent, accounting.waiting, accounting.lost)) : null,
		accounting.enabled && trouble ? el('p', { 'class': 'cpe-why', 'data-accounting': 'waits' },
			_('Accounting records wait: %s').format(trouble)) : null,
		dynamic ? parts.fact(_('Changes taken at'), dynamic.addresses.join(', ') || _('no address')) : null,
		dynamic ? radiusWords.requests(dynamic.counters || {}).map(function(row) { return parts.fact(row[0], row[1]) }) : null);
}

function proofList(names, records) {
	const proofs = flows.proofs(records, PROOFS);

	if (!proofs.length)
		return el('p', { 'class': 'cpe-quiet' },
			_('Nothing large has ended yet. Load something of more than %s, and this place shows which lines carried it.')
				.format(units.bytes(flows.PROOF_BYTES)));

	return proofs.map(function(proof) {
		return el('div', { 'class': 'cpe-proof' }, el('div', {}, flows.sentence(proof)), parts.shareBar(names, proof.parts));
	});
}

return view.extend({
	load: function() {
		parts.style();

		return Promise.all([
			parts.settings(),
			L.hasViewPermission() ? L.resolveDefault(uci.load('firewall')) : null,
			L.resolveDefault(callDump(), []),
			this.ask(true)
		]);
	},

	/* one batch: everything that a refresh needs goes out in the same request */
	ask: function(withRecords) {
		return Promise.all([
			api.status(),
			api.history(),
			withRecords ? api.records(RECORDS_ASKED).catch(function() { return { flows: [] } }) : null
		]).then(function(replies) {
			return { status: replies[0], history: replies[1], records: replies[2] };
		}, function(found) {
			return { trouble: found };
		});
	},

	render: function(loaded) {
		const status = loaded[3].status;

		/* who may not read the settings is told by the daemon whether there are WANs in them */
		if (L.hasViewPermission() ? !uci.sections('cpe-mcp', 'wan').length : status && !(status.wans || []).length) {
			this.first = firstpage;

			if (!L.hasViewPermission())
				this.handleSave = this.handleSaveApply = null;

			return firstpage.render(loaded[2]);
		}

		this.handleSave = this.handleSaveApply = null;
		this.round = 0;
		this.down = chart.create(_('Download'), 'down');
		this.up = chart.create(_('Upload'), 'up');
		this.notice = el('div', { 'id': 'cpe-notice' });
		this.tiles = el('div', { 'class': 'cpe-tiles', 'id': 'cpe-state' });
		this.wans = el('div', { 'class': 'cpe-tiles', 'id': 'cpe-wans' });
		this.legend = el('div', { 'class': 'cpe-legend' });
		this.proofs = el('div', { 'id': 'cpe-proofs' });
		this.live = el('div', {},
			this.tiles,
			parts.section(_('WANs'), this.wans),
			parts.section(_('Traffic'), el('div', { 'class': 'cpe-graphs' }, this.down.node, this.up.node), this.legend),
			parts.section(_('Proof'), el('p', { 'class': 'cpe-quiet' }, _('Which lines carried the last large transfers:')), this.proofs));

		this.show(loaded[3]);

		poll.add(L.bind(function() {
			this.round++;

			return this.ask(this.round % PROOF_EVERY === 0).then(L.bind(this.show, this));
		}, this), REFRESH_S);

		return el('div', { 'class': 'cbi-map' },
			parts.head(_('Multipath'), _('The access lines of this router, and what runs over them at this moment.')),
			this.notice, this.live);
	},

	show: function(answer) {
		this.live.classList.toggle('hidden', answer.trouble != null);
		dom.content(this.notice, answer.trouble ? parts.trouble(answer.trouble) : []);

		if (answer.trouble)
			return;

		const status = answer.status, wans = status.wans || [];
		const names = wans.map(function(wan) { return wan.name });

		dom.content(this.tiles, [ packageTile(status), concentratorTile(status), authenticationTile(status) ]);
		dom.content(this.wans, wans.length ? wans.map(function(wan) { return wanTile(names, wan) })
			: [ el('p', {}, _('The daemon manages no WAN yet.')) ]);
		dom.content(this.legend, names.map(function(name) { return parts.wan(names, name) }));
		this.down.update(answer.history, names);
		this.up.update(answer.history, names);

		if (answer.records)
			dom.content(this.proofs, [].concat(proofList(names, answer.records.flows)));
	},

	handleSave: function() {
		return this.first.save();
	},

	handleSaveApply: function(ev, mode) {
		return this.first.save().then(function() { ui.changes.apply(mode == '0') }, function() {});
	},

	handleReset: null
});
