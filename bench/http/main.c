/* What one request costs the server: CPU of the server's process per request, over TLS and keep-alive.
 *
 *   bench/http [--plain] [--http2] [--connections N] [--requests N] [--size BYTES] [--idle N] [--watch N]
 *
 * The server runs in a process of its own with a handler that answers SIZE bytes; the client sends a request of kubectl's
 * size and waits for the answer, one at a time per connection. --idle N also opens N connections that do nothing and prints
 * the memory each takes. --watch N opens N streams over HTTP/1.1 and prints what one event to one of them costs. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include "net/net.h"

static struct {
	bool plain, http2;
	int connections, requests, size, idle, watch;
} options = { .connections = 4, .requests = 50000, .size = 2000 };

static char *body;

static void die(const char *what)
{
	fprintf(stderr, "bench/http: %s\n", what);
	exit(1);
}

/* ---- the server's process ---- */

static struct http_stream *watchers[4096];
static size_t n_watchers;

static void emit(void *arg)
{
	for (size_t i = 0; i < n_watchers; i++)
		http_stream_write(watchers[i], str_n(body, (size_t)options.size), NULL, NULL);
}

static void handle(void *arg, struct http_stream *s)
{
	if (str_eqz(http_stream_request(s)->path, "/watch")) {
		watchers[n_watchers++] = http_stream_ref(s);
		http_stream_begin(s, 200, NULL, 0);
		return;
	}
	struct http_header type = { STR("content-type"), STR("application/json") };

	http_respond(s, 200, &type, 1, str_n(body, (size_t)options.size), NULL, NULL);
}

static double cpu_us(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return ((double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec) * 1e6 +
		(double)u.ru_utime.tv_usec + (double)u.ru_stime.tv_usec;
}

static long rss_kb(void)
{
	CLEAN_BUF struct buf b = { 0 };
	long pages = 0;

	if (file_read("/proc/self/statm", 4096, &b, NULL) == 0)
		sscanf(b.p, "%*s %ld", &pages);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static struct tls_context *make_tls(void)
{
	CLEAN_BUF struct buf key = { 0 }, cert = { 0 };
	struct tls_context *tls;
	struct err err;
	const struct cert_request r = {
		.common_name = "bench",
		.ip_addresses = (const char *const[]){ "127.0.0.1", NULL },
		.valid_seconds = 3600,
		.is_ca = true,
	};

	if (cert_new_key(&key, &err) < 0 ||
		cert_issue(&r, buf_str(&key), STR_NONE, STR_NONE, &cert, &err) < 0)
		die(err.text);
	const struct tls_server_config c = {
		.cert_pem = buf_str(&cert), .key_pem = buf_str(&key), .http2 = options.http2
	};

	if (tls_server_new(&c, &tls, &err) < 0)
		die(err.text);
	return tls;
}

/* Answers each byte of `control` with CPU so far and resident memory. */
static void serve(int control)
{
	struct loop *loop;
	struct http_server *server;
	struct err err;
	char byte;

	body = xmalloc((size_t)options.size + 1);
	memset(body, 'x', (size_t)options.size);
	if (loop_new("bench", &loop, &err) < 0 || loop_start(loop, &err) < 0)
		die(err.text);
	const struct http_server_config config = {
		.loops = &loop,
		.n_loops = 1,
		.address = "127.0.0.1",
		.tls = options.plain ? NULL : make_tls(),
		.handler = { .on_request = handle },
		.max_connections = 100000,
	};

	if (http_server_start(&config, &server, &err) < 0)
		die(err.text);
	int port = http_server_port(server);

	if (write(control, &port, sizeof(port)) < 0)
		exit(1);
	while (read(control, &byte, 1) == 1) {
		if (byte == 'e') {
			loop_post(loop, emit, NULL);
			continue;
		}
		double answer[2] = { cpu_us(RUSAGE_SELF), (double)rss_kb() };

		if (write(control, answer, sizeof(answer)) < 0)
			break;
	}
	exit(0);
}

/* ---- the client ---- */

struct connection {
	int fd;
	SSL *ssl;
	nghttp2_session *h2;
	size_t got; /* of the answer */
	bool busy;
};

static const char request[] =
	"GET /api/v1/namespaces/default/pods/nginx-7c5ddbdf54-abcde HTTP/1.1\r\nHost: 127.0.0.1:6443\r\n"
	"User-Agent: kubectl/v1.35.0 (linux/amd64) kubernetes/1234567\r\nAccept: application/json\r\n"
	"Authorization: Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaIn0.eyJhdWQiOlsiaHR0cHM6Ly9rdWJlcm5ldGVzIl19\r\n"
	"Accept-Encoding: gzip\r\n\r\n";

static ssize_t put(struct connection *c, const void *p, size_t n)
{
	return c->ssl ? SSL_write(c->ssl, p, (int)n) : send(c->fd, p, n, MSG_NOSIGNAL);
}

static ssize_t h2_send(nghttp2_session *session, const uint8_t *p, size_t n, int flags, void *arg)
{
	return put(arg, p, n);
}

static int h2_closed(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
	struct connection *c = arg;

	c->busy = false;
	return 0;
}

static void open_connection(struct connection *c, int port, SSL_CTX *ctx)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	if (connect(c->fd, (struct sockaddr *)&in, sizeof(in)) < 0)
		die("cannot connect");
	if (ctx) {
		c->ssl = SSL_new(ctx);
		SSL_set_fd(c->ssl, c->fd);
		if (SSL_connect(c->ssl) != 1)
			die("TLS handshake failed");
	}
	if (options.http2) {
		nghttp2_session_callbacks *cb;

		nghttp2_session_callbacks_new(&cb);
		nghttp2_session_callbacks_set_send_callback(cb, h2_send);
		nghttp2_session_callbacks_set_on_stream_close_callback(cb, h2_closed);
		nghttp2_session_client_new(&c->h2, cb, c);
		nghttp2_session_callbacks_del(cb);
		nghttp2_submit_settings(c->h2, 0, NULL, 0);
	}
}

#define NV(name, value) \
	{ \
		(uint8_t *)name, (uint8_t *)value, sizeof(name) - 1, sizeof(value) - 1, \
			NGHTTP2_NV_FLAG_NONE \
	}

static void ask(struct connection *c)
{
	c->got = 0;
	c->busy = true;
	if (!c->h2) {
		if (put(c, request, sizeof(request) - 1) < 0)
			die("cannot send");
		return;
	}
	const nghttp2_nv nv[] = {
		NV(":method", "GET"),
		NV(":scheme", "https"),
		NV(":authority", "127.0.0.1:6443"),
		NV(":path", "/api/v1/namespaces/default/pods/nginx-7c5ddbdf54-abcde"),
		NV("accept", "application/json"),
		NV("user-agent", "kubectl/v1.35.0 (linux/amd64) kubernetes/1234567"),
		NV("authorization",
			"Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaIn0"),
	};

	nghttp2_submit_request(c->h2, NULL, nv, ARRAY_LEN(nv), NULL, NULL);
	nghttp2_session_send(c->h2);
}

static void receive(struct connection *c, size_t answer_size)
{
	static char bytes[64 * 1024];

	do {
		ssize_t n = c->ssl ? SSL_read(c->ssl, bytes, sizeof(bytes))
				   : recv(c->fd, bytes, sizeof(bytes), 0);

		if (n <= 0)
			die("the server hung up");
		if (c->h2) {
			nghttp2_session_mem_recv(c->h2, (uint8_t *)bytes, (size_t)n);
			nghttp2_session_send(c->h2);
			continue;
		}
		c->got += (size_t)n;
		c->busy = c->got < answer_size;
	} while (c->ssl && SSL_pending(c->ssl));
}

/* How long an answer is, head and all: asked once. */
static size_t measure_answer(struct connection *c)
{
	char bytes[4096];
	size_t got = 0, head = 0;

	if (c->h2)
		return 0;
	ask(c);
	do {
		ssize_t n = c->ssl ? SSL_read(c->ssl, bytes + got, (int)(sizeof(bytes) - got - 1))
				   : recv(c->fd, bytes + got, sizeof(bytes) - got - 1, 0);

		if (n <= 0)
			die("the server hung up");
		got += (size_t)n;
		bytes[got] = '\0';
		char *end = strstr(bytes, "\r\n\r\n");

		head = end ? (size_t)(end - bytes) + 4 : 0;
	} while (!head);
	for (size_t total = head + (size_t)options.size; got < total;) {
		ssize_t n = c->ssl ? SSL_read(c->ssl, bytes, sizeof(bytes))
				   : recv(c->fd, bytes, sizeof(bytes), 0);

		if (n <= 0)
			die("the server hung up");
		got += (size_t)n;
	}
	c->busy = false;
	return head + (size_t)options.size;
}

static void run(struct connection *all, size_t answer_size)
{
	CLEAN_FREE struct pollfd *fds = xcalloc((size_t)options.connections, sizeof(*fds));
	int asked = 0, answered = 0;

	for (int i = 0; i < options.connections; i++) {
		fds[i] = (struct pollfd){ all[i].fd, POLLIN, 0 };
		ask(&all[i]);
		asked++;
	}
	while (answered < asked) {
		if (poll(fds, (nfds_t)options.connections, -1) < 0)
			die("poll");
		for (int i = 0; i < options.connections; i++) {
			if (!fds[i].revents)
				continue;
			bool before = all[i].busy;

			receive(&all[i], answer_size);
			if (!before || all[i].busy)
				continue;
			answered++;
			if (asked < options.requests) {
				ask(&all[i]);
				asked++;
			}
		}
	}
}

static void ask_server(int control, double answer[2])
{
	if (write(control, "?", 1) != 1 ||
		read(control, answer, 2 * sizeof(double)) != 2 * sizeof(double))
		die("the server's process is gone");
}

static void read_event(struct connection *c, size_t want)
{
	static char bytes[64 * 1024];

	for (size_t got = 0; got < want;) {
		ssize_t n = c->ssl ? SSL_read(c->ssl, bytes, sizeof(bytes))
				   : recv(c->fd, bytes, sizeof(bytes), 0);

		if (n <= 0)
			die("the server hung up");
		got += (size_t)n;
	}
}

static void run_watch(int control, int port, SSL_CTX *ctx)
{
	struct connection *all = xcalloc((size_t)options.watch, sizeof(*all));
	char size_line[24], head[4096];
	size_t event = (size_t)snprintf(
			       size_line, sizeof(size_line), "%x\r\n\r\n", (unsigned)options.size) +
		(size_t)options.size;
	double before[2], after[2];
	int rounds = MAX(options.requests / options.watch, 1);

	for (int i = 0; i < options.watch; i++) {
		open_connection(&all[i], port, ctx);
		put(&all[i], "GET /watch HTTP/1.1\r\n\r\n", 23);
		if ((all[i].ssl ? SSL_read(all[i].ssl, head, sizeof(head))
				: recv(all[i].fd, head, sizeof(head), 0)) <= 0)
			die("no answer to a watch");
	}
	ask_server(control, before);
	for (int r = 0; r < rounds; r++) {
		if (write(control, "e", 1) != 1)
			die("the server's process is gone");
		for (int i = 0; i < options.watch; i++)
			read_event(&all[i], event);
	}
	ask_server(control, after);
	printf("%s, %d watchers, %d bytes: %.2f us of server CPU an event and watcher\n",
		options.plain ? "plain" : "TLS", options.watch, options.size,
		(after[0] - before[0]) / rounds / options.watch);
}

static void parse_options(int argc, char **argv)
{
	static const struct option names[] = {
		{ "plain", no_argument, NULL, 'p' },
		{ "http2", no_argument, NULL, '2' },
		{ "connections", required_argument, NULL, 'c' },
		{ "requests", required_argument, NULL, 'n' },
		{ "size", required_argument, NULL, 's' },
		{ "idle", required_argument, NULL, 'i' },
		{ "watch", required_argument, NULL, 'w' },
		{ 0 },
	};

	for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) {
		switch (o) {
		case 'p':
			options.plain = true;
			break;
		case '2':
			options.http2 = true;
			break;
		case 'c':
			options.connections = atoi(optarg);
			break;
		case 'n':
			options.requests = atoi(optarg);
			break;
		case 's':
			options.size = atoi(optarg);
			break;
		case 'i':
			options.idle = atoi(optarg);
			break;
		case 'w':
			options.watch = MIN(atoi(optarg), (int)ARRAY_LEN(watchers));
			break;
		default:
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	int control[2], port;
	double before[2], after[2];

	parse_options(argc, argv);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, control) < 0)
		die("socketpair");
	pid_t pid = fork();

	if (pid == 0) {
		close(control[0]);
		serve(control[1]);
	}
	close(control[1]);
	if (read(control[0], &port, sizeof(port)) != sizeof(port))
		die("the server did not start");
	SSL_CTX *ctx = options.plain ? NULL : SSL_CTX_new(TLS_client_method());

	if (ctx && options.http2)
		SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)"\x02h2", 3);
	CLEAN_FREE struct connection *all =
		xcalloc((size_t)MAX(options.connections, options.idle), sizeof(*all));

	for (int i = 0; i < options.connections; i++)
		open_connection(&all[i], port, ctx);
	size_t answer_size = measure_answer(&all[0]);

	ask_server(control[0], before);
	uint64_t start = mono_now_ns();

	run(all, answer_size);
	double wall = (double)(mono_now_ns() - start) / 1e9;

	ask_server(control[0], after);
	printf("%s%s, %d connections, %d bytes: %.2f us of server CPU a request, %.0f requests/s\n",
		options.plain ? "plain" : "TLS", options.http2 ? ", HTTP/2" : ", HTTP/1.1",
		options.connections, options.size, (after[0] - before[0]) / options.requests,
		options.requests / wall);
	if (options.watch)
		run_watch(control[0], port, ctx);
	if (options.idle) {
		struct connection *idle = xcalloc((size_t)options.idle, sizeof(*idle));

		ask_server(control[0], before);
		for (int i = 0; i < options.idle; i++) {
			open_connection(&idle[i], port, ctx);
			measure_answer(&idle[i]);
		}
		ask_server(control[0], after);
		printf("%d idle connections: %.1f KB each\n", options.idle,
			(after[1] - before[1]) / options.idle);
	}
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
	return 0;
}
