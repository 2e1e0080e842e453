/* Revisions, index, watch log and group commit. Knows keys and bytes, no kinds. Upstream's counterpart: etcd plus the
 * watch cache.
 *
 * 1. Every write gets a revision; revisions strictly rise, also across restarts and crashes.
 * 2. Nothing is acknowledged, and no reader or watcher sees it, before it is durable. A failed fsync ends the process.
 * 3. An object, once committed, never changes. It is shared by reference: index, log, watchers, informers.
 * 4. A snapshot is consistent: every page of a list read through it is of one revision.
 * 5. A watch cursor sees every event after its revision once and in order, or STORE_COMPACTED.
 *
 * Keys are paths of our own making (registry's): "/pods/default/web-0". Labels and fields are for selection without
 * decoding: the registry puts them beside the bytes. */
#ifndef SKIFF_STORE_H
#define SKIFF_STORE_H

#include <stdatomic.h>

#include "base/base.h"

/* Outcomes > 0 */
enum {
	STORE_NOT_FOUND = 1,
	STORE_EXISTS,
	STORE_CONFLICT, /* the revision expected is not the stored one */
	STORE_COMPACTED, /* the revision asked for is no longer in the log or not yet written: 410 Gone */
};

/* Another form of an object for the wire: one block from malloc. */
struct store_form {
	size_t len;
	char bytes[];
};
/* Immutable, reference-counted. One allocation: header, key, labels, fields and JSON bytes. `json` holds the object as it
 * is served, resourceVersion included. */
struct object {
	_Atomic uint32_t refs;
	uint32_t n_labels, n_fields;
	uint64_t revision; /* of the write that made this version: resourceVersion */
	uint64_t create_revision;
	struct str key;
	struct str json;                    /* canonical JSON, NUL-terminated */
	struct object_pair *labels;         /* sorted by key */
	struct object_pair *fields;         /* selectable fields, sorted by key */
	_Atomic(struct store_form *) proto; /* kept with it, see object_keep_proto; NULL: none */
};
struct object_pair {
	struct str key, value;
};
struct object *object_ref(struct object *o);
void object_unref(struct object *o);
void object_unrefp(struct object **o);
#define CLEAN_OBJECT CLEANUP(object_unrefp)
/* The same key, labels and fields with other bytes: an object in another version of its kind, or as a watcher is told of it. */
struct object *object_with_json(const struct object *o, struct str json, uint64_t revision);
/* Keeps the form (taken) as long as the object lives, and returns what is kept: another thread may have been first. NULL, and
 * not taken: all objects together keep 8 MB already. */
const struct store_form *object_keep_proto(struct object *o, struct store_form *f);

struct store;
struct store_shared_config;
struct store_config {
	const char *backend;                      /* "sqlite" or "memory"; "shared": see below */
	const struct store_shared_config *shared; /* stays valid until store_close */
	const char *path; /* sqlite: the database file; PATH.lock keeps a second process away */
	uint64_t
		first_revision; /* sqlite, a new store: it begins here; 0: at 1. Restoring moves it on, so that no old cache fits */
	uint64_t
		history; /* events kept for watches at most; 0: 100,000. Those older than 5 minutes go when there are
	                  * more than a 50th of this, or when what all alone hold is more than 2 MB; in excess of 32 MB
	                  * their encoded forms and those older than 75 s go, of 192 MB those of any age. A 500th is always kept. */
};
/* Loads everything into the index. -EBUSY: another process has it; -EPROTO: a newer format; -EBADMSG: damaged, with the place
 * and the remedy in err. */
int store_open(const struct store_config *c, struct store **ret, struct err *err);
void store_close(struct
	store *s); /* after the last write completed and all snapshots and watches are gone; NULL is fine */
uint64_t store_revision(struct store *s); /* of the newest durable write; a new store begins at 1 */

/* ---- reading: any thread, no lock held while the caller works ---- */
struct store_snapshot;
struct store_snapshot *store_snapshot(struct store *s);
void store_snapshot_free(struct store_snapshot *sn);
uint64_t store_snapshot_revision(const struct store_snapshot *sn);
int store_get(struct store *s, struct str key,
	struct object **ret); /* STORE_NOT_FOUND; *ret is a new reference */
struct object *store_snapshot_get(
	const struct store_snapshot *sn, struct str key); /* borrowed from the snapshot; NULL */
/* Calls fn for each object whose key begins with prefix, from `start` on (inclusive; STR_NONE: the first), in key order, until
 * fn returns false. Objects are borrowed. */
typedef bool (*store_each_fn)(void *arg, struct object *o);
void store_snapshot_each(const struct store_snapshot *sn, struct str prefix, struct str start,
	store_each_fn fn, void *arg);
size_t store_snapshot_count(const struct store_snapshot *sn, struct str prefix,
	struct str start); /* objects from start on */
/* A snapshot as of an older revision, for list continuation and exact lists: a kept one, or one rebuilt from the log of events
 * (a microsecond for each event since). NULL: no longer there (410, or the caller goes on with the newest). */
struct store_snapshot *store_snapshot_at(struct store *s, uint64_t revision);
/* Remembers this snapshot for store_snapshot_at. Call it when a continue token for it is handed out (only then: a kept snapshot
 * holds what was replaced since). Kept for 5 minutes after the first call, the newest 64 at most, and while what snapshots hold
 * beyond the newest version is no more than 32 MB; then it is rebuilt while what replaced it is no older than 5 minutes. */
void store_snapshot_keep(struct store_snapshot *sn);

/* ---- writing: one writer thread orders and commits in groups ---- */
struct store_op {
	enum { STORE_CREATE, STORE_UPDATE, STORE_DELETE } verb;
	struct str key;
	uint64_t expect; /* UPDATE, DELETE: the object's present revision must be this; 0: any */
	/* CREATE, UPDATE: the new JSON in two parts around the place of the revision: head + revision in decimal + tail.
	 * DELETE: the last state likewise (the event's object), or head empty: the stored bytes with the new revision
	 * cannot be made by the store, so the stored ones go out as they are. */
	struct str json_head, json_tail;
	const struct object_pair *labels, *fields;
	size_t n_labels, n_fields;
	/* Of a shared store alone. CREATE, UPDATE: the object in the form that is stored there; it goes by itself after ttl_s (0: never). */
	struct str value;
	int64_t ttl_s;
	/* Writes under one guard's name are stored only if no other of them was after guard_revision: else STORE_CONFLICT. Empty: none. */
	struct str guard;
	uint64_t guard_revision;
};
/* Called on the writer thread when the write is durable (result 0, o: the new version, or the deleted one with the delete's
 * revision; borrowed) or was refused (STORE_*; o: the present one or NULL. -ENOSPC: no room on the disk, nothing was written).
 * Of a shared store also: -EMSGSIZE, -EHOSTUNREACH (nothing was written), -ETIMEDOUT, -EIO (it may have been). Must not block. */
typedef void (*store_done_fn)(void *arg, int result, struct object *o);
/* Copies what it needs; returns at once. Any thread. */
void store_submit(struct store *s, const struct store_op *op, store_done_fn done, void *arg);
/* Submits and waits. For threads that may block; never on an event loop or the writer. *ret_o (may be NULL) is a new reference. */
int store_write(struct store *s, const struct store_op *op, struct object **ret_o);

/* ---- watching: the log of events ---- */
enum store_event_type { STORE_ADDED, STORE_MODIFIED, STORE_DELETED };
struct store_event {
	uint64_t revision;
	enum store_event_type type;
	struct object *
		object; /* the new version; for DELETED the last state, its revision the delete's */
	struct object *prev; /* the version before; NULL for ADDED */
	_Atomic(struct store_form *)
		proto; /* of `object`, see store_event_keep_proto; NULL: none */
	_Atomic uint32_t refs;
	/* the store's own */
	uint32_t age_s;                  /* when it came, in seconds of the monotonic clock */
	size_t held;                     /* bytes that it alone holds */
	_Atomic(struct event_log *) log; /* that it is in */
};
/* Keeps the form (taken) at least as long as the caller has the event, and returns what is kept. The log counts it as what the event holds. */
const struct store_form *store_event_keep_proto(struct store_event *ev, struct store_form *f);
struct store_event *store_event_ref(
	struct store_event *ev); /* to keep one longer than the cursor stands on it */
void store_event_unref(struct store_event *ev);
struct store_watch;
/* A cursor over events after `revision` (0: from now) whose key begins with prefix. One thread uses a cursor at a time. Call
 * store_watch_next until STORE_NOT_FOUND first; wake is called on the writer thread when something new came, once until the
 * next store_watch_next. wake runs under the log's lock: it must only signal and call nothing of the store. It is never
 * called after store_watch_close returned. STORE_COMPACTED. */
typedef void (*store_wake_fn)(void *arg);
int store_watch(struct store *s, struct str prefix, uint64_t revision, store_wake_fn wake,
	void *arg, struct store_watch **ret);
/* As store_watch, but only events whose object, or the version before, has this selectable field with this value
 * (spec.nodeName=n1). Thousands of such cursors cost an event a lookup, not a visit each. Strings are copied. */
int store_watch_field(struct store *s, struct str prefix, struct object_pair field,
	uint64_t revision, store_wake_fn wake, void *arg, struct store_watch **ret);
/* The next event: 0 and *ret_ev (valid until the next call on this cursor), STORE_NOT_FOUND when there is none yet,
 * STORE_COMPACTED when the cursor fell off the log. */
int store_watch_next(struct store_watch *w, struct store_event **ret_ev);
uint64_t store_watch_revision(const struct store_watch
		*w); /* all events up to here were seen: a bookmark's resourceVersion */
void store_watch_close(struct store_watch *w);

/* ---- a shared store: the truth lies elsewhere (etcd), which numbers the writes, and others write there too ----
 * Index and log are fed by what the remote tells, in order, so a write is answered when its own event has arrived here. Several writes
 * are on their way at a time; a condition is judged there, not here. Revisions have gaps, and several events may share one. */
bool store_is_shared(const struct store *s);
bool store_is_reachable(const struct store
		*s); /* by the last question for the newest revision; our own always is */
/* Calls fn once the index holds everything up to `revision`; 0: everything that was written anywhere before this call. From the calling
 * thread when that is so already (always, when the store is not shared), else from the writer's. result: 0, -ETIMEDOUT, -EHOSTUNREACH. */
typedef void (*store_wait_fn)(void *arg, int result);
void store_wait(
	struct store *s, uint64_t revision, unsigned timeout_ms, store_wait_fn fn, void *arg);

/* It is closed soon: from now on nothing waits longer than this for a remote that does not answer. Any thread; of a store that is not
 * shared nothing. */
void store_hurry(struct store *s, unsigned within_ms);

/* Between our keys and JSON, and what is stored: the registry's. Any thread. */
struct store_codec {
	bool (*key_out)(
		void *arg, struct str key, struct buf *out); /* appends; false: no key of ours */
	bool (*key_in)(void *arg, struct str stored_key,
		struct buf *out); /* appends; false: not one of ours */
	int (*value_out)(
		void *arg, struct str key, struct str json, struct buf *out, struct err *err);
	/* Fills json_head, json_tail, labels, fields; texts in the arena. */
	int (*value_in)(void *arg, struct str key, struct str value, struct arena *a,
		struct store_op *ret, struct err *err);
	void (*cut)(struct str json, struct str *ret_head,
		struct str *ret_tail); /* around the revision */
	void *arg;
};
struct store_remote_kv {
	bool deleted;          /* an event's: the value is empty */
	struct str key, value; /* as stored there */
	uint64_t revision, create_revision;
};
struct store_remote_write {
	void *token;
	int verb; /* STORE_CREATE … */
	struct str key, value;
	uint64_t expect; /* 0: any, but it must be there */
	int64_t ttl_s;
	struct str guard; /* see store_op */
	uint64_t guard_revision;
};
typedef int (*store_remote_each_fn)(void *arg, const struct store_remote_kv *kv, struct err *err);
struct store_remote_type {
	/* Hands over everything that is stored, as of *ret_revision. Blocks. */
	int (*load)(void *remote, store_remote_each_fn each, void *arg, uint64_t *ret_revision,
		struct err *err);
	void (*follow)(void *remote, struct store *s,
		uint64_t revision); /* from now on: store_remote_events, for all after revision */
	void (*write)(void *remote, struct store *s,
		const struct store_remote_write *w); /* store_remote_answer follows; any thread */
	void (*ask)(void *remote,
		struct store *
			s); /* store_remote_now follows, with a revision not older than this call */
	void (*hurry)(void *remote,
		unsigned within_ms); /* it is closed soon: whatever waits is answered by then */
	uint64_t (*size)(void *remote);
	void (*close)(void *remote); /* afterwards nothing of the store is called any more */
};
struct store_shared_config {
	const struct store_remote_type *type;
	void *remote; /* store_open takes it, store_close ends it */
	struct store_codec codec;
};
/* What the remote tells. Any thread; everything is copied. */
void store_remote_events(struct store *s, const struct store_remote_kv *kvs, size_t n,
	uint64_t revision); /* all up to revision are told */
void store_remote_answer(struct store *s, void *token, int result,
	uint64_t revision); /* done, or refused as of this revision */
void store_remote_now(struct store *s, int result, uint64_t revision);
void store_remote_lost(struct store *s); /* events were lost: it is loaded and followed anew */

/* Facts for /metrics and status. */
struct store_stats {
	uint64_t revision, oldest_event, objects, bytes, commits, writes, watches, file_bytes;
};
void store_stats(struct store *s, struct store_stats *ret);
#endif
