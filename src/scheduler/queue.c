/* The pods that wait: active ones by priority, then age; backed-off ones by time; refused ones stand in no heap until an event of a plugin
 * that refused them. */
#include "scheduler/internal.h"

#define BACKOFF_FIRST_NS 1000000000ULL
#define BACKOFF_MAX_NS 10000000000ULL

static bool active_less(const struct heap_node *a, const struct heap_node *b)
{
	const struct sched_pod *x = container_of(a, const struct sched_pod, active),
			       *y = container_of(b, const struct sched_pod, active);

	return x->priority != y->priority ? x->priority > y->priority : x->queued_at < y->queued_at;
}

static bool backoff_less(const struct heap_node *a, const struct heap_node *b)
{
	return container_of(a, const struct sched_pod, backoff)->ready_at_ns <
		container_of(b, const struct sched_pod, backoff)->ready_at_ns;
}

void queue_init(struct queue *q)
{
	*q = (struct queue){ .active = { .less = active_less },
		.backoff = { .less = backoff_less } };
	list_init(&q->parked);
}

void queue_deinit(struct queue *q)
{
	heap_deinit(&q->active);
	heap_deinit(&q->backoff);
}

void queue_add(struct queue *q, struct sched_pod *p)
{
	heap_remove(&q->backoff, &p->backoff);
	list_remove(&p->parked);
	p->place = POD_ACTIVE;
	if (!p->queued_at)
		p->queued_at = ++q->next;
	heap_update(&q->active, &p->active);
}

void queue_remove(struct queue *q, struct sched_pod *p)
{
	heap_remove(&q->active, &p->active);
	heap_remove(&q->backoff, &p->backoff);
	list_remove(&p->parked);
}

struct sched_pod *queue_pop(struct queue *q)
{
	struct heap_node *n = heap_pop(&q->active);

	return n ? container_of(n, struct sched_pod, active) : NULL;
}

uint64_t backoff_ns(uint32_t attempts)
{
	uint64_t ns = BACKOFF_FIRST_NS;

	while (attempts-- > 1 && ns < BACKOFF_MAX_NS)
		ns *= 2;
	return MIN(ns, BACKOFF_MAX_NS);
}

void queue_park(struct queue *q, struct sched_pod *p, uint32_t refused_by)
{
	p->place = POD_UNSCHEDULABLE;
	p->refused_by = refused_by;
	p->woken_by = refused_by ? 0 : ~0U; /* failed for another reason, as in a lost binding */
	for (size_t i = 0; i < n_plugins; i++)
		if (refused_by >> i & 1)
			p->woken_by |= plugins[i]->events;
	list_insert(&q->parked, &p->parked);
}

void queue_wake(struct queue *q, struct sched_pod *p, uint32_t events, uint64_t now_ns)
{
	if (p->place != POD_UNSCHEDULABLE || (p->refused_by && !(p->woken_by & events)))
		return;
	if (p->ready_at_ns <= now_ns) {
		queue_add(q, p);
		return;
	}
	list_remove(&p->parked);
	p->place = POD_BACKOFF;
	heap_update(&q->backoff, &p->backoff);
}

void queue_wake_all(struct queue *q, uint32_t events, uint64_t now_ns)
{
	list_for_each(it, &q->parked)
		queue_wake(q, list_entry(it, struct sched_pod, parked), events, now_ns);
}

uint64_t queue_expire(struct queue *q, uint64_t now_ns)
{
	struct heap_node *n;

	while ((n = heap_peek(&q->backoff))) {
		struct sched_pod *p = container_of(n, struct sched_pod, backoff);

		if (p->ready_at_ns > now_ns)
			return p->ready_at_ns;
		queue_add(q, p);
	}
	return 0;
}
