/* See placement.h. */
#include "model/placement.h"

bool toleration_tolerates(const struct core_v1_toleration *t, const struct core_v1_taint *taint)
{
	if (t->effect.len && !str_eq(t->effect, taint->effect))
		return false;
	if (t->key.len && !str_eq(t->key, taint->key))
		return false;
	if (str_eqz(t->operator, "Exists"))
		return true;
	return t->key.len && (!t->operator.len || str_eqz(t->operator, "Equal")) &&
		str_eq(t->value, taint->value);
}

static bool effect_counts(struct str effect, const char *const *effects)
{
	for (; *effects; effects++)
		if (str_eqz(effect, *effects))
			return true;
	return false;
}

const struct core_v1_taint *taints_untolerated(const struct core_v1_taint_items *taints,
	const struct core_v1_toleration_items *tolerations, const char *const *effects)
{
	LIST_EACH(taint, taints) {
		bool covered = false;

		if (!effect_counts(taint->effect, effects))
			continue;
		LIST_EACH(t, tolerations)
			covered |= toleration_tolerates(t, taint);
		if (!covered)
			return taint;
	}
	return NULL;
}

static bool number_compares(struct str have, struct str want, bool greater)
{
	int64_t a, b;

	if (str_to_i64(have, &a) < 0 || str_to_i64(want, &b) < 0)
		return false;
	return greater ? a > b : a < b;
}

static bool requirement_matches(const struct core_v1_node_selector_requirement *q, struct str have)
{
	bool there = have.p != NULL, in = there && str_list_has(&q->values, have);

	if (str_eqz(q->operator, "In"))
		return in;
	if (str_eqz(q->operator, "NotIn"))
		return !in;
	if (str_eqz(q->operator, "Exists"))
		return there;
	if (str_eqz(q->operator, "DoesNotExist"))
		return !there;
	if (!there || q->values.len != 1)
		return false;
	if (str_eqz(q->operator, "Gt"))
		return number_compares(have, q->values.items[0], true);
	return str_eqz(q->operator, "Lt") && number_compares(have, q->values.items[0], false);
}

/* A term without requirements matches nothing. */
bool node_selector_term_matches(const struct core_v1_node_selector_term *term,
	const struct str_map *labels, struct str node_name)
{
	if (!term->match_expressions.len && !term->match_fields.len)
		return false;
	LIST_EACH(q, &term->match_expressions) {
		if (!requirement_matches(q, str_map_get(labels, q->key)))
			return false;
	}
	LIST_EACH(q, &term->match_fields) {
		if (!requirement_matches(
			    q, str_eqz(q->key, "metadata.name") ? node_name : STR_NONE))
			return false;
	}
	return true;
}

bool pod_node_affinity_matches(
	const struct core_v1_pod_spec *spec, const struct str_map *labels, struct str node_name)
{
	const struct core_v1_node_selector *required = NULL;

	LIST_EACH(want, &spec->node_selector) {
		struct str have = str_map_get(labels, want->key);

		if (!have.p || !str_eq(have, want->value))
			return false;
	}
	if (spec->affinity && spec->affinity->node_affinity)
		required = spec->affinity->node_affinity
				   ->required_during_scheduling_ignored_during_execution;
	if (!required)
		return true;
	LIST_EACH(term, &required->node_selector_terms) {
		if (node_selector_term_matches(term, labels, node_name))
			return true;
	}
	return false;
}

int64_t resource_amount(struct str resource, struct str quantity)
{
	struct quantity q;

	if (quantity_parse(quantity, &q) < 0)
		return 0;
	return str_eqz(resource, "cpu") ? quantity_milli_value(q) : quantity_value(q);
}

static int64_t amount_in(const struct str_map *m, struct str resource, int64_t missing)
{
	struct str q = str_map_get(m, resource);

	return q.p ? resource_amount(resource, q) : missing;
}

/* Sums of many stay numbers: nobody has more than 2^50 of anything, and who asks for more gets no more than who asks for that. */
#define REQUEST_MOST ((int64_t)1 << 50)

static int64_t capped_sum(int64_t a, int64_t b)
{
	return MIN(MIN(a, REQUEST_MOST) + MIN(b, REQUEST_MOST), REQUEST_MOST);
}

int64_t pod_request(const struct core_v1_pod_spec *spec, struct str resource, int64_t missing)
{
	int64_t sum = 0, sidecars = 0, init_peak = 0;

	LIST_EACH(c, &spec->containers)
		sum = capped_sum(sum, amount_in(&c->resources.requests, resource, missing));
	LIST_EACH(c, &spec->init_containers) {
		int64_t n = amount_in(&c->resources.requests, resource, missing);

		if (str_eqz(c->restart_policy, "Always"))
			sidecars = capped_sum(sidecars, n), n = 0;
		init_peak = MAX(init_peak, capped_sum(n, sidecars));
	}
	sum = MAX(capped_sum(sum, sidecars), init_peak);
	if (spec->resources)
		sum = amount_in(&spec->resources->requests, resource, sum);
	return capped_sum(sum, amount_in(&spec->overhead, resource, 0));
}

void pod_each_resource(
	const struct core_v1_pod_spec *spec, void (*fn)(void *arg, struct str resource), void *arg)
{
	const struct core_v1_container_items *lists[] = { &spec->containers,
		&spec->init_containers };

	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		LIST_EACH(c, lists[i])
			LIST_EACH(e, &c->resources.requests)
				fn(arg, e->key);
	if (spec->resources)
		LIST_EACH(e, &spec->resources->requests)
			fn(arg, e->key);
}
