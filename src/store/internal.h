/* What the files of this folder share.
 *
 *   object.c    objects: one allocation, references
 *   index.c     the copy-on-write B-tree
 *   snapshot.c  versions of the index, which of their garbage may go, kept snapshots
 *   log.c       the ring of events and the cursors over it
 *   writer.c    the writer thread: queue, checks, group commit
 *   store.c     open, load, close, stats
 *   shared.c  index and log fed from elsewhere
 *   sqlite.c, memory.c   backends; lock.c: the lock file beside the database
 *
 * Locks, none taken while another is held: queue_lock (queue of ops), versions_lock (current version, list of versions),
 * log_lock (ring, cursors). The writer thread alone changes the index and appends to the log. */
#ifndef SKIFF_STORE_INTERNAL_H
#define SKIFF_STORE_INTERNAL_H

#include <pthread.h>

#include "base/map.h"
#include "store/store.h"

/* ---- objects ---- */
struct object_parts {
	struct str key, json_head, json_tail;
	const struct object_pair *labels, *fields;
	size_t n_labels, n_fields;
};
/* An object whose JSON is head + revision + tail; room is left so that the revision can still change. */
struct object *object_new(const struct object_parts *parts, uint64_t revision);
/* Before the object is shared: puts another revision between head and tail. */
void object_set_revision(struct object *o, size_t head_len, uint64_t revision);
/* One whose JSON is given whole; its revision is only beside the JSON. */
struct object *object_new_whole(
	const struct object_parts *parts, struct str json, uint64_t revision);

size_t object_bytes(const struct object *o); /* of memory, without what is kept with it */

/* ---- index: a B-tree whose nodes never change once published ---- */
struct node;
struct garbage { /* what a version holds and newer ones do not: nodes and objects */
	uintptr_t *items;
	size_t len, cap;
};
/* Changes in progress: made in nodes of their own, published as a whole or undone. A node or object that was born at
 * revision r is part of no version before r. */
struct index_edit {
	struct node *root;
	uint64_t birth;       /* revision of the first write in this edit */
	struct garbage fresh; /* made by this edit */
	struct garbage dead;  /* replaced by this edit */
};
struct object *index_get(const struct node *root, struct str key); /* borrowed; NULL */
void index_insert(
	struct index_edit *e, struct object *o); /* takes the reference; the key is not there */
void index_replace(
	struct index_edit *e, struct object *o);         /* takes the reference; the key is there */
void index_remove(struct index_edit *e, struct str key); /* the key is there */
void index_edit_undo(struct index_edit *e);              /* frees what it made */
void index_each(
	const struct node *root, struct str prefix, struct str start, store_each_fn fn, void *arg);
size_t index_count(const struct node *root, struct str prefix, struct str start);
void index_free(struct node *root); /* the tree and its objects */
void garbage_add(struct garbage *g, uintptr_t item);
uint64_t garbage_birth(uintptr_t item);
size_t garbage_bytes(uintptr_t item);
void garbage_free_item(uintptr_t item);

/* ---- versions ---- */
struct store_snapshot {
	struct store *store;
	struct list versions; /* oldest first */
	struct list kept;     /* in store.kept: last kept at the end */
	uint64_t kept_at_s;
	_Atomic uint32_t refs;
	uint64_t revision;
	struct node *root;
	struct garbage dead; /* in this version, not in the next */
	struct store_snapshot *
		base; /* rebuilt from this one by undoing events; then it is in no list of versions */
	struct index_edit edit; /* what was made for it, freed with it */
};
void versions_init(struct store *s, struct node *root, uint64_t revision);
/* Makes the edit the current version. Its garbage is freed as soon as no version holds it. */
void versions_publish(struct store *s, struct index_edit *e, uint64_t revision);
/* Forgets kept snapshots that are too old; returns seconds until the next is, 0: none is kept. */
uint64_t versions_expire(struct store *s, uint64_t now_s);
void versions_deinit(struct store *s);

/* ---- log ---- */
struct event_log {
	pthread_mutex_t lock;
	struct store_event **ring; /* event number i stands at i % cap */
	size_t cap;
	uint64_t first, end;     /* numbers of the events held: first <= i < end */
	uint64_t history, bytes; /* bytes: memory held by events alone */
	uint64_t
		bare; /* events before this number have no encoded form, but for those that were read again */
	uint64_t compacted; /* every event after this revision is held */
	uint64_t newest;    /* all events up to this revision were appended */
	struct map groups; /* watch_group by folder of the prefix, and by folder, field and value */
	_Atomic uint64_t n_watches;
};
struct store_event *event_new(
	enum store_event_type type, struct object *o, struct object *prev); /* references both */
void log_init(struct event_log *l, uint64_t history);                       /* 0: the default */
void log_deinit(struct event_log *l);
/* The events after `revision` up to `upto`, referenced, oldest first. STORE_COMPACTED; -EAGAIN: they are on their way. */
int log_since(struct event_log *l, uint64_t revision, uint64_t upto, struct store_event ***ret,
	size_t *ret_n);
/* Takes the references, wakes cursors. dropped gets, for each event that fell off, the revisions of the rows that nobody needs
 * any more (see backend compact). */
struct revisions {
	uint64_t *v;
	size_t len, cap;
};
void log_append(struct event_log *l, struct store_event *const *events, size_t n,
	struct revisions *dropped);
/* Forgets what is too old, as log_append does; returns seconds until there may be more of it, 0: until something is appended. */
uint64_t log_expire(struct event_log *l, uint64_t now_s, struct revisions *dropped);
void log_advance(struct event_log *l, uint64_t revision); /* nothing happened up to here */
void log_reset(struct event_log *l,
	uint64_t revision); /* what happened up to here is not known: every cursor has fallen off */

/* ---- backends: what makes writes durable. Called by one thread at a time. ---- */
struct backend;
typedef int (*load_each_fn)(
	void *arg, enum store_event_type type, struct object *o, struct err *err);
struct backend_type {
	const char *name;
	int (*open)(const struct store_config *c, struct backend **ret, struct err *err);
	/* Sets the revision reached and the one up to which events may be missing, then hands every stored event in order of
	 * revision to `each`, which takes the reference. Superseded rows older than ret_compacted may be left out. */
	int (*load)(struct backend *b, load_each_fn each, void *arg, uint64_t *ret_revision,
		uint64_t *ret_compacted, struct err *err);
	/* Makes the events durable, all or none, in one commit. -ENOSPC: none, and the next commit may go well. Any other
	 * failure leaves it unknown what is on disk: the process must end. (A backend that numbers the writes itself, as etcd
	 * does, will set the revisions here: nothing is published before.) */
	int (*commit)(
		struct backend *b, struct store_event *const *events, size_t n, struct err *err);
	/* Events up to `compacted` are no longer needed, and of these rows nothing. Failures as commit's. */
	int (*compact)(struct backend *b, uint64_t compacted, const struct revisions *rows,
		struct err *err);
	/* Is there housekeeping to do, now or (idle) when nothing else is? tidy does it. Failures as commit's. */
	bool (*untidy)(const struct backend *b, bool idle);
	int (*tidy)(struct backend *b, struct err *err);
	uint64_t (*size)(const struct backend *b); /* bytes on disk; any thread */
	void (*close)(struct backend *b);
};
extern const struct backend_type backend_sqlite, backend_memory;
/* The lock file: who has the store open, and the revision acknowledged last (0: not known). */
int lock_open(const char *path, int *ret_fd, uint64_t *ret_revision, struct err *err);
void lock_write(int fd, uint64_t revision);

/* ---- the store ---- */
struct pending; /* a submitted op */
struct shared;  /* of a shared store */
struct store {
	const struct backend_type *type; /* NULL: shared */
	struct backend *backend;
	struct shared *shared; /* NULL: our own */

	pthread_mutex_t queue_lock;
	pthread_cond_t queue_cond;
	struct pending *queue, **queue_tail;
	bool waiting, stop;
	pthread_t writer;

	pthread_mutex_t versions_lock;
	struct store_snapshot *current;
	struct list versions, kept;
	size_t n_kept;
	size_t garbage_bytes;      /* what versions hold that newer ones do not */
	_Atomic uint64_t revision; /* of `current` */

	struct event_log log;
	struct revisions dropped; /* rows that the backend may forget; the writer's */
	size_t dropped_max;       /* so many are worth a commit of their own */
	bool full;                /* the last commit found no room; the writer's */
	_Atomic uint64_t objects, bytes, commits, writes;
};
void writer_start(struct store *s);
void writer_stop(struct store *s);
/* shared.c, in the place of a backend and of writer.c's thread function */
int shared_open(struct store *s, const struct store_shared_config *c,
	struct err *err); /* loads; takes c->remote even when it fails */
void *shared_run(void *arg);
void shared_submit(struct store *s, const struct store_op *op, store_done_fn done, void *arg);
void shared_end_remote(struct store *s); /* it calls nothing any more */
void shared_free(struct store *s);
uint64_t shared_size(struct store *s);

static inline void revisions_clear(struct revisions *r)
{
	free(r->v);
	*r = (struct revisions){ 0 };
}

static inline void revisions_add(struct revisions *r, uint64_t v)
{
	if (r->len == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 64;
		r->v = xrealloc(r->v, r->cap * sizeof(*r->v));
	}
	r->v[r->len++] = v;
}

#endif
