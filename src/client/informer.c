/* An informer: lists a resource page by page, then watches it from there, and keeps a cache. Upstream: Reflector
 * and sharedIndexInformer. It is a task (crew.c): while a watch is silent it has no thread, no buffer and no stack.
 *
 * 1. The cache changes first, then the handlers hear of it; both in the server's order, on one thread at a time.
 * 2. A broken watch resumes after the last revision seen (events and bookmarks tell it); only 410 makes a new list, and a server that refuses
 *    twice in a row (it may have been set back, and our revision lie in its future), unless because it has too much to do already.
 * 3. A new list is compared with the cache: handlers hear the difference and nothing twice.
 * 4. A resource that the server does not serve counts as one without objects; it is asked again each 5 minutes.
 * 5. Whatever goes wrong is tried again. A server that answers, but not with what was asked for, or others but not this one, is asked again after 100 ms
 *    doubling to 10 s; while nobody is answered, all informers of the client share one back-off, and the first answer to any of them sends the others on
 *    their way (crew.c). Stopping interrupts every wait.
 * 6. managedFields are not kept (an update without them keeps the stored ones). */
#include "client/internal.h"

#include <stdio.h>

#include "io/io.h"

#define PAGE 500
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MOST_MS 10000
#define STEADY_MS \
	1000 /* a watch that lasted so long was good: its end is not a failure like the last */
#define UNSERVED_MS 300000
#define WATCH_SECONDS 420 /* a little at random is added: not all reconnect at once */
#define SILENCE_MS \
	90000 /* bookmarks come each minute; a server that says nothing for this long is gone */
#define KEEP_BUFFER 16384
#define READ_SIZE 4096
#define TAKE_MOST (256 * 1024) /* bytes of a watch at a time */

struct handler {
	informer_fn fn;
	void *arg;
};

struct informer {
	struct informer_config config;
	char *ns, *label_selector, *field_selector;
	struct handler *handlers;
	size_t n_handlers;
	struct cache *cache;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	bool synced, stopping;

	/* the task's own */
	struct task task;
	struct http_reader *reader;   /* while a watch is open */
	uint64_t opened_ns, heard_ns; /* the watch was asked for; bytes of it came */
	struct buf in;                /* of it, up to the end of a line */
	struct buf revision;          /* where the next watch begins; empty: list first */
	struct arena *decoded, *copied;
	uint64_t backoff_ms;
	unsigned refused; /* watches, in a row */
	bool unanswered;  /* the last try */
	uint64_t answers; /* that anybody had got when it ended; else when the next began */
};

struct informer *informer_new(const struct informer_config *c)
{
	struct informer *i = xcalloc(1, sizeof(*i));

	i->config = *c;
	i->ns = str_dup(c->ns);
	i->config.ns = str_of(i->ns);
	i->config.label_selector = i->label_selector =
		c->label_selector ? xstrdup(c->label_selector) : NULL;
	i->config.field_selector = i->field_selector =
		c->field_selector ? xstrdup(c->field_selector) : NULL;
	i->cache = cache_new(c->index);
	pthread_mutex_init(&i->lock, NULL);
	cond_init_mono(&i->changed);
	return i;
}

void informer_free(struct informer *i)
{
	if (!i)
		return;
	informer_stop(i);
	cache_free(i->cache);
	free(i->ns);
	free(i->label_selector);
	free(i->field_selector);
	free(i->handlers);
	buf_deinit(&i->revision);
	pthread_cond_destroy(&i->changed);
	pthread_mutex_destroy(&i->lock);
	free(i);
}

void informer_add_handler(struct informer *i, informer_fn fn, void *arg)
{
	i->handlers = xrealloc(i->handlers, (i->n_handlers + 1) * sizeof(*i->handlers));
	i->handlers[i->n_handlers++] = (struct handler){ fn, arg };
}

void informer_set_meta_only(struct informer *i, bool meta_only)
{
	if (i->config.meta_only !=
		meta_only) /* asked for again while it runs: nothing is written */
		i->config.meta_only = meta_only;
}

static bool stopping(struct informer *i)
{
	pthread_mutex_lock(&i->lock);
	bool r = i->stopping;

	pthread_mutex_unlock(&i->lock);
	return r;
}

static void tell(struct informer *i, enum informer_event ev, const struct cached *old,
	const struct cached *now)
{
	for (size_t k = 0; k < i->n_handlers; k++)
		i->handlers[k].fn(i->handlers[k].arg, ev, old, now);
}

/* The object was seen in this state. */
static void seen(struct informer *i, const void *obj)
{
	struct cached *now = cached_new(i->config.type, obj, i->config.meta_only, i->copied);
	struct cached *old = cache_get(i->cache, now->key);

	/* A server that was set back gives its numbers out a second time. */
	if (old && str_eq(old->meta->resource_version, now->meta->resource_version) &&
		str_eq(old->meta->uid, now->meta->uid)) {
		cached_unref(now);
	} else {
		cached_ref(now);
		cached_unref(cache_set(i->cache, now));
		if (old && !str_eq(old->meta->uid, now->meta->uid)) {
			tell(i, INFORMER_DELETED, old,
				NULL); /* and another came under its name, unseen */
			tell(i, INFORMER_ADDED, NULL, now);
		} else {
			tell(i, old ? INFORMER_MODIFIED : INFORMER_ADDED, old, now);
		}
		cached_unref(now);
	}
	cached_unref(old);
}

static void gone(struct informer *i, struct str key)
{
	struct cached *old = cache_remove(i->cache, key);

	if (old)
		tell(i, INFORMER_DELETED, old, NULL);
	cached_unref(old);
}

/* The last state that a DELETED event carries is what handlers get: it may be newer than the cache's. */
static void deleted(struct informer *i, const void *obj)
{
	struct cached *last = cached_new(i->config.type, obj, i->config.meta_only, i->copied);
	struct cached *old = cache_remove(i->cache, last->key);

	if (old)
		tell(i, INFORMER_DELETED, last, NULL);
	cached_unref(old);
	cached_unref(last);
}

static void keep_revision(struct informer *i, struct str revision)
{
	if (!revision.len)
		return;
	buf_clear(&i->revision);
	buf_add_str(&i->revision, revision);
}

static void remove_unseen(struct informer *i, const struct map *keys)
{
	struct cached_list all;

	cache_list(i->cache, STR_NONE, &all);
	for (size_t k = 0; k < all.len; k++)
		if (!map_get(keys, all.items[k]->key))
			gone(i, all.items[k]->key);
	cached_list_deinit(&all);
}

static void set_synced(struct informer *i)
{
	pthread_mutex_lock(&i->lock);
	i->synced = true;
	pthread_cond_broadcast(&i->changed);
	pthread_mutex_unlock(&i->lock);
}

struct list_view {
	struct meta_v1_list_meta *meta;
	char *items;
	size_t len;
};

static struct list_view view_list(const struct type *list_type, void *list)
{
	struct any_list {
		char *items;
		size_t len;
	};
	const struct any_list *l =
		(void *)((char *)list + model_field(list_type, STR("items"))->offset);

	return (struct list_view){ .items = l->items,
		.len = l->len,
		.meta = (void *)((char *)list + model_field(list_type, STR("metadata"))->offset) };
}

static void note_page(struct informer *i, const struct list_view *page, struct map *keys)
{
	for (size_t k = 0; k < page->len; k++) {
		void *obj = page->items + k * i->config.type->size;
		const struct meta_v1_object_meta *m = model_meta(i->config.type, obj);
		struct buf key CLEAN_BUF = { 0 };

		if (m->namespace.len)
			buf_addf(&key, STR_FMT "/", STR_ARG(m->namespace));
		buf_add_str(&key, m->name);
		map_set(keys, buf_str(&key), i);
		seen(i, obj);
	}
}

/* Scratch memory lives as long as a burst of work: an idle informer keeps none. */
static void scratch_begin(struct informer *i)
{
	i->decoded = arena_new(8192);
	i->copied = arena_new(4096);
}

static void scratch_end(struct informer *i)
{
	arena_free(TAKE(i->decoded));
	arena_free(TAKE(i->copied));
}

static int list_all(struct informer *i, bool *ret_answered, struct err *err)
{
	const struct type *list_type = client_resource_row(i->config.type)->list_type;
	struct buf token CLEAN_BUF = { 0 }, revision CLEAN_BUF = { 0 };
	struct map keys = { 0 };
	int r;

	scratch_begin(i);
	do {
		const struct client_list_query q = { .ns = i->config.ns,
			.limit = PAGE,
			.label_selector = i->label_selector,
			.field_selector = i->field_selector,
			.continue_token = buf_str(&token) };
		bool answered;
		void *list;

		arena_reset(i->decoded);
		r = client_list_answered(
			i->config.client, i->config.type, &q, i->decoded, &list, &answered, err);
		*ret_answered |= answered;
		if (r)
			break;
		struct list_view page = view_list(list_type, list);

		note_page(i, &page, &keys);
		buf_clear(&token);
		buf_add_str(&token, page.meta->continue_);
		buf_clear(&revision);
		buf_add_str(&revision, page.meta->resource_version);
	} while (token.len && !stopping(i));
	if (!r && !stopping(i)) {
		remove_unseen(i, &keys);
		keep_revision(i, buf_str(&revision));
		set_synced(i);
	}
	map_deinit(&keys, NULL);
	scratch_end(i);
	return r;
}

/* One line of a watch. CLIENT_GONE: the revision fell off the server's log. */
static int on_line(struct informer *i, struct str line, struct err *err)
{
	struct meta_v1_watch_event *ev;
	void *obj;
	int r;

	arena_reset(i->decoded);
	arena_reset(i->copied);
	r = json_decode(&meta_v1_watch_event_type, line, i->decoded, NULL, (void **)&ev, err);
	if (r)
		return err_prefix(err, r, "watch event");
	if (str_eqz(ev->type, "ERROR")) {
		struct meta_v1_status *st;

		if (json_decode(
			    &meta_v1_status_type, ev->object, i->decoded, NULL, (void **)&st, NULL))
			return err_set(
				err, -EBADMSG, "watch ended with an error that is no Status");
		return client_outcome(st->code ? st->code : 500, ev->object, STR("watch"), err);
	}
	r = json_decode(i->config.type, ev->object, i->decoded, NULL, &obj, err);
	if (r)
		return err_prefix(err, r, "object of a watch event");
	keep_revision(i, model_meta(i->config.type, obj)->resource_version);
	if (str_eqz(ev->type, "DELETED"))
		deleted(i, obj);
	else if (!str_eqz(ev->type, "BOOKMARK"))
		seen(i, obj);
	return 0;
}

static int on_bytes(struct informer *i, struct buf *in, struct err *err)
{
	size_t begin = 0;
	char *nl;
	int r = 0;

	scratch_begin(i);
	while (!r && begin < in->len && (nl = memchr(in->p + begin, '\n', in->len - begin))) {
		struct str line = str_trim(str_n(in->p + begin, (size_t)(nl - in->p) - begin));

		r = line.len ? on_line(i, line, err) : 0;
		begin = (size_t)(nl - in->p) + 1;
	}
	scratch_end(i);
	if (begin) {
		in->len -= begin;
		memmove(in->p, in->p + begin, in->len);
	}
	if (!in->len && in->cap > KEEP_BUFFER)
		buf_deinit(in);
	return r;
}

/* What is there now. 0: the watch ended; -EAGAIN: nothing is left; -EINPROGRESS: it was much, and others want their turn. */
static int read_watch(struct informer *i, struct err *err)
{
	for (size_t taken = 0; taken < TAKE_MOST;) {
		buf_reserve(&i->in, READ_SIZE);
		ssize_t n = http_reader_try_read(
			i->reader, i->in.p + i->in.len, i->in.cap - i->in.len - 1, err);

		if (n == -EAGAIN && !i->in.len)
			buf_deinit(&i->in); /* most informers hear of nothing for hours */
		if (n <= 0)
			return (int)n;
		i->in.len += (size_t)n;
		taken += (size_t)n;
		i->heard_ns = mono_now_ns();
		int r = on_bytes(i, &i->in, err);

		if (r)
			return r;
	}
	return -EINPROGRESS;
}

static void close_watch(struct informer *i)
{
	http_reader_free(TAKE(i->reader));
	buf_deinit(&i->in);
}

static int open_watch(struct informer *i, bool *ret_answered, struct err *err)
{
	struct buf target CLEAN_BUF = { 0 };
	uint8_t spread;
	char seconds[16];

	random_bytes(&spread, 1);
	snprintf(seconds, sizeof(seconds), "%d", WATCH_SECONDS + spread / 2);
	int r = client_path(i->config.type, i->config.ns, STR_NONE, STR_NONE, &target, err);

	if (r)
		return r;
	client_query(&target, "watch", STR("true"));
	client_query(&target, "allowWatchBookmarks", STR("true"));
	client_query(&target, "resourceVersion", buf_str(&i->revision));
	client_query(&target, "timeoutSeconds", str_of(seconds));
	client_query(&target, "labelSelector", str_of(i->label_selector));
	client_query(&target, "fieldSelector", str_of(i->field_selector));
	r = client_open(i->config.client, buf_str(&target), SILENCE_MS, &i->reader, err);
	*ret_answered = r >= 0;
	return r;
}

/* A try that failed, or a watch that ended soon. */
struct failure {
	int r;
	bool listing, answered, steady;
	bool others; /* were answered since the last try that was not */
	const struct err *err;
};

static void log_failure(struct informer *i, const struct failure *f, bool known, const char *again)
{
	bool usual = f->r == -ECONNREFUSED || f->r == -ECONNRESET || known;

	if (f->r && f->r != CLIENT_GONE)
		log_write(usual ? LOG_DEBUG : LOG_WARN, "informer", "%s %s: %s; %s",
			f->listing ? "list" : "watch", i->config.type->name, f->err->text, again);
}

static void rest_after(struct informer *i, const struct failure *f)
{
	struct crew *crew = &i->config.client->crew;

	if (f->r < 0 && (f->steady || (!f->answered && !f->others))) {
		log_failure(
			i, f, crew->silent, "one informer of this client asks again each second");
		crew_rest_silent(crew, &i->task);
		return;
	}
	if (f->listing && f->r == CLIENT_NOT_FOUND) {
		set_synced(i);
		return crew_rest(crew, &i->task, UNSERVED_MS);
	}
	i->backoff_ms = i->backoff_ms ? MIN(i->backoff_ms * 2, (uint64_t)BACKOFF_MOST_MS)
				      : BACKOFF_FIRST_MS;
	uint64_t ms = crew_about(i->backoff_ms);
	char again[32];

	snprintf(again, sizeof(again), "again in %llu ms", (unsigned long long)ms);
	log_failure(i, f, false, again);
	crew_rest(crew, &i->task, ms);
}

static void note_answer(struct informer *i, struct failure *f)
{
	uint64_t answers = i->config.client->crew.answers;

	i->unanswered = !f->answered;
	f->others = i->unanswered && answers != i->answers;
	i->answers = answers;
}

/* false: the informer rests, and is no more this thread's. */
static bool after_try(struct informer *i, struct failure *f)
{
	note_answer(i, f);
	if (f->steady)
		i->backoff_ms = i->refused = 0;
	if (f->steady && !f->r)
		return true;
	i->refused = f->r > 0 && !f->listing && f->r != CLIENT_TOO_MANY ? i->refused + 1 : 0;
	if (f->r == CLIENT_GONE || i->refused >= 2)
		buf_clear(&i->revision);
	rest_after(i, f);
	return false;
}

/* true: of a list. */
static bool begin_try(struct informer *i)
{
	if (!i->unanswered)
		i->answers = i->config.client->crew.answers;
	return !i->revision.len;
}

/* The next piece of work. true: there may be more at once. */
static bool advance(struct informer *i, bool may_block)
{
	struct crew *crew = &i->config.client->crew;
	struct err err = { "" };
	struct failure f = { .err = &err, .answered = true };

	if (i->reader) {
		f.r = read_watch(i, &err);
		if (f.r == -EINPROGRESS) {
			crew_rest(crew, &i->task, 0);
			return false;
		}
		if (f.r == -EAGAIN && mono_now_ns() < i->heard_ns + SILENCE_MS * 1000000ull) {
			crew_rest_on(crew, &i->task, http_reader_fd(i->reader), SILENCE_MS);
			return false;
		}
		if (f.r == -EAGAIN)
			f.r = err_set(&err, -ETIMEDOUT, "the server has said nothing for %d s",
				SILENCE_MS / 1000);
		close_watch(i);
	} else if (!may_block) {
		crew_defer(crew, &i->task);
		return false;
	} else if (begin_try(i)) {
		f = (struct failure){ .listing = true, .err = &err };
		f.r = list_all(i, &f.answered, &err);
	} else {
		i->opened_ns = mono_now_ns();
		f.r = open_watch(i, &f.answered, &err);
		i->heard_ns = mono_now_ns();
		if (!f.r) {
			i->unanswered = false;
			return true;
		}
	}
	f.steady = f.answered &&
		(f.listing ? !f.r : mono_now_ns() - i->opened_ns > STEADY_MS * 1000000ull);
	return stopping(i) || after_try(i, &f);
}

static void run(struct task *t, bool may_block)
{
	struct informer *i = container_of(t, struct informer, task);

	do {
		if (stopping(i))
			return crew_done(&i->config.client->crew, t);
	} while (advance(i, may_block));
}

int informer_start(struct informer *i, struct err *err)
{
	if (!client_resource_row(i->config.type))
		return err_set(err, -EINVAL, "%s is no resource: it cannot be watched",
			i->config.type->name);
	i->task.run = run;
	int r = crew_start(&i->config.client->crew, &i->task, err);

	return r ? err_prefix(err, r, "informer of %s", i->config.type->name) : 0;
}

bool informer_wait_synced(struct informer *i, unsigned timeout_ms)
{
	uint64_t until = mono_now_ns() + (uint64_t)timeout_ms * 1000000;

	pthread_mutex_lock(&i->lock);
	while (!i->synced && !i->stopping && cond_wait_until(&i->changed, &i->lock, until))
		;
	bool r = i->synced;

	pthread_mutex_unlock(&i->lock);
	return r;
}

void informer_stop(struct informer *i)
{
	pthread_mutex_lock(&i->lock);
	i->stopping = true;
	pthread_cond_broadcast(&i->changed);
	pthread_mutex_unlock(&i->lock);
	if (i->task.crew) /* it was started */
		crew_stop(i->task.crew, &i->task);
	close_watch(i);
}

struct cached *informer_get(struct informer *i, struct str key)
{
	return cache_get(i->cache, key);
}

void informer_list(struct informer *i, struct str ns, struct cached_list *ret)
{
	cache_list(i->cache, ns, ret);
}

void informer_by_index(struct informer *i, struct str value, struct cached_list *ret)
{
	cache_by_index(i->cache, value, ret);
}

size_t informer_len(struct informer *i)
{
	return cache_len(i->cache);
}
