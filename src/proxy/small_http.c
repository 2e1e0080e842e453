/* A port at which a question gets one short answer, without authentication: what load balancers ask of a node. Not for anything larger: net's server is.
 *
 * 1. All on the loop.
 * 2. A client gets one answer, within CLIENT_MS, and there are at most CLIENTS_MOST at all ports together: they may be open to everybody. */
#include "proxy/internal.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#define CLIENTS_MOST 64
#define CLIENT_MS 5000
#define REQUEST_MOST 4096

struct small_http {
	struct loop *loop;
	small_http_fn fn;
	void *arg;
	int fd;
	struct fd_watch *watch;
	struct list clients;
};
struct client_of {
	struct list node;
	struct small_http *at;
	int fd;
	size_t got;
	char request[REQUEST_MOST];
	struct fd_watch *watch;
	struct timer *timer;
};

static size_t n_clients; /* of the loop; there is one */

static void client_end(struct client_of *c)
{
	list_remove(&c->node);
	fd_watch_free(c->watch);
	timer_free(c->timer);
	close(c->fd);
	n_clients--;
	free(c);
}

static void on_late(void *arg)
{
	client_end(arg);
}

/* "GET /healthz?x HTTP/1.1": /healthz. */
static struct str path_of(const struct client_of *c)
{
	struct str line = str_n(c->request, c->got), path, rest;

	str_cut(line, '\r', &line, &rest);
	str_cut(line, ' ', &path, &rest);
	str_cut(rest, ' ', &path, &rest);
	str_cut(path, '?', &path, &rest);
	return path;
}

static void answer(struct client_of *c)
{
	CLEAN_BUF struct buf body = { 0 }, headers = { 0 }, all = { 0 };
	int status = c->at->fn(c->at->arg, path_of(c), &headers, &body);

	buf_addf(&all, "HTTP/1.1 %s\r\n" STR_FMT "Content-Length: %zu\r\nConnection: close\r\n\r\n",
		status == 200           ? "200 OK"
			: status == 404 ? "404 Not Found"
					: "503 Service Unavailable",
		STR_ARG(buf_str(&headers)), body.len);
	buf_add_str(&all, buf_str(&body));
	/* It fits any socket's buffer; who does not take it has no answer. */
	if (send(c->fd, all.p, all.len, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		shutdown(c->fd, SHUT_WR);
}

static void on_client(void *arg, int events)
{
	struct client_of *c = arg;
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
	struct small_http *h = arg;
	int fd = accept4(h->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client_of *c;

	if (fd < 0)
		return;
	c = n_clients < CLIENTS_MOST ? xcalloc(1, sizeof(*c)) : NULL;
	if (!c || fd_watch_new(h->loop, fd, IO_READ, on_client, c, &c->watch, NULL) < 0) {
		close(fd);
		free(c);
		return;
	}
	c->at = h;
	c->fd = fd;
	c->timer = timer_new(h->loop, on_late, c);
	timer_start(c->timer, CLIENT_MS, 0);
	list_insert(&h->clients, &c->node);
	n_clients++;
}

static int listen_at(const char *host, int port, int *ret_fd, struct err *err)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	CLEAN_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		return err_set(err, -EINVAL, "%s is no IPv4 address to listen at", host);
	if (fd < 0)
		return err_errno(err, -errno, "cannot make a socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0)
		return err_errno(err, -errno, "cannot listen at %s:%d", host, port);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int small_http_new(struct loop *l, const char *host, int port, small_http_fn fn, void *arg,
	struct small_http **ret, struct err *err)
{
	struct small_http *h = xcalloc(1, sizeof(*h));
	int r;

	*h = (struct small_http){ .loop = l, .fn = fn, .arg = arg, .fd = -1 };
	list_init(&h->clients);
	r = listen_at(host, port, &h->fd, err);
	if (r == 0)
		r = fd_watch_new(l, h->fd, IO_READ, on_listener, h, &h->watch, err);
	if (r < 0) {
		small_http_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

void small_http_free(struct small_http *h)
{
	if (!h)
		return;
	list_for_each(it, &h->clients)
		client_end(list_entry(it, struct client_of, node));
	if (h->watch)
		fd_watch_free(h->watch);
	if (h->fd >= 0)
		close(h->fd);
	free(h);
}
