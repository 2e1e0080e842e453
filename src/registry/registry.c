/* The registry itself: made from the schema and a store; dispatches a request by verb and subresource. */
#include "registry/internal.h"

int registry_new(const struct registry_config *c, struct registry **ret, struct err *err)
{
	struct registry *r = xcalloc(1, sizeof(*r));
	r->config = *c;
	r->store = c->store;
	if (!r->config.clock)
		r->config.clock = &clock_real;
	if (!r->config.service_cidr)
		r->config.service_cidr = "10.43.0.0/16";
	if (!r->config.node_port_first) {
		r->config.node_port_first = 30000;
		r->config.node_port_last = 32767;
	}
	r->retry = retry_new(r);
	int rc = resources_build(r, err);
	rc = rc ? rc : services_init(r, err);
	if (rc) {
		registry_free(r);
		return rc;
	}
	expire_start(r);
	*ret = r;
	return 0;
}

void registry_set_admission(struct registry *r, const struct admission *ad)
{
	r->config.admission = *ad;
}

void registry_set_tokens(struct registry *r, const struct token_issuer *t)
{
	r->config.tokens = *t;
}

void registry_free(struct registry *r)
{
	if (!r)
		return;
	retry_free(r->retry);
	services_free(r);
	resources_free(r);
	free(r);
}

int registry_decode(const struct resource *r, const struct object *o, struct arena *a, void **ret,
	struct err *err)
{
	int rc = json_decode(r->storage->row->type, o->json, a, NULL, ret, err);
	if (rc)
		err_prefix(err, rc, "stored object " STR_FMT " at revision %llu is damaged",
			STR_ARG(o->key), (unsigned long long)o->revision);
	return rc;
}

static struct str form_text(const struct store_form *f)
{
	return f ? str_n(f->bytes, f->len) : STR_NONE;
}

static struct str kept_proto(struct object *o)
{
	return form_text(atomic_load_explicit(&o->proto, memory_order_acquire));
}

void registry_object_proto_once(const struct resource *r, struct object *o, struct buf *out)
{
	struct str kept = kept_proto(o);
	if (kept.p) {
		buf_add_str(out, kept);
		return;
	}
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct err err;
	void *obj;
	if (json_decode(r->row->type, o->json, a, NULL, &obj, &err))
		log_error("registry", "object " STR_FMT " has no protobuf form: %s",
			STR_ARG(o->key), err.text);
	else
		proto_encode_object(r->row->type, obj, out);
}

static struct store_form *form_new(struct str bytes)
{
	struct store_form *f = xmalloc(sizeof(*f) + bytes.len);
	f->len = bytes.len;
	memcpy(f->bytes, bytes.p, bytes.len);
	return f;
}

void registry_object_proto(const struct resource *r, struct object *o, struct buf *out)
{
	size_t from = out->len;
	bool kept = kept_proto(o).p;
	registry_object_proto_once(r, o, out);
	if (kept || out->len == from)
		return;
	struct store_form *f = form_new(str_from(buf_str(out), from));
	if (!object_keep_proto(o, f))
		free(f);
}

struct str registry_event_proto(const struct resource *r, struct store_event *ev)
{
	CLEAN_BUF struct buf out = { 0 };
	struct str kept = kept_proto(ev->object);
	if (!kept.p)
		kept = form_text(atomic_load_explicit(&ev->proto, memory_order_acquire));
	if (kept.p)
		return kept;
	registry_object_proto_once(r, ev->object, &out);
	if (!out.len)
		return STR_NONE;
	struct store_form *f = form_new(buf_str(&out));
	const struct store_form *k = object_keep_proto(ev->object, f);
	return form_text(k ? k : store_event_keep_proto(ev, f));
}

struct object *object_convert(const struct resource *to, const struct object *o, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf json = { 0 };
	void *obj;
	if (registry_decode(to, o, a, &obj, err))
		return NULL;
	const struct conversion *c = extra_of(to)->conversion;
	obj = c->from_storage(obj, a);
	struct object_head *head = obj;
	head->api_version = to->api_version;
	head->kind = to->kind_name;
	json_encode(to->row->type, obj, &json);
	return object_with_json(o, buf_str(&json), o->revision);
}

/* ---- dispatch ---- */

static void run_update_or_patch(struct write *w)
{
	if (w->req->verb == VERB_CREATE)
		write_refuse(w,
			status_new(w->arena, REASON_METHOD_NOT_ALLOWED,
				"the server does not allow this method on the requested resource"));
	else
		write_run_update(w);
}

static const struct {
	uint32_t verb;
	write_run_fn run;
} verbs[] = {
	{ VERB_CREATE, write_run_create },
	{ VERB_UPDATE, write_run_update },
	{ VERB_PATCH, write_run_update },
	{ VERB_DELETE, write_run_delete },
	{ VERB_DELETECOLLECTION, write_run_delete_collection },
};

static void execute_sub(
	struct registry *r, struct registry_request *req, registry_done_fn done, void *arg)
{
	const struct resource *storage = req->resource->storage;
	const struct kind_sub *ks = kind_sub_of(storage, str_of(req->sub->name));
	write_run_fn run = ks && ks->run           ? ks->run
		: !strcmp(req->sub->name, "scale") ? write_run_scale
						   : NULL;
	if (run) {
		run(write_new(r, req, done, arg, run));
		return;
	}
	if (req->sub->type != req->resource->row->type ||
		(!ks && strcmp(req->sub->name, "status") != 0)) {
		answer_status(req,
			status_new(req->arena, REASON_NOT_IMPLEMENTED,
				"subresource %s of %s is not served by the registry",
				req->sub->name, req->resource->row->plural),
			done, arg);
		return;
	}
	if (req->verb == VERB_GET)
		registry_get(r, req, done, arg);
	else
		run_update_or_patch(write_new(r, req, done, arg, write_run_update));
}

void registry_execute(
	struct registry *r, struct registry_request *req, registry_done_fn done, void *arg)
{
	if (req->sub) {
		execute_sub(r, req, done, arg);
		return;
	}
	if (req->verb == VERB_GET) {
		registry_get(r, req, done, arg);
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (verbs[i].verb != (uint32_t)req->verb)
			continue;
		verbs[i].run(write_new(r, req, done, arg, verbs[i].run));
		return;
	}
	answer_status(req,
		status_new(req->arena, REASON_METHOD_NOT_ALLOWED,
			"the server does not allow this method on the requested resource"),
		done, arg);
}

/* ---- the blocking shortcut ---- */

struct call {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool done;
	struct registry_result *ret;
};

static void call_done(void *arg, struct registry_request *req, struct registry_result *res)
{
	struct call *c = arg;
	pthread_mutex_lock(&c->lock);
	*c->ret = *res;
	c->done = true;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
}

int registry_call(struct registry *r, struct registry_request *req, struct registry_result *ret)
{
	static struct str groups[] = { { "system:masters", 14 }, { "system:authenticated", 20 } };
	static const struct user_info apiserver = { .name = { "system:apiserver", 16 },
		.groups = { groups, 2 } };
	struct call c = { .ret = ret };
	if (!req->user)
		req->user = &apiserver;
	*ret = (struct registry_result){ 0 };
	pthread_mutex_init(&c.lock, NULL);
	pthread_cond_init(&c.wake, NULL);
	registry_execute(r, req, call_done, &c);
	pthread_mutex_lock(&c.lock);
	while (!c.done)
		pthread_cond_wait(&c.wake, &c.lock);
	pthread_mutex_unlock(&c.lock);
	pthread_cond_destroy(&c.wake);
	pthread_mutex_destroy(&c.lock);
	return 0;
}
