/* Sandboxes: the namespaces, address and cgroup that the containers of a pod share. No process holds them: the namespaces are pinned by files (but for a shared
 * process namespace, see pause.c).
 * The record is written first (made: false) and last (made: true), so that whatever a crash left half-made is found and undone. */
#include "engine/cni.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define SHM_SIZE (64 * 1024 * 1024)

static const struct record_row rows[] = {
	{ "id", RECORD_TEXT, offsetof(struct sandbox, id) },
	{ "name", RECORD_TEXT, offsetof(struct sandbox, name) },
	{ "namespace", RECORD_TEXT, offsetof(struct sandbox, namespace_) },
	{ "uid", RECORD_TEXT, offsetof(struct sandbox, uid) },
	{ "attempt", RECORD_INT, offsetof(struct sandbox, attempt) },
	{ "hostname", RECORD_TEXT, offsetof(struct sandbox, hostname) },
	{ "logDirectory", RECORD_TEXT, offsetof(struct sandbox, log_directory) },
	{ "cgroup", RECORD_TEXT, offsetof(struct sandbox, cgroup) },
	{ "bootId", RECORD_TEXT, offsetof(struct sandbox, boot_id) },
	{ "ip", RECORD_TEXT, offsetof(struct sandbox, ip) },
	{ "secondIp", RECORD_TEXT, offsetof(struct sandbox, second_ip) },
	{ "annotations", RECORD_TEXT, offsetof(struct sandbox, annotations) },
	{ "portMappings", RECORD_TEXT, offsetof(struct sandbox, port_mappings) },
	{ "createdSeconds", RECORD_INT, offsetof(struct sandbox, created_s) },
	{ "createdNanos", RECORD_INT, offsetof(struct sandbox, created_ns) },
	{ "pausePid", RECORD_INT, offsetof(struct sandbox, pause_pid) },
	{ "pauseStart", RECORD_INT, offsetof(struct sandbox, pause_start) },
	{ "hostNetwork", RECORD_BOOL, offsetof(struct sandbox, host_network) },
	{ "hostPid", RECORD_BOOL, offsetof(struct sandbox, host_pid) },
	{ "hostIpc", RECORD_BOOL, offsetof(struct sandbox, host_ipc) },
	{ "sharePid", RECORD_BOOL, offsetof(struct sandbox, share_pid) },
	{ "ready", RECORD_BOOL, offsetof(struct sandbox, ready) },
	{ "bypassesHost", RECORD_BOOL, offsetof(struct sandbox, bypasses_host) },
	{ "made", RECORD_BOOL, offsetof(struct sandbox, made) },
};
const struct record_type sandbox_record_type = { rows, ARRAY_LEN(rows) };

void sandbox_free(struct sandbox *s)
{
	if (!s)
		return;
	record_deinit(&sandbox_record_type, s);
	free(s);
}

static void sandbox_freep(struct sandbox **s)
{
	sandbox_free(*s);
}

int sandbox_save(struct local *l, const struct sandbox *s, struct err *err)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/sandboxes/%s/record", l->root, s->id);
	return record_save(&sandbox_record_type, s, path, false, err);
}

void sandbox_ns_path(
	const struct local *l, const struct sandbox *s, enum ns_kind kind, char ret[PATH_MAX])
{
	path_fmt(ret, "%s/ns/%s.%s", l->run, s->id, ns_names[kind]);
}

/* ---- making ---- */
struct making {
	struct local *l;
	struct sandbox *s;
	const struct engine_sandbox_config *c;
};

/* Is it the sandbox's own, or would it be the machine's? */
static bool sysctl_is_inside(const struct sandbox *s, struct str name)
{
	static const char *const of_ipc[] = { "kernel?shm", "kernel?msg", "kernel?sem",
		"fs?mqueue?" };

	if (str_has_prefix(name, STR("net.")) || str_has_prefix(name, STR("net/")))
		return !s->host_network;
	for (size_t i = 0; i < ARRAY_LEN(of_ipc); i++) {
		size_t k = 0;
		while (k < name.len && of_ipc[i][k] &&
			(of_ipc[i][k] == name.p[k] ||
				(of_ipc[i][k] == '?' && memchr("./", name.p[k], 2))))
			k++;
		if (!of_ipc[i][k])
			return !s->host_ipc;
	}
	return false;
}

static int set_sysctls(const struct making *m, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < m->c->n_sysctls && r == 0; i++) {
		const char *name = m->c->sysctls[i].name;
		r = sysctl_is_inside(m->s, str_of(name))
			? sysctl_set(name, m->c->sysctls[i].value, err)
			: err_set(err, -EPERM,
				  "sysctl %s is the machine's, not of a namespace that the pod has for itself",
				  name);
	}
	return r;
}

/* On the thread that just got the new namespaces. */
static int inside(void *arg, struct err *err)
{
	struct making *m = arg;
	int r = 0;

	if (!m->s->host_network) {
		if (sethostname(m->s->hostname, strlen(m->s->hostname)) < 0)
			return err_errno(
				err, -errno, "cannot set the hostname \"%s\"", m->s->hostname);
		r = network_attach(m->l, m->s, err);
	}
	return r < 0 ? r : set_sysctls(m, err);
}

static int make_namespaces(struct making *m, struct err *err)
{
	char paths[NS_KINDS][PATH_MAX];
	const char *wanted[NS_KINDS] = { 0 };

	for (int k = 0; k < NS_KINDS; k++) {
		sandbox_ns_path(m->l, m->s, k, paths[k]);
		if (k == NS_IPC ? !m->s->host_ipc : !m->s->host_network)
			wanted[k] = paths[k];
	}
	return ns_create(wanted, inside, m, err);
}

static int make_files(struct making *m, struct err *err)
{
	char path[PATH_MAX];
	const char *resolv = m->c->resolv_conf ? m->c->resolv_conf : "";

	path_fmt(path, "%s/sandboxes/%s/resolv.conf", m->l->root, m->s->id);
	int r = file_write_atomic(path, str_of(resolv), 0644, false, err);
	path_fmt(path, "%s/sandboxes/%s/hostname", m->l->root, m->s->id);
	if (r == 0) {
		CLEAN_FREE char *line = xasprintf("%s\n", m->s->hostname);
		r = file_write_atomic(path, str_of(line), 0644, false, err);
	}
	if (r < 0 || m->s->host_ipc)
		return r;
	path_fmt(path, "%s/sandboxes/%s/shm", m->l->root, m->s->id);
	r = dir_make(path, 0700, err);
	return r < 0 ? r : mount_tmpfs(path, SHM_SIZE, 01777, err);
}

static int make_cgroup(struct making *m, struct err *err)
{
	const struct engine_resources *q = &m->c->resources;
	struct cgroup_limits limits = {
		.cpu_shares = q->cpu_shares ? q->cpu_shares : -1,
		.cpu_quota_us = q->cpu_quota_us ? q->cpu_quota_us : -1,
		.cpu_period_us = q->cpu_period_us,
		.memory_bytes = q->memory_limit ? q->memory_limit : -1,
		.pids = q->pids_limit ? q->pids_limit : -1,
	};
	int r = cgroup_create(m->l->cgroups, m->s->cgroup, err);

	return r < 0 ? r : cgroup_set(m->l->cgroups, m->s->cgroup, &limits, err);
}

static int make_all(struct making *m, struct err *err)
{
	char path[PATH_MAX], ip_text[INET_ADDRSTRLEN];
	uint32_t ip;

	path_fmt(path, "%s/sandboxes/%s", m->l->root, m->s->id);
	int r = dir_make(path, 0700, err);
	if (r == 0)
		r = sandbox_save(m->l, m->s, err);
	if (r == 0 && !m->s->host_network && !m->l->cni) {
		r = address_take(m->l, m->s->id, &ip, err);
		if (r < 0)
			return r;
		ip = htonl(ip);
		m->s->ip = xstrdup(inet_ntop(AF_INET, &ip, ip_text, sizeof(ip_text)));
	}
	if (r == 0)
		r = make_files(m, err);
	if (r == 0)
		r = make_cgroup(m, err);
	if (r == 0)
		r = make_namespaces(m, err);
	if (r == 0 && !m->s->host_network)
		r = m->l->cni ? cni_add(m->l, m->s, err) : network_connect(m->l, m->s, err);
	if (r == 0 && m->s->share_pid)
		r = pause_start(m->l, m->s, err);
	if (r < 0)
		return r;
	m->s->ready = m->s->made = true;
	return sandbox_save(m->l, m->s, err);
}

static char *port_mappings_json(const struct engine_sandbox_config *c)
{
	struct buf b = { 0 };

	if (!c->n_port_mappings)
		return NULL;
	buf_addc(&b, '[');
	for (size_t i = 0; i < c->n_port_mappings; i++) {
		buf_addf(&b, "%s{\"hostPort\":%d,\"containerPort\":%d,\"protocol\":%d,\"hostIP\":",
			i ? "," : "", c->port_mappings[i].host_port,
			c->port_mappings[i].container_port, c->port_mappings[i].protocol);
		json_write_text(str_of(c->port_mappings[i].host_ip), &b);
		buf_addc(&b, '}');
	}
	buf_addc(&b, ']');
	return buf_take(&b);
}

static struct sandbox *sandbox_new(struct local *l, const struct engine_sandbox_config *c)
{
	struct sandbox *s = xcalloc(1, sizeof(*s));
	struct timestamp now = time_now();
	char id[ENGINE_ID];

	new_id(id);
	s->id = xstrdup(id);
	s->name = xstrdup(c->name);
	s->namespace_ = xstrdup(c->namespace_);
	s->uid = xstrdup(c->uid);
	s->attempt = c->attempt;
	s->hostname = xstrndup(c->hostname && *c->hostname ? c->hostname : c->name, HOST_NAME_MAX);
	s->log_directory = c->log_directory ? xstrdup(c->log_directory) : NULL;
	s->cgroup = c->cgroup_parent && *c->cgroup_parent ? xstrdup(c->cgroup_parent)
							  : xasprintf("kubepods/pod%s", c->uid);
	s->boot_id = xstrdup(l->boot);
	s->annotations = c->annotations_json ? xstrdup(c->annotations_json) : NULL;
	s->port_mappings = port_mappings_json(c);
	s->created_s = now.sec;
	s->created_ns = now.nsec;
	s->host_network = c->host_network;
	s->host_pid = c->host_pid;
	s->host_ipc = c->host_ipc;
	s->share_pid = c->share_process_namespace && !c->host_pid;
	return s;
}

/* A sandbox is as good as what holds its namespaces. */
bool sandbox_is_ready(const struct local *l, const struct sandbox *s)
{
	char path[PATH_MAX];

	sandbox_ns_path(l, s, NS_NET, path);
	return s->ready && (s->host_network || ns_is_pinned(path)) &&
		(!s->share_pid || process_alive((pid_t)s->pause_pid, (uint64_t)s->pause_start));
}

static void export_sandbox(
	const struct local *l, const struct sandbox *s, struct arena *a, struct engine_sandbox *ret)
{
	char path[PATH_MAX];

	*ret = (struct engine_sandbox){
		.name = arena_strz(a, s->name ? s->name : ""),
		.namespace_ = arena_strz(a, s->namespace_ ? s->namespace_ : ""),
		.uid = arena_strz(a, s->uid ? s->uid : ""),
		.attempt = (uint32_t)s->attempt,
		.state = sandbox_is_ready(l, s) ? SANDBOX_READY : SANDBOX_NOT_READY,
		.created_at = { s->created_s, (int32_t)s->created_ns },
		.ip = arena_strz(a, s->ip ? s->ip : ""),
		.second_ip = arena_strz(a, s->second_ip ? s->second_ip : ""),
		.host_network = s->host_network,
		.bypasses_host = s->bypasses_host,
	};
	memcpy(ret->id, s->id, ENGINE_ID);
	sandbox_ns_path(l, s, NS_NET, path);
	ret->netns_path = arena_strz(a, s->host_network ? "" : path);
}

/* A pod's name, uid and attempt are one sandbox: asked for twice, the second is refused. */
static bool is_taken(struct local *l, const struct engine_sandbox_config *c)
{
	size_t i = 0;
	struct str id;
	void *p;

	while (map_next(&l->sandboxes, &i, &id, &p)) {
		struct sandbox *s = p;
		if (s->attempt == c->attempt && !strcmp(s->uid, c->uid) &&
			!strcmp(s->name, c->name) && !strcmp(s->namespace_, c->namespace_))
			return true;
	}
	return false;
}

/* One that cannot be undone now (a CNI plugin refuses) stays known, not ready: whoever removes it tries again. */
static void give_up(struct local *l, struct sandbox *s)
{
	struct str id = str_of(s->id);

	if (sandbox_undo(l, s, true, NULL) == 0) {
		sandbox_free(s);
		return;
	}
	s->ready = false;
	s->made = true;
	sandbox_save(l, s, NULL);
	pthread_mutex_lock(&l->lock);
	map_set(&l->sandboxes, id, s);
	pthread_mutex_unlock(&l->lock);
}

int local_sandbox_run(struct engine *e, const struct engine_sandbox_config *c, struct arena *a,
	struct engine_sandbox *ret, struct err *err)
{
	struct local *l = local_of(e);

	pthread_mutex_lock(&l->lock);
	bool taken = is_taken(l, c);
	pthread_mutex_unlock(&l->lock);
	if (taken)
		return err_set(err, ENGINE_EXISTS,
			"pod %s/%s (%s) has a sandbox of attempt %u already", c->namespace_,
			c->name, c->uid, c->attempt);
	CLEANUP(sandbox_freep) struct sandbox *s = sandbox_new(l, c);
	struct making m = { l, s, c };
	int r = make_all(&m, err);
	if (r < 0) {
		give_up(l, TAKE(s));
		return err_prefix(
			err, r, "cannot make a sandbox for pod %s/%s", c->namespace_, c->name);
	}
	export_sandbox(l, s, a, ret);
	pthread_mutex_lock(&l->lock);
	struct str id = str_of(s->id);
	map_set(&l->sandboxes, id, TAKE(s));
	pthread_mutex_unlock(&l->lock);
	return 0;
}

/* ---- ending ---- */
/* Another sandbox of the same pod (a later attempt) lives in the same cgroup. */
static bool cgroup_is_shared(struct local *l, const struct sandbox *of)
{
	bool shared = false;
	size_t i = 0;
	struct str id;
	void *p;

	pthread_mutex_lock(&l->lock);
	while (map_next(&l->sandboxes, &i, &id, &p)) {
		const struct sandbox *s = p;
		shared |= strcmp(s->id, of->id) != 0 && s->ready && !strcmp(s->cgroup, of->cgroup);
	}
	pthread_mutex_unlock(&l->lock);
	return shared;
}

/* Goes through all of it even when one step fails; the first failure is told. */
int sandbox_undo(struct local *l, struct sandbox *s, bool whole, struct err *err)
{
	char path[PATH_MAX];
	int first = pause_stop(l, s, err), r;

	if (!s->host_network && (r = network_detach(l, s, first ? NULL : err)) < 0 && !first)
		first = r;
	for (int k = 0; k < NS_KINDS; k++) {
		sandbox_ns_path(l, s, k, path);
		if ((r = ns_unpin(path, first ? NULL : err)) < 0 && !first)
			first = r;
	}
	path_fmt(path, "%s/sandboxes/%s/shm", l->root, s->id);
	if ((r = mount_remove(path, first ? NULL : err)) < 0 && !first)
		first = r;
	if (s->cgroup && !cgroup_is_shared(l, s) &&
		(r = cgroup_remove(l->cgroups, s->cgroup, first ? NULL : err)) < 0 && !first)
		first = r;
	if (whole && !first) {
		path_fmt(path, "%s/sandboxes/%s", l->root, s->id);
		first = dir_remove_tree(path, err);
	}
	return first;
}

static size_t containers_of(struct local *l, const char *sandbox_id, char (**ret)[ENGINE_ID])
{
	size_t i = 0, n = 0;
	struct str id;
	void *p;

	*ret = NULL;
	pthread_mutex_lock(&l->lock);
	while (map_next(&l->containers, &i, &id, &p)) {
		const struct container *c = p;
		if (strcmp(c->sandbox_id, sandbox_id) != 0)
			continue;
		*ret = xrealloc(*ret, (n + 1) * sizeof(**ret));
		memcpy((*ret)[n++], c->id, ENGINE_ID);
	}
	pthread_mutex_unlock(&l->lock);
	return n;
}

int local_sandbox_stop(struct engine *e, const char *id, struct err *err)
{
	struct local *l = local_of(e);
	char(*containers)[ENGINE_ID];

	pthread_mutex_lock(&l->lock);
	struct sandbox *s = sandbox_find(l, id);
	bool ready = s && s->ready;
	pthread_mutex_unlock(&l->lock);
	if (!s)
		return sandbox_missing(id, err);
	size_t n = containers_of(l, id, &containers);
	int r = 0;
	for (size_t i = 0; i < n && r == 0; i++)
		r = container_kill(l, containers[i], err);
	free(containers);
	if (r == 0 && ready) {
		pthread_mutex_lock(&l->lock);
		s->ready = false;
		r = sandbox_save(l, s, err);
		pthread_mutex_unlock(&l->lock);
	}
	return r < 0 ? r : sandbox_undo(l, s, false, err);
}

int local_sandbox_remove(struct engine *e, const char *id, struct err *err)
{
	struct local *l = local_of(e);
	char(*containers)[ENGINE_ID];
	int r = local_sandbox_stop(e, id, err);

	if (r == ENGINE_NOT_FOUND)
		return 0;
	size_t n = r == 0 ? containers_of(l, id, &containers) : 0;
	for (size_t i = 0; i < n && r == 0; i++)
		r = local_container_remove(e, containers[i], err);
	if (n)
		free(containers);
	if (r < 0)
		return r;
	pthread_mutex_lock(&l->lock);
	struct sandbox *s = map_remove(&l->sandboxes, str_of(id));
	pthread_mutex_unlock(&l->lock);
	/* Once more, whole: what a stop that failed half-way had left. */
	r = s ? sandbox_undo(l, s, true, err) : 0;
	if (r < 0) {
		pthread_mutex_lock(&l->lock);
		map_set(&l->sandboxes, str_of(id), s);
		pthread_mutex_unlock(&l->lock);
		return r;
	}
	sandbox_free(s);
	return 0;
}

int local_sandbox_list(struct engine *e, struct arena *a, struct engine_sandbox **ret,
	size_t *ret_n, struct err *err)
{
	struct local *l = local_of(e);
	size_t i = 0, n = 0;
	struct str id;
	void *p;

	pthread_mutex_lock(&l->lock);
	struct engine_sandbox *items = arena_alloc(a, l->sandboxes.len * sizeof(*items) + 1);
	while (map_next(&l->sandboxes, &i, &id, &p))
		export_sandbox(l, p, a, &items[n++]);
	pthread_mutex_unlock(&l->lock);
	*ret = items;
	*ret_n = n;
	return 0;
}
