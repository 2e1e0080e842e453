/* Structs into Kubernetes' protobuf, byte for byte as upstream's generated code: members in tag order, all but nil
 * pointers, lists, maps and bytes written. Written from the end backwards, so that lengths are known when they are
 * needed. */
#include "codec/internal.h"

#include <stdio.h>

struct penc {
	char *base, *p, *end; /* written: [p, end) */
};

static void put_members(struct penc *e, const struct type *t, const char *obj);

static void grow(struct penc *e, size_t n)
{
	size_t used = (size_t)(e->end - e->p), cap = MAX(2 * (size_t)(e->end - e->base), used + n);
	char *base = xmalloc(cap);

	memcpy(base + cap - used, e->p, used);
	free(e->base);
	*e = (struct penc){ base, base + cap - used, base + cap };
}

static inline char *back(struct penc *e, size_t n)
{
	if (__builtin_expect((size_t)(e->p - e->base) < n, 0))
		grow(e, n);
	return e->p -= n;
}

static inline void put_varint(struct penc *e, uint64_t v)
{
	if (v < 0x80) {
		*back(e, 1) = (char)v;
		return;
	}
	size_t n = (size_t)(63 - __builtin_clzll(v)) / 7 + 1;
	char *p = back(e, n);

	for (; v >= 0x80; v >>= 7)
		*p++ = (char)(v | 0x80);
	*p = (char)v;
}

static inline void put_key(struct penc *e, unsigned tag, unsigned wire)
{
	put_varint(e, (uint64_t)tag << 3 | wire);
}

static void put_text(struct penc *e, unsigned tag, struct str s)
{
	char *p = back(e, s.len);

	if (s.len)
		memcpy(p, s.p, s.len);
	put_varint(e, s.len);
	put_key(e, tag, 2);
}

static void put_number(struct penc *e, unsigned tag, uint64_t v)
{
	put_varint(e, v);
	put_key(e, tag, 0);
}

/* Closes a message that began (at its end) at `mark` bytes. */
static void put_length(struct penc *e, unsigned tag, size_t mark)
{
	put_varint(e, (size_t)(e->end - e->p) - mark);
	put_key(e, tag, 2);
}

static void put_time(struct penc *e, unsigned kind, struct timestamp t)
{
	if (time_is_zero(t))
		return;
	put_number(e, 2, kind == KIND_TIME ? 0 : (uint64_t)(int64_t)(t.nsec - t.nsec % 1000));
	put_number(e, 1, (uint64_t)t.sec);
}

static void put_int_or_str(struct penc *e, const struct int_or_str *v)
{
	put_text(e, 3, v->kind == IOS_STR ? v->text : STR_NONE);
	put_number(e, 2, v->kind == IOS_STR ? 0 : (uint64_t)(int64_t)v->num);
	put_number(e, 1, v->kind == IOS_STR);
}

/* What stands inside the message of a kind that is one. */
static void put_inside(struct penc *e, const struct field *f, const void *v)
{
	switch (f->kind) {
	case KIND_MESSAGE:
		put_members(e, f->type, v);
		break;
	case KIND_TIME:
	case KIND_MICROTIME:
		put_time(e, f->kind, *(const struct timestamp *)v);
		break;
	case KIND_DURATION:
		put_number(e, 1, *(const uint64_t *)v);
		break;
	case KIND_QUANTITY:
		put_text(e, 1, ((const struct str *)v)->len ? *(const struct str *)v : STR("0"));
		break;
	case KIND_INT_OR_STRING:
		put_int_or_str(e, v);
		break;
	default:
		if (((const struct str *)v)->p)
			put_text(e, 1, *(const struct str *)v);
	}
}

static void put_value(struct penc *e, const struct field *f, unsigned tag, const void *v)
{
	switch (f->kind) {
	case KIND_BOOL:
		put_number(e, tag, *(const bool *)v);
		break;
	case KIND_INT32:
		put_number(e, tag, (uint64_t)(int64_t) * (const int32_t *)v);
		break;
	case KIND_INT64:
		put_number(e, tag, *(const uint64_t *)v);
		break;
	case KIND_DOUBLE:
		memcpy(back(e, 8), v, 8);
		put_key(e, tag, 1);
		break;
	case KIND_STRING:
	case KIND_BYTES:
		put_text(e, tag, *(const struct str *)v);
		break;
	default: {
		size_t mark = (size_t)(e->end - e->p);

		put_inside(e, f, v);
		put_length(e, tag, mark);
	}
	}
}

static void put_pointer(struct penc *e, const struct field *f, const void *v)
{
	if (!codec_is_there(f, v))
		return;
	switch (f->kind) {
	case KIND_BOOL:
		put_value(e, f, f->tag, &((const struct opt_bool *)v)->value);
		break;
	case KIND_INT32:
		put_value(e, f, f->tag, &((const struct opt_int32 *)v)->value);
		break;
	case KIND_INT64:
	case KIND_DURATION:
		put_value(e, f, f->tag, &((const struct opt_int64 *)v)->value);
		break;
	case KIND_DOUBLE:
		put_value(e, f, f->tag, &((const struct opt_double *)v)->value);
		break;
	case KIND_MESSAGE:
		put_value(e, f, f->tag, *(void *const *)v);
		break;
	default:
		put_value(e, f, f->tag, v);
	}
}

/* {1 repeated text} under `tag` */
static void put_wrapped(struct penc *e, unsigned tag, const struct str_list *l)
{
	size_t mark = (size_t)(e->end - e->p);

	for (size_t i = l->len; i-- > 0;)
		put_text(e, 1, l->items[i]);
	put_length(e, tag, mark);
}

static void put_list(struct penc *e, const struct field *f, const struct any_list *l)
{
	size_t size = model_kind_size(f->kind, f->type);

	if (f->flags & FIELD_PROTO_WRAPPED) {
		if (l->items)
			put_wrapped(e, f->tag, (const struct str_list *)l);
		return;
	}
	for (size_t i = l->len; i-- > 0;)
		put_value(e, f, f->tag, l->items + i * size);
}

static void put_map(struct penc *e, const struct field *f, const struct any_list *l)
{
	size_t size = model_item_size(f);

	for (size_t i = l->len; i-- > 0;) {
		const char *entry = l->items + i * size, *value = entry + MAP_VALUE_OFFSET;
		size_t mark = (size_t)(e->end - e->p);

		if (f->shape == SHAPE_MAP_LIST)
			put_wrapped(e, 2, (const struct str_list *)value);
		else if (f->kind != KIND_BYTES || ((const struct str *)value)->p)
			put_value(e, f, 2, value);
		put_text(e, 1, *(const struct str *)entry);
		put_length(e, f->tag, mark);
	}
}

static void put_members(struct penc *e, const struct type *t, const char *obj)
{
	for (size_t i = t->n_by_tag; i-- > 0;) {
		const struct field *f = &t->fields[t->by_tag[i]];
		const char *v = obj + f->offset;

		if (f->shape == SHAPE_PTR)
			put_pointer(e, f, v);
		else if (f->shape == SHAPE_LIST)
			put_list(e, f, (const struct any_list *)v);
		else if (f->shape >= SHAPE_MAP)
			put_map(e, f, (const struct any_list *)v);
		else if (f->kind != KIND_BYTES || ((const struct str *)v)->p)
			put_value(e, f, f->tag, v);
	}
}

#define FIRST_ROOM 4096

static void encode(struct penc *e, const struct type *t, const void *obj)
{
	e->base = xmalloc(FIRST_ROOM);
	e->p = e->end = e->base + FIRST_ROOM;
	put_members(e, t, obj);
}

void proto_encode(const struct type *t, const void *obj, struct buf *out)
{
	struct penc e;

	encode(&e, t, obj);
	buf_add(out, e.p, (size_t)(e.end - e.p));
	free(e.base);
}

/* ---- envelope ---- */

static const char magic[4] = { 'k', '8', 's', 0 };

bool proto_has_magic(struct str bytes)
{
	return bytes.len >= sizeof(magic) && !memcmp(bytes.p, magic, sizeof(magic));
}

/* Puts the envelope around what e holds, which is the raw object. */
static void put_envelope(struct penc *e, struct str api_version, struct str kind, size_t raw_mark)
{
	size_t mark;

	put_length(e, 2, raw_mark);
	mark = (size_t)(e->end - e->p);
	put_text(e, 2, kind);
	put_text(e, 1, api_version);
	put_length(e, 1, mark);
	memcpy(back(e, sizeof(magic)), magic, sizeof(magic));
}

static void begin_envelope(struct penc *e, size_t raw)
{
	size_t room = raw + FIRST_ROOM;

	e->base = xmalloc(room);
	e->p = e->end = e->base + room;
	put_text(e, 4, STR_NONE); /* contentType */
	put_text(e, 3, STR_NONE); /* contentEncoding */
}

void proto_seal(struct str api_version, struct str kind, struct str raw, struct buf *out)
{
	struct penc e;

	begin_envelope(&e, raw.len);
	size_t mark = (size_t)(e.end - e.p);

	if (raw.len)
		memcpy(back(&e, raw.len), raw.p, raw.len);
	put_envelope(&e, api_version, kind, mark);
	buf_add(out, e.p, (size_t)(e.end - e.p));
	free(e.base);
}

void proto_encode_object(const struct type *t, const void *obj, struct buf *out)
{
	const struct object_head *head = obj;
	struct str version = STR_NONE, kind = STR_NONE;
	char text[128];
	struct penc e;

	if (t->is_typed && head->kind.len) {
		version = head->api_version;
		kind = head->kind;
	} else if (t->is_typed) {
		kind = str_of(t->name);
		snprintf(text, sizeof(text), "%s%s%s", t->group, *t->group ? "/" : "", t->version);
		version = str_of(text);
	}
	begin_envelope(&e, 0);
	size_t mark = (size_t)(e.end - e.p);

	put_members(&e, t, obj);
	put_envelope(&e, version, kind, mark);
	buf_add(out, e.p, (size_t)(e.end - e.p));
	free(e.base);
}
