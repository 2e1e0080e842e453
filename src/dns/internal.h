/* Shared by dns.c (sockets) and answer.c (names). */
#ifndef SKIFF_DNS_INTERNAL_H
#define SKIFF_DNS_INTERNAL_H

#include <libknot/libknot.h>

#include "dns/dns.h"

#define DNS_TTL 5 /* seconds; endpoints change often */
#define DNS_UDP_MAX 1232

enum dns_outcome {
	DNS_ANSWERED, /* reply is complete: answers, no data, or no such name */
	DNS_FORWARD,  /* not a name of the cluster */
	DNS_FORWARD_ALIAS, /* reply holds a CNAME to ret_alias, a name outside; its addresses belong behind it */
};

/* Where names come from; a table of functions so that tests give their own. */
struct dns_source {
	struct cached *(*service)(void *arg, struct str key); /* "ns/name"; a reference or NULL */
	void (*slices)(void *arg, struct str key, struct cached_list *ret);
	void (*services)(void *arg, struct cached_list *ret); /* all, for reverse names */
	void *arg;
};

/* reply was begun from query (knot_pkt_init_response). */
enum dns_outcome dns_answer(const struct dns_source *src, const char *domain,
	const knot_pkt_t *query, knot_pkt_t *reply, knot_dname_storage_t ret_alias);

#endif
