'use strict';
'require baseclass';
'require cpe-mcp.units as units';

/* The speed test's report in words. Pure. */

const STATES = {
	waiting: _('waiting'),
	running: _('running'),
	done: _('done'),
	failed: _('failed'),
	stopped: _('ended by hand')
};

return baseclass.extend({
	/* 0..1 over all runs */
	progress: function(report) {
		const runs = report.runs || [];

		if (report.state === 'done')
			return 1;

		return runs.length ? runs.reduce(function(sum, run) { return sum + (run.progress || 0) }, 0) / runs.length : 0;
	},

	/* what a run measures: one WAN, or all together */
	label: function(run) {
		return '%s, %s'.format(run.wan || _('all WANs together'), run.direction === 'up' ? _('upload') : _('download'));
	},

	state: function(run) {
		return run.error || STATES[run.state] || run.state;
	},

	/* what it comes to, per direction: 'Download: 84 Mbit/s together, 93 % of the WANs one by one (90 Mbit/s).' */
	conclusions: function(report) {
		const runs = (report.runs || []).filter(function(run) { return run.state === 'done' && run.mbit > 0 });

		return [ 'down', 'up' ].map(function(direction) {
			const there = runs.filter(function(run) { return (run.direction || 'down') === direction });
			const bonded = there.find(function(run) { return !run.wan });
			const sum = there.filter(function(run) { return run.wan })
				.reduce(function(total, run) { return total + run.mbit }, 0);

			if (!bonded || !sum)
				return null;

			return (direction === 'up'
				? _('Upload: %s together, %s of what the WANs reach one by one (%s).')
				: _('Download: %s together, %s of what the WANs reach one by one (%s).'))
				.format(units.rate(bonded.mbit), units.percent(bonded.mbit / sum), units.rate(sum));
		}).filter(Boolean);
	}
});
