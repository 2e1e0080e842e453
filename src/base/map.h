/* Containers: an intrusive doubly linked list, a hash map from text to pointer, a binary heap. */
#ifndef SKIFF_BASE_MAP_H
#define SKIFF_BASE_MAP_H

#include "base/base.h"

/* ---- list: intrusive, circular, with a head node ---- */
struct list {
	struct list *prev, *next;
};
#define LIST_INIT(head) \
	{ \
		&(head), &(head) \
	}
static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}
static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}
static inline void list_insert(
	struct list *at, struct list *n) /* before `at`; list_insert(head, n) appends */
{
	n->prev = at->prev;
	n->next = at;
	at->prev->next = n;
	at->prev = n;
}
static inline void list_remove(
	struct list *n) /* n is empty afterwards; removing twice is harmless */
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	n->prev = n->next = n;
}
#define list_entry(n, type, member) container_of(n, type, member)
#define list_for_each(it, head) \
	for (struct list *it = (head)->next, *it##_next = it->next; it != (head); \
		it = it##_next, it##_next = it->next)

/* ---- map: text -> pointer; owns copies of its keys, not the values. Open addressing; not thread-safe. ---- */
struct map {
	struct map_slot *slots;
	size_t len, cap, used;
};
void map_deinit(struct map *m, void (*free_value)(void *)); /* free_value may be NULL */
void *map_get(const struct map *m, struct str key);         /* NULL: not there */
void *map_set(struct map *m, struct str key,
	void *value); /* returns the former value or NULL; value is not NULL */
void *map_remove(struct map *m, struct str key); /* returns what was there or NULL */
/* Iterates in no order: size_t i = 0; while (map_next(&m, &i, &key, &value)) … Removing the current key is allowed;
 * ret_key may be NULL. */
bool map_next(const struct map *m, size_t *i, struct str *ret_key, void **ret_value);

/* ---- heap: smallest first by `less`; entries carry their own index so that they can be removed or moved ---- */
struct heap_node {
	size_t index; /* position + 1; 0: not in a heap */
};
struct heap {
	struct heap_node **nodes;
	size_t len, cap;
	bool (*less)(const struct heap_node *a, const struct heap_node *b);
};
void heap_deinit(struct heap *h);
void heap_push(struct heap *h, struct heap_node *n);
struct heap_node *heap_peek(const struct heap *h); /* NULL: empty */
struct heap_node *heap_pop(struct heap *h);
void heap_remove(struct heap *h, struct heap_node *n); /* not in the heap: nothing */
void heap_update(
	struct heap *h, struct heap_node *n); /* its order changed; pushed when not in the heap */

uint64_t hash_bytes(const void *p, size_t n, uint64_t seed); /* not for secrets */
uint32_t hash_fnv32a(const void *p, size_t n); /* FNV-1a, as upstream's pod-template-hash uses */

#endif
