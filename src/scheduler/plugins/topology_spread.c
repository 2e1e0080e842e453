/* PodTopologySpread: how uneven the pods of a selector may stand over the values of a node label. Counters only (matchers.c). */
#include <math.h>

#include "scheduler/internal.h"

static const struct core_v1_node *node_at(const struct state *st, size_t i)
{
	return st->nodes->object[i]->obj;
}

/* Nodes that count for a constraint: they have the keys of all of its kind, and the pod could go there as far as its policies say. */
static uint64_t *eligible(const struct state *st, const struct spread *s)
{
	static const char *const hard[] = { "NoSchedule", "NoExecute", NULL };
	uint64_t *set = xcalloc(st->words, sizeof(*set));
	const struct nodes *t = st->nodes;

	for (size_t i = 0; i < t->n; i++) {
		bool yes = t->object[i];

		for (size_t k = 0; yes && k < st->terms->n_spreads; k++)
			yes = st->terms->spreads[k].hard != s->hard ||
				t->topologies[st->terms->spreads[k].topology].domain[i] >= 0;
		if (yes && !s->any_affinity)
			yes = pod_node_affinity_matches(&st->pod->spec,
				&node_at(st, i)->metadata.labels, str_of(t->name[i]));
		if (yes && s->heed_taints && t->tainted[i])
			yes = !taints_untolerated(
				&node_at(st, i)->spec.taints, &st->pod->spec.tolerations, hard);
		if (yes)
			set[i / 64] |= 1ULL << (i % 64);
	}
	return set;
}

/* The fewest pods in any domain that counts; 0 when there are fewer domains than the constraint wants. */
static int32_t fewest(
	const struct state *st, const struct spread *s, const uint64_t *set, const int32_t *sums)
{
	const struct topology *to = &st->nodes->topologies[s->topology];
	CLEAN_FREE uint8_t *seen = xcalloc((size_t)to->n + 1, 1);
	int32_t least = INT32_MAX, domains = 0;

	for (size_t i = 0; i < st->nodes->n; i++)
		if (bit_test(set, i) && !seen[to->domain[i]]) {
			seen[to->domain[i]] = 1;
			domains++;
			least = MIN(least, sums[to->domain[i]]);
		}
	return domains < s->min_domains || !domains ? 0 : least;
}

static void filter_one(struct state *st, struct refusals *r, const struct spread *s)
{
	const struct topology *to = &st->nodes->topologies[s->topology];
	CLEAN_FREE uint64_t *set = eligible(st, s);
	CLEAN_FREE int32_t *sums =
		topology_sums(st->nodes, s->topology, matcher_counts(s->matcher), set);
	int32_t least = fewest(st, s, set, sums);

	EACH_FIT(i, st) {
		if (to->domain[i] < 0)
			refuse(r,
				"node(s) didn't match pod topology spread constraints (missing required label)");
		else if (sums[to->domain[i]] + s->self - least > s->max_skew)
			refuse(r, "node(s) didn't match pod topology spread constraints");
		else
			continue;
		bit_clear(st->fits, i);
	}
}

static void filter(struct state *st, struct refusals *r)
{
	for (size_t i = 0; st->terms && i < st->terms->n_spreads; i++)
		if (st->terms->spreads[i].hard)
			filter_one(st, r, &st->terms->spreads[i]);
}

/* Fewer pods in the domain are better; a constraint over few domains weighs less, since its counts are larger. */
static void score(struct state *st)
{
	EACH_FIT(i, st)
		st->raw[i] = 0;
	for (size_t k = 0; k < st->terms->n_spreads; k++) {
		const struct spread *s = &st->terms->spreads[k];
		const struct topology *to = &st->nodes->topologies[s->topology];

		if (s->hard)
			continue;
		CLEAN_FREE uint64_t *set = eligible(st, s);
		CLEAN_FREE int32_t *sums =
			topology_sums(st->nodes, s->topology, matcher_counts(s->matcher), set);
		double weight = log((double)to->n + 2);

		EACH_FIT(i, st)
			st->raw[i] -= to->domain[i] < 0
				? 1e6
				: sums[to->domain[i]] * weight + s->max_skew - 1;
	}
}

static bool scores(const struct state *st)
{
	return st->terms && st->terms->n_spreads;
}

const struct plugin pod_topology_spread = { .name = "PodTopologySpread",
	.events = EVENT_NODE | EVENT_POD_GONE | EVENT_POD_PLACED | EVENT_POD_UPDATE,
	.filter = filter,
	.score = score,
	.scores = scores,
	.shape = SCORE_RANGE,
	.weight = 2,
	.preemptable = true };
