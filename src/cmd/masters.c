/* Which API servers serve, when several share one store: each keeps a Lease kube-system/apiserver-ADDRESS alive, and each writes the addresses of
 * those that live into the endpoints of service default/kubernetes. Upstream: the apiserver's lease reconciler.
 *
 * Whether another one lives is judged by how long this process saw its Lease unchanged, not by the times in it: clocks differ. */
#include <stdio.h>

#include "base/map.h"
#include "client/client.h"
#include "cmd/cmd.h"
#include "controllers/controllers.h"

enum { RENEW_S = 5, LIFE_S = 15, REMOVE_S = 120, MASTERS_MAX = 32 };
#define NS STR("kube-system")
#define LABEL "apiserver.kubernetes.io/identity"

struct seen {
	char *version; /* resourceVersion */
	uint64_t since_ns;
};

struct masters {
	struct client *client;
	char *address, *name;
	int port;
	struct map seen; /* lease's name -> struct seen */
	pthread_t thread;
	pthread_mutex_t lock; /* guards stop */
	pthread_cond_t wake;
	bool stop;
};

static int renew(struct masters *m, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(2048);
	const struct type *t = &coordination_v1_lease_type;
	struct coordination_v1_lease *l = NULL;
	int r = client_get(m->client, t, NS, str_of(m->name), a, (void **)&l, err);
	bool there = r == 0;

	if (r && r != CLIENT_NOT_FOUND)
		return r;
	if (!there)
		l = model_new(t, a);
	l->metadata.name = str_of(m->name);
	l->metadata.namespace = NS;
	str_map_set(a, &l->metadata.labels, STR(LABEL), STR("skiff"));
	l->spec.holder_identity = str_of(m->address);
	l->spec.lease_duration_seconds = (struct opt_int32)SOME(LIFE_S);
	l->spec.renew_time = time_now();
	l->spec.renew_time.nsec -= l->spec.renew_time.nsec % 1000;
	return there ? client_update(m->client, t, NULL, l, a, NULL, err)
		     : client_create(m->client, t, NS, l, a, NULL, err);
}

/* Seconds for which the lease was seen as it is. */
static uint64_t unchanged_s(struct masters *m, const struct coordination_v1_lease *l)
{
	uint64_t now = mono_now_ns();
	struct seen *s = map_get(&m->seen, l->metadata.name);

	if (!s) {
		s = xcalloc(1, sizeof(*s));
		map_set(&m->seen, l->metadata.name, s);
	}
	if (!s->version || !str_eqz(l->metadata.resource_version, s->version)) {
		free(s->version);
		s->version = str_dup(l->metadata.resource_version);
		s->since_ns = now;
	}
	return (now - s->since_ns) / 1000000000;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int publish(struct masters *m, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(4096);
	struct coordination_v1_lease_list *list;
	const char *addresses[MASTERS_MAX];
	size_t n = 0;
	int r = client_list(m->client, &coordination_v1_lease_type, NS, LABEL "=skiff", NULL, a,
		(void **)&list, err);

	if (r)
		return r;
	LIST_EACH(l, &list->items) {
		uint64_t s = unchanged_s(m, l);

		if (s < LIFE_S && n < MASTERS_MAX && l->spec.holder_identity.len)
			addresses[n++] = arena_str(a, l->spec.holder_identity).p;
		else if (s >= REMOVE_S)
			client_delete(m->client, &coordination_v1_lease_type, NS, l->metadata.name,
				&(struct client_delete){ .grace_seconds = -1 }, NULL);
	}
	qsort(addresses, n, sizeof(*addresses), by_text);
	return controllers_publish_apiservers(m->client, addresses, n, m->port, err);
}

static bool pause_s(struct masters *m, time_t seconds)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&m->lock);
	while (!m->stop && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&m->wake, &m->lock, &until);
	bool stop = m->stop;

	pthread_mutex_unlock(&m->lock);
	return !stop;
}

static void *run(void *arg)
{
	struct masters *m = arg;

	do {
		struct err err = { 0 };
		int r = renew(m, &err);

		if (r == 0)
			r = publish(m, &err);
		if (r < 0)
			log_warn("masters", "%s; again in %d s", err.text, RENEW_S);
		/* > 0: another one was faster; it is looked at again */
	} while (pause_s(m, RENEW_S));
	client_delete(m->client, &coordination_v1_lease_type, NS, str_of(m->name),
		&(struct client_delete){ .grace_seconds = -1 }, NULL);
	return NULL;
}

int masters_start(
	struct client *c, const char *address, int port, struct masters **ret, struct err *err)
{
	struct masters *m = xcalloc(1, sizeof(*m));
	pthread_condattr_t monotonic;

	m->client = c;
	m->address = xstrdup(address);
	m->name = xasprintf("apiserver-%s", address);
	for (char *p = m->name; *p; p++)
		if (*p == ':')
			*p = '-';
	m->port = port;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&m->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_mutex_init(&m->lock, NULL);
	int r = thread_start(&m->thread, "masters", run, m);

	if (r < 0) {
		free(m->address);
		free(m->name);
		free(m);
		return err_errno(
			err, r, "start the thread that tells the other servers of this one");
	}
	*ret = m;
	return 0;
}

static void seen_free(void *p)
{
	struct seen *s = p;

	free(s->version);
	free(s);
}

void masters_stop(struct masters *m)
{
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	m->stop = true;
	pthread_cond_signal(&m->wake);
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->thread, NULL);
	pthread_mutex_destroy(&m->lock);
	pthread_cond_destroy(&m->wake);
	map_deinit(&m->seen, seen_free);
	free(m->address);
	free(m->name);
	free(m);
}
