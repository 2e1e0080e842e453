/* The pod network between nodes, and who may talk on it: routes to the other nodes' pods, NetworkPolicy, host ports, a cache of flows. Upstream's counterparts: the
 * cloud's route controller or a CNI plugin's daemon, and the portmap plugin.
 *
 * 1. Every node takes care of its own kernel alone, from what the API shows; nodes do not talk to each other.
 * 2. Nothing is touched that is not ours: routes carry protocol number 83, the link is skiff.vxlan, the tables are "inet skiff_policy" and
 *    "ip skiff_host_ports", the programs on links skiff_in and skiff_out.
 * 3. What is in the kernel stays there when the agent ends, and is compared with what should be there when it is back.
 * 4. A policy is in force before a pod's first instruction: whoever starts containers calls network_pod_ready between making the sandbox and
 *    starting the first one, and starts none when it fails. */
#ifndef SKIFF_NETWORK_H
#define SKIFF_NETWORK_H

#include "client/client.h"
#include "gen/types.h"

enum network_mode {
	NETWORK_AUTO,   /* a route where the other node is on a link of ours, VXLAN elsewhere */
	NETWORK_ROUTES, /* routes alone */
	NETWORK_VXLAN,  /* VXLAN to all */
	NETWORK_NONE,   /* others lead to pods of other nodes: no route, no link of ours */
};
/* auto, routes, vxlan; cni: CNI plugins attach pods and lead to other nodes, cni+auto and the like: they attach pods alone, with addresses of the node's
 * spec.podCIDR. auto never becomes cni by itself: a configuration that lies about from another program (podman brings one) would be another network. */
int network_mode_parse(const char *text, enum network_mode *ret, bool *ret_cni, struct err *err);
/* What pods' links may carry: the MTU of the link with node_ip, less VXLAN's 50 unless the mode is routes. 0: unknown. */
int network_pod_mtu(enum network_mode mode, const char *node_ip);

struct network_config {
	struct client *client;
	const char *node_name, *node_ip;
	const char *pod_cidr;     /* of this node */
	const char *service_cidr; /* no node's pods may be there; NULL: not known */
	bool plugins;             /* CNI plugins attach its pods, and serve their host ports */
	const char *
		dns_address; /* of the cluster DNS, which policies see as a pod of kube-system with the label k8s-app=kube-dns */
	enum network_mode mode;
	uint16_t vxlan_port; /* 0: 8472 */
	/* Each packet of a TCP connection of a pod takes the kernel's whole way, not only one in 100 ms; so it is with plugins in any case. */
	bool no_flow_cache;
	/* The API gave this node another range than pod_cidr: it was deleted and made again. From then on it is the one. May be NULL. */
	void (*pod_cidr_changed)(void *arg, const char *cidr);
	void *arg;
};
struct network;
int network_new(const struct network_config *c, struct network **ret, struct err *err);
int network_start(struct network *n,
	struct err
		*err); /* needs no API server yet: what is in the kernel stays until it answers */
void network_stop(struct network *n);
void network_free(struct network *n);
/* Puts the policies that select the pod, and its host ports, in force for its address. Waits until the policies are known; an error when they are not
 * within 10 s. Safe to repeat. From any thread. */
int network_pod_ready(struct network *n, const struct core_v1_pod *pod, const char *ip,
	const char *second_ip,
	struct err *err); /* second_ip: of the other family; empty or NULL: none */
/* Whoever makes a pod's link calls this before the link is up. Needs nobody's answer; never fails: at worst the link's packets go without the flow cache. */
void network_link_made(struct network *n, const char *link);
void network_pod_gone(
	struct network *n, struct str uid); /* its sandbox is gone; unknown: nothing */
int network_cleanup(struct err *err);       /* removes routes, link, programs and tables of ours */
#endif
