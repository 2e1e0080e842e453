/* Kubernetes' protobuf into structs, in one pass. Members without a row are skipped, as protobuf asks. The items of a list
 * mostly stand together: the first one counts those behind it, so that the list is made once and whole. */
#include "codec/internal.h"

struct pdec {
	const uint8_t *end; /* of the innermost message */
	struct text_pool pool;
	struct err *err;
	size_t depth;
	int64_t budget;
};

struct bytes {
	const uint8_t *p, *end;
};

enum wire {
	WIRE_VARINT = 0,
	WIRE_FIXED64 = 1,
	WIRE_BYTES = 2,
	WIRE_GROUP = 3,
	WIRE_GROUP_END = 4,
	WIRE_FIXED32 = 5
};

static int decode_message(struct pdec *d, const struct type *t, char *obj, struct bytes in);

static int truncated(struct pdec *d)
{
	return err_set(d->err, -EBADMSG, "proto: unexpected EOF");
}

static int get_long_varint(struct pdec *d, struct bytes *in, uint64_t *ret)
{
	uint64_t v = 0;

	for (int shift = 0; shift < 64; shift += 7) {
		if (in->p == in->end)
			return truncated(d);
		uint8_t b = *in->p++;

		v |= (uint64_t)(b & 0x7f) << shift;
		if (b < 0x80) {
			*ret = v;
			return 0;
		}
	}
	return err_set(d->err, -EBADMSG, "proto: integer overflow");
}

static inline int get_varint(struct pdec *d, struct bytes *in, uint64_t *ret)
{
	if (in->p == in->end || *in->p >= 0x80)
		return get_long_varint(d, in, ret);
	*ret = *in->p++;
	return 0;
}

static int get_bytes(struct pdec *d, struct bytes *in, struct bytes *ret)
{
	uint64_t n;
	int r = get_varint(d, in, &n);

	if (r < 0)
		return r;
	if (n > (uint64_t)(in->end - in->p))
		return truncated(d);
	*ret = (struct bytes){ in->p, in->p + n };
	in->p += n;
	return 0;
}

static int skip_fixed(struct pdec *d, struct bytes *in, ptrdiff_t n)
{
	if (in->end - in->p < n)
		return truncated(d);
	in->p += n;
	return 0;
}

/* Groups nest; only their depth is counted, so the C stack is not used. */
static int skip_field(struct pdec *d, struct bytes *in, unsigned wire)
{
	size_t groups = 0;
	struct bytes b;
	uint64_t v = wire;
	int r = 0;

	for (;;) {
		switch (v & 7) {
		case WIRE_VARINT:
			r = get_varint(d, in, &v);
			break;
		case WIRE_FIXED64:
			r = skip_fixed(d, in, 8);
			break;
		case WIRE_FIXED32:
			r = skip_fixed(d, in, 4);
			break;
		case WIRE_BYTES:
			r = get_bytes(d, in, &b);
			break;
		case WIRE_GROUP:
			groups++;
			break;
		case WIRE_GROUP_END:
			if (!groups)
				return err_set(d->err, -EBADMSG, "proto: unexpected end of group");
			groups--;
			break;
		default:
			return err_set(
				d->err, -EBADMSG, "proto: illegal wireType %d", (int)(v & 7));
		}
		if (r < 0 || !groups)
			return r;
		r = get_varint(d, in, &v);
		if (r < 0)
			return r;
	}
}

static int wrong_wire(struct pdec *d, const struct field *f, unsigned wire)
{
	return err_set(d->err, -EBADMSG, "proto: wrong wireType = %u for field %s", wire, f->name);
}

/* ---- texts ---- */

static struct str text_of(struct pdec *d, struct bytes b)
{
	size_t n = (size_t)(b.end - b.p);
	char *to = pool_take(&d->pool, n + 1, (size_t)(d->end - b.p));

	memcpy(to, b.p, n);
	to[n] = '\0';
	struct str s = str_n(to, n);

	return text_is_ascii(s) ? s : utf8_repair(s, d->pool.arena);
}

static struct str binary_of(struct pdec *d, struct bytes b)
{
	return b.p == b.end
		? STR("")
		: arena_str(d->pool.arena, str_n((const char *)b.p, (size_t)(b.end - b.p)));
}

/* ---- messages with a kind of their own; each reads tags 1 to 3 ---- */

struct parts {
	uint64_t number[4];
	struct bytes text[4];
	bool is_text[4];
};

static int get_parts(struct pdec *d, struct bytes in, struct parts *ret)
{
	uint64_t key;
	int r = 0;

	*ret = (struct parts){ 0 };
	while (r >= 0 && in.p < in.end) {
		r = get_varint(d, &in, &key);
		if (r < 0)
			return r;
		uint64_t tag = key >> 3;
		bool known = tag >= 1 && tag <= 3;

		if (known && (key & 7) == WIRE_VARINT) {
			r = get_varint(d, &in, &ret->number[tag]);
		} else if (known && (key & 7) == WIRE_BYTES) {
			r = get_bytes(d, &in, &ret->text[tag]);
			ret->is_text[tag] = true;
		} else {
			r = skip_field(d, &in, key & 7);
		}
	}
	return r;
}

static int get_quantity(struct pdec *d, struct bytes b, struct str *ret)
{
	struct str s = str_n((const char *)b.p, (size_t)(b.end - b.p));

	if (!s.len) {
		*ret = STR("0");
		return 0;
	}
	if (quantity_canonical(s, d->pool.arena, ret) < 0)
		return err_set(d->err, -EBADMSG,
			"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");
	return 0;
}

/* JSON inside protobuf. An object in protobuf (of a watch event) is kept as it is. */
static int get_raw(struct pdec *d, struct bytes b, struct str *ret)
{
	struct str s = str_n((const char *)b.p, (size_t)(b.end - b.p));

	if (proto_has_magic(s)) {
		*ret = binary_of(d, b);
		return 0;
	}
	if (!s.len) {
		*ret = STR_NONE;
		return 0;
	}
	char *text = arena_alloc(d->pool.arena, s.len + 1), *to = text;
	const char *end = json_compact(s.p, s.p + s.len, CODEC_MAX_DEPTH, &to);

	if (!end || skip_space(end, s.p + s.len) != s.p + s.len)
		return json_check(s, d->err) < 0
			? -EBADMSG
			: err_set(d->err, -EBADMSG, "proto: raw value is no JSON");
	*ret = utf8_repair(str_n(text, (size_t)(to - text)), d->pool.arena);
	return 0;
}

/* What RFC 3339 cannot write could never be shown as JSON. */
static int get_time(
	struct pdec *d, const struct field *f, const struct parts *parts, struct timestamp *ret)
{
	const int64_t year_0 = -62167219200, year_9999_end = 253402300799;
	int64_t sec = (int64_t)parts->number[1], nsec = (int64_t)parts->number[2];

	if (sec < year_0 || sec > year_9999_end || nsec < 0 || nsec > 999999999)
		return err_set(d->err, -EBADMSG,
			"proto: %s: the time is outside of the years 0 to 9999", f->name);
	*ret = (struct timestamp){ sec, f->kind == KIND_TIME ? 0 : (int32_t)(nsec - nsec % 1000) };
	return 0;
}

static int special(struct pdec *d, const struct field *f, struct bytes in, void *to)
{
	struct parts parts;
	int r = get_parts(d, in, &parts);

	if (r < 0)
		return r;
	switch (f->kind) {
	case KIND_TIME:
	case KIND_MICROTIME:
		return get_time(d, f, &parts, to);
	case KIND_DURATION:
		*(int64_t *)to = (int64_t)parts.number[1];
		return 0;
	case KIND_QUANTITY:
		return get_quantity(d, parts.text[1], to);
	case KIND_INT_OR_STRING: {
		struct int_or_str *v = to;

		*v = (struct int_or_str){ .kind = parts.number[1] ? IOS_STR : IOS_INT,
			.num = parts.number[1] ? 0 : (int32_t)parts.number[2] };
		if (v->kind == IOS_STR)
			v->text = text_of(d, parts.text[3]);
		return 0;
	}
	default:
		return get_raw(d, parts.text[1], to);
	}
}

/* ---- single values ---- */

static unsigned wire_of(unsigned kind)
{
	return kind <= KIND_INT64 ? WIRE_VARINT : kind == KIND_DOUBLE ? WIRE_FIXED64 : WIRE_BYTES;
}

static int get_number(struct pdec *d, const struct field *f, struct bytes *in, void *to)
{
	uint64_t v;

	if (f->kind == KIND_DOUBLE) {
		if (in->end - in->p < 8)
			return truncated(d);
		memcpy(to, in->p, 8);
		in->p += 8;
		return 0;
	}
	int r = get_varint(d, in, &v);

	if (r < 0)
		return r;
	if (f->kind == KIND_BOOL)
		*(bool *)to = v;
	else if (f->kind == KIND_INT32)
		*(int32_t *)to = (int32_t)v;
	else
		*(int64_t *)to = (int64_t)v;
	return 0;
}

/* One value as SHAPE_ONE holds it; `in` stands behind the key. */
static int get_value(struct pdec *d, const struct field *f, struct bytes *in, void *to)
{
	struct bytes b;

	if (f->kind <= KIND_DOUBLE)
		return get_number(d, f, in, to);
	int r = get_bytes(d, in, &b);

	if (r < 0)
		return r;
	if (f->kind == KIND_MESSAGE)
		return decode_message(d, f->type, to, b);
	if (f->kind == KIND_STRING)
		*(struct str *)to = text_of(d, b);
	else if (f->kind == KIND_BYTES)
		*(struct str *)to = binary_of(d, b);
	else
		return special(d, f, b, to);
	return 0;
}

static int spend(struct pdec *d, size_t n, const struct field *f)
{
	d->budget -= (int64_t)n;
	return d->budget < 0
		? err_set(d->err, -EBADMSG,
			  "%s: too many items for a message of this size; send fewer", f->name)
		: 0;
}

static int get_pointer(struct pdec *d, const struct field *f, struct bytes *in, void *to)
{
	switch (f->kind) {
	case KIND_BOOL: {
		struct opt_bool *v = to;
		v->set = true;
		return get_value(d, f, in, &v->value);
	}
	case KIND_INT32: {
		struct opt_int32 *v = to;
		v->set = true;
		return get_value(d, f, in, &v->value);
	}
	case KIND_INT64:
	case KIND_DURATION: {
		struct opt_int64 *v = to;
		v->set = true;
		return get_value(d, f, in, &v->value);
	}
	case KIND_DOUBLE: {
		struct opt_double *v = to;
		v->set = true;
		return get_value(d, f, in, &v->value);
	}
	case KIND_MESSAGE: {
		int r = 0;

		if (!*(void **)to) {
			r = spend(d, f->type->size, f);
			*(void **)to = arena_alloc(d->pool.arena, f->type->size);
		}
		return r < 0 ? r : get_value(d, f, in, *(void **)to);
	}
	default:
		return get_value(d, f, in, to);
	}
}

/* ---- lists and maps ---- */

/* How many values with the key that ends at in.p stand together from here on. */
static size_t count_run(const uint8_t *key, struct bytes in, unsigned wire)
{
	struct pdec quiet = { 0 };
	size_t key_len = (size_t)(in.p - key), n = 0;

	for (;;) {
		if (skip_field(&quiet, &in, wire) < 0)
			return n + 1; /* what is wrong with it is told when it is decoded */
		n++;
		if ((size_t)(in.end - in.p) < key_len || memcmp(in.p, key, key_len))
			return n;
		in.p += key_len;
	}
}

/* A packed list of numbers. */
static int get_packed(struct pdec *d, const struct field *f, struct bytes *in, struct any_list *l)
{
	size_t size = model_kind_size(f->kind, NULL);
	struct bytes b;
	int r = get_bytes(d, in, &b);

	while (r >= 0 && b.p < b.end) {
		r = spend(d, size, f);
		if (r >= 0)
			r = get_number(d, f, &b, model_list_add(d->pool.arena, l, size));
	}
	return r;
}

/* {1 repeated text} */
static int get_wrapped(struct pdec *d, const struct field *f, struct bytes in, struct any_list *l)
{
	uint64_t key;
	struct bytes b;
	int r = 0;

	if (!l->items)
		l->items = MODEL_EMPTY;
	while (r >= 0 && in.p < in.end) {
		r = get_varint(d, &in, &key);
		if (r < 0)
			return r;
		if (key != (1 << 3 | WIRE_BYTES)) {
			r = skip_field(d, &in, key & 7);
			continue;
		}
		r = get_bytes(d, &in, &b);
		if (r >= 0)
			r = spend(d, sizeof(struct str), f);
		if (r >= 0)
			*(struct str *)model_list_add(d->pool.arena, l, sizeof(struct str)) =
				text_of(d, b);
	}
	return r;
}

static int get_entry(struct pdec *d, const struct field *f, struct bytes in, char *entry)
{
	uint64_t key;
	struct bytes b;
	int r = 0;

	*(struct str *)entry = STR("");
	if (f->kind == KIND_QUANTITY)
		*(struct str *)(entry + MAP_VALUE_OFFSET) = STR("0");
	while (r >= 0 && in.p < in.end) {
		r = get_varint(d, &in, &key);
		if (r < 0)
			return r;
		if (key == (1 << 3 | WIRE_BYTES)) {
			r = get_bytes(d, &in, &b);
			if (r >= 0)
				*(struct str *)entry = text_of(d, b);
		} else if (key >> 3 == 2 && f->shape == SHAPE_MAP_LIST && (key & 7) == WIRE_BYTES) {
			r = get_bytes(d, &in, &b);
			if (r >= 0)
				r = get_wrapped(
					d, f, b, (struct any_list *)(entry + MAP_VALUE_OFFSET));
		} else if (key >> 3 == 2 && f->shape == SHAPE_MAP &&
			(key & 7) == wire_of(f->kind)) {
			r = get_value(d, f, &in, entry + MAP_VALUE_OFFSET);
		} else {
			r = skip_field(d, &in, key & 7);
		}
	}
	return r;
}

static int get_item(struct pdec *d, const struct field *f, struct bytes *in, char *item)
{
	struct bytes b;

	if (f->shape == SHAPE_LIST)
		return get_value(d, f, in, item);
	int r = get_bytes(d, in, &b);

	return r < 0 ? r : get_entry(d, f, b, item);
}

/* The first item takes the whole run behind it along; a later run (protobuf allows it) is added one by one. */
static int get_run(struct pdec *d, const struct field *f, const uint8_t *key, struct bytes *in,
	unsigned wire, struct any_list *l)
{
	size_t size = model_item_size(f), key_len = (size_t)(in->p - key);
	size_t n = l->len ? 1 : count_run(key, *in, wire);
	int r = spend(d, (l->len ? 2 * l->len : model_list_room(n)) * size, f);

	if (r < 0)
		return r;
	if (l->len)
		return get_item(d, f, in, model_list_add(d->pool.arena, l, size));
	l->items = arena_alloc(d->pool.arena, model_list_room(n) * size);
	while (l->len < n) {
		if (l->len)
			in->p += key_len;
		r = get_item(d, f, in, l->items + l->len++ * size);
		if (r < 0)
			return r;
	}
	return 0;
}

static int get_items(struct pdec *d, const struct field *f, const uint8_t *key, struct bytes *in,
	unsigned wire, struct any_list *l)
{
	bool list = f->shape == SHAPE_LIST;
	struct bytes b;

	if (list && f->flags & FIELD_PROTO_WRAPPED && wire == WIRE_BYTES) {
		int r = get_bytes(d, in, &b);

		return r < 0 ? r : get_wrapped(d, f, b, l);
	}
	if (list && wire == WIRE_BYTES && f->kind <= KIND_DOUBLE)
		return get_packed(d, f, in, l);
	if (wire != (list ? wire_of(f->kind) : (unsigned)WIRE_BYTES))
		return wrong_wire(d, f, wire);
	return get_run(d, f, key, in, wire, l);
}

/* ---- messages ---- */

static int get_member(struct pdec *d, const struct field *f, const uint8_t *key, struct bytes *in,
	unsigned wire, void *to)
{
	if (f->shape >= SHAPE_LIST)
		return get_items(d, f, key, in, wire, to);
	if (wire != wire_of(f->kind))
		return wrong_wire(d, f, wire);
	if (f->shape == SHAPE_PTR)
		return get_pointer(d, f, in, to);
	int r = get_value(d, f, in, to);

	if (!r && f->kind == KIND_STRING && !((struct str *)to)->len)
		*(struct str *)to = STR_NONE;
	return r;
}

static int decode_message(struct pdec *d, const struct type *t, char *obj, struct bytes in)
{
	const uint8_t *outer_end = d->end;
	bool maps = false;

	if (++d->depth > CODEC_MAX_DEPTH)
		return err_set(d->err, -EBADMSG, "proto: exceeded max depth (%d levels of nesting)",
			CODEC_MAX_DEPTH);
	d->end = in.end;
	while (in.p < in.end) {
		const uint8_t *at = in.p;
		uint64_t key;
		int r = get_varint(d, &in, &key);

		if (r < 0)
			return r;
		uint64_t tag = key >> 3;

		if (!tag || tag > INT32_MAX)
			return err_set(d->err, -EBADMSG,
				"proto: %s: illegal tag %llu (wire type %u)", t->name,
				(unsigned long long)tag, (unsigned)(key & 7));
		uint16_t slot = tag <= t->max_tag ? t->tag_slots[tag] : 0;

		if (slot) {
			const struct field *f = &t->fields[slot - 1];

			maps = maps || f->shape >= SHAPE_MAP;
			r = get_member(d, f, at, &in, key & 7, obj + f->offset);
		} else {
			r = skip_field(d, &in, key & 7);
		}
		if (r < 0)
			return r;
	}
	for (size_t i = 0; maps && i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];

		if (f->shape >= SHAPE_MAP)
			codec_sort_map((struct any_list *)(obj + f->offset), model_item_size(f));
	}
	d->depth--;
	d->end = outer_end;
	return 0;
}

int proto_decode(
	const struct type *t, struct str bytes, struct arena *a, void **ret, struct err *err)
{
	const uint8_t *p = (const uint8_t *)never_null(bytes).p;
	struct pdec d = { .end = p + bytes.len,
		.pool.arena = a,
		.err = err,
		.budget = struct_budget(bytes.len) };
	char *obj = arena_alloc(a, t->size);
	int r = decode_message(&d, t, obj, (struct bytes){ p, p + bytes.len });

	if (!r)
		*ret = obj;
	return r;
}
