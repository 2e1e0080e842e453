/* What a controller asked the server for and its cache does not show yet. While something is expected, the controller's keys wait: a
 * slow cache never doubles pods. Upstream: ControllerExpectations.
 *
 * Creations are counted; deletions are told by uid, since a pod that is being deleted changes several times. */
#include "controllers/internal.h"

#define EXPIRE_NS (EXPECTATIONS_MS * 1000000ull)

struct expected {
	int64_t creations;
	struct map deletions; /* uid -> anything */
	uint64_t since;
};

struct expectations {
	pthread_mutex_t lock; /* guards the maps and all in them */
	struct map by_key;
	struct map written; /* key -> uint64_t *: resourceVersion of our last write */
};

struct expectations *expectations_new(void)
{
	struct expectations *e = xcalloc(1, sizeof(*e));

	pthread_mutex_init(&e->lock, NULL);
	return e;
}

static void free_expected(void *p)
{
	map_deinit(&((struct expected *)p)->deletions, NULL);
	free(p);
}

void expectations_free(struct expectations *e)
{
	if (!e)
		return;
	map_deinit(&e->by_key, free_expected);
	map_deinit(&e->written, free);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

static struct expected *of_key(struct expectations *e, struct str key)
{
	struct expected *x = map_get(&e->by_key, key);

	if (!x) {
		x = xcalloc(1, sizeof(*x));
		map_set(&e->by_key, key, x);
	}
	x->since = mono_now_ns();
	return x;
}

void expect_creations(struct expectations *e, struct str key, size_t n)
{
	pthread_mutex_lock(&e->lock);
	of_key(e, key)->creations += (int64_t)n;
	pthread_mutex_unlock(&e->lock);
}

void expect_deletion(struct expectations *e, struct str key, struct str object_uid)
{
	pthread_mutex_lock(&e->lock);
	map_set(&of_key(e, key)->deletions, object_uid, e);
	pthread_mutex_unlock(&e->lock);
}

void creation_observed(struct expectations *e, struct str key)
{
	pthread_mutex_lock(&e->lock);
	struct expected *x = map_get(&e->by_key, key);

	if (x && x->creations > 0)
		x->creations--;
	pthread_mutex_unlock(&e->lock);
}

void deletion_observed(struct expectations *e, struct str key, struct str object_uid)
{
	pthread_mutex_lock(&e->lock);
	struct expected *x = map_get(&e->by_key, key);

	if (x)
		map_remove(&x->deletions, object_uid);
	pthread_mutex_unlock(&e->lock);
}

bool expectations_met(struct expectations *e, struct str key)
{
	pthread_mutex_lock(&e->lock);
	struct expected *x = map_get(&e->by_key, key);
	bool met = !x || (!x->creations && !x->deletions.len);

	if (x && (met || mono_now_ns() - x->since > EXPIRE_NS)) {
		map_remove(&e->by_key, key);
		free_expected(x);
		met = true;
	}
	pthread_mutex_unlock(&e->lock);
	return met;
}

bool may_act(struct run *r, struct str key)
{
	bool met = expectations_met(r->state, key);

	if (!met)
		requeue_within(r, EXPECTATIONS_MS + 1000);
	return met;
}

void expectations_forget(struct expectations *e, struct str key)
{
	pthread_mutex_lock(&e->lock);
	struct expected *x = map_remove(&e->by_key, key);

	if (x)
		free_expected(x);
	free(map_remove(&e->written, key));
	pthread_mutex_unlock(&e->lock);
}

void expect_version(struct expectations *e, struct str key, struct str resource_version)
{
	int64_t n;

	if (str_to_i64(resource_version, &n) || n <= 0)
		return;
	pthread_mutex_lock(&e->lock);
	uint64_t *v = map_get(&e->written, key);

	if (!v) {
		v = xcalloc(1, sizeof(*v));
		map_set(&e->written, key, v);
	}
	*v = (uint64_t)n;
	pthread_mutex_unlock(&e->lock);
}

bool version_seen(struct expectations *e, struct str key, struct str resource_version)
{
	int64_t n;
	bool seen = true;

	pthread_mutex_lock(&e->lock);
	uint64_t *v = map_get(&e->written, key);

	if (v && !str_to_i64(resource_version, &n) && (uint64_t)n < *v)
		seen = false;
	else if (v)
		free(map_remove(&e->written, key));
	pthread_mutex_unlock(&e->lock);
	return seen;
}
