/* The listener, and what a server has on each of its loops. Connections are dealt out in turn.
 *
 * Stopping: the listener goes first, so that no connection is on its way to a loop; then each loop lets its running answers
 * end, STOP_MS at most. */
#include "net/internal.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>

#define STOP_MS 5000
#define IDLE_MS (5 * 60 * 1000)
#define CONNECTIONS_MAX 10000
#define BODIES_MAX ((size_t)512 * 1024 * 1024)
#define ACCEPT_PAUSE_MS 100
#define ACCEPT_BATCH 64
#define BACKLOG 1024

const char *net_loop_date(struct net_loop *nl)
{
	time_t now = time(NULL);

	if (now != nl->date_second) {
		struct tm tm;

		gmtime_r(&now, &tm);
		strftime(nl->date, sizeof(nl->date), "date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
		nl->date_second = now;
	}
	return nl->date;
}

/* ---- accepting ---- */

struct accepted {
	struct net_loop *nl;
	int fd;
	char remote[64];
};

static void deliver(void *arg)
{
	struct accepted *a = arg;

	conn_new(a->nl, a->fd, a->remote);
	free(a);
}

static void format_address(const struct sockaddr_storage *ss, char *out, size_t size)
{
	char text[INET6_ADDRSTRLEN] = "?";

	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)ss;

		inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
		snprintf(out, size, "%s:%u", text, ntohs(in->sin_port));
		return;
	}
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], text, sizeof(text));
		snprintf(out, size, "%s:%u", text, ntohs(in6->sin6_port));
		return;
	}
	inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
	snprintf(out, size, "[%s]:%u", text, ntohs(in6->sin6_port));
}

/* A link that was cut is used again soon after it is mended: without a bound, what a watch has to tell waits for as long again as the cut took, up to two
 * minutes (Linux 6.15 and later know the bound). And a peer that is gone is noticed within half a minute. */
void socket_tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ IPPROTO_TCP, TCP_RTO_MAX_MS, 3000 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, SOCKET_IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 5 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 3 },
	};

	for (size_t i = 0; i < ARRAY_LEN(options); i++)
		setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
}

static void take_connection(struct http_server *s, int fd, const struct sockaddr_storage *from)
{
	if (atomic_fetch_add(&s->n_conns, 1) >= s->config.max_connections) {
		atomic_fetch_sub(&s->n_conns, 1);
		close(fd);
		return;
	}
	struct accepted *a = xmalloc(sizeof(*a));

	socket_tune(fd);
	a->nl = &s->loops[s->next_loop++ % s->config.n_loops];
	a->fd = fd;
	format_address(from, a->remote, sizeof(a->remote));
	if (loop_is_current(a->nl->loop))
		deliver(a);
	else
		loop_post(a->nl->loop, deliver, a);
}

static void on_accept(void *arg, int events)
{
	struct http_server *s = arg;

	for (int i = 0; i < ACCEPT_BATCH; i++) {
		struct sockaddr_storage from;
		socklen_t n = sizeof(from);
		int fd = accept4(
			s->listen_fd, (struct sockaddr *)&from, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			take_connection(s, fd, &from);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			/* The waiting connection would wake us again at once. */
			fd_watch_set(s->listen_watch, 0);
			timer_start(s->accept_again, ACCEPT_PAUSE_MS, 0);
		}
		if (errno != ECONNABORTED && errno != EINTR)
			return;
	}
}

static void accept_again(void *arg)
{
	struct http_server *s = arg;

	fd_watch_set(s->listen_watch, IO_READ);
}

/* ---- starting ---- */

static void start_listening(void *arg)
{
	struct http_server *s = arg;

	s->accept_again = timer_new(s->config.loops[0], accept_again, s);
	fd_watch_new(
		s->config.loops[0], s->listen_fd, IO_READ, on_accept, s, &s->listen_watch, NULL);
}

static struct addrinfo *address_of(const char *address, int port)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
		.ai_socktype = SOCK_STREAM },
			*ai;
	char text[16];

	snprintf(text, sizeof(text), "%d", port);
	return getaddrinfo(address, text, &hints, &ai) ? NULL : ai;
}

bool http_listens_on(int fd, const char *address, int port)
{
	struct addrinfo *ai = address_of(address, port);
	struct sockaddr_storage ss = { 0 };
	socklen_t n = sizeof(ss);
	bool same = ai && getsockname(fd, (struct sockaddr *)&ss, &n) == 0 && n == ai->ai_addrlen &&
		!memcmp(&ss, ai->ai_addr, n);

	if (ai)
		freeaddrinfo(ai);
	return same;
}

void http_refuse(int fd)
{
	int listens = 0;
	socklen_t n = sizeof(listens);

	/* A second time would stick: connections that are taken later would be at their end from the beginning. */
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && listens)
		shutdown(fd, SHUT_RD);
}

int http_listen(const char *address, int port, int *ret_fd, struct err *err)
{
	struct addrinfo *ai = address_of(address, port);
	int on = 1, off = 0;

	if (!ai)
		return err_set(err, -EINVAL, "cannot listen on %s: not an IP address", address);
	CLEAN_FD int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r = 0;

	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (ai->ai_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	}
	if (fd < 0 || bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		r = -errno;
	freeaddrinfo(ai);
	if (r == -EADDRINUSE)
		return err_set(err, r,
			"cannot listen on %s port %d: another process uses it; stop that or choose another port",
			address, port);
	if (r < 0)
		return err_errno(err, r, "cannot listen on %s port %d", address, port);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int bound_port(int fd)
{
	struct sockaddr_storage ss;
	socklen_t n = sizeof(ss);

	if (getsockname(fd, (struct sockaddr *)&ss, &n) < 0)
		return 0;
	return ntohs(ss.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&ss)->sin6_port
					      : ((struct sockaddr_in *)&ss)->sin_port);
}

struct http_server *server_new(const struct http_server_config *c)
{
	struct http_server *s = xcalloc(1, sizeof(*s));

	s->config = *c;
	s->config.loops = memcpy(
		xcalloc(c->n_loops, sizeof(*c->loops)), c->loops, c->n_loops * sizeof(*c->loops));
	s->config.tls = tls_context_ref(c->tls);
	s->config.idle_timeout_ms = c->idle_timeout_ms ? c->idle_timeout_ms : IDLE_MS;
	s->config.max_connections = c->max_connections ? c->max_connections : CONNECTIONS_MAX;
	s->config.body_max = c->body_max ? c->body_max : NET_BODY_MAX;
	s->config.bodies_max = c->bodies_max ? c->bodies_max : BODIES_MAX;
	s->config.address = NULL;
	s->listen_fd = -1;
	s->running = c->n_loops;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->ended, NULL);
	s->loops = xcalloc(c->n_loops, sizeof(*s->loops));
	for (size_t i = 0; i < c->n_loops; i++) {
		struct net_loop *nl = &s->loops[i];

		nl->server = s;
		nl->loop = c->loops[i];
		for (size_t j = 0; j < ARRAY_LEN(nl->states); j++)
			list_init(&nl->states[j]);
		nl->in = xmalloc(READ_SIZE);
		nl->plain = xmalloc(TLS_RECORD);
		loop_post(nl->loop, net_loop_start, nl);
	}
	return s;
}

int http_server_start(const struct http_server_config *c, struct http_server **ret, struct err *err)
{
	int fd = c->listen_fd, r = fd ? 0 : http_listen(c->address, c->port, &fd, err);

	if (r < 0)
		return r;
	/* One that was handed over may have been told to refuse for a while. */
	if (c->listen_fd && listen(fd, BACKLOG) < 0)
		return err_errno(err, -errno, "cannot listen on port %d", bound_port(fd));
	struct http_server *s = server_new(c);

	s->listen_fd = fd;
	s->port = bound_port(fd);
	loop_post(c->loops[0], start_listening, s);
	*ret = s;
	return 0;
}

int http_server_port(const struct http_server *s)
{
	return s->port;
}

/* ---- stopping ---- */

static void one_ended(struct http_server *s)
{
	pthread_mutex_lock(&s->lock);
	s->running--;
	pthread_cond_signal(&s->ended);
	pthread_mutex_unlock(&s->lock);
}

static void end_when_empty(struct net_loop *nl)
{
	if (!nl->stopping || nl->n_conns || nl->n_threads)
		return;
	timer_free(nl->sweep);
	timer_free(nl->stop_timer);
	nl->sweep = nl->stop_timer = NULL;
	stream_free_spares(nl);
	one_ended(nl->server);
}

void net_loop_conn_gone(struct net_loop *nl)
{
	atomic_fetch_sub(&nl->server->n_conns, 1);
	end_when_empty(nl);
}

void net_loop_thread_gone(void *arg)
{
	struct net_loop *nl = arg;

	nl->n_threads--;
	end_when_empty(nl);
}

static void kill_all(void *arg)
{
	struct net_loop *nl = arg;

	for (size_t i = 0; i < ARRAY_LEN(nl->states); i++)
		list_for_each(it, &nl->states[i])
			conn_kill(list_entry(it, struct http_conn, link));
}

static void stop_loop(void *arg)
{
	struct net_loop *nl = arg;

	nl->stopping = true;
	nl->stop_timer = timer_new(nl->loop, kill_all, nl);
	timer_start(nl->stop_timer, STOP_MS, 0);
	for (size_t i = 0; i < ARRAY_LEN(nl->states); i++)
		list_for_each(it, &nl->states[i])
			conn_stop(list_entry(it, struct http_conn, link));
	end_when_empty(nl);
}

static void stop_listening(void *arg)
{
	struct http_server *s = arg;

	fd_watch_free(s->listen_watch);
	timer_free(s->accept_again);
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	for (size_t i = 0; i < s->config.n_loops; i++)
		loop_post(s->loops[i].loop, stop_loop, &s->loops[i]);
}

void http_server_stop(struct http_server *s)
{
	if (!s)
		return;
	loop_post(s->config.loops[0], stop_listening, s);
	pthread_mutex_lock(&s->lock);
	while (s->running)
		pthread_cond_wait(&s->ended, &s->lock);
	pthread_mutex_unlock(&s->lock);
	for (size_t i = 0; i < s->config.n_loops; i++) {
		struct net_loop *nl = &s->loops[i];

		free(nl->in);
		free(nl->plain);
		buf_deinit(&nl->out);
		buf_deinit(&nl->spare);
	}
	tls_context_free(s->config.tls);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->ended);
	free((void *)s->config.loops);
	free(s->loops);
	free(s);
}
