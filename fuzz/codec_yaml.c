/* YAML. What is read is the same after it was written as YAML, and as JSON. */
#include "fuzz.h"
#include "codec/codec.h"

/* libyaml's writer breaks texts with characters that YAML cannot hold, and numbers lose nothing only up to a size. */
static bool writable(const struct value *v)
{
	if (v->kind == VALUE_TEXT)
		for (size_t i = 0; i < v->text.len; i++)
			if ((unsigned char)v->text.p[i] < 0x20 ||
				(unsigned char)v->text.p[i] >= 0x7f)
				return false;
	for (size_t i = 0; v->kind == VALUE_LIST && i < v->list.len; i++)
		if (!writable(&v->list.items[i]))
			return false;
	for (size_t i = 0; v->kind == VALUE_OBJECT && i < v->object.len; i++) {
		struct value key = { .kind = VALUE_TEXT, .text = v->object.members[i].key };

		if (key.text.len > 120 || !writable(&key) || !writable(&v->object.members[i].value))
			return false;
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *a = arena_new(0);
	char *exact = xmalloc(size + 1);
	struct value v, same, *docs;
	struct buf out = { 0 };
	struct err err;
	size_t n;

	memcpy(exact, data, size);
	yaml_parse_all(str_n(exact, size), a, &docs, &n, &err);
	if (!yaml_parse(str_n(exact, size), a, &v, &err)) {
		json_write(&v, &out);
		must(!json_parse(buf_str(&out), a, &same, &err) && value_equal(&v, &same));
		if (writable(&v)) {
			buf_clear(&out);
			yaml_write(&v, &out);
			must(!yaml_parse(buf_str(&out), a, &same, &err) && value_equal(&v, &same));
		}
	}
	buf_deinit(&out);
	free(exact);
	arena_free(a);
	return 0;
}
