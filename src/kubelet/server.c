/* The node API on port 10250: who may ask what, and the way to whoever answers (server_*.c). Paths and answers are upstream's kubelet's.
 *
 * 1. No request is answered without an identity: a client certificate of the cluster's CA, or a bearer token that TokenReview knows.
 * 2. system:masters and the API server's own client may do everything; others are asked about with SubjectAccessReview (nodes/log, nodes/stats …).
 * 3. Reviews and whatever else may block run on the slow pool; the stream is answered on its loop. */
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"

struct node_server {
	struct kubelet *k;
	struct http_server *http;
};

/* ---- answers: from any thread ---- */

struct answer {
	int status;
	struct http_header type;
	struct str body;
};

static void answer_now(struct http_stream *s, void *arg)
{
	struct answer *a = arg;

	http_respond(s, a->status, &a->type, 1, a->body, NULL, NULL);
}

void node_respond_text(struct http_stream *s, int status, const char *type, struct str body)
{
	struct arena *arena = http_stream_arena(s);
	struct answer *a = arena_alloc(arena, sizeof(*a));

	*a = (struct answer){ status, { STR("content-type"), arena_strz(arena, type) },
		arena_str(arena, body) };
	if (loop_is_current(http_stream_loop(s)))
		answer_now(s, a);
	else
		http_stream_post(s, answer_now, a);
}

static const char *reason_of(int status)
{
	static const struct {
		int status;
		const char *reason;
	} reasons[] = { { 400, "BadRequest" }, { 401, "Unauthorized" }, { 403, "Forbidden" },
		{ 404, "NotFound" }, { 405, "MethodNotAllowed" }, { 500, "InternalError" } };

	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Unknown";
}

/* Plain text, as callers of a kubelet expect it; a Status for who asks for JSON, since that is whom a forwarded answer reaches unchanged. */
void respond_error(struct http_stream *s, int status, const char *fmt, ...)
{
	CLEAN_BUF struct buf b = { 0 }, json = { 0 };
	struct str accept = http_request_header(http_stream_request(s), "accept");
	va_list ap;

	va_start(ap, fmt);
	buf_vaddf(&b, fmt, ap);
	va_end(ap);
	if (str_find_str(accept, STR("application/json")) >= 0) {
		buf_addz(&json,
			"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":");
		json_write_text(buf_str(&b), &json);
		buf_addf(&json, ",\"reason\":\"%s\",\"code\":%d}\n", reason_of(status), status);
		node_respond_text(s, status, "application/json", buf_str(&json));
		return;
	}
	buf_addc(&b, '\n');
	node_respond_text(s, status, "text/plain; charset=utf-8", buf_str(&b));
}

bool query_has(struct http_stream *s, const char *name, struct str *ret)
{
	struct str rest = http_stream_request(s)->query, k, v;
	bool found = false;

	while (url_query_next(&rest, http_stream_arena(s), &k, &v))
		if (str_eqz(k, name)) {
			*ret = v;
			found = true;
		}
	return found;
}

/* ---- routes ---- */

static void get_healthz(struct node_route *r)
{
	node_respond_text(r->stream, 200, "text/plain; charset=utf-8", STR("ok"));
}

static void get_pods(struct node_route *r)
{
	serve_pods(r->k, r->stream);
}

static void get_logs(struct node_route *r)
{
	serve_logs(r->k, r->stream, r->parts[1], r->parts[2], r->parts[3]);
}

/* /exec/NS/POD[/UID]/CONTAINER */
static void exec(struct node_route *r)
{
	serve_exec(r->k, r->stream, r->parts[1], r->parts[2], r->parts[r->n_parts - 1], false);
}

static void attach(struct node_route *r)
{
	serve_exec(r->k, r->stream, r->parts[1], r->parts[2], r->parts[r->n_parts - 1], true);
}

static void port_forward(struct node_route *r)
{
	serve_port_forward(r->k, r->stream, r->parts[1], r->parts[2]);
}

static void get_stats(struct node_route *r)
{
	serve_stats(r->k, r->stream);
}

static void get_metrics(struct node_route *r)
{
	node_serve_metrics(r->k, r->stream, r->n_parts > 1 && str_eqz(r->parts[1], "resource"));
}

static void get_why(struct node_route *r)
{
	serve_why(r->k, r->stream, r->parts[3], r->parts[4]);
}

static void run_command(struct node_route *r)
{
	serve_run(r->k, r->stream, r->parts[1], r->parts[2], r->parts[r->n_parts - 1]);
}

static void not_found(struct node_route *r)
{
	respond_error(r->stream, 404, "404 page not found");
}

/* clang-format off */
static const struct {
	const char *first;
	size_t min, max;                  /* parts of the path */
	const char *subresource;          /* of nodes, for authorization */
	bool slow;                        /* asks the engine: not on the loop */
	bool creates;                     /* runs or opens something: `create`, whatever the method (a WebSocket begins with GET) */
	void (*fn)(struct node_route *r);
} routes[] = {
	{ "healthz",       1, 2, "healthz", false, false, get_healthz },
	{ "pods",          1, 1, "pods",    false, false, get_pods },
	{ "runningpods",   1, 1, "pods",    false, false, get_pods },
	{ "containerLogs", 4, 4, "proxy",   true,  false, get_logs },
	{ "logs",          1, 8, "log",     true,  false, serve_node_logs },
	{ "exec",          4, 5, "proxy",   true,  true,  exec },
	{ "attach",        4, 5, "proxy",   true,  true,  attach },
	{ "portForward",   3, 4, "proxy",   true,  true,  port_forward },
	{ "run",           4, 5, "proxy",   true,  true,  run_command },
	{ "stats",         1, 2, "stats",   true,  false, get_stats },
	{ "metrics",       1, 2, "metrics", true,  false, get_metrics },
	{ "skiff",         5, 5, "proxy",   true,  false, get_why },
	{ NULL,            0, 0, "proxy",   false, false, not_found }, /* what is not there is told to those alone who may ask */
};
#define NOT_FOUND_ROW (ARRAY_LEN(routes) - 1)
/* clang-format on */

static bool split(struct node_route *r, struct str path)
{
	struct arena *a = http_stream_arena(r->stream);
	struct str part, rest = path;

	if (rest.len && rest.p[0] == '/')
		rest = str_from(rest, 1);
	while (rest.len && r->n_parts < ARRAY_LEN(r->parts)) {
		str_cut(rest, '/', &part, &rest);
		if (url_decode(part, false, a, &r->parts[r->n_parts++]))
			return false;
	}
	return r->n_parts && !rest.len;
}

struct job {
	struct node_route route;
	size_t row;
};

static const char *verb_of(struct str method)
{
	static const struct {
		const char *method, *verb;
	} verbs[] = { { "GET", "get" }, { "HEAD", "get" }, { "POST", "create" },
		{ "PUT", "update" }, { "PATCH", "patch" }, { "DELETE", "delete" } };

	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (str_eqz(method, verbs[i].method))
			return verbs[i].verb;
	return "get";
}

/* On the loop again: the answer of a check that took its time. */
static void go_on(struct http_stream *s, void *arg)
{
	struct job *job = arg;

	routes[job->row].fn(&job->route);
	http_stream_unref(s);
	free(job);
}

struct refusal {
	int status;
	struct err err;
};

static void refuse(struct http_stream *s, void *arg)
{
	struct refusal *r = arg;

	respond_error(s, r->status, "%s", r->err.text);
	http_stream_unref(s);
	free(r);
}

static void check_and_go(void *arg)
{
	struct job *job = arg;
	struct http_stream *s = job->route.stream;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct refusal no = { .status = 500 };
	const char *verb =
		routes[job->row].creates ? "create" : verb_of(http_stream_request(s)->method);

	if (server_authorize(job->route.k, http_stream_request(s), verb,
		    routes[job->row].subresource, a, &no.status, &no.err)) {
		if (routes[job->row].slow) {
			routes[job->row].fn(&job->route);
			http_stream_unref(s);
			free(job);
		} else {
			http_stream_post(s, go_on, job);
		}
		return;
	}
	struct refusal *keep = xmalloc(sizeof(*keep));
	*keep = no;
	http_stream_post(s, refuse, keep);
	free(job);
}

static void on_request(void *arg, struct http_stream *s)
{
	struct node_server *server = arg;
	struct node_route r = { .k = server->k, .stream = s };
	const struct http_request *q = http_stream_request(s);

	struct job *job = xmalloc(sizeof(*job));
	size_t row = NOT_FOUND_ROW;

	if (split(&r, q->path))
		for (size_t i = 0; i < NOT_FOUND_ROW && row == NOT_FOUND_ROW; i++)
			if (str_eqz(r.parts[0], routes[i].first) && r.n_parts >= routes[i].min &&
				r.n_parts <= routes[i].max)
				row = i;
	*job = (struct job){ r, row };
	http_stream_ref(s);
	pool_submit(server->k->slow, check_and_go, job);
}

int node_server_start(struct kubelet *k, struct err *err)
{
	struct node_server *server = xcalloc(1, sizeof(*server));
	struct http_server_config c = {
		.loops = &k->c.loop,
		.n_loops = 1,
		.address = k->c.address,
		.port = k->c.port < 0 ? 0 : k->c.port,
		.listen_fd = k->c.listen_fd,
		.tls = k->c.serving_tls,
		.handler = { .on_request = on_request, .arg = server },
	};

	server->k = k;
	k->server = server;
	int r = http_server_start(&c, &server->http, err);
	if (r) {
		k->server = NULL;
		free(server);
		return err_prefix(err, r, "node API");
	}
	k->c.port = http_server_port(server->http);
	return 0;
}

void node_server_stop(struct kubelet *k)
{
	if (k->server && k->server->http)
		http_server_stop(k->server->http);
	if (k->server)
		k->server->http = NULL;
}

int node_server_port(const struct kubelet *k)
{
	return k->server && k->server->http ? http_server_port(k->server->http) : 0;
}
