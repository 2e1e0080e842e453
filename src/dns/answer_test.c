/* Questions and answers over a small cluster. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <stdio.h>

#include "dns/internal.h"

#define DOMAIN "cluster.local"

static struct arena *arena;
static struct cached services[5], slices[1];

/* Never the last reference: these live in the arena. */
static struct cached cache(
	const struct type *t, void *obj, struct meta_v1_object_meta *meta, const char *key)
{
	return (struct cached){ .refs = 1000000,
		.type = t,
		.obj = obj,
		.meta = meta,
		.key = str_of(key),
		.arena = arena };
}

static struct core_v1_service *add_service(
	size_t i, const char *name, const char *ip, const char *key)
{
	struct core_v1_service *s = model_new(&core_v1_service_type, arena);
	struct core_v1_service_port *p = LIST_ADD(arena, &s->spec.ports);

	s->metadata.name = str_of(name);
	s->metadata.namespace = STR("shop");
	s->spec.cluster_ip = str_of(ip);
	*LIST_ADD(arena, &s->spec.cluster_ips) = str_of(ip);
	p->name = STR("http");
	p->protocol = STR("TCP");
	p->port = 80;
	services[i] = cache(&core_v1_service_type, s, &s->metadata, key);
	return s;
}

static int setup(void **state)
{
	struct discovery_v1_endpoint_slice *slice;
	struct discovery_v1_endpoint_port *port;
	struct discovery_v1_endpoint *e;
	struct core_v1_service *s;

	arena = arena_new(0);
	add_service(0, "web", "10.43.0.20", "shop/web");
	s = add_service(1, "db", "None", "shop/db");
	s = add_service(2, "out", "", "shop/out");
	s->spec.type = STR("ExternalName");
	s->spec.external_name = STR("example.com");
	s = add_service(3, "near", "", "shop/near");
	s->spec.type = STR("ExternalName");
	s->spec.external_name = STR("web.shop.svc.cluster.local");
	s = add_service(4, "loop", "", "shop/loop");
	s->spec.type = STR("ExternalName");
	s->spec.external_name = STR("loop.shop.svc.cluster.local");
	slice = model_new(&discovery_v1_endpoint_slice_type, arena);
	port = LIST_ADD(arena, &slice->ports);
	port->name = STR("http");
	port->protocol = STR("TCP");
	port->port = (struct opt_int32)SOME(8080);
	e = LIST_ADD(arena, &slice->endpoints);
	*LIST_ADD(arena, &e->addresses) = STR("10.42.0.5");
	e->hostname = STR("db-0");
	e = LIST_ADD(arena, &slice->endpoints);
	*LIST_ADD(arena, &e->addresses) = STR("10.42.0.6");
	e = LIST_ADD(arena, &slice->endpoints);
	*LIST_ADD(arena, &e->addresses) = STR("10.42.0.7");
	e->conditions.ready = (struct opt_bool)SOME(false);
	slices[0] = cache(&discovery_v1_endpoint_slice_type, slice, &slice->metadata, "shop/db-x");
	return 0;
}

static int teardown(void **state)
{
	arena_free(arena);
	return 0;
}

static struct cached *find_service(void *arg, struct str key)
{
	for (size_t i = 0; i < ARRAY_LEN(services); i++)
		if (str_eq(services[i].key, key))
			return cached_ref(&services[i]);
	return NULL;
}

static void find_slices(void *arg, struct str key, struct cached_list *ret)
{
	*ret = (struct cached_list){ 0 };
	if (!str_eqz(key, "shop/db"))
		return;
	ret->items = xcalloc(1, sizeof(*ret->items));
	ret->items[0] = cached_ref(&slices[0]);
	ret->len = 1;
}

static void with_address(void *arg, struct str ip, struct cached_list *ret)
{
	ret->items = xcalloc(ARRAY_LEN(services), sizeof(*ret->items));
	ret->len = 0;
	for (size_t i = 0; i < ARRAY_LEN(services); i++)
		if (str_eq(((const struct core_v1_service *)services[i].obj)->spec.cluster_ip, ip))
			ret->items[ret->len++] = cached_ref(&services[i]);
}

static void headless_ones(void *arg, struct cached_list *ret)
{
	with_address(arg, STR("None"), ret);
}

static const struct dns_source source = { find_service, find_slices, with_address, headless_ones,
	NULL };

/* Asks and writes what came as "rcode: TYPE data, …" of the answer section. */
static const char *ask(const char *name, uint16_t type)
{
	static char text[1024];
	knot_pkt_t *query = knot_pkt_new(NULL, 512, NULL), *reply = knot_pkt_new(NULL, 1232, NULL);
	knot_dname_storage_t qname, alias;
	const knot_pktsection_t *answers;
	enum dns_outcome out;
	size_t n;

	assert_non_null(knot_dname_from_str(qname, name, sizeof(qname)));
	assert_int_equal(knot_pkt_put_question(query, qname, KNOT_CLASS_IN, type), KNOT_EOK);
	assert_int_equal(knot_pkt_parse(query, 0), KNOT_EOK);
	assert_int_equal(knot_pkt_init_response(reply, query), KNOT_EOK);
	out = dns_answer(&source, DOMAIN, query, reply, alias);
	n = (size_t)snprintf(text, sizeof(text), "%s",
		out == DNS_FORWARD                                                ? "forward"
			: out == DNS_FORWARD_ALIAS                                ? "alias"
			: knot_wire_get_rcode(reply->wire) == KNOT_RCODE_NXDOMAIN ? "nxdomain"
										  : "ok");
	answers = knot_pkt_section(reply, KNOT_ANSWER);
	for (uint16_t i = 0; i < answers->count; i++) {
		const knot_rrset_t *rr = knot_pkt_rr(answers, i);
		const knot_rdata_t *d = rr->rrs.rdata;
		char data[KNOT_DNAME_TXT_MAXLEN + 1] = "?";

		if (rr->type == KNOT_RRTYPE_A)
			inet_ntop(AF_INET, d->data, data, sizeof(data));
		else if (rr->type == KNOT_RRTYPE_SRV)
			knot_dname_to_str(data, d->data + 6, sizeof(data));
		else if (rr->type == KNOT_RRTYPE_PTR || rr->type == KNOT_RRTYPE_CNAME)
			knot_dname_to_str(data, d->data, sizeof(data));
		n += (size_t)snprintf(text + n, sizeof(text) - n, " %s", data);
		if (rr->type == KNOT_RRTYPE_SRV)
			n += (size_t)snprintf(
				text + n, sizeof(text) - n, ":%d", d->data[4] << 8 | d->data[5]);
	}
	knot_pkt_free(query);
	knot_pkt_free(reply);
	return text;
}

/* clang-format off */
static const struct {
	const char *name;
	uint16_t type;
	const char *answer;
} cases[] = {
	{ "web.shop.svc.cluster.local",             KNOT_RRTYPE_A,    "ok 10.43.0.20" },
	{ "WEB.Shop.SVC.cluster.LOCAL",             KNOT_RRTYPE_A,    "ok 10.43.0.20" },
	{ "web.shop.svc.cluster.local",             KNOT_RRTYPE_AAAA, "ok" },
	{ "web.other.svc.cluster.local",            KNOT_RRTYPE_A,    "nxdomain" },
	{ "x.web.shop.svc.cluster.local",           KNOT_RRTYPE_A,    "nxdomain" },
	{ "shop.svc.cluster.local",                 KNOT_RRTYPE_A,    "ok" },
	{ "cluster.local",                          KNOT_RRTYPE_A,    "ok" },
	{ "nothing.cluster.local",                  KNOT_RRTYPE_A,    "nxdomain" },
	{ "notcluster.local",                       KNOT_RRTYPE_A,    "forward" },
	{ "example.com",                            KNOT_RRTYPE_A,    "forward" },
	{ "db.shop.svc.cluster.local",              KNOT_RRTYPE_A,    "ok 10.42.0.5 10.42.0.6" },
	{ "db-0.db.shop.svc.cluster.local",         KNOT_RRTYPE_A,    "ok 10.42.0.5" },
	{ "10-42-0-6.db.shop.svc.cluster.local",    KNOT_RRTYPE_A,    "ok 10.42.0.6" },
	{ "10-42-0-7.db.shop.svc.cluster.local",    KNOT_RRTYPE_A,    "nxdomain" },
	{ "_http._tcp.web.shop.svc.cluster.local",  KNOT_RRTYPE_SRV,  "ok web.shop.svc.cluster.local.:80" },
	{ "_http._udp.web.shop.svc.cluster.local",  KNOT_RRTYPE_SRV,  "nxdomain" },
	{ "_http._tcp.db.shop.svc.cluster.local",   KNOT_RRTYPE_SRV,  "ok db-0.db.shop.svc.cluster.local.:8080 10-42-0-6.db.shop.svc.cluster.local.:8080" },
	{ "out.shop.svc.cluster.local",             KNOT_RRTYPE_A,    "alias example.com." },
	{ "near.shop.svc.cluster.local",            KNOT_RRTYPE_A,    "ok web.shop.svc.cluster.local. 10.43.0.20" },
	{ "near.shop.svc.cluster.local",            KNOT_RRTYPE_CNAME, "ok web.shop.svc.cluster.local." },
	{ "10-42-0-9.shop.pod.cluster.local",       KNOT_RRTYPE_A,    "ok 10.42.0.9" },
	{ "pod-name.shop.pod.cluster.local",        KNOT_RRTYPE_A,    "nxdomain" },
	{ "20.0.43.10.in-addr.arpa",                KNOT_RRTYPE_PTR,  "ok web.shop.svc.cluster.local." },
	{ "5.0.42.10.in-addr.arpa",                 KNOT_RRTYPE_PTR,  "ok db-0.db.shop.svc.cluster.local." },
	{ "6.0.42.10.in-addr.arpa",                 KNOT_RRTYPE_PTR,  "forward" },
	{ "9.9.43.10.in-addr.arpa",                 KNOT_RRTYPE_PTR,  "forward" },
};
/* clang-format on */

/* An alias of itself ends after a few steps. */
static void a_loop_ends(void **state)
{
	assert_true(!strncmp(ask("loop.shop.svc.cluster.local", KNOT_RRTYPE_A), "ok loop.", 8));
}

static void questions(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *got = ask(cases[i].name, cases[i].type);

		if (strcmp(got, cases[i].answer))
			fail_msg("%s type %u: expected \"%s\", got \"%s\"", cases[i].name,
				cases[i].type, cases[i].answer, got);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(questions, setup, teardown),
		cmocka_unit_test_setup_teardown(a_loop_ends, setup, teardown),
	};

	return cmocka_run_group_tests_name("dns answers", tests, NULL, NULL);
}
