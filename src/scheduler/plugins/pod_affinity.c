/* InterPodAffinity: near or far from other pods, as this pod asks and as those that are placed ask of it. Counters only (matchers.c). */
#include "scheduler/internal.h"

static int32_t domain(const struct state *st, size_t topology, size_t node)
{
	return st->nodes->topologies[topology].domain[node];
}

/* Every term wants a pod that matches them all in the node's domain. When there is none anywhere, the first of a group that asks for itself may go. */
static void near_filter(struct state *st, struct refusals *r)
{
	const struct pod_terms *p = st->terms;
	bool first = !matcher_total(p->affinity) && p->affinity_self;

	for (size_t k = 0; k < p->n_near; k++) {
		CLEAN_FREE int32_t *sums =
			topology_sums(st->nodes, p->near[k], matcher_counts(p->affinity), NULL);

		EACH_FIT(i, st) {
			int32_t d = domain(st, p->near[k], i);

			if (d >= 0 && (first || sums[d] > 0))
				continue;
			bit_clear(st->fits, i);
			refuse(r, "node(s) didn't match pod affinity rules");
		}
	}
}

static void keep_away(struct state *st, struct refusals *r, size_t topology, const int32_t *count,
	const char *why)
{
	CLEAN_FREE int32_t *sums = topology_sums(st->nodes, topology, count, NULL);

	EACH_FIT(i, st) {
		int32_t d = domain(st, topology, i);

		if (d < 0 || sums[d] <= 0)
			continue;
		bit_clear(st->fits, i);
		refuse(r, why);
	}
}

static void filter(struct state *st, struct refusals *r)
{
	const struct pod_terms *p = st->terms;
	struct both_sayings both = sayings_of(st->nodes, st->pod->metadata.namespace);

	if (p && p->too_many) {
		EACH_FIT(i, st) {
			bit_clear(st->fits, i);
			refuse(r, "Pod has too many affinity terms and spread constraints");
		}
		return;
	}
	if (p && p->affinity)
		near_filter(st, r);
	for (size_t i = 0; p && i < p->n_holds; i++) {
		const struct holding *h = p->holds[i];

		if (h->weight == HOLDING_FORBIDS && matcher_total(h->matcher))
			keep_away(st, r, h->topology, matcher_counts(h->matcher),
				"node(s) didn't match pod anti-affinity rules");
	}
	EACH_HOLDING(h, both)
	{
		if (h->weight == HOLDING_FORBIDS && h->total &&
			matcher_matches(st->nodes, h->matcher, st->pod))
			keep_away(st, r, h->topology, h->count,
				"node(s) didn't satisfy existing pods anti-affinity rules");
	}
}

static void add(struct state *st, size_t topology, const int32_t *count, double weight)
{
	CLEAN_FREE int32_t *sums = topology_sums(st->nodes, topology, count, NULL);

	EACH_FIT(i, st) {
		int32_t d = domain(st, topology, i);

		if (d >= 0)
			st->raw[i] += weight * sums[d];
	}
}

static void score(struct state *st)
{
	const struct pod_terms *p = st->terms;
	struct both_sayings both = sayings_of(st->nodes, st->pod->metadata.namespace);

	EACH_FIT(i, st)
		st->raw[i] = 0;
	for (size_t i = 0; p && i < p->n_holds; i++) {
		const struct holding *h = p->holds[i];

		if (h->weight != HOLDING_FORBIDS && h->weight != REQUIRED_WEIGHT &&
			matcher_total(h->matcher))
			add(st, h->topology, matcher_counts(h->matcher), h->weight);
	}
	EACH_HOLDING(h, both)
	{
		/* what is required of others draws with the weight 1 */
		if (h->weight != HOLDING_FORBIDS && h->total &&
			matcher_matches(st->nodes, h->matcher, st->pod))
			add(st, h->topology, h->count,
				h->weight == REQUIRED_WEIGHT ? 1 : h->weight);
	}
}

static bool scores(const struct state *st)
{
	return st->nodes->holdings.len > 0;
}

const struct plugin inter_pod_affinity = { .name = "InterPodAffinity",
	.events = EVENT_NODE | EVENT_POD_GONE | EVENT_POD_PLACED | EVENT_POD_UPDATE,
	.filter = filter,
	.score = score,
	.scores = scores,
	.shape = SCORE_RANGE,
	.weight = 2,
	.preemptable = true };
