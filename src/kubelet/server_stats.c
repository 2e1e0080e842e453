/* /pods, /stats/summary, /metrics and /metrics/resource: what the node runs and uses, read when asked. Shapes are upstream's. */
#include <stdio.h>
#include <sys/statvfs.h>

#include "gen/types.h"
#include "kubelet/internal.h"

struct usage {
	struct pod_worker *w;
	struct pod_object *o;
	struct engine_container *list;
	struct engine_stats *stats;
	bool *have;
	size_t n;
};

void serve_pods(struct kubelet *k, struct http_stream *s)
{
	CLEAN_BUF struct buf b = { 0 };
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct pod_worker **all;
	size_t n;

	pods_list(k, &all, &n);
	buf_addz(&b, "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{},\"items\":[");
	for (size_t i = 0; i < n; i++) {
		pthread_mutex_lock(&k->lock);
		struct pod_object *o = pod_object_ref(all[i]->desired);
		pthread_mutex_unlock(&k->lock);
		struct core_v1_pod copy = *o->pod;
		pthread_mutex_lock(&all[i]->lock);
		if (all[i]->status)
			copy.status = *all[i]->status;
		if (i)
			buf_addc(&b, ',');
		json_encode(&core_v1_pod_type, &copy, &b);
		pthread_mutex_unlock(&all[i]->lock);
		pod_object_unref(o);
		worker_unref(all[i]);
	}
	free(all);
	buf_addz(&b, "]}");
	node_respond_text(s, 200, "application/json", buf_str(&b));
}

static void measure(struct kubelet *k, struct pod_worker *w, struct usage *u, struct arena *a)
{
	struct err err;

	*u = (struct usage){ .w = w };
	pthread_mutex_lock(&k->lock);
	u->o = pod_object_ref(w->desired);
	pthread_mutex_unlock(&k->lock);
	pthread_mutex_lock(&w->lock);
	const struct pod_sandbox *b = worker_sandbox(w);
	struct str id = arena_strz(a, b && b->ready ? b->id : "");
	pthread_mutex_unlock(&w->lock);
	if (!id.len || k->c.engine->v->container_list(k->c.engine, id.p, a, &u->list, &u->n, &err))
		u->n = 0;
	u->stats = arena_alloc(a, (u->n + 1) * sizeof(*u->stats));
	u->have = arena_alloc(a, u->n + 1);
	for (size_t i = 0; i < u->n; i++)
		u->have[i] = u->list[i].state == CONTAINER_RUNNING &&
			!k->c.engine->v->container_stats(
				k->c.engine, u->list[i].id, &u->stats[i], &err);
}

static void stamp(struct buf *b, const char *key, struct timestamp t)
{
	char out[TIME_TEXT_MAX];

	time_format(t, out);
	buf_addf(b, "\"%s\":\"%s\"", key, out);
}

static void cpu_memory(
	struct buf *b, struct timestamp at, uint64_t cpu, uint64_t used, uint64_t working)
{
	buf_addz(b, "\"cpu\":{");
	stamp(b, "time", at);
	buf_addf(b, ",\"usageCoreNanoSeconds\":%llu},\"memory\":{", (unsigned long long)cpu);
	stamp(b, "time", at);
	buf_addf(b, ",\"usageBytes\":%llu,\"workingSetBytes\":%llu}", (unsigned long long)used,
		(unsigned long long)working);
}

static void file_system(struct buf *b, const char *path, struct timestamp at)
{
	struct statvfs v = { 0 };

	statvfs(path, &v);
	unsigned long long unit = v.f_frsize, total = v.f_blocks * unit, left = v.f_bavail * unit;
	buf_addz(b, "\"fs\":{");
	stamp(b, "time", at);
	buf_addf(b,
		",\"availableBytes\":%llu,\"capacityBytes\":%llu,\"usedBytes\":%llu,\"inodesFree\":%llu,\"inodes\":%llu,"
		"\"inodesUsed\":%llu}",
		left, total, total - v.f_bfree * unit, (unsigned long long)v.f_ffree,
		(unsigned long long)v.f_files, (unsigned long long)(v.f_files - v.f_ffree));
}

/* Of the whole machine: /proc/stat and node_memory. */
static void node_usage(
	struct kubelet *k, uint64_t *ret_cpu, uint64_t *ret_used, uint64_t *ret_working)
{
	CLEAN_BUF struct buf b = { 0 };
	struct err err;
	unsigned long long t[8] = { 0 };

	if (!file_read("/proc/stat", 1 << 20, &b, &err))
		sscanf(b.p, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2],
			&t[3], &t[4], &t[5], &t[6], &t[7]);
	*ret_cpu = (t[0] + t[1] + t[2] + t[5] + t[6] + t[7]) *
		(NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
	struct node_memory m = node_memory(k);
	*ret_used = m.total - m.free;
	*ret_working = m.total - m.available;
}

static void pod_summary(struct buf *b, struct usage *u, struct timestamp now)
{
	uint64_t cpu = 0, used = 0, working = 0;
	bool first = true;

	buf_addz(b, "{\"podRef\":{\"name\":");
	json_write_text(str_of(u->w->name), b);
	buf_addz(b, ",\"namespace\":");
	json_write_text(str_of(u->w->ns), b);
	buf_addz(b, ",\"uid\":");
	json_write_text(str_of(u->w->uid), b);
	buf_addz(b, "},");
	stamp(b, "startTime", u->w->seen_at);
	buf_addz(b, ",\"containers\":[");
	for (size_t i = 0; i < u->n; i++) {
		if (!u->have[i])
			continue;
		buf_addz(b, first ? "{\"name\":" : ",{\"name\":");
		first = false;
		json_write_text(u->list[i].name, b);
		buf_addc(b, ',');
		stamp(b, "startTime", u->list[i].started_at);
		buf_addc(b, ',');
		cpu_memory(b, u->stats[i].at, u->stats[i].cpu_ns, u->stats[i].memory_bytes,
			u->stats[i].memory_working_set);
		buf_addc(b, '}');
		cpu += u->stats[i].cpu_ns;
		used += u->stats[i].memory_bytes;
		working += u->stats[i].memory_working_set;
	}
	buf_addz(b, "],");
	cpu_memory(b, now, cpu, used, working);
	buf_addc(b, '}');
}

void serve_stats(struct kubelet *k, struct http_stream *s)
{
	CLEAN_BUF struct buf b = { 0 };
	struct timestamp now = now_wall(k);
	struct pod_worker **all;
	uint64_t cpu, used, working;
	size_t n;
	bool first = true;

	node_usage(k, &cpu, &used, &working);
	buf_addz(&b, "{\"node\":{\"nodeName\":");
	json_write_text(str_of(k->c.node_name), &b);
	buf_addc(&b, ',');
	stamp(&b, "startTime", now);
	buf_addc(&b, ',');
	cpu_memory(&b, now, cpu, used, working);
	buf_addc(&b, ',');
	file_system(&b, k->c.root_dir, now);
	buf_addz(&b, "},\"pods\":[");
	pods_list(k, &all, &n);
	for (size_t i = 0; i < n; i++) {
		CLEAN_ARENA struct arena *a = arena_new(0);
		struct usage u;
		measure(k, all[i], &u, a);
		if (u.n) {
			if (!first)
				buf_addc(&b, ',');
			first = false;
			pod_summary(&b, &u, now);
		}
		pod_object_unref(u.o);
		worker_unref(all[i]);
	}
	free(all);
	buf_addz(&b, "]}");
	node_respond_text(s, 200, "application/json", buf_str(&b));
}

static void resource_metrics(struct kubelet *k, struct buf *cpu_lines, struct buf *memory_lines)
{
	struct pod_worker **all;
	size_t n;

	pods_list(k, &all, &n);
	for (size_t i = 0; i < n; i++) {
		CLEAN_ARENA struct arena *a = arena_new(0);
		struct usage u;
		measure(k, all[i], &u, a);
		for (size_t j = 0; j < u.n; j++) {
			if (!u.have[j])
				continue;
			buf_addf(cpu_lines,
				"container_cpu_usage_seconds_total{container=\"" STR_FMT
				"\",namespace=\"%s\",pod=\"%s\"} "
				"%.9g\n",
				STR_ARG(u.list[j].name), all[i]->ns, all[i]->name,
				(double)u.stats[j].cpu_ns / 1e9);
			buf_addf(memory_lines,
				"container_memory_working_set_bytes{container=\"" STR_FMT
				"\",namespace=\"%s\",pod=\"%s\"} %llu\n",
				STR_ARG(u.list[j].name), all[i]->ns, all[i]->name,
				(unsigned long long)u.stats[j].memory_working_set);
		}
		pod_object_unref(u.o);
		worker_unref(all[i]);
	}
	free(all);
}

void node_serve_metrics(struct kubelet *k, struct http_stream *s, bool resource)
{
	CLEAN_BUF struct buf b = { 0 }, cpu_lines = { 0 }, memory_lines = { 0 };
	uint64_t cpu, used, working;

	if (resource) {
		resource_metrics(k, &cpu_lines, &memory_lines);
		node_usage(k, &cpu, &used, &working);
		buf_addf(&b,
			"# HELP container_cpu_usage_seconds_total CPU time a container used, in core-seconds\n# TYPE "
			"container_cpu_usage_seconds_total counter\n" STR_FMT
			"# HELP container_memory_working_set_bytes Memory a container cannot do without, in bytes\n# TYPE "
			"container_memory_working_set_bytes gauge\n" STR_FMT
			"# HELP node_cpu_usage_seconds_total CPU time the node used, in core-seconds\n# TYPE node_cpu_usage_seconds_total "
			"counter\nnode_cpu_usage_seconds_total %.9g\n"
			"# HELP node_memory_working_set_bytes Memory the node cannot do without, in bytes\n# TYPE "
			"node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes %llu\n",
			STR_ARG(buf_str(&cpu_lines)), STR_ARG(buf_str(&memory_lines)),
			(double)cpu / 1e9, (unsigned long long)working);
	} else {
		struct pod_worker **all;
		size_t n, by_state[N_POD_STATES] = { 0 };
		pods_list(k, &all, &n);
		for (size_t i = 0; i < n; i++) {
			by_state[all[i]->state]++;
			worker_unref(all[i]);
		}
		free(all);
		buf_addz(&b,
			"# HELP kubelet_running_pods Pods that are being run\n# TYPE kubelet_running_pods gauge\n");
		buf_addf(&b, "kubelet_running_pods %zu\n", by_state[POD_SYNCING]);
		buf_addz(&b,
			"# HELP skiff_kubelet_pods Pods by the state of their worker\n# TYPE skiff_kubelet_pods gauge\n");
		for (int i = 0; i < N_POD_STATES; i++)
			buf_addf(&b, "skiff_kubelet_pods{state=\"%s\"} %zu\n", pod_state_text[i],
				by_state[i]);
	}
	node_respond_text(s, 200, "text/plain; version=0.0.4", buf_str(&b));
}
