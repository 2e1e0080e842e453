/* emptyDir: a folder that lives as long as the pod. Medium Memory is a tmpfs, no larger than sizeLimit, the pod's memory limit and what the node has
 * to give; one on disk that outgrows its sizeLimit ends its pod. Source: the API page of EmptyDirVolumeSource; KEP-1967. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/internal.h"

static const void *source(const struct core_v1_volume_source *v)
{
	return v->empty_dir;
}

static uint64_t memory_size(struct volume_ctx *c, struct quantity limit)
{
	struct engine_resources pod;
	struct quantity node;
	int64_t n = quantity_value(limit) > 0 ? quantity_value(limit) : INT64_MAX;

	pod_resources(c->s->pod, &pod);
	if (pod.memory_limit > 0)
		n = MIN(n, pod.memory_limit);
	if (node_allocatable(c->s->k, "memory", &node) && node.nano > 0)
		n = MIN(n, quantity_value(node));
	return n == INT64_MAX ? 0 : (uint64_t)n;
}

static int setup(struct volume_ctx *c, struct err *err)
{
	const struct core_v1_empty_dir_volume_source *e = c->v->volume_source.empty_dir;
	struct quantity q = { 0 };
	int r;

	if (e->size_limit.len && quantity_parse(e->size_limit, &q))
		return err_set(err, -EINVAL, "sizeLimit \"" STR_FMT "\" is not a quantity",
			STR_ARG(e->size_limit));
	/* Memory is sticky, as a tmpfs is by itself. */
	mode_t mode = str_eqz(e->medium, "Memory") ? 01777 : 0777;
	if (str_eqz(e->medium, "Memory"))
		r = volume_tmpfs(c->dir, memory_size(c, q), mode, err);
	else if (str_has_prefix(e->medium, STR("HugePages")))
		return err_set(err, -ENOSYS,
			"medium \"" STR_FMT "\" is not supported by this kubelet",
			STR_ARG(e->medium));
	else
		r = dir_make(c->dir, 0777, err);
	if (r)
		return r;
	if (chmod(c->dir, mode))
		return err_errno(err, -errno, "%s", c->dir);
	return c->fs_group < 0 ? 0 : volume_own(c->dir, c->fs_group, err);
}

const struct volume_kind volume_empty_dir = {
	.plugin = "kubernetes.io~empty-dir", .source = source, .setup = setup
};

/* ---- use ---- */

#define DEPTH_MAX 128

/* Bytes on disk below a folder, links not followed; stops once there are more than `enough`. dir is closed. */
static int64_t usage(int dir, int depth, int64_t enough)
{
	DIR *d = dir < 0 || depth > DEPTH_MAX ? NULL : fdopendir(dir);
	int64_t sum = 0;

	if (!d && dir >= 0)
		close(dir);
	for (struct dirent *e; d && sum <= enough && (e = readdir(d));) {
		struct stat st;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
			fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		sum += (int64_t)st.st_blocks * 512;
		if (S_ISDIR(st.st_mode))
			sum += usage(openat(dirfd(d), e->d_name,
					     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
				depth + 1, enough - sum);
	}
	if (d)
		closedir(d);
	return sum;
}

void empty_dirs_check(struct pod_worker *w, const struct core_v1_pod *pod)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct quantity limit;

	LIST_EACH(v, &pod->spec.volumes) {
		const struct core_v1_empty_dir_volume_source *e = v->volume_source.empty_dir;
		if (!e || e->medium.len || !e->size_limit.len ||
			quantity_parse(e->size_limit, &limit) || limit.nano <= 0)
			continue;
		struct str dir = arena_fmt(a, STR_FMT "/volumes/%s/" STR_FMT,
			STR_ARG(pod_dir(w->k, w->uid, a)), volume_empty_dir.plugin,
			STR_ARG(v->name));
		if (usage(open(dir.p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), 0,
			    quantity_value(limit)) <= quantity_value(limit))
			continue;
		struct str text = arena_fmt(a,
			"Usage of EmptyDir volume \"" STR_FMT "\" exceeds the limit \"" STR_FMT
			"\". ",
			STR_ARG(v->name), STR_ARG(e->size_limit));
		log_warn("kubelet", "evicting pod %s/%s: %s", w->ns, w->name, text.p);
		worker_evict(w, "Evicted", text.p, 0);
		return;
	}
}
