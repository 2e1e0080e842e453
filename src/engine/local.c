/* The local engine: opening it, finding what an earlier process left, and its table of functions. */
#include "engine/cni.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

void new_id(char ret[ENGINE_ID])
{
	CLEAN_BUF struct buf hex = { 0 };
	unsigned char random[16];

	random_bytes(random, sizeof(random));
	hex_encode(&hex, random, sizeof(random));
	memcpy(ret, hex.p, ENGINE_ID);
}

struct sandbox *sandbox_find(struct local *l, const char *id)
{
	return map_get(&l->sandboxes, str_of(id));
}

struct container *container_find(struct local *l, const char *id)
{
	return map_get(&l->containers, str_of(id));
}

int sandbox_missing(const char *id, struct err *err)
{
	return err_set(err, ENGINE_NOT_FOUND, "there is no sandbox %s", id);
}

int container_missing(const char *id, struct err *err)
{
	return err_set(err, ENGINE_NOT_FOUND, "there is no container %s", id);
}

/* ---- what an earlier process left ---- */
typedef void (*load_fn)(struct local *l, const char *id);

static int each_record(struct local *l, const char *folder, load_fn fn, struct err *err)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/%s", l->root, folder);
	DIR *d = opendir(path);
	if (!d)
		return err_errno(err, -errno, "cannot open %s", path);
	for (struct dirent *e; (e = readdir(d));)
		if (strlen(e->d_name) == ENGINE_ID - 1)
			fn(l, e->d_name);
	closedir(d);
	return 0;
}

static void load_sandbox(struct local *l, const char *id)
{
	struct sandbox *s = xcalloc(1, sizeof(*s));
	char path[PATH_MAX], netns[PATH_MAX];
	struct err why;

	path_fmt(path, "%s/sandboxes/%s/record", l->root, id);
	int r = record_load(&sandbox_record_type, s, path, &why);
	if (r < 0 || !s->made || !s->id || strcmp(s->id, id) != 0 || !s->uid || !s->name ||
		!s->namespace_ || !s->hostname || !s->cgroup) {
		log_warn("engine", "sandbox %s was left half-made and is removed%s%s", id,
			r < 0 ? ": " : "", r < 0 ? why.text : "");
		if (!s->id)
			s->id = xstrdup(id);
		process_kill_by_argument(id, NULL);
		sandbox_undo(l, s, true, NULL);
		sandbox_free(s);
		return;
	}
	sandbox_ns_path(l, s, NS_NET, netns);
	bool lost = !s->boot_id || strcmp(s->boot_id, l->boot) != 0 ||
		(!s->host_network && !ns_is_pinned(netns)) ||
		(s->share_pid && !process_alive((pid_t)s->pause_pid, (uint64_t)s->pause_start));
	if (s->ready && lost) {
		s->ready = false;
		sandbox_save(l, s, NULL);
	}
	map_set(&l->sandboxes, str_of(id), s);
}

static bool is_whole(const struct container *c, const char *id)
{
	return c->made && c->id && !strcmp(c->id, id) && c->sandbox_id &&
		strlen(c->sandbox_id) == ENGINE_ID - 1 && c->name && c->image && c->log_path &&
		c->cgroup;
}

/* Brings a record up to what is true now. */
static void catch_up(struct local *l, struct container *c)
{
	bool this_boot = c->boot_id && !strcmp(c->boot_id, l->boot);
	bool conmon = this_boot && process_alive((pid_t)c->conmon_pid, (uint64_t)c->conmon_start);
	const char *const argv[] = { "delete", "--force", c->id, NULL };
	char path[PATH_MAX];

	if (c->exited || (!c->started && !c->starting))
		return;
	/* An exit file is written when what was started ends: only the record does not know of the start. */
	path_fmt(path, "%s/exits/%s", l->root, c->id);
	if (c->starting && access(path, F_OK) == 0) {
		c->started = true;
		c->started_s = c->created_s;
		c->started_ns = c->created_ns;
		if (container_refresh(l, c))
			return;
		c->started = false;
	}
	if (c->starting) {
		/* conmon and crun may be at it still, and would go on making what is being removed. */
		if (this_boot)
			process_kill_by_argument(c->id, NULL);
		path_fmt(path, "%s/crun/%s", l->run, c->id);
		if (access(path, F_OK) == 0)
			runtime_crun(l, argv, NULL);
		cgroup_kill(l->cgroups, c->cgroup, NULL);
		container_set_exit(l, c, 128, time_now(), "StartError",
			"the engine was ended while it started the container");
	} else if (container_refresh(l, c)) {
		return;
	} else if (conmon) {
		watch_container(l, c);
	} else {
		if (this_boot)
			cgroup_kill(l->cgroups, c->cgroup, NULL);
		container_set_exit(l, c, 255, time_now(), "Unknown",
			this_boot ? "conmon died while no engine ran; the exit code is lost"
				  : "the machine was restarted");
	}
}

static void load_container(struct local *l, const char *id)
{
	struct container *c = xcalloc(1, sizeof(*c));
	char path[PATH_MAX];
	struct err why;

	c->conmon_fd = -1;
	path_fmt(path, "%s/containers/%s/record", l->root, id);
	int r = record_load(&container_record_type, c, path, &why);
	if (r < 0 || !is_whole(c, id)) {
		log_warn("engine", "container %s was left half-made and is removed%s%s", id,
			r < 0 ? ": " : "", r < 0 ? why.text : "");
		if (!c->id)
			c->id = xstrdup(id);
		if (!c->cgroup)
			c->cgroup = xasprintf("skiff-lost/%s", id);
		if (container_drop(l, c, &why) < 0)
			log_warn("engine", "cannot remove what is left of container %s: %s", id,
				why.text);
		container_free(c);
		return;
	}
	map_set(&l->containers, str_of(id), c);
	catch_up(l, c);
}

/* Addresses, pins and containers whose sandbox is not there. */
static void sweep(struct local *l)
{
	char path[PATH_MAX], id[ENGINE_ID];

	path_fmt(path, "%s/addresses", l->root);
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		CLEAN_BUF struct buf owner = { 0 };
		path_fmt(path, "%s/addresses/%s", l->root, e->d_name);
		if (e->d_name[0] != '.' && file_read(path, 64, &owner, NULL) == 0 &&
			!map_get(&l->sandboxes, buf_str(&owner)))
			unlink(path);
	}
	if (d)
		closedir(d);
	path_fmt(path, "%s/ns", l->run);
	d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		if (strlen(e->d_name) < ENGINE_ID - 1)
			continue;
		snprintf(id, sizeof(id), "%.32s", e->d_name);
		path_fmt(path, "%s/ns/%s", l->run, e->d_name);
		if (!sandbox_find(l, id))
			ns_unpin(path, NULL);
	}
	if (d)
		closedir(d);
}

/* ---- opening ---- */
static int make_folders(struct local *l, struct err *err)
{
	static const char *const below_root[] = { "sandboxes", "containers", "exits", "addresses" };
	static const char *const below_run[] = { "ns", "crun", "attach" };
	char path[PATH_MAX];
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(below_root) && r == 0; i++) {
		path_fmt(path, "%s/%s", l->root, below_root[i]);
		r = dir_make(path, 0700, err);
	}
	for (size_t i = 0; i < ARRAY_LEN(below_run) && r == 0; i++) {
		path_fmt(path, "%s/%s", l->run, below_run[i]);
		/* What a dead engine's execs left there is of no use to anybody. */
		if (!strcmp(below_run[i], "attach"))
			r = dir_remove_tree(path, err);
		if (r == 0)
			r = dir_make(path, 0700, err);
	}
	/* Each conmon has a copy of the mounts: a pod's namespaces and shared memory must not live on in those of its neighbours. */
	path_fmt(path, "%s/ns", l->run);
	if (r == 0)
		r = mount_share_folder(path, err);
	path_fmt(path, "%s/sandboxes", l->root);
	return r < 0 ? r : mount_share_folder(path, err);
}

static int find_program(const char *name, char **ret, struct err *err)
{
	const char *search = getenv("PATH");
	char path[PATH_MAX];

	for (struct str rest = str_of(search ? search : "/usr/sbin:/usr/bin:/sbin:/bin"), dir;
		rest.len;) {
		str_cut(rest, ':', &dir, &rest);
		if (!dir.len || dir.len > PATH_MAX - 64)
			continue;
		path_fmt(path, STR_FMT "/%s", STR_ARG(dir), name);
		if (access(path, X_OK) == 0) {
			*ret = xstrdup(path);
			return 0;
		}
	}
	return err_set(err, -ENOENT,
		"the program %s is needed to run containers and is not in PATH: install the package %s",
		name, name);
}

static int check_programs(struct local *l, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_FREE char *conmon = NULL;
	struct str version;
	int r = find_program("conmon", &conmon, err);

	if (r == 0)
		r = find_program("crun", &l->crun, err);
	if (r == 0)
		r = runtime_version(l->crun, a, &version, err);
	if (r == 0)
		l->crun_version = str_dup(version);
	return r;
}

/* Links and addresses are the plugins'; what services and policies count on is not theirs. */
static int configure_cni(struct local *l, const struct engine_local_config *c, struct err *err)
{
	int r = sysctl_set("net.ipv4.ip_forward", "1", err);

	if (r == 0)
		r = sysctl_set("net.bridge.bridge-nf-call-iptables", "1", err);
	return r < 0 ? r : cni_new(c, &l->cni, err);
}

static int configure_network(struct local *l, const struct engine_local_config *c, struct err *err)
{
	int r;

	l->host_netns_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (l->host_netns_fd < 0)
		return err_errno(err, -errno, "cannot open this process's network namespace");
	l->mtu = c->mtu;
	l->link_made = c->link_made;
	l->link_made_arg = c->link_made_arg;
	l->bridge = xstrdup(c->bridge ? c->bridge : "skiff0");
	l->cluster_cidr = c->cluster_cidr ? xstrdup(c->cluster_cidr) : NULL;
	if ((r = netlink_open(&l->netlink, err)) < 0)
		return r;
	if (c->cni_conf_dir)
		return configure_cni(l, c, err);
	return c->pod_cidr && *c->pod_cidr ? engine_local_set_pod_cidr(&l->base, c->pod_cidr, err)
					   : 0;
}

int engine_local_set_pod_cidr(struct engine *e, const char *cidr, struct err *err)
{
	struct local *l = local_of(e);
	uint32_t ip;
	int prefix, r = cidr_parse(cidr, &ip, &prefix, err);

	if (r < 0)
		return r;
	if (prefix < 8 || prefix > 29)
		return err_set(
			err, -EINVAL, "the pod address range %s must be between /8 and /29", cidr);
	pthread_mutex_lock(&l->network_lock);
	l->net_ip = ip;
	l->net_gateway = ip + 1;
	l->net_prefix = prefix;
	r = network_setup(l, err);
	if (r < 0)
		l->net_prefix = 0;
	pthread_mutex_unlock(&l->network_lock);
	return r;
}

static int lock_root(struct local *l, struct err *err)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/engine.lock", l->root);
	l->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (l->lock_fd < 0)
		return err_errno(err, -errno, "cannot open %s", path);
	/* Of the process, not of the descriptor: a child that is between fork and exec when we are killed must not keep it. */
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	if (fcntl(l->lock_fd, F_SETLK, &whole) < 0)
		return err_set(err, -EBUSY,
			"another skiff agent runs with the data folder %s: stop it first", l->root);
	return 0;
}

static int open_all(struct local *l, const struct engine_local_config *c, struct err *err)
{
	int r;

	if (geteuid() != 0)
		return err_set(err, -EPERM,
			"the engine needs root to make namespaces, mounts and cgroups");
	if ((r = image_store_open(l->root, &l->store, err)) < 0 || (r = make_folders(l, err)) < 0 ||
		(r = lock_root(l, err)) < 0 || (r = check_programs(l, err)) < 0 ||
		(r = cgroup_open(&l->cgroups, err)) < 0 || (r = boot_id(l->boot, err)) < 0 ||
		(r = configure_network(l, c, err)) < 0 || (r = watch_open(l, err)) < 0)
		return r;
	/* The watch is open, its thread does not run yet: ends are queued, and no lock is needed. */
	r = each_record(l, "sandboxes", load_sandbox, err);
	if (r == 0)
		r = each_record(l, "containers", load_container, err);
	if (r == 0)
		sweep(l);
	return r < 0 ? r : watch_start(l, err);
}

static void free_sandbox(void *p)
{
	sandbox_free(p);
}

static void free_container(void *p)
{
	container_free(p);
}

static void local_free(struct engine *e)
{
	struct local *l = local_of(e);
	size_t i = 0;
	struct str id;
	void *p;

	while (map_next(&l->containers, &i, &id, &p))
		watch_forget(l, p);
	watch_stop(l);
	map_deinit(&l->containers, free_container);
	map_deinit(&l->sandboxes, free_sandbox);
	image_store_free(l->store);
	cgroup_close(l->cgroups);
	cni_free(l->cni);
	netlink_close(l->netlink);
	clean_fd(&l->host_netns_fd);
	clean_fd(&l->lock_fd);
	pthread_mutex_destroy(&l->lock);
	pthread_mutex_destroy(&l->network_lock);
	pthread_cond_destroy(&l->changed);
	free(l->root);
	free(l->run);
	free(l->bridge);
	free(l->cluster_cidr);
	free(l->crun);
	free(l->crun_version);
	free(l);
}

static void local_set_event_handler(struct engine *e, engine_event_fn fn, void *arg)
{
	struct local *l = local_of(e);

	pthread_mutex_lock(&l->lock);
	l->event_fn = fn;
	l->event_arg = arg;
	pthread_mutex_unlock(&l->lock);
}

static int local_version(struct engine *e, struct arena *a, struct str *ret_name,
	struct str *ret_version, struct err *err)
{
	*ret_name = STR("crun");
	*ret_version = arena_strz(a, local_of(e)->crun_version);
	return 0;
}

static int local_network_status(struct engine *e, struct err *err)
{
	struct local *l = local_of(e);

	return l->cni ? cni_status(l->cni, err) : 0;
}

/* ---- images: the store's, with our names ---- */
static int local_image_import(struct engine *e, const char *file, const char *tag, struct arena *a,
	struct engine_image *ret, struct err *err)
{
	return image_store_import(local_of(e)->store, file, tag, a, ret, err);
}

static int local_image_status(struct engine *e, struct str ref, struct arena *a,
	struct engine_image *ret, struct err *err)
{
	return image_store_status(local_of(e)->store, ref, a, ret, err);
}

static int local_image_pull(struct engine *e, struct str ref, struct arena *a,
	struct engine_image *ret, struct err *err)
{
	int r = image_store_status(local_of(e)->store, ref, a, ret, err);

	if (r == ENGINE_NOT_FOUND)
		return err_set(err, -ENOENT,
			"image \"" STR_FMT
			"\" is not on this node, and pulling from registries is not built in yet: skiff image import FILE " STR_FMT,
			STR_ARG(ref), STR_ARG(ref));
	return r;
}

static int local_image_list(struct engine *e, struct arena *a, struct engine_image **ret,
	size_t *ret_n, struct err *err)
{
	return image_store_list(local_of(e)->store, a, ret, ret_n, err);
}

static int local_image_remove(struct engine *e, struct str ref, struct err *err)
{
	return image_store_remove(local_of(e)->store, ref, err);
}

static const struct engine_vtable local_vtable = {
	.free = local_free,
	.set_event_handler = local_set_event_handler,
	.version = local_version,
	.network_status = local_network_status,
	.image_import = local_image_import,
	.image_status = local_image_status,
	.image_pull = local_image_pull,
	.image_list = local_image_list,
	.image_remove = local_image_remove,
	.sandbox_run = local_sandbox_run,
	.sandbox_stop = local_sandbox_stop,
	.sandbox_remove = local_sandbox_remove,
	.sandbox_list = local_sandbox_list,
	.container_create = local_container_create,
	.container_start = local_container_start,
	.container_stop = local_container_stop,
	.container_remove = local_container_remove,
	.container_status = local_container_status,
	.container_list = local_container_list,
	.container_update = local_container_update,
	.container_stats = local_container_stats,
	.container_disk = local_container_disk,
	.container_reopen_log = local_container_reopen_log,
	.exec_sync = local_exec_sync,
	.exec = local_exec,
	.session_wait = local_session_wait,
	.attach = local_attach,
	.port_forward = local_port_forward,
};

int engine_local_new(const struct engine_local_config *c, struct engine **ret, struct err *err)
{
	struct local *l = xcalloc(1, sizeof(*l));
	pthread_condattr_t attr;

	l->base.v = &local_vtable;
	l->root = xstrdup(c->root);
	l->run = xstrdup(c->run);
	l->cni_watch = l->epoll_fd = l->inotify_fd = l->stop_fd = l->nft_fd = l->host_netns_fd =
		l->lock_fd = -1;
	pthread_mutex_init(&l->lock, NULL);
	pthread_mutex_init(&l->network_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->changed, &attr);
	pthread_condattr_destroy(&attr);
	int r = open_all(l, c, err);
	if (r < 0) {
		local_free(&l->base);
		return r;
	}
	*ret = &l->base;
	return 0;
}
