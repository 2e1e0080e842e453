/* Deletes what nobody owns any more, and carries out foreground and orphaning deletion. Upstream: pkg/controller/garbagecollector.
 *
 * 1. One watch of metadata a resource kind (shared with controllers that want more); the graph knows only owned objects.
 * 2. An owner counts as absent only when the server said so, or its deletion was seen; by uid, never by name alone. What the server said is remembered
 *    for the whole reference (kind, namespace, name, uid): whoever names the owner of others wrongly learns of his own reference alone.
 * 3. Deletion names uid and resourceVersion of what was judged: an object adopted meanwhile stays.
 * 4. Owner kinds that the server does not know are left alone: no guess ever deletes anything.
 * 5. Dependents of a namespaced owner that are of another namespace are none: it does not wait for them, nor let them go.
 *
 * A key of the queue is ROW|UID|[NAMESPACE/]NAME, ROW being the kind's number in resource_rows. */
#include "controllers/gc.h"

#include <stdio.h>

#include "controllers/table.h"

#define FOREGROUND "foregroundDeletion"
#define ORPHAN "orphan"

struct watched {
	struct gc *gc;
	size_t row;
	struct informer *informer;
};

struct gc {
	struct run *r;
	struct gc_graph *graph;
	struct watched *watched; /* one a row of resource_rows; informer NULL: not watched */
};

enum owner_state { OWNER_SOLID, OWNER_DANGLING, OWNER_WAITING };

struct item {
	size_t row;
	struct str uid, key;
};

/* ---- keys ---- */
static struct str item_text(struct buf *b, size_t row, struct str uid, struct str key)
{
	buf_clear(b);
	buf_addf(b, "%zu|" STR_FMT "|" STR_FMT, row, STR_ARG(uid), STR_ARG(key));
	return buf_str(b);
}

static bool item_parse(struct str text, struct item *ret)
{
	struct str row, rest;
	int64_t n;

	if (!str_cut(text, '|', &row, &rest) || str_to_i64(row, &n) || n < 0 ||
		(size_t)n >= n_resource_rows)
		return false;
	ret->row = (size_t)n;
	return str_cut(rest, '|', &ret->uid, &ret->key);
}

static bool has_finalizer(const struct meta_v1_object_meta *m, const char *name)
{
	return str_list_has(&m->finalizers, str_of(name));
}

static bool deletes_in(const struct meta_v1_object_meta *m, const char *finalizer)
{
	return m && !time_is_zero(m->deletion_timestamp) && has_finalizer(m, finalizer);
}

/* ---- owners ---- */
/* The row of an owner reference's kind; n_resource_rows: none of ours. */
static size_t row_of(const struct meta_v1_owner_reference *o)
{
	struct str group, version;

	if (!str_cut(o->api_version, '/', &group, &version)) {
		group = STR_NONE;
		version = o->api_version;
	}
	for (size_t i = 0; i < n_resource_rows; i++)
		if (str_eqz(o->kind, resource_rows[i].kind) &&
			str_eqz(group, resource_rows[i].group))
			return i; /* any version: the first is the one watched */
	return n_resource_rows;
}

static struct str owner_key(
	struct buf *b, const struct meta_v1_owner_reference *o, size_t row, struct str ns)
{
	buf_clear(b);
	if (resource_rows[row].namespaced)
		buf_addf(b, STR_FMT "/", STR_ARG(ns));
	buf_add_str(b, o->name);
	return buf_str(b);
}

/* A reference to the cached owner with this uid, or NULL. */
static struct cached *cached_owner(
	struct gc *gc, const struct meta_v1_owner_reference *o, struct str ns, size_t *ret_row)
{
	struct buf b CLEAN_BUF = { 0 };
	size_t row = row_of(o);

	*ret_row = row;
	if (row == n_resource_rows || !gc->watched[row].informer)
		return NULL;
	struct cached *c = informer_get(gc->watched[row].informer, owner_key(&b, o, row, ns));

	if (c && !str_eq(c->meta->uid, o->uid)) {
		cached_unref(c);
		return NULL;
	}
	return c;
}

/* Whether the server said that this reference, from this namespace, leads nowhere. */
static struct str absent_key(
	const struct meta_v1_owner_reference *o, struct str ns, struct arena *a)
{
	const struct str parts[] = { o->uid, STR("\n"), ns, STR("\n"), o->api_version, STR("\n"),
		o->kind, STR("\n"), o->name };

	return arena_concat(a, parts, ARRAY_LEN(parts));
}

static struct str encoded(struct str text, struct arena *a)
{
	struct buf b CLEAN_BUF = { 0 };

	url_encode(&b, text);
	return arena_str(a, buf_str(&b));
}

static const struct value *member(const struct value *o, const char *key)
{
	return o && o->kind == VALUE_OBJECT ? value_get(o, str_of(key)) : NULL;
}

/* The collection's path of a kind that is none of ours, by discovery. Empty: the server does not know it. */
static struct str discover(
	struct run *r, const struct meta_v1_owner_reference *o, struct str ns, struct err *err)
{
	struct value v;
	struct str body;
	struct str group, version, base;

	if (str_cut(o->api_version, '/', &group, &version))
		base = arena_fmt(r->arena, "/apis/" STR_FMT "/" STR_FMT,
			STR_ARG(encoded(group, r->arena)), STR_ARG(encoded(version, r->arena)));
	else
		base = arena_fmt(
			r->arena, "/api/" STR_FMT, STR_ARG(encoded(o->api_version, r->arena)));

	if (client_raw(r->client, "GET", base.p, STR_NONE, STR_NONE, r->arena, &body, NULL, err) ||
		json_parse(body, r->arena, &v, err))
		return STR_NONE;
	const struct value *list = member(&v, "resources");

	for (size_t i = 0; list && list->kind == VALUE_LIST && i < list->list.len; i++) {
		const struct value *kind = member(&list->list.items[i], "kind");
		const struct value *name = member(&list->list.items[i], "name");
		const struct value *namespaced = member(&list->list.items[i], "namespaced");

		if (!kind || !name || !str_eq(kind->text, o->kind) ||
			str_find(name->text, '/') >= 0)
			continue;
		return namespaced && namespaced->boolean
			? arena_fmt(r->arena, STR_FMT "/namespaces/" STR_FMT "/" STR_FMT,
				  STR_ARG(base), STR_ARG(ns), STR_ARG(name->text))
			: arena_fmt(r->arena, STR_FMT "/" STR_FMT, STR_ARG(base),
				  STR_ARG(name->text));
	}
	return STR_NONE;
}

static int ask_server(struct run *r, const struct meta_v1_owner_reference *o, struct str ns,
	size_t row, enum owner_state *ret, struct err *err)
{
	struct gc *gc = r->state;
	struct value v;
	struct str body, base;
	int ret_code;

	if (row < n_resource_rows) {
		const struct resource_row *rr = &resource_rows[row];
		struct str prefix = *rr->group
			? arena_fmt(r->arena, "/apis/%s/%s", rr->group, rr->version)
			: arena_fmt(r->arena, "/api/%s", rr->version);

		base = rr->namespaced
			? arena_fmt(r->arena, STR_FMT "/namespaces/" STR_FMT "/%s", STR_ARG(prefix),
				  STR_ARG(ns), rr->plural)
			: arena_fmt(r->arena, STR_FMT "/%s", STR_ARG(prefix), rr->plural);
	} else {
		base = discover(r, o, ns, err);
	}
	*ret = OWNER_SOLID;
	if (!base.len)
		return 0; /* rule 4 */
	int k = client_raw(r->client, "GET",
		arena_fmt(r->arena, STR_FMT "/" STR_FMT, STR_ARG(base),
			STR_ARG(encoded(o->name, r->arena)))
			.p,
		STR_NONE, STR_NONE, r->arena, &body, &ret_code, err);

	if (k == CLIENT_NOT_FOUND) {
		gc_graph_set_gone(gc->graph, absent_key(o, ns, r->arena));
		*ret = OWNER_DANGLING;
		return 0;
	}
	if (k || (k = json_parse(body, r->arena, &v, err)))
		return k;
	const struct value *meta = member(&v, "metadata"), *uid = member(meta, "uid");
	const struct value *finalizers = member(meta, "finalizers");

	if (!uid || !str_eq(uid->text, o->uid)) {
		gc_graph_set_gone(gc->graph, absent_key(o, ns, r->arena));
		*ret = OWNER_DANGLING;
		return 0;
	}
	for (size_t i = 0;
		member(meta, "deletionTimestamp") && finalizers && i < finalizers->list.len; i++)
		if (str_eqz(finalizers->list.items[i].text, FOREGROUND))
			*ret = OWNER_WAITING;
	return 0;
}

static int owner_state(struct run *r, const struct meta_v1_owner_reference *o, struct str ns,
	enum owner_state *ret, struct err *err)
{
	struct gc *gc = r->state;
	size_t row;

	if (gc_graph_is_gone(gc->graph, o->uid) ||
		gc_graph_is_gone(gc->graph, absent_key(o, ns, r->arena))) {
		*ret = OWNER_DANGLING;
		return 0;
	}
	struct cached *c = cached_owner(gc, o, ns, &row);

	if (c) {
		*ret = deletes_in(c->meta, FOREGROUND) ? OWNER_WAITING : OWNER_SOLID;
		cached_unref(c);
		return 0;
	}
	if (row < n_resource_rows && resource_rows[row].namespaced && !ns.len) {
		*ret = OWNER_SOLID; /* a cluster-wide object cannot be owned from within a namespace: not ours to judge */
		return 0;
	}
	return ask_server(r, o, ns, row, ret, err);
}

/* ---- acts ---- */
static const struct type *type_of(const struct item *it)
{
	return resource_rows[it->row].type;
}

static bool same_owners(const struct meta_v1_object_meta *a, const struct meta_v1_object_meta *b)
{
	const struct meta_v1_object_meta x = { .owner_references = a->owner_references },
					 y = { .owner_references = b->owner_references };

	return model_equal(&meta_v1_object_meta_type, &x, &y);
}

static int delete_item(struct run *r, const struct item *it, const struct meta_v1_object_meta *m,
	const char *propagation, struct err *err)
{
	struct client_delete o = { .grace_seconds = -1,
		.uid = m->uid,
		.resource_version = m->resource_version,
		.propagation = propagation };
	void *live;
	int ret = client_delete(r->client, type_of(it), m->namespace, m->name, &o, err);

	if (ret == CLIENT_CONFLICT) { /* changed meanwhile: still the same owners? */
		ret = client_get(
			r->client, type_of(it), m->namespace, m->name, r->arena, &live, err);
		if (ret)
			return ret == CLIENT_NOT_FOUND ? 0 : ret;
		const struct meta_v1_object_meta *lm = model_meta(type_of(it), live);

		if (!str_eq(lm->uid, m->uid))
			return 0;
		if (!same_owners(lm, m))
			return err_set(err, CLIENT_CONFLICT, "its owners changed meanwhile");
		o.resource_version = lm->resource_version;
		ret = client_delete(r->client, type_of(it), m->namespace, m->name, &o, err);
	}
	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

static int drop_finalizer(struct run *r, const struct item *it, const struct meta_v1_object_meta *m,
	const char *name, struct err *err)
{
	struct buf b CLEAN_BUF = { 0 };
	bool first = true;

	buf_addf(&b, "{\"metadata\":{\"resourceVersion\":\"" STR_FMT "\",\"finalizers\":[",
		STR_ARG(m->resource_version));
	LIST_EACH(f, &m->finalizers) {
		if (str_eqz(*f, name))
			continue;
		if (!first)
			buf_addc(&b, ',');
		first = false;
		json_write_text(*f, &b);
	}
	buf_addz(&b, "]}}");
	int ret = client_patch(r->client, type_of(it), m->namespace, m->name, NULL,
		CLIENT_PATCH_MERGE, buf_str(&b), r->arena, NULL, err);

	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

/* Takes the owner references whose uid is in `uids` off the object. */
static int drop_references(struct run *r, const struct item *it,
	const struct meta_v1_object_meta *m, const struct str_list *uids, struct err *err)
{
	struct buf b CLEAN_BUF = { 0 };
	bool first = true;

	buf_addf(&b,
		"{\"metadata\":{\"uid\":\"" STR_FMT "\",\"resourceVersion\":\"" STR_FMT
		"\",\"ownerReferences\":[",
		STR_ARG(m->uid), STR_ARG(m->resource_version));
	LIST_EACH(o, &m->owner_references) {
		if (str_list_has(uids, o->uid))
			continue;
		if (!first)
			buf_addc(&b, ',');
		first = false;
		json_encode(&meta_v1_owner_reference_type, o, &b);
	}
	buf_addz(&b, "]}}");
	int ret = client_patch(r->client, type_of(it), m->namespace, m->name, NULL,
		CLIENT_PATCH_MERGE, buf_str(&b), r->arena, NULL, err);

	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

static const struct meta_v1_owner_reference *reference_to(
	const struct meta_v1_object_meta *m, struct str uid)
{
	LIST_EACH(o, &m->owner_references)
		if (str_eq(o->uid, uid))
			return o;
	return NULL;
}

/* Of an object's key: its cached metadata, held until the reconcile ends; NULL: gone. */
static const struct meta_v1_object_meta *item_meta(struct run *r, struct str text, struct item *ret)
{
	struct gc *gc = r->state;

	if (!item_parse(text, ret) || !gc->watched[ret->row].informer)
		return NULL;
	struct cached *c = informer_get(gc->watched[ret->row].informer, ret->key);

	if (!c || !str_eq(c->meta->uid, ret->uid)) {
		cached_unref(c);
		return NULL;
	}
	const struct meta_v1_object_meta *m =
		model_copy(&meta_v1_object_meta_type, c->meta, r->arena);

	cached_unref(c);
	return m;
}

/* As item_meta, of what names `it` as an owner; NULL too when it cannot be one (rule 5). */
static const struct meta_v1_object_meta *dependent_meta(struct run *r, const struct item *it,
	const struct meta_v1_object_meta *owner, struct str text, struct item *ret)
{
	const struct meta_v1_object_meta *m = item_meta(r, text, ret);

	return m && resource_rows[it->row].namespaced && !str_eq(m->namespace, owner->namespace)
		? NULL
		: m;
}

static int orphan_dependents(
	struct run *r, const struct item *it, const struct meta_v1_object_meta *m, struct err *err)
{
	struct gc *gc = r->state;
	struct str_list dependents = gc_graph_dependents(gc->graph, it->uid, r->arena);
	struct str_list uids = { (struct str *)&it->uid, 1 };

	LIST_EACH(text, &dependents) {
		struct item dep;
		const struct meta_v1_object_meta *dm = dependent_meta(r, it, m, *text, &dep);
		int ret = dm ? drop_references(r, &dep, dm, &uids, err) : 0;

		if (ret)
			return ret;
	}
	return drop_finalizer(r, it, m, ORPHAN, err);
}

static int wait_for_dependents(
	struct run *r, const struct item *it, const struct meta_v1_object_meta *m, struct err *err)
{
	struct gc *gc = r->state;
	struct str_list dependents = gc_graph_dependents(gc->graph, it->uid, r->arena);
	size_t blocking = 0;

	LIST_EACH(text, &dependents) {
		struct item dep;
		const struct meta_v1_object_meta *dm = dependent_meta(r, it, m, *text, &dep);
		const struct meta_v1_owner_reference *ref = dm ? reference_to(dm, it->uid) : NULL;

		if (!ref || !ref->block_owner_deletion.value)
			continue;
		blocking++;
		if (time_is_zero(dm->deletion_timestamp))
			enqueue(r, *text);
	}
	return blocking ? 0 : drop_finalizer(r, it, m, FOREGROUND, err);
}

/* X and one of its dependents wait for each other: X's references stop blocking. */
static int unblock(
	struct run *r, const struct item *it, const struct meta_v1_object_meta *m, struct err *err)
{
	struct meta_v1_object_meta copy = *m;
	struct buf b CLEAN_BUF = { 0 };
	bool first = true;

	buf_addf(&b, "{\"metadata\":{\"uid\":\"" STR_FMT "\",\"ownerReferences\":[",
		STR_ARG(m->uid));
	LIST_EACH(o, &copy.owner_references) {
		struct meta_v1_owner_reference ref = *o;

		ref.block_owner_deletion = (struct opt_bool)SOME(false);
		if (!first)
			buf_addc(&b, ',');
		first = false;
		json_encode(&meta_v1_owner_reference_type, &ref, &b);
	}
	buf_addz(&b, "]}}");
	return client_patch(r->client, type_of(it), m->namespace, m->name, NULL, CLIENT_PATCH_MERGE,
		buf_str(&b), r->arena, NULL, err);
}

static bool in_a_circle(struct run *r, const struct item *it, const struct meta_v1_object_meta *m)
{
	struct gc *gc = r->state;
	struct str_list dependents = gc_graph_dependents(gc->graph, it->uid, r->arena);

	LIST_EACH(text, &dependents) {
		struct item dep;
		const struct meta_v1_object_meta *dm = dependent_meta(r, it, m, *text, &dep);

		if (dm && deletes_in(dm, FOREGROUND))
			return true;
	}
	return false;
}

static int judge(
	struct run *r, const struct item *it, const struct meta_v1_object_meta *m, struct err *err)
{
	struct gc *gc = r->state;
	struct str_list away = { 0 };
	size_t solid = 0, waiting = 0;

	LIST_EACH(o, &m->owner_references) {
		enum owner_state st;
		int ret = owner_state(r, o, m->namespace, &st, err);

		if (ret)
			return ret;
		solid += st == OWNER_SOLID;
		waiting += st == OWNER_WAITING;
		if (st != OWNER_SOLID)
			*LIST_ADD(r->arena, &away) = o->uid;
	}
	if (!away.len)
		return 0;
	if (solid)
		return drop_references(r, it, m, &away, err);
	if (waiting && gc_graph_count(gc->graph, it->uid)) {
		int ret = in_a_circle(r, it, m) ? unblock(r, it, m, err) : 0;

		return ret ? ret : delete_item(r, it, m, "Foreground", err);
	}
	return delete_item(r, it, m,
		has_finalizer(m, ORPHAN)               ? "Orphan"
			: has_finalizer(m, FOREGROUND) ? "Foreground"
						       : "Background",
		err);
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	struct item it;
	const struct meta_v1_object_meta *m = item_meta(r, key, &it);

	if (!m)
		return 0;
	if (time_is_zero(m->deletion_timestamp))
		return judge(r, &it, m, err);
	if (has_finalizer(m, ORPHAN))
		return orphan_dependents(r, &it, m, err);
	if (has_finalizer(m, FOREGROUND))
		return wait_for_dependents(r, &it, m, err);
	return 0;
}

/* ---- events ---- */
static void enqueue_dependents(struct gc *gc, struct str uid)
{
	if (!gc_graph_count(gc->graph, uid))
		return;
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct str_list l = gc_graph_dependents(gc->graph, uid, a);

	LIST_EACH(text, &l)
		enqueue(gc->r, *text);
}

static void link_owners(
	struct gc *gc, size_t row, const struct cached *old, const struct cached *now)
{
	const struct cached *any = now ? now : old;
	struct buf b CLEAN_BUF = { 0 };
	struct str text = item_text(&b, row, any->meta->uid, any->key);

	if (old)
		LIST_EACH(o, &old->meta->owner_references)
			if (!now || !reference_to(now->meta, o->uid))
				gc_graph_unlink(gc->graph, o->uid, text);
	if (now)
		LIST_EACH(o, &now->meta->owner_references)
			if (!old || !reference_to(old->meta, o->uid))
				gc_graph_link(gc->graph, o->uid, text);
}

/* Anything to judge about a live object whose references are new? */
static bool owners_doubtful(struct gc *gc, const struct cached *c)
{
	bool doubtful = false;

	LIST_EACH(o, &c->meta->owner_references) {
		size_t row;
		struct cached *owner = cached_owner(gc, o, c->meta->namespace, &row);

		doubtful |= !owner || deletes_in(owner->meta, FOREGROUND);
		cached_unref(owner);
	}
	return doubtful;
}

/* Owners that wait for this dependent may go on. */
static void wake_waiting_owners(struct gc *gc, const struct cached *c)
{
	LIST_EACH(o, &c->meta->owner_references) {
		struct buf b CLEAN_BUF = { 0 };
		size_t row;
		struct cached *owner = cached_owner(gc, o, c->meta->namespace, &row);

		if (owner && deletes_in(owner->meta, FOREGROUND))
			enqueue(gc->r, item_text(&b, row, owner->meta->uid, owner->key));
		cached_unref(owner);
	}
}

static void on_event(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct watched *w = arg;
	struct gc *gc = w->gc;
	struct buf b CLEAN_BUF = { 0 };

	if ((old && old->meta->owner_references.len) || (now && now->meta->owner_references.len))
		link_owners(gc, w->row, old, now);
	if (!now) {
		if (gc_graph_count(gc->graph, old->meta->uid))
			gc_graph_set_gone(gc->graph, old->meta->uid);
		enqueue_dependents(gc, old->meta->uid);
		wake_waiting_owners(gc, old);
		return;
	}
	struct str text = item_text(&b, w->row, now->meta->uid, now->key);

	if (deletes_in(now->meta, FOREGROUND) || deletes_in(now->meta, ORPHAN)) {
		if (deletes_in(now->meta, FOREGROUND) &&
			(!old || !deletes_in(old->meta, FOREGROUND)))
			enqueue_dependents(gc, now->meta->uid);
		enqueue(gc->r, text);
	} else if (now->meta->owner_references.len && time_is_zero(now->meta->deletion_timestamp) &&
		(!old || !same_owners(old->meta, now->meta)) && owners_doubtful(gc, now)) {
		enqueue(gc->r, text);
	}
	if (old && !same_owners(old->meta, now->meta))
		wake_waiting_owners(gc, old);
}

static bool collected(size_t row)
{
	const struct resource_row *rr = &resource_rows[row];

	if (!rr->list_type || !(rr->verbs & VERB_WATCH) || !(rr->verbs & VERB_DELETE) ||
		!strcmp(rr->plural, "events"))
		return false;
	for (size_t i = 0; i < row; i++)
		if (!strcmp(resource_rows[i].group, rr->group) &&
			!strcmp(resource_rows[i].plural, rr->plural))
			return false;
	return true;
}

static int init(struct run *r, struct err *err)
{
	struct gc *gc = xcalloc(1, sizeof(*gc));

	gc->r = r;
	gc->graph = gc_graph_new();
	gc->watched = xcalloc(n_resource_rows, sizeof(*gc->watched));
	for (size_t i = 0; i < n_resource_rows; i++) {
		if (!collected(i))
			continue;
		gc->watched[i] = (struct watched){ gc, i,
			informers_get_meta(r->config->informers, resource_rows[i].type) };
		informer_add_handler(gc->watched[i].informer, on_event, &gc->watched[i]);
	}
	r->state = gc;
	return 0;
}

static void deinit(struct run *r)
{
	struct gc *gc = r->state;

	if (!gc)
		return;
	gc_graph_free(gc->graph);
	free(gc->watched);
	free(gc);
}

const struct controller garbage_collector = {
	.name = "garbagecollector",
	.bulk = true,
	.component = "garbage-collector-controller",
	.init = init,
	.deinit = deinit,
	.reconcile = reconcile,
};
