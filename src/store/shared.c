/* A shared store: index and log fed by what a remote tells. Upstream: the watch cache over etcd3's store.
 *
 * 1. The index changes by the remote's events alone, in their order, on the writer thread. What this process wrote comes back as an
 *    event like everybody else's; when its bytes are those of a write of ours, that write's object is used and nothing is decoded.
 * 2. A write is answered when the remote has answered and the index has reached the revision of that answer: read your writes, and a
 *    refusal never names a version that the reader cannot see yet.
 * 3. A wait for "now" is answered after the remote named a revision that it was asked for after the wait began, and the index reached it.
 *    Waits that come while the remote is being asked are put together for the next question.
 * 4. Nothing waits for ever: a write whose event does not come within SETTLE_MS of its answer is answered as one that may have been done.
 *
 * queue_lock guards the inbox; everything else in struct shared is the writer thread's. */
#include <stdio.h>
#include <time.h>

#include "base/values.h"
#include "store/internal.h"

enum { EVENTS_MAX = 1024, EXIT_IO = 74, SETTLE_MS = 10000 };

struct op {
	struct list link;    /* inflight, then settled */
	struct op *same_key; /* the next one in flight on this key */
	int verb;
	bool has_json, taken; /* taken: the object came back with this write's event */
	bool answered;
	size_t head_len;
	struct object *object; /* as in writer.c */
	struct object *last;   /* DELETE: the last state, from the event that came */
	struct buf key, value; /* as stored there */
	int result;
	uint64_t revision, deadline_ns; /* deadline: once settled */
	store_done_fn done;
	void *arg;
};

struct wait {
	struct list link;
	uint64_t revision, deadline_ns;
	store_wait_fn fn;
	void *arg;
};

enum item_kind { ITEM_OP, ITEM_ANSWER, ITEM_EVENTS, ITEM_NOW, ITEM_WAIT, ITEM_LOST, ITEM_HURRY };
struct item {
	struct item *next;
	enum item_kind kind;
	int result;
	uint64_t revision;
	union {
		struct op *op;
		struct wait *wait;
		struct store_remote_kv *kvs;
	};
	size_t n_kvs;
};

struct shared {
	const struct store_remote_type *type;
	void *remote;
	struct store_codec codec;
	struct item *first, **last; /* the inbox */

	struct list inflight, settled; /* settled: answered, the index is not there yet */
	struct map by_key;             /* stored key -> first op in flight on it */
	struct list waits;             /* for a revision that is known */
	struct list asked, fresh;      /* for "now": being asked for; to be asked for next */
	_Atomic bool unreachable;      /* the last question was not answered */
	bool asking;
	uint64_t asked_at; /* the index' revision when the remote was asked */
	uint64_t end_ns;   /* nothing waits longer; UINT64_MAX: not hurried */
	struct arena *scratch;
};

/* ---- the inbox ---- */

static void push(struct store *s, struct item *it)
{
	struct shared *h = s->shared;
	pthread_mutex_lock(&s->queue_lock);
	*h->last = it;
	h->last = &it->next;
	if (s->waiting)
		pthread_cond_signal(&s->queue_cond);
	pthread_mutex_unlock(&s->queue_lock);
}

static struct item *item_new(enum item_kind kind)
{
	struct item *it = xcalloc(1, sizeof(*it));
	it->kind = kind;
	return it;
}

void store_remote_answer(struct store *s, void *token, int result, uint64_t revision)
{
	struct item *it = item_new(ITEM_ANSWER);
	it->op = token;
	it->result = result;
	it->revision = revision;
	push(s, it);
}

void store_remote_now(struct store *s, int result, uint64_t revision)
{
	struct item *it = item_new(ITEM_NOW);
	it->result = result;
	it->revision = revision;
	push(s, it);
}

void store_remote_lost(struct store *s)
{
	push(s, item_new(ITEM_LOST));
}

void store_hurry(struct store *s, unsigned within_ms)
{
	if (!s || !s->shared)
		return;
	struct item *it = item_new(ITEM_HURRY);
	it->revision = mono_now_ns() + (uint64_t)within_ms * 1000000;
	push(s, it);
	s->shared->type->hurry(s->shared->remote, within_ms);
}

/* One piece of memory for all of them. */
static struct store_remote_kv *copy_kvs(const struct store_remote_kv *kvs, size_t n)
{
	size_t bytes = n * sizeof(*kvs);
	for (size_t i = 0; i < n; i++)
		bytes += kvs[i].key.len + kvs[i].value.len;
	struct store_remote_kv *copy = xmalloc(bytes + 1);
	char *at = (char *)(copy + n);
	for (size_t i = 0; i < n; i++) {
		copy[i] = kvs[i];
		copy[i].key.p = at;
		memcpy(at, kvs[i].key.p, kvs[i].key.len);
		at += kvs[i].key.len;
		copy[i].value.p = at;
		if (kvs[i].value.len)
			memcpy(at, kvs[i].value.p, kvs[i].value.len);
		at += kvs[i].value.len;
	}
	return copy;
}

void store_remote_events(
	struct store *s, const struct store_remote_kv *kvs, size_t n, uint64_t revision)
{
	struct item *it = item_new(ITEM_EVENTS);
	it->revision = revision;
	it->kvs = copy_kvs(kvs, n);
	it->n_kvs = n;
	push(s, it);
}

/* ---- writes on their way ---- */

static void op_free(struct op *op)
{
	object_unref(op->object);
	object_unref(op->last);
	buf_deinit(&op->key);
	buf_deinit(&op->value);
	free(op);
}

void shared_submit(struct store *s, const struct store_op *from, store_done_fn done, void *arg)
{
	struct shared *h = s->shared;
	struct object_parts parts = { from->key, from->json_head, from->json_tail, from->labels,
		from->fields, from->n_labels, from->n_fields };
	struct op *op = xcalloc(1, sizeof(*op));
	struct err err = { 0 };
	op->verb = from->verb;
	op->has_json = from->json_head.len > 0;
	op->head_len = from->json_head.len;
	op->object = object_new(&parts, store_revision(s));
	op->done = done;
	op->arg = arg;
	bool good = h->codec.key_out(h->codec.arg, from->key, &op->key);
	if (good && from->verb != STORE_DELETE && from->value.len)
		buf_add_str(&op->value, from->value);
	else if (good && from->verb != STORE_DELETE)
		good = h->codec.value_out(
			       h->codec.arg, from->key, op->object->json, &op->value, &err) == 0;
	struct item *it = item_new(ITEM_OP);
	it->op = op;
	push(s, it);
	if (!good) {
		log_error("store", STR_FMT " has no form in which it can be stored: %s",
			STR_ARG(from->key), err.text);
		store_remote_answer(s, op, -EINVAL, 0);
		return;
	}
	struct store_remote_write w = { .token = op,
		.verb = from->verb,
		.key = buf_str(&op->key),
		.value = buf_str(&op->value),
		.expect = from->expect,
		.ttl_s = from->ttl_s,
		.guard = from->guard,
		.guard_revision = from->guard_revision };
	h->type->write(h->remote, s, &w);
}

static void take_op(struct shared *h, struct op *op)
{
	list_insert(&h->inflight, &op->link);
	op->same_key = map_get(&h->by_key, buf_str(&op->key));
	map_set(&h->by_key, buf_str(&op->key), op);
}

static void forget_key(struct shared *h, struct op *op)
{
	struct op *first = map_get(&h->by_key, buf_str(&op->key));
	if (first == op && op->same_key)
		map_set(&h->by_key, buf_str(&op->key), op->same_key);
	else if (first == op)
		map_remove(&h->by_key, buf_str(&op->key));
	for (struct op *o = first; o && o != op; o = o->same_key)
		if (o->same_key == op)
			o->same_key = op->same_key;
}

/* The write of ours that put these bytes, if its event has not come yet. */
static struct op *find_writer(struct shared *h, const struct store_remote_kv *kv)
{
	for (struct op *op = map_get(&h->by_key, kv->key); op; op = op->same_key)
		if (!op->taken && op->verb != STORE_DELETE &&
			str_eq(buf_str(&op->value), kv->value))
			return op;
	return NULL;
}

static void finish(struct store *s, struct op *op)
{
	CLEAN_OBJECT struct object *o = NULL;
	if (op->result == 0 && op->verb == STORE_DELETE && op->has_json) {
		object_set_revision(op->object, op->head_len, op->revision);
		o = object_ref(op->object);
	} else if (op->result == 0 && op->verb == STORE_DELETE) {
		o = op->last ? object_ref(op->last) : NULL;
	} else if (op->result == 0 && op->taken) {
		/* The same bytes may have been somebody else's, a moment before. */
		struct object *present = op->object->revision == op->revision
			? NULL
			: index_get(s->current->root, op->object->key);
		o = object_ref(present && present->revision == op->revision ? present : op->object);
	} else if (op->result == 0) {
		/* Its event did not bring it: the index is past it already, or was loaded anew. */
		object_set_revision(op->object, op->head_len, op->revision);
		o = object_ref(op->object);
		struct object *present = index_get(s->current->root, o->key);
		o->create_revision = present && present->revision >= o->revision
			? present->create_revision
			: o->revision;
	} else if (op->result > 0) {
		struct object *present = index_get(s->current->root, op->object->key);
		o = present ? object_ref(present) : NULL;
	}
	op->done(op->arg, op->result, o);
	list_remove(&op->link);
	op_free(op);
}

static void take_answer(struct store *s, const struct item *it)
{
	struct shared *h = s->shared;
	struct op *op = it->op;
	op->result = it->result;
	op->revision = it->revision;
	op->answered = true;
	op->deadline_ns = mono_now_ns() + (uint64_t)SETTLE_MS * 1000000;
	list_remove(&op->link);
	list_insert(&h->settled, &op->link);
}

/* Answers what the index has reached. */
static void settle(struct store *s)
{
	struct shared *h = s->shared;
	uint64_t revision = store_revision(s);
	list_for_each(l, &h->settled) {
		struct op *op = list_entry(l, struct op, link);
		if (op->result >= 0 && op->revision > revision) {
			if (mono_now_ns() < MIN(op->deadline_ns, h->end_ns))
				continue;
			op->result = -ETIMEDOUT;
		}
		forget_key(h, op);
		finish(s, op);
	}
}

/* ---- waits ---- */

bool store_is_reachable(const struct store *s)
{
	return !s->shared || !atomic_load(&s->shared->unreachable);
}

bool store_is_shared(const struct store *s)
{
	return s->shared != NULL;
}

void store_wait(
	struct store *s, uint64_t revision, unsigned timeout_ms, store_wait_fn fn, void *arg)
{
	if (!s->shared || (revision && store_revision(s) >= revision)) {
		fn(arg, 0);
		return;
	}
	struct item *it = item_new(ITEM_WAIT);
	it->wait = xcalloc(1, sizeof(*it->wait));
	*it->wait = (struct wait){ .revision = revision,
		.deadline_ns = mono_now_ns() + (uint64_t)timeout_ms * 1000000,
		.fn = fn,
		.arg = arg };
	push(s, it);
}

static void wait_end(struct wait *w, int result)
{
	list_remove(&w->link);
	w->fn(w->arg, result);
	free(w);
}

static void ask(struct store *s)
{
	struct shared *h = s->shared;
	if (h->asking || list_empty(&h->fresh))
		return;
	while (!list_empty(&h->fresh)) {
		struct list *l = h->fresh.next;
		list_remove(l);
		list_insert(&h->asked, l);
	}
	h->asking = true;
	h->asked_at = store_revision(s);
	h->type->ask(h->remote, s);
}

static void take_now(struct store *s, const struct item *it)
{
	struct shared *h = s->shared;
	h->asking = false;
	atomic_store(&h->unreachable, it->result != 0);
	if (it->result == 0 && it->revision < h->asked_at) {
		log_error("store",
			"etcd is at revision %llu, but was at %llu before: it was restored from an older copy. What is held in memory is "
			"no longer true, so this process ends; started again, it reads what is there",
			(unsigned long long)it->revision, (unsigned long long)h->asked_at);
		_exit(EXIT_IO);
	}
	while (!list_empty(&h->asked)) {
		struct wait *w = list_entry(h->asked.next, struct wait, link);
		if (it->result) {
			wait_end(w, it->result);
			continue;
		}
		w->revision = it->revision;
		list_remove(&w->link);
		list_insert(&h->waits, &w->link);
	}
}

static void end_waits(struct store *s)
{
	struct shared *h = s->shared;
	struct list *const lists[] = { &h->waits, &h->asked, &h->fresh };
	uint64_t revision = store_revision(s), now = 0;
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		list_for_each(l, lists[i]) {
			struct wait *w = list_entry(l, struct wait, link);
			now = now ? now : mono_now_ns();
			if (w->revision && w->revision <= revision)
				wait_end(w, 0);
			else if (MIN(w->deadline_ns, h->end_ns) <= now)
				wait_end(w, -ETIMEDOUT);
		}
	}
}

/* ---- events ---- */

struct batch {
	struct store *s;
	struct index_edit edit;
	struct store_event *events[EVENTS_MAX];
	size_t n;
	uint64_t revision;
	int64_t objects, bytes;
};

static struct object *decode(struct shared *h, struct str key, const struct store_remote_kv *kv)
{
	struct store_op op = { 0 };
	struct err err = { 0 };
	arena_reset(h->scratch);
	if (h->codec.value_in(h->codec.arg, key, kv->value, h->scratch, &op, &err)) {
		log_error("store", "left out " STR_FMT " of revision %llu: %s", STR_ARG(kv->key),
			(unsigned long long)kv->revision, err.text);
		return NULL;
	}
	struct object_parts parts = { key, op.json_head, op.json_tail, op.labels, op.fields,
		op.n_labels, op.n_fields };
	struct object *o = object_new(&parts, kv->revision);
	o->create_revision = kv->create_revision;
	return o;
}

static struct object *last_state(struct shared *h, const struct object *present, uint64_t revision)
{
	struct str head, tail;
	struct object_parts parts = { .key = present->key,
		.labels = present->labels,
		.fields = present->fields,
		.n_labels = present->n_labels,
		.n_fields = present->n_fields };
	h->codec.cut(present->json, &head, &tail);
	parts.json_head = head;
	parts.json_tail = tail;
	struct object *o = object_new(&parts, revision);
	o->create_revision = present->create_revision;
	return o;
}

static struct object *new_state(struct shared *h, struct str key, const struct store_remote_kv *kv)
{
	struct op *op = find_writer(h, kv);
	if (!op)
		return decode(h, key, kv);
	object_set_revision(op->object, op->head_len, kv->revision);
	op->object->create_revision = kv->create_revision;
	op->taken = true;
	return object_ref(op->object);
}

/* Takes the reference. */
static void put(struct batch *b, struct object *o, struct object *present)
{
	b->bytes += (int64_t)o->json.len - (present ? (int64_t)present->json.len : 0);
	b->objects += !present;
	if (present)
		index_replace(&b->edit, o);
	else
		index_insert(&b->edit, o);
}

static void drop(struct batch *b, struct object *present)
{
	b->bytes -= (int64_t)present->json.len;
	b->objects--;
	index_remove(&b->edit, present->key);
}

static void apply(struct batch *b, const struct store_remote_kv *kv)
{
	struct shared *h = b->s->shared;
	CLEAN_BUF struct buf key = { 0 };
	if (!h->codec.key_in(h->codec.arg, kv->key, &key))
		return;
	struct object *present = index_get(b->edit.root, buf_str(&key));
	if (kv->deleted && !present)
		return;
	struct object *o CLEAN_OBJECT = kv->deleted ? last_state(h, present, kv->revision)
						    : new_state(h, buf_str(&key), kv);
	if (!o)
		return;
	enum store_event_type type = kv->deleted ? STORE_DELETED
		: present                        ? STORE_MODIFIED
						 : STORE_ADDED;
	b->events[b->n++] = event_new(type, o, present);
	if (!kv->deleted) {
		put(b, object_ref(o), present);
		return;
	}
	drop(b, present);
	for (struct op *op = map_get(&h->by_key, kv->key); op; op = op->same_key) {
		object_unref(op->last);
		op->last = object_ref(o);
	}
}

static void begin(struct batch *b, struct store *s)
{
	b->s = s;
	b->n = 0;
	b->objects = b->bytes = 0;
	b->edit = (struct index_edit){ .root = s->current->root, .birth = store_revision(s) + 1 };
}

static void publish(struct batch *b)
{
	struct store *s = b->s;
	uint64_t revision = b->revision;
	atomic_fetch_add(&s->objects, (uint64_t)b->objects);
	atomic_fetch_add(&s->bytes, (uint64_t)b->bytes);
	atomic_fetch_add(&s->writes, b->n);
	atomic_fetch_add(&s->commits, 1);
	versions_publish(s, &b->edit, revision);
	if (b->n > 0)
		log_append(&s->log, b->events, b->n, &s->dropped);
	log_advance(&s->log, revision);
	revisions_clear(&s->dropped);
}

/* Events that came together become visible together, so that no reader sees half of a revision. */
static void take_events(struct store *s, struct batch *b, const struct item *it)
{
	begin(b, s);
	for (size_t i = 0; i < it->n_kvs; i++) {
		const struct store_remote_kv *kv = &it->kvs[i];
		if (kv->revision <= store_revision(s))
			continue;
		if (b->n >= EVENTS_MAX - 1 && kv->revision > it->kvs[i - 1].revision) {
			b->revision = it->kvs[i - 1].revision;
			publish(b);
			begin(b, s);
		}
		if (b->n < EVENTS_MAX)
			apply(b, kv);
		else
			log_error("store",
				"left out " STR_FMT ": more than %d changes in one revision",
				STR_ARG(kv->key), EVENTS_MAX);
	}
	b->revision = it->revision;
	if (it->revision > store_revision(s))
		publish(b);
	else
		index_edit_undo(&b->edit); /* empty: all of it was known */
}

/* ---- loading ---- */

struct loading {
	struct batch *b;
	struct map seen; /* NULL map when the index was empty */
	bool again;
};

static int load_one(void *arg, const struct store_remote_kv *kv, struct err *err)
{
	struct loading *l = arg;
	struct shared *h = l->b->s->shared;
	CLEAN_BUF struct buf key = { 0 };
	if (!h->codec.key_in(h->codec.arg, kv->key, &key))
		return 0;
	struct object *present = index_get(l->b->edit.root, buf_str(&key));
	if (l->again)
		map_set(&l->seen, buf_str(&key), l);
	if (present && present->revision == kv->revision)
		return 0;
	struct object *o = decode(h, buf_str(&key), kv);
	if (o)
		put(l->b, o, present);
	return 0;
}

struct sweep {
	struct loading *l;
	struct object **gone;
	size_t n, cap;
};

static bool collect_gone(void *arg, struct object *o)
{
	struct sweep *w = arg;
	if (map_get(&w->l->seen, o->key))
		return true;
	if (w->n == w->cap) {
		w->cap = w->cap ? w->cap * 2 : 64;
		w->gone = xrealloc(w->gone, w->cap * sizeof(struct object *));
	}
	w->gone[w->n++] = o;
	return true;
}

/* Brings the index to what is stored now. What happened between is not known, so no cursor can go on. */
static int load(struct store *s, struct batch *b, bool again, struct err *err)
{
	struct shared *h = s->shared;
	struct loading l = { .b = b, .again = again };
	begin(b, s);
	int r = h->type->load(h->remote, load_one, &l, &b->revision, err);
	if (r == 0 && again) {
		struct sweep w = { .l = &l };
		index_each(b->edit.root, STR_NONE, STR_NONE, collect_gone, &w);
		for (size_t i = 0; i < w.n; i++)
			drop(b, w.gone[i]);
		free(w.gone);
	}
	map_deinit(&l.seen, NULL);
	if (r) {
		index_edit_undo(&b->edit);
		return r;
	}
	publish(b);
	log_reset(&s->log, b->revision);
	arena_reset(h->scratch);
	return 0;
}

static void load_again(struct store *s, struct batch *b)
{
	struct err err = { 0 };
	log_warn("store",
		"etcd has forgotten changes that were not read yet: everything is read anew");
	if (load(s, b, true, &err)) {
		log_error("store", "%s. This process ends; started again, it reads what is there",
			err.text);
		_exit(EXIT_IO);
	}
	s->shared->type->follow(s->shared->remote, s, store_revision(s));
}

/* ---- the thread ---- */

static uint64_t next_deadline(struct shared *h)
{
	struct list *const lists[] = { &h->waits, &h->asked, &h->fresh };
	uint64_t next = UINT64_MAX;
	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		list_for_each(l, lists[i])
			next = MIN(next, list_entry(l, struct wait, link)->deadline_ns);
	list_for_each(l, &h->settled)
		next = MIN(next, list_entry(l, struct op, link)->deadline_ns);
	return next == UINT64_MAX ? next : MIN(next, h->end_ns);
}

/* NULL: something is due, or the store ends. */
static struct item *wait_for_items(struct store *s, bool *ret_stop)
{
	struct shared *h = s->shared;
	uint64_t now = mono_now_ns(), kept = versions_expire(s, now / 1000000000),
		 old = log_expire(&s->log, now / 1000000000, &s->dropped), due = next_deadline(h);
	if (kept)
		due = MIN(due, now + kept * 1000000000);
	if (old)
		due = MIN(due, now + old * 1000000000);
	revisions_clear(&s->dropped);
	struct timespec until = { (time_t)(due / 1000000000), (long)(due % 1000000000) };
	int r = 0;
	pthread_mutex_lock(&s->queue_lock);
	s->waiting = true;
	while (!h->first && !s->stop && r != ETIMEDOUT)
		r = due != UINT64_MAX
			? pthread_cond_timedwait(&s->queue_cond, &s->queue_lock, &until)
			: pthread_cond_wait(&s->queue_cond, &s->queue_lock);
	s->waiting = false;
	struct item *items = h->first;
	h->first = NULL;
	h->last = &h->first;
	*ret_stop = s->stop && !items;
	pthread_mutex_unlock(&s->queue_lock);
	return items;
}

static void take(struct store *s, struct batch *b, struct item *it)
{
	struct shared *h = s->shared;
	switch (it->kind) {
	case ITEM_OP:
		take_op(h, it->op);
		break;
	case ITEM_ANSWER:
		take_answer(s, it);
		break;
	case ITEM_EVENTS:
		take_events(s, b, it);
		free(it->kvs);
		break;
	case ITEM_NOW:
		take_now(s, it);
		break;
	case ITEM_WAIT:
		list_insert(it->wait->revision ? &h->waits : &h->fresh, &it->wait->link);
		break;
	case ITEM_LOST:
		load_again(s, b);
		break;
	case ITEM_HURRY:
		h->end_ns = it->revision;
		break;
	}
}

void *shared_run(void *arg)
{
	struct store *s = arg;
	struct batch *b = xcalloc(1, sizeof(*b));
	bool stop = false;
	s->shared->type->follow(s->shared->remote, s, store_revision(s));
	while (!stop) {
		struct item *items = wait_for_items(s, &stop);
		while (items) {
			struct item *it = items;
			items = it->next;
			take(s, b, it);
			free(it);
		}
		settle(s);
		ask(s);
		end_waits(s);
	}
	free(b);
	return NULL;
}

/* ---- the ends ---- */

int shared_open(struct store *s, const struct store_shared_config *c, struct err *err)
{
	struct shared *h = xcalloc(1, sizeof(*h));
	h->type = c->type;
	h->remote = c->remote;
	h->codec = c->codec;
	h->last = &h->first;
	h->scratch = arena_new(0);
	h->end_ns = UINT64_MAX;
	list_init(&h->inflight);
	list_init(&h->settled);
	list_init(&h->waits);
	list_init(&h->asked);
	list_init(&h->fresh);
	s->shared = h;
	versions_init(s, NULL, 0);
	struct batch *b = xcalloc(1, sizeof(*b));
	int r = load(s, b, false, err);
	free(b);
	return r;
}

void shared_end_remote(struct store *s)
{
	if (s->shared && s->shared->remote)
		s->shared->type->close(TAKE(s->shared->remote));
}

uint64_t shared_size(struct store *s)
{
	return s->shared->type->size(s->shared->remote);
}

void shared_free(struct store *s)
{
	struct shared *h = s->shared;
	if (!h)
		return;
	struct list *const waits[] = { &h->waits, &h->asked, &h->fresh };
	for (size_t i = 0; i < ARRAY_LEN(waits); i++)
		while (!list_empty(waits[i]))
			wait_end(list_entry(waits[i]->next, struct wait, link), -ECANCELED);
	map_deinit(&h->by_key, NULL);
	arena_free(h->scratch);
	free(h);
}
