/* What is not answered here but at a node: log, exec, attach and port-forward of pods, and the node's own proxy. The request is turned
 * into the kubelet's path and handed to net/, which pumps the bytes. Upstream: pkg/registry/core/pod/strategy.go and rest/. */
#include "apiserver/internal.h"

#include "apiserver/connect.h"

bool connect_refuse(struct request *q, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	struct str text = arena_vfmt(q->arena, fmt, ap);
	va_end(ap);
	respond_reason(q, REASON_BAD_REQUEST, STR_FMT, STR_ARG(text));
	return true;
}

/* ---- where ---- */

static int node_address(struct request *q, struct str name, struct str *ret_host, int *ret_port)
{
	struct core_v1_node *node;
	if (lookup(q->server, q->server->known.nodes, STR_NONE, name, q->arena, &node) != 0) {
		respond_status(q, status_not_found(q->arena, q->server->known.nodes, name));
		return 1;
	}
	static const char *const order[] = { "InternalIP", "Hostname", "InternalDNS",
		"ExternalIP" };
	for (size_t i = 0; i < ARRAY_LEN(order); i++) {
		LIST_EACH(a, &node->status.addresses) {
			if (!str_eqz(a->type, order[i]) || !a->address.len)
				continue;
			*ret_host = a->address;
			*ret_port = node->status.daemon_endpoints.kubelet_endpoint.port
				? node->status.daemon_endpoints.kubelet_endpoint.port
				: 10250;
			return 0;
		}
	}
	respond_reason(q, REASON_INTERNAL,
		"no preferred addresses found for node \"" STR_FMT "\"; known addresses: []",
		STR_ARG(name));
	return 1;
}

struct http_client *connect_node(struct request *q, struct str name)
{
	struct str host;
	int port;
	struct err err = { 0 };
	if (node_address(q, name, &host, &port))
		return NULL;
	struct http_client *c = upstream_get(
		q->server->upstreams, "https", host, port, q->server->config.kubelet_tls, &err);
	if (!c)
		respond_reason(q, REASON_INTERNAL, "error dialing backend: %s", err.text);
	return c;
}

/* ---- which container ---- */

static void put_container_names(const struct core_v1_container_items *l, struct buf *out)
{
	buf_addc(out, '[');
	LIST_EACH(c, l)
		buf_addf(out, "%s" STR_FMT, c == l->items ? "" : " ", STR_ARG(c->name));
	buf_addc(out, ']');
}

static bool has_container(const struct core_v1_pod *pod, struct str name)
{
	LIST_EACH(c, &pod->spec.containers)
		if (str_eq(c->name, name))
			return true;
	LIST_EACH(c, &pod->spec.init_containers)
		if (str_eq(c->name, name))
			return true;
	LIST_EACH(c, &pod->spec.ephemeral_containers)
		if (str_eq(c->ephemeral_container_common.name, name))
			return true;
	return false;
}

/* false: answered. */
static bool choose_container(struct request *q, const struct core_v1_pod *pod, struct str *name)
{
	if (name->len) {
		if (has_container(pod, *name))
			return true;
		return !connect_refuse(q, "container " STR_FMT " is not valid for pod " STR_FMT,
			STR_ARG(*name), STR_ARG(pod->metadata.name));
	}
	if (pod->spec.containers.len == 1 && !pod->spec.init_containers.len &&
		!pod->spec.ephemeral_containers.len) {
		*name = pod->spec.containers.items[0].name;
		return true;
	}
	if (pod->spec.containers.len == 1) {
		*name = pod->spec.containers.items[0].name;
		return true;
	}
	CLEAN_BUF struct buf b = { 0 };
	put_container_names(&pod->spec.containers, &b);
	if (pod->spec.init_containers.len) {
		buf_addz(&b, " or one of the init containers: ");
		put_container_names(&pod->spec.init_containers, &b);
	}
	return !connect_refuse(q,
		"a container name must be specified for pod " STR_FMT ", choose one of: %s",
		STR_ARG(pod->metadata.name), b.p);
}

/* ---- what is asked, in the kubelet's words ---- */

static void put_param(struct buf *out, const char *key, struct str value)
{
	buf_addc(out, strchr(out->p, '?') ? '&' : '?');
	buf_addf(out, "%s=", key);
	url_encode(out, value);
}

static bool is_true(struct str v)
{
	return str_eqz(v, "true") || str_eqz(v, "1");
}

/* Query parameters that only change their name, or not even that. flag: passed on as "1" when true. */
struct param_row {
	const char *from, *to;
	bool flag;
};
static const struct param_row log_params[] = {
	{ "follow", "follow" },
	{ "previous", "previous" },
	{ "sinceSeconds", "sinceSeconds" },
	{ "sinceTime", "sinceTime" },
	{ "timestamps", "timestamps" },
	{ "tailLines", "tailLines" },
	{ "limitBytes", "limitBytes" },
	{ "stream", "stream" },
	{ NULL },
};
static const struct param_row exec_params[] = {
	{ "stdin", "input", true },
	{ "stdout", "output", true },
	{ "stderr", "error", true },
	{ "tty", "tty", true },
	{ "command", "command" },
	{ NULL },
};
static const struct param_row forward_params[] = { { "ports", "port" }, { NULL } };

static void put_params(
	struct request *q, const struct param_row *rows, struct buf *out, unsigned *ret_streams)
{
	struct str rest = q->http->query, key, value;
	while (url_query_next(&rest, q->arena, &key, &value)) {
		for (const struct param_row *p = rows; p->from; p++) {
			if (!str_eqz(key, p->from) || (p->flag && !is_true(value)))
				continue;
			put_param(out, p->to, p->flag ? STR("1") : value);
			*ret_streams += p->flag && strcmp(p->to, "tty") != 0;
		}
	}
}

static struct str query_value(struct request *q, const char *want)
{
	struct str rest = q->http->query, key, value;
	while (url_query_next(&rest, q->arena, &key, &value))
		if (str_eqz(key, want))
			return value;
	return STR_NONE;
}

/* ---- the four ---- */

static struct core_v1_pod *the_pod(struct request *q)
{
	struct core_v1_pod *pod;
	if (lookup(q->server, q->server->known.pods, q->info.ns, q->info.name, q->arena, &pod) == 0)
		return pod;
	respond_status(q, status_not_found(q->arena, q->server->known.pods, q->info.name));
	return NULL;
}

static bool connect_log(struct request *q)
{
	struct core_v1_pod *pod = the_pod(q);
	struct str container = query_value(q, "container");
	unsigned streams = 0;
	if (!pod || !choose_container(q, pod, &container))
		return true;
	if (!pod->spec.node_name.len) {
		respond_text(q, 200, "text/plain",
			STR("")); /* not placed yet: an empty log, as upstream */
		return true;
	}
	struct http_client *c = connect_node(q, pod->spec.node_name);
	if (!c)
		return true;
	CLEAN_BUF struct buf target = { 0 };
	buf_addf(&target, "/containerLogs/" STR_FMT "/" STR_FMT "/" STR_FMT, STR_ARG(q->info.ns),
		STR_ARG(q->info.name), STR_ARG(container));
	put_params(q, log_params, &target, &streams);
	http_forward(q->stream, c, arena_str(q->arena, buf_str(&target)), NULL, 0);
	http_client_free(c);
	request_finish(q, 200);
	return true;
}

/* A WebSocket begins with GET, yet it runs commands: who opens one needs create, as over SPDY. */
static bool may_create(struct request *q)
{
	const struct request_info *i = &q->info;
	struct attributes at = { .user = &q->user,
		.is_resource = true,
		.verb_bit = VERB_CREATE,
		.verb = STR("create"),
		.group = i->group,
		.version = i->version,
		.ns = i->ns,
		.resource = i->resource,
		.subresource = i->subresource,
		.name = i->name,
		.path = i->path };
	struct str reason = STR_NONE;
	if (i->verb_bit == VERB_CREATE ||
		authz_check(q->server, &at, q->arena, &reason) == DECISION_ALLOW)
		return true;
	respond_status(q, authz_forbidden(q->arena, &at, reason));
	return false;
}

static bool connect_stream(
	struct request *q, const char *verb, bool container_wanted, const struct param_row *params)
{
	if (!may_create(q))
		return true;
	struct core_v1_pod *pod = the_pod(q);
	struct str container = query_value(q, "container");
	unsigned streams = 0;
	if (!pod || (container_wanted && !choose_container(q, pod, &container)))
		return true;
	if (!pod->spec.node_name.len)
		return connect_refuse(
			q, "pod " STR_FMT " does not have a host assigned", STR_ARG(q->info.name));
	CLEAN_BUF struct buf target = { 0 };
	buf_addf(&target, "/%s/" STR_FMT "/" STR_FMT, verb, STR_ARG(q->info.ns),
		STR_ARG(q->info.name));
	if (container_wanted)
		buf_addf(&target, "/" STR_FMT, STR_ARG(container));
	put_params(q, params, &target, &streams);
	if (container_wanted && !streams)
		return connect_refuse(q, "you must specify at least 1 of stdin, stdout, stderr");
	if (!q->http->upgrade)
		return connect_refuse(q, "Upgrade request required");
	struct http_client *c = connect_node(q, pod->spec.node_name);
	if (!c)
		return true;
	http_tunnel(q->stream, c, arena_str(q->arena, buf_str(&target)), NULL, 0);
	http_client_free(c);
	request_finish(q, 101);
	return true;
}

static bool connect_exec(struct request *q)
{
	return connect_stream(q, "exec", true, exec_params);
}

static bool connect_attach(struct request *q)
{
	return connect_stream(q, "attach", true, exec_params);
}

static bool connect_port_forward(struct request *q)
{
	return connect_stream(q, "portForward", false, forward_params);
}

static const struct connect_row {
	const char *resource, *subresource;
	uint32_t verbs;
	bool (*connect)(struct request *q);
} connect_rows[] = {
	{ "pods", "log", VERB_GET, connect_log },
	{ "pods", "exec", VERB_GET | VERB_CREATE, connect_exec },
	{ "pods", "attach", VERB_GET | VERB_CREATE, connect_attach },
	{ "pods", "portforward", VERB_GET | VERB_CREATE, connect_port_forward },
	{ "pods", "proxy", VERB_ALL, connect_pod_proxy },
	{ "services", "proxy", VERB_ALL, connect_service_proxy },
	{ "nodes", "proxy", VERB_ALL, connect_node_proxy },
};

bool serve_connect(struct request *q)
{
	for (size_t i = 0; q->info.group.len == 0 && i < ARRAY_LEN(connect_rows); i++) {
		const struct connect_row *row = &connect_rows[i];
		if (!str_eqz(q->info.resource, row->resource) ||
			!str_eqz(q->info.subresource, row->subresource))
			continue;
		if (row->verbs & q->info.verb_bit ||
			(row->verbs == VERB_ALL && str_eqz(q->http->method, "OPTIONS")))
			return row->connect(q);
		respond_reason(q, REASON_METHOD_NOT_ALLOWED,
			"the server does not allow this method on the requested resource");
		return true;
	}
	return false;
}
