/* See quota.h. */
#include "model/quota.h"

#include <string.h>

#define STORAGE_CLASS ".storageclass.storage.k8s.io/"

static const struct quantity none = { .nano = 0, .format = 'D' },
			     one = { .nano = 1000000000, .format = 'D' };

/* ---- scopes ---- */

static bool asks(const struct core_v1_resource_requirements *r)
{
	const struct str_map *maps[] = { &r->requests, &r->limits };
	struct quantity q;

	for (size_t i = 0; i < ARRAY_LEN(maps); i++)
		LIST_EACH(e, maps[i])
			if ((str_eqz(e->key, "cpu") || str_eqz(e->key, "memory")) &&
				quantity_parse(e->value, &q) == 0 && q.nano > 0)
				return true;
	return false;
}

static bool best_effort(const struct core_v1_pod_spec *s)
{
	LIST_EACH(c, &s->containers)
		if (asks(&c->resources))
			return false;
	LIST_EACH(c, &s->init_containers)
		if (asks(&c->resources))
			return false;
	return !s->resources || !asks(s->resources);
}

static bool elsewhere(const struct core_v1_pod_affinity_term_items *required,
	const struct core_v1_weighted_pod_affinity_term_items *preferred)
{
	LIST_EACH(t, required)
		if (t->namespaces.len || t->namespace_selector)
			return true;
	LIST_EACH(w, preferred)
		if (w->pod_affinity_term.namespaces.len || w->pod_affinity_term.namespace_selector)
			return true;
	return false;
}

static bool cross_namespace_affinity(const struct core_v1_pod_spec *s)
{
	const struct core_v1_affinity *a = s->affinity;

	return a &&
		((a->pod_affinity &&
			 elsewhere(&a->pod_affinity
					    ->required_during_scheduling_ignored_during_execution,
				 &a->pod_affinity
					  ->preferred_during_scheduling_ignored_during_execution)) ||
			(a->pod_anti_affinity &&
				elsewhere(
					&a->pod_anti_affinity
						 ->required_during_scheduling_ignored_during_execution,
					&a->pod_anti_affinity
						 ->preferred_during_scheduling_ignored_during_execution)));
}

/* The names of classes that an object has, against those that are listed. */
static bool names_fit(
	const struct str *names, size_t n, struct str operator, const struct str_list * values)
{
	bool any = false, in = false;

	for (size_t i = 0; i < n; i++) {
		any |= names[i].len > 0;
		in |= names[i].len && values && str_list_has(values, names[i]);
	}
	if (str_eqz(operator, "In"))
		return in;
	if (str_eqz(operator, "NotIn"))
		return !in;
	return str_eqz(operator, "DoesNotExist") ? !any : any;
}

static bool pod_in_scope(const struct core_v1_pod_spec *s, struct str scope, struct str operator,
	const struct str_list * values)
{
	if (str_eqz(scope, "Terminating"))
		return s->active_deadline_seconds.set;
	if (str_eqz(scope, "NotTerminating"))
		return !s->active_deadline_seconds.set;
	if (str_eqz(scope, "BestEffort"))
		return best_effort(s);
	if (str_eqz(scope, "NotBestEffort"))
		return !best_effort(s);
	if (str_eqz(scope, "CrossNamespacePodAffinity"))
		return cross_namespace_affinity(s);
	return str_eqz(scope, "PriorityClass") &&
		names_fit(&s->priority_class_name, 1, operator, values);
}

static bool claim_in_scope(const struct core_v1_persistent_volume_claim *c, struct str scope,
	struct str operator, const struct str_list * values)
{
	const struct str names[] = { c->spec.volume_attributes_class_name,
		c->status.current_volume_attributes_class_name,
		c->status.modify_volume_status
			? c->status.modify_volume_status->target_volume_attributes_class_name
			: STR_NONE };

	return str_eqz(scope, "VolumeAttributesClass") &&
		names_fit(names, ARRAY_LEN(names), operator, values);
}

static bool in_scope(const struct type *t, const void *obj, struct str scope, struct str operator,
	const struct str_list * values)
{
	if (t == &core_v1_pod_type)
		return pod_in_scope(
			&((const struct core_v1_pod *)obj)->spec, scope, operator, values);
	return t == &core_v1_persistent_volume_claim_type &&
		claim_in_scope(obj, scope, operator, values);
}

bool quota_speaks_of(
	const struct core_v1_resource_quota_spec *q, const struct type *t, const void *obj)
{
	LIST_EACH(s, &q->scopes)
		if (!in_scope(t, obj, *s, STR("Exists"), NULL))
			return false;
	if (q->scope_selector)
		LIST_EACH(m, &q->scope_selector->match_expressions)
			if (!in_scope(t, obj, m->scope_name, m->operator, & m->values))
				return false;
	return true;
}

/* ---- amounts ---- */

bool quota_compute_name(struct str name, bool *ret_limits, struct str *ret_resource)
{
	*ret_limits = str_has_prefix(name, STR("limits."));
	if (*ret_limits)
		*ret_resource = str_from(name, strlen("limits."));
	else if (str_has_prefix(name, STR("requests.")))
		*ret_resource = str_from(name, strlen("requests."));
	else if (str_eqz(name, "cpu") || str_eqz(name, "memory") ||
		str_eqz(name, "ephemeral-storage") || str_has_prefix(name, STR("hugepages-")))
		*ret_resource = name;
	else
		return false;
	return !str_eqz(*ret_resource, "storage");
}

static struct quantity amount(const struct str_map *m, struct str resource)
{
	struct quantity q;
	struct str text = str_map_get(m, resource);

	return text.p && quantity_parse(text, &q) == 0 ? q : none;
}

static struct quantity sum(struct quantity a, struct quantity b)
{
	return a.nano ? quantity_add(a, b) : b;
}

static struct quantity most(struct quantity a, struct quantity b)
{
	return quantity_cmp(b, a) > 0 ? b : a;
}

/* Containers and sidecars together, or the largest init container with the sidecars before it; pod-level resources win. */
static struct quantity pod_amount(
	const struct core_v1_pod_spec *s, bool limits, struct str resource)
{
	struct quantity run = none, sidecars = none, peak = none;

	LIST_EACH(c, &s->containers)
		run = sum(run,
			amount(limits ? &c->resources.limits : &c->resources.requests, resource));
	LIST_EACH(c, &s->init_containers) {
		struct quantity q =
			amount(limits ? &c->resources.limits : &c->resources.requests, resource);

		if (str_eqz(c->restart_policy, "Always"))
			sidecars = sum(sidecars, q);
		else
			peak = most(peak, sum(q, sidecars));
	}
	run = most(peak, sum(run, sidecars));
	if (s->resources) {
		const struct str_map *own =
			limits ? &s->resources->limits : &s->resources->requests;

		if (str_map_has(own, resource))
			run = amount(own, resource);
	}
	return limits && !run.nano ? run : sum(run, amount(&s->overhead, resource));
}

static bool pod_takes(struct str name, const struct core_v1_pod_spec *s, struct quantity *ret)
{
	bool limits;
	struct str resource;

	if (str_eqz(name, "pods") || str_eqz(name, "count/pods"))
		*ret = one;
	else if (quota_compute_name(name, &limits, &resource))
		*ret = pod_amount(s, limits, resource);
	else
		return false;
	return true;
}

static bool service_takes(struct str name, const struct core_v1_service *s, struct quantity *ret)
{
	bool balanced = str_eqz(s->spec.type, "LoadBalancer");

	*ret = none;
	if (str_eqz(name, "services.loadbalancers")) {
		ret->nano = balanced ? one.nano : 0;
		return true;
	}
	if (!str_eqz(name, "services.nodeports"))
		return false;
	if (str_eqz(s->spec.type, "NodePort") ||
		(balanced &&
			!(s->spec.allocate_load_balancer_node_ports.set &&
				!s->spec.allocate_load_balancer_node_ports.value)))
		ret->nano = one.nano * (__int128)s->spec.ports.len;
	else if (balanced)
		LIST_EACH(p, &s->spec.ports)
			ret->nano += p->node_port ? one.nano : 0;
	return true;
}

/* NAME, or CLASS.storageclass.storage.k8s.io/NAME for the claims of a class. */
static bool claim_takes(
	struct str name, const struct core_v1_persistent_volume_claim *c, struct quantity *ret)
{
	ssize_t at = str_find_str(name, STR(STORAGE_CLASS));

	if (at > 0 && !str_eq(str_n(name.p, (size_t)at), c->spec.storage_class_name))
		return false;
	if (at > 0)
		name = str_from(name, (size_t)at + strlen(STORAGE_CLASS));
	if (str_eqz(name, "requests.storage"))
		*ret = amount(&c->spec.resources.requests, STR("storage"));
	else if (str_eqz(name, "persistentvolumeclaims"))
		*ret = one;
	else
		return false;
	return true;
}

bool quota_takes(struct str name, struct str group_resource, const struct type *t, const void *obj,
	struct quantity *ret)
{
	struct str counted =
		str_has_prefix(name, STR("count/")) ? str_from(name, strlen("count/")) : name;

	if (t == &core_v1_pod_type)
		return pod_takes(name, &((const struct core_v1_pod *)obj)->spec, ret);
	if (str_eq(counted, group_resource)) {
		*ret = one;
		return true;
	}
	return t == &core_v1_service_type                    ? service_takes(name, obj, ret)
		: t == &core_v1_persistent_volume_claim_type ? claim_takes(name, obj, ret)
							     : false;
}
