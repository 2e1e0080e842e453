/* Sizes of members, presence, maps: what every encoding needs to know about a row. */
#include "codec/internal.h"

#include <stdio.h>

bool codec_is_there(const struct field *f, const void *value)
{
	if (f->shape >= SHAPE_LIST)
		return ((const struct any_list *)value)->len;
	switch (f->kind) {
	case KIND_BOOL: /* of the opt_ structs .set comes first */
		return *(const bool *)value;
	case KIND_INT32:
		return f->shape == SHAPE_PTR ? ((const struct opt_int32 *)value)->set
					     : *(const int32_t *)value != 0;
	case KIND_INT64:
		return f->shape == SHAPE_PTR ? ((const struct opt_int64 *)value)->set
					     : *(const int64_t *)value != 0;
	case KIND_DOUBLE:
		return f->shape == SHAPE_PTR ? ((const struct opt_double *)value)->set
					     : *(const double *)value != 0;
	case KIND_STRING:
		return f->shape == SHAPE_PTR ? ((const struct str *)value)->p != NULL
					     : ((const struct str *)value)->len != 0;
	case KIND_BYTES:
		return f->shape == SHAPE_PTR ? ((const struct str *)value)->p != NULL
					     : ((const struct str *)value)->len != 0;
	default:
		break;
	}
	if (f->shape == SHAPE_ONE)
		return true; /* structs in Go: omitempty does not leave them out */
	switch (f->kind) {
	case KIND_DURATION:
		return ((const struct opt_int64 *)value)->set;
	case KIND_TIME:
	case KIND_MICROTIME:
		return !time_is_zero(*(const struct timestamp *)value);
	case KIND_INT_OR_STRING:
		return ((const struct int_or_str *)value)->kind != IOS_NONE;
	case KIND_MESSAGE:
		return *(void *const *)value;
	default:
		return ((const struct str *)value)->p;
	}
}

#define POOL_PIECE 1024

char *pool_take(struct text_pool *pool, size_t n, size_t input_left)
{
	if (n > (size_t)(pool->end - pool->p)) {
		if (n > POOL_PIECE / 4)
			return arena_alloc(pool->arena, n);
		size_t piece = MIN(input_left + n, (size_t)POOL_PIECE);

		pool->p = arena_alloc(pool->arena, piece);
		pool->end = pool->p + piece;
	}
	char *p = pool->p;

	pool->p += n;
	return p;
}

struct keyed {
	struct str key;
	size_t index;
};

static int by_key(const void *a, const void *b)
{
	const struct keyed *x = a, *y = b;
	int c = str_cmp(x->key, y->key);

	return c ? c : (x->index > y->index) - (x->index < y->index);
}

void codec_sort_map(struct any_list *l, size_t entry_size)
{
	bool sorted = true;

	for (size_t i = 1; i < l->len && sorted; i++)
		sorted = str_cmp(*(struct str *)(l->items + (i - 1) * entry_size),
				 *(struct str *)(l->items + i * entry_size)) < 0;
	if (sorted)
		return;
	struct keyed *order = xmalloc(l->len * sizeof(*order));
	char *old = xmalloc(l->len * entry_size);
	size_t n = 0;

	memcpy(old, l->items, l->len * entry_size);
	for (size_t i = 0; i < l->len; i++)
		order[i] = (struct keyed){ *(struct str *)(old + i * entry_size), i };
	qsort(order, l->len, sizeof(*order), by_key);
	for (size_t i = 0; i < l->len; i++) {
		if (i + 1 < l->len && str_eq(order[i].key, order[i + 1].key))
			continue;
		memcpy(l->items + n++ * entry_size, old + order[i].index * entry_size, entry_size);
	}
	l->len = n;
	free(order);
	free(old);
}

#define NOTES_MAX 100 /* as many as upstream reports */

void note_add(struct decode_notes *n, const char *fmt, ...)
{
	va_list ap;

	if (!n || n->len >= NOTES_MAX)
		return;
	struct str *item = model_list_add(n->arena, &n->items, sizeof(struct str));

	va_start(ap, fmt);
	*item = arena_vfmt(n->arena, fmt, ap);
	va_end(ap);
}
