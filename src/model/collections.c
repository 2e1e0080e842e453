/* Lists and maps of text. There is no capacity in them: every list that this project makes in an arena has room for a
 * power of two of items (model_list_room), so the length alone tells when the next item needs more. */
#include "model/internal.h"

char model_empty_;

void *model_list_add(struct arena *a, void *list, size_t item_size)
{
	struct any_list *l = list;

	if (!l->len)
		l->items = arena_alloc(a, item_size);
	else if (model_list_room(l->len) == l->len)
		l->items = arena_grow(a, l->items, l->len * item_size, l->len * 2 * item_size);
	void *item = l->items + l->len * item_size;

	l->len++;
	return memset(item, 0, item_size);
}

/* The first index whose key is not below `key`. */
static size_t lower_bound(const struct str_map *m, struct str key)
{
	size_t low = 0, high = m->len;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (str_cmp(m->items[mid].key, key) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static const struct str_pair *find(const struct str_map *m, struct str key)
{
	size_t i = lower_bound(m, key);

	return i < m->len && str_eq(m->items[i].key, key) ? &m->items[i] : NULL;
}

struct str str_map_get(const struct str_map *m, struct str key)
{
	const struct str_pair *p = find(m, key);

	if (!p)
		return STR_NONE;
	return p->value.p ? p->value : STR("");
}

bool str_map_has(const struct str_map *m, struct str key)
{
	return find(m, key);
}

void str_map_set(struct arena *a, struct str_map *m, struct str key, struct str value)
{
	size_t i = lower_bound(m, key);

	if (i == m->len || !str_eq(m->items[i].key, key)) {
		model_list_add(a, m, sizeof(*m->items));
		memmove(&m->items[i + 1], &m->items[i], (m->len - 1 - i) * sizeof(*m->items));
	}
	m->items[i] = (struct str_pair){ key, value };
}

bool str_map_remove(struct str_map *m, struct str key)
{
	const struct str_pair *p = find(m, key);

	if (!p)
		return false;
	size_t i = (size_t)(p - m->items);

	m->len--;
	memmove(&m->items[i], &m->items[i + 1], (m->len - i) * sizeof(*m->items));
	return true;
}

bool str_list_has(const struct str_list *l, struct str s)
{
	for (size_t i = 0; i < l->len; i++)
		if (str_eq(l->items[i], s))
			return true;
	return false;
}
