/* What the files of network share: routes.c (other nodes), policy*.c (NetworkPolicy), host_port.c; network.c runs them. */
#ifndef SKIFF_NETWORK_INTERNAL_H
#define SKIFF_NETWORK_INTERNAL_H

#include "base/map.h"
#include "linux/linux.h"
#include "network/network.h"

int cidr_read(struct str text, uint32_t *ret_ip,
	int *ret_prefix);                       /* host order, host bits cleared; -EINVAL */
int ip_read(struct str text, uint32_t *ret_ip); /* host order; -EINVAL: not IPv4 */

/* ---- routes to other nodes ---- */
#define ROUTE_PROTOCOL 83
#define VXLAN_LINK "skiff.vxlan"
#define VXLAN_VNI 1
#define VXLAN_OVERHEAD 50

struct peer { /* another node; addresses in host order */
	char name[64];
	uint32_t ip, pods;
	int prefix;
};
struct peers {
	struct peer *items;
	size_t len;
};
/* The other nodes that have both an address and pods of their own, and clash with nobody: items in the arena. Clashes are told to warn (may be NULL). */
typedef void (*warn_fn)(void *arg, const char *text);
struct peers peers_of(const struct network_config *c, const struct cached_list *nodes,
	struct arena *a, warn_fn warn, void *arg);
/* Makes the kernel's routes and VXLAN entries what peers say. Carries on past a failure and returns the first. */
int routes_apply(
	struct netlink *n, const struct network_config *c, const struct peers *p, struct err *err);
bool node_moved(
	const struct cached *old, const struct cached *now); /* what peers_of looks at differs */

/* ---- NetworkPolicy: policies, namespaces and pods -> nft commands. Pure, and not thread-safe. ----
 * A pod's address leads by a verdict map to a chain for the policies that select it (one chain for each combination in use, not for each pod), which
 * jumps to one chain a policy and drops what comes back. Whom a policy lets in is a set of addresses, shared by all rules with the same selectors. So
 * a pod that comes or goes is a few elements, a policy that changes is its own chain. */
#define POLICY_TABLE "inet skiff_policy"

struct policies;
struct policies *policies_new(const char *dns_address); /* NULL: none */
void policies_free(struct policies *p);
void policies_put_policy(struct policies *p, const struct networking_v1_network_policy *o);
void policies_remove_policy(struct policies *p, struct str key); /* "ns/name" */
void policies_put_namespace(struct policies *p, struct str name, const struct str_map *labels);
void policies_remove_namespace(struct policies *p, struct str name);
/* ip empty: not on the pod network (now); second: its address of the other family, or empty. local: runs here, so that policies are put in force for it. */
void policies_put_pod(struct policies *p, const struct core_v1_pod *pod, struct str ip,
	struct str second, bool local);
void policies_remove_pod(struct policies *p, struct str key);
bool policies_need_pods(const struct policies *p); /* some policy names pods of other nodes */
void policies_change(
	struct policies *p, struct buf *out); /* what the above changed since the last time */
void policies_write(struct policies *p, struct buf *out); /* the table anew with everything */

/* policy_rules.c: one direction of a policy as rules, without the chain. Sets of pods are asked for by `pods` (nssel NULL: only the namespace ns) and of
 * named ports by `ports`; both return the set's name. */
struct rule_sets {
	const char *(*pods)(void *arg, struct str ns,
		const struct meta_v1_label_selector *ns_selector,
		const struct meta_v1_label_selector *pod_selector);
	const char *(*ports)(void *arg, struct str names, const char *protocol); /* "http,admin" */
	void *arg;
};
void policy_ingress_rules(const struct networking_v1_network_policy *o,
	const struct rule_sets *sets, const char *chain, struct buf *out);
void policy_egress_rules(const struct networking_v1_network_policy *o, const struct rule_sets *sets,
	const char *chain, struct buf *out);
const char *protocol_name(struct str p); /* tcp, udp, sctp */

/* ---- host ports: as above ---- */
#define HOST_PORT_TABLE "ip skiff_host_ports"
struct host_ports;
struct host_ports *host_ports_new(void);
void host_ports_free(struct host_ports *h);
/* ip empty: none. true: the pod has some, so its link must carry loopback addresses once the change is in force. */
bool host_ports_put(struct host_ports *h, const struct core_v1_pod *pod, struct str ip);
void host_ports_remove(struct host_ports *h, struct str key);
void host_ports_change(struct host_ports *h, struct buf *out);
void host_ports_write(struct host_ports *h, struct buf *out);

/* ---- flow cache: what the kernel did with one packet of a TCP connection is done again to those that follow within FLOW_LIFE_MS, by programs on the links,
 * without asking routes, conntrack and rules again. flow_code.c has the programs, flow_cache.c puts them on links. ---- */
#define FLOW_LIFE_MS 100
#define FLOW_CODE_MAX 200

struct bpf_insn;
struct flow_maps {
	int flows, seen; /* descriptors of eBPF maps */
};
int flow_maps_new(struct flow_maps *ret, struct err *err);
/* The code of one side; returns its length. */
size_t flow_code(enum link_side side, const struct flow_maps *m, struct bpf_insn *ret);

struct flow_cache;
int flow_cache_new(struct flow_cache **ret, struct err *err);
void flow_cache_free(struct flow_cache *f); /* what is on links stays there, and works */
/* On a pod's link that is not up yet. */
int flow_cache_link(struct flow_cache *f, struct netlink *n, const char *name, struct err *err);
/* Puts the programs on the links of this node's pods and on those that lead to other nodes and out. -ENOENT: the kernel cannot. */
int flow_cache_apply(struct flow_cache *f, struct netlink *n, const struct network_config *c,
	const struct peers *peers, struct err *err);
int flow_cache_remove(
	struct netlink *n, struct err *err); /* from all links, whoever put them there */

#endif
