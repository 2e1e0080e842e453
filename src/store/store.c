/* Opening, loading and closing a store. */
#include "base/values.h"
#include "store/internal.h"

enum { DROPPED_MAX = 4096 };

static const struct backend_type *const backends[] = { &backend_sqlite, &backend_memory };

static const struct backend_type *backend_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(backends); i++)
		if (name && !strcmp(backends[i]->name, name))
			return backends[i];
	return NULL;
}

/* ---- loading: the stored events, replayed ---- */
struct loading {
	struct store *s;
	struct index_edit edit;
	uint64_t revision, compacted;
	uint64_t last; /* revision of the newest event seen */
};

/* What the log must hold whole, and what cannot be true of it. */
static const char *contradiction(const struct loading *l, enum store_event_type type,
	const struct object *o, const struct object *present)
{
	if (o->revision <= l->last)
		return "its revision is not above the one before";
	if (o->revision <= l->compacted)
		return NULL;
	if (o->revision != MAX(l->last, l->compacted) + 1)
		return "the events before it are missing";
	if (type == STORE_ADDED && present)
		return "it was created although it was there";
	if (type != STORE_ADDED && !present)
		return "the version before it is missing";
	return NULL;
}

static int load_event(void *arg, enum store_event_type type, struct object *loaded, struct err *err)
{
	CLEAN_OBJECT struct object *o = loaded;
	struct loading *l = arg;
	struct store *s = l->s;
	struct object *present = index_get(l->edit.root, o->key);
	const char *wrong = contradiction(l, type, o, present);
	if (wrong)
		return err_set(err, -EBADMSG, "revision %llu of " STR_FMT ": %s",
			(unsigned long long)o->revision, STR_ARG(o->key), wrong);
	l->last = o->revision;
	if (o->revision > l->compacted) {
		struct store_event *ev = event_new(type, o, present);
		log_append(&s->log, &ev, 1, &s->dropped);
	} else {
		if (present)
			revisions_add(&s->dropped, present->revision);
		if (type == STORE_DELETED)
			revisions_add(&s->dropped, o->revision);
	}
	atomic_fetch_add(&s->bytes,
		(type == STORE_DELETED ? 0 : o->json.len) - (present ? present->json.len : 0));
	atomic_fetch_add(&s->objects, (uint64_t)(type != STORE_DELETED) - (present != NULL));
	if (type != STORE_DELETED && present)
		index_replace(&l->edit, TAKE(o));
	else if (type != STORE_DELETED)
		index_insert(&l->edit, TAKE(o));
	else if (present)
		index_remove(&l->edit, o->key);
	return 0;
}

static int load(struct store *s, struct err *err)
{
	struct loading l = { .s = s };
	int r = s->type->load(s->backend, load_event, &l, &l.revision, &l.compacted, err);
	if (r == 0 && MAX(l.last, l.compacted) != l.revision)
		r = err_set(err, -EBADMSG, "revision %llu was reached, but the events end at %llu",
			(unsigned long long)l.revision, (unsigned long long)l.last);
	if (r) {
		index_edit_undo(&l.edit);
		return r;
	}
	versions_init(s, NULL, 0);
	versions_publish(s, &l.edit, l.revision);
	s->log.compacted = MAX(s->log.compacted, l.compacted);
	s->log.newest = l.revision;
	return 0;
}

/* ---- the ends ---- */
static void store_free(struct store *s)
{
	shared_end_remote(s);
	log_deinit(&s->log);
	versions_deinit(s);
	shared_free(s);
	if (s->backend)
		s->type->close(s->backend);
	free(s->dropped.v);
	pthread_mutex_destroy(&s->versions_lock);
	free(s);
}

int store_open(const struct store_config *c, struct store **ret, struct err *err)
{
	const struct backend_type *type = backend_find(c->backend);
	bool shared = c->backend && !strcmp(c->backend, "shared");
	if (!type && !shared)
		return err_set(err, -EINVAL,
			"there is no store backend \"%s\": choose sqlite or memory",
			c->backend ? c->backend : "");
	struct store *s = xcalloc(1, sizeof(*s));
	s->type = type;
	s->dropped_max = DROPPED_MAX;
	pthread_mutex_init(&s->versions_lock, NULL);
	log_init(&s->log, c->history);
	int r = shared ? shared_open(s, c->shared, err) : type->open(c, &s->backend, err);
	if (r == 0 && !shared)
		r = load(s, err);
	if (r) {
		store_free(s);
		return r;
	}
	writer_start(s);
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	shared_end_remote(s);
	writer_stop(s);
	store_free(s);
}

void store_stats(struct store *s, struct store_stats *ret)
{
	pthread_mutex_lock(&s->log.lock);
	uint64_t oldest = s->log.compacted + 1;
	pthread_mutex_unlock(&s->log.lock);
	*ret = (struct store_stats){
		.revision = store_revision(s),
		.oldest_event = oldest,
		.objects = atomic_load(&s->objects),
		.bytes = atomic_load(&s->bytes),
		.commits = atomic_load(&s->commits),
		.writes = atomic_load(&s->writes),
		.watches = atomic_load(&s->log.n_watches),
		.file_bytes = s->shared ? shared_size(s) : s->type->size(s->backend),
	};
}
