/* A binary heap whose nodes know where they stand: nodes[n->index - 1] == n. */
#include "base/map.h"

static void place(struct heap *h, size_t at, struct heap_node *n)
{
	h->nodes[at] = n;
	n->index = at + 1;
}

static void sift_up(struct heap *h, size_t at)
{
	struct heap_node *n = h->nodes[at];

	while (at > 0) {
		size_t parent = (at - 1) / 2;

		if (!h->less(n, h->nodes[parent]))
			break;
		place(h, at, h->nodes[parent]);
		at = parent;
	}
	place(h, at, n);
}

static void sift_down(struct heap *h, size_t at)
{
	struct heap_node *n = h->nodes[at];

	for (;;) {
		size_t child = at * 2 + 1;

		if (child >= h->len)
			break;
		if (child + 1 < h->len && h->less(h->nodes[child + 1], h->nodes[child]))
			child++;
		if (!h->less(h->nodes[child], n))
			break;
		place(h, at, h->nodes[child]);
		at = child;
	}
	place(h, at, n);
}

void heap_deinit(struct heap *h)
{
	for (size_t i = 0; i < h->len; i++)
		h->nodes[i]->index = 0;
	free(h->nodes);
	h->nodes = NULL;
	h->len = h->cap = 0;
}

void heap_push(struct heap *h, struct heap_node *n)
{
	if (h->len == h->cap) {
		h->cap = MAX(h->cap * 2, (size_t)16);
		h->nodes = xrealloc(h->nodes, h->cap * sizeof(struct heap_node *));
	}
	place(h, h->len++, n);
	sift_up(h, h->len - 1);
}

struct heap_node *heap_peek(const struct heap *h)
{
	return h->len ? h->nodes[0] : NULL;
}

struct heap_node *heap_pop(struct heap *h)
{
	struct heap_node *n = heap_peek(h);

	if (n)
		heap_remove(h, n);
	return n;
}

void heap_remove(struct heap *h, struct heap_node *n)
{
	if (!n->index)
		return;
	size_t at = n->index - 1;
	struct heap_node *last = h->nodes[--h->len];

	n->index = 0;
	if (last == n)
		return;
	place(h, at, last);
	heap_update(h, last);
}

void heap_update(struct heap *h, struct heap_node *n)
{
	if (!n->index) {
		heap_push(h, n);
		return;
	}
	sift_up(h, n->index - 1);
	sift_down(h, n->index - 1);
}
