'use strict';
'require baseclass';

/* Made by tools/luci_declared.py (make generate) from the settings' declarations; change it there. */

return baseclass.extend({
	sections: {
		'global': {
			many: false,
			doc: _('The package as a whole.'),
			options: {
				'enabled': { kind: 'flag', default: '1', doc: _('Switches the whole package on or off; off leaves plain forwarding.') },
				'workers': { kind: 'integer', default: '1', low: 1, high: 16, doc: _('Relay worker processes.') },
				'lan': { kind: 'text', many: true, default: [ 'br-lan' ], doc: _('Devices whose connections are taken.') },
				'intercept': { kind: 'choice', default: 'global', choices: [ 'global', 'any', 'none' ], doc: _('Which destinations are taken: global addresses only, any that leaves by a managed WAN, or none but what a rule takes.') },
				'mptcp_syn': { kind: 'choice', default: 'proxy', choices: [ 'proxy', 'pass' ], doc: _('What happens to a LAN connection that asks for MPTCP itself: proxied like any other, or passed untouched.') },
				'intercept_port': { kind: 'integer', default: '5125', low: 1, high: 65535, doc: _('Local port of the relay workers.') },
				'fallback': { kind: 'choice', default: 'direct', choices: [ 'direct', 'block' ], doc: _('What a connection gets when no concentrator serves it: a direct connection, or none.') },
				'direct_s': { kind: 'number', default: '300', low: 1, high: 86400, unit: 's', doc: _('How long a destination that failed through the concentrator is left to plain forwarding.') },
				'pool_size': { kind: 'integer', default: '8', low: 0, high: 256, doc: _('Warm connections each worker keeps ready; 0 for none.') },
				'pool_idle_s': { kind: 'number', default: '240', low: 1, high: 3600, unit: 's', doc: _('Age at which a warm connection is replaced.') },
				'connect_timeout_s': { kind: 'number', default: '3', low: 0.1, high: 60, unit: 's', doc: _('For the handshake with the concentrator.') },
				'reply_timeout_s': { kind: 'number', default: '10', low: 0.5, high: 120, unit: 's', doc: _('For the Convert reply.') },
				'congestion_control': { kind: 'text', default: 'auto', doc: _('TCP congestion control towards the concentrator; auto: the kernel\'s own, and bbr where lines lose packets.') },
				'run_dir': { kind: 'text', default: '/var/run/cpe-mcp', doc: _('Directory of sockets and runtime state, in RAM.') },
				'state_dir': { kind: 'text', default: '/etc/cpe-mcp', doc: _('Directory, on flash, of what has to survive a reboot: the used volume of WANs with a quota, written once an hour at most.') },
				'metrics_s': { kind: 'number', default: '0', low: 0, high: 3600, unit: 's', doc: _('How often cpe-mcp.prom is written to run_dir, for the textfile collector of a Prometheus exporter; 0: never.') },
			}
		},
		'wan': {
			many: true,
			doc: _('One access network the package may use.'),
			options: {
				'enabled': { kind: 'flag', default: '1', doc: _('Whether this WAN is used.') },
				'device': { kind: 'text', default: '', doc: _('Network device, for example eth1 or wwan0. Required.') },
				'interface': { kind: 'text', default: '', doc: _('netifd\'s name of the interface, for example wan; empty: same as the section.') },
				'preference': { kind: 'integer', default: '10', low: 0, high: 1000, doc: _('Lower is preferred for first subflows; equal ones are ordered by RTT.') },
				'role': { kind: 'choice', default: 'normal', choices: [ 'normal', 'backup' ], doc: _('normal: used when worthwhile; backup: used only when no normal WAN is healthy.') },
				'operator_network': { kind: 'flag', default: '0', doc: _('The operator\'s own, closed network, where nobody else listens: only over such WANs RADIUS is asked without TLS.') },
				'metered': { kind: 'flag', default: '0', doc: _('Its bytes cost money: it has no subflow until it is needed, not even an idle one. A WAN with a quota is always metered.') },
				'quota_gb': { kind: 'number', default: '0', low: 0, high: 1000000, unit: 'GB', doc: _('Volume of one month, both directions and all traffic of the device together, 1 GB = 10^9 bytes; 0: no quota. When it is used up, the WAN is the last resort.') },
				'quota_day': { kind: 'integer', default: '1', low: 1, high: 31, doc: _('Day of the month on which the quota begins anew; in a shorter month, its last day.') },
				'quota_soft_percent': { kind: 'integer', default: '80', low: 1, high: 100, unit: '%', doc: _('Share of the quota from which on the WAN is used as if its role were backup; 100: no such step.') },
				'trust_dhcp': { kind: 'flag', default: '0', doc: _('Concentrators that this WAN\'s DHCP names are used without anybody\'s confirmation. For an access network where nobody but the operator can answer DHCP.') },
				'rate_down_mbit': { kind: 'number', default: '0', low: 0, high: 100000, unit: 'Mbit/s', doc: _('Known download rate; 0: learnt from traffic.') },
				'rate_up_mbit': { kind: 'number', default: '0', low: 0, high: 100000, unit: 'Mbit/s', doc: _('Known upload rate; 0: learnt from traffic.') },
			}
		},
		'paths': {
			many: false,
			doc: _('How WANs are judged and used.'),
			options: {
				'scheme': { kind: 'scheme', default: 'adaptive', doc: _('Who carries. adaptive: the best WAN, and all while it is busy; aggregate: all at once; primary-backup: the best WAN alone; overflow: unmetered WANs first, the next one joins when those before it are full; lowest-latency: the WAN with the shortest round trip alone; single:WAN: that WAN and no other, also when it fails.') },
				'busy_percent': { kind: 'number', default: '70', low: 10, high: 100, unit: '%', doc: _('Load of the carrying WANs at which the next ones join.') },
				'busy_s': { kind: 'number', default: '0.3', low: 0.1, high: 60, unit: 's', doc: _('How long that load must last.') },
				'idle_percent': { kind: 'number', default: '50', low: 1, high: 99, unit: '%', doc: _('Load, of what fewer WANs can carry, at which the last ones leave.') },
				'idle_s': { kind: 'number', default: '4', low: 0.1, high: 600, unit: 's', doc: _('How long that must last.') },
				'silent_ms': { kind: 'integer', default: '100', low: 20, high: 5000, unit: 'ms', doc: _('Silence on a line that was carrying traffic before it is probed.') },
				'return_s': { kind: 'number', default: '1', low: 0.3, high: 600, unit: 's', doc: _('How long a dead line must answer again before it is used.') },
				'flap_count': { kind: 'integer', default: '5', low: 0, high: 100, doc: _('A WAN that went away so often within flap_window_s is held down; 0: never.') },
				'flap_window_s': { kind: 'number', default: '120', low: 1, high: 86400, unit: 's', doc: _('See flap_count.') },
				'hold_s': { kind: 'number', default: '10', low: 1, high: 300, unit: 's', doc: _('How long a flapping WAN is held down at first; each further time twice as long, up to 300.') },
				'tune_kernel': { kind: 'flag', default: '1', doc: _('Set the kernel\'s TCP buffers (net.ipv4.tcp_rmem, tcp_wmem), and keep it from switching Multipath TCP off for an hour (net.mptcp.blackhole_timeout). The log names each change.') },
			}
		},
		'discovery': {
			many: false,
			doc: _('Where concentrators are learnt from.'),
			options: {
				'dhcp': { kind: 'flag', default: '1', doc: _('Take concentrators from DHCP options.') },
				'precedence': { kind: 'choice', many: true, default: [ 'static', 'radius', 'dhcp', 'dns' ], choices: [ 'static', 'radius', 'dhcp', 'dns' ], doc: _('Where concentrators are learnt from, best first: the first one that names any gives the whole list. A source that is left out is not used.') },
				'dhcp_override': { kind: 'flag', default: '0', doc: _('Old way to write the precedence radius, dhcp, static, dns. Not together with precedence.') },
				'trust_alone': { kind: 'choice', many: true, default: [ 'static', 'radius', 'dnssec' ], choices: [ 'static', 'radius', 'dnssec', 'dhcp', 'dns', 'none' ], doc: _('Sources whose word is enough: an address that another source names is used only when a second one names it too. dnssec is DNS with a valid signature, dns is DNS without; none: everything needs a second source.') },
				'second_source': { kind: 'choice', many: true, default: [ 'static', 'radius', 'dnssec', 'dhcp' ], choices: [ 'static', 'radius', 'dnssec', 'dhcp', 'dns', 'none' ], doc: _('Sources that count as the second one; for DHCP it is that of another WAN. none: only sources of trust_alone are used.') },
				'dns_name': { kind: 'domain', many: true, default: [], doc: _('Names whose DNS SRV records name concentrators, such as _convert._tcp.example.net; empty: DNS is not asked.') },
				'dns_server': { kind: 'address', many: true, default: [], doc: _('Resolvers that are asked for them; empty: those that the WANs\' DHCP named.') },
				'dnssec': { kind: 'choice', default: 'validate', choices: [ 'validate', 'resolver', 'off' ], doc: _('Who checks the signatures of DNS. validate: this package, from trust_anchor down (package python3-cryptography); resolver: a validating resolver on this router, which dns_server names; off: nobody, and no answer counts as signed.') },
				'trust_anchor': { kind: 'text', many: true, default: [ '. 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D', '. 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16' ], doc: _('Keys that are trusted without a proof, as the DS record of a zone: ZONE KEYTAG ALGORITHM DIGESTTYPE DIGEST. Set, it replaces the root zone\'s.') },
				'dhcp4_code': { kind: 'integer', default: '224', low: 224, high: 254, doc: _('DHCPv4 option code; not 249 or 252.') },
				'dhcp4_name_code': { kind: 'integer', default: '225', low: 0, high: 254, doc: _('DHCPv4 option code of a domain whose SRV records (_convert._tcp below it) name concentrators, 224 to 254; 0: none.') },
				'dhcp6_code': { kind: 'integer', default: '65001', low: 1, high: 65535, doc: _('DHCPv6 option code.') },
				'interface': { kind: 'text', many: true, default: [], doc: _('netifd interfaces whose DHCP answers are looked at; empty: those of every WAN.') },
				'service_port': { kind: 'integer', default: '5124', low: 1, high: 65535, doc: _('Port of concentrators found without one (DHCP, RADIUS).') },
				'prefer': { kind: 'choice', default: 'ipv4', choices: [ 'ipv4', 'ipv6' ], doc: _('Address family tried first where a concentrator has both.') },
				'nonsense_s': { kind: 'number', default: '60', low: 1, high: 86400, unit: 's', doc: _('How long a concentrator that answered nonsense is left alone.') },
			}
		},
		'concentrator': {
			many: true,
			doc: _('A static concentrator. Static ones win over discovered ones.'),
			options: {
				'enabled': { kind: 'flag', default: '1', doc: _('Whether it is used.') },
				'address': { kind: 'address', many: true, default: [], doc: _('Addresses of this one concentrator, best first.') },
				'port': { kind: 'integer', default: '5124', low: 1, high: 65535, doc: _('Its service port.') },
				'subscriber': { kind: 'text', default: '', doc: _('Name of the subscriber in the concentrator\'s table; empty: no cookie.') },
				'key': { kind: 'secret', default: '', doc: _('Key shared with the concentrator for that subscriber.') },
				'foreign': { kind: 'flag', default: '0', doc: _('A converter of another make: a warm connection to it stays silent until it has a flow.') },
				'service_class': { kind: 'text', many: true, default: [], doc: _('Serves only connections whose rule names one of these words, or this section, as its concentrator; without: serves all others.') },
			}
		},
		'radius': {
			many: false,
			doc: _('How the router proves who it is.'),
			options: {
				'enabled': { kind: 'flag', default: '0', doc: _('Ask RADIUS before any connection is taken.') },
				'server': { kind: 'host', many: true, default: [], doc: _('RADIUS servers, ADDRESS or ADDRESS:PORT, in order.') },
				'transport': { kind: 'choice', default: 'udp', choices: [ 'udp', 'tls' ], doc: _('udp: port 1812, and only over WANs with operator_network; tls: RADIUS over TLS (RFC 6614), port 2083, over any WAN.') },
				'secret': { kind: 'secret', default: '', doc: _('Secret shared with the RADIUS servers; TLS needs none.') },
				'username': { kind: 'text', default: '', doc: _('Subscriber name.') },
				'password': { kind: 'secret', default: '', doc: _('Subscriber password.') },
				'method': { kind: 'choice', default: 'pap', choices: [ 'pap', 'chap' ], doc: _('How the password is proven. pap: encrypted with the secret; chap: as a digest, for which the server has to know it in clear text.') },
				'tls_ca': { kind: 'text', default: '', doc: _('File, PEM: the authority that the servers\' certificates come from.') },
				'tls_cert': { kind: 'text', default: '', doc: _('File, PEM: this router\'s own certificate.') },
				'tls_key': { kind: 'text', default: '', doc: _('File, PEM: its key. Nobody but root may read it.') },
				'tls_name': { kind: 'text', default: '', doc: _('Host name that the servers\' certificates have to be for; empty: the address that is asked.') },
				'on_reject': { kind: 'choice', default: 'direct', choices: [ 'direct', 'block' ], doc: _('After a Reject: plain forwarding, or no new connections.') },
				'on_timeout': { kind: 'choice', default: 'direct', choices: [ 'direct', 'block', 'proxy' ], doc: _('While no server has answered: plain forwarding, no new connections (block), or as if it had accepted (proxy), for concentrators that decide by themselves.') },
				'calling_station': { kind: 'text', default: '', doc: _('Calling-Station-Id sent in requests; empty: the hardware address of the first WAN that has one.') },
				'nas_identifier': { kind: 'text', default: 'cpe-mcp', doc: _('NAS-Identifier sent in requests.') },
				'timeout_s': { kind: 'number', default: '2', low: 0.1, high: 60, unit: 's', doc: _('For one try.') },
				'tries': { kind: 'integer', default: '3', low: 1, high: 10, doc: _('Tries per server.') },
				'retry_s': { kind: 'number', default: '30', low: 1, high: 86400, unit: 's', doc: _('Pause before asking again after Reject or timeout.') },
				'enterprise': { kind: 'integer', default: '32473', low: 1, high: 4294967295, doc: _('Enterprise number of the attributes that carry concentrators.') },
				'accounting': { kind: 'flag', default: '0', doc: _('Tell these servers how long and how much each WAN is used, while they accept this subscriber.') },
				'accounting_port': { kind: 'integer', default: '1813', low: 1, high: 65535, doc: _('Their UDP port for that; with TLS it is the one of all questions.') },
				'interim_s': { kind: 'number', default: '600', low: 60, high: 86400, unit: 's', doc: _('Between two interim records of accounting, unless the Accept says it.') },
				'dynamic': { kind: 'flag', default: '0', doc: _('Take CoA- and Disconnect-Requests (RFC 5176), on the addresses of WANs with operator_network only; elsewhere the port stays closed.') },
				'dynamic_client': { kind: 'address', many: true, default: [], doc: _('Who may send them, with the same secret; empty: the RADIUS servers.') },
				'dynamic_port': { kind: 'integer', default: '3799', low: 1, high: 65535, doc: _('UDP port for them.') },
			}
		},
		'rule': {
			many: true,
			doc: _('What happens to some of the connections. The first rule that matches decides, in the order of the file; a rule without a condition matches everything. Of each condition one value is enough, and all conditions that are set must hold; domain and dest are one condition (the destination), and so are mac and src (the device).'),
			options: {
				'name': { kind: 'text', default: '', doc: _('What this rule is called in replies and pages; empty: same as the section.') },
				'enabled': { kind: 'flag', default: '1', doc: _('Whether this rule is used.') },
				'action': { kind: 'choice', default: 'direct', choices: [ 'proxy', 'direct', 'block' ], doc: _('proxy: carried over all WANs even if the settings would not take it; direct: plain forwarding; block: refused.') },
				'fallback': { kind: 'choice', default: 'global', choices: [ 'global', 'block' ], doc: _('With action proxy, when no concentrator serves the connection: as section global says, or refused.') },
				'concentrator': { kind: 'text', default: '', doc: _('With action proxy: name or service class of the concentrator that is asked first; empty: the first of the list.') },
				'scheme': { kind: 'rule-scheme', default: '', doc: _('With action proxy: each connection is bound to one WAN, the one with the shortest round trip (lowest-latency) or that WAN (single:WAN); empty: the scheme of section paths.') },
				'domain': { kind: 'domain', many: true, default: [], doc: _('Destinations by name, every name below it too. Needs a dnsmasq that has nftset.') },
				'dest': { kind: 'prefix', many: true, default: [], doc: _('Destination addresses or prefixes.') },
				'dest_port': { kind: 'ports', many: true, default: [], doc: _('Destination ports.') },
				'proto': { kind: 'choice', many: true, default: [], choices: [ 'tcp', 'udp' ], doc: _('Protocols; without one and without dest_port, any.') },
				'mac': { kind: 'mac', many: true, default: [], doc: _('Hardware addresses of LAN devices.') },
				'src': { kind: 'prefix', many: true, default: [], doc: _('Addresses or prefixes of LAN devices.') },
				'dscp': { kind: 'dscp', many: true, default: [], doc: _('DSCP of the first packet, as the LAN device sent it.') },
			}
		},
		'quic': {
			many: false,
			doc: _('What happens to QUIC, which no TCP proxy can carry.'),
			options: {
				'policy': { kind: 'choice', default: 'forward', choices: [ 'forward', 'reject' ], doc: _('forward: over the best WAN alone; reject: UDP port 443 is refused wherever TCP would be taken, so that browsers use TCP, over all WANs, at once.') },
			}
		},
		'dscp': {
			many: false,
			doc: _('The DSCP of proxied connections, on the leg to the concentrator and back to the device.'),
			options: {
				'mode': { kind: 'choice', default: 'preserve', choices: [ 'preserve', 'set', 'off' ], doc: _('preserve: that of the LAN device\'s first packet; set: always value; off: 0.') },
				'value': { kind: 'dscp', default: '0', doc: _('What mode set writes.') },
				'map': { kind: 'dscp-map', many: true, default: [], doc: _('With preserve: write TO where the device wrote FROM, as FROM:TO.') },
			}
		},
		'logging': {
			many: false,
			doc: _('What is written to the system log.'),
			options: {
				'level': { kind: 'choice', default: 'info', choices: [ 'debug', 'info', 'warning', 'error' ], doc: _('Least severity that is logged.') },
				'flows': { kind: 'flag', default: '0', doc: _('One line for each connection that has ended.') },
				'mask': { kind: 'flag', default: '1', doc: _('Leave the last part of addresses out of those lines.') },
			}
		},
		'dns': {
			many: false,
			doc: _('The dnsmasq that tells the addresses of the names in rules.'),
			options: {
				'confdir': { kind: 'text', default: 'auto', doc: _('Directory that dnsmasq reads snippets from; auto: what OpenWrt\'s dnsmasq says it is.') },
				'restart': { kind: 'text', default: '/etc/init.d/dnsmasq restart', doc: _('Command that makes dnsmasq read its snippets again, run only when ours has changed; empty: none.') },
			}
		},
		'ident': {
			many: false,
			doc: _('Whether concentrators may ask whose a connection is (Ident, RFC 1413, TCP port 113).'),
			options: {
				'enabled': { kind: 'flag', default: '0', doc: _('Answer the concentrators, on every WAN, about this router\'s connections to them. Others find the port closed.') },
				'user': { kind: 'text', default: '', doc: _('What they are told; empty: the name that is set for the subscriber at that concentrator, or the user name of section radius.') },
			}
		},
	}
});
