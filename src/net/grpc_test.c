/* The gRPC client against a small server on nghttp2: answers, failures, streams, deadlines, servers that die. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>

#include <nghttp2/nghttp2.h>

#include "base/map.h"
#include "base/values.h"
#include "net/net.h"

/* ---- the server: one connection at a time ----
 * /Echo answers with its message; /Fail with status 9; /Silent never; /Die closes the connection; /Stream echoes each message as it comes. */

struct reply {
	struct buf out;
	size_t taken;
	bool last; /* trailers follow */
	char path[32];
	struct buf in;
	struct list link; /* in the connection's */
};

struct server {
	int listen_fd, port;
	pthread_t thread;
	atomic_bool stop, die;
	atomic_int connections, calls;
	struct list replies;
};

static int begin_headers(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
	struct reply *r = xcalloc(1, sizeof(*r));
	list_insert(&((struct server *)arg)->replies, &r->link);
	nghttp2_session_set_stream_user_data(s, f->hd.stream_id, r);
	return 0;
}

static int header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *n, size_t nl,
	const uint8_t *v, size_t vl, uint8_t flags, void *arg)
{
	struct reply *r = nghttp2_session_get_stream_user_data(s, f->hd.stream_id);
	if (nl == 5 && !memcmp(n, ":path", 5))
		snprintf(r->path, sizeof(r->path), "%.*s", (int)vl, v);
	return 0;
}

static ssize_t give(nghttp2_session *s, int32_t id, uint8_t *to, size_t n, uint32_t *flags,
	nghttp2_data_source *src, void *arg)
{
	static nghttp2_nv ok = { (uint8_t *)"grpc-status", (uint8_t *)"0", 11, 1, 0 };
	struct reply *r = src->ptr;
	size_t take = MIN(n, r->out.len - r->taken);
	memcpy(to, r->out.p + r->taken, take);
	r->taken += take;
	if (r->taken < r->out.len)
		return (ssize_t)take;
	if (!r->last)
		return take ? (ssize_t)take : NGHTTP2_ERR_DEFERRED;
	*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
	nghttp2_submit_trailer(s, id, &ok, 1);
	return (ssize_t)take;
}

static void respond(nghttp2_session *s, int32_t id, struct reply *r)
{
	nghttp2_nv head[] = { { (uint8_t *)":status", (uint8_t *)"200", 7, 3, 0 },
		{ (uint8_t *)"content-type", (uint8_t *)"application/grpc", 12, 16, 0 } };
	nghttp2_data_provider body = { .source.ptr = r, .read_callback = give };
	nghttp2_submit_response(s, id, head, 2, &body);
}

static void refuse(nghttp2_session *s, int32_t id)
{
	nghttp2_nv head[] = { { (uint8_t *)":status", (uint8_t *)"200", 7, 3, 0 },
		{ (uint8_t *)"grpc-status", (uint8_t *)"9", 11, 1, 0 },
		{ (uint8_t *)"grpc-message", (uint8_t *)"no%20room", 12, 9, 0 } };
	nghttp2_submit_response(s, id, head, 3, NULL);
}

static int frame(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
	struct server *sv = arg;
	struct reply *r =
		f->hd.stream_id ? nghttp2_session_get_stream_user_data(s, f->hd.stream_id) : NULL;
	if (!r)
		return 0;
	bool end = f->hd.flags & NGHTTP2_FLAG_END_STREAM;
	if (!strcmp(r->path, "/Stream")) {
		if (f->hd.type == NGHTTP2_HEADERS) {
			respond(s, f->hd.stream_id, r);
			return 0;
		}
		buf_add_str(&r->out, buf_str(&r->in));
		buf_clear(&r->in);
		r->last |= end;
		nghttp2_session_resume_data(s, f->hd.stream_id);
		return 0;
	}
	if (!end)
		return 0;
	atomic_fetch_add(&sv->calls, 1);
	if (!strcmp(r->path, "/Die")) {
		atomic_store(&sv->die, true);
	} else if (!strcmp(r->path, "/Fail")) {
		refuse(s, f->hd.stream_id);
	} else if (!strcmp(r->path, "/Echo")) {
		buf_add_str(&r->out, buf_str(&r->in));
		r->last = true;
		respond(s, f->hd.stream_id, r);
	}
	return 0;
}

static int data(
	nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
	struct reply *r = nghttp2_session_get_stream_user_data(s, id);
	buf_add(&r->in, p, n);
	return 0;
}

static void reply_free(struct reply *r)
{
	list_remove(&r->link);
	buf_deinit(&r->in);
	buf_deinit(&r->out);
	free(r);
}

static int closed(nghttp2_session *s, int32_t id, uint32_t code, void *arg)
{
	reply_free(nghttp2_session_get_stream_user_data(s, id));
	return 0;
}

static void serve(struct server *sv, int fd)
{
	nghttp2_session_callbacks *cb;
	nghttp2_session *s;
	uint8_t in[16384];
	list_init(&sv->replies);
	nghttp2_session_callbacks_new(&cb);
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, closed);
	nghttp2_session_server_new(&s, cb, sv);
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(s, 0, NULL, 0);
	while (!atomic_load(&sv->stop) && !atomic_load(&sv->die)) {
		struct pollfd pf = { fd, POLLIN, 0 };
		const uint8_t *p;
		ssize_t n;
		while ((n = nghttp2_session_mem_send(s, &p)) > 0)
			if (send(fd, p, (size_t)n, MSG_NOSIGNAL) != n)
				break;
		if (poll(&pf, 1, 20) <= 0)
			continue;
		n = recv(fd, in, sizeof(in), 0);
		if (n <= 0 || nghttp2_session_mem_recv(s, in, (size_t)n) < 0)
			break;
	}
	atomic_store(&sv->die, false);
	nghttp2_session_del(s);
	while (!list_empty(&sv->replies))
		reply_free(list_entry(sv->replies.next, struct reply, link));
	close(fd);
}

static void *server_run(void *arg)
{
	struct server *sv = arg;
	while (!atomic_load(&sv->stop)) {
		struct pollfd pf = { sv->listen_fd, POLLIN, 0 };
		if (poll(&pf, 1, 20) <= 0)
			continue;
		int fd = accept4(sv->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		atomic_fetch_add(&sv->connections, 1);
		serve(sv, fd);
	}
	return NULL;
}

static void server_start(struct server *sv)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons((uint16_t)sv->port) };
	socklen_t n = sizeof(at);
	int on = 1;
	atomic_store(&sv->stop, false);
	sv->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(sv->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(sv->listen_fd, (struct sockaddr *)&at, sizeof(at)), 0);
	listen(sv->listen_fd, 8);
	getsockname(sv->listen_fd, (struct sockaddr *)&at, &n);
	sv->port = ntohs(at.sin_port);
	pthread_create(&sv->thread, NULL, server_run, sv);
}

static void server_stop(struct server *sv)
{
	atomic_store(&sv->stop, true);
	pthread_join(sv->thread, NULL);
	close(sv->listen_fd);
}

/* ---- the tests ---- */

struct end {
	atomic_int done;
	int status;
	bool sent;
	char text[200];
	struct buf messages;
	atomic_int n;
};

static void on_message(void *arg, struct str m)
{
	struct end *e = arg;
	buf_add_str(&e->messages, m);
	e->n++;
}

static void on_end(void *arg, int status, struct str text, bool sent)
{
	struct end *e = arg;
	e->status = status;
	e->sent = sent;
	snprintf(e->text, sizeof(e->text), STR_FMT, STR_ARG(text));
	atomic_store(&e->done, 1);
}

static const struct grpc_events events = { on_message, on_end };

static void until(atomic_int *flag, int want)
{
	for (int i = 0; i < 100000 && atomic_load(flag) < want; i++)
		usleep(100);
	assert_true(atomic_load(flag) >= want);
}

static struct grpc_client *client_of(const char *const *urls, size_t n)
{
	struct grpc_client_config c = { .urls = urls, .n_urls = n };
	struct grpc_client *g;
	struct err err = { 0 };
	assert_int_equal(grpc_client_new(&c, &g, &err), 0);
	return g;
}

static void answers_and_failures(void **state)
{
	struct server sv = { 0 };
	server_start(&sv);
	CLEAN_FREE char *url = xasprintf("http://127.0.0.1:%d", sv.port);
	struct grpc_client *g = client_of((const char *const[]){ url }, 1);
	CLEAN_BUF struct buf big = { 0 }, out = { 0 };
	struct err err = { 0 };
	int status;
	for (int i = 0; i < 300000; i++)
		buf_addc(&big, (char)i);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(grpc_call_wait(g, "/Echo", i ? buf_str(&big) : STR(""), 5000, &out,
					 &status, &err),
			0);
		assert_true(str_eq(buf_str(&out), i ? buf_str(&big) : STR("")));
	}
	assert_int_equal(grpc_call_wait(g, "/Fail", STR("x"), 5000, &out, &status, &err), -EIO);
	assert_int_equal(status, GRPC_FAILED_PRECONDITION);
	assert_string_equal(err.text, "no room");
	assert_int_equal(
		grpc_call_wait(g, "/Silent", STR("x"), 50, &out, &status, &err), -ETIMEDOUT);
	assert_int_equal(atomic_load(&sv.connections), 1);
	grpc_client_free(g);
	server_stop(&sv);
}

static void send_one(void *arg)
{
	grpc_call_send(arg, str_n("b", 1));
}

static void streams(void **state)
{
	struct server sv = { 0 };
	server_start(&sv);
	CLEAN_FREE char *url = xasprintf("http://127.0.0.1:%d", sv.port);
	struct grpc_client *g = client_of((const char *const[]){ url }, 1);
	struct end e = { 0 };
	struct grpc_call *call = grpc_call_start(g, "/Stream", STR("a"), 0, true, &events, &e);
	for (int i = 0; i < 50000 && e.n < 1; i++)
		usleep(100);
	grpc_client_post(g, send_one, call);
	for (int i = 0; i < 50000 && e.n < 2; i++)
		usleep(100);
	assert_int_equal(e.n, 2);
	assert_string_equal(e.messages.p, "ab");
	assert_false(atomic_load(&e.done));
	grpc_client_free(g); /* a stream that runs ends with its client */
	assert_true(atomic_load(&e.done));
	assert_int_equal(e.status, GRPC_CANCELLED);
	buf_deinit(&e.messages);
	server_stop(&sv);
}

static void a_dead_server(void **state)
{
	struct server sv = { 0 };
	server_start(&sv);
	CLEAN_FREE char *url = xasprintf("http://127.0.0.1:%d", sv.port);
	struct grpc_client *g = client_of((const char *const[]){ url }, 1);
	CLEAN_BUF struct buf out = { 0 };
	struct err err = { 0 };
	int status;
	struct end watch = { 0 }, die = { 0 }, waiting = { 0 }, late = { 0 }, last = { 0 };
	grpc_call_start(g, "/Stream", STR("a"), 0, true, &events, &watch);
	grpc_call_start(g, "/Die", STR("x"), 5000, false, &events, &die);
	until(&die.done, 1);
	until(&watch.done, 1);
	assert_int_equal(die.status, GRPC_UNAVAILABLE);
	assert_true(die.sent); /* it may have been done */
	/* the connection is made anew by itself */
	assert_int_equal(grpc_call_wait(g, "/Echo", STR("x"), 5000, &out, &status, &err), 0);
	assert_int_equal(atomic_load(&sv.connections), 2);
	grpc_call_start(g, "/Stream", STR("a"), 0, true, &events, &last);
	until(&last.n, 1);
	server_stop(&sv);
	until(&last.done, 1); /* the client knows by now that its connection is gone */
	/* nobody there: calls wait for their time, and were never sent */
	grpc_call_start(g, "/Echo", STR("x"), 300, false, &events, &late);
	until(&late.done, 1);
	assert_int_equal(late.status, GRPC_UNAVAILABLE);
	assert_false(late.sent);
	assert_non_null(strstr(late.text, "refused"));
	grpc_call_start(g, "/Echo", STR("x"), 10000, false, &events, &waiting);
	server_start(&sv);
	until(&waiting.done, 1);
	assert_int_equal(waiting.status, GRPC_OK);
	grpc_client_free(g);
	buf_deinit(&last.messages);
	buf_deinit(&watch.messages);
	buf_deinit(&waiting.messages);
	server_stop(&sv);
}

/* A call that was on its way when the connection went fails; the next finds another server. */
static void echo_soon(struct grpc_client *g)
{
	CLEAN_BUF struct buf out = { 0 };
	struct err err = { 0 };
	int r = -1;
	for (int i = 0; i < 5 && r; i++)
		r = grpc_call_wait(g, "/Echo", STR("x"), 5000, &out, NULL, &err);
	if (r)
		fail_msg("%s", err.text);
}

static void another_server(void **state)
{
	struct server one = { 0 }, two = { 0 };
	server_start(&one);
	server_start(&two);
	CLEAN_FREE char *a = xasprintf("http://127.0.0.1:%d", one.port),
			*b = xasprintf("http://127.0.0.1:%d", two.port);
	struct grpc_client *g = client_of((const char *const[]){ a, b }, 2);
	CLEAN_BUF struct buf out = { 0 };
	struct err err = { 0 };
	assert_int_equal(grpc_call_wait(g, "/Echo", STR("x"), 5000, &out, NULL, &err), 0);
	assert_int_equal(atomic_load(&one.connections), 1);
	server_stop(&one);
	echo_soon(g);
	assert_int_equal(atomic_load(&two.connections), 1);
	/* one that takes calls and does not answer is left too */
	server_start(&one);
	assert_int_equal(grpc_call_wait(g, "/Silent", STR("x"), 100, &out, NULL, &err), -ETIMEDOUT);
	echo_soon(g);
	assert_int_equal(atomic_load(&one.connections), 2);
	grpc_client_rotate(g, "for the test");
	for (int i = 0; i < 1000 && atomic_load(&two.connections) < 2; i++)
		echo_soon(g);
	assert_int_equal(atomic_load(&two.connections), 2);
	grpc_client_free(g);
	server_stop(&one);
	server_stop(&two);
}

static void a_client_in_a_hurry(void **state)
{
	struct server sv = { 0 };
	server_start(&sv);
	CLEAN_FREE char *url = xasprintf("http://127.0.0.1:%d", sv.port);
	struct grpc_client *g = client_of((const char *const[]){ url }, 1);
	struct end silent = { 0 }, waiting = { 0 }, later = { 0 };
	CLEAN_BUF struct buf out = { 0 };
	struct err err = { 0 };
	assert_int_equal(grpc_call_wait(g, "/Echo", STR("x"), 5000, &out, NULL, &err), 0);
	grpc_call_start(g, "/Silent", STR("x"), 60000, false, &events, &silent);
	uint64_t began = mono_now_ns();
	grpc_client_hurry(g, 200);
	assert_int_equal(grpc_call_wait(g, "/Echo", STR("x"), 5000, &out, NULL, &err), 0);
	until(&silent.done, 1);
	assert_int_equal(silent.status, GRPC_DEADLINE_EXCEEDED);
	assert_true(silent.sent);
	assert_true(mono_now_ns() - began < 5000000000);
	grpc_client_free(g);
	server_stop(&sv);
	/* nobody there */
	g = client_of((const char *const[]){ url }, 1);
	grpc_call_start(g, "/Echo", STR("x"), 60000, false, &events, &waiting);
	grpc_client_hurry(g, 60000);
	until(&waiting.done, 1);
	assert_int_equal(waiting.status, GRPC_UNAVAILABLE);
	assert_false(waiting.sent);
	grpc_call_start(g, "/Echo", STR("x"), 60000, false, &events, &later);
	until(&later.done, 1);
	assert_int_equal(later.status, GRPC_UNAVAILABLE);
	grpc_client_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_and_failures),
		cmocka_unit_test(streams),
		cmocka_unit_test(a_dead_server),
		cmocka_unit_test(another_server),
		cmocka_unit_test(a_client_in_a_hurry),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
