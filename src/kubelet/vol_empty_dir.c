/* emptyDir: a folder that lives as long as the pod; medium Memory is a tmpfs, bounded by sizeLimit. */
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/internal.h"

static const void *source(const struct core_v1_volume_source *v)
{
	return v->empty_dir;
}

static int setup(struct volume_ctx *c, struct err *err)
{
	const struct core_v1_empty_dir_volume_source *e = c->v->volume_source.empty_dir;
	struct quantity q = { 0 };
	int r;

	if (e->size_limit.len && quantity_parse(e->size_limit, &q))
		return err_set(err, -EINVAL, "sizeLimit \"" STR_FMT "\" is not a quantity",
			STR_ARG(e->size_limit));
	if (str_eqz(e->medium, "Memory"))
		r = volume_tmpfs(c->dir, (uint64_t)quantity_value(q), 0777, err);
	else if (str_has_prefix(e->medium, STR("HugePages")))
		return err_set(err, -ENOSYS,
			"medium \"" STR_FMT "\" is not supported by this kubelet",
			STR_ARG(e->medium));
	else
		r = dir_make(c->dir, 0777, err);
	if (r)
		return r;
	if (c->fs_group < 0 && chmod(c->dir, 0777))
		return err_errno(err, -errno, "%s", c->dir);
	return c->fs_group < 0        ? 0
		: chmod(c->dir, 0777) ? -errno
				      : volume_own(c->dir, c->fs_group, err);
}

const struct volume_kind volume_empty_dir = {
	.plugin = "kubernetes.io~empty-dir", .source = source, .setup = setup
};
