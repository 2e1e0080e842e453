/* configMap: its keys as files. */
#include "gen/types.h"
#include "kubelet/internal.h"

static const void *source(const struct core_v1_volume_source *v)
{
	return v->config_map;
}

/* Keys as files: all of them, or those that items name. */
int files_from_map(struct volume_ctx *c, const struct str_map *data,
	const struct core_v1_key_to_path *items, size_t n_items, bool has_items, int32_t mode,
	bool optional, const char *what, struct volume_files *f, struct err *err)
{
	if (!has_items || !n_items) {
		LIST_EACH(p, data)
			volume_files_add(c->s->a, f, p->key, p->value, mode);
		return 0;
	}
	for (size_t i = 0; i < n_items; i++) {
		struct str v = str_map_get(data, items[i].key);
		if (v.p)
			volume_files_add(c->s->a, f, items[i].path, v,
				items[i].mode.set ? items[i].mode.value : mode);
		else if (!optional)
			return err_set(err, -ENOENT, "references non-existent %s key: " STR_FMT,
				what, STR_ARG(items[i].key));
	}
	return 0;
}

int config_map_files(struct volume_ctx *c, struct str name, const struct core_v1_key_to_path *items,
	size_t n, bool has_items, int32_t mode, bool optional, struct volume_files *f,
	struct err *err)
{
	struct core_v1_config_map *m;

	int r = object_get(c->s, &core_v1_config_map_type, name, (void **)&m, err);
	if (r == CLIENT_NOT_FOUND && optional)
		return 0;
	if (r)
		return r < 0 ? r : -ENOENT;
	struct str_map all = { .items = arena_alloc(c->s->a,
				       (m->data.len + m->binary_data.len) * sizeof(*all.items)) };
	LIST_EACH(p, &m->data)
		all.items[all.len++] = *p;
	LIST_EACH(p, &m->binary_data)
		all.items[all.len++] = *p;
	return files_from_map(c, &all, items, n, has_items, mode, optional, "config", f, err);
}

static int setup(struct volume_ctx *c, struct err *err)
{
	const struct core_v1_config_map_volume_source *v = c->v->volume_source.config_map;
	struct volume_files f = { 0 };

	int r = config_map_files(c, v->local_object_reference.name, v->items.items, v->items.len,
		v->items.len > 0, v->default_mode.set ? v->default_mode.value : 0644,
		v->optional.set && v->optional.value, &f, err);
	return r ? r : files_write(c->dir, &f, c->fs_group, err);
}

const struct volume_kind volume_config_map = {
	.plugin = "kubernetes.io~configmap", .source = source, .setup = setup, .refreshes = true
};
