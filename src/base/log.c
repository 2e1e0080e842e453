/* One line on standard error per decision, written by one write() so that lines of threads never mix. */
#include "base/base.h"
#include "base/values.h"

#include <stdatomic.h>
#include <stdio.h>

#define LEVEL_UNKNOWN (-1)

static const char *const level_names[] = {
	[LOG_ERROR] = "error",
	[LOG_WARN] = "warn",
	[LOG_INFO] = "info",
	[LOG_DEBUG] = "debug",
};
static atomic_int current_level = LEVEL_UNKNOWN;

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

static int level_from_env(void)
{
	const char *name = getenv("SKIFF_LOG");
	int level = LOG_INFO;

	for (size_t i = 0; name && i < ARRAY_LEN(level_names); i++)
		if (!strcmp(name, level_names[i]))
			level = (int)i;
	atomic_store_explicit(&current_level, level, memory_order_relaxed);
	return level;
}

bool log_enabled(enum log_level level)
{
	int now = atomic_load_explicit(&current_level, memory_order_relaxed);

	if (now == LEVEL_UNKNOWN)
		now = level_from_env();
	return (int)level <= now;
}

void log_write(enum log_level level, const char *component, const char *fmt, ...)
{
	char line[2048], when[TIME_TEXT_MAX];
	int saved_errno = errno;
	va_list ap;

	if (!log_enabled(level))
		return;
	time_format_micro(time_now(), when);
	size_t n = (size_t)snprintf(
		line, sizeof(line), "%s %s %s: ", when, level_names[level], component);

	n = MIN(n, sizeof(line) - 1);
	va_start(ap, fmt);
	int r = vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	n = MIN(n + (size_t)MAX(r, 0), sizeof(line) - 1);
	/* A text with newlines must stay one line for whoever reads line by line. */
	for (size_t i = 0; i < n; i++)
		if (line[i] == '\n')
			line[i] = ' ';
	line[n++] = '\n';
	for (size_t at = 0; at < n;) {
		ssize_t w = write(STDERR_FILENO, line + at, n - at);

		if (w < 0 && errno != EINTR)
			break;
		at += w > 0 ? (size_t)w : 0;
	}
	errno = saved_errno;
}
