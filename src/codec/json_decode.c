/* JSON into structs, in one pass. The next member is guessed to be the next row of the type (objects are mostly written in
 * that order); else the name is looked up by its hash. A text that turns out malformed is read once more, by json_check,
 * for the words of the error. Recursion goes only as deep as messages nest. */
#include "codec/json_decode.h"

#include <stdio.h>

static int decode_message(struct dec *d, const struct type *t, char *obj, const struct frame *up);

/* ---- words about where and what ---- */

static void write_path(const struct frame *f, struct buf *out, bool indexes)
{
	if (!f)
		return;
	write_path(f->up, out, indexes);
	if (f->kind == FRAME_INDEX) {
		if (indexes)
			buf_addf(out, "[%zu]", f->index);
		return;
	}
	if (f->kind == FRAME_KEY && !indexes)
		return;
	if (out->len)
		buf_addc(out, '.');
	buf_add_str(out, f->name);
}

static void note(struct dec *d, const char *what, const struct frame *at)
{
	struct buf path = { 0 };

	if (!d->notes)
		return;
	write_path(at, &path, true);
	note_add(d->notes, "%s field \"" STR_FMT "\"", what, STR_ARG(buf_str(&path)));
	buf_deinit(&path);
}

/* Go's name of a type: v1.PodSpec. */
static void message_name(const struct type *t, char *out, size_t n)
{
	snprintf(out, n, "%s.%s", t->version, t->name);
}

static void go_type(const struct field *f, bool item, char out[128])
{
	static const char *const names[] = {
		[KIND_BOOL] = "bool",
		[KIND_INT32] = "int32",
		[KIND_INT64] = "int64",
		[KIND_DOUBLE] = "float64",
		[KIND_STRING] = "string",
		[KIND_BYTES] = "[]uint8",
		[KIND_TIME] = "string",
		[KIND_MICROTIME] = "string",
		[KIND_DURATION] = "string",
		[KIND_QUANTITY] = "resource.Quantity",
		[KIND_INT_OR_STRING] = "int32",
		[KIND_RAW] = "runtime.RawExtension",
		[KIND_JSON] = "interface {}",
	};
	char name[100];
	const char *before = "";

	if (f->kind == KIND_MESSAGE)
		message_name(f->type, name, sizeof(name));
	else
		snprintf(name, sizeof(name), "%s", names[f->kind]);
	if (!item)
		before = f->shape == SHAPE_LIST      ? "[]"
			: f->shape == SHAPE_MAP      ? "map[string]"
			: f->shape == SHAPE_MAP_LIST ? "map[string][]"
						     : "";
	else if (f->shape == SHAPE_MAP_LIST)
		before = "[]";
	snprintf(out, 128, "%s%s", before, name);
}

/* Makes the error of the innermost message, the only one that tells it. */
static int tell_mismatch(struct dec *d, const struct type *t, const struct frame *at)
{
	struct buf path = { 0 };
	char type[128];

	if (d->told || !d->bad)
		return -EBADMSG;
	go_type(d->bad_field, d->bad_item, type);
	write_path(at, &path, false);
	err_set(d->err, 0,
		"json: cannot unmarshal %s into Go struct field %s." STR_FMT " of type %s", d->bad,
		t->name, STR_ARG(buf_str(&path)), type);
	buf_deinit(&path);
	d->told = true;
	return -EBADMSG;
}

static int tell_too_large(struct dec *d, const struct frame *at)
{
	struct buf path = { 0 };

	write_path(at, &path, true);
	err_set(d->err, 0, STR_FMT ": too many items for a text of this size; send fewer",
		STR_ARG(buf_str(&path)));
	buf_deinit(&path);
	d->told = true;
	return -EBADMSG;
}

/* ---- lists and maps ---- */

#define CHUNK_MIN 4096

static void *chunk_item(struct dec *d, size_t size)
{
	struct chunk *c = d->chunk;

	if (c->used + size > c->cap) {
		if (c->next && c->next->cap < size) { /* kept from before, and too small */
			struct chunk *small = c->next;

			c->next = small->next;
			free(small);
		}
		if (!c->next) {
			size_t cap = MAX(2 * c->cap, 4 * size);
			struct chunk *n = xmalloc(sizeof(*n) + cap);

			*n = (struct chunk){ .cap = cap, .data = (char *)(n + 1) };
			c->next = n;
		}
		c = d->chunk = c->next;
		c->used = 0;
	}
	void *item = c->data + c->used;

	c->used += size;
	return memset(item, 0, size);
}

/* Moves what was pushed since `first`/`used` into the arena. */
static void chunk_pop(struct dec *d, struct chunk *first, size_t used, size_t n, size_t size,
	struct any_list *ret)
{
	char *to = n ? arena_alloc(d->arena, model_list_room(n) * size) : MODEL_EMPTY;

	ret->items = to;
	ret->len = n;
	for (struct chunk *c = first; n; c = c->next) {
		size_t from = c == first ? used : 0;

		memcpy(to, c->data + from, c->used - from);
		to += c->used - from;
		if (c == d->chunk)
			break;
	}
	d->chunk = first;
	first->used = used;
}

static int enter(struct dec *d)
{
	return ++d->depth > CODEC_MAX_DEPTH ? -EBADMSG : 0;
}

/* Behind an item: 1 another follows, 0 the end, < 0 malformed. */
static int next_item(struct dec *d, char close)
{
	d->p = skip_space(d->p, d->end);
	if (d->p == d->end)
		return -EBADMSG;
	char c = *d->p++;

	if (c == ',') {
		d->p = skip_space(d->p, d->end);
		return d->p == d->end || *d->p == close ? -EBADMSG : 1;
	}
	d->depth--;
	return c == close ? 0 : -EBADMSG;
}

/* Behind the opening bracket: 1 an item follows, 0 it is empty. */
static int first_item(struct dec *d, char close)
{
	d->p = skip_space(d->p + 1, d->end);
	if (enter(d) < 0 || d->p == d->end)
		return -EBADMSG;
	if (*d->p != close)
		return 1;
	d->p++;
	d->depth--;
	return 0;
}

static int decode_item(struct dec *d, const struct field *f, void *to, const struct frame *at)
{
	if (take_null(d))
		return 0;
	if (f->kind != KIND_MESSAGE)
		return decode_scalar(d, f, to, true);
	if (d->p == d->end || (*d->p != '{' && !f->type->is_either))
		return mismatch(d, f, true);
	return decode_message(d, f->type, to, at);
}

static int decode_list(struct dec *d, const struct field *f, struct any_list *ret,
	const struct frame *up, bool nested)
{
	struct chunk *first = d->chunk;
	size_t used = first->used, n = 0, size = model_kind_size(f->kind, f->type);
	struct frame at = { .up = up, .kind = FRAME_INDEX };
	int r;

	if (d->p == d->end || *d->p != '[')
		return mismatch(d, f, nested);
	for (r = first_item(d, ']'); r > 0; r = next_item(d, ']')) {
		void *item = chunk_item(d, size);

		at.index = n++;
		d->budget -= (int64_t)size;
		if (d->budget < 0)
			return tell_too_large(d, &at);
		r = decode_item(d, f, item, &at);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	chunk_pop(d, first, used, n, size, ret);
	return 0;
}

static int decode_key(struct dec *d, struct str *ret)
{
	if (d->p == d->end || *d->p != '"')
		return -EBADMSG;
	int r = decode_text(d, ret);

	if (r < 0)
		return r;
	d->p = skip_space(d->p, d->end);
	if (d->p == d->end || *d->p != ':')
		return -EBADMSG;
	d->p = skip_space(d->p + 1, d->end);
	return d->p == d->end ? -EBADMSG : 0;
}

static void note_duplicate_keys(
	struct dec *d, const struct any_list *l, size_t size, const struct frame *up)
{
	/* Only a map with duplicates comes here: quadratic work is bounded by the number of notes kept. */
	for (size_t i = 1; i < l->len && d->notes->len < 100; i++) {
		struct str key = *(struct str *)(l->items + i * size);
		bool seen = false;

		for (size_t j = 0; j < i && i < 10000 && !seen; j++)
			seen = str_eq(key, *(struct str *)(l->items + j * size));
		if (seen) {
			struct frame at = { .up = up, .kind = FRAME_KEY, .name = key };

			note(d, "duplicate", &at);
		}
	}
}

static int decode_map(
	struct dec *d, const struct field *f, struct any_list *ret, const struct frame *up)
{
	struct chunk *first = d->chunk;
	size_t used = first->used, n = 0, size = model_item_size(f);
	struct frame at = { .up = up, .kind = FRAME_KEY };
	int r;

	if (d->p == d->end || *d->p != '{')
		return mismatch(d, f, false);
	for (r = first_item(d, '}'); r > 0; r = next_item(d, '}')) {
		char *entry = chunk_item(d, size);

		n++;
		d->budget -= (int64_t)size;
		if (d->budget < 0)
			return tell_too_large(d, &at);
		r = decode_key(d, (struct str *)entry);
		if (r < 0)
			return r;
		at.name = *(struct str *)entry;
		if (f->shape == SHAPE_MAP_LIST)
			r = take_null(d)
				? 0
				: decode_list(d, f, (struct any_list *)(entry + MAP_VALUE_OFFSET),
					  &at, true);
		else
			r = decode_item(d, f, entry + MAP_VALUE_OFFSET, &at);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	chunk_pop(d, first, used, n, size, ret);
	codec_sort_map(ret, size);
	if (ret->len < n && d->notes) {
		/* The texts are gone from the sorted map, but the chunk still holds them as read. */
		struct any_list all = { .items = first->data + used,
			.len = first->cap - used >= n * size ? n : 0 };

		note_duplicate_keys(d, &all, size, up);
	}
	return 0;
}

/* ---- members ---- */

static int decode_pointer(struct dec *d, const struct field *f, void *to, const struct frame *at)
{
	if (f->kind == KIND_MESSAGE) {
		void *obj = *(void **)to;

		if (d->p == d->end || (*d->p != '{' && !f->type->is_either))
			return mismatch(d, f, false);
		if (!obj) {
			d->budget -= f->type->size;
			if (d->budget < 0)
				return tell_too_large(d, at);
			obj = arena_alloc(d->arena, f->type->size);
		}
		int r = decode_message(d, f->type, obj, at);

		if (!r)
			*(void **)to = obj;
		return r;
	}
	switch (f->kind) {
	case KIND_BOOL: {
		struct opt_bool *v = to;
		v->set = true;
		return decode_scalar(d, f, &v->value, false);
	}
	case KIND_INT32: {
		struct opt_int32 *v = to;
		v->set = true;
		return decode_scalar(d, f, &v->value, false);
	}
	case KIND_INT64:
	case KIND_DURATION: {
		struct opt_int64 *v = to;
		v->set = true;
		return decode_scalar(d, f, &v->value, false);
	}
	case KIND_DOUBLE: {
		struct opt_double *v = to;
		v->set = true;
		return decode_scalar(d, f, &v->value, false);
	}
	default:
		return decode_scalar(d, f, to, false);
	}
}

/* null: pointers, lists and maps are not there; of other members nothing changes. */
static void set_null(const struct field *f, void *to)
{
	if (f->shape >= SHAPE_LIST)
		*(struct any_list *)to = (struct any_list){ 0 };
	else if (f->shape == SHAPE_PTR && f->kind == KIND_MESSAGE)
		*(void **)to = NULL;
	else if (f->shape == SHAPE_PTR && f->kind <= KIND_DOUBLE)
		*(bool *)to = false; /* .set comes first */
	else if (f->shape == SHAPE_PTR && f->kind == KIND_DURATION)
		((struct opt_int64 *)to)->set = false;
	else if (kind_is_text(f->kind) && (f->shape == SHAPE_PTR || f->kind != KIND_STRING))
		*(struct str *)to = STR_NONE;
	else if (f->kind == KIND_TIME || f->kind == KIND_MICROTIME)
		*(struct timestamp *)to = (struct timestamp){ 0 };
	else if (f->kind == KIND_INT_OR_STRING && f->shape == SHAPE_PTR)
		*(struct int_or_str *)to = (struct int_or_str){ 0 };
}

static int decode_member(struct dec *d, const struct field *f, void *to, const struct frame *at)
{
	if (*d->p == 'n') {
		if (!take_null(d))
			return -EBADMSG;
		set_null(f, to);
		return 0;
	}
	switch (f->shape) {
	case SHAPE_ONE:
		if (f->kind == KIND_MESSAGE) {
			if (*d->p != '{' && !f->type->is_either)
				return mismatch(d, f, false);
			return decode_message(d, f->type, to, at);
		}
		int r = decode_scalar(d, f, to, false);

		if (!r && f->kind == KIND_STRING && !((struct str *)to)->len)
			*(struct str *)to = STR_NONE;
		return r;
	case SHAPE_PTR:
		return decode_pointer(d, f, to, at);
	case SHAPE_LIST:
		return decode_list(d, f, to, at, false);
	default:
		return decode_map(d, f, to, at);
	}
}

/* ---- messages ---- */

/* The member's name and its row (NULL: unknown); p moves behind the colon. */
static int decode_name(struct dec *d, const struct type *t, uint32_t guess,
	const struct flat_field **ret, struct str *ret_name)
{
	const char *p = d->p + 1;

	*ret = NULL;
	if (d->p == d->end || *d->p != '"')
		return -EBADMSG;
	if (guess < t->n_flat) {
		const struct field *f = t->flat[guess].field;
		size_t n = f->name_len;

		if ((size_t)(d->end - p) > n && p[n] == '"' && !memcmp(p, f->name, n)) {
			*ret = &t->flat[guess];
			*ret_name = str_n(f->name, n);
			d->p = p + n + 1;
		}
	}
	if (!*ret) {
		const char *stop = scan_plain(p, d->end);

		if (stop < d->end && *stop == '"') {
			*ret_name = str_n(p, (size_t)(stop - p));
			d->p = stop + 1;
		} else if (decode_text(d, ret_name) < 0) {
			return -EBADMSG;
		}
		*ret = model_flat_field(t, *ret_name);
	}
	d->p = skip_space(d->p, d->end);
	if (d->p == d->end || *d->p != ':')
		return -EBADMSG;
	d->p = skip_space(d->p + 1, d->end);
	return d->p == d->end ? -EBADMSG : 0;
}

#define SEEN_WORDS 4 /* duplicates are noticed among a type's first 256 members */

static int decode_members(struct dec *d, const struct type *t, char *obj, const struct frame *up)
{
	uint64_t seen[SEEN_WORDS] = { 0 };
	struct frame at = { .up = up, .kind = FRAME_FIELD };
	const struct flat_field *f;
	uint32_t guess = 0;
	int r;

	for (r = first_item(d, '}'); r > 0; r = next_item(d, '}')) {
		r = decode_name(d, t, guess, &f, &at.name);
		if (r < 0)
			return r;
		if (!f) {
			note(d, "unknown", &at);
			d->p = json_skip(d->p, d->end, CODEC_MAX_DEPTH - d->depth);
			if (!d->p)
				return -EBADMSG;
			continue;
		}
		size_t i = (size_t)(f - t->flat);

		guess = (uint32_t)i + 1;
		if (i < 64 * SEEN_WORDS) {
			if (seen[i / 64] >> (i % 64) & 1)
				note(d, "duplicate", &at);
			seen[i / 64] |= (uint64_t)1 << (i % 64);
		}
		r = decode_member(d, f->field, obj + f->offset, &at);
		if (r < 0)
			return tell_mismatch(d, t, &at);
	}
	return r;
}

/* One of the members stands alone: the one that fits the form of the value. */
static int decode_either(struct dec *d, const struct type *t, char *obj, const struct frame *up)
{
	const struct field *fits = NULL;

	for (size_t i = 0; i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];
		bool is_list = f->shape == SHAPE_LIST, is_bool = f->kind == KIND_BOOL;

		if (*d->p == '['               ? is_list
				: *d->p == '{' ? !is_list && !is_bool
					       : is_bool && (*d->p == 't' || *d->p == 'f'))
			fits = f;
		if (is_bool)
			*(bool *)(obj + f->offset) = true; /* a schema that is there allows */
	}
	if (!fits) {
		mismatch(d, &t->fields[t->n_fields - 1], false);
		return -EBADMSG;
	}
	return decode_member(d, fits, obj + fits->offset, up);
}

static int decode_message(struct dec *d, const struct type *t, char *obj, const struct frame *up)
{
	return t->is_either ? decode_either(d, t, obj, up) : decode_members(d, t, obj, up);
}

static int decode_root(struct dec *d, const struct type *t, char *obj)
{
	char name[100];
	int r = 0;

	d->p = skip_space(d->p, d->end);
	if (d->p == d->end)
		return -EBADMSG;
	bool null = take_null(d);

	if (!null && *d->p != '{' && !t->is_either) {
		message_name(t, name, sizeof(name));
		if (value_word(*d->p)) {
			err_set(d->err, 0, "json: cannot unmarshal %s into Go value of type %s",
				value_word(*d->p), name);
			d->told = true;
		}
		return -EBADMSG;
	}
	if (!null)
		r = decode_message(d, t, obj, NULL);
	if (r < 0)
		return r;
	d->p = skip_space(d->p, d->end);
	return d->p == d->end ? 0 : -EBADMSG;
}

int json_decode(const struct type *t, struct str text, struct arena *a, struct decode_notes *notes,
	void **ret, struct err *err)
{
	text = never_null(text);
	char first[CHUNK_MIN] __attribute__((aligned(16)));
	struct chunk chunk = { .cap = sizeof(first), .data = first };
	struct dec d = {
		.p = text.p,
		.end = text.p + text.len,
		.arena = a,
		.notes = notes,
		.err = err,
		.chunk = &chunk,
		.pool.arena = a,
		.budget = struct_budget(text.len),
	};
	char *obj = arena_alloc(a, t->size);
	int r = decode_root(&d, t, obj);

	for (struct chunk *c = chunk.next, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	if (!r) {
		*ret = obj;
		return 0;
	}
	struct err syntax;

	if (json_check(text, &syntax) < 0)
		return err_set(err, -EBADMSG, "%s", syntax.text);
	if (!d.told)
		err_set(err, 0, "the JSON text cannot be read as %s", t->name);
	return -EBADMSG;
}
