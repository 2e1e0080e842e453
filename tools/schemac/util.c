/* Memory, complaints, and names turned into C. */
#include "schemac.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int complaints;

void *alloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);
	if (!p)
		abort();
	return p;
}

void *grow(void *p, size_t n, size_t size)
{
	if (n & (n - 1)) /* only at powers of two */
		return p;
	p = realloc(p, (n ? n * 2 : 1) * size);
	if (!p)
		abort();
	return p;
}

char *copy(const char *s, size_t n)
{
	char *p = alloc(n + 1);
	memcpy(p, s, n);
	return p;
}

char *format(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	char *p = NULL;
	if (vasprintf(&p, fmt, ap) < 0)
		abort();
	va_end(ap);
	return p;
}

void complain(struct where at, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fprintf(stderr, "%s:%d: ", at.path, at.line);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	complaints++;
}

/* Words that cannot be a member's name: C's own, and what gcc or stdbool.h define as macros. */
static const char *const reserved[] = {
	"auto",
	"bool",
	"break",
	"case",
	"char",
	"const",
	"continue",
	"default",
	"do",
	"double",
	"else",
	"enum",
	"extern",
	"false",
	"float",
	"for",
	"goto",
	"if",
	"inline",
	"int",
	"linux",
	"long",
	"register",
	"restrict",
	"return",
	"short",
	"signed",
	"sizeof",
	"static",
	"struct",
	"switch",
	"true",
	"typedef",
	"union",
	"unix",
	"unsigned",
	"void",
	"volatile",
	"while",
};

/* clusterIPs -> cluster_ips, SELinuxOptions -> se_linux_options, x-kubernetes-list-type -> x_kubernetes_list_type */
char *snake(const char *name, bool member)
{
	size_t n = strlen(name), o = 0;
	char *out = alloc(2 * n + 2);
	for (size_t i = 0; i < n; i++) {
		unsigned char c = name[i], prev = i ? name[i - 1] : 0, next = name[i + 1];
		if (!isalnum(c)) {
			if (o && out[o - 1] != '_')
				out[o++] = '_';
			continue;
		}
		if (isupper(c) && o && out[o - 1] != '_') {
			bool plural_next = next == 's' &&
				(!name[i + 2] || isupper((unsigned char)name[i + 2]));
			bool starts_word = !isupper(prev);
			if (starts_word || (islower(next) && !plural_next))
				out[o++] = '_';
		}
		out[o++] = tolower(c);
	}
	out[o] = 0;
	for (size_t i = 0; member && i < sizeof(reserved) / sizeof(reserved[0]); i++)
		if (!strcmp(out, reserved[i]))
			strcat(out, "_");
	return out;
}
