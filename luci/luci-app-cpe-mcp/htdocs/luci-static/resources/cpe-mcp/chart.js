'use strict';
'require baseclass';
'require cpe-mcp.graph as graph';
'require cpe-mcp.parts as parts';
'require cpe-mcp.units as units';

/* One stacked graph of Mbit/s per WAN, redrawn in place. Numbers stand beside the drawing and not in it, so that they
   keep their size on every screen. */

const WIDTH = 720, HEIGHT = 160, SAMPLES = 180;

const el = parts.el, svg = parts.svg;

return baseclass.extend({
	/* { node, update(history, names) }; direction is 'down' or 'up' */
	create: function(title, direction) {
		const layers = svg('g', {});
		const lines = [ 0.25, 0.5, 0.75 ].map(function(part) {
			return svg('line', { 'x1': 0, 'x2': WIDTH, 'y1': HEIGHT * part, 'y2': HEIGHT * part, 'class': 'cpe-grid' });
		});
		const drawing = svg.apply(null, [ 'svg', {
			'viewBox': '0 0 %d %d'.format(WIDTH, HEIGHT), 'preserveAspectRatio': 'none', 'role': 'img'
		}, layers ].concat(lines));
		const top = el('span', { 'class': 'cpe-top' }), half = el('span', { 'class': 'cpe-half' });
		const now = el('b', {}, '–'), span = el('span', { 'class': 'cpe-span' });

		return {
			node: el('div', { 'class': 'cpe-graph' },
				el('div', { 'class': 'cpe-graph-head' }, el('span', {}, title), now),
				el('div', { 'class': 'cpe-plot' }, drawing, top, half, span)),

			update: function(history, names) {
				const drawn = graph.layout(history, direction, WIDTH, HEIGHT, SAMPLES);

				while (layers.firstChild)
					layers.removeChild(layers.firstChild);

				drawn.layers.forEach(function(layer) {
					const polygon = svg('polygon', { 'points': layer.points, 'data-wan': layer.name });

					polygon.style.fill = parts.color(names, layer.name);
					layers.appendChild(polygon);
				});

				top.textContent = units.rate(drawn.top);
				half.textContent = units.rate(drawn.top / 2);
				now.textContent = units.rate(drawn.now);
				span.textContent = _('last %s').format(units.duration(drawn.seconds));
				drawing.setAttribute('aria-label', '%s: %s'.format(title, units.rate(drawn.now)));
			}
		};
	}
});
