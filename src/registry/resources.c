/* The table of resources, made once from the schema's rows.
 *
 * Versions of one resource share its storage: the row that a conversion names is stored, the others are converted on their way in
 * and out. A resource's keys are "/pods/NS/NAME", "/apps/deployments/NS/NAME", "/nodes/NAME". */
#include "registry/internal.h"

static struct str path_key(struct arena *a, struct str group, struct str version, struct str plural)
{
	return arena_fmt(a, STR_FMT "/" STR_FMT "/" STR_FMT, STR_ARG(group), STR_ARG(version),
		STR_ARG(plural));
}

const struct resource *registry_resource(
	const struct registry *r, struct str group, struct str version, struct str plural)
{
	const struct str parts[] = { group, STR("/"), version, STR("/"), plural };
	char key[256];
	size_t n = str_concat(key, sizeof(key), parts, ARRAY_LEN(parts));
	return n ? map_get(&r->by_path, str_n(key, n)) : NULL;
}

const struct resource *registry_resource_of(const struct registry *r, const struct type *t)
{
	return map_get(&r->by_type, str_of(t->proto));
}

const struct resource *const *registry_resources(const struct registry *r, size_t *ret_n)
{
	*ret_n = r->n_resources;
	return r->order;
}

struct store *registry_store(const struct registry *r)
{
	return r->store;
}

bool resource_namespaced(const struct resource *r)
{
	return r->row->namespaced;
}

const struct type *resource_type(const struct resource *r)
{
	return r->row->type;
}

static const struct conversion *conversion_of(const struct resource_row *row)
{
	char gv[128];
	snprintf(gv, sizeof(gv), "%s%s%s", row->group, *row->group ? "/" : "", row->version);
	for (const struct conversion *c = conversions; c->plural; c++)
		if (!strcmp(c->group_version, gv) && !strcmp(c->plural, row->plural))
			return c;
	return NULL;
}

static struct str owned(struct str s)
{
	return (struct str){ str_dup(s), s.len };
}

static void fill(struct resource_extra *x, const struct resource_row *row)
{
	struct resource *r = &x->resource;
	r->row = row;
	r->group = str_of(row->group);
	r->version = str_of(row->version);
	r->plural = str_of(row->plural);
	r->kind_name = str_of(row->kind);
	CLEAN_BUF struct buf b = { 0 };
	buf_addf(&b, "%s%s%s", row->plural, *row->group ? "." : "", row->group);
	r->group_resource = owned(buf_str(&b));
	buf_clear(&b);
	buf_addf(&b, "%s%s%s", row->group, *row->group ? "/" : "", row->version);
	r->api_version = owned(buf_str(&b));
	buf_clear(&b);
	buf_addf(&b, "/%s%s%s/", row->group, *row->group ? "/" : "", row->plural);
	r->key_prefix = owned(buf_str(&b));
	r->kind = kind_of(r->group_resource);
	r->storage = r;
	x->namespaced = row->namespaced;
	x->conversion = conversion_of(row);
	x->spec = model_field(row->type, STR("spec"));
	x->status = model_field(row->type, STR("status"));
	for (size_t i = 0; i < row->n_subs; i++)
		x->status_sub |= !strcmp(row->subs[i].name, "status");
}

static int resolve_storage(struct registry *r, struct resource_extra *x, struct err *err)
{
	struct str rest = str_of(x->conversion->storage), group = STR_NONE, version;
	if (!str_cut(rest, '/', &group, &version)) {
		version = rest;
		group = STR_NONE;
	}
	const struct resource *s = registry_resource(r, group, version, x->resource.plural);
	if (!s)
		return err_set(err, -EINVAL,
			"resource " STR_FMT ": its stored version %s is not in the schema",
			STR_ARG(x->resource.group_resource), x->conversion->storage);
	x->resource.storage = s;
	return 0;
}

int resources_build(struct registry *r, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	r->resources = xcalloc(n_resource_rows, sizeof(*r->resources));
	r->order = xcalloc(n_resource_rows, sizeof(*r->order));
	for (size_t i = 0; i < n_resource_rows; i++) {
		struct resource_extra *x = &r->resources[i];
		fill(x, &resource_rows[i]);
		r->order[r->n_resources++] = &x->resource;
		map_set(&r->by_path,
			path_key(a, x->resource.group, x->resource.version, x->resource.plural),
			&x->resource);
		map_set(&r->by_type, str_of(resource_rows[i].type->proto), &x->resource);
	}
	for (size_t i = 0; i < r->n_resources; i++) {
		struct resource_extra *x = &r->resources[i];
		int rc = x->conversion ? resolve_storage(r, x, err) : 0;
		rc = rc ? rc : fields_resolve(x, err);
		if (rc)
			return rc;
	}
	return 0;
}

void resources_free(struct registry *r)
{
	for (size_t i = 0; i < r->n_resources; i++) {
		struct resource_extra *x = &r->resources[i];
		free((char *)x->resource.group_resource.p);
		free((char *)x->resource.api_version.p);
		free((char *)x->resource.key_prefix.p);
		free(x->fields);
	}
	free(r->resources);
	free(r->order);
	map_deinit(&r->by_path, NULL);
	map_deinit(&r->by_type, NULL);
}

/* name empty: the prefix of a namespace, or of everything. */
struct str resource_key(const struct resource *r, struct str ns, struct str name, struct arena *a)
{
	const struct str prefix = r->storage->key_prefix, whole[] = { prefix, name },
			 namespaced[] = { prefix, ns, STR("/"), name };
	if (!r->row->namespaced)
		return arena_concat(a, whole, ARRAY_LEN(whole));
	if (!ns.len)
		return prefix;
	return arena_concat(a, namespaced, ARRAY_LEN(namespaced));
}

size_t resource_key_into(
	const struct resource *r, struct str ns, struct str name, char *buf, size_t size)
{
	const struct str slash = STR("/"), none = STR_NONE;
	const struct str parts[] = { r->storage->key_prefix, r->row->namespaced ? ns : none,
		r->row->namespaced ? slash : none, name };
	return str_concat(buf, size, parts, ARRAY_LEN(parts));
}

void key_parts(const struct resource *r, struct str key, struct str *ret_ns, struct str *ret_name)
{
	struct str rest = str_from(key, r->storage->key_prefix.len);
	*ret_ns = STR_NONE;
	*ret_name = rest;
	if (r->row->namespaced)
		str_cut(rest, '/', ret_ns, ret_name);
}

const struct kind_sub *kind_sub_of(const struct resource *res, struct str name)
{
	if (res->kind && res->kind->subs)
		for (const struct kind_sub *s = res->kind->subs; s->name; s++)
			if (str_eqz(name, s->name))
				return s;
	return NULL;
}
