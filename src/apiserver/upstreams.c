/* Clients to kubelets, pods and services that requests are proxied to: one a scheme, host, port and TLS context, shared by all requests. Whose
 * certificate goes along is part of what a client is: a pod on its node's network must not be reached as the kubelet is. */
#include "apiserver/internal.h"

#define CLIENTS_MAX \
	512 /* then all are forgotten: clients of requests choose ports, and each keeps connections */

struct upstreams {
	pthread_mutex_t lock; /* guards the rest */
	struct map clients;
	size_t n;
};

struct upstreams *upstreams_new(void)
{
	struct upstreams *u = xcalloc(1, sizeof(*u));
	pthread_mutex_init(&u->lock, NULL);
	return u;
}

static void client_free(void *c)
{
	http_client_free(c);
}

void upstreams_free(struct upstreams *u)
{
	if (!u)
		return;
	map_deinit(&u->clients, client_free);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

struct http_client *upstream_get(struct upstreams *u, const char *scheme, struct str host, int port,
	struct tls_context *tls, struct err *err)
{
	bool v6 = str_find(host, ':') >= 0;
	CLEAN_FREE char *url = xasprintf("%s://%s" STR_FMT "%s:%d", scheme, v6 ? "[" : "",
		STR_ARG(host), v6 ? "]" : "", port);
	CLEAN_FREE char *key = xasprintf("%p %s", (void *)tls, url);
	pthread_mutex_lock(&u->lock);
	struct http_client *c = map_get(&u->clients, str_of(key));
	if (!c && u->n == CLIENTS_MAX) {
		map_deinit(&u->clients, client_free);
		u->clients = (struct map){ 0 };
		u->n = 0;
	}
	if (!c && http_client_new(url, tls, &c, err) == 0) {
		map_set(&u->clients, str_of(key), c);
		u->n++;
	}
	if (c)
		http_client_ref(c);
	pthread_mutex_unlock(&u->lock);
	return c;
}
