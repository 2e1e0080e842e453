/* Names, labels and the list of causes. Rules: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and …/labels/. */
#include <stdio.h>

#include "model/model.h"

#define LABEL_MAX 63
#define SUBDOMAIN_MAX 253

static bool lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool alnum(char c)
{
	return lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

/* [a-z0-9]([-a-z0-9]*[a-z0-9])? */
static bool dns_label(struct str s)
{
	if (!s.len || !lower_alnum(s.p[0]) || !lower_alnum(s.p[s.len - 1]))
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (!lower_alnum(s.p[i]) && s.p[i] != '-')
			return false;
	return true;
}

#define MSG_LABEL \
	"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character " \
	"(e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
#define MSG_LABEL_1035 \
	"a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an " \
	"alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
#define MSG_SUBDOMAIN \
	"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an " \
	"alphanumeric character (e.g. 'example.com', regex used for validation is " \
	"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
#define MSG_KEY \
	"name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. " \
	"'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
#define MSG_VALUE \
	"a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an " \
	"alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is " \
	"'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
#define MSG_63 "must be no more than 63 bytes"
#define MSG_253 "must be no more than 253 bytes"

const char *valid_dns_label(struct str s)
{
	if (s.len > LABEL_MAX)
		return MSG_63;
	return dns_label(s) ? NULL : MSG_LABEL;
}

const char *valid_dns_label_1035(struct str s)
{
	if (s.len > LABEL_MAX)
		return MSG_63;
	return dns_label(s) && s.p[0] >= 'a' ? NULL : MSG_LABEL_1035;
}

const char *valid_dns_subdomain(struct str s)
{
	struct str part;
	bool more = true;

	if (s.len > SUBDOMAIN_MAX)
		return MSG_253;
	while (more) {
		more = str_cut(s, '.', &part, &s);
		if (!dns_label(part))
			return MSG_SUBDOMAIN;
	}
	return NULL;
}

/* [A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])? */
static bool qualified(struct str s)
{
	if (!s.len || !alnum(s.p[0]) || !alnum(s.p[s.len - 1]))
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (!alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && s.p[i] != '.')
			return false;
	return true;
}

const char *valid_label_key(struct str s)
{
	struct str prefix, name;

	if (str_cut(s, '/', &prefix, &name)) {
		const char *bad;

		if (!prefix.len)
			return "prefix part must be non-empty";
		bad = valid_dns_subdomain(prefix);
		if (bad)
			return bad == (const char *)MSG_253
				? "prefix part must be no more than 253 bytes"
				: "prefix part " MSG_SUBDOMAIN;
	} else {
		name = s;
	}
	if (!name.len)
		return "name part must be non-empty";
	if (name.len > LABEL_MAX)
		return "name part must be no more than 63 bytes";
	return qualified(name) ? NULL : MSG_KEY;
}

const char *valid_label_value(struct str s)
{
	if (s.len > LABEL_MAX)
		return MSG_63;
	return !s.len || qualified(s) ? NULL : MSG_VALUE;
}

/* ---- causes ---- */

/* clang-format off */
static const struct { const char *reason, *label; } reasons[] = {
	[CAUSE_REQUIRED]      = { "FieldValueRequired",     "Required value" },
	[CAUSE_INVALID]       = { "FieldValueInvalid",      "Invalid value" },
	[CAUSE_NOT_SUPPORTED] = { "FieldValueNotSupported", "Unsupported value" },
	[CAUSE_DUPLICATE]     = { "FieldValueDuplicate",    "Duplicate value" },
	[CAUSE_NOT_FOUND]     = { "FieldValueNotFound",     "Not found" },
	[CAUSE_FORBIDDEN]     = { "FieldValueForbidden",    "Forbidden" },
	[CAUSE_TOO_LONG]      = { "FieldValueTooLong",      "Too long" },
	[CAUSE_TOO_MANY]      = { "FieldValueTooMany",      "Too many" },
	[CAUSE_TYPE_INVALID]  = { "FieldValueTypeInvalid",  "Invalid value" },
};
/* clang-format on */

const char *cause_reason_text(enum cause_reason r)
{
	return reasons[r].reason;
}

void cause_add(struct causes *cs, enum cause_reason r, struct str path, struct str value,
	const char *fmt, ...)
{
	CLEAN_BUF struct buf text = { 0 };
	struct cause *c;
	va_list ap;

	if (cs->len >= CAUSES_MAX)
		return;
	if ((cs->len & (cs->len - 1)) == 0)
		cs->items = arena_grow(cs->arena, cs->items, cs->len * sizeof(*cs->items),
			(cs->len ? cs->len * 2 : 1) * sizeof(*cs->items));
	c = &cs->items[cs->len++];
	buf_addz(&text, reasons[r].label);
	/* A number or a value that is itself JSON is given ready-made in quotes or not at all by its caller. */
	if (value.p)
		buf_addf(&text, ": \"" STR_FMT "\"", STR_ARG(value));
	if (fmt && *fmt) {
		buf_addz(&text, ": ");
		va_start(ap, fmt);
		buf_vaddf(&text, fmt, ap);
		va_end(ap);
	}
	*c = (struct cause){ r, arena_str(cs->arena, path), arena_str(cs->arena, buf_str(&text)) };
}
