/* The writer thread: the only place where revisions are given and where the index and the log change.
 *
 * It takes all ops that wait, checks each against the index in progress, commits them in one go, and only when that is
 * durable publishes the index, then the log, then answers. Refusals wait for the commit too, since they may rest on a write
 * of the same batch. queue_lock guards the queue and the flags beside it. */
#include <stdio.h>
#include <semaphore.h>
#include <time.h>

#include "base/values.h"
#include "store/internal.h"

enum {
	BATCH_OPS = 1024,
	BATCH_BYTES = 8 << 20,
	IDLE_SECONDS = 1, /* without a write before housekeeping */
	EXIT_IO = 74,     /* sysexits.h: EX_IOERR */
};

struct pending {
	struct pending *next;
	int verb;
	bool has_json, has_pairs;
	uint64_t expect;
	size_t head_len;
	struct object
		*object; /* the key; for CREATE and UPDATE the new version, but for its revision */
	store_done_fn done;
	void *arg;
	int result;
	struct object *answer;
};

struct batch {
	struct store *s;
	struct pending *first; /* the ops in it, linked by next */
	size_t n_events;
	struct store_event *events[BATCH_OPS];
	struct index_edit edit;
	int64_t objects, bytes; /* change of the store's sums */
};

/* ---- one op ---- */
static int check(const struct pending *p, const struct object *present)
{
	if (p->verb == STORE_CREATE)
		return present ? STORE_EXISTS : 0;
	if (!present)
		return STORE_NOT_FOUND;
	return p->expect && p->expect != present->revision ? STORE_CONFLICT : 0;
}

/* The object that a DELETE's event carries. */
static struct object *last_state(struct pending *p, const struct object *present, uint64_t revision)
{
	if (p->has_json)
		object_set_revision(p->object, p->head_len, revision);
	if (p->has_json && p->has_pairs)
		return object_ref(p->object);
	const struct object *pairs = p->has_pairs ? p->object : present;
	struct object_parts parts = { .key = present->key,
		.labels = pairs->labels,
		.fields = pairs->fields,
		.n_labels = pairs->n_labels,
		.n_fields = pairs->n_fields };
	return object_new_whole(&parts, p->has_json ? p->object->json : present->json, revision);
}

static struct object *new_version(struct pending *p, uint64_t revision)
{
	object_set_revision(p->object, p->head_len, revision);
	return object_ref(p->object);
}

static void apply(struct batch *b, struct pending *p)
{
	static const enum store_event_type events[] = { [STORE_CREATE] = STORE_ADDED,
		[STORE_UPDATE] = STORE_MODIFIED,
		[STORE_DELETE] = STORE_DELETED };
	struct object *present = index_get(b->edit.root, p->object->key);
	p->result = check(p, present);
	if (p->result) {
		p->answer = present ? object_ref(present) : NULL;
		return;
	}
	uint64_t revision = b->edit.birth + b->n_events;
	CLEAN_OBJECT struct object *o = p->verb == STORE_DELETE ? last_state(p, present, revision)
								: new_version(p, revision);
	o->create_revision = present ? present->create_revision : revision;
	b->events[b->n_events++] = event_new(events[p->verb], o, present);
	b->bytes -= present ? (int64_t)present->json.len : 0;
	b->bytes += p->verb == STORE_DELETE ? 0 : (int64_t)o->json.len;
	b->objects += (p->verb == STORE_CREATE) - (p->verb == STORE_DELETE);
	if (p->verb == STORE_CREATE)
		index_insert(&b->edit, object_ref(o));
	else if (p->verb == STORE_UPDATE)
		index_replace(&b->edit, object_ref(o));
	else
		index_remove(&b->edit, p->object->key);
	p->answer = TAKE(o);
}

/* ---- one batch ---- */
static void die(const struct err *err)
{
	log_error("store",
		"%s. What is on disk is unknown, so this process ends; started again, it reads what is there",
		err->text);
	_exit(EXIT_IO);
}

static void undo(struct batch *b, int result)
{
	for (size_t i = 0; i < b->n_events; i++)
		store_event_unref(b->events[i]);
	for (struct pending *p = b->first; p; p = p->next) {
		object_unref(TAKE(p->answer));
		p->result = result;
	}
	index_edit_undo(&b->edit);
}

static void publish(struct batch *b)
{
	struct store *s = b->s;
	atomic_fetch_add(&s->objects, (uint64_t)b->objects);
	atomic_fetch_add(&s->bytes, (uint64_t)b->bytes);
	atomic_fetch_add(&s->writes, b->n_events);
	atomic_fetch_add(&s->commits, 1);
	versions_publish(s, &b->edit, b->edit.birth + b->n_events - 1);
	log_append(&s->log, b->events, b->n_events, &s->dropped);
}

static void commit(struct batch *b)
{
	if (b->n_events == 0)
		return;
	struct err err = { 0 };
	int r = b->s->type->commit(b->s->backend, b->events, b->n_events, &err);
	if (r && r != -ENOSPC)
		die(&err);
	if (r && !b->s->full)
		log_error("store", "%s. Writes are refused until there is room", err.text);
	else if (!r && b->s->full)
		log_info("store", "there is room on the disk again: writes go on");
	b->s->full = r != 0;
	if (r)
		undo(b, r);
	else
		publish(b);
}

static void answer(struct pending *p)
{
	while (p) {
		struct pending *next = p->next;
		p->done(p->arg, p->result, p->answer);
		object_unref(p->answer);
		object_unref(p->object);
		free(p);
		p = next;
	}
}

/* Takes a batch off the front of `ops`; returns the rest. */
static struct pending *run_batch(struct store *s, struct pending *ops)
{
	struct batch b = { .s = s, .first = ops };
	struct pending *last = NULL;
	size_t bytes = 0;
	b.edit.root = s->current->root; /* only this thread replaces it */
	b.edit.birth = store_revision(s) + 1;
	for (size_t n = 0; ops && n < BATCH_OPS && bytes < BATCH_BYTES; n++) {
		apply(&b, ops);
		bytes += ops->object->json.len;
		last = ops;
		ops = ops->next;
	}
	last->next = NULL;
	commit(&b);
	answer(b.first);
	return ops;
}

/* ---- housekeeping ---- */
static void tidy(struct store *s, bool idle)
{
	struct err err = { 0 };
	int r = 0;
	bool untidy = s->type->untidy(s->backend, idle);
	if (s->dropped.len >= s->dropped_max || (untidy && idle && s->dropped.len > 0)) {
		r = s->type->compact(s->backend, s->log.compacted, &s->dropped, &err);
		if (r == 0)
			revisions_clear(&s->dropped);
	}
	if (r == 0 && untidy)
		r = s->type->tidy(s->backend, &err);
	if (r && r != -ENOSPC)
		die(&err);
}

/* Seconds until there is housekeeping to do; 0: none is due. */
static uint64_t idle_seconds(struct store *s)
{
	uint64_t now = mono_now_ns() / 1000000000, kept = versions_expire(s, now),
		 old = log_expire(&s->log, now, &s->dropped);
	if (s->type->untidy(s->backend, true) || s->dropped.len >= s->dropped_max)
		return IDLE_SECONDS;
	return kept && old ? MIN(kept, old) : MAX(kept, old);
}

static struct pending *wait_for_ops(struct store *s)
{
	struct timespec until;
	for (;;) {
		uint64_t seconds = idle_seconds(s);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += (time_t)seconds;
		int r = 0;
		pthread_mutex_lock(&s->queue_lock);
		s->waiting = true;
		while (!s->queue && !s->stop && r != ETIMEDOUT)
			r = seconds ? pthread_cond_timedwait(&s->queue_cond, &s->queue_lock, &until)
				    : pthread_cond_wait(&s->queue_cond, &s->queue_lock);
		s->waiting = false;
		struct pending *ops = s->queue;
		s->queue = NULL;
		s->queue_tail = &s->queue;
		bool stop = s->stop;
		pthread_mutex_unlock(&s->queue_lock);
		if (ops || stop)
			return ops;
		tidy(s, true);
	}
}

static void *run(void *arg)
{
	struct store *s = arg;
	struct pending *ops;
	while ((ops = wait_for_ops(s))) {
		while (ops)
			ops = run_batch(s, ops);
		tidy(s, false);
	}
	return NULL;
}

void writer_start(struct store *s)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&s->queue_lock, NULL);
	pthread_cond_init(&s->queue_cond, &monotonic);
	pthread_condattr_destroy(&monotonic);
	s->queue_tail = &s->queue;
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 256 << 10);
	if (pthread_create(&s->writer, &small, s->shared ? shared_run : run, s) != 0)
		abort();
	pthread_attr_destroy(&small);
	pthread_setname_np(s->writer, "store-writer");
}

void writer_stop(struct store *s)
{
	pthread_mutex_lock(&s->queue_lock);
	s->stop = true;
	pthread_cond_signal(&s->queue_cond);
	pthread_mutex_unlock(&s->queue_lock);
	pthread_join(s->writer, NULL);
	pthread_cond_destroy(&s->queue_cond);
	pthread_mutex_destroy(&s->queue_lock);
}

/* ---- submitting: the object is built here, on the caller's thread; the writer only puts the revision in ---- */
void store_submit(struct store *s, const struct store_op *op, store_done_fn done, void *arg)
{
	if (s->shared) {
		shared_submit(s, op, done, arg);
		return;
	}
	struct object_parts parts = { op->key, op->json_head, op->json_tail, op->labels, op->fields,
		op->n_labels, op->n_fields };
	struct pending *p = xcalloc(1, sizeof(*p));
	p->verb = op->verb;
	p->has_json = op->json_head.len > 0;
	p->has_pairs = op->labels || op->fields;
	p->expect = op->expect;
	p->head_len = op->json_head.len;
	p->object = object_new(&parts, store_revision(s));
	p->done = done;
	p->arg = arg;
	pthread_mutex_lock(&s->queue_lock);
	*s->queue_tail = p;
	s->queue_tail = &p->next;
	if (s->waiting)
		pthread_cond_signal(&s->queue_cond);
	pthread_mutex_unlock(&s->queue_lock);
}

struct waiter {
	sem_t done;
	int result;
	struct object **ret_o;
};

static void wake_waiter(void *arg, int result, struct object *o)
{
	struct waiter *w = arg;
	w->result = result;
	if (w->ret_o)
		*w->ret_o = o ? object_ref(o) : NULL;
	sem_post(&w->done);
}

int store_write(struct store *s, const struct store_op *op, struct object **ret_o)
{
	struct waiter w = { .ret_o = ret_o };
	sem_init(&w.done, 0, 0);
	store_submit(s, op, wake_waiter, &w);
	while (sem_wait(&w.done) != 0)
		;
	sem_destroy(&w.done);
	return w.result;
}
