/* Trees as YAML, by libyaml's emitter, in the form of sigs.k8s.io/yaml: keys sorted, block style, texts plain where they
 * read back as texts, several lines as a literal block. */
#include "codec/yaml_scalar.h"

#include <ctype.h>
#include <yaml.h>

static int append(void *to, unsigned char *p, size_t n)
{
	buf_add(to, p, n);
	return 1;
}

static void send(yaml_emitter_t *e, yaml_event_t *event, int made)
{
	if (!made || !yaml_emitter_emit(e, event))
		abort(); /* only out of memory comes here: events are well-formed and texts are UTF-8 */
}

static void write_scalar(yaml_emitter_t *e, struct str s, yaml_scalar_style_t style)
{
	yaml_event_t event;

	send(e, &event,
		yaml_scalar_event_initialize(&event, NULL, NULL,
			(const yaml_char_t *)(s.p ? s.p : ""), (int)s.len, 1, 1, style));
}

/* 190:20:30 is a number of base 60 to other readers. */
static bool is_base60(struct str s)
{
	bool colon = false;

	if (!s.len || !memchr("+-0123456789", *s.p, 12))
		return false;
	for (size_t i = 1; i < s.len; i++) {
		if (s.p[i] == ':')
			colon = true;
		else if (!isdigit((unsigned char)s.p[i]) && s.p[i] != '.' && s.p[i] != '_')
			return false;
	}
	return colon;
}

static bool looks_like_date(struct str s)
{
	return s.len >= 8 && isdigit((unsigned char)s.p[0]) && isdigit((unsigned char)s.p[3]) &&
		s.p[4] == '-' && isdigit((unsigned char)s.p[5]);
}

static void write_text(yaml_emitter_t *e, struct str s, bool key)
{
	yaml_scalar_style_t style = YAML_PLAIN_SCALAR_STYLE;

	if (!s.len || yaml_resolve(s).kind != VALUE_TEXT || is_base60(s) || looks_like_date(s))
		style = YAML_DOUBLE_QUOTED_SCALAR_STYLE;
	else if (!key && memchr(s.p, '\n', s.len))
		style = YAML_LITERAL_SCALAR_STYLE;
	write_scalar(e, s, style);
}

/* Natural order: numbers inside by their value, what is no letter before letters. */
static int compare_keys(struct str a, struct str b)
{
	size_t i = 0, j = 0;

	while (i < a.len && j < b.len) {
		unsigned char x = (unsigned char)a.p[i], y = (unsigned char)b.p[j];

		if (isdigit(x) && isdigit(y)) {
			size_t m = i, n = j;

			while (m < a.len && isdigit((unsigned char)a.p[m]))
				m++;
			while (n < b.len && isdigit((unsigned char)b.p[n]))
				n++;
			if (m - i != n - j)
				return m - i < n - j ? -1 : 1;
			int c = memcmp(a.p + i, b.p + j, m - i);

			if (c)
				return c;
			i = m;
			j = n;
			continue;
		}
		if (x != y) {
			bool p = isalpha(x) || x >= 0x80, q = isalpha(y) || y >= 0x80;

			return p == q ? x - y : p ? 1 : -1;
		}
		i++;
		j++;
	}
	return (a.len > b.len) - (a.len < b.len);
}

static int by_key(const void *a, const void *b)
{
	return compare_keys((*(const struct value_member *const *)a)->key,
		(*(const struct value_member *const *)b)->key);
}

static void write_value(yaml_emitter_t *e, const struct value *v);

static void write_object(yaml_emitter_t *e, const struct value *v)
{
	size_t n = v->object.len;
	struct value_member **order = xmalloc(n * sizeof(*order) + 1);
	yaml_event_t event;

	for (size_t i = 0; i < n; i++)
		order[i] = &v->object.members[i];
	qsort(order, n, sizeof(*order), by_key);
	send(e, &event,
		yaml_mapping_start_event_initialize(
			&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
	for (size_t i = 0; i < n; i++) {
		write_text(e, order[i]->key, true);
		write_value(e, &order[i]->value);
	}
	send(e, &event, yaml_mapping_end_event_initialize(&event));
	free(order);
}

static void write_value(yaml_emitter_t *e, const struct value *v)
{
	yaml_event_t event;
	char text[32];

	switch (v->kind) {
	case VALUE_NULL:
		write_scalar(e, STR("null"), YAML_PLAIN_SCALAR_STYLE);
		break;
	case VALUE_BOOL:
		write_scalar(e, v->boolean ? STR("true") : STR("false"), YAML_PLAIN_SCALAR_STYLE);
		break;
	case VALUE_INT:
		write_scalar(e, str_n(text, format_int(v->integer, text)), YAML_PLAIN_SCALAR_STYLE);
		break;
	case VALUE_DOUBLE:
		write_scalar(
			e, str_n(text, format_double(v->number, text)), YAML_PLAIN_SCALAR_STYLE);
		break;
	case VALUE_TEXT:
		write_text(e, v->text, false);
		break;
	case VALUE_LIST:
		send(e, &event,
			yaml_sequence_start_event_initialize(
				&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE));
		for (size_t i = 0; i < v->list.len; i++)
			write_value(e, &v->list.items[i]);
		send(e, &event, yaml_sequence_end_event_initialize(&event));
		break;
	case VALUE_OBJECT:
		write_object(e, v);
		break;
	}
}

void yaml_write(const struct value *v, struct buf *out)
{
	yaml_emitter_t e;
	yaml_event_t event;

	if (!yaml_emitter_initialize(&e))
		abort();
	yaml_emitter_set_output(&e, append, out);
	yaml_emitter_set_unicode(&e, 1);
	yaml_emitter_set_width(&e, -1);
	send(&e, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
	send(&e, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
	write_value(&e, v);
	send(&e, &event, yaml_document_end_event_initialize(&event, 1));
	send(&e, &event, yaml_stream_end_event_initialize(&event));
	yaml_emitter_flush(&e);
	yaml_emitter_delete(&e);
}
