/* Calls at a time. One heap, one timer of the loop; without a loop (tests, simulation) whoever moves the clock calls wakes_fire.
 * The lock guards heap, armed_ns and closed. A call that has begun cannot be cancelled: its argument must be kept alive by a reference,
 * which is why wake_set and wake_cancel say whether the entry was set. */
#include "kubelet/internal.h"

static bool sooner(const struct heap_node *a, const struct heap_node *b)
{
	return container_of(a, struct wake, node)->at_ns <
		container_of(b, struct wake, node)->at_ns;
}

static void on_timer(void *arg)
{
	wakes_fire(arg);
}

/* On the loop. */
static void arm(void *arg)
{
	struct wakes *q = arg;

	pthread_mutex_lock(&q->lock);
	struct heap_node *first = heap_peek(&q->heap);
	if (q->closed || !first) {
		q->armed_ns = UINT64_MAX;
		pthread_mutex_unlock(&q->lock);
		if (q->timer)
			timer_stop(q->timer);
		return;
	}
	uint64_t at = container_of(first, struct wake, node)->at_ns;
	uint64_t now = q->clock->mono_ns(q->clock);
	q->armed_ns = at;
	pthread_mutex_unlock(&q->lock);
	if (!q->timer)
		q->timer = timer_new(q->loop, on_timer, q);
	timer_start(q->timer, at > now ? (at - now + NS_PER_MS - 1) / NS_PER_MS : 0, 0);
}

void wakes_init(struct wakes *q, struct loop *l, const struct clock *c)
{
	*q = (struct wakes){
		.lock = PTHREAD_MUTEX_INITIALIZER, .loop = l, .clock = c, .armed_ns = UINT64_MAX
	};
	q->heap.less = sooner;
}

static void drop_timer(void *arg)
{
	struct wakes *q = arg;

	if (q->timer)
		timer_free(q->timer);
	q->timer = NULL;
}

void wakes_close(struct wakes *q)
{
	pthread_mutex_lock(&q->lock);
	q->closed = true;
	pthread_mutex_unlock(&q->lock);
	if (q->loop)
		loop_post(q->loop, drop_timer, q);
}

void wakes_deinit(struct wakes *q)
{
	heap_deinit(&q->heap);
	pthread_mutex_destroy(&q->lock);
}

static bool set(struct wakes *q, struct wake *w, uint64_t at_ns, bool only_sooner)
{
	pthread_mutex_lock(&q->lock);
	bool fresh = !w->node.index, post = false;
	if (fresh || !only_sooner || at_ns < w->at_ns) {
		w->at_ns = at_ns;
		heap_update(&q->heap, &w->node);
	}
	if (q->loop && !q->closed && w->at_ns < q->armed_ns) {
		q->armed_ns = w->at_ns;
		post = true;
	}
	pthread_mutex_unlock(&q->lock);
	if (post)
		loop_post(q->loop, arm, q);
	return fresh;
}

bool wake_set(struct wakes *q, struct wake *w, uint64_t at_ns)
{
	return set(q, w, at_ns, false);
}

bool wake_set_sooner(struct wakes *q, struct wake *w, uint64_t at_ns)
{
	return set(q, w, at_ns, true);
}

bool wake_cancel(struct wakes *q, struct wake *w)
{
	pthread_mutex_lock(&q->lock);
	bool was = w->node.index;
	heap_remove(&q->heap, &w->node);
	pthread_mutex_unlock(&q->lock);
	return was;
}

void wakes_fire(struct wakes *q)
{
	for (;;) {
		pthread_mutex_lock(&q->lock);
		struct heap_node *first = q->closed ? NULL : heap_peek(&q->heap);
		struct wake *w = first ? container_of(first, struct wake, node) : NULL;
		if (!w || w->at_ns > q->clock->mono_ns(q->clock)) {
			q->armed_ns = UINT64_MAX;
			pthread_mutex_unlock(&q->lock);
			break;
		}
		heap_pop(&q->heap);
		task_fn fn = w->fn;
		void *arg = w->arg;
		pthread_mutex_unlock(&q->lock);
		fn(arg);
	}
	if (q->loop)
		arm(q);
}
