/* Taking a pod down: apps first, then sidecars from the last to the first, within one grace period for all; then the sandbox; then the volumes; then
 * the object. */
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"

int64_t grace_bounded(int64_t seconds)
{
	return MAX(1, MIN(seconds, (int64_t)GRACE_MAX_S));
}

int64_t pod_grace_s(const struct sync *s)
{
	const struct core_v1_pod *pod = s->pod;
	int64_t grace = pod->spec.termination_grace_period_seconds.set
		? pod->spec.termination_grace_period_seconds.value
		: 30;

	if (s->w->evict_grace_s >= 0 && s->w->end == END_EVICTED)
		grace = MIN(grace, s->w->evict_grace_s);
	if (pod->metadata.deletion_grace_period_seconds.set)
		grace = pod->metadata.deletion_grace_period_seconds.value;
	return grace_bounded(grace);
}

bool kubelet_container_kill(struct sync *s, const struct container_spec *spec,
	const struct engine_container *c, int64_t grace_s, const char *message)
{
	struct slot *slot = worker_slot(s->w, spec->c->name);
	struct slot_task *t = &slot->tasks[TASK_KILL];
	grace_s = grace_bounded(grace_s);
	uint64_t deadline = now_ns(s->k) + (uint64_t)grace_s * NS_PER_S;

	if (c->state != CONTAINER_RUNNING)
		return true;
	if (t->running && !strcmp(t->id, c->id)) {
		/* Less time than before: only the signal that cannot be refused is left to send once the new time is up. */
		if (!t->forced && deadline + NS_PER_S < t->deadline_ns &&
			s->w->state == POD_TERMINATING) {
			if (s->w->grace_deadline_ns && now_ns(s->k) < s->w->grace_deadline_ns)
				worker_at(s->w, s->w->grace_deadline_ns);
			else
				task_force(s, slot, c->id);
		}
		return false;
	}
	if (t->done && !strcmp(t->id, c->id) && !t->ok) {
		worker_event(s->w, s->pod, "Warning", "FailedKillPod", "error killing pod: %s",
			t->text ? t->text : "unknown");
		t->done = false;
		t->id[0] = 0;
		worker_at(s->w, now_ns(s->k) + 2 * NS_PER_S);
		return false;
	}
	if (t->done && !strcmp(t->id, c->id))
		return false; /* the engine's record will follow its event */
	char text[256];
	if (message)
		snprintf(text, sizeof(text), "%s", message);
	else
		snprintf(text, sizeof(text), "Stopping container " STR_FMT, STR_ARG(spec->c->name));
	worker_container_event(s->w, s->pod, spec->c->name, "Normal", "Killing", "%s", text);
	pthread_mutex_lock(&s->w->lock);
	set_text(&slot->last_kill_message, text);
	pthread_mutex_unlock(&s->w->lock);
	task_kill(s, slot, spec, c->id, grace_s, true);
	return false;
}

/* Containers of a kind; true: all down. */
static bool kill_group(struct sync *s, bool sidecars, int64_t grace_s)
{
	bool down = true;

	for (size_t i = s->specs.len; i-- > 0;) {
		const struct container_spec *spec = &s->specs.items[i];
		if (spec->sidecar != sidecars)
			continue;
		for (size_t j = 0; j < s->view.len; j++)
			if (str_eq(s->view.items[j].c->name, spec->c->name) &&
				!kubelet_container_kill(s, spec, s->view.items[j].c, grace_s, NULL))
				down = false;
		if (sidecars && !down)
			return false;
	}
	return down;
}

/* Containers that no spec names any more (an ephemeral one taken out, an older object). */
static void kill_unknown(struct sync *s)
{
	struct err err;

	for (size_t i = 0; i < s->view.len; i++) {
		const struct engine_container *c = s->view.items[i].c;
		if (c->state == CONTAINER_RUNNING && !container_specs_find(&s->specs, c->name) &&
			s->k->c.engine->v->container_stop(s->k->c.engine, c->id, 0, 1000, &err) < 0)
			log_warn("kubelet", "container %s: %s", c->id, err.text);
	}
}

void sync_terminating(struct sync *s)
{
	struct pod_worker *w = s->w;
	struct err err;
	uint64_t now = now_ns(s->k), deadline = now + (uint64_t)pod_grace_s(s) * NS_PER_S;

	if (!w->grace_deadline_ns || deadline < w->grace_deadline_ns)
		w->grace_deadline_ns = deadline;
	probes_sync(s);
	int64_t left = w->grace_deadline_ns > now
		? (int64_t)((w->grace_deadline_ns - now + NS_PER_S - 1) / NS_PER_S)
		: 1;
	if (!kill_group(s, false, left) || !kill_group(s, true, left))
		return;
	kill_unknown(s);
	for (size_t i = 0; i < w->n_sandboxes; i++) {
		if (!w->sandboxes[i].ready)
			continue;
		int r = s->k->c.engine->v->sandbox_stop(s->k->c.engine, w->sandboxes[i].id, &err);
		if (r && r != ENGINE_NOT_FOUND) {
			worker_event(w, s->pod, "Warning", "FailedKillPod", "error killing pod: %s",
				err.text);
			worker_at(w, now + 2 * NS_PER_S);
			return;
		}
		w->sandboxes[i].ready = false;
	}
	if (s->k->c.network_gone)
		s->k->c.network_gone(s->k->c.network_arg, str_of(w->uid));
	probes_stop(w);
	/* The last look: exit codes of what went down with the sandbox. */
	if (view_load(s, &err) < 0)
		log_warn("kubelet", "pod %s/%s: %s", w->ns, w->name, err.text);
	worker_move(w, POD_TERMINATED);
}

/* Sandboxes, containers, folders and logs: nothing of the pod is left on the node. */
static bool pod_erase(struct sync *s)
{
	struct pod_worker *w = s->w;
	struct err err;
	bool clean = true;

	for (size_t i = 0; i < w->n_sandboxes; i++) {
		int r = s->k->c.engine->v->sandbox_remove(s->k->c.engine, w->sandboxes[i].id, &err);
		if (r && r != ENGINE_NOT_FOUND) {
			log_warn("kubelet", "pod %s/%s: sandbox %s: %s", w->ns, w->name,
				w->sandboxes[i].id, err.text);
			clean = false;
		}
	}
	if (clean &&
		(dir_remove_tree(pod_dir(s->k, w->uid, s->a).p, &err) ||
			dir_remove_tree(pod_log_folder(s->k, s->pod, s->a).p, &err))) {
		log_warn("kubelet", "pod %s/%s: %s", w->ns, w->name, err.text);
		clean = false;
	}
	return clean;
}

void sync_terminated(struct sync *s)
{
	struct pod_worker *w = s->w;
	struct err err;

	if (!w->volumes_gone) {
		if (volumes_teardown(s->k, w->uid, &err)) {
			worker_event(w, s->pod, "Warning", "FailedUnMount", "%s", err.text);
			worker_at(w, now_ns(s->k) + 5 * NS_PER_S);
			return;
		}
		pthread_mutex_lock(&w->lock);
		w->volumes_gone = true;
		pthread_mutex_unlock(&w->lock);
		qos_update(s->k);
	}
	mirror_sync(w);
	if (!s->removed)
		return;
	if (!pod_erase(s)) {
		worker_at(w, now_ns(s->k) + 5 * NS_PER_S);
		return;
	}
	wake_cancel(&s->k->wakes, &w->status_wake) ? worker_unref(w) : (void)0;
	worker_move(w, POD_GONE);
}
