/* Versions of the index, and whose garbage may go.
 *
 * A version is a root; a snapshot is a reference to one. The versions that somebody still holds form a list by age, the
 * current one last. When a version is published, what it replaced becomes the garbage of the one before. When a version goes,
 * each piece of its garbage that the next older version also holds (it was born before it) moves there; the rest is freed.
 * So a snapshot held for long keeps alive what it can see, and nothing else.
 *
 * A version that is gone is rebuilt, as long as the log reaches back to it: an edit of the current one in which the events since
 * are undone. It belongs to its holder, and no other version shares its new nodes. */
#include <sched.h>

#include "base/values.h"
#include "store/internal.h"

enum {
	KEPT_MAX = 64,
	KEPT_SECONDS = 300,
	GARBAGE_MAX = 32 << 20, /* beyond, the oldest kept snapshots go */
};

static uint64_t now_s(void)
{
	return mono_now_ns() / 1000000000;
}

static struct store_snapshot *version_new(struct store *s, struct node *root, uint64_t revision)
{
	struct store_snapshot *v = xcalloc(1, sizeof(*v));
	v->store = s;
	v->root = root;
	v->revision = revision;
	atomic_init(&v->refs, 1);
	list_init(&v->kept);
	list_insert(&s->versions, &v->versions);
	return v;
}

void versions_init(struct store *s, struct node *root, uint64_t revision)
{
	list_init(&s->versions);
	list_init(&s->kept);
	s->current = version_new(s, root, revision);
	atomic_store(&s->revision, revision);
}

/* Moves what an older version holds to that one; what is left is to be freed. Under versions_lock. */
static void sort_garbage(struct store *s, struct store_snapshot *v, struct garbage *g)
{
	struct store_snapshot *older = v->versions.prev == &s->versions
		? NULL
		: list_entry(v->versions.prev, struct store_snapshot, versions);
	size_t left = 0;
	for (size_t i = 0; i < g->len; i++) {
		if (older && garbage_birth(g->items[i]) <= older->revision) {
			garbage_add(&older->dead, g->items[i]);
			continue;
		}
		s->garbage_bytes -= garbage_bytes(g->items[i]);
		g->items[left++] = g->items[i];
	}
	g->len = left;
}

static void free_garbage(struct garbage *g)
{
	for (size_t i = 0; i < g->len; i++)
		garbage_free_item(g->items[i]);
	free(g->items);
	*g = (struct garbage){ 0 };
}

void store_snapshot_free(struct store_snapshot *v)
{
	if (!v || atomic_fetch_sub(&v->refs, 1) != 1)
		return;
	if (v->base) {
		index_edit_undo(&v->edit);
		store_snapshot_free(v->base);
		free(v);
		return;
	}
	/* The store holds the current version, so this one is older and nobody can find it any more. */
	struct store *s = v->store;
	pthread_mutex_lock(&s->versions_lock);
	sort_garbage(s, v, &v->dead);
	list_remove(&v->versions);
	pthread_mutex_unlock(&s->versions_lock);
	free_garbage(&v->dead);
	free(v);
}

/* A client that pages slowly while much is replaced: its snapshot is rebuilt when it is asked for again. */
static bool drop_kept(struct store *s)
{
	struct store_snapshot *drop = NULL;
	pthread_mutex_lock(&s->versions_lock);
	if (s->garbage_bytes > GARBAGE_MAX && !list_empty(&s->kept)) {
		drop = list_entry(s->kept.next, struct store_snapshot, kept);
		list_remove(&drop->kept);
		s->n_kept--;
	}
	pthread_mutex_unlock(&s->versions_lock);
	store_snapshot_free(drop);
	return drop;
}

void versions_publish(struct store *s, struct index_edit *e, uint64_t revision)
{
	pthread_mutex_lock(&s->versions_lock);
	struct store_snapshot *was = s->current;
	/* Replaced by `e`: held by `was`, unless made within `e` itself. */
	struct garbage now = { 0 };
	for (size_t i = 0; i < e->dead.len; i++) {
		uintptr_t item = e->dead.items[i];
		bool held = garbage_birth(item) <= was->revision;
		garbage_add(held ? &was->dead : &now, item);
		s->garbage_bytes += held ? garbage_bytes(item) : 0;
	}
	s->current = version_new(s, e->root, revision);
	atomic_store(&s->revision, revision);
	pthread_mutex_unlock(&s->versions_lock);
	free_garbage(&now);
	free(e->fresh.items);
	free(e->dead.items);
	*e = (struct index_edit){ 0 };
	store_snapshot_free(was);
	while (drop_kept(s))
		;
}

struct store_snapshot *store_snapshot(struct store *s)
{
	pthread_mutex_lock(&s->versions_lock);
	struct store_snapshot *v = s->current;
	atomic_fetch_add(&v->refs, 1);
	pthread_mutex_unlock(&s->versions_lock);
	return v;
}

void store_snapshot_keep(struct store_snapshot *v)
{
	struct store *s = v->store;
	struct store_snapshot *drop = NULL;
	pthread_mutex_lock(&s->versions_lock);
	if (list_empty(&v->kept)) {
		atomic_fetch_add(&v->refs, 1);
		s->n_kept++;
		list_insert(&s->kept, &v->kept);
		if (!v->base)
			v->kept_at_s = now_s();
	}
	if (s->n_kept > KEPT_MAX) {
		drop = list_entry(s->kept.next, struct store_snapshot, kept);
		list_remove(&drop->kept);
		s->n_kept--;
	}
	pthread_mutex_unlock(&s->versions_lock);
	store_snapshot_free(drop);
}

static struct store_snapshot *find_version(struct store *s, uint64_t revision)
{
	struct store_snapshot *found = NULL;
	pthread_mutex_lock(&s->versions_lock);
	if (s->current->revision == revision)
		found = s->current;
	list_for_each(it, &s->kept) {
		struct store_snapshot *v = list_entry(it, struct store_snapshot, kept);
		if (v->revision == revision && v->kept_at_s + KEPT_SECONDS > now_s())
			found = v;
	}
	if (found)
		atomic_fetch_add(&found->refs, 1);
	pthread_mutex_unlock(&s->versions_lock);
	return found;
}

static void undo_event(struct index_edit *e, const struct store_event *ev)
{
	if (ev->type == STORE_ADDED)
		index_remove(e, ev->object->key);
	else if (ev->type == STORE_MODIFIED)
		index_replace(e, object_ref(ev->prev));
	else
		index_insert(e, object_ref(ev->prev));
}

/* Takes the base. NULL: the log does not reach back so far, or what came next came long ago: however quiet the cluster is, a
 * client that pages for minutes is told so. */
static struct store_snapshot *rebuild(struct store_snapshot *base, uint64_t revision)
{
	struct store *s = base->store;
	CLEAN_FREE struct store_event **events = NULL;
	size_t n = 0;
	int r;
	/* The index is published a moment before the log. */
	while ((r = log_since(&s->log, revision, base->revision, &events, &n)) == -EAGAIN)
		sched_yield();
	if (r == 0 && n > 0 && events[0]->age_s + KEPT_SECONDS <= now_s()) {
		for (size_t i = 0; i < n; i++)
			store_event_unref(events[i]);
		r = STORE_COMPACTED;
	}
	if (r) {
		store_snapshot_free(base);
		return NULL;
	}
	struct store_snapshot *v = xcalloc(1, sizeof(*v));
	v->store = s;
	v->kept_at_s = n > 0 ? events[0]->age_s : now_s();
	v->base = base;
	v->revision = revision;
	v->edit.root = base->root;
	v->edit.birth = UINT64_MAX;
	atomic_init(&v->refs, 1);
	list_init(&v->versions);
	list_init(&v->kept);
	for (size_t i = n; i > 0; i--) {
		undo_event(&v->edit, events[i - 1]);
		store_event_unref(events[i - 1]);
	}
	v->root = v->edit.root;
	return v;
}

struct store_snapshot *store_snapshot_at(struct store *s, uint64_t revision)
{
	struct store_snapshot *v = find_version(s, revision);
	if (v)
		return v;
	v = store_snapshot(s);
	if (revision > 0 && revision < v->revision)
		return rebuild(v, revision);
	store_snapshot_free(v);
	return NULL;
}

uint64_t versions_expire(struct store *s, uint64_t now)
{
	for (;;) {
		uint64_t next = 0;
		struct store_snapshot *drop = NULL;
		pthread_mutex_lock(&s->versions_lock);
		if (!list_empty(&s->kept)) {
			drop = list_entry(s->kept.next, struct store_snapshot, kept);
			next = drop->kept_at_s + KEPT_SECONDS;
			if (next > now) {
				drop = NULL;
			} else {
				list_remove(&drop->kept);
				s->n_kept--;
			}
		}
		pthread_mutex_unlock(&s->versions_lock);
		if (!drop)
			return next > now ? next - now : 0;
		store_snapshot_free(drop);
	}
}

void versions_deinit(struct store *s)
{
	if (!s->current)
		return;
	versions_expire(s, UINT64_MAX);
	struct store_snapshot *v = TAKE(s->current);
	index_free(v->root);
	free_garbage(&v->dead);
	list_remove(&v->versions);
	free(v);
}

uint64_t store_snapshot_revision(const struct store_snapshot *v)
{
	return v->revision;
}

struct object *store_snapshot_get(const struct store_snapshot *v, struct str key)
{
	return index_get(v->root, key);
}

void store_snapshot_each(const struct store_snapshot *v, struct str prefix, struct str start,
	store_each_fn fn, void *arg)
{
	index_each(v->root, prefix, start, fn, arg);
}

size_t store_snapshot_count(const struct store_snapshot *v, struct str prefix, struct str start)
{
	return index_count(v->root, prefix, start);
}

int store_get(struct store *s, struct str key, struct object **ret)
{
	struct store_snapshot *v = store_snapshot(s);
	struct object *o = index_get(v->root, key);
	if (o)
		*ret = object_ref(o);
	store_snapshot_free(v);
	return o ? 0 : STORE_NOT_FOUND;
}

uint64_t store_revision(struct store *s)
{
	return atomic_load(&s->revision);
}
