'use strict';
'require baseclass';
'require cpe-mcp.reasons as reasons';
'require cpe-mcp.selftest as selftest';

/* Words of the daemon { code, args } as text. An argument is a name or a number, words of its own, or a list. Pure. */

return baseclass.extend({
	/* translated, or as the daemon wrote it (plain) where the code is a newer daemon's */
	text: function(words, plain) {
		const read = L.bind(function(argument) {
			return Array.isArray(argument) ? argument.map(read).join(', ')
				: typeof(argument) === 'object' ? this.text(argument) : String(argument);
		}, this);
		const text = words && (selftest.texts[words.code] || reasons.texts[words.code]);

		return text ? text.format.apply(text, words.args.map(read)) : plain || words && words.code || '';
	}
});
