/* From services to nft commands; and, as root, that a real kernel takes them and sends packets to the right endpoints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>

#include "linux/linux.h"
#include "proxy/internal.h"

struct fixture {
	struct arena *a;
	struct applied applied;
	struct core_v1_service *service;
	struct discovery_v1_endpoint_slice *slice;
	const struct rules *was; /* for build */
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct core_v1_service_port *p;
	struct discovery_v1_endpoint_port *ep;

	f->a = arena_new(0);
	f->service = model_new(&core_v1_service_type, f->a);
	f->service->spec.cluster_ip = STR("10.43.0.20");
	p = LIST_ADD(f->a, &f->service->spec.ports);
	p->name = STR("http");
	p->port = 80;
	f->slice = model_new(&discovery_v1_endpoint_slice_type, f->a);
	f->slice->address_type = STR("IPv4");
	ep = LIST_ADD(f->a, &f->slice->ports);
	ep->name = STR("http");
	ep->port = (struct opt_int32)SOME(8080);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	applied_deinit(&f->applied);
	arena_free(f->a);
	free(f);
	return 0;
}

static struct discovery_v1_endpoint *add_endpoint(
	struct fixture *f, const char *ip, const char *node)
{
	struct discovery_v1_endpoint *e = LIST_ADD(f->a, &f->slice->endpoints);

	*LIST_ADD(f->a, &e->addresses) = str_of(ip);
	e->node_name = str_of(node);
	return e;
}

static struct rules *build(struct fixture *f)
{
	const struct discovery_v1_endpoint_slice *slices[] = { f->slice };
	struct rules *r = arena_alloc(f->a, sizeof(*r));

	r->arena = f->a;
	rules_build(r, f->service, slices, 1,
		&(struct proxy_node){ .name = "here", .zone = STR("a") }, f->was);
	return r;
}

/* Whether the rules have "set key : value" (value "" for sets). */
static bool has(const struct rules *r, const char *set, const char *key, const char *value)
{
	for (size_t i = 0; i < r->len; i++)
		if (!strcmp(r->items[i].set, set) && str_eqz(r->items[i].key, key) &&
			str_eqz(r->items[i].value, value))
			return true;
	return false;
}

static void two_endpoints(void **state)
{
	struct fixture *f = *state;
	struct rules *r;

	add_endpoint(f, "10.42.0.5", "here");
	add_endpoint(f, "10.42.1.6", "there");
	r = build(f);
	assert_true(has(r, "services", "10.43.0.20 . tcp . 80", "goto pick_2"));
	assert_true(has(r, "endpoints", "10.43.0.20 . tcp . 80 . 0", "10.42.0.5 . 8080"));
	assert_true(has(r, "endpoints", "10.43.0.20 . tcp . 80 . 1", "10.42.1.6 . 8080"));
	assert_true(has(r, "hairpin", "10.42.0.5 . 10.42.0.5", ""));
	assert_false(has(r, "hairpin", "10.42.1.6 . 10.42.1.6", ""));
	assert_int_equal(r->len, 4);
}

static void none_is_refused(void **state)
{
	struct fixture *f = *state;
	struct discovery_v1_endpoint *e = add_endpoint(f, "10.42.0.5", "here");
	struct rules *r;

	e->conditions.ready = (struct opt_bool)SOME(false);
	r = build(f);
	assert_true(has(r, "no_endpoints", "10.43.0.20 . tcp . 80", ""));
	assert_int_equal(r->len, 1);
	/* A terminating one that still serves is better than none. */
	e->conditions.serving = e->conditions.terminating = (struct opt_bool)SOME(true);
	r = build(f);
	assert_true(has(r, "endpoints", "10.43.0.20 . tcp . 80 . 0", "10.42.0.5 . 8080"));
}

static void policies_keep_to_the_node(void **state)
{
	struct fixture *f = *state;
	struct discovery_v1_endpoint *e;
	struct rules *r;

	add_endpoint(f, "10.42.0.5", "here");
	add_endpoint(f, "10.42.1.6", "there");
	f->service->spec.ports.items[0].node_port = 30080;
	LIST_ADD(f->a, &f->service->status.load_balancer.ingress)->ip = STR("192.0.2.7");
	f->service->spec.external_traffic_policy = STR("Local");
	f->service->spec.health_check_node_port = 31000;
	r = build(f);
	assert_true(has(r, "services", "10.43.0.20 . tcp . 80", "goto pick_2"));
	assert_true(has(r, "node_ports", "tcp . 30080", "goto node_local_pick_1"));
	assert_true(has(r, "node_port_endpoints", "tcp . 30080 . 131072", "10.42.0.5 . 8080"));
	assert_true(has(r, "services", "192.0.2.7 . tcp . 80", "goto local_pick_1"));
	assert_true(has(r, "endpoints", "192.0.2.7 . tcp . 80 . 131072", "10.42.0.5 . 8080"));
	/* Who is of the cluster comes everywhere, with its own address. */
	assert_true(has(r, "node_ports_inside", "tcp . 30080", "goto node_pick_2"));
	assert_true(has(r, "services_inside", "192.0.2.7 . tcp . 80", "goto pick_2"));
	assert_true(has(r, "endpoints", "192.0.2.7 . tcp . 80 . 1", "10.42.1.6 . 8080"));
	assert_int_equal(r->health_port, 31000);
	assert_int_equal(r->ready_local, 1);

	f->service->spec.external_traffic_policy = STR("Cluster");
	r = build(f);
	assert_true(has(r, "node_ports", "tcp . 30080", "goto node_out_pick_2"));
	assert_true(has(r, "node_port_endpoints", "tcp . 30080 . 65537", "10.42.1.6 . 8080"));
	assert_true(has(r, "services", "192.0.2.7 . tcp . 80", "goto out_pick_2"));
	assert_false(has(r, "services_inside", "192.0.2.7 . tcp . 80", "goto pick_2"));
	assert_int_equal(r->health_port, 0);

	/* None here: packets vanish. An ending one here is better than that, although another node has a ready one. */
	f->service->spec.external_traffic_policy = f->service->spec.internal_traffic_policy =
		STR("Local");
	e = &f->slice->endpoints.items[0];
	e->conditions.ready = (struct opt_bool)SOME(false);
	r = build(f);
	assert_true(has(r, "services", "10.43.0.20 . tcp . 80", "drop"));
	assert_true(has(r, "services", "192.0.2.7 . tcp . 80", "drop"));
	assert_true(has(r, "services_inside", "192.0.2.7 . tcp . 80", "goto pick_1"));
	assert_int_equal(r->ready_local, 0);
	e->conditions.serving = e->conditions.terminating = (struct opt_bool)SOME(true);
	r = build(f);
	assert_true(has(r, "services", "10.43.0.20 . tcp . 80", "goto pick_1"));
	assert_true(has(r, "endpoints", "10.43.0.20 . tcp . 80 . 0", "10.42.0.5 . 8080"));
	assert_true(has(r, "endpoints", "192.0.2.7 . tcp . 80 . 131072", "10.42.0.5 . 8080"));
	assert_true(has(r, "endpoints", "192.0.2.7 . tcp . 80 . 0", "10.42.1.6 . 8080"));
	assert_int_equal(r->ready_local, 0);
}

/* The number by which an endpoint of the cluster address is remembered, checked to be one that a draw leads to; 0: none. */
static int number_of(struct fixture *f, const struct rules *r, const char *endpoint)
{
	for (size_t i = 0; i < r->len; i++) {
		struct str key = r->items[i].key, number;
		char draw[64];

		if (strcmp(r->items[i].set, "endpoints") || !str_eqz(r->items[i].value, endpoint))
			continue;
		assert_true(str_has_prefix(key, STR("10.43.0.20 . tcp . 80 . ")));
		number = str_n(key.p + 24, key.len - 24);
		for (size_t n = 0; n < r->len; n++) {
			snprintf(draw, sizeof(draw), "10.43.0.20 . tcp . 80 . %zu", n);
			if (has(r, "choices", draw, arena_str(f->a, number).p))
				return atoi(arena_str(f->a, number).p);
		}
	}
	return 0;
}

/* A client whose endpoint stays comes to it again when others come and go, in whatever order they are listed, and in another life of the agent. */
static void endpoints_keep_their_numbers(void **state)
{
	struct fixture *f = *state;
	struct rules *three, *two;

	f->service->spec.session_affinity = STR("ClientIP");
	add_endpoint(f, "10.42.0.5", "here");
	add_endpoint(f, "10.42.1.6", "there");
	add_endpoint(f, "10.42.2.7", "there");
	three = build(f);
	assert_true(has(three, "services", "10.43.0.20 . tcp . 80", "goto sticky_3_10800"));
	assert_int_equal(number_of(f, three, "10.42.0.5 . 8080"), 5);
	assert_int_equal(number_of(f, three, "10.42.1.6 . 8080"), 262);
	f->slice->endpoints.items[0] = f->slice->endpoints.items[2];
	f->slice->endpoints.len = 2;
	two = build(f);
	assert_true(has(two, "services", "10.43.0.20 . tcp . 80", "goto sticky_2_10800"));
	assert_int_equal(number_of(f, two, "10.42.1.6 . 8080"), 262);
	assert_int_equal(number_of(f, two, "10.42.2.7 . 8080"), 519);
	assert_int_equal(number_of(f, two, "10.42.0.5 . 8080"), 0);
}

static void numbers_that_clash(void **state)
{
	struct fixture *f = *state;
	struct rules *one, *two;

	f->service->spec.session_affinity = STR("ClientIP");
	add_endpoint(f, "192.0.0.5", "there");
	add_endpoint(f, "10.42.0.5", "here");
	one = build(f);
	assert_int_equal(number_of(f, one, "10.42.0.5 . 8080"), 5);
	assert_int_equal(number_of(f, one, "192.0.0.5 . 8080"), 32754);
	/* The second keeps it when the first goes, and when a third wants it. */
	f->slice->endpoints.items[1].addresses.items[0] = STR("10.42.127.242");
	f->was = one;
	two = build(f);
	assert_int_equal(number_of(f, two, "192.0.0.5 . 8080"), 32754);
	assert_int_equal(number_of(f, two, "10.42.127.242 . 8080"), 65503);
}

/* At every kind of place, and for every port. */
static void affinity_has_its_chains(void **state)
{
	struct fixture *f = *state;
	struct core_v1_session_affinity_config config = { 0 };
	struct core_v1_client_ip_config client = { .timeout_seconds = SOME(3) };
	CLEAN_BUF struct buf out = { 0 };
	struct rules *one, *two;

	f->service->spec.session_affinity = STR("ClientIP");
	f->service->spec.session_affinity_config = &config;
	config.client_ip = &client;
	f->service->spec.ports.items[0].node_port = 30080;
	f->service->spec.external_traffic_policy = STR("Local");
	add_endpoint(f, "10.42.0.5", "here");
	add_endpoint(f, "10.42.1.6", "there");
	one = build(f);
	rules_change(&f->applied, NULL, one, &out);
	assert_true(has(one, "services", "10.43.0.20 . tcp . 80", "goto sticky_2_3"));
	assert_true(has(one, "node_ports", "tcp . 30080", "goto node_local_sticky_1_3"));
	assert_true(has(one, "node_port_choices", "tcp . 30080 . 131072", "131077"));
	assert_true(has(one, "node_port_endpoints", "tcp . 30080 . 131077", "10.42.0.5 . 8080"));
	assert_true(has(one, "node_ports_inside", "tcp . 30080", "goto node_sticky_2_3"));
	assert_true(has(one, "node_port_endpoints", "tcp . 30080 . 262", "10.42.1.6 . 8080"));
	assert_non_null(strstr(out.p, "add chain " PROXY_TABLE " sticky_2_3\n"));
	/* They go with the last service that has this timeout, so that changes of it leave nothing behind. */
	client.timeout_seconds.value = 4;
	two = build(f);
	buf_clear(&out);
	rules_change(&f->applied, one, two, &out);
	assert_non_null(strstr(out.p, "add chain " PROXY_TABLE " sticky_2_4\n"));
	assert_non_null(strstr(out.p, "delete chain " PROXY_TABLE " sticky_2_3\n"));
	rules_change(&f->applied, two, NULL, &out);
	assert_int_equal(f->applied.shared.len, 0);
	assert_int_equal(f->applied.elements.len, 0);
}

static void hint(
	struct fixture *f, struct discovery_v1_endpoint *e, const char *zone, const char *node)
{
	e->hints = arena_alloc(f->a, sizeof(*e->hints));
	if (zone)
		LIST_ADD(f->a, &e->hints->for_zones)->name = str_of(zone);
	if (node)
		LIST_ADD(f->a, &e->hints->for_nodes)->name = str_of(node);
}

static void near_ones_are_preferred(void **state)
{
	struct fixture *f = *state;
	struct discovery_v1_endpoint *e;

	add_endpoint(f, "10.42.0.5", "here");
	add_endpoint(f, "10.42.1.6", "there");
	add_endpoint(f, "10.42.2.7", "afar");
	e = f->slice->endpoints.items;
	hint(f, &e[0], "a", "here");
	hint(f, &e[1], "a", "there");
	assert_true(has(build(f), "services", "10.43.0.20 . tcp . 80", "goto pick_3"));
	hint(f, &e[2], "b", "afar");
	assert_true(has(build(f), "services", "10.43.0.20 . tcp . 80", "goto pick_1"));
	/* Without hints for nodes those for zones count. */
	hint(f, &e[2], "b", NULL);
	assert_true(has(build(f), "services", "10.43.0.20 . tcp . 80", "goto pick_2"));
	/* Nobody near: anybody. */
	hint(f, &e[0], "c", NULL);
	hint(f, &e[1], "c", NULL);
	assert_true(has(build(f), "services", "10.43.0.20 . tcp . 80", "goto pick_3"));
}

static void sources_are_restricted(void **state)
{
	static const char *const ranges[] = { "10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32",
		"fd00::/8", "1.2.3.4/8 } accept" };
	struct fixture *f = *state;
	CLEAN_BUF struct buf out = { 0 };
	struct rules *one, *two;

	add_endpoint(f, "10.42.0.5", "here");
	LIST_ADD(f->a, &f->service->status.load_balancer.ingress)->ip = STR("192.0.2.7");
	for (size_t i = 0; i < ARRAY_LEN(ranges); i++)
		*LIST_ADD(f->a, &f->service->spec.load_balancer_source_ranges) = str_of(ranges[i]);
	one = build(f);
	rules_change(&f->applied, NULL, one, &out);
	assert_int_equal(one->n_shared, 1);
	const char *name = arena_strz(f->a, one->shared[0].name.p).p,
		   *jump = arena_fmt(f->a, "jump %s", name).p;
	assert_true(has(one, "restricted", "192.0.2.7 . tcp . 80", jump));
	assert_non_null(strstr(out.p,
		arena_fmt(f->a,
			"add rule " PROXY_TABLE " %s ip saddr 10.0.0.0/8 return\n"
			"add rule " PROXY_TABLE " %s ip saddr 10.1.0.0/16 return\n"
			"add rule " PROXY_TABLE " %s ip saddr 192.0.2.7/32 return\n"
			"add rule " PROXY_TABLE " %s drop\n",
			name, name, name, name)
			.p));
	assert_false(has(one, "restricted", "10.43.0.20 . tcp . 80", jump));
	/* Another service with the same ranges shares the chain; it goes with the last of them. */
	f->service->spec.cluster_ip = STR("10.43.0.21");
	f->service->status.load_balancer.ingress.items[0].ip = STR("192.0.2.8");
	two = build(f);
	buf_clear(&out);
	rules_change(&f->applied, NULL, two, &out);
	assert_null(strstr(out.p, "add chain"));
	buf_clear(&out);
	rules_change(&f->applied, one, NULL, &out);
	assert_null(strstr(out.p, "delete chain"));
	buf_clear(&out);
	rules_change(&f->applied, two, NULL, &out);
	assert_non_null(
		strstr(out.p, arena_fmt(f->a, "delete chain " PROXY_TABLE " %s\n", name).p));
	/* Everybody: nothing is restricted. */
	*LIST_ADD(f->a, &f->service->spec.load_balancer_source_ranges) = STR("0.0.0.0/0");
	assert_int_equal(build(f)->n_shared, 0);
}

static void headless_and_foreign_have_none(void **state)
{
	struct fixture *f = *state;

	add_endpoint(f, "10.42.0.5", "here");
	f->service->spec.cluster_ip = STR("None");
	assert_int_equal(build(f)->len, 0);
	f->service->spec.cluster_ip = STR("10.43.0.20");
	str_map_set(
		f->a, &f->service->metadata.annotations, STR(PROXY_SKIP_ANNOTATION), STR("dns"));
	assert_int_equal(build(f)->len, 0);
	f->service->metadata.annotations.len = 0;
	assert_true(build(f)->len > 0);
	str_map_set(f->a, &f->service->metadata.labels,
		STR("service.kubernetes.io/service-proxy-name"), STR("another"));
	assert_int_equal(build(f)->len, 0);
}

/* A slice that is kept from proxies is as if it were not there. */
static void slices_of_others_are_not_served(void **state)
{
	struct fixture *f = *state;
	CLEAN_BUF struct buf out = { 0 };

	add_endpoint(f, "10.42.0.5", "there");
	str_map_set(
		f->a, &f->slice->metadata.labels, STR("service.kubernetes.io/headless"), STR(""));
	rules_change(&f->applied, NULL, build(f), &out);
	assert_null(strstr(out.p, "10.42.0.5"));
}

static void change_is_only_the_difference(void **state)
{
	struct fixture *f = *state;
	CLEAN_BUF struct buf first = { 0 }, same = { 0 }, second = { 0 }, gone = { 0 };
	struct rules *one, *two;

	add_endpoint(f, "10.42.0.5", "there");
	one = build(f);
	rules_change(&f->applied, NULL, one, &first);
	assert_non_null(strstr(first.p, "add chain " PROXY_TABLE " pick_1\n"));
	assert_non_null(strstr(first.p,
		"add element " PROXY_TABLE " services { 10.43.0.20 . tcp . 80 : goto pick_1 }\n"));
	rules_change(&f->applied, one, build(f), &same);
	assert_int_equal(same.len, 0);
	add_endpoint(f, "10.42.0.6", "there");
	two = build(f);
	rules_change(&f->applied, one, two, &second);
	assert_null(strstr(second.p, "10.42.0.5")); /* untouched */
	assert_non_null(strstr(
		second.p, "delete element " PROXY_TABLE " services { 10.43.0.20 . tcp . 80 }\n"));
	assert_non_null(strstr(second.p,
		"add element " PROXY_TABLE
		" endpoints { 10.43.0.20 . tcp . 80 . 1 : 10.42.0.6 . 8080 }\n"));
	rules_change(&f->applied, two, NULL, &gone);
	assert_int_equal(f->applied.elements.len, 0);
}

static void shared_elements_are_counted(void **state)
{
	struct fixture *f = *state;
	CLEAN_BUF struct buf out = { 0 };
	struct rules *one, *two;

	add_endpoint(f, "10.42.0.5", "here");
	one = build(f);
	f->service->spec.cluster_ip = STR("10.43.0.21"); /* another service with the same pod */
	two = build(f);
	rules_change(&f->applied, NULL, one, &out);
	rules_change(&f->applied, NULL, two, &out);
	buf_clear(&out);
	rules_change(&f->applied, one, NULL, &out);
	assert_null(strstr(out.p, "hairpin"));
	buf_clear(&out);
	rules_change(&f->applied, two, NULL, &out);
	assert_non_null(
		strstr(out.p, "delete element " PROXY_TABLE " hairpin { 10.42.0.5 . 10.42.0.5 }"));
}

/* Nor may anything else of a slice end up in the text of rules. */
static void odd_endpoints_are_left_out(void **state)
{
	static const char *const bad[] = { "127.0.0.1", "0.0.0.0", "0.1.2.3", "169.254.169.254",
		"224.0.0.1", "255.255.255.255", "fd00::1", "", "1.2.3", "host.example",
		"10.42.0.9 . 80 }\nflush ruleset\n" };
	static const int32_t ports[] = { 0, -1, 65536, INT32_MAX };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		add_endpoint(f, bad[i], "here");
	*LIST_ADD(f->a, &f->service->spec.external_ips) = STR("127.0.0.1");
	*LIST_ADD(f->a, &f->service->spec.external_ips) = STR("1.2.3.4 . tcp . 1 }");
	assert_int_equal(build(f)->len, 1);
	assert_true(has(build(f), "no_endpoints", "10.43.0.20 . tcp . 80", ""));
	add_endpoint(f, "10.42.0.5", "here");
	for (size_t i = 0; i < ARRAY_LEN(ports); i++) {
		f->slice->ports.items[0].port = (struct opt_int32)SOME(ports[i]);
		assert_true(has(build(f), "no_endpoints", "10.43.0.20 . tcp . 80", ""));
	}
}

/* Pods behind several ports, and one address named twice: what goes in goes out. */
static void nothing_is_left_behind(void **state)
{
	struct fixture *f = *state;
	CLEAN_BUF struct buf out = { 0 };
	struct core_v1_service_port *second;
	struct rules *one, *two;

	add_endpoint(f, "10.42.0.5", "here");
	*LIST_ADD(f->a, &f->service->spec.external_ips) = STR("192.0.2.1");
	*LIST_ADD(f->a, &f->service->spec.external_ips) = STR("192.0.2.1");
	*LIST_ADD(f->a, &f->service->spec.external_ips) = STR("10.43.0.20");
	second = LIST_ADD(f->a, &f->service->spec.ports);
	second->name = STR("http");
	second->port = 81;
	one = build(f);
	rules_change(&f->applied, NULL, one, &out);
	f->service->spec.ports.len = 1;
	f->service->spec.external_ips.len = 1;
	two = build(f);
	rules_change(&f->applied, one, two, &out);
	rules_change(&f->applied, two, NULL, &out);
	assert_int_equal(f->applied.elements.len, 0);
}

static size_t n_moved;
static char last_moved[64];

static void on_moved(void *arg, struct str key)
{
	n_moved++;
	snprintf(last_moved, sizeof(last_moved), STR_FMT, STR_ARG(key));
}

/* A user's service names another's address as an external one. */
static void addresses_stay_with_their_services(void **state)
{
	struct fixture *f = *state;
	CLEAN_BUF struct buf out = { 0 };
	struct claims claims = { 0 };
	struct rules *theft, *right, *later;

	f->service->metadata.creation_timestamp.sec = 1000; /* the thief was there first */
	f->service->spec.cluster_ip = STR("10.43.0.99");
	*LIST_ADD(f->a, &f->service->spec.external_ips) = STR("10.43.0.20");
	add_endpoint(f, "10.42.6.6", "there");
	theft = build(f);
	claims_change(&claims, STR("foe/thief"), NULL, theft, on_moved, NULL);
	rules_change(&f->applied, NULL, theft, &out);
	assert_non_null(strstr(out.p, "services { 10.43.0.20 . tcp . 80 :"));

	f->service->metadata.creation_timestamp.sec = 2000;
	f->service->spec.cluster_ip = STR("10.43.0.20");
	f->service->spec.external_ips.len = 0;
	f->slice->endpoints.items[0].addresses.items[0] = STR("10.42.0.5");
	right = build(f);
	n_moved = 0;
	claims_change(&claims, STR("shop/web"), NULL, right, on_moved, NULL);
	assert_int_equal(n_moved, 1);
	assert_string_equal(last_moved, "foe/thief");
	rules_change(&f->applied, NULL, right, &out);

	/* As the proxy does it now: the loser is built anew. */
	f->service->metadata.creation_timestamp.sec = 1000;
	f->service->spec.cluster_ip = STR("10.43.0.99");
	f->service->spec.external_ips.len = 1;
	later = build(f);
	claims_change(&claims, STR("foe/thief"), theft, later, on_moved, NULL);
	rules_change(&f->applied, theft, later, &out);
	assert_int_equal(n_moved, 1);
	buf_clear(&out);
	/* And its end changes nothing of the other's. */
	claims_change(&claims, STR("foe/thief"), later, NULL, on_moved, NULL);
	rules_change(&f->applied, later, NULL, &out);
	assert_null(strstr(out.p, "10.43.0.20"));
	assert_int_equal(n_moved, 1);
	assert_non_null(map_get(&f->applied.elements, STR("endpoints 10.43.0.20 . tcp . 80 . 0")));
	claims_change(&claims, STR("shop/web"), right, NULL, on_moved, NULL);
	rules_change(&f->applied, right, NULL, &out);
	assert_int_equal(f->applied.elements.len, 0);
	assert_int_equal(claims.fronts.len, 0);
	claims_deinit(&claims);
}

static void api_servers_keep_theirs(void **state)
{
	struct fixture *f = *state;
	struct claims claims = { 0 };
	struct rules *api, *theft;

	f->service->metadata.namespace = STR("default");
	f->service->metadata.name = STR("kubernetes");
	add_endpoint(f, "192.0.2.7", "");
	api = build(f);
	claims_change(&claims, STR("default/kubernetes"), NULL, api, on_moved, NULL);
	f->service->metadata.namespace = STR("foe");
	f->service->spec.cluster_ip = STR("10.43.0.99");
	f->service->spec.ports.items[0].port = 8080;
	*LIST_ADD(f->a, &f->service->spec.external_ips) = STR("192.0.2.7");
	theft = build(f);
	claims_change(&claims, STR("foe/kubernetes"), NULL, theft, on_moved, NULL);
	assert_int_equal(theft->n_fronts, 2);
	assert_true(theft->fronts[0].held);
	assert_false(theft->fronts[1].held);
	claims_deinit(&claims);
}

/* The time of a large service grows with its size. */
static void large_ones_are_quick(void **state)
{
	struct fixture *f = *state;
	CLEAN_BUF struct buf out = { 0 };
	struct rules *one, *two;
	uint64_t began = mono_now_ns();

	for (int i = 0; i < 20000; i++)
		add_endpoint(f, arena_fmt(f->a, "10.42.%d.%d", i / 250, i % 250 + 1).p, "there");
	one = build(f);
	rules_change(&f->applied, NULL, one, &out);
	f->slice->endpoints.len--;
	two = build(f);
	rules_change(&f->applied, one, two, &out);
	assert_true(arena_used(f->a) < 40 << 20);
	assert_true(mono_now_ns() - began < 5000000000ull); /* each with each: minutes */
}

/* The chain that looks at each forwarded packet costs, so it is there only when it is needed. */
static bool refuses_forwarded(void)
{
	CLEAN_BUF struct buf listing = { 0 };
	struct err err = { 0 };

	assert_int_equal(nft_read("list table " PROXY_TABLE, false, &listing, &err), 0);
	return strstr(listing.p, "hook forward") != NULL;
}

static void the_kernel_takes_them(void **state)
{
	struct fixture *f = *state;
	CLEAN_BUF struct buf text = { 0 }, listing = { 0 };
	struct rules *one, *two;
	struct err err = { 0 };

	if (getuid() != 0)
		skip(); /* nftables needs root */
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	f->service->spec.ports.items[0].node_port = 30080;
	add_endpoint(f, "10.42.0.5", "here");
	add_endpoint(f, "10.42.1.6", "there");
	LIST_ADD(f->a, &f->service->status.load_balancer.ingress)->ip = STR("192.0.2.7");
	*LIST_ADD(f->a, &f->service->spec.load_balancer_source_ranges) = STR("10.0.0.0/8");
	f->service->spec.external_traffic_policy = STR("Local");
	one = build(f);
	table_write(&(struct table_config){ "10.43.0.10", "10.42.0.0/16", "10.43.0.0/16" }, NULL,
		&text);
	/* Before any look-up, where connections are led and where they are refused. */
	assert_non_null(strstr(text.p, "chain dispatch {\nip daddr 10.43.0.10 return\n"));
	assert_non_null(strstr(text.p, "chain refuse {\nip daddr 10.43.0.10 return\n"));
	rules_change(&f->applied, NULL, one, &text);
	if (nft_apply(text.p, &err) < 0)
		fail_msg("%s", err.text);
	f->service->spec.session_affinity = STR("ClientIP");
	f->service->spec.external_traffic_policy = STR("Cluster");
	f->service->spec.load_balancer_source_ranges.len = 0;
	f->slice->endpoints.len = 1;
	two = build(f);
	buf_clear(&text);
	rules_change(&f->applied, one, two, &text);
	if (nft_apply(text.p, &err) < 0)
		fail_msg("%s\n%s", err.text, text.p);
	assert_int_equal(nft_read("list map " PROXY_TABLE " endpoints", false, &listing, &err), 0);
	assert_non_null(strstr(listing.p, "10.43.0.20 . tcp . 80 . 0x00000005 : 10.42.0.5 . 8080"));
	assert_null(strstr(listing.p, "10.42.1.6"));
	assert_false(refuses_forwarded());
	/* Several turns in one transaction; the last one counts. */
	buf_clear(&text);
	f->slice->endpoints.len = 0;
	one = build(f);
	rules_change(&f->applied, two, one, &text);
	rules_change(&f->applied, one, two, &text);
	rules_change(&f->applied, two, one, &text);
	if (nft_apply(text.p, &err) < 0)
		fail_msg("%s\n%s", err.text, text.p);
	assert_true(refuses_forwarded());
	buf_clear(&text);
	rules_change(&f->applied, one, NULL, &text);
	if (nft_apply(text.p, &err) < 0)
		fail_msg("%s\n%s", err.text, text.p);
	assert_false(refuses_forwarded());
}

/* A write of everything over what is there forgets no client, and leaves nothing else of before. */
static void clients_outlive_a_new_table(void **state)
{
	static const char client[] = "10.42.0.9 . 10.43.0.20 . tcp . 80";
	struct fixture *f = *state;
	const struct table_config config = { "10.43.0.10", NULL, NULL };
	CLEAN_BUF struct buf text = { 0 }, listing = { 0 }, more = { 0 };
	struct str_list chains = { 0 };
	struct err err = { 0 };

	if (getuid() != 0)
		skip(); /* nftables needs root */
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	f->service->spec.session_affinity = STR("ClientIP");
	LIST_ADD(f->a, &f->service->status.load_balancer.ingress)->ip = STR("192.0.2.7");
	*LIST_ADD(f->a, &f->service->spec.load_balancer_source_ranges) = STR("10.0.0.0/8");
	add_endpoint(f, "10.42.0.5", "here");
	table_write(&config, NULL, &text);
	rules_change(&f->applied, NULL, build(f), &text);
	buf_addf(&text, "add element " PROXY_TABLE " clients { %s timeout 60s : 5 }\n", client);
	if (nft_apply(text.p, &err) < 0)
		fail_msg("%s\n%s", err.text, text.p);
	assert_true(table_chains(f->a, &chains));
	assert_true(chains.len > 5);
	buf_clear(&text);
	table_write(&config, &chains, &text);
	if (nft_apply(text.p, &err) < 0)
		fail_msg("%s\n%s", err.text, text.p);
	assert_int_equal(nft_read("list table " PROXY_TABLE, false, &listing, &err), 0);
	assert_non_null(strstr(listing.p, client));
	assert_null(strstr(listing.p, "sticky"));
	assert_null(strstr(listing.p, "sources_"));
	assert_null(strstr(listing.p, "10.42.0.5"));
	assert_non_null(strstr(listing.p, "hook prerouting"));
	/* And with the same chains again. */
	buf_clear(&text);
	chains.len = 0;
	assert_true(table_chains(f->a, &chains));
	table_write(&config, &chains, &text);
	applied_deinit(&f->applied);
	f->applied = (struct applied){ 0 };
	rules_change(&f->applied, NULL, build(f), &text);
	if (nft_apply(text.p, &err) < 0)
		fail_msg("%s\n%s", err.text, text.p);
	assert_int_equal(nft_read("list table " PROXY_TABLE, false, &more, &err), 0);
	assert_non_null(strstr(more.p, client));
	assert_non_null(strstr(more.p, "sticky_1_10800"));
	assert_int_equal(proxy_cleanup(&err), 0);
	assert_false(table_chains(f->a, &chains));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(two_endpoints, setup, teardown),
		cmocka_unit_test_setup_teardown(none_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(policies_keep_to_the_node, setup, teardown),
		cmocka_unit_test_setup_teardown(endpoints_keep_their_numbers, setup, teardown),
		cmocka_unit_test_setup_teardown(numbers_that_clash, setup, teardown),
		cmocka_unit_test_setup_teardown(affinity_has_its_chains, setup, teardown),
		cmocka_unit_test_setup_teardown(near_ones_are_preferred, setup, teardown),
		cmocka_unit_test_setup_teardown(sources_are_restricted, setup, teardown),
		cmocka_unit_test_setup_teardown(headless_and_foreign_have_none, setup, teardown),
		cmocka_unit_test_setup_teardown(slices_of_others_are_not_served, setup, teardown),
		cmocka_unit_test_setup_teardown(change_is_only_the_difference, setup, teardown),
		cmocka_unit_test_setup_teardown(shared_elements_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(odd_endpoints_are_left_out, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_is_left_behind, setup, teardown),
		cmocka_unit_test_setup_teardown(
			addresses_stay_with_their_services, setup, teardown),
		cmocka_unit_test_setup_teardown(api_servers_keep_theirs, setup, teardown),
		cmocka_unit_test_setup_teardown(large_ones_are_quick, setup, teardown),
		cmocka_unit_test_setup_teardown(the_kernel_takes_them, setup, teardown),
		cmocka_unit_test_setup_teardown(clients_outlive_a_new_table, setup, teardown),
	};

	return cmocka_run_group_tests_name("proxy rules", tests, NULL, NULL);
}
