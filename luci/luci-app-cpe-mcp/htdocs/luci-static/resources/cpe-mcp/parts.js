'use strict';
'require baseclass';
'require uci';
'require cpe-mcp.reasons as reasons';

/* The pieces that the pages are built of. Everything that comes from outside becomes a text node, never markup: LuCI's
   E() takes a lone string for markup, so children go through el() as a list. */

const SVG = 'http://www.w3.org/2000/svg';
const WAN_COLORS = 6;

function el(tag, attributes) {
	const children = Array.prototype.slice.call(arguments, 2).flat(Infinity).filter(function(child) {
		return child != null && child !== false;
	});

	return E(tag, attributes || {}, children);
}

function svg(tag, attributes) {
	const node = document.createElementNS(SVG, tag);

	Object.keys(attributes).forEach(function(name) { node.setAttribute(name, attributes[name]) });
	Array.prototype.slice.call(arguments, 2).forEach(function(child) { node.appendChild(child) });

	return node;
}

return baseclass.extend({
	el: el,
	svg: svg,

	/* the page's own style sheet, once */
	style: function() {
		if (!document.querySelector('link[data-cpe-mcp]'))
			document.head.appendChild(E('link', {
				'rel': 'stylesheet',
				'data-cpe-mcp': '1',
				'href': L.resource('cpe-mcp/style.css')
			}));
	},

	/* good, bad, idle or busy, never by colour alone */
	badge: function(kind, text) {
		return el('span', { 'class': 'cpe-badge cpe-' + kind }, text);
	},

	/* the colour that a WAN has on all pages: by its place in the daemon's list */
	color: function(names, name) {
		const place = names.indexOf(name);

		return place < 0 ? 'var(--cpe-none)' : 'var(--cpe-wan-%d)'.format(place % WAN_COLORS);
	},

	/* a WAN's name with its colour */
	wan: function(names, name) {
		return el('span', { 'class': 'cpe-wan' },
			el('i', { 'style': 'background:' + this.color(names, name) }), name);
	},

	/* a thing and what is to be said of it, for narrow and wide screens */
	fact: function(title, value) {
		return el('div', { 'class': 'cpe-fact' }, el('span', {}, title), el('b', {}, value));
	},

	/* down and up, each on one line */
	pair: function(down, up) {
		return el('span', { 'class': 'cpe-pair' }, el('span', {}, '↓ ' + down), ' ', el('span', {}, '↑ ' + up));
	},

	/* parts: [ { wan, percent } ] */
	shareBar: function(names, parts) {
		return el('div', { 'class': 'cpe-share', 'role': 'presentation' }, parts.map(L.bind(function(part) {
			return el('i', { 'style': 'width:%d%;background:%s'.replace('%d', part.percent).replace('%s', this.color(names, part.wan)) });
		}, this)));
	},

	progress: function(part, text) {
		return el('div', { 'class': 'cbi-progressbar', 'title': text },
			el('div', { 'style': 'width:%d%'.replace('%d', Math.round(part * 100)) }));
	},

	/* what is wrong and what to do, in place of a page */
	trouble: function(found) {
		const startup = found.kind === 'down' || found.kind === 'slow'
			? el('p', {}, el('a', { 'class': 'btn cbi-button', 'href': L.url('admin/system/startup') }, _('Open System, Startup')), ' ',
				el('a', { 'class': 'btn cbi-button', 'href': L.url('admin/status/logs') }, _('Open the system log')))
			: null;

		return el('div', { 'class': 'alert-message warning', 'data-trouble': found.kind },
			el('h4', {}, found.text),
			found.next ? el('p', {}, found.next) : null,
			found.detail ? el('p', {}, el('code', {}, found.detail)) : null,
			startup);
	},

	reason: function(row) {
		return reasons.text(row);
	},

	/* a box whose height follows its content */
	section: function(title) {
		const children = Array.prototype.slice.call(arguments, 1);

		return el('div', { 'class': 'cbi-section' }, title ? el('h3', {}, title) : null, children);
	},

	head: function(title, description) {
		return [ el('h2', { 'name': 'content' }, title), el('div', { 'class': 'cbi-map-descr' }, description), this.viewer() ];
	},

	/* said on every page to a login that has no write rights; null for the others */
	viewer: function() {
		return L.hasViewPermission() ? null : el('div', { 'class': 'alert-message notice', 'data-readonly': '1' },
			el('p', {}, _('This login may look but not change anything.')));
	},

	/* the settings, for a login that may read them; null for the others, whom nothing is to be shown of keys and passwords */
	settings: function() {
		return L.hasViewPermission() ? L.resolveDefault(uci.load('cpe-mcp')) : null;
	},

	/* in place of a form.Map's page, for a login that may not read the settings */
	unseen: function(title) {
		return el('div', { 'class': 'cbi-map' },
			this.head(title, _('Settings hold keys and passwords, and rules name devices and what they visit. Logins see them that may change them.')));
	}
});
