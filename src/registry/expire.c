/* Objects that go by themselves some time after their last use: events, an hour. Looked for every few minutes on the retry thread, and only
 * while there may be any. Upstream: the TTL of the event storage. */
#include "registry/internal.h"

struct sweep {
	struct registry *r;
	const struct resource *res;
	int64_t now;
	struct arena *arena;
};

static void nothing(void *arg, int result, struct object *o) {}

static bool look(void *arg, struct object *o)
{
	struct sweep *s = arg;
	struct err err;
	void *obj;
	arena_reset(s->arena);
	if (registry_decode(s->res, o, s->arena, &obj, &err)) {
		log_error("registry", "%s", err.text);
		return true;
	}
	struct timestamp used = s->res->kind->last_used(obj);
	if (used.sec + s->res->kind->ttl_s > s->now)
		return true;
	struct store_op op = { .verb = STORE_DELETE, .key = o->key, .expect = o->revision };
	json_cut_revision(o->json, &op.json_head, &op.json_tail);
	op.labels = o->labels;
	op.n_labels = o->n_labels;
	op.fields = o->fields;
	op.n_fields = o->n_fields;
	store_submit(s->r->store, &op, nothing, NULL);
	return true;
}

static bool expires(const struct resource *res)
{
	return res->storage == res && res->kind && res->kind->ttl_s;
}

/* true: some are left. */
bool registry_expire(struct registry *r)
{
	struct store_snapshot *sn = store_snapshot(r->store);
	struct sweep s = {
		.r = r, .now = r->config.clock->wall(r->config.clock).sec, .arena = arena_new(0)
	};
	bool left = false;
	for (size_t i = 0; i < r->n_resources; i++) {
		s.res = r->order[i];
		if (!expires(s.res))
			continue;
		left |= store_snapshot_count(sn, s.res->key_prefix, STR_NONE) > 0;
		store_snapshot_each(sn, s.res->key_prefix, STR_NONE, look, &s);
	}
	store_snapshot_free(sn);
	arena_free(s.arena);
	return left;
}

/* At start: events of the last run may be there. */
void expire_start(struct registry *r)
{
	struct store_snapshot *sn = store_snapshot(r->store);
	for (size_t i = 0; i < r->n_resources; i++)
		if (expires(r->order[i]) &&
			store_snapshot_count(sn, r->order[i]->key_prefix, STR_NONE))
			retry_watch_age(r->retry);
	store_snapshot_free(sn);
}
