/* Server CPU of the registry alone: create, get, list and watch of pods over a store, without HTTP. `bench-registry [DATABASE]`: memory without. */
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include "registry/registry.h"

enum { PODS = 20000, IN_FLIGHT = 64, GETS = 500000 };

static const char pod_text[] =
	"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"generateName\":\"web-5d4f8c7b9-\",\"labels\":{\"app\":\"web\","
	"\"pod-template-hash\":\"5d4f8c7b9\","
	"\"tier\":\"front\"},\"annotations\":{\"prometheus.io/scrape\":\"true\",\"prometheus.io/port\":\"8080\"},"
	"\"ownerReferences\":[{\"apiVersion\":\"apps/v1\","
	"\"kind\":\"ReplicaSet\",\"name\":\"web-5d4f8c7b9\",\"uid\":\"8c4d2a1e-2a0b-4c55-9d55-0c7b6d1f2a3b\",\"controller\":true,"
	"\"blockOwnerDeletion\":true}]},"
	"\"spec\":{\"containers\":[{\"name\":\"web\",\"image\":\"registry.example/web:1.2.3\",\"ports\":[{\"name\":\"http\","
	"\"containerPort\":8080}],\"env\":[{\"name\":"
	"\"POD_NAME\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.name\"}}},{\"name\":\"MODE\",\"value\":\"production\"}],"
	"\"resources\":{\"requests\":{\"cpu\":"
	"\"100m\",\"memory\":\"128Mi\"},\"limits\":{\"memory\":\"256Mi\"}},\"livenessProbe\":{\"httpGet\":{\"path\":\"/live\","
	"\"port\":8080}},\"readinessProbe\":"
	"{\"httpGet\":{\"path\":\"/ready\",\"port\":8080}},\"volumeMounts\":[{\"name\":\"token\","
	"\"mountPath\":\"/var/run/secrets/kubernetes.io/serviceaccount\","
	"\"readOnly\":true}]}],\"serviceAccountName\":\"default\",\"tolerations\":[{\"key\":\"node.kubernetes.io/not-ready\","
	"\"operator\":\"Exists\",\"effect\":"
	"\"NoExecute\",\"tolerationSeconds\":300}],\"volumes\":[{\"name\":\"token\","
	"\"projected\":{\"sources\":[{\"serviceAccountToken\":{\"path\":\"token\"}}]}}]}}";

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static size_t in_flight, failed;

static double cpu_us(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + u.ru_utime.tv_usec +
		u.ru_stime.tv_usec;
}

static long resident_pages(void)
{
	long pages = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (f && fscanf(f, "%ld %ld", &pages, &resident) != 2)
		resident = 0;
	if (f)
		fclose(f);
	return resident;
}

static void done(void *arg, struct registry_request *req, struct registry_result *res)
{
	if (res->code != 201 && !failed++)
		fprintf(stderr, "create: %d " STR_FMT "\n", res->code,
			STR_ARG(res->status ? res->status->message : STR_NONE));
	object_unref(res->object);
	arena_free(req->arena);
	pthread_mutex_lock(&lock);
	in_flight--;
	pthread_cond_signal(&wake);
	pthread_mutex_unlock(&lock);
}

static void create_pods(
	struct registry *r, const struct resource *pods, const struct user_info *user)
{
	for (size_t i = 0; i < PODS; i++) {
		struct arena *a = arena_new(16384);
		struct registry_request *q = arena_alloc(a, sizeof(*q));
		*q = (struct registry_request){ .arena = a,
			.resource = pods,
			.verb = VERB_CREATE,
			.ns = STR("default"),
			.user = user };
		struct err err;
		if (json_decode(&core_v1_pod_type, str_n(pod_text, sizeof(pod_text) - 1), a, NULL,
			    &q->obj, &err))
			exit((fprintf(stderr, "%s\n", err.text), 1));
		pthread_mutex_lock(&lock);
		while (in_flight >= IN_FLIGHT)
			pthread_cond_wait(&wake, &lock);
		in_flight++;
		pthread_mutex_unlock(&lock);
		registry_execute(r, q, done, NULL);
	}
	pthread_mutex_lock(&lock);
	while (in_flight)
		pthread_cond_wait(&wake, &lock);
	pthread_mutex_unlock(&lock);
}

static void got(void *arg, struct registry_request *req, struct registry_result *res)
{
	failed += res->code != 200;
	object_unref(res->object);
}

int main(int argc, char **argv)
{
	struct store_config sc = { .backend = argc > 1 ? "sqlite" : "memory",
		.path = argc > 1 ? argv[1] : NULL };
	struct registry_config rc = { 0 };
	struct registry *r;
	struct err err;
	struct user_info user = { .name = STR("bench") };
	if (store_open(&sc, &rc.store, &err) || registry_new(&rc, &r, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	uint64_t start = mono_now_ns();
	if (registry_bootstrap(r, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	printf("bootstrap        %8.1f ms\n", (mono_now_ns() - start) / 1e6);
	const struct resource *pods = registry_resource(r, STR(""), STR("v1"), STR("pods"));
	long resident_before = resident_pages();
	double cpu = cpu_us();
	start = mono_now_ns();
	create_pods(r, pods, &user);
	printf("create           %8.2f us CPU, %.0f/s\n", (cpu_us() - cpu) / PODS,
		PODS / ((mono_now_ns() - start) / 1e9));

	printf("memory           %8.2f KB a pod\n",
		(resident_pages() - resident_before) * 4.0 / PODS);
	struct arena *a = arena_new(0);
	struct registry_request q = {
		.arena = a, .resource = pods, .verb = VERB_LIST, .ns = STR("default"), .user = &user
	};
	struct registry_list *l;
	struct meta_v1_status *st;
	struct object *o;
	size_t n = 0, bytes = 0;
	char name[256] = "";
	cpu = cpu_us();
	if (registry_list_open(r, &q, &l, &st))
		return 1;
	while ((o = registry_list_next(l))) {
		n++;
		bytes += o->json.len;
		snprintf(name, sizeof(name), "%s", strrchr(o->key.p, '/') + 1);
	}
	registry_list_free(l);
	printf("list             %8.3f us CPU an object (%zu objects, %zu bytes each)\n",
		(cpu_us() - cpu) / n, n, bytes / n);
	q.verb = VERB_GET;
	q.name = str_of(name);
	cpu = cpu_us();
	for (size_t i = 0; i < GETS; i++)
		registry_execute(r, &q, got, NULL);
	printf("get              %8.3f us CPU\n", (cpu_us() - cpu) / GETS);
	arena_free(a);
	registry_free(r);
	store_close(rc.store);
	return failed != 0;
}
