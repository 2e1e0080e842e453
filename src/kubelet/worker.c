/* One state machine a pod. Upstream: pod workers.
 *
 *   NEW -> SYNCING -> TERMINATING -> TERMINATED -> GONE        (NEW and SYNCING may skip ahead)
 *
 * 1. worker_wake marks a pod and hands it to the pool; a pod is on one thread at a time, and what was marked meanwhile makes it run again.
 * 2. A run looks at everything (the object, the engine, the slots) and acts on the difference. It never waits for anything slow: tasks.c does, and
 *    wakes it. What time brings is asked for with worker_at. So an idle pod costs nothing.
 * 3. A pod that ended never goes back: a new one has a new uid. */
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"

const char *const pod_state_text[N_POD_STATES] = { "New", "Syncing", "Terminating", "Terminated",
	"Gone" };

/* clang-format off */
static const struct {
	unsigned next;                    /* bits of the states that may follow */
	void (*run)(struct sync *s);
} states[N_POD_STATES] = {
	[POD_NEW]         = { 1 << POD_SYNCING | 1 << POD_TERMINATING, NULL },
	[POD_SYNCING]     = { 1 << POD_TERMINATING,                    sync_running },
	[POD_TERMINATING] = { 1 << POD_TERMINATED,                     sync_terminating },
	[POD_TERMINATED]  = { 1 << POD_GONE,                           sync_terminated },
	[POD_GONE]        = { 0,                                       NULL },
};
/* clang-format on */

uint64_t now_ns(const struct kubelet *k)
{
	return k->c.clock->mono_ns(k->c.clock);
}

struct timestamp now_wall(const struct kubelet *k)
{
	return k->c.clock->wall(k->c.clock);
}

void set_text(char **p, const char *text)
{
	char *old = *p;

	*p = text ? xstrdup(text) : NULL;
	free(old);
}

void worker_move(struct pod_worker *w, enum pod_state to)
{
	pthread_mutex_lock(&w->lock);
	if (!(states[w->state].next & 1u << to)) {
		log_error("kubelet", "pod %s/%s: no way from %s to %s", w->ns, w->name,
			pod_state_text[w->state], pod_state_text[to]);
		abort();
	}
	w->state = to;
	pthread_mutex_unlock(&w->lock);
}

static void on_wake(void *arg)
{
	worker_wake(arg);
	worker_unref(arg);
}

static void on_status_wake(void *arg)
{
	struct pod_worker *w = arg;

	status_resend(w);
	if (w->is_static)
		worker_wake(w); /* its mirror may be what failed */
	worker_unref(w);
}

struct pod_worker *worker_new(struct kubelet *k, struct pod_object *o)
{
	struct pod_worker *w = xcalloc(1, sizeof(*w));
	const struct meta_v1_object_meta *m = &o->pod->metadata;

	w->refs = 1;
	w->k = k;
	w->uid = str_dup(m->uid);
	w->ns = str_dup(m->namespace);
	w->name = str_dup(m->name);
	w->is_static = o->is_static;
	w->desired = o;
	w->evict_grace_s = -1;
	pthread_mutex_init(&w->lock, NULL);
	w->wake = (struct wake){ .fn = on_wake, .arg = w };
	w->status_wake = (struct wake){ .fn = on_status_wake, .arg = w };
	w->seen_at = now_wall(k);
	return w;
}

static void slot_free(struct slot *slot)
{
	free(slot->name);
	free(slot->waiting_reason);
	free(slot->waiting_message);
	free(slot->last_pull);
	free(slot->last_kill_message);
	for (int i = 0; i < N_TASKS; i++) {
		free(slot->tasks[i].text);
		free((char *)slot->tasks[i].image_id.p);
	}
	free(slot);
}

struct pod_worker *worker_ref(struct pod_worker *w)
{
	w->refs++;
	return w;
}

void worker_unref(struct pod_worker *w)
{
	if (!w || --w->refs)
		return;
	for (size_t i = 0; i < w->n_slots; i++)
		slot_free(w->slots[i]);
	for (size_t i = 0; i < w->n_sandboxes; i++) {
		free(w->sandboxes[i].ip);
		free(w->sandboxes[i].second_ip);
	}
	free(w->slots);
	free(w->sandboxes);
	pod_object_unref(w->desired);
	arena_free(w->status_arena);
	free(w->uid);
	free(w->ns);
	free(w->name);
	free(w->end_reason);
	free(w->end_message);
	free(w->evict_reason);
	free(w->evict_message);
	free(w->mount_error);
	map_deinit(&w->tokens, free);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

void worker_unrefp(struct pod_worker **w)
{
	worker_unref(*w);
}

struct slot *worker_slot(struct pod_worker *w, struct str name)
{
	for (size_t i = 0; i < w->n_slots; i++)
		if (str_eqz(name, w->slots[i]->name))
			return w->slots[i];
	struct slot *slot = xcalloc(1, sizeof(*slot));
	slot->name = str_dup(name);
	for (int i = 0; i < N_PROBES; i++) {
		slot->probes[i].worker = w;
		slot->probes[i].slot = slot;
		slot->probes[i].type = i;
	}
	pthread_mutex_lock(&w->lock);
	w->slots = xrealloc(w->slots, (w->n_slots + 1) * sizeof(*w->slots));
	w->slots[w->n_slots++] = slot;
	pthread_mutex_unlock(&w->lock);
	return slot;
}

const struct pod_sandbox *worker_sandbox(const struct pod_worker *w)
{
	return w->n_sandboxes ? &w->sandboxes[w->n_sandboxes - 1] : NULL;
}

void worker_at(struct pod_worker *w, uint64_t at_ns)
{
	if (!w->next_ns || at_ns < w->next_ns)
		w->next_ns = at_ns;
}

void worker_evict(struct pod_worker *w, const char *reason, const char *message, int64_t grace_s)
{
	pthread_mutex_lock(&w->k->lock);
	set_text(&w->evict_reason, reason);
	set_text(&w->evict_message, message);
	w->evict_grace_s = grace_s;
	worker_wake_locked(w);
	pthread_mutex_unlock(&w->k->lock);
}

void worker_event(struct pod_worker *w, const struct core_v1_pod *pod, const char *type,
	const char *reason, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_debug("kubelet", "pod %s/%s: %s: %s", w->ns, w->name, reason, text);
	if (w->k->events)
		event_record(w->k->events, &core_v1_pod_type, pod, type, reason, "%s", text);
}

/* Any thread: it must not make a slot. */
static enum container_kind kind_of(struct pod_worker *w, struct str container)
{
	enum container_kind kind = KIND_APP;

	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < w->n_slots; i++)
		if (str_eqz(container, w->slots[i]->name))
			kind = w->slots[i]->kind;
	pthread_mutex_unlock(&w->lock);
	return kind;
}

void worker_container_event(struct pod_worker *w, const struct core_v1_pod *pod,
	struct str container, const char *type, const char *reason, const char *fmt, ...)
{
	static const char *const lists[] = { "initContainers", "containers",
		"ephemeralContainers" };
	struct core_v1_object_reference ref = { .kind = STR("Pod"),
		.api_version = STR("v1"),
		.namespace = pod->metadata.namespace,
		.name = pod->metadata.name,
		.uid = pod->metadata.uid,
		.resource_version = pod->metadata.resource_version };
	char text[1024], path[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_debug("kubelet", "pod %s/%s container " STR_FMT ": %s: %s", w->ns, w->name,
		STR_ARG(container), reason, text);
	if (!w->k->events)
		return;
	int n = snprintf(path, sizeof(path), "spec.%s{" STR_FMT "}", lists[kind_of(w, container)],
		STR_ARG(container));
	ref.field_path = str_n(path, (size_t)MIN(n, (int)sizeof(path) - 1));
	event_record_ref(w->k->events, &ref, type, reason, "%s", text);
}

/* ---- running ---- */

static void end_with(
	struct pod_worker *w, enum pod_end end, const char *reason, const char *message)
{
	pthread_mutex_lock(&w->lock);
	w->end = end;
	set_text(&w->end_reason, reason);
	set_text(&w->end_message, message);
	pthread_mutex_unlock(&w->lock);
	worker_move(w, POD_TERMINATING);
}

/* The deadline of a pod's whole life, counted from its start. */
static bool past_deadline(struct sync *s)
{
	const struct opt_int64 *limit = &s->pod->spec.active_deadline_seconds;
	const struct core_v1_pod_status *st = s->w->status;

	if (!limit->set || !st || time_is_zero(st->start_time))
		return false;
	double left = (double)limit->value - time_diff_s(now_wall(s->k), st->start_time);
	if (left <= 0)
		return true;
	worker_at(s->w, now_ns(s->k) + (uint64_t)(left * 1e9));
	return false;
}

/* Has this pod's time come? Moves it from NEW and SYNCING when so. */
static void decide(struct sync *s, char *evict_reason, char *evict_message)
{
	struct pod_worker *w = s->w;
	CLEAN_FREE char *reason = NULL, *message = NULL;

	if (w->state != POD_NEW && w->state != POD_SYNCING)
		return;
	if (s->removed)
		end_with(w, END_REMOVED, NULL, NULL);
	else if (!time_is_zero(s->pod->metadata.deletion_timestamp))
		end_with(w, END_DELETED, NULL, NULL);
	else if (pod_is_terminal(s->pod) && (w->state == POD_NEW || !w->is_static))
		end_with(w, END_COMPLETED, NULL, NULL);
	else if (evict_reason)
		end_with(w, END_EVICTED, evict_reason, evict_message);
	else if (past_deadline(s))
		end_with(w, END_EVICTED, "DeadlineExceeded",
			"Pod was active on the node longer than the specified deadline");
	else if (w->state == POD_NEW && !admit_pod(s, &reason, &message))
		end_with(w, END_REJECTED, reason, message);
	else if (w->state == POD_NEW)
		worker_move(w, POD_SYNCING);
}

static void run_once(struct pod_worker *w)
{
	struct kubelet *k = w->k;
	CLEAN_ARENA struct arena *a = arena_new(8192);
	struct sync s = { .k = k, .w = w, .a = a };
	struct err err;
	char *evict_reason, *evict_message;

	pthread_mutex_lock(&k->lock);
	s.object = pod_object_ref(w->desired);
	s.removed = w->removed;
	evict_reason = TAKE(w->evict_reason);
	evict_message = TAKE(w->evict_message);
	pthread_mutex_unlock(&k->lock);
	s.pod = s.object->pod;
	s.specs = pod_containers(s.pod, a);
	w->next_ns = 0;
	for (size_t i = 0; i < s.specs.len; i++) {
		struct slot *slot = worker_slot(w, s.specs.items[i].c->name);
		slot->kind = s.specs.items[i].kind;
		s.specs.items[i].again = slot->resize_run[0] ? slot->resize_run : NULL;
	}

	int r = view_load(&s, &err);
	if (r < 0) {
		log_warn("kubelet", "pod %s/%s: %s", w->ns, w->name, err.text);
		worker_at(w, now_ns(k) + NS_PER_S);
		if (evict_reason)
			worker_evict(w, evict_reason, evict_message, w->evict_grace_s);
	} else {
		decide(&s, evict_reason, evict_message);
		enum pod_state before;
		do {
			before = w->state;
			if (states[w->state].run)
				states[w->state].run(&s);
		} while (w->state != before && w->state != POD_GONE);
		if (w->state != POD_GONE)
			status_set(&s);
		if (w->state >= POD_TERMINATED)
			shutdown_pod_changed(k);
	}
	free(evict_reason);
	free(evict_message);
	pod_object_unref(s.object);
	worker_ref(w);
	if (w->next_ns && w->state != POD_GONE) {
		if (!wake_set(&k->wakes, &w->wake, w->next_ns))
			worker_unref(w);
	} else {
		if (wake_cancel(&k->wakes, &w->wake))
			worker_unref(w);
		worker_unref(w);
	}
}

static void run(void *arg)
{
	struct pod_worker *w = arg;
	struct kubelet *k = w->k;

	pthread_mutex_lock(&k->lock);
	w->queued = false;
	w->running = true;
	do {
		w->again = false;
		pthread_mutex_unlock(&k->lock);
		run_once(w);
		pthread_mutex_lock(&k->lock);
	} while (w->again && w->state != POD_GONE && !k->stopping);
	w->running = false;
	pthread_mutex_unlock(&k->lock);
	if (w->state == POD_GONE)
		pods_forget(w);
	worker_unref(w);
}

void worker_wake_locked(struct pod_worker *w)
{
	struct kubelet *k = w->k;

	if (k->stopping || w->state == POD_GONE)
		return;
	if (w->running) {
		w->again = true;
	} else if (!w->queued) {
		w->queued = true;
		pool_submit(k->pool, run, worker_ref(w));
	}
}

void worker_wake(struct pod_worker *w)
{
	pthread_mutex_lock(&w->k->lock);
	worker_wake_locked(w);
	pthread_mutex_unlock(&w->k->lock);
}
