/* Small kinds with a rule or two: PriorityClass, PodDisruptionBudget, Event, Lease, CertificateSigningRequest. */
#include "registry/kinds/kinds.h"

/* ---- PriorityClass. Upstream: pkg/registry/scheduling/priorityclass ---- */

enum { HIGHEST_USER_PRIORITY = 1000000000 };

static bool is_system_class(const struct scheduling_v1_priority_class *p)
{
	return (str_eqz(p->metadata.name, "system-node-critical") && p->value == 2000001000) ||
		(str_eqz(p->metadata.name, "system-cluster-critical") && p->value == 2000000000);
}

static void priority_validate(struct write *w, struct causes *cs)
{
	struct scheduling_v1_priority_class *p = w->obj;
	if (str_has_prefix(p->metadata.name, STR("system-")) && !is_system_class(p))
		FORBIDDEN(cs, AT(AT(NULL, "metadata"), "name"),
			"priority class names with 'system-' prefix are reserved for system use only. error: not a system class");
	else if (p->value > HIGHEST_USER_PRIORITY && !is_system_class(p))
		cause_at(cs, CAUSE_FORBIDDEN, AT(NULL, "value"), STR_NONE,
			"maximum allowed value of a user defined priority is %d",
			HIGHEST_USER_PRIORITY);
}

static void priority_validate_update(struct write *w, struct causes *cs)
{
	struct scheduling_v1_priority_class *p = w->obj, *old = w->old;
	if (p->value != old->value)
		FORBIDDEN(cs, AT(NULL, "value"), "may not be changed in an update.");
	if (!str_eq(p->preemption_policy, old->preemption_policy))
		INVALID(cs, AT(NULL, "preemptionPolicy"), p->preemption_policy, IMMUTABLE);
}

const struct kind priority_class_kind = {
	.resource = "priorityclasses.scheduling.k8s.io",
	.flags = KIND_GENERATION,
	.validate = priority_validate,
	.validate_update = priority_validate_update,
};

/* ---- PodDisruptionBudget. Upstream: pkg/registry/policy ---- */

static void budget_validate(struct write *w, struct causes *cs)
{
	struct policy_v1_pod_disruption_budget *b = w->obj;
	if (b->spec.min_available.kind != IOS_NONE && b->spec.max_unavailable.kind != IOS_NONE)
		INVALID(cs, AT(NULL, "spec"), STR_NONE,
			"minAvailable and maxUnavailable cannot be both set");
	label_selector_validate(b->spec.selector, AT(AT(NULL, "spec"), "selector"), cs);
}

const struct kind pod_disruption_budget_kind = {
	.resource = "poddisruptionbudgets.policy",
	.flags = KIND_GENERATION | KIND_CONDITIONAL | KIND_STATUS_META,
	.validate = budget_validate,
};

/* ---- Event. Upstream: pkg/registry/core/event ---- */

static void event_validate(struct write *w, struct causes *cs)
{
	struct core_v1_event *e = w->obj;
	struct str about = e->involved_object.namespace, ns = e->metadata.namespace;
	bool fits = about.len ? str_eq(about, ns)
			      : str_eqz(ns, "default") || str_eqz(ns, "kube-system");
	if (!fits)
		INVALID(cs, AT(AT(NULL, "involvedObject"), "namespace"), shown(about),
			"does not match event.namespace");
}

static struct str event_field(const void *obj, struct str name, struct arena *a)
{
	const struct core_v1_event *e = obj;
	if (!str_eqz(name, "source"))
		return STR_NONE;
	struct str s = e->source.component.len ? e->source.component : e->reporting_component;
	return s.p ? s : STR("");
}

static struct timestamp event_last_used(const void *obj)
{
	const struct core_v1_event *e = obj;
	struct timestamp last = e->metadata.creation_timestamp;
	const struct timestamp times[] = { e->last_timestamp, e->event_time,
		e->series ? e->series->last_observed_time : e->first_timestamp };
	for (size_t i = 0; i < ARRAY_LEN(times); i++)
		last = time_cmp(times[i], last) > 0 ? times[i] : last;
	return last;
}

const struct kind event_kind = {
	.resource = "events",
	.flags = KIND_CREATE_ON_UPDATE,
	.ttl_s = 3600,
	.last_used = event_last_used,
	.validate = event_validate,
	.field = event_field,
};

/* The other name of the same storage: only its selectable fields are asked for here. */
static struct str events_field(const void *obj, struct str name, struct arena *a)
{
	return STR_NONE;
}
const struct kind events_event_kind = {
	.resource = "events.events.k8s.io", .flags = KIND_CREATE_ON_UPDATE, .field = events_field
};

/* ---- Lease. Upstream: pkg/registry/coordination/lease ---- */

static void lease_validate(struct write *w, struct causes *cs)
{
	struct coordination_v1_lease *l = w->obj;
	const struct at *at = AT(NULL, "spec");
	if (l->spec.lease_duration_seconds.set && l->spec.lease_duration_seconds.value <= 0)
		INVALID_NUM(cs, AT(at, "leaseDurationSeconds"),
			l->spec.lease_duration_seconds.value, "must be greater than 0");
	if (l->spec.lease_transitions.set && l->spec.lease_transitions.value < 0)
		INVALID_NUM(cs, AT(at, "leaseTransitions"), l->spec.lease_transitions.value,
			"must be greater than or equal to 0");
}

const struct kind lease_kind = {
	.resource = "leases.coordination.k8s.io",
	.flags = KIND_CREATE_ON_UPDATE | KIND_CONDITIONAL,
	.validate = lease_validate,
};

/* ---- CertificateSigningRequest. Upstream: pkg/registry/certificates ---- */

static void csr_prepare_create(struct write *w)
{
	struct certificates_v1_certificate_signing_request *c = w->obj;
	const struct user_info *u = w->req->user;
	c->spec.username = c->spec.uid = STR_NONE;
	c->spec.groups = (struct str_list){ 0 };
	c->spec.extra = (struct str_list_map){ 0 };
	if (!u)
		return;
	c->spec.username = u->name;
	c->spec.uid = u->uid;
	for (size_t i = 0; i < u->groups.len; i++)
		*LIST_ADD(w->arena, &c->spec.groups) = u->groups.items[i];
	if (u->extra_keys.len) {
		c->spec.extra.items =
			arena_alloc(w->arena, u->extra_keys.len * sizeof(*c->spec.extra.items));
		for (size_t i = 0; i < u->extra_keys.len; i++)
			c->spec.extra.items[c->spec.extra.len++] =
				(struct str_list_entry){ u->extra_keys.items[i],
					u->extra_values[i] };
	}
}

static void csr_prepare_update(struct write *w)
{
	struct certificates_v1_certificate_signing_request *c = w->obj, *old = w->old;
	c->spec = old->spec;
}

static bool is_verdict(struct str type)
{
	return str_eqz(type, "Approved") || str_eqz(type, "Denied");
}

static void stamp(struct write *w, struct certificates_v1_certificate_signing_request_condition *c)
{
	if (time_is_zero(c->last_update_time))
		c->last_update_time = (struct timestamp){ w->now.sec, 0 };
	if (time_is_zero(c->last_transition_time))
		c->last_transition_time = (struct timestamp){ w->now.sec, 0 };
}

/* The stored request with the new one's metadata that may change here. */
static struct certificates_v1_certificate_signing_request *csr_base(struct write *w)
{
	const struct certificates_v1_certificate_signing_request *given = w->obj;
	struct certificates_v1_certificate_signing_request *c =
		arena_memdup(w->arena, w->old, sizeof(*c));
	c->metadata.labels = given->metadata.labels;
	c->metadata.annotations = given->metadata.annotations;
	c->metadata.managed_fields = given->metadata.managed_fields;
	return c;
}

static void csr_prepare_approval(struct write *w)
{
	struct certificates_v1_certificate_signing_request *given = w->obj, *c = csr_base(w);
	c->status.conditions = given->status.conditions;
	LIST_EACH(it, &c->status.conditions)
		stamp(w, it);
	w->obj = c;
}

/* Whether it is approved is not said here: these conditions stay as they are. */
static void csr_prepare_status(struct write *w)
{
	struct certificates_v1_certificate_signing_request *given = w->obj, *old = w->old,
							   *c = csr_base(w);
	c->status = given->status;
	c->status.conditions = (__typeof__(c->status.conditions)){ 0 };
	LIST_EACH(it, &old->status.conditions) {
		if (is_verdict(it->type))
			*LIST_ADD(w->arena, &c->status.conditions) = *it;
	}
	LIST_EACH(it, &given->status.conditions) {
		if (is_verdict(it->type))
			continue;
		struct certificates_v1_certificate_signing_request_condition *n =
			LIST_ADD(w->arena, &c->status.conditions);
		*n = *it;
		stamp(w, n);
	}
	w->obj = c;
}

static void csr_validate_sub(struct write *w, struct causes *cs)
{
	struct certificates_v1_certificate_signing_request *c = w->obj, *old = w->old;
	const struct at *at = AT(AT(NULL, "status"), "conditions");
	bool approved = false, denied = false;
	LIST_EACH(it, &c->status.conditions) {
		approved |= str_eqz(it->type, "Approved");
		denied |= str_eqz(it->type, "Denied");
	}
	if (approved && denied)
		INVALID(cs, at, STR("Denied"),
			"Approved and Denied conditions are mutually exclusive");
	LIST_EACH(it, &old->status.conditions) {
		bool kept = false;
		LIST_EACH(n, &c->status.conditions)
			kept |= str_eq(n->type, it->type);
		if (!kept)
			cause_at(cs, CAUSE_FORBIDDEN, at, STR_NONE,
				"updates may not remove a condition of type \"" STR_FMT "\"",
				STR_ARG(it->type));
	}
	if (old->status.certificate.len && !str_eq(c->status.certificate, old->status.certificate))
		INVALID(cs, AT(AT(NULL, "status"), "certificate"), STR_NONE,
			"updates may not modify existing certificate content");
}

static void csr_validate(struct write *w, struct causes *cs)
{
	struct certificates_v1_certificate_signing_request *c = w->obj;
	const struct at *at = AT(NULL, "spec");
	if (!c->spec.usages.len)
		REQUIRED(cs, AT(at, "usages"), "usages are required");
	if (c->spec.request.len &&
		str_find_str(c->spec.request, STR("-----BEGIN CERTIFICATE REQUEST-----")) < 0)
		INVALID(cs, AT(at, "request"), STR_NONE,
			"PEM block type must be CERTIFICATE REQUEST");
	if (c->spec.signer_name.len && str_find(c->spec.signer_name, '/') < 0)
		INVALID(cs, AT(at, "signerName"), c->spec.signer_name,
			"must be a fully qualified domain and path of the form 'example.com/signer-name'");
}

static const struct kind_sub csr_subs[] = {
	{ .name = "approval", .prepare = csr_prepare_approval, .validate = csr_validate_sub },
	{ .name = "status", .prepare = csr_prepare_status, .validate = csr_validate_sub },
	{ 0 },
};

const struct kind certificate_signing_request_kind = {
	.resource = "certificatesigningrequests.certificates.k8s.io",
	.prepare_create = csr_prepare_create,
	.prepare_update = csr_prepare_update,
	.validate = csr_validate,
	.subs = csr_subs,
};
