/* Containers: records, overlay folders, start and stop. create only prepares files; conmon and crun come in at start, so that a container that cannot
 * start is one that has ended (StartError), with crun's words as its message.
 * The exit code comes from conmon's exit file alone. Ends are noticed by watch.c, which every waiter here is woken by. */
#include "engine/internal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define EXIT_START_ERROR 128
#define TAKE_IN_TIMEOUT_S 10

static const struct record_row rows[] = {
	{ "id", RECORD_TEXT, offsetof(struct container, id) },
	{ "sandboxId", RECORD_TEXT, offsetof(struct container, sandbox_id) },
	{ "name", RECORD_TEXT, offsetof(struct container, name) },
	{ "attempt", RECORD_INT, offsetof(struct container, attempt) },
	{ "image", RECORD_TEXT, offsetof(struct container, image) },
	{ "imageId", RECORD_TEXT, offsetof(struct container, image_id) },
	{ "layers", RECORD_TEXTS, offsetof(struct container, layers) },
	{ "logPath", RECORD_TEXT, offsetof(struct container, log_path) },
	{ "annotations", RECORD_TEXT, offsetof(struct container, annotations) },
	{ "cgroup", RECORD_TEXT, offsetof(struct container, cgroup) },
	{ "bootId", RECORD_TEXT, offsetof(struct container, boot_id) },
	{ "sharedMounts", RECORD_TEXTS, offsetof(struct container, shared_mounts) },
	{ "stopSignal", RECORD_INT, offsetof(struct container, stop_signal) },
	{ "tty", RECORD_BOOL, offsetof(struct container, tty) },
	{ "stdinOpen", RECORD_BOOL, offsetof(struct container, stdin_open) },
	{ "stdinOnce", RECORD_BOOL, offsetof(struct container, stdin_once) },
	{ "createdSeconds", RECORD_INT, offsetof(struct container, created_s) },
	{ "createdNanos", RECORD_INT, offsetof(struct container, created_ns) },
	{ "startedSeconds", RECORD_INT, offsetof(struct container, started_s) },
	{ "startedNanos", RECORD_INT, offsetof(struct container, started_ns) },
	{ "finishedSeconds", RECORD_INT, offsetof(struct container, finished_s) },
	{ "finishedNanos", RECORD_INT, offsetof(struct container, finished_ns) },
	{ "pid", RECORD_INT, offsetof(struct container, pid) },
	{ "pidStart", RECORD_INT, offsetof(struct container, pid_start) },
	{ "conmonPid", RECORD_INT, offsetof(struct container, conmon_pid) },
	{ "conmonStart", RECORD_INT, offsetof(struct container, conmon_start) },
	{ "exitCode", RECORD_INT, offsetof(struct container, exit_code) },
	{ "reason", RECORD_TEXT, offsetof(struct container, reason) },
	{ "message", RECORD_TEXT, offsetof(struct container, message) },
	{ "made", RECORD_BOOL, offsetof(struct container, made) },
	{ "starting", RECORD_BOOL, offsetof(struct container, starting) },
	{ "started", RECORD_BOOL, offsetof(struct container, started) },
	{ "exited", RECORD_BOOL, offsetof(struct container, exited) },
	{ "oomKilled", RECORD_BOOL, offsetof(struct container, oom_killed) },
};
const struct record_type container_record_type = { rows, ARRAY_LEN(rows) };

void container_free(struct container *c)
{
	if (!c)
		return;
	record_deinit(&container_record_type, c);
	free(c);
}

static void container_freep(struct container **c)
{
	container_free(*c);
}

int container_save(struct local *l, const struct container *c, struct err *err)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/containers/%s/record", l->root, c->id);
	return record_save(&container_record_type, c, path, false, err);
}

/* ---- creating ---- */
static const struct {
	const char *name;
	int number;
} signal_names[] = {
	{ "HUP", SIGHUP },
	{ "INT", SIGINT },
	{ "QUIT", SIGQUIT },
	{ "ABRT", SIGABRT },
	{ "KILL", SIGKILL },
	{ "USR1", SIGUSR1 },
	{ "USR2", SIGUSR2 },
	{ "ALRM", SIGALRM },
	{ "TERM", SIGTERM },
	{ "CONT", SIGCONT },
	{ "STOP", SIGSTOP },
	{ "TSTP", SIGTSTP },
	{ "WINCH", SIGWINCH },
	{ "PWR", SIGPWR },
};

static int stop_signal_of(struct str text)
{
	int64_t n, plus;

	if (str_to_i64(text, &n) == 0)
		return n > 0 && n <= SIGRTMAX ? (int)n : SIGTERM;
	if (str_has_prefix(text, STR("SIG")))
		text = str_from(text, 3);
	for (size_t i = 0; i < ARRAY_LEN(signal_names); i++)
		if (str_eqz(text, signal_names[i].name))
			return signal_names[i].number;
	if (str_has_prefix(text, STR("RTMIN+")) && str_to_i64(str_from(text, 6), &plus) == 0 &&
		plus >= 0 && plus <= SIGRTMAX - SIGRTMIN)
		return SIGRTMIN + (int)plus;
	return SIGTERM;
}

static struct container *container_new(
	const struct local *l, const struct sandbox *s, const struct engine_container_config *c)
{
	struct container *n = xcalloc(1, sizeof(*n));
	struct timestamp now = time_now();
	char id[ENGINE_ID];

	new_id(id);
	n->conmon_fd = -1;
	n->id = xstrdup(id);
	n->sandbox_id = xstrdup(s->id);
	n->name = xstrdup(c->name);
	n->attempt = c->attempt;
	n->image = xstrdup(c->image ? c->image : c->image_id);
	n->annotations = c->annotations_json ? xstrdup(c->annotations_json) : NULL;
	n->cgroup = xasprintf("%s/%s", s->cgroup, id);
	n->boot_id = xstrdup(l->boot);
	n->tty = c->tty;
	n->stdin_open = c->stdin_open;
	n->stdin_once = c->stdin_once;
	n->created_s = now.sec;
	n->created_ns = now.nsec;
	if (c->log_path && *c->log_path && s->log_directory)
		n->log_path = xasprintf("%s/%s", s->log_directory, c->log_path);
	else
		n->log_path = xasprintf("%s/containers/%s/log", l->root, id);
	for (size_t i = 0; i < c->n_mounts; i++)
		if (c->mounts[i].propagation == 2)
			texts_add(&n->shared_mounts, str_of(c->mounts[i].host_path));
	return n;
}

/* The image's layers are ours from the moment that the record names them; until then the store's lock keeps them. */
static int take_image(struct local *l, struct container *n, const struct engine_container_config *c,
	struct arena *a, struct image_config *ret, struct err *err)
{
	struct image_record image = { 0 };
	char path[PATH_MAX];
	CLEAN_FD int lock = -1;
	int r = store_lock(l->store, "lock", LOCK_SH, &lock, err);

	if (r == 0)
		r = store_find(l->store, str_of(c->image_id ? c->image_id : c->image), &image, err);
	if (r == 0)
		r = store_config(l->store, image.id, a, ret, err);
	if (r == 0) {
		n->image_id = xstrdup(image.id);
		n->layers = TAKE(image.layers);
		n->stop_signal = ret->stop_signal.len ? stop_signal_of(ret->stop_signal) : SIGTERM;
		path_fmt(path, "%s/containers/%s", l->root, n->id);
		r = dir_make(path, 0700, err);
		if (r == 0)
			r = container_save(l, n, err);
	}
	record_deinit(&image_record_type, &image);
	return r;
}

static int write_bundle(struct local *l, const struct sandbox *s, struct container *n,
	const struct engine_container_config *c, const struct image_config *image,
	int64_t target_pid, struct arena *a, struct err *err)
{
	static const struct {
		const char *name;
		mode_t mode;
	} folders[] = { { "upper", 0755 }, { "work", 0700 }, { "rootfs", 0755 } };
	size_t n_layers = texts_len(n->layers);
	CLEAN_FREE const char **topmost_first = xcalloc(n_layers + 1, sizeof(*topmost_first));
	CLEAN_BUF struct buf config = { 0 };
	char path[PATH_MAX];
	int r;

	for (size_t i = 0; i < n_layers; i++)
		topmost_first[i] = n->layers[n_layers - 1 - i];
	struct spec spec = { .l = l,
		.sandbox = s,
		.container = n,
		.config = c,
		.image = image,
		.target_pid = target_pid,
		.layers = topmost_first,
		.n_layers = n_layers };
	if ((r = spec_write(&spec, a, &config, err)) < 0)
		return r;
	for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
		path_fmt(path, "%s/containers/%s/%s", l->root, n->id, folders[i].name);
		if ((r = dir_make(path, folders[i].mode, err)) < 0)
			return r;
		chmod(path, folders[i].mode);
	}
	path_fmt(path, "%s/containers/%s/config.json", l->root, n->id);
	if ((r = file_write_atomic(path, buf_str(&config), 0600, false, err)) < 0)
		return r;
	path_fmt(path, "%s", n->log_path);
	*strrchr(path, '/') = '\0';
	return dir_make(path, 0755, err);
}

static bool is_taken(
	struct local *l, const char *sandbox_id, const struct engine_container_config *c)
{
	size_t i = 0;
	struct str id;
	void *p;

	while (map_next(&l->containers, &i, &id, &p)) {
		const struct container *k = p;
		if (!strcmp(k->sandbox_id, sandbox_id) && !strcmp(k->name, c->name) &&
			k->attempt == c->attempt)
			return true;
	}
	return false;
}

/* Lock held. 0: none is running. */
static int64_t pid_of(struct local *l, const char *id)
{
	const struct container *k = id ? container_find(l, id) : NULL;

	return k && k->started && !k->exited && process_alive((pid_t)k->pid, (uint64_t)k->pid_start)
		? k->pid
		: 0;
}

int local_container_create(struct engine *e, const char *sandbox_id,
	const struct engine_container_config *c, char ret_id[ENGINE_ID], struct err *err)
{
	struct local *l = local_of(e);
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct image_config image;

	pthread_mutex_lock(&l->lock);
	struct sandbox *s = sandbox_find(l, sandbox_id);
	bool ready = s && sandbox_is_ready(l, s), taken = is_taken(l, sandbox_id, c);
	int64_t target_pid = pid_of(l, c->shares_pids_of);
	pthread_mutex_unlock(&l->lock);
	if (!s)
		return sandbox_missing(sandbox_id, err);
	if (!ready)
		return err_set(err, -ESHUTDOWN,
			"the sandbox of pod %s/%s is stopped, so container %s cannot be made in it",
			s->namespace_, s->name, c->name);
	if (taken)
		return err_set(err, ENGINE_EXISTS,
			"container %s of pod %s/%s is there already with attempt %u", c->name,
			s->namespace_, s->name, c->attempt);
	if (c->shares_pids_of && !target_pid)
		return err_set(err, -ESRCH,
			"container %s cannot share the processes of container %s: it is not running",
			c->name, c->shares_pids_of);
	CLEANUP(container_freep) struct container *n = container_new(l, s, c);
	int r = take_image(l, n, c, a, &image, err);
	if (r == 0)
		r = write_bundle(l, s, n, c, &image, target_pid, a, err);
	if (r == 0) {
		n->made = true;
		r = container_save(l, n, err);
	}
	if (r != 0) {
		container_drop(l, n, NULL);
		return r < 0 ? err_prefix(err, r, "cannot create container %s of pod %s/%s",
				       c->name, s->namespace_, s->name)
			     : r;
	}
	memcpy(ret_id, n->id, ENGINE_ID);
	pthread_mutex_lock(&l->lock);
	map_set(&l->containers, str_of(ret_id), TAKE(n));
	pthread_mutex_unlock(&l->lock);
	return 0;
}

/* ---- starting ---- */
static void set_text(char **field, const char *text)
{
	free(*field);
	*field = xstrdup(text);
}

/* Lock held. */
void container_set_exit(struct local *l, struct container *c, int64_t code, struct timestamp at,
	const char *reason, const char *message)
{
	c->exited = true;
	c->starting = false;
	c->exit_code = code;
	c->finished_s = at.sec;
	c->finished_ns = at.nsec;
	set_text(&c->reason, reason);
	set_text(&c->message, message);
	if (container_save(l, c, NULL) < 0)
		log_warn("engine", "cannot save the end of container %s (%s)", c->name, c->id);
	watch_forget(l, c);
	pthread_cond_broadcast(&l->changed);
}

static int fail_start(struct local *l, struct container *c, int r, struct err *err)
{
	const char *const argv[] = { "delete", "--force", c->id, NULL };
	struct err own = { 0 };

	runtime_crun(l, argv, &own);
	cgroup_kill(l->cgroups, c->cgroup, NULL);
	pthread_mutex_lock(&l->lock);
	if (!c->exited)
		container_set_exit(
			l, c, EXIT_START_ERROR, time_now(), "StartError", err ? err->text : "");
	pthread_mutex_unlock(&l->lock);
	return err_prefix(err, r, "cannot start container %s", c->name);
}

/* Lock held. true: it is over already. */
static bool note_started(struct local *l, struct container *c)
{
	struct timestamp now = time_now();

	c->started = true;
	c->starting = false;
	c->started_s = now.sec;
	c->started_ns = now.nsec;
	container_save(l, c, NULL);
	return container_refresh(l, c);
}

int local_container_start(struct engine *e, const char *id, struct err *err)
{
	struct local *l = local_of(e);
	const char *const argv[] = { "start", id, NULL };
	struct err own = { 0 };
	pid_t pid, conmon;
	uint64_t start = 0;

	err = err ? err : &own;
	pthread_mutex_lock(&l->lock);
	struct container *c = container_find(l, id);
	struct sandbox *s = c ? sandbox_find(l, c->sandbox_id) : NULL;
	/* The number of a process that held the pod's namespace and is gone may be anybody's: no container joins that one's. */
	bool fresh = c && s && sandbox_is_ready(l, s) && !c->starting && !c->started && !c->exited;
	if (fresh) {
		c->starting = true;
		container_save(l, c, NULL);
	}
	pthread_mutex_unlock(&l->lock);
	if (!c || !s)
		return container_missing(id, err);
	if (!fresh)
		return err_set(err, -EINVAL,
			"container %s was started already, or its sandbox is stopped", c->name);
	int r = runtime_create(l, c, s, &pid, &conmon, err);
	if (r < 0)
		return fail_start(l, c, r, err);
	pthread_mutex_lock(&l->lock);
	c->pid = pid;
	c->pid_start = process_start_time(pid, &start) == 0 ? (int64_t)start : 0;
	c->conmon_pid = conmon;
	c->conmon_start = process_start_time(conmon, &start) == 0 ? (int64_t)start : 0;
	container_save(l, c, NULL);
	watch_container(l, c);
	pthread_mutex_unlock(&l->lock);
	r = runtime_crun(l, argv, err);
	if (r < 0)
		return fail_start(l, c, r, err);
	pthread_mutex_lock(&l->lock);
	bool over = note_started(l, c), lost = !over && c->conmon_lost;
	pthread_mutex_unlock(&l->lock);
	if (lost)
		over = conmon_gone(l, id);
	/* Its exit file may have come when it did not count as started yet. */
	if (over)
		watch_tell(l, s->id, id);
	return 0;
}

/* ---- stopping ---- */
/* Waits until the watcher took the exit file in. */
static int wait_taken_in(struct local *l, const char *id, struct err *err)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TAKE_IN_TIMEOUT_S;
	pthread_mutex_lock(&l->lock);
	for (;;) {
		struct container *c = container_find(l, id);
		if (!c || c->exited || (c->started && container_refresh(l, c)))
			break;
		if (r == ETIMEDOUT) { /* neither conmon nor its pidfd said a word */
			container_set_exit(l, c, 137, time_now(), "Error",
				"the container ended, but conmon wrote no exit code");
			break;
		}
		r = pthread_cond_timedwait(&l->changed, &l->lock, &until);
	}
	pthread_mutex_unlock(&l->lock);
	return 0;
}

struct target {
	pid_t pid;
	uint64_t start;
	char cgroup[PATH_MAX];
	int signal;
	bool running;
};

static int signal_and_wait(
	struct local *l, const struct target *t, int64_t grace_ms, struct err *err)
{
	CLEAN_FD int fd = pidfd_of(t->pid);
	int r = -ETIMEDOUT;

	/* Once the descriptor is open the number cannot change hands any more. */
	if (fd >= 0 && process_alive(t->pid, t->start)) {
		if (grace_ms > 0 && t->signal != SIGKILL && pidfd_signal(fd, t->signal) == 0)
			r = pidfd_wait(fd, grace_ms);
		if (r < 0) {
			pidfd_signal(fd, SIGKILL);
			r = pidfd_wait(fd, TAKE_IN_TIMEOUT_S * 1000);
		}
		if (r < 0)
			return err_set(err, r,
				"process %d does not die, not even by SIGKILL (state D?)", t->pid);
	}
	/* Under a shared or the host's process namespace its children live on. */
	return cgroup_kill(l->cgroups, t->cgroup, err);
}

int local_container_stop(
	struct engine *e, const char *id, int signal, int64_t grace_ms, struct err *err)
{
	struct local *l = local_of(e);
	struct target t = { 0 };

	pthread_mutex_lock(&l->lock);
	struct container *c = container_find(l, id);
	if (c) {
		container_refresh(l, c);
		t.running = c->started && !c->exited;
		t.pid = (pid_t)c->pid;
		t.start = (uint64_t)c->pid_start;
		t.signal = signal ? signal : c->stop_signal ? (int)c->stop_signal : SIGTERM;
		path_fmt(t.cgroup, "%s", c->cgroup);
	}
	pthread_mutex_unlock(&l->lock);
	if (!c)
		return container_missing(id, err);
	if (!t.running)
		return 0;
	int r = signal_and_wait(l, &t, grace_ms, err);
	return r < 0 ? r : wait_taken_in(l, id, err);
}

int container_kill(struct local *l, const char *id, struct err *err)
{
	int r = local_container_stop(&l->base, id, SIGKILL, 0, err);

	return r == ENGINE_NOT_FOUND ? 0 : r;
}

/* ---- removing ---- */
static void wait_conmon(const struct container *c)
{
	CLEAN_FD int fd = c->conmon_pid > 0 ? pidfd_of((pid_t)c->conmon_pid) : -1;

	if (fd < 0 || !process_alive((pid_t)c->conmon_pid, (uint64_t)c->conmon_start))
		return;
	if (pidfd_wait(fd, 2000) < 0 && pidfd_signal(fd, SIGKILL) == 0)
		pidfd_wait(fd, 2000);
}

int container_drop(struct local *l, struct container *c, struct err *err)
{
	const char *const argv[] = { "delete", "--force", c->id, NULL };
	char path[PATH_MAX];
	int r = 0;

	path_fmt(path, "%s/crun/%s", l->run, c->id);
	if (access(path, F_OK) == 0)
		r = runtime_crun(l, argv, err);
	if (r < 0 && access(path, F_OK) == 0)
		return r;
	if ((r = cgroup_remove(l->cgroups, c->cgroup, err)) < 0)
		return r;
	wait_conmon(c);
	path_fmt(path, "%s/containers/%s", l->root, c->id);
	if ((r = dir_remove_tree(path, err)) < 0)
		return r;
	path_fmt(path, "%s/exits/%s", l->root, c->id);
	unlink(path);
	return 0;
}

int local_container_remove(struct engine *e, const char *id, struct err *err)
{
	struct local *l = local_of(e);
	int r = container_kill(l, id, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&l->lock);
	struct container *c = map_remove(&l->containers, str_of(id));
	if (c)
		watch_forget(l, c);
	pthread_mutex_unlock(&l->lock);
	if (!c)
		return 0;
	r = container_drop(l, c, err);
	if (r < 0) {
		pthread_mutex_lock(&l->lock);
		map_set(&l->containers, str_of(id), c);
		pthread_mutex_unlock(&l->lock);
		return err_prefix(err, r, "cannot remove container %s", c->name);
	}
	container_free(c);
	return 0;
}

/* ---- looking ---- */
static void export_container(
	const struct container *c, struct arena *a, struct engine_container *ret)
{
	*ret = (struct engine_container){
		.name = arena_strz(a, c->name),
		.image = arena_strz(a, c->image),
		.image_id = arena_strz(a, c->image_id ? c->image_id : ""),
		.log_path = arena_strz(a, c->log_path),
		.annotations_json = arena_strz(a, c->annotations ? c->annotations : ""),
		.attempt = (uint32_t)c->attempt,
		.state = c->exited   ? CONTAINER_EXITED
			: c->started ? CONTAINER_RUNNING
				     : CONTAINER_CREATED,
		.created_at = { c->created_s, (int32_t)c->created_ns },
		.started_at = { c->started_s, (int32_t)c->started_ns },
		.finished_at = { c->finished_s, (int32_t)c->finished_ns },
		.exit_code = (int32_t)c->exit_code,
		.oom_killed = c->oom_killed,
		.reason = arena_strz(a, c->reason ? c->reason : ""),
		.message = arena_strz(a, c->message ? c->message : ""),
		.pid = c->started && !c->exited ? (int32_t)c->pid : 0,
	};
	memcpy(ret->id, c->id, ENGINE_ID);
	memcpy(ret->sandbox_id, c->sandbox_id, ENGINE_ID);
}

int local_container_status(struct engine *e, const char *id, struct arena *a,
	struct engine_container *ret, struct err *err)
{
	struct local *l = local_of(e);

	pthread_mutex_lock(&l->lock);
	struct container *c = container_find(l, id);
	if (c) {
		container_refresh(l, c);
		export_container(c, a, ret);
	}
	pthread_mutex_unlock(&l->lock);
	return c ? 0 : container_missing(id, err);
}

int local_container_list(struct engine *e, const char *sandbox_id, struct arena *a,
	struct engine_container **ret, size_t *ret_n, struct err *err)
{
	struct local *l = local_of(e);
	size_t i = 0, n = 0;
	struct str id;
	void *p;

	pthread_mutex_lock(&l->lock);
	struct engine_container *items = arena_alloc(a, l->containers.len * sizeof(*items) + 1);
	while (map_next(&l->containers, &i, &id, &p)) {
		struct container *c = p;
		if (sandbox_id && strcmp(c->sandbox_id, sandbox_id) != 0)
			continue;
		container_refresh(l, c);
		export_container(c, a, &items[n++]);
	}
	pthread_mutex_unlock(&l->lock);
	*ret = items;
	*ret_n = n;
	return 0;
}

static int cgroup_of(struct local *l, const char *id, char ret[PATH_MAX], struct err *err)
{
	pthread_mutex_lock(&l->lock);
	struct container *c = container_find(l, id);
	bool running = c && c->started && !c->exited;
	if (c)
		path_fmt(ret, "%s", c->cgroup);
	pthread_mutex_unlock(&l->lock);
	if (!c)
		return container_missing(id, err);
	return running ? 0 : err_set(err, -ESRCH, "container %s is not running", id);
}

int local_container_update(
	struct engine *e, const char *id, const struct engine_resources *q, struct err *err)
{
	struct local *l = local_of(e);
	char cgroup[PATH_MAX];
	int r = cgroup_of(l, id, cgroup, err);
	struct cgroup_limits limits = {
		.cpu_shares = q->cpu_shares > 0 ? q->cpu_shares : -1,
		.cpu_quota_us = q->cpu_quota_us,
		.cpu_period_us = q->cpu_period_us,
		.memory_bytes = q->memory_limit,
		.pids = q->pids_limit > 0 ? q->pids_limit : -1,
	};

	return r ? r : cgroup_set(l->cgroups, cgroup, &limits, err);
}

int local_container_disk(struct engine *e, const char *id, uint64_t *ret_bytes, struct err *err)
{
	struct local *l = local_of(e);
	char path[PATH_MAX];
	int r = cgroup_of(l, id, path, err);

	if (r)
		return r;
	path_fmt(path, "%s/containers/%s/upper", l->root, id);
	*ret_bytes = dir_usage(path);
	return 0;
}

int local_container_stats(
	struct engine *e, const char *id, struct engine_stats *ret, struct err *err)
{
	struct local *l = local_of(e);
	struct cgroup_stats stats;
	char cgroup[PATH_MAX];
	int r = cgroup_of(l, id, cgroup, err);

	if (r == 0)
		r = cgroup_stats(l->cgroups, cgroup, &stats, err);
	if (r == 0)
		*ret = (struct engine_stats){ stats.cpu_ns, stats.memory_bytes,
			stats.memory_working_set, stats.pids, time_now() };
	return r;
}

int local_container_reopen_log(struct engine *e, const char *id, struct err *err)
{
	struct local *l = local_of(e);
	char path[PATH_MAX];
	int r = cgroup_of(l, id, path, err);

	if (r)
		return r;
	path_fmt(path, "%s/containers/%s/ctl", l->root, id);
	CLEAN_FD int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || write(fd, "2 0 0\n", 6) < 0)
		return err_errno(
			err, -errno, "cannot tell conmon of container %s to reopen its log", id);
	return 0;
}
