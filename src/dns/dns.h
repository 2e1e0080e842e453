/* Names of services and pods of the cluster -> answers, over UDP and TCP. Upstream's counterpart: CoreDNS' kubernetes plugin.
 * https://github.com/kubernetes/dns/blob/master/docs/specification.md */
#ifndef SKIFF_DNS_H
#define SKIFF_DNS_H

#include "client/services.h"

struct dns_config {
	struct service_view
		*view; /* shared; the owner starts it after this part was made, and stops it last */
	const char *address;   /* to listen on; the cluster DNS address, on a link of the node */
	int port;              /* 53 */
	const char *domain;    /* cluster.local */
	const char *upstreams; /* "1.1.1.1,8.8.8.8"; NULL: from /etc/resolv.conf */
	int udp_fd, tcp_fd; /* of a predecessor (dns_sockets), with what waits in them; 0: none */
};
struct dns;
int dns_new(const struct dns_config *c, struct dns **ret, struct err *err);
int dns_start(struct dns *d, struct err *err);
void dns_sockets(const struct dns *d, int *ret_udp, int *ret_tcp); /* once it was started */
void dns_stop(struct dns *d); /* whoever asks from now on is refused at once */
void dns_free(struct dns *d);
#endif
