'use strict';
'require baseclass';

/* Whether a value is one that the daemon will take, before it is saved: the same kinds and limits, from declared.js.
   Each check returns true or one sentence that says what is allowed. Pure. */

const BYTE = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])';
const IPV4 = new RegExp('^' + BYTE + '(?:[.]' + BYTE + '){3}$');

function isIPv4(text) {
	return IPV4.test(text);
}

function isIPv6(text) {
	const halves = text.split('::');

	if (halves.length > 2)
		return false;

	const groups = halves.map(function(half) { return half === '' ? [] : half.split(':') });
	const tail = groups[groups.length - 1];
	let count = groups.reduce(function(sum, list) { return sum + list.length }, 0);

	if (tail.length && tail[tail.length - 1].indexOf('.') >= 0) {
		if (!isIPv4(tail.pop()))
			return false;

		count++;
	}

	if (halves.length === 2 ? count > 7 : count !== 8)
		return false;

	return groups.every(function(list) {
		return list.every(function(group) { return /^[0-9a-fA-F]{1,4}$/.test(group) });
	});
}

function isAddress(text) {
	return isIPv4(text) || isIPv6(text);
}

/* the bits of an address as one text of 0 and 1 */
function bits(address) {
	if (isIPv4(address))
		return address.split('.').map(function(part) { return (+part).toString(2).padStart(8, '0') }).join('');

	const dotted = address.match(/^(.*:)([0-9.]+)$/);
	let text = address;

	if (dotted && dotted[2].indexOf('.') > 0) {
		const parts = dotted[2].split('.').map(Number);

		text = dotted[1] + (parts[0] * 256 + parts[1]).toString(16) + ':' + (parts[2] * 256 + parts[3]).toString(16);
	}

	const halves = text.split('::').map(function(half) { return half === '' ? [] : half.split(':') });
	const groups = halves.length === 1 ? halves[0]
		: halves[0].concat(Array(8 - halves[0].length - halves[1].length).fill('0'), halves[1]);

	return groups.map(function(group) { return parseInt(group, 16).toString(2).padStart(16, '0') }).join('');
}

function isPrefix(text) {
	const parts = text.split('/');

	if (parts.length === 1)
		return isAddress(text);

	if (parts.length !== 2 || !isAddress(parts[0]) || !/^[0-9]{1,3}$/.test(parts[1]))
		return false;

	const all = bits(parts[0]);

	return +parts[1] <= all.length && all.slice(+parts[1]).indexOf('1') < 0;
}

function isPort(text) {
	return /^[0-9]{1,5}$/.test(text) && +text >= 1 && +text <= 65535;
}

function isPortRange(text) {
	const parts = text.split('-');

	return parts.length <= 2 && parts.every(isPort) && (parts.length === 1 || +parts[0] <= +parts[1]);
}

function isHost(text) {
	const bracketed = text.match(/^\[([^\]]+)\](?::([0-9]+))?$/);

	if (bracketed)
		return isIPv6(bracketed[1]) && (bracketed[2] == null || isPort(bracketed[2]));

	const parts = text.split(':');

	return parts.length === 2 ? isIPv4(parts[0]) && isPort(parts[1]) : isAddress(text);
}

/* letters beyond ASCII are left to the daemon, which turns them into what the DNS has */
function isDomain(text) {
	const name = text.replace(/^[*][.]/, '').replace(/[.]$/, '');

	return name.length <= 253 && name.split('.').every(function(label) {
		return /^[a-zA-Z0-9_\u0080-\uffff](?:[a-zA-Z0-9_\u0080-\uffff-]{0,61}[a-zA-Z0-9_\u0080-\uffff])?$/.test(label);
	});
}

function isMac(text) {
	return /^[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}$/.test(text);
}

function isDscp(text) {
	return DSCP_NAMES.indexOf(text.toUpperCase()) >= 0
		|| (/^(?:[0-9]{1,2}|0[xX][0-9a-fA-F]{1,2})$/.test(text) && +text <= 63);
}

function isDscpMap(text) {
	const parts = text.split(':');

	return parts.length === 2 && parts.every(isDscp);
}

const SCHEMES = [ 'adaptive', 'aggregate', 'primary-backup', 'overflow', 'lowest-latency' ];

function isScheme(text) {
	return SCHEMES.indexOf(text) >= 0 || /^single:[A-Za-z0-9_]+$/.test(text);
}

function isRuleScheme(text) {
	return text === '' || text === 'lowest-latency' || /^single:/.test(text) && isScheme(text);
}

/* RFC 2474, 2597, 3246, 5865, 8622 */
const DSCP_NAMES = [ 'BE', 'DF', 'CS0', 'CS1', 'CS2', 'CS3', 'CS4', 'CS5', 'CS6', 'CS7', 'AF11', 'AF12', 'AF13', 'AF21',
	'AF22', 'AF23', 'AF31', 'AF32', 'AF33', 'AF41', 'AF42', 'AF43', 'EF', 'VA', 'LE' ];

const KINDS = {
	address: [ isAddress, _('an IPv4 or IPv6 address') ],
	prefix: [ isPrefix, _('an IPv4 or IPv6 prefix such as 192.0.2.0/24, no bits set behind its length') ],
	host: [ isHost, _('an address, or an address with a port: 192.0.2.1:1812, [2001:db8::1]:1812') ],
	mac: [ isMac, _('a hardware address such as 00:53:00:12:34:56') ],
	ports: [ isPortRange, _('a port from 1 to 65535, or a range such as 8000-8100') ],
	dscp: [ isDscp, _('a number from 0 to 63, or a name such as EF, AF41, CS1') ],
	'dscp-map': [ isDscpMap, _('FROM:TO, each a number from 0 to 63 or a name such as EF, AF41, CS1') ],
	domain: [ isDomain, _('a domain name such as example.com or *.example.com') ],
	'rule-scheme': [ isRuleScheme, _('lowest-latency or single:WAN') ],
	scheme: [ isScheme, SCHEMES.join(', ') + ', single:WAN' ]
};

return baseclass.extend({
	isAddress: isAddress,
	isPrefix: isPrefix,
	isPort: isPort,
	isPortRange: isPortRange,
	isHost: isHost,
	isDomain: isDomain,
	SCHEMES: SCHEMES,

	/* one value of an option; an empty one means "not set" and is always right */
	check: function(declared, value) {
		if (value == null || value === '')
			return true;

		if (declared.kind === 'integer' || declared.kind === 'number')
			return this.checkNumber(declared, value);

		if (declared.choices && declared.choices.length)
			return declared.choices.indexOf(value) >= 0 || _('Allowed: %s').format(declared.choices.join(', '));

		const kind = KINDS[declared.kind];

		return !kind || kind[0](value) || _('Expected: %s').format(kind[1]);
	},

	checkNumber: function(declared, value) {
		const whole = declared.kind === 'integer';
		const written = whole ? /^[+-]?[0-9]+$/.test(value) : /^[+-]?[0-9]+(?:[.][0-9]+)?$/.test(value);

		if (written && +value >= declared.low && +value <= declared.high)
			return true;

		return (whole ? _('Allowed: a whole number from %s to %s') : _('Allowed: a number from %s to %s'))
			.format(declared.low, declared.high) + (declared.unit ? ' ' + declared.unit : '');
	}
});
