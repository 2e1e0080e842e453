/* From a service and its endpoint slices to elements of nftables maps, and the difference between two such lists. Pure; proxy.c does the rest. */
#ifndef SKIFF_PROXY_INTERNAL_H
#define SKIFF_PROXY_INTERNAL_H

#include "base/map.h"
#include "gen/types.h"
#include "proxy/proxy.h"

#define PROXY_TABLE "inet skiff_proxy"
/* Marks from here on are of flows through a node port to any node: their source is hidden so that answers come back this way. */
#define MARK_MASQUERADE 0x10000

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
	bool cut; /* it wants more than RULES_MOST elements, and gets no more */
};
#define RULES_MOST 200000
/* Chains are one for each number of endpoints, never for a service; these bits tell them apart. */
enum {
	CHAIN_STICKY = 1U << 24,
	CHAIN_NODE = 1U << 25,
	CHAIN_NODE_LOCAL = 1U << 26,
	CHAIN_COUNT = CHAIN_STICKY - 1
};

void rules_build(struct rules *r, const struct core_v1_service *s,
	const struct discovery_v1_endpoint_slice *const *slices, size_t n_slices,
	const char *node_name);
void chain_name(uint32_t count, struct buf *out);
void chain_write(uint32_t count, struct buf *out); /* add chain + its rules */
void table_write(const char *dns_address,
	struct
	buf *out); /* the empty table with all its maps and hooks; dns_address NULL: none to keep */

/* ---- who has a front, of the services that want it (claims.c): by rank, then the older service, so that nobody takes another's by naming it ---- */
struct claims {
	struct map fronts;
};
/* Service key's wishes change from was to now (either may be NULL): sets held of now's, and tells who else got or lost one, once for each. */
void claims_change(struct claims *c, struct str key, const struct rules *was, struct rules *now,
	void (*moved)(void *arg, struct str key), void *arg);
void claims_deinit(struct claims *c);

/* What the kernel has: "set key" -> value and how many services put it there. */
struct applied {
	struct map elements; /* -> struct applied_element */
	struct map chains;   /* by name; never removed: there is one a number, not one a service */
};
/* Turns `was` into `now` (either may be NULL): nft commands are appended to out, `a` is brought up to date. */
void rules_change(
	struct applied *a, const struct rules *was, const struct rules *now, struct buf *out);
void applied_deinit(struct applied *a);

#endif
