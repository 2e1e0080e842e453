/* Services: addresses and node ports are unique, given back, and found again at start. */
#include "registry/registry_test.h"

static const char *service(struct env *e, const char *name, const char *spec)
{
	return arena_fmt(e->a,
		"{\"metadata\":{\"name\":\"%s\"},\"spec\":{\"ports\":[{\"port\":80}]%s%s}}", name,
		*spec ? "," : "", spec)
		.p;
}

static void defaults(void **state)
{
	static const struct {
		const char *path, *value;
	} rows[] = {
		{ "spec.type", "ClusterIP" },
		{ "spec.sessionAffinity", "None" },
		{ "spec.internalTrafficPolicy", "Cluster" },
		{ "spec.ipFamilyPolicy", "SingleStack" },
		{ "spec.ipFamilies", "[\"IPv4\"]" },
		{ "spec.ports.0.protocol", "TCP" },
		{ "spec.ports.0.targetPort", "80" },
		{ "spec.externalTrafficPolicy", "-" },
	};
	struct env *e = *state;
	OK(e, CREATE, "services", "default", service(e, "s", ""));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_at(e, rows[i].path, rows[i].value);
	assert_int_equal(strncmp(at(e, "spec.clusterIP"), "10.43.0.", 8), 0);
	assert_string_equal(at(e, "spec.clusterIPs.0"), at(e, "spec.clusterIP"));
	OK(e, CREATE, "services", "default",
		service(e, "n", "\"type\":\"NodePort\",\"sessionAffinity\":\"ClientIP\""));
	assert_at(e, "spec.externalTrafficPolicy", "Cluster");
	assert_at(e, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", "10800");
	OK(e, CREATE, "services", "default", service(e, "h", "\"clusterIP\":\"None\""));
	assert_at(e, "spec.clusterIPs", "[\"None\"]");
	OK(e, CREATE, "services", "default",
		"{\"metadata\":{\"name\":\"x\"},\"spec\":{\"type\":\"ExternalName\",\"externalName\":\"a.example\"}}");
	assert_at(e, "spec.clusterIP", "-");
	assert_at(e, "spec.internalTrafficPolicy", "-");
}

static void refusals(void **state)
{
	static const struct {
		const char *body, *message;
	} rows[] = {
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{}}", "spec.ports: Required value" },
		{ "{\"metadata\":{\"name\":\"s-\"},\"spec\":{\"ports\":[{\"port\":1}]}}",
			"metadata.name: Invalid value: \"s-\": a lowercase RFC 1123 label must consist of" },
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"ports\":[{\"port\":1},{\"port\":2}]}}",
			"spec.ports[0].name: Required value" },
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"ports\":[{\"port\":0}]}}",
			"spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive" },
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"ports\":[{\"port\":1,\"nodePort\":30000}]}}",
			"spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'" },
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"port\":1,\"nodePort\":80}]}}",
			"spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is "
			"30000-32767" },
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"clusterIP\":\"1.2.3\",\"ports\":[{\"port\":1}]}}",
			"spec.clusterIPs[0]: Invalid value: \"1.2.3\": must be a valid IP address" },
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"clusterIP\":\"10.9.0.1\",\"ports\":[{\"port\":1}]}}",
			"spec.clusterIPs[0]: Invalid value: \"10.9.0.1\": failed to allocate IP 10.9.0.1: the provided IP (10.9.0.1) is not "
			"in the valid range. The range of "
			"valid IPs is 10.43.0.0/24" },
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"type\":\"ExternalName\"}}",
			"spec.externalName: Required value" },
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"type\":\"NodePort\",\"clusterIP\":\"None\",\"ports\":[{\"port\":1}]}}",
			"spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services" },
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"externalIPs\":[\"127.0.0.1\"],\"ports\":[{\"port\":6443}]}}",
			"spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)" },
		{ "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"externalIPs\":[\"169.254.169.254\"],\"ports\":[{\"port\":80}]}}",
			"spec.externalIPs[0]: Invalid value: \"169.254.169.254\": may not be in the link-local range" },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		req(e, CREATE, "services", "default", rows[i].body);
		assert_refused(e, 422, rows[i].message);
	}
}

/* What a slice written by hand may send traffic to. */
static void slice_addresses(void **state)
{
	static const struct {
		const char *type, *address, *message;
	} rows[] = {
		{ "IPv4", "127.0.0.1", "may not be in the loopback range" },
		{ "IPv4", "0.0.0.0", "may not be unspecified" },
		{ "IPv4", "169.254.169.254", "may not be in the link-local range" },
		{ "IPv4", "224.0.0.1", "may not be in the link-local multicast range" },
		{ "IPv4", "fd00::1", "must be a valid IPv4 address" },
		{ "IPv4", "1.2.3.4 }", "must be a valid IP address" },
		{ "IPv6", "10.0.0.1", "must be a valid IPv6 address" },
		{ "IPv6", "::1", "may not be in the loopback range" },
		{ "IPv6", "::ffff:127.0.0.1", "may not be in the loopback range" },
		{ "IPv6", "fe80::1", "may not be in the link-local range" },
	};
	struct env *e = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		req(e, CREATE, "discovery.k8s.io/v1:endpointslices", "default",
			arena_fmt(e->a,
				"{\"metadata\":{\"name\":\"s\"},\"addressType\":\"%s\",\"endpoints\":[{\"addresses\":[\"%s\"]}]}",
				rows[i].type, rows[i].address)
				.p);
		assert_refused(e, 422,
			arena_fmt(e->a, "endpoints[0].addresses[0]: Invalid value: \"%s\": %s",
				rows[i].address, rows[i].message)
				.p);
	}
	OK(e, CREATE, "discovery.k8s.io/v1:endpointslices", "default",
		"{\"metadata\":{\"name\":\"s\"},\"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":[\"10.0.0.1\"]}]}");
}

static void addresses(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "services", "default", service(e, "a", "\"clusterIP\":\"10.43.0.7\""));
	req(e, CREATE, "services", "default", service(e, "b", "\"clusterIP\":\"10.43.0.7\""));
	assert_refused(e, 422,
		"spec.clusterIPs[0]: Invalid value: \"10.43.0.7\": failed to allocate IP 10.43.0.7: provided IP is already allocated");
	req_new(e, CREATE, "services", "default", service(e, "b", "\"clusterIP\":\"10.43.0.8\""))
		->dry_run = true;
	assert_int_equal(req_run(e), 201);
	OK(e, CREATE, "services", "default",
		service(e, "b", "\"clusterIP\":\"10.43.0.8\"")); /* the dry run held nothing */
	req(e, CREATE, "services", "default", service(e, "b", "\"clusterIP\":\"10.43.0.9\""));
	assert_code(e, 409);
	OK(e, CREATE, "services", "default",
		service(e, "c", "\"clusterIP\":\"10.43.0.9\"")); /* nor did the refused create */
	req(e, PATCH, "services/a", "default",
		"{\"spec\":{\"clusterIP\":\"10.43.0.12\",\"clusterIPs\":[\"10.43.0.12\"]}}");
	assert_refused(e, 422,
		"spec.clusterIPs[0]: Invalid value: \"10.43.0.12\": may not change once set");
	OK(e, UPDATE, "services/a", "default", service(e, "a", "")); /* left out: kept */
	assert_at(e, "spec.clusterIP", "10.43.0.7");
	OK(e, DELETE, "services/a", "default", NULL);
	OK(e, CREATE, "services", "default", service(e, "d", "\"clusterIP\":\"10.43.0.7\""));
	OK(e, PATCH, "services/d", "default",
		"{\"spec\":{\"type\":\"ExternalName\",\"externalName\":\"x.y\",\"clusterIP\":null,\"clusterIPs\":null}}");
	OK(e, CREATE, "services", "default", service(e, "f", "\"clusterIP\":\"10.43.0.7\""));
}

static void dns_keeps_its_address(void **state)
{
	struct env *e = *state;

	req(e, CREATE, "services", "default", service(e, "a", "\"clusterIP\":\"10.43.0.10\""));
	assert_refused(e, 422,
		"spec.clusterIPs[0]: Invalid value: \"10.43.0.10\": failed to allocate IP 10.43.0.10: the address of the cluster's DNS");
	OK(e, CREATE, "namespaces", "", "{\"metadata\":{\"name\":\"kube-system\"}}");
	OK(e, CREATE, "services", "kube-system", service(e, "dns", "\"clusterIP\":\"10.43.0.10\""));
}

static void range_is_full(void **state)
{
	struct env *e = *state;
	bool seen[256] = { 0 };
	int i;
	for (i = 0; i < 253; i++) {
		OK(e, CREATE, "services", "default", service(e, arena_fmt(e->a, "s%d", i).p, ""));
		int last = atoi(strrchr(at(e, "spec.clusterIP"), '.') + 1);
		assert_false(seen[last]);
		seen[last] = true;
		/* the low part is left to those who ask for a certain one */
		assert_true(i >= 253 - 15 || last > 16);
	}
	assert_false(seen[0] || seen[10] || seen[255]); /* .10 is the DNS' */
	req(e, CREATE, "services", "default", service(e, "more", ""));
	assert_refused(
		e, 500, "Internal error occurred: failed to allocate a serviceIP: range is full");
}

static void node_ports(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "services", "default",
		"{\"metadata\":{\"name\":\"a\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"name\":\"t\",\"port\":53,\"nodePort\":30053},"
		"{\"name\":\"u\",\"port\":53,\"protocol\":\"UDP\"}]}}");
	assert_at(e, "spec.ports.1.nodePort", "30053"); /* the same number for the other protocol */
	req(e, CREATE, "services", "default",
		"{\"metadata\":{\"name\":\"b\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"port\":1,\"nodePort\":30053}]}}");
	assert_refused(e, 422,
		"spec.ports[0].nodePort: Invalid value: 30053: provided port is already allocated");
	OK(e, UPDATE, "services/a", "default",
		"{\"metadata\":{\"name\":\"a\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"name\":\"t\",\"port\":54}]}}");
	assert_at(e, "spec.ports.0.nodePort", "30053");
	OK(e, CREATE, "services", "default",
		"{\"metadata\":{\"name\":\"u\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"port\":1,\"protocol\":\"UDP\",\"nodePort\":30053}]}}");
	OK(e, DELETE, "services/a", "default", NULL);
	OK(e, CREATE, "services", "default",
		"{\"metadata\":{\"name\":\"b\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"port\":1,\"nodePort\":30053}]}}");
	OK(e, UPDATE, "services/b", "default",
		"{\"metadata\":{\"name\":\"b\"},\"spec\":{\"type\":\"ClusterIP\",\"ports\":[{\"port\":1,\"nodePort\":30053}]}}");
	assert_at(e, "spec.ports.0.nodePort", "-");
	OK(e, CREATE, "services", "default",
		"{\"metadata\":{\"name\":\"c\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"port\":1,\"nodePort\":30053}]}}");
}

static void found_again_at_start(void **state)
{
	struct env *e = *state;
	struct err err;
	OK(e, CREATE, "services", "default",
		service(e, "a", "\"clusterIP\":\"10.43.0.7\",\"type\":\"NodePort\""));
	const char *second = arena_fmt(e->a,
		"{\"metadata\":{\"name\":\"b\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"port\":1,\"nodePort\":%s}]}}",
		at(e, "spec.ports.0.nodePort"))
				     .p;
	registry_free(e->r);
	struct registry_config rc = {
		.store = e->store, .clock = &test_clock, .service_cidr = "10.43.0.0/24"
	};
	assert_int_equal(registry_new(&rc, &e->r, &err), 0);
	req(e, CREATE, "services", "default", service(e, "b", "\"clusterIP\":\"10.43.0.7\""));
	assert_refused(e, 422, "provided IP is already allocated");
	req(e, CREATE, "services", "default", second);
	assert_refused(e, 422, "provided port is already allocated");
}

struct maker {
	struct env *e;
	int id, made;
};

static void *make_many(void *arg)
{
	struct maker *m = arg;
	for (int i = 0; i < 60; i++) {
		struct arena *a = arena_new(0);
		struct registry_request q = { .arena = a, .verb = CREATE, .ns = STR("default") };
		struct registry_result res;
		struct err err;
		q.resource = registry_resource(m->e->r, STR(""), STR("v1"), STR("services"));
		json_decode(&core_v1_service_type,
			arena_fmt(a,
				"{\"metadata\":{\"name\":\"t%d-%d\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"port\":1}]}}",
				m->id, i),
			a, NULL, &q.obj, &err);
		registry_call(m->e->r, &q, &res);
		m->made += res.code == 201;
		object_unref(res.object);
		arena_free(a);
	}
	return NULL;
}

static void together(void **state)
{
	struct env *e = *state;
	struct maker makers[4];
	pthread_t threads[4];
	struct map ips = { 0 }, ports = { 0 };
	for (int i = 0; i < 4; i++) {
		makers[i] = (struct maker){ e, i, 0 };
		pthread_create(&threads[i], NULL, make_many, &makers[i]);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(makers[i].made, 60);
	}
	for (int i = 0; i < 240; i++) {
		OK(e, GET, arena_fmt(e->a, "services/t%d-%d", i / 60, i % 60).p, "default", NULL);
		assert_null(map_set(&ips, str_of(at(e, "spec.clusterIP")), e));
		assert_null(map_set(&ports, str_of(at(e, "spec.ports.0.nodePort")), e));
	}
	map_deinit(&ips, NULL);
	map_deinit(&ports, NULL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
	const struct CMUnitTest tests[] = {
		T(defaults),
		T(refusals),
		T(slice_addresses),
		T(addresses),
		T(dns_keeps_its_address),
		T(range_is_full),
		T(node_ports),
		T(found_again_at_start),
		T(together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
