/* Answers load balancers at healthCheckNodePort: 200 while this node has ready endpoints of the service, 503 otherwise. Upstream: pkg/proxy/healthcheck.
 *
 * 1. Everything but health_set runs on the loop.
 * 2. A client gets one answer, within CLIENT_MS, and there are at most CLIENTS_MOST at a time: the port is open to everybody. */
#include "proxy/internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

#define CLIENTS_MOST 64
#define CLIENT_MS 5000
#define REQUEST_MOST 4096

struct health {
	struct loop *loop;
	struct map ports; /* key of the service -> struct health_port */
	size_t clients;
};
struct health_port {
	struct health *h;
	struct str key;
	char *text; /* key's */
	int port, fd;
	size_t local;
	struct fd_watch *watch;
};
struct health_client {
	struct health *h;
	int fd;
	size_t got, local;
	char *key;
	char request[REQUEST_MOST];
	struct fd_watch *watch;
	struct timer *timer;
};
struct health_change {
	struct health *h;
	char *key;
	int port;
	size_t local;
};

/* ---- one client ---- */

static void client_end(struct health_client *c)
{
	fd_watch_free(c->watch);
	timer_free(c->timer);
	close(c->fd);
	c->h->clients--;
	free(c->key);
	free(c);
}

static void on_late(void *arg)
{
	client_end(arg);
}

static void answer(struct health_client *c)
{
	CLEAN_BUF struct buf body = { 0 }, all = { 0 };
	struct str ns, name;

	str_cut(str_of(c->key), '/', &ns, &name);
	buf_addf(&body,
		"{\n\t\"service\": {\n\t\t\"namespace\": \"" STR_FMT "\",\n\t\t\"name\": \"" STR_FMT
		"\"\n\t},\n\t\"localEndpoints\": %zu,\n\t\"serviceProxyHealthy\": true\n}",
		STR_ARG(ns), STR_ARG(name), c->local);
	buf_addf(&all,
		"HTTP/1.1 %s\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
		"X-Load-Balancing-Endpoint-Weight: %zu\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
		c->local ? "200 OK" : "503 Service Unavailable", c->local, body.len);
	buf_add_str(&all, buf_str(&body));
	/* It fits any socket's buffer; who does not take it has no answer. */
	if (send(c->fd, all.p, all.len, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		shutdown(c->fd, SHUT_WR);
}

static void on_client(void *arg, int events)
{
	struct health_client *c = arg;
	ssize_t n = recv(c->fd, c->request + c->got, sizeof(c->request) - c->got, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		c->got += (size_t)n;
		if (!memmem(c->request, c->got, "\r\n\r\n", 4) && c->got < sizeof(c->request))
			return;
		answer(c);
	}
	client_end(c);
}

static void on_listener(void *arg, int events)
{
	struct health_port *p = arg;
	int fd = accept4(p->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct health_client *c;

	if (fd < 0)
		return;
	if (p->h->clients >= CLIENTS_MOST) {
		close(fd);
		return;
	}
	c = xcalloc(1, sizeof(*c));
	c->h = p->h;
	c->fd = fd;
	c->key = xstrdup(p->text);
	c->local = p->local;
	if (fd_watch_new(p->h->loop, fd, IO_READ, on_client, c, &c->watch, NULL) < 0) {
		close(fd);
		free(c->key);
		free(c);
		return;
	}
	c->timer = timer_new(p->h->loop, on_late, c);
	timer_start(c->timer, CLIENT_MS, 0);
	p->h->clients++;
}

/* ---- ports ---- */

static void port_end(void *v)
{
	struct health_port *p = v;

	if (!p)
		return;
	if (p->watch)
		fd_watch_free(p->watch);
	if (p->fd >= 0)
		close(p->fd);
	free(p->text);
	free(p);
}

static int listen_at(int port, int *ret_fd, struct err *err)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	CLEAN_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	if (fd < 0)
		return err_errno(err, -errno, "cannot make a socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0)
		return err_errno(err, -errno, "cannot listen at port %d", port);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void port_begin(struct health *h, const struct health_change *c)
{
	struct health_port *p = xcalloc(1, sizeof(*p));
	struct err err;

	*p = (struct health_port){ .h = h, .text = xstrdup(c->key), .port = c->port, .fd = -1 };
	p->key = str_of(p->text);
	if (listen_at(p->port, &p->fd, &err) < 0 ||
		fd_watch_new(h->loop, p->fd, IO_READ, on_listener, p, &p->watch, &err) < 0)
		log_warn("proxy", "service %s: load balancers get no answer about it: %s", p->text,
			err.text);
	map_set(&h->ports, p->key, p);
	p->local = c->local;
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

struct health *health_new(struct loop *l)
{
	struct health *h = xcalloc(1, sizeof(*h));

	h->loop = l;
	return h;
}
