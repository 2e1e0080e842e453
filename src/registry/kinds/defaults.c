/* Kinds whose schema says all but some defaults that depend on other fields. */
#include "registry/kinds/kinds.h"

/* ---- HorizontalPodAutoscaler ---- */

static void add_policy(struct autoscaling_v2_hpa_scaling_rules *r, const char *type, int32_t value,
	struct arena *a)
{
	struct autoscaling_v2_hpa_scaling_policy *p = LIST_ADD(a, &r->policies);
	p->type = str_of(type);
	p->value = value;
	p->period_seconds = 15;
}

static struct autoscaling_v2_hpa_scaling_rules *rules(
	struct autoscaling_v2_hpa_scaling_rules *r, bool up, struct arena *a)
{
	if (!r)
		r = arena_alloc(a, sizeof(*r));
	if (!r->select_policy.len)
		r->select_policy = STR("Max");
	if (up && !r->stabilization_window_seconds.set)
		r->stabilization_window_seconds = (struct opt_int32)SOME(0);
	if (r->policies.items)
		return r;
	if (up)
		add_policy(r, "Pods", 4, a);
	add_policy(r, "Percent", 100, a);
	return r;
}

static void hpa_fill(struct write *w, void *obj)
{
	struct autoscaling_v2_horizontal_pod_autoscaler *h = obj;
	if (!h->spec.metrics.len) {
		struct autoscaling_v2_metric_spec *m = LIST_ADD(w->arena, &h->spec.metrics);
		m->type = STR("Resource");
		m->resource = arena_alloc(w->arena, sizeof(*m->resource));
		m->resource->name = STR("cpu");
		m->resource->target.type = STR("Utilization");
		m->resource->target.average_utilization = (struct opt_int32)SOME(80);
	}
	struct autoscaling_v2_horizontal_pod_autoscaler_behavior *b = h->spec.behavior;
	if (b) {
		b->scale_up = rules(b->scale_up, true, w->arena);
		b->scale_down = rules(b->scale_down, false, w->arena);
	}
}

static void hpa_validate(struct write *w, struct causes *cs)
{
	struct autoscaling_v2_horizontal_pod_autoscaler *h = w->obj;
	const struct at *at = AT(NULL, "spec");
	if (h->spec.max_replicas < 1)
		INVALID_NUM(
			cs, AT(at, "maxReplicas"), h->spec.max_replicas, "must be greater than 0");
	if (h->spec.min_replicas.set && h->spec.max_replicas < h->spec.min_replicas.value)
		INVALID_NUM(cs, AT(at, "maxReplicas"), h->spec.max_replicas,
			"must be greater than or equal to `minReplicas`");
}

const struct kind horizontal_pod_autoscaler_kind = {
	.resource = "horizontalpodautoscalers.autoscaling",
	.warning =
		"skiff keeps HorizontalPodAutoscalers but does not scale by them: there is no metrics API",
	.flags = KIND_STATUS_META,
	.fill = hpa_fill,
	.validate = hpa_validate,
};

/* ---- LimitRange: what a container gets when it says nothing ---- */

static void inherit(struct str_map *to, const struct str_map *from, struct arena *a)
{
	LIST_EACH(p, from) {
		if (!str_map_has(to, p->key))
			str_map_set(a, to, p->key, p->value);
	}
}

static void limit_range_fill(struct write *w, void *obj)
{
	struct core_v1_limit_range *l = obj;
	LIST_EACH(i, &l->spec.limits) {
		if (!str_eqz(i->type, "Container"))
			continue;
		inherit(&i->default_, &i->max, w->arena);
		inherit(&i->default_request, &i->default_, w->arena);
		inherit(&i->default_request, &i->min, w->arena);
	}
}

const struct kind limit_range_kind = {
	.resource = "limitranges", .flags = KIND_CREATE_ON_UPDATE, .fill = limit_range_fill
};

/* ---- CustomResourceDefinition ---- */

static void crd_fill(struct write *w, void *obj)
{
	struct apiextensions_v1_custom_resource_definition_names *n =
		&((struct apiextensions_v1_custom_resource_definition *)obj)->spec.names;
	if (!n->kind.len)
		return;
	if (!n->singular.len) {
		n->singular = arena_str(w->arena, n->kind);
		for (size_t i = 0; i < n->singular.len; i++)
			if (n->singular.p[i] >= 'A' && n->singular.p[i] <= 'Z')
				((char *)n->singular.p)[i] += 'a' - 'A';
	}
	if (!n->list_kind.len)
		n->list_kind = arena_fmt(w->arena, STR_FMT "List", STR_ARG(n->kind));
}

const struct kind custom_resource_definition_kind = {
	.resource = "customresourcedefinitions.apiextensions.k8s.io",
	.flags = KIND_GENERATION | KIND_CONDITIONAL,
	.fill = crd_fill,
	.warning = "skiff keeps CustomResourceDefinitions but serves no custom resources",
};

/* ---- admission: a rule without scope is of any ---- */

static void any_scope(struct admissionregistration_v1_rule *r)
{
	if (!r->scope.p)
		r->scope = STR("*");
}

static void mutating_fill(struct write *w, void *obj)
{
	LIST_EACH(h,
		&((struct admissionregistration_v1_mutating_webhook_configuration *)obj)
			 ->webhooks) {
		LIST_EACH(r, &h->rules)
			any_scope(&r->rule);
	}
}

static void validating_fill(struct write *w, void *obj)
{
	LIST_EACH(h,
		&((struct admissionregistration_v1_validating_webhook_configuration *)obj)
			 ->webhooks) {
		LIST_EACH(r, &h->rules)
			any_scope(&r->rule);
	}
}

static void constraints(struct admissionregistration_v1_match_resources *m)
{
	if (!m)
		return;
	LIST_EACH(r, &m->resource_rules)
		any_scope(&r->rule_with_operations.rule);
	LIST_EACH(r, &m->exclude_resource_rules)
		any_scope(&r->rule_with_operations.rule);
}

static void vap_fill(struct write *w, void *obj)
{
	constraints(((struct admissionregistration_v1_validating_admission_policy *)obj)
			    ->spec.match_constraints);
}

static void map_fill(struct write *w, void *obj)
{
	constraints(((struct admissionregistration_v1_mutating_admission_policy *)obj)
			    ->spec.match_constraints);
}

#define NOT_CALLED \
	"skiff keeps admission webhooks but does not call them: nothing is checked or changed"
#define NOT_EVALUATED \
	"skiff keeps admission policies but does not evaluate them: nothing is checked or changed"
#define ADMISSION(name, plural, fn, text) \
	const struct kind name##_kind = { .resource = plural ".admissionregistration.k8s.io", \
		.flags = KIND_GENERATION, \
		.fill = fn, \
		.warning = text }
ADMISSION(mutating_webhook, "mutatingwebhookconfigurations", mutating_fill, NOT_CALLED);
ADMISSION(validating_webhook, "validatingwebhookconfigurations", validating_fill, NOT_CALLED);
ADMISSION(validating_admission_policy, "validatingadmissionpolicies", vap_fill, NOT_EVALUATED);
ADMISSION(mutating_admission_policy, "mutatingadmissionpolicies", map_fill, NOT_EVALUATED);

/* ---- ResourceClaim and its template ---- */

static void device_counts(struct resource_v1_device_claim *d)
{
	LIST_EACH(r, &d->requests) {
		if (r->exactly && str_eqz(r->exactly->allocation_mode, "ExactCount") &&
			!r->exactly->count)
			r->exactly->count = 1;
		LIST_EACH(s, &r->first_available) {
			if (str_eqz(s->allocation_mode, "ExactCount") && !s->count)
				s->count = 1;
		}
	}
}

static void claim_fill(struct write *w, void *obj)
{
	device_counts(&((struct resource_v1_resource_claim *)obj)->spec.devices);
}

static void claim_template_fill(struct write *w, void *obj)
{
	device_counts(&((struct resource_v1_resource_claim_template *)obj)->spec.spec.devices);
}

const struct kind resource_claim_kind = {
	.resource = "resourceclaims.resource.k8s.io",
	.flags = KIND_RETURN_DELETED,
	.fill = claim_fill,
};
const struct kind resource_claim_template_kind = {
	.resource = "resourceclaimtemplates.resource.k8s.io",
	.flags = KIND_RETURN_DELETED,
	.fill = claim_template_fill,
};
