'use strict';
'require dom';
'require poll';
'require ui';
'require view';
'require cpe-mcp.api as api';
'require cpe-mcp.checks as checks';
'require cpe-mcp.layout as layout';
'require cpe-mcp.parts as parts';
'require cpe-mcp.speed as speed';
'require cpe-mcp.units as units';
'require cpe-mcp.words as words';

/* Self-test, the question why, speed test, support report. */

const SPEED_POLL_S = 1;

const el = parts.el;

const STAGES = {
	settings: _('Settings'),
	wan: _('Access lines'),
	discover: _('Discovery of a concentrator'),
	authenticate: _('Authentication'),
	worker: _('Relay worker'),
	connect: _('Connection to the concentrator'),
	intercept: _('Interception of the LAN\'s connections'),
	join: _('Joining of further lines'),
	aggregate: _('Use of several lines at once'),
	bridge: _('Bridge filter'),
	rules: _('Routing rules of others'),
	sqm: 'SQM',
	mwan3: 'mwan3',
	pbr: 'pbr'
};

const ACTIONS = {
	proxy: _('goes over all WANs'),
	direct: _('goes directly, over one WAN'),
	block: _('is refused')
};

/* a name may have several addresses, each with an answer of its own */
function whyAnswer(answer) {
	const rule = answer.rule ? answer.rule.name || answer.rule.section : '';
	/* what was chosen, and why */
	const chosen = function(name, title) {
		return answer[name] ? '%s: %s'.format(title, parts.reason({ reason: answer[name + '_reason'], text: answer[name + '_text'] })) : '';
	};
	const choices = [
		chosen('concentrator', _('concentrator %s').format(answer.concentrator)),
		chosen('wan', _('first line %s').format(answer.wan)),
		chosen('scheme', layout.choice('paths', 'scheme', answer.scheme)),
		answer.action === 'proxy' ? (answer.warm ? _('a warm connection is ready for it') : _('it opens a new connection')) : ''
	].filter(Boolean);

	return el('div', {},
		el('p', {}, el('strong', {}, units.endpoint(answer.destination, answer.port)), ' ',
			ACTIONS[answer.action] || answer.action, rule ? ' (%s)'.format(_('rule %s').format(rule)) : ''),
		el('ul', {}, choices.map(function(text) { return el('li', {}, text) }), (answer.reasons || []).map(function(row) { return el('li', {}, parts.reason(row)) })));
}

return view.extend({
	load: function() {
		parts.style();

		return this.askCheck();
	},

	askCheck: function() {
		return api.check().then(function(reply) { return { stages: reply.stages || [] } }, function(found) { return { trouble: found } });
	},

	render: function(checked) {
		this.readonly = !L.hasViewPermission();
		this.stages = el('div', { 'id': 'cpe-check' });
		this.why = el('div', { 'id': 'cpe-why-answer' });
		this.speed = el('div', { 'id': 'cpe-speed' });
		this.report = el('div', { 'id': 'cpe-support' });
		this.dest = el('input', { 'type': 'text', 'id': 'cpe-dest', 'class': 'cbi-input-text', 'placeholder': 'example.com', 'aria-label': _('Address or name of a site') });
		this.port = el('input', { 'type': 'text', 'id': 'cpe-port', 'class': 'cbi-input-text', 'placeholder': '443', 'aria-label': _('Port'), 'style': 'flex:0 1 90px' });
		this.startButton = el('button', { 'class': 'btn cbi-button cbi-button-action', 'id': 'cpe-speed-start', 'click': ui.createHandlerFn(this, 'speedtest', 'start') }, _('Start'));
		this.stopButton = el('button', { 'class': 'btn cbi-button hidden', 'id': 'cpe-speed-stop', 'click': ui.createHandlerFn(this, 'speedtest', 'stop') }, _('Stop'));

		this.showCheck(checked);

		if (!this.readonly && !checked.trouble)
			this.speedtest('status');

		return el('div', { 'class': 'cbi-map' },
			parts.head(_('Diagnostics'), _('Why it is not faster, and what to do about it.')),

			parts.section(_('Self-test'), this.stages,
				el('button', { 'class': 'btn cbi-button', 'id': 'cpe-check-again', 'click': ui.createHandlerFn(this, function() { return this.askCheck().then(L.bind(this.showCheck, this)) }) }, _('Test again'))),

			parts.section(_('What happens to a connection?'),
				el('div', { 'class': 'cpe-bar' }, this.dest, this.port,
					el('button', { 'class': 'btn cbi-button cbi-button-action', 'id': 'cpe-why', 'click': ui.createHandlerFn(this, 'askWhy') }, _('Ask'))),
				this.why),

			this.readonly ? null : parts.section(_('Speed test'),
				el('p', { 'class': 'cpe-quiet' }, _('Each WAN alone and then all together, against the concentrator and nobody else. It loads the lines fully for a while and uses up volume.')),
				el('div', { 'class': 'cpe-bar' }, this.startButton, this.stopButton),
				this.speed),

			this.readonly ? null : parts.section(_('Support report'),
				el('p', { 'class': 'cpe-quiet' }, _('Everything somebody needs who helps you. Passwords and keys are masked; look it over before you pass it on, for it names addresses.')),
				el('div', { 'class': 'cpe-bar' },
					el('button', { 'class': 'btn cbi-button cbi-button-action', 'id': 'cpe-support-make', 'click': ui.createHandlerFn(this, 'support') }, _('Make report'))),
				this.report));
	},

	showCheck: function(checked) {
		if (checked.trouble) {
			dom.content(this.stages, parts.trouble(checked.trouble));
			return;
		}

		dom.content(this.stages, checked.stages.map(function(row) {
			return el('div', { 'class': 'cpe-stage', 'data-stage': row.stage, 'data-ok': row.ok ? '1' : '0' },
				row.info ? parts.badge('idle', _('note')) : row.ok ? parts.badge('good', _('good')) : parts.badge('bad', _('bad')),
				el('div', {},
					el('strong', {}, (STAGES[row.stage] || row.stage) + ':'), ' ', el('span', { 'class': 'cpe-quiet' }, words.text(row.detail_words, row.detail)),
					!row.next ? null : el('div', {}, _('Next: %s').format(words.text(row.next_words, row.next)))));
		}));
	},

	askWhy: function() {
		const dest = this.dest.value.trim(), port = this.port.value.trim() || '443';

		if (!dest || !(checks.isAddress(dest) || checks.isDomain(dest)) || !checks.isPort(port)) {
			dom.content(this.why, [ el('p', {}, _('Enter the address or the name of a site, and a port from 1 to 65535.')) ]);
			return Promise.resolve();
		}

		return api.why(dest, +port).then(L.bind(function(reply) {
			dom.content(this.why, (reply.answers && reply.answers.length ? reply.answers : [ reply ]).map(whyAnswer));
		}, this), L.bind(function(found) {
			dom.content(this.why, parts.trouble(found));
		}, this));
	},

	speedtest: function(action) {
		return api.speedtest(action, action === 'start' ? '' : undefined)
			.then(L.bind(this.showSpeed, this), L.bind(function(found) { dom.content(this.speed, parts.trouble(found)) }, this));
	},

	/* while a test runs its report is asked for every second, and not otherwise */
	showSpeed: function(report) {
		const running = report.state === 'running';
		const runs = report.runs || [];

		this.startButton.disabled = running;
		this.stopButton.classList.toggle('hidden', !running);

		if (running && !this.speedPoll) {
			this.speedPoll = L.bind(function() { return this.speedtest('status') }, this);
			poll.add(this.speedPoll, SPEED_POLL_S);
		}
		else if (!running && this.speedPoll) {
			poll.remove(this.speedPoll);
			this.speedPoll = null;
		}

		dom.content(this.speed, [
			running ? parts.progress(speed.progress(report), _('%s done').format(units.percent(speed.progress(report)))) : '',
			el('div', { 'id': 'cpe-speed-runs' }, runs.map(function(run) {
				return parts.fact(speed.label(run), run.state === 'done' ? units.rate(run.mbit)
					: run.state === 'running' && run.mbit ? '%s …'.format(units.rate(run.mbit)) : speed.state(run));
			})),
			el('div', { 'id': 'cpe-speed-conclusion' }, speed.conclusions(report).map(function(text) { return el('p', {}, el('strong', {}, text)) })),
			report.error ? el('p', {}, report.error) : ''
		]);
	},

	support: function() {
		return api.support().then(L.bind(function(reply) {
			const address = URL.createObjectURL(new Blob([ reply.report ], { type: 'text/plain' }));
			const name = 'cpe-mcp-support-%s.txt'.format(new Date().toISOString().slice(0, 19).replace(/[:T]/g, '-'));

			dom.content(this.report, [
				el('p', {}, el('a', { 'class': 'btn cbi-button cbi-button-save', 'id': 'cpe-support-save', 'href': address, 'download': name }, _('Save as a file'))),
				el('pre', { 'class': 'cpe-report', 'tabindex': '0' }, reply.report)
			]);
		}, this), L.bind(function(found) {
			dom.content(this.report, parts.trouble(found));
		}, this));
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
