/* What should happen to a pod that should run: a pure function of its object, the engine's records and the slots. Upstream: computePodActions.
 *
 * 1. Without a ready sandbox nothing else is planned; one is made unless the pod is through.
 * 2. Init containers run one after another, once a sandbox; sidecars among them keep running and must be started before the next.
 * 3. App containers start together when all of that is done. When none runs and none is to run, the pod is finished. */
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"

static bool is_down(const struct engine_container *c)
{
	return c->state != CONTAINER_RUNNING;
}

static bool rule_restarts(const struct core_v1_container *c, int32_t code, bool *ret)
{
	LIST_EACH(rule, &c->restart_policy_rules) {
		if (!rule->exit_codes || !str_eqz(rule->action, "Restart"))
			continue;
		bool in = false;
		for (size_t i = 0; i < rule->exit_codes->values.len; i++)
			in |= rule->exit_codes->values.items[i] == code;
		if (in == str_eqz(rule->exit_codes->operator, "In")) {
			*ret = true;
			return true;
		}
	}
	return false;
}

bool container_should_restart(const struct core_v1_pod *pod, const struct container_spec *spec,
	const struct engine_container *last)
{
	struct str policy = pod->spec.restart_policy;
	bool by_rule;

	if (spec->kind == KIND_EPHEMERAL)
		return !last;
	if (!last || last->state == CONTAINER_CREATED || last->state == CONTAINER_UNKNOWN)
		return true;
	if (last->state == CONTAINER_RUNNING)
		return false;
	if (spec->sidecar || (spec->again && !strcmp(spec->again, last->id)))
		return true;
	if (spec->c->restart_policy.p && spec->c->restart_policy.len)
		policy = spec->c->restart_policy;
	if (rule_restarts(spec->c, last->exit_code, &by_rule))
		return by_rule;
	if (str_eqz(policy, "Never"))
		return false;
	if (str_eqz(policy, "OnFailure") || spec->kind == KIND_INIT)
		return last->exit_code != 0;
	return true;
}

static struct pod_action *add(struct pod_plan *p, int what, const struct container_spec *spec)
{
	struct pod_action *a = &p->items[p->len++];

	*a = (struct pod_action){ .what = what, .spec = spec };
	return a;
}

/* A running container that must not go on as it is: plans its end. */
static bool plan_kill(const struct sync *s, struct pod_plan *p, const struct container_spec *spec,
	const struct engine_container *c)
{
	const struct slot *slot = worker_slot(s->w, spec->c->name);
	const char *why = NULL;
	bool by_probe = false;

	if (!str_eq(container_annotation(c, "hash", s->a), container_hash(spec->c, s->a))) {
		why = "definition changed";
	} else if (slot->hook_failed && !strcmp(c->id, slot->hook_pending)) {
		why = "failed postStart hook";
	} else if (slot_probe_failed(slot, PROBE_LIVENESS, c->id)) {
		why = "failed liveness probe";
		by_probe = true;
	} else if (slot_probe_failed(slot, PROBE_STARTUP, c->id)) {
		why = "failed startup probe";
		by_probe = true;
	}
	if (!why)
		return false;
	struct engine_container dead = { .state = CONTAINER_EXITED, .exit_code = 137 };
	bool again =
		!strcmp(why, "definition changed") || container_should_restart(s->pod, spec, &dead);
	struct pod_action *a = add(p, ACT_KILL, spec);
	a->container = c;
	a->by_probe = by_probe;
	snprintf(a->message, sizeof(a->message), "Container " STR_FMT " %s%s",
		STR_ARG(spec->c->name), why, again ? ", will be restarted" : "");
	return true;
}

/* One init container. Returns whether the next may be looked at. */
static bool plan_init(
	const struct sync *s, struct pod_plan *p, const struct container_spec *spec, bool apps_ran)
{
	const struct engine_container *c = view_current(&s->view, spec->c->name);
	const struct slot *slot = worker_slot(s->w, spec->c->name);

	if (spec->sidecar) {
		if (!c || is_down(c)) {
			add(p, ACT_START, spec);
			return false;
		}
		plan_kill(s, p, spec, c);
		return slot->started;
	}
	if (apps_ran)
		return true;
	if (!c || c->state == CONTAINER_CREATED || c->state == CONTAINER_UNKNOWN) {
		add(p, ACT_START, spec);
		return false;
	}
	if (c->state == CONTAINER_RUNNING)
		return false;
	if (c->exit_code == 0)
		return true;
	if (container_should_restart(s->pod, spec, c))
		add(p, ACT_START, spec);
	else
		p->finished = true;
	return false;
}

static size_t plan_apps(const struct sync *s, struct pod_plan *p)
{
	size_t living = 0;

	for (size_t i = 0; i < s->specs.len; i++) {
		const struct container_spec *spec = &s->specs.items[i];
		if (spec->kind != KIND_APP)
			continue;
		const struct engine_container *c = view_current(&s->view, spec->c->name);
		if (c && !is_down(c)) {
			living++;
			plan_kill(s, p, spec, c);
		} else if (container_should_restart(
				   s->pod, spec, c ? c : view_latest(&s->view, spec->c->name)) ||
			(!c && !view_latest(&s->view, spec->c->name))) {
			living++;
			add(p, ACT_START, spec);
		}
	}
	return living;
}

/* Is there anything that a new sandbox would be for? */
static bool pod_is_through(const struct sync *s)
{
	bool started = false, left = false;

	for (size_t i = 0; i < s->specs.len; i++) {
		const struct container_spec *spec = &s->specs.items[i];
		const struct engine_container *c = view_latest(&s->view, spec->c->name);
		if (spec->kind == KIND_EPHEMERAL)
			continue;
		if (spec->kind == KIND_INIT && !spec->sidecar && c &&
			c->state == CONTAINER_EXITED && c->exit_code &&
			!container_should_restart(s->pod, spec, c))
			return true;
		if (spec->kind != KIND_APP)
			continue;
		started |= c != NULL;
		struct engine_container dead = { .state = CONTAINER_EXITED, .exit_code = 137 };
		left |= !c ||
			container_should_restart(
				s->pod, spec, c->state == CONTAINER_EXITED ? c : &dead);
	}
	return started && !left;
}

static void plan_sandbox(const struct sync *s, struct pod_plan *p)
{
	p->kill_pod = worker_sandbox(s->w) != NULL;
	p->finished = p->kill_pod && pod_is_through(s);
	p->create_sandbox = !p->finished;
}

void plan_make(const struct sync *s, struct pod_plan *ret)
{
	struct pod_plan p = { .items = arena_alloc(
				      s->a, (2 * s->specs.len + 1) * sizeof(*p.items)) };
	const struct pod_sandbox *sandbox = worker_sandbox(s->w);
	bool apps_ran = false, next = true;

	if (!sandbox || !sandbox->ready) {
		plan_sandbox(s, &p);
		*ret = p;
		return;
	}
	for (size_t i = 0; i < s->specs.len; i++) {
		const struct container_spec *spec = &s->specs.items[i];
		if (spec->kind == KIND_APP && view_current(&s->view, spec->c->name))
			apps_ran = true;
		if (spec->kind == KIND_EPHEMERAL && !view_latest(&s->view, spec->c->name))
			add(&p, ACT_START, spec);
	}
	for (size_t i = 0; i < s->specs.len && next; i++)
		if (s->specs.items[i].kind == KIND_INIT)
			next = plan_init(s, &p, &s->specs.items[i], apps_ran) || apps_ran;
	p.initialized = next;
	if (next && !plan_apps(s, &p))
		p.finished = true;
	if (p.finished)
		p.kill_pod = true;
	*ret = p;
}
