/* From policies and pods to nft commands; and, as root, that a real kernel takes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>

#include "codec/codec.h"
#include "network/internal.h"

struct fixture {
	struct arena *a;
	struct policies *p;
	struct buf out; /* what the last change said */
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->a = arena_new(0);
	f->p = policies_new("10.43.0.10");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	policies_free(f->p);
	arena_free(f->a);
	buf_deinit(&f->out);
	free(f);
	return 0;
}

static const char *change(struct fixture *f)
{
	buf_clear(&f->out);
	policies_change(f->p, &f->out);
	return f->out.p ? f->out.p : "";
}

static void *read_json(struct fixture *f, const struct type *t, const char *json)
{
	struct err err = { 0 };
	void *o;

	if (json_decode(t, str_of(json), f->a, NULL, &o, &err) != 0)
		fail_msg("%s: %s", json, err.text);
	return o;
}

static void policy(struct fixture *f, const char *name, const char *spec)
{
	CLEAN_FREE char *json = xasprintf(
		"{\"metadata\":{\"name\":\"%s\",\"namespace\":\"web\"},\"spec\":%s}", name, spec);

	policies_put_policy(f->p, read_json(f, &networking_v1_network_policy_type, json));
}

static void pod(struct fixture *f, const char *ns, const char *name, const char *ip, bool local)
{
	CLEAN_FREE char *json = xasprintf(
		"{\"metadata\":{\"name\":\"%s\",\"namespace\":\"%s\",\"labels\":{\"app\":\"%s\"}},\"spec\":"
		"{\"containers\":[{\"name\":\"c\",\"ports\":[{\"name\":\"http\",\"containerPort\":8080}]}]}}",
		name, ns, name);

	policies_put_pod(f->p, read_json(f, &core_v1_pod_type, json), str_of(ip), STR_NONE, local);
}

static void namespace_(struct fixture *f, const char *name, const char *team)
{
	struct str_map labels = { 0 };

	str_map_set(f->a, &labels, STR("team"), str_of(team));
	policies_put_namespace(f->p, str_of(name), &labels);
}

#define assert_has(text, what) \
	do { \
		if (!strstr(text, what)) \
			fail_msg("\"%s\" is not in:\n%s", what, text); \
	} while (0)
#define assert_not(text, what) \
	do { \
		if (strstr(text, what)) \
			fail_msg("\"%s\" is in:\n%s", what, text); \
	} while (0)
#define T POLICY_TABLE

static void without_policies_nothing_is_said(void **state)
{
	struct fixture *f = *state;

	pod(f, "web", "server", "10.42.0.5", true);
	pod(f, "web", "other", "10.42.1.6", false);
	assert_string_equal(change(f), "");
}

static void default_deny_isolates_local_pods(void **state)
{
	struct fixture *f = *state;
	const char *text;

	pod(f, "web", "server", "10.42.0.5", true);
	pod(f, "web", "remote", "10.42.1.6", false);
	pod(f, "db", "elsewhere", "10.42.0.7", true);
	policy(f, "deny", "{\"podSelector\":{},\"policyTypes\":[\"Ingress\"]}");
	text = change(f);
	assert_has(text, "add chain " T " policy_1_in\n");
	assert_has(text, "add rule " T " pods_2 jump policy_1_in\nadd rule " T " pods_2 drop\n");
	assert_has(text, "add element " T " ingress { 10.42.0.5 : jump pods_2 }\n");
	assert_has(text, "add element " T " ingress_macs { 0a:58:0a:2a:00:05 }\n");
	assert_has(text, "add element " T " self { 10.42.0.5 . 10.42.0.5 }\n");
	assert_not(text, "egress {");
	assert_not(text, "10.42.1.6");
	assert_not(text, "10.42.0.7");
	policies_remove_policy(f->p, STR("web/deny"));
	text = change(f);
	assert_has(text, "delete element " T " ingress { 10.42.0.5 }\n");
	assert_has(text, "delete chain " T " pods_2\n");
	assert_has(text, "delete chain " T " policy_1_in\n");
	/* The map first, then what it leads to. */
	assert_true(strstr(text, "delete element") < strstr(text, "delete chain " T " pods_2"));
	assert_true(strstr(text, "delete chain " T " pods_2") <
		strstr(text, "delete chain " T " policy_1_in"));
}

/* Policies are of IPv4: an isolated pod has no IPv6 at all, also when that is all it has. */
static void isolated_pods_have_no_ipv6(void **state)
{
	struct fixture *f = *state;
	struct core_v1_pod *both = read_json(
		f, &core_v1_pod_type, "{\"metadata\":{\"name\":\"a\",\"namespace\":\"web\"}}");
	struct core_v1_pod *six = read_json(
		f, &core_v1_pod_type, "{\"metadata\":{\"name\":\"b\",\"namespace\":\"web\"}}");
	const char *text;

	policies_put_pod(f->p, both, STR("10.42.0.5"), STR("fd00::5"), true);
	policies_put_pod(f->p, six, STR("fd00::6"), STR_NONE, true);
	policy(f, "deny", "{\"podSelector\":{},\"policyTypes\":[\"Egress\"]}");
	text = change(f);
	assert_has(text, "add element " T " egress_ip6 { fd00::5 }\n");
	assert_has(text, "add element " T " egress_ip6 { fd00::6 }\n");
	assert_has(text, "add element " T " egress { 10.42.0.5 : jump pods_2 }\n");
	assert_not(text, "{ fd00::6 :");
	assert_not(text, "fd00::6 . ");
	policies_remove_pod(f->p, STR("web/b"));
	assert_has(change(f), "delete element " T " egress_ip6 { fd00::6 }\n");
}

static void peers_are_sets_and_a_pod_is_an_element(void **state)
{
	struct fixture *f = *state;
	const char *text;

	namespace_(f, "blue", "blue");
	pod(f, "web", "server", "10.42.0.5", true);
	pod(f, "web", "good", "10.42.1.6", false);
	policy(f, "allow",
		"{\"podSelector\":{},\"ingress\":[{\"from\":[{\"podSelector\":{\"matchLabels\":{\"app\":\"good\"}}},"
		"{\"namespaceSelector\":{\"matchLabels\":{\"team\":\"blue\"}}}],\"ports\":[{\"port\":80},{\"port\":90,\"endPort\":99},"
		"{\"protocol\":\"UDP\"}]}]}");
	text = change(f);
	assert_has(
		text, "add rule " T " policy_1_in ip saddr @s2 tcp dport { 80, 90-99 } accept\n");
	assert_has(text, "add rule " T " policy_1_in ip saddr @s2 meta l4proto udp accept\n");
	assert_has(
		text, "add rule " T " policy_1_in ip saddr @s3 tcp dport { 80, 90-99 } accept\n");
	assert_has(text, "add element " T " s2 { 10.42.1.6 }\n");
	pod(f, "blue", "guest", "10.42.2.9", false);
	assert_string_equal(change(f), "add element " T " s3 { 10.42.2.9 }\n");
	pod(f, "blue", "guest", "10.42.2.9", false); /* no news */
	assert_string_equal(change(f), "");
	namespace_(f, "blue", "red");
	assert_string_equal(change(f), "delete element " T " s3 { 10.42.2.9 }\n");
	pod(f, "web", "good", "", false); /* it has ended */
	assert_string_equal(change(f), "delete element " T " s2 { 10.42.1.6 }\n");
	/* A second policy with the same selector shares the set. */
	policy(f, "too",
		"{\"podSelector\":{\"matchLabels\":{\"app\":\"x\"}},"
		"\"ingress\":[{\"from\":[{\"podSelector\":{\"matchLabels\":{\"app\":\"good\"}}}]}]}");
	text = change(f);
	assert_has(text, "ip saddr @s2 accept\n");
	assert_not(text, "add set");
}

static void blocks_lose_their_exceptions(void **state)
{
	struct fixture *f = *state;
	const char *text;

	policy(f, "block",
		"{\"podSelector\":{},\"policyTypes\":[\"Egress\"],\"egress\":[{\"to\":[{\"ipBlock\":{\"cidr\":\"10.0.0.0/8\",\"except\":"
		"[\"10.1.0.0/16\",\"10.255.255.255/32\"]}},{\"ipBlock\":{\"cidr\":\"10.1.2.3/32\"}},{\"ipBlock\":{\"cidr\":\"fd00::/8\"}}]}]}");
	text = change(f);
	assert_has(text,
		"policy_1_out ip daddr { 10.0.0.0-10.0.255.255, 10.1.2.3, 10.2.0.0-10.255.255.254 } accept\n");
	/* Nothing but IPv6: nobody, not anybody. */
	policy(f, "block",
		"{\"podSelector\":{},\"policyTypes\":[\"Egress\"],\"egress\":[{\"to\":[{\"ipBlock\":{\"cidr\":\"fd00::/8\"}}]}]}");
	text = change(f);
	assert_has(text, "flush chain " T " policy_1_out\n");
	assert_not(text, "accept");
}

static void named_ports_are_of_each_pod(void **state)
{
	struct fixture *f = *state;
	const char *text;

	pod(f, "web", "server", "10.42.0.5", true);
	policy(f, "port", "{\"podSelector\":{},\"ingress\":[{\"ports\":[{\"port\":\"http\"}]}]}");
	text = change(f);
	assert_has(text, "add set " T " s2 { type ipv4_addr . inet_proto . inet_service; }\n");
	assert_has(text,
		"add rule " T
		" policy_1_in meta nfproto ipv4 ip daddr . meta l4proto . th dport @s2 accept\n");
	assert_has(text, "add element " T " s2 { 10.42.0.5 . tcp . 8080 }\n");
}

static void policy_types_default(void **state)
{
	struct fixture *f = *state;
	const char *text;

	pod(f, "web", "server", "10.42.0.5", true);
	policy(f, "in", "{\"podSelector\":{}}");
	text = change(f);
	assert_has(text, " ingress { 10.42.0.5");
	assert_not(text, " egress { 10.42.0.5");
	policy(f, "both", "{\"podSelector\":{},\"egress\":[{}]}");
	text = change(f);
	assert_has(text, " egress { 10.42.0.5");
	assert_has(text, "_out meta nfproto ipv4 accept\n");
}

static void an_address_goes_to_its_last_holder(void **state)
{
	struct fixture *f = *state;
	const char *text;

	policy(f, "deny", "{\"podSelector\":{\"matchLabels\":{\"app\":\"old\"}}}");
	pod(f, "web", "old", "10.42.0.5", true);
	assert_has(change(f), "add element " T " ingress { 10.42.0.5");
	pod(f, "web", "new", "10.42.0.5", true);
	text = change(f);
	assert_has(text, "delete element " T " ingress { 10.42.0.5 }\n");
	assert_not(text, "add element " T " ingress");
	policies_remove_pod(f->p, STR("web/old"));
	assert_string_equal(change(f), "");
}

static void dns_counts_as_a_pod(void **state)
{
	struct fixture *f = *state;
	struct str_map labels = { 0 };

	str_map_set(f->a, &labels, STR("kubernetes.io/metadata.name"), STR("kube-system"));
	policies_put_namespace(f->p, STR("kube-system"), &labels);
	policy(f, "dns",
		"{\"podSelector\":{},\"policyTypes\":[\"Egress\"],\"egress\":[{\"to\":[{\"namespaceSelector\":{\"matchLabels\":{"
		"\"kubernetes.io/metadata.name\":\"kube-system\"}},\"podSelector\":{\"matchLabels\":{\"k8s-app\":\"kube-dns\"}}}]}]}");
	assert_has(change(f), "{ 10.43.0.10 }\n");
}

static void changed_policy_is_its_own_chain(void **state)
{
	struct fixture *f = *state;
	const char *text;

	pod(f, "web", "server", "10.42.0.5", true);
	policy(f, "p", "{\"podSelector\":{},\"ingress\":[{\"ports\":[{\"port\":80}]}]}");
	change(f);
	policy(f, "p", "{\"podSelector\":{},\"ingress\":[{\"ports\":[{\"port\":81}]}]}");
	text = change(f);
	assert_has(text,
		"flush chain " T " policy_1_in\nadd rule " T
		" policy_1_in meta nfproto ipv4 tcp dport { 81 } accept\n");
	assert_not(text, "element");
	assert_not(text, "pods_");
}

/* As large as the API takes one: neither memory nor rules grow with peers times ports, or exceptions times exceptions. */
static void large_policies(void **state)
{
	struct fixture *f = *state;
	CLEAN_BUF struct buf spec = { 0 };
	uint64_t began = mono_now_ns();
	const char *text;
	size_t lines = 0;

	for (int i = 0; i < 200; i++)
		pod(f, "web", arena_fmt(f->a, "p%d", i).p, arena_fmt(f->a, "10.42.0.%d", i).p,
			true);
	buf_addz(&spec, "{\"podSelector\":{},\"ingress\":[{\"from\":[");
	for (int i = 0; i < 5000; i++)
		buf_addf(&spec, "%s{\"podSelector\":{\"matchLabels\":{\"app\":\"p%d\"}}}",
			i ? "," : "", i);
	buf_addz(&spec, ",{\"ipBlock\":{\"cidr\":\"10.0.0.0/8\",\"except\":[");
	for (int i = 0; i < 30000; i++)
		buf_addf(&spec, "%s\"10.%d.%d.%d/32\"", i ? "," : "", i >> 14, i >> 7 & 127,
			(i & 127) * 2);
	buf_addz(&spec, "]}}],\"ports\":[");
	for (int i = 0; i < 2000; i++)
		buf_addf(&spec, "%s{\"port\":\"n%d\"}", i ? "," : "", i);
	buf_addz(&spec, ",{\"port\":\"http\"}]}]}");
	policy(f, "large", spec.p);
	text = change(f);
	assert_has(text, "{ 10.42.0.7 . tcp . 8080 }");
	for (const char *at = text; (at = strstr(at, "add rule")); at++)
		lines++;
	assert_true(lines < 5000 + 10);
	policies_remove_policy(f->p, STR("web/large"));
	change(f);
	assert_true(mono_now_ns() - began < 20000000000ull);
}

static void must(struct fixture *f, const char *text)
{
	struct err err = { 0 };

	if (*text && nft_apply(text, &err) < 0)
		fail_msg("%s\n%s", err.text, text);
}

/* In a network namespace of this process alone: every kind of rule, changes in every order, and the same table written whole. */
static void the_kernel_takes_them(void **state)
{
	static const char *const all =
		"{\"podSelector\":{},\"policyTypes\":[\"Ingress\",\"Egress\"],"
		"\"ingress\":[{\"from\":[{\"podSelector\":{}},{\"namespaceSelector\":{}},"
		"{\"ipBlock\":{\"cidr\":\"0.0.0.0/0\",\"except\":[\"10.1.0.0/16\"]}}],\"ports\":[{\"port\":\"http\"},{\"protocol\":\"SCTP\",\"port\":80},"
		"{\"port\":1,\"endPort\":65535}]},{}],\"egress\":[{\"to\":[{\"ipBlock\":{\"cidr\":\"0.0.0.0/0\"}}]}]}";
	struct fixture *f = *state;
	CLEAN_BUF struct buf whole = { 0 }, listing = { 0 }, again = { 0 };
	struct err err = { 0 };

	if (getuid() != 0)
		skip(); /* nftables needs root */
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	policies_write(f->p, &whole);
	must(f, whole.p);
	policy(f, "all", all);
	pod(f, "web", "one", "10.42.0.5", true);
	pod(f, "web", "two", "10.42.0.6", true);
	must(f, change(f));
	pod(f, "web", "two", "10.42.0.7", true);
	policy(f, "deny", "{\"podSelector\":{\"matchLabels\":{\"app\":\"one\"}}}");
	policies_remove_policy(f->p, STR("web/all"));
	policy(f, "all", all);
	pod(f, "web", "three", "10.42.0.8", true);
	policies_remove_pod(f->p, STR("web/three"));
	must(f, change(f));
	assert_int_equal(nft_read("list table " T, false, &listing, &err), 0);
	assert_has(listing.p, "10.42.0.5 : jump pods_");
	assert_has(listing.p, "10.42.0.7 : jump pods_");
	assert_not(listing.p, "10.42.0.6");
	assert_not(listing.p, "10.42.0.8");
	buf_clear(&whole);
	policies_write(f->p, &whole);
	must(f, whole.p);
	assert_int_equal(nft_read("list table " T, false, &again, &err), 0);
	assert_int_equal(again.len, listing.len);
	policies_remove_policy(f->p, STR("web/all"));
	policies_remove_policy(f->p, STR("web/deny"));
	policies_remove_pod(f->p, STR("web/one"));
	must(f, change(f));
	buf_clear(&listing);
	assert_int_equal(nft_read("list table " T, false, &listing, &err), 0);
	assert_not(listing.p, "pods_");
	assert_not(listing.p, "policy_");
	assert_not(listing.p, "10.42");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(without_policies_nothing_is_said, setup, teardown),
		cmocka_unit_test_setup_teardown(default_deny_isolates_local_pods, setup, teardown),
		cmocka_unit_test_setup_teardown(isolated_pods_have_no_ipv6, setup, teardown),
		cmocka_unit_test_setup_teardown(
			peers_are_sets_and_a_pod_is_an_element, setup, teardown),
		cmocka_unit_test_setup_teardown(blocks_lose_their_exceptions, setup, teardown),
		cmocka_unit_test_setup_teardown(named_ports_are_of_each_pod, setup, teardown),
		cmocka_unit_test_setup_teardown(policy_types_default, setup, teardown),
		cmocka_unit_test_setup_teardown(
			an_address_goes_to_its_last_holder, setup, teardown),
		cmocka_unit_test_setup_teardown(dns_counts_as_a_pod, setup, teardown),
		cmocka_unit_test_setup_teardown(changed_policy_is_its_own_chain, setup, teardown),
		cmocka_unit_test_setup_teardown(large_policies, setup, teardown),
		cmocka_unit_test_setup_teardown(the_kernel_takes_them, setup, teardown),
	};

	return cmocka_run_group_tests_name("network policies", tests, NULL, NULL);
}
