/* Create, and what create, update, patch and delete share.
 *
 * 1. prepare: defaults, admission, strategy, validation, on the caller's thread; nothing outside of the request changes.
 * 2. claim: what the kind takes outside of the object (addresses, ports); settled exactly once.
 * 3. commit: encoded once, handed to the store with the revision that was seen.
 * 4. the object changed meanwhile: all of it again on the retry thread. A client's condition (its resourceVersion) is looked at anew
 *    there, so it is refused by the same check as at first. */
#include "registry/internal.h"

enum {
	ATTEMPTS_MAX = 100,
	GENERATE_MAX = 8, /* names tried for one generateName, as upstream */
	WAIT_MS = 5000,   /* for a shared store */
};

struct write *write_new(struct registry *r, struct registry_request *req, registry_done_fn done,
	void *arg, write_run_fn run)
{
	struct write *w = arena_alloc(req->arena, sizeof(*w));
	w->r = r;
	w->req = req;
	w->arena = req->arena;
	w->res = req->resource->storage;
	w->type = w->res->row->type;
	w->done = done;
	w->arg = arg;
	w->run = run;
	w->now = r->config.clock->wall(r->config.clock);
	return w;
}

/* ---- the ends ---- */

void answer_status(
	struct registry_request *req, struct meta_v1_status *st, registry_done_fn done, void *arg)
{
	bool failed = !str_eqz(st->status, "Success");
	struct registry_result res = { .status = st,
		.code = failed     ? st->code
			: st->code ? st->code
				   : 200 };
	done(arg, req, &res);
}

void answer_object(
	struct registry_request *req, struct object *o, int code, registry_done_fn done, void *arg)
{
	struct registry_result res = { .code = code, .object = o };
	if (req->resource->storage != req->resource) {
		struct err err = { 0 };
		res.object = object_convert(req->resource, o, &err);
		object_unref(o);
		if (!res.object) {
			answer_status(req, status_new(req->arena, REASON_INTERNAL, "%s", err.text),
				done, arg);
			return;
		}
	}
	done(arg, req, &res);
}

static void drop_current(struct write *w)
{
	object_unref(w->current);
	w->current = NULL;
}

static void settle(struct write *w, bool committed)
{
	if (w->claimed && w->res->kind->settle)
		w->res->kind->settle(w, committed);
	w->claimed = false;
}

static void refused_in_time(void *arg, int result)
{
	struct write *w = arg;
	write_again(w); /* not known any better: refused by what is known */
}

void write_refuse(struct write *w, struct meta_v1_status *st)
{
	settle(w, false);
	drop_current(w);
	/* Others write to a shared store: a refusal counts only when what it rests on is not older than the request. */
	if (store_is_shared(w->r->store) && !w->fresh && w->run) {
		w->fresh = true;
		store_wait(w->r->store, 0, WAIT_MS, refused_in_time, w);
		return;
	}
	answer_status(w->req, st, w->done, w->arg);
}

void write_answer_obj(struct write *w, void *obj, const struct type *t, int code)
{
	settle(w, false);
	drop_current(w);
	struct registry_result res = { .code = code, .obj = obj, .obj_type = t };
	if (t == w->type && w->req->resource->storage != w->req->resource) {
		res.obj = extra_of(w->req->resource)->conversion->from_storage(obj, w->arena);
		res.obj_type = w->req->resource->row->type;
	}
	w->done(w->arg, w->req, &res);
}

void write_answer_object(struct write *w, struct object *o, int code)
{
	drop_current(w);
	if (w->answer) {
		struct registry_result res = { .code = code };
		w->answer(w, o, &res);
		object_unref(o);
		w->done(w->arg, w->req, &res);
		return;
	}
	answer_object(w->req, o, code, w->done, w->arg);
}

void write_again(struct write *w)
{
	drop_current(w);
	w->refused = NULL;
	w->remove = false;
	retry_push(w->r->retry, w);
}

/* ---- commit ---- */

static void finish_create(struct write *w)
{
	write_finish(w, 201);
}

static struct str ref_name(struct write *w)
{
	struct meta_v1_object_meta *m = w->obj ? write_meta(w) : write_old_meta(w);
	return m && m->name.len ? m->name : w->req->name;
}

static struct meta_v1_status *not_stored(struct write *w, int result)
{
	static const struct {
		int result;
		enum status_reason reason;
		const char *text;
	} rows[] = {
		{ -ENOSPC, REASON_INTERNAL,
			"was not stored: no room on the server's disk (of etcd: or its quota is used up); free some and try again" },
		{ -EMSGSIZE, REASON_TOO_LARGE, "was not stored: it is larger than etcd takes" },
		{ -EHOSTUNREACH, REASON_TIMEOUT, "was not stored: etcd cannot be reached" },
		{ -ETIMEDOUT, REASON_TIMEOUT,
			"may have been stored or not: etcd did not answer in time. Read it before writing again" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].result == result)
			return status_new(w->arena, rows[i].reason, "%s \"" STR_FMT "\" %s",
				w->res->row->plural, STR_ARG(ref_name(w)), rows[i].text);
	return status_new(w->arena, REASON_INTERNAL, "%s \"" STR_FMT "\" was not stored: %s",
		w->res->row->plural, STR_ARG(ref_name(w)), strerror(-result));
}

static void commit_failed(struct write *w, int result)
{
	settle(w, false);
	if (result < 0) {
		w->fresh = true;
		write_refuse(w, not_stored(w, result));
		return;
	}
	bool may_be_there = w->req->verb == VERB_UPDATE ||
		w->req->verb == VERB_PATCH; /* then it is updated instead */
	if (w->operation == VERB_CREATE && result == STORE_EXISTS && !may_be_there) {
		if (w->generated && ++w->attempts < GENERATE_MAX) {
			meta_generate_name(w);
			w->run = finish_create;
			retry_push(w->r->retry, w);
			return;
		}
		write_refuse(w, status_already_exists(w->arena, w->res, ref_name(w)));
		return;
	}
	if (++w->attempts < ATTEMPTS_MAX) {
		write_again(w);
		return;
	}
	write_refuse(w, status_conflict(w->arena, w->res, ref_name(w), NULL));
}

/* On the writer thread. */
static void committed(void *arg, int result, struct object *o)
{
	struct write *w = arg;
	if (result) {
		commit_failed(w, result);
		return;
	}
	settle(w, true);
	if (!w->remove && w->res->kind && w->res->kind->ttl_s)
		retry_watch_age(w->r->retry);
	if (w->remove && w->res->kind && w->res->kind->deleted)
		w->res->kind->deleted(w->r, o);
	write_answer_object(w, object_ref(o), w->created);
}

/* Cuts canonical JSON around the value of metadata.resourceVersion: the first such key, since only texts without a bare quote
 * stand before it. */
void json_cut_revision(struct str json, struct str *ret_head, struct str *ret_tail)
{
	static const char mark[] = "\"resourceVersion\":\"";
	const char *at = memmem(json.p, json.len, mark, sizeof(mark) - 1);
	if (!at) {
		*ret_head = json;
		*ret_tail = STR_NONE;
		return;
	}
	at += sizeof(mark) - 1;
	const char *end = memchr(at, '"', (size_t)(json.p + json.len - at));
	*ret_head = str_n(json.p, (size_t)(at - json.p));
	*ret_tail = str_n(end, (size_t)(json.p + json.len - end));
}

void write_commit(struct write *w)
{
	struct meta_v1_object_meta *m = write_meta(w);
	struct object_head *head = w->obj;
	CLEAN_BUF struct buf json = { 0 };
	struct object_pair *fields;
	struct store_op op = {
		.verb = w->remove    ? STORE_DELETE
			: w->current ? STORE_UPDATE
				     : STORE_CREATE,
		.expect = w->current ? w->current->revision : 0,
	};
	head->api_version = w->res->api_version;
	head->kind = w->res->kind_name;
	CLEAN_BUF struct buf stored = { 0 };
	if (store_is_shared(w->r->store) && !w->remove) {
		m->resource_version = STR("");
		proto_encode_object(w->type, w->obj, &stored);
		op.value = buf_str(&stored);
		op.ttl_s = w->res->kind ? w->res->kind->ttl_s : 0;
		op.guard_revision = w->guard_revision;
		op.guard = w->guard_revision ? str_of(w->res->row->plural) : STR_NONE;
	}
	m->resource_version = STR("0");
	buf_reserve(&json, 4096);
	json_encode(w->type, w->obj, &json);
	json_cut_revision(buf_str(&json), &op.json_head, &op.json_tail);
	op.key = resource_key(w->res, m->namespace, m->name, w->arena);
	op.labels = (const struct object_pair *)m->labels.items;
	op.n_labels = m->labels.len;
	fields_of(w->res, w->obj, w->arena, &fields, &op.n_fields);
	op.fields = fields;
	store_submit(w->r->store, &op, committed, w);
}

/* ---- the checks that every write passes ---- */

struct meta_v1_status *write_check_namespace(struct write *w)
{
	struct str ns = w->req->ns;
	if (!w->res->row->namespaced)
		return NULL;
	const struct resource *namespaces =
		registry_resource(w->r, STR(""), STR("v1"), STR("namespaces"));
	CLEAN_OBJECT struct object *o = NULL;
	if (store_get(w->r->store, resource_key(namespaces, STR_NONE, ns, w->arena), &o))
		return status_not_found(w->arena, namespaces, ns);
	for (size_t i = 0; i < o->n_fields; i++) {
		if (!str_eqz(o->fields[i].key, "status.phase") ||
			!str_eqz(o->fields[i].value, "Terminating"))
			continue;
		struct meta_v1_object_meta *m = write_meta(w);
		struct meta_v1_status *st =
			status_forbidden(w->arena, w->res, m->name.len ? m->name : m->generate_name,
				"unable to create new content in namespace " STR_FMT
				" because it is being terminated",
				STR_ARG(ns));
		struct meta_v1_status_cause *c = LIST_ADD(w->arena, &st->details->causes);
		c->reason = STR("NamespaceTerminating");
		c->message = arena_fmt(
			w->arena, "namespace " STR_FMT " is being terminated", STR_ARG(ns));
		c->field = STR("metadata.namespace");
		return st;
	}
	return NULL;
}

void write_defaults(struct write *w)
{
	model_default(w->type, w->obj, w->arena);
	if (w->res->kind && w->res->kind->fill)
		w->res->kind->fill(w, w->obj);
}

static struct admission_attributes attributes(struct write *w)
{
	return (struct admission_attributes){
		.registry = w->r,
		.req = w->req,
		.operation = w->operation,
		.type = w->type,
		.obj = w->operation == VERB_DELETE ? NULL : w->obj,
		.old = w->old,
	};
}

struct meta_v1_status *write_admit(struct write *w)
{
	const struct admission *ad = &w->r->config.admission;
	if (!ad->admit)
		return NULL;
	struct admission_attributes at = attributes(w);
	struct meta_v1_status *st = ad->admit(ad->arg, &at);
	if (!st && w->operation != VERB_DELETE)
		write_defaults(w);
	return st;
}

struct meta_v1_status *write_validate(struct write *w)
{
	struct causes cs = { .arena = w->arena };
	const struct kind *k = w->res->kind;
	if (w->operation == VERB_CREATE) {
		meta_validate_create(w, &cs);
		model_validate(w->type, w->obj, STR_NONE, &cs);
		if (k && k->validate)
			k->validate(w, &cs);
	} else if (w->sub) {
		meta_validate_update(w, &cs);
		if (w->sub->validate)
			w->sub->validate(w, &cs);
		else
			model_validate(w->type, w->obj, STR_NONE, &cs);
	} else {
		meta_validate_update(w, &cs);
		model_validate(w->type, w->obj, STR_NONE, &cs);
		model_validate_update(w->type, w->obj, w->old, STR_NONE, &cs);
		if (k && k->validate)
			k->validate(w, &cs);
		if (k && k->validate_update)
			k->validate_update(w, &cs);
	}
	if (k && k->warning && !w->sub && w->attempts == 0)
		*LIST_ADD(w->arena, &w->req->warnings) = str_of(k->warning);
	if (cs.len)
		return status_invalid(w->arena, w->res, ref_name(w), &cs);
	const struct admission *ad = &w->r->config.admission;
	if (!ad->validate)
		return NULL;
	struct admission_attributes at = attributes(w);
	return ad->validate(ad->arg, &at);
}

void write_finish(struct write *w, int code)
{
	const struct kind *k = w->res->kind;
	w->created = code;
	if (k && k->claim && !w->sub) {
		w->claimed = true;
		struct meta_v1_status *st = k->claim(w);
		if (st) {
			write_refuse(w, st);
			return;
		}
	}
	if (w->req->dry_run)
		write_answer_obj(w, w->obj, w->type, code);
	else
		write_commit(w);
}

/* ---- create ---- */

void write_create(struct write *w)
{
	const struct kind *k = w->res->kind;
	const struct resource_extra *x = extra_of(w->res);
	w->operation = VERB_CREATE;
	struct meta_v1_status *st = write_check_namespace(w);
	if (!st) {
		meta_prepare_create(w);
		st = w->refused;
	}
	if (!st) {
		write_defaults(w);
		st = write_admit(w);
	}
	if (st) {
		write_refuse(w, st);
		return;
	}
	if (x->status && x->status_sub && !(k && k->flags & KIND_KEEP_STATUS))
		memset(member(w->obj, x->status), 0, field_size(x->status));
	if (k && k->flags & (KIND_GENERATION | KIND_GENERATION_ANNOTATIONS))
		write_meta(w)->generation = 1;
	if (k && k->prepare_create)
		k->prepare_create(w);
	if (!w->refused)
		model_default(w->type, w->obj, w->arena); /* of the status that was put anew */
	st = w->refused ? w->refused : write_validate(w);
	if (!st && w->req->dry_run) {
		CLEAN_OBJECT struct object *there = NULL;
		struct meta_v1_object_meta *m = write_meta(w);
		if (!store_get(w->r->store, resource_key(w->res, m->namespace, m->name, w->arena),
			    &there))
			st = status_already_exists(w->arena, w->res, m->name);
	}
	if (st)
		write_refuse(w, st);
	else
		write_finish(w, 201);
}

void *write_to_storage(struct write *w, void *obj)
{
	const struct resource_extra *x = extra_of(w->req->resource);
	return w->req->resource->storage == w->req->resource
		? obj
		: x->conversion->to_storage(obj, w->arena);
}

void write_run_create(struct write *w)
{
	if (w->res->kind && w->res->kind->create) {
		w->res->kind->create(w);
		return;
	}
	w->obj = write_to_storage(w, w->req->obj);
	write_create(w);
}
