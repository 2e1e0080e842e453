/* Service traffic by nftables maps in one table of our own ("inet skiff_proxy"). Upstream: kube-proxy. */
#ifndef SKIFF_PROXY_H
#define SKIFF_PROXY_H

#include "client/services.h"

struct proxy_config {
	struct client *client; /* for this node's zone and its end; NULL: it has none */
	struct loop
		*loop; /* answers at healthCheckNodePort and at the two below; NULL: nobody does */
	/* ADDRESS:PORT of upstream's 10256 (/healthz, /livez) and 10249 (/proxyMode), which ask nobody who he is; NULL or "off": none. */
	const char *healthz_address, *status_address;
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
void proxy_stop(struct proxy *p);   /* rules stay: traffic goes on */
void proxy_free(struct proxy *p);   /* the loop must still run */
int proxy_cleanup(struct err *err); /* removes the table */
#endif
