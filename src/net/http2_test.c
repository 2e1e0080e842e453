/* HTTP/2 against a client session of nghttp2 over loopback: streams side by side, flow control, bounds, resets, stopping. */
#include "net/test_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <sys/socket.h>

/* ---- the server's handler ---- */

static int closes;

static void count_close(struct http_stream *s, void *arg)
{
	__atomic_add_fetch(&closes, 1, __ATOMIC_SEQ_CST);
}

static void fill_up(struct http_stream *s, void *arg)
{
	static const char chunk[10000] = { [0 ... 9999] = 'z' };
	size_t *left = arg;

	while (*left && http_stream_pending(s) < 64 * 1024) {
		size_t n = MIN(*left, sizeof(chunk));

		http_stream_write(s, str_n(chunk, n), NULL, NULL);
		*left -= n;
	}
	if (!*left)
		http_stream_end(s);
}

static void answer_later(struct http_stream *s, void *arg)
{
	http_respond(s, 200, NULL, 0, STR("later"), NULL, NULL);
}

static void handle(void *arg, struct http_stream *s)
{
	const struct http_request *r = http_stream_request(s);

	assert_int_equal(r->http_major, 2);
	http_stream_on_close(s, count_close, NULL);
	if (str_eqz(r->path, "/flood")) {
		size_t *left = arena_alloc(http_stream_arena(s), sizeof(*left));

		*left = 5000000;
		http_stream_begin(s, 200, NULL, 0);
		http_stream_on_drain(s, fill_up, left);
		fill_up(s, left);
	} else if (str_eqz(r->path, "/hang")) {
		http_stream_begin(s, 200, NULL, 0);
		http_stream_write(s, STR("hello"), NULL, NULL);
	} else if (str_eqz(r->path, "/later")) {
		http_stream_post(s, answer_later, NULL);
	} else if (str_eqz(r->path, "/abort")) {
		http_stream_begin(s, 200, NULL, 0);
		http_stream_abort(s);
	} else {
		const struct http_header h[] = { { STR("x-host"), http_request_header(r, "host") },
			{ STR("connection"), STR("close") } };

		http_respond(s, 200, h, 2, r->body, NULL, NULL);
	}
}

/* ---- the client ---- */

struct reply {
	int32_t id;
	int status;
	size_t body_len;
	struct buf host;
	struct str upload;
	bool closed;
	uint32_t error;
};

struct client {
	int fd;
	nghttp2_session *session;
	struct reply replies[64];
	size_t n_replies, n_closed;
	bool goaway;
};

static ssize_t on_send(nghttp2_session *s, const uint8_t *p, size_t n, int flags, void *arg)
{
	struct client *c = arg;
	ssize_t r = send(c->fd, p, n, MSG_NOSIGNAL);

	return r < 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : r;
}

static struct reply *reply_of(nghttp2_session *s, int32_t id)
{
	return nghttp2_session_get_stream_user_data(s, id);
}

static int on_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name,
	size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct reply *r = reply_of(s, f->hd.stream_id);

	if (str_eqz(str_n((const char *)name, name_len), ":status"))
		r->status = atoi((const char *)value);
	if (str_eqz(str_n((const char *)name, name_len), "x-host"))
		buf_add(&r->host, value, value_len);
	return 0;
}

static int on_data(
	nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
	reply_of(s, id)->body_len += n;
	return 0;
}

static int on_close(nghttp2_session *s, int32_t id, uint32_t error, void *arg)
{
	struct client *c = arg;
	struct reply *r = reply_of(s, id);

	r->closed = true;
	r->error = error;
	c->n_closed++;
	return 0;
}

static int on_frame(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
	struct client *c = arg;

	c->goaway = c->goaway || f->hd.type == NGHTTP2_GOAWAY;
	return 0;
}

static void client_init(struct client *c, struct test_server *t)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)http_server_port(t->server)) };
	nghttp2_session_callbacks *cb;
	nghttp2_option *option;

	*c = (struct client){ 0 };
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(c->fd, (struct sockaddr *)&in, sizeof(in)), 0);
	nghttp2_session_callbacks_new(&cb);
	nghttp2_session_callbacks_set_send_callback(cb, on_send);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_option_new(&option);
	nghttp2_option_set_max_send_header_block_length(option, 1000000);
	nghttp2_session_client_new2(&c->session, cb, c, option);
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(c->session, 0, NULL, 0);
}

static void client_deinit(struct client *c)
{
	for (size_t i = 0; i < c->n_replies; i++)
		buf_deinit(&c->replies[i].host);
	nghttp2_session_del(c->session);
	close(c->fd);
}

static ssize_t on_upload(nghttp2_session *s, int32_t id, uint8_t *p, size_t n, uint32_t *flags,
	nghttp2_data_source *source, void *arg)
{
	struct reply *r = source->ptr;
	size_t take = MIN(n, r->upload.len);

	memcpy(p, r->upload.p, take);
	r->upload = str_from(r->upload, take);
	if (!r->upload.len)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)take;
}

static nghttp2_nv nv(const char *name, const char *value)
{
	return (nghttp2_nv){ (uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
		NGHTTP2_NV_FLAG_NONE };
}

static struct reply *ask(struct client *c, const char *path, struct str body, size_t n_extra)
{
	struct reply *r = &c->replies[c->n_replies++];
	nghttp2_nv list[100] = { nv(":method", body.len ? "POST" : "GET"), nv(":scheme", "http"),
		nv(":path", path), nv(":authority", "a:1") };
	static char large[1000];

	memset(large, 'h', sizeof(large) - 1);
	for (size_t i = 0; i < n_extra; i++)
		list[4 + i] = nv("x-extra", large);
	r->upload = body;
	nghttp2_data_provider data = { { .ptr = r }, on_upload };

	r->id = nghttp2_submit_request(
		c->session, NULL, list, 4 + n_extra, body.len ? &data : NULL, r);
	assert_true(r->id > 0);
	return r;
}

/* One round of sending and receiving; false: the server closed. */
static bool turn(struct client *c)
{
	char bytes[16384];

	assert_int_equal(nghttp2_session_send(c->session), 0);
	ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);

	if (n <= 0) {
		return false;
	}
	assert_int_equal(nghttp2_session_mem_recv(c->session, (uint8_t *)bytes, (size_t)n), n);
	return true;
}

static void wait_all(struct client *c)
{
	while (c->n_closed < c->n_replies)
		assert_true(turn(c));
	nghttp2_session_send(c->session);
}

/* ---- tests ---- */

static void side_by_side(void **state)
{
	struct test_server t;
	struct client c;
	CLEAN_FREE char *body = xcalloc(1, NET_BODY_MAX);

	closes = 0;
	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	client_init(&c, &t);
	struct reply *flood = ask(&c, "/flood", STR_NONE, 0),
		     *later = ask(&c, "/later", STR_NONE, 0);
	struct reply *large = ask(&c, "/echo", str_n(body, NET_BODY_MAX), 0),
		     *aborted = ask(&c, "/abort", STR_NONE, 0);

	for (int i = 0; i < 40; i++)
		ask(&c, "/echo", STR("small"), 0);
	wait_all(&c);
	assert_int_equal(flood->status, 200);
	assert_int_equal(flood->body_len, 5000000);
	assert_int_equal(later->body_len, 5);
	assert_int_equal(large->status, 200);
	assert_int_equal(large->body_len, NET_BODY_MAX);
	assert_string_equal(large->host.p, "a:1");
	assert_int_equal(aborted->error, NGHTTP2_INTERNAL_ERROR);
	for (size_t i = 4; i < c.n_replies; i++)
		assert_int_equal(c.replies[i].body_len, 5);
	client_deinit(&c);
	test_server_stop(&t);
	assert_int_equal(closes, 44);
}

static void bounds(void **state)
{
	struct test_server t;
	struct client c;
	CLEAN_FREE char *body = xcalloc(1, NET_BODY_MAX + 1);

	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	client_init(&c, &t);
	struct reply *body_too_large = ask(&c, "/echo", str_n(body, NET_BODY_MAX + 1), 0);
	/* Larger than what is read only to be thrown away. */
	CLEAN_FREE char *huge = xcalloc(1, 30000000);
	struct reply *huge_body = ask(&c, "/echo", str_n(huge, 30000000), 0);
	struct reply *headers_too_large = ask(&c, "/echo", STR_NONE, 80),
		     *fine = ask(&c, "/echo", STR("x"), 50);

	wait_all(&c);
	assert_int_equal(body_too_large->status, 413);
	assert_int_equal(huge_body->status, 413);
	assert_int_equal(headers_too_large->status, 431);
	assert_int_equal(fine->status, 200);
	client_deinit(&c);
	test_server_stop(&t);
}

static void resets(void **state)
{
	struct test_server t;
	struct client c;

	closes = 0;
	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	client_init(&c, &t);
	struct reply *hang = ask(&c, "/hang", STR_NONE, 0);

	while (hang->body_len < 5)
		assert_true(turn(&c));
	nghttp2_submit_rst_stream(c.session, 0, hang->id, NGHTTP2_CANCEL);
	/* The answer to a later request shows that the reset was seen. */
	ask(&c, "/echo", STR("x"), 0);
	wait_all(&c);
	assert_true(__atomic_load_n(&closes, __ATOMIC_SEQ_CST) >= 1);
	/* Bytes that are not HTTP/2 end the connection, not the server. */
	assert_true(
		send(c.fd, "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", 36, MSG_NOSIGNAL) > 0);
	while (turn(&c))
		;
	client_deinit(&c);
	client_init(&c, &t);
	ask(&c, "/echo", STR("x"), 0);
	wait_all(&c);
	client_deinit(&c);
	test_server_stop(&t);
}

static void *stop_server(void *arg)
{
	struct test_server *t = arg;

	http_server_stop(t->server);
	t->server = NULL;
	return NULL;
}

static void stopping(void **state)
{
	struct test_server t;
	struct client c;
	pthread_t thread;

	test_server_start(&t, false, (struct http_handler){ .on_request = handle });
	client_init(&c, &t);
	struct reply *flood = ask(&c, "/flood", STR_NONE, 0);

	while (!flood->body_len)
		assert_true(turn(&c));
	assert_int_equal(thread_start(&thread, "stop", stop_server, &t), 0);
	/* What runs is finished, the rest is told to go elsewhere. */
	while (turn(&c))
		;
	assert_true(c.goaway);
	assert_true(flood->closed);
	assert_int_equal(flood->body_len, 5000000);
	client_deinit(&c);
	pthread_join(thread, NULL);
	test_server_stop(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(side_by_side),
		cmocka_unit_test(bounds),
		cmocka_unit_test(resets),
		cmocka_unit_test(stopping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
