/* GET /skiff/v1/why/NS/POD: what this kubelet knows of a pod and why it is as it is, for `skiff why`. From the worker's own state, the
 * engine and the log files, at the moment of asking. Fields are named as a reader would call them; what is
 * absent has nothing to tell. */
#include <fcntl.h>
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define LOG_LINES 5
#define LOG_BYTES 4096

static struct value *put(struct arena *a, struct value *object, const char *key)
{
	return value_set(a, object, str_of(key));
}

static void text(struct arena *a, struct value *object, const char *key, const char *value)
{
	if (value && *value)
		*put(a, object, key) =
			(struct value){ .kind = VALUE_TEXT, .text = arena_strz(a, value) };
}

static void number(struct arena *a, struct value *object, const char *key, int64_t n)
{
	*put(a, object, key) = (struct value){ .kind = VALUE_INT, .integer = n };
}

static void boolean(struct arena *a, struct value *object, const char *key, bool b)
{
	*put(a, object, key) = (struct value){ .kind = VALUE_BOOL, .boolean = b };
}

static void moment(struct arena *a, struct value *object, const char *key, struct timestamp t)
{
	char out[TIME_TEXT_MAX];

	if (time_is_zero(t))
		return;
	time_format(t, out);
	text(a, object, key, out);
}

static struct value *object(struct arena *a, struct value *parent, const char *key)
{
	struct value *v = put(a, parent, key);

	*v = (struct value){ .kind = VALUE_OBJECT };
	return v;
}

static struct value *item(struct arena *a, struct value *list)
{
	struct value *v = value_append(a, list);

	*v = (struct value){ .kind = VALUE_OBJECT };
	return v;
}

static void last_lines(
	const struct kubelet *k, struct arena *a, struct value *parent, const char *path)
{
	CLEAN_FD int fd = log_open(k, path);
	CLEAN_BUF struct buf raw = { 0 }, out = { 0 };
	struct log_options o = { .tail = -1, .limit_bytes = LOG_BYTES, .streams = 3 };
	size_t used;

	if (fd < 0)
		return;
	int64_t at = log_tail_offset(fd, LOG_LINES);
	buf_reserve(&raw, 4 * LOG_BYTES);
	ssize_t n = pread(fd, raw.p, 4 * LOG_BYTES, at);
	if (n <= 0)
		return;
	raw.len = (size_t)n;
	log_filter(buf_str(&raw), &o, &out, &used);
	struct value *list = put(a, parent, "lastLogLines");
	*list = (struct value){ .kind = VALUE_LIST };
	for (struct str rest = buf_str(&out), line; rest.len;) {
		str_cut(rest, '\n', &line, &rest);
		*value_append(a, list) =
			(struct value){ .kind = VALUE_TEXT, .text = arena_str(a, line) };
	}
}

static void probes(struct arena *a, struct value *parent, const struct core_v1_container *c,
	const struct slot *slot)
{
	static const char *const answers[] = { "none yet", "success", "failure", "error" };
	struct value *all = NULL;

	for (int t = 0; t < N_PROBES; t++) {
		const struct probe *p = &slot->probes[t];
		if (!container_probe(c, t))
			continue;
		if (!all)
			all = object(a, parent, "probes");
		struct value *v = object(a, all,
			t == PROBE_LIVENESS            ? "liveness"
				: t == PROBE_READINESS ? "readiness"
						       : "startup");
		text(a, v, "holds", answers[p->result]);
		text(a, v, "lastAnswer", answers[p->last]);
		text(a, v, "lastOutput", p->last_output);
		moment(a, v, "at", p->last_at);
		number(a, v, "inARow", p->streak);
		boolean(a, v, "running", p->active);
	}
}

static void exit_of(struct arena *a, struct value *parent, const struct engine_container *c)
{
	struct value *v = object(a, parent, "lastExit");

	number(a, v, "code", c->exit_code);
	text(a, v, "reason",
		c->oom_killed           ? "OOMKilled"
			: c->reason.len ? arena_str(a, c->reason).p
					: NULL);
	text(a, v, "message", c->message.len ? arena_str(a, c->message).p : NULL);
	moment(a, v, "at", c->finished_at);
}

/* worker.lock is held. */
static void slot_facts(struct kubelet *k, struct arena *a, struct value *v,
	const struct core_v1_container *c, const struct slot *slot)
{
	uint64_t now = now_ns(k);

	text(a, v, "waiting", slot->waiting_reason);
	text(a, v, "message", slot->waiting_message);
	text(a, v, "lastPull", slot->last_pull);
	text(a, v, "lastKill", slot->last_kill_message);
	boolean(a, v, "ready", slot->ready);
	boolean(a, v, "started", slot->started);
	if (slot->restart_at_ns > now)
		moment(a, v, "backOffUntil",
			time_add_ns(now_wall(k), (int64_t)(slot->restart_at_ns - now)));
	if (slot->pull.delay_ns && slot->pull.since_ns + slot->pull.delay_ns > now)
		moment(a, v, "pullBackOffUntil",
			time_add_ns(now_wall(k),
				(int64_t)(slot->pull.since_ns + slot->pull.delay_ns - now)));
	if (slot->tasks[TASK_PULL].running)
		text(a, v, "doing", "pulling its image");
	else if (slot->tasks[TASK_KILL].running)
		text(a, v, "doing", "stopping");
	else if (slot->tasks[TASK_POST_START].running)
		text(a, v, "doing", "running its postStart hook");
	probes(a, v, c, slot);
}

static void runs(struct kubelet *k, struct arena *a, struct value *v, const struct pod_worker *w,
	const struct core_v1_container *c, struct engine_container *list, size_t n)
{
	static const char *const states[] = { "created", "running", "exited", "unknown" };
	const struct engine_container *newest = NULL, *ended = NULL;

	for (size_t i = 0; i < n; i++) {
		if (!str_eq(list[i].name, c->name))
			continue;
		if (!newest || list[i].attempt > newest->attempt)
			newest = &list[i];
		if (list[i].state == CONTAINER_EXITED &&
			(!ended || list[i].attempt > ended->attempt))
			ended = &list[i];
	}
	if (!newest)
		return;
	text(a, v, "state", states[newest->state]);
	text(a, v, "id", newest->id);
	number(a, v, "restarts", newest->attempt);
	if (newest->state == CONTAINER_RUNNING)
		moment(a, v, "runningSince", newest->started_at);
	if (ended)
		exit_of(a, v, ended);
	struct str path = arena_fmt(a, "%s/%s_%s_%s/" STR_FMT "/%u.log", k->c.pod_log_dir, w->ns,
		w->name, w->uid, STR_ARG(c->name), newest->attempt);
	last_lines(k, a, v, path.p);
}

static void mounts(struct arena *a, struct value *v, const struct core_v1_container *c)
{
	struct value *list = NULL;

	LIST_EACH(m, &c->volume_mounts) {
		if (!list) {
			list = put(a, v, "mounts");
			*list = (struct value){ .kind = VALUE_LIST };
		}
		*value_append(a, list) = (struct value){ .kind = VALUE_TEXT,
			.text = arena_fmt(a, STR_FMT " at " STR_FMT "%s", STR_ARG(m->name),
				STR_ARG(m->mount_path), m->read_only ? " (read-only)" : "") };
	}
}

static void pod_facts(struct kubelet *k, struct arena *a, struct value *v, struct pod_worker *w)
{
	pthread_mutex_lock(&w->lock);
	const struct pod_sandbox *b = worker_sandbox(w);
	text(a, v, "state", pod_state_text[w->state]);
	text(a, v, "source", w->is_static ? "file" : "api");
	text(a, v, "endedFor", w->end_reason);
	text(a, v, "endedBecause", w->end_message);
	text(a, v, "mountError", w->mount_error);
	boolean(a, v, "volumesReady", w->volumes_ready);
	if (b) {
		struct value *s = object(a, v, "sandbox");
		text(a, s, "id", b->id);
		boolean(a, s, "ready", b->ready);
		text(a, s, "ip", b->ip);
		number(a, s, "attempt", b->attempt);
	}
	boolean(a, v, "statusTold", w->sent_version == w->status_version);
	pthread_mutex_unlock(&w->lock);
}

void serve_why(struct kubelet *k, struct http_stream *s, struct str ns, struct str pod)
{
	CLEANUP(worker_unrefp) struct pod_worker *w = pods_find_name(k, ns, pod);
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf out = { 0 };
	struct value top = { .kind = VALUE_OBJECT };
	struct engine_container *list = NULL;
	size_t n = 0;
	struct err err;

	if (!w) {
		respond_error(s, 404,
			"pod \"" STR_FMT "/" STR_FMT "\" is not known to the kubelet of node %s",
			STR_ARG(ns), STR_ARG(pod), k->c.node_name);
		return;
	}
	pthread_mutex_lock(&k->lock);
	struct pod_object *o = pod_object_ref(w->desired);
	pthread_mutex_unlock(&k->lock);
	pod_facts(k, a, &top, w);
	pthread_mutex_lock(&w->lock);
	const struct pod_sandbox *b = worker_sandbox(w);
	struct str sandbox = arena_strz(a, b ? b->id : "");
	pthread_mutex_unlock(&w->lock);
	if (sandbox.len &&
		k->c.engine->v->container_list(k->c.engine, sandbox.p, a, &list, &n, &err))
		n = 0;
	struct container_specs specs = pod_containers(o->pod, a);
	struct value *all = put(a, &top, "containers");
	*all = (struct value){ .kind = VALUE_LIST };
	for (size_t i = 0; i < specs.len; i++) {
		const struct core_v1_container *c = specs.items[i].c;
		struct value *v = item(a, all);
		text(a, v, "name", arena_str(a, c->name).p);
		text(a, v, "image", arena_str(a, c->image).p);
		runs(k, a, v, w, c, list, n);
		pthread_mutex_lock(&w->lock);
		for (size_t j = 0; j < w->n_slots; j++)
			if (str_eqz(c->name, w->slots[j]->name))
				slot_facts(k, a, v, c, w->slots[j]);
		pthread_mutex_unlock(&w->lock);
		mounts(a, v, c);
	}
	json_write(&top, &out);
	pod_object_unref(o);
	node_respond_text(s, 200, "application/json", buf_str(&out));
}
