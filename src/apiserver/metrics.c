/* Numbers for /metrics under upstream's names. A row a (resource, subresource, verb), with its codes and durations in it; at most ROWS_MAX
 * rows and CODES of each, so that no client can make it grow. */
#include <stdio.h>
#include <sys/resource.h>

#include "apiserver/internal.h"

#define ROWS_MAX 2048
#define CODES 8

static const double bounds[] = { 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3,
	4, 5, 6, 8, 10, 15, 20, 30, 45, 60 };

struct row {
	const struct resource *resource; /* NULL: a path that is no resource */
	const struct subresource_row *sub;
	uint32_t verb;
	struct {
		int code;
		uint64_t n;
	} codes[CODES];
	uint32_t buckets[ARRAY_LEN(bounds) + 1];
	uint64_t total_ns, n;
	int64_t watches;
};
struct metrics {
	pthread_mutex_t lock; /* guards all */
	struct row **slots;   /* open addressing, ROWS_MAX * 2, power of two */
	size_t n_rows;
};

struct metrics *metrics_new(void)
{
	struct metrics *m = xcalloc(1, sizeof(*m));
	pthread_mutex_init(&m->lock, NULL);
	m->slots = xcalloc(ROWS_MAX * 2, sizeof(struct row *));
	return m;
}

void metrics_free(struct metrics *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < ROWS_MAX * 2; i++)
		free(m->slots[i]);
	free(m->slots);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static struct row *row_of(struct metrics *m, const struct resource *r,
	const struct subresource_row *sub, uint32_t verb)
{
	const uintptr_t key[3] = { (uintptr_t)r, (uintptr_t)sub, verb };
	size_t mask = ROWS_MAX * 2 - 1;
	for (size_t i = hash_bytes(key, sizeof(key), 0) & mask;; i = (i + 1) & mask) {
		struct row *row = m->slots[i];
		if (row && row->resource == r && row->sub == sub && row->verb == verb)
			return row;
		if (row)
			continue;
		if (m->n_rows >= ROWS_MAX)
			return NULL;
		m->n_rows++;
		row = m->slots[i] = xcalloc(1, sizeof(*row));
		row->resource = r;
		row->sub = sub;
		row->verb = verb;
		return row;
	}
}

static void count_code(struct row *row, int code)
{
	for (size_t i = 0; i < CODES; i++) {
		if (row->codes[i].n && row->codes[i].code != code && i + 1 < CODES)
			continue;
		row->codes[i].code = code;
		row->codes[i].n++;
		return;
	}
}

void metrics_request(struct metrics *m, const struct request *q, int code, uint64_t took_ns)
{
	pthread_mutex_lock(&m->lock);
	struct row *row = row_of(m, q->resource, q->sub, q->info.verb_bit);
	if (row) {
		double s = (double)took_ns / 1e9;
		size_t b = 0;
		while (b < ARRAY_LEN(bounds) && s > bounds[b])
			b++;
		row->buckets[b]++;
		row->total_ns += took_ns;
		row->n++;
		count_code(row, code);
	}
	pthread_mutex_unlock(&m->lock);
}

void metrics_watch(struct metrics *m, const struct resource *r, int delta)
{
	pthread_mutex_lock(&m->lock);
	struct row *row = row_of(m, r, NULL, VERB_WATCH);
	if (row)
		row->watches += delta;
	pthread_mutex_unlock(&m->lock);
}

/* ---- text ---- */

static const char *verb_label(uint32_t verb)
{
	static const struct {
		uint32_t bit;
		const char *name;
	} names[] = {
		{ VERB_GET, "GET" },
		{ VERB_LIST, "LIST" },
		{ VERB_WATCH, "WATCH" },
		{ VERB_CREATE, "POST" },
		{ VERB_UPDATE, "PUT" },
		{ VERB_PATCH, "PATCH" },
		{ VERB_DELETE, "DELETE" },
		{ VERB_DELETECOLLECTION, "DELETECOLLECTION" },
	};
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (names[i].bit == verb)
			return names[i].name;
	return "GET";
}

static void labels(const struct row *r, struct buf *out)
{
	const char *scope = !r->resource                                       ? ""
		: (r->verb & (VERB_LIST | VERB_WATCH | VERB_DELETECOLLECTION)) ? "cluster"
									       : "resource";
	buf_addf(out,
		"group=\"" STR_FMT "\",resource=\"" STR_FMT
		"\",scope=\"%s\",subresource=\"%s\",verb=\"%s\",version=\"" STR_FMT "\"",
		STR_ARG(r->resource ? r->resource->group : STR_NONE),
		STR_ARG(r->resource ? r->resource->plural : STR_NONE), scope,
		r->sub ? r->sub->name : "", verb_label(r->verb),
		STR_ARG(r->resource ? r->resource->version : STR_NONE));
}

static void write_totals(const struct row *r, struct buf *out)
{
	for (size_t i = 0; i < CODES && r->codes[i].n; i++) {
		buf_addf(
			out, "apiserver_request_total{code=\"%d\",dry_run=\"\",", r->codes[i].code);
		labels(r, out);
		buf_addf(out, "} %llu\n", (unsigned long long)r->codes[i].n);
	}
}

static void write_durations(const struct row *r, struct buf *out)
{
	if (!r->n || r->verb == VERB_WATCH)
		return;
	uint64_t sum = 0;
	for (size_t i = 0; i <= ARRAY_LEN(bounds); i++) {
		sum += r->buckets[i];
		buf_addz(out, "apiserver_request_duration_seconds_bucket{dry_run=\"\",");
		labels(r, out);
		if (i < ARRAY_LEN(bounds))
			buf_addf(out, ",le=\"%g\"} %llu\n", bounds[i], (unsigned long long)sum);
		else
			buf_addf(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)sum);
	}
	buf_addz(out, "apiserver_request_duration_seconds_sum{dry_run=\"\",");
	labels(r, out);
	buf_addf(out, "} %.9f\napiserver_request_duration_seconds_count{dry_run=\"\",",
		(double)r->total_ns / 1e9);
	labels(r, out);
	buf_addf(out, "} %llu\n", (unsigned long long)r->n);
}

static void write_watches(const struct row *r, struct buf *out)
{
	if (r->verb != VERB_WATCH || !r->resource)
		return;
	buf_addf(out, "apiserver_longrunning_requests{component=\"apiserver\",");
	labels(r, out);
	buf_addf(out,
		"} %lld\napiserver_registered_watchers{group=\"" STR_FMT "\",kind=\"" STR_FMT
		"\",version=\"" STR_FMT "\"} %lld\n",
		(long long)r->watches, STR_ARG(r->resource->group), STR_ARG(r->resource->kind_name),
		STR_ARG(r->resource->version), (long long)r->watches);
}

static void each(
	struct metrics *m, struct buf *out, void (*write)(const struct row *, struct buf *))
{
	for (size_t i = 0; i < ROWS_MAX * 2; i++)
		if (m->slots[i])
			write(m->slots[i], out);
}

static void write_store(struct apiserver *s, struct buf *out)
{
	struct store_stats st = { 0 };
	store_stats(s->store, &st);
	const struct {
		const char *name, *type;
		uint64_t value;
	} rows[] = {
		{ "apiserver_storage_size_bytes", "gauge", st.file_bytes },
		{ "skiff_store_revision", "counter", st.revision },
		{ "skiff_store_oldest_event", "gauge", st.oldest_event },
		{ "skiff_store_objects", "gauge", st.objects },
		{ "skiff_store_object_bytes", "gauge", st.bytes },
		{ "skiff_store_commits_total", "counter", st.commits },
		{ "skiff_store_writes_total", "counter", st.writes },
		{ "skiff_store_watches", "gauge", st.watches },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		buf_addf(out, "# TYPE %s %s\n%s %llu\n", rows[i].name, rows[i].type, rows[i].name,
			(unsigned long long)rows[i].value);
}

static void write_object_counts(struct apiserver *s, struct buf *out)
{
	size_t n;
	const struct resource *const *rs = registry_resources(s->registry, &n);
	struct store_snapshot *sn = store_snapshot(s->store);
	buf_addz(out,
		"# TYPE apiserver_storage_objects gauge\n# TYPE apiserver_resource_objects gauge\n");
	for (size_t i = 0; i < n; i++) {
		if (rs[i]->storage != rs[i] || !(rs[i]->row->verbs & VERB_LIST))
			continue;
		size_t count = store_snapshot_count(sn, rs[i]->key_prefix, STR_NONE);
		buf_addf(out, "apiserver_storage_objects{resource=\"" STR_FMT "\"} %zu\n",
			STR_ARG(rs[i]->group_resource), count);
	}
	store_snapshot_free(sn);
}

static void write_process(const struct apiserver *s, struct buf *out)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
		(double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	buf_addf(out, "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.6f\n",
		cpu);
	buf_addf(out, "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %lld\n",
		(long long)s->started.sec);
	CLEAN_BUF struct buf statm = { 0 };
	long long total, resident;
	if (file_read("/proc/self/statm", 256, &statm, NULL) == 0 &&
		sscanf(statm.p, "%lld %lld", &total, &resident) == 2)
		buf_addf(out,
			"# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %lld\n",
			resident * sysconf(_SC_PAGESIZE));
}

void metrics_write(struct apiserver *s, struct buf *out)
{
	struct metrics *m = s->metrics;
	pthread_mutex_lock(&m->lock);
	buf_addz(out, "# TYPE apiserver_request_total counter\n");
	each(m, out, write_totals);
	buf_addz(out, "# TYPE apiserver_request_duration_seconds histogram\n");
	each(m, out, write_durations);
	buf_addz(out,
		"# TYPE apiserver_longrunning_requests gauge\n# TYPE apiserver_registered_watchers gauge\n");
	each(m, out, write_watches);
	pthread_mutex_unlock(&m->lock);
	buf_addz(out, "# TYPE apiserver_current_inflight_requests gauge\n");
	buf_addf(out, "apiserver_current_inflight_requests{request_kind=\"mutating\"} %d\n",
		atomic_load(&s->writes));
	buf_addf(out, "apiserver_current_inflight_requests{request_kind=\"readOnly\"} %d\n",
		atomic_load(&s->reads));
	buf_addf(out,
		"# TYPE kubernetes_build_info gauge\nkubernetes_build_info{git_version=\"%s\"} 1\n",
		s->config.git_version);
	write_process(s, out);
	write_store(s, out);
	write_object_counts(s, out);
	for (size_t i = 0; i < s->n_sources; i++)
		s->sources[i].write(s->sources[i].arg, out);
}

bool serve_metrics(struct request *q)
{
	struct buf out = { 0 };
	metrics_write(q->server, &out);
	respond_buf(q, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
	return true;
}
