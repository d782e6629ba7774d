'use strict';
'require baseclass';

/* Where each option of /etc/config/cpe-mcp stands on the pages, and what a person calls it. What an option may be is not
   said here but in declared.js. Pure. */

const SECTIONS = [
	{
		type: 'global',
		title: _('General'),
		basic: {
			enabled: _('Use several WANs at once'),
			lan: _('LAN devices'),
			intercept: _('Connections taken'),
			fallback: _('Without a concentrator')
		},
		advanced: {
			mptcp_syn: _('LAN devices that speak MPTCP'),
			direct_s: _('Leave a failed destination alone for'),
			congestion_control: _('Congestion control'),
			connect_timeout_s: _('Time limit of the handshake'),
			reply_timeout_s: _('Time limit of the reply'),
			pool_size: _('Warm connections'),
			pool_idle_s: _('Age of warm connections'),
			workers: _('Worker processes'),
			intercept_port: _('Port of the workers'),
			metrics_s: _('Write metrics every'),
			run_dir: _('Runtime directory'),
			state_dir: _('Directory of the used quota')
		}
	},
	{
		type: 'wan',
		title: _('WANs'),
		basic: {
			enabled: _('Enabled'),
			interface: _('Interface'),
			device: _('Device'),
			role: _('Role'),
			preference: _('Preference'),
			metered: _('Metered'),
			quota_gb: _('Monthly quota'),
			quota_day: _('Quota begins anew on day'),
			quota_soft_percent: _('Only as backup from')
		},
		advanced: {
			trust_dhcp: _('Believe its DHCP'),
			rate_down_mbit: _('Download rate'),
			rate_up_mbit: _('Upload rate'),
			operator_network: _('Network of the operator')
		},
		columns: [ 'enabled', 'interface', 'device', 'role', 'preference' ]
	},
	{
		type: 'concentrator',
		title: _('Concentrators'),
		basic: {
			enabled: _('Enabled'),
			address: _('Addresses'),
			port: _('Port'),
			subscriber: _('Subscriber'),
			key: _('Key')
		},
		advanced: {
			foreign: _('Another make'),
			service_class: _('Only for')
		},
		columns: [ 'enabled', 'address', 'port', 'subscriber' ]
	},
	{
		type: 'discovery',
		title: _('Discovery'),
		basic: {
			precedence: _('Sources, best first'),
			dhcp: _('Learn from DHCP'),
			dns_name: _('Names in DNS'),
			trust_alone: _('Trusted alone'),
			second_source: _('Confirms the others')
		},
		advanced: {
			interface: _('Interfaces asked'),
			dns_server: _('DNS resolvers'),
			dnssec: _('Signatures in DNS'),
			trust_anchor: _('Trust anchors'),
			dhcp_override: _('DHCP goes first'),
			dhcp4_code: _('DHCPv4 option'),
			dhcp4_name_code: _('DHCPv4 option of a domain'),
			dhcp6_code: _('DHCPv6 option'),
			service_port: _('Port'),
			prefer: _('Address family'),
			nonsense_s: _('Leave a confused concentrator alone for')
		}
	},
	{
		type: 'radius',
		title: _('Authentication'),
		basic: {
			enabled: _('Ask RADIUS'),
			server: _('Servers'),
			transport: _('Transport'),
			secret: _('Secret'),
			username: _('User name'),
			password: _('Password')
		},
		advanced: {
			method: _('Password is sent by'),
			tls_ca: _('Certificate authority'),
			tls_cert: _('Own certificate'),
			tls_key: _('Key of the certificate'),
			tls_name: _('Name of the servers'),
			on_reject: _('After a Reject'),
			on_timeout: _('Without an answer'),
			calling_station: _('Calling station'),
			nas_identifier: _('NAS identifier'),
			timeout_s: _('Time limit of one try'),
			tries: _('Tries'),
			retry_s: _('Pause before asking again'),
			enterprise: _('Enterprise number'),
			accounting: _('Accounting'),
			accounting_port: _('Port for accounting'),
			interim_s: _('Interim records every'),
			dynamic: _('Changes by the servers'),
			dynamic_client: _('Who may send changes'),
			dynamic_port: _('Port for changes')
		}
	},
	{
		type: 'ident',
		title: _('Questions by the concentrators'),
		basic: {},
		advanced: {
			enabled: _('Answer Ident'),
			user: _('Answer')
		}
	},
	{
		type: 'quic',
		title: _('QUIC'),
		basic: {
			policy: _('QUIC (HTTP/3)')
		},
		advanced: {}
	},
	{
		type: 'paths',
		title: _('Use of the lines'),
		basic: {
			scheme: _('Who carries'),
			busy_percent: _('Others join at'),
			busy_s: _('when it lasts'),
			idle_percent: _('They leave at'),
			idle_s: _('when that lasts')
		},
		advanced: {
			silent_ms: _('Silence before a probe'),
			return_s: _('Watch a returning line for'),
			flap_count: _('Hold down after so many outages'),
			flap_window_s: _('Outages within'),
			hold_s: _('Hold down for'),
			tune_kernel: _('Tune the kernel')
		}
	},
	{
		type: 'dscp',
		title: _('DSCP'),
		basic: {
			mode: _('Marking'),
			value: _('Value'),
			map: _('Translations')
		},
		advanced: {}
	},
	{
		type: 'logging',
		title: _('Logging'),
		basic: {
			level: _('Level'),
			flows: _('Log connections'),
			mask: _('Shorten addresses')
		},
		advanced: {}
	},
	{
		type: 'dns',
		title: _('Names in rules'),
		basic: {},
		advanced: {
			confdir: _('Snippet directory'),
			restart: _('Restart command')
		}
	},
	{
		type: 'rule',
		title: _('Rules'),
		page: 'rules',
		basic: {
			name: _('Name'),
			enabled: _('Enabled'),
			action: _('Action'),
			domain: _('Domains'),
			dest: _('Destinations'),
			dest_port: _('Ports')
		},
		advanced: {
			src: _('LAN addresses'),
			mac: _('LAN hardware addresses'),
			proto: _('Protocols'),
			dscp: _('DSCP'),
			concentrator: _('Concentrator'),
			scheme: _('One WAN only'),
			fallback: _('Without a concentrator')
		},
		columns: [ 'enabled', 'name', 'action' ]
	}
];

/* where a concentrator is known from, as the daemon names it */
const SOURCES = {
	static: _('Settings'),
	radius: 'RADIUS',
	dhcp4: 'DHCP',
	dhcp6: 'DHCPv6',
	dns: 'DNS'
};

/* the same words in two options */
const TRUST = {
	static: _('the concentrators set here'),
	radius: 'RADIUS',
	dnssec: _('DNS (signed)'),
	dhcp: 'DHCP',
	dns: _('DNS (not signed)'),
	none: _('none of them')
};

const CHOICES = {
	'global.intercept': {
		global: _('to global addresses only'),
		any: _('whatever leaves by a managed WAN'),
		none: _('none but what a rule takes')
	},
	'global.fallback': { direct: _('connect directly'), block: _('do not connect') },
	'global.mptcp_syn': { proxy: _('carry them like any other'), pass: _('leave them alone') },
	'paths.scheme': {
		adaptive: _('the best WAN, and all while it is busy'),
		aggregate: _('all WANs at once'),
		'primary-backup': _('the best WAN alone, another one when it fails'),
		overflow: _('unmetered WANs first, the next one when they are full'),
		'lowest-latency': _('the WAN with the shortest round trip alone')
	},
	'wan.role': { normal: _('normal'), backup: _('only when no other works') },
	'discovery.precedence': {
		static: _('the concentrators set here'),
		radius: 'RADIUS',
		dhcp: 'DHCP',
		dns: 'DNS'
	},
	'discovery.trust_alone': TRUST,
	'discovery.second_source': TRUST,
	'discovery.dnssec': {
		validate: _('checked here'),
		resolver: _('checked by a resolver on this router'),
		off: _('not checked')
	},
	'discovery.prefer': { ipv4: _('IPv4 first'), ipv6: _('IPv6 first') },
	'radius.transport': { udp: _('UDP, in the operator\'s network only'), tls: 'TLS' },
	'radius.method': { pap: 'PAP', chap: 'CHAP' },
	'radius.on_reject': { direct: _('connect directly'), block: _('do not connect') },
	'radius.on_timeout': {
		direct: _('connect directly'),
		block: _('do not connect'),
		proxy: _('as if accepted')
	},
	'rule.action': { proxy: _('all WANs'), direct: _('direct, over one WAN'), block: _('block') },
	'rule.fallback': { global: _('as the settings say'), block: _('do not connect') },
	'rule.proto': { tcp: 'TCP', udp: 'UDP' },
	'quic.policy': {
		forward: _('let it pass, over the best WAN alone'),
		reject: _('refuse it, so that browsers use TCP over all WANs')
	},
	'dscp.mode': {
		preserve: _('as the device wrote it'),
		set: _('always the same value'),
		off: _('no marking')
	},
	'logging.level': { debug: _('debug'), info: _('info'), warning: _('warning'), error: _('error') }
};

return baseclass.extend({
	/* the sections of a page ('settings' or 'rules'), in order */
	sections: function(page) {
		return SECTIONS.filter(function(section) { return (section.page || 'settings') === page });
	},

	section: function(type) {
		return SECTIONS.find(function(section) { return section.type === type });
	},

	/* what a choice is called: the word of the settings file where nobody thought of a better one */
	choice: function(type, option, value) {
		return (CHOICES[type + '.' + option] || {})[value] || value;
	},

	source: function(name) {
		return SOURCES[name] || name;
	},

	/* rows { name, title, tab } for all of `names` (the declared options). One that has no place yet comes last, under
	   the name it has in the file: nothing the daemon knows is out of reach */
	place: function(type, names) {
		const section = this.section(type) || { basic: {}, advanced: {} };
		const rows = [];

		[ 'basic', 'advanced' ].forEach(function(tab) {
			Object.keys(section[tab]).forEach(function(name) {
				if (names.indexOf(name) >= 0)
					rows.push({ name: name, title: section[tab][name], tab: tab });
			});
		});

		names.forEach(function(name) {
			if (!rows.some(function(row) { return row.name === name }))
				rows.push({ name: name, title: name, tab: 'advanced' });
		});

		return rows;
	},

	/* a rule in one line: 'to example.com, port 443, from 192.168.1.20' */
	ruleSummary: function(rule) {
		const parts = [];
		const list = function(value) { return value == null || value === '' ? [] : [].concat(value) };
		const add = function(text, values) {
			if (values.length)
				parts.push(text.format(values.slice(0, 3).join(', ') + (values.length > 3 ? ' …' : '')));
		};

		add(_('to %s'), list(rule.domain).concat(list(rule.dest)));
		add(_('port %s'), list(rule.dest_port));
		add(_('from %s'), list(rule.src).concat(list(rule.mac)));
		add('%s', list(rule.proto).map(function(name) { return name.toUpperCase() }));
		add(_('DSCP %s'), list(rule.dscp));

		return parts.join(', ') || _('everything');
	}
});
