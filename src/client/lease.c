/* Leadership by a coordination.k8s.io Lease. Upstream: client-go's leaderelection.
 *
 * 1. Whether a foreign lease ran out is judged by how long this process saw it unchanged, never by the times written in it:
 *    clocks of machines differ.
 * 2. A leader that could not renew for renew_s stops before anyone else may start (duration_s > renew_s). Renewing may hang as long as a server does: so
 *    another thread, the guard, sees to that; and starting, which may take long, has a thread of its own.
 * 3. Every write names the resourceVersion that was read: two candidates cannot both win. */
#include "client/internal.h"

#include "io/io.h"

struct lease {
	struct lease_config config;
	char *ns, *name, *identity;
	pthread_t thread, guard, starter;
	bool has_starter; /* the thread's own: to be joined */
	char *seen;       /* the thread's own: the resourceVersion last seen … */
	uint64_t seen_at; /* … and when it was first seen */

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	bool leading, stopping;
	uint64_t renewed_at;
};

static bool may_take(struct lease *l, const struct coordination_v1_lease *le)
{
	if (!le->spec.holder_identity.len || str_eqz(le->spec.holder_identity, l->identity))
		return true;
	if (!l->seen || !str_eqz(le->metadata.resource_version, l->seen)) {
		free(l->seen);
		l->seen = str_dup(le->metadata.resource_version);
		l->seen_at = mono_now_ns();
		return false;
	}
	int64_t seconds = le->spec.lease_duration_seconds.set
		? le->spec.lease_duration_seconds.value
		: (int64_t)l->config.duration_s;

	return mono_now_ns() - l->seen_at >= (uint64_t)seconds * 1000000000;
}

static void fill(struct lease *l, struct coordination_v1_lease *le)
{
	bool mine = str_eqz(le->spec.holder_identity, l->identity);
	struct timestamp now = time_now();

	now.nsec -= now.nsec % 1000;
	le->spec.lease_duration_seconds = (struct opt_int32)SOME((int32_t)l->config.duration_s);
	le->spec.renew_time = now;
	if (mine)
		return;
	if (le->spec.holder_identity.len || le->spec.lease_transitions.set)
		le->spec.lease_transitions =
			(struct opt_int32)SOME(le->spec.lease_transitions.value + 1);
	else
		le->spec.lease_transitions = (struct opt_int32)SOME(0);
	le->spec.holder_identity = str_of(l->identity);
	le->spec.acquire_time = now;
}

/* 0: held now; CLIENT_CONFLICT: someone else has it. */
static int acquire(struct lease *l, struct err *err)
{
	struct arena *a CLEAN_ARENA = arena_new(2048);
	struct coordination_v1_lease *le;
	struct client *c = l->config.client;
	int r = client_get(c, &coordination_v1_lease_type, str_of(l->ns), str_of(l->name), a,
		(void **)&le, err);

	if (r == CLIENT_NOT_FOUND) {
		le = model_new(&coordination_v1_lease_type, a);
		le->metadata.namespace = str_of(l->ns);
		le->metadata.name = str_of(l->name);
		fill(l, le);
		r = client_create(c, &coordination_v1_lease_type, str_of(l->ns), le, a, NULL, err);
		return r == CLIENT_EXISTS ? CLIENT_CONFLICT : r;
	}
	if (r)
		return r;
	if (!may_take(l, le))
		return err_set(err, CLIENT_CONFLICT, "lease %s/%s is held by " STR_FMT, l->ns,
			l->name, STR_ARG(le->spec.holder_identity));
	fill(l, le);
	return client_update(c, &coordination_v1_lease_type, NULL, le, a, NULL, err);
}

static void give_back(struct lease *l)
{
	struct arena *a CLEAN_ARENA = arena_new(2048);
	struct coordination_v1_lease *le;
	struct client *c = l->config.client;

	if (client_get(c, &coordination_v1_lease_type, str_of(l->ns), str_of(l->name), a,
		    (void **)&le, NULL) ||
		!str_eqz(le->spec.holder_identity, l->identity))
		return;
	le->spec.holder_identity = STR("");
	le->spec.lease_duration_seconds.value = 1;
	le->spec.renew_time = time_now();
	client_update(c, &coordination_v1_lease_type, NULL, le, a, NULL, NULL);
}

/* false: stopping. */
static bool pause_s(struct lease *l, unsigned seconds)
{
	uint64_t until = mono_now_ns() + (uint64_t)seconds * 1000000000;

	pthread_mutex_lock(&l->lock);
	while (!l->stopping && cond_wait_until(&l->changed, &l->lock, until))
		;
	bool go_on = !l->stopping;

	pthread_mutex_unlock(&l->lock);
	return go_on;
}

/* Whoever finds it out first stops the component; the other sees that it was done. */
static bool lose(struct lease *l, uint64_t renewed_before)
{
	pthread_mutex_lock(&l->lock);
	bool lost = l->leading && l->renewed_at <= renewed_before;

	if (lost)
		l->leading = false;
	pthread_mutex_unlock(&l->lock);
	if (lost && l->config.on_stopped)
		l->config.on_stopped(l->config.arg);
	return lost;
}

static uint64_t renew_ns(const struct lease *l)
{
	return (uint64_t)l->config.renew_s * 1000000000;
}

static void *guard(void *arg)
{
	struct lease *l = arg;

	pthread_mutex_lock(&l->lock);
	while (!l->stopping) {
		uint64_t until = l->renewed_at + renew_ns(l);

		if (!l->leading) {
			pthread_cond_wait(&l->changed, &l->lock);
		} else if (mono_now_ns() < until) {
			cond_wait_until(&l->changed, &l->lock, until);
		} else {
			pthread_mutex_unlock(&l->lock);
			log_error("lease", "%s lost %s/%s: it could not be renewed for %u s",
				l->identity, l->ns, l->name, l->config.renew_s);
			lose(l, until - renew_ns(l));
			pthread_mutex_lock(&l->lock);
		}
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

static void *started(void *arg)
{
	struct lease *l = arg;

	l->config.on_started(l->config.arg);
	return NULL;
}

static void join_starter(struct lease *l)
{
	if (l->has_starter)
		pthread_join(l->starter, NULL);
	l->has_starter = false;
}

/* true: this made us the leader. */
static bool renewed(struct lease *l, uint64_t asked_at)
{
	pthread_mutex_lock(&l->lock);
	bool new = !l->leading;

	l->renewed_at = asked_at;
	l->leading = true;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	return new;
}

static void step(struct lease *l)
{
	struct err err = { "" };
	uint64_t now = mono_now_ns();
	int r = acquire(l, &err);

	/* An answer that took longer than that says what was, not what is. */
	if (!r && mono_now_ns() - now >= renew_ns(l))
		return;
	if (!r) {
		if (!renewed(l, now))
			return;
		log_info("lease", "%s leads %s/%s", l->identity, l->ns, l->name);
		join_starter(l); /* of a former time */
		l->has_starter =
			l->config.on_started && !thread_start(&l->starter, "lead", started, l);
		return;
	}
	if (r != CLIENT_CONFLICT)
		log_warn("lease", "%s/%s: %s; again in %u s", l->ns, l->name, err.text,
			l->config.retry_s);
}

static void *run(void *arg)
{
	struct lease *l = arg;

	do
		step(l);
	while (pause_s(l, l->config.retry_s));
	join_starter(l);
	if (lose(l, UINT64_MAX))
		give_back(l);
	return NULL;
}

int lease_start(const struct lease_config *c, struct lease **ret, struct err *err)
{
	struct lease *l = xcalloc(1, sizeof(*l));

	l->config = *c;
	l->config.duration_s = c->duration_s ? c->duration_s : 15;
	l->config.renew_s = c->renew_s ? c->renew_s : 10;
	l->config.retry_s = c->retry_s ? c->retry_s : 2;
	l->ns = xstrdup(c->ns);
	l->name = xstrdup(c->name);
	l->identity = xstrdup(c->identity);
	pthread_mutex_init(&l->lock, NULL);
	cond_init_mono(&l->changed);
	int r = thread_start(&l->thread, "lease", run, l);

	if (!r && (r = thread_start(&l->guard, "lease-guard", guard, l))) {
		pthread_mutex_lock(&l->lock);
		l->stopping = true;
		pthread_cond_broadcast(&l->changed);
		pthread_mutex_unlock(&l->lock);
		pthread_join(l->thread, NULL);
	}
	if (r) {
		free(l->ns);
		free(l->name);
		free(l->identity);
		free(l);
		return err_errno(err, r, "start the thread of lease %s/%s", c->ns, c->name);
	}
	*ret = l;
	return 0;
}

void lease_stop(struct lease *l)
{
	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	pthread_join(l->guard, NULL);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l->ns);
	free(l->name);
	free(l->identity);
	free(l->seen);
	free(l);
}
