/* cgroups v1, v2 and hybrid behind one name. Under hybrid the controllers sit in the v1 hierarchies, and the unified one is left alone. */
#include "base/values.h"
#include "linux/linux.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

enum { CPU, CPUACCT, MEMORY, PIDS, CPUSET, CONTROLLERS };
static const char *const controller_names[CONTROLLERS] = { "cpu", "cpuacct", "memory", "pids",
	"cpuset" };

#define MAX_HIERARCHIES 16
#define KILL_NS 10000000000ull
#define FREEZE_TRIES 500      /* of a millisecond each */
#define NO_LIMIT (1ull << 62) /* v1 has no word for it, but a number that no machine has */
struct cgroups {
	enum cgroup_mode mode;
	char *mounts[MAX_HIERARCHIES]; /* every hierarchy that groups are made in */
	size_t n_mounts;
	const char *by_controller[CONTROLLERS]; /* one of mounts, or NULL */
	const char *freezer;                    /* v1: one of mounts, or NULL */
	bool swap;
};

/* A path that is too long becomes one that is not there: cgroup names are short (check_name). */
static PRINTF_LIKE(2, 3) void path_fmt(char out[PATH_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (vsnprintf(out, PATH_MAX, fmt, ap) >= PATH_MAX)
		out[0] = '\0';
	va_end(ap);
}

/* ---- finding them ---- */
static void note_v1(struct cgroups *c, const char *point, char *options)
{
	char *save;

	if (c->n_mounts == MAX_HIERARCHIES)
		return;
	char *mount = c->mounts[c->n_mounts++] = xstrdup(point);
	for (char *o = strtok_r(options, ",\n", &save); o; o = strtok_r(NULL, ",\n", &save)) {
		if (!strcmp(o, "freezer"))
			c->freezer = mount;
		for (int k = 0; k < CONTROLLERS; k++)
			if (!strcmp(o, controller_names[k]) && !c->by_controller[k])
				c->by_controller[k] = mount;
	}
}

static int read_file(const char *dir, const char *name, const char *file, char *out, size_t cap)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/%s/%s", dir, name, file);
	CLEAN_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	size_t len = 0;
	ssize_t n = 0;
	while (len < cap - 1 && (n = read(fd, out + len, cap - 1 - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return -errno;
	out[len] = '\0';
	return 0;
}

static int write_file(const char *dir, const char *name, const char *file, const char *text)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/%s/%s", dir, name, file);
	CLEAN_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return -errno;
	return 0;
}

static void scan_mounts(struct cgroups *c, FILE *f, char **ret_v2)
{
	char *line = NULL, point[PATH_MAX], type[64], options[1024];
	size_t cap = 0;

	while (getline(&line, &cap, f) > 0) {
		char *dash = strstr(line, " - ");
		if (!dash || sscanf(line, "%*s %*s %*s %*s %4095s", point) != 1 ||
			sscanf(dash, " - %63s %*s %1023s", type, options) != 2)
			continue;
		if (!strcmp(type, "cgroup"))
			note_v1(c, point, options);
		else if (!strcmp(type, "cgroup2") && !*ret_v2)
			*ret_v2 = xstrdup(point);
	}
	free(line);
}

int cgroup_open(struct cgroups **ret, struct err *err)
{
	CLEAN_FREE char *v2 = NULL;
	char text[512];
	FILE *f = fopen("/proc/self/mountinfo", "re");

	if (!f)
		return err_errno(err, -errno, "cannot open /proc/self/mountinfo");
	struct cgroups *c = xcalloc(1, sizeof(*c));
	scan_mounts(c, f, &v2);
	fclose(f);
	c->mode = !v2 ? CGROUP_V1 : c->n_mounts ? CGROUP_HYBRID : CGROUP_V2;
	if (c->mode == CGROUP_V2 &&
		read_file(v2, "", "cgroup.controllers", text, sizeof(text)) == 0) {
		char *mount = c->mounts[c->n_mounts++] = TAKE(v2), *save;
		c->by_controller[CPUACCT] = mount; /* cpu.stat is always there */
		for (char *o = strtok_r(text, " \n", &save); o; o = strtok_r(NULL, " \n", &save))
			for (int k = 0; k < CONTROLLERS; k++)
				if (!strcmp(o, controller_names[k]))
					c->by_controller[k] = mount;
	}
	for (int k = 0; k < CPUSET; k++)
		if (!c->by_controller[k]) {
			int r = err_set(err, -ENOSYS,
				"the cgroup controller %s is not there: mount it, or switch it on at boot (cgroup_enable=%s)",
				controller_names[k], controller_names[k]);
			cgroup_close(c);
			return r;
		}
	c->swap = c->mode != CGROUP_V2 &&
		read_file(c->by_controller[MEMORY], "", "memory.memsw.limit_in_bytes", text,
			sizeof(text)) == 0;
	*ret = c;
	return 0;
}

void cgroup_close(struct cgroups *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_mounts; i++)
		free(c->mounts[i]);
	free(c);
}

enum cgroup_mode cgroup_mode(const struct cgroups *c)
{
	return c->mode;
}

bool cgroup_has_swap_limit(const struct cgroups *c, const char *name)
{
	char text[64];

	return c->swap ||
		(c->mode == CGROUP_V2 &&
			read_file(c->by_controller[MEMORY], name, "memory.swap.max", text,
				sizeof(text)) == 0);
}

static int check_name(const char **name, struct err *err)
{
	while (**name == '/')
		(*name)++;
	if (!**name || strlen(*name) > 1024 || strstr(*name, ".."))
		return err_set(err, -EINVAL, "\"%s\" is no name for a cgroup", *name);
	return 0;
}

/* ---- making ---- */
/* A fresh cpuset holds no processor and takes no process. */
static void inherit_cpuset(const char *mount, const char *name, const char *parent)
{
	static const char *const files[] = { "cpuset.cpus", "cpuset.mems" };
	char text[512];

	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		if (read_file(mount, name, files[i], text, sizeof(text)) == 0 &&
			str_trim(str_of(text)).len == 0 &&
			read_file(mount, parent, files[i], text, sizeof(text)) == 0)
			write_file(mount, name, files[i], text);
}

static int make_level(
	struct cgroups *c, const char *mount, const char *name, const char *parent, struct err *err)
{
	char path[PATH_MAX], text[512], *save;

	if (c->mode == CGROUP_V2 &&
		read_file(mount, parent, "cgroup.controllers", text, sizeof(text)) == 0)
		for (char *o = strtok_r(text, " \n", &save); o; o = strtok_r(NULL, " \n", &save)) {
			char enable[64];
			snprintf(enable, sizeof(enable), "+%s", o);
			int r = write_file(mount, parent, "cgroup.subtree_control", enable);
			if (r == -EBUSY)
				return err_set(err, r,
					"cgroup \"/%s\" holds processes, so the controller %s cannot be passed on below it",
					parent, o);
		}
	path_fmt(path, "%s/%s", mount, name);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_errno(err, -errno, "cannot create the cgroup %s", path);
	if (c->mode != CGROUP_V2 && mount == c->by_controller[CPUSET])
		inherit_cpuset(mount, name, parent);
	return 0;
}

int cgroup_create(struct cgroups *c, const char *name, struct err *err)
{
	char level[PATH_MAX], parent[PATH_MAX];
	int r = check_name(&name, err);

	for (size_t i = 0; i < c->n_mounts && r == 0; i++) {
		parent[0] = '\0';
		for (size_t at = 0; r == 0;) {
			at += strcspn(name + at, "/");
			path_fmt(level, "%.*s", (int)at, name);
			r = make_level(c, c->mounts[i], level, parent, err);
			if (!name[at])
				break;
			memcpy(parent, level, at + 1);
			at += strspn(name + at, "/");
		}
	}
	return r;
}

/* ---- limits ---- */
static int set_text(struct cgroups *c, int controller, const char *name, const char *file,
	const char *text, struct err *err)
{
	int r = write_file(c->by_controller[controller], name, file, text);

	if (r < 0)
		return err_errno(
			err, r, "cannot set %s of the cgroup \"/%s\" to \"%s\"", file, name, text);
	return 0;
}

static int set_number(struct cgroups *c, int controller, const char *name, const char *file,
	int64_t n, const char *none, struct err *err)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", (long long)n);
	return set_text(c, controller, name, file, n > 0 ? text : none, err);
}

static int set_cpu_shares(
	struct cgroups *c, const char *name, const struct cgroup_limits *l, struct err *err)
{
	int64_t shares = MAX(2, MIN(l->cpu_shares ? l->cpu_shares : 1024, (int64_t)262144));

	if (c->mode != CGROUP_V2)
		return set_number(c, CPU, name, "cpu.shares", shares, "1024", err);
	return set_number(c, CPU, name, "cpu.weight", 1 + (shares - 2) * 9999 / 262142, "100", err);
}

static int set_cpu_quota(
	struct cgroups *c, const char *name, const struct cgroup_limits *l, struct err *err)
{
	int64_t period = l->cpu_period_us > 0 ? l->cpu_period_us : 100000;
	char text[64];

	if (c->mode != CGROUP_V2) {
		int r = set_number(c, CPU, name, "cpu.cfs_period_us", period, "100000", err);
		return r < 0
			? r
			: set_number(c, CPU, name, "cpu.cfs_quota_us", l->cpu_quota_us, "-1", err);
	}
	if (l->cpu_quota_us > 0)
		snprintf(text, sizeof(text), "%lld %lld", (long long)l->cpu_quota_us,
			(long long)period);
	else
		snprintf(text, sizeof(text), "max %lld", (long long)period);
	return set_text(c, CPU, name, "cpu.max", text, err);
}

static int set_memory(
	struct cgroups *c, const char *name, const struct cgroup_limits *l, struct err *err)
{
	if (c->mode == CGROUP_V2) {
		int r = set_number(c, MEMORY, name, "memory.max", l->memory_bytes, "max", err);
		if (r == 0 && l->memory_bytes > 0)
			write_file(c->by_controller[MEMORY], name, "memory.swap.max", "0");
		return r;
	}
	/* Memory may never exceed memory and swap, at no moment: whether it rises or falls, one of these orders does. */
	int r = set_number(c, MEMORY, name, "memory.limit_in_bytes", l->memory_bytes, "-1", NULL);
	if (c->swap)
		set_number(c, MEMORY, name, "memory.memsw.limit_in_bytes", l->memory_bytes, "-1",
			NULL);
	return r == 0
		? 0
		: set_number(c, MEMORY, name, "memory.limit_in_bytes", l->memory_bytes, "-1", err);
}

static int set_pids(
	struct cgroups *c, const char *name, const struct cgroup_limits *l, struct err *err)
{
	return set_number(c, PIDS, name, "pids.max", l->pids, "max", err);
}

static const struct {
	size_t offset;
	int (*set)(struct cgroups *c, const char *name, const struct cgroup_limits *l,
		struct err *err);
} limit_rows[] = {
	{ offsetof(struct cgroup_limits, cpu_shares), set_cpu_shares },
	{ offsetof(struct cgroup_limits, cpu_quota_us), set_cpu_quota },
	{ offsetof(struct cgroup_limits, memory_bytes), set_memory },
	{ offsetof(struct cgroup_limits, pids), set_pids },
};

int cgroup_set(struct cgroups *c, const char *name, const struct cgroup_limits *l, struct err *err)
{
	int r = check_name(&name, err);

	for (size_t i = 0; i < ARRAY_LEN(limit_rows) && r == 0; i++)
		if (*(const int64_t *)((const char *)l + limit_rows[i].offset) >= 0)
			r = limit_rows[i].set(c, name, l, err);
	return r;
}

int cgroup_add(struct cgroups *c, const char *name, pid_t pid, struct err *err)
{
	char text[32];
	int r = check_name(&name, err);

	snprintf(text, sizeof(text), "%d", pid);
	for (size_t i = 0; i < c->n_mounts && r == 0; i++) {
		r = write_file(c->mounts[i], name, "cgroup.procs", text);
		if (r < 0)
			r = err_errno(
				err, r, "cannot move process %d to the cgroup \"/%s\"", pid, name);
	}
	return r;
}

/* ---- reading ---- */
static uint64_t read_number(struct cgroups *c, int controller, const char *name, const char *file)
{
	char text[64];

	if (read_file(c->by_controller[controller], name, file, text, sizeof(text)) < 0)
		return 0;
	return strtoull(text, NULL, 10);
}

/* The number behind a word in a file of "word number" lines. */
static uint64_t read_keyed(
	struct cgroups *c, int controller, const char *name, const char *file, const char *key)
{
	char text[8192];

	if (read_file(c->by_controller[controller], name, file, text, sizeof(text)) < 0)
		return 0;
	for (struct str rest = str_of(text), line; rest.len;) {
		struct str word, number;
		int64_t n;
		str_cut(rest, '\n', &line, &rest);
		if (str_cut(line, ' ', &word, &number) && str_eqz(word, key) &&
			str_to_i64(number, &n) == 0)
			return (uint64_t)n;
	}
	return 0;
}

bool cgroup_exists(struct cgroups *c, const char *name)
{
	char path[PATH_MAX];

	path_fmt(path, "%s/%s", c->by_controller[MEMORY], name);
	return access(path, F_OK) == 0;
}

static void read_stats(struct cgroups *c, const char *name, struct cgroup_stats *ret)
{
	bool v2 = c->mode == CGROUP_V2;
	uint64_t inactive = read_keyed(
		c, MEMORY, name, "memory.stat", v2 ? "inactive_file" : "total_inactive_file");
	*ret = (struct cgroup_stats){
		.cpu_ns = v2 ? 1000 * read_keyed(c, CPU, name, "cpu.stat", "usage_usec")
			     : read_number(c, CPUACCT, name, "cpuacct.usage"),
		.memory_bytes = read_number(
			c, MEMORY, name, v2 ? "memory.current" : "memory.usage_in_bytes"),
		.pids = read_number(c, PIDS, name, "pids.current"),
	};
	ret->memory_working_set = ret->memory_bytes > inactive ? ret->memory_bytes - inactive : 0;
}

int cgroup_stats(struct cgroups *c, const char *name, struct cgroup_stats *ret, struct err *err)
{
	int r = check_name(&name, err);

	if (r < 0)
		return r;
	if (!cgroup_exists(c, name))
		return err_set(err, -ENOENT, "there is no cgroup \"/%s\"", name);
	read_stats(c, name, ret);
	return 0;
}

uint64_t cgroup_root_memory(struct cgroups *c, struct cgroup_stats *ret)
{
	uint64_t limit = read_number(
		c, MEMORY, "", c->mode == CGROUP_V2 ? "memory.max" : "memory.limit_in_bytes");

	read_stats(c, "", ret);
	return limit < NO_LIMIT ? limit : 0;
}

uint64_t cgroup_oom_kills(struct cgroups *c, const char *name)
{
	return read_keyed(c, MEMORY, name,
		c->mode == CGROUP_V2 ? "memory.events" : "memory.oom_control", "oom_kill");
}

/* ---- ending ---- */
/* The processes of this group and those below: signalled all, or waited for all, up to a moment; returns how many there were. */
static size_t each_process(const char *dir, bool wait, uint64_t until_ns)
{
	char path[PATH_MAX + 32], line[32];
	size_t n = 0;
	int pid;

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%d", &pid) != 1 || pid <= 0)
			continue;
		n++;
		CLEAN_FD int fd = pidfd_of(pid);
		uint64_t now = mono_now_ns();
		if (fd >= 0 && !wait)
			pidfd_signal(fd, SIGKILL);
		else if (fd >= 0)
			pidfd_wait(fd, until_ns > now ? (int64_t)((until_ns - now) / 1000000) : 0);
	}
	if (f)
		fclose(f);
	DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));)
		if (e->d_type == DT_DIR && e->d_name[0] != '.' &&
			snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < PATH_MAX)
			n += each_process(path, wait, until_ns);
	if (d)
		closedir(d);
	return n;
}

/* v1: nobody forks, or makes room for a fork, while all are signalled; they die before they do another step. */
static void freeze(struct cgroups *c, const char *name, bool on)
{
	char text[32];

	if (!c->freezer ||
		write_file(c->freezer, name, "freezer.state", on ? "FROZEN" : "THAWED") < 0)
		return;
	for (int tries = 0; on && tries < FREEZE_TRIES; tries++) {
		if (read_file(c->freezer, name, "freezer.state", text, sizeof(text)) < 0 ||
			!strncmp(text, "FROZEN", 6))
			return;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

/* How many processes were there. All of them at once: a group that forks faster than it is killed one by one would never end. */
static size_t kill_once(struct cgroups *c, const char *name, uint64_t until_ns)
{
	char dir[PATH_MAX];
	size_t n = 0;

	if (c->mode == CGROUP_V2 && write_file(c->mounts[0], name, "cgroup.kill", "1") == 0) {
		path_fmt(dir, "%s/%s", c->mounts[0], name);
		return each_process(dir, true, until_ns);
	}
	freeze(c, name, true);
	for (size_t i = 0; i < c->n_mounts; i++) {
		path_fmt(dir, "%s/%s", c->mounts[i], name);
		n += each_process(dir, false, 0);
	}
	freeze(c, name, false);
	for (size_t i = 0; n && i < c->n_mounts; i++) {
		path_fmt(dir, "%s/%s", c->mounts[i], name);
		each_process(dir, true, until_ns);
	}
	return n;
}

int cgroup_kill(struct cgroups *c, const char *name, struct err *err)
{
	uint64_t until = mono_now_ns() + KILL_NS;
	int r = check_name(&name, err);

	if (r < 0)
		return r;
	/* Without a freezer processes may fork while they are counted: again until none is left. */
	while (kill_once(c, name, until) > 0)
		if (mono_now_ns() > until)
			return err_set(
				err, -EBUSY, "processes in the cgroup \"/%s\" do not die", name);
	return 0;
}

static int remove_dir(const char *dir)
{
	char path[PATH_MAX + 32];
	int r = 0;

	DIR *d = opendir(dir);
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	for (struct dirent *e; r == 0 && (e = readdir(d));)
		if (e->d_type == DT_DIR && e->d_name[0] != '.' &&
			snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < PATH_MAX)
			r = remove_dir(path);
	closedir(d);
	/* The kernel lets go of a group a moment after its last process is gone, and tells nobody. */
	for (int tries = 0; r == 0 && rmdir(dir) < 0; tries++) {
		if (errno == ENOENT)
			break;
		if (errno != EBUSY || tries == 200)
			return -errno;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return r;
}

int cgroup_remove(struct cgroups *c, const char *name, struct err *err)
{
	char dir[PATH_MAX];
	int r = check_name(&name, err);

	if (r == 0)
		r = cgroup_kill(c, name, err);
	for (size_t i = 0; i < c->n_mounts && r == 0; i++) {
		path_fmt(dir, "%s/%s", c->mounts[i], name);
		r = remove_dir(dir);
		if (r < 0)
			r = err_errno(err, r, "cannot remove the cgroup %s", dir);
	}
	return r;
}

/* Removes what is empty, deepest first; true: all of it went. */
static bool prune_dir(const char *dir)
{
	char path[PATH_MAX + 32];
	bool all = true;

	DIR *d = opendir(dir);
	if (!d)
		return errno == ENOENT;
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_type == DT_DIR && e->d_name[0] != '.' &&
			snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < PATH_MAX)
			all &= prune_dir(path);
	closedir(d);
	for (int tries = 0; all && rmdir(dir) < 0; tries++) {
		if (errno == ENOENT)
			break;
		all = errno == EBUSY && tries < 100;
		if (all)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return all;
}

int cgroup_prune(struct cgroups *c, const char *name, struct err *err)
{
	char dir[PATH_MAX];
	bool all = true;
	int r = check_name(&name, err);

	for (size_t i = 0; i < c->n_mounts && r == 0; i++) {
		path_fmt(dir, "%s/%s", c->mounts[i], name);
		all &= prune_dir(dir);
	}
	return r < 0  ? r
		: all ? 0
		      : err_set(err, -EBUSY, "the cgroup \"/%s\" holds processes", name);
}
