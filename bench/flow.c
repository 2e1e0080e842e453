/* make bench-flow, as root: what the flow cache saves a packet and costs a new connection. A router between a pod's namespace and a host's (those of the tests);
 * without and with the cache by turns, so that other work on the machine tells on both. Prints the medians of each turn and of all. */
#include "network/flow_testing.h"

#define TURNS 10
#define CONNECTIONS 1000
#define QUESTIONS 20000
#define SIZE 64

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static double median_us(int64_t *ns, size_t n)
{
	qsort(ns, n, sizeof(*ns), by_size);
	return (double)ns[n / 2] / 1000;
}

/* Times of connect(); each connection ends with RST, so that none lingers. */
static int connect_many(void *arg, struct err *err)
{
	struct linger at_once = { 1, 0 };
	int64_t *ns = arg;

	for (int i = 0; i < CONNECTIONS; i++) {
		struct pair p = { .ip = HOST, .port = PORT };
		int64_t begin = now_ns();
		int r = dial(&p, err);

		if (r < 0)
			return r;
		ns[i] = now_ns() - begin;
		p.server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		setsockopt(p.client, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
		close_pair(&p);
	}
	return 0;
}

static double connect_us(void)
{
	static int64_t ns[CONNECTIONS];

	inside(pod_ns, connect_many, ns);
	return median_us(ns, CONNECTIONS);
}

static void send_all(int from, int to)
{
	char b[SIZE];

	if (write(from, data, SIZE) != SIZE || recv(to, b, SIZE, MSG_WAITALL) != SIZE)
		abort();
}

static double question_us(void)
{
	static int64_t ns[QUESTIONS];
	struct pair p = connected(HOST, PORT);
	int on = 1;

	setsockopt(p.client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(p.server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	for (int i = 0; i < QUESTIONS; i++) {
		int64_t begin = now_ns();

		send_all(p.client, p.server);
		send_all(p.server, p.client);
		ns[i] = now_ns() - begin;
	}
	close_pair(&p);
	return median_us(ns, QUESTIONS);
}

static void compare(const char *what, double (*measure)(void))
{
	double us[2][TURNS];

	for (int turn = 0; turn < TURNS; turn++) {
		for (int on = 0; on < 2; on++) {
			struct flow_cache *f = on ? switched_on() : NULL;
			struct err err = { 0 };

			us[on][turn] = measure();
			flow_cache_free(f);
			must(on ? flow_cache_remove(router, &err) : 0, &err);
		}
		printf("  %s: %.2f us without, %.2f us with\n", what, us[0][turn], us[1][turn]);
	}
	double ratio[TURNS];
	for (int turn = 0; turn < TURNS; turn++)
		ratio[turn] = us[1][turn] / us[0][turn];
	for (int i = 1; i < TURNS; i++)
		for (int j = i; j > 0 && ratio[j] < ratio[j - 1]; j--) {
			double r = ratio[j];
			ratio[j] = ratio[j - 1];
			ratio[j - 1] = r;
		}
	printf("%s: %.0f %% of the time without the cache (median of the turns)\n", what,
		ratio[TURNS / 2] * 100);
}

int main(void)
{
	void *state = NULL;

	if (getuid() != 0) {
		fprintf(stderr, "bench-flow makes network namespaces: run it as root\n");
		return 1;
	}
	set_up(&state);
	compare("question and answer of 64 bytes", question_us);
	compare("new connection", connect_us);
	return 0;
}
