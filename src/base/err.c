/* Failure texts for people. Arguments may point into the text that is being replaced. */
#include "base/base.h"

#include <stdio.h>

static void set_text(struct err *err, const char *text)
{
	size_t n = strnlen(text, sizeof(err->text) - 1);

	memcpy(err->text, text, n);
	err->text[n] = '\0';
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	set_text(err, text);
	return code;
}

int err_prefix(struct err *err, int code, const char *fmt, ...)
{
	char text[2 * sizeof(err->text) + 2]; /* both parts whole; the end is cut off afterwards */
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(err->text), fmt, ap);
	va_end(ap);
	size_t at = MIN((size_t)MAX(n, 0), sizeof(err->text) - 1);

	snprintf(text + at, sizeof(text) - at, ": %s", err->text);
	set_text(err, text);
	return code;
}

int err_errno(struct err *err, int code, const char *fmt, ...)
{
	char text[sizeof(err->text)], reason[128];
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(text))
		snprintf(text + n, sizeof(text) - (size_t)n, ": %s",
			strerror_r(code < 0 ? -code : code, reason, sizeof(reason)));
	set_text(err, text);
	return code;
}
