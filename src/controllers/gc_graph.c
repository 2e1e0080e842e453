/* See gc.h. Each owner's list is a map, so that thousands of
 * pods of one set come and go in constant time. */
#include "controllers/gc.h"

#define GONE_MOST 1024

struct owner {
	struct map dependents; /* key -> the owner itself (any value) */
};

struct gc_graph {
	pthread_mutex_t lock; /* all below */
	struct map owners;    /* uid -> struct owner */
	struct map gone;
	char *gone_ring[GONE_MOST];
	size_t gone_at;
};

struct gc_graph *gc_graph_new(void)
{
	struct gc_graph *g = xcalloc(1, sizeof(*g));

	pthread_mutex_init(&g->lock, NULL);
	return g;
}

static void free_owner(void *p)
{
	map_deinit(&((struct owner *)p)->dependents, NULL);
	free(p);
}

void gc_graph_free(struct gc_graph *g)
{
	if (!g)
		return;
	map_deinit(&g->owners, free_owner);
	map_deinit(&g->gone, NULL);
	for (size_t i = 0; i < GONE_MOST; i++)
		free(g->gone_ring[i]);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

void gc_graph_link(struct gc_graph *g, struct str owner_uid, struct str key)
{
	pthread_mutex_lock(&g->lock);
	struct owner *o = map_get(&g->owners, owner_uid);

	if (!o) {
		o = xcalloc(1, sizeof(*o));
		map_set(&g->owners, owner_uid, o);
	}
	map_set(&o->dependents, key, o);
	pthread_mutex_unlock(&g->lock);
}

void gc_graph_unlink(struct gc_graph *g, struct str owner_uid, struct str key)
{
	pthread_mutex_lock(&g->lock);
	struct owner *o = map_get(&g->owners, owner_uid);

	if (o) {
		map_remove(&o->dependents, key);
		if (!o->dependents.len) {
			map_remove(&g->owners, owner_uid);
			free_owner(o);
		}
	}
	pthread_mutex_unlock(&g->lock);
}

size_t gc_graph_count(struct gc_graph *g, struct str owner_uid)
{
	pthread_mutex_lock(&g->lock);
	struct owner *o = map_get(&g->owners, owner_uid);
	size_t n = o ? o->dependents.len : 0;

	pthread_mutex_unlock(&g->lock);
	return n;
}

struct str_list gc_graph_dependents(struct gc_graph *g, struct str owner_uid, struct arena *a)
{
	struct str_list l = { 0 };

	pthread_mutex_lock(&g->lock);
	struct owner *o = map_get(&g->owners, owner_uid);

	if (o) {
		size_t i = 0;
		struct str key;
		void *v;

		l.items = arena_alloc(a, (o->dependents.len + 1) * sizeof(struct str));
		while (map_next(&o->dependents, &i, &key, &v))
			l.items[l.len++] = arena_str(a, key);
	}
	pthread_mutex_unlock(&g->lock);
	return l;
}

void gc_graph_set_gone(struct gc_graph *g, struct str uid)
{
	pthread_mutex_lock(&g->lock);
	if (!map_get(&g->gone, uid)) {
		char **slot = &g->gone_ring[g->gone_at++ % GONE_MOST];

		if (*slot)
			map_remove(&g->gone, str_of(*slot));
		free(*slot);
		*slot = str_dup(uid);
		map_set(&g->gone, uid, g);
	}
	pthread_mutex_unlock(&g->lock);
}

bool gc_graph_is_gone(struct gc_graph *g, struct str uid)
{
	pthread_mutex_lock(&g->lock);
	bool r = map_get(&g->gone, uid);

	pthread_mutex_unlock(&g->lock);
	return r;
}
