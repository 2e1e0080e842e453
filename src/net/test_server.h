/* For tests: a server with a small handler on a loop of its own, under certificates made for the occasion. */
#ifndef SKIFF_NET_TEST_SERVER_H
#define SKIFF_NET_TEST_SERVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

#include "net/net.h"

struct test_server {
	struct loop *loop;
	struct http_server *server;
	struct tls_context *tls;
	struct buf ca_key, ca_cert, key, cert, client_key, client_cert;
	char url[64];
};

static void test_certs(struct test_server *t)
{
	struct err err;
	const struct cert_request ca = {
		.common_name = "test-ca", .valid_seconds = 3600, .is_ca = true
	};
	const struct cert_request server = {
		.common_name = "server",
		.dns_names = (const char *const[]){ "localhost", NULL },
		.ip_addresses = (const char *const[]){ "127.0.0.1", "::1", NULL },
		.valid_seconds = 3600,
		.server_auth = true,
	};
	const struct cert_request client = {
		.common_name = "alice",
		.organizations = (const char *const[]){ "system:masters", "team", NULL },
		.valid_seconds = 3600,
		.client_auth = true,
	};

	assert_int_equal(cert_new_key(&t->ca_key, &err), 0);
	assert_int_equal(cert_new_key(&t->key, &err), 0);
	assert_int_equal(cert_new_key(&t->client_key, &err), 0);
	assert_int_equal(
		cert_issue(&ca, buf_str(&t->ca_key), STR_NONE, STR_NONE, &t->ca_cert, &err), 0);
	assert_int_equal(cert_issue(&server, buf_str(&t->key), buf_str(&t->ca_cert),
				 buf_str(&t->ca_key), &t->cert, &err),
		0);
	assert_int_equal(cert_issue(&client, buf_str(&t->client_key), buf_str(&t->ca_cert),
				 buf_str(&t->ca_key), &t->client_cert, &err),
		0);
}

static UNUSED void test_server_start(
	struct test_server *t, bool secure, struct http_handler handler)
{
	struct err err = { "" };

	*t = (struct test_server){ 0 };
	test_certs(t);
	if (secure) {
		const struct tls_server_config tls = {
			.cert_pem = buf_str(&t->cert),
			.key_pem = buf_str(&t->key),
			.client_ca_pem = buf_str(&t->ca_cert),
			.http2 = true,
		};

		assert_int_equal(tls_server_new(&tls, &t->tls, &err), 0);
	}
	assert_int_equal(loop_new("test", &t->loop, &err), 0);
	assert_int_equal(loop_start(t->loop, &err), 0);
	const struct http_server_config config = {
		.loops = &t->loop,
		.n_loops = 1,
		.address = "127.0.0.1",
		.tls = t->tls,
		.handler = handler,
	};
	int r = http_server_start(&config, &t->server, &err);

	if (r < 0)
		fail_msg("%s", err.text);
	snprintf(t->url, sizeof(t->url), "%s://127.0.0.1:%d", secure ? "https" : "http",
		http_server_port(t->server));
}

static UNUSED void test_server_stop(struct test_server *t)
{
	http_server_stop(t->server);
	loop_stop(t->loop);
	loop_join(t->loop);
	loop_free(t->loop);
	tls_context_free(t->tls);
	buf_deinit(&t->ca_key);
	buf_deinit(&t->ca_cert);
	buf_deinit(&t->key);
	buf_deinit(&t->cert);
	buf_deinit(&t->client_key);
	buf_deinit(&t->client_cert);
}

static UNUSED struct http_client *test_client(struct test_server *t, bool with_cert)
{
	struct tls_context *tls = NULL;
	struct http_client *c;
	struct err err = { "" };
	const struct tls_client_config config = {
		.ca_pem = buf_str(&t->ca_cert),
		.cert_pem = with_cert ? buf_str(&t->client_cert) : STR_NONE,
		.key_pem = with_cert ? buf_str(&t->client_key) : STR_NONE,
	};

	assert_int_equal(tls_client_new(&config, &tls, &err), 0);
	int r = http_client_new(t->url, tls, &c, &err);

	if (r < 0)
		fail_msg("%s", err.text);
	tls_context_free(tls);
	return c;
}

#endif
