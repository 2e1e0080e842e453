/* The OCI runtime configuration (config.json) of a container. Source: https://github.com/opencontainers/runtime-spec, config.md and config-linux.md.
 * Defaults are those that users of other runtimes know: containerd's mounts, capabilities, masked and read-only paths. */
#include "engine/internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define IMAGE_FILE_MAX (1024 * 1024)
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static const char *const all_capabilities[] = {
	"CHOWN",
	"DAC_OVERRIDE",
	"DAC_READ_SEARCH",
	"FOWNER",
	"FSETID",
	"KILL",
	"SETGID",
	"SETUID",
	"SETPCAP",
	"LINUX_IMMUTABLE",
	"NET_BIND_SERVICE",
	"NET_BROADCAST",
	"NET_ADMIN",
	"NET_RAW",
	"IPC_LOCK",
	"IPC_OWNER",
	"SYS_MODULE",
	"SYS_RAWIO",
	"SYS_CHROOT",
	"SYS_PTRACE",
	"SYS_PACCT",
	"SYS_ADMIN",
	"SYS_BOOT",
	"SYS_NICE",
	"SYS_RESOURCE",
	"SYS_TIME",
	"SYS_TTY_CONFIG",
	"MKNOD",
	"LEASE",
	"AUDIT_WRITE",
	"AUDIT_CONTROL",
	"SETFCAP",
	"MAC_OVERRIDE",
	"MAC_ADMIN",
	"SYSLOG",
	"WAKE_ALARM",
	"BLOCK_SUSPEND",
	"AUDIT_READ",
	"PERFMON",
	"BPF",
	"CHECKPOINT_RESTORE",
};
static const char *const default_capabilities[] = {
	"CHOWN",
	"DAC_OVERRIDE",
	"FSETID",
	"FOWNER",
	"MKNOD",
	"NET_RAW",
	"SETGID",
	"SETUID",
	"SETFCAP",
	"SETPCAP",
	"NET_BIND_SERVICE",
	"SYS_CHROOT",
	"KILL",
	"AUDIT_WRITE",
};
#define CAP_SYS_RESOURCE_NUMBER 24 /* an index of all_capabilities, as any capability's number is */
static const char *const default_masked[] = {
	"/proc/asound",
	"/proc/acpi",
	"/proc/kcore",
	"/proc/keys",
	"/proc/latency_stats",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/proc/sched_debug",
	"/proc/scsi",
	"/proc/interrupts",
	"/sys/firmware",
	"/sys/devices/virtual/powercap",
	NULL,
};
static const char *const default_readonly[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
	"/proc/sysrq-trigger", NULL };

struct default_mount {
	const char *path, *type, *source, *options; /* options: JSON list without brackets */
};
static const struct default_mount default_mounts[] = {
	{ "/proc", "proc", "proc", "\"nosuid\",\"noexec\",\"nodev\"" },
	{ "/dev", "tmpfs", "tmpfs", "\"nosuid\",\"strictatime\",\"mode=755\",\"size=65536k\"" },
	{ "/dev/pts", "devpts", "devpts",
		"\"nosuid\",\"noexec\",\"newinstance\",\"ptmxmode=0666\",\"mode=0620\",\"gid=5\"" },
	{ "/dev/mqueue", "mqueue", "mqueue", "\"nosuid\",\"noexec\",\"nodev\"" },
	{ "/sys", "sysfs", "sysfs", "\"nosuid\",\"noexec\",\"nodev\",\"ro\"" },
	{ "/sys/fs/cgroup", "cgroup", "cgroup",
		"\"nosuid\",\"noexec\",\"nodev\",\"relatime\",\"ro\"" },
};

/* ---- files of the image, read without mounting it ---- */
int spec_read_image_file(const struct local *l, const char *const *layers, size_t n,
	const char *path, struct buf *ret)
{
	char folder[PATH_MAX], own[64];
	struct stat st;

	for (size_t i = 0; i < n; i++) {
		path_fmt(folder, "%s/layers/%s", l->root, layers[i]);
		CLEAN_FD int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
		CLEAN_FD int fd = dir < 0 ? -errno : path_open_in_root(dir, path, O_PATH, 0);
		if (fd < 0 || fstat(fd, &st) < 0)
			continue;
		if (!S_ISREG(st.st_mode)) /* a whiteout, or no file */
			return -ENOENT;
		snprintf(own, sizeof(own), "/proc/self/fd/%d", fd);
		return file_read(own, IMAGE_FILE_MAX, ret, NULL);
	}
	return -ENOENT;
}

/* ---- users and groups, as /etc/passwd and /etc/group of the image name them ---- */
struct identity {
	int64_t uid, gid;
	struct str name; /* empty: a number that passwd does not know */
	int64_t *groups;
	size_t n_groups;
};

/* Cuts the next line at its colons. */
static bool next_entry(struct str *rest, struct str fields[4])
{
	struct str line, tail;

	if (!rest->len)
		return false;
	str_cut(*rest, '\n', &line, rest);
	for (int i = 0; i < 4; i++) {
		str_cut(line, ':', &fields[i], &tail);
		line = tail;
	}
	return true;
}

/* By name, or by number when name is empty. */
static bool find_user(struct str passwd, struct str name, int64_t uid, struct identity *ret)
{
	struct str f[4];
	int64_t u, g;

	while (next_entry(&passwd, f))
		if (str_to_i64(f[2], &u) == 0 && str_to_i64(f[3], &g) == 0 &&
			(name.len ? str_eq(f[0], name) : u == uid)) {
			ret->uid = u;
			ret->gid = g;
			ret->name = f[0];
			return true;
		}
	return false;
}

static bool find_group(struct str group, struct str name, int64_t *ret)
{
	struct str f[4];

	while (next_entry(&group, f))
		if (str_eq(f[0], name) && str_to_i64(f[2], ret) == 0)
			return true;
	return false;
}

static void add_group(struct identity *who, struct arena *a, int64_t gid)
{
	for (size_t i = 0; i < who->n_groups; i++)
		if (who->groups[i] == gid)
			return;
	who->groups = arena_grow(
		a, who->groups, who->n_groups * sizeof(gid), (who->n_groups + 1) * sizeof(gid));
	who->groups[who->n_groups++] = gid;
}

static void add_memberships(struct identity *who, struct str group, struct arena *a)
{
	struct str f[4], member;
	int64_t gid;

	while (who->name.len && next_entry(&group, f))
		while (f[3].len) {
			str_cut(f[3], ',', &member, &f[3]);
			if (str_eq(str_trim(member), who->name) && str_to_i64(f[2], &gid) == 0)
				add_group(who, a, gid);
		}
}

static int find_identity(
	const struct spec *s, struct arena *a, struct identity *ret, struct err *err)
{
	const struct engine_container_config *c = s->config;
	CLEAN_BUF struct buf passwd_file = { 0 }, group_file = { 0 };
	struct identity who = { 0 };
	struct str user = c->run_as_username && *c->run_as_username ? str_of(c->run_as_username)
								    : s->image->user,
		   group;

	spec_read_image_file(s->l, s->layers, s->n_layers, "etc/passwd", &passwd_file);
	spec_read_image_file(s->l, s->layers, s->n_layers, "etc/group", &group_file);
	struct str passwd = arena_str(a, buf_str(&passwd_file)),
		   groups = arena_str(a, buf_str(&group_file));
	bool named_group = str_cut(user, ':', &user, &group);
	if (c->run_as_user >= 0) {
		who.uid = c->run_as_user;
		find_user(passwd, STR_NONE, who.uid, &who);
		named_group = false;
	} else if (user.len && str_to_i64(user, &who.uid) == 0) {
		find_user(passwd, STR_NONE, who.uid, &who);
	} else if (user.len && !find_user(passwd, user, 0, &who)) {
		return err_set(err, -EINVAL,
			"the image's /etc/passwd knows no user \"" STR_FMT
			"\": set runAsUser to a number",
			STR_ARG(user));
	} else if (!user.len) {
		find_user(passwd, STR_NONE, 0, &who);
	}
	if (named_group && group.len && str_to_i64(group, &who.gid) < 0 &&
		!find_group(groups, group, &who.gid))
		return err_set(err, -EINVAL,
			"the image's /etc/group knows no group \"" STR_FMT
			"\": set runAsGroup to a number",
			STR_ARG(group));
	if (c->run_as_group >= 0)
		who.gid = c->run_as_group;
	/* Larger ones lose their upper half somewhere on the way, and 2^32 is root. */
	if (who.uid < 0 || who.uid > INT32_MAX || who.gid < 0 || who.gid > INT32_MAX)
		return err_set(err, -EINVAL,
			"user %lld and group %lld: numbers must be between 0 and 2147483647",
			(long long)who.uid, (long long)who.gid);
	add_group(&who, a, who.gid);
	if (!c->only_given_groups)
		add_memberships(&who, groups, a);
	for (size_t i = 0; i < c->n_supplemental_groups; i++)
		add_group(&who, a, c->supplemental_groups[i]);
	*ret = who;
	return 0;
}

/* ---- pieces of JSON ---- */
static void write_texts(const char *const *texts, struct buf *out)
{
	buf_addc(out, '[');
	for (size_t i = 0; texts[i]; i++) {
		if (i)
			buf_addc(out, ',');
		json_write_text(str_of(texts[i]), out);
	}
	buf_addc(out, ']');
}

static int write_args(const struct spec *s, struct buf *out, struct err *err)
{
	const struct engine_container_config *c = s->config;
	struct engine_strs head = c->command.len ? c->command : s->image->entrypoint;
	struct engine_strs tail = c->args.len ? c->args
		: c->command.len              ? (struct engine_strs){ 0 }
					      : s->image->cmd;

	if (!head.len && !tail.len)
		return err_set(err, -EINVAL,
			"no command specified: neither the container nor its image \"%s\" names one",
			c->image);
	buf_addz(out, ",\"args\":[");
	for (size_t i = 0; i < head.len + tail.len; i++) {
		if (i)
			buf_addc(out, ',');
		json_write_text(i < head.len ? head.items[i] : tail.items[i - head.len], out);
	}
	buf_addc(out, ']');
	return 0;
}

static bool env_is_overridden(const struct engine_container_config *c, struct str name)
{
	for (size_t i = 0; i < c->n_env; i++)
		if (str_eq(c->env[i].name, name))
			return true;
	return false;
}

static void write_env(const struct spec *s, struct buf *out)
{
	const struct engine_container_config *c = s->config;
	bool path = env_is_overridden(c, STR("PATH"));
	struct str name, value;
	CLEAN_BUF struct buf pair = { 0 };

	buf_addz(out, ",\"env\":[");
	for (size_t i = 0; i < s->image->env.len; i++) {
		str_cut(s->image->env.items[i], '=', &name, &value);
		if (env_is_overridden(c, name))
			continue;
		path |= str_eqz(name, "PATH");
		json_write_text(s->image->env.items[i], out);
		buf_addc(out, ',');
	}
	for (size_t i = 0; i < c->n_env; i++) {
		buf_clear(&pair);
		buf_addf(&pair, STR_FMT "=" STR_FMT, STR_ARG(c->env[i].name),
			STR_ARG(c->env[i].value));
		json_write_text(buf_str(&pair), out);
		buf_addc(out, ',');
	}
	if (!path)
		buf_addz(out, "\"" DEFAULT_PATH "\",");
	if (c->tty && !env_is_overridden(c, STR("TERM")))
		buf_addz(out, "\"TERM=xterm\",");
	buf_clear(&pair);
	if (!env_is_overridden(c, STR("HOSTNAME"))) {
		buf_addf(&pair, "HOSTNAME=%s", s->sandbox->hostname);
		json_write_text(buf_str(&pair), out);
	}
	if (out->p[out->len - 1] == ',')
		out->len--;
	buf_addc(out, ']');
}

/* ---- capabilities ---- */
static const char *bare_capability(const char *name)
{
	return !strncasecmp(name, "CAP_", 4) ? name + 4 : name;
}

static bool names_capability(const char *const *list, const char *name)
{
	for (size_t i = 0; list && list[i]; i++)
		if (!strcasecmp(list[i], "ALL") || !strcasecmp(bare_capability(list[i]), name))
			return true;
	return false;
}

static bool names_exactly(const char *const *list, const char *name)
{
	for (size_t i = 0; list && list[i]; i++)
		if (!strcasecmp(bare_capability(list[i]), name))
			return true;
	return false;
}

static bool is_default_capability(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(default_capabilities); i++)
		if (!strcmp(default_capabilities[i], name))
			return true;
	return false;
}

/* Does this process have it to give? Inside another container it may not. */
static bool is_granted(size_t number)
{
	return prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1;
}

/* "ALL" goes first in either list; a name beats it. What is not named is given as far as we have it. */
static bool has_capability(const struct engine_container_config *c, size_t number)
{
	const char *name = all_capabilities[number];

	if (c->privileged)
		return is_granted(number);
	if (names_exactly(c->drop_capabilities, name))
		return false;
	if (names_exactly(c->add_capabilities, name))
		return true;
	if (names_capability(c->add_capabilities, name))
		return is_granted(number);
	return is_default_capability(name) && is_granted(number) &&
		!names_capability(c->drop_capabilities, name);
}

static int write_capabilities(
	const struct engine_container_config *c, struct buf *out, struct err *err)
{
	CLEAN_BUF struct buf list = { 0 };

	for (size_t i = 0; c->add_capabilities && c->add_capabilities[i]; i++) {
		bool known = !strcasecmp(c->add_capabilities[i], "ALL");
		for (size_t k = 0; k < ARRAY_LEN(all_capabilities); k++)
			known |= !strcasecmp(
				bare_capability(c->add_capabilities[i]), all_capabilities[k]);
		if (!known)
			return err_set(err, -EINVAL, "unknown capability \"%s\" to add",
				c->add_capabilities[i]);
	}
	for (size_t i = 0; i < ARRAY_LEN(all_capabilities); i++)
		if (has_capability(c, i))
			buf_addf(&list, "%s\"CAP_%s\"", list.len ? "," : "", all_capabilities[i]);
	buf_addf(out, ",\"capabilities\":{\"bounding\":[%s],\"effective\":[%s],\"permitted\":[%s]}",
		list.len ? list.p : "", list.len ? list.p : "", list.len ? list.p : "");
	return 0;
}

/* ---- mounts ---- */
struct mount_line {
	const char *path;
	struct str json;
	size_t order;
};

static size_t depth_of(const char *path)
{
	size_t n = 0;

	for (; *path; path++)
		n += *path != '/' && (path[1] == '/' || !path[1]);
	return n;
}

/* Outer ones first, otherwise as given. */
static int compare_mounts(const void *a, const void *b)
{
	const struct mount_line *x = a, *y = b;
	size_t dx = depth_of(x->path), dy = depth_of(y->path);

	if (dx != dy)
		return dx < dy ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

static bool is_mounted_by_config(const struct engine_container_config *c, const char *path)
{
	for (size_t i = 0; i < c->n_mounts; i++)
		if (!strcmp(c->mounts[i].container_path, path))
			return true;
	return false;
}

struct mounts {
	const struct spec *spec;
	struct arena *arena;
	struct mount_line *lines;
	size_t n;
};

static void add_mount(struct mounts *m, const char *path, const char *type, const char *source,
	const char *options)
{
	CLEAN_BUF struct buf b = { 0 };

	m->lines = arena_grow(
		m->arena, m->lines, m->n * sizeof(*m->lines), (m->n + 1) * sizeof(*m->lines));
	buf_addz(&b, "{\"destination\":");
	json_write_text(str_of(path), &b);
	buf_addz(&b, ",\"type\":");
	json_write_text(str_of(type), &b);
	buf_addz(&b, ",\"source\":");
	json_write_text(str_of(source), &b);
	buf_addf(&b, ",\"options\":[%s]}", options);
	m->lines[m->n] = (struct mount_line){ path, arena_str(m->arena, buf_str(&b)), m->n };
	m->n++;
}

/* What every container of the sandbox shares, unless the kubelet mounts something of its own there. */
static void add_sandbox_mounts(struct mounts *m)
{
	static const struct {
		const char *path, *file;
	} files[] = { { "/etc/resolv.conf", "resolv.conf" }, { "/etc/hostname", "hostname" } };
	const struct engine_container_config *c = m->spec->config;
	const struct sandbox *s = m->spec->sandbox;
	const char *mode = c->read_only_rootfs ? "ro" : "rw";
	char source[PATH_MAX], options[64];

	snprintf(options, sizeof(options), "\"rbind\",\"rprivate\",\"%s\"", mode);
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		path_fmt(source, "%s/sandboxes/%s/%s", m->spec->l->root, s->id, files[i].file);
		if (!is_mounted_by_config(c, files[i].path))
			add_mount(m, files[i].path, "bind", source, options);
	}
	path_fmt(source, "%s/sandboxes/%s/shm", m->spec->l->root, s->id);
	if (!is_mounted_by_config(c, "/dev/shm"))
		add_mount(m, "/dev/shm", "bind", s->host_ipc ? "/dev/shm" : source,
			"\"rbind\",\"rprivate\",\"nosuid\",\"noexec\",\"nodev\",\"rw\"");
}

static int write_mounts(const struct spec *s, struct arena *a, struct buf *out, struct err *err)
{
	static const char *const propagation[] = { "rprivate", "rslave", "rshared" };
	const struct engine_container_config *c = s->config;
	struct mounts m = { .spec = s, .arena = a };
	char source[PATH_MAX], options[64];
	size_t n_shared = 0;

	for (size_t i = 0; i < ARRAY_LEN(default_mounts); i++) {
		const struct default_mount *d = &default_mounts[i];
		if (is_mounted_by_config(c, d->path))
			continue;
		/* A privileged container writes to /sys and its cgroups. */
		bool writable = c->privileged && str_has_suffix(str_of(d->options), STR(",\"ro\""));
		struct str o = str_n(d->options, strlen(d->options) - (writable ? 5 : 0));
		add_mount(&m, d->path, d->type, d->source, arena_str(a, o).p);
	}
	add_sandbox_mounts(&m);
	for (size_t i = 0; i < c->n_mounts; i++) {
		const struct engine_mount *e = &c->mounts[i];
		if (e->container_path[0] != '/')
			return err_set(err, -EINVAL, "the mount path \"%s\" is not absolute",
				e->container_path);
		snprintf(options, sizeof(options), "\"rbind\",\"%s\",\"%s\"",
			propagation[e->propagation], e->read_only ? "ro" : "rw");
		/* Once a folder, however often it is mounted. */
		for (n_shared = 0; e->propagation == 2 &&
			strcmp(s->container->shared_mounts[n_shared], e->host_path) != 0;)
			n_shared++;
		path_fmt(source, "%s/containers/%s/shared/%zu", s->l->root, s->container->id,
			n_shared);
		add_mount(&m, e->container_path, "bind",
			e->propagation == 2 ? arena_strz(a, source).p : e->host_path, options);
	}
	qsort(m.lines, m.n, sizeof(*m.lines), compare_mounts);
	buf_addz(out, ",\"mounts\":[");
	for (size_t i = 0; i < m.n; i++) {
		if (i)
			buf_addc(out, ',');
		buf_add_str(out, m.lines[i].json);
	}
	buf_addc(out, ']');
	return 0;
}

/* ---- devices of a privileged container: all that the host has ---- */
static void write_devices(const char *folder, int depth, struct buf *out)
{
	static const char *const skip[] = { "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd",
		"/dev/console" };
	char path[PATH_MAX + NAME_MAX + 2];
	struct stat st;
	DIR *d = opendir(folder);

	for (struct dirent *e; d && (e = readdir(d));) {
		bool skipped = e->d_name[0] == '.';
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		for (size_t i = 0; i < ARRAY_LEN(skip); i++)
			skipped |= !strcmp(path, skip[i]);
		if (skipped || lstat(path, &st) < 0)
			continue;
		if (S_ISDIR(st.st_mode) && depth < 4)
			write_devices(path, depth + 1, out);
		if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
			continue;
		buf_addz(out,
			out->len && out->p[out->len - 1] == '}' ? ",{\"path\":" : "{\"path\":");
		json_write_text(str_of(path), out);
		buf_addf(out,
			",\"type\":\"%c\",\"major\":%u,\"minor\":%u,\"fileMode\":%u,\"uid\":%u,\"gid\":%u}",
			S_ISCHR(st.st_mode) ? 'c' : 'b', major(st.st_rdev), minor(st.st_rdev),
			st.st_mode & 07777, st.st_uid, st.st_gid);
	}
	if (d)
		closedir(d);
}

/* ---- linux ---- */
static void write_resources(const struct spec *s, struct buf *out)
{
	const struct engine_resources *r = &s->config->resources;

	buf_addf(out, ",\"resources\":{\"devices\":[{\"allow\":%s,\"access\":\"rwm\"}]",
		s->config->privileged ? "true" : "false");
	buf_addf(out, ",\"cpu\":{\"shares\":%lld",
		(long long)(r->cpu_shares > 0 ? r->cpu_shares : 1024));
	if (r->cpu_quota_us > 0)
		buf_addf(out, ",\"quota\":%lld,\"period\":%lld", (long long)r->cpu_quota_us,
			(long long)(r->cpu_period_us ? r->cpu_period_us : 100000));
	buf_addc(out, '}');
	if (r->memory_limit > 0) {
		buf_addf(out, ",\"memory\":{\"limit\":%lld", (long long)r->memory_limit);
		if (cgroup_has_swap_limit(s->l->cgroups, s->sandbox->cgroup))
			buf_addf(out, ",\"swap\":%lld", (long long)r->memory_limit);
		buf_addc(out, '}');
	}
	if (r->pids_limit > 0)
		buf_addf(out, ",\"pids\":{\"limit\":%lld}", (long long)r->pids_limit);
	/* Out of memory, the container goes whole, never one process of it. v1 has no such switch. */
	if (cgroup_mode(s->l->cgroups) == CGROUP_V2)
		buf_addz(out, ",\"unified\":{\"memory.oom.group\":\"1\"}");
	buf_addc(out, '}');
}

static void write_namespaces(const struct spec *s, struct buf *out)
{
	static const struct {
		enum ns_kind kind;
		const char *type;
	} kinds[] = { { NS_NET, "network" }, { NS_UTS, "uts" }, { NS_IPC, "ipc" } };
	char path[PATH_MAX];

	buf_addz(out, ",\"namespaces\":[{\"type\":\"mount\"}");
	int64_t of = s->sandbox->share_pid ? s->sandbox->pause_pid : s->target_pid;
	if (of && !s->sandbox->host_pid)
		buf_addf(out, ",{\"type\":\"pid\",\"path\":\"/proc/%lld/ns/pid\"}", (long long)of);
	else if (!s->sandbox->host_pid)
		buf_addz(out, ",{\"type\":\"pid\"}");
	if (cgroup_mode(s->l->cgroups) == CGROUP_V2)
		buf_addz(out, ",{\"type\":\"cgroup\"}");
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (kinds[i].kind == NS_IPC ? s->sandbox->host_ipc : s->sandbox->host_network)
			continue;
		sandbox_ns_path(s->l, s->sandbox, kinds[i].kind, path);
		buf_addf(out, ",{\"type\":\"%s\",\"path\":", kinds[i].type);
		json_write_text(str_of(path), out);
		buf_addc(out, '}');
	}
	buf_addc(out, ']');
}

static bool has_capability_named(const void *arg, const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(all_capabilities); i++)
		if (!strcmp(all_capabilities[i], name))
			return has_capability(arg, i);
	return false;
}

static int write_seccomp(const struct spec *s, struct buf *out, struct err *err)
{
	const char *profile = s->config->seccomp_profile;
	CLEAN_BUF struct buf text = { 0 };

	if (!profile || s->config->privileged || !strcmp(profile, "Unconfined"))
		return 0;
	if (!strcmp(profile, "RuntimeDefault")) {
		buf_addz(out, ",\"seccomp\":");
		seccomp_default(has_capability_named, s->config, out);
		return 0;
	}
	int r = file_read(profile, IMAGE_FILE_MAX, &text, err);
	if (r < 0)
		return err_prefix(err, r, "cannot read the seccomp profile \"%s\"", profile);
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct value v;
	if (json_parse(buf_str(&text), a, &v, err) < 0 || v.kind != VALUE_OBJECT)
		return err_set(
			err, -EINVAL, "the seccomp profile \"%s\" is no JSON object", profile);
	buf_addz(out, ",\"seccomp\":");
	buf_add_str(out, buf_str(&text));
	return 0;
}

static int write_linux(const struct spec *s, struct buf *out, struct err *err)
{
	const struct engine_container_config *c = s->config;
	CLEAN_BUF struct buf devices = { 0 };
	int widest = 0;

	for (size_t i = 0; i < c->n_mounts; i++)
		widest = MAX(widest, c->mounts[i].propagation);
	buf_addz(out, ",\"linux\":{\"cgroupsPath\":");
	CLEAN_FREE char *cgroup = xasprintf("/%s", s->container->cgroup);
	json_write_text(str_of(cgroup), out);
	if (widest)
		buf_addf(out, ",\"rootfsPropagation\":\"%s\"", widest == 2 ? "rshared" : "rslave");
	write_resources(s, out);
	write_namespaces(s, out);
	if (!c->privileged) {
		buf_addz(out, ",\"maskedPaths\":");
		write_texts(c->masked_paths ? c->masked_paths : default_masked, out);
		buf_addz(out, ",\"readonlyPaths\":");
		write_texts(c->readonly_paths ? c->readonly_paths : default_readonly, out);
	} else {
		write_devices("/dev", 0, &devices);
		buf_addf(out, ",\"devices\":[%s]", devices.len ? devices.p : "");
	}
	int r = write_seccomp(s, out, err);
	buf_addc(out, '}');
	return r;
}

/* Without CAP_SYS_RESOURCE nobody may go below what he has himself: crun would fail. */
static int64_t oom_score_of(int64_t wanted)
{
	CLEAN_BUF struct buf text = { 0 };
	int64_t own;

	if (is_granted(CAP_SYS_RESOURCE_NUMBER) ||
		file_read("/proc/self/oom_score_adj", 64, &text, NULL) < 0 ||
		str_to_i64(str_trim(buf_str(&text)), &own) < 0)
		return wanted;
	return MAX(wanted, own);
}

static int write_process(const struct spec *s, struct arena *a, struct buf *out, struct err *err)
{
	const struct engine_container_config *c = s->config;
	struct identity who = { 0 };
	int r = find_identity(s, a, &who, err);

	if (r < 0)
		return r;
	buf_addf(out,
		"\"process\":{\"terminal\":%s,\"user\":{\"uid\":%lld,\"gid\":%lld,\"additionalGids\":[",
		c->tty ? "true" : "false", (long long)who.uid, (long long)who.gid);
	for (size_t i = 0; i < who.n_groups; i++)
		buf_addf(out, "%s%lld", i ? "," : "", (long long)who.groups[i]);
	buf_addz(out, "]},\"cwd\":");
	struct str cwd =
		c->working_dir && *c->working_dir ? str_of(c->working_dir) : s->image->working_dir;
	if (cwd.len && cwd.p[0] != '/')
		cwd = arena_fmt(a, "/" STR_FMT, STR_ARG(cwd));
	json_write_text(cwd.len ? cwd : STR("/"), out);
	if ((r = write_args(s, out, err)) < 0)
		return r;
	write_env(s, out);
	if ((r = write_capabilities(c, out, err)) < 0)
		return r;
	buf_addf(out, ",\"noNewPrivileges\":%s,\"oomScoreAdj\":%lld}",
		c->no_new_privs ? "true" : "false",
		(long long)oom_score_of(c->resources.oom_score_adj));
	return 0;
}

int spec_write(const struct spec *s, struct arena *a, struct buf *ret, struct err *err)
{
	CLEAN_BUF struct buf out = { 0 };

	buf_addz(&out, "{\"ociVersion\":\"1.0.2\",");
	int r = write_process(s, a, &out, err);
	if (r < 0)
		return r;
	buf_addf(&out, ",\"root\":{\"path\":\"rootfs\",\"readonly\":%s}",
		s->config->read_only_rootfs ? "true" : "false");
	if ((r = write_mounts(s, a, &out, err)) < 0 || (r = write_linux(s, &out, err)) < 0)
		return r;
	buf_addz(&out, "}\n");
	buf_add_str(ret, buf_str(&out));
	return 0;
}
