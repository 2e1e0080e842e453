/* Events, sent by a thread of its own. Upstream: client-go's event broadcaster and correlator.
 *
 * 1. The same event again (object, reason, message, type) raises the count of the one sent before.
 * 2. More than 10 events in 10 minutes that differ only in their message become one, "(combined from similar events): …".
 * 3. A source may send 25 events about one object at once, then one each 5 minutes; the rest is dropped.
 * 4. What is remembered for that is bounded: the least recently used goes. What waits is bounded: the oldest goes.
 *
 * Correlation runs on the sending thread; event_record only formats and queues. */
#include "client/internal.h"

#include <stdio.h>

#include "io/io.h"

#define QUEUE_MOST 1000
#define MEMORY_MOST 512
#define SIMILAR_MOST 10
#define SIMILAR_WINDOW_S 600
#define SPAM_BURST 25.0
#define SPAM_REFILL_S 300.0
#define FLUSH_NS (2 * 1000000000ull)

struct pending {
	struct list link;
	struct arena *arena;
	struct core_v1_object_reference ref;
	struct str component, type, reason, message;
	struct timestamp when;
};

/* What is known under a key; one struct for the three uses. */
struct memory {
	struct list lru;
	char *key;
	int32_t count; /* sent with this */
	char *name;    /* of the event object; NULL: not sent yet */
	struct timestamp first, last;
	double tokens;
	size_t n_messages; /* of a group */
	uint64_t messages[SIMILAR_MOST];
};

struct memories {
	struct map by_key;
	struct list lru;
};

struct event_recorder {
	struct event_recorder *parent; /* NULL: the one with the thread */
	struct client *client;
	char *component, *host;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	struct list queue;
	size_t len;
	bool stopping;
	uint64_t stop_at;

	struct memories sent, groups, sources; /* the thread's own */
};

static void memory_free(void *p)
{
	struct memory *m = p;

	free(m->key);
	free(m->name);
	free(m);
}

static struct memory *remember(struct memories *ms, struct str key, bool *ret_new)
{
	struct memory *m = map_get(&ms->by_key, key);

	*ret_new = !m;
	if (m) {
		list_remove(&m->lru);
	} else {
		if (ms->by_key.len >= MEMORY_MOST) {
			struct memory *oldest = list_entry(ms->lru.next, struct memory, lru);

			list_remove(&oldest->lru);
			map_remove(&ms->by_key, str_of(oldest->key));
			memory_free(oldest);
		}
		m = xcalloc(1, sizeof(*m));
		m->key = str_dup(key);
		map_set(&ms->by_key, key, m);
	}
	list_insert(&ms->lru, &m->lru);
	return m;
}

static struct str source_key(const struct pending *p, struct arena *a)
{
	return arena_fmt(a, STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT,
		STR_ARG(p->component), STR_ARG(p->ref.kind), STR_ARG(p->ref.namespace),
		STR_ARG(p->ref.name), STR_ARG(p->ref.uid), STR_ARG(p->ref.api_version));
}

static struct str group_key(const struct pending *p, struct arena *a)
{
	return arena_fmt(a, STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT, STR_ARG(source_key(p, a)),
		STR_ARG(p->ref.field_path), STR_ARG(p->type), STR_ARG(p->reason));
}

/* Rule 2: true when this event goes under its group. */
static bool is_combined(struct event_recorder *r, const struct pending *p, struct arena *a)
{
	bool new;
	struct memory *m = remember(&r->groups, group_key(p, a), &new);
	uint64_t message = hash_bytes(p->message.p, p->message.len, 0);

	if (time_diff_s(p->when, m->last) > SIMILAR_WINDOW_S)
		m->n_messages = 0;
	m->last = p->when;
	for (size_t i = 0; i < m->n_messages; i++)
		if (m->messages[i] == message)
			return false;
	if (m->n_messages + 1 >= SIMILAR_MOST)
		return true;
	m->messages[m->n_messages++] = message;
	return false;
}

/* Rule 3. */
static bool is_spam(struct event_recorder *r, const struct pending *p, struct arena *a)
{
	bool new;
	struct memory *m = remember(&r->sources, source_key(p, a), &new);

	if (new)
		m->tokens = SPAM_BURST;
	else
		m->tokens = MIN(SPAM_BURST,
			m->tokens + MAX(0.0, time_diff_s(p->when, m->last)) / SPAM_REFILL_S);
	m->last = p->when;
	if (m->tokens < 1)
		return true;
	m->tokens -= 1;
	return false;
}

static int send_new(struct event_recorder *r, const struct pending *p, struct memory *m,
	struct str message, struct arena *a, struct err *err)
{
	struct core_v1_event *e = model_new(&core_v1_event_type, a);

	e->metadata.namespace = p->ref.namespace.len ? p->ref.namespace : STR("default");
	e->metadata.name = arena_fmt(a, STR_FMT ".%llx", STR_ARG(p->ref.name),
		(unsigned long long)p->when.sec * 1000000000ull + (unsigned)p->when.nsec);
	e->involved_object = p->ref;
	e->reason = p->reason;
	e->message = message;
	e->type = p->type;
	e->source.component = p->component;
	e->source.host = str_of(r->host);
	e->reporting_component = p->component;
	e->reporting_instance = str_of(r->host);
	e->first_timestamp = m->first;
	e->last_timestamp = p->when;
	e->count = m->count;
	int ret = client_create(
		r->client, &core_v1_event_type, e->metadata.namespace, e, a, NULL, err);

	if (!ret) {
		free(m->name);
		m->name = str_dup(e->metadata.name);
	}
	return ret;
}

static int send_again(struct event_recorder *r, const struct pending *p, const struct memory *m,
	struct str message, struct arena *a, struct err *err)
{
	struct buf patch CLEAN_BUF = { 0 };
	char when[TIME_TEXT_MAX];

	time_format(p->when, when);
	buf_addf(&patch, "{\"count\":%d,\"lastTimestamp\":\"%s\",\"message\":", m->count, when);
	json_write_text(message, &patch);
	buf_addc(&patch, '}');
	return client_patch(r->client, &core_v1_event_type,
		p->ref.namespace.len ? p->ref.namespace : STR("default"), str_of(m->name), NULL,
		CLIENT_PATCH_STRATEGIC, buf_str(&patch), a, NULL, err);
}

static void send_event(struct event_recorder *r, const struct pending *p)
{
	struct arena *a = p->arena;
	struct err err;
	bool combined = is_combined(r, p, a), new;
	struct str key = combined
		? group_key(p, a)
		: arena_fmt(a, STR_FMT "|" STR_FMT, STR_ARG(group_key(p, a)), STR_ARG(p->message));
	struct str message = combined
		? arena_fmt(a, "(combined from similar events): " STR_FMT, STR_ARG(p->message))
		: p->message;
	struct memory *m = remember(&r->sent, key, &new);

	if (new)
		m->first = p->when;
	m->count++;
	if (is_spam(r, p, a))
		return;
	int ret = m->name ? send_again(r, p, m, message, a, &err) : CLIENT_NOT_FOUND;

	if (ret == CLIENT_NOT_FOUND) {
		if (m->name) { /* it expired */
			m->first = p->when;
			m->count = 1;
		}
		ret = send_new(r, p, m, message, a, &err);
	}
	if (ret && ret != CLIENT_FORBIDDEN && ret != CLIENT_NOT_FOUND)
		log_warn("events", STR_FMT " about " STR_FMT " " STR_FMT "/" STR_FMT " is lost: %s",
			STR_ARG(p->reason), STR_ARG(p->ref.kind), STR_ARG(p->ref.namespace),
			STR_ARG(p->ref.name), err.text);
}

static struct pending *next(struct event_recorder *r)
{
	struct pending *p = NULL;

	pthread_mutex_lock(&r->lock);
	while (list_empty(&r->queue) && !r->stopping)
		pthread_cond_wait(&r->changed, &r->lock);
	if (!list_empty(&r->queue) && (!r->stopping || mono_now_ns() < r->stop_at)) {
		p = list_entry(r->queue.next, struct pending, link);
		list_remove(&p->link);
		r->len--;
	}
	pthread_mutex_unlock(&r->lock);
	return p;
}

static void *run(void *arg)
{
	struct event_recorder *r = arg;
	struct pending *p;

	while ((p = next(r))) {
		send_event(r, p);
		arena_free(p->arena);
	}
	return NULL;
}

struct event_recorder *event_recorder_new(struct client *c, const char *component, const char *host)
{
	struct event_recorder *r = xcalloc(1, sizeof(*r));

	r->client = c;
	r->component = xstrdup(component);
	r->host = xstrdup(host ? host : "");
	pthread_mutex_init(&r->lock, NULL);
	cond_init_mono(&r->changed);
	list_init(&r->queue);
	list_init(&r->sent.lru);
	list_init(&r->groups.lru);
	list_init(&r->sources.lru);
	return r;
}

struct event_recorder *event_recorder_for(struct event_recorder *parent, const char *component)
{
	struct event_recorder *r = xcalloc(1, sizeof(*r));

	r->parent = parent;
	r->component = xstrdup(component);
	return r;
}

void event_recorder_free(struct event_recorder *r)
{
	if (!r)
		return;
	if (r->parent) {
		free(r->component);
		free(r);
		return;
	}
	pthread_mutex_lock(&r->lock);
	r->stopping = true;
	r->stop_at = mono_now_ns() + FLUSH_NS;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	if (r->started)
		pthread_join(r->thread, NULL);
	list_for_each(it, &r->queue)
		arena_free(list_entry(it, struct pending, link)->arena);
	map_deinit(&r->sent.by_key, memory_free);
	map_deinit(&r->groups.by_key, memory_free);
	map_deinit(&r->sources.by_key, memory_free);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r->component);
	free(r->host);
	free(r);
}

static void queue_event(struct event_recorder *r, struct pending *p)
{
	struct pending *dropped = NULL;

	pthread_mutex_lock(&r->lock);
	if (!r->started && !r->stopping)
		r->started = !thread_start(&r->thread, "events", run, r);
	list_insert(&r->queue, &p->link);
	if (++r->len > QUEUE_MOST) {
		dropped = list_entry(r->queue.next, struct pending, link);
		list_remove(&dropped->link);
		r->len--;
	}
	pthread_cond_signal(&r->changed);
	pthread_mutex_unlock(&r->lock);
	if (dropped)
		arena_free(dropped->arena);
}

static void record(struct event_recorder *r, const struct core_v1_object_reference *ref,
	const char *type, const char *reason, const char *fmt, va_list ap)
{
	struct arena *a = arena_new(1024);
	struct pending *p = arena_alloc(a, sizeof(*p));
	const struct core_v1_object_reference *copy =
		model_copy(&core_v1_object_reference_type, ref, a);

	p->arena = a;
	p->ref = *copy;
	p->component = arena_strz(a, r->component);
	p->type = arena_strz(a, type);
	p->reason = arena_strz(a, reason);
	p->message = arena_vfmt(a, fmt, ap);
	p->when = time_now();
	list_init(&p->link);
	queue_event(r->parent ? r->parent : r, p);
}

void event_record_ref(struct event_recorder *r, const struct core_v1_object_reference *ref,
	const char *type, const char *reason, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	record(r, ref, type, reason, fmt, ap);
	va_end(ap);
}

void event_record(struct event_recorder *r, const struct type *t, const void *obj, const char *type,
	const char *reason, const char *fmt, ...)
{
	const struct meta_v1_object_meta *m = model_meta(t, obj);
	char api_version[128];
	va_list ap;

	snprintf(api_version, sizeof(api_version), "%s%s%s", t->group, *t->group ? "/" : "",
		t->version);
	const struct core_v1_object_reference ref = { .kind = str_of(t->name),
		.name = m->name,
		.namespace = m->namespace,
		.uid = m->uid,
		.resource_version = m->resource_version,
		.api_version = str_of(api_version) };

	va_start(ap, fmt);
	record(r, &ref, type, reason, fmt, ap);
	va_end(ap);
}
