/* Cells of pods: one pass over the container statuses says what kubectl shows as STATUS, READY and RESTARTS. */
#include "registry/columns.h"

struct summary {
	int ready, total, restarts;
	struct timestamp last_restart;
	struct str reason;
};

static bool restartable(const struct core_v1_pod *p, struct str name)
{
	LIST_EACH(c, &p->spec.init_containers) {
		if (str_eq(c->name, name))
			return str_eqz(c->restart_policy, "Always");
	}
	return false;
}

static bool condition_true(const struct core_v1_pod *p, const char *type)
{
	LIST_EACH(c, &p->status.conditions) {
		if (str_eqz(c->type, type))
			return str_eqz(c->status, "True");
	}
	return false;
}

static void count_restart(
	const struct core_v1_container_status *s, int *restarts, struct timestamp *last)
{
	*restarts += s->restart_count;
	if (s->last_state.terminated && time_cmp(s->last_state.terminated->finished_at, *last) > 0)
		*last = s->last_state.terminated->finished_at;
}

static struct str ended(
	struct cell *c, const char *prefix, const struct core_v1_container_state_terminated *t)
{
	if (t->reason.len)
		return arena_fmt(c->arena, "%s" STR_FMT, prefix, STR_ARG(t->reason));
	return t->signal ? arena_fmt(c->arena, "%sSignal:%d", prefix, t->signal)
			 : arena_fmt(c->arena, "%sExitCode:%d", prefix, t->exit_code);
}

/* true: an init container is not through. */
static bool init_summary(struct cell *c, const struct core_v1_pod *p, struct summary *s,
	int *sidecar_restarts, struct timestamp *sidecar_last)
{
	size_t i = 0;
	LIST_EACH(st, &p->status.init_container_statuses) {
		bool sidecar = restartable(p, st->name);
		count_restart(st, &s->restarts, &s->last_restart);
		if (sidecar)
			count_restart(st, sidecar_restarts, sidecar_last);
		i++;
		if (st->state.terminated && st->state.terminated->exit_code == 0)
			continue;
		if (sidecar && st->started.value) {
			s->ready += st->ready;
			continue;
		}
		if (st->state.terminated)
			s->reason = ended(c, "Init:", st->state.terminated);
		else if (st->state.waiting && st->state.waiting->reason.len &&
			!str_eqz(st->state.waiting->reason, "PodInitializing"))
			s->reason = arena_fmt(
				c->arena, "Init:" STR_FMT, STR_ARG(st->state.waiting->reason));
		else
			s->reason = arena_fmt(
				c->arena, "Init:%zu/%zu", i - 1, p->spec.init_containers.len);
		return true;
	}
	return false;
}

static void main_summary(struct cell *c, const struct core_v1_pod *p, struct summary *s)
{
	bool running = false;
	for (size_t i = p->status.container_statuses.len; i-- > 0;) {
		const struct core_v1_container_status *st = &p->status.container_statuses.items[i];
		count_restart(st, &s->restarts, &s->last_restart);
		if (st->state.waiting && st->state.waiting->reason.len)
			s->reason = st->state.waiting->reason;
		else if (st->state.terminated)
			s->reason = ended(c, "", st->state.terminated);
		else if (st->ready && st->state.running) {
			running = true;
			s->ready++;
		}
	}
	if (str_eqz(s->reason, "Completed") && running)
		s->reason = condition_true(p, "Ready") ? STR("Running") : STR("NotReady");
}

static struct summary summarize(struct cell *c, const struct core_v1_pod *p)
{
	struct summary s = { .total = (int)p->spec.containers.len,
		.reason = p->status.reason.len ? p->status.reason : p->status.phase };
	int sidecar_restarts = 0;
	struct timestamp sidecar_last = { 0 };
	LIST_EACH(cond, &p->status.conditions) {
		if (str_eqz(cond->type, "PodScheduled") && str_eqz(cond->reason, "SchedulingGated"))
			s.reason = cond->reason;
	}
	LIST_EACH(ic, &p->spec.init_containers)
		s.total += str_eqz(ic->restart_policy, "Always");
	if (!init_summary(c, p, &s, &sidecar_restarts, &sidecar_last) ||
		condition_true(p, "Initialized")) {
		s.restarts = sidecar_restarts;
		s.last_restart = sidecar_last;
		main_summary(c, p, &s);
	}
	bool terminal = str_eqz(p->status.phase, "Failed") || str_eqz(p->status.phase, "Succeeded");
	if (!time_is_zero(p->metadata.deletion_timestamp))
		s.reason = str_eqz(p->status.reason, "NodeLost") ? STR("Unknown")
			: terminal                               ? s.reason
								 : STR("Terminating");
	return s;
}

static void ready(struct cell *c, const void *obj)
{
	struct summary s = summarize(c, obj);
	cell_fmt(c, "%d/%d", s.ready, s.total);
}

static void status(struct cell *c, const void *obj)
{
	cell_text(c, summarize(c, obj).reason);
}

static void restarts(struct cell *c, const void *obj)
{
	struct summary s = summarize(c, obj);
	if (s.restarts && !time_is_zero(s.last_restart))
		cell_fmt(c, "%d (" STR_FMT " ago)", s.restarts,
			STR_ARG(since_text(c, s.last_restart)));
	else
		cell_fmt(c, "%d", s.restarts);
}

static void node(struct cell *c, const void *obj)
{
	cell_or(c, ((const struct core_v1_pod *)obj)->spec.node_name, "<none>");
}

static void nominated_node(struct cell *c, const void *obj)
{
	cell_or(c, ((const struct core_v1_pod *)obj)->status.nominated_node_name, "<none>");
}

static void readiness_gates(struct cell *c, const void *obj)
{
	const struct core_v1_pod *p = obj;
	int met = 0;
	if (!p->spec.readiness_gates.len) {
		cell_textz(c, "<none>");
		return;
	}
	LIST_EACH(g, &p->spec.readiness_gates)
		met += condition_true(p, g->condition_type.p);
	cell_fmt(c, "%d/%zu", met, p->spec.readiness_gates.len);
}

static void template_containers(struct cell *c, const void *obj)
{
	cell_containers(c, &((const struct core_v1_pod_template *)obj)->template.spec);
}

static void template_images(struct cell *c, const void *obj)
{
	cell_images(c, &((const struct core_v1_pod_template *)obj)->template.spec);
}

static void template_labels(struct cell *c, const void *obj)
{
	cell_text(c,
		labels_text(
			c, &((const struct core_v1_pod_template *)obj)->template.metadata.labels));
}

const struct column_fn pod_columns[] = {
	{ "pod_ready", ready },
	{ "pod_status", status },
	{ "pod_restarts", restarts },
	{ "pod_node", node },
	{ "pod_nominated_node", nominated_node },
	{ "pod_readiness_gates", readiness_gates },
	{ "pod_template_containers", template_containers },
	{ "pod_template_images", template_images },
	{ "pod_template_pod_labels", template_labels },
	{ 0 },
};
