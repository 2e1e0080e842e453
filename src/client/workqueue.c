/* A work queue of keys. Upstream: client-go's delaying and rate limiting queues.
 *
 * 1. A key that waits is in the queue once, however often it was added.
 * 2. A key being worked on is never handed to a second worker; added meanwhile, it comes back when done.
 * 3. A key added for later keeps the earliest moment asked for.
 * 4. Of all waiting workers one at most sleeps with a deadline (the watchman); with nothing to come later, none does. */
#include "client/internal.h"

#define BACKOFF_FIRST_NS (5 * 1000000ull)
#define BACKOFF_MOST_NS (1000 * 1000000000ull)
#define AFTER_MOST_MS \
	(366 * 86400 * 1000ull) /* what is later would be a small number again, in nanoseconds */

struct item {
	struct list in_queue; /* empty: not in it */
	struct heap_node later;
	uint64_t due_ns;
	bool dirty, processing;
	unsigned failures;
	struct str key; /* right behind this struct */
};

struct workqueue {
	pthread_mutex_t lock; /* all below */
	pthread_cond_t ready;
	struct map items;
	struct list queue;
	size_t len;
	struct heap later;
	bool watchman, stopped;
};

static bool due_before(const struct heap_node *a, const struct heap_node *b)
{
	return container_of(a, struct item, later)->due_ns <
		container_of(b, struct item, later)->due_ns;
}

struct workqueue *workqueue_new(const char *name UNUSED)
{
	struct workqueue *q = xcalloc(1, sizeof(*q));

	pthread_mutex_init(&q->lock, NULL);
	cond_init_mono(&q->ready);
	list_init(&q->queue);
	q->later.less = due_before;
	return q;
}

void workqueue_free(struct workqueue *q)
{
	if (!q)
		return;
	heap_deinit(&q->later);
	map_deinit(&q->items, free);
	pthread_cond_destroy(&q->ready);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

static struct item *item_of(struct workqueue *q, struct str key)
{
	struct item *it = map_get(&q->items, key);

	if (it)
		return it;
	it = xcalloc(1, sizeof(*it) + key.len + 1);
	memcpy(it + 1, key.p, key.len);
	it->key = str_n((char *)(it + 1), key.len);
	list_init(&it->in_queue);
	map_set(&q->items, key, it);
	return it;
}

static void drop_if_idle(struct workqueue *q, struct item *it)
{
	if (it->dirty || it->processing || it->failures || it->later.index)
		return;
	map_remove(&q->items, it->key);
	free(it);
}

static void add_locked(struct workqueue *q, struct item *it)
{
	if (it->dirty)
		return;
	it->dirty = true;
	if (it->processing)
		return;
	list_insert(&q->queue, &it->in_queue);
	q->len++;
	pthread_cond_signal(&q->ready);
}

void workqueue_add(struct workqueue *q, struct str key)
{
	pthread_mutex_lock(&q->lock);
	if (!q->stopped)
		add_locked(q, item_of(q, key));
	pthread_mutex_unlock(&q->lock);
}

static void add_later_locked(struct workqueue *q, struct item *it, uint64_t due_ns)
{
	if (it->later.index && it->due_ns <= due_ns)
		return;
	it->due_ns = due_ns;
	heap_update(&q->later, &it->later);
	if (heap_peek(&q->later) == &it->later)
		pthread_cond_broadcast(
			&q->ready); /* the watchman sleeps too long, or there is none */
}

void workqueue_add_after(struct workqueue *q, struct str key, uint64_t after_ms)
{
	pthread_mutex_lock(&q->lock);
	if (!q->stopped) {
		struct item *it = item_of(q, key);

		if (after_ms)
			add_later_locked(
				q, it, mono_now_ns() + MIN(after_ms, AFTER_MOST_MS) * 1000000);
		else
			add_locked(q, it);
	}
	pthread_mutex_unlock(&q->lock);
}

void workqueue_add_rate_limited(struct workqueue *q, struct str key)
{
	pthread_mutex_lock(&q->lock);
	if (!q->stopped) {
		struct item *it = item_of(q, key);
		uint64_t wait =
			it->failures < 18 ? BACKOFF_FIRST_NS << it->failures : BACKOFF_MOST_NS;

		it->failures++;
		add_later_locked(q, it, mono_now_ns() + MIN(wait, BACKOFF_MOST_NS));
	}
	pthread_mutex_unlock(&q->lock);
}

void workqueue_forget(struct workqueue *q, struct str key)
{
	pthread_mutex_lock(&q->lock);
	struct item *it = map_get(&q->items, key);

	if (it) {
		it->failures = 0;
		drop_if_idle(q, it);
	}
	pthread_mutex_unlock(&q->lock);
}

static void move_due(struct workqueue *q)
{
	struct heap_node *n;
	uint64_t now = 0;

	while ((n = heap_peek(&q->later))) {
		struct item *it = container_of(n, struct item, later);

		if (!now)
			now = mono_now_ns();
		if (it->due_ns > now)
			return;
		heap_pop(&q->later);
		add_locked(q, it);
	}
}

char *workqueue_get(struct workqueue *q)
{
	char *key = NULL;

	pthread_mutex_lock(&q->lock);
	for (;;) {
		move_due(q);
		if (q->stopped || !list_empty(&q->queue))
			break;
		struct heap_node *n = heap_peek(&q->later);

		if (n && !q->watchman) {
			q->watchman = true;
			cond_wait_until(
				&q->ready, &q->lock, container_of(n, struct item, later)->due_ns);
			q->watchman = false;
		} else {
			pthread_cond_wait(&q->ready, &q->lock);
		}
	}
	if (!q->stopped) {
		struct item *it = list_entry(q->queue.next, struct item, in_queue);

		list_remove(&it->in_queue);
		q->len--;
		it->dirty = false;
		it->processing = true;
		key = str_dup(it->key);
		if (!q->watchman && heap_peek(&q->later))
			pthread_cond_signal(&q->ready); /* someone else takes over the watch */
	}
	pthread_mutex_unlock(&q->lock);
	return key;
}

void workqueue_done(struct workqueue *q, const char *key)
{
	pthread_mutex_lock(&q->lock);
	struct item *it = map_get(&q->items, str_of(key));

	if (it) {
		it->processing = false;
		if (it->dirty) {
			list_insert(&q->queue, &it->in_queue);
			q->len++;
			pthread_cond_signal(&q->ready);
		} else {
			drop_if_idle(q, it);
		}
	}
	pthread_mutex_unlock(&q->lock);
}

size_t workqueue_len(struct workqueue *q)
{
	pthread_mutex_lock(&q->lock);
	size_t n = q->len;

	pthread_mutex_unlock(&q->lock);
	return n;
}

void workqueue_stop(struct workqueue *q)
{
	pthread_mutex_lock(&q->lock);
	q->stopped = true;
	pthread_cond_broadcast(&q->ready);
	pthread_mutex_unlock(&q->lock);
}
