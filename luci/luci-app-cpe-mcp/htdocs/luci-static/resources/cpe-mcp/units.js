'use strict';
'require baseclass';

/* Numbers for people. Pure: no DOM, no clock. Sizes are decimal, as access lines are sold. */

function scaled(value, units) {
	let i = 0;

	while (value >= 999.5 && i < units.length - 1) {
		value /= 1000;
		i++;
	}

	return '%s %s'.format(value < 9.95 && i > 0 ? value.toFixed(1) : value.toFixed(0), units[i]);
}

return baseclass.extend({
	/* 272000000 -> '272 MB'; null and negative numbers mean that nobody knows */
	bytes: function(count) {
		return count == null || count < 0 ? '–' : scaled(count, [ 'B', 'kB', 'MB', 'GB', 'TB' ]);
	},

	/* 7.34 -> '7.3 Mbit/s' */
	rate: function(mbit) {
		if (mbit == null || mbit < 0)
			return '–';

		return '%s Mbit/s'.format(mbit < 9.95 ? mbit.toFixed(1) : mbit.toFixed(0));
	},

	/* the used part of a quota: '12.3 GB of 50 GB (24 %)' */
	used: function(quota) {
		const shown = quota.limit_gb < 1
			? [ this.bytes(quota.used_gb * 1e9), this.bytes(quota.limit_gb * 1e9) ]
			: [ quota.used_gb.toFixed(1) + ' GB', quota.limit_gb + ' GB' ];

		return _('%s of %s (%s)').format(shown[0], shown[1], Math.floor(quota.percent) + ' %');
	},

	/* a round trip; 0 is none measured */
	ms: function(value) {
		return value == null || value <= 0 ? '–' : '%s ms'.format(value < 9.95 ? value.toFixed(1) : value.toFixed(0));
	},

	/* 0.634 -> '63 %' */
	percent: function(part) {
		return '%s %'.replace('%s', Math.round(part * 100));
	},

	/* 7384 -> '2 h 3 min': the two largest units */
	duration: function(seconds) {
		if (seconds == null)
			return '–';

		if (seconds < 60)
			return '%s s'.format(Math.floor(seconds));

		const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);

		if (hours < 1)
			return '%s min'.format(minutes);

		return days < 1
			? '%s h %s min'.format(hours, minutes % 60)
			: '%s d %s h'.format(days, hours % 24);
	},

	/* address and port as they are written: 192.0.2.1:443, [2001:db8::1]:443 */
	endpoint: function(address, port) {
		return (address.indexOf(':') < 0 ? '%s:%s' : '[%s]:%s').format(address, port);
	},

	/* whole per cents of parts that make 100 together: largest remainders are rounded up */
	shares: function(counts) {
		const total = counts.reduce(function(sum, count) { return sum + count }, 0);

		if (total <= 0)
			return counts.map(function() { return 0 });

		const exact = counts.map(function(count) { return count * 100 / total });
		const whole = exact.map(Math.floor);
		const byRemainder = exact
			.map(function(value, i) { return i })
			.sort(function(a, b) { return (exact[b] - whole[b]) - (exact[a] - whole[a]) || a - b });
		const missing = 100 - whole.reduce(function(sum, value) { return sum + value }, 0);

		for (let i = 0; i < missing; i++)
			whole[byRemainder[i]]++;

		return whole;
	}
});
