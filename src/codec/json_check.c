/* What is wrong with a malformed text, in the words of Go's encoding/json. Only errors come here: slow and plain. */
#include "codec/internal.h"

#include <ctype.h>
#include <stdio.h>

struct check {
	const char *p, *end;
	struct err *err;
	size_t depth;
	bool in_object[CODEC_MAX_DEPTH + 1];
};

static int ended(struct check *c)
{
	return err_set(c->err, -EBADMSG, "unexpected end of JSON input");
}

static int bad_char(struct check *c, const char *context)
{
	char text[16];

	if (c->p == c->end)
		return ended(c);
	unsigned char ch = (unsigned char)*c->p;

	if (ch == '\'')
		snprintf(text, sizeof(text), "'\\''");
	else if (ch == '\n' || ch == '\t' || ch == '\r')
		snprintf(text, sizeof(text), "'\\%c'", ch == '\n' ? 'n' : ch == '\t' ? 't' : 'r');
	else if (ch == '\\')
		snprintf(text, sizeof(text), "'\\\\'");
	else if (ch < 0x20 || ch == 0x7f)
		snprintf(text, sizeof(text), "'\\x%02x'", ch);
	else if (ch < 0x80)
		snprintf(text, sizeof(text), "'%c'", ch);
	else if (ch < 0xa0)
		snprintf(text, sizeof(text), "'\\u%04x'", ch);
	else
		snprintf(text, sizeof(text), "'%c%c'", 0xc0 | ch >> 6, 0x80 | (ch & 0x3f));
	return err_set(c->err, -EBADMSG, "invalid character %s %s", text, context);
}

static bool at_digit(const struct check *c)
{
	return c->p < c->end && isdigit((unsigned char)*c->p);
}

static bool at_any(const struct check *c, const char *set)
{
	return c->p < c->end && *c->p && strchr(set, *c->p);
}

static int check_string(struct check *c)
{
	for (c->p++;; c->p++) {
		if (c->p == c->end)
			return ended(c);
		if (*c->p == '"') {
			c->p++;
			return 0;
		}
		if ((unsigned char)*c->p < 0x20)
			return bad_char(c, "in string literal");
		if (*c->p != '\\')
			continue;
		c->p++;
		if (!at_any(c, "\"\\/bfnrtu"))
			return bad_char(c, "in string escape code");
		for (int i = 0, hex = *c->p == 'u' ? 4 : 0; i < hex; i++) {
			c->p++;
			if (c->p == c->end || !isxdigit((unsigned char)*c->p))
				return bad_char(c, "in \\u hexadecimal character escape");
		}
	}
}

static void skip_digits(struct check *c)
{
	while (at_digit(c))
		c->p++;
}

static int check_number(struct check *c)
{
	if (*c->p == '-')
		c->p++;
	if (!at_digit(c))
		return bad_char(c, "in numeric literal");
	if (*c->p == '0')
		c->p++;
	else
		skip_digits(c);
	if (at_any(c, ".")) {
		c->p++;
		if (!at_digit(c))
			return bad_char(c, "after decimal point in numeric literal");
		skip_digits(c);
	}
	if (at_any(c, "eE")) {
		c->p++;
		if (at_any(c, "+-"))
			c->p++;
		if (!at_digit(c))
			return bad_char(c, "in exponent of numeric literal");
		skip_digits(c);
	}
	return 0;
}

static int check_word(struct check *c, const char *word)
{
	char context[48];

	for (const char *w = word; *w; w++, c->p++) {
		snprintf(context, sizeof(context), "in literal %s (expecting '%c')", word, *w);
		if (c->p == c->end || *c->p != *w)
			return bad_char(c, context);
	}
	return 0;
}

static int check_scalar(struct check *c)
{
	switch (*c->p) {
	case '"':
		return check_string(c);
	case 't':
		return check_word(c, "true");
	case 'f':
		return check_word(c, "false");
	case 'n':
		return check_word(c, "null");
	}
	if (*c->p == '-' || at_digit(c))
		return check_number(c);
	return bad_char(c, "looking for beginning of value");
}

static int check_key(struct check *c)
{
	c->p = skip_space(c->p, c->end);
	if (!at_any(c, "\""))
		return bad_char(c, "looking for beginning of object key string");
	int r = check_string(c);

	if (r < 0)
		return r;
	c->p = skip_space(c->p, c->end);
	if (!at_any(c, ":"))
		return bad_char(c, "after object key");
	c->p++;
	return 0;
}

/* Opens an object or list. 1: it is empty and closed again. */
static int check_open(struct check *c)
{
	bool object = *c->p == '{';

	if (c->depth >= CODEC_MAX_DEPTH)
		return err_set(c->err, -EBADMSG, "exceeded max depth (%d levels of nesting)",
			CODEC_MAX_DEPTH);
	c->in_object[++c->depth] = object;
	c->p = skip_space(c->p + 1, c->end);
	if (at_any(c, object ? "}" : "]")) {
		c->p++;
		c->depth--;
		return 1;
	}
	return object ? check_key(c) : 0;
}

/* Behind a value: closes what ends here. 1: another value follows. */
static int check_close(struct check *c)
{
	while (c->depth) {
		bool object = c->in_object[c->depth];

		c->p = skip_space(c->p, c->end);
		if (at_any(c, ",")) {
			c->p++;
			int r = object ? check_key(c) : 0;

			return r < 0 ? r : 1;
		}
		if (!at_any(c, object ? "}" : "]"))
			return bad_char(
				c, object ? "after object key:value pair" : "after array element");
		c->p++;
		c->depth--;
	}
	return 0;
}

int json_check(struct str text, struct err *err)
{
	text = never_null(text);
	struct check c = { .p = text.p, .end = text.p + text.len, .err = err };
	int r;

	do {
		c.p = skip_space(c.p, c.end);
		if (c.p == c.end)
			return ended(&c);
		if (*c.p == '{' || *c.p == '[') {
			r = check_open(&c);
			if (r == 0) {
				r = 1;
				continue; /* to the first value inside */
			}
		} else {
			r = check_scalar(&c);
		}
		if (r >= 0)
			r = check_close(&c);
	} while (r > 0);
	if (r < 0)
		return r;
	c.p = skip_space(c.p, c.end);
	return c.p == c.end ? 0 : bad_char(&c, "after top-level value");
}
