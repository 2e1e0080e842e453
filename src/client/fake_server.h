/* For the client's tests: a server whose answers the test decides, and a client of it. */
#ifndef SKIFF_CLIENT_FAKE_SERVER_H
#define SKIFF_CLIENT_FAKE_SERVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <stdio.h>

#include "client/internal.h"
#include "io/io.h"

#define WAIT_MS 20000

struct fake {
	struct loop *loop;
	int listen_fd; /* the server's, once there is one */
	struct http_server *server;
	struct client *client;
	void (*answer)(struct fake *f, struct http_stream *s, const struct http_request *q);
	pthread_mutex_t lock;
	pthread_cond_t changed;
	char log[64][512]; /* METHOD path?query body */
	size_t n_log;
	struct http_stream *watch; /* the open one */
	int stage;
	char holder[64]; /* of the lease */
	int version;
};

static void on_request(void *arg, struct http_stream *s)
{
	struct fake *f = arg;
	const struct http_request *q = http_stream_request(s);

	pthread_mutex_lock(&f->lock);
	snprintf(f->log[f->n_log++ % 64], 512, STR_FMT " " STR_FMT "?" STR_FMT " " STR_FMT,
		STR_ARG(q->method), STR_ARG(q->path), STR_ARG(q->query), STR_ARG(q->body));
	f->answer(f, s, q);
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

static inline void reply(struct http_stream *s, int status, const char *body)
{
	const struct http_header h = { STR("content-type"), STR("application/json") };

	http_respond(s, status, &h, 1, arena_strz(http_stream_arena(s), body), NULL, NULL);
}

/* Listens, and serves nobody yet. */
static struct fake *fake_new_silent(
	void (*answer)(struct fake *, struct http_stream *, const struct http_request *))
{
	struct fake *f = xcalloc(1, sizeof(*f));
	struct client_config c = { .user_agent = "test", .field_manager = "tester" };
	struct sockaddr_in at;
	socklen_t n = sizeof(at);
	char url[64];

	f->answer = answer;
	pthread_mutex_init(&f->lock, NULL);
	cond_init_mono(&f->changed);
	assert_int_equal(loop_new("fake", &f->loop, NULL), 0);
	assert_int_equal(loop_start(f->loop, NULL), 0);
	assert_int_equal(http_listen("127.0.0.1", 0, &f->listen_fd, NULL), 0);
	assert_int_equal(getsockname(f->listen_fd, (struct sockaddr *)&at, &n), 0);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d", ntohs(at.sin_port));
	assert_int_equal(http_client_new(url, NULL, &c.http, NULL), 0);
	f->client = client_new(&c);
	return f;
}

static void fake_serve(struct fake *f)
{
	const struct http_handler h = { .on_request = on_request, .arg = f };
	const struct http_server_config sc = {
		.loops = &f->loop, .n_loops = 1, .listen_fd = f->listen_fd, .handler = h
	};

	assert_int_equal(http_server_start(&sc, &f->server, NULL), 0);
}

static inline struct fake *fake_new(
	void (*answer)(struct fake *, struct http_stream *, const struct http_request *))
{
	struct fake *f = fake_new_silent(answer);

	fake_serve(f);
	return f;
}

static void end_watch(struct http_stream *s, void *arg)
{
	http_stream_end(s);
}

static void fake_end_watch(struct fake *f)
{
	pthread_mutex_lock(&f->lock);
	struct http_stream *s = f->watch;

	f->watch = NULL;
	pthread_mutex_unlock(&f->lock);
	if (!s)
		return;
	http_stream_post(s, end_watch, NULL);
	http_stream_unref(s);
}

static void fake_free(struct fake *f)
{
	fake_end_watch(f);
	client_free(f->client);
	http_server_stop(f->server);
	loop_stop(f->loop);
	loop_join(f->loop);
	loop_free(f->loop);
	free(f);
}

static void write_line(struct http_stream *s, void *arg)
{
	http_stream_write(s, arena_strz(http_stream_arena(s), arg), NULL, NULL);
	http_stream_flush(s);
	free(arg);
}

static inline void fake_push(struct fake *f, const char *type, const char *object)
{
	pthread_mutex_lock(&f->lock);
	http_stream_post(
		f->watch, write_line, xasprintf("{\"type\":\"%s\",\"object\":%s}\n", type, object));
	pthread_mutex_unlock(&f->lock);
}

static inline bool logged(struct fake *f, const char *text)
{
	for (size_t i = 0; i < MIN(f->n_log, (size_t)64); i++)
		if (strstr(f->log[i], text))
			return true;
	return false;
}

/* Waits until a request with this text came. */
static inline void await_request(struct fake *f, const char *text)
{
	uint64_t until = mono_now_ns() + WAIT_MS * 1000000ull;

	pthread_mutex_lock(&f->lock);
	while (!logged(f, text))
		if (!cond_wait_until(&f->changed, &f->lock, until)) {
			pthread_mutex_unlock(&f->lock);
			fail_msg("no request \"%s\" came", text);
		}
	pthread_mutex_unlock(&f->lock);
}

#endif
