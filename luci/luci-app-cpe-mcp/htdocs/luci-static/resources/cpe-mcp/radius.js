'use strict';
'require baseclass';
'require cpe-mcp.units as units';
'require cpe-mcp.words as words';

/* What RADIUS orders, and what became of accounting and of requests for changes, in words. Pure. */

/* requests that got no answer, or the answer that an earlier one got; by the daemon's names of its counters */
const OTHERS = {
	'duplicate': _('%d sent again'),
	'unknown-peer': _('%d from unknown addresses'),
	'malformed': _('%d malformed'),
	'unexpected': _('%d of another kind'),
	'forged': _('%d forged, or with another secret'),
	'unsigned': _('%d without Message-Authenticator'),
	'no-timestamp': _('%d without Event-Timestamp'),
	'stale': _('%d of another time')
};

const ANSWERED = { 'CoA-Requests': 'coa', 'Disconnect-Requests': 'disconnect' };

return baseclass.extend({
	/* texts of a cap, down and up; null: there is none */
	cap: function(cap) {
		if (!cap || !cap.down_mbit && !cap.up_mbit)
			return null;

		return [ cap.down_mbit, cap.up_mbit ].map(function(mbit) { return mbit ? units.rate(mbit) : _('no limit') });
	},

	/* rows of the daemon's words in one line, or what it wrote (plain) where there are none: a server's own message,
	   an older daemon */
	said: function(rows, plain) {
		return (rows || []).map(function(row) { return words.text(row) }).join('; ') || plain || '';
	},

	/* rows [ title, text ] of the counters of CoA- and Disconnect-Requests */
	requests: function(counters) {
		const rows = Object.keys(ANSWERED).map(function(title) {
			const done = counters[ANSWERED[title] + '-ack'] || 0, refused = counters[ANSWERED[title] + '-nak'] || 0;

			return done || refused ? [ title, _('%d carried out, %d refused').format(done, refused) ] : null;
		}).filter(Boolean);
		const others = Object.keys(counters).sort().filter(function(kind) {
			return !/^(coa|disconnect)-(ack|nak)$/.test(kind) && counters[kind];
		}).map(function(kind) {
			return OTHERS[kind] ? OTHERS[kind].format(counters[kind]) : '%d %s'.format(counters[kind], kind);
		});

		if (others.length)
			rows.push([ _('Not carried out'), others.join(', ') ]);

		return rows.length ? rows : [ [ _('Requests for changes'), _('none yet') ] ];
	}
});
