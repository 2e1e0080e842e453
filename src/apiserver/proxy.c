/* The proxy subresources: plain HTTP to a pod, to a ready endpoint of a service, or to a node, under [SCHEME:]NAME[:PORT].
 * Links in proxied pages lead through the proxy again (links.c). Upstream: pkg/registry/core/{pod,service,node}/rest. */
#include <arpa/inet.h>

#include "apiserver/connect.h"

struct target {
	struct str scheme, name, port;
};

/* NAME, NAME:PORT, SCHEME:NAME:PORT */
static bool target_parse(struct str text, struct target *ret)
{
	struct str a, b, c, rest;
	*ret = (struct target){ .scheme = STR("http"), .name = text };
	if (!str_cut(text, ':', &a, &rest))
		return text.len > 0;
	if (!str_cut(rest, ':', &b, &c)) {
		ret->name = a;
		ret->port = rest;
		return a.len > 0;
	}
	if (a.len)
		ret->scheme = a;
	ret->name = b;
	ret->port = c;
	return b.len && (str_eqz(ret->scheme, "http") || str_eqz(ret->scheme, "https"));
}

static struct str forward_path(struct request *q)
{
	struct str path = q->info.rest.len ? q->info.rest : STR("/");
	CLEAN_BUF struct buf b = { 0 };
	for (size_t i = 0; i < path.len; i++) { /* it was decoded for routing */
		unsigned char c = (unsigned char)path.p[i];
		if (c > 0x20 && c < 0x7f && c != '%' && c != '?' && c != '#' && c != '"' &&
			c != '<' && c != '>')
			buf_addc(&b, (char)c);
		else
			buf_addf(&b, "%%%02X", c);
	}
	if (q->http->query.len)
		buf_addf(&b, "?" STR_FMT, STR_ARG(q->http->query));
	return arena_str(q->arena, buf_str(&b));
}

/* .../proxy without a path: browsers need the slash for relative links. */
static bool redirected(struct request *q)
{
	if (q->info.rest.len || q->info.verb_bit != VERB_GET)
		return false;
	struct http_header *h;
	size_t n = response_headers(q, "text/plain", &h);
	h[n++] = (struct http_header){ STR("location"),
		arena_fmt(q->arena, STR_FMT "/%s" STR_FMT, STR_ARG(q->http->path),
			q->http->query.len ? "?" : "", STR_ARG(q->http->query)) };
	http_respond(q->stream, 301, h, n, STR_NONE, NULL, NULL);
	request_finish(q, 301);
	return true;
}

/* The path up to what the proxied server is asked for: .../NAME/proxy */
static struct str proxy_prefix(struct request *q)
{
	struct str path = q->http->path;
	int slashes = q->info.ns.len ? 8 : 6;
	for (size_t i = 0; i < path.len; i++)
		if (path.p[i] == '/' && --slashes == 0)
			return str_n(path.p, i);
	return path;
}

static bool forward(struct request *q, struct http_client *c, struct str host, int port)
{
	if (q->http->upgrade) {
		http_tunnel(q->stream, c, forward_path(q), NULL, 0);
	} else {
		struct http_rewrite links = links_rewrite(proxy_prefix(q), host, port);
		http_forward_rewritten(q->stream, c, forward_path(q), &links);
	}
	http_client_free(c);
	request_finish(q, 200);
	return true;
}

/* Who may write a pod's or an endpoint's address must not thereby reach what listens on this machine alone, or its cloud's metadata. */
static bool address_allowed(const struct apiserver *s, struct str host)
{
	struct in6_addr six;
	struct in_addr four;
	char text[INET6_ADDRSTRLEN];
	if (host.len >= sizeof(text))
		return false;
	memcpy(text, host.p, host.len);
	text[host.len] = '\0';
	if (inet_pton(AF_INET6, text, &six) == 1) {
		if (!IN6_IS_ADDR_V4MAPPED(&six))
			return !IN6_IS_ADDR_UNSPECIFIED(&six) && !IN6_IS_ADDR_LOOPBACK(&six) &&
				!IN6_IS_ADDR_LINKLOCAL(&six) && !IN6_IS_ADDR_MULTICAST(&six);
		memcpy(&four, six.s6_addr + 12, sizeof(four));
	} else if (inet_pton(AF_INET, text, &four) != 1) {
		return false;
	}
	uint32_t ip = ntohl(four.s_addr);
	return (s->proxy_loopback || ip >> 24 != 127) && ip >> 24 != 0 && ip >> 16 != 0xa9fe &&
		ip >> 28 != 0xe;
}

static bool forward_to(struct request *q, struct str scheme, struct str host, int64_t port)
{
	struct err err = { 0 };
	struct http_client *c = NULL;
	static struct tls_context
		*unverified; /* as upstream: proxied pods bring certificates of their own */
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	if (port < 1 || port > 65535)
		return connect_refuse(q, "invalid port in the name of the proxied object");
	if (!address_allowed(q->server, host))
		return connect_refuse(q, "address not allowed");
	bool https = str_eqz(scheme, "https");
	pthread_mutex_lock(&lock);
	if (https && !unverified)
		tls_client_new(&(struct tls_client_config){ .insecure_skip_verify = true },
			&unverified, &err);
	pthread_mutex_unlock(&lock);
	c = upstream_get(q->server->upstreams, https ? "https" : "http", host, (int)port,
		https ? unverified : NULL, &err);
	if (c)
		return forward(q, c, host, (int)port);
	respond_reason(q, REASON_INTERNAL, "error trying to reach service: %s", err.text);
	return true;
}

/* ---- pods ---- */

static int64_t first_port(const struct core_v1_pod *pod)
{
	LIST_EACH(c, &pod->spec.containers)
		LIST_EACH(p, &c->ports)
			return p->container_port;
	return 80;
}

static int64_t named_port(const struct core_v1_pod *pod, struct str name)
{
	int64_t n;
	if (!name.len)
		return first_port(pod);
	if (str_to_i64(name, &n) == 0)
		return n;
	LIST_EACH(c, &pod->spec.containers)
		LIST_EACH(p, &c->ports)
			if (str_eq(p->name, name))
				return p->container_port;
	return -1;
}

bool connect_pod_proxy(struct request *q)
{
	struct target t;
	struct core_v1_pod *pod;
	if (redirected(q))
		return true;
	if (!target_parse(q->info.name, &t))
		return connect_refuse(
			q, "invalid pod request \"" STR_FMT "\"", STR_ARG(q->info.name));
	if (lookup(q->server, q->server->known.pods, q->info.ns, t.name, q->arena, &pod) != 0) {
		respond_status(q, status_not_found(q->arena, q->server->known.pods, t.name));
		return true;
	}
	if (!pod->status.pod_ip.len)
		return connect_refuse(q, "address not allowed");
	return forward_to(q, t.scheme, pod->status.pod_ip, named_port(pod, t.port));
}

/* ---- services ---- */

struct endpoint_ask {
	struct request *q;
	struct str service, port_name;
	struct str ret_host;
	int64_t ret_port;
};

static bool slice_endpoint(void *arg, struct object *o)
{
	struct endpoint_ask *ask = arg;
	void *decoded;
	bool ours = false;
	for (size_t i = 0; i < o->n_labels; i++)
		ours |= str_eqz(o->labels[i].key, "kubernetes.io/service-name") &&
			str_eq(o->labels[i].value, ask->service);
	if (!ours ||
		registry_decode(ask->q->server->known.endpoint_slices, o, ask->q->arena, &decoded,
			NULL) < 0)
		return true;
	const struct discovery_v1_endpoint_slice *slice = decoded;
	LIST_EACH(p, &slice->ports) {
		if (!p->port.set ||
			(ask->port_name.len ? !str_eq(p->name, ask->port_name)
					    : p->name.len && slice->ports.len > 1))
			continue;
		LIST_EACH(e, &slice->endpoints) {
			if (!e->addresses.len ||
				(e->conditions.ready.set && !e->conditions.ready.value))
				continue;
			ask->ret_host = e->addresses.items[0];
			ask->ret_port = p->port.value;
			return false;
		}
	}
	return true;
}

/* The name of the service's port that is meant by name, number or being the only one. */
static bool service_port(const struct core_v1_service *svc, struct str text, struct str *ret_name)
{
	int64_t n = 0;
	bool number = text.len && str_to_i64(text, &n) == 0;
	LIST_EACH(p, &svc->spec.ports) {
		if (text.len ? (number ? p->port == n : str_eq(p->name, text))
			     : svc->spec.ports.len == 1) {
			*ret_name = p->name;
			return true;
		}
	}
	return false;
}

bool connect_service_proxy(struct request *q)
{
	struct target t;
	struct core_v1_service *svc;
	if (redirected(q))
		return true;
	if (!target_parse(q->info.name, &t))
		return connect_refuse(
			q, "invalid service request \"" STR_FMT "\"", STR_ARG(q->info.name));
	if (lookup(q->server, q->server->known.services, q->info.ns, t.name, q->arena, &svc) != 0) {
		respond_status(q, status_not_found(q->arena, q->server->known.services, t.name));
		return true;
	}
	struct endpoint_ask ask = { .q = q, .service = t.name };
	if (service_port(svc, t.port, &ask.port_name))
		lookup_each(q->server, q->server->known.endpoint_slices, q->info.ns, slice_endpoint,
			&ask);
	if (ask.ret_host.len)
		return forward_to(q, t.scheme, ask.ret_host, ask.ret_port);
	respond_reason(q, REASON_SERVICE_UNAVAILABLE,
		"no endpoints available for service \"" STR_FMT "\"", STR_ARG(t.name));
	return true;
}

/* ---- nodes ---- */

bool connect_node_proxy(struct request *q)
{
	struct target t;
	if (redirected(q))
		return true;
	if (!target_parse(q->info.name, &t))
		return connect_refuse(
			q, "invalid node request \"" STR_FMT "\"", STR_ARG(q->info.name));
	struct http_client *c = connect_node(q, t.name);
	return c ? forward(q, c, STR_NONE, 0) : true;
}
