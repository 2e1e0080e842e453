/* Records on disk: a flat struct, one small JSON object, by rows. What is unknown in a file is ignored, what is missing stays zero, so records
 * of older and newer engines are read. */
#include "engine/internal.h"

#include <fcntl.h>
#include <stdio.h>

#define RECORD_MAX (1024 * 1024)

void path_fmt(char out[PATH_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(out, PATH_MAX, fmt, ap);
	va_end(ap);
	if (n < 0 || n >= PATH_MAX)
		abort();
}

/* ---- lists of texts ---- */
size_t texts_len(char *const *texts)
{
	size_t n = 0;

	while (texts && texts[n])
		n++;
	return n;
}

bool texts_has(char *const *texts, struct str s)
{
	for (size_t i = 0; texts && texts[i]; i++)
		if (str_eqz(s, texts[i]))
			return true;
	return false;
}

void texts_add(char ***texts, struct str s)
{
	size_t n = texts_len(*texts);

	if (texts_has(*texts, s))
		return;
	*texts = xrealloc(*texts, (n + 2) * sizeof(**texts));
	(*texts)[n] = str_dup(s);
	(*texts)[n + 1] = NULL;
}

void texts_remove(char ***texts, struct str s)
{
	size_t out = 0;

	for (size_t i = 0; *texts && (*texts)[i]; i++)
		if (str_eqz(s, (*texts)[i]))
			free((*texts)[i]);
		else
			(*texts)[out++] = (*texts)[i];
	if (*texts)
		(*texts)[out] = NULL;
}

void texts_free(char **texts)
{
	for (size_t i = 0; texts && texts[i]; i++)
		free(texts[i]);
	free(texts);
}

/* ---- writing ---- */
static void write_field(const struct record_row *row, const void *field, struct buf *out)
{
	char *const *texts;

	switch (row->kind) {
	case RECORD_TEXT:
		json_write_text(str_of(*(char *const *)field), out);
		break;
	case RECORD_INT:
		buf_addf(out, "%lld", (long long)*(const int64_t *)field);
		break;
	case RECORD_BOOL:
		buf_addz(out, *(const bool *)field ? "true" : "false");
		break;
	case RECORD_TEXTS:
		texts = *(char *const *const *)field;
		buf_addc(out, '[');
		for (size_t i = 0; texts && texts[i]; i++) {
			if (i)
				buf_addc(out, ',');
			json_write_text(str_of(texts[i]), out);
		}
		buf_addc(out, ']');
		break;
	}
}

static bool is_zero(const struct record_row *row, const void *field)
{
	switch (row->kind) {
	case RECORD_INT:
		return !*(const int64_t *)field;
	case RECORD_BOOL:
		return !*(const bool *)field;
	default:
		return !*(void *const *)field;
	}
}

int record_save(
	const struct record_type *t, const void *r, const char *path, bool durable, struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };

	for (size_t i = 0; i < t->n_rows; i++) {
		const void *field = (const char *)r + t->rows[i].offset;
		if (is_zero(&t->rows[i], field))
			continue;
		buf_addf(&text, "%c\n\"%s\":", text.len ? ',' : '{', t->rows[i].name);
		write_field(&t->rows[i], field, &text);
	}
	buf_addz(&text, text.len ? "\n}\n" : "{}\n");
	return file_write_atomic(path, buf_str(&text), 0600, durable, err);
}

/* ---- reading ---- */
static bool read_field(const struct record_row *row, const struct value *v, void *field)
{
	switch (row->kind) {
	case RECORD_TEXT:
		if (v->kind == VALUE_TEXT)
			*(char **)field = str_dup(v->text);
		return v->kind == VALUE_TEXT;
	case RECORD_INT:
		if (v->kind == VALUE_INT)
			*(int64_t *)field = v->integer;
		return v->kind == VALUE_INT;
	case RECORD_BOOL:
		if (v->kind == VALUE_BOOL)
			*(bool *)field = v->boolean;
		return v->kind == VALUE_BOOL;
	case RECORD_TEXTS:
		for (size_t i = 0; v->kind == VALUE_LIST && i < v->list.len; i++) {
			if (v->list.items[i].kind != VALUE_TEXT)
				return false;
			texts_add(field, v->list.items[i].text);
		}
		return v->kind == VALUE_LIST;
	}
	return false;
}

int record_load(const struct record_type *t, void *r, const char *path, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf text = { 0 };
	struct value root;
	int e = file_read(path, RECORD_MAX, &text, err);

	if (e < 0)
		return e;
	if (json_parse(buf_str(&text), a, &root, err) < 0 || root.kind != VALUE_OBJECT)
		return err_set(err, -EBADMSG, "%s is damaged: it is no record of the engine", path);
	for (size_t i = 0; i < t->n_rows; i++) {
		const struct value *v = value_get(&root, str_of(t->rows[i].name));
		if (v && v->kind != VALUE_NULL &&
			!read_field(&t->rows[i], v, (char *)r + t->rows[i].offset)) {
			record_deinit(t, r);
			return err_set(err, -EBADMSG, "%s is damaged: \"%s\" has the wrong type",
				path, t->rows[i].name);
		}
	}
	return 0;
}

void record_deinit(const struct record_type *t, void *r)
{
	for (size_t i = 0; i < t->n_rows; i++) {
		void *field = (char *)r + t->rows[i].offset;
		if (t->rows[i].kind == RECORD_TEXT)
			free(TAKE(*(char **)field));
		else if (t->rows[i].kind == RECORD_TEXTS)
			texts_free(TAKE(*(char ***)field));
	}
}
