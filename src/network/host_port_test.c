/* Host ports as elements of maps; and, as root, that a kernel takes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sched.h>

#include "codec/codec.h"
#include "network/internal.h"

static struct arena *arena;

static struct core_v1_pod *pod(const char *name, const char *ports)
{
	CLEAN_FREE char *json = xasprintf(
		"{\"metadata\":{\"name\":\"%s\",\"namespace\":\"web\"},\"spec\":{\"containers\":[{\"name\":\"c\","
		"\"ports\":[%s]}]}}",
		name, ports);
	struct err err = { 0 };
	void *o;

	if (json_decode(&core_v1_pod_type, str_of(json), arena, NULL, &o, &err) != 0)
		fail_msg("%s", err.text);
	return o;
}

static struct buf text;
static const char *change(struct host_ports *h)
{
	buf_clear(&text);
	host_ports_change(h, &text);
	return text.p ? text.p : "";
}

static void elements(void **state)
{
	struct host_ports *h = host_ports_new();
	struct core_v1_pod *one = pod("one",
		"{\"containerPort\":8080,\"hostPort\":80},{\"containerPort\":53,\"hostPort\":53,\"protocol\":\"UDP\",\"hostIP\":"
		"\"127.0.0.1\"},{\"containerPort\":9}");

	assert_false(host_ports_put(h, one, STR_NONE));
	assert_string_equal(change(h), "");
	assert_true(host_ports_put(h, one, STR("10.42.0.5")));
	assert_string_equal(change(h),
		"add chain ip skiff_host_ports guard { type filter hook prerouting priority raw; policy accept; }\n"
		"add rule ip skiff_host_ports guard ip daddr 127.0.0.0/8 iifname != \"lo\" drop\n"
		"add element ip skiff_host_ports ports { tcp . 80 : 10.42.0.5 . 8080 }\n"
		"add element ip skiff_host_ports address_ports { 127.0.0.1 . udp . 53 : 10.42.0.5 . 53 }\n"
		"add element ip skiff_host_ports hairpin { 10.42.0.5 . 10.42.0.5 }\n");
	assert_true(host_ports_put(h, one, STR("10.42.0.5")));
	assert_string_equal(change(h), "");
	/* The port is taken: the second pod does not disturb the first, nor takes it along. */
	host_ports_put(h, pod("two", "{\"containerPort\":1,\"hostPort\":80}"), STR("10.42.0.6"));
	host_ports_remove(h, STR("web/two"));
	assert_string_equal(change(h), "");
	host_ports_put(h, one, STR_NONE);
	assert_string_equal(change(h),
		"delete element ip skiff_host_ports ports { tcp . 80 }\n"
		"delete element ip skiff_host_ports address_ports { 127.0.0.1 . udp . 53 }\n"
		"delete element ip skiff_host_ports hairpin { 10.42.0.5 . 10.42.0.5 }\n");
	host_ports_free(h);
}

static void the_kernel_takes_them(void **state)
{
	struct host_ports *h = host_ports_new();
	CLEAN_BUF struct buf whole = { 0 };
	struct err err = { 0 };

	if (getuid() != 0)
		skip(); /* nftables needs root */
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	host_ports_put(h,
		pod("one",
			"{\"containerPort\":8080,\"hostPort\":80},"
			"{\"containerPort\":1,\"hostPort\":1,\"hostIP\":\"192.0.2.1\"}"),
		STR("10.42.0.5"));
	host_ports_write(h, &whole);
	if (nft_apply(whole.p, &err) < 0)
		fail_msg("%s", err.text);
	host_ports_remove(h, STR("web/one"));
	if (nft_apply(change(h), &err) < 0)
		fail_msg("%s", err.text);
	host_ports_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(elements),
		cmocka_unit_test(the_kernel_takes_them),
	};
	int r;

	arena = arena_new(0);
	r = cmocka_run_group_tests_name("host ports", tests, NULL, NULL);
	arena_free(arena);
	buf_deinit(&text);
	return r;
}
