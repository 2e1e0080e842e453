/* Which objects an owner controls: those that say so, plus matching orphans (adopted), less those that match no more (released).
 * Upstream: ControllerRefManager. Owner references decide; labels only propose. */
#include "controllers/internal.h"

struct claiming {
	struct run *r;
	const struct claim *c;
	const struct meta_v1_object_meta *owner;
	int may_adopt; /* -1: not asked yet */
};

/* The cache may be behind: an owner that is gone, or another under its name, must not adopt. */
static int ask_may_adopt(struct claiming *s, struct err *err)
{
	void *live;

	if (s->may_adopt >= 0)
		return 0;
	int r = client_get(s->r->client, s->c->owner_type, s->owner->namespace, s->owner->name,
		s->r->arena, &live, err);

	if (r && r != CLIENT_NOT_FOUND)
		return r;
	const struct meta_v1_object_meta *m = r ? NULL : model_meta(s->c->owner_type, live);

	s->may_adopt = m && str_eq(m->uid, s->owner->uid) && time_is_zero(m->deletion_timestamp);
	return 0;
}

static int adopt(struct claiming *s, const struct meta_v1_object_meta *m, struct err *err)
{
	const struct meta_v1_owner_reference ref =
		controller_reference(s->c->owner_type, s->c->owner, s->r->arena);
	struct buf patch CLEAN_BUF = { 0 };

	buf_addz(&patch, "{\"metadata\":{\"ownerReferences\":[");
	json_encode(&meta_v1_owner_reference_type, &ref, &patch);
	buf_addf(&patch, "],\"uid\":\"" STR_FMT "\"}}", STR_ARG(m->uid));
	return client_patch(s->r->client, s->c->type, m->namespace, m->name, NULL,
		CLIENT_PATCH_STRATEGIC, buf_str(&patch), s->r->arena, NULL, err);
}

static int release(struct claiming *s, const struct meta_v1_object_meta *m, struct err *err)
{
	struct str patch = arena_fmt(s->r->arena,
		"{\"metadata\":{\"ownerReferences\":[{\"$patch\":\"delete\",\"uid\":\"" STR_FMT
		"\"}],\"uid\":\"" STR_FMT "\"}}",
		STR_ARG(s->owner->uid), STR_ARG(m->uid));

	return client_patch(s->r->client, s->c->type, m->namespace, m->name, NULL,
		CLIENT_PATCH_STRATEGIC, patch, s->r->arena, NULL, err);
}

/* 0: keep it; CLIENT_NOT_FOUND: not ours; else the failure. */
static int claim_owned(struct claiming *s, const struct meta_v1_object_meta *m, struct err *err)
{
	if (selector_matches(s->c->selector, &m->labels))
		return 0;
	if (!time_is_zero(s->owner->deletion_timestamp))
		return CLIENT_NOT_FOUND;
	int r = release(s, m, err);

	return r == 0 || r == CLIENT_CONFLICT || r == CLIENT_INVALID ? CLIENT_NOT_FOUND : r;
}

static int claim_orphan(
	struct claiming *s, const void *obj, const struct meta_v1_object_meta *m, struct err *err)
{
	if (!time_is_zero(s->owner->deletion_timestamp) || !time_is_zero(m->deletion_timestamp) ||
		!selector_matches(s->c->selector, &m->labels) ||
		(s->c->filter && !s->c->filter(s->c->arg, obj)))
		return CLIENT_NOT_FOUND;
	int r = ask_may_adopt(s, err);

	if (r)
		return r;
	if (!s->may_adopt)
		return CLIENT_NOT_FOUND;
	r = adopt(s, m, err);
	return r == CLIENT_CONFLICT || r == CLIENT_INVALID ? CLIENT_NOT_FOUND : r;
}

int claim_objects(struct run *r, const struct claim *c, struct objects *ret, struct err *err)
{
	struct claiming s = { r, c, model_meta(c->owner_type, c->owner), -1 };
	struct objects owned = cache_indexed(r, c->type, "uid:", s.owner->uid);
	struct objects orphans = cache_indexed(r, c->type, "orphan:", s.owner->namespace);
	struct objects os = { arena_alloc(r->arena, (owned.len + orphans.len + 1) * sizeof(void *)),
		0 };

	for (size_t i = 0; i < owned.len + orphans.len; i++) {
		const void *obj = i < owned.len ? owned.items[i] : orphans.items[i - owned.len];
		const struct meta_v1_object_meta *m = model_meta(c->type, obj);

		if (!str_eq(m->namespace, s.owner->namespace))
			continue;
		int k = i < owned.len ? claim_owned(&s, m, err) : claim_orphan(&s, obj, m, err);

		if (!k)
			os.items[os.len++] = obj;
		else if (k != CLIENT_NOT_FOUND)
			return k;
	}
	*ret = os;
	return 0;
}
