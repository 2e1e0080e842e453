/* From a service and its endpoint slices to elements of nftables maps, and the difference between two such lists. Pure; proxy.c does the rest. */
#ifndef SKIFF_PROXY_INTERNAL_H
#define SKIFF_PROXY_INTERNAL_H

#include "base/map.h"
#include "gen/types.h"
#include "io/io.h"
#include "proxy/proxy.h"

#define PROXY_TABLE "inet skiff_proxy"
/* A mark is the number of the endpoint that was drawn or is remembered, and what else is to be done. From here on: flows from outside that may go to any
 * node; their source is hidden so that answers come back this way. */
#define MARK_MASQUERADE 0x10000
/* Of flows from outside that stay on this node and keep their source. */
#define MARK_LOCAL 0x20000

/* Services with this annotation are answered by something on the node itself (cluster DNS): not ours. */
#define PROXY_SKIP_ANNOTATION "skiff.dev/served-by-node"

struct element {
	const char *set;       /* name of the map or set */
	struct str key, value; /* value empty: a set's element */
	size_t front;          /* of the rules; NO_FRONT: it clashes with nobody's */
};
#define NO_FRONT SIZE_MAX
/* Address, protocol and port at which a service is reached; several may want one, the first of this order has it (claims.c). */
enum front_rank { FRONT_API_SERVER, FRONT_CLUSTER_IP, FRONT_OTHER };
struct front {
	struct str key; /* "10.43.0.1 . tcp . 443"; a node port: "tcp . 30080" */
	enum front_rank rank;
	bool held; /* only the elements of held ones are the kernel's */
};
struct target { /* an endpoint of one port */
	struct str ip;
	uint32_t address;
	int32_t port;
	unsigned hints;
	bool local;
	uint32_t number; /* with ClientIP affinity, from 1 (affinity.c); 0: none was left */
};
struct targets {
	struct target *items;
	size_t len;
};
struct numbered { /* endpoints of one port of a service, with their numbers */
	int32_t port;
	const char *protocol;
	struct targets all;
};
struct rules { /* of one service; texts live in the arena */
	struct arena *arena;
	struct timestamp created;
	struct element *items;
	size_t len;
	struct front *fronts;
	size_t n_fronts;
	struct map *known; /* keys of fronts, while they are built */
	uint32_t *counts;  /* numbers of endpoints that need a chain, with the kind's bit */
	size_t n_counts;
	struct shared_chain { /* of loadBalancerSourceRanges, by content; of affinity, by timeout too */
		struct str name, text;
	} * shared;
	size_t n_shared;
	struct numbered *numbered;
	size_t n_numbered;
	int health_port; /* 0: none */
	size_t ready_local;
	bool cut; /* it wants more than RULES_MOST elements, and gets no more */
};
#define RULES_MOST 200000
/* Chains are one for each number of endpoints (and timeout of affinity), never for a service; these bits tell them apart. */
enum {
	CHAIN_NODE = 1U << 25,  /* at a port of any address of the node */
	CHAIN_OUT = 1U << 26,   /* MARK_MASQUERADE */
	CHAIN_LOCAL = 1U << 27, /* MARK_LOCAL */
	CHAIN_COUNT = (1U << 24) - 1
};

struct proxy_node { /* this one */
	const char *name;
	struct str zone; /* empty: unknown */
};

/* ---- endpoints of one port (targets.c) ---- */
#define TARGETS_MOST MARK_MASQUERADE /* numbers of endpoints are below the marks' bits */
struct port_targets {
	struct targets everywhere, /* all that may be asked */
		cluster,           /* of them, those that are for this node */
		local;             /* of this node */
	size_t ready_local;
};
struct port_targets targets_find(struct arena *a,
	const struct discovery_v1_endpoint_slice *const *slices, size_t n,
	const struct core_v1_service_port *p, const struct proxy_node *node);
const char *protocol_text(struct str p);
/* Slices are written by hand too, and the API server may be of another make: one element that nftables refuses would be the end of all rules, and a
 * packet sent to a loopback address ends at what listens on the node alone. */
bool may_be_sent_to(struct str ip, uint32_t *ret);

/* was: the same service's until now, by which endpoints keep their numbers; NULL: none. */
void rules_build(struct rules *r, const struct core_v1_service *s,
	const struct discovery_v1_endpoint_slice *const *slices, size_t n_slices,
	const struct proxy_node *node, const struct rules *was);
uint32_t mark_of(uint32_t kind);
void chain_kind_name(uint32_t count, struct buf *out); /* "node_out_" */
void chain_name(uint32_t count, struct buf *out);
void chain_write(uint32_t count, struct buf *out); /* add chain + its rules */

/* ---- sessionAffinity ClientIP (affinity.c) ---- */
uint32_t affinity_timeout(const struct core_v1_service *s); /* seconds; 0: no affinity */
void affinity_number(struct rules *r, const struct rules *was, const struct core_v1_service_port *p,
	struct port_targets *t);
void affinity_chain_name(uint32_t count, uint32_t timeout, struct buf *out);
void affinity_chain_write(uint32_t count, uint32_t timeout, struct buf *out);

struct table_config {
	const char *dns_address;                 /* NULL: none to keep */
	const char *cluster_cidr, *service_cidr; /* NULL: unknown */
};
/* The empty table with all its maps and hooks, in place of what is there. chains: names of those that are there; whom affinity remembers stays
 * remembered. NULL: nothing of the table is kept. */
void table_write(const struct table_config *c, const struct str_list *chains, struct buf *out);
bool table_chains(struct arena *a, struct str_list *ret); /* false: no table is there */

/* ---- a port with short answers (small_http.c): all on the loop ---- */
/* Adds header lines and a body; returns 200, 404 or 503. */
typedef int (*small_http_fn)(void *arg, struct str path, struct buf *headers, struct buf *body);
struct small_http;
int small_http_new(struct loop *l, const char *host, int port, small_http_fn fn, void *arg,
	struct small_http **ret, struct err *err);
void small_http_free(struct small_http *h); /* ends its clients too */

/* ---- what load balancers ask (health.c); from any thread ---- */
struct health;
/* healthz, status: ADDRESS:PORT of the proxy's own health and of /proxyMode; NULL or "off": nobody is told. */
int health_new(struct loop *l, const struct clock *clock, const char *healthz, const char *status,
	struct health **ret, struct err *err);
void health_free(struct health *h);                  /* its loop must still run */
void health_waits(struct health *h);                 /* a change is to be written */
void health_updated(struct health *h);               /* all are */
void health_leaving(struct health *h, bool leaving); /* this node is about to go */
/* healthCheckNodePort. port 0: none (any more). local: how many ready endpoints of the service are here. */
void health_set(struct health *h, struct str key, int port, size_t local);

/* ---- UDP flows that lead nowhere any more (flows.c) ---- */
struct flows { /* of services that changed: where they are asked, and who may answer there */
	struct map places, answers;
};
void flows_add(
	struct flows *f, const struct rules *was, const struct rules *now); /* either may be NULL */
void flows_forget(struct flows *f); /* those that nobody right answers; empties f */
void flows_deinit(struct flows *f);

/* ---- who has a front, of the services that want it (claims.c): by rank, then the older service, so that nobody takes another's by naming it ---- */
struct claims {
	struct map fronts;
};
/* Service key's wishes change from was to now (either may be NULL): sets held of now's, and tells who else got or lost one, once for each. */
void claims_change(struct claims *c, struct str key, const struct rules *was, struct rules *now,
	void (*moved)(void *arg, struct str key), void *arg);
void claims_deinit(struct claims *c);

#define N_COSTLY 2

/* What the kernel has: "set key" -> value and how many services put it there. */
struct applied {
	struct map elements; /* -> struct applied_element */
	struct map chains;   /* by name; never removed: there is one a number, not one a service */
	struct map shared;   /* shared chains, by name -> how many services use it */
	size_t costly[N_COSTLY]; /* elements for which chains are needed that see every packet */
};
/* Turns `was` into `now` (either may be NULL): nft commands are appended to out, `a` is brought up to date. */
void rules_change(
	struct applied *a, const struct rules *was, const struct rules *now, struct buf *out);
void applied_deinit(struct applied *a);

#endif
