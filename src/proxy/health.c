/* Answers load balancers: at each healthCheckNodePort, 200 while this node has ready endpoints of the service; at the proxy's own address, /healthz and /livez,
 * 200 while changes get into the kernel in time. Upstream: pkg/proxy/healthcheck.
 *
 * 1. What is told comes from any thread; the answers are the loop's.
 * 2. The proxy is well unless a change waits for longer than 60 s. /healthz asks more: that this node is not about to go (deleted, or tainted by the
 *    cluster autoscaler), so that balancers leave it while its connections live; /livez does not, since starting it again would mend nothing. */
#include "proxy/internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define LATE_NS (60 * 1000000000ull)
#define AGAIN_MS 5000
#define EVERYWHERE "0.0.0.0"
#define JSON_HEADERS "Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"

struct own_address {
	struct health *h;
	char host[64];
	int port;
	small_http_fn fn;
	struct small_http *http;
	struct timer *again; /* while somebody else has the port */
	bool told;
};
struct health {
	struct loop *loop;
	const struct clock *clock;
	struct map ports; /* key of the service -> struct health_port */
	struct own_address healthz, status;
	_Atomic uint64_t waits_since_ns; /* 0: no change waits */
	_Atomic int64_t updated_s;       /* 0: never yet */
	_Atomic bool leaving;
};
struct health_port {
	struct health *h;
	char *key;
	int port;
	size_t local;
	struct small_http *http;
};
struct health_change {
	struct health *h;
	char *key;
	int port;
	size_t local;
};

static bool is_well(const struct health *h)
{
	uint64_t since = atomic_load(&h->waits_since_ns);

	return !since || h->clock->mono_ns(h->clock) < since + LATE_NS;
}

void health_waits(struct health *h)
{
	uint64_t none = 0;

	atomic_compare_exchange_strong(&h->waits_since_ns, &none, h->clock->mono_ns(h->clock));
}

void health_updated(struct health *h)
{
	atomic_store(&h->updated_s, h->clock->wall(h->clock).sec);
	atomic_store(&h->waits_since_ns, 0);
}

void health_leaving(struct health *h, bool leaving)
{
	atomic_store(&h->leaving, leaving);
}

/* ---- the proxy's own answers ---- */

/* As Go writes a time that is printed plainly. */
static const char *time_text(int64_t sec, char out[40])
{
	time_t t = (time_t)sec;
	struct tm tm;

	if (!sec)
		return "0001-01-01 00:00:00 +0000 UTC";
	strftime(out, 40, "%Y-%m-%d %H:%M:%S +0000 UTC", gmtime_r(&t, &tm));
	return out;
}

static int no_such_page(struct buf *headers, struct buf *body)
{
	buf_addz(headers,
		"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n");
	buf_addz(body, "404 page not found\n");
	return 404;
}

static int own_health(void *arg, struct str path, struct buf *headers, struct buf *body)
{
	const struct health *h = arg;
	bool well = is_well(h), leaving = atomic_load(&h->leaving), live = str_eqz(path, "/livez");
	int64_t now = h->clock->wall(h->clock).sec;
	char a[40], b[40];

	if (!live && !str_eqz(path, "/healthz"))
		return no_such_page(headers, body);
	well &= live || !leaving;
	buf_addz(headers, JSON_HEADERS);
	buf_addf(body, "{\"lastUpdated\": \"%s\",\"currentTime\": \"%s\"",
		time_text(well ? now : atomic_load(&h->updated_s), a), time_text(now, b));
	if (!live)
		buf_addf(body, ", \"nodeEligible\": %s", leaving ? "false" : "true");
	buf_addz(body, "}");
	return well ? 200 : 503;
}

/* Of upstream's status port: which proxy this is. */
static int own_status(void *arg, struct str path, struct buf *headers, struct buf *body)
{
	if (!str_eqz(path, "/proxyMode"))
		return no_such_page(headers, body);
	buf_addz(headers,
		"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n");
	buf_addz(body, "nftables");
	return 200;
}

static void open_own(void *arg)
{
	struct own_address *o = arg;
	struct err err;

	if (small_http_new(o->h->loop, o->host, o->port, o->fn, o->h, &o->http, &err) == 0) {
		timer_free(o->again);
		o->again = NULL;
		return;
	}
	if (!o->told)
		log_warn("proxy", "nobody is told of the proxy's health: %s; tried again each %d s",
			err.text, AGAIN_MS / 1000);
	o->told = true;
	if (!o->again)
		o->again = timer_new(o->h->loop, open_own, o);
	timer_start(o->again, AGAIN_MS, 0);
}

static int parse_own(const char *text, struct own_address *ret, struct err *err)
{
	const char *colon = text ? strrchr(text, ':') : NULL;
	size_t n = colon ? (size_t)(colon - text) : 0;
	int64_t port;

	if (!text || !strcmp(text, "off"))
		return 0;
	if (!colon || n >= sizeof(ret->host) || str_to_i64(str_of(colon + 1), &port) < 0 ||
		port < 1 || port > 65535)
		return err_set(err, -EINVAL,
			"%s: expected ADDRESS:PORT, as in 127.0.0.1:10256, or off", text);
	ret->port = (int)port;
	snprintf(ret->host, sizeof(ret->host), "%.*s", (int)(n ? n : strlen(EVERYWHERE)),
		n ? text : EVERYWHERE);
	return 0;
}

/* ---- services ---- */

static int service_health(void *arg, struct str path, struct buf *headers, struct buf *body)
{
	const struct health_port *p = arg;
	bool well = is_well(p->h);
	struct str ns, name;

	str_cut(str_of(p->key), '/', &ns, &name);
	buf_addf(headers, JSON_HEADERS "X-Load-Balancing-Endpoint-Weight: %zu\r\n", p->local);
	buf_addf(body,
		"{\n\t\"service\": {\n\t\t\"namespace\": \"" STR_FMT "\",\n\t\t\"name\": \"" STR_FMT
		"\"\n\t},\n\t\"localEndpoints\": %zu,\n\t\"serviceProxyHealthy\": %s\n}",
		STR_ARG(ns), STR_ARG(name), p->local, well ? "true" : "false");
	return p->local && well ? 200 : 503;
}

static void port_end(struct health_port *p)
{
	small_http_free(p->http);
	free(p->key);
	free(p);
}

static void port_begin(struct health *h, const struct health_change *c)
{
	struct health_port *p = xcalloc(1, sizeof(*p));
	struct err err;

	*p = (struct health_port){
		.h = h, .key = xstrdup(c->key), .port = c->port, .local = c->local
	};
	if (small_http_new(h->loop, EVERYWHERE, p->port, service_health, p, &p->http, &err) < 0)
		log_warn("proxy", "service %s: load balancers get no answer about it: %s", p->key,
			err.text);
	map_set(&h->ports, str_of(p->key), p);
}

static void on_change(void *arg)
{
	struct health_change *c = arg;
	struct health_port *p = map_get(&c->h->ports, str_of(c->key));

	if (p && p->port != c->port) {
		map_remove(&c->h->ports, str_of(c->key));
		port_end(p);
		p = NULL;
	}
	if (p)
		p->local = c->local;
	else if (c->port)
		port_begin(c->h, c);
	free(c->key);
	free(c);
}

void health_set(struct health *h, struct str key, int port, size_t local)
{
	struct health_change *c = xcalloc(1, sizeof(*c));

	*c = (struct health_change){ h, str_dup(key), port, local };
	loop_post(h->loop, on_change, c);
}

int health_new(struct loop *l, const struct clock *clock, const char *healthz, const char *status,
	struct health **ret, struct err *err)
{
	struct health *h = xcalloc(1, sizeof(*h));
	struct own_address *own[] = { &h->healthz, &h->status };
	int r;

	h->loop = l;
	h->clock = clock;
	r = parse_own(healthz, &h->healthz, err);
	if (r == 0)
		r = parse_own(status, &h->status, err);
	if (r < 0) {
		free(h);
		return r;
	}
	h->healthz.fn = own_health;
	h->status.fn = own_status;
	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		own[i]->h = h;
		if (own[i]->port)
			loop_post(l, open_own, own[i]);
	}
	*ret = h;
	return 0;
}

static void end(void *arg)
{
	struct health *h = arg;
	struct own_address *own[] = { &h->healthz, &h->status };
	size_t at = 0;
	void *port;

	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		small_http_free(own[i]->http);
		timer_free(own[i]->again);
	}
	while (map_next(&h->ports, &at, NULL, &port))
		port_end(port);
	map_deinit(&h->ports, NULL);
	free(h);
}

void health_free(struct health *h)
{
	if (h)
		loop_post(h->loop, end, h);
}
