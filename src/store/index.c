/* The index: a B-tree of objects by key, copy on write.
 *
 * 1. A node that was published never changes. An edit copies a node the first time it touches it and then works in the copy.
 * 2. Each object stands once in a version, in a leaf or between two children. Every node but the root holds MIN to MAX.
 * 3. Nodes have no reference counts. What an edit replaced is its garbage; snapshot.c knows when no version holds it.
 * 4. Each node counts the objects below it, so that counting a range walks two paths only. */
#include "store/internal.h"

enum { MIN_LEN = 15, MAX_LEN = 31 };

struct node {
	uint64_t birth;
	uint32_t count; /* objects here and below */
	uint16_t len;
	bool leaf;
	struct object *objects[MAX_LEN];
	struct node *children[]; /* MAX_LEN + 1, unless leaf */
};

static size_t node_size(bool leaf)
{
	return sizeof(struct node) + (leaf ? 0 : (MAX_LEN + 1) * sizeof(struct node *));
}

/* ---- garbage: pointers, the lowest bit set for an object ---- */
void garbage_add(struct garbage *g, uintptr_t item)
{
	if (g->len == g->cap) {
		g->cap = g->cap ? g->cap * 2 : 16;
		g->items = xrealloc(g->items, g->cap * sizeof(*g->items));
	}
	g->items[g->len++] = item;
}

static uintptr_t item_of(struct object *o)
{
	return (uintptr_t)o | 1;
}

static struct object *item_object(uintptr_t item)
{
	return item & 1 ? (struct object *)(item & ~(uintptr_t)1) : NULL;
}

uint64_t garbage_birth(uintptr_t item)
{
	struct object *o = item_object(item);
	return o ? o->revision : ((struct node *)item)->birth;
}

size_t garbage_bytes(uintptr_t item)
{
	struct object *o = item_object(item);
	return o ? object_bytes(o) : node_size(((struct node *)item)->leaf);
}

void garbage_free_item(uintptr_t item)
{
	if (item & 1)
		object_unref(item_object(item));
	else
		free((void *)item);
}

/* ---- nodes ---- */
static struct node *node_new(struct index_edit *e, bool leaf)
{
	struct node *n = xmalloc(node_size(leaf));
	n->birth = e->birth;
	n->count = 0;
	n->len = 0;
	n->leaf = leaf;
	garbage_add(&e->fresh, (uintptr_t)n);
	return n;
}

static struct node *writable(struct index_edit *e, struct node *n)
{
	if (n->birth == e->birth)
		return n;
	struct node *copy = xmalloc(node_size(n->leaf));
	memcpy(copy, n, node_size(n->leaf));
	copy->birth = e->birth;
	garbage_add(&e->fresh, (uintptr_t)copy);
	garbage_add(&e->dead, (uintptr_t)n);
	return copy;
}

static struct node *writable_child(struct index_edit *e, struct node *n, size_t i)
{
	return n->children[i] = writable(e, n->children[i]);
}

/* The first place whose key is >= key. */
static size_t find(const struct node *n, struct str key, bool *ret_found)
{
	size_t lo = 0, hi = n->len;
	*ret_found = false;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		int c = str_cmp(n->objects[mid]->key, key);
		if (c < 0) {
			lo = mid + 1;
		} else {
			hi = mid;
			*ret_found |= c == 0;
		}
	}
	return lo;
}

static void object_put(struct node *n, size_t at, struct object *o)
{
	memmove(&n->objects[at + 1], &n->objects[at], (n->len - at) * sizeof(*n->objects));
	n->objects[at] = o;
	n->len++;
}

static struct object *object_take(struct node *n, size_t at)
{
	struct object *o = n->objects[at];
	n->len--;
	memmove(&n->objects[at], &n->objects[at + 1], (n->len - at) * sizeof(*n->objects));
	return o;
}

/* `children` is how many there are now. */
static void child_put(struct node *n, size_t children, size_t at, struct node *c)
{
	memmove(&n->children[at + 1], &n->children[at], (children - at) * sizeof(*n->children));
	n->children[at] = c;
}

static struct node *child_take(struct node *n, size_t children, size_t at)
{
	struct node *c = n->children[at];
	memmove(&n->children[at], &n->children[at + 1], (children - at - 1) * sizeof(*n->children));
	return c;
}

static void recount(struct node *n)
{
	n->count = n->len;
	for (size_t i = 0; !n->leaf && i <= n->len; i++)
		n->count += n->children[i]->count;
}

/* ---- reading ---- */
struct object *index_get(const struct node *n, struct str key)
{
	while (n) {
		bool found;
		size_t i = find(n, key, &found);
		if (found)
			return n->objects[i];
		n = n->leaf ? NULL : n->children[i];
	}
	return NULL;
}

struct walk {
	struct str prefix, start;
	store_each_fn fn;
	void *arg;
};

static bool walk(const struct node *n, const struct walk *w, bool from_start)
{
	bool found;
	size_t i = from_start ? find(n, w->start, &found) : 0;
	for (;; i++) {
		if (!n->leaf && !walk(n->children[i], w, from_start))
			return false;
		from_start = false;
		if (i == n->len)
			return true;
		if (!str_has_prefix(n->objects[i]->key, w->prefix) || !w->fn(w->arg, n->objects[i]))
			return false;
	}
}

void index_each(
	const struct node *root, struct str prefix, struct str start, store_each_fn fn, void *arg)
{
	struct walk w = { prefix, str_cmp(start, prefix) < 0 ? prefix : start, fn, arg };
	if (root)
		walk(root, &w, true);
}

/* How many keys are < bound, or, with `inside`, < bound or begin with it. */
static size_t rank(const struct node *n, struct str bound, bool inside)
{
	size_t rank = 0;
	while (n) {
		size_t lo = 0, hi = n->len;
		while (lo < hi) {
			size_t mid = (lo + hi) / 2;
			struct str key = n->objects[mid]->key;
			if (str_cmp(key, bound) < 0 || (inside && str_has_prefix(key, bound)))
				lo = mid + 1;
			else
				hi = mid;
		}
		rank += lo;
		for (size_t i = 0; !n->leaf && i < lo; i++)
			rank += n->children[i]->count;
		n = n->leaf ? NULL : n->children[lo];
	}
	return rank;
}

size_t index_count(const struct node *root, struct str prefix, struct str start)
{
	size_t from = rank(root, str_cmp(start, prefix) < 0 ? prefix : start, false);
	size_t to = rank(root, prefix, true);
	return to > from ? to - from : 0;
}

/* ---- inserting: full nodes are split on the way down ---- */
static void split_child(struct index_edit *e, struct node *n, size_t i)
{
	struct node *left = writable_child(e, n, i), *right = node_new(e, left->leaf);
	enum { MIDDLE = MAX_LEN / 2 };
	right->len = MAX_LEN - MIDDLE - 1;
	memcpy(right->objects, &left->objects[MIDDLE + 1], right->len * sizeof(*right->objects));
	if (!left->leaf)
		memcpy(right->children, &left->children[MIDDLE + 1],
			(right->len + 1u) * sizeof(*right->children));
	left->len = MIDDLE;
	recount(left);
	recount(right);
	child_put(n, n->len + 1u, i + 1, right);
	object_put(n, i, left->objects[MIDDLE]);
}

void index_insert(struct index_edit *e, struct object *o)
{
	bool found;
	garbage_add(&e->fresh, item_of(o));
	if (!e->root)
		e->root = node_new(e, true);
	struct node *n = e->root = writable(e, e->root);
	if (n->len == MAX_LEN) {
		struct node *top = node_new(e, false);
		top->children[0] = n;
		top->count = n->count;
		split_child(e, top, 0);
		n = e->root = top;
	}
	for (;;) {
		size_t i = find(n, o->key, &found);
		n->count++;
		if (n->leaf) {
			object_put(n, i, o);
			return;
		}
		if (n->children[i]->len == MAX_LEN) {
			split_child(e, n, i);
			i += str_cmp(n->objects[i]->key, o->key) < 0;
		}
		n = writable_child(e, n, i);
	}
}

void index_replace(struct index_edit *e, struct object *o)
{
	bool found;
	garbage_add(&e->fresh, item_of(o));
	struct node *n = e->root = writable(e, e->root);
	size_t i;
	while (i = find(n, o->key, &found), !found)
		n = writable_child(e, n, i);
	garbage_add(&e->dead, item_of(n->objects[i]));
	n->objects[i] = o;
}

/* ---- removing: a child is made larger than MIN_LEN before the descent into it ---- */
static void borrow_from_left(struct index_edit *e, struct node *n, size_t i)
{
	struct node *c = writable_child(e, n, i), *left = writable_child(e, n, i - 1);
	if (!c->leaf)
		child_put(c, c->len + 1u, 0, child_take(left, left->len + 1u, left->len));
	object_put(c, 0, n->objects[i - 1]);
	n->objects[i - 1] = object_take(left, left->len - 1u);
	recount(c);
	recount(left);
}

static void borrow_from_right(struct index_edit *e, struct node *n, size_t i)
{
	struct node *c = writable_child(e, n, i), *right = writable_child(e, n, i + 1);
	if (!c->leaf)
		child_put(c, c->len + 1u, c->len + 1u, child_take(right, right->len + 1u, 0));
	object_put(c, c->len, n->objects[i]);
	n->objects[i] = object_take(right, 0);
	recount(c);
	recount(right);
}

static void merge_with_right(struct index_edit *e, struct node *n, size_t i)
{
	struct node *c = writable_child(e, n, i), *right = child_take(n, n->len + 1u, i + 1);
	object_put(c, c->len, object_take(n, i));
	if (!c->leaf)
		memcpy(&c->children[c->len], right->children,
			(right->len + 1u) * sizeof(*right->children));
	memcpy(&c->objects[c->len], right->objects, right->len * sizeof(*right->objects));
	c->len = (uint16_t)(c->len + right->len);
	c->count += 1 + right->count;
	garbage_add(&e->dead, (uintptr_t)right);
}

static void enlarge_child(struct index_edit *e, struct node *n, size_t i)
{
	if (i > 0 && n->children[i - 1]->len > MIN_LEN)
		borrow_from_left(e, n, i);
	else if (i < n->len && n->children[i + 1]->len > MIN_LEN)
		borrow_from_right(e, n, i);
	else
		merge_with_right(e, n, i < n->len ? i : i - 1);
}

/* Takes the last object below n out; n is writable and larger than MIN_LEN. */
static struct object *remove_last(struct index_edit *e, struct node *n)
{
	for (;;) {
		if (!n->leaf && n->children[n->len]->len <= MIN_LEN)
			enlarge_child(e, n, n->len);
		n->count--;
		if (n->leaf)
			return object_take(n, n->len - 1u);
		n = writable_child(e, n, n->len);
	}
}

static struct object *remove_key(struct index_edit *e, struct node *n, struct str key)
{
	for (;;) {
		bool found;
		size_t i = find(n, key, &found);
		if (!n->leaf && n->children[i]->len <= MIN_LEN) {
			enlarge_child(e, n, i);
			i = find(n, key, &found);
		}
		n->count--;
		if (n->leaf)
			return object_take(n, i);
		struct node *c = writable_child(e, n, i);
		if (found) {
			struct object *o = n->objects[i];
			n->objects[i] = remove_last(e, c);
			return o;
		}
		n = c;
	}
}

void index_remove(struct index_edit *e, struct str key)
{
	struct node *root = e->root = writable(e, e->root);
	garbage_add(&e->dead, item_of(remove_key(e, root, key)));
	if (root->len > 0)
		return;
	e->root = root->leaf ? NULL : root->children[0];
	garbage_add(&e->dead, (uintptr_t)root);
}

/* ---- ends ---- */
void index_edit_undo(struct index_edit *e)
{
	for (size_t i = 0; i < e->fresh.len; i++)
		garbage_free_item(e->fresh.items[i]);
	free(e->fresh.items);
	free(e->dead.items);
	*e = (struct index_edit){ 0 };
}

void index_free(struct node *n)
{
	if (!n)
		return;
	for (size_t i = 0; i < n->len; i++)
		object_unref(n->objects[i]);
	for (size_t i = 0; !n->leaf && i <= n->len; i++)
		index_free(n->children[i]);
	free(n);
}
