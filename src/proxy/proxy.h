/* Service traffic by nftables maps in one table of our own ("inet skiff_proxy"). Upstream: kube-proxy. */
#ifndef SKIFF_PROXY_H
#define SKIFF_PROXY_H

#include "client/services.h"

struct proxy_config {
	struct client *client; /* for this node's zone; NULL: it has none */
	struct loop *loop;     /* answers at healthCheckNodePort; NULL: nobody does */
	struct service_view
		*view; /* shared; the owner starts it after this part was made, and stops it last */
	const char *node_name, *node_ip;
	const char *cluster_cidr, *service_cidr; /* pods of all nodes; services. NULL: unknown */
	const char *
		dns_address; /* of the cluster DNS, on the node itself: no service takes it; NULL: none */
};
struct proxy;
int proxy_new(const struct proxy_config *c, struct proxy **ret, struct err *err);
int proxy_start(struct proxy *p, struct err *err);
void proxy_stop(struct proxy *p); /* rules stay: traffic goes on */
void proxy_free(struct proxy *p);
int proxy_cleanup(struct err *err); /* removes the table */
#endif
