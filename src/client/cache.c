/* The cache behind an informer: objects by key, and by index value (namespace is always one). One lock guards all of it; what
 * is handed out is a reference to something that never changes.
 *
 * 1. An object lies in one arena whose first block fits it exactly; its `struct entry` lies in it too.
 * 2. An entry knows its place in each bucket, so that removal does not search. */
#include "client/internal.h"

#define INDEX_MAX 8
#define BUCKET_ROOMY 64 /* places: smaller ones are not worth giving back */

struct bucket {
	struct entry **items;
	uint32_t len, cap;
	struct str value; /* owned */
};

struct place {
	struct bucket *bucket;
	uint32_t at;
};

struct entry {
	struct cached c;
	uint32_t n_places;
	struct place *places; /* owned; set while in a cache */
};

struct cache {
	pthread_mutex_t lock; /* all below */
	struct map by_key;    /* struct entry */
	struct map buckets;   /* struct bucket */
	cache_index_fn index;
	struct arena *scratch;
};

struct cached *cached_ref(struct cached *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void cached_unref(struct cached *c)
{
	if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return;
	free(container_of(c, struct entry, c)->places);
	arena_free(c->arena);
}

void cached_list_deinit(struct cached_list *l)
{
	for (size_t i = 0; i < l->len; i++)
		cached_unref(l->items[i]);
	free(l->items);
	*l = (struct cached_list){ 0 };
}

/* obj NULL: only meta is kept. */
static struct entry *entry_build(const struct type *t, const void *obj,
	const struct meta_v1_object_meta *meta, struct arena *a)
{
	struct entry *e = arena_alloc(a, sizeof(*e));

	e->c.refs = 1;
	e->c.type = t;
	e->c.obj = obj ? model_copy(t, obj, a) : NULL;
	e->c.meta = obj ? model_meta(t, e->c.obj) : model_copy(&meta_v1_object_meta_type, meta, a);
	e->c.arena = a;
	e->c.key = e->c.meta->namespace.len
		? arena_fmt(a, STR_FMT "/" STR_FMT, STR_ARG(e->c.meta->namespace),
			  STR_ARG(e->c.meta->name))
		: arena_str(a, e->c.meta->name);
	return e;
}

struct cached *cached_new(
	const struct type *t, const void *obj, bool meta_only, struct arena *scratch)
{
	struct meta_v1_object_meta *m = model_meta(t, obj);

	m->managed_fields.items = NULL;
	m->managed_fields.len = 0;
	if (meta_only) {
		m->labels = m->annotations = (struct str_map){ 0 };
		obj = NULL;
	}
	arena_reset(scratch);
	entry_build(t, obj, m, scratch);
	return &entry_build(t, obj, m, arena_new(arena_used(scratch)))->c;
}

struct cache *cache_new(cache_index_fn index)
{
	struct cache *c = xcalloc(1, sizeof(*c));

	pthread_mutex_init(&c->lock, NULL);
	c->index = index;
	return c;
}

static void free_bucket(void *p)
{
	struct bucket *b = p;

	free(b->items);
	free((char *)b->value.p);
	free(b);
}

static void unref_entry(void *p)
{
	cached_unref(&((struct entry *)p)->c);
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	map_deinit(&c->by_key, unref_entry);
	map_deinit(&c->buckets, free_bucket);
	arena_free(c->scratch);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void bucket_put(struct cache *c, struct entry *e, struct str value, struct place *ret)
{
	struct bucket *b = map_get(&c->buckets, value);

	if (!b) {
		b = xcalloc(1, sizeof(*b));
		b->value = str_n(str_dup(value), value.len);
		map_set(&c->buckets, value, b);
	}
	if (b->len == b->cap) {
		b->cap = b->cap ? b->cap * 2 : 2;
		b->items = xrealloc(b->items, b->cap * sizeof(struct entry *));
	}
	*ret = (struct place){ b, b->len };
	b->items[b->len++] = e;
}

static void bucket_take(struct cache *c, struct place p)
{
	struct bucket *b = p.bucket;
	struct entry *last = b->items[--b->len];

	if (p.at < b->len) {
		b->items[p.at] = last;
		for (uint32_t i = 0; i < last->n_places; i++)
			if (last->places[i].bucket == b)
				last->places[i].at = p.at;
	}
	if (!b->len) {
		map_remove(&c->buckets, b->value);
		free_bucket(b);
	} else if (b->cap > BUCKET_ROOMY && b->len < b->cap / 8) {
		b->cap /= 4;
		b->items = xrealloc(b->items, b->cap * sizeof(struct entry *));
	}
}

/* The namespace's own bucket has a name that no index value of ours has. */
static struct str namespace_value(struct str ns, struct arena *a)
{
	return arena_fmt(a, "\n" STR_FMT, STR_ARG(ns));
}

static void index_entry(struct cache *c, struct entry *e)
{
	struct str values[INDEX_MAX + 1];
	size_t n = 0;

	if (!c->scratch)
		c->scratch = arena_new(512);
	arena_reset(c->scratch);
	if (c->index && e->c.obj)
		n = c->index(e->c.type, e->c.obj, values, c->scratch);
	if (e->c.meta->namespace.len)
		values[n++] = namespace_value(e->c.meta->namespace, c->scratch);
	e->places = n ? xmalloc(n * sizeof(struct place)) : NULL;
	e->n_places = 0;
	for (size_t i = 0; i < n; i++) {
		bool again = false;

		for (size_t k = 0; k < i && !again; k++)
			again = str_eq(values[k], values[i]);
		if (!again)
			bucket_put(c, e, values[i], &e->places[e->n_places++]);
	}
}

static void unindex_entry(struct cache *c, struct entry *e)
{
	for (uint32_t i = 0; i < e->n_places; i++)
		bucket_take(c, e->places[i]);
	e->n_places = 0;
	free(TAKE(e->places));
}

struct cached *cache_set(struct cache *c, struct cached *now)
{
	struct entry *e = container_of(now, struct entry, c);

	pthread_mutex_lock(&c->lock);
	struct entry *old = map_set(&c->by_key, now->key, e);

	if (old)
		unindex_entry(c, old);
	index_entry(c, e);
	pthread_mutex_unlock(&c->lock);
	return old ? &old->c : NULL;
}

struct cached *cache_remove(struct cache *c, struct str key)
{
	pthread_mutex_lock(&c->lock);
	struct entry *old = map_remove(&c->by_key, key);

	if (old)
		unindex_entry(c, old);
	pthread_mutex_unlock(&c->lock);
	return old ? &old->c : NULL;
}

struct cached *cache_get(struct cache *c, struct str key)
{
	pthread_mutex_lock(&c->lock);
	struct entry *e = map_get(&c->by_key, key);
	struct cached *r = e ? cached_ref(&e->c) : NULL;

	pthread_mutex_unlock(&c->lock);
	return r;
}

static void list_bucket(struct cache *c, struct str value, struct cached_list *ret)
{
	struct bucket *b = map_get(&c->buckets, value);

	*ret = (struct cached_list){ 0 };
	if (!b)
		return;
	ret->items = xmalloc(b->len * sizeof(struct cached *));
	for (uint32_t i = 0; i < b->len; i++)
		ret->items[ret->len++] = cached_ref(&b->items[i]->c);
}

void cache_by_index(struct cache *c, struct str value, struct cached_list *ret)
{
	pthread_mutex_lock(&c->lock);
	list_bucket(c, value, ret);
	pthread_mutex_unlock(&c->lock);
}

void cache_list(struct cache *c, struct str ns, struct cached_list *ret)
{
	pthread_mutex_lock(&c->lock);
	if (ns.len) {
		struct buf value CLEAN_BUF = { 0 };

		buf_addf(&value, "\n" STR_FMT, STR_ARG(ns));
		list_bucket(c, buf_str(&value), ret);
	} else {
		size_t i = 0;
		struct str key;
		void *v;

		*ret = (struct cached_list){ 0 };
		if (c->by_key.len)
			ret->items = xmalloc(c->by_key.len * sizeof(struct cached *));
		while (map_next(&c->by_key, &i, &key, &v))
			ret->items[ret->len++] = cached_ref(&((struct entry *)v)->c);
	}
	pthread_mutex_unlock(&c->lock);
}

size_t cache_len(struct cache *c)
{
	pthread_mutex_lock(&c->lock);
	size_t n = c->by_key.len;

	pthread_mutex_unlock(&c->lock);
	return n;
}
