'use strict';

/*
 * The public ubus object cpe-mcp, for people, programs and LuCI. Each method forwards to the daemon's private object,
 * which takes one table "args" and answers with a table that has either "reply", or "error" and "text". rpcd adds what
 * the daemon's side cannot have: optional arguments, LuCI's session and its access lists, and an answer while the
 * daemon is down.
 *
 * What goes wrong arrives as { "error": CODE, "text": what a person reads } together with a ubus status, so that both a
 * page and an exit code tell. Codes: not-running, no-answer, not-offered, and the daemon's own: refused, failed, too-long.
 */

import { connect } from 'ubus';

const DAEMON = 'cpe-mcp.daemon';

/* seconds; the daemon answers within 10, LuCI gives up after 20 */
const TIMEOUT = 15;

const STATUS = {
	'not-running': UBUS_STATUS_CONNECTION_FAILED,
	'no-answer': UBUS_STATUS_TIMEOUT,
	'not-offered': UBUS_STATUS_METHOD_NOT_FOUND,
	'refused': UBUS_STATUS_INVALID_ARGUMENT,
	'too-long': UBUS_STATUS_INVALID_ARGUMENT
};

/* the type of an argument is the type of its value here; a number gives the width in bits */
const TEXT = 'text', NUMBER = 32, BOOLEAN = true;

const METHODS = {
	status: {},
	paths: {},
	history: {},
	flows: { limit: NUMBER, filter: TEXT },
	records: { limit: NUMBER, filter: TEXT },
	concentrators: {},
	check: {},
	why: { dest: TEXT, port: NUMBER, client: TEXT, id: TEXT },
	speedtest: { action: TEXT, wan: TEXT },
	drop: { id: TEXT },
	quota: { wan: TEXT, used_gb: TEXT },
	support: { full: BOOLEAN },
	reload: {}
};

let bus = null;

function fail(request, code, text) {
	request.reply({ error: code, text: text }, STATUS[code] ?? UBUS_STATUS_UNKNOWN_ERROR);
}

function not_running(request) {
	fail(request, 'not-running', 'the daemon cpe-mcpd is not running; start it with /etc/init.d/cpe-mcp start');
}

function answered(request, method, status, answer) {
	if (status == UBUS_STATUS_OK && type(answer?.reply) == 'object')
		request.reply(answer.reply);
	else if (status == UBUS_STATUS_OK && answer?.error)
		fail(request, answer.error, answer.text);
	else if (status == UBUS_STATUS_METHOD_NOT_FOUND)
		fail(request, 'not-offered', `the daemon has no method ${method}: it is older than this plugin`);
	else if (status == UBUS_STATUS_TIMEOUT)
		fail(request, 'no-answer', `the daemon did not answer within ${TIMEOUT} s`);
	else if (status == UBUS_STATUS_NOT_FOUND || status == UBUS_STATUS_CONNECTION_FAILED)
		not_running(request);
	else
		fail(request, 'failed', `the daemon answered with ubus status ${status}`);
}

function forward(request, method) {
	const args = { ...(request.args ?? {}) };

	delete args.ubus_rpc_session;
	bus ??= connect(null, TIMEOUT);

	/* rpcd goes on with others meanwhile. Without an object of that name there is nothing to wait for. */
	const waiting = bus?.defer(DAEMON, method, { args: args }, (status, answer) => {
		answered(request, method, status, answer);
	});

	if (!waiting)
		not_running(request);

	return waiting;
}

const object = {};

for (let name, args in METHODS) {
	const method = name;

	object[method] = { args: args, call: (request) => forward(request, method) };
}

return { 'cpe-mcp': object };
