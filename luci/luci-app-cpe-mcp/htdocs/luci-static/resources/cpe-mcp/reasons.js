'use strict';
'require baseclass';

/* Made by tools/luci_declared.py (make generate) from policy/reasons.py; change it there. */

return baseclass.extend({
	texts: {
		'starting': _('the daemon is starting'),
		'ready': _('connections use all healthy WANs'),
		'disabled': _('switched off in the settings (global.enabled)'),
		'no-wan': _('no managed WAN is usable'),
		'no-concentrator': _('no concentrator is known or usable'),
		'not-authorized': _('RADIUS refused this subscriber'),
		'auth-timeout': _('no RADIUS server answered'),
		'auth-pending': _('waiting for the RADIUS answer'),
		'proxied': _('carried over Multipath TCP'),
		'pooled': _('carried over Multipath TCP on a warm connection'),
		'concentrator-unreachable': _('the concentrator did not accept a connection'),
		'concentrator-timeout': _('the concentrator did not answer in time'),
		'concentrator-nonsense': _('the concentrator\'s answer was not Convert'),
		'concentrator-refused': _('the concentrator does not know this subscriber (Convert Error 32)'),
		'concentrator-busy': _('the concentrator asked to be left alone for a while (Convert Error 64 or 65)'),
		'server-refused': _('the server refused the connection (Convert Error 96)'),
		'server-unreachable': _('the server cannot be reached from the concentrator (Convert Error 97)'),
		'blocked': _('no concentrator serves this flow and the settings forbid a direct connection'),
		'no-ipv6': _('the concentrator has shown that it does not reach IPv6 servers'),
		'no-common-family': _('no usable WAN has an address of the concentrator\'s family'),
		'no-worker': _('no relay worker is connected, so no connection is taken'),
		'not-global': _('the destination is not a global address, and only those are taken (global.intercept)'),
		'not-taken': _('the settings say that no connection is taken (global.intercept)'),
		'left-direct': _('it failed through the concentrator a short time ago and is left to plain forwarding'),
		'wan-network': _('the destination is in a network directly behind a WAN, and those are never taken'),
		'other-way': _('the route to it does not leave by a managed WAN, and only that is taken'),
		'mptcp-stripped': _('the concentrator was reached over plain TCP only: the handshake came back without MPTCP'),
		'mptcp-lost': _('the connection to the concentrator fell back to plain TCP while it ran'),
		'cookie-wanted': _('this listener faces the Internet and wants a cookie'),
		'wrong-cookie': _('the cookie was not made with the subscriber\'s key'),
		'unknown-subscriber': _('the cookie names no subscriber of the table'),
		'unknown-address': _('the source address is in no subscriber\'s prefixes, and RADIUS is not asked'),
		'malformed': _('the peer\'s Convert message was malformed'),
		'pool-full': _('the subscriber has as many warm connections as it may have'),
		'tcp-option-unsupported': _('a TCP option was asked for that this concentrator cannot send'),
		'destination-refused': _('this destination is not reachable through the concentrator'),
		'no-resources': _('the concentrator has no descriptors, memory or ports left'),
		'network-failure': _('the concentrator\'s own network is down'),
		'idle': _('nothing came in time'),
		'wan-up': _('up'),
		'wan-link-down': _('the link is down'),
		'wan-no-address': _('the WAN has no address'),
		'wan-no-route': _('the WAN has no default route'),
		'wan-silent': _('the link is up but nothing comes back over it'),
		'wan-held-down': _('it answers again and is watched for a moment before it is used'),
		'closed': _('closed by both ends'),
		'client-reset': _('reset by the LAN client'),
		'server-reset': _('reset by the server'),
		'mptcp-reset': _('the connection to the concentrator was reset'),
		'worker-stopped': _('the relay worker was stopped'),
		'dropped': _('ended by hand (cpe-mcp drop)'),
	},

	/* the text of a row { reason, text }: translated, or as the daemon wrote it */
	text: function(row) {
		return this.texts[row.reason] || row.text || row.reason || '';
	}
});
