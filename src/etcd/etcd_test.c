/* Two stores on one real etcd, which the test starts on loopback (build/etcd/etcd-3.4, brought by tests/tools/fetch-etcd.sh; without it these
 * tests are skipped). Values are JSON with "_" for the revision. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "etcd/internal.h"
#include "io/io.h"

#define ETCD "build/etcd/etcd-3.4"
enum { WRITERS = 4, RAISES = 50 };

static pid_t pid;
static char dir[] = "/tmp/etcd-test-XXXXXX", *url;

/* ---- the codec: "/a/x" <-> "/registry/a/x" ---- */

static bool key_out(void *arg, struct str key, struct buf *out)
{
	buf_addz(out, "/registry");
	buf_add_str(out, key);
	return true;
}

static bool key_in(void *arg, struct str key, struct buf *out)
{
	buf_add_str(out, str_from(key, 9));
	return true;
}

static void cut(struct str json, struct str *ret_head, struct str *ret_tail)
{
	*ret_head = str_n(json.p, 4);
	*ret_tail = str_from(json, (size_t)str_find(json, ','));
}

static int value_out(void *arg, struct str key, struct str json, struct buf *out, struct err *err)
{
	struct str head, tail;
	cut(json, &head, &tail);
	buf_addf(out, STR_FMT "_" STR_FMT, STR_ARG(head), STR_ARG(tail));
	return 0;
}

static int value_in(void *arg, struct str key, struct str value, struct arena *a,
	struct store_op *ret, struct err *err)
{
	cut(arena_str(a, value), &ret->json_head, &ret->json_tail);
	return 0;
}

/* ---- etcd ---- */

static int free_port(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(at);
	CLEAN_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bind(fd, (struct sockaddr *)&at, sizeof(at));
	getsockname(fd, (struct sockaddr *)&at, &n);
	return ntohs(at.sin_port);
}

static int setup(void **state)
{
	if (access(ETCD, X_OK) != 0)
		return 0;
	if (!mkdtemp(dir))
		return -1;
	int port = free_port(), peer = free_port();
	url = xasprintf("http://127.0.0.1:%d", port);
	CLEAN_FREE char *peer_url = xasprintf("http://127.0.0.1:%d", peer),
			*cluster = xasprintf("default=%s", peer_url);
	const char *argv[] = { ETCD, "--data-dir", dir, "--listen-client-urls", url,
		"--advertise-client-urls", url, "--listen-peer-urls", peer_url,
		"--initial-advertise-peer-urls", peer_url, "--initial-cluster", cluster, NULL };
	struct process_spec spec = { .argv = argv, .stdio = { -1, -1, -1 } };
	return process_spawn(&spec, &pid, NULL, NULL);
}

static int teardown(void **state)
{
	if (pid <= 0)
		return 0;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	free(url);
	return dir_remove_tree(dir, NULL);
}

static struct store *open_one(struct store_shared_config *shared)
{
	struct store_config c = { .backend = "shared", .shared = shared };
	struct etcd_config ec = { .urls = url };
	struct etcd *e;
	struct store *s;
	struct err err = { 0 };
	if (etcd_open(&ec, &e, &err))
		fail_msg("%s", err.text);
	*shared = (struct store_shared_config){ &etcd_remote, e,
		{ key_out, key_in, value_out, value_in, cut, NULL } };
	if (store_open(&c, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static struct store_op op(int verb, const char *key, uint64_t expect, const char *tail)
{
	return (struct store_op){ .verb = verb,
		.key = str_of(key),
		.expect = expect,
		.json_head = STR("{rv:"),
		.json_tail = str_of(tail) };
}

static int write_one(struct store *s, struct store_op o, uint64_t *ret_revision)
{
	CLEAN_OBJECT struct object *got = NULL;
	int r = store_write(s, &o, &got);
	if (ret_revision)
		*ret_revision = got ? got->revision : 0;
	return r;
}

/* ---- tests ---- */

static void outcomes(void **state)
{
	if (pid <= 0)
		skip();
	struct store_shared_config c1, c2;
	struct store *one = open_one(&c1), *two = open_one(&c2);
	uint64_t first, second, now;
	assert_int_equal(write_one(one, op(STORE_CREATE, "/o/x", 0, ",1}"), &first), 0);
	assert_int_equal(write_one(two, op(STORE_CREATE, "/o/x", 0, ",2}"), &now), STORE_EXISTS);
	assert_int_equal(now, first); /* the other one has seen what it was refused for */
	assert_int_equal(write_one(two, op(STORE_UPDATE, "/o/x", first, ",2}"), &second), 0);
	assert_true(second > first);
	assert_int_equal(
		write_one(one, op(STORE_UPDATE, "/o/x", first, ",3}"), &now), STORE_CONFLICT);
	assert_int_equal(now, second);
	assert_int_equal(write_one(one, op(STORE_UPDATE, "/o/x", 0, ",4}"), &now), 0);
	assert_int_equal(
		write_one(two, op(STORE_UPDATE, "/o/none", 0, ",4}"), NULL), STORE_NOT_FOUND);
	assert_int_equal(
		write_one(two, op(STORE_DELETE, "/o/x", second, ",5}"), NULL), STORE_CONFLICT);
	assert_int_equal(write_one(two, op(STORE_DELETE, "/o/x", now, ",5}"), NULL), 0);
	assert_int_equal(write_one(one, op(STORE_DELETE, "/o/x", 0, ",5}"), NULL), STORE_NOT_FOUND);
	struct store_op lasting = op(STORE_CREATE, "/o/ttl", 0, ",1}");
	lasting.ttl_s = 3600;
	assert_int_equal(write_one(one, lasting, NULL), 0);
	store_close(one);
	store_close(two);
}

static void guards(void **state)
{
	if (pid <= 0)
		skip();
	struct store_shared_config c1, c2;
	struct store *one = open_one(&c1), *two = open_one(&c2);
	uint64_t known = store_revision(one), made;
	struct store_op a = op(STORE_CREATE, "/g/a", 0, ",1}"),
			b = op(STORE_CREATE, "/g/b", 0, ",1}");
	a.guard = b.guard = STR("g");
	a.guard_revision = b.guard_revision = known;
	assert_int_equal(write_one(one, a, &made), 0);
	assert_int_equal(write_one(two, b, NULL), STORE_CONFLICT); /* it did not know of a */
	b.guard_revision = made;
	assert_int_equal(write_one(two, b, NULL), 0);
	store_close(one);
	store_close(two);
}

struct raiser {
	struct store *s;
	pthread_t thread;
};

/* Raises the counter in "/c/n" by conditional updates. */
static void *raise_it(void *arg)
{
	struct raiser *r = arg;
	for (int i = 0; i < RAISES;) {
		CLEAN_OBJECT struct object *o = NULL;
		char tail[32];
		if (store_get(r->s, STR("/c/n"), &o))
			abort();
		snprintf(tail, sizeof(tail), ",%d}",
			atoi(o->json.p + str_find(o->json, ',') + 1) + 1);
		int rc = write_one(r->s, op(STORE_UPDATE, "/c/n", o->revision, tail), NULL);
		if (rc != 0 && rc != STORE_CONFLICT)
			abort();
		i += rc == 0;
	}
	return NULL;
}

static void wake_nothing(void *arg) {}

static void counters_end_exact(void **state)
{
	if (pid <= 0)
		skip();
	struct store_shared_config c[2];
	struct store *s[2] = { open_one(&c[0]), open_one(&c[1]) };
	struct raiser r[WRITERS];
	uint64_t start;
	struct store_watch *w;
	struct store_event *ev;
	assert_int_equal(write_one(s[0], op(STORE_CREATE, "/c/n", 0, ",0}"), &start), 0);
	assert_int_equal(write_one(s[1], op(STORE_CREATE, "/c/n", 0, ",0}"), NULL),
		STORE_EXISTS); /* waits for it */
	for (int i = 0; i < WRITERS; i++) {
		r[i].s = s[i % 2];
		pthread_create(&r[i].thread, NULL, raise_it, &r[i]);
	}
	for (int i = 0; i < WRITERS; i++)
		pthread_join(r[i].thread, NULL);
	assert_int_equal(write_one(s[1], op(STORE_CREATE, "/c/n", 0, ",0}"), NULL), STORE_EXISTS);
	/* each change once and in order, on the other store too */
	assert_int_equal(store_watch(s[1], STR("/c/"), start, wake_nothing, NULL, &w), 0);
	int seen = 0;
	uint64_t last = start;
	while (store_watch_next(w, &ev) == 0) {
		assert_true(ev->revision > last);
		last = ev->revision;
		assert_int_equal(
			atoi(ev->object->json.p + str_find(ev->object->json, ',') + 1), ++seen);
	}
	assert_int_equal(seen, WRITERS * RAISES);
	store_watch_close(w);
	store_close(s[0]);
	store_close(s[1]);
}

static int count_keys(void *arg, const struct store_remote_kv *kv, struct err *err)
{
	++*(unsigned *)arg;
	return 0;
}

/* What restoring needs: an empty etcd, far on, where no cursor of before finds anything. */
static void cleared_and_advanced(void **state)
{
	if (pid <= 0)
		skip();
	struct store_shared_config c;
	struct etcd_config ec = { .urls = url };
	struct etcd *e;
	struct err err = { 0 };
	uint64_t before, now;
	unsigned n = 0;
	struct store *s = open_one(&c);
	assert_int_equal(write_one(s, op(STORE_CREATE, "/r/x", 0, ",1}"), NULL), 0);
	store_close(s);
	assert_int_equal(etcd_open(&ec, &e, &err), 0);
	assert_int_equal(etcd_clear(e, STR("/registry/"), &err), 0);
	assert_int_equal(etcd_revision(e, &before, &err), 0);
	assert_int_equal(etcd_advance(e, before + 3000, &err), 0);
	assert_int_equal(etcd_revision(e, &now, &err), 0);
	assert_true(now >= before + 3000 && now < before + 3010);
	assert_int_equal(etcd_remote.load(e, count_keys, &n, &before, &err), 0);
	assert_int_equal(n, 0);
	assert_int_equal(etcd_advance(e, 5, &err), 0); /* it is there */
	etcd_close(e);
}

/* A call that was under way when its connection was given up may have been done: sent again, it would be refused for its own sake. */
static void only_etcd_says_that_nothing_was_done(void **state)
{
	assert_true(etcd_no_leader(STR("etcdserver: no leader")));
	assert_false(etcd_no_leader(STR("https://a:2379: it has no leader")));
	assert_false(etcd_no_leader(
		STR("etcdserver: request timed out, possibly due to previous leader failure")));
}

static void unreachable_is_told(void **state)
{
	struct etcd_config c = { .urls = "http://127.0.0.1:1,http://127.0.0.1:2",
		.timeout_ms = 300 };
	struct etcd *e;
	struct err err = { 0 };
	assert_int_equal(etcd_open(&c, &e, &err), -EHOSTUNREACH);
	assert_non_null(strstr(err.text, "Connection refused"));
	c.urls = "127.0.0.1:1";
	assert_int_equal(etcd_open(&c, &e, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unreachable_is_told),
		cmocka_unit_test(only_etcd_says_that_nothing_was_done),
		cmocka_unit_test(outcomes),
		cmocka_unit_test(guards),
		cmocka_unit_test(counters_end_exact),
		cmocka_unit_test(cleared_and_advanced),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
