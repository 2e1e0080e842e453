/* Delete and deletecollection. Upstream: registry/rest's BeforeDelete, the generic store's Delete.
 *
 * 1. A kind with grace is marked first (deletionTimestamp, deletionGracePeriodSeconds) and goes when its keeper deletes it with 0.
 * 2. Finalizers, or what else holds a kind, keep an object marked; the update that removes the last one deletes it.
 * 3. A collection goes in batches: each object is a delete of its own, no more than BATCH are under way. */
#include "registry/internal.h"

enum { BATCH = 64 };

struct deletion {
	struct meta_v1_delete_options opt;
	bool graceful, pending;
};

/* ---- options ---- */

static const struct resource options_resource = {
	.group = { "meta.k8s.io", 11 },
	.version = { "v1", 2 },
	.kind_name = { "DeleteOptions", 13 },
	.plural = { "deleteoptions", 13 },
};

static struct meta_v1_status *check_options(struct write *w, const struct meta_v1_delete_options *o)
{
	struct causes cs = { .arena = w->arena };
	struct str policy = o->propagation_policy;
	if (o->orphan_dependents.set && policy.p)
		cause_add(&cs, CAUSE_INVALID, STR("propagationPolicy"), policy,
			"orphanDependents and deletionPropagation cannot be both set");
	if (policy.p && !str_eqz(policy, "Foreground") && !str_eqz(policy, "Background") &&
		!str_eqz(policy, "Orphan"))
		cause_add(&cs, CAUSE_NOT_SUPPORTED, STR("propagationPolicy"), policy,
			"supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"");
	return cs.len ? status_invalid(w->arena, &options_resource, STR_NONE, &cs) : NULL;
}

static struct meta_v1_status *check_preconditions(
	struct write *w, const struct meta_v1_preconditions *p)
{
	struct meta_v1_object_meta *old = write_old_meta(w);
	if (!p)
		return NULL;
	if (p->uid.p && !str_eq(p->uid, old->uid))
		return status_conflict(w->arena, w->res, w->req->name,
			arena_fmt(w->arena,
				"the UID in the precondition (" STR_FMT
				") does not match the UID in record (" STR_FMT
				"). The object might have been deleted and "
				"then recreated",
				STR_ARG(p->uid), STR_ARG(old->uid))
				.p);
	if (p->resource_version.p && !str_eq(p->resource_version, old->resource_version))
		return status_conflict(w->arena, w->res, w->req->name,
			arena_fmt(w->arena,
				"the ResourceVersion in the precondition (" STR_FMT
				") does not match the ResourceVersion in record (" STR_FMT
				"). The object might "
				"have been modified",
				STR_ARG(p->resource_version), STR_ARG(old->resource_version))
				.p);
	return NULL;
}

/* ---- finalizers of the garbage collector ---- */

static void want_finalizers(struct write *w, const struct meta_v1_delete_options *o,
	bool *ret_orphan, bool *ret_foreground)
{
	const struct str_list *have = &write_old_meta(w)->finalizers;
	struct str policy = o->propagation_policy;
	bool by_kind = w->res->kind && w->res->kind->flags & KIND_ORPHANS;
	if (o->orphan_dependents.set) {
		*ret_orphan = o->orphan_dependents.value;
		*ret_foreground = false;
	} else if (policy.p) {
		*ret_orphan = str_eqz(policy, "Orphan");
		*ret_foreground = str_eqz(policy, "Foreground");
	} else {
		bool orphan = str_list_has(have, STR("orphan")),
		     foreground = str_list_has(have, STR("foregroundDeletion"));
		*ret_orphan = orphan || (by_kind && !foreground);
		*ret_foreground = foreground;
	}
}

/* The list with or without the two; true: it differs. */
static bool update_finalizers(struct write *w, const struct meta_v1_delete_options *o)
{
	struct meta_v1_object_meta *m = write_meta(w);
	const struct str_list old = m->finalizers;
	struct str_list now = { 0 };
	bool orphan, foreground;
	want_finalizers(w, o, &orphan, &foreground);
	bool same = str_list_has(&old, STR("orphan")) == orphan &&
		str_list_has(&old, STR("foregroundDeletion")) == foreground;
	if (same)
		return false;
	LIST_EACH(f, &old) {
		if (!str_eqz(*f, "orphan") && !str_eqz(*f, "foregroundDeletion"))
			*LIST_ADD(w->arena, &now) = *f;
	}
	if (orphan)
		*LIST_ADD(w->arena, &now) = STR("orphan");
	if (foreground)
		*LIST_ADD(w->arena, &now) = STR("foregroundDeletion");
	m->finalizers = now;
	return true;
}

/* ---- grace ---- */

static void set_deletion(struct write *w, struct timestamp at, int64_t grace)
{
	struct meta_v1_object_meta *m = write_meta(w);
	at.nsec = 0;
	m->deletion_timestamp = at;
	m->deletion_grace_period_seconds = (struct opt_int64)SOME(grace);
}

static void begin_grace(struct write *w, struct deletion *d)
{
	struct meta_v1_object_meta *m = write_meta(w);
	const struct kind *k = w->res->kind;
	if (!k || !k->grace)
		return;
	if (!time_is_zero(m->deletion_timestamp)) {
		struct opt_int64 present = m->deletion_grace_period_seconds,
				 asked = d->opt.grace_period_seconds;
		if (!present.set)
			return;
		if (!asked.set || asked.value >= present.value) {
			d->pending = present.value > 0 || m->finalizers.len > 0;
			return;
		}
		set_deletion(w,
			time_add_ns(
				m->deletion_timestamp, (asked.value - present.value) * 1000000000),
			asked.value);
		d->graceful = true;
		return;
	}
	int64_t grace = k->grace(w, w->obj, &d->opt);
	set_deletion(w, time_add_ns(w->now, grace * 1000000000), grace);
	if (m->generation > 0)
		m->generation++;
	d->graceful = true;
}

static void mark(struct write *w)
{
	struct meta_v1_object_meta *m = write_meta(w);
	if (!time_is_zero(m->deletion_timestamp)) {
		m->deletion_grace_period_seconds = (struct opt_int64)SOME(0);
		return;
	}
	set_deletion(w, w->now, 0);
	if (m->generation > 0)
		m->generation++;
	if (w->res->kind && w->res->kind->begin_delete)
		w->res->kind->begin_delete(w);
}

/* ---- the answer ---- */

static void answer_deleted(struct write *w, struct object *o, struct registry_result *res)
{
	bool whole = w->res->kind && w->res->kind->flags & KIND_RETURN_DELETED;
	if (!w->remove || whole) {
		if (w->req->resource->storage != w->req->resource) {
			struct err err = { 0 };
			res->object = object_convert(w->req->resource, o, &err);
			res->status = res->object
				? NULL
				: status_new(w->arena, REASON_INTERNAL, "%s", err.text);
			res->code = res->object ? res->code : 500;
		} else {
			res->object = object_ref(o);
		}
		return;
	}
	res->status = status_success(
		w->arena, w->req->resource, write_old_meta(w)->name, write_old_meta(w)->uid);
	res->code = 200;
}

static void answer_dry_run(struct write *w)
{
	struct meta_v1_object_meta *m = write_meta(w);
	if (!w->remove || (w->res->kind && w->res->kind->flags & KIND_RETURN_DELETED))
		write_answer_obj(w, w->obj, w->type, w->created);
	else
		write_refuse(w, status_success(w->arena, w->req->resource, m->name, m->uid));
}

/* What stands against deleting the object that was loaded; NULL: nothing. */
static struct meta_v1_status *may_delete(struct write *w, const struct meta_v1_delete_options *o)
{
	const struct admission *ad = &w->r->config.admission;
	struct meta_v1_status *st = check_preconditions(w, o->preconditions);
	if (!st && w->res->kind && w->res->kind->check_delete)
		st = w->res->kind->check_delete(w);
	st = st ? st : write_admit(w);
	if (st || !ad->validate)
		return st;
	struct admission_attributes at = { .registry = w->r,
		.req = w->req,
		.operation = VERB_DELETE,
		.type = w->type,
		.old = w->old };
	return ad->validate(ad->arg, &at);
}

void write_run_delete(struct write *w)
{
	struct deletion d = { 0 };
	w->operation = VERB_DELETE;
	w->answer = answer_deleted;
	if (w->req->delete_options)
		d.opt = *w->req->delete_options;
	struct meta_v1_status *st = check_options(w, &d.opt);
	if (!st && !write_load(w))
		st = w->refused;
	st = st ? st : may_delete(w, &d.opt);
	if (st) {
		write_refuse(w, st);
		return;
	}
	w->obj = arena_memdup(w->arena, w->old, w->type->size);
	if (w->amend)
		w->amend(w);
	struct meta_v1_object_meta *m = write_meta(w);
	begin_grace(w, &d);
	bool held = false, differs = false;
	if (!d.pending) {
		differs = update_finalizers(w, &d.opt) || d.graceful;
		held = m->finalizers.len ||
			(w->res->kind && w->res->kind->held && w->res->kind->held(w->obj));
		if (held && !d.graceful)
			mark(w);
		differs |= held;
	}
	w->remove =
		!d.pending && !held && !(d.graceful && m->deletion_grace_period_seconds.value > 0);
	w->created = 200;
	if (!w->remove && d.opt.orphan_dependents.set && !d.opt.orphan_dependents.value)
		w->created = 202;
	if (w->req->dry_run)
		answer_dry_run(w);
	else if (!w->remove && (!differs || model_equal(w->type, w->obj, w->old)))
		write_answer_object(w, TAKE(w->current), w->created);
	else
		write_commit(w);
}

/* ---- collections ---- */

struct collection {
	struct write *w; /* the request's own */
	struct str *names, *namespaces;
	size_t n, next;
	_Atomic size_t under_way;
	pthread_mutex_t lock; /* guards failed */
	struct meta_v1_status *failed;
};
struct collection_item {
	struct collection *c;
	struct registry_request req;
};

static void collection_run(struct write *w);

static void collection_done(struct collection *c)
{
	if (atomic_fetch_sub(&c->under_way, 1) != 1)
		return;
	c->w->run = collection_run;
	retry_push(c->w->r->retry, c->w);
}

static void item_done(void *arg, struct registry_request *req, struct registry_result *res)
{
	struct collection_item *it = arg;
	struct collection *c = it->c;
	if (res->status && str_eqz(res->status->status, "Failure") && res->status->code != 404) {
		pthread_mutex_lock(&c->lock);
		if (!c->failed)
			c->failed = model_copy(&meta_v1_status_type, res->status, c->w->arena);
		pthread_mutex_unlock(&c->lock);
	}
	object_unref(res->object);
	arena_free(req->arena);
	collection_done(c);
}

static void collection_end(struct collection *c)
{
	struct write *w = c->w;
	struct meta_v1_status *st = c->failed;
	pthread_mutex_destroy(&c->lock);
	if (!st) {
		st = status_success(w->arena, w->req->resource, STR_NONE, STR_NONE);
		st->details->kind = w->req->resource->plural;
	}
	answer_status(w->req, st, w->done, w->arg);
}

/* One batch. under_way counts this function too, so that no item ends the batch before all of it was begun. */
static void collection_run(struct write *w)
{
	struct collection *c = w->scratch;
	if (c->next == c->n || c->failed) {
		collection_end(c);
		return;
	}
	atomic_store(&c->under_way, 1);
	for (size_t i = 0; i < BATCH && c->next < c->n; i++, c->next++) {
		struct arena *a = arena_new(0);
		struct collection_item *it = arena_alloc(a, sizeof(*it));
		it->c = c;
		it->req = *w->req;
		it->req.arena = a;
		it->req.verb = VERB_DELETE;
		it->req.ns = c->namespaces[c->next];
		it->req.name = c->names[c->next];
		atomic_fetch_add(&c->under_way, 1);
		write_run_delete(write_new(w->r, &it->req, item_done, it, write_run_delete));
	}
	collection_done(c);
}

void write_run_delete_collection(struct write *w)
{
	struct registry_list *l;
	struct meta_v1_status *st = NULL;
	struct object *o;
	if (registry_list_open(w->r, w->req, &l, &st)) {
		answer_status(w->req, st, w->done, w->arg);
		return;
	}
	struct collection *c = arena_alloc(w->arena, sizeof(*c));
	size_t cap = 0;
	c->w = w;
	w->scratch = c;
	pthread_mutex_init(&c->lock, NULL);
	while ((o = registry_list_next(l))) {
		if (c->n == cap) {
			size_t more = cap ? cap * 2 : 64;
			c->names = arena_grow(w->arena, c->names, cap * sizeof(struct str),
				more * sizeof(struct str));
			c->namespaces = arena_grow(w->arena, c->namespaces,
				cap * sizeof(struct str), more * sizeof(struct str));
			cap = more;
		}
		struct str ns, name;
		key_parts(w->res, o->key, &ns, &name);
		c->namespaces[c->n] = arena_str(w->arena, ns);
		c->names[c->n++] = arena_str(w->arena, name);
	}
	registry_list_free(l);
	collection_run(w);
}
