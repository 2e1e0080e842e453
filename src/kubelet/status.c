/* A pod's status from its object, the engine's records and the slots. Source of the rules: the concept page on pod life cycle and the API page of
 * PodStatus; reasons and messages are upstream's.
 *
 * 1. A phase that ends a pod (Succeeded, Failed) is told only when nothing of it runs any more.
 * 2. Times are whole seconds, as the API keeps them: otherwise every look would be a change. */
#include "gen/types.h"
#include "kubelet/internal.h"

static struct timestamp seconds(struct timestamp t)
{
	t.nsec = 0;
	return t;
}

/* ---- containers ---- */

static struct str runtime_id(const struct sync *s, const char *id, struct arena *a)
{
	struct str name, version;

	str_cut(str_of(s->k->runtime_version), ':', &name, &version);
	return arena_fmt(a, STR_FMT "://%s", STR_ARG(name), id);
}

static struct core_v1_container_state_terminated *terminated(struct sync *s,
	const struct core_v1_container *spec, const struct engine_container *c, struct arena *a)
{
	struct core_v1_container_state_terminated *t = arena_alloc(a, sizeof(*t));
	struct str log = arena_fmt(s->a, STR_FMT "/" STR_FMT "/%u.log",
		STR_ARG(pod_log_folder(s->k, s->pod, s->a)), STR_ARG(spec->name), c->attempt);
	struct str message = termination_message(s->k, s->w->uid, spec, c, log, a);

	t->exit_code = c->exit_code;
	t->signal = 0;
	t->reason = c->oom_killed ? STR("OOMKilled")
		: c->reason.len   ? arena_str(a, c->reason)
		: c->exit_code    ? STR("Error")
				  : STR("Completed");
	t->message = message.len ? message : c->message.len ? arena_str(a, c->message) : STR_NONE;
	t->started_at = seconds(c->started_at);
	t->finished_at = seconds(c->finished_at);
	t->container_id = runtime_id(s, c->id, a);
	return t;
}

static void set_waiting(struct core_v1_container_status *st, const char *reason,
	const char *message, struct arena *a)
{
	st->state.waiting = arena_alloc(a, sizeof(*st->state.waiting));
	st->state.waiting->reason = arena_strz(a, reason);
	if (message)
		st->state.waiting->message = arena_strz(a, message);
}

static const struct core_v1_container_status *old_status(
	struct sync *s, const struct container_spec *spec)
{
	const struct core_v1_pod_status *old = s->w->status ? s->w->status : &s->pod->status;
	const struct core_v1_container_status_items *lists[] = { &old->container_statuses,
		&old->init_container_statuses, &old->ephemeral_container_statuses };

	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		LIST_EACH(c, lists[i])
			if (str_eq(c->name, spec->c->name))
				return c;
	return NULL;
}

/* No record of it: it never was, or the record went with its sandbox. */
static void without_record(struct sync *s, const struct container_spec *spec,
	struct core_v1_container_status *st, const char *reason, const char *message,
	struct arena *a)
{
	const struct core_v1_container_status *old = old_status(s, spec);

	st->image = arena_str(a, spec->c->image);
	st->image_id = STR("");
	if (old && (old->state.terminated || old->state.running || old->last_state.terminated)) {
		struct core_v1_container_status *copy =
			model_copy(&core_v1_container_status_type, old, a);
		st->restart_count = copy->restart_count;
		st->image_id = copy->image_id;
		st->container_id = copy->container_id;
		if (s->w->state >= POD_TERMINATING) {
			if (copy->state.terminated) {
				st->state = copy->state;
				st->last_state = copy->last_state;
				return;
			}
			struct core_v1_container_state_terminated *t = arena_alloc(a, sizeof(*t));
			t->exit_code = 137;
			t->reason = STR("ContainerStatusUnknown");
			t->message = STR(
				"The container could not be located when the pod was terminated");
			st->state.terminated = t;
			return;
		}
		st->last_state.terminated = copy->state.terminated ? copy->state.terminated
								   : copy->last_state.terminated;
	}
	set_waiting(st, reason, message, a);
}

static void copy_resources(
	const struct container_spec *spec, struct core_v1_container_status *st, struct arena *a)
{
	if (spec->kind == KIND_EPHEMERAL)
		return;
	st->resources = model_copy(&core_v1_resource_requirements_type, &spec->c->resources, a);
	st->resources->claims.items = NULL;
	st->resources->claims.len = 0;
	st->allocated_resources = st->resources->requests;
}

static void copy_mounts(
	const struct container_spec *spec, struct core_v1_container_status *st, struct arena *a)
{
	LIST_EACH(m, &spec->c->volume_mounts) {
		struct core_v1_volume_mount_status *v = LIST_ADD(a, &st->volume_mounts);
		v->name = arena_str(a, m->name);
		v->mount_path = arena_str(a, m->mount_path);
		v->read_only = m->read_only;
		if (m->read_only)
			v->recursive_read_only = STR("Disabled");
	}
}

static void container_status(struct sync *s, const struct container_spec *spec,
	struct core_v1_container_status *st, struct arena *a)
{
	const struct engine_container *c = view_latest(&s->view, spec->c->name);
	const struct slot *slot = worker_slot(s->w, spec->c->name);
	/* As upstream says it: of every container of a pod with init containers, these included. */
	const char *reason = slot->waiting_reason  ? slot->waiting_reason
		: s->pod->spec.init_containers.len ? "PodInitializing"
						   : "ContainerCreating";
	const struct engine_container *before = c ? view_previous(&s->view, c) : NULL;

	st->name = arena_str(a, spec->c->name);
	copy_mounts(spec, st, a);
	st->started = (struct opt_bool)SOME(false);
	if (!c) {
		without_record(s, spec, st, reason, slot->waiting_message, a);
		return;
	}
	st->restart_count = (int32_t)c->attempt;
	st->image = arena_str(a, c->image.len ? c->image : spec->c->image);
	st->image_id = arena_str(a, c->image_id);
	st->container_id = runtime_id(s, c->id, a);
	if (before && before->state == CONTAINER_EXITED)
		st->last_state.terminated = terminated(s, spec->c, before, a);
	switch (c->state) {
	case CONTAINER_RUNNING:
		st->state.running = arena_alloc(a, sizeof(*st->state.running));
		st->state.running->started_at = seconds(c->started_at);
		st->started.value = slot->started;
		st->ready = slot->ready && slot->started;
		copy_resources(spec, st, a);
		const struct core_v1_container_status *told = old_status(s, spec);
		/* A resize that has not reached the run is not told as if it had. */
		if (!strcmp(slot->not_resized, c->id) && told && told->resources)
			st->resources =
				model_copy(&core_v1_resource_requirements_type, told->resources, a);
		break;
	case CONTAINER_EXITED:
		if ((slot->waiting_reason || spec->again) && s->w->state == POD_SYNCING &&
			container_should_restart(s->pod, spec, c)) {
			set_waiting(st, slot->waiting_reason ? slot->waiting_reason : reason,
				slot->waiting_message, a);
			st->last_state.terminated = terminated(s, spec->c, c, a);
		} else {
			st->state.terminated = terminated(s, spec->c, c, a);
			st->ready = spec->kind == KIND_INIT && !spec->sidecar && !c->exit_code;
		}
		break;
	default:
		set_waiting(st, reason, slot->waiting_message, a);
	}
}

static int by_name(const void *a, const void *b)
{
	return str_cmp(((const struct core_v1_container_status *)a)->name,
		((const struct core_v1_container_status *)b)->name);
}

static bool init_done(const struct container_spec *spec, const struct core_v1_container_status *st)
{
	if (spec->sidecar)
		return st->started.set && st->started.value;
	return st->state.terminated && !st->state.terminated->exit_code;
}

/* ---- phase ---- */

struct counts {
	size_t running, waiting, stopped, succeeded, unknown;
};

static void count(struct counts *n, const struct core_v1_container_status *st)
{
	if (st->state.running) {
		n->running++;
	} else if (st->state.terminated) {
		n->stopped++;
		n->succeeded += !st->state.terminated->exit_code;
	} else if (st->state.waiting) {
		if (st->last_state.terminated)
			n->stopped++;
		else
			n->waiting++;
	} else {
		n->unknown++;
	}
}

/* Init containers that hold everything up: 1 pending, -1 failed for good. */
static int init_verdict(const struct core_v1_pod *pod, const struct core_v1_pod_status *st)
{
	LIST_EACH(c, &pod->spec.init_containers) {
		const struct core_v1_container_status *own = NULL;
		LIST_EACH(i, &st->init_container_statuses)
			if (str_eq(i->name, c->name))
				own = i;
		if (!own)
			return 1;
		if (str_eqz(c->restart_policy, "Always")) {
			if (!(own->started.set && own->started.value) && !own->state.terminated)
				return 1;
			continue;
		}
		const struct core_v1_container_state_terminated *t =
			own->state.terminated ? own->state.terminated : own->last_state.terminated;
		if (own->state.terminated && !own->state.terminated->exit_code)
			continue;
		if (t && t->exit_code && str_eqz(pod->spec.restart_policy, "Never"))
			return -1;
		return 1;
	}
	return 0;
}

struct str phase_of(const struct core_v1_pod *pod, const struct core_v1_pod_status *st,
	bool terminal, bool is_static)
{
	struct counts n = { 0 };
	int init = init_verdict(pod, st);

	LIST_EACH(c, &st->container_statuses)
		count(&n, c);
	if (init < 0)
		return STR("Failed");
	if (init > 0 && !n.running && !n.stopped)
		return STR("Pending");
	if (n.waiting)
		return n.stopped ? STR("Running") : STR("Pending");
	if (n.running && !n.unknown)
		return STR("Running");
	if (!n.running && n.stopped && !n.unknown) {
		if (terminal && !is_static)
			return n.stopped == n.succeeded ? STR("Succeeded") : STR("Failed");
		if (str_eqz(pod->spec.restart_policy, "Always") || !pod->spec.restart_policy.len)
			return STR("Running");
		if (n.stopped == n.succeeded)
			return STR("Succeeded");
		return str_eqz(pod->spec.restart_policy, "Never") ? STR("Failed") : STR("Running");
	}
	return STR("Pending");
}

/* ---- conditions ---- */

static void condition(struct sync *s, struct core_v1_pod_status *st, const char *type, bool value,
	const char *reason, struct str message, struct arena *a)
{
	const struct core_v1_pod_status *old = s->w->status ? s->w->status : &s->pod->status;
	struct core_v1_pod_condition *c = LIST_ADD(a, &st->conditions);

	c->type = arena_strz(a, type);
	c->observed_generation = s->pod->metadata.generation;
	c->status = value ? STR("True") : STR("False");
	if (reason)
		c->reason = arena_strz(a, reason);
	if (message.len)
		c->message = arena_str(a, message);
	c->last_transition_time = seconds(now_wall(s->k));
	LIST_EACH(o, &old->conditions)
		if (str_eq(o->type, c->type) && str_eq(o->status, c->status) &&
			!time_is_zero(o->last_transition_time))
			c->last_transition_time = o->last_transition_time;
}

struct names {
	struct buf b;
	size_t n;
};

static void name_add(struct names *l, struct str name)
{
	if (l->n++)
		buf_addc(&l->b, ' ');
	buf_add_str(&l->b, name);
}

static void ready_conditions(struct sync *s, struct core_v1_pod_status *st, struct arena *a)
{
	struct names unready = { 0 };
	const char *reason = NULL;
	struct str message = STR_NONE;

	if (str_eqz(st->phase, "Succeeded")) {
		reason = "PodCompleted";
	} else if (str_eqz(st->phase, "Failed")) {
		reason = "PodFailed";
	} else {
		LIST_EACH(c, &s->pod->spec.init_containers)
			LIST_EACH(i, &st->init_container_statuses)
				if (str_eqz(c->restart_policy, "Always") &&
					str_eq(i->name, c->name) && !i->ready)
					name_add(&unready, c->name);
		LIST_EACH(c, &s->pod->spec.containers)
			LIST_EACH(i, &st->container_statuses)
				if (str_eq(i->name, c->name) && !i->ready)
					name_add(&unready, c->name);
		if (unready.n) {
			reason = "ContainersNotReady";
			message = arena_fmt(a, "containers with unready status: [" STR_FMT "]",
				STR_ARG(buf_str(&unready.b)));
		}
	}
	buf_deinit(&unready.b);
	const char *pod_reason = reason;
	struct str pod_message = message;
	CLEAN_BUF struct buf gates = { 0 };
	LIST_EACH(g, &s->pod->spec.readiness_gates) {
		const struct core_v1_pod_condition *found = NULL;
		LIST_EACH(c, &s->pod->status.conditions)
			if (str_eq(c->type, g->condition_type))
				found = c;
		if (found && str_eqz(found->status, "True"))
			continue;
		buf_addz(&gates, gates.len ? ", " : "");
		if (found)
			buf_addf(&gates,
				"the status of pod readiness gate \"" STR_FMT
				"\" is not \"True\", but " STR_FMT,
				STR_ARG(g->condition_type), STR_ARG(found->status));
		else
			buf_addf(&gates,
				"corresponding condition of pod readiness gate \"" STR_FMT
				"\" does not exist.",
				STR_ARG(g->condition_type));
	}
	if (!reason && gates.len) {
		pod_reason = "ReadinessGatesNotReady";
		pod_message = arena_str(a, buf_str(&gates));
	}
	condition(s, st, "Ready", !pod_reason, pod_reason, pod_message, a);
	condition(s, st, "ContainersReady", !reason, reason, message, a);
}

static void conditions(struct sync *s, struct core_v1_pod_status *st, struct arena *a)
{
	const struct pod_sandbox *b = worker_sandbox(s->w);
	struct names pending = { 0 };

	if (s->w->end == END_EVICTED &&
		(str_eqz(str_of(s->w->end_reason), "Evicted") ||
			str_eqz(str_of(s->w->end_reason), POD_NODE_SHUTDOWN)))
		condition(s, st, "DisruptionTarget", true, "TerminationByKubelet",
			str_of(s->w->end_message), a);
	condition(s, st, "PodReadyToStartContainers", b && b->ready && s->w->state == POD_SYNCING,
		NULL, STR_NONE, a);
	for (size_t i = 0; i < st->init_container_statuses.len; i++) {
		const struct core_v1_container_status *own = &st->init_container_statuses.items[i];
		if (!init_done(container_specs_find(&s->specs, own->name), own))
			name_add(&pending, own->name);
	}
	if (str_eqz(st->phase, "Succeeded"))
		condition(s, st, "Initialized", true, "PodCompleted", STR_NONE, a);
	else if (pending.n)
		condition(s, st, "Initialized", false, "ContainersNotInitialized",
			arena_fmt(a, "containers with incomplete status: [" STR_FMT "]",
				STR_ARG(buf_str(&pending.b))),
			a);
	else
		condition(s, st, "Initialized", true, NULL, STR_NONE, a);
	buf_deinit(&pending.b);
	ready_conditions(s, st, a);
	condition(s, st, "PodScheduled", true, NULL, STR_NONE, a);
	for (size_t i = 0; i < s->specs.len; i++)
		if (worker_slot(s->w, s->specs.items[i].c->name)->not_resized[0]) {
			condition(s, st, "PodResizeInProgress", true, NULL, STR_NONE, a);
			break;
		}
}

/* ---- the whole ---- */

static void addresses(struct sync *s, struct core_v1_pod_status *st, struct arena *a)
{
	const struct core_v1_pod_status *old = s->w->status ? s->w->status : &s->pod->status;
	const struct pod_sandbox *b = worker_sandbox(s->w);
	struct str ip = STR_NONE;

	st->host_ip = arena_strz(a, s->k->c.node_ip);
	LIST_ADD(a, &st->host_ips)->ip = st->host_ip;
	if (b && s->pod->spec.host_network)
		ip = st->host_ip;
	else if (b && b->ip && *b->ip)
		ip = arena_strz(a, b->ip);
	else if (old->pod_ip.len && s->w->state >= POD_TERMINATING)
		ip = arena_str(a, old->pod_ip);
	if (ip.len) {
		st->pod_ip = ip;
		LIST_ADD(a, &st->pod_ips)->ip = ip;
	}
	if (ip.len && b && !s->pod->spec.host_network && b->second_ip && *b->second_ip)
		LIST_ADD(a, &st->pod_ips)->ip = arena_strz(a, b->second_ip);
}

static void end_of(struct sync *s, struct core_v1_pod_status *st, struct arena *a)
{
	struct pod_worker *w = s->w;
	bool down = w->state == POD_TERMINATED;
	bool ends = str_eqz(st->phase, "Succeeded") || str_eqz(st->phase, "Failed");

	/* A pod does not come back from its end, whoever told it. */
	if (!w->is_static && pod_is_terminal(s->pod)) {
		st->phase = arena_str(a, s->pod->status.phase);
		st->reason = arena_str(a, s->pod->status.reason);
		st->message = arena_str(a, s->pod->status.message);
		return;
	}
	if (w->state < POD_TERMINATING ||
		(w->is_static && w->end != END_REJECTED && w->end != END_EVICTED && !ends))
		return;
	if (!down) {
		if (ends)
			st->phase = STR("Running");
		return;
	}
	if (w->end == END_REJECTED || w->end == END_EVICTED) {
		st->phase = STR("Failed");
		st->reason = arena_strz(a, w->end_reason);
		st->message = w->end == END_REJECTED
			? arena_fmt(a, "Pod was rejected: %s", w->end_message)
			: arena_strz(a, w->end_message);
	} else if (!ends) {
		st->phase = STR("Failed");
	}
}

struct core_v1_pod_status *status_make(struct sync *s, struct arena *out)
{
	struct core_v1_pod_status *st = arena_alloc(out, sizeof(*st));
	const struct core_v1_pod_status *old = s->w->status ? s->w->status : &s->pod->status;

	for (size_t i = 0; i < s->specs.len; i++) {
		const struct container_spec *spec = &s->specs.items[i];
		struct core_v1_container_status_items *list = spec->kind == KIND_INIT
			? &st->init_container_statuses
			: spec->kind == KIND_APP ? &st->container_statuses
						 : &st->ephemeral_container_statuses;
		struct core_v1_container_status *own = LIST_ADD(out, list);
		container_status(s, spec, own, out);
	}
	if (st->container_statuses.len)
		qsort(st->container_statuses.items, st->container_statuses.len,
			sizeof(*st->container_statuses.items), by_name);
	st->observed_generation = s->pod->metadata.generation;
	st->qos_class = arena_strz(out, qos_text(kubelet_pod_qos(s->pod)));
	st->start_time = seconds(time_is_zero(old->start_time) ? s->w->seen_at : old->start_time);
	addresses(s, st, out);
	st->phase = phase_of(s->pod, st, s->w->state == POD_TERMINATED, s->w->is_static);
	end_of(s, st, out);
	conditions(s, st, out);
	return st;
}
