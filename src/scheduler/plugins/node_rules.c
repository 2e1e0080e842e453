/* What a node says of itself and a pod of its node: NodeUnschedulable, NodeName, TaintToleration, NodeAffinity (with nodeSelector). */
#include <stdio.h>

#include "scheduler/internal.h"

static const struct core_v1_node *node_at(const struct state *st, size_t i)
{
	return st->nodes->object[i]->obj;
}

static void unschedulable_filter(struct state *st, struct refusals *r)
{
	static const struct core_v1_taint cordon = {
		.key = { "node.kubernetes.io/unschedulable", 32 }, .effect = { "NoSchedule", 10 }
	};
	bool tolerated = false;

	LIST_EACH(t, &st->pod->spec.tolerations)
		tolerated |= toleration_tolerates(t, &cordon);
	if (tolerated)
		return;
	EACH_FIT(i, st) {
		if (st->nodes->unschedulable[i]) {
			bit_clear(st->fits, i);
			refuse(r, "node(s) were unschedulable");
		}
	}
}

const struct plugin node_unschedulable = {
	.name = "NodeUnschedulable", .events = EVENT_NODE, .filter = unschedulable_filter
};

static void name_filter(struct state *st, struct refusals *r)
{
	struct str want = st->pod->spec.node_name;

	if (!want.len)
		return;
	EACH_FIT(i, st) {
		if (!str_eqz(want, st->nodes->name[i])) {
			bit_clear(st->fits, i);
			refuse(r, "node(s) didn't match the requested node name");
		}
	}
}

const struct plugin node_name_plugin = {
	.name = "NodeName", .events = EVENT_NODE, .filter = name_filter
};

static void taint_filter(struct state *st, struct refusals *r)
{
	static const char *const hard[] = { "NoSchedule", "NoExecute", NULL };

	EACH_FIT(i, st) {
		const struct core_v1_taint *t;
		char text[128];

		if (!st->nodes->tainted[i])
			continue;
		t = taints_untolerated(
			&node_at(st, i)->spec.taints, &st->pod->spec.tolerations, hard);
		if (!t)
			continue;
		bit_clear(st->fits, i);
		snprintf(text, sizeof(text),
			"node(s) had untolerated taint {" STR_FMT ": " STR_FMT "}", STR_ARG(t->key),
			STR_ARG(t->value));
		refuse(r, text);
	}
}

static void taint_score(struct state *st)
{
	EACH_FIT(i, st) {
		double n = 0;

		if (st->nodes->tainted[i])
			LIST_EACH(taint, &node_at(st, i)->spec.taints) {
				bool covered = !str_eqz(taint->effect, "PreferNoSchedule");

				LIST_EACH(t, &st->pod->spec.tolerations)
					covered |= toleration_tolerates(t, taint);
				n += !covered;
			}
		st->raw[i] = n;
	}
}

const struct plugin taint_toleration = { .name = "TaintToleration",
	.events = EVENT_NODE | EVENT_POD_UPDATE,
	.filter = taint_filter,
	.score = taint_score,
	.shape = SCORE_REVERSE,
	.weight = 3 };

static void affinity_filter(struct state *st, struct refusals *r)
{
	const struct core_v1_pod_spec *spec = &st->pod->spec;

	if (!spec->node_selector.len && !(spec->affinity && spec->affinity->node_affinity))
		return;
	EACH_FIT(i, st) {
		if (!pod_node_affinity_matches(
			    spec, &node_at(st, i)->metadata.labels, str_of(st->nodes->name[i]))) {
			bit_clear(st->fits, i);
			refuse(r, "node(s) didn't match Pod's node affinity/selector");
		}
	}
}

static void affinity_score(struct state *st)
{
	const struct core_v1_affinity *a = st->pod->spec.affinity;

	EACH_FIT(i, st) {
		st->raw[i] = 0;
		if (a && a->node_affinity)
			LIST_EACH(term,
				&a->node_affinity
					 ->preferred_during_scheduling_ignored_during_execution)
				if (node_selector_term_matches(&term->preference,
					    &node_at(st, i)->metadata.labels,
					    str_of(st->nodes->name[i])))
					st->raw[i] += term->weight;
	}
}

const struct plugin node_affinity = { .name = "NodeAffinity",
	.events = EVENT_NODE | EVENT_POD_UPDATE,
	.filter = affinity_filter,
	.score = affinity_score,
	.shape = SCORE_NORMALIZE,
	.weight = 2 };
