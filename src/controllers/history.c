/* See history.h. A revision's data is the strategic merge patch that puts its template back: kubectl rollout undo applies it. */
#include "controllers/history.h"

#include <stdio.h>

static int by_key(const void *a, const void *b)
{
	return str_cmp(
		((const struct value_member *)a)->key, ((const struct value_member *)b)->key);
}

static void sort_members(struct value *v)
{
	if (v->kind == VALUE_LIST) {
		for (size_t i = 0; i < v->list.len; i++)
			sort_members(&v->list.items[i]);
	} else if (v->kind == VALUE_OBJECT && v->object.len) {
		qsort(v->object.members, v->object.len, sizeof(*v->object.members), by_key);
		for (size_t i = 0; i < v->object.len; i++)
			sort_members(&v->object.members[i].value);
	}
}

/* Members sorted by name: who knows upstream's controllers compares these bytes. */
static struct str template_data(const struct core_v1_pod_template_spec *t, struct arena *a)
{
	struct buf b CLEAN_BUF = { 0 };
	struct value data = { .kind = VALUE_OBJECT };
	struct value *spec = value_set(a, &data, STR("spec"));
	spec->kind = VALUE_OBJECT;
	struct value *template = value_set(a, spec, STR("template"));
	value_from_object(&core_v1_pod_template_spec_type, t, a, template);
	*value_set(a, template, STR("$patch")) =
		(struct value){ .kind = VALUE_TEXT, .text = STR("replace") };
	sort_members(&data);
	json_write(&data, &b);
	return arena_str(a, buf_str(&b));
}

static struct str data_hash(struct str data, const struct opt_int32 *collisions, struct arena *a)
{
	char text[16];
	struct str salted = collisions && collisions->set
		? arena_fmt(a, STR_FMT "|%d", STR_ARG(data), collisions->value)
		: data;

	snprintf(text, sizeof(text), "%u", hash_fnv32a(salted.p, salted.len));
	safe_encode_suffix(text);
	return arena_strz(a, text);
}

struct str history_hash(const struct apps_v1_controller_revision *c)
{
	return str_map_get(&c->metadata.labels, STR(REVISION_HASH_LABEL));
}

static bool same_data(struct run *r, struct str a, struct str b)
{
	struct value va, vb;

	if (str_eq(a, b))
		return true;
	return !json_parse(a, r->arena, &va, NULL) && !json_parse(b, r->arena, &vb, NULL) &&
		value_equal(&va, &vb);
}

static int by_revision(const void *pa, const void *pb)
{
	const struct apps_v1_controller_revision *a = *(void *const *)pa, *b = *(void *const *)pb;

	if (a->revision != b->revision)
		return a->revision < b->revision ? -1 : 1;
	return str_cmp(a->metadata.name, b->metadata.name);
}

static int load(struct history *h, struct err *err)
{
	const struct claim claim = { .owner_type = h->owner_type,
		.owner = h->owner,
		.selector = h->selector,
		.type = &apps_v1_controller_revision_type };
	struct objects os;
	int ret = claim_objects(h->r, &claim, &os, err);

	if (ret)
		return ret;
	h->all = arena_alloc(h->r->arena, (os.len + 2) * sizeof(*h->all));
	h->n_all = os.len;
	for (size_t i = 0; i < os.len; i++)
		h->all[i] = model_copy(&apps_v1_controller_revision_type, os.items[i], h->r->arena);
	if (os.len)
		qsort(h->all, h->n_all, sizeof(*h->all), by_revision);
	return 0;
}

static int64_t highest(const struct history *h)
{
	return h->n_all ? h->all[h->n_all - 1]->revision : 0;
}

static int raise(struct history *h, struct apps_v1_controller_revision *c, struct err *err)
{
	struct apps_v1_controller_revision *back;

	if (c->revision == highest(h))
		return 0;
	c->revision = highest(h) + 1;
	int ret = client_update(h->r->client, &apps_v1_controller_revision_type, NULL, c,
		h->r->arena, (void **)&back, err);

	if (!ret)
		qsort(h->all, h->n_all, sizeof(*h->all), by_revision);
	return ret;
}

static struct apps_v1_controller_revision *build(struct history *h, struct str data)
{
	struct arena *a = h->r->arena;
	const struct meta_v1_object_meta *om = model_meta(h->owner_type, h->owner);
	struct apps_v1_controller_revision *c = model_new(&apps_v1_controller_revision_type, a);
	struct str hash = data_hash(data, h->collisions, a);

	c->metadata.name = arena_fmt(a, STR_FMT "-" STR_FMT, STR_ARG(om->name), STR_ARG(hash));
	c->metadata.namespace = om->namespace;
	LIST_EACH(l, &h->template->metadata.labels)
		str_map_set(a, &c->metadata.labels, l->key, l->value);
	str_map_set(a, &c->metadata.labels, STR(REVISION_HASH_LABEL), hash);
	*LIST_ADD(a, &c->metadata.owner_references) =
		controller_reference(h->owner_type, h->owner, a);
	c->data = data;
	c->revision = highest(h) + 1;
	return c;
}

static int create(struct history *h, struct str data, struct err *err)
{
	const struct type *t = &apps_v1_controller_revision_type;

	for (int attempt = 0; attempt < 10; attempt++) {
		struct apps_v1_controller_revision *c = build(h, data), *made;
		int ret = client_create(h->r->client, t, c->metadata.namespace, c, h->r->arena,
			(void **)&made, err);

		if (ret == CLIENT_EXISTS) {
			ret = client_get(h->r->client, t, c->metadata.namespace, c->metadata.name,
				h->r->arena, (void **)&made, err);
			if (!ret && !same_data(h->r, made->data, data)) {
				*h->collisions =
					(struct opt_int32)SOME(int32_or(h->collisions, 0) + 1);
				continue;
			}
		}
		if (ret)
			return ret;
		h->current = made;
		h->all[h->n_all++] = made;
		return 0;
	}
	return err_set(err, CLIENT_CONFLICT, "no free name for a revision of " STR_FMT,
		STR_ARG(model_meta(h->owner_type, h->owner)->name));
}

int history_sync(struct history *h, struct err *err)
{
	struct str data = template_data(h->template, h->r->arena);
	int ret = load(h, err);

	if (ret)
		return ret;
	for (size_t i = 0; i < h->n_all; i++)
		if (same_data(h->r, h->all[i]->data, data))
			h->current = h->all[i];
	return h->current ? raise(h, h->current, err) : create(h, data, err);
}

int history_truncate(struct history *h, int32_t limit,
	bool (*in_use)(void *arg, const struct apps_v1_controller_revision *c), void *arg,
	struct err *err)
{
	size_t idle = 0;

	for (size_t i = 0; i < h->n_all; i++)
		idle += h->all[i] != h->current && !in_use(arg, h->all[i]);
	for (size_t i = 0; i < h->n_all && idle > (size_t)MAX(limit, 0); i++) {
		const struct apps_v1_controller_revision *c = h->all[i];
		const struct client_delete o = { .grace_seconds = -1, .uid = c->metadata.uid };

		if (c == h->current || in_use(arg, c))
			continue;
		int ret = client_delete(h->r->client, &apps_v1_controller_revision_type,
			c->metadata.namespace, c->metadata.name, &o, err);

		if (ret && ret != CLIENT_NOT_FOUND && ret != CLIENT_CONFLICT)
			return ret;
		idle--;
	}
	return 0;
}

int history_template(struct run *r, const struct apps_v1_controller_revision *c,
	struct core_v1_pod_template_spec **ret, struct err *err)
{
	struct value v, *spec, *tpl = NULL;
	int code = json_parse(c->data, r->arena, &v, err);

	if (code)
		return code;
	spec = v.kind == VALUE_OBJECT ? value_get(&v, STR("spec")) : NULL;
	if (spec && spec->kind == VALUE_OBJECT)
		tpl = value_get(spec, STR("template"));
	if (!tpl || tpl->kind != VALUE_OBJECT)
		return err_set(err, -EBADMSG, "revision " STR_FMT " holds no template",
			STR_ARG(c->metadata.name));
	value_remove(tpl, STR("$patch"));
	return value_to_object(
		&core_v1_pod_template_spec_type, tpl, r->arena, NULL, (void **)ret, err);
}
