/* Requests that end at a node: paths and parameters in the kubelet's words, the choice of container, refusals, proxies. The kubelet here
 * is a server that answers with what it was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "apiserver/fixture.h"

static struct fixture f;
static struct http_server *kubelet, *web;

static void echo(void *arg, struct http_stream *s)
{
	const struct http_request *r = http_stream_request(s);
	struct str auth = http_request_header(r, "authorization");
	struct str body = arena_fmt(http_stream_arena(s),
		"%s " STR_FMT " " STR_FMT "?" STR_FMT " auth=" STR_FMT " body=" STR_FMT,
		(const char *)arg, STR_ARG(r->method), STR_ARG(r->path), STR_ARG(r->query),
		STR_ARG(auth), STR_ARG(r->body));
	http_respond(s, 200, NULL, 0, body, NULL, NULL);
}

static struct http_server *start(struct tls_context *tls, const char *name)
{
	struct err err = { 0 };
	struct http_server *s;
	struct http_server_config c = { .loops = &f.loop,
		.n_loops = 1,
		.address = "127.0.0.1",
		.tls = tls,
		.handler = { .on_request = echo, .arg = (void *)name } };
	if (http_server_start(&c, &s, &err) < 0)
		fail_msg("%s", err.text);
	return s;
}

#define PODS "/api/v1/namespaces/default/pods"

static void make_pod(const char *name, const char *node, const char *containers)
{
	expect(&f, 201, "POST", PODS,
		arena_fmt(f.arena,
			"{\"metadata\":{\"name\":\"%s\"},\"spec\":{%s\"containers\":[%s]}}", name,
			node, containers)
			.p);
}

static int setup(void **state)
{
	fixture_start(&f);
	f.server->proxy_loopback = true;
	kubelet = start(f.tls, "kubelet");
	web = start(NULL, "web");
	expect(&f, 201, "POST", "/api/v1/namespaces/default/serviceaccounts",
		"{\"metadata\":{\"name\":\"default\"}}");
	expect(&f, 201, "POST", "/api/v1/nodes", "{\"metadata\":{\"name\":\"n1\"}}");
	ask_as(&f, f.admin, "PATCH", "/api/v1/nodes/n1/status", "application/merge-patch+json",
		NULL,
		arena_fmt(f.arena,
			"{\"status\":{\"addresses\":[{\"type\":\"Hostname\",\"address\":\"no.such\"},{\"type\":\"InternalIP\",\"address\":\"127.0.0.1\"}],"
			"\"daemonEndpoints\":{\"kubeletEndpoint\":{\"Port\":%d}}}}",
			http_server_port(kubelet))
			.p);
	make_pod("one", "\"nodeName\":\"n1\",", "{\"name\":\"c\",\"image\":\"i\"}");
	make_pod("two", "\"nodeName\":\"n1\",",
		"{\"name\":\"a\",\"image\":\"i\"},{\"name\":\"b\",\"image\":\"i\"}");
	make_pod("waits", "", "{\"name\":\"c\",\"image\":\"i\"}");
	make_pod("lost", "\"nodeName\":\"gone\",", "{\"name\":\"c\",\"image\":\"i\"}");
	ask_as(&f, f.admin, "PATCH", PODS "/one/status", "application/merge-patch+json", NULL,
		"{\"status\":{\"podIP\":\"127.0.0.1\"}}");
	return 0;
}

static int teardown(void **state)
{
	http_server_stop(web);
	http_server_stop(kubelet);
	fixture_stop(&f);
	return 0;
}

static void test_rows(void **state)
{
	static const struct {
		const char *method, *target;
		int code;
		const char *part;
	} rows[] = {
		{ "GET", PODS "/one/log", 200,
			"kubelet GET /containerLogs/default/one/c? auth= body=" },
		{ "GET",
			PODS
			"/one/log?follow=true&tailLines=5&timestamps=true&previous=false&sinceTime=2026-01-01T00:00:00Z",
			200,
			"/containerLogs/default/one/c?follow=true&tailLines=5&timestamps=true&previous=false&sinceTime=2026-01-01T00%3A00%3A00Z" },
		{ "GET", PODS "/two/log?container=b", 200, "/containerLogs/default/two/b?" },
		{ "GET", PODS "/two/log", 400,
			"a container name must be specified for pod two, choose one of: [a b]" },
		{ "GET", PODS "/one/log?container=x", 400, "container x is not valid for pod one" },
		{ "GET", PODS "/none/log", 404, "pods \\\"none\\\" not found" },
		{ "GET", PODS "/waits/log", 200, "" },
		{ "GET", PODS "/lost/log", 404, "nodes \\\"gone\\\" not found" },
		{ "POST", PODS "/one/log", 405, "MethodNotAllowed" },
		{ "POST", PODS "/one/exec?command=ls", 400,
			"you must specify at least 1 of stdin, stdout, stderr" },
		{ "POST", PODS "/one/exec?command=ls&stdout=true", 400,
			"Upgrade request required" },
		{ "POST", PODS "/waits/exec?command=ls&stdout=true", 400,
			"pod waits does not have a host assigned" },
		{ "POST", PODS "/waits/portforward?ports=80", 400,
			"pod waits does not have a host assigned" },
		{ "DELETE", PODS "/one/exec", 405, "MethodNotAllowed" },
		{ "GET", "/api/v1/nodes/n1/proxy/stats/summary?only=cpu", 200,
			"kubelet GET /stats/summary?only=cpu" },
		{ "GET", "/api/v1/nodes/none/proxy/", 404, "nodes \\\"none\\\" not found" },
		{ "GET", "/api/v1/nodes/n1/proxy", 301, "" },
		{ "GET", PODS "/waits/proxy/", 400, "address not allowed" },
		{ "GET", PODS "/one:nonsense/proxy/", 400, "invalid port" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct answer a = ask(&f, rows[i].method, rows[i].target, NULL);
		if (a.code != rows[i].code || !has(a.body, rows[i].part))
			fail_msg("%s %s: %d " STR_FMT, rows[i].method, rows[i].target, a.code,
				STR_ARG(a.body));
	}
}

static void test_pod_proxy(void **state)
{
	const char *target =
		arena_fmt(f.arena, PODS "/one:%d/proxy/a/b%%20c?x=1", http_server_port(web)).p;
	struct answer a = ask_as(&f, f.admin, "POST", target, "text/plain", NULL, "hello");
	assert_int_equal(a.code, 200);
	assert_true(has(a.body, "web POST /a/b%20c?x=1 auth= body=hello"));
}

static bool first_object(void *arg, struct object *o)
{
	*(struct object **)arg = object_ref(o);
	return false;
}

/* Nobody may write loopback addresses into a slice, but the server here listens there: they are put into the stored one. */
static void move_slice_to_loopback(void)
{
	struct store_snapshot *sn = store_snapshot(f.store);
	CLEAN_OBJECT struct object *o = NULL;
	const char mark[] = "\"resourceVersion\":\"";
	store_snapshot_each(
		sn, STR("/discovery.k8s.io/endpointslices/"), STR_NONE, first_object, &o);
	store_snapshot_free(sn);
	assert_non_null(o);
	char *json = (char *)arena_str(f.arena, o->json).p, *p;
	while ((p = strstr(json, "192.0.2.")))
		memcpy(p, "127.0.0.", 8);
	p = strstr(json, mark) + strlen(mark);
	struct store_op op = { .verb = STORE_UPDATE,
		.key = o->key,
		.json_head = str_n(json, (size_t)(p - json)),
		.json_tail = str_of(strchr(p, '"')),
		.labels = o->labels,
		.n_labels = o->n_labels,
		.fields = o->fields,
		.n_fields = o->n_fields };
	assert_int_equal(store_write(f.store, &op, NULL), 0);
}

static void test_service_proxy(void **state)
{
	expect(&f, 201, "POST", "/api/v1/namespaces/default/services",
		"{\"metadata\":{\"name\":\"s\"},\"spec\":{\"ports\":[{\"name\":\"http\","
		"\"port\":80}]}}");
	struct answer a =
		ask(&f, "GET", "/api/v1/namespaces/default/services/s:http/proxy/x", NULL);
	assert_true(a.code == 503 && has(a.body, "no endpoints available for service \\\"s\\\""));
	expect(&f, 201, "POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
		arena_fmt(f.arena,
			"{\"metadata\":{\"name\":\"s-1\",\"labels\":{\"kubernetes.io/service-name\":\"s\"}},\"addressType\":\"IPv4\",\"endpoints\":["
			"{\"addresses\":[\"192.0.2.2\"],\"conditions\":{\"ready\":false}},{\"addresses\":[\"192.0.2.1\"],\"conditions\":{\"ready\":true}}],"
			"\"ports\":[{\"name\":\"http\",\"port\":%d}]}",
			http_server_port(web))
			.p);
	move_slice_to_loopback();
	a = ask(&f, "GET", "/api/v1/namespaces/default/services/s:http/proxy/x", NULL);
	assert_true(a.code == 200 && has(a.body, "web GET /x?"));
	a = ask(&f, "GET", "/api/v1/namespaces/default/services/s/proxy/x", NULL);
	assert_true(a.code == 200 && has(a.body, "web GET /x?"));
	a = ask(&f, "GET", "/api/v1/namespaces/default/services/s:81/proxy/x", NULL);
	assert_int_equal(a.code, 503);
}

/* What listens on this machine alone, and the cloud's metadata, are nobody's pod. */
static void test_addresses(void **state)
{
	static const char *const ips[] = { "127.0.0.1", "169.254.169.254", "::1", "fe80::1",
		"0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1" };
	f.server->proxy_loopback = false;
	for (size_t i = 0; i < ARRAY_LEN(ips); i++) {
		ask_as(&f, f.admin, "PATCH", PODS "/waits/status", "application/merge-patch+json",
			NULL,
			arena_fmt(f.arena,
				"{\"status\":{\"podIP\":\"%s\",\"podIPs\":[{\"ip\":\"%s\"}]}}",
				ips[i], ips[i])
				.p);
		struct answer a = ask(&f, "GET", PODS "/waits:1/proxy/", NULL);
		if (a.code != 400 || !has(a.body, "address not allowed"))
			fail_msg("%s: %d " STR_FMT, ips[i], a.code, STR_ARG(a.body));
	}
	f.server->proxy_loopback = true;
	ask_as(&f, f.admin, "PATCH", PODS "/waits/status", "application/merge-patch+json", NULL,
		"{\"status\":{\"podIP\":null,\"podIPs\":null}}");
}

/* The certificate with which kubelets are called goes to kubelets alone, though a pod may have a node's address. */
static void test_upstreams_keep_apart(void **state)
{
	struct err err = { 0 };
	struct upstreams *u = upstreams_new();
	struct tls_context *other;
	assert_int_equal(tls_client_new(&(struct tls_client_config){ .insecure_skip_verify = true },
				 &other, &err),
		0);
	struct http_client *node =
		upstream_get(u, "https", STR("192.0.2.1"), 10250, f.kubelet_tls, &err);
	struct http_client *again =
		upstream_get(u, "https", STR("192.0.2.1"), 10250, f.kubelet_tls, &err);
	struct http_client *pod = upstream_get(u, "https", STR("192.0.2.1"), 10250, other, &err);
	assert_ptr_equal(again, node);
	assert_ptr_not_equal(pod, node);
	for (int port = 1; port < 2000; port++) /* what is forgotten stays with those who use it */
		http_client_free(upstream_get(u, "http", STR("192.0.2.1"), port, NULL, &err));
	http_client_free(node);
	http_client_free(again);
	http_client_free(pod);
	upstreams_free(u);
	tls_context_free(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_rows),
		cmocka_unit_test(test_pod_proxy), cmocka_unit_test(test_service_proxy),
		cmocka_unit_test(test_addresses), cmocka_unit_test(test_upstreams_keep_apart) };
	return cmocka_run_group_tests(tests, setup, teardown);
}
