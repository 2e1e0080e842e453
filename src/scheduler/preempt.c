/* Which pods of lower priority would have to go so that a refused pod fits, and from which node. Upstream: the DefaultPreemption plugin.
 *
 * 1. Only counted, nothing is done here: pods are taken off the node arrays, tried, and put back.
 * 2. First all pods of lower priority are off; then each comes back while the pod still fits: those whose disruption budget would be broken
 *    first, the more important first. What cannot come back is a victim.
 * 3. Among nodes: fewest broken budgets, then the lowest of the highest victims' priorities, the smallest sum of priorities, the fewest
 *    victims, the latest start of the most important ones. */
#include "scheduler/internal.h"

#define CANDIDATES_LEAST 100

struct candidate {
	size_t node, n, broken;
	struct sched_pod **victims;
	int64_t sum;
	int32_t highest;
	struct timestamp started; /* the earliest of the highest */
};

static bool fits(struct nodes *t, const struct core_v1_pod *pod, const struct requests *q,
	const struct pod_terms *terms, size_t node, bool preemptable, uint64_t *set, size_t words)
{
	struct state st = {
		.nodes = t, .pod = pod, .requests = q, .terms = terms, .words = words, .fits = set
	};
	struct refusals r = { 0 };

	set[node / 64] |= 1ULL << (node % 64);
	for (size_t i = 0; i < n_plugins && bit_test(set, node); i++)
		if (plugins[i]->filter && plugins[i]->preemptable == preemptable)
			plugins[i]->filter(&st, &r);
	bool yes = bit_test(set, node);

	bit_clear(set, node);
	return yes;
}

static const struct core_v1_pod *pod_of(const struct sched_pod *p)
{
	return p->object->obj;
}

static int important_first(const void *pa, const void *pb)
{
	const struct sched_pod *a = *(struct sched_pod *const *)pa,
			       *b = *(struct sched_pod *const *)pb;

	if (a->priority != b->priority)
		return a->priority > b->priority ? -1 : 1;
	return time_cmp(pod_of(a)->status.start_time, pod_of(b)->status.start_time);
}

/* Whether letting it go breaks a budget; counts it against those that it is under. */
static bool breaks_budget(struct budget *budgets, size_t n, const struct sched_pod *p)
{
	bool breaks = false;

	for (size_t i = 0; i < n; i++) {
		struct budget *b = &budgets[i];
		bool gone = false;

		if (!str_eq(b->pdb->metadata.namespace, pod_of(p)->metadata.namespace) ||
			!pod_of(p)->metadata.labels.len ||
			!selector_matches(b->selector, &pod_of(p)->metadata.labels))
			continue;
		LIST_EACH(d, &b->pdb->status.disrupted_pods)
			gone |= str_eq(d->key, pod_of(p)->metadata.name);
		if (!gone && --b->left < 0)
			breaks = true;
	}
	return breaks;
}

static void judge(struct candidate *c)
{
	if (c->n)
		qsort(c->victims, c->n, sizeof(*c->victims), important_first);
	for (size_t i = 0; i < c->n; i++)
		c->sum += (int64_t)c->victims[i]->priority + INT32_MAX + 1LL;
	if (c->n) {
		c->highest = c->victims[0]->priority;
		c->started = pod_of(c->victims[0])->status.start_time;
	}
}

/* false: not even without all pods of lower priority, or there are none. */
static bool try_node(
	struct preempting *w, size_t node, uint64_t *set, size_t words, struct candidate *ret)
{
	struct nodes *t = w->nodes;
	size_t n = 0, kept = 0;
	int32_t lowest = INT32_MAX;
	CLEAN_FREE struct sched_pod **lower = xcalloc(t->placed[node].len + 1, sizeof(*lower));
	CLEAN_FREE bool *breaks = NULL;

	for (size_t i = 0; i < t->placed[node].len; i++) {
		struct sched_pod *p = t->placed[node].items[i];

		lowest = MIN(lowest, p->priority);
		if (p->priority < w->priority && !p->is_nominated)
			lower[n++] = p;
	}
	t->lowest[node] = lowest;
	if (!n)
		return false;
	for (size_t i = 0; i < n; i++)
		nodes_place(t, lower[i], node, -1);
	bool ok = fits(t, w->pod, w->requests, w->terms, node, true, set, words);

	qsort(lower, n, sizeof(*lower), important_first);
	for (size_t i = 0; i < w->n_budgets; i++)
		w->budgets[i].left = w->budgets[i].pdb->status.disruptions_allowed;
	breaks = xcalloc(n, sizeof(*breaks));
	for (size_t i = 0; ok && i < n; i++)
		breaks[i] = breaks_budget(w->budgets, w->n_budgets, lower[i]);
	*ret = (struct candidate){ .node = node, .victims = xcalloc(n, sizeof(*lower)) };
	for (int turn = 1; turn >= 0; turn--)
		for (size_t i = 0; i < n; i++) {
			if (breaks[i] != turn)
				continue;
			nodes_place(t, lower[i], node, 1);
			if (!ok || fits(t, w->pod, w->requests, w->terms, node, true, set, words)) {
				kept++;
				continue;
			}
			nodes_place(t, lower[i], node, -1);
			ret->victims[ret->n++] = lower[i];
			ret->broken += breaks[i];
		}
	for (size_t i = 0; i < ret->n; i++)
		nodes_place(t, ret->victims[i], node, 1);
	if (!ok || !ret->n) {
		free(TAKE(ret->victims));
		return false;
	}
	judge(ret);
	return true;
}

static bool better(const struct candidate *a, const struct candidate *b)
{
	if (a->broken != b->broken)
		return a->broken < b->broken;
	if (a->highest != b->highest)
		return a->highest < b->highest;
	if (a->sum != b->sum)
		return a->sum < b->sum;
	if (a->n != b->n)
		return a->n < b->n;
	return time_cmp(a->started, b->started) > 0;
}

size_t preempt(struct preempting *w, uint64_t *seed, struct sched_pod ***ret_victims, size_t *ret_n)
{
	struct nodes *t = w->nodes;
	size_t words = t->n / 64 + 1, found = 0, most = MAX((size_t)CANDIDATES_LEAST, t->n / 10),
	       first = t->n ? next_random(seed) % t->n : 0;
	CLEAN_FREE uint64_t *set = xcalloc(words, sizeof(*set));
	struct candidate best = { .node = NO_NODE };

	for (size_t k = 0; k < t->n && found < most; k++) {
		size_t i = (first + k) % t->n;
		struct candidate c;

		if (!t->object[i] || t->lowest[i] >= w->priority)
			continue;
		if (!fits(t, w->pod, w->requests, w->terms, i, false, set, words) ||
			!try_node(w, i, set, words, &c))
			continue;
		found++;
		if (best.node == NO_NODE || better(&c, &best)) {
			free(best.victims);
			best = c;
		} else {
			free(c.victims);
		}
	}
	*ret_victims = best.victims;
	*ret_n = best.n;
	return best.node;
}
