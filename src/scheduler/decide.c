/* One decision: filters in order over all nodes, then scores of those left, the highest wins, ties by chance.
 * The sentence about a refused pod is upstream's, with the plugins that refused behind it. */
#include <math.h>

#include "scheduler/internal.h"

/* clang-format off */
const struct plugin *const plugins[] = { /* cheapest first; a pod's refused_by has a bit for each */
	&node_unschedulable,
	&node_name_plugin,
	&taint_toleration,
	&node_affinity,
	&node_ports,
	&resources_fit,
	&balanced_allocation,
	&volume_binding,
	&pod_topology_spread,
	&inter_pod_affinity,
};
/* clang-format on */
const size_t n_plugins = ARRAY_LEN(plugins);
_Static_assert(ARRAY_LEN(plugins) <= 32, "refused_by has 32 bits");

void refuse(struct refusals *r, const char *reason)
{
	for (size_t i = 0; i < r->len; i++)
		if (!strcmp(r->reasons[i].text, reason)) {
			r->reasons[i].n++;
			return;
		}
	if (r->len == REASONS_MAX)
		return;
	strncpy(r->reasons[r->len].text, reason, sizeof(r->reasons[0].text) - 1);
	r->reasons[r->len++].n = 1;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable." sorted by text, as upstream does. */
static char *explain(const struct refusals *r, size_t present, const size_t *refused)
{
	char *lines[REASONS_MAX];
	struct buf b = { 0 };
	const char *sep = " ";

	if (!present) {
		buf_addz(&b, "no nodes available to schedule pods");
		return buf_take(&b);
	}
	buf_addf(&b, "0/%zu nodes are available:", present);
	for (size_t i = 0; i < r->len; i++)
		lines[i] = xasprintf("%zu %s", r->reasons[i].n, r->reasons[i].text);
	qsort(lines, r->len, sizeof(*lines), by_text);
	for (size_t i = 0; i < r->len; i++) {
		buf_addf(&b, "%s%s", sep, lines[i]);
		sep = ", ";
		free(lines[i]);
	}
	buf_addz(&b, ". Refused by");
	sep = " ";
	for (size_t i = 0; i < n_plugins; i++)
		if (refused[i]) {
			buf_addf(&b, "%s%s: %zu", sep, plugins[i]->name, refused[i]);
			sep = ", ";
		}
	buf_addc(&b, '.');
	return buf_take(&b);
}

static size_t count_bits(const uint64_t *set, size_t words)
{
	size_t n = 0;

	for (size_t i = 0; i < words; i++)
		n += (size_t)__builtin_popcountll(set[i]);
	return n;
}

static void add_scores(struct state *st, const struct plugin *p)
{
	double highest = 0, lowest = p->shape == SCORE_RANGE ? INFINITY : 0;

	p->score(st);
	if (p->shape == SCORE_RANGE)
		highest = -INFINITY;
	EACH_FIT(i, st) {
		highest = MAX(highest, st->raw[i]);
		lowest = MIN(lowest, st->raw[i]);
	}
	EACH_FIT(i, st) {
		double s = st->raw[i];

		if (p->shape == SCORE_RANGE)
			s = highest > lowest ? (s - lowest) * 100 / (highest - lowest) : 0;
		else if (p->shape != SCORE_PLAIN)
			s = highest > 0 ? s * 100 / highest : 0;
		if (p->shape == SCORE_REVERSE)
			s = 100 - s;
		st->score[i] += s * p->weight;
	}
}

uint64_t next_random(uint64_t *seed)
{
	/* xorshift64: spread, not secrecy */
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Whether node i is a better choice than `best`: by score, then by fewer pods, so that the small pods of one controller spread over idle nodes. */
static bool better(const struct state *st, size_t i, size_t best)
{
	if (st->score[i] != st->score[best])
		return st->score[i] > st->score[best];
	return st->nodes->pods[i] < st->nodes->pods[best];
}

/* The best node; among equals each with the same chance. */
static size_t pick(const struct state *st, uint64_t *seed)
{
	size_t best = NO_NODE, ties = 0;

	EACH_FIT(i, st) {
		if (best == NO_NODE || better(st, i, best)) {
			best = i;
			ties = 1;
		} else if (!better(st, best, i) && next_random(seed) % ++ties == 0) {
			best = i;
		}
	}
	return best;
}

void decide(struct nodes *nodes, const struct core_v1_pod *pod, const struct requests *q,
	const struct pod_terms *terms, uint64_t *seed, struct verdict *ret)
{
	size_t words = nodes->n / 64 + 1, refused[32] = { 0 }, left, present;
	CLEAN_FREE uint64_t *fits = xcalloc(words, sizeof(*fits));
	CLEAN_FREE double *score = xcalloc(nodes->n + 1, sizeof(*score)),
			  *raw = xcalloc(nodes->n + 1, sizeof(*raw));
	struct state st = { nodes, pod, q, terms, words, fits, score, raw };
	struct refusals r = { 0 };

	*ret = (struct verdict){ .node = NO_NODE };
	for (size_t i = 0; i < nodes->n; i++)
		if (nodes->object[i])
			fits[i / 64] |= 1ULL << (i % 64);
	present = left = count_bits(fits, words);
	for (size_t i = 0; i < n_plugins && left; i++) {
		size_t before = left;

		if (!plugins[i]->filter)
			continue;
		plugins[i]->filter(&st, &r);
		left = count_bits(fits, words);
		refused[i] = before - left;
		if (refused[i])
			ret->refused_by |= 1U << i;
	}
	if (!left) {
		/* Without nodes only a node helps; every plugin that knows nodes says so. */
		if (!present)
			ret->refused_by = (1U << n_plugins) - 1;
		ret->message = explain(&r, present, refused);
		return;
	}
	if (left > 1)
		for (size_t i = 0; i < n_plugins; i++)
			if (plugins[i]->score && (!plugins[i]->scores || plugins[i]->scores(&st)))
				add_scores(&st, plugins[i]);
	ret->node = pick(&st, seed);
}
