'use strict';
'require baseclass';

/* The arithmetic of the stacked graphs: from samples to points. Pure. */

const STEPS = [ 1, 2, 5, 10 ];

return baseclass.extend({
	/* the last `count` samples, newest last; what is missing at the old end counts as nothing */
	window: function(samples, count) {
		const last = (samples || []).slice(-count);

		return Array(count - last.length).fill(0).concat(last.map(function(value) { return Math.max(0, value || 0) }));
	},

	/* the sums that the layers reach: stacked([[1,2],[3,4]]) -> [[1,2],[4,6]] */
	stacked: function(series) {
		const layers = [];

		series.forEach(function(samples, i) {
			layers.push(samples.map(function(value, j) { return value + (i ? layers[i - 1][j] : 0) }));
		});

		return layers;
	},

	/* the round number at the top of the scale: 1, 2 or 5 times a power of ten, never less than 1 */
	top: function(layers) {
		const highest = layers.length ? Math.max.apply(null, layers[layers.length - 1]) : 0;

		if (highest <= 1)
			return 1;

		const power = Math.pow(10, Math.floor(Math.log10(highest)));

		return STEPS.map(function(step) { return step * power }).find(function(value) { return value >= highest * 0.999 });
	},

	/* `points` of the polygon between two layers in a box; `below` is null for the lowest */
	polygon: function(above, below, width, height, top) {
		const step = width / Math.max(1, above.length - 1);

		function point(value, i) {
			return '%s,%s'.format((i * step).toFixed(1), (height - Math.min(value, top) / top * height).toFixed(1));
		}

		const upper = above.map(point);
		const lower = (below || above.map(function() { return 0 })).map(point).reverse();

		return upper.concat(lower).join(' ');
	},

	/* everything a graph of one direction needs, in a box of width x height */
	layout: function(history, direction, width, height, count) {
		const wans = history.wans || [];
		const layers = this.stacked(wans.map(L.bind(function(wan) {
			return this.window(wan[direction + '_mbit'], count);
		}, this)));
		const top = this.top(layers);

		return {
			top: top,
			now: layers.length ? layers[layers.length - 1][count - 1] : 0,
			seconds: count * (history.interval_s || 1),
			layers: wans.map(L.bind(function(wan, i) {
				return { name: wan.name, points: this.polygon(layers[i], layers[i - 1], width, height, top) };
			}, this))
		};
	}
});
