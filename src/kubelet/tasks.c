/* Slow work for a pod, each on a thread of the pool of tasks: pulls, postStart hooks, and taking a container down (preStop hook, signal,
 * grace). The outcome is left in the slot under worker.lock and the worker is woken. The task holds the worker and the object that it was
 * given. */
#include "gen/types.h"
#include "kubelet/internal.h"

struct task {
	struct pod_worker *w;
	struct pod_object *object;
	struct slot *slot;
	enum task_kind kind;
	char id[ENGINE_ID];
	char *image, *name, *pod_ip;
	int64_t grace_s;
	bool hook;
};

static struct task *task_new(struct sync *s, struct slot *slot, enum task_kind kind, const char *id)
{
	struct task *t = xcalloc(1, sizeof(*t));
	const struct pod_sandbox *b = worker_sandbox(s->w);

	t->w = worker_ref(s->w);
	t->object = pod_object_ref(s->object);
	t->slot = slot;
	t->kind = kind;
	t->name = xstrdup(slot->name);
	t->pod_ip = xstrdup(s->pod->spec.host_network ? s->k->c.node_ip : b && b->ip ? b->ip : "");
	if (id)
		memcpy(t->id, id, sizeof(t->id));
	pthread_mutex_lock(&s->w->lock);
	slot->tasks[kind].running = true;
	slot->tasks[kind].done = slot->tasks[kind].forced = false;
	memcpy(slot->tasks[kind].id, t->id, sizeof(t->id));
	pthread_mutex_unlock(&s->w->lock);
	return t;
}

static void task_done(struct task *t, bool ok, const char *text)
{
	struct slot_task *r = &t->slot->tasks[t->kind];

	pthread_mutex_lock(&t->w->lock);
	if (!strcmp(r->id, t->id)) {
		r->running = false;
		r->done = true;
		r->ok = ok;
		set_text(&r->text, text);
	}
	pthread_mutex_unlock(&t->w->lock);
	worker_wake(t->w);
	pod_object_unref(t->object);
	worker_unref(t->w);
	free(t->image);
	free(t->name);
	free(t->pod_ip);
	free(t);
}

/* ---- pull ---- */

static void run_pull(void *arg)
{
	struct task *t = arg;
	struct engine *e = t->w->k->c.engine;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_image image;
	struct err err = { 0 };
	char took[DURATION_TEXT_MAX];

	uint64_t begin = mono_now_ns();
	int r = e->v->image_pull(e, str_of(t->image), a, &image, &err);
	if (r) {
		task_done(t, false, err.text);
		return;
	}
	duration_format((int64_t)((mono_now_ns() - begin) / NS_PER_MS * NS_PER_MS), took);
	struct str text = arena_fmt(a,
		"Successfully pulled image \"%s\" in %s (%s including waiting). Image size: %llu bytes.",
		t->image, took, took, (unsigned long long)image.size);
	worker_container_event(
		t->w, t->object->pod, str_of(t->name), "Normal", "Pulled", "%s", text.p);
	pthread_mutex_lock(&t->w->lock);
	set_text(&t->slot->last_pull, text.p);
	pthread_mutex_unlock(&t->w->lock);
	node_status_changed(t->w->k);
	task_done(t, true, NULL);
}

void task_pull(struct sync *s, struct slot *slot, struct str image)
{
	struct task *t = task_new(s, slot, TASK_PULL, NULL);

	t->image = str_dup(image);
	pool_submit(s->k->tasks, run_pull, t);
}

/* ---- hooks ---- */

static const struct core_v1_container *task_container(struct task *t, struct arena *a)
{
	struct container_specs specs = pod_containers(t->object->pod, a);
	const struct container_spec *spec = container_specs_find(&specs, str_of(t->name));

	return spec ? spec->c : NULL;
}

static void run_post_start(void *arg)
{
	struct task *t = arg;
	CLEAN_ARENA struct arena *a = arena_new(0);
	const struct core_v1_container *c = task_container(t, a);
	struct err err = { 0 };

	int r = hook_run(t->w->k, c->lifecycle->post_start, c, t->id, t->pod_ip, 0, &err);
	if (r)
		worker_container_event(t->w, t->object->pod, c->name, "Warning",
			"FailedPostStartHook", "PostStartHook failed");
	pthread_mutex_lock(&t->w->lock);
	if (!strcmp(t->slot->hook_pending, t->id)) {
		if (r) {
			t->slot->hook_failed = true;
			set_text(&t->slot->waiting_reason, "PostStartHookError");
			set_text(&t->slot->waiting_message, "PostStartHook failed");
		} else {
			t->slot->hook_pending[0] = 0;
		}
	}
	pthread_mutex_unlock(&t->w->lock);
	task_done(t, !r, r ? err.text : NULL);
}

void task_post_start(
	struct sync *s, struct slot *slot, const struct container_spec *spec, const char *id)
{
	pool_submit(s->k->tasks, run_post_start, task_new(s, slot, TASK_POST_START, id));
}

/* ---- down ---- */

static void run_kill(void *arg)
{
	struct task *t = arg;
	struct engine *e = t->w->k->c.engine;
	CLEAN_ARENA struct arena *a = arena_new(0);
	const struct core_v1_container *c = task_container(t, a);
	struct err err = { 0 };
	uint64_t begin = now_ns(t->w->k);
	int64_t left_ms = t->grace_s * 1000;

	if (t->hook && c && c->lifecycle && c->lifecycle->pre_stop && t->grace_s > 0) {
		if (hook_run(t->w->k, c->lifecycle->pre_stop, c, t->id, t->pod_ip,
			    t->grace_s * 1000, &err))
			worker_container_event(t->w, t->object->pod, c->name, "Warning",
				"FailedPreStopHook", "PreStopHook failed");
		/* What the hook took is gone; two seconds are left in any case. */
		left_ms = MAX(2000, left_ms - (int64_t)((now_ns(t->w->k) - begin) / NS_PER_MS));
	}
	int signal = 0;
	if (c && c->lifecycle && c->lifecycle->stop_signal.len) {
		static const struct {
			const char *name;
			int number;
		} signals[] = {
			{ "SIGHUP", 1 },
			{ "SIGINT", 2 },
			{ "SIGQUIT", 3 },
			{ "SIGABRT", 6 },
			{ "SIGKILL", 9 },
			{ "SIGUSR1", 10 },
			{ "SIGUSR2", 12 },
			{ "SIGTERM", 15 },
			{ "SIGWINCH", 28 },
			{ "SIGRTMIN", 34 },
			{ "SIGRTMIN+3", 37 },
		};
		for (size_t i = 0; i < ARRAY_LEN(signals); i++)
			if (str_eqz(c->lifecycle->stop_signal, signals[i].name))
				signal = signals[i].number;
	}
	int r = e->v->container_stop(e, t->id, signal, left_ms, &err);
	if (r == ENGINE_NOT_FOUND)
		r = 0;
	task_done(t, !r, r ? err.text : NULL);
}

void task_kill(struct sync *s, struct slot *slot, const struct container_spec *spec, const char *id,
	int64_t grace_s, bool hook)
{
	struct task *t = task_new(s, slot, TASK_KILL, id);

	t->grace_s = grace_s;
	t->hook = hook;
	slot->tasks[TASK_KILL].deadline_ns = now_ns(s->k) + (uint64_t)grace_s * NS_PER_S;
	pool_submit(s->k->tasks, run_kill, t);
}

struct force {
	struct pod_worker *w;
	char id[ENGINE_ID];
};

static void run_force(void *arg)
{
	struct force *f = arg;
	struct err err;

	if (f->w->k->c.engine->v->container_stop(f->w->k->c.engine, f->id, 9, 0, &err) < 0)
		log_warn("kubelet", "container %s: %s", f->id, err.text);
	worker_wake(f->w);
	worker_unref(f->w);
	free(f);
}

void task_force(struct sync *s, struct slot *slot, const char *id)
{
	struct force *f = xcalloc(1, sizeof(*f));

	slot->tasks[TASK_KILL].forced = true;
	f->w = worker_ref(s->w);
	memcpy(f->id, id, sizeof(f->id));
	pool_submit(s->k->slow, run_force, f);
}
