/* What is done to a pod by sending another kind: Binding puts it on a node, Eviction asks whether it may go. Upstream:
 * pkg/registry/core/pod/storage. */
#include "registry/kinds/kinds.h"

/* ---- binding ---- */

static void answer_success(struct write *w, struct object *o, struct registry_result *res)
{
	res->status = arena_alloc(w->arena, sizeof(*res->status));
	res->status->api_version = STR("v1");
	res->status->kind = STR("Status");
	res->status->status = STR("Success");
	res->status->code = 201;
	res->code = 201;
}

static struct meta_v1_status *check_binding(
	struct write *w, const struct core_v1_binding *b, const struct core_v1_pod *p)
{
	static const struct resource bindings = { .plural = { "pods/binding", 12 },
		.group_resource = { "pods/binding", 12 },
		.kind_name = { "Binding", 7 } };
	struct causes cs = { .arena = w->arena };
	struct arena *a = w->arena;
	if (b->target.kind.len && !str_eqz(b->target.kind, "Node"))
		cause_at(&cs, CAUSE_NOT_SUPPORTED, AT(AT(NULL, "target"), "kind"), b->target.kind,
			"supported values: \"Node\", \"<empty>\"");
	if (!b->target.name.len)
		REQUIRED(&cs, AT(AT(NULL, "target"), "name"), "");
	if (cs.len)
		return status_invalid(a, &bindings, w->req->name, &cs);
	struct str name = p->metadata.name;
	if (b->metadata.uid.len && !str_eq(b->metadata.uid, p->metadata.uid))
		return status_conflict(a, &bindings, name,
			arena_fmt(a,
				"Precondition failed: UID in precondition: " STR_FMT
				", UID in object meta: " STR_FMT,
				STR_ARG(b->metadata.uid), STR_ARG(p->metadata.uid))
				.p);
	if (!time_is_zero(p->metadata.deletion_timestamp))
		return status_conflict(a, &bindings, name,
			arena_fmt(a,
				"pod " STR_FMT " is being deleted, cannot be assigned to a host",
				STR_ARG(name))
				.p);
	if (p->spec.node_name.len)
		return status_conflict(a, &bindings, name,
			arena_fmt(a, "pod " STR_FMT " is already assigned to node \"" STR_FMT "\"",
				STR_ARG(name), STR_ARG(p->spec.node_name))
				.p);
	if (p->spec.scheduling_gates.len)
		return status_conflict(a, &bindings, name,
			arena_fmt(a, "pod " STR_FMT " has non-empty .spec.schedulingGates",
				STR_ARG(name))
				.p);
	return NULL;
}

void pod_run_binding(struct write *w)
{
	const struct core_v1_binding *b = w->req->obj;
	w->operation = VERB_UPDATE;
	w->answer = answer_success;
	struct meta_v1_status *st = b->metadata.name.len && !str_eq(b->metadata.name, w->req->name)
		? status_new(w->arena, REASON_BAD_REQUEST,
			  "name in URL does not match name in Binding object")
		: NULL;
	if (!st && !write_load(w))
		st = w->refused;
	st = st ? st : check_binding(w, b, w->old);
	if (st) {
		write_refuse(w, st);
		return;
	}
	struct core_v1_pod *p = arena_memdup(w->arena, w->old, sizeof(*p));
	w->obj = p;
	p->spec.node_name = b->target.name;
	p->status.nominated_node_name = STR_NONE;
	LIST_EACH(e, &b->metadata.annotations)
		str_map_set(w->arena, &p->metadata.annotations, e->key, e->value);
	pod_condition_set(w, &p->status, "PodScheduled", "True", NULL, NULL);
	w->created = 201;
	if (w->req->dry_run) {
		struct registry_result res = { .code = 201 };
		answer_success(w, NULL, &res);
		write_refuse(w, res.status);
		return;
	}
	write_commit(w);
}

/* POST …/bindings: the pod is named by the body. */
static void create_binding(struct write *w)
{
	struct core_v1_binding *b = w->req->obj;
	w->req->name = b->metadata.name;
	w->res = registry_resource(w->r, STR(""), STR("v1"), STR("pods"));
	w->type = w->res->row->type;
	w->run = pod_run_binding;
	pod_run_binding(w);
}

const struct kind binding_kind = { .resource = "bindings", .create = create_binding };

/* ---- eviction ---- */

struct eviction {
	struct policy_v1_pod_disruption_budget *budget;
	struct object *budget_object;
	struct registry_request *delete_request;
};

static bool protects(const struct policy_v1_pod_disruption_budget *b, const struct core_v1_pod *p,
	struct arena *a)
{
	struct selector *s;
	struct err err;
	return b->spec.selector && !selector_from_label_selector(b->spec.selector, a, &s, &err) &&
		selector_matches(s, &p->metadata.labels);
}

static struct meta_v1_status *find_budget(
	struct write *w, const struct core_v1_pod *p, struct object **ret_object, void **ret)
{
	const struct resource *budgets =
		registry_resource(w->r, STR("policy"), STR("v1"), STR("poddisruptionbudgets"));
	struct registry_request req = {
		.arena = w->arena, .resource = budgets, .verb = VERB_LIST, .ns = w->req->ns
	};
	struct registry_list *l;
	struct meta_v1_status *st = NULL;
	struct object *o;
	struct err err;
	if (registry_list_open(w->r, &req, &l, &st))
		return st;
	while (!st && (o = registry_list_next(l))) {
		void *b;
		if (registry_decode(budgets, o, w->arena, &b, &err) || !protects(b, p, w->arena))
			continue;
		if (*ret)
			st = status_new(w->arena, REASON_INTERNAL,
				"This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.");
		object_unref(*ret_object);
		*ret_object = object_ref(o);
		*ret = b;
	}
	registry_list_free(l);
	return st;
}

static struct meta_v1_status *refuse_eviction(
	struct write *w, const struct policy_v1_pod_disruption_budget *b)
{
	struct meta_v1_status *st = status_new(w->arena, REASON_TOO_MANY_REQUESTS,
		"Cannot evict pod as it would violate the pod's disruption budget.");
	st->details = arena_alloc(w->arena, sizeof(*st->details));
	struct meta_v1_status_cause *c = LIST_ADD(w->arena, &st->details->causes);
	c->reason = STR("DisruptionBudget");
	if (b->status.observed_generation < b->metadata.generation) {
		st->details->retry_after_seconds = 10;
		c->message = arena_fmt(w->arena,
			"The disruption budget " STR_FMT " is still being processed by the server.",
			STR_ARG(b->metadata.name));
		return st;
	}
	c->message = arena_fmt(w->arena,
		"The disruption budget " STR_FMT " needs %d healthy pods and has %d currently",
		STR_ARG(b->metadata.name), b->status.desired_healthy, b->status.current_healthy);
	return st;
}

static bool ready(const struct core_v1_pod *p)
{
	LIST_EACH(c, &p->status.conditions) {
		if (str_eqz(c->type, "Ready"))
			return str_eqz(c->status, "True");
	}
	return false;
}

static void delete_done(void *arg, struct registry_request *req, struct registry_result *res)
{
	struct write *w = arg;
	struct registry_result out = { 0 };
	bool failed = res->status && str_eqz(res->status->status, "Failure");
	object_unref(res->object);
	if (failed) {
		out.status = res->status;
		out.code = res->code;
	} else {
		answer_success(w, NULL, &out);
	}
	w->done(w->arg, w->req, &out);
}

static void say_evicted(struct write *w)
{
	pod_condition_set(w, &((struct core_v1_pod *)w->obj)->status, "DisruptionTarget", "True",
		"EvictionByEvictionAPI", "Eviction API: evicting");
}

static void evict(struct write *w)
{
	const struct policy_v1_eviction *e = w->req->obj;
	struct registry_request *req = arena_memdup(w->arena, w->req, sizeof(*req));
	req->sub = NULL;
	req->verb = VERB_DELETE;
	req->obj = NULL;
	req->delete_options = e->delete_options;
	object_unref(w->current);
	w->current = NULL;
	struct write *d = write_new(w->r, req, delete_done, w, write_run_delete);
	d->amend = say_evicted;
	write_run_delete(d);
}

/* After the budget was written: on the writer thread, so the delete is prepared on the retry thread. */
static void budget_done(void *arg, int result, struct object *o)
{
	struct write *w = arg;
	w->run = result ? pod_run_eviction : evict;
	w->attempts++;
	write_again(w);
}

/* The budget's controller does not count this pod as healthy any more, even before its cache shows the deletion. */
static void note_disrupted(
	struct write *w, struct policy_v1_pod_disruption_budget *b, struct str pod)
{
	struct time_map *m = &b->status.disrupted_pods, now = { .len = 0 };
	now.items = arena_alloc(w->arena, (m->len + 1) * sizeof(*now.items));
	struct time_entry mine = { pod, { w->now.sec, 0 } };
	bool placed = false;
	LIST_EACH(e, m) {
		int order = str_cmp(e->key, pod);
		if (!placed && order >= 0) {
			now.items[now.len++] = mine;
			placed = true;
		}
		if (order != 0)
			now.items[now.len++] = *e;
	}
	if (!placed)
		now.items[now.len++] = mine;
	*m = now;
}

static void take_from_budget(struct write *w, struct policy_v1_pod_disruption_budget *b,
	struct object *stored, const struct core_v1_pod *p)
{
	const struct resource *budgets =
		registry_resource(w->r, STR("policy"), STR("v1"), STR("poddisruptionbudgets"));
	struct store_op op = { .verb = STORE_UPDATE,
		.key = stored->key,
		.expect = stored->revision,
		.labels = stored->labels,
		.n_labels = stored->n_labels,
		.fields = stored->fields,
		.n_fields = stored->n_fields };
	CLEAN_BUF struct buf json = { 0 };
	b->status.disruptions_allowed--;
	note_disrupted(w, b, p->metadata.name);
	json_encode(budgets->row->type, b, &json);
	json_cut_revision(buf_str(&json), &op.json_head, &op.json_tail);
	store_submit(w->r->store, &op, budget_done, w);
}

void pod_run_eviction(struct write *w)
{
	CLEAN_OBJECT struct object *stored = NULL;
	void *found = NULL;
	if (!write_load(w)) {
		write_refuse(w, w->refused);
		return;
	}
	const struct core_v1_pod *p = w->old;
	bool free_to_go = str_eqz(p->status.phase, "Succeeded") ||
		str_eqz(p->status.phase, "Failed") || str_eqz(p->status.phase, "Pending") ||
		!time_is_zero(p->metadata.deletion_timestamp);
	struct meta_v1_status *st = free_to_go ? NULL : find_budget(w, p, &stored, &found);
	struct policy_v1_pod_disruption_budget *b = found;
	if (!st && b && !ready(p) && str_eqz(b->spec.unhealthy_pod_eviction_policy, "AlwaysAllow"))
		b = NULL;
	if (!st && b && !ready(p) && b->status.current_healthy >= b->status.desired_healthy &&
		b->status.desired_healthy > 0)
		b = NULL;
	if (!st && b &&
		(b->status.observed_generation < b->metadata.generation ||
			b->status.disruptions_allowed <= 0))
		st = refuse_eviction(w, b);
	if (st)
		write_refuse(w, st);
	else if (b && !w->req->dry_run)
		take_from_budget(w, b, stored, p);
	else
		evict(w);
}
