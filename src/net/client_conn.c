/* The blocking client's connection: a non-blocking socket, TLS over memory, and poll(). */
#include "net/client_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#define IDLE_MAX 8
#define ALTERNATIVE_MS 3000 /* for one server to take a connection, where there are others */
#define IDLE_MS 60000
#define DOUBTED_IDLE_S 1

static uint64_t now_ms(void)
{
	return mono_now_ns() / 1000000;
}

/* Until fd is ready for events. */
static int wait_for(int fd, short events, struct patience p)
{
	struct pollfd fds[2] = { { fd, events, 0 }, { p.cancel_fd, POLLIN, 0 } };

	for (;;) {
		uint64_t now = p.until_ms ? now_ms() : 0;
		int left = p.until_ms ? (int)MIN(p.until_ms - now, (uint64_t)INT_MAX) : -1;

		if (p.until_ms && now >= p.until_ms)
			return -ETIMEDOUT;
		int n = poll(fds, 2,
			left < 0                   ? p.timeout_ms
				: p.timeout_ms < 0 ? left
						   : MIN(left, p.timeout_ms));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ETIMEDOUT;
		return fds[1].revents ? -ECANCELED : 0;
	}
}

/* ---- sending ---- */

int client_queue(struct client_conn *conn, const void *bytes, size_t n)
{
	if (conn->secure)
		return tls_write(&conn->tls, bytes, n);
	buf_add(&conn->out, bytes, n);
	return 0;
}

int client_try_send(struct client_conn *conn)
{
	while (conn->out_sent < conn->out.len) {
		ssize_t n = send(conn->fd, conn->out.p + conn->out_sent,
			conn->out.len - conn->out_sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		conn->out_sent += (size_t)n;
	}
	conn->out_sent = 0;
	buf_deinit(&conn->out);
	return 0;
}

static int send_waiting(struct client_conn *conn, struct patience p)
{
	int r;

	while ((r = client_try_send(conn)) == -EAGAIN)
		if ((r = wait_for(conn->fd, POLLOUT, p)) < 0)
			return r;
	return r;
}

int client_write(
	struct client_conn *conn, struct patience p, const void *bytes, size_t n, struct err *err)
{
	int r = client_queue(conn, bytes, n);

	if (r == 0)
		r = send_waiting(conn, p);
	return r < 0 ? err_errno(err, r, "cannot send") : 0;
}

/* ---- whether a silent peer is there ---- */

static struct {
	pthread_mutex_t lock;
	struct client_conn *first;
} watched = { PTHREAD_MUTEX_INITIALIZER, NULL };

void client_watch(struct client_conn *conn)
{
	pthread_mutex_lock(&watched.lock);
	conn->next_watched = watched.first;
	watched.first = conn;
	pthread_mutex_unlock(&watched.lock);
}

void client_unwatch(struct client_conn *conn)
{
	pthread_mutex_lock(&watched.lock);
	for (struct client_conn **at = &watched.first; *at; at = &(*at)->next_watched)
		if (*at == conn) {
			*at = conn->next_watched;
			break;
		}
	pthread_mutex_unlock(&watched.lock);
}

static void ask_peer_after(struct client_conn *conn, int seconds)
{
	setsockopt(conn->fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
}

void client_doubt(void)
{
	pthread_mutex_lock(&watched.lock);
	for (struct client_conn *conn = watched.first; conn; conn = conn->next_watched)
		if (!atomic_exchange(&conn->doubted, true))
			ask_peer_after(conn, DOUBTED_IDLE_S);
	pthread_mutex_unlock(&watched.lock);
}

/* ---- receiving ---- */

static ssize_t receive(struct client_conn *conn, void *out, size_t n)
{
	for (;;) {
		ssize_t r = recv(conn->fd, out, n, 0);

		if (r < 0 && errno == EINTR)
			continue;
		return r < 0 ? -errno : r;
	}
}

static ssize_t try_read(struct client_conn *conn, void *out, size_t n, struct err *err)
{
	if (!conn->secure)
		return receive(conn, out, n);
	for (;;) {
		ssize_t r = tls_read(&conn->tls, out, n, err);

		if (r != -EAGAIN)
			return r;
		if (!conn->in)
			conn->in = xmalloc(CLIENT_READ_SIZE);
		r = receive(conn, conn->in, CLIENT_READ_SIZE);
		if (r <= 0)
			return r;
		conn->tls.in = str_n(conn->in, (size_t)r);
	}
}

ssize_t client_try_read(struct client_conn *conn, void *out, size_t n)
{
	return try_read(conn, out, n, NULL);
}

ssize_t client_read(
	struct client_conn *conn, struct patience p, void *out, size_t n, struct err *err)
{
	for (;;) {
		ssize_t r = try_read(conn, out, n, err);

		if (r > 0 && atomic_exchange(&conn->doubted, false))
			ask_peer_after(conn, SOCKET_IDLE_S);
		if (r >= 0 || r == -EPROTO)
			return r;
		if (r != -EAGAIN)
			return err_errno(err, (int)r, "cannot receive");
		/* A watch waits for hours: it needs no buffer meanwhile. */
		free(TAKE(conn->in));
		r = p.at_once ? client_try_send(conn) : send_waiting(conn, p);
		if (p.at_once && (r == 0 || r == -EAGAIN))
			return -EAGAIN;
		if (r == 0)
			r = wait_for(conn->fd, POLLIN, p);
		if (r < 0)
			return err_errno(err, (int)r, "waiting for an answer");
	}
}

/* ---- opening and keeping ---- */

void client_conn_free(struct client_conn *conn)
{
	if (!conn)
		return;
	tls_conn_deinit(&conn->tls);
	if (conn->fd >= 0)
		close(conn->fd);
	buf_deinit(&conn->out);
	free(conn->in);
	free(conn);
}

static int connect_one(const struct addrinfo *ai, struct patience p)
{
	CLEAN_FD int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int problem = 0, r;
	socklen_t n = sizeof(problem);

	if (fd < 0)
		return -errno;
	if (p.connect_ms && (p.timeout_ms < 0 || p.timeout_ms > p.connect_ms))
		p.timeout_ms = p.connect_ms;
	socket_tune(fd);
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0) {
		if (errno != EINPROGRESS)
			return -errno;
		r = wait_for(fd, POLLOUT, p);
		if (r < 0)
			return r;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &n) < 0 || problem)
			return problem ? -problem : -errno;
	}
	return TAKE_FD(fd);
}

static int connect_any(const char *host, const char *port, struct patience p, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	int g = getaddrinfo(host, port, &hints, &list), r = -EHOSTUNREACH;

	if (g)
		return err_set(err, -EHOSTUNREACH, "cannot find the address of %s: %s", host,
			gai_strerror(g));
	for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		r = connect_one(ai, p);
		if (r >= 0 || r == -ECANCELED)
			break;
	}
	freeaddrinfo(list);
	return r < 0 ? err_errno(err, r, "cannot connect") : r;
}

static int handshake(struct client_conn *conn, struct patience p, struct err *err)
{
	for (;;) {
		int r = tls_handshake(&conn->tls, err), s = send_waiting(conn, p);

		if (r == 0)
			return s < 0 ? err_errno(err, s, "TLS handshake") : 0;
		if (r != -EAGAIN)
			return r;
		if (s == 0)
			s = wait_for(conn->fd, POLLIN, p);
		if (s < 0)
			return err_errno(err, s, "TLS handshake");
		if (!conn->in)
			conn->in = xmalloc(CLIENT_READ_SIZE);
		ssize_t n = receive(conn, conn->in, CLIENT_READ_SIZE);

		if (n == 0)
			n = -ECONNRESET;
		if (n < 0 && n != -EAGAIN)
			return err_errno(err, (int)n, "TLS handshake");
		conn->tls.in = str_n(conn->in, (size_t)MAX(n, (ssize_t)0));
	}
}

/* A kept connection on which the server said something, or hung up, is of no use. */
static bool is_quiet(struct client_conn *conn)
{
	char byte;

	return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
		(errno == EAGAIN || errno == EWOULDBLOCK);
}

static struct client_conn *take_kept(struct http_client *c)
{
	struct client_conn *conn;

	for (;;) {
		pthread_mutex_lock(&c->lock);
		conn = c->idle;
		if (conn) {
			c->idle = conn->next;
			c->n_idle--;
		}
		pthread_mutex_unlock(&c->lock);
		if (!conn)
			return NULL;
		/* The server knows a connection by the certificate that it was opened with. */
		bool current = conn->generation == tls_context_generation(c->tls);

		if (current && now_ms() - conn->idle_since_ms < IDLE_MS && is_quiet(conn)) {
			conn->reused = true;
			return conn;
		}
		client_conn_free(conn);
	}
}

void client_keep(struct http_client *c, struct client_conn *conn)
{
	conn->idle_since_ms = now_ms();
	free(TAKE(conn->in));
	pthread_mutex_lock(&c->lock);
	if (c->n_idle < IDLE_MAX) {
		conn->next = c->idle;
		c->idle = conn;
		c->n_idle++;
		conn = NULL;
	}
	pthread_mutex_unlock(&c->lock);
	client_conn_free(conn);
}

static int connect_to(struct http_client *c, const char *host, const char *port, struct patience p,
	struct client_conn **ret, struct err *err)
{
	int fd = c->local ? local_connect(c->local, err) : connect_any(host, port, p, err), r = 0;

	if (fd < 0)
		return fd;
	struct client_conn *conn = xcalloc(1, sizeof(*conn));

	conn->fd = fd;
	conn->secure = c->tls != NULL;
	conn->generation = tls_context_generation(c->tls);
	conn->tls.out = &conn->out;
	if (conn->secure) {
		r = tls_conn_init(&conn->tls, c->tls, false, err);
		if (r == 0)
			r = tls_conn_set_peer(&conn->tls, c->tls, host, err);
		if (r == 0)
			r = handshake(conn, p, err);
	}
	if (r < 0) {
		client_conn_free(conn);
		return r;
	}
	*ret = conn;
	return 0;
}

/* Copies of one server's host and port; false: there are not so many. */
static bool place_at(struct http_client *c, size_t i, char **ret_host, char **ret_port)
{
	pthread_mutex_lock(&c->lock);
	bool there = i <= c->n_places;

	if (there) {
		*ret_host = xstrdup(i ? c->places[i - 1].host : c->host);
		*ret_port = xstrdup(i ? c->places[i - 1].port : c->port);
	}
	pthread_mutex_unlock(&c->lock);
	return there;
}

int client_connect(struct http_client *c, bool fresh, struct patience p, struct client_conn **ret,
	struct err *err)
{
	struct client_conn *conn = fresh ? NULL : take_kept(c);
	size_t n, first;
	int r = -EHOSTUNREACH;

	if (conn) {
		*ret = conn;
		return 0;
	}
	pthread_mutex_lock(&c->lock);
	n = c->n_places + 1;
	first = c->preferred;
	pthread_mutex_unlock(&c->lock);
	if (n > 1 && (p.timeout_ms < 0 || p.timeout_ms > ALTERNATIVE_MS))
		p.timeout_ms = ALTERNATIVE_MS;
	for (size_t k = 0; k < n; k++) {
		CLEAN_FREE char *host = NULL, *port = NULL;
		size_t i = (first + k) % n;

		if (!place_at(c, i, &host, &port))
			continue;
		r = connect_to(c, host, port, p, ret, err);
		if (r == 0 && k > 0) {
			pthread_mutex_lock(&c->lock);
			c->preferred = i <= c->n_places ? i : 0;
			pthread_mutex_unlock(&c->lock);
		}
		if (r == 0 || r == -ECANCELED)
			return r;
	}
	return r;
}
