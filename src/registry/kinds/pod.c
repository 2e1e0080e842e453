/* Pods: what may change after creation, grace of a delete, and the subresources that take a whole pod. Upstream:
 * pkg/registry/core/pod. */
#include "registry/kinds/kinds.h"

static const struct at root = { NULL, "spec", -1, { NULL, 0 } };

static void fill(struct write *w, void *obj)
{
	struct core_v1_pod *p = obj;
	pod_spec_fill(&p->spec, w->arena);
	if (!p->spec.enable_service_links.set)
		p->spec.enable_service_links = (struct opt_bool)SOME(true);
}

void pod_condition_set(struct write *w, struct core_v1_pod_status *st, const char *type,
	const char *status, const char *reason, const char *message)
{
	struct core_v1_pod_condition *c = NULL;
	LIST_EACH(it, &st->conditions) {
		if (str_eqz(it->type, type))
			c = it;
	}
	if (!c) {
		c = LIST_ADD(w->arena, &st->conditions);
		c->type = str_of(type);
	}
	if (!str_eqz(c->status, status)) {
		c->last_transition_time = w->now;
		c->last_transition_time.nsec = 0;
	}
	c->status = str_of(status);
	c->reason = reason ? str_of(reason) : STR_NONE;
	c->message = message ? str_of(message) : STR_NONE;
}

static void prepare_create(struct write *w)
{
	struct core_v1_pod *p = w->obj;
	p->status = (struct core_v1_pod_status){ .phase = STR("Pending"),
		.qos_class = pod_qos(&p->spec) };
	if (p->spec.scheduling_gates.len)
		pod_condition_set(w, &p->status, "PodScheduled", "False", "SchedulingGated",
			"Scheduling is blocked due to non-empty scheduling gates");
}

static void validate(struct write *w, struct causes *cs)
{
	struct core_v1_pod *p = w->obj;
	pod_spec_validate(&p->spec, &root, cs);
	if (w->operation == VERB_CREATE && p->spec.ephemeral_containers.len)
		FORBIDDEN(cs, AT(&root, "ephemeralContainers"), "cannot be set on create");
	if (w->operation == VERB_CREATE && p->spec.node_name.len && p->spec.scheduling_gates.len)
		FORBIDDEN(cs, AT(&root, "nodeName"),
			"cannot be set until all schedulingGates have been cleared");
}

/* ---- updates of the pod itself ---- */

static void check_tolerations(
	const struct core_v1_pod_spec *now, const struct core_v1_pod_spec *old, struct causes *cs)
{
	LIST_EACH(o, &old->tolerations) {
		bool kept = false;
		LIST_EACH(n, &now->tolerations) {
			struct core_v1_toleration t = *n;
			t.toleration_seconds = o->toleration_seconds;
			kept |= model_equal(&core_v1_toleration_type, &t, o);
		}
		if (!kept) {
			FORBIDDEN(cs, AT(&root, "tolerations"),
				"existing toleration can not be modified except its tolerationSeconds");
			return;
		}
	}
}

static void check_deadline(
	const struct core_v1_pod_spec *now, const struct core_v1_pod_spec *old, struct causes *cs)
{
	const struct at *at = AT(&root, "activeDeadlineSeconds");
	struct opt_int64 n = now->active_deadline_seconds, o = old->active_deadline_seconds;
	if (o.set && !n.set)
		INVALID(cs, at, STR_NONE, "must not update from a positive integer to nil value");
	else if (o.set && n.value > o.value)
		INVALID_NUM(cs, at, n.value, "must be less than or equal to previous value");
}

static void check_gates(
	const struct core_v1_pod_spec *now, const struct core_v1_pod_spec *old, struct causes *cs)
{
	LIST_EACH(n, &now->scheduling_gates) {
		bool had = false;
		LIST_EACH(o, &old->scheduling_gates)
			had |= str_eq(o->name, n->name);
		if (!had) {
			cause_at(cs, CAUSE_FORBIDDEN, AT(&root, "schedulingGates"), STR_NONE,
				"only deletion is allowed, but found new scheduling gate '" STR_FMT
				"'",
				STR_ARG(n->name));
			return;
		}
	}
}

/* The new containers with the old images. */
static void lend_images(struct core_v1_container_items *now,
	const struct core_v1_container_items *old, struct arena *a)
{
	now->items = arena_memdup(a, now->items, now->len * sizeof(*now->items));
	for (size_t i = 0; i < now->len; i++)
		now->items[i].image = old->items[i].image;
}

static void validate_update(struct write *w, struct causes *cs)
{
	struct core_v1_pod *p = w->obj, *old = w->old;
	struct core_v1_pod_spec probe = p->spec;
	if (probe.containers.len != old->spec.containers.len) {
		FORBIDDEN(cs, AT(&root, "containers"),
			"pod updates may not add or remove containers");
		return;
	}
	if (probe.init_containers.len != old->spec.init_containers.len) {
		FORBIDDEN(cs, AT(&root, "initContainers"),
			"pod updates may not add or remove containers");
		return;
	}
	if (probe.containers.len)
		lend_images(&probe.containers, &old->spec.containers, w->arena);
	if (probe.init_containers.len)
		lend_images(&probe.init_containers, &old->spec.init_containers, w->arena);
	check_deadline(&p->spec, &old->spec, cs);
	check_tolerations(&p->spec, &old->spec, cs);
	check_gates(&p->spec, &old->spec, cs);
	probe.active_deadline_seconds = old->spec.active_deadline_seconds;
	probe.tolerations = old->spec.tolerations;
	probe.scheduling_gates = old->spec.scheduling_gates;
	if (old->spec.scheduling_gates.len) { /* while it waits, where it may go can be narrowed */
		probe.node_selector = old->spec.node_selector;
		probe.affinity = old->spec.affinity;
	}
	struct opt_int64 grace = old->spec.termination_grace_period_seconds;
	if (grace.set && grace.value < 0 && probe.termination_grace_period_seconds.value == 1)
		probe.termination_grace_period_seconds = grace;
	if (!model_equal(&core_v1_pod_spec_type, &probe, &old->spec))
		FORBIDDEN(cs, &root,
			"pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
			"`spec.activeDeadlineSeconds`,"
			"`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be "
			"set to 1 if it was previously "
			"negative)");
}

static void prepare_update(struct write *w)
{
	struct core_v1_pod *p = w->obj, *old = w->old;
	if (old->spec.scheduling_gates.len && !p->spec.scheduling_gates.len &&
		p->status.conditions.len) {
		p->status.conditions.items = arena_memdup(w->arena, p->status.conditions.items,
			p->status.conditions.len * sizeof(*p->status.conditions.items));
		size_t n = 0;
		LIST_EACH(c, &p->status.conditions) {
			if (!str_eqz(c->reason, "SchedulingGated"))
				p->status.conditions.items[n++] = *c;
		}
		p->status.conditions.len = n;
	}
}

/* ---- status ---- */

static void prepare_status(struct write *w)
{
	struct core_v1_pod *given = w->obj, *old = w->old,
			   *p = arena_memdup(w->arena, w->old, sizeof(*p));
	p->status = given->status;
	p->metadata.labels = given->metadata.labels;
	p->metadata.annotations = given->metadata.annotations;
	p->metadata.finalizers = given->metadata.finalizers;
	p->metadata.managed_fields = given->metadata.managed_fields;
	if (!p->status.qos_class.len)
		p->status.qos_class = old->status.qos_class;
	if (!p->status.phase.len)
		p->status.phase = old->status.phase;
	if (p->status.pod_ip.len && !p->status.pod_ips.len)
		LIST_ADD(w->arena, &p->status.pod_ips)->ip = p->status.pod_ip;
	else if (p->status.pod_ips.len && !p->status.pod_ip.len)
		p->status.pod_ip = p->status.pod_ips.items[0].ip;
	w->obj = p;
}

static void check_restarts(const struct core_v1_container_status_items *now,
	const struct core_v1_container_status_items *old, const char *name, struct str policy,
	struct causes *cs)
{
	if (str_eqz(policy, "Always"))
		return;
	LIST_EACH(o, old) {
		size_t i = 0;
		if (!o->state.terminated ||
			(str_eqz(policy, "OnFailure") && o->state.terminated->exit_code != 0))
			continue;
		LIST_EACH(n, now) {
			if (str_eq(n->name, o->name) && !n->state.terminated)
				FORBIDDEN(cs, AT(AT_I(AT(NULL, "status"), name, i), "state"),
					"may not be transitioned to non-terminated state");
			i++;
		}
	}
}

static void validate_status(struct write *w, struct causes *cs)
{
	struct core_v1_pod *p = w->obj, *old = w->old;
	const struct at *at = AT(NULL, "status");
	if (p->status.nominated_node_name.len && valid_dns_subdomain(p->status.nominated_node_name))
		INVALID(cs, AT(at, "nominatedNodeName"), p->status.nominated_node_name,
			valid_dns_subdomain(p->status.nominated_node_name));
	if (!str_eq(p->status.qos_class, old->status.qos_class))
		INVALID(cs, AT(at, "qosClass"), p->status.qos_class, IMMUTABLE);
	check_restarts(&p->status.container_statuses, &old->status.container_statuses,
		"containerStatuses", p->spec.restart_policy, cs);
}

/* ---- ephemeralcontainers ---- */

static void prepare_ephemeral(struct write *w)
{
	struct core_v1_pod *given = w->obj, *p = arena_memdup(w->arena, w->old, sizeof(*p));
	p->spec.ephemeral_containers = given->spec.ephemeral_containers;
	p->metadata.managed_fields = given->metadata.managed_fields;
	w->obj = p;
}

static void validate_ephemeral(struct write *w, struct causes *cs)
{
	struct core_v1_pod *p = w->obj, *old = w->old;
	const struct at *at = AT(&root, "ephemeralContainers");
	ephemeral_containers_validate(&p->spec, &root, cs);
	if (!p->spec.ephemeral_containers.len && old->spec.ephemeral_containers.len)
		FORBIDDEN(cs, at, "ephemeral containers may not be removed");
	LIST_EACH(o, &old->spec.ephemeral_containers) {
		const struct core_v1_ephemeral_container *kept = NULL;
		LIST_EACH(n, &p->spec.ephemeral_containers) {
			if (str_eq(n->ephemeral_container_common.name,
				    o->ephemeral_container_common.name))
				kept = n;
		}
		if (!kept)
			cause_at(cs, CAUSE_FORBIDDEN, at, STR_NONE,
				"existing ephemeral containers \"" STR_FMT
				"\" may not be removed\n",
				STR_ARG(o->ephemeral_container_common.name));
		else if (!model_equal(&core_v1_ephemeral_container_type, kept, o))
			cause_at(cs, CAUSE_FORBIDDEN, at, STR_NONE,
				"existing ephemeral containers \"" STR_FMT
				"\" may not be changed\n",
				STR_ARG(o->ephemeral_container_common.name));
	}
}

/* ---- resize ---- */

static void prepare_resize(struct write *w)
{
	struct core_v1_pod *given = w->obj, *p = arena_memdup(w->arena, w->old, sizeof(*p));
	p->spec.containers = given->spec.containers;
	p->spec.init_containers = given->spec.init_containers;
	p->spec.resources = given->spec.resources;
	p->metadata.managed_fields = given->metadata.managed_fields;
	w->obj = p;
}

static bool same_containers(const struct core_v1_container_items *now,
	const struct core_v1_container_items *old, const char *name, struct causes *cs)
{
	const struct at *at = AT(&root, name);
	size_t before = cs->len;
	if (now->len != old->len) {
		cause_at(cs, CAUSE_FORBIDDEN, at, STR_NONE,
			"%s may not be added or removed on resize", name);
		return false;
	}
	for (size_t i = 0; i < now->len; i++)
		if (!str_eq(now->items[i].name, old->items[i].name))
			cause_at(cs, CAUSE_FORBIDDEN, AT(AT_I(&root, name, i), "name"), STR_NONE,
				"%s may not be renamed or reordered on resize", name);
	return cs->len == before;
}

static bool removed(const struct str_map *now, const struct str_map *old)
{
	LIST_EACH(e, old)
		if (!str_map_has(now, e->key))
			return true;
	return false;
}

static struct str_map without_cpu_and_memory(const struct str_map *m, struct arena *a)
{
	struct str_map out = { 0 };
	LIST_EACH(e, m)
		if (!str_eqz(e->key, "cpu") && !str_eqz(e->key, "memory"))
			str_map_set(a, &out, e->key, e->value);
	return out;
}

static void check_resized(struct core_v1_container now, struct core_v1_container old,
	const struct at *at, const struct at *forbidden, const char *what, struct causes *cs)
{
	struct core_v1_resource_requirements *r[] = { &now.resources, &old.resources };
	if (removed(&now.resources.requests, &old.resources.requests))
		FORBIDDEN(cs, AT(AT(at, "resources"), "requests"),
			"resource requests cannot be removed");
	if (removed(&now.resources.limits, &old.resources.limits))
		FORBIDDEN(
			cs, AT(AT(at, "resources"), "limits"), "resource limits cannot be removed");
	for (size_t i = 0; i < ARRAY_LEN(r); i++) {
		r[i]->requests = without_cpu_and_memory(&r[i]->requests, cs->arena);
		r[i]->limits = without_cpu_and_memory(&r[i]->limits, cs->arena);
	}
	if (!model_equal(&core_v1_container_type, &now, &old))
		FORBIDDEN(cs, forbidden, what);
}

static void validate_resize(struct write *w, struct causes *cs)
{
	struct core_v1_pod *p = w->obj, *old = w->old;
	pod_containers_validate(&p->spec, &root, cs);
	if (str_map_has(&old->metadata.annotations, STR("kubernetes.io/config.mirror"))) {
		FORBIDDEN(cs, &root, "static pods cannot be resized");
		return;
	}
	if (!p->spec.resources != !old->spec.resources ||
		(p->spec.resources &&
			!model_equal(&core_v1_resource_requirements_type, p->spec.resources,
				old->spec.resources)))
		FORBIDDEN(cs, AT(&root, "resources"),
			"pod-level resources cannot be resized: this cluster resizes containers alone");
	if (!str_eq(pod_qos(&p->spec), pod_qos(&old->spec)))
		INVALID(cs, &root, pod_qos(&p->spec),
			"Pod QOS Class may not change as a result of resizing");
	bool same = same_containers(&p->spec.containers, &old->spec.containers, "containers", cs);
	same &= same_containers(
		&p->spec.init_containers, &old->spec.init_containers, "initContainers", cs);
	for (size_t i = 0; same && i < p->spec.containers.len; i++)
		check_resized(p->spec.containers.items[i], old->spec.containers.items[i],
			AT_I(&root, "containers", i), &root,
			"only cpu and memory resources are mutable", cs);
	for (size_t i = 0; same && i < p->spec.init_containers.len; i++)
		check_resized(p->spec.init_containers.items[i], old->spec.init_containers.items[i],
			AT_I(&root, "initContainers", i), AT_I(&root, "initContainers", i),
			"only cpu and memory resources for init or sidecar containers are mutable",
			cs);
}

/* ---- delete ---- */

static int64_t grace(struct write *w, const void *obj, const struct meta_v1_delete_options *opt)
{
	const struct core_v1_pod *p = obj;
	int64_t s = opt->grace_period_seconds.set ? opt->grace_period_seconds.value
						  : p->spec.termination_grace_period_seconds.value;
	if (!p->spec.node_name.len || str_eqz(p->status.phase, "Failed") ||
		str_eqz(p->status.phase, "Succeeded"))
		return 0;
	return s < 0 ? 1 : s;
}

static struct str field(const void *obj, struct str name, struct arena *a)
{
	const struct core_v1_pod *p = obj;
	if (!str_eqz(name, "status.podIPs"))
		return STR_NONE;
	CLEAN_BUF struct buf b = { 0 };
	LIST_EACH(ip, &p->status.pod_ips)
		buf_addf(&b, "%s" STR_FMT, b.len ? "," : "", STR_ARG(ip->ip));
	return b.len ? arena_str(a, buf_str(&b)) : STR("");
}

static const struct kind_sub subs[] = {
	{ .name = "status", .prepare = prepare_status, .validate = validate_status },
	{ .name = "ephemeralcontainers",
		.prepare = prepare_ephemeral,
		.validate = validate_ephemeral },
	{ .name = "resize", .prepare = prepare_resize, .validate = validate_resize },
	{ .name = "binding", .run = pod_run_binding },
	{ .name = "eviction", .run = pod_run_eviction },
	{ 0 },
};

const struct kind pod_kind = {
	.resource = "pods",
	.flags = KIND_GENERATION | KIND_STATUS_META | KIND_RETURN_DELETED,
	.fill = fill,
	.prepare_create = prepare_create,
	.prepare_update = prepare_update,
	.validate = validate,
	.validate_update = validate_update,
	.grace = grace,
	.field = field,
	.subs = subs,
};
