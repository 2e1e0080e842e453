/* What the controllers share: the row that each of them is, what a reconcile may use, and the common questions about pods.
 *
 * A reconcile reads caches, decides, calls the blocking client, and returns. Everything it was handed (objects, texts) is borrowed
 * until it returns. 0: done, the key's failures are forgotten; anything else: the key comes back with back-off. */
#ifndef SKIFF_CONTROLLERS_INTERNAL_H
#define SKIFF_CONTROLLERS_INTERNAL_H

#include <pthread.h>

#include "codec/codec.h"
#include "controllers/controllers.h"
#include "io/io.h"

#define WATCHES_MOST 10

struct run;
typedef void (*watch_fn)(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now);

struct controller {
	const char *name;
	const char *component; /* of its events: replicaset-controller */
	bool bulk; /* makes and deletes what users ask for, which may take long (manager.c) */
	struct {
		const struct type *type;
		watch_fn map; /* event -> keys; NULL: only read */
		bool meta_only;
	} watches[WATCHES_MOST];
	bool (*enabled)(const struct controllers_config *c); /* NULL: always */
	int (*init)(struct run *r, struct err *err); /* before informers start; sets r->state */
	void (*start)(struct run *r);                /* caches are there, workers about to begin */
	void (*deinit)(struct run *r);
	int (*reconcile)(struct run *r, struct str key, struct err *err);
};

/* A controller at work; a reconcile gets a copy of its own, with arena and time. */
struct run {
	const struct controller *row;
	struct controllers *m;
	const struct controllers_config *config;
	struct client *client;
	struct event_recorder *events;
	void *state;
	unsigned index;
	/* during a reconcile */
	struct arena *arena;
	struct timestamp now;
	struct held *held;
	uint64_t requeue_ms; /* set: the key comes back after this, though nothing failed */
};

void enqueue(struct run *r, struct str key);
void enqueue_after(struct run *r, struct str key, uint64_t ms);
void requeue_within(struct run *r, uint64_t ms); /* the smallest one asked for wins */
/* Of seconds that users name: nothing below none, and a month at most, after which one looks again. */
uint64_t ms_of(double seconds);

/* ---- reading caches ---- */
struct objects {
	const void **items;
	size_t len;
};
#define OBJECT_EACH(T, it, os) \
	for (size_t it##_i = 0; it##_i < (os).len; it##_i++) \
		for (T *it = (T *)(os).items[it##_i], *it##_once = it; it##_once; it##_once = NULL)
const void *cache_object(struct run *r, const struct type *t, struct str key); /* NULL: not there */
struct objects cache_objects(struct run *r, const struct type *t, struct str ns);
struct objects cache_indexed(struct run *r, const struct type *t, const char *prefix,
	struct str value); /* "uid:", "node:" */
/* Those that this object controls; what names it from another namespace is not among them. */
struct objects cache_owned(
	struct run *r, const struct type *t, const struct meta_v1_object_meta *owner);
struct informer *run_informer(struct run *r, const struct type *t);
/* As cache_objects, outside of a reconcile: the caller deinits the list. */

struct str key_of(struct arena *a, struct str ns, struct str name);
void split_key(struct str key, struct str *ret_ns, struct str *ret_name);
/* Was a create refused since its namespace is being deleted? Then what was to be made goes too, and that is no failure. */
bool namespace_ends(int result, const struct err *err);

/* ---- mappings for rows ---- */
void map_self(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now);
/* ns/name of the controlling owner of this kind, of both states. */
void map_owner(struct run *r, enum informer_event ev, const struct cached *old,
	const struct cached *now, const char *kind);
void map_namespace(struct run *r, enum informer_event ev, const struct cached *old,
	const struct cached *now); /* the object's namespace */

/* ---- doing things in parallel: fn(arg, i) for 0 <= i < n on the pool; the number that returned 0 ---- */
typedef int (*parallel_fn)(void *arg, size_t i, struct err *err);
size_t run_parallel(struct run *r, size_t n, parallel_fn fn, void *arg, int *ret_first_failure,
	struct err *err);
/* In batches of 1, 2, 4, … that stop at the first failed one (upstream's slowStartBatch). */
size_t run_slow_start(struct run *r, size_t n, parallel_fn fn, void *arg, int *ret_first_failure,
	struct err *err);

/* ---- expectations: what was asked for and is not in the cache yet ---- */
struct expectations;
struct expectations *expectations_new(void);
void expectations_free(struct expectations *e);
void expect_creations(struct expectations *e, struct str key, size_t n);
void expect_deletion(struct expectations *e, struct str key, struct str object_uid);
void creation_observed(struct expectations *e, struct str key); /* or failed */
void deletion_observed(struct expectations *e, struct str key, struct str object_uid);
bool expectations_met(
	struct expectations *e, struct str key); /* or 5 minutes old: then they are dropped */
#define EXPECTATIONS_MS 300000
/* As expectations_met; false: the key comes back when they are too old to be believed (an event was missed). */
bool may_act(struct run *r, struct str key);
void expectations_forget(struct expectations *e, struct str key);
/* Our own write of the key's object: until the cache shows it, deciding on the cached one would repeat what was done. (resourceVersions of one
 * resource can be compared as numbers.) */
void expect_version(struct expectations *e, struct str key, struct str resource_version);
bool version_seen(struct expectations *e, struct str key, struct str resource_version);

/* ---- pods (pods.c) ---- */
const struct core_v1_pod_condition *pod_condition(const struct core_v1_pod *p, const char *type);
bool pod_ready(const struct core_v1_pod *p);
bool pod_active(const struct core_v1_pod *p); /* neither ended nor being deleted */
bool pod_ended(const struct core_v1_pod *p);  /* Succeeded or Failed */
/* Ready for min_ready_s. *ret_wait_ms (may be NULL): how long until it will be, when it is ready. */
bool pod_available(const struct core_v1_pod *p, int64_t min_ready_s, struct timestamp now,
	uint64_t *ret_wait_ms);
/* Negative: a goes before b when pods have to go (upstream's ActivePodsWithRanks); rank: how many related pods share its node. */
int pod_victim_cmp(const struct core_v1_pod *a, size_t rank_a, const struct core_v1_pod *b,
	size_t rank_b, struct timestamp now);
/* A pod of this template controlled by owner; *ret in the arena. */
struct core_v1_pod *pod_from_template(const struct core_v1_pod_template_spec *tpl,
	const struct type *owner_type, const void *owner, struct arena *a);
struct meta_v1_owner_reference controller_reference(
	const struct type *owner_type, const void *owner, struct arena *a);
/* Create and delete with upstream's events about the owner. */
int pod_create(struct run *r, const struct core_v1_pod *pod, const struct type *owner_type,
	const void *owner, struct err *err);
int pod_delete(struct run *r, const struct core_v1_pod *pod, const struct type *owner_type,
	const void *owner, struct err *err);

/* ---- adoption (adopt.c): objects that owner controls, after adopting matching orphans and releasing those that match no more ---- */
struct claim {
	const struct type *owner_type;
	const void *owner;
	const struct selector *selector;
	const struct type *type;                    /* of the objects */
	bool (*filter)(void *arg, const void *obj); /* which orphans may be adopted; NULL: all */
	void *arg;
};
int claim_objects(struct run *r, const struct claim *c, struct objects *ret, struct err *err);

/* ---- small things (util.c) ---- */
const char *api_version_of(const struct type *t, struct arena *a);
bool owned_by(
	const struct meta_v1_object_meta *m, struct str uid); /* its controller has this uid */
/* int-or-percent of total, as upstream's GetScaledValueFromIntOrPercent. */
int scaled_value(const struct int_or_str *v, int total, bool round_up, int fallback);
/* FNV-32a of the template's canonical JSON and the collision count, as a label's text. */
struct str template_hash(const struct core_v1_pod_template_spec *tpl,
	const struct opt_int32 *collisions, struct arena *a);
bool label_selectors_equal(
	const struct meta_v1_label_selector *a, const struct meta_v1_label_selector *b);
/* Merge patch of one object with text built by printf. */
int patch_merge_fmt(struct run *r, const struct type *t, struct str ns, struct str name,
	const char *sub, struct err *err, const char *fmt, ...) PRINTF_LIKE(7, 8);
int32_t int32_or(const struct opt_int32 *o, int32_t fallback);

#endif
