/* The log of events and the cursors over it.
 *
 * Events stand in one ring, shared by all cursors. A cursor that has seen everything is `caught_up` and has no place in the
 * ring: when an event comes that it wants, log_append puts it there and wakes it. So events that it does not want cost it
 * nothing, and it cannot fall off. Cursors are found by the folder of their prefix ("/pods/default/" for
 * "/pods/default/web"), those with a field by folder, field and value.
 *
 * lock guards everything in event_log and the places of the cursors; a cursor's `batch` belongs to its user. */
#include "base/values.h"
#include "store/internal.h"

enum {
	HISTORY_DEFAULT = 100000,
	OLD_SECONDS = 300,   /* older events go when more than a 50th of history is there, … */
	OLD_BYTES = 2 << 20, /* … or, beyond this, when more than a 500th */
	/* Whoever comes back so soon after a broken connection finds what it missed, also under load. Upstream's watch cache means to keep as long. */
	FRESH_SECONDS = 75,
	BYTES_MAX = 32
		<< 20, /* beyond, events that are older than that go when more than a 500th is there, … */
	FRESH_BYTES_MAX = 192 << 20, /* … and beyond this those of any age */
	SENT_SECONDS =
		5, /* by then those who watch have been sent an event; its encoded form is the first to go beyond BYTES_MAX */
	EXPIRE_PAUSE_S = 10,
	BATCH = 16,
	SCAN = 1024, /* events looked at before the lock is let go once */
	RING_MIN = 256,
};

struct watch_group {
	struct list watches;
	size_t n_fields; /* cursors with a field whose prefix has this folder */
};

struct store_watch {
	struct event_log *log;
	struct list group;
	struct str prefix;
	struct object_pair field; /* key empty: none */
	store_wake_fn wake;
	void *arg;
	uint64_t after;    /* events up to this revision are not wanted */
	uint64_t next;     /* number of the event to look at, unless caught_up */
	uint64_t revision; /* everything up to here was handed out, unless caught_up */
	bool caught_up, signaled;
	uint8_t batch_len, batch_next;
	struct store_event *batch[BATCH];
};

/* ---- events ---- */
struct store_event *event_new(enum store_event_type type, struct object *o, struct object *prev)
{
	struct store_event *ev = xcalloc(1, sizeof(*ev));
	ev->revision = o->revision;
	ev->type = type;
	ev->object = object_ref(o);
	ev->prev = prev ? object_ref(prev) : NULL;
	ev->age_s = (uint32_t)(mono_now_ns() / 1000000000);
	atomic_init(&ev->refs, 1);
	return ev;
}

struct store_event *store_event_ref(struct store_event *ev)
{
	atomic_fetch_add_explicit(&ev->refs, 1, memory_order_relaxed);
	return ev;
}

void store_event_unref(struct store_event *ev)
{
	if (!ev || atomic_fetch_sub_explicit(&ev->refs, 1, memory_order_acq_rel) != 1)
		return;
	free(atomic_load_explicit(&ev->proto, memory_order_relaxed));
	object_unref(ev->object);
	object_unref(ev->prev);
	free(ev);
}

const struct store_form *store_event_keep_proto(struct store_event *ev, struct store_form *f)
{
	struct store_form *was = NULL;
	if (!atomic_compare_exchange_strong_explicit(
		    &ev->proto, &was, f, memory_order_acq_rel, memory_order_acquire)) {
		free(f);
		return was;
	}
	struct event_log *l = atomic_load(&ev->log);
	if (!l)
		return f;
	pthread_mutex_lock(&l->lock);
	if (atomic_load(&ev->log)) {
		ev->held += sizeof(*f) + f->len;
		l->bytes += sizeof(*f) + f->len;
	}
	pthread_mutex_unlock(&l->lock);
	return f;
}

/* ---- the ring ---- */
void log_init(struct event_log *l, uint64_t history)
{
	pthread_mutex_init(&l->lock, NULL);
	l->history = history ? history : HISTORY_DEFAULT;
}

/* It is in the log no more, but others may hold it, even when the log is gone. */
static void leaves(struct event_log *l, struct store_event *ev)
{
	l->bytes -= ev->held;
	atomic_store(&ev->log, NULL);
}

static void let_all_go(struct event_log *l)
{
	for (; l->first < l->end; l->first++) {
		struct store_event *ev = l->ring[l->first % l->cap];
		leaves(l, ev);
		store_event_unref(ev);
	}
}

void log_deinit(struct event_log *l)
{
	let_all_go(l);
	free(l->ring);
	map_deinit(&l->groups, free);
	pthread_mutex_destroy(&l->lock);
}

static struct store_event *at(const struct event_log *l, uint64_t i)
{
	return l->ring[i % l->cap];
}

static size_t version_bytes(const struct object *o)
{
	const struct store_form *f =
		atomic_load_explicit(&((struct object *)o)->proto, memory_order_acquire);
	return object_bytes(o) + (f ? sizeof(*f) + f->len : 0);
}

/* What is in memory on behalf of this event alone: versions that are not the newest. */
static size_t held_bytes(const struct store_event *ev)
{
	return sizeof(*ev) + sizeof(ev) + (ev->prev ? version_bytes(ev->prev) : 0) +
		(ev->type == STORE_DELETED ? version_bytes(ev->object) : 0);
}

static void resize(struct event_log *l, size_t cap)
{
	struct store_event **ring = xcalloc(cap, sizeof(*ring));
	for (uint64_t i = l->first; i < l->end; i++)
		ring[i % cap] = at(l, i);
	free(l->ring);
	l->ring = ring;
	l->cap = cap;
}

static void put(struct event_log *l, struct store_event *ev)
{
	if (l->end - l->first == l->cap)
		resize(l, l->cap ? l->cap * 2 : RING_MIN);
	l->ring[l->end++ % l->cap] = ev;
	l->newest = ev->revision;
	atomic_store_explicit(&ev->log, l, memory_order_relaxed); /* nobody else has it yet */
	ev->held = held_bytes(ev);
	l->bytes += ev->held;
}

/* What the oldest goes after, in seconds. */
static int32_t lifetime(const struct event_log *l)
{
	uint64_t n = l->end - l->first, bytes = n > l->history / 500 ? l->bytes : 0;
	if (n > l->history || bytes > FRESH_BYTES_MAX)
		return INT32_MIN;
	if (bytes > BYTES_MAX)
		return FRESH_SECONDS;
	return n > l->history / 50 || bytes > OLD_BYTES ? OLD_SECONDS : INT32_MAX;
}

static int32_t age_of_oldest(const struct event_log *l, uint32_t now_s)
{
	return (int32_t)(now_s - at(l, l->first)->age_s);
}

struct fallen {
	struct store_event **events;
	size_t len, cap;
};

/* An event gets references from its log under the lock: one that has no other is read by nobody. Whoever resumes there encodes it again. */
static void drop_forms(struct event_log *l, uint32_t now_s)
{
	for (l->bare = MAX(l->bare, l->first); l->bare < l->end && l->bytes > BYTES_MAX;
		l->bare++) {
		struct store_event *ev = at(l, l->bare);
		if ((int32_t)(now_s - ev->age_s) <= SENT_SECONDS)
			return;
		if (atomic_load_explicit(&ev->refs, memory_order_acquire) > 1)
			continue;
		struct store_form *f = atomic_exchange(&ev->proto, NULL);
		size_t n = f ? sizeof(*f) + f->len : 0;
		ev->held -= n;
		l->bytes -= n;
		free(f);
	}
}

/* Under the lock. */
static void take_old(struct event_log *l, uint32_t now_s, struct fallen *f)
{
	drop_forms(l, now_s);
	while (l->first < l->end && age_of_oldest(l, now_s) > lifetime(l)) {
		struct store_event *ev = at(l, l->first++);
		l->compacted = ev->revision;
		leaves(l, ev);
		if (f->len == f->cap) {
			f->cap = f->cap ? f->cap * 2 : 64;
			f->events = xrealloc(f->events, f->cap * sizeof(struct store_event *));
		}
		f->events[f->len++] = ev;
	}
	if (l->cap > RING_MIN && l->end - l->first < l->cap / 8)
		resize(l, l->cap / 4);
}

static void forget(struct fallen *f, struct revisions *dropped)
{
	for (size_t i = 0; i < f->len; i++) {
		struct store_event *ev = f->events[i];
		if (ev->prev)
			revisions_add(dropped, ev->prev->revision);
		if (ev->type == STORE_DELETED)
			revisions_add(dropped, ev->revision);
		store_event_unref(ev);
	}
	free(f->events);
}

uint64_t log_expire(struct event_log *l, uint64_t now_s, struct revisions *dropped)
{
	struct fallen f = { 0 };
	uint64_t left = 0;
	pthread_mutex_lock(&l->lock);
	take_old(l, (uint32_t)now_s, &f);
	if (l->first < l->end && lifetime(l) < INT32_MAX)
		left = (uint64_t)MAX(lifetime(l) - age_of_oldest(l, (uint32_t)now_s) + 1,
			(int32_t)EXPIRE_PAUSE_S);
	pthread_mutex_unlock(&l->lock);
	forget(&f, dropped);
	return left;
}

/* ---- finding who wants an event ---- */
static bool has_field(const struct object *o, const struct object_pair *f)
{
	for (size_t i = 0; i < o->n_fields; i++)
		if (str_eq(o->fields[i].key, f->key))
			return str_eq(o->fields[i].value, f->value);
	return false;
}

static bool wants(const struct store_watch *w, const struct store_event *ev)
{
	if (ev->revision <= w->after || !str_has_prefix(ev->object->key, w->prefix))
		return false;
	return w->field.key.len == 0 || has_field(ev->object, &w->field) ||
		(ev->prev && has_field(ev->prev, &w->field));
}

static void offer(struct watch_group *g, const struct store_event *ev, uint64_t number)
{
	list_for_each(it, &g->watches) {
		struct store_watch *w = list_entry(it, struct store_watch, group);
		if ((!w->caught_up && w->signaled) || !wants(w, ev))
			continue;
		if (w->caught_up) {
			w->caught_up = false;
			w->next = number;
			w->revision = ev->revision - 1;
		}
		if (!w->signaled) {
			w->signaled = true;
			w->wake(w->arg);
		}
	}
}

static struct str group_key(struct buf *b, struct str folder, const struct object_pair *field)
{
	buf_clear(b);
	buf_add_str(b, folder);
	if (field->key.len > 0) {
		buf_addc(b, '\0');
		buf_add_str(b, field->key);
		buf_addc(b, '\0');
		buf_add_str(b, field->value);
	}
	return buf_str(b);
}

static void offer_by_field(struct event_log *l, struct str folder, const struct object *o,
	const struct store_event *ev, uint64_t number, struct buf *scratch)
{
	for (size_t i = 0; i < o->n_fields; i++) {
		struct watch_group *g =
			map_get(&l->groups, group_key(scratch, folder, &o->fields[i]));
		if (g)
			offer(g, ev, number);
	}
}

static void offer_to_all(
	struct event_log *l, const struct store_event *ev, uint64_t number, struct buf *scratch)
{
	struct str key = ev->object->key;
	for (size_t n = 0; n <= key.len; n++) {
		if (n > 0 && key.p[n - 1] != '/')
			continue;
		struct str folder = str_n(key.p, n);
		struct watch_group *g = map_get(&l->groups, folder);
		if (!g)
			continue;
		offer(g, ev, number);
		if (g->n_fields == 0)
			continue;
		offer_by_field(l, folder, ev->object, ev, number, scratch);
		if (ev->prev)
			offer_by_field(l, folder, ev->prev, ev, number, scratch);
	}
}

void log_append(
	struct event_log *l, struct store_event *const *events, size_t n, struct revisions *dropped)
{
	CLEAN_BUF struct buf scratch = { 0 };
	struct fallen old = { 0 };
	uint32_t now_s = (uint32_t)(mono_now_ns() / 1000000000);

	pthread_mutex_lock(&l->lock);
	for (size_t i = 0; i < n; i++) {
		put(l, events[i]);
		if (l->groups.len > 0)
			offer_to_all(l, events[i], l->end - 1, &scratch);
	}
	take_old(l, now_s, &old);
	pthread_mutex_unlock(&l->lock);
	forget(&old, dropped);
}

void log_advance(struct event_log *l, uint64_t revision)
{
	pthread_mutex_lock(&l->lock);
	l->newest = MAX(l->newest, revision);
	pthread_mutex_unlock(&l->lock);
}

static void throw_off(struct event_log *l)
{
	size_t i = 0;
	void *value;
	while (map_next(&l->groups, &i, NULL, &value)) {
		struct watch_group *g = value;
		list_for_each(it, &g->watches) {
			struct store_watch *w = list_entry(it, struct store_watch, group);
			w->caught_up = false;
			w->next = 0;
			if (!w->signaled) {
				w->signaled = true;
				w->wake(w->arg);
			}
		}
	}
}

void log_reset(struct event_log *l, uint64_t revision)
{
	pthread_mutex_lock(&l->lock);
	let_all_go(l);
	l->first = l->end = l->end + 1;
	l->compacted = l->newest = revision;
	throw_off(l);
	pthread_mutex_unlock(&l->lock);
}

/* ---- cursors ---- */
static struct str folder_of(struct str prefix)
{
	while (prefix.len > 0 && prefix.p[prefix.len - 1] != '/')
		prefix.len--;
	return prefix;
}

static struct watch_group *group_of(struct event_log *l, struct str key)
{
	struct watch_group *g = map_get(&l->groups, key);
	if (!g) {
		g = xcalloc(1, sizeof(*g));
		list_init(&g->watches);
		map_set(&l->groups, key, g);
	}
	return g;
}

static void drop_group_if_empty(struct event_log *l, struct str key, struct watch_group *g)
{
	if (list_empty(&g->watches) && g->n_fields == 0)
		free(map_remove(&l->groups, key));
}

/* The number of the first event after `revision`. */
static uint64_t seek(const struct event_log *l, uint64_t revision)
{
	uint64_t lo = l->first, hi = l->end;
	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;
		if (at(l, mid)->revision <= revision)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int log_since(struct event_log *l, uint64_t revision, uint64_t upto, struct store_event ***ret,
	size_t *ret_n)
{
	int r = 0;
	pthread_mutex_lock(&l->lock);
	if (l->newest < upto) {
		r = -EAGAIN;
	} else if (revision < l->compacted) {
		r = STORE_COMPACTED;
	} else {
		uint64_t from = seek(l, revision), to = seek(l, upto);
		struct store_event **events = xcalloc(to - from + 1, sizeof(*events));
		for (uint64_t i = from; i < to; i++)
			events[i - from] = store_event_ref(at(l, i));
		*ret = events;
		*ret_n = to - from;
	}
	pthread_mutex_unlock(&l->lock);
	return r;
}

int store_watch_field(struct store *s, struct str prefix, struct object_pair field,
	uint64_t revision, store_wake_fn wake, void *arg, struct store_watch **ret)
{
	struct event_log *l = &s->log;
	uint64_t now = store_revision(s);
	if (revision > now)
		return STORE_COMPACTED;
	struct store_watch *w = xcalloc(1, sizeof(*w));
	w->log = l;
	w->prefix = (struct str){ str_dup(prefix), prefix.len };
	w->field.key = (struct str){ str_dup(field.key), field.key.len };
	w->field.value = (struct str){ str_dup(field.value), field.value.len };
	w->wake = wake;
	w->arg = arg;
	w->after = w->revision = revision ? revision : now;

	CLEAN_BUF struct buf scratch = { 0 };
	struct str folder = folder_of(w->prefix);
	list_init(&w->group);
	pthread_mutex_lock(&l->lock);
	bool there = w->after >= l->compacted;
	if (there) {
		w->next = seek(l, w->after);
		list_insert(
			&group_of(l, group_key(&scratch, folder, &w->field))->watches, &w->group);
		if (field.key.len > 0)
			group_of(l, folder)->n_fields++;
		atomic_fetch_add(&l->n_watches, 1);
	}
	pthread_mutex_unlock(&l->lock);
	if (there) {
		*ret = w;
		return 0;
	}
	free((char *)w->prefix.p);
	free((char *)w->field.key.p);
	free((char *)w->field.value.p);
	free(w);
	return STORE_COMPACTED;
}

int store_watch(struct store *s, struct str prefix, uint64_t revision, store_wake_fn wake,
	void *arg, struct store_watch **ret)
{
	return store_watch_field(s, prefix, (struct object_pair){ 0 }, revision, wake, arg, ret);
}

void store_watch_close(struct store_watch *w)
{
	if (!w)
		return;
	struct event_log *l = w->log;
	CLEAN_BUF struct buf scratch = { 0 };
	struct str folder = folder_of(w->prefix), key = group_key(&scratch, folder, &w->field);
	pthread_mutex_lock(&l->lock);
	list_remove(&w->group);
	drop_group_if_empty(l, key, map_get(&l->groups, key));
	if (w->field.key.len > 0) {
		struct watch_group *g = map_get(&l->groups, folder);
		g->n_fields--;
		drop_group_if_empty(l, folder, g);
	}
	atomic_fetch_sub(&l->n_watches, 1);
	pthread_mutex_unlock(&l->lock);
	for (size_t i = w->batch_next ? w->batch_next - 1u : 0; i < w->batch_len; i++)
		store_event_unref(w->batch[i]);
	free((char *)w->prefix.p);
	free((char *)w->field.key.p);
	free((char *)w->field.value.p);
	free(w);
}

/* Fills the empty batch. Under the lock. false: more is to be looked at, but the lock should be let go once. */
static bool fill(struct store_watch *w)
{
	struct event_log *l = w->log;
	for (size_t seen = 0; w->next < l->end && w->batch_len < BATCH; w->next++, seen++) {
		if (seen == SCAN)
			return w->batch_len > 0;
		struct store_event *ev = at(l, w->next);
		if (wants(w, ev))
			w->batch[w->batch_len++] = store_event_ref(ev);
		else if (w->batch_len == 0)
			w->revision = ev->revision;
	}
	if (w->batch_len == 0)
		w->caught_up = true;
	return true;
}

static int refill(struct store_watch *w)
{
	struct event_log *l = w->log;
	w->batch_len = w->batch_next = 0;
	bool done = false, compacted = false;
	while (!done && !compacted) {
		pthread_mutex_lock(&l->lock);
		w->signaled = false;
		compacted = !w->caught_up && w->next < l->first;
		if (!compacted && !w->caught_up)
			done = fill(w);
		else
			done = true;
		pthread_mutex_unlock(&l->lock);
	}
	return compacted ? STORE_COMPACTED : w->batch_len ? 0 : STORE_NOT_FOUND;
}

int store_watch_next(struct store_watch *w, struct store_event **ret)
{
	if (w->batch_next > 0)
		store_event_unref(w->batch[w->batch_next - 1]);
	if (w->batch_next == w->batch_len) {
		int r = refill(w);
		if (r)
			return r;
	}
	struct store_event *ev = w->batch[w->batch_next++];
	w->revision = MAX(w->revision, ev->revision);
	*ret = ev;
	return 0;
}

uint64_t store_watch_revision(const struct store_watch *w)
{
	pthread_mutex_lock(&w->log->lock);
	uint64_t r = w->caught_up ? MAX(w->log->newest, w->after) : w->revision;
	pthread_mutex_unlock(&w->log->lock);
	return r;
}
