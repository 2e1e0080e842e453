/* One thread on which a write is prepared again when its object changed meanwhile: the store's writer must not do it, and the caller's
 * thread has gone on. Idle it sleeps; it is started with the first use. While objects are there that expire, it looks for them every
 * few minutes. */
#include <time.h>

#include "registry/internal.h"

enum { AGE_PERIOD_S = 150 };

struct retry_item {
	struct retry_item *next;
	struct write *w;
};
struct retry_queue {
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t wake;
	struct retry_item *first, **last;
	pthread_t thread;
	bool started, stop;
	bool ages; /* objects that expire may be there */
	struct registry *r;
};

struct retry_queue *retry_new(struct registry *r)
{
	struct retry_queue *q = xcalloc(1, sizeof(*q));
	q->r = r;
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&q->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	q->last = &q->first;
	return q;
}

/* false: it is time to look for what has expired. */
static bool wait_for_work(struct retry_queue *q)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += AGE_PERIOD_S;
	while (!q->first && !q->stop) {
		if (!q->ages)
			pthread_cond_wait(&q->wake, &q->lock);
		else if (pthread_cond_timedwait(&q->wake, &q->lock, &until) == ETIMEDOUT)
			return false;
	}
	return true;
}

static void *loop(void *arg)
{
	struct retry_queue *q = arg;
	pthread_mutex_lock(&q->lock);
	for (;;) {
		if (!wait_for_work(q)) {
			pthread_mutex_unlock(&q->lock);
			bool left = registry_expire(q->r);
			pthread_mutex_lock(&q->lock);
			q->ages = left;
			continue;
		}
		struct retry_item *it = q->first;
		if (!it)
			break;
		q->first = it->next;
		if (!q->first)
			q->last = &q->first;
		pthread_mutex_unlock(&q->lock);
		it->w->run(it->w);
		free(it);
		pthread_mutex_lock(&q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

static void start(struct retry_queue *q)
{
	pthread_attr_t at;
	pthread_attr_init(&at);
	pthread_attr_setstacksize(&at, 512 * 1024);
	int rc = pthread_create(&q->thread, &at, loop, q);
	pthread_attr_destroy(&at);
	if (rc) {
		log_error("registry", "no thread for writes that must be tried again: %s",
			strerror(rc));
		abort();
	}
	q->started = true;
}

void retry_push(struct retry_queue *q, struct write *w)
{
	struct retry_item *it = xcalloc(1, sizeof(*it));
	it->w = w;
	pthread_mutex_lock(&q->lock);
	if (!q->started)
		start(q);
	*q->last = it;
	q->last = &it->next;
	pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
}

void retry_watch_age(struct retry_queue *q)
{
	if (store_is_shared(q->r->store))
		return; /* there they end with a lease */
	pthread_mutex_lock(&q->lock);
	if (!q->ages) {
		q->ages = true;
		if (!q->started)
			start(q);
		pthread_cond_signal(&q->wake);
	}
	pthread_mutex_unlock(&q->lock);
}

void retry_free(struct retry_queue *q)
{
	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	q->stop = true;
	pthread_cond_signal(&q->wake);
	pthread_mutex_unlock(&q->lock);
	if (q->started)
		pthread_join(q->thread, NULL);
	pthread_cond_destroy(&q->wake);
	pthread_mutex_destroy(&q->lock);
	free(q);
}
