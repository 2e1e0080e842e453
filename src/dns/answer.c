/* Names of the cluster, as the specification of DNS-based service discovery has them:
 *   SERVICE.NS.svc.DOMAIN              its address; a headless service's ready endpoints; an ExternalName's alias
 *   HOST.SERVICE.NS.svc.DOMAIN         one endpoint, by its hostname or its address with dashes
 *   _PORT._PROTO.SERVICE.NS.svc.DOMAIN SRV
 *   1-2-3-4.NS.pod.DOMAIN              1.2.3.4
 *   4.3.2.1.in-addr.arpa               PTR of a service's address or an endpoint with a hostname
 * Source: https://github.com/kubernetes/dns/blob/master/docs/specification.md, version 1.1.0. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>

#include "dns/internal.h"

#define LABELS_MAX 32
#define ALIASES_MAX 8
#define SCHEMA_VERSION "1.1.0"

struct question {
	const struct dns_source *src;
	const char *domain;
	uint16_t type;
	const knot_dname_t *name;
	char text[KNOT_DNAME_TXT_MAXLEN + 1];
	struct str labels[LABELS_MAX]; /* in lower case, first label first, the domain cut off */
	size_t n;
	knot_pkt_t *reply;
	struct arena *arena;
	bool found;  /* the name exists, whatever its records */
	int aliases; /* followed so far */
};

/* ---- records ---- */

static void put(struct question *q, const knot_dname_t *owner, uint16_t type, const uint8_t *data,
	uint16_t len)
{
	knot_rrset_t rr;

	knot_rrset_init(&rr, knot_dname_copy(owner, NULL), type, KNOT_CLASS_IN, DNS_TTL);
	if (knot_rrset_add_rdata(&rr, data, len, NULL) != KNOT_EOK ||
		knot_pkt_put(q->reply, KNOT_COMPR_HINT_NONE, &rr, KNOT_PF_FREE) != KNOT_EOK)
		knot_rrset_clear(&rr, NULL); /* no room: libknot has set the truncation bit */
}

static void put_address(struct question *q, const knot_dname_t *owner, struct str ip)
{
	char text[INET6_ADDRSTRLEN];
	uint8_t bytes[16];

	if (ip.len >= sizeof(text))
		return;
	memcpy(text, ip.p, ip.len);
	text[ip.len] = 0;
	if ((q->type == KNOT_RRTYPE_A || q->type == KNOT_RRTYPE_SRV ||
		    q->type == KNOT_RRTYPE_ANY) &&
		inet_pton(AF_INET, text, bytes) == 1)
		put(q, owner, KNOT_RRTYPE_A, bytes, 4);
	else if ((q->type == KNOT_RRTYPE_AAAA || q->type == KNOT_RRTYPE_SRV ||
			 q->type == KNOT_RRTYPE_ANY) &&
		inet_pton(AF_INET6, text, bytes) == 1)
		put(q, owner, KNOT_RRTYPE_AAAA, bytes, 16);
}

static void put_name(
	struct question *q, const knot_dname_t *owner, uint16_t type, const char *target)
{
	knot_dname_storage_t name;

	if (knot_dname_from_str(name, target, sizeof(name)))
		put(q, owner, type, name, (uint16_t)knot_dname_size(name));
}

static void put_srv(struct question *q, int32_t port, const char *target)
{
	uint8_t data[6 + KNOT_DNAME_MAXLEN] = { 0, 0, 0, 100, (uint8_t)(port >> 8),
		(uint8_t)port }; /* priority 0, weight 100 */

	if (knot_dname_from_str(data + 6, target, KNOT_DNAME_MAXLEN))
		put(q, q->name, KNOT_RRTYPE_SRV, data, (uint16_t)(6 + knot_dname_size(data + 6)));
}

static void put_soa(struct question *q)
{
	knot_dname_storage_t zone, primary, mailbox;
	uint8_t data[2 * KNOT_DNAME_MAXLEN + 20];
	const uint32_t numbers[] = { (uint32_t)time_now().sec, 7200, 1800, 86400, DNS_TTL };
	char name[300];
	size_t n;

	if (!knot_dname_from_str(zone, q->domain, sizeof(zone)))
		return;
	snprintf(name, sizeof(name), "ns.dns.%s", q->domain);
	knot_dname_from_str(primary, name, sizeof(primary));
	snprintf(name, sizeof(name), "hostmaster.%s", q->domain);
	knot_dname_from_str(mailbox, name, sizeof(mailbox));
	n = knot_dname_size(primary);
	memcpy(data, primary, n);
	memcpy(data + n, mailbox, knot_dname_size(mailbox));
	n += knot_dname_size(mailbox);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++, n += 4)
		knot_wire_write_u32(data + n, numbers[i]);
	put(q, zone, KNOT_RRTYPE_SOA, data, (uint16_t)n);
}

/* ---- endpoints ---- */

static bool published(const struct core_v1_service *s, const struct discovery_v1_endpoint *e)
{
	return s->spec.publish_not_ready_addresses || !e->conditions.ready.set ||
		e->conditions.ready.value;
}

/* The label under which an endpoint stands below its service. */
static struct str endpoint_label(struct question *q, const struct discovery_v1_endpoint *e)
{
	struct str s;
	char *p;

	if (e->hostname.len)
		return e->hostname;
	s = arena_str(q->arena, e->addresses.items[0]);
	for (p = (char *)s.p; *p; p++)
		if (*p == '.' || *p == ':')
			*p = '-';
	return s;
}

typedef void (*endpoint_fn)(struct question *q, const struct core_v1_service *s,
	const struct discovery_v1_endpoint_slice *slice, const struct discovery_v1_endpoint *e);

static void each_endpoint(
	struct question *q, struct str key, const struct core_v1_service *s, endpoint_fn fn)
{
	struct cached_list list;

	q->src->slices(q->src->arg, key, &list);
	for (size_t i = 0; i < list.len; i++) {
		const struct discovery_v1_endpoint_slice *slice = list.items[i]->obj;

		/* Once the reply is full the rest cannot matter: anybody may have a service of many thousands. */
		LIST_EACH(e, &slice->endpoints) {
			if (e->addresses.len && published(s, e) &&
				!knot_wire_get_tc(q->reply->wire))
				fn(q, s, slice, e);
		}
	}
	cached_list_deinit(&list);
}

static void add_endpoint_address(struct question *q, const struct core_v1_service *s,
	const struct discovery_v1_endpoint_slice *slice, const struct discovery_v1_endpoint *e)
{
	q->found = true;
	LIST_EACH(ip, &e->addresses)
		put_address(q, q->name, *ip);
}

static void add_endpoint_named(struct question *q, const struct core_v1_service *s,
	const struct discovery_v1_endpoint_slice *slice, const struct discovery_v1_endpoint *e)
{
	if (str_eq(endpoint_label(q, e), q->labels[0]))
		add_endpoint_address(q, s, slice, e);
}

static bool same_protocol(struct str label, struct str protocol)
{
	/* label: _tcp; protocol: TCP, or empty */
	if (!protocol.len)
		protocol = STR("TCP");
	if (label.len != protocol.len + 1 || label.p[0] != '_')
		return false;
	for (size_t i = 0; i < protocol.len; i++)
		if (label.p[i + 1] != tolower((unsigned char)protocol.p[i]))
			return false;
	return true;
}

static bool same_port(struct str label, struct str name)
{
	return label.len == name.len + 1 && label.p[0] == '_' && str_eq(str_from(label, 1), name);
}

static void add_endpoint_srv(struct question *q, const struct core_v1_service *s,
	const struct discovery_v1_endpoint_slice *slice, const struct discovery_v1_endpoint *e)
{
	LIST_EACH(p, &slice->ports) {
		struct str target;

		if (!same_port(q->labels[0], p->name) ||
			!same_protocol(q->labels[1], p->protocol) || !p->port.set)
			continue;
		q->found = true;
		target = arena_fmt(q->arena, STR_FMT "." STR_FMT "." STR_FMT ".svc.%s",
			STR_ARG(endpoint_label(q, e)), STR_ARG(s->metadata.name),
			STR_ARG(s->metadata.namespace), q->domain);
		if (q->type == KNOT_RRTYPE_SRV || q->type == KNOT_RRTYPE_ANY)
			put_srv(q, p->port.value, target.p);
	}
}

/* ---- services ---- */

static bool headless(const struct core_v1_service *s)
{
	return str_eqz(s->spec.cluster_ip, "None");
}

static void service_srv(struct question *q, struct str key, const struct core_v1_service *s)
{
	struct str target = arena_fmt(q->arena, STR_FMT "." STR_FMT ".svc.%s",
		STR_ARG(s->metadata.name), STR_ARG(s->metadata.namespace), q->domain);
	knot_dname_storage_t owner;

	if (headless(s)) {
		each_endpoint(q, key, s, add_endpoint_srv);
		return;
	}
	LIST_EACH(p, &s->spec.ports) {
		if (!same_port(q->labels[0], p->name) || !same_protocol(q->labels[1], p->protocol))
			continue;
		q->found = true;
		if (q->type != KNOT_RRTYPE_SRV && q->type != KNOT_RRTYPE_ANY)
			continue;
		put_srv(q, p->port, target.p);
		knot_pkt_begin(q->reply, KNOT_ADDITIONAL);
		if (knot_dname_from_str(owner, target.p, sizeof(owner)))
			put_address(q, owner, s->spec.cluster_ip);
		return;
	}
}

static bool split(struct question *q);
static enum dns_outcome service_name(struct question *q, knot_dname_storage_t ret_alias);

/* An alias that points into the cluster is followed here, one that points outside by the caller. */
static enum dns_outcome service_alias(
	struct question *q, const struct core_v1_service *s, knot_dname_storage_t ret_alias)
{
	struct str target = arena_fmt(q->arena, STR_FMT, STR_ARG(s->spec.external_name));
	struct question inner = *q;

	q->found = true;
	put_name(q, q->name, KNOT_RRTYPE_CNAME, target.p);
	if (q->type == KNOT_RRTYPE_CNAME ||
		!knot_dname_from_str(ret_alias, target.p, sizeof(knot_dname_storage_t)))
		return DNS_ANSWERED;
	inner.name = arena_memdup(q->arena, ret_alias, knot_dname_size(ret_alias));
	inner.n = 0;
	if (target.len >= sizeof(inner.text) || inner.aliases++ == ALIASES_MAX)
		return DNS_ANSWERED;
	memcpy(inner.text, target.p, target.len + 1);
	if (!split(&inner))
		return DNS_FORWARD_ALIAS;
	return inner.n && str_eqz(inner.labels[inner.n - 1], "svc")
		? service_name(&inner, ret_alias)
		: DNS_ANSWERED;
}

static enum dns_outcome service_addresses(struct question *q, struct str key,
	const struct core_v1_service *s, knot_dname_storage_t ret_alias)
{
	if (str_eqz(s->spec.type, "ExternalName"))
		return service_alias(q, s, ret_alias);
	q->found = true;
	if (headless(s))
		each_endpoint(q, key, s, add_endpoint_address);
	else
		LIST_EACH(ip, &s->spec.cluster_ips)
			put_address(q, q->name, *ip);
	return DNS_ANSWERED;
}

/* labels: [… SERVICE NS svc] */
static enum dns_outcome service_name(struct question *q, knot_dname_storage_t ret_alias)
{
	enum dns_outcome out = DNS_ANSWERED;
	struct cached *c;
	struct str key;

	if (q->n < 3) {
		q->found = true; /* "svc" and "NS.svc" hold names and have no records */
		return out;
	}
	key = arena_fmt(q->arena, STR_FMT "/" STR_FMT, STR_ARG(q->labels[q->n - 2]),
		STR_ARG(q->labels[q->n - 3]));
	c = q->src->service(q->src->arg, key);
	if (!c)
		return out;
	if (q->n == 3)
		out = service_addresses(q, key, c->obj, ret_alias);
	else if (q->n == 4 && q->labels[0].p[0] != '_')
		each_endpoint(q, key, c->obj, add_endpoint_named);
	else if (q->n == 4)
		q->found = true;
	else if (q->n == 5)
		service_srv(q, key, c->obj);
	cached_unref(c);
	return out;
}

/* 1-2-3-4.NS.pod: the address that the name itself says. */
static void pod_name(struct question *q)
{
	struct str ip;

	if (q->n < 3) {
		q->found = true;
		return;
	}
	if (q->n != 3)
		return;
	ip = arena_str(q->arena, q->labels[0]);
	for (char *p = (char *)ip.p; *p; p++)
		if (*p == '-')
			*p = '.';
	if (inet_addr(ip.p) == INADDR_NONE)
		return;
	q->found = true;
	put_address(q, q->name, ip);
}

/* ---- reverse ---- */

static bool reverse_address(const char *text, char out[INET_ADDRSTRLEN])
{
	unsigned b[4];
	int used = 0;

	if (sscanf(text, "%3u.%3u.%3u.%3u.in-addr.arpa%n", &b[3], &b[2], &b[1], &b[0], &used) !=
			4 ||
		!used)
		return false;
	if (text[used] && strcmp(text + used, "."))
		return false;
	for (int i = 0; i < 4; i++)
		if (b[i] > 255)
			return false;
	snprintf(out, INET_ADDRSTRLEN, "%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
	return true;
}

static void reverse_service(struct question *q, const struct core_v1_service *s, struct str host)
{
	q->found = true;
	if (q->type == KNOT_RRTYPE_PTR || q->type == KNOT_RRTYPE_ANY)
		put_name(q, q->name, KNOT_RRTYPE_PTR,
			arena_fmt(q->arena, STR_FMT "%s" STR_FMT "." STR_FMT ".svc.%s",
				STR_ARG(host), host.len ? "." : "", STR_ARG(s->metadata.name),
				STR_ARG(s->metadata.namespace), q->domain)
				.p);
}

/* The endpoints of a headless service have names of their own. */
static void reverse_endpoints(
	struct question *q, struct str key, const struct core_v1_service *s, const char *ip)
{
	struct cached_list slices;

	q->src->slices(q->src->arg, key, &slices);
	for (size_t i = 0; i < slices.len; i++) {
		const struct discovery_v1_endpoint_slice *slice = slices.items[i]->obj;

		LIST_EACH(e, &slice->endpoints)
			if (e->addresses.len && str_eqz(e->addresses.items[0], ip) &&
				e->hostname.len)
				reverse_service(q, s, e->hostname);
	}
	cached_list_deinit(&slices);
}

static bool reverse_name(struct question *q)
{
	char ip[INET_ADDRSTRLEN];
	struct cached_list all;

	if (!reverse_address(q->text, ip))
		return false;
	q->src->at_address(q->src->arg, str_of(ip), &all);
	for (size_t i = 0; i < all.len; i++)
		reverse_service(q, all.items[i]->obj, STR_NONE);
	cached_list_deinit(&all);
	if (q->found)
		return true;
	q->src->headless(q->src->arg, &all);
	for (size_t i = 0; i < all.len; i++)
		reverse_endpoints(q, all.items[i]->key, all.items[i]->obj, ip);
	cached_list_deinit(&all);
	return q->found;
}

/* ---- the question ---- */

/* Cuts the domain off and the rest into labels. false: not a name below the domain. */
static bool split(struct question *q)
{
	struct str name = str_of(q->text), domain = str_of(q->domain), head;

	if (name.len && name.p[name.len - 1] == '.')
		name.len--;
	if (!str_has_suffix(name, domain) ||
		(name.len > domain.len && name.p[name.len - domain.len - 1] != '.'))
		return false;
	name.len -= name.len > domain.len ? domain.len + 1 : domain.len;
	while (name.len) {
		if (q->n == LABELS_MAX)
			return true;
		str_cut(name, '.', &head, &name);
		q->labels[q->n++] = head;
	}
	return true;
}

static void version(struct question *q)
{
	static const uint8_t text[] = "\5" SCHEMA_VERSION;

	q->found = true;
	if (q->type == KNOT_RRTYPE_TXT || q->type == KNOT_RRTYPE_ANY)
		put(q, q->name, KNOT_RRTYPE_TXT, text, sizeof(text) - 1);
}

static enum dns_outcome answer(struct question *q, knot_dname_storage_t ret_alias)
{
	struct str last;

	if (!split(q))
		return reverse_name(q) ? DNS_ANSWERED : DNS_FORWARD;
	if (!q->n) {
		q->found = true;
		if (q->type == KNOT_RRTYPE_SOA)
			put_soa(q);
		return DNS_ANSWERED;
	}
	last = q->labels[q->n - 1];
	if (str_eqz(last, "svc"))
		return service_name(q, ret_alias);
	if (str_eqz(last, "pod"))
		pod_name(q);
	else if (str_eqz(last, "dns-version") && q->n == 1)
		version(q);
	return DNS_ANSWERED;
}

enum dns_outcome dns_answer(const struct dns_source *src, const char *domain,
	const knot_pkt_t *query, knot_pkt_t *reply, knot_dname_storage_t ret_alias)
{
	CLEAN_ARENA struct arena *a = arena_new(1024);
	struct question q = { .src = src,
		.domain = domain,
		.type = knot_pkt_qtype(query),
		.name = knot_pkt_qname(query),
		.reply = reply,
		.arena = a };
	enum dns_outcome out;

	if (!knot_dname_to_str(q.text, q.name, sizeof(q.text)))
		return DNS_FORWARD;
	knot_pkt_begin(reply, KNOT_ANSWER);
	out = answer(&q, ret_alias);
	if (out != DNS_ANSWERED)
		return out;
	knot_wire_set_aa(reply->wire);
	if (!knot_wire_get_ancount(reply->wire)) {
		if (!q.found)
			knot_wire_set_rcode(reply->wire, KNOT_RCODE_NXDOMAIN);
		knot_pkt_begin(reply, KNOT_AUTHORITY);
		put_soa(&q);
	}
	return DNS_ANSWERED;
}
