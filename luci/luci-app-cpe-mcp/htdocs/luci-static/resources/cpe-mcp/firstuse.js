'use strict';
'require baseclass';

/* From what the router knows of its network to a first configuration. Pure. */

/* protocols of netifd that mean a mobile line: it is preferred last, for it often costs by volume */
const MOBILE = [ '3g', 'directip', 'hso', 'mbim', 'modemmanager', 'ncm', 'qmi', 'wwan', 'xmm' ];
const PREFERENCE_FIXED = 10, PREFERENCE_MOBILE = 20;

/* interfaces that are never a line to the Internet */
const NEVER = [ 'loopback' ];

function hasDefaultRoute(entry) {
	return (entry.route || []).some(function(route) {
		return route.mask === 0 && (route.target === '0.0.0.0' || route.target === '::');
	});
}

function addresses(entry) {
	return (entry['ipv4-address'] || []).concat(entry['ipv6-address'] || [], entry['ipv6-prefix-assignment'] || [])
		.map(function(row) { return row.address || (row['local-address'] || {}).address })
		.filter(Boolean);
}

return baseclass.extend({
	/* the interfaces one can choose from: rows { interface, device, up, mobile, likely, addresses, wanZone }.
	   `dump` is the list of network.interface dump, `zones` the firewall's zones, `lan` the devices of the LAN.
	   An IPv6 twin of the same device (wan6 of wan) is the same line and not listed again. */
	candidates: function(dump, zones, lan) {
		const zoneOf = function(name) {
			return (zones || []).find(function(zone) { return [].concat(zone.network || []).indexOf(name) >= 0 });
		};
		const rows = [];

		(dump || []).forEach(function(entry) {
			const name = entry.interface, device = entry.l3_device || entry.device || '';
			const zone = zoneOf(name);
			const masquerades = zone != null && (zone.masq === '1' || zone.name === 'wan');

			if (NEVER.indexOf(name) >= 0 || lan.indexOf(device) >= 0 || (zone != null && !masquerades))
				return;

			const row = {
				interface: name,
				device: device,
				up: !!entry.up,
				mobile: MOBILE.indexOf(entry.proto) >= 0 || /^wwan/.test(device),
				likely: hasDefaultRoute(entry) || masquerades,
				wanZone: masquerades,
				addresses: addresses(entry)
			};
			const twin = device ? rows.find(function(other) { return other.device === device }) : null;

			if (twin) {
				twin.addresses = twin.addresses.concat(row.addresses);
				twin.up = twin.up || row.up;
				twin.likely = twin.likely || row.likely;
				twin.wanZone = twin.wanZone || row.wanZone;
			}
			else {
				rows.push(row);
			}
		});

		return rows.sort(function(a, b) { return b.likely - a.likely || a.mobile - b.mobile || a.interface.localeCompare(b.interface) });
	},

	/* the name of an interface as a section may be called */
	sectionName: function(name) {
		return name.replace(/[^A-Za-z0-9_]/g, '_');
	},

	/* what a person has to be told about the number of lines chosen */
	advice: function(count) {
		if (count === 0)
			return _('Choose at least one WAN.');

		if (count === 1)
			return _('One WAN works: connections go through the concentrator over it. A second one adds its speed to every download, and keeps running connections alive when one of the two fails.');

		return _('With %d WANs one connection can use all of them, and goes on when one fails.').format(count);
	},

	/* what is missing before it can be saved; '' when nothing is */
	missing: function(choice) {
		if (!choice.wans.length)
			return this.advice(0);

		if (choice.wans.some(function(row) { return !row.device }))
			return _('A chosen WAN has no network device yet. Bring it up first under Network, Interfaces.');

		if (choice.concentrator === 'static' && !choice.address)
			return _('The address of the concentrator is missing.');

		if (choice.concentrator === 'static' && !choice.subscriber !== !choice.key)
			return _('Subscriber and key belong together: fill in both, or neither.');

		return '';
	},

	/* the sections to write: [ { type, name, values } ]; names of wan sections are those of the interfaces.
	   choice: { wans: [ candidate ], concentrator: 'dhcp' | 'static', address, port, subscriber, key, quic } */
	plan: function(choice) {
		const sections = [ { type: 'global', name: 'global', values: { enabled: '1' } } ];

		choice.wans.forEach(L.bind(function(row) {
			sections.push({
				type: 'wan',
				name: this.sectionName(row.interface),
				values: {
					interface: row.interface,
					device: row.device,
					preference: String(row.mobile ? PREFERENCE_MOBILE : PREFERENCE_FIXED)
				}
			});
		}, this));

		if (choice.concentrator === 'static') {
			const values = { address: [ choice.address ] };

			[ 'port', 'subscriber', 'key' ].forEach(function(name) {
				if (choice[name])
					values[name] = choice[name];
			});

			sections.push({ type: 'concentrator', name: 'home', values: values });
		}
		else {
			sections.push({ type: 'discovery', name: 'discovery', values: { dhcp: '1' } });
		}

		sections.push({ type: 'quic', name: 'quic', values: { policy: choice.quic } });

		return sections;
	}
});
