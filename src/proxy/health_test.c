/* What a load balancer is told, over real sockets of loopback and a clock of the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/socket.h>

#include "proxy/internal.h"

static uint64_t now_ns = 1000;

static uint64_t test_mono(const struct clock *c)
{
	return now_ns;
}

static struct timestamp test_wall(const struct clock *c)
{
	return (struct timestamp){ 1700000000 + (int64_t)(now_ns / 1000000000), 0 };
}

static const struct clock test_clock = { test_wall, test_mono };

static int connect_to(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	close(fd);
	return -1;
}

static int free_port(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	close(fd);
	return ntohs(a.sin_port);
}

/* The whole answer; its status is returned. */
static int ask(int port, const char *path, char *ret, size_t size)
{
	CLEAN_FREE char *q = xasprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
	CLEAN_FD int fd = connect_to(port);
	size_t got = 0;
	ssize_t n;

	if (fd < 0)
		return -1;
	assert_int_equal(send(fd, q, strlen(q), 0), strlen(q));
	while ((n = recv(fd, ret + got, size - 1 - got, 0)) > 0)
		got += (size_t)n;
	ret[got] = 0;
	return atoi(ret + strlen("HTTP/1.1 "));
}

static void meet(void *arg)
{
	sem_post(arg);
}

/* Until what was posted to the loop before is done. */
static void loop_settle(struct loop *l)
{
	sem_t done;

	sem_init(&done, 0, 0);
	loop_post(l, meet, &done);
	while (sem_wait(&done))
		;
	sem_destroy(&done);
}

struct fixture {
	struct loop *l;
	struct health *h;
	int healthz, status;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	char healthz[40], status[40];
	struct err err;

	f->healthz = free_port();
	do
		f->status = free_port();
	while (f->status == f->healthz);
	snprintf(healthz, sizeof(healthz), "127.0.0.1:%d", f->healthz);
	snprintf(status, sizeof(status), "127.0.0.1:%d", f->status);
	assert_int_equal(loop_new("test", &f->l, &err), 0);
	assert_int_equal(loop_start(f->l, &err), 0);
	assert_int_equal(health_new(f->l, &test_clock, healthz, status, &f->h, &err), 0);
	loop_settle(f->l);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	health_free(f->h);
	loop_settle(f->l);
	loop_stop(f->l);
	loop_join(f->l);
	loop_free(f->l);
	free(f);
	return 0;
}

static void changes_that_wait_too_long(void **state)
{
	struct fixture *f = *state;
	char text[1024];

	assert_int_equal(ask(f->healthz, "/healthz", text, sizeof(text)), 200);
	assert_non_null(strstr(text,
		"\r\n\r\n{\"lastUpdated\": \"2023-11-14 22:13:20 +0000 UTC\",\"currentTime\": "
		"\"2023-11-14 22:13:20 +0000 UTC\", \"nodeEligible\": true}"));
	health_updated(f->h);
	now_ns += 5000000000ull;
	health_waits(f->h);
	now_ns += 59000000000ull;
	health_waits(f->h); /* another: the oldest counts */
	assert_int_equal(ask(f->healthz, "/healthz", text, sizeof(text)), 200);
	now_ns += 2000000000ull;
	assert_int_equal(ask(f->healthz, "/healthz", text, sizeof(text)), 503);
	assert_non_null(strstr(text,
		"{\"lastUpdated\": \"2023-11-14 22:13:20 +0000 UTC\",\"currentTime\": "
		"\"2023-11-14 22:14:26 +0000 UTC\""));
	assert_int_equal(ask(f->healthz, "/livez?verbose", text, sizeof(text)), 503);
	health_updated(f->h);
	assert_int_equal(ask(f->healthz, "/livez", text, sizeof(text)), 200);
	assert_null(strstr(text, "nodeEligible"));
	assert_int_equal(ask(f->healthz, "/", text, sizeof(text)), 404);
	assert_int_equal(ask(f->status, "/proxyMode", text, sizeof(text)), 200);
	assert_non_null(strstr(text, "\r\n\r\nnftables"));
	assert_int_equal(ask(f->status, "/metrics", text, sizeof(text)), 404);
}

static void nodes_that_leave(void **state)
{
	struct fixture *f = *state;
	char text[1024];

	health_leaving(f->h, true);
	assert_int_equal(ask(f->healthz, "/healthz", text, sizeof(text)), 503);
	assert_non_null(strstr(text, "\"nodeEligible\": false}"));
	assert_int_equal(ask(f->healthz, "/livez", text, sizeof(text)), 200);
	health_leaving(f->h, false);
	assert_int_equal(ask(f->healthz, "/healthz", text, sizeof(text)), 200);
}

static void services_have_their_ports(void **state)
{
	struct fixture *f = *state;
	int port = free_port();
	char text[1024];

	health_set(f->h, STR("shop/web"), port, 2);
	loop_settle(f->l);
	assert_int_equal(ask(port, "/", text, sizeof(text)), 200);
	assert_non_null(strstr(text, "X-Load-Balancing-Endpoint-Weight: 2\r\n"));
	assert_non_null(strstr(text, "\"serviceProxyHealthy\": true"));
	health_waits(f->h);
	now_ns += 61000000000ull;
	assert_int_equal(ask(port, "/", text, sizeof(text)), 503);
	assert_non_null(strstr(text, "\"serviceProxyHealthy\": false"));
	health_updated(f->h);
	health_set(f->h, STR("shop/web"), port, 0);
	loop_settle(f->l);
	assert_int_equal(ask(port, "/", text, sizeof(text)), 503);
	/* Its clients end with it. */
	CLEAN_FD int idle = connect_to(port);
	assert_true(idle >= 0);
	assert_int_equal(ask(port, "/", text, sizeof(text)), 503); /* idle was taken before */
	health_set(f->h, STR("shop/web"), 0, 0);
	loop_settle(f->l);
	assert_int_equal(recv(idle, text, sizeof(text), 0), 0);
	assert_int_equal(ask(port, "/", text, sizeof(text)), -1);
}

static void addresses_are_checked(void **state)
{
	static const char *const bad[] = { "10256", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536",
		"127.0.0.1:x" };
	struct fixture *f = *state;
	struct health *h;
	struct err err;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(health_new(f->l, &test_clock, bad[i], "off", &h, &err), -EINVAL);
	assert_int_equal(health_new(f->l, &test_clock, "off", NULL, &h, &err), 0);
	health_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(changes_that_wait_too_long, setup, teardown),
		cmocka_unit_test_setup_teardown(nodes_that_leave, setup, teardown),
		cmocka_unit_test_setup_teardown(services_have_their_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(addresses_are_checked, setup, teardown),
	};

	return cmocka_run_group_tests_name("proxy health", tests, NULL, NULL);
}
