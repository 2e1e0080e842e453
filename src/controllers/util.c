/* Small things that several controllers need. */
#include "controllers/internal.h"

#include <stdio.h>

struct str key_of(struct arena *a, struct str ns, struct str name)
{
	return ns.len ? arena_fmt(a, STR_FMT "/" STR_FMT, STR_ARG(ns), STR_ARG(name))
		      : arena_str(a, name);
}

void split_key(struct str key, struct str *ret_ns, struct str *ret_name)
{
	struct str head, tail;

	if (str_cut(key, '/', &head, &tail)) {
		*ret_ns = head;
		*ret_name = tail;
	} else {
		*ret_ns = STR_NONE;
		*ret_name = key;
	}
}

bool namespace_ends(int result, const struct err *err)
{
	return result == CLIENT_FORBIDDEN && strstr(err->text, "because it is being terminated");
}

void map_self(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	enqueue(r, (now ? now : old)->key);
}

static void enqueue_owner(struct run *r, const struct cached *c, const char *kind)
{
	const struct meta_v1_owner_reference *o = c ? client_controller_of(c->meta) : NULL;
	struct buf key CLEAN_BUF = { 0 };

	if (!o || !str_eqz(o->kind, kind))
		return;
	if (c->meta->namespace.len)
		buf_addf(&key, STR_FMT "/", STR_ARG(c->meta->namespace));
	buf_add_str(&key, o->name);
	enqueue(r, buf_str(&key));
}

void map_owner(struct run *r, enum informer_event ev, const struct cached *old,
	const struct cached *now, const char *kind)
{
	enqueue_owner(r, now, kind);
	if (!now || !old)
		return enqueue_owner(r, now ? NULL : old, kind);
	const struct meta_v1_owner_reference *a = client_controller_of(old->meta);
	const struct meta_v1_owner_reference *b = client_controller_of(now->meta);

	if (a && (!b || !str_eq(a->uid, b->uid)))
		enqueue_owner(r, old, kind);
}

void map_namespace(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	enqueue(r, (now ? now : old)->meta->namespace);
}

const char *api_version_of(const struct type *t, struct arena *a)
{
	return arena_fmt(a, "%s%s%s", t->group, *t->group ? "/" : "", t->version).p;
}

bool owned_by(const struct meta_v1_object_meta *m, struct str uid)
{
	const struct meta_v1_owner_reference *o = client_controller_of(m);

	return o && str_eq(o->uid, uid);
}

int32_t int32_or(const struct opt_int32 *o, int32_t fallback)
{
	return o->set ? o->value : fallback;
}

int scaled_value(const struct int_or_str *v, int total, bool round_up, int fallback)
{
	int64_t percent;
	struct str text = v ? v->text : STR_NONE;

	if (!v || v->kind == IOS_NONE)
		return fallback;
	if (v->kind == IOS_INT)
		return v->num;
	if (!str_has_suffix(text, STR("%")) || str_to_i64(str_n(text.p, text.len - 1), &percent))
		return fallback;
	percent =
		MIN(MAX(percent, (int64_t)0), (int64_t)1000000); /* as far as anybody can mean it */
	return (int)MIN((int64_t)INT32_MAX,
		round_up ? (percent * total + 99) / 100 : percent * total / 100);
}

struct str template_hash(const struct core_v1_pod_template_spec *tpl,
	const struct opt_int32 *collisions, struct arena *a)
{
	struct buf b CLEAN_BUF = { 0 };
	char text[16];

	json_encode(&core_v1_pod_template_spec_type, tpl, &b);
	if (collisions && collisions->set)
		buf_addf(&b, "|%d", collisions->value);
	snprintf(text, sizeof(text), "%u", hash_fnv32a(b.p, b.len));
	safe_encode_suffix(text);
	return arena_strz(a, text);
}

bool label_selectors_equal(
	const struct meta_v1_label_selector *a, const struct meta_v1_label_selector *b)
{
	return a == b || (a && b && model_equal(&meta_v1_label_selector_type, a, b));
}

int patch_merge_fmt(struct run *r, const struct type *t, struct str ns, struct str name,
	const char *sub, struct err *err, const char *fmt, ...)
{
	struct buf b CLEAN_BUF = { 0 };
	va_list ap;

	va_start(ap, fmt);
	buf_vaddf(&b, fmt, ap);
	va_end(ap);
	return client_patch(
		r->client, t, ns, name, sub, CLIENT_PATCH_MERGE, buf_str(&b), r->arena, NULL, err);
}
