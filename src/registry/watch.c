/* Watch: a cursor of the store behind a selection. Initial objects come from a snapshot, the events after its revision from the
 * log, so nothing is missed and nothing comes twice.
 *
 * An event is judged by its object before and after: entering the selection is ADDED, leaving it DELETED (with the object as it was,
 * under the event's revision, as upstream), staying in it MODIFIED, staying out of it nothing. */
#include "registry/internal.h"

enum { WATCH_BATCH = 64 };

struct registry_watch {
	struct registry *r;
	const struct resource *res;
	struct arena *arena; /* of the selection: the watch outlives its request's arena */
	struct selection sel;
	struct store_watch *cursor;
	struct store_snapshot *snapshot; /* initial objects are still to come; NULL: done */
	uint64_t revision;               /* of the snapshot */
	struct str prefix;
	struct buf next;
	struct object *batch[WATCH_BATCH];
	size_t n, at;
	bool exhausted, initial_done;
	struct object *converted;
	struct object *left; /* the last one that left the selection */
};

static struct meta_v1_status *check_options(const struct registry_request *req, bool send_initial)
{
	static const struct resource list_options = {
		.group = { "meta.k8s.io", 11 },
		.version = { "v1", 2 },
		.kind_name = { "ListOptions", 11 },
		.plural = { "listoptions", 11 },
	};
	struct causes cs = { .arena = req->arena };
	struct str match = req->resource_version_match, path = STR("resourceVersionMatch");
	if (send_initial && !match.len)
		cause_add(&cs, CAUSE_FORBIDDEN, path, STR_NONE,
			"resourceVersionMatch is required when sendInitialEvents is set");
	else if (send_initial && !str_eqz(match, "NotOlderThan"))
		cause_add(&cs, CAUSE_NOT_SUPPORTED, path, match,
			"supported values: \"NotOlderThan\"");
	else if (!send_initial && match.len)
		cause_add(&cs, CAUSE_FORBIDDEN, path, STR_NONE,
			"resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
	if (req->continue_token.len && send_initial)
		cause_add(&cs, CAUSE_FORBIDDEN, STR("continue"), STR_NONE,
			"sendInitialEvents is forbidden when continue is provided");
	return cs.len ? status_invalid(req->arena, &list_options, STR_NONE, &cs) : NULL;
}

/* An equality that the store can look up: not one with the value of what is absent, which is not stored. */
static const struct field_term *indexed(const struct resource *r, const struct selection *s)
{
	for (size_t i = 0; i < s->n_fields; i++) {
		const struct field_term *t = &s->fields[i];
		if (!t->negate && t->value.len &&
			!str_eqz(t->value, field_absent(r->storage, t->key)))
			return t;
	}
	return NULL;
}

static int open_cursor(struct registry_watch *w, uint64_t revision, store_wake_fn wake, void *arg)
{
	const struct field_term *t = indexed(w->res, &w->sel);
	if (!t)
		return store_watch(w->r->store, w->prefix, revision, wake, arg, &w->cursor);
	struct object_pair field = { t->key, t->value };
	return store_watch_field(w->r->store, w->prefix, field, revision, wake, arg, &w->cursor);
}

static struct meta_v1_status *start(struct registry_watch *w, const struct registry_request *req,
	bool send_initial, store_wake_fn wake, void *arg)
{
	uint64_t revision;
	struct meta_v1_status *st = revision_parse(req->arena, req->resource_version, &revision);
	if (st)
		return st;
	uint64_t present = store_revision(w->r->store);
	if (revision > present)
		return revision_too_large(req->arena, revision, present);
	if (revision == 0 || send_initial) {
		w->snapshot = store_snapshot(w->r->store);
		revision = store_snapshot_revision(w->snapshot);
	}
	w->revision = revision;
	w->initial_done = !w->snapshot;
	if (open_cursor(w, revision, wake, arg) == 0)
		return NULL;
	return status_new(req->arena, REASON_EXPIRED, "too old resource version: %llu (%llu)",
		(unsigned long long)revision, (unsigned long long)present);
}

int registry_watch_open(struct registry *r, struct registry_request *req, bool send_initial,
	store_wake_fn wake, void *arg, struct registry_watch **ret,
	struct meta_v1_status **ret_status)
{
	struct registry_watch *w = xcalloc(1, sizeof(*w));
	w->r = r;
	w->res = req->resource;
	w->arena = arena_new(1024);
	w->prefix = resource_key(req->resource, req->ns, STR_NONE, w->arena);
	struct registry_request own = *req;
	own.arena = w->arena;
	own.label_selector = arena_str(w->arena, req->label_selector);
	own.field_selector = arena_str(w->arena, req->field_selector);
	own.name = arena_str(w->arena, req->name);
	struct meta_v1_status *st = check_options(req, send_initial);
	if (!st) {
		st = selection_parse(&own, &w->sel);
		if (st)
			st = model_copy(&meta_v1_status_type, st, req->arena);
	}
	if (!st && w->sel.name.len && (req->ns.len || !req->resource->row->namespaced))
		w->prefix = resource_key(req->resource, req->ns, w->sel.name, w->arena);
	st = st ? st : start(w, req, send_initial, wake, arg);
	if (st) {
		registry_watch_close(w);
		*ret_status = st;
		return st->code == 410 ? REASON_EXPIRED : REASON_BAD_REQUEST;
	}
	*ret = w;
	return 0;
}

static bool take(void *arg, struct object *o)
{
	struct registry_watch *w = arg;
	if (selection_matches(&w->sel, w->res, o))
		w->batch[w->n++] = o;
	if (w->n < WATCH_BATCH)
		return true;
	buf_clear(&w->next);
	buf_add_str(&w->next, o->key);
	buf_addc(&w->next, '\0');
	return false;
}

static struct object *next_initial(struct registry_watch *w)
{
	if (w->at == w->n && !w->exhausted) {
		w->n = w->at = 0;
		store_snapshot_each(w->snapshot, w->prefix, buf_str(&w->next), take, w);
		w->exhausted = w->n < WATCH_BATCH;
	}
	if (w->at < w->n)
		return w->batch[w->at++];
	store_snapshot_free(w->snapshot);
	w->snapshot = NULL;
	buf_deinit(&w->next);
	w->next = (struct buf){ 0 };
	w->initial_done = true;
	return NULL;
}

static bool give(struct registry_watch *w, struct object *o, struct registry_watch_event *ret)
{
	ret->object = o;
	if (w->res->storage == w->res)
		return true;
	struct err err;
	object_unref(w->converted);
	w->converted = object_convert(w->res, o, &err);
	if (!w->converted)
		log_error("registry", "watch of " STR_FMT ": left out " STR_FMT ": %s",
			STR_ARG(w->res->group_resource), STR_ARG(o->key), err.text);
	ret->object = w->converted;
	return w->converted;
}

static struct object *leaving(struct registry_watch *w, struct store_event *ev)
{
	struct str head, tail;
	CLEAN_BUF struct buf json = { 0 };
	json_cut_revision(ev->prev->json, &head, &tail);
	buf_add_str(&json, head);
	buf_addf(&json, "%llu", (unsigned long long)ev->revision);
	buf_add_str(&json, tail);
	object_unref(w->left);
	w->left = object_with_json(ev->prev, buf_str(&json), ev->revision);
	return w->left;
}

/* false: the event concerns none of ours. */
static bool judge(
	struct registry_watch *w, struct store_event *ev, struct registry_watch_event *ret)
{
	bool is = ev->type != STORE_DELETED && selection_matches(&w->sel, w->res, ev->object);
	bool was = ev->prev
		? selection_matches(&w->sel, w->res, ev->prev)
		: ev->type == STORE_DELETED && selection_matches(&w->sel, w->res, ev->object);
	if (!is && !was)
		return false;
	ret->type = !was ? WATCH_ADDED : is ? WATCH_MODIFIED : WATCH_DELETED;
	if (!give(w, is || ev->type == STORE_DELETED ? ev->object : leaving(w, ev), ret))
		return false;
	ret->event = ret->object == ev->object ? ev : NULL;
	return true;
}

int registry_watch_next(struct registry_watch *w, struct registry_watch_event *ret)
{
	struct object *o;
	while (w->snapshot && (o = next_initial(w))) {
		*ret = (struct registry_watch_event){ .type = WATCH_ADDED };
		if (give(w, o, ret))
			return 0;
	}
	struct store_event *ev;
	int rc;
	while ((rc = store_watch_next(w->cursor, &ev)) == 0)
		if (judge(w, ev, ret))
			return 0;
	return rc;
}

bool registry_watch_initial_done(const struct registry_watch *w)
{
	return w->initial_done;
}

uint64_t registry_watch_revision(const struct registry_watch *w)
{
	return w->snapshot ? w->revision : store_watch_revision(w->cursor);
}

void registry_watch_close(struct registry_watch *w)
{
	if (!w)
		return;
	if (w->cursor)
		store_watch_close(w->cursor);
	if (w->snapshot)
		store_snapshot_free(w->snapshot);
	object_unref(w->converted);
	object_unref(w->left);
	buf_deinit(&w->next);
	arena_free(w->arena);
	free(w);
}
