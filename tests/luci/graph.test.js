'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const graph = require('./luci').load('cpe-mcp.graph');

test('a short history is filled up at its old end, a long one is cut there', () => {
	assert.deepEqual(graph.window([ 1, 2 ], 4), [ 0, 0, 1, 2 ]);
	assert.deepEqual(graph.window([ 1, 2, 3 ], 2), [ 2, 3 ]);
	assert.deepEqual(graph.window(undefined, 2), [ 0, 0 ]);
	assert.deepEqual(graph.window([ null, -3 ], 2), [ 0, 0 ]);
});

test('layers stand on each other', () => {
	assert.deepEqual(graph.stacked([ [ 1, 2 ], [ 3, 4 ], [ 0, 1 ] ]), [ [ 1, 2 ], [ 4, 6 ], [ 4, 7 ] ]);
});

test('the scale ends at a round number that holds everything', () => {
	for (const [ highest, top ] of [ [ 0, 1 ], [ 1, 1 ], [ 1.2, 2 ], [ 4, 5 ], [ 7, 10 ], [ 94, 100 ], [ 100, 100 ], [ 101, 200 ], [ 940, 1000 ], [ 2500, 5000 ] ])
		assert.equal(graph.top([ [ highest, 0 ] ]), top, String(highest));

	assert.equal(graph.top([]), 1);
});

test('points go along the upper edge and back along the lower', () => {
	assert.equal(graph.polygon([ 1, 2 ], null, 100, 10, 2), '0.0,5.0 100.0,0.0 100.0,10.0 0.0,10.0');
	assert.equal(graph.polygon([ 2, 2 ], [ 1, 0 ], 100, 10, 2), '0.0,0.0 100.0,0.0 100.0,10.0 0.0,5.0');
});

test('a layout knows the sum of this moment and never leaves its box', () => {
	const history = { interval_s: 1, wans: [ { name: 'dsl', down_mbit: [ 10, 40 ], up_mbit: [] }, { name: 'lte', down_mbit: [ 0, 24 ] } ] };
	const drawn = graph.layout(history, 'down', 720, 160, 180);

	assert.equal(drawn.top, 100);
	assert.equal(drawn.now, 64);
	assert.equal(drawn.seconds, 180);
	assert.deepEqual(drawn.layers.map(layer => layer.name), [ 'dsl', 'lte' ]);

	for (const layer of drawn.layers)
		for (const point of layer.points.split(' ')) {
			const [ x, y ] = point.split(',').map(Number);

			assert.ok(x >= 0 && x <= 720 && y >= 0 && y <= 160, point);
		}
});

test('nothing yet is a flat line, not an error', () => {
	assert.deepEqual(graph.layout({ wans: [] }, 'up', 720, 160, 180).layers, []);
	assert.equal(graph.layout({}, 'up', 720, 160, 180).now, 0);
});
