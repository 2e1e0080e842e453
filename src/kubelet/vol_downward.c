/* downwardAPI: fields of the pod and of its containers as files; labels and annotations follow the object. */
#include "gen/types.h"
#include "kubelet/internal.h"

static const void *source(const struct core_v1_volume_source *v)
{
	return v->downward_api;
}

int downward_files(struct volume_ctx *c, const struct core_v1_downward_api_volume_file *items,
	size_t n, int32_t mode, struct volume_files *f, struct err *err)
{
	const struct pod_sandbox *b = worker_sandbox(c->s->w);

	for (size_t i = 0; i < n; i++) {
		struct str text = STR("");
		int r = 0;
		if (items[i].field_ref)
			r = field_value(
				c->s, items[i].field_ref->field_path, b ? b->ip : NULL, &text, err);
		else if (items[i].resource_field_ref)
			r = resource_field_value(
				c->s, items[i].resource_field_ref, NULL, &text, err);
		if (r)
			return r;
		volume_files_add(c->s->a, f, items[i].path, text,
			items[i].mode.set ? items[i].mode.value : mode);
	}
	return 0;
}

static int setup(struct volume_ctx *c, struct err *err)
{
	const struct core_v1_downward_api_volume_source *v = c->v->volume_source.downward_api;
	struct volume_files f = { 0 };

	int r = downward_files(c, v->items.items, v->items.len,
		v->default_mode.set ? v->default_mode.value : 0644, &f, err);
	if (!r)
		r = volume_tmpfs(c->dir, 0, 0755, err);
	return r ? r : files_write(c->dir, &f, c->fs_group, err);
}

const struct volume_kind volume_downward_api = {
	.plugin = "kubernetes.io~downward-api", .source = source, .setup = setup, .refreshes = true
};
