/* What the store costs, without what stands above it. Usage: bench-store [FOLDER]   (for the database; default: the current one)
 *
 * Writes: N threads, each waits for its write before the next, 2 KB pods. CPU is that of the whole process, all threads, so
 * it includes the waiting threads' wake-ups. Figures and conditions: bench/README.md. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>

#include "base/values.h"
#include "store/store.h"

enum { JSON_BYTES = 2048, OBJECTS = 50000 };

static char padding[JSON_BYTES];

static double cpu_s(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
		(double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double wall_s(void)
{
	return (double)mono_now_ns() / 1e9;
}

static struct store *open_store(const char *backend, const char *path)
{
	struct store_config c = { .backend = backend, .path = path };
	struct store *s;
	struct err err;
	if (store_open(&c, &s, &err) < 0) {
		fprintf(stderr, "bench-store: %s\n", err.text);
		exit(1);
	}
	return s;
}

static void remove_files(const char *path)
{
	static const char *const suffixes[] = { "", "-wal", ".lock" };
	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		CLEAN_FREE char *file = xasprintf("%s%s", path, suffixes[i]);
		unlink(file);
	}
}

static struct store_op pod_op(int verb, const char *key)
{
	static const struct object_pair labels[] = { { STR("app"), STR("web") } };
	static const struct object_pair fields[] = { { STR("metadata.name"), STR("web") },
		{ STR("spec.nodeName"), STR("n1") } };
	return (struct store_op){ .verb = (__typeof__(((struct store_op *)0)->verb))verb,
		.key = str_of(key),
		.json_head = str_n(padding, 200),
		.json_tail = str_n(padding, JSON_BYTES - 200),
		.labels = labels,
		.fields = fields,
		.n_labels = 1,
		.n_fields = 2 };
}

struct job {
	struct store *s;
	int id, n;
};

static void *create_pods(void *arg)
{
	struct job *j = arg;
	char key[64];
	for (int i = 0; i < j->n; i++) {
		snprintf(key, sizeof(key), "/pods/ns-%d/web-%d", j->id, i);
		struct store_op op = pod_op(STORE_CREATE, key);
		if (store_write(j->s, &op, NULL) != 0)
			abort();
	}
	return NULL;
}

static void bench_create(const char *backend, const char *path, int writers, int total)
{
	remove_files(path);
	struct store *s = open_store(backend, path);
	pthread_t threads[64];
	struct job jobs[64];
	double cpu = cpu_s(), wall = wall_s();
	for (int i = 0; i < writers; i++) {
		jobs[i] = (struct job){ s, i, total / writers };
		pthread_create(&threads[i], NULL, create_pods, &jobs[i]);
	}
	for (int i = 0; i < writers; i++)
		pthread_join(threads[i], NULL);
	cpu = cpu_s() - cpu;
	wall = wall_s() - wall;
	struct store_stats st;
	store_stats(s, &st);
	printf("create %-6s %2d writers  %7.1f us CPU an op  %7.1f us wall an op  %5.1f ops a commit\n",
		backend, writers, cpu * 1e6 / (double)st.writes, wall * 1e6 / (double)st.writes,
		(double)st.writes / (double)st.commits);
	store_close(s);
	remove_files(path);
}

static long rss_kb(void)
{
	long kb = 0;
	char line[128];
	FILE *f = fopen("/proc/self/status", "r");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmRSS: %ld", &kb);
	if (f)
		fclose(f);
	return kb;
}

static void bench_open_empty(const char *path)
{
	remove_files(path);
	long before = rss_kb();
	double wall = wall_s();
	struct store *s = open_store("sqlite", path);
	wall = wall_s() - wall;
	struct store_op op = pod_op(STORE_CREATE, "/pods/a");
	store_write(s, &op, NULL);
	printf("open an empty one: %.1f ms wall; with one write %ld KB of memory\n", wall * 1e3,
		rss_kb() - before);
	store_close(s);
	remove_files(path);
}

static void fill(struct store *s, int n)
{
	struct job jobs[8];
	pthread_t threads[8];
	for (int i = 0; i < 8; i++) {
		jobs[i] = (struct job){ s, i, n / 8 };
		pthread_create(&threads[i], NULL, create_pods, &jobs[i]);
	}
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
}

static void bench_get(struct store *s)
{
	enum { N = 1000000 };
	char key[64];
	uint64_t x = 1;
	double cpu = cpu_s();
	for (int i = 0; i < N; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		snprintf(key, sizeof(key), "/pods/ns-%d/web-%d", (int)(x >> 61),
			(int)((x >> 33) % (OBJECTS / 8)));
		struct object *o;
		if (store_get(s, str_of(key), &o) != 0)
			abort();
		object_unref(o);
	}
	printf("get of a random one of %d      %7.3f us CPU\n", OBJECTS, (cpu_s() - cpu) * 1e6 / N);
}

static bool sum_length(void *arg, struct object *o)
{
	*(uint64_t *)arg += o->json.len;
	return true;
}

static void bench_list(struct store *s)
{
	enum { N = 20 };
	uint64_t bytes = 0;
	double cpu = cpu_s();
	for (int i = 0; i < N; i++) {
		struct store_snapshot *sn = store_snapshot(s);
		store_snapshot_each(sn, STR("/pods/"), STR_NONE, sum_length, &bytes);
		store_snapshot_free(sn);
	}
	printf("list of %d objects              %7.3f ms CPU\n", OBJECTS,
		(cpu_s() - cpu) * 1e3 / N);
}

static void wake_nothing(void *arg) {}

/* Events are made one by one, and the cursor drains after each hundred. */
static void bench_watch(int cursors, int others)
{
	enum { N = 20000 };
	struct store *s = open_store("memory", NULL);
	struct store_watch **w = xcalloc((size_t)(cursors + others), sizeof(*w));
	for (int i = 0; i < cursors; i++)
		store_watch(s, STR("/pods/"), 0, wake_nothing, NULL, &w[i]);
	for (int i = cursors; i < cursors + others; i++) {
		char node[32];
		snprintf(node, sizeof(node), "other-%d", i);
		store_watch_field(s, STR("/pods/"),
			(struct object_pair){ STR("spec.nodeName"), str_of(node) }, 0, wake_nothing,
			NULL, &w[i]);
	}
	double drain = 0, cpu = cpu_s();
	uint64_t seen = 0;
	for (int i = 0; i < N; i++) {
		char key[64];
		snprintf(key, sizeof(key), "/pods/default/web-%d", i);
		struct store_op op = pod_op(STORE_CREATE, key);
		store_write(s, &op, NULL);
		if (i % 100 != 99)
			continue;
		double start = cpu_s();
		struct store_event *ev;
		for (int c = 0; c < cursors + others; c++)
			while (store_watch_next(w[c], &ev) == 0)
				seen++;
		drain += cpu_s() - start;
	}
	cpu = cpu_s() - cpu;
	printf("watch %4d cursors on all, %4d on other nodes: %7.3f us CPU to hand out an event, %6.2f us CPU a write in all\n",
		cursors, others, drain * 1e6 / (double)MAX(seen, 1u), cpu * 1e6 / N);
	for (int i = 0; i < cursors + others; i++)
		store_watch_close(w[i]);
	free(w);
	store_close(s);
}

static size_t in_use(void)
{
	struct mallinfo2 m = mallinfo2();
	return m.uordblks + m.hblkhd;
}

int main(int argc, char **argv)
{
	CLEAN_FREE char *path = xasprintf("%s/bench-store.db", argc > 1 ? argv[1] : ".");
	setvbuf(stdout, NULL, _IOLBF, 0);
	memset(padding, 'x', sizeof(padding));
	static const int writers[] = { 1, 8, 32 };
	bench_open_empty(path);
	for (size_t i = 0; i < ARRAY_LEN(writers); i++)
		bench_create("sqlite", path, writers[i], writers[i] == 1 ? 2000 : 20000);
	bench_create("memory", path, 32, 100000);

	struct store *s = open_store("sqlite", path);
	size_t before = in_use();
	fill(s, OBJECTS);
	struct store_stats st;
	store_stats(s, &st);
	double each = (double)(in_use() - before) / OBJECTS;
	printf("memory an object of %d bytes: %.0f bytes, of which not JSON %.0f (an event of the log each included)\n",
		JSON_BYTES, each, each - (double)st.bytes / OBJECTS);
	printf("file: %.0f bytes an object\n", (double)st.file_bytes / OBJECTS);
	bench_get(s);
	bench_list(s);
	store_close(s);
	double wall = wall_s(), cpu = cpu_s();
	s = open_store("sqlite", path);
	printf("open with %d objects              %7.1f ms wall, %.1f ms CPU\n", OBJECTS,
		(wall_s() - wall) * 1e3, (cpu_s() - cpu) * 1e3);
	store_close(s);
	remove_files(path);

	bench_watch(1, 0);
	bench_watch(100, 0);
	bench_watch(1, 5000);
	return 0;
}
