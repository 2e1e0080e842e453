/* See internal.h: the programs of flow_code.c on the links that pods' packets take. A link of pods is one with a route to one address of this node's range. A
 * program that somebody else takes off a link comes back with the agent's next start; until then the packets there take the whole way.
 *
 * A link that is up loses packets while it is made to take programs. So a pod's gets them before it is up (flow_cache_link), and those of pods that were here before
 * the cache go without; the links out get them when the agent starts, once in the life of a machine. */
#include "network/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/rtnetlink.h>

static const char *const names[LINK_SIDES] = {
	[LINK_INGRESS] = "skiff_in", [LINK_EGRESS] = "skiff_out"
};

static const char *const patience[] = { "net.netfilter.nf_conntrack_tcp_timeout_unacknowledged",
	"net.netfilter.nf_conntrack_tcp_timeout_max_retrans" };

struct flow_cache {
	int programs[LINK_SIDES];
	int *links; /* those that have the programs */
	size_t n_links;
};

/* Conntrack sees one packet of many. It is not to take the next one, far ahead, for one of another connection; nor, as it saw data and seldom the packet
 * that acknowledges just these, to forget an idle connection, with its translation, earlier than others (after 300 s). */
static int set_conntrack(struct err *err)
{
	CLEAN_BUF struct buf established = { 0 };
	struct err none;
	int r = sysctl_set("net.netfilter.nf_conntrack_tcp_be_liberal", "1", err);

	if (r == 0)
		r = sysctl_get(
			"net.netfilter.nf_conntrack_tcp_timeout_established", &established, err);
	for (size_t i = 0; i < ARRAY_LEN(patience) && r == 0; i++)
		r = sysctl_set(patience[i], established.p, err);
	if (r == 0)
		sysctl_set("net.netfilter.nf_conntrack_tcp_ignore_invalid_rst", "1",
			&none); /* of newer kernels */
	return r;
}

int flow_cache_new(struct flow_cache **ret, struct err *err)
{
	struct bpf_insn insns[FLOW_CODE_MAX];
	struct flow_cache *f;
	struct flow_maps m;
	int r = flow_maps_new(&m, err);

	if (r < 0)
		return r;
	f = xcalloc(1, sizeof(*f));
	for (int side = 0; side < LINK_SIDES; side++)
		f->programs[side] = -1;
	for (int side = 0; side < LINK_SIDES && r == 0; side++)
		r = bpf_program_load(insns, flow_code((enum link_side)side, &m, insns), names[side],
			&f->programs[side], err);
	close(m.flows);
	close(m.seen);
	if (r == 0)
		r = set_conntrack(err);
	if (r < 0)
		flow_cache_free(f);
	else
		*ret = f;
	return r;
}

void flow_cache_free(struct flow_cache *f)
{
	if (!f)
		return;
	for (int side = 0; side < LINK_SIDES; side++)
		if (f->programs[side] >= 0)
			close(f->programs[side]);
	free(f->links);
	free(f);
}

/* ---- which links ---- */

struct links {
	struct arena *a;
	int *items;
	size_t len, n_out; /* those that lead to other nodes and out come first */
	uint32_t pods;     /* of this node, in host order */
	int prefix;
};

static bool has(const int *links, size_t n, int link)
{
	for (size_t i = 0; i < n; i++)
		if (links[i] == link)
			return true;
	return false;
}

static void want(struct links *l, int link)
{
	if (link && !has(l->items, l->len, link))
		*ARENA_ADD(l->a, l->items, l->len) = link;
}

static void see_route(void *arg, const struct route *r)
{
	struct links *l = arg;

	if (r->prefix == 32 && !r->gateway && l->prefix &&
		(ntohl(r->destination) ^ l->pods) >> (32 - l->prefix) == 0)
		want(l, r->link);
}

static void see_link(void *arg, int index, bool ethernet)
{
	if (ethernet)
		want(arg, index);
}

static int find_links(struct netlink *n, const struct network_config *c, const struct peers *peers,
	struct links *l, struct err *err)
{
	uint32_t ip, source;
	struct route r;
	int link;

	cidr_read(str_of(c->pod_cidr), &l->pods, &l->prefix);
	if (ip_read(str_of(c->node_ip), &ip) == 0 && address_find_link(n, htonl(ip), &link) == 0)
		want(l, link);
	if (route_default_link(n, &link, &source) == 0)
		want(l, link);
	if (link_find(n, VXLAN_LINK, &link) == 0)
		want(l, link);
	for (size_t i = 0; i < peers->len; i++)
		if (route_find(n, htonl(peers->items[i].ip), &r) == 0)
			want(l, r.link);
	l->n_out = l->len;
	return route_each(n, RTPROT_STATIC, see_route, l, err);
}

static int put(struct flow_cache *f, struct netlink *n, int link, bool make, struct err *err)
{
	int r = 0;

	/* Out first: what comes in and is noted meets one that remembers. */
	for (int side = LINK_SIDES - 1; side >= 0 && r == 0; side--)
		r = link_program_set(
			n, link, (enum link_side)side, f->programs[side], names[side], make, err);
	return r;
}

int flow_cache_link(struct flow_cache *f, struct netlink *n, const char *name, struct err *err)
{
	int link, r = link_find(n, name, &link);

	return r < 0 ? err_errno(err, r, "cannot find the link %s", name)
		     : put(f, n, link, true, err);
}

int flow_cache_apply(struct flow_cache *f, struct netlink *n, const struct network_config *c,
	const struct peers *peers, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct links wanted = { .a = a }, ethernet = { .a = a };
	int r = find_links(n, c, peers, &wanted, err);

	if (r == 0)
		r = link_each(n, see_link, &ethernet, err);
	if (r < 0)
		return r;
	int *now = xcalloc(wanted.len + 1, sizeof(*now));
	size_t n_now = 0;

	for (size_t i = 0; i < wanted.len; i++) {
		int link = wanted.items[i];
		struct err e = { 0 };

		if (!has(ethernet.items, ethernet.len, link))
			continue; /* gone meanwhile, or without Ethernet headers */
		int s = has(f->links, f->n_links, link) ? 0 : put(f, n, link, i < wanted.n_out, &e);
		if (s >= 0)
			now[n_now++] = link;
		else if (s != -ENODEV && r == 0) { /* the others get theirs */
			r = s;
			*err = e;
		}
	}
	free(f->links);
	f->links = now;
	f->n_links = n_now;
	return r;
}

int flow_cache_remove(struct netlink *n, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct links all = { .a = a };
	int r = link_each(n, see_link, &all, err);

	for (size_t i = 0; i < all.len && r == 0; i++)
		r = link_programs_remove(n, all.items[i], names, err);
	return r;
}
