/* Starting one container: back-off, image, config, create, start, hook. Each step that fails leaves its reason in the slot, in upstream's words, and
 * the pod is looked at again when the wait is over. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define SYNC_RETRY_NS (10 * NS_PER_S)

struct str container_hash(const struct core_v1_container *c, struct arena *a)
{
	struct str text = arena_fmt(a, "{\"name\":\"" STR_FMT "\",\"image\":\"" STR_FMT "\"}",
		STR_ARG(c->name), STR_ARG(c->image));

	return arena_fmt(a, "%08x", hash_fnv32a(text.p, text.len));
}

struct str container_annotation(const struct engine_container *c, const char *key, struct arena *a)
{
	struct value v;
	struct err err;

	if (!c->annotations_json.len || json_parse(c->annotations_json, a, &v, &err))
		return STR_NONE;
	const struct value *m = value_get(&v, str_of(key));
	return m && m->kind == VALUE_TEXT ? m->text : STR_NONE;
}

static void waiting(struct sync *s, struct slot *slot, const char *reason, const char *message)
{
	pthread_mutex_lock(&s->w->lock);
	set_text(&slot->waiting_reason, reason);
	set_text(&slot->waiting_message, message);
	pthread_mutex_unlock(&s->w->lock);
}

/* What failed is left alone for a while, whatever else happens to the pod. */
static enum start_outcome again_in(struct sync *s, struct slot *slot, uint64_t ns)
{
	slot->retry_ns = now_ns(s->k) + ns;
	worker_at(s->w, slot->retry_ns);
	return START_FAILED;
}

/* When an exited container ended, on the clock that never goes back. */
static uint64_t ended_ns(struct sync *s, struct slot *slot, const struct engine_container *c)
{
	struct timestamp at = time_is_zero(c->finished_at) ? c->created_at : c->finished_at;
	double ago = time_diff_s(now_wall(s->k), at);
	uint64_t now = now_ns(s->k);

	if (strcmp(slot->ended, c->id)) {
		memcpy(slot->ended, c->id, sizeof(slot->ended));
		slot->ended_ns = ago <= 0         ? now
			: ago * 1e9 > (double)now ? 0
						  : now - (uint64_t)(ago * 1e9);
	}
	return slot->ended_ns;
}

static bool backing_off(struct sync *s, struct slot *slot, const struct container_spec *spec,
	const struct engine_container *last)
{
	char wait[DURATION_TEXT_MAX];

	if (!last || last->state == CONTAINER_RUNNING)
		return false;
	uint64_t until = backoff_until(&slot->restart, ended_ns(s, slot, last));
	if (until <= now_ns(s->k)) {
		slot->restart_at_ns = 0;
		return false;
	}
	duration_format((int64_t)slot->restart.delay_ns, wait);
	struct str text =
		arena_fmt(s->a, "back-off %s restarting failed container=" STR_FMT " pod=" STR_FMT,
			wait, STR_ARG(spec->c->name), STR_ARG(pod_format(s->pod, s->a)));
	if (slot->restart_at_ns != until)
		worker_container_event(s->w, s->pod, spec->c->name, "Warning", "BackOff",
			"Back-off restarting failed container " STR_FMT " in pod " STR_FMT,
			STR_ARG(spec->c->name), STR_ARG(pod_format(s->pod, s->a)));
	waiting(s, slot, "CrashLoopBackOff", text.p);
	slot->restart_at_ns = until;
	worker_at(s->w, until);
	return true;
}

/* ---- image ---- */

static const char *pull_policy(const struct core_v1_container *c)
{
	if (c->image_pull_policy.len)
		return c->image_pull_policy.p;
	ssize_t at = str_find_str(c->image, STR("@"));
	struct str tail = c->image;
	for (ssize_t i; (i = str_find(tail, '/')) >= 0;)
		tail = str_from(tail, (size_t)i + 1);
	ssize_t colon = str_find(tail, ':');
	return at < 0 && (colon < 0 || str_eqz(str_from(tail, (size_t)colon + 1), "latest"))
		? "Always"
		: "IfNotPresent";
}

static enum start_outcome pull_wait(
	struct sync *s, struct slot *slot, const struct container_spec *spec)
{
	struct str image = spec->c->image;
	uint64_t until = slot->pull.delay_ns ? slot->pull.since_ns + slot->pull.delay_ns : 0;

	if (until > now_ns(s->k)) {
		struct str text =
			arena_fmt(s->a, "Back-off pulling image \"" STR_FMT "\": ErrImagePull: %s",
				STR_ARG(image), slot->last_pull ? slot->last_pull : "");
		if (!slot->waiting_reason || strcmp(slot->waiting_reason, "ImagePullBackOff")) {
			worker_container_event(s->w, s->pod, spec->c->name, "Normal", "BackOff",
				"Back-off pulling image \"" STR_FMT "\"", STR_ARG(image));
			worker_container_event(s->w, s->pod, spec->c->name, "Warning", "Failed",
				"Error: ImagePullBackOff");
		}
		waiting(s, slot, "ImagePullBackOff", text.p);
		worker_at(s->w, until);
		return START_FAILED;
	}
	worker_container_event(s->w, s->pod, spec->c->name, "Normal", "Pulling",
		"Pulling image \"" STR_FMT "\"", STR_ARG(image));
	task_pull(s, slot, image);
	return START_WAITING;
}

static enum start_outcome pull_failed(
	struct sync *s, struct slot *slot, const struct container_spec *spec)
{
	const char *text =
		slot->tasks[TASK_PULL].text ? slot->tasks[TASK_PULL].text : "unknown error";

	pthread_mutex_lock(&s->w->lock);
	slot->tasks[TASK_PULL].done = false;
	set_text(&slot->last_pull, text);
	backoff_next(&slot->pull, now_ns(s->k));
	pthread_mutex_unlock(&s->w->lock);
	worker_container_event(s->w, s->pod, spec->c->name, "Warning", "Failed",
		"Failed to pull image \"" STR_FMT "\": %s", STR_ARG(spec->c->image), text);
	worker_container_event(
		s->w, s->pod, spec->c->name, "Warning", "Failed", "Error: ErrImagePull");
	waiting(s, slot, "ErrImagePull", text);
	/* Long enough for ErrImagePull to be seen; then the reason becomes ImagePullBackOff. */
	return again_in(s, slot, NS_PER_S);
}

static enum start_outcome image_ready(struct sync *s, struct slot *slot,
	const struct container_spec *spec, struct engine_image *ret)
{
	struct engine *e = s->k->c.engine;
	struct slot_task *t = &slot->tasks[TASK_PULL];
	const char *policy = pull_policy(spec->c);
	struct err err;

	if (t->running)
		return START_WAITING;
	if (t->done && !t->ok)
		return pull_failed(s, slot, spec);
	bool pulled = t->done;
	int r = e->v->image_status(e, spec->c->image, s->a, ret, &err);
	if (r < 0) {
		waiting(s, slot, "ImageInspectError", err.text);
		worker_container_event(s->w, s->pod, spec->c->name, "Warning", "InspectFailed",
			"Failed to inspect image \"" STR_FMT "\": %s", STR_ARG(spec->c->image),
			err.text);
		return again_in(s, slot, SYNC_RETRY_NS);
	}
	if (r && !strcmp(policy, "Never")) {
		struct str text = arena_fmt(s->a,
			"Container image \"" STR_FMT "\" is not present with pull policy of Never",
			STR_ARG(spec->c->image));
		if (!slot->waiting_reason || strcmp(slot->waiting_reason, "ErrImageNeverPull")) {
			worker_container_event(s->w, s->pod, spec->c->name, "Warning",
				"ErrImageNeverPull", "%s", text.p);
			worker_container_event(s->w, s->pod, spec->c->name, "Warning", "Failed",
				"Error: ErrImageNeverPull");
		}
		waiting(s, slot, "ErrImageNeverPull", text.p);
		return again_in(s, slot, SYNC_RETRY_NS);
	}
	if (!pulled && (r || !strcmp(policy, "Always")))
		return pull_wait(s, slot, spec);
	if (r) { /* pulled, and gone again */
		t->done = false;
		return pull_wait(s, slot, spec);
	}
	if (!pulled)
		worker_container_event(s->w, s->pod, spec->c->name, "Normal", "Pulled",
			"Container image \"" STR_FMT
			"\" already present on machine and can be accessed by the pod",
			STR_ARG(spec->c->image));
	slot->pull = (struct backoff){ 0 };
	return START_DONE;
}

/* ---- config ---- */

/* Restart counts outlive the engine's records: the log folder remembers. */
static uint32_t attempt_by_logs(struct sync *s, struct str name)
{
	struct str dir = arena_fmt(s->a, STR_FMT "/" STR_FMT,
		STR_ARG(pod_log_folder(s->k, s->pod, s->a)), STR_ARG(name));
	uint32_t next = 0;
	DIR *d = opendir(dir.p);

	for (struct dirent *e; d && (e = readdir(d));) {
		char *end;
		unsigned long n = strtoul(e->d_name, &end, 10);
		if (end != e->d_name && !strncmp(end, ".log", 4) && n + 1 > next)
			next = (uint32_t)n + 1;
	}
	if (d)
		closedir(d);
	return next;
}

static struct engine_strs expand_all(
	const struct str_list *l, const struct engine_container_config *c, struct arena *a)
{
	struct str *items = arena_alloc(a, (l->len + 1) * sizeof(*items));

	for (size_t i = 0; i < l->len; i++)
		items[i] = env_expand(l->items[i], c->env, c->n_env, a);
	return (struct engine_strs){ items, l->len };
}

static int termination_log_make(struct sync *s, const struct core_v1_container *c, uint32_t attempt,
	struct engine_container_config *ret, struct err *err)
{
	if (!c->termination_message_path.len)
		return 0;
	struct str path = termination_log_path(s->k, s->w->uid, c->name, attempt, s->a);
	struct str dir = arena_str(s->a, str_n(path.p, (size_t)(strrchr(path.p, '/') - path.p)));
	int r = dir_make(dir.p, 0755, err);
	if (r)
		return r;
	CLEAN_FD int fd = open(path.p, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0 || fchmod(fd, 0666))
		return err_errno(err, -errno, "termination log %s", path.p);
	struct engine_mount *list = arena_alloc(s->a, (ret->n_mounts + 1) * sizeof(*list));
	if (ret->n_mounts)
		memcpy(list, ret->mounts, ret->n_mounts * sizeof(*list));
	list[ret->n_mounts++] =
		(struct engine_mount){ c->termination_message_path.p, path.p, false, 0 };
	ret->mounts = list;
	return 0;
}

/* An ephemeral container may look at the processes of another: that one must run. */
static int target_find(struct sync *s, const struct container_spec *spec,
	struct engine_container_config *c, struct err *err)
{
	if (!spec->target || !*spec->target)
		return 0;
	const struct engine_container *t = view_current(&s->view, str_of(spec->target));
	if (!t || t->state != CONTAINER_RUNNING)
		return err_set(err, -ESRCH,
			"container %s, whose processes it is to share (targetContainerName), is not running",
			spec->target);
	c->shares_pids_of = t->id;
	return 0;
}

static int config_make(struct sync *s, const struct container_spec *spec,
	const struct engine_image *image, struct engine_container_config *c, struct err *err)
{
	const struct core_v1_container *k = spec->c;
	const struct pod_sandbox *b = worker_sandbox(s->w);
	const char *pod_ip = s->pod->spec.host_network ? s->k->c.node_ip : b->ip;
	struct engine_env *env;
	struct engine_mount *mounts;

	int r = env_make(s, k, pod_ip, &env, &c->n_env, err);
	if (r)
		return r;
	c->env = env;
	r = volume_mounts(s, k, c->attempt, env, c->n_env, pod_ip, &mounts, &c->n_mounts, err);
	if (r)
		return r;
	c->mounts = mounts;
	r = termination_log_make(s, k, c->attempt, c, err);
	if (r)
		return r;
	c->name = k->name.p;
	c->image_id = image->id.p;
	c->image = k->image.p;
	c->command = expand_all(&k->command, c, s->a);
	c->args = expand_all(&k->args, c, s->a);
	c->working_dir = k->working_dir.len ? k->working_dir.p : NULL;
	container_resources(s->k, s->pod, k, &c->resources);
	c->log_path = arena_fmt(s->a, STR_FMT "/%u.log", STR_ARG(k->name), c->attempt).p;
	c->stdin_open = k->stdin;
	c->stdin_once = k->stdin_once;
	c->tty = k->tty;
	c->hostname = s->pod->spec.host_network ? NULL : pod_hostname(s->pod, s->k, s->a).p;
	c->annotations_json = arena_fmt(s->a, "{\"hash\":\"" STR_FMT "\",\"grace\":\"%lld\"}",
		STR_ARG(container_hash(k, s->a)),
		(long long)(s->pod->spec.termination_grace_period_seconds.set
				? s->pod->spec.termination_grace_period_seconds.value
				: 30))
				      .p;
	return security_apply(s, k, image, c, err);
}

/* ---- all of it ---- */

static enum start_outcome failed(struct sync *s, struct slot *slot,
	const struct container_spec *spec, const char *reason, const char *text)
{
	worker_container_event(s->w, s->pod, spec->c->name, "Warning", "Failed", "Error: %s", text);
	waiting(s, slot, reason, text);
	/* It may be the sandbox that is lost, and nobody told of it: it is looked at before the next try. */
	pthread_mutex_lock(&s->k->lock);
	s->w->sandbox_dirty = true;
	pthread_mutex_unlock(&s->k->lock);
	return again_in(s, slot, SYNC_RETRY_NS);
}

static void slot_restart(struct slot *slot, struct pod_worker *w, const char *id)
{
	pthread_mutex_lock(&w->lock);
	set_text(&slot->waiting_reason, NULL);
	set_text(&slot->waiting_message, NULL);
	slot->tasks[TASK_PULL].done = false;
	slot->tasks[TASK_KILL].done = false;
	slot->tasks[TASK_POST_START].done = false;
	slot->hook_failed = false;
	slot->hook_pending[0] = 0;
	slot->ready = slot->started = false;
	pthread_mutex_unlock(&w->lock);
}

enum start_outcome container_start(struct sync *s, const struct container_spec *spec)
{
	struct pod_worker *w = s->w;
	struct engine *e = s->k->c.engine;
	struct slot *slot = worker_slot(w, spec->c->name);
	const struct engine_container *last = view_latest(&s->view, spec->c->name);
	struct engine_image image;
	struct engine_container_config c = { .run_as_user = -1, .run_as_group = -1 };
	char id[ENGINE_ID];
	struct err err = { 0 };

	if (slot->retry_ns > now_ns(s->k)) {
		worker_at(w, slot->retry_ns);
		return START_FAILED;
	}
	slot->retry_ns = 0;
	if (backing_off(s, slot, spec, last))
		return START_FAILED;
	enum start_outcome got = image_ready(s, slot, spec, &image);
	if (got != START_DONE)
		return got;
	c.attempt = last ? last->attempt + 1 : attempt_by_logs(s, spec->c->name);
	if (config_make(s, spec, &image, &c, &err) || target_find(s, spec, &c, &err))
		return failed(s, slot, spec, "CreateContainerConfigError", err.text);
	struct str log_dir = arena_fmt(s->a, STR_FMT "/" STR_FMT,
		STR_ARG(pod_log_folder(s->k, s->pod, s->a)), STR_ARG(spec->c->name));
	if (dir_make(log_dir.p, 0755, &err) ||
		e->v->container_create(e, worker_sandbox(w)->id, &c, id, &err))
		return failed(s, slot, spec, "CreateContainerError", err.text);
	worker_container_event(w, s->pod, spec->c->name, "Normal", "Created", "Container created");
	if (last && last->state == CONTAINER_EXITED)
		backoff_next(&slot->restart, ended_ns(s, slot, last));
	slot_restart(slot, w, id);
	if (e->v->container_start(e, id, &err)) {
		if (!slot->restart.delay_ns)
			backoff_next(&slot->restart, now_ns(s->k));
		return failed(s, slot, spec, "RunContainerError", err.text);
	}
	w->started_any = true;
	worker_container_event(w, s->pod, spec->c->name, "Normal", "Started", "Container started");
	if (spec->c->lifecycle && spec->c->lifecycle->post_start) {
		pthread_mutex_lock(&w->lock);
		memcpy(slot->hook_pending, id, sizeof(id));
		pthread_mutex_unlock(&w->lock);
		task_post_start(s, slot, spec, id);
		return START_WAITING;
	}
	return START_DONE;
}
