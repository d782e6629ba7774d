'use strict';
'require baseclass';

/* Why the daemon gave no answer, and what a person does about it. Pure. */

/* codes of ubus and of rpcd's JSON-RPC that mean something here */
const NOT_FOUND = 4, PERMISSION_DENIED = 6, TIMEOUT = 7;
const RPC_NOT_FOUND = -32000, RPC_DENIED = -32002;

const TEXTS = {
	absent: [
		_('The router does not know the service yet.'),
		_('Is the package cpe-mcp installed? Right after an installation, restart rpcd or the router.')
	],
	down: [
		_('The multipath daemon is not running.'),
		_('Connections go out over the default WAN as if this package were not there. Start the service "cpe-mcp" under System, Startup, and look at the system log when it stops again.')
	],
	denied: [
		_('This login may not ask the multipath daemon.'),
		_('Log out and in again: permissions are fixed at login.')
	],
	slow: [
		_('The multipath daemon did not answer in time.'),
		_('Try again in a moment. When it stays silent, restart the service "cpe-mcp" under System, Startup.')
	],
	refused: [
		_('The multipath daemon refused the request.'),
		''
	]
};

/* the words that rpcd's plugin and the daemon answer with */
const KIND_OF_WORD = { 'not-running': 'down', 'no-answer': 'slow' };

function kindOfCode(code) {
	switch (code) {
	case NOT_FOUND:
	case RPC_NOT_FOUND:
		return 'absent';
	case PERMISSION_DENIED:
	case RPC_DENIED:
		return 'denied';
	case TIMEOUT:
		return 'slow';
	default:
		return 'down';
	}
}

function trouble(kind, detail) {
	return { kind: kind, text: TEXTS[kind][0], next: TEXTS[kind][1], detail: detail || '' };
}

return baseclass.extend({
	/* what is wrong with a reply: null for a good one (a table), else { kind, text, next, detail } */
	ofReply: function(reply) {
		if (typeof(reply) === 'number')
			return trouble(kindOfCode(reply));

		if (reply == null || typeof(reply) !== 'object')
			return trouble('down');

		if (typeof(reply.error) === 'string' && reply.error)
			return trouble(KIND_OF_WORD[reply.error] || 'refused', reply.text || reply.error);

		return null;
	},

	/* the same of an exception of LuCI's rpc class */
	ofError: function(error) {
		const code = String(error && error.message || error).match(/(?:error|ubus code) (-?[0-9]+)/);

		return code ? trouble(kindOfCode(+code[1])) : trouble('slow', String(error && error.message || error));
	}
});
