'use strict';
'require baseclass';
'require rpc';
'require cpe-mcp.trouble as trouble';

/* The ubus object cpe-mcp. Each method gives a promise of its reply; what goes wrong arrives as a rejection with one of
   the troubles of trouble.js, so that a page says what to do instead of turning for ever. */

function method(name, params) {
	const call = rpc.declare({ object: 'cpe-mcp', method: name, params: params || [] });

	return function() {
		return call.apply(null, arguments).then(function(reply) {
			const found = trouble.ofReply(reply);

			return found ? Promise.reject(found) : reply;
		}, function(error) {
			return Promise.reject(trouble.ofError(error));
		});
	};
}

return baseclass.extend({
	status: method('status'),
	history: method('history'),
	flows: method('flows', [ 'limit', 'filter' ]),
	records: method('records', [ 'limit', 'filter' ]),
	check: method('check'),
	why: method('why', [ 'dest', 'port', 'client' ]),
	whyFlow: method('why', [ 'id' ]),
	speedtest: method('speedtest', [ 'action', 'wan' ]),
	drop: method('drop', [ 'id' ]),
	quota: method('quota', [ 'wan', 'used_gb' ]),
	support: method('support')
});
