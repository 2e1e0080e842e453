/* The common questions about pods, and their creation and deletion with the events that go with them. Upstream: pkg/controller's
 * controller_utils and pkg/api/v1/pod. */
#include "controllers/internal.h"

#include <math.h>

const struct core_v1_pod_condition *pod_condition(const struct core_v1_pod *p, const char *type)
{
	LIST_EACH(c, &p->status.conditions)
		if (str_eqz(c->type, type))
			return c;
	return NULL;
}

bool pod_ready(const struct core_v1_pod *p)
{
	const struct core_v1_pod_condition *c = pod_condition(p, "Ready");

	return c && str_eqz(c->status, "True");
}

bool pod_ended(const struct core_v1_pod *p)
{
	return str_eqz(p->status.phase, "Succeeded") || str_eqz(p->status.phase, "Failed");
}

bool pod_active(const struct core_v1_pod *p)
{
	return !pod_ended(p) && time_is_zero(p->metadata.deletion_timestamp);
}

bool pod_available(const struct core_v1_pod *p, int64_t min_ready_s, struct timestamp now,
	uint64_t *ret_wait_ms)
{
	const struct core_v1_pod_condition *c = pod_condition(p, "Ready");

	if (ret_wait_ms)
		*ret_wait_ms = 0;
	if (!c || !str_eqz(c->status, "True"))
		return false;
	if (!min_ready_s)
		return true;
	if (time_is_zero(c->last_transition_time))
		return false;
	double left = (double)min_ready_s - time_diff_s(now, c->last_transition_time);

	if (left <= 0)
		return true;
	if (ret_wait_ms)
		*ret_wait_ms = ms_of(left) + 1;
	return false;
}

/* ---- victims: the table of what decides, first difference wins ---- */
struct victim {
	const struct core_v1_pod *pod;
	size_t rank;
	struct timestamp now;
};

static int cmp_i64(int64_t a, int64_t b)
{
	return a < b ? -1 : a > b;
}

static int by_assigned(const struct victim *a, const struct victim *b)
{
	return cmp_i64(a->pod->spec.node_name.len > 0, b->pod->spec.node_name.len > 0);
}

static int phase_order(const struct core_v1_pod *p)
{
	return str_eqz(p->status.phase, "Running")    ? 2
		: str_eqz(p->status.phase, "Unknown") ? 1
						      : 0;
}

static int by_phase(const struct victim *a, const struct victim *b)
{
	return cmp_i64(phase_order(a->pod), phase_order(b->pod));
}

static int by_ready(const struct victim *a, const struct victim *b)
{
	return cmp_i64(pod_ready(a->pod), pod_ready(b->pod));
}

static int64_t deletion_cost(const struct core_v1_pod *p)
{
	int64_t cost;

	if (str_to_i64(str_map_get(&p->metadata.annotations,
			       STR("controller.kubernetes.io/pod-deletion-cost")),
		    &cost))
		return 0;
	return cost;
}

static int by_cost(const struct victim *a, const struct victim *b)
{
	return cmp_i64(deletion_cost(a->pod), deletion_cost(b->pod));
}

static int by_rank(const struct victim *a, const struct victim *b)
{
	return cmp_i64((int64_t)b->rank, (int64_t)a->rank); /* crowded nodes first */
}

/* The younger one first, in steps of powers of two, so that not always the same node loses; equal steps: by uid. */
static int by_age(
	struct timestamp ta, struct timestamp tb, const struct victim *a, const struct victim *b)
{
	if (!time_cmp(ta, tb))
		return 0;
	if (time_is_zero(ta) || time_is_zero(tb))
		return time_is_zero(ta) ? -1 : 1;
	double da = time_diff_s(a->now, ta) * 1e9, db = time_diff_s(b->now, tb) * 1e9;
	int64_t ra = da > 0 ? (int64_t)floor(log2(da)) : -1,
		rb = db > 0 ? (int64_t)floor(log2(db)) : -1;

	return ra != rb ? cmp_i64(ra, rb) : str_cmp(a->pod->metadata.uid, b->pod->metadata.uid);
}

static struct timestamp ready_since(const struct core_v1_pod *p)
{
	const struct core_v1_pod_condition *c = pod_condition(p, "Ready");

	return c && str_eqz(c->status, "True") ? c->last_transition_time : (struct timestamp){ 0 };
}

static int by_ready_time(const struct victim *a, const struct victim *b)
{
	if (!pod_ready(a->pod) || !pod_ready(b->pod))
		return 0;
	return by_age(ready_since(a->pod), ready_since(b->pod), a, b);
}

static int64_t restarts(const struct core_v1_pod *p)
{
	int64_t most = 0;

	LIST_EACH(c, &p->status.container_statuses)
		most = MAX(most, (int64_t)c->restart_count);
	return most;
}

static int by_restarts(const struct victim *a, const struct victim *b)
{
	return cmp_i64(restarts(b->pod), restarts(a->pod));
}

static int by_creation(const struct victim *a, const struct victim *b)
{
	return by_age(
		a->pod->metadata.creation_timestamp, b->pod->metadata.creation_timestamp, a, b);
}

static int (*const victim_order[])(const struct victim *a, const struct victim *b) = {
	by_assigned, /* without a node first */
	by_phase,    /* Pending, Unknown, Running */
	by_ready,    /* not ready first */
	by_cost,     /* the cheaper first */
	by_rank,
	by_ready_time,
	by_restarts, /* the more restarts the earlier */
	by_creation,
};

int pod_victim_cmp(const struct core_v1_pod *a, size_t rank_a, const struct core_v1_pod *b,
	size_t rank_b, struct timestamp now)
{
	const struct victim va = { a, rank_a, now }, vb = { b, rank_b, now };

	for (size_t i = 0; i < ARRAY_LEN(victim_order); i++) {
		int r = victim_order[i](&va, &vb);

		if (r)
			return r;
	}
	return 0;
}

/* ---- creation and deletion ---- */
struct meta_v1_owner_reference controller_reference(
	const struct type *owner_type, const void *owner, struct arena *a)
{
	const struct meta_v1_object_meta *m = model_meta(owner_type, owner);

	return (struct meta_v1_owner_reference){
		.api_version = str_of(api_version_of(owner_type, a)),
		.kind = str_of(owner_type->name),
		.name = m->name,
		.uid = m->uid,
		.controller = SOME(true),
		.block_owner_deletion = SOME(true),
	};
}

struct core_v1_pod *pod_from_template(const struct core_v1_pod_template_spec *tpl,
	const struct type *owner_type, const void *owner, struct arena *a)
{
	const struct meta_v1_object_meta *om = model_meta(owner_type, owner);
	const struct core_v1_pod_template_spec *copy =
		model_copy(&core_v1_pod_template_spec_type, tpl, a);
	struct core_v1_pod *p = model_new(&core_v1_pod_type, a);

	p->metadata.labels = copy->metadata.labels;
	p->metadata.annotations = copy->metadata.annotations;
	p->metadata.finalizers = copy->metadata.finalizers;
	p->metadata.generate_name = arena_fmt(a, STR_FMT "-", STR_ARG(om->name));
	p->metadata.namespace = om->namespace;
	p->spec = copy->spec;
	*LIST_ADD(a, &p->metadata.owner_references) = controller_reference(owner_type, owner, a);
	return p;
}

int pod_create(struct run *r, const struct core_v1_pod *pod, const struct type *owner_type,
	const void *owner, struct err *err)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct core_v1_pod *made;
	int ret = client_create(
		r->client, &core_v1_pod_type, pod->metadata.namespace, pod, a, (void **)&made, err);

	if (!ret)
		event_record(r->events, owner_type, owner, "Normal", "SuccessfulCreate",
			"Created pod: " STR_FMT, STR_ARG(made->metadata.name));
	else if (!namespace_ends(ret, err))
		event_record(r->events, owner_type, owner, "Warning", "FailedCreate",
			"Error creating: %s", err->text);
	return ret;
}

int pod_delete(struct run *r, const struct core_v1_pod *pod, const struct type *owner_type,
	const void *owner, struct err *err)
{
	const struct client_delete o = { .grace_seconds = -1, .uid = pod->metadata.uid };
	int ret = client_delete(
		r->client, &core_v1_pod_type, pod->metadata.namespace, pod->metadata.name, &o, err);

	if (!ret)
		event_record(r->events, owner_type, owner, "Normal", "SuccessfulDelete",
			"Deleted pod: " STR_FMT, STR_ARG(pod->metadata.name));
	else if (ret != CLIENT_NOT_FOUND && ret != CLIENT_CONFLICT)
		event_record(r->events, owner_type, owner, "Warning", "FailedDelete",
			"Error deleting: %s", err->text);
	return ret == CLIENT_CONFLICT ? CLIENT_NOT_FOUND
				      : ret; /* another uid has the name: ours is gone */
}
