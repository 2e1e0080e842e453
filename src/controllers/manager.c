/* Runs the controllers of the table `controllers`: two queues of (controller, key) pairs, a few workers each. Upstream:
 * kube-controller-manager.
 *
 * 1. A key of one controller is worked on by one worker at a time; keys of a queue's controllers take turns in the order they came. Those that
 *    make and delete what users ask for (`bulk`) have a queue of their own: a slow admission webhook that holds all of its workers does not keep
 *    dead nodes from being seen, nor endpoints from being written.
 * 2. A failed key comes back with back-off (5 ms doubling). Conflict and not found are no failures worth a word: the cache was behind.
 * 3. In an idle cluster every thread here sleeps without a deadline, but for keys that asked to come back later. */
#include "controllers/internal.h"

#include <stdio.h>

#include "controllers/table.h"

enum { URGENT, BULK, N_QUEUES };
static const unsigned workers_of[N_QUEUES] = { [URGENT] = 3, [BULK] = 6 };
#define WORKERS_MOST 9
#define POOL_THREADS 16
#define SYNC_TIMEOUT_MS 120000

struct hook {
	struct run *run;
	watch_fn map;
};

struct worker {
	struct controllers *m;
	struct workqueue *queue;
	pthread_t thread;
};

struct controllers {
	struct controllers_config config;
	struct str_owned {
		char *ca, *signing_cert, *signing_key, *cidr;
	} own;
	struct run runs[N_CONTROLLERS];
	size_t n_runs;
	struct hook hooks[N_CONTROLLERS * WATCHES_MOST];
	size_t n_hooks;
	struct workqueue *queues[N_QUEUES];
	struct event_recorder *events;
	struct pool *pool;
	struct worker workers[WORKERS_MOST];
	size_t n_workers;
	_Atomic bool stopping;
};

struct held {
	struct held *next;
	struct cached *one;
	struct cached_list many;
};

/* ---- keys: the controller's number, then the key ---- */
static struct str queue_key(struct buf *b, const struct run *r, struct str key)
{
	buf_addc(b, (char)(r->index + 1));
	buf_add_str(b, key);
	return buf_str(b);
}

static struct workqueue *queue_of(const struct run *r)
{
	return r->m->queues[r->row->bulk ? BULK : URGENT];
}

void enqueue(struct run *r, struct str key)
{
	struct buf b CLEAN_BUF = { 0 };

	workqueue_add(queue_of(r), queue_key(&b, r, key));
}

void enqueue_after(struct run *r, struct str key, uint64_t ms)
{
	struct buf b CLEAN_BUF = { 0 };

	workqueue_add_after(queue_of(r), queue_key(&b, r, key), ms);
}

void requeue_within(struct run *r, uint64_t ms)
{
	if (!r->requeue_ms || ms < r->requeue_ms)
		r->requeue_ms = MAX(ms, (uint64_t)1);
}

uint64_t ms_of(double seconds)
{
	return seconds > 0 ? (uint64_t)(MIN(seconds, 30 * 86400.0) * 1000) : 0;
}

/* ---- caches ---- */
struct informer *run_informer(struct run *r, const struct type *t)
{
	return informers_get_meta(
		r->config->informers, t); /* rows said before the start what they want whole */
}

static void hold(struct run *r, struct cached *one, struct cached_list many)
{
	struct held *h = arena_alloc(r->arena, sizeof(*h));

	*h = (struct held){ r->held, one, many };
	r->held = h;
}

static void release_held(struct run *r)
{
	for (struct held *h = r->held; h; h = h->next) {
		cached_unref(h->one);
		cached_list_deinit(&h->many);
	}
	r->held = NULL;
}

const void *cache_object(struct run *r, const struct type *t, struct str key)
{
	struct cached *c = informer_get(run_informer(r, t), key);

	if (!c)
		return NULL;
	hold(r, c, (struct cached_list){ 0 });
	return c->obj;
}

static struct objects hold_list(struct run *r, struct cached_list l)
{
	struct objects os = { arena_alloc(r->arena, (l.len + 1) * sizeof(void *)), l.len };

	for (size_t i = 0; i < l.len; i++)
		os.items[i] = l.items[i]->obj;
	hold(r, NULL, l);
	return os;
}

struct objects cache_objects(struct run *r, const struct type *t, struct str ns)
{
	struct cached_list l;

	informer_list(run_informer(r, t), ns, &l);
	return hold_list(r, l);
}

struct objects cache_indexed(
	struct run *r, const struct type *t, const char *prefix, struct str value)
{
	struct cached_list l;

	informer_by_index(
		run_informer(r, t), arena_fmt(r->arena, "%s" STR_FMT, prefix, STR_ARG(value)), &l);
	return hold_list(r, l);
}

struct objects cache_owned(
	struct run *r, const struct type *t, const struct meta_v1_object_meta *owner)
{
	struct objects os = cache_indexed(r, t, "uid:", owner->uid);
	size_t n = 0;

	for (size_t i = 0; i < os.len; i++)
		if (str_eq(model_meta(t, os.items[i])->namespace, owner->namespace))
			os.items[n++] = os.items[i];
	os.len = n;
	return os;
}

/* ---- workers ---- */
static void reconcile(
	struct controllers *m, struct workqueue *queue, const char *queue_key, struct arena *a)
{
	struct run r = m->runs[queue_key[0] - 1];
	struct err err = { "" };
	struct str key = str_of(queue_key + 1);

	r.arena = a;
	r.now = m->config.clock->wall(m->config.clock);
	int ret = r.row->reconcile(&r, key, &err);

	release_held(&r);
	if (!ret) {
		workqueue_forget(queue, str_of(queue_key));
		if (r.requeue_ms)
			workqueue_add_after(queue, str_of(queue_key), r.requeue_ms);
	} else {
		if (ret != CLIENT_CONFLICT && ret != CLIENT_NOT_FOUND && !m->stopping)
			log_warn(r.row->name, STR_FMT ": %s", STR_ARG(key), err.text);
		else
			log_debug(r.row->name, STR_FMT ": %s", STR_ARG(key), err.text);
		workqueue_add_rate_limited(queue, str_of(queue_key));
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct arena *a = arena_new(0);
	char *key;

	while ((key = workqueue_get(w->queue))) {
		reconcile(w->m, w->queue, key, a);
		arena_reset(a);
		workqueue_done(w->queue, key);
		free(key);
	}
	arena_free(a);
	return NULL;
}

/* ---- parallel work ---- */
struct batch {
	parallel_fn fn;
	void *arg;
	size_t end;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t done;
	size_t next, helpers, succeeded;
	int failure;
	struct err err;
};

static void batch_work(struct batch *b)
{
	pthread_mutex_lock(&b->lock);
	while (b->next < b->end) {
		size_t i = b->next++;
		struct err err = { "" };

		pthread_mutex_unlock(&b->lock);
		int ret = b->fn(b->arg, i, &err);

		pthread_mutex_lock(&b->lock);
		if (!ret) {
			b->succeeded++;
		} else if (!b->failure) {
			b->failure = ret;
			b->err = err;
		}
	}
	pthread_mutex_unlock(&b->lock);
}

static void batch_help(void *arg)
{
	struct batch *b = arg;

	batch_work(b);
	pthread_mutex_lock(&b->lock);
	if (!--b->helpers)
		pthread_cond_signal(&b->done);
	pthread_mutex_unlock(&b->lock);
}

static size_t run_range(struct run *r, size_t from, size_t to, parallel_fn fn, void *arg,
	int *ret_failure, struct err *err)
{
	struct batch b = { .fn = fn, .arg = arg, .next = from, .end = to };

	pthread_mutex_init(&b.lock, NULL);
	pthread_cond_init(&b.done, NULL);
	b.helpers = MIN(to - from - 1, (size_t)POOL_THREADS);
	for (size_t n = b.helpers, i = 0; i < n; i++)
		pool_submit(r->m->pool, batch_help, &b);
	batch_work(&b);
	pthread_mutex_lock(&b.lock);
	while (b.helpers)
		pthread_cond_wait(&b.done, &b.lock);
	pthread_mutex_unlock(&b.lock);
	pthread_mutex_destroy(&b.lock);
	pthread_cond_destroy(&b.done);
	if (b.failure && !*ret_failure) {
		*ret_failure = b.failure;
		if (err)
			*err = b.err;
	}
	return b.succeeded;
}

size_t run_parallel(
	struct run *r, size_t n, parallel_fn fn, void *arg, int *ret_first_failure, struct err *err)
{
	*ret_first_failure = 0;
	return n ? run_range(r, 0, n, fn, arg, ret_first_failure, err) : 0;
}

size_t run_slow_start(
	struct run *r, size_t n, parallel_fn fn, void *arg, int *ret_first_failure, struct err *err)
{
	size_t done = 0;

	*ret_first_failure = 0;
	for (size_t at = 0, size = 1; at < n && !*ret_first_failure; at += size, size *= 2) {
		size = MIN(size, n - at);
		done += run_range(r, at, at + size, fn, arg, ret_first_failure, err);
	}
	return done;
}

/* ---- life ---- */
static void on_event(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct hook *h = arg;

	h->map(h->run, ev, old, now);
}

static void add_watches(struct run *r)
{
	for (size_t i = 0; i < WATCHES_MOST && r->row->watches[i].type; i++) {
		const struct type *t = r->row->watches[i].type;
		struct informer *inf = r->row->watches[i].meta_only
			? informers_get_meta(r->config->informers, t)
			: informers_get(r->config->informers, t);

		if (r->row->watches[i].map) {
			struct hook *h = &r->m->hooks[r->m->n_hooks++];

			*h = (struct hook){ r, r->row->watches[i].map };
			informer_add_handler(inf, on_event, h);
		}
	}
}

static struct str own_text(struct str s, char **owner)
{
	*owner = str_dup(s);
	return str_n(*owner, s.len);
}

int controllers_new(const struct controllers_config *c, struct controllers **ret, struct err *err)
{
	struct controllers *m = xcalloc(1, sizeof(*m));

	m->config = *c;
	if (!c->clock)
		m->config.clock = &clock_real;
	m->config.ca_pem = own_text(c->ca_pem, &m->own.ca);
	m->config.signing_ca_cert_pem = own_text(c->signing_ca_cert_pem, &m->own.signing_cert);
	m->config.signing_ca_key_pem = own_text(c->signing_ca_key_pem, &m->own.signing_key);
	m->config.cluster_cidr = m->own.cidr = c->cluster_cidr ? xstrdup(c->cluster_cidr) : NULL;
	for (size_t i = 0; i < N_QUEUES; i++)
		m->queues[i] = workqueue_new(i == BULK ? "bulk" : "urgent");
	m->events = event_recorder_new(c->client, "controllermanager", NULL);
	m->pool = pool_new("ctl", POOL_THREADS);
	for (size_t i = 0; i < N_CONTROLLERS; i++) {
		const struct controller *row = controller_rows[i];

		if (row->enabled && !row->enabled(&m->config))
			continue;
		struct run *r = &m->runs[m->n_runs];

		*r = (struct run){ .row = row,
			.m = m,
			.config = &m->config,
			.client = c->client,
			.index = (unsigned)m->n_runs++ };
		r->events =
			event_recorder_for(m->events, row->component ? row->component : row->name);
		int rc = row->init ? row->init(r, err) : 0;

		if (rc) {
			controllers_free(m);
			return err_prefix(err, rc, "controller %s", row->name);
		}
		add_watches(r);
	}
	*ret = m;
	return 0;
}

int controllers_start(struct controllers *m, struct err *err)
{
	if (!informers_wait_synced(m->config.informers, SYNC_TIMEOUT_MS))
		return err_set(err, -ETIMEDOUT,
			"controllers: the caches did not fill within %d s; see the informers' warnings above",
			SYNC_TIMEOUT_MS / 1000);
	for (size_t i = 0; i < m->n_runs; i++)
		if (m->runs[i].row->start)
			m->runs[i].row->start(&m->runs[i]);
	for (size_t q = 0; q < N_QUEUES; q++)
		for (unsigned i = 0; i < workers_of[q]; i++) {
			struct worker *w = &m->workers[m->n_workers];

			w->m = m;
			w->queue = m->queues[q];
			int r = thread_start(&w->thread, "controller", work, w);

			if (r)
				return err_errno(err, r, "start a controller's worker");
			m->n_workers++;
		}
	return 0;
}

void controllers_stop(struct controllers *m)
{
	m->stopping = true;
	for (size_t i = 0; i < N_QUEUES; i++)
		workqueue_stop(m->queues[i]);
	for (size_t i = 0; i < m->n_workers; i++)
		pthread_join(m->workers[i].thread, NULL);
	m->n_workers = 0;
}

void controllers_free(struct controllers *m)
{
	if (!m)
		return;
	controllers_stop(m);
	pool_free(m->pool);
	for (size_t i = 0; i < m->n_runs; i++) {
		if (m->runs[i].row->deinit)
			m->runs[i].row->deinit(&m->runs[i]);
		event_recorder_free(m->runs[i].events);
	}
	event_recorder_free(m->events);
	for (size_t i = 0; i < N_QUEUES; i++)
		workqueue_free(m->queues[i]);
	free(m->own.ca);
	free(m->own.signing_cert);
	free(m->own.signing_key);
	free(m->own.cidr);
	free(m);
}
