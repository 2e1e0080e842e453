/* Objects as upstream's API server keeps them in etcd: its keys, and its protobuf without a resourceVersion, so that it could take over what
 * we wrote, and we what it did. Upstream: the storage factory's resource prefixes.
 *
 * A key is /registry/RESOURCE/[NAMESPACE/]NAME with the plural's name, but for the rows of `prefixes`. What is stored in another version than
 * ours is converted where we know how. Keys of resources that we do not have stay as they are, unseen. */
#include "registry/internal.h"

#define ROOT "/registry/"

static const struct {
	const char *group_resource, *prefix;
} prefixes[] = {
	{ "replicationcontrollers", "controllers" },
	{ "endpoints", "services/endpoints" },
	{ "services", "services/specs" },
	{ "nodes", "minions" },
	{ "ingresses.networking.k8s.io", "ingress" },
	{ "customresourcedefinitions.apiextensions.k8s.io",
		"apiextensions.k8s.io/customresourcedefinitions" },
	{ "apiservices.apiregistration.k8s.io", "apiregistration.k8s.io/apiservices" },
};

struct place {
	const struct resource *resource;
	struct str stored; /* "/registry/pods/" */
};

struct stored {
	struct registry table; /* of resources alone */
	struct place *places;
	size_t n;
	struct map by_ours, by_stored; /* folder -> place */
};

static struct str stored_prefix(const struct resource *r)
{
	CLEAN_BUF struct buf b = { 0 };
	const char *name = r->row->plural;
	for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
		if (str_eqz(r->group_resource, prefixes[i].group_resource))
			name = prefixes[i].prefix;
	buf_addf(&b, ROOT "%s/", name);
	return (struct str){ str_dup(buf_str(&b)), b.len };
}

/* The place whose folder is one or two names long, below `skip` bytes. */
static const struct place *find(const struct map *m, struct str key, size_t skip)
{
	for (size_t i = skip, slashes = 0; i < key.len && slashes < 2; i++) {
		if (key.p[i] != '/')
			continue;
		slashes++;
		const struct place *p = map_get(m, str_n(key.p, i + 1));
		if (p)
			return p;
	}
	return NULL;
}

static bool move(const struct map *m, struct str key, size_t skip, bool out, struct buf *to)
{
	const struct place *p = find(m, key, skip);
	if (!p)
		return false;
	struct str ours = p->resource->key_prefix, from = out ? ours : p->stored;
	buf_add_str(to, out ? p->stored : ours);
	buf_add_str(to, str_from(key, from.len));
	return true;
}

static bool key_out(void *arg, struct str key, struct buf *out)
{
	const struct stored *st = arg;
	return move(&st->by_ours, key, 1, true, out);
}

static bool key_in(void *arg, struct str key, struct buf *out)
{
	const struct stored *st = arg;
	return str_has_prefix(key, STR(ROOT)) &&
		move(&st->by_stored, key, sizeof(ROOT) - 1, false, out);
}

static int value_out(void *arg, struct str key, struct str json, struct buf *out, struct err *err)
{
	const struct stored *st = arg;
	const struct place *p = find(&st->by_ours, key, 1);
	CLEAN_ARENA struct arena *a = arena_new(0);
	void *obj;
	if (!p)
		return err_set(
			err, -EINVAL, STR_FMT " is no key of a known resource", STR_ARG(key));
	int rc = json_decode(p->resource->row->type, json, a, NULL, &obj, err);
	if (rc)
		return err_prefix(err, rc, STR_FMT, STR_ARG(key));
	model_meta(p->resource->row->type, obj)->resource_version = STR("");
	proto_encode_object(p->resource->row->type, obj, out);
	return 0;
}

static int to_storage(const struct stored *st, const struct resource *res, const struct type *t,
	struct arena *a, void **obj, struct err *err)
{
	if (t == res->row->type)
		return 0;
	const struct resource *other = registry_resource_of(&st->table, t);
	if (!other || other->storage != res)
		return err_set(err, -EINVAL, "%s/%s %s is stored where " STR_FMT " belongs",
			t->group, t->version, t->name, STR_ARG(res->group_resource));
	*obj = extra_of(other)->conversion->to_storage(*obj, a);
	return 0;
}

static void cut(struct str json, struct str *ret_head, struct str *ret_tail)
{
	json_cut_revision(json, ret_head, ret_tail);
}

static int value_in(void *arg, struct str key, struct str value, struct arena *a,
	struct store_op *ret, struct err *err)
{
	const struct stored *st = arg;
	const struct place *p = find(&st->by_ours, key, 1);
	const struct type *t;
	struct object_pair *fields;
	void *obj;
	if (!p)
		return err_set(
			err, -EINVAL, STR_FMT " is no key of a known resource", STR_ARG(key));
	int rc = codec_decode(value, a, NULL, &t, &obj, err);
	rc = rc ? rc : to_storage(st, p->resource, t, a, &obj, err);
	if (rc)
		return rc;
	struct object_head *head = obj;
	struct meta_v1_object_meta *m = model_meta(p->resource->row->type, obj);
	head->api_version = p->resource->api_version;
	head->kind = p->resource->kind_name;
	m->resource_version = STR("0");
	CLEAN_BUF struct buf json = { 0 };
	json_encode(p->resource->row->type, obj, &json);
	json_cut_revision(arena_str(a, buf_str(&json)), &ret->json_head, &ret->json_tail);
	ret->labels = (const struct object_pair *)m->labels.items;
	ret->n_labels = m->labels.len;
	fields_of(p->resource, obj, a, &fields, &ret->n_fields);
	ret->fields = fields;
	return 0;
}

int registry_codec_new(struct store_codec *ret, struct err *err)
{
	struct stored *st = xcalloc(1, sizeof(*st));
	int rc = resources_build(&st->table, err);
	*ret = (struct store_codec){ .key_out = key_out,
		.key_in = key_in,
		.value_out = value_out,
		.value_in = value_in,
		.cut = cut,
		.arg = st };
	st->places = xcalloc(st->table.n_resources + 1, sizeof(*st->places));
	for (size_t i = 0; rc == 0 && i < st->table.n_resources; i++) {
		const struct resource *r = st->table.order[i];
		if (r->storage != r || !r->row->list_type)
			continue;
		struct place *p = &st->places[st->n++];
		*p = (struct place){ r, stored_prefix(r) };
		map_set(&st->by_ours, r->key_prefix, p);
		map_set(&st->by_stored, p->stored, p);
	}
	if (rc)
		registry_codec_free(ret);
	return rc;
}

void registry_codec_free(struct store_codec *c)
{
	struct stored *st = c->arg;
	if (!st)
		return;
	for (size_t i = 0; i < st->n; i++)
		free((char *)st->places[i].stored.p);
	map_deinit(&st->by_ours, NULL);
	map_deinit(&st->by_stored, NULL);
	resources_free(&st->table);
	free(st->places);
	free(st);
	c->arg = NULL;
}

int64_t registry_codec_ttl(const struct store_codec *c, struct str key)
{
	const struct stored *st = c->arg;
	const struct place *p = find(&st->by_ours, key, 1);
	return p && p->resource->kind ? p->resource->kind->ttl_s : 0;
}

/* ---- reads ---- */

enum {
	READ_MS = 5000,
	NEWER_MS = 3000
}; /* NEWER: for a revision that only others have seen yet, as upstream */

bool registry_must_wait(
	struct registry *r, const struct registry_request *req, store_wait_fn fn, void *arg)
{
	int64_t revision = 0;
	if (!store_is_shared(r->store) ||
		!(req->verb & (VERB_GET | VERB_LIST | VERB_WATCH | VERB_DELETECOLLECTION)))
		return false;
	struct str rv = req->resource_version;
	if (rv.len && (str_to_i64(rv, &revision) || revision <= 0))
		return false; /* "0": whatever is there */
	if (revision && (uint64_t)revision <= store_revision(r->store))
		return false;
	store_wait(r->store, (uint64_t)revision, revision ? NEWER_MS : READ_MS, fn, arg);
	return true;
}
