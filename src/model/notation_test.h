/* A simple notation of JSON for the model's tests, which stand below the codec: ' for ", no escapes, commas and colons are
 * blanks. Included after cmocka.h; memory from the arena `a` of the test. */
#ifndef SKIFF_MODEL_NOTATION_TEST_H
#define SKIFF_MODEL_NOTATION_TEST_H

#include "model/model.h"

static struct arena *a;

static int setup(void **state)
{
	a = arena_new(0);
	return 0;
}

static int teardown(void **state)
{
	arena_free(a);
	return 0;
}

static const char *read_value(const char *p, struct value *ret);

static const char *space(const char *p)
{
	while (*p == ' ' || *p == '\n' || *p == ',' || *p == ':')
		p++;
	return p;
}

static const char *read_text(const char *p, struct str *ret)
{
	const char *end = strchr(p + 1, '\'');

	*ret = str_n(p + 1, (size_t)(end - p - 1));
	return end + 1;
}

static const char *read_value(const char *p, struct value *ret)
{
	p = space(p);
	*ret = (struct value){ 0 };
	if (*p == '{') {
		ret->kind = VALUE_OBJECT;
		for (p = space(p + 1); *p != '}'; p = space(p)) {
			struct str key;

			p = read_text(p, &key);
			p = read_value(p, value_set(a, ret, key));
		}
		return p + 1;
	}
	if (*p == '[') {
		ret->kind = VALUE_LIST;
		for (p = space(p + 1); *p != ']'; p = space(p))
			p = read_value(p, value_append(a, ret));
		return p + 1;
	}
	if (*p == '\'') {
		ret->kind = VALUE_TEXT;
		return read_text(p, &ret->text);
	}
	if (*p == 'n')
		return p + 4;
	if (*p == 't' || *p == 'f') {
		ret->kind = VALUE_BOOL;
		ret->boolean = *p == 't';
		return p + (*p == 't' ? 4 : 5);
	}
	char *end;

	ret->kind = VALUE_INT;
	ret->integer = strtoll(p, &end, 10);
	return end;
}

static struct value v(const char *text)
{
	struct value value;

	read_value(text, &value);
	return value;
}

static void write_value(const struct value *x, struct buf *b)
{
	switch (x->kind) {
	case VALUE_NULL:
		buf_addz(b, "null");
		break;
	case VALUE_BOOL:
		buf_addz(b, x->boolean ? "true" : "false");
		break;
	case VALUE_INT:
		buf_addf(b, "%lld", (long long)x->integer);
		break;
	case VALUE_DOUBLE:
		buf_addf(b, "%g", x->number);
		break;
	case VALUE_TEXT:
		buf_addf(b, "'" STR_FMT "'", STR_ARG(x->text));
		break;
	case VALUE_LIST:
		buf_addc(b, '[');
		for (size_t i = 0; i < x->list.len; i++) {
			buf_addz(b, i ? "," : "");
			write_value(&x->list.items[i], b);
		}
		buf_addc(b, ']');
		break;
	case VALUE_OBJECT:
		buf_addc(b, '{');
		for (size_t i = 0; i < x->object.len; i++) {
			buf_addf(b, "%s'" STR_FMT "':", i ? "," : "",
				STR_ARG(x->object.members[i].key));
			write_value(&x->object.members[i].value, b);
		}
		buf_addc(b, '}');
		break;
	}
}

static void expect(const struct value *got, const char *want, const char *patch)
{
	struct value w = v(want);
	struct buf b = { 0 };

	if (value_equal(got, &w))
		return;
	write_value(got, &b);
	fail_msg("patch %s\nwant %s\ngot  %s", patch, want, b.p);
}

#endif
