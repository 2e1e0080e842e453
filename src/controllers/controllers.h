/* The controller manager: one file a controller, one row each in `controllers`. Upstream: kube-controller-manager. */
#ifndef SKIFF_CONTROLLERS_H
#define SKIFF_CONTROLLERS_H

#include "client/client.h"

struct controllers_config {
	struct client *client;
	struct informers *
		informers; /* shared with other components of the process; started by the owner after controllers_new */
	const struct clock *clock;
	struct str ca_pem; /* for kube-root-ca.crt */
	struct str signing_ca_cert_pem,
		signing_ca_key_pem;   /* CertificateSigningRequests; empty: not signed here */
	int64_t certificate_life_s;   /* the most that a signed one gets; 0: a year */
	const char *cluster_cidr;     /* node IPAM: /24 a node; NULL: none */
	int64_t node_monitor_grace_s; /* 0: 50 */
	bool node_load_balancers;     /* services of type LoadBalancer get the nodes' addresses */
	const char *own_node;         /* the node on this very machine; NULL: none */
};
struct controllers;
int controllers_new(const struct controllers_config *c, struct controllers **ret,
	struct err *err);                                       /* registers its informers */
int controllers_start(struct controllers *cs, struct err *err); /* waits for caches, then works */
void controllers_stop(struct controllers *cs);
void controllers_free(struct controllers *
		cs); /* after controllers_stop and after the informers were freed: their handlers lead here */
/* Keeps the endpoints of service default/kubernetes: the API servers' addresses in Endpoints and EndpointSlice. Blocking. */
int controllers_publish_apiservers(
	struct client *c, const char *const *ips, size_t n, int port, struct err *err);
#endif
