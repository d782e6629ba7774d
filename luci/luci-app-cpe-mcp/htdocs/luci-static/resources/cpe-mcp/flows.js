'use strict';
'require baseclass';
'require cpe-mcp.units as units';

/* Live and finished flows: what a row says, sorting, filtering, and the proof that a transfer used several WANs. Pure. */

function number(value) {
	return value == null ? -1 : value;
}

const SORT_KEYS = {
	started: function(flow) { return number(flow.started) },
	client: function(flow) { return flow.client },
	server: function(flow) { return flow.server },
	wans: function(flow) { return flow.wan || '' },
	down: function(flow) { return number(flow.bytes_down) },
	up: function(flow) { return number(flow.bytes_up) }
};

return baseclass.extend({
	/* a smaller transfer is over before a second line can help, and proves nothing */
	PROOF_BYTES: 5000000,

	sortKeys: Object.keys(SORT_KEYS),

	sorted: function(flows, key, descending) {
		const of = SORT_KEYS[key] || SORT_KEYS.started;

		return flows.slice().sort(function(a, b) {
			const x = of(a), y = of(b);
			const order = typeof(x) === 'string' ? x.localeCompare(y, undefined, { numeric: true }) : x - y;

			return descending ? -order : order;
		});
	},

	/* the same parts that the daemon looks at */
	matches: function(flow, text) {
		const wanted = text.trim().toLowerCase();

		return !wanted || [ flow.client, flow.server, flow.concentrator, flow.wan, flow.action ]
			.concat((flow.subflows || []).map(function(subflow) { return subflow.wan }))
			.some(function(part) { return part && String(part).toLowerCase().indexOf(wanted) >= 0 });
	},

	/* names of the WANs of a flow, each once: those of its subflows, else that of the first subflow */
	wans: function(flow) {
		const names = (flow.subflows || []).map(function(subflow) { return subflow.wan });

		return Array.from(new Set(names.length ? names : [ flow.wan ])).filter(Boolean);
	},

	/* how a finished transfer spread: { direction, bytes, site, parts: [ { wan, bytes, percent } ] }, most first;
	   null when it was small or nobody knows */
	proof: function(record) {
		const direction = record.bytes_down >= record.bytes_up ? 'down' : 'up';
		const bytes = direction === 'down' ? record.bytes_down : record.bytes_up;
		const byWan = record.bytes_by_wan || {};
		const parts = Object.keys(byWan)
			.map(function(wan) { return { wan: wan, bytes: byWan[wan][direction] || 0 } })
			.filter(function(part) { return part.bytes > 0 })
			.sort(function(a, b) { return b.bytes - a.bytes || a.wan.localeCompare(b.wan) });

		if (bytes < this.PROOF_BYTES || !parts.length)
			return null;

		const shares = units.shares(parts.map(function(part) { return part.bytes }));

		parts.forEach(function(part, i) { part.percent = shares[i] });

		return { direction: direction, bytes: bytes, site: record.server, parts: parts, duration_s: record.duration_s };
	},

	/* the newest `count` proofs */
	proofs: function(records, count) {
		return this.sorted(records || [], 'started', true)
			.map(L.bind(this.proof, this))
			.filter(Boolean)
			.slice(0, count);
	},

	/* one sentence */
	sentence: function(proof) {
		const what = (proof.direction === 'down' ? _('This download (%s, %s)') : _('This upload (%s, %s)'))
			.format(units.bytes(proof.bytes), proof.site);

		if (proof.parts.length === 1)
			return _('%s used %s alone.').format(what, proof.parts[0].wan);

		const parts = proof.parts.map(function(part) {
			return '%s %s'.format(part.wan, units.percent(part.percent / 100));
		});
		const last = parts.pop();

		return _('%s used %s and %s.').format(what, parts.join(', '), last);
	},

	/* the section that leaves a site to plain forwarding */
	directRule: function(flow) {
		return {
			name: _('Direct: %s').format(flow.server),
			action: 'direct',
			dest: [ flow.server ]
		};
	}
});
