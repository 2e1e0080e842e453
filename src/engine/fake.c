/* An engine in which nothing runs: the vtable's promises kept in memory, on the clock that it is given. */
#include "engine/internal.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>

struct fake_sandbox {
	struct arena *arena;
	struct engine_sandbox s;
};

struct fake_container {
	struct arena *arena;
	struct engine_container c;
	struct engine_stats stats;
};

struct fake_image {
	struct arena *arena;
	struct engine_image image;
};

struct fake_function {
	int fail; /* how many calls are to fail, -1: all */
	size_t calls;
	char text[256];
};

struct fake {
	struct engine base;
	const struct clock *clock;
	pthread_mutex_t lock; /* guards all below */
	struct map sandboxes, containers, images, functions;
	engine_event_fn event_fn;
	void *event_arg;
	engine_fake_exec_fn exec_fn;
	void *exec_arg;
	uint64_t next_id;
	uint32_t next_ip;
	int32_t next_pid;
};

static struct fake *fake_of(struct engine *e)
{
	return container_of(e, struct fake, base);
}

static struct fake_function *function_of(struct fake *f, const char *name)
{
	struct fake_function *fn = map_get(&f->functions, str_of(name));

	if (!fn) {
		fn = xcalloc(1, sizeof(*fn));
		map_set(&f->functions, str_of(name), fn);
	}
	return fn;
}

/* Locks; every call begins with it. Not 0: the call was told to fail, and the lock is not held. */
static int enter(struct fake *f, const char *name, struct err *err)
{
	pthread_mutex_lock(&f->lock);
	struct fake_function *fn = function_of(f, name);
	fn->calls++;
	if (!fn->fail)
		return 0;
	if (fn->fail > 0)
		fn->fail--;
	err_set(err, -EIO, "%s", fn->text);
	pthread_mutex_unlock(&f->lock);
	return -EIO;
}

static int leave(struct fake *f, int r)
{
	pthread_mutex_unlock(&f->lock);
	return r;
}

static void tell(struct fake *f, const char *sandbox, const char *container)
{
	pthread_mutex_lock(&f->lock);
	engine_event_fn fn = f->event_fn;
	void *arg = f->event_arg;
	pthread_mutex_unlock(&f->lock);
	if (fn)
		fn(arg, sandbox, container);
}

/* Ids are counted, so that a simulation is the same each time. */
static void fake_id(struct fake *f, char ret[ENGINE_ID])
{
	snprintf(ret, ENGINE_ID, "%032llx", (unsigned long long)++f->next_id);
}

/* ---- freeing ---- */
static void free_sandbox(void *p)
{
	arena_free(((struct fake_sandbox *)p)->arena);
}

static void free_container(void *p)
{
	arena_free(((struct fake_container *)p)->arena);
}

static void free_image(void *p)
{
	arena_free(((struct fake_image *)p)->arena);
}

static void fake_free(struct engine *e)
{
	struct fake *f = fake_of(e);

	map_deinit(&f->sandboxes, free_sandbox);
	map_deinit(&f->containers, free_container);
	map_deinit(&f->images, free_image);
	map_deinit(&f->functions, free);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static void fake_set_event_handler(struct engine *e, engine_event_fn fn, void *arg)
{
	struct fake *f = fake_of(e);

	pthread_mutex_lock(&f->lock);
	f->event_fn = fn;
	f->event_arg = arg;
	pthread_mutex_unlock(&f->lock);
}

static int fake_version(struct engine *e, struct arena *a, struct str *ret_name,
	struct str *ret_version, struct err *err)
{
	*ret_name = STR("fake");
	*ret_version = STR("1.0");
	return 0;
}

static int fake_network_status(struct engine *e, struct err *err)
{
	struct fake *f = fake_of(e);
	int r = enter(f, "network_status", err);

	return r < 0 ? r : leave(f, 0);
}

/* ---- images ---- */
static void export_image(const struct fake_image *i, struct arena *a, struct engine_image *ret)
{
	struct str *tag = arena_memdup(a, i->image.repo_tags.items, sizeof(*tag));

	*tag = arena_str(a, *tag);
	*ret = (struct engine_image){ .id = arena_str(a, i->image.id),
		.repo_tags = { tag, 1 },
		.size = i->image.size,
		.user = STR(""),
		.pinned = i->image.pinned };
}

/* By name or id. */
static struct fake_image *find_image(struct fake *f, struct str ref, struct str *ret_key)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct image_ref parsed;
	struct str name = ref; /* an id reads as a name too: both are compared */
	size_t i = 0;
	struct str key;
	void *p;

	if (image_ref_parse(ref, a, &parsed, NULL) == 0)
		name = parsed.canonical;
	while (map_next(&f->images, &i, &key, &p))
		if (str_eq(key, name) || str_eq(((struct fake_image *)p)->image.id, ref)) {
			*ret_key = key;
			return p;
		}
	return NULL;
}

static int add_image(struct fake *f, struct str ref, bool pinned, struct arena *a,
	struct engine_image *ret, struct err *err)
{
	struct arena *own = arena_new(1024);
	struct image_ref parsed;
	char id[72];
	int r = image_ref_parse(ref, own, &parsed, err);

	if (r < 0) {
		arena_free(own);
		return r;
	}
	struct fake_image *i = arena_alloc(own, sizeof(*i));
	struct str *tag = arena_memdup(own, &parsed.canonical, sizeof(parsed.canonical));
	digest_of(parsed.canonical, id);
	*i = (struct fake_image){ .arena = own,
		.image = { .id = arena_strz(own, id),
			.repo_tags = { tag, 1 },
			.size = 1024 * 1024,
			.pinned = pinned } };
	struct fake_image *old = map_set(&f->images, parsed.canonical, i);
	if (old)
		free_image(old);
	export_image(i, a, ret);
	return 0;
}

static int fake_image_import(struct engine *e, const char *file, const char *tag, struct arena *a,
	struct engine_image *ret, struct err *err)
{
	struct fake *f = fake_of(e);
	int r = enter(f, "image_import", err);

	return r ? r : leave(f, add_image(f, str_of(tag ? tag : file), true, a, ret, err));
}

static int fake_image_status(struct engine *e, struct str ref, struct arena *a,
	struct engine_image *ret, struct err *err)
{
	struct fake *f = fake_of(e);
	struct str key;
	int r = enter(f, "image_status", err);

	if (r)
		return r;
	struct fake_image *i = find_image(f, ref, &key);
	if (!i)
		return leave(f,
			err_set(err, ENGINE_NOT_FOUND, "image \"" STR_FMT "\" is not on this node",
				STR_ARG(ref)));
	export_image(i, a, ret);
	return leave(f, 0);
}

static int fake_image_pull(struct engine *e, struct str ref, struct arena *a,
	struct engine_image *ret, struct err *err)
{
	struct fake *f = fake_of(e);
	int r = enter(f, "image_pull", err);

	return r ? r : leave(f, add_image(f, ref, false, a, ret, err));
}

static int fake_image_list(struct engine *e, struct arena *a, struct engine_image **ret,
	size_t *ret_n, struct err *err)
{
	struct fake *f = fake_of(e);
	size_t i = 0, n = 0;
	struct str key;
	void *p;
	int r = enter(f, "image_list", err);

	if (r)
		return r;
	struct engine_image *items = arena_alloc(a, f->images.len * sizeof(*items) + 1);
	while (map_next(&f->images, &i, &key, &p))
		export_image(p, a, &items[n++]);
	*ret = items;
	*ret_n = n;
	return leave(f, 0);
}

static int fake_image_remove(struct engine *e, struct str ref, struct err *err)
{
	struct fake *f = fake_of(e);
	struct str key;
	int r = enter(f, "image_remove", err);

	if (r)
		return r;
	struct fake_image *i = find_image(f, ref, &key);
	if (!i)
		return leave(f,
			err_set(err, ENGINE_NOT_FOUND, "image \"" STR_FMT "\" is not there",
				STR_ARG(ref)));
	map_remove(&f->images, key);
	free_image(i);
	return leave(f, 0);
}

/* ---- sandboxes ---- */
static void export_sandbox(
	const struct fake_sandbox *s, struct arena *a, struct engine_sandbox *ret)
{
	*ret = s->s;
	ret->name = arena_str(a, s->s.name);
	ret->namespace_ = arena_str(a, s->s.namespace_);
	ret->uid = arena_str(a, s->s.uid);
	ret->ip = arena_str(a, s->s.ip);
	ret->netns_path = arena_str(a, s->s.netns_path);
}

static int fake_sandbox_run(struct engine *e, const struct engine_sandbox_config *c,
	struct arena *a, struct engine_sandbox *ret, struct err *err)
{
	struct fake *f = fake_of(e);
	char ip[INET_ADDRSTRLEN];
	size_t i = 0;
	struct str key;
	void *p;
	int r = enter(f, "sandbox_run", err);

	if (r)
		return r;
	while (map_next(&f->sandboxes, &i, &key, &p)) {
		const struct engine_sandbox *s = &((struct fake_sandbox *)p)->s;
		if (s->attempt == c->attempt && str_eqz(s->uid, c->uid))
			return leave(f,
				err_set(err, ENGINE_EXISTS,
					"pod %s has a sandbox of attempt %u already", c->uid,
					c->attempt));
	}
	struct arena *own = arena_new(1024);
	struct fake_sandbox *s = arena_alloc(own, sizeof(*s));
	uint32_t address = htonl(0x0af40000u + ++f->next_ip); /* 10.244.0.0/16 */
	*s = (struct fake_sandbox){ .arena = own,
		.s = {
			.name = arena_strz(own, c->name),
			.namespace_ = arena_strz(own, c->namespace_),
			.uid = arena_strz(own, c->uid),
			.attempt = c->attempt,
			.state = SANDBOX_READY,
			.created_at = f->clock->wall(f->clock),
			.host_network = c->host_network,
			.ip = arena_strz(own,
				c->host_network ? ""
						: inet_ntop(AF_INET, &address, ip, sizeof(ip))),
			.netns_path = STR(""),
		} };
	fake_id(f, s->s.id);
	map_set(&f->sandboxes, str_of(s->s.id), s);
	export_sandbox(s, a, ret);
	return leave(f, 0);
}

static void end_container(struct fake *f, struct fake_container *c, int code, bool oom)
{
	if (c->c.state == CONTAINER_EXITED)
		return;
	c->c.state = CONTAINER_EXITED;
	c->c.pid = 0;
	c->c.exit_code = code;
	c->c.oom_killed = oom;
	c->c.finished_at = f->clock->wall(f->clock);
	c->c.reason = oom ? STR("OOMKilled") : code ? STR("Error") : STR("Completed");
}

static int stop_sandbox(struct fake *f, const char *id, int code, struct err *err)
{
	struct fake_sandbox *s = map_get(&f->sandboxes, str_of(id));
	size_t i = 0;
	struct str key;
	void *p;

	if (!s)
		return sandbox_missing(id, err);
	while (map_next(&f->containers, &i, &key, &p)) {
		struct fake_container *c = p;
		if (!strcmp(c->c.sandbox_id, id) && c->c.state == CONTAINER_RUNNING)
			end_container(f, c, code, false);
	}
	s->s.state = SANDBOX_NOT_READY;
	return 0;
}

static int fake_sandbox_stop(struct engine *e, const char *id, struct err *err)
{
	struct fake *f = fake_of(e);
	int r = enter(f, "sandbox_stop", err);

	return r ? r : leave(f, stop_sandbox(f, id, 137, err));
}

static int fake_sandbox_remove(struct engine *e, const char *id, struct err *err)
{
	struct fake *f = fake_of(e);
	size_t i = 0;
	struct str key;
	void *p;
	int r = enter(f, "sandbox_remove", err);

	if (r)
		return r;
	struct fake_sandbox *s = map_remove(&f->sandboxes, str_of(id));
	while (s && map_next(&f->containers, &i, &key, &p))
		if (!strcmp(((struct fake_container *)p)->c.sandbox_id, id)) {
			map_remove(&f->containers, key);
			free_container(p);
		}
	if (s)
		free_sandbox(s);
	return leave(f, 0);
}

static int fake_sandbox_list(struct engine *e, struct arena *a, struct engine_sandbox **ret,
	size_t *ret_n, struct err *err)
{
	struct fake *f = fake_of(e);
	size_t i = 0, n = 0;
	struct str key;
	void *p;
	int r = enter(f, "sandbox_list", err);

	if (r)
		return r;
	struct engine_sandbox *items = arena_alloc(a, f->sandboxes.len * sizeof(*items) + 1);
	while (map_next(&f->sandboxes, &i, &key, &p))
		export_sandbox(p, a, &items[n++]);
	*ret = items;
	*ret_n = n;
	return leave(f, 0);
}

/* ---- containers ---- */
static void export_container(
	const struct fake_container *c, struct arena *a, struct engine_container *ret)
{
	*ret = c->c;
	for (size_t i = 0; i < 7; i++) {
		struct str *field = (struct str *[]){ &ret->name, &ret->image, &ret->image_id,
			&ret->log_path, &ret->annotations_json, &ret->reason, &ret->message }[i];
		*field = arena_str(a, *field);
	}
}

static int fake_container_create(struct engine *e, const char *sandbox_id,
	const struct engine_container_config *c, char ret_id[ENGINE_ID], struct err *err)
{
	struct fake *f = fake_of(e);
	struct str ref = str_of(c->image_id ? c->image_id : c->image), key;
	size_t i = 0;
	void *p;
	int r = enter(f, "container_create", err);

	if (r)
		return r;
	struct fake_sandbox *s = map_get(&f->sandboxes, str_of(sandbox_id));
	if (!s)
		return leave(f, sandbox_missing(sandbox_id, err));
	if (s->s.state != SANDBOX_READY)
		return leave(f, err_set(err, -ESHUTDOWN, "the sandbox %s is stopped", sandbox_id));
	while (map_next(&f->containers, &i, &key, &p)) {
		const struct engine_container *k = &((struct fake_container *)p)->c;
		if (!strcmp(k->sandbox_id, sandbox_id) && str_eqz(k->name, c->name) &&
			k->attempt == c->attempt)
			return leave(f,
				err_set(err, ENGINE_EXISTS,
					"container %s is there already with attempt %u", c->name,
					c->attempt));
	}
	struct fake_image *image = find_image(f, ref, &key);
	if (!image)
		return leave(f,
			err_set(err, ENGINE_NOT_FOUND, "image \"" STR_FMT "\" is not on this node",
				STR_ARG(ref)));
	struct arena *own = arena_new(1024);
	struct fake_container *n = arena_alloc(own, sizeof(*n));
	*n = (struct fake_container){ .arena = own,
		.c = {
			.name = arena_strz(own, c->name),
			.image = arena_strz(own, c->image ? c->image : ""),
			.image_id = arena_str(own, image->image.id),
			.log_path = arena_strz(own, c->log_path ? c->log_path : ""),
			.annotations_json =
				arena_strz(own, c->annotations_json ? c->annotations_json : ""),
			.attempt = c->attempt,
			.state = CONTAINER_CREATED,
			.created_at = f->clock->wall(f->clock),
			.reason = STR(""),
			.message = STR(""),
		} };
	fake_id(f, n->c.id);
	memcpy(n->c.sandbox_id, s->s.id, ENGINE_ID);
	map_set(&f->containers, str_of(n->c.id), n);
	memcpy(ret_id, n->c.id, ENGINE_ID);
	return leave(f, 0);
}

/* As enter, and finds the container. */
static int enter_container(struct fake *f, const char *function, const char *id,
	struct fake_container **ret, struct err *err)
{
	int r = enter(f, function, err);

	if (r)
		return r;
	*ret = map_get(&f->containers, str_of(id));
	return *ret ? 0 : leave(f, container_missing(id, err));
}

static int fake_container_start(struct engine *e, const char *id, struct err *err)
{
	struct fake *f = fake_of(e);
	struct fake_container *c;
	int r = enter_container(f, "container_start", id, &c, err);

	if (r)
		return r;
	if (c->c.state != CONTAINER_CREATED)
		return leave(f, err_set(err, -EINVAL, "container %s was started already", id));
	c->c.state = CONTAINER_RUNNING;
	c->c.pid = 1000 + ++f->next_pid;
	c->c.started_at = f->clock->wall(f->clock);
	return leave(f, 0);
}

static int fake_container_stop(
	struct engine *e, const char *id, int signal, int64_t grace_ms, struct err *err)
{
	struct fake *f = fake_of(e);
	struct fake_container *c;
	char sandbox[ENGINE_ID];
	int r = enter_container(f, "container_stop", id, &c, err);

	if (r)
		return r;
	bool ran = c->c.state == CONTAINER_RUNNING;
	memcpy(sandbox, c->c.sandbox_id, sizeof(sandbox));
	if (ran)
		end_container(f, c,
			grace_ms > 0 && signal != SIGKILL ? 128 + SIGTERM : 128 + SIGKILL, false);
	leave(f, 0);
	if (ran)
		tell(f, sandbox, id);
	return 0;
}

static int fake_container_remove(struct engine *e, const char *id, struct err *err)
{
	struct fake *f = fake_of(e);
	int r = enter(f, "container_remove", err);

	if (r)
		return r;
	struct fake_container *c = map_remove(&f->containers, str_of(id));
	if (c)
		free_container(c);
	return leave(f, 0);
}

static int fake_container_status(struct engine *e, const char *id, struct arena *a,
	struct engine_container *ret, struct err *err)
{
	struct fake *f = fake_of(e);
	struct fake_container *c;
	int r = enter_container(f, "container_status", id, &c, err);

	if (r)
		return r;
	export_container(c, a, ret);
	return leave(f, 0);
}

static int fake_container_list(struct engine *e, const char *sandbox_id, struct arena *a,
	struct engine_container **ret, size_t *ret_n, struct err *err)
{
	struct fake *f = fake_of(e);
	size_t i = 0, n = 0;
	struct str key;
	void *p;
	int r = enter(f, "container_list", err);

	if (r)
		return r;
	struct engine_container *items = arena_alloc(a, f->containers.len * sizeof(*items) + 1);
	while (map_next(&f->containers, &i, &key, &p))
		if (!sandbox_id || !strcmp(((struct fake_container *)p)->c.sandbox_id, sandbox_id))
			export_container(p, a, &items[n++]);
	*ret = items;
	*ret_n = n;
	return leave(f, 0);
}

static int fake_container_update(
	struct engine *e, const char *id, const struct engine_resources *q, struct err *err)
{
	struct fake *f = fake_of(e);
	struct fake_container *c;
	int r = enter_container(f, "container_update", id, &c, err);

	return r ? r : leave(f, 0);
}

static int fake_container_disk(
	struct engine *e, const char *id, uint64_t *ret_bytes, struct err *err)
{
	struct fake *f = fake_of(e);
	struct fake_container *c;
	int r = enter_container(f, "container_disk", id, &c, err);

	if (r)
		return r;
	*ret_bytes = 0;
	return leave(f, 0);
}

static int fake_container_stats(
	struct engine *e, const char *id, struct engine_stats *ret, struct err *err)
{
	struct fake *f = fake_of(e);
	struct fake_container *c;
	int r = enter_container(f, "container_stats", id, &c, err);

	if (r)
		return r;
	*ret = (struct engine_stats){ .cpu_ns = 1000000,
		.memory_bytes = 1 << 20,
		.memory_working_set = 1 << 20,
		.pids = 1,
		.at = f->clock->wall(f->clock) };
	return leave(f, 0);
}

static int fake_container_reopen_log(struct engine *e, const char *id, struct err *err)
{
	struct fake *f = fake_of(e);
	struct fake_container *c;
	int r = enter_container(f, "container_reopen_log", id, &c, err);

	return r ? r : leave(f, 0);
}

static int fake_exec_sync(struct engine *e, const char *id, const char *const *argv,
	int64_t timeout_ms, struct buf *ret_output, int *ret_code, struct err *err)
{
	struct fake *f = fake_of(e);
	struct fake_container *c;
	int r = enter_container(f, "exec_sync", id, &c, err);

	if (r)
		return r;
	bool runs = c->c.state == CONTAINER_RUNNING;
	engine_fake_exec_fn fn = f->exec_fn;
	void *arg = f->exec_arg;
	leave(f, 0);
	if (!runs)
		return err_set(err, -ESRCH, "container %s is not running", id);
	if (fn)
		return fn(arg, id, argv, ret_output, ret_code, err);
	*ret_code = 0;
	return 0;
}

static int fake_exec(struct engine *e, const char *id, const char *const *argv, bool in, bool out,
	bool err_stream, bool tty, struct engine_session *ret, struct err *err)
{
	return err_set(err, -ENOSYS, "the fake engine runs nothing that one could talk to");
}

static int fake_session_wait(
	struct engine *e, struct engine_session *s, int *ret_code, struct err *err)
{
	return err_set(err, -ENOSYS, "the fake engine has no sessions");
}

static int fake_attach(struct engine *e, const char *id, bool in, bool out, bool err_stream,
	struct engine_session *ret, struct err *err)
{
	return err_set(err, -ENOSYS, "the fake engine runs nothing that one could attach to");
}

static int fake_port_forward(
	struct engine *e, const char *sandbox_id, int port, int *ret_fd, struct err *err)
{
	return err_set(err, -ECONNREFUSED, "the fake engine has no network");
}

static const struct engine_vtable fake_vtable = {
	.free = fake_free,
	.set_event_handler = fake_set_event_handler,
	.version = fake_version,
	.network_status = fake_network_status,
	.image_import = fake_image_import,
	.image_status = fake_image_status,
	.image_pull = fake_image_pull,
	.image_list = fake_image_list,
	.image_remove = fake_image_remove,
	.sandbox_run = fake_sandbox_run,
	.sandbox_stop = fake_sandbox_stop,
	.sandbox_remove = fake_sandbox_remove,
	.sandbox_list = fake_sandbox_list,
	.container_create = fake_container_create,
	.container_start = fake_container_start,
	.container_stop = fake_container_stop,
	.container_remove = fake_container_remove,
	.container_status = fake_container_status,
	.container_list = fake_container_list,
	.container_update = fake_container_update,
	.container_stats = fake_container_stats,
	.container_disk = fake_container_disk,
	.container_reopen_log = fake_container_reopen_log,
	.exec_sync = fake_exec_sync,
	.exec = fake_exec,
	.session_wait = fake_session_wait,
	.attach = fake_attach,
	.port_forward = fake_port_forward,
};

struct engine *engine_fake_new(const struct clock *clock)
{
	struct fake *f = xcalloc(1, sizeof(*f));

	f->base.v = &fake_vtable;
	f->clock = clock ? clock : &clock_real;
	pthread_mutex_init(&f->lock, NULL);
	return &f->base;
}

/* ---- hooks ---- */
void engine_fake_exit(struct engine *e, const char *container_id, int exit_code, bool oom_killed)
{
	struct fake *f = fake_of(e);
	char sandbox[ENGINE_ID];

	pthread_mutex_lock(&f->lock);
	struct fake_container *c = map_get(&f->containers, str_of(container_id));
	bool ran = c && c->c.state == CONTAINER_RUNNING;
	if (ran) {
		memcpy(sandbox, c->c.sandbox_id, sizeof(sandbox));
		end_container(f, c, exit_code, oom_killed);
	}
	pthread_mutex_unlock(&f->lock);
	if (ran)
		tell(f, sandbox, container_id);
}

void engine_fake_fail(struct engine *e, const char *function, int times, const char *text)
{
	struct fake *f = fake_of(e);

	pthread_mutex_lock(&f->lock);
	struct fake_function *fn = function_of(f, function);
	fn->fail = times;
	snprintf(fn->text, sizeof(fn->text), "%s", text ? text : "told to fail");
	pthread_mutex_unlock(&f->lock);
	if (!strcmp(function, "network_status"))
		tell(f, "", "");
}

void engine_fake_set_exec(struct engine *e, engine_fake_exec_fn fn, void *arg)
{
	struct fake *f = fake_of(e);

	pthread_mutex_lock(&f->lock);
	f->exec_fn = fn;
	f->exec_arg = arg;
	pthread_mutex_unlock(&f->lock);
}

void engine_fake_lose_sandbox(struct engine *e, const char *sandbox_id)
{
	struct fake *f = fake_of(e);

	pthread_mutex_lock(&f->lock);
	stop_sandbox(f, sandbox_id, 255, NULL);
	pthread_mutex_unlock(&f->lock);
	tell(f, sandbox_id, NULL);
}

size_t engine_fake_calls(struct engine *e, const char *function)
{
	struct fake *f = fake_of(e);

	pthread_mutex_lock(&f->lock);
	size_t n = function_of(f, function)->calls;
	pthread_mutex_unlock(&f->lock);
	return n;
}
