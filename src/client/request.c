/* Typed requests: struct -> JSON -> HTTP -> JSON -> struct, and the Status of a refusal as outcome and text. Upstream: client-go's
 * rest.Request and the typed clients. */
#include "client/internal.h"

#include <stdio.h>

/* For the server to take a connection: what was asked while a link was cut must not wait for the slow repetitions of its first packet afterwards. */
#define CONNECT_MS 3000

/* One row an outcome; the first that fits. `reason` NULL: the code alone decides. */
static const struct {
	int code;
	const char *reason;
	int outcome;
} outcomes[] = {
	{ 404, NULL, CLIENT_NOT_FOUND },
	{ 409, "AlreadyExists", CLIENT_EXISTS },
	{ 409, NULL, CLIENT_CONFLICT },
	{ 410, NULL, CLIENT_GONE },
	{ 403, NULL, CLIENT_FORBIDDEN },
	{ 401, NULL, CLIENT_UNAUTHORIZED },
	{ 422, NULL, CLIENT_INVALID },
	{ 429, NULL, CLIENT_TOO_MANY },
};

struct client *client_new(const struct client_config *c)
{
	struct client *n = xcalloc(1, sizeof(*n));

	n->http = c->http;
	n->user_agent = xstrdup(c->user_agent ? c->user_agent : "skiff");
	n->field_manager = c->field_manager ? xstrdup(c->field_manager) : NULL;
	crew_init(&n->crew);
	return n;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	crew_deinit(&c->crew);
	http_client_free(c->http);
	free(c->user_agent);
	free(c->field_manager);
	free(c);
}

struct http_client *client_http(struct client *c)
{
	return c->http;
}

void client_query(struct buf *target, const char *key, struct str value)
{
	if (!value.len)
		return;
	buf_addc(target, memchr(target->p, '?', target->len) ? '&' : '?');
	buf_addz(target, key);
	buf_addc(target, '=');
	url_encode(target, value);
}

const struct resource_row *client_resource_row(const struct type *t)
{
	for (size_t i = 0; i < n_resource_rows; i++)
		if (resource_rows[i].type == t)
			return &resource_rows[i];
	return NULL;
}

int client_path(const struct type *t, struct str ns, struct str name, struct str sub,
	struct buf *out, struct err *err)
{
	const struct resource_row *row = client_resource_row(t);

	if (!row)
		return err_set(err, -EINVAL, "%s/%s %s is no resource: it has no path to ask for",
			t->group, t->version, t->name);
	if (*t->group)
		buf_addf(out, "/apis/%s/%s", t->group, t->version);
	else
		buf_addf(out, "/api/%s", t->version);
	if (row->namespaced && ns.len) {
		buf_addz(out, "/namespaces/");
		url_encode(out, ns);
	}
	buf_addf(out, "/%s", row->plural);
	if (name.len) {
		buf_addc(out, '/');
		url_encode(out, name);
	}
	if (sub.len) {
		buf_addc(out, '/');
		buf_add_str(out, sub);
	}
	return 0;
}

static struct str member_text(const struct value *object, const char *key)
{
	const struct value *v = object ? value_get(object, str_of(key)) : NULL;

	return v && v->kind == VALUE_TEXT ? v->text : STR_NONE;
}

int client_outcome(int code, struct str body, struct str what, struct err *err)
{
	if (code >= 200 && code < 300)
		return 0;
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct value v;
	struct str message = STR_NONE, reason = STR_NONE;

	if (!json_parse(body, a, &v, NULL) && v.kind == VALUE_OBJECT) {
		message = member_text(&v, "message");
		reason = member_text(&v, "reason");
	}
	if (!message.len)
		message = str_n(body.p, MIN(body.len, (size_t)200));
	int outcome = code >= 500 ? CLIENT_SERVER_ERROR : CLIENT_REFUSED;

	for (size_t i = 0; i < ARRAY_LEN(outcomes); i++)
		if (outcomes[i].code == code &&
			(!outcomes[i].reason || str_eqz(reason, outcomes[i].reason))) {
			outcome = outcomes[i].outcome;
			break;
		}
	if (message.len)
		return err_set(err, outcome, STR_FMT, STR_ARG(message));
	return err_set(err, outcome, STR_FMT ": the server answered %d without a message",
		STR_ARG(what), code);
}

static int call(struct client *c, struct http_call *call, struct arena *a, struct http_reply *reply,
	struct err *err)
{
	const struct http_header agent = { STR("user-agent"), str_of(c->user_agent) };

	call->headers = &agent;
	call->n_headers = 1;
	if (!call->accept.len)
		call->accept = STR("application/json");
	call->connect_ms = CONNECT_MS;
	int r = http_client_call(c->http, call, a, reply, err);

	if (!r)
		crew_answered(&c->crew);
	return r;
}

/* Sends and decodes the answer as `t` (ret NULL: whatever it says). */
static int exchange_noted(struct client *c, struct http_call *request, const struct type *t,
	struct arena *a, void **ret, bool *ret_answered, struct err *err)
{
	struct arena *own = a ? NULL : arena_new(0);
	struct http_reply reply = { 0 };
	int r = call(c, request, a ? a : own, &reply, err);

	*ret_answered = !r;
	if (!r)
		r = client_outcome(reply.status, reply.body, request->target, err);
	if (!r && ret)
		r = json_decode(t, reply.body, a, NULL, ret, err);
	arena_free(own);
	return r;
}

static int exchange(struct client *c, struct http_call *request, const struct type *t,
	struct arena *a, void **ret, struct err *err)
{
	bool answered;

	return exchange_noted(c, request, t, a, ret, &answered, err);
}

int client_get(struct client *c, const struct type *t, struct str ns, struct str name,
	struct arena *a, void **ret, struct err *err)
{
	struct buf target CLEAN_BUF = { 0 };
	int r = client_path(t, ns, name, STR_NONE, &target, err);

	if (r)
		return r;
	struct http_call request = { .method = STR("GET"), .target = buf_str(&target) };

	return exchange(c, &request, t, a, ret, err);
}

static int send_object(struct client *c, const char *method, struct buf *target,
	const struct type *body_type, const void *body, const struct type *ret_type,
	struct arena *a, void **ret, struct err *err)
{
	struct buf json CLEAN_BUF = { 0 };

	client_query(target, "fieldManager", str_of(c->field_manager));
	json_encode(body_type, body, &json);
	struct http_call request = { .method = str_of(method),
		.target = buf_str(target),
		.body = buf_str(&json),
		.content_type = STR("application/json") };

	return exchange(c, &request, ret_type, a, ret, err);
}

int client_create(struct client *c, const struct type *t, struct str ns, const void *obj,
	struct arena *a, void **ret, struct err *err)
{
	struct buf target CLEAN_BUF = { 0 };
	int r = client_path(t, ns, STR_NONE, STR_NONE, &target, err);

	return r ? r : send_object(c, "POST", &target, t, obj, t, a, ret, err);
}

int client_update(struct client *c, const struct type *t, const char *sub, const void *obj,
	struct arena *a, void **ret, struct err *err)
{
	const struct meta_v1_object_meta *m = model_meta(t, obj);
	struct buf target CLEAN_BUF = { 0 };
	int r = client_path(t, m->namespace, m->name, str_of(sub), &target, err);

	return r ? r : send_object(c, "PUT", &target, t, obj, t, a, ret, err);
}

int client_create_sub(struct client *c, const struct type *t, struct str ns, struct str name,
	const char *sub, const struct type *body_type, const void *body, struct arena *a,
	void **ret, struct err *err)
{
	struct buf target CLEAN_BUF = { 0 };
	int r = client_path(t, ns, name, str_of(sub), &target, err);

	return r ? r : send_object(c, "POST", &target, body_type, body, body_type, a, ret, err);
}

int client_patch(struct client *c, const struct type *t, struct str ns, struct str name,
	const char *sub, enum client_patch kind, struct str patch, struct arena *a, void **ret,
	struct err *err)
{
	static const char *const content_types[] = {
		[CLIENT_PATCH_JSON] = "application/json-patch+json",
		[CLIENT_PATCH_MERGE] = "application/merge-patch+json",
		[CLIENT_PATCH_STRATEGIC] = "application/strategic-merge-patch+json",
	};
	struct buf target CLEAN_BUF = { 0 };
	int r = client_path(t, ns, name, str_of(sub), &target, err);

	if (r)
		return r;
	client_query(&target, "fieldManager", str_of(c->field_manager));
	struct http_call request = { .method = STR("PATCH"),
		.target = buf_str(&target),
		.body = patch,
		.content_type = str_of(content_types[kind]) };

	return exchange(c, &request, t, a, ret, err);
}

int client_delete(struct client *c, const struct type *t, struct str ns, struct str name,
	const struct client_delete *o, struct err *err)
{
	struct buf target CLEAN_BUF = { 0 }, body CLEAN_BUF = { 0 };
	int r = client_path(t, ns, name, STR_NONE, &target, err);

	if (r)
		return r;
	buf_addz(&body, "{\"apiVersion\":\"v1\",\"kind\":\"DeleteOptions\"");
	if (o && o->grace_seconds >= 0)
		buf_addf(&body, ",\"gracePeriodSeconds\":%lld", (long long)o->grace_seconds);
	if (o && (o->uid.len || o->resource_version.len)) {
		buf_addz(&body, ",\"preconditions\":{");
		if (o->uid.len) {
			buf_addz(&body, "\"uid\":");
			json_write_text(o->uid, &body);
		}
		if (o->resource_version.len) {
			buf_addz(&body,
				o->uid.len ? ",\"resourceVersion\":" : "\"resourceVersion\":");
			json_write_text(o->resource_version, &body);
		}
		buf_addc(&body, '}');
	}
	if (o && o->propagation)
		buf_addf(&body, ",\"propagationPolicy\":\"%s\"", o->propagation);
	buf_addc(&body, '}');
	struct http_call request = { .method = STR("DELETE"),
		.target = buf_str(&target),
		.body = buf_str(&body),
		.content_type = STR("application/json") };

	return exchange(c, &request, NULL, NULL, NULL, err);
}

int client_list_answered(struct client *c, const struct type *t, const struct client_list_query *q,
	struct arena *a, void **ret_list, bool *ret_answered, struct err *err)
{
	const struct resource_row *row = client_resource_row(t);
	struct buf target CLEAN_BUF = { 0 };
	int r = client_path(t, q->ns, STR_NONE, STR_NONE, &target, err);

	if (r)
		return r;
	client_query(&target, "labelSelector", str_of(q->label_selector));
	client_query(&target, "fieldSelector", str_of(q->field_selector));
	client_query(&target, "continue", q->continue_token);
	if (q->limit > 0) {
		char n[24];

		snprintf(n, sizeof(n), "%lld", (long long)q->limit);
		client_query(&target, "limit", str_of(n));
	}
	struct http_call request = { .method = STR("GET"), .target = buf_str(&target) };

	return exchange_noted(c, &request, row->list_type, a, ret_list, ret_answered, err);
}

int client_list_page(struct client *c, const struct type *t, const struct client_list_query *q,
	struct arena *a, void **ret_list, struct err *err)
{
	bool answered;

	return client_list_answered(c, t, q, a, ret_list, &answered, err);
}

int client_list(struct client *c, const struct type *t, struct str ns, const char *label_selector,
	const char *field_selector, struct arena *a, void **ret_list, struct err *err)
{
	const struct client_list_query q = {
		.ns = ns, .label_selector = label_selector, .field_selector = field_selector
	};

	return client_list_page(c, t, &q, a, ret_list, err);
}

int client_raw(struct client *c, const char *method, const char *target, struct str content_type,
	struct str body, struct arena *a, struct str *ret_body, int *ret_code, struct err *err)
{
	struct http_call request = { .method = str_of(method),
		.target = str_of(target),
		.body = body,
		.content_type = content_type,
		.accept = STR("application/json, */*") };
	struct http_reply reply = { 0 };
	int r = call(c, &request, a, &reply, err);

	if (r)
		return r;
	if (ret_body)
		*ret_body = reply.body;
	if (ret_code)
		*ret_code = reply.status;
	return client_outcome(reply.status, reply.body, request.target, err);
}

int client_open(struct client *c, struct str target, unsigned timeout_ms, struct http_reader **ret,
	struct err *err)
{
	struct arena *a CLEAN_ARENA = arena_new(2048);
	const struct http_header agent = { STR("user-agent"), str_of(c->user_agent) };
	struct http_call request = { .method = STR("GET"),
		.target = target,
		.headers = &agent,
		.n_headers = 1,
		.accept = STR("application/json"),
		.timeout_ms = timeout_ms,
		.connect_ms = CONNECT_MS };
	struct http_reply head = { 0 };
	struct http_reader *reader = NULL;
	int r = http_client_open(c->http, &request, a, &head, &reader, err);

	if (r)
		return r;
	crew_answered(&c->crew);
	if (head.status == 200) {
		*ret = reader;
		return 0;
	}
	struct buf body CLEAN_BUF = { 0 };
	char piece[2048];
	ssize_t n;

	while (body.len < 64 * 1024 &&
		(n = http_reader_read(reader, piece, sizeof(piece), NULL)) > 0)
		buf_add(&body, piece, (size_t)n);
	http_reader_free(reader);
	return client_outcome(head.status, buf_str(&body), target, err);
}
