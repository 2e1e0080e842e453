/* What the scheduler's files share: nodes as arrays, pods as they wait, plugins as rows.
 *
 * 1. One lock (scheduler.lock) guards queue, nodes and placed pods; informer handlers and the scheduling thread take it. Calls to the API are
 *    made without it, on the binder's pool.
 * 2. A pod that was decided counts on its node at once (assumed), until the informer shows the binding or the binding failed.
 * 3. A decision walks arrays of numbers: bit i of a filter's set, and column i of every array, is node i. */
#ifndef SKIFF_SCHEDULER_INTERNAL_H
#define SKIFF_SCHEDULER_INTERNAL_H

#include <pthread.h>

#include "base/map.h"
#include "client/client.h"
#include "gen/types.h"
#include "io/io.h"
#include "model/placement.h"
#include "scheduler/scheduler.h"

/* ---- resources: columns of the node arrays; the first three are always there, others come as they are asked for ---- */
enum { RES_CPU, RES_MEMORY, RES_EPHEMERAL, RES_FIXED, RES_MAX = 16 };

struct requests {
	int64_t amount[RES_MAX];
	bool lacks; /* it asks for something that no node has */
	int64_t scored_cpu,
		scored_memory; /* with 100m and 200 MiB for containers that ask for nothing, as upstream scores */
};

struct host_port {
	int32_t port;
	char protocol[8];
	char ip[46];
};

/* ---- nodes ---- */
struct nodes {
	size_t n, cap;
	struct map by_name;       /* -> index + 1 */
	size_t *vacant, n_vacant; /* indexes that are no node's now: the next ones take them */
	char **name;
	struct cached **object; /* NULL: pods stand on it, its Node is not there (yet) */
	int64_t *allocatable[RES_MAX], *used[RES_MAX];
	int64_t *scored_cpu, *scored_memory;
	int32_t *pods, *max_pods;
	uint8_t *unschedulable, *tainted;
	struct {
		struct host_port *items;
		size_t len;
	} * ports;
	struct {
		struct sched_pod **items;
		size_t len, cap;
	} * placed;
	int32_t *lowest; /* no pod there has a priority below this; may be too low */
	/* what pods say of other pods: matchers.c */
	struct topology *topologies; /* those without users have no key, and are used again */
	size_t n_topologies;
	struct map topology_ids;       /* key -> index + 1 */
	struct map matchers, holdings; /* text -> struct matcher, struct holding */
	struct map
		by_namespace; /* -> struct sayings: what speaks of pods of this namespace alone */
	struct sayings *everywhere; /* the rest */
	/* Labels of a namespace into an arena; NULL: terms that choose namespaces by label choose none. */
	bool (*namespace_labels)(void *arg, struct str ns, struct arena *a, struct str_map *ret);
	void *namespace_arg;
	/* Claims, volumes and classes; references. find NULL: volumes are not looked at. */
	struct cached *(*find)(void *arg, const struct type *t, struct str key);
	void (*find_all)(void *arg, const struct type *t, struct cached_list *ret);
	void *find_arg;
	char *resource_name[RES_MAX];
	size_t n_resources;
};
#define NO_NODE SIZE_MAX
void nodes_init(struct nodes *t);
void nodes_deinit(struct nodes *t);
size_t nodes_find(const struct nodes *t, struct str name); /* NO_NODE */
size_t nodes_find_or_add(struct nodes *t, struct str name);
void nodes_set(struct nodes *t, size_t i,
	struct cached *object); /* takes the reference; NULL: the Node went */
/* Column of a resource; -1: no node has it, or there are RES_MAX already. What pods ask for makes no column. */
int nodes_resource(struct nodes *t, struct str name);
void nodes_requests(struct nodes *t, const struct core_v1_pod *pod, struct requests *ret);

/* ---- pods ---- */
enum pod_place { POD_ACTIVE, POD_BACKOFF, POD_UNSCHEDULABLE, POD_ASSUMED, POD_PLACED, POD_GATED };
struct sched_pod {
	char *key; /* "ns/name" */
	char *uid;
	struct cached *object;
	enum pod_place place;
	struct heap_node active, backoff;
	struct list parked;
	int32_t priority;
	uint64_t queued_at, ready_at_ns; /* order within a priority; end of the back-off */
	uint32_t attempts;
	uint32_t refused_by;     /* bits of plugins, of the last try */
	uint32_t woken_by;       /* the events that may help it then */
	size_t node;             /* ASSUMED, PLACED */
	size_t slot;             /* in the node's `placed` */
	struct pod_terms *terms; /* NULL: it says nothing of other pods */
	struct list nominated;   /* waits for room that is being made on nominated_node */
	char *nominated_node;
	bool is_nominated; /* counted on that node for the length of another pod's decision */
	struct requests requests;
};
void nodes_place(struct nodes *t, struct sched_pod *p, size_t node,
	int sign); /* +1 counts it, -1 takes it away */

/* ---- what pods say of other pods: matchers.c ---- */
struct topology {
	char *key; /* NULL: not in use */
	size_t refs;
	int32_t *domain, n; /* by node: which of the n values of the label; -1: none */
	struct map ids;
};
struct matcher;
#define HOLDING_FORBIDS INT32_MIN /* weights of holdings: a required anti-affinity, */
#define REQUIRED_WEIGHT INT32_MAX /* a required affinity; else a preference's */
struct sayings {
	struct list matchers, holdings;
};
struct holding {
	char *text;
	struct list among; /* sayings.holdings */
	struct matcher *matcher;
	size_t topology, refs;
	int weight;
	int32_t *count; /* by node: pods there that hold it */
	int64_t total;
};
struct spread {
	struct matcher *matcher;
	size_t topology;
	int32_t max_skew, min_domains;
	bool hard, any_affinity, heed_taints, self; /* self: the pod matches its own selector */
};
#define TERMS_MOST 256 /* of one pod: each takes memory by the node */
struct pod_terms {
	bool too_many; /* more than TERMS_MOST: none was taken, and the pod goes nowhere */
	struct matcher *affinity; /* of all required affinity terms together; NULL: none */
	bool affinity_self;
	size_t *near, n_near; /* their topologies */
	struct holding **holds;
	size_t n_holds;
	struct spread *spreads;
	size_t n_spreads;
};
struct pod_terms *terms_take(struct nodes *t, const struct core_v1_pod *pod); /* NULL: none */
void terms_drop(struct nodes *t, struct pod_terms *p); /* after the pod was taken off its node */
bool matcher_matches(const struct nodes *t, const struct matcher *m, const struct core_v1_pod *pod);
const int32_t *matcher_counts(const struct matcher *m); /* by node: pods there that match */
int64_t matcher_total(const struct matcher *m);
/* Those that may speak of a pod of this namespace: its own and those of everywhere, [0] and [1]. */
struct both_sayings {
	const struct sayings *s[2];
};
struct both_sayings sayings_of(const struct nodes *t, struct str ns);
#define EACH_HOLDING(h, both) \
	for (size_t h##_k = 0; h##_k < 2; h##_k++) \
		list_for_each(h##_it, &(both).s[h##_k]->holdings) \
			for (struct holding *h = list_entry(h##_it, struct holding, among), \
					    *h##_once = h; \
				h##_once; h##_once = NULL)
/* The labels of a namespace changed: who is chosen by them is counted anew. */
void matchers_namespace_changed(struct nodes *t);
/* Counts by domain, of the nodes in `of` (NULL: all); owned. */
int32_t *topology_sums(
	const struct nodes *t, size_t topology, const int32_t *count, const uint64_t *of);
void matchers_place(struct nodes *t, const struct sched_pod *p, size_t node, int sign);
void matchers_node(struct nodes *t, size_t node);
void matchers_grow(struct nodes *t, size_t old_cap, size_t cap);
void matchers_deinit(struct nodes *t);

/* ---- plugins ---- */
struct state { /* of one decision */
	struct nodes *nodes;
	const struct core_v1_pod *pod;
	const struct requests *requests;
	const struct pod_terms *terms; /* NULL: none */
	size_t words;
	uint64_t *fits; /* filters clear bits */
	double *score;  /* sums of weight * 0..100 */
	double *raw;    /* a plugin's own scores, before they are normalized */
};
static inline bool bit_test(const uint64_t *set, size_t i)
{
	return set[i / 64] >> (i % 64) & 1;
}
static inline void bit_clear(uint64_t *set, size_t i)
{
	set[i / 64] &= ~(1ULL << (i % 64));
}
/* By words: few nodes among thousands cost little. The body may clear the bit of its node. */
#define EACH_FIT(i, st) \
	for (size_t i##_word = 0; i##_word < (st)->words; i##_word++) \
		for (uint64_t i##_bits = (st)->fits[i##_word]; i##_bits; i##_bits &= i##_bits - 1) \
			for (size_t i = i##_word * 64 + (size_t)__builtin_ctzll(i##_bits), \
				    i##_once = 1; \
				i##_once; i##_once = 0)

enum cluster_event {               /* what can make a refused pod fit */
	EVENT_NODE = 1 << 0,       /* added; allocatable, labels, taints or unschedulable changed */
	EVENT_POD_GONE = 1 << 1,   /* room and ports became free */
	EVENT_POD_UPDATE = 1 << 2, /* the pod itself changed */
	EVENT_POD_PLACED = 1 << 3, /* another pod came to a node */
	EVENT_VOLUME = 1 << 4,     /* a claim, volume or class */
};

/* Refusals of a node are counted by text: refuse() is called once for each reason of a node. */
#define REASONS_MAX 32
struct refusals {
	struct {
		char text[128];
		size_t n;
	} reasons[REASONS_MAX];
	size_t len;
};
void refuse(struct refusals *r, const char *reason);
struct plugin {
	const char *name;
	uint32_t events;
	/* Clears the bit of each node that cannot take the pod and tells why. NULL: does not filter. */
	void (*filter)(struct state *st, struct refusals *r);
	/* Fills st->raw for the nodes that fit; NULL: does not score. */
	void (*score)(struct state *st);
	bool (*scores)(const struct state
			*st); /* false: every node alike, score is not asked; NULL: always */
	enum {
		SCORE_PLAIN,
		SCORE_NORMALIZE,
		SCORE_REVERSE,
		SCORE_RANGE
	} shape; /* PLAIN: 0..100 already; RANGE: from lowest to highest;
	                                  * else scaled by the highest */
	int weight;
	bool preemptable; /* a pod less on the node may change what it says */
};
extern const struct plugin *const plugins[];
extern const size_t n_plugins;
extern const struct plugin node_unschedulable, node_name_plugin, taint_toleration, node_affinity,
	node_ports, resources_fit, balanced_allocation, inter_pod_affinity, pod_topology_spread,
	volume_binding;
/* Tells the provisioners of the pod's unbound claims which node was chosen. Without the lock. */
int volume_claims_select(const struct nodes *t, struct client *client,
	const struct core_v1_pod *pod, const char *node, struct err *err);

struct verdict {
	size_t node;         /* NO_NODE: none fits */
	uint32_t refused_by; /* bits of `plugins` */
	char *message;       /* owned; set when none fits */
};
/* Needs the lock. */
void decide(struct nodes *nodes, const struct core_v1_pod *pod, const struct requests *q,
	const struct pod_terms *terms, uint64_t *seed, struct verdict *ret);
uint64_t next_random(uint64_t *seed);

/* ---- preemption: preempt.c ---- */
struct budget {
	const struct policy_v1_pod_disruption_budget *pdb;
	struct selector *selector;
	int32_t left; /* scratch */
};
struct preempting {
	struct nodes *nodes;
	const struct core_v1_pod *pod;
	int32_t priority;
	const struct requests *requests;
	const struct pod_terms *terms;
	struct budget *budgets;
	size_t n_budgets;
};
/* The node, NO_NODE when nothing helps, and its victims (owned array). Needs the lock. */
size_t preempt(
	struct preempting *w, uint64_t *seed, struct sched_pod ***ret_victims, size_t *ret_n);

/* ---- queue: active pods by priority and age, others until an event or a time ---- */
struct queue {
	struct heap active, backoff;
	struct list parked;
	uint64_t next; /* queued_at */
};
void queue_init(struct queue *q);
void queue_deinit(struct queue *q);
void queue_add(struct queue *q, struct sched_pod *p); /* to active */
void queue_remove(struct queue *q, struct sched_pod *p);
struct sched_pod *queue_pop(struct queue *q); /* NULL: none active */
/* After a refusal: waits for an event of a plugin that refused. */
void queue_park(struct queue *q, struct sched_pod *p, uint32_t refused_by);
/* Parked pods that one of these events may help: to active, or to back-off while that lasts. */
void queue_wake(struct queue *q, struct sched_pod *p, uint32_t events, uint64_t now_ns);
void queue_wake_all(struct queue *q, uint32_t events, uint64_t now_ns);
uint64_t queue_expire(struct queue *q,
	uint64_t now_ns); /* ends back-offs; returns when the next one ends, 0: none */
uint64_t backoff_ns(uint32_t attempts); /* 1 s doubling to 10 s */

#endif
