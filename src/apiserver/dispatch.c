/* The last phase: which handler. Paths that are no resources are rows of `paths`; resources go by verb. Upstream: endpoints/installer. */
#include "apiserver/internal.h"

static const struct path_row {
	const char *path;
	bool prefix; /* and what stands below it */
	bool (*serve)(struct request *q);
} paths[] = {
	{ "/", false, serve_index },
	{ "/version", false, serve_version },
	{ "/livez", true, serve_health },
	{ "/readyz", true, serve_health },
	{ "/healthz", true, serve_health },
	{ "/metrics", false, serve_metrics },
	{ "/metrics/slis", false, serve_slis },
	{ "/skiff/v1/snapshot", false, serve_snapshot },
	{ "/openapi/v2", false, serve_openapi },
	{ "/openapi/v3", true, serve_openapi },
	{ "/.well-known/openid-configuration", false, serve_oidc },
	{ "/openid/v1/jwks", false, serve_oidc },
	{ "/api", true, serve_discovery },
	{ "/apis", true, serve_discovery },
};

bool serve_index(struct request *q)
{
	size_t n;
	const struct resource *const *rs = registry_resources(q->server->registry, &n);
	CLEAN_BUF struct buf b = { 0 };
	buf_addz(&b,
		"{\"paths\":[\"/.well-known/openid-configuration\",\"/api\",\"/api/v1\",\"/apis\"");
	struct str group = STR_NONE, api_version = STR_NONE;
	for (size_t i = 0; i < n; i++) {
		if (!rs[i]->group.len)
			continue;
		if (!str_eq(rs[i]->group, group))
			buf_addf(&b, ",\"/apis/" STR_FMT "\"", STR_ARG(rs[i]->group));
		if (!str_eq(rs[i]->api_version, api_version))
			buf_addf(&b, ",\"/apis/" STR_FMT "\"", STR_ARG(rs[i]->api_version));
		group = rs[i]->group;
		api_version = rs[i]->api_version;
	}
	for (size_t i = 1; i < ARRAY_LEN(paths) - 2; i++)
		if (!str_eqz(STR("/.well-known/openid-configuration"), paths[i].path))
			buf_addf(&b, ",\"%s\"", paths[i].path);
	buf_addz(&b, "]}\n");
	respond_text(q, 200, "application/json", arena_str(q->arena, buf_str(&b)));
	return true;
}

static bool dispatch_path(struct request *q)
{
	struct str path = q->info.path;
	while (path.len > 1 && path.p[path.len - 1] == '/')
		path.len--;
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		struct str want = str_of(paths[i].path);
		bool hit = str_eq(path, want) ||
			(paths[i].prefix && str_has_prefix(path, want) && path.p[want.len] == '/');
		if (!hit)
			continue;
		if (!str_eqz(q->http->method, "GET") && !str_eqz(q->http->method, "HEAD")) {
			respond_reason(q, REASON_METHOD_NOT_ALLOWED,
				"the server does not allow this method on the requested resource");
			return true;
		}
		return paths[i].serve(q);
	}
	return false;
}

/* ---- resources ---- */

static const struct subresource_row *sub_find(const struct resource *r, struct str name)
{
	for (size_t i = 0; i < r->row->n_subs; i++)
		if (str_eqz(name, r->row->subs[i].name))
			return &r->row->subs[i];
	return NULL;
}

/* The path exists as such: scope and name fit the resource. */
static bool shape_fits(const struct request *q)
{
	const struct request_info *i = &q->info;
	bool is_namespace = q->resource == q->server->known.namespaces;
	bool named =
		i->name.len && !(i->verb_bit & (VERB_LIST | VERB_WATCH | VERB_DELETECOLLECTION));
	if (!q->resource->row
			->namespaced) /* a namespace is in itself: for authorization, and for that alone */
		return !i->ns.len || (is_namespace && str_eq(i->ns, i->name));
	return i->ns.len || !named;
}

/* POST goes to a collection or a subresource, PUT and PATCH to a name. */
static bool method_fits(const struct request *q)
{
	const struct request_info *i = &q->info;
	uint32_t verbs = q->sub ? q->sub->verbs : q->resource->row->verbs;
	if (!(verbs & i->verb_bit))
		return false;
	if (i->verb_bit == VERB_CREATE)
		return (q->sub || !i->name.len) && (i->ns.len || !q->resource->row->namespaced);
	return i->name.len || !(i->verb_bit & (VERB_UPDATE | VERB_PATCH));
}

static int dry_run_of(struct request *q, struct str value)
{
	if (!value.p)
		return 0;
	if (str_eqz(value, "All")) {
		q->reg.dry_run = true;
		return 0;
	}
	respond_reason(q, REASON_BAD_REQUEST,
		"dryRun: Unsupported value: \"" STR_FMT "\": supported values: \"All\"",
		STR_ARG(value));
	return 1;
}

static struct str field_manager(const struct request *q)
{
	if (q->options.field_manager.len)
		return q->options.field_manager;
	struct str agent = http_request_header(q->http, "user-agent"), first, rest;
	str_cut(agent, '/', &first, &rest);
	return first.len ? str_n(first.p, MIN(first.len, 128)) : STR("unknown");
}

/* Upstream tells users of these in every answer. */
static void warn_deprecated(struct request *q)
{
	static const struct {
		const char *resource, *text;
	} rows[] = {
		{ "componentstatuses", "v1 ComponentStatus is deprecated in v1.19+" },
		{ "endpoints",
			"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice" },
	};
	for (size_t i = 0; !q->resource->group.len && i < ARRAY_LEN(rows); i++)
		if (str_eqz(q->resource->plural, rows[i].resource))
			request_warn(q, "%s", rows[i].text);
}

static void fill(struct request *q)
{
	const struct request_options *o = &q->options;
	bool collection = q->info.verb_bit & (VERB_LIST | VERB_WATCH | VERB_DELETECOLLECTION);
	q->reg = (struct registry_request){
		.arena = q->arena,
		.resource = q->resource,
		.sub = q->sub,
		.verb = q->info.verb_bit,
		.user = &q->user,
		.ns = q->resource->row->namespaced ? q->info.ns : STR_NONE,
		.name = collection ? STR_NONE : q->info.name,
		.label_selector = o->label_selector,
		.field_selector = o->field_selector,
		.continue_token = o->continue_,
		.resource_version = o->resource_version,
		.resource_version_match = o->resource_version_match,
		.limit = o->limit,
		.field_validation = str_eqz(o->field_validation, "Strict") ? FIELD_VALIDATION_STRICT
			: str_eqz(o->field_validation, "Ignore")           ? FIELD_VALIDATION_IGNORE
									   : FIELD_VALIDATION_WARN,
	};
	/* the old /watch/ paths may name one object: that one and no other was authorized */
	if (q->info.verb_bit == VERB_WATCH && q->info.name.len &&
		!str_eq(field_selector_value(o->field_selector, "metadata.name"), q->info.name))
		q->reg.field_selector = arena_fmt(q->arena, STR_FMT "%smetadata.name=" STR_FMT,
			STR_ARG(o->field_selector), o->field_selector.len ? "," : "",
			STR_ARG(q->info.name));
	if (!(q->info.verb_bit & (VERB_GET | VERB_LIST | VERB_WATCH)))
		q->reg.field_manager = field_manager(q);
}

static void answer(struct request *q)
{
	struct registry_result *r = &q->result;
	if (q->collection) {
		struct list_job *j = TAKE(q->collection);
		if (str_eqz(r->status->status, "Success")) {
			list_send(j);
			return;
		}
		list_drop(j);
	}
	if (r->status) {
		respond_status(q, r->status);
		return;
	}
	if (r->object)
		respond_object(q, r->code, r->object);
	else if (r->obj)
		respond_struct(q, r->code, r->obj_type, r->obj);
	else
		respond_status(q, status_success(q->arena, q->resource, q->info.name, STR_NONE));
}

static void answer_posted(struct http_stream *s, void *arg)
{
	answer(arg);
	http_stream_unref(s);
}

/* Calls back from the loop itself (reads, refusals) or from the writer's thread (commits). */
static void executed(void *arg, struct registry_request *rr, struct registry_result *res)
{
	struct request *q = arg;
	q->result = *res;
	if (loop_is_current(http_stream_loop(q->stream))) {
		answer(q);
		http_stream_unref(q->stream);
	} else {
		http_stream_post(q->stream, answer_posted, q);
	}
}

/* Reads what the verb needs of the body. > 0: answered. */
static int take_body(struct request *q)
{
	const struct resource_row *row = q->resource->row;
	const struct subresource_row *sub = q->sub;
	int r;
	switch (q->info.verb_bit) {
	case VERB_CREATE:
	case VERB_UPDATE:
		r = sub && sub->type
			? body_decode(q, sub->type, sub->group, sub->version, &q->reg.obj)
			: body_decode(q, row->type, row->group, row->version, &q->reg.obj);
		return r ? r : dry_run_of(q, q->options.dry_run);
	case VERB_PATCH:
		r = body_patch(q);
		return r ? r : dry_run_of(q, q->options.dry_run);
	case VERB_DELETE:
	case VERB_DELETECOLLECTION:
		r = body_delete_options(q, &q->reg.delete_options);
		for (size_t i = 0; r == 0 && i < q->reg.delete_options->dry_run.len; i++)
			r = dry_run_of(q, q->reg.delete_options->dry_run.items[i]);
		return r;
	default:
		return 0;
	}
}

/* Bodies of another type than the object's (token, eviction, binding, scale) do not pass the registry's admission. true: refused. */
static bool refuse_sub(struct request *q)
{
	if (!q->sub || !q->reg.obj || q->sub->type == q->resource->row->type)
		return false;
	struct admission_attributes at = { .registry = q->server->registry,
		.req = &q->reg,
		.operation = q->info.verb_bit,
		.type = q->sub->type,
		.obj = q->reg.obj };
	struct meta_v1_status *st = admission_admit(q->server, &at);
	st = st ? st : admission_validate(q->server, &at);
	if (st)
		respond_status(q, st);
	return st;
}

/* A token for no audience in particular is for us, and the answer says so. */
static void default_audience(struct request *q)
{
	if (!q->sub || q->sub->type != &authentication_v1_token_request_type || !q->reg.obj)
		return;
	struct authentication_v1_token_request *tr = q->reg.obj;
	if (!tr->spec.audiences.len)
		*LIST_ADD(q->arena, &tr->spec.audiences) = str_of(q->server->config.issuer);
}

void serve_execute(struct request *q)
{
	if (take_body(q) || refuse_sub(q))
		return;
	default_audience(q);
	if (q->info.verb_bit == VERB_DELETECOLLECTION && !(q->collection = list_open(q)))
		return;
	http_stream_ref(q->stream);
	registry_execute(q->server->registry, &q->reg, executed, q);
}

static void serve_verb(struct request *q)
{
	if (q->info.verb_bit == VERB_LIST)
		serve_list(q);
	else if (q->info.verb_bit == VERB_WATCH)
		serve_watch(q);
	else
		serve_execute(q);
}

static void caught_up_posted(struct http_stream *s, void *arg)
{
	struct request *q = arg;
	if (q->waited < 0 && !q->reg.resource_version.len)
		respond_reason(q, REASON_TIMEOUT,
			"the store did not answer in time: is etcd running, with a leader?");
	else
		serve_verb(q); /* a revision that is still unknown is refused as too large there */
	http_stream_unref(s);
}

static void caught_up(void *arg, int result)
{
	struct request *q = arg;
	q->waited = result;
	http_stream_post(q->stream, caught_up_posted, q);
}

/* Others write to a shared store: what is read must not be older than the request. */
static void serve_when_caught_up(struct request *q)
{
	http_stream_ref(q->stream);
	if (registry_must_wait(q->server->registry, &q->reg, caught_up, q))
		return;
	serve_verb(q);
	http_stream_unref(q->stream);
}

static bool dispatch_resource(struct request *q)
{
	const struct request_info *i = &q->info;
	q->resource = registry_resource(q->server->registry, i->group, i->version, i->resource);
	if (!q->resource || !shape_fits(q))
		return false;
	if (i->subresource.len) {
		q->sub = sub_find(q->resource, i->subresource);
		if (!q->sub ||
			i->verb_bit == VERB_WATCH) /* there is nothing to watch below an object */
			return false;
	}
	if (q->sub && serve_connect(q))
		return true;
	if (i->rest.len > 1)
		return false;
	if (!method_fits(q)) {
		respond_reason(q, REASON_METHOD_NOT_ALLOWED,
			"the server does not allow this method on the requested resource");
		return true;
	}
	if (q->accept.view == VIEW_TABLE && !q->sub && !q->resource->row->list_type) {
		respond_reason(q, REASON_NOT_ACCEPTABLE,
			"the server was unable to respond with a content type that the client supports: a " STR_FMT
			" has no Table",
			STR_ARG(q->resource->kind_name));
		return true;
	}
	fill(q);
	warn_deprecated(q);
	if (serve_review(q))
		return true;
	serve_when_caught_up(q);
	return true;
}

bool dispatch(struct request *q)
{
	bool served = q->info.is_resource ? dispatch_resource(q) : dispatch_path(q);
	if (!served)
		respond_not_found(q);
	return false;
}
