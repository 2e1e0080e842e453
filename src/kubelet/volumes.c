/* Volumes of a pod: a table of kinds, one file each. A volume lives in root/pods/UID/volumes/PLUGIN/NAME; what is mounted there is
 * unmounted before the folder goes. Setting up twice is once, and brings up to date what follows the API. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/internal.h"
#include "linux/linux.h"

static const struct volume_kind *const kinds[] = {
	&volume_empty_dir,
	&volume_host_path,
	&volume_config_map,
	&volume_secret,
	&volume_downward_api,
	&volume_projected,
	&volume_claim,
};

static const struct volume_kind *kind_of(const struct core_v1_volume *v)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i]->source(&v->volume_source))
			return kinds[i];
	return NULL;
}

int volume_tmpfs(const char *dir, uint64_t size, mode_t mode, struct err *err)
{
	int r = dir_make(dir, mode, err);

	if (r || mount_is_point(dir))
		return r;
	return mount_tmpfs(dir, size, mode, err);
}

#define DEPTH_MAX 128 /* each level is two descriptors */

/* Group ownership of everything below: readable and writable by the group, new files inherit it. By descriptor: somebody who shares the volume may
 * put a link where a file was looked at. */
static int own_below(int dir, gid_t gid, int depth, struct err *err)
{
	DIR *d = depth > DEPTH_MAX ? NULL : fdopendir(dup(dir));
	char own[64];
	int r = 0;

	if (!d)
		return err_errno(err, depth > DEPTH_MAX ? -ELOOP : -errno, "reading a volume");
	for (struct dirent *e; !r && (e = readdir(d));) {
		struct stat st;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		CLEAN_FD int at = openat(dir, e->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (at < 0 && errno == ENOENT)
			continue;
		snprintf(own, sizeof(own), "/proc/self/fd/%d", at);
		if (at < 0 || fstat(at, &st) || fchownat(at, "", (uid_t)-1, gid, AT_EMPTY_PATH)) {
			r = err_errno(err, -errno, "group of %s", e->d_name);
		} else if (S_ISDIR(st.st_mode)) {
			CLEAN_FD int sub = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			r = sub < 0 || fchmod(sub, (st.st_mode & 07777) | 02770)
				? err_errno(err, -errno, "mode of %s", e->d_name)
				: own_below(sub, gid, depth + 1, err);
		} else if (S_ISREG(st.st_mode) && chmod(own, (st.st_mode & 07777) | 0660)) {
			r = err_errno(err, -errno, "mode of %s", e->d_name);
		}
	}
	closedir(d);
	return r;
}

int volume_own(const char *dir, int64_t fs_group, struct err *err)
{
	struct stat st;
	CLEAN_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fs_group < 0)
		return 0;
	if (fd < 0 || fstat(fd, &st))
		return err_errno(err, -errno, "volume %s", dir);
	if (st.st_gid == (gid_t)fs_group && st.st_mode & S_ISGID)
		return 0;
	if (fchown(fd, (uid_t)-1, (gid_t)fs_group) || fchmod(fd, (st.st_mode & 07777) | 02770))
		return err_errno(err, -errno, "group %lld of volume %s", (long long)fs_group, dir);
	return own_below(fd, (gid_t)fs_group, 0, err);
}

static struct volume_ctx context(
	struct sync *s, const struct core_v1_volume *v, const struct volume_kind *k)
{
	const struct core_v1_pod_security_context *sc = s->pod->spec.security_context;

	return (struct volume_ctx){
		.s = s,
		.v = v,
		.dir = arena_fmt(s->a, STR_FMT "/volumes/%s/" STR_FMT,
			STR_ARG(pod_dir(s->k, s->w->uid, s->a)), k->plugin, STR_ARG(v->name))
			       .p,
		.fs_group = sc && sc->fs_group.set ? sc->fs_group.value : -1,
		.refresh = s->w->volumes_ready,
	};
}

int volumes_setup(struct sync *s, struct err *err)
{
	LIST_EACH(v, &s->pod->spec.volumes) {
		const struct volume_kind *k = kind_of(v);
		if (!k)
			return err_set(err, -ENOSYS,
				"MountVolume.SetUp failed for volume \"" STR_FMT
				"\" : this kubelet has no plugin for "
				"this kind of volume",
				STR_ARG(v->name));
		struct volume_ctx c = context(s, v, k);
		if (c.refresh && !k->refreshes)
			continue;
		int r = k->setup(&c, err);
		if (r)
			return err_prefix(err, r,
				"MountVolume.SetUp failed for volume \"" STR_FMT "\" ",
				STR_ARG(v->name));
	}
	return 0;
}

bool pod_volumes_refresh(const struct core_v1_pod *pod)
{
	LIST_EACH(v, &pod->spec.volumes) {
		const struct volume_kind *k = kind_of(v);
		if (k && k->refreshes)
			return true;
	}
	return false;
}

/* What follows the API is the kubelet's to write: nobody in a container gets to put links under its feet. */
static bool is_kept(struct sync *s, struct str volume)
{
	LIST_EACH(v, &s->pod->spec.volumes) {
		const struct volume_kind *k = kind_of(v);
		if (str_eq(v->name, volume))
			return k && k->refreshes;
	}
	return false;
}

int volume_path(struct sync *s, struct str volume, struct str *ret, struct err *err)
{
	LIST_EACH(v, &s->pod->spec.volumes) {
		const struct volume_kind *k = kind_of(v);
		if (!str_eq(v->name, volume) || !k)
			continue;
		struct volume_ctx c = context(s, v, k);
		*ret = k->host_path ? k->host_path(&c) : str_of(c.dir);
		return 0;
	}
	return err_set(err, -ENOENT, "volume \"" STR_FMT "\" is not of this pod", STR_ARG(volume));
}

/* ---- end ---- */

int volumes_teardown(struct kubelet *k, const char *uid, struct err *err)
{
	CLEAN_FREE char *dir = xasprintf("%s/pods/%s/volumes", k->c.root_dir, uid),
			*subpaths = xasprintf("%s/pods/%s/volume-subpaths", k->c.root_dir, uid);
	int r = 0;

	if (!access(subpaths, F_OK))
		r = mount_remove_below(subpaths, err);
	if (!r && !access(dir, F_OK))
		r = mount_remove_below(dir, err);
	if (!r)
		r = dir_remove_tree(subpaths, err);
	return r ? r : dir_remove_tree(dir, err);
}

/* ---- mounts of a container ---- */

static int propagation(struct str p)
{
	return str_eqz(p, "HostToContainer") ? 1 : str_eqz(p, "Bidirectional") ? 2 : 0;
}

static int mount_source(struct sync *s, const struct core_v1_container *c,
	const struct core_v1_volume_mount *m, size_t index, const struct engine_env *env,
	size_t n_env, struct str *ret, struct err *err)
{
	struct str base, sub = m->sub_path;

	int r = volume_path(s, m->name, &base, err);
	if (r)
		return r;
	if (m->sub_path_expr.len) {
		sub = env_expand(m->sub_path_expr, env, n_env, s->a);
		if (str_find_str(sub, STR("$(")) >= 0)
			return err_set(err, -EINVAL,
				"subPathExpr \"" STR_FMT "\": a variable of it is not set",
				STR_ARG(m->sub_path_expr));
	}
	if (!sub.len) {
		*ret = base;
		return 0;
	}
	*ret = arena_fmt(s->a, STR_FMT "/volume-subpaths/" STR_FMT "/" STR_FMT "/%zu",
		STR_ARG(pod_dir(s->k, s->w->uid, s->a)), STR_ARG(m->name), STR_ARG(c->name), index);
	r = subpath_bind(base.p, sub, ret->p, s->a, err);
	return r ? err_prefix(err, r,
			   "failed to prepare subPath for volumeMount \"" STR_FMT
			   "\" of container \"" STR_FMT "\"",
			   STR_ARG(m->name), STR_ARG(c->name))
		 : 0;
}

int volume_mounts(struct sync *s, const struct core_v1_container *c, uint32_t attempt,
	const struct engine_env *env, size_t n_env, const char *pod_ip, struct engine_mount **ret,
	size_t *ret_n, struct err *err)
{
	struct engine_mount *list = arena_alloc(s->a, (c->volume_mounts.len + 2) * sizeof(*list));
	size_t n = 0;
	bool own_hosts = false;

	if (c->volume_devices.len)
		return err_set(err, -ENOSYS,
			"volumeDevices: block volumes are not supported by this kubelet");
	LIST_EACH(m, &c->volume_mounts) {
		struct str path = STR_NONE;
		int r = mount_source(
			s, c, m, (size_t)(m - c->volume_mounts.items), env, n_env, &path, err);
		if (r)
			return r;
		struct str at = m->mount_path.len && m->mount_path.p[0] == '/'
			? m->mount_path
			: arena_fmt(s->a, "/" STR_FMT, STR_ARG(m->mount_path));
		own_hosts |= str_eqz(at, "/etc/hosts");
		list[n++] = (struct engine_mount){ at.p, path.p,
			m->read_only || is_kept(s, m->name), propagation(m->mount_propagation) };
	}
	if (!own_hosts) {
		struct str hosts;
		int r = pod_write_hosts(s, pod_ip, &hosts, err);
		if (r)
			return r;
		bool ro = c->security_context &&
			c->security_context->read_only_root_filesystem.set &&
			c->security_context->read_only_root_filesystem.value;
		list[n++] = (struct engine_mount){ "/etc/hosts", hosts.p, ro, 0 };
	}
	*ret = list;
	*ret_n = n;
	return 0;
}
