/* TLS over memory, certificates, signing requests, tokens. */
#include "net/internal.h"
#include "net/test_server.h"

static struct test_server t;

static int begin(void **state)
{
	t = (struct test_server){ 0 };
	test_certs(&t);
	return 0;
}

static int end(void **state)
{
	buf_deinit(&t.ca_key);
	buf_deinit(&t.ca_cert);
	buf_deinit(&t.key);
	buf_deinit(&t.cert);
	buf_deinit(&t.client_key);
	buf_deinit(&t.client_cert);
	return 0;
}

/* A server's and a client's session, and the bytes between them. */
struct wire {
	struct tls_context *server_ctx, *client_ctx;
	struct tls_conn server, client;
	struct buf to_server, to_client;
};

static void wire_init(struct wire *w, struct str ca, struct str cert, struct str key,
	const char *host, bool http2)
{
	const struct tls_server_config s = { .cert_pem = buf_str(&t.cert),
		.key_pem = buf_str(&t.key),
		.client_ca_pem = buf_str(&t.ca_cert),
		.http2 = http2 };
	const struct tls_client_config c = { .ca_pem = ca, .cert_pem = cert, .key_pem = key };
	struct err err = { "" };

	*w = (struct wire){ 0 };
	w->server.out = &w->to_client;
	w->client.out = &w->to_server;
	assert_int_equal(tls_server_new(&s, &w->server_ctx, &err), 0);
	assert_int_equal(tls_client_new(&c, &w->client_ctx, &err), 0);
	assert_int_equal(tls_conn_init(&w->server, w->server_ctx, true, &err), 0);
	assert_int_equal(tls_conn_init(&w->client, w->client_ctx, false, &err), 0);
	assert_int_equal(tls_conn_set_peer(&w->client, w->client_ctx, host, &err), 0);
}

static void wire_deinit(struct wire *w)
{
	tls_conn_deinit(&w->server);
	tls_conn_deinit(&w->client);
	tls_context_free(w->server_ctx);
	tls_context_free(w->client_ctx);
	buf_deinit(&w->to_server);
	buf_deinit(&w->to_client);
}

static int step(struct tls_conn *to, struct buf *bytes, size_t piece, struct err *err)
{
	struct buf b = *bytes;
	int r = -EAGAIN;

	*bytes = (struct buf){ 0 };
	for (size_t at = 0; at < b.len && (r == -EAGAIN || r == 0); at += piece) {
		to->in = str_n(b.p + at, MIN(piece, b.len - at));
		r = tls_handshake(to, err);
	}
	buf_deinit(&b);
	return r;
}

/* The client's outcome. */
static int shake_hands(struct wire *w, size_t piece, struct err *err)
{
	int r = tls_handshake(&w->client, err), s = -EAGAIN;

	for (int i = 0; i < 10 && (r == -EAGAIN || s == -EAGAIN); i++) {
		if (w->to_server.len)
			s = step(&w->server, &w->to_server, piece, NULL);
		if (w->to_client.len)
			r = step(&w->client, &w->to_client, piece, err);
	}
	return r;
}

static void handshakes(void **state)
{
	static const size_t pieces[] = { 1, 7, 100000 };

	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		struct wire w;
		char bytes[64];
		struct err err = { "" };

		wire_init(&w, buf_str(&t.ca_cert), buf_str(&t.client_cert), buf_str(&t.client_key),
			i ? "localhost" : "127.0.0.1", true);
		int r = shake_hands(&w, pieces[i], &err);

		if (r)
			fail_msg("%s", err.text);
		assert_false(tls_chose_http2(&w.server)); /* our client offers http/1.1 alone */
		CLEAN_FREE struct tls_identity *id = tls_peer_identity(&w.server);

		assert_non_null(id);
		assert_string_equal(id->common_name.p, "alice");
		assert_int_equal(id->n_organizations, 2);
		assert_string_equal(id->organizations[1].p, "team");
		assert_int_equal(id->uid.len, 0);
		assert_int_equal(id->fingerprint.len, 64);
		assert_int_equal(tls_write(&w.client, "hello", 5), 0);
		w.server.in = buf_str(&w.to_server);
		assert_int_equal(tls_read(&w.server, bytes, sizeof(bytes), &err), 5);
		assert_int_equal(tls_read(&w.server, bytes, sizeof(bytes), &err), -EAGAIN);
		buf_clear(&w.to_server);
		tls_shutdown(&w.client);
		w.server.in = buf_str(&w.to_server);
		assert_int_equal(tls_read(&w.server, bytes, sizeof(bytes), &err), 0);
		wire_deinit(&w);
	}
}

static void distrust(void **state)
{
	CLEAN_BUF struct buf other_key = { 0 }, other_ca = { 0 };
	const struct cert_request ca = {
		.common_name = "test-ca", .valid_seconds = 3600, .is_ca = true
	};
	struct wire w;
	struct err err = { "" };

	assert_int_equal(cert_new_key(&other_key, &err), 0);
	assert_int_equal(
		cert_issue(&ca, buf_str(&other_key), STR_NONE, STR_NONE, &other_ca, &err), 0);
	wire_init(&w, buf_str(&other_ca), STR_NONE, STR_NONE, "localhost", false);
	assert_int_equal(shake_hands(&w, 100000, &err), -EACCES);
	wire_deinit(&w);
	wire_init(&w, buf_str(&t.ca_cert), STR_NONE, STR_NONE, "elsewhere", false);
	assert_int_equal(shake_hands(&w, 100000, &err), -EACCES);
	assert_non_null(strstr(err.text, "hostname mismatch"));
	wire_deinit(&w);
	/* A client certificate that the server's CA did not sign: let in, but as nobody. */
	CLEAN_BUF struct buf cert = { 0 };
	const struct cert_request mallory = {
		.common_name = "admin", .valid_seconds = 3600, .client_auth = true
	};

	assert_int_equal(cert_issue(&mallory, buf_str(&t.client_key), buf_str(&other_ca),
				 buf_str(&other_key), &cert, &err),
		0);
	wire_init(&w, buf_str(&t.ca_cert), buf_str(&cert), buf_str(&t.client_key), "localhost",
		false);
	assert_int_equal(shake_hands(&w, 100000, &err), 0);
	assert_null(tls_peer_identity(&w.server));
	wire_deinit(&w);
	/* A server's certificate is no client's. */
	wire_init(&w, buf_str(&t.ca_cert), buf_str(&t.cert), buf_str(&t.key), "localhost", false);
	assert_int_equal(shake_hands(&w, 100000, &err), 0);
	assert_null(tls_peer_identity(&w.server));
	wire_deinit(&w);
}

static void bad_pem(void **state)
{
	struct tls_context *ctx;
	struct err err = { "" };
	struct tls_server_config c = { .cert_pem = STR("nothing"), .key_pem = buf_str(&t.key) };

	assert_int_equal(tls_server_new(&c, &ctx, &err), -EINVAL);
	assert_non_null(strstr(err.text, "certificate"));
	c.cert_pem = buf_str(&t.cert);
	c.key_pem = buf_str(&t.client_key);
	assert_int_equal(tls_server_new(&c, &ctx, &err), -EINVAL);
	assert_non_null(strstr(err.text, "private key"));
	c.key_pem = buf_str(&t.key);
	c.client_ca_pem = STR("x");
	assert_int_equal(tls_server_new(&c, &ctx, &err), -EINVAL);
	c.client_ca_pem = STR_NONE;
	assert_int_equal(tls_server_new(&c, &ctx, &err), 0);
	c.cert_pem = STR("nothing");
	assert_int_equal(tls_server_update(ctx, &c, &err), -EINVAL);
	c.cert_pem = buf_str(&t.cert);
	assert_int_equal(tls_server_update(ctx, &c, &err), 0);
	tls_context_free(ctx);
}

static void signing_requests(void **state)
{
	const struct cert_request node = {
		.common_name = "system:node:n1",
		.organizations = (const char *const[]){ "system:nodes", NULL },
		.dns_names = (const char *const[]){ "n1", NULL },
		.ip_addresses = (const char *const[]){ "10.0.0.1", "fd00::1", NULL },
	};
	CLEAN_BUF struct buf csr = { 0 }, cert = { 0 };
	struct timestamp until;
	struct err err = { "" };

	assert_int_equal(cert_make_csr(&node, buf_str(&t.client_key), &csr, &err), 0);
	int r = cert_sign_csr(buf_str(&csr), buf_str(&t.ca_cert), buf_str(&t.ca_key), 86400 * 400,
		true, true, &cert, &err);

	if (r < 0)
		fail_msg("%s", err.text);
	assert_int_equal(cert_not_after(buf_str(&cert), &until, &err), 0);
	double left = time_diff_s(until, time_now());

	assert_true(left > 86400 * 400 - 60 && left < 86400 * 400 + 60);
	/* The certificate serves as both. */
	struct wire w;

	wire_init(&w, buf_str(&t.ca_cert), buf_str(&cert), buf_str(&t.client_key), "localhost",
		false);
	assert_int_equal(shake_hands(&w, 100000, &err), 0);
	CLEAN_FREE struct tls_identity *id = tls_peer_identity(&w.server);

	assert_non_null(id);
	assert_string_equal(id->common_name.p, "system:node:n1");
	assert_string_equal(id->organizations[0].p, "system:nodes");
	wire_deinit(&w);
	/* Changed on the way. */
	char *at = memchr(csr.p + 80, 'A', csr.len - 80);

	*at = 'B';
	assert_true(cert_sign_csr(buf_str(&csr), buf_str(&t.ca_cert), buf_str(&t.ca_key), 3600,
			    true, true, &cert, &err) < 0);
	const struct cert_request bad = { .common_name = "x",
		.ip_addresses = (const char *const[]){ "10.0.0", NULL } };

	assert_int_equal(cert_make_csr(&bad, buf_str(&t.key), &csr, &err), -EINVAL);
	assert_non_null(strstr(err.text, "10.0.0"));
}

/* What a request and a certificate say, and that no name is overlooked because there are many. */
static void names_read(void **state)
{
	const char *dns[CSR_NAMES_MOST + 2] = { NULL }, *few[] = { "n1", NULL },
					 *ips[] = { "10.0.0.1", NULL };
	struct cert_request q = { .common_name = "system:node:n1",
		.organizations = (const char *const[]){ "a", "b", NULL },
		.dns_names = few,
		.ip_addresses = ips,
		.valid_seconds = 30,
		.client_auth = true };
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf csr = { 0 }, cert = { 0 };
	struct timestamp made, end;
	struct csr_info i;
	struct err err = { "" };

	assert_int_equal(cert_issue(&q, buf_str(&t.client_key), buf_str(&t.ca_cert),
				 buf_str(&t.ca_key), &cert, &err),
		0);
	assert_int_equal(cert_read(buf_str(&cert), a, &i, &err), 0);
	assert_true(str_eqz(i.common_name, "system:node:n1") && i.n_organizations == 2 &&
		str_eqz(i.organizations[1], "b"));
	assert_true(i.n_dns_names == 1 && str_eqz(i.dns_names[0], "n1") && i.n_ip_addresses == 1 &&
		str_eqz(i.ip_addresses[0], "10.0.0.1"));
	assert_int_equal(i.n_other_names, 0);
	assert_int_equal(cert_life(buf_str(&cert), &made, &end, &err), 0);
	assert_true(time_diff_s(end, made) == 30 &&
		time_diff_s(time_now(), made) < 10); /* not the hour of backdating */
	for (size_t k = 0; k <= CSR_NAMES_MOST; k++)
		dns[k] = arena_fmt(a, "n%zu", k).p;
	q.dns_names = dns;
	assert_int_equal(cert_make_csr(&q, buf_str(&t.client_key), &csr, &err), 0);
	assert_int_equal(csr_read(buf_str(&csr), a, &i, &err), 0);
	assert_true(i.n_dns_names == CSR_NAMES_MOST && i.n_other_names == 1);
	assert_int_equal(cert_read(STR("nothing"), a, &i, &err), -EINVAL);
	assert_int_equal(cert_life(STR("nothing"), &made, &end, &err), -EINVAL);
}

static void tokens(void **state)
{
	static const char payload[] = "{\"sub\":\"system:serviceaccount:default:x\"}";
	CLEAN_BUF struct buf token = { 0 }, out = { 0 }, jwk = { 0 }, id = { 0 };
	struct err err = { "" };

	assert_int_equal(jwk_from_key(buf_str(&t.key), &jwk, &id, &err), 0);
	assert_int_equal(id.len, 43);
	assert_non_null(strstr(jwk.p, id.p));
	assert_non_null(strstr(jwk.p, "\"crv\":\"P-256\""));
	assert_int_equal(jwt_sign(buf_str(&t.key), buf_str(&id), str_of(payload), &token, &err), 0);
	assert_int_equal(jwt_verify(buf_str(&t.key), buf_str(&token), &out, &err), 0);
	assert_string_equal(out.p, payload);
	assert_int_equal(jwt_verify(buf_str(&t.cert), buf_str(&token), &out, &err), 0);
	assert_int_equal(jwt_verify(buf_str(&t.client_key), buf_str(&token), &out, &err), -EACCES);
	/* Any changed character of it is noticed. */
	for (size_t i = 0; i < token.len; i += 11) {
		char before = token.p[i];

		token.p[i] = before == 'A' ? 'Q' : 'A';
		assert_true(jwt_verify(buf_str(&t.key), buf_str(&token), &out, &err) < 0);
		token.p[i] = before;
	}
	/* An algorithm of the token's own choice is not. */
	CLEAN_BUF struct buf none = { 0 };

	base64url_encode(&none, "{\"alg\":\"none\"}", 14);
	buf_addz(&none, strchr(token.p, '.'));
	assert_int_equal(jwt_verify(buf_str(&t.key), buf_str(&none), &out, &err), -EACCES);
	assert_int_equal(jwt_verify(buf_str(&t.key), STR("a.b"), &out, &err), -EINVAL);
	assert_int_equal(jwt_verify(buf_str(&t.key), STR("!.!.!"), &out, &err), -EINVAL);
	assert_int_equal(jwt_verify(STR("no key"), buf_str(&token), &out, &err), -EINVAL);
	assert_int_equal(jwt_sign(STR("no key"), STR("k"), STR("{}"), &out, &err), -EINVAL);
	uint8_t digest[32];

	sha256("abc", 3, digest);
	assert_int_equal(digest[0], 0xba);
	assert_int_equal(digest[31], 0xad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(handshakes),
		cmocka_unit_test(distrust),
		cmocka_unit_test(bad_pem),
		cmocka_unit_test(signing_requests),
		cmocka_unit_test(names_read),
		cmocka_unit_test(tokens),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
