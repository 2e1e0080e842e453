/* When probes run and what their answers come to. A probe is a timer while it waits and a thread of its pool while it asks; a container without probes has
 * neither. Its fields are guarded by worker.lock. Source: the concept page on probes; thresholds, holding and events are upstream's.
 *
 * 1. Liveness and readiness wait for the startup probe. A liveness or startup probe that failed says no more until the container is another.
 * 2. After a restart of the kubelet a container that was told ready stays so until a probe says otherwise. */
#include "gen/types.h"
#include "kubelet/internal.h"

const char *const probe_type_text[N_PROBES] = { "Liveness", "Readiness", "Startup" };

struct run {
	struct pod_worker *w;
	struct probe *p;
	char id[ENGINE_ID];
};

const struct core_v1_probe *container_probe(const struct core_v1_container *c, enum probe_type t)
{
	return t == PROBE_LIVENESS     ? c->liveness_probe
		: t == PROBE_READINESS ? c->readiness_probe
				       : c->startup_probe;
}

bool slot_probe_failed(const struct slot *slot, enum probe_type t, const char *container_id)
{
	const struct probe *p = &slot->probes[t];

	return p->result == PROBE_FAILURE && !strcmp(p->container_id, container_id);
}

static uint64_t period_ns(const struct core_v1_probe *spec)
{
	return (uint64_t)(spec->period_seconds > 0 ? spec->period_seconds : 10) * NS_PER_S;
}

static void schedule(struct probe *p, uint64_t at_ns)
{
	worker_ref(p->worker);
	if (!wake_set(&p->worker->k->wakes, &p->wake, at_ns))
		worker_unref(p->worker);
}

static void cancel(struct probe *p)
{
	if (wake_cancel(&p->worker->k->wakes, &p->wake))
		worker_unref(p->worker);
}

/* An answer counts once enough of its kind came in a row. true: what holds has changed. */
static bool take_answer(
	struct probe *p, const struct core_v1_probe *spec, enum probe_result r, struct str output)
{
	unsigned need = r == PROBE_SUCCESS
		? (unsigned)MAX(spec->success_threshold, 1)
		: (unsigned)(spec->failure_threshold > 0 ? spec->failure_threshold : 3);

	p->last_at = now_wall(p->worker->k);
	size_t n = MIN(output.len, sizeof(p->last_output) - 1);
	if (n)
		memcpy(p->last_output, output.p, n);
	p->last_output[n] = 0;
	if (r == PROBE_UNKNOWN) /* no answer at all: what came in a row still did */
		return false;
	p->streak = p->last == r ? p->streak + 1 : 1;
	p->last = r;
	if (p->streak < need || p->result == r)
		return false;
	p->result = r;
	return true;
}

static void run(void *arg)
{
	struct run *r = arg;
	struct pod_worker *w = r->w;
	struct kubelet *k = w->k;
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf output = { 0 };

	pthread_mutex_lock(&k->lock);
	struct pod_object *o = pod_object_ref(w->desired);
	pthread_mutex_unlock(&k->lock);
	struct container_specs specs = pod_containers(o->pod, a);
	const struct container_spec *spec = container_specs_find(&specs, str_of(r->p->slot->name));
	const struct core_v1_probe *probe = spec ? container_probe(spec->c, r->p->type) : NULL;
	pthread_mutex_lock(&w->lock);
	const struct pod_sandbox *b = worker_sandbox(w);
	CLEAN_FREE char *ip = xstrdup(o->pod->spec.host_network ? k->c.node_ip
			: b && b->ip                            ? b->ip
								: "");
	bool live = probe && r->p->active && !strcmp(r->p->container_id, r->id);
	pthread_mutex_unlock(&w->lock);

	enum probe_result answer = PROBE_NONE;
	if (live)
		answer = probe_ask(k, probe, spec->c, r->id, ip, &output);
	bool warn = answer == PROBE_WARNING;
	if (warn)
		answer = PROBE_SUCCESS;
	pthread_mutex_lock(&w->lock);
	live = live && r->p->active && !strcmp(r->p->container_id, r->id);
	bool changed = live && take_answer(r->p, probe, answer, buf_str(&output));
	bool hold = live && r->p->type != PROBE_READINESS && r->p->result == PROBE_FAILURE;
	bool through = live && r->p->type == PROBE_STARTUP && r->p->result == PROBE_SUCCESS;
	r->p->running = false;
	bool missed = r->p->missed && r->p->active;
	r->p->missed = false;
	pthread_mutex_unlock(&w->lock);
	if (live && warn)
		worker_container_event(w, o->pod, spec->c->name, "Warning", "ProbeWarning",
			"%s probe warning: " STR_FMT, probe_type_text[r->p->type],
			STR_ARG(buf_str(&output)));
	else if (live && answer == PROBE_FAILURE)
		worker_container_event(w, o->pod, spec->c->name, "Warning", "Unhealthy",
			"%s probe failed: " STR_FMT, probe_type_text[r->p->type],
			STR_ARG(buf_str(&output)));
	else if (live && answer == PROBE_UNKNOWN)
		worker_container_event(w, o->pod, spec->c->name, "Warning", "Unhealthy",
			"%s probe errored and resulted in unknown state: " STR_FMT,
			probe_type_text[r->p->type], STR_ARG(buf_str(&output)));
	if (live && !hold && !through)
		schedule(r->p, now_ns(k) + period_ns(probe));
	else if (missed)
		schedule(r->p, now_ns(k));
	if (changed || !live)
		worker_wake(w);
	pod_object_unref(o);
	worker_unref(w);
	free(r);
}

/* On the loop; the reference of the wake goes to the run. */
static void on_time(void *arg)
{
	struct probe *p = arg;
	struct pod_worker *w = p->worker;

	pthread_mutex_lock(&w->lock);
	bool go = p->active && !p->running && !w->k->stopping;
	p->missed |= p->active && p->running;
	struct run *r = NULL;
	if (go) {
		p->running = true;
		r = xcalloc(1, sizeof(*r));
		*r = (struct run){ .w = w, .p = p };
		memcpy(r->id, p->container_id, sizeof(r->id));
	}
	pthread_mutex_unlock(&w->lock);
	if (go)
		pool_submit(w->k->asking, run, r);
	else
		worker_unref(w);
}

/* What the API was told of this very container before the kubelet restarted. */
static const struct core_v1_container_status *told(const struct sync *s, const char *id)
{
	const struct core_v1_container_status_items *lists[] = { &s->pod->status.container_statuses,
		&s->pod->status.init_container_statuses };

	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		LIST_EACH(c, lists[i])
			if (str_has_suffix(c->container_id, str_of(id)))
				return c;
	return NULL;
}

static void begin(struct sync *s, struct probe *p, const struct engine_container *c)
{
	const struct core_v1_container_status *before = told(s, c->id);

	memcpy(p->container_id, c->id, sizeof(p->container_id));
	p->active = false;
	p->result = p->last = PROBE_NONE;
	p->streak = 0;
	p->last_output[0] = 0;
	p->wake.fn = on_time;
	p->wake.arg = p;
	if (before &&
		((p->type == PROBE_READINESS && before->ready) ||
			(p->type == PROBE_STARTUP && before->started.set && before->started.value)))
		p->result = PROBE_SUCCESS;
}

static uint64_t first_time(
	struct sync *s, const struct core_v1_probe *spec, const struct engine_container *c)
{
	double past = time_diff_s(now_wall(s->k), c->started_at),
	       delay = spec->initial_delay_seconds;

	return now_ns(s->k) + (delay > past ? (uint64_t)((delay - MAX(past, 0)) * 1e9) : 0);
}

static void sync_one(struct sync *s, const struct container_spec *spec, struct slot *slot,
	const struct engine_container *c)
{
	bool ending = s->w->state != POD_SYNCING;
	uint64_t at[N_PROBES] = { 0 };

	pthread_mutex_lock(&s->w->lock);
	for (int t = 0; t < N_PROBES; t++) {
		struct probe *p = &slot->probes[t];
		if (container_probe(spec->c, t) && strcmp(p->container_id, c->id))
			begin(s, p, c);
	}
	const struct probe *startup = &slot->probes[PROBE_STARTUP],
			   *ready = &slot->probes[PROBE_READINESS];
	bool hook = slot->hook_pending[0] && !strcmp(slot->hook_pending, c->id);
	slot->started = !hook && (!spec->c->startup_probe || startup->result == PROBE_SUCCESS);
	slot->ready =
		slot->started && (!spec->c->readiness_probe || ready->result == PROBE_SUCCESS);
	for (int t = 0; t < N_PROBES; t++) {
		struct probe *p = &slot->probes[t];
		const struct core_v1_probe *want = container_probe(spec->c, t);
		bool run_it = want && !(ending && t != PROBE_READINESS) &&
			(t == PROBE_STARTUP ? p->result != PROBE_SUCCESS : slot->started) &&
			!hook && (t == PROBE_READINESS || p->result != PROBE_FAILURE);
		if (run_it && !p->active)
			at[t] = first_time(s, want, c);
		p->active = run_it;
	}
	pthread_mutex_unlock(&s->w->lock);
	for (int t = 0; t < N_PROBES; t++) {
		if (at[t])
			schedule(&slot->probes[t], at[t]);
		else if (!slot->probes[t].active)
			cancel(&slot->probes[t]);
	}
}

static void stop_one(struct pod_worker *w, struct slot *slot)
{
	pthread_mutex_lock(&w->lock);
	slot->ready = slot->started = false;
	for (int t = 0; t < N_PROBES; t++)
		slot->probes[t].active = false;
	pthread_mutex_unlock(&w->lock);
	for (int t = 0; t < N_PROBES; t++)
		cancel(&slot->probes[t]);
}

void probes_sync(struct sync *s)
{
	for (size_t i = 0; i < s->specs.len; i++) {
		const struct container_spec *spec = &s->specs.items[i];
		const struct engine_container *c = view_current(&s->view, spec->c->name);
		struct slot *slot = worker_slot(s->w, spec->c->name);
		if (c && c->state == CONTAINER_RUNNING)
			sync_one(s, spec, slot, c);
		else
			stop_one(s->w, slot);
	}
}

void probes_stop(struct pod_worker *w)
{
	for (size_t i = 0; i < w->n_slots; i++)
		stop_one(w, w->slots[i]);
}
