/* Random values for every type: what is encoded decodes to an equal object and encodes to the same bytes, in JSON and in
 * protobuf, and from one to the other. The seed is printed; SEED in the environment repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "codec/internal.h"

#define ROUNDS 12

struct gen {
	uint64_t state;
	struct arena *arena;
	int depth, messages; /* messages that the object may still get */
};

static uint64_t next(struct gen *g)
{
	g->state ^= g->state << 13;
	g->state ^= g->state >> 7;
	g->state ^= g->state << 17;
	return g->state;
}

static bool chance(struct gen *g, int percent)
{
	return next(g) % 100 < (uint64_t)percent;
}

static struct str random_text(struct gen *g)
{
	static const char *const parts[] = { "a", "web", "\"", "\\", "\n", "<b>", "é", "漢", "😀",
		"\t", "/", "\x01", "&", "0123456789abcdefghij", "\xe2\x80\xa8", " " };
	struct buf b = { 0 };

	for (uint64_t n = next(g) % 6; n > 0; n--)
		buf_addz(&b, parts[next(g) % ARRAY_LEN(parts)]);
	struct str s = b.len ? arena_str(g->arena, buf_str(&b)) : STR("");

	buf_deinit(&b);
	return s;
}

static struct str random_of(struct gen *g, unsigned kind)
{
	static const char *const quantities[] = { "0", "1", "100m", "1Gi", "1500m", "12e6", "0.5",
		"3k", "-2", "1025Ki", "123456789012" };
	static const char *const raws[] = { "{}", "{\"a\":1}", "{\"f:b\":{\"x\":[1,2,null]}}",
		"{\"k\":\"é\"}" };
	struct str s;

	switch (kind) {
	case KIND_QUANTITY:
		quantity_canonical(
			str_of(quantities[next(g) % ARRAY_LEN(quantities)]), g->arena, &s);
		return s;
	case KIND_RAW:
	case KIND_JSON:
		return str_of(raws[next(g) % ARRAY_LEN(raws)]);
	default:
		return random_text(g);
	}
}

static int64_t random_int(struct gen *g)
{
	static const int64_t edges[] = { 0, 1, -1, 127, 128, 65535, INT32_MAX, INT32_MIN, INT64_MAX,
		INT64_MIN };

	return chance(g, 50) ? edges[next(g) % ARRAY_LEN(edges)]
			     : (int64_t)(next(g) >> next(g) % 64);
}

static void fill(struct gen *g, const struct type *t, char *obj);

static void fill_one(struct gen *g, const struct field *f, void *to)
{
	switch (f->kind) {
	case KIND_BOOL:
		*(bool *)to = chance(g, 50);
		break;
	case KIND_INT32:
		*(int32_t *)to = (int32_t)random_int(g);
		break;
	case KIND_INT64:
	case KIND_DURATION:
		*(int64_t *)to = random_int(g);
		break;
	case KIND_DOUBLE:
		*(double *)to = chance(g, 30) ? (double)(int32_t)random_int(g)
					      : (double)(int64_t)next(g) / (double)(next(g) | 1);
		break;
	case KIND_TIME:
	case KIND_MICROTIME:
		*(struct timestamp *)to = (struct timestamp){ 1 + (int64_t)(next(g) % 4000000000),
			f->kind == KIND_TIME ? 0 : (int32_t)(next(g) % 1000000) * 1000 };
		break;
	case KIND_INT_OR_STRING:
		*(struct int_or_str *)to = chance(g, 50)
			? (struct int_or_str){ .kind = IOS_INT, .num = (int32_t)random_int(g) }
			: (struct int_or_str){ .kind = IOS_STR, .text = random_text(g) };
		break;
	case KIND_MESSAGE:
		fill(g, f->type, to);
		break;
	default:
		*(struct str *)to = random_of(g, f->kind);
	}
}

static void fill_pointer(struct gen *g, const struct field *f, char *to)
{
	struct field one = *f;

	one.shape = SHAPE_ONE;
	if (f->kind == KIND_MESSAGE) {
		*(void **)to = arena_alloc(g->arena, f->type->size);
		fill(g, f->type, *(void **)to);
		/* Neither a schema nor a list: JSON shows null, which is no pointer. */
		if (f->type->is_either && f->type->fields[0].kind != KIND_BOOL &&
			model_is_zero(f->type, *(void **)to))
			*(void **)to = NULL;
		return;
	}
	size_t at = f->kind == KIND_BOOL ? offsetof(struct opt_bool, value)
		: f->kind == KIND_INT32  ? offsetof(struct opt_int32, value)
		: f->kind == KIND_INT64 || f->kind == KIND_DURATION
		? offsetof(struct opt_int64, value)
		: f->kind == KIND_DOUBLE ? offsetof(struct opt_double, value)
					 : 0;

	if (at)
		*(bool *)to = true;
	fill_one(g, &one, to + at);
}

static void fill_items(struct gen *g, const struct field *f, struct any_list *l)
{
	size_t size = model_item_size(f), n = next(g) % 4;

	if (!n) {
		l->items = chance(g, 50) ? MODEL_EMPTY : NULL;
		return;
	}
	l->items = arena_alloc(g->arena, model_list_room(n) * size);
	l->len = n;
	for (size_t i = 0; i < n; i++) {
		char *item = l->items + i * size;

		if (f->shape == SHAPE_LIST) {
			fill_one(g, f, item);
			continue;
		}
		*(struct str *)item = random_text(g);
		if (f->shape == SHAPE_MAP)
			fill_one(g, f, item + MAP_VALUE_OFFSET);
		else
			*(struct str *)LIST_ADD(g->arena,
				(struct str_list *)(item + MAP_VALUE_OFFSET)) = random_text(g);
	}
	if (f->shape != SHAPE_LIST)
		codec_sort_map(l, size);
}

static void fill(struct gen *g, const struct type *t, char *obj)
{
	size_t only = next(g) % (t->n_fields ? t->n_fields : 1);

	if ((++g->depth > 7 || --g->messages < 0) && !t->is_either) {
		g->depth--;
		return;
	}
	for (size_t i = 0; i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];

		if (t->is_either) {
			if (f->kind == KIND_BOOL && i != only)
				*(bool *)(obj + f->offset) =
					true; /* what a schema in its place means */
			if (i != only)
				continue;
		} else if (f->shape != SHAPE_ONE && !chance(g, 60)) {
			continue;
		}
		if (f->shape == SHAPE_PTR)
			fill_pointer(g, f, obj + f->offset);
		else if (f->shape >= SHAPE_LIST)
			fill_items(g, f, (struct any_list *)(obj + f->offset));
		else
			fill_one(g, f, obj + f->offset);
		struct any_list *l = (struct any_list *)(obj + f->offset);

		if (t->is_either && f->shape == SHAPE_LIST && !l->len)
			l->items = NULL;
	}
	g->depth--;
}

/* Prints which members differ, for people. */
static void print_difference(const struct type *t, const char *a, const char *b)
{
	for (size_t i = 0; i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];
		const char *x = a + f->offset, *y = b + f->offset;
		struct type only = { .fields = f, .n_fields = 1 };

		if (model_equal(&only, a, b))
			continue;
		print_message(" .%s", f->name);
		if (f->kind != KIND_MESSAGE)
			continue;
		if (f->shape == SHAPE_ONE)
			print_difference(f->type, x, y);
		else if (f->shape == SHAPE_PTR && *(void *const *)x && *(void *const *)y)
			print_difference(f->type, *(char *const *)x, *(char *const *)y);
		const struct any_list *l = (const void *)x, *m = (const void *)y;
		size_t at = f->shape == SHAPE_MAP ? MAP_VALUE_OFFSET : 0, size = model_item_size(f);

		for (size_t j = 0; f->shape >= SHAPE_LIST && j < l->len && l->len == m->len; j++)
			print_difference(
				f->type, l->items + j * size + at, m->items + j * size + at);
	}
}

static bool in_proto(const struct type *t, int depth)
{
	if (depth > 6)
		return true;
	for (size_t i = 0; i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];

		if (!f->tag && !(f->flags & FIELD_NO_PROTO))
			return false;
		if (f->kind == KIND_MESSAGE && f->type != t && !in_proto(f->type, depth + 1))
			return false;
	}
	return true;
}

static void same_bytes(
	const char *what, const struct type *t, const struct buf *a, const struct buf *b)
{
	size_t i = 0;

	if (a->len == b->len && !memcmp(a->p, b->p, a->len))
		return;
	while (i < a->len && i < b->len && a->p[i] == b->p[i])
		i++;
	size_t from = i > 80 ? i - 80 : 0;

	fail_msg("%s %s: bytes differ at %zu\n  %.160s\n  %.160s", t->proto, what, i, a->p + from,
		b->p + from);
}

static void check_json(const struct type *t, const void *obj, struct arena *a)
{
	struct buf first = { 0 }, second = { 0 };
	struct decode_notes notes = { .arena = a };
	struct err err;
	void *again;
	struct value tree;

	json_encode(t, obj, &first);
	if (json_decode(t, buf_str(&first), a, &notes, &again, &err) < 0)
		fail_msg("%s: %s\n%s", t->proto, err.text, first.p);
	if (notes.len)
		fail_msg("%s: %s", t->proto, notes.items[0].p);
	if (!model_equal(t, obj, again))
		print_difference(t, obj, again);
	if (!model_equal(t, obj, again))
		fail_msg("%s: JSON decodes to another object\n%s", t->proto, first.p);
	json_encode(t, again, &second);
	same_bytes("JSON twice", t, &first, &second);
	buf_clear(&second);
	if (json_parse(buf_str(&first), a, &tree, &err) < 0)
		fail_msg("%s: %s", t->proto, err.text);
	json_write(&tree, &second);
	if (json_decode(t, buf_str(&second), a, NULL, &again, &err) < 0 ||
		!model_equal(t, obj, again))
		fail_msg("%s: not the same through a tree", t->proto);
	buf_deinit(&first);
	buf_deinit(&second);
}

/* Inner objects lose their type meta in protobuf. */
static bool holds_typed(const struct type *t, int depth)
{
	for (size_t i = 0; depth < 6 && i < t->n_fields; i++) {
		const struct field *f = &t->fields[i];

		if (f->kind == KIND_MESSAGE &&
			(f->type->is_typed || holds_typed(f->type, depth + 1)))
			return true;
	}
	return false;
}

static void set_type_meta(const struct type *t, void *to, const void *from)
{
	if (t->is_typed)
		*(struct object_head *)to = *(const struct object_head *)from;
}

static void check_proto(const struct type *t, const void *obj, struct arena *a)
{
	struct buf first = { 0 }, second = { 0 }, json = { 0 }, json_again = { 0 };
	struct err err;
	void *again, *third;

	proto_encode(t, obj, &first);
	if (proto_decode(t, buf_str(&first), a, &again, &err) < 0)
		fail_msg("%s: %s", t->proto, err.text);
	set_type_meta(t, again, obj);
	if (!holds_typed(t, 0) && !model_equal(t, obj, again))
		fail_msg("%s: protobuf decodes to another object", t->proto);
	proto_encode(t, again, &second);
	same_bytes("protobuf twice", t, &first, &second);
	json_encode(t, again, &json);
	if (json_decode(t, buf_str(&json), a, NULL, &third, &err) < 0)
		fail_msg("%s: %s", t->proto, err.text);
	json_encode(t, third, &json_again);
	same_bytes("JSON after protobuf", t, &json, &json_again);
	buf_deinit(&first);
	buf_deinit(&second);
	buf_deinit(&json);
	buf_deinit(&json_again);
}

static void check_model(const struct type *t, const void *obj, struct arena *a)
{
	void *copy = model_copy(t, obj, a), *twice;

	assert_true(model_equal(t, obj, copy));
	model_default(t, copy, a);
	twice = model_copy(t, copy, a);
	model_default(t, twice, a);
	if (!model_equal(t, copy, twice))
		fail_msg("%s: defaulting twice is not once", t->proto);
}

static void test_every_type(void **state)
{
	struct gen g = { .state = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0)
						 : mono_now_ns() | 1 };
	size_t n;
	const struct type *const *types = model_types(&n);

	print_message("SEED=0x%llx\n", (unsigned long long)g.state);
	assert_true(n > 600);
	for (int round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < n; i++) {
			g.arena = arena_new(0);
			void *obj = model_new(types[i], g.arena);

			g.messages = 400;
			fill(&g, types[i], obj);
			check_json(types[i], obj, g.arena);
			check_model(types[i], obj, g.arena);
			if (in_proto(types[i], 0))
				check_proto(types[i], obj, g.arena);
			arena_free(g.arena);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_type) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
