/* secret: its keys as files in memory, never on a disk. */
#include "gen/types.h"
#include "kubelet/internal.h"

static const void *source(const struct core_v1_volume_source *v)
{
	return v->secret;
}

int secret_files(struct volume_ctx *c, struct str name, const struct core_v1_key_to_path *items,
	size_t n, bool has_items, int32_t mode, bool optional, struct volume_files *f,
	struct err *err)
{
	struct core_v1_secret *m;

	int r = object_get(c->s, &core_v1_secret_type, name, (void **)&m, err);
	if (r == CLIENT_NOT_FOUND && optional)
		return 0;
	if (r)
		return r < 0 ? r : -ENOENT;
	return files_from_map(c, &m->data, items, n, has_items, mode, optional, "secret", f, err);
}

static int setup(struct volume_ctx *c, struct err *err)
{
	const struct core_v1_secret_volume_source *v = c->v->volume_source.secret;
	struct volume_files f = { 0 };

	int r = secret_files(c, v->secret_name, v->items.items, v->items.len, v->items.len > 0,
		v->default_mode.set ? v->default_mode.value : 0644,
		v->optional.set && v->optional.value, &f, err);
	if (!r)
		r = volume_tmpfs(c->dir, 0, 0755, err);
	return r ? r : files_write(c->dir, &f, c->fs_group, err);
}

const struct volume_kind volume_secret = {
	.plugin = "kubernetes.io~secret", .source = source, .setup = setup, .refreshes = true
};
