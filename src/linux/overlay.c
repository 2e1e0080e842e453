/* Routes that carry their owner's protocol number, and VXLAN: how packets of pods get to other nodes. */
#include "linux/internal.h"

#include <arpa/inet.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/socket.h>

/* ---- routes ---- */
static struct rtmsg *route_message(
	struct request *q, uint16_t type, uint16_t flags, const struct route *r, uint8_t protocol)
{
	struct rtmsg *m = route_request(q, type, flags, r->destination, r->prefix);

	m->rtm_protocol = protocol;
	if (r->gateway)
		mnl_attr_put_u32(q->h, RTA_GATEWAY, r->gateway);
	if (r->link)
		mnl_attr_put_u32(q->h, RTA_OIF, (uint32_t)r->link);
	if (r->onlink)
		m->rtm_flags |= RTNH_F_ONLINK;
	return m;
}

int route_put(struct netlink *n, const struct route *r, uint8_t protocol, struct err *err)
{
	char to[INET_ADDRSTRLEN], via[INET_ADDRSTRLEN];
	struct request q;

	route_message(&q, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, r, protocol)->rtm_scope =
		r->gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
	int e = request_run(n, &q, NULL, NULL);
	if (e < 0)
		return err_errno(err, e, "cannot set the route to %s/%d by %s",
			inet_ntop(AF_INET, &r->destination, to, sizeof(to)), r->prefix,
			inet_ntop(AF_INET, &r->gateway, via, sizeof(via)));
	return 0;
}

int route_take(struct netlink *n, const struct route *r, uint8_t protocol, struct err *err)
{
	char to[INET_ADDRSTRLEN];
	struct request q;

	route_message(&q, RTM_DELROUTE, 0, r, protocol)->rtm_scope = RT_SCOPE_NOWHERE;
	int e = request_run(n, &q, NULL, NULL);
	if (e < 0 && e != -ESRCH && e != -ENODEV)
		return err_errno(err, e, "cannot delete the route to %s/%d",
			inet_ntop(AF_INET, &r->destination, to, sizeof(to)), r->prefix);
	return 0;
}

static void read_route(const struct nlmsghdr *h, struct route *ret)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	const struct nlattr *attr;

	*ret = (struct route){ .prefix = m->rtm_dst_len, .onlink = m->rtm_flags & RTNH_F_ONLINK };
	mnl_attr_for_each(attr, h, sizeof(*m))
	{
		switch (mnl_attr_get_type(attr)) {
		case RTA_DST:
			ret->destination = mnl_attr_get_u32(attr);
			break;
		case RTA_GATEWAY:
			ret->gateway = mnl_attr_get_u32(attr);
			break;
		case RTA_OIF:
			ret->link = (int)mnl_attr_get_u32(attr);
			break;
		default:
			break;
		}
	}
}

struct route_walk {
	route_fn fn;
	void *arg;
	uint8_t protocol;
};

static int walk_route(const struct nlmsghdr *h, void *arg)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	const struct route_walk *w = arg;
	struct route r;

	if (m->rtm_family != AF_INET || m->rtm_table != RT_TABLE_MAIN ||
		m->rtm_protocol != w->protocol || m->rtm_type != RTN_UNICAST)
		return MNL_CB_OK;
	read_route(h, &r);
	w->fn(w->arg, &r);
	return MNL_CB_OK;
}

int route_each(struct netlink *n, uint8_t protocol, route_fn fn, void *arg, struct err *err)
{
	struct route_walk w = { fn, arg, protocol };
	struct request q;

	route_request(&q, RTM_GETROUTE, NLM_F_DUMP, 0, 0);
	int r = request_run(n, &q, walk_route, &w);
	return r < 0 ? err_errno(err, r, "cannot list routes") : 0;
}

static int one_route(const struct nlmsghdr *h, void *arg)
{
	if (h->nlmsg_type == RTM_NEWROUTE)
		read_route(h, arg);
	return MNL_CB_OK;
}

int route_find(struct netlink *n, uint32_t ip, struct route *ret)
{
	struct route found = { 0 };
	struct request q;

	route_request(&q, RTM_GETROUTE, 0, ip, 32);
	int r = request_run(n, &q, one_route, &found);
	if (r == 0)
		*ret = found;
	return r;
}

struct address_search {
	uint32_t ip;
	int index;
};

static int match_address(const struct nlmsghdr *h, void *arg)
{
	const struct ifaddrmsg *m = mnl_nlmsg_get_payload(h);
	struct address_search *s = arg;
	const struct nlattr *attr;

	mnl_attr_for_each(attr, h, sizeof(*m))
	{
		if (mnl_attr_get_type(attr) == IFA_LOCAL && m->ifa_family == AF_INET &&
			mnl_attr_get_u32(attr) == s->ip)
			s->index = (int)m->ifa_index;
	}
	return MNL_CB_OK;
}

int address_find_link(struct netlink *n, uint32_t ip, int *ret_index)
{
	struct address_search s = { .ip = ip };
	struct request q;

	((struct ifaddrmsg *)request_init(&q, RTM_GETADDR, NLM_F_DUMP, sizeof(struct ifaddrmsg)))
		->ifa_family = AF_INET;
	int r = request_run(n, &q, match_address, &s);
	if (r < 0)
		return r;
	if (!s.index)
		return -ENOENT;
	*ret_index = s.index;
	return 0;
}

/* ---- the VXLAN link ---- */
struct vxlan_answer {
	struct vxlan v;
	bool is_vxlan, is_up;
};

static void read_vxlan_data(const struct nlattr *data, struct vxlan *v)
{
	const struct nlattr *attr;

	mnl_attr_for_each_nested(attr, data)
	{
		switch (mnl_attr_get_type(attr)) {
		case IFLA_VXLAN_ID:
			v->vni = mnl_attr_get_u32(attr);
			break;
		case IFLA_VXLAN_LOCAL:
			v->local = mnl_attr_get_u32(attr);
			break;
		case IFLA_VXLAN_PORT:
			v->port = ntohs(mnl_attr_get_u16(attr));
			break;
		default:
			break;
		}
	}
}

static int read_vxlan(const struct nlmsghdr *h, void *arg)
{
	struct vxlan_answer *a = arg;
	const struct nlattr *attr, *in;

	a->is_up = ((const struct ifinfomsg *)mnl_nlmsg_get_payload(h))->ifi_flags & IFF_UP;
	mnl_attr_for_each(attr, h, sizeof(struct ifinfomsg))
	{
		if (mnl_attr_get_type(attr) == IFLA_ADDRESS && mnl_attr_get_payload_len(attr) == 6)
			memcpy(a->v.mac, mnl_attr_get_payload(attr), 6);
		else if (mnl_attr_get_type(attr) == IFLA_MTU)
			a->v.mtu = (int)mnl_attr_get_u32(attr);
		if (mnl_attr_get_type(attr) != IFLA_LINKINFO)
			continue;
		mnl_attr_for_each_nested(in, attr)
		{
			if (mnl_attr_get_type(in) == IFLA_INFO_KIND)
				a->is_vxlan = !strcmp(mnl_attr_get_str(in), "vxlan");
			else if (mnl_attr_get_type(in) == IFLA_INFO_DATA && a->is_vxlan)
				read_vxlan_data(in, &a->v);
		}
	}
	return MNL_CB_OK;
}

static int set_mtu_up(struct netlink *n, int index, int mtu)
{
	struct request q;
	struct ifinfomsg *m = link_request(&q, RTM_NEWLINK, 0, index);

	m->ifi_flags = m->ifi_change = IFF_UP;
	mnl_attr_put_u32(q.h, IFLA_MTU, (uint32_t)mtu);
	return request_run(n, &q, NULL, NULL);
}

static int create_vxlan(struct netlink *n, const struct vxlan *v)
{
	struct request q;

	link_request(&q, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
	mnl_attr_put_strz(q.h, IFLA_IFNAME, v->name);
	mnl_attr_put(q.h, IFLA_ADDRESS, 6, v->mac);
	struct nlattr *info = mnl_attr_nest_start(q.h, IFLA_LINKINFO);
	mnl_attr_put_strz(q.h, IFLA_INFO_KIND, "vxlan");
	struct nlattr *data = mnl_attr_nest_start(q.h, IFLA_INFO_DATA);
	mnl_attr_put_u32(q.h, IFLA_VXLAN_ID, v->vni);
	mnl_attr_put_u32(q.h, IFLA_VXLAN_LOCAL, v->local);
	mnl_attr_put_u16(q.h, IFLA_VXLAN_PORT, htons(v->port));
	mnl_attr_put_u8(q.h, IFLA_VXLAN_LEARNING, 0);
	mnl_attr_nest_end(q.h, data);
	mnl_attr_nest_end(q.h, info);
	return request_run(n, &q, NULL, NULL);
}

int link_add_vxlan(struct netlink *n, const struct vxlan *v, struct err *err)
{
	struct vxlan_answer have = { 0 };
	struct request q;
	int index, r;

	if (link_find(n, v->name, &index) == 0) {
		link_request(&q, RTM_GETLINK, 0, index);
		r = request_run(n, &q, read_vxlan, &have);
		if (r == 0 && have.is_vxlan && have.v.vni == v->vni && have.v.local == v->local &&
			have.v.port == v->port && !memcmp(have.v.mac, v->mac, 6)) {
			/* Only when need be: each change is news for netlink_monitor. */
			r = have.is_up && have.v.mtu == v->mtu ? 0 : set_mtu_up(n, index, v->mtu);
			return r < 0 ? err_errno(err, r, "cannot switch the link %s on", v->name)
				     : 0;
		}
		r = link_delete(n, v->name, err);
		if (r < 0)
			return r;
	}
	r = create_vxlan(n, v);
	if (r == -EOPNOTSUPP)
		return err_set(err, r,
			"this kernel knows no VXLAN: load the module vxlan (modprobe vxlan)");
	if (r == -EEXIST)
		return err_set(err, r,
			"another VXLAN link of this machine has VNI %u and port %u already (flannel's has): remove it, or use "
			"--pod-network routes",
			v->vni, v->port);
	if (r == 0)
		r = link_find(n, v->name, &index);
	if (r == 0)
		r = set_mtu_up(n, index, v->mtu);
	return r < 0 ? err_errno(err, r, "cannot create the VXLAN link %s", v->name) : 0;
}

/* ---- its forwarding entries and neighbors ---- */
static struct ndmsg *fdb_request(struct request *q, uint16_t type, uint16_t flags, int link)
{
	struct ndmsg *m = request_init(q, type, flags, sizeof(*m));

	m->ndm_family = AF_BRIDGE;
	m->ndm_ifindex = link;
	m->ndm_state = NUD_NOARP | NUD_PERMANENT;
	m->ndm_flags = NTF_SELF;
	return m;
}

int fdb_set(struct netlink *n, int link, const uint8_t mac[6], uint32_t remote, struct err *err)
{
	char to[INET_ADDRSTRLEN];
	struct request q;

	fdb_request(&q, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, link);
	mnl_attr_put(q.h, NDA_LLADDR, 6, mac);
	mnl_attr_put_u32(q.h, NDA_DST, remote);
	int r = request_run(n, &q, NULL, NULL);
	return r < 0 ? err_errno(err, r, "cannot set the forwarding entry to %s",
			       inet_ntop(AF_INET, &remote, to, sizeof(to)))
		     : 0;
}

int fdb_delete(struct netlink *n, int link, const uint8_t mac[6], uint32_t remote, struct err *err)
{
	char to[INET_ADDRSTRLEN];
	struct request q;

	fdb_request(&q, RTM_DELNEIGH, 0, link);
	mnl_attr_put(q.h, NDA_LLADDR, 6, mac);
	mnl_attr_put_u32(q.h, NDA_DST, remote);
	int r = request_run(n, &q, NULL, NULL);
	if (r < 0 && r != -ENOENT && r != -ENODEV)
		return err_errno(err, r, "cannot delete the forwarding entry to %s",
			inet_ntop(AF_INET, &remote, to, sizeof(to)));
	return 0;
}

struct neighbor_walk {
	int link, family;
	fdb_fn fdb;
	neighbor_fn neighbor;
	void *arg;
};

static int walk_neighbor(const struct nlmsghdr *h, void *arg)
{
	const struct ndmsg *m = mnl_nlmsg_get_payload(h);
	const struct neighbor_walk *w = arg;
	const struct nlattr *attr;
	uint8_t mac[6] = { 0 };
	uint32_t ip = 0;

	if (m->ndm_ifindex != w->link || m->ndm_family != w->family ||
		!(m->ndm_state & NUD_PERMANENT))
		return MNL_CB_OK;
	mnl_attr_for_each(attr, h, sizeof(*m))
	{
		if (mnl_attr_get_type(attr) == NDA_DST && mnl_attr_get_payload_len(attr) == 4)
			ip = mnl_attr_get_u32(attr);
		else if (mnl_attr_get_type(attr) == NDA_LLADDR &&
			mnl_attr_get_payload_len(attr) == 6)
			memcpy(mac, mnl_attr_get_payload(attr), 6);
	}
	if (ip && w->fdb)
		w->fdb(w->arg, mac, ip);
	else if (ip)
		w->neighbor(w->arg, ip, mac);
	return MNL_CB_OK;
}

static int walk(struct netlink *n, struct neighbor_walk *w, struct err *err)
{
	struct request q;

	((struct ndmsg *)request_init(&q, RTM_GETNEIGH, NLM_F_DUMP, sizeof(struct ndmsg)))
		->ndm_family = (uint8_t)w->family;
	int r = request_run(n, &q, walk_neighbor, w);
	return r < 0 ? err_errno(err, r, "cannot list neighbors") : 0;
}

int fdb_each(struct netlink *n, int link, fdb_fn fn, void *arg, struct err *err)
{
	struct neighbor_walk w = { .link = link, .family = AF_BRIDGE, .fdb = fn, .arg = arg };

	return walk(n, &w, err);
}

int neighbor_each(struct netlink *n, int link, neighbor_fn fn, void *arg, struct err *err)
{
	struct neighbor_walk w = { .link = link, .family = AF_INET, .neighbor = fn, .arg = arg };

	return walk(n, &w, err);
}

/* ---- being told ---- */
int netlink_monitor(int *ret_fd, struct err *err)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK,
		.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE };
	CLEAN_FD int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return err_errno(err, -errno, "cannot watch links and routes");
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void netlink_drain(int fd)
{
	char b[REQUEST_MAX];

	/* An overrun (ENOBUFS) is news as well, and is cleared by being read. */
	while (recv(fd, b, sizeof(b), 0) > 0 || errno == ENOBUFS)
		;
}
