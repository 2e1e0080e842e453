/* Where a pod may stand: selectors, affinity, spreading, and what a container may do to its machine. Upstream: core validation. */
#include "registry/kinds/kinds.h"

/* ---- label selectors ---- */

static void check_requirement(
	const struct meta_v1_label_selector_requirement *r, const struct at *at, struct causes *cs)
{
	bool sets = str_eqz(r->operator, "In") || str_eqz(r->operator, "NotIn");
	bool exists = str_eqz(r->operator, "Exists") || str_eqz(r->operator, "DoesNotExist");
	const char *bad = valid_label_key(r->key);
	if (sets && !r->values.len)
		REQUIRED(cs, AT(at, "values"),
			"must be specified when `operator` is 'In' or 'NotIn'");
	else if (exists && r->values.len)
		FORBIDDEN(cs, AT(at, "values"),
			"may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
	else if (!sets && !exists && r->operator.len)
		INVALID(cs, AT(at, "operator"), r->operator, "not a valid selector operator");
	if (r->key.len && bad)
		INVALID(cs, AT(at, "key"), r->key, bad);
	for (size_t i = 0; i < r->values.len; i++)
		if ((bad = valid_label_value(r->values.items[i])))
			INVALID(cs, AT_I(at, "values", i), r->values.items[i], bad);
}

void label_selector_validate(
	const struct meta_v1_label_selector *s, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	if (!s)
		return;
	if (s->match_labels.len)
		meta_validate_labels(
			&s->match_labels, at_text(AT(at, "matchLabels"), cs->arena), cs);
	LIST_EACH(r, &s->match_expressions)
		check_requirement(r, AT_I(at, "matchExpressions", i++), cs);
}

/* ---- node affinity ---- */

static void check_node_expression(
	const struct core_v1_node_selector_requirement *r, const struct at *at, struct causes *cs)
{
	const char *bad;
	if (str_eqz(r->operator, "In") || str_eqz(r->operator, "NotIn")) {
		if (!r->values.len)
			REQUIRED(cs, AT(at, "values"),
				"must be specified when `operator` is 'In' or 'NotIn'");
	} else if (str_eqz(r->operator, "Exists") || str_eqz(r->operator, "DoesNotExist")) {
		if (r->values.len)
			FORBIDDEN(cs, AT(at, "values"),
				"may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
	} else if (str_eqz(r->operator, "Gt") || str_eqz(r->operator, "Lt")) {
		if (r->values.len != 1)
			REQUIRED(cs, AT(at, "values"),
				"must be specified single value when `operator` is 'Lt' or 'Gt'");
	} else if (r->operator.len) {
		INVALID(cs, AT(at, "operator"), r->operator, "not a valid selector operator");
	}
	if (r->key.len && (bad = valid_label_key(r->key)))
		INVALID(cs, AT(at, "key"), r->key, bad);
}

static void check_node_field(
	const struct core_v1_node_selector_requirement *r, const struct at *at, struct causes *cs)
{
	if (!str_eqz(r->operator, "In") && !str_eqz(r->operator, "NotIn"))
		INVALID(cs, AT(at, "operator"), shown(r->operator),
			"not a valid selector operator");
	else if (r->values.len != 1)
		REQUIRED(cs, AT(at, "values"),
			"must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
	if (!str_eqz(r->key, "metadata.name"))
		INVALID(cs, AT(at, "key"), shown(r->key), "not a valid field selector key");
}

static void check_node_term(
	const struct core_v1_node_selector_term *t, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(r, &t->match_expressions)
		check_node_expression(r, AT_I(at, "matchExpressions", i++), cs);
	i = 0;
	LIST_EACH(r, &t->match_fields)
		check_node_field(r, AT_I(at, "matchFields", i++), cs);
}

#define WHEN_REQUIRED "requiredDuringSchedulingIgnoredDuringExecution"
#define WHEN_PREFERRED "preferredDuringSchedulingIgnoredDuringExecution"

static void check_node_affinity(
	const struct core_v1_node_affinity *n, const struct at *at, struct causes *cs)
{
	const struct core_v1_node_selector *must =
		n->required_during_scheduling_ignored_during_execution;
	size_t i = 0;
	if (must && !must->node_selector_terms.len)
		REQUIRED(cs, AT(AT(at, WHEN_REQUIRED), "nodeSelectorTerms"),
			"must have at least one node selector term");
	if (must)
		LIST_EACH(t, &must->node_selector_terms)
			check_node_term(
				t, AT_I(AT(at, WHEN_REQUIRED), "nodeSelectorTerms", i++), cs);
	i = 0;
	LIST_EACH(p, &n->preferred_during_scheduling_ignored_during_execution)
		check_node_term(
			&p->preference, AT(AT_I(at, WHEN_PREFERRED, i++), "preference"), cs);
}

/* ---- pod affinity ---- */

static void check_pod_term(
	const struct core_v1_pod_affinity_term *t, const struct at *at, struct causes *cs)
{
	const char *bad;
	label_selector_validate(t->label_selector, AT(at, "labelSelector"), cs);
	label_selector_validate(t->namespace_selector, AT(at, "namespaceSelector"), cs);
	for (size_t i = 0; i < t->namespaces.len; i++)
		if ((bad = valid_dns_label(t->namespaces.items[i])))
			INVALID(cs, AT_I(at, "namespaces", i), t->namespaces.items[i], bad);
	if (t->topology_key.len && (bad = valid_label_key(t->topology_key)))
		INVALID(cs, AT(at, "topologyKey"), t->topology_key, bad);
}

static void check_pod_affinity(
	const struct core_v1_pod_affinity *p, const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(t, &p->required_during_scheduling_ignored_during_execution)
		check_pod_term(t, AT_I(at, WHEN_REQUIRED, i++), cs);
	i = 0;
	LIST_EACH(t, &p->preferred_during_scheduling_ignored_during_execution)
		check_pod_term(&t->pod_affinity_term,
			AT(AT_I(at, WHEN_PREFERRED, i++), "podAffinityTerm"), cs);
}
_Static_assert(sizeof(struct core_v1_pod_affinity) == sizeof(struct core_v1_pod_anti_affinity),
	"one check serves both");

void pod_placement_validate(
	const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	const struct core_v1_affinity *a = s->affinity;
	size_t i = 0;
	if (a && a->node_affinity)
		check_node_affinity(a->node_affinity, AT(AT(at, "affinity"), "nodeAffinity"), cs);
	if (a && a->pod_affinity)
		check_pod_affinity(a->pod_affinity, AT(AT(at, "affinity"), "podAffinity"), cs);
	if (a && a->pod_anti_affinity)
		check_pod_affinity((const struct core_v1_pod_affinity *)a->pod_anti_affinity,
			AT(AT(at, "affinity"), "podAntiAffinity"), cs);
	LIST_EACH(c, &s->topology_spread_constraints) {
		const struct at *here = AT_I(at, "topologySpreadConstraints", i++);
		label_selector_validate(c->label_selector, AT(here, "labelSelector"), cs);
		for (const struct core_v1_topology_spread_constraint *o =
				s->topology_spread_constraints.items;
			o < c; o++)
			if (str_eq(o->topology_key, c->topology_key) &&
				str_eq(o->when_unsatisfiable, c->when_unsatisfiable)) {
				DUPLICATE(cs, AT(here, "{topologyKey, whenUnsatisfiable}"),
					arena_fmt(cs->arena, "{" STR_FMT ", " STR_FMT "}",
						STR_ARG(c->topology_key),
						STR_ARG(c->when_unsatisfiable)));
				break;
			}
		if (c->min_domains.set && !str_eqz(c->when_unsatisfiable, "DoNotSchedule"))
			cause_at(cs, CAUSE_INVALID, AT(here, "minDomains"), STR_NONE,
				"%d: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not " STR_FMT,
				c->min_domains.value, STR_ARG(c->when_unsatisfiable));
	}
}

/* ---- what it may do to its machine ---- */

static void check_seccomp(
	const struct core_v1_seccomp_profile *p, const struct at *at, struct causes *cs)
{
	if (!p)
		return;
	bool local = str_eqz(p->type, "Localhost");
	if (local && !p->localhost_profile.len)
		REQUIRED(cs, AT(at, "localhostProfile"),
			"must be set when seccomp type is Localhost");
	else if (!local && p->localhost_profile.p)
		INVALID(cs, AT(at, "localhostProfile"), p->localhost_profile,
			"can only be set when seccomp type is Localhost");
	else if (local && path_check(p->localhost_profile, true))
		INVALID(cs, AT(at, "localhostProfile"), p->localhost_profile,
			path_check(p->localhost_profile, true));
}

void container_security_validate(
	const struct core_v1_container *c, const struct at *at, struct causes *cs)
{
	const struct core_v1_security_context *s = c->security_context;
	size_t i = 0;
	LIST_EACH(m, &c->volume_mounts) {
		if (str_eqz(m->mount_propagation, "Bidirectional") && !(s && s->privileged.value))
			FORBIDDEN(cs, AT(AT_I(at, "volumeMounts", i), "mountPropagation"),
				"Bidirectional mount propagation is available only to privileged containers");
		i++;
	}
	if (!s)
		return;
	const struct at *here = AT(at, "securityContext");
	check_seccomp(s->seccomp_profile, AT(here, "seccompProfile"), cs);
	if (!s->allow_privilege_escalation.set || s->allow_privilege_escalation.value)
		return;
	if (s->privileged.value)
		cause_at(cs, CAUSE_INVALID, here, STR_NONE,
			"{}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
	for (size_t k = 0; s->capabilities && k < s->capabilities->add.len; k++)
		if (str_eqz(s->capabilities->add.items[k], "CAP_SYS_ADMIN"))
			cause_at(cs, CAUSE_INVALID, here, STR_NONE,
				"{}: cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
}

void pod_security_validate(const struct core_v1_pod_spec *s, const struct at *at, struct causes *cs)
{
	if (s->security_context)
		check_seccomp(s->security_context->seccomp_profile,
			AT(AT(at, "securityContext"), "seccompProfile"), cs);
	if (s->host_pid && s->share_process_namespace.value)
		cause_at(cs, CAUSE_INVALID, AT(at, "shareProcessNamespace"), STR_NONE,
			"true: ShareProcessNamespace and HostPID cannot both be enabled");
}
