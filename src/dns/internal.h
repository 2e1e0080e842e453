/* Shared by dns.c (sockets), forward.c (other names) and answer.c (names of the cluster). */
#ifndef SKIFF_DNS_INTERNAL_H
#define SKIFF_DNS_INTERNAL_H

#include <arpa/inet.h>
#include <libknot/libknot.h>

#include "base/map.h"
#include "dns/dns.h"
#include "io/io.h"

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
	/* For reverse names: services with this address, and all that are headless. */
	void (*at_address)(void *arg, struct str ip, struct cached_list *ret);
	void (*headless)(void *arg, struct cached_list *ret);
	void *arg;
};

/* reply was begun from query (knot_pkt_init_response). */
enum dns_outcome dns_answer(const struct dns_source *src, const char *domain,
	const knot_pkt_t *query, knot_pkt_t *reply, knot_dname_storage_t ret_alias);

/* ---- sockets ---- */
#define UPSTREAMS_MAX 3

struct dns {
	struct dns_config c;
	struct dns_source source;
	struct loop *loop;
	int udp, tcp;
	struct fd_watch *udp_watch, *tcp_watch;
	struct sockaddr_in upstreams[UPSTREAMS_MAX];
	size_t n_upstreams;
	struct list forwards, connections;
	size_t n_forwards, n_connections;
	bool synced; /* the caches were filled once: what they lack is not there */
};

/* Where an answer goes: back over UDP, or into a connection. */
struct connection;
struct asker {
	struct sockaddr_in address;
	struct connection *connection; /* NULL: UDP */
	uint16_t limit;                /* bytes of an answer of ours */
	uint16_t takes;                /* bytes that it says it takes */
};
knot_pkt_t *dns_begin_reply(const knot_pkt_t *query, uint16_t limit);
void dns_send(struct dns *d, const struct asker *to, const knot_pkt_t *reply);
void dns_send_rcode(struct dns *d, const struct asker *to, const knot_pkt_t *query, uint8_t rcode);
void dns_hold(struct connection *
		c); /* NULL: nothing; as long as it is held, answers may be sent to it, if only to find it closed */
void dns_release(struct connection *c);

/* ---- forwarding ---- */
/* Takes query over. target: of an alias, whose records follow it; NULL: the query as it is. */
void forward_start(
	struct dns *d, const struct asker *to, knot_pkt_t *query, const knot_dname_t *target);
void forwards_free(struct dns *d);

#endif
