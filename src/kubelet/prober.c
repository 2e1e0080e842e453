/* Asking a container how it is: exec, httpGet, tcpSocket, grpc. Blocking, on a slow thread. The texts are those that upstream's events carry. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define BODY_MAX 10240
#define REDIRECTS_MAX 10
#define TIMEOUT_MAX_S 2000000 /* in milliseconds it is a number yet */

int port_resolve(
	const struct int_or_str *port, const struct core_v1_container *c, int *ret, struct err *err)
{
	int64_t n = port->num;

	if (port->kind == IOS_STR) {
		n = 0;
		LIST_EACH(p, &c->ports)
			if (str_eq(p->name, port->text))
				n = p->container_port;
		if (!n && str_to_i64(port->text, &n))
			return err_set(err, -EINVAL,
				"strconv.Atoi: parsing \"" STR_FMT "\": invalid syntax",
				STR_ARG(port->text));
	}
	if (n <= 0 || n > 65535)
		return err_set(err, -EINVAL, "invalid port number: %lld", (long long)n);
	*ret = (int)n;
	return 0;
}

/* ---- httpGet ---- */

/* As a URL has it: what would end the request's line is written as %XX. */
static struct str escape_target(struct str path, struct arena *a)
{
	CLEAN_BUF struct buf b = { 0 };

	if (!path.len || path.p[0] != '/')
		buf_addc(&b, '/');
	for (size_t i = 0; i < path.len; i++) {
		unsigned char c = (unsigned char)path.p[i];
		if (c <= ' ' || c >= 0x7f || c == '#')
			buf_addf(&b, "%%%02X", c);
		else
			buf_addc(&b, (char)c);
	}
	return arena_str(a, buf_str(&b));
}

static int http_headers(
	const struct core_v1_http_get_action *h, struct http_header *ret, size_t max)
{
	size_t n = 0;
	bool agent = false, accept = false;

	LIST_EACH(x, &h->http_headers) {
		if (n + 2 >= max)
			break;
		agent |= !strcasecmp(x->name.p, "user-agent");
		accept |= !strcasecmp(x->name.p, "accept");
		ret[n++] = (struct http_header){ x->name, x->value };
	}
	if (!agent)
		ret[n++] = (struct http_header){ STR("user-agent"), STR("kube-probe/1.36") };
	if (!accept)
		ret[n++] = (struct http_header){ STR("accept"), STR("*/*") };
	return (int)n;
}

/* Where a request goes: https, what names the server ("[::1]:80"), and the rest. */
struct place {
	bool https;
	struct str server, target;
};

static struct str host_of(struct str server)
{
	ssize_t end = server.len && server.p[0] == '[' ? str_find(server, ']') + 1
						       : str_find(server, ':');

	return end > 0 ? str_n(server.p, (size_t)end) : server;
}

/* A Location: a whole URL, one without its scheme, a path, or what replaces the last part of the path. */
static struct place place_after(const struct place *from, struct str location, struct arena *a)
{
	struct place to = *from;
	struct str rest = location, before, query;
	bool http = str_has_prefix(rest, STR("http://")),
	     https = str_has_prefix(rest, STR("https://"));

	if (http || https) {
		to.https = https;
		rest = str_from(rest, https ? 6 : 5);
	}
	if (str_has_prefix(rest, STR("//"))) {
		size_t n = 2;
		while (n < rest.len && !strchr("/?#", rest.p[n]))
			n++;
		to.server = arena_str(a, str_n(rest.p + 2, n - 2));
		rest = str_from(rest, n);
	} else if (rest.len && rest.p[0] != '/') {
		str_cut(from->target, '?', &before, &query);
		size_t n = before.len;
		while (n && before.p[n - 1] != '/')
			n--;
		rest = arena_fmt(a, STR_FMT STR_FMT, STR_ARG(str_n(before.p, n)), STR_ARG(rest));
	}
	if (str_cut(rest, '#', &before, &query))
		rest = before;
	to.target = escape_target(rest, a);
	return to;
}

static int get(const struct place *p, const struct core_v1_http_get_action *h, unsigned timeout_ms,
	struct arena *a, struct http_reply *ret, struct err *err)
{
	struct tls_context *tls = NULL;
	struct tls_client_config tc = { .insecure_skip_verify = true };
	struct http_client *client;
	struct http_header headers[32];
	struct str base =
		arena_fmt(a, "%s://" STR_FMT, p->https ? "https" : "http", STR_ARG(p->server));
	int r = p->https ? tls_client_new(&tc, &tls, err) : 0;

	if (r)
		return r;
	r = http_client_new(base.p, tls, &client, err);
	if (r) {
		tls_context_free(tls);
		return r;
	}
	struct http_call call = { .method = STR("GET"),
		.target = p->target,
		.headers = headers,
		.n_headers = (size_t)http_headers(h, headers, ARRAY_LEN(headers)),
		.timeout_ms = timeout_ms,
		.deadline_ms = timeout_ms,
		.enough = BODY_MAX };
	r = http_client_call(client, &call, a, ret, err);
	http_client_free(client);
	tls_context_free(tls);
	return r;
}

/* Where the reply sends us on; p NULL: it does not. */
static struct str location_of(const struct http_reply *reply)
{
	static const int statuses[] = { 301, 302, 303, 307, 308 };

	for (size_t s = 0; s < ARRAY_LEN(statuses); s++)
		for (size_t i = 0; reply->status == statuses[s] && i < reply->n_headers; i++)
			if (str_eqz(reply->headers[i].name, "location"))
				return reply->headers[i].value;
	return STR_NONE;
}

int http_get_action(const struct core_v1_http_get_action *h, const struct core_v1_container *c,
	const char *pod_ip, unsigned timeout_ms, int *ret_status, struct buf *ret_body,
	struct buf *ret_url, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	uint64_t until = mono_now_ns() / 1000000 + timeout_ms;
	struct http_reply reply;
	int port;

	int r = port_resolve(&h->port, c, &port, err);
	if (r)
		return r;
	struct str host = h->host.len ? h->host : str_of(pod_ip);
	bool v6 = str_find(host, ':') >= 0;
	struct place at = { .https = str_eqz(h->scheme, "HTTPS"),
		.server = arena_fmt(
			a, "%s" STR_FMT "%s:%d", v6 ? "[" : "", STR_ARG(host), v6 ? "]" : "", port),
		.target = escape_target(h->path, a) };
	for (int hops = 0;; hops++) {
		uint64_t now = mono_now_ns() / 1000000;
		buf_clear(ret_url);
		buf_addf(ret_url, "%s://" STR_FMT STR_FMT, at.https ? "https" : "http",
			STR_ARG(at.server), STR_ARG(at.target));
		if (now >= until)
			return err_set(err, -ETIMEDOUT, STR_FMT ": too many redirects for the time",
				STR_ARG(buf_str(ret_url)));
		r = get(&at, h, (unsigned)(until - now), a, &reply, err);
		struct str location = r ? STR_NONE : location_of(&reply);
		struct place to = location.len ? place_after(&at, location, a) : at;
		if (r || !location.len || !str_eq(host_of(to.server), host_of(at.server)))
			break;
		if (hops == REDIRECTS_MAX)
			return err_set(err, -ELOOP, "stopped after %d redirects", REDIRECTS_MAX);
		at = to;
	}
	if (!r) {
		*ret_status = reply.status;
		buf_add(ret_body, reply.body.p, MIN(reply.body.len, BODY_MAX));
	}
	return r;
}

static enum probe_result ask_http(const struct core_v1_http_get_action *h,
	const struct core_v1_container *c, const char *ip, unsigned timeout_ms, struct buf *out)
{
	CLEAN_BUF struct buf body = { 0 }, url = { 0 };
	struct err err;
	int status, port;

	if (port_resolve(&h->port, c, &port, &err)) {
		buf_addz(out, err.text);
		return PROBE_UNKNOWN;
	}
	int r = http_get_action(h, c, ip, timeout_ms, &status, &body, &url, &err);
	if (r == -ETIMEDOUT) {
		buf_addf(out,
			"Get \"" STR_FMT
			"\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
			STR_ARG(buf_str(&url)));
		return PROBE_FAILURE;
	}
	if (r) {
		struct str host = h->host.len ? h->host : str_of(ip);
		bool v6 = str_find(host, ':') >= 0;
		const char *why = r == -ECONNREFUSED ? "connection refused"
			: r == -EHOSTUNREACH         ? "no route to host"
						     : NULL;
		buf_addf(out, "Get \"" STR_FMT "\": ", STR_ARG(buf_str(&url)));
		if (why)
			buf_addf(out, "dial tcp %s" STR_FMT "%s:%d: connect: %s", v6 ? "[" : "",
				STR_ARG(host), v6 ? "]" : "", port, why);
		else
			buf_addz(out, err.text);
		return PROBE_FAILURE;
	}
	if (status >= 300 && status < 400) {
		buf_addf(out, "Probe terminated redirects, Response body: " STR_FMT,
			STR_ARG(buf_str(&body)));
		return PROBE_WARNING;
	}
	if (status >= 200 && status < 300) {
		buf_addf(out, "HTTP %d", status);
		return PROBE_SUCCESS;
	}
	buf_addf(out, "HTTP probe failed with statuscode: %d", status);
	return PROBE_FAILURE;
}

/* ---- tcpSocket ---- */

/* A connected socket; *ret_why in the words of the usual dialer. */
static int dial(struct str host, int port, unsigned timeout_ms, int *ret_fd, struct buf *out)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	char service[16];
	CLEAN_FREE char *name = str_dup(host);
	bool v6 = str_find(host, ':') >= 0;

	snprintf(service, sizeof(service), "%d", port);
	int g = getaddrinfo(name, service, &hints, &list);
	if (g || !list) {
		buf_addf(out, "dial tcp: lookup %s: %s", name, gai_strerror(g));
		return -EHOSTUNREACH;
	}
	CLEAN_FD int fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -errno : connect(fd, list->ai_addr, list->ai_addrlen) ? -errno : 0;
	freeaddrinfo(list);
	if (r == -EINPROGRESS) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		int e = 0;
		socklen_t len = sizeof(e);
		int n = poll(&p, 1, (int)timeout_ms);
		r = n == 0                                               ? -ETIMEDOUT
			: n < 0                                          ? -errno
			: getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) ? -errno
									 : -e;
	}
	if (r) {
		const char *why = r == -ETIMEDOUT ? "i/o timeout"
			: r == -ECONNREFUSED      ? "connect: connection refused"
			: r == -EHOSTUNREACH      ? "connect: no route to host"
						  : strerror(-r);
		buf_addf(out, "dial tcp %s%s%s:%d: %s", v6 ? "[" : "", name, v6 ? "]" : "", port,
			why);
		return r;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static enum probe_result ask_tcp(const struct core_v1_tcp_socket_action *t,
	const struct core_v1_container *c, const char *ip, unsigned timeout_ms, struct buf *out)
{
	struct err err;
	int port, fd;

	if (port_resolve(&t->port, c, &port, &err)) {
		buf_addz(out, err.text);
		return PROBE_UNKNOWN;
	}
	if (dial(t->host.len ? t->host : str_of(ip), port, timeout_ms, &fd, out))
		return PROBE_FAILURE;
	close(fd);
	return PROBE_SUCCESS;
}

/* ---- exec ---- */

static enum probe_result ask_exec(struct kubelet *k, const struct core_v1_exec_action *e,
	const char *id, unsigned timeout_ms, struct buf *out)
{
	struct err err;
	int code = 0;
	const char **argv = xcalloc(e->command.len + 1, sizeof(*argv));
	char limit[DURATION_TEXT_MAX];

	for (size_t i = 0; i < e->command.len; i++)
		argv[i] = e->command.items[i].p;
	int r = k->c.engine->v->exec_sync(k->c.engine, id, argv, timeout_ms, out, &code, &err);
	free(argv);
	if (r == -ETIMEDOUT) {
		duration_format((int64_t)timeout_ms * (int64_t)NS_PER_MS, limit);
		buf_clear(out);
		buf_addz(out, "command timed out: \"");
		for (size_t i = 0; i < e->command.len; i++)
			buf_addf(out, "%s" STR_FMT, i ? " " : "", STR_ARG(e->command.items[i]));
		buf_addf(out, "\" timed out after %s", limit);
		return PROBE_FAILURE;
	}
	if (r) {
		buf_clear(out);
		buf_addz(out, err.text);
		return PROBE_UNKNOWN;
	}
	return code ? PROBE_FAILURE : PROBE_SUCCESS;
}

enum probe_result probe_ask(struct kubelet *k, const struct core_v1_probe *p,
	const struct core_v1_container *c, const char *container_id, const char *pod_ip,
	struct buf *ret_output)
{
	unsigned timeout_ms =
		(unsigned)MIN(MAX(p->timeout_seconds, 1), (int32_t)TIMEOUT_MAX_S) * 1000;

	if (p->handler.exec)
		return ask_exec(k, p->handler.exec, container_id, timeout_ms, ret_output);
	if (p->handler.http_get)
		return ask_http(p->handler.http_get, c, pod_ip, timeout_ms, ret_output);
	if (p->handler.tcp_socket)
		return ask_tcp(p->handler.tcp_socket, c, pod_ip, timeout_ms, ret_output);
	if (p->handler.grpc) {
		int fd;
		if (dial(str_of(pod_ip), p->handler.grpc->port, timeout_ms, &fd, ret_output))
			return PROBE_FAILURE;
		return grpc_health(fd, pod_ip, p->handler.grpc, timeout_ms, ret_output);
	}
	buf_addz(ret_output, "missing probe handler");
	return PROBE_UNKNOWN;
}
