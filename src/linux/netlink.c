/* Links, addresses, routes and neighbors over rtnetlink (libmnl). One request, one acknowledgement; a request that failed leaves the socket usable. */
#include "linux/internal.h"

#include <arpa/inet.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdio.h>

struct netlink {
	struct mnl_socket *socket;
	unsigned seq;
};

int netlink_open(struct netlink **ret, struct err *err)
{
	struct mnl_socket *s = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);

	if (!s)
		return err_errno(err, -errno, "cannot open a netlink socket");
	if (mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) < 0) {
		int r = -errno;
		mnl_socket_close(s);
		return err_errno(err, r, "cannot bind a netlink socket");
	}
	*ret = xcalloc(1, sizeof(**ret));
	(*ret)->socket = s;
	return 0;
}

void netlink_close(struct netlink *n)
{
	if (!n)
		return;
	mnl_socket_close(n->socket);
	free(n);
}

void *request_init(struct request *q, uint16_t type, uint16_t flags, size_t header)
{
	q->h = mnl_nlmsg_put_header(q->space);
	q->h->nlmsg_type = type;
	q->h->nlmsg_flags = NLM_F_REQUEST | flags;
	return mnl_nlmsg_put_extra_header(q->h, header);
}

struct ifinfomsg *link_request(struct request *q, uint16_t type, uint16_t flags, int index)
{
	struct ifinfomsg *m = request_init(q, type, flags, sizeof(*m));

	m->ifi_family = AF_UNSPEC;
	m->ifi_index = index;
	return m;
}

int request_run(struct netlink *n, struct request *q, mnl_cb_t cb, void *arg)
{
	char answer[REQUEST_MAX * 2];
	ssize_t len;
	int r;

	q->h->nlmsg_seq = ++n->seq;
	q->h->nlmsg_flags |= NLM_F_ACK;
	if (mnl_socket_sendto(n->socket, q->h, q->h->nlmsg_len) < 0)
		return -errno;
	do {
		len = mnl_socket_recvfrom(n->socket, answer, sizeof(answer));
		if (len < 0)
			return -errno;
		/* Of a question that was given up half-way (a list that changed meanwhile, an overrun): what is left of its answer is read past. */
		if ((size_t)len >= sizeof(struct nlmsghdr) &&
			((const struct nlmsghdr *)answer)->nlmsg_seq != n->seq) {
			r = MNL_CB_STOP + 1;
			continue;
		}
		r = mnl_cb_run(
			answer, (size_t)len, n->seq, mnl_socket_get_portid(n->socket), cb, arg);
	} while (r > MNL_CB_STOP);
	return r < 0 ? -errno : 0;
}

/* ---- finding links ---- */
struct link_answer {
	int index, mtu;
	char name[IFNAMSIZ];
};

static int read_link(const struct nlmsghdr *h, void *arg)
{
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	struct link_answer *a = arg;
	const struct nlattr *attr;

	a->index = m->ifi_index;
	mnl_attr_for_each(attr, h, sizeof(*m))
	{
		if (mnl_attr_get_type(attr) == IFLA_MTU)
			a->mtu = (int)mnl_attr_get_u32(attr);
		else if (mnl_attr_get_type(attr) == IFLA_IFNAME)
			snprintf(a->name, sizeof(a->name), "%s", mnl_attr_get_str(attr));
	}
	return MNL_CB_OK;
}

int link_find(struct netlink *n, const char *name, int *ret_index)
{
	struct link_answer a = { 0 };
	struct request q;

	link_request(&q, RTM_GETLINK, 0, 0);
	mnl_attr_put_strz(q.h, IFLA_IFNAME, name);
	int r = request_run(n, &q, read_link, &a);
	if (r == 0)
		*ret_index = a.index;
	return r;
}

int link_name_mtu(struct netlink *n, int index, char ret_name[16], int *ret_mtu, struct err *err)
{
	struct link_answer a = { 0 };
	struct request q;

	link_request(&q, RTM_GETLINK, 0, index);
	int r = request_run(n, &q, read_link, &a);
	if (r < 0)
		return err_errno(err, r, "cannot read link %d", index);
	memcpy(ret_name, a.name, sizeof(a.name));
	*ret_mtu = a.mtu;
	return 0;
}

static int find(struct netlink *n, const char *name, int *ret_index, struct err *err)
{
	int r = link_find(n, name, ret_index);

	return r < 0 ? err_errno(err, r, "cannot find the link %s", name) : 0;
}

/* ---- making and changing links ---- */
static void put_basics(struct nlmsghdr *h, const char *name, int mtu, const uint8_t *mac)
{
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	if (mtu)
		mnl_attr_put_u32(h, IFLA_MTU, (uint32_t)mtu);
	if (mac)
		mnl_attr_put(h, IFLA_ADDRESS, 6, mac);
}

int link_add_bridge(
	struct netlink *n, const char *name, int mtu, const uint8_t mac[6], struct err *err)
{
	struct request q;
	int index;

	if (link_find(n, name, &index) == 0)
		return 0;
	link_request(&q, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
	put_basics(q.h, name, mtu, mac);
	struct nlattr *info = mnl_attr_nest_start(q.h, IFLA_LINKINFO);
	mnl_attr_put_strz(q.h, IFLA_INFO_KIND, "bridge");
	mnl_attr_nest_end(q.h, info);
	int r = request_run(n, &q, NULL, NULL);
	if (r == -EOPNOTSUPP)
		return err_set(err, r,
			"this kernel knows no bridges: load the module bridge (modprobe bridge)");
	return r < 0 ? err_errno(err, r, "cannot create the bridge %s", name) : 0;
}

int link_add_veth(struct netlink *n, const struct link_veth *v, struct err *err)
{
	struct request q;

	link_request(&q, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
	put_basics(q.h, v->name, v->mtu, v->mac);
	struct nlattr *info = mnl_attr_nest_start(q.h, IFLA_LINKINFO);
	mnl_attr_put_strz(q.h, IFLA_INFO_KIND, "veth");
	struct nlattr *data = mnl_attr_nest_start(q.h, IFLA_INFO_DATA);
	struct nlattr *peer = mnl_attr_nest_start(q.h, VETH_INFO_PEER);
	mnl_nlmsg_put_extra_header(q.h, sizeof(struct ifinfomsg));
	put_basics(q.h, v->peer, v->mtu, v->peer_mac);
	mnl_attr_put_u32(q.h, IFLA_NET_NS_FD, (uint32_t)v->peer_netns_fd);
	mnl_attr_nest_end(q.h, peer);
	mnl_attr_nest_end(q.h, data);
	mnl_attr_nest_end(q.h, info);
	int r = request_run(n, &q, NULL, NULL);
	if (r == -EOPNOTSUPP)
		return err_set(err, r,
			"this kernel knows no veth pairs: load the module veth (modprobe veth)");
	return r < 0 ? err_errno(err, r, "cannot create the link pair %s, %s", v->name, v->peer)
		     : 0;
}

int link_set_up(struct netlink *n, const char *name, struct err *err)
{
	struct request q;
	int index, r = find(n, name, &index, err);

	if (r < 0)
		return r;
	struct ifinfomsg *m = link_request(&q, RTM_NEWLINK, 0, index);
	m->ifi_flags = m->ifi_change = IFF_UP;
	r = request_run(n, &q, NULL, NULL);
	return r < 0 ? err_errno(err, r, "cannot switch the link %s on", name) : 0;
}

int link_set_netns(struct netlink *n, const char *name, int netns_fd, struct err *err)
{
	struct request q;
	int index, r = find(n, name, &index, err);

	if (r < 0)
		return r;
	link_request(&q, RTM_NEWLINK, 0, index);
	mnl_attr_put_u32(q.h, IFLA_NET_NS_FD, (uint32_t)netns_fd);
	r = request_run(n, &q, NULL, NULL);
	return r < 0
		? err_errno(err, r, "cannot move the link %s to another network namespace", name)
		: 0;
}

int link_delete(struct netlink *n, const char *name, struct err *err)
{
	struct request q;
	int index, r = link_find(n, name, &index);

	if (r == -ENODEV)
		return 0;
	if (r == 0) {
		link_request(&q, RTM_DELLINK, 0, index);
		r = request_run(n, &q, NULL, NULL);
	}
	return r < 0 && r != -ENODEV ? err_errno(err, r, "cannot delete the link %s", name) : 0;
}

/* ---- addresses ---- */
static int address_change(struct netlink *n, uint16_t type, uint16_t flags, const char *link,
	uint32_t ip, int prefix, struct err *err)
{
	struct request q;
	int index, r = find(n, link, &index, err);

	if (r < 0)
		return r;
	struct ifaddrmsg *m = request_init(&q, type, flags, sizeof(*m));
	m->ifa_family = AF_INET;
	m->ifa_prefixlen = (uint8_t)prefix;
	m->ifa_index = (unsigned)index;
	mnl_attr_put_u32(q.h, IFA_LOCAL, ip);
	mnl_attr_put_u32(q.h, IFA_ADDRESS, ip);
	if (type == RTM_NEWADDR && prefix < 31)
		mnl_attr_put_u32(q.h, IFA_BROADCAST, ip | htonl((uint32_t)(0xffffffffu >> prefix)));
	return request_run(n, &q, NULL, NULL);
}

int address_add(struct netlink *n, const char *link, uint32_t ip, int prefix, struct err *err)
{
	char text[INET_ADDRSTRLEN];
	int r = address_change(n, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, link, ip, prefix, err);

	if (r < 0 && r != -EEXIST)
		return err_errno(err, r, "cannot give %s/%d to the link %s",
			inet_ntop(AF_INET, &ip, text, sizeof(text)), prefix, link);
	return 0;
}

int address_delete(struct netlink *n, const char *link, uint32_t ip, int prefix, struct err *err)
{
	char text[INET_ADDRSTRLEN];
	int r = address_change(n, RTM_DELADDR, 0, link, ip, prefix, err);

	if (r < 0 && r != -EADDRNOTAVAIL && r != -ENODEV)
		return err_errno(err, r, "cannot take %s/%d from the link %s",
			inet_ntop(AF_INET, &ip, text, sizeof(text)), prefix, link);
	return 0;
}

/* ---- routes ---- */
struct rtmsg *route_request(
	struct request *q, uint16_t type, uint16_t flags, uint32_t destination, int prefix)
{
	struct rtmsg *m = request_init(q, type, flags, sizeof(*m));

	m->rtm_family = AF_INET;
	m->rtm_dst_len = (uint8_t)prefix;
	m->rtm_table = RT_TABLE_MAIN;
	m->rtm_type = RTN_UNICAST;
	if (prefix)
		mnl_attr_put_u32(q->h, RTA_DST, destination);
	return m;
}

int route_set(struct netlink *n, uint32_t destination, int prefix, uint32_t gateway,
	const char *link, struct err *err)
{
	char to[INET_ADDRSTRLEN], via[INET_ADDRSTRLEN];
	struct request q;
	int index = 0, r = link ? find(n, link, &index, err) : 0;

	if (r < 0)
		return r;
	struct rtmsg *m =
		route_request(&q, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, destination, prefix);
	m->rtm_protocol = RTPROT_STATIC;
	m->rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
	if (gateway)
		mnl_attr_put_u32(q.h, RTA_GATEWAY, gateway);
	if (index)
		mnl_attr_put_u32(q.h, RTA_OIF, (uint32_t)index);
	r = request_run(n, &q, NULL, NULL);
	if (r < 0)
		return err_errno(err, r, "cannot set the route to %s/%d by %s",
			inet_ntop(AF_INET, &destination, to, sizeof(to)), prefix,
			gateway ? inet_ntop(AF_INET, &gateway, via, sizeof(via)) : link);
	return 0;
}

int route_delete(struct netlink *n, uint32_t destination, int prefix, struct err *err)
{
	char to[INET_ADDRSTRLEN];
	struct request q;

	struct rtmsg *m = route_request(&q, RTM_DELROUTE, 0, destination, prefix);
	m->rtm_scope = RT_SCOPE_NOWHERE;
	int r = request_run(n, &q, NULL, NULL);
	if (r < 0 && r != -ESRCH)
		return err_errno(err, r, "cannot delete the route to %s/%d",
			inet_ntop(AF_INET, &destination, to, sizeof(to)), prefix);
	return 0;
}

struct default_route {
	int index;
	uint32_t source, metric;
};

static int read_route(const struct nlmsghdr *h, void *arg)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	struct default_route *best = arg, now = { 0 };
	const struct nlattr *attr;

	if (m->rtm_dst_len != 0 || m->rtm_table != RT_TABLE_MAIN || m->rtm_type != RTN_UNICAST)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, h, sizeof(*m))
	{
		if (mnl_attr_get_type(attr) == RTA_OIF)
			now.index = (int)mnl_attr_get_u32(attr);
		else if (mnl_attr_get_type(attr) == RTA_PREFSRC)
			now.source = mnl_attr_get_u32(attr);
		else if (mnl_attr_get_type(attr) == RTA_PRIORITY)
			now.metric = mnl_attr_get_u32(attr);
	}
	if (now.index && (!best->index || now.metric < best->metric))
		*best = now;
	return MNL_CB_OK;
}

int route_default_link(struct netlink *n, int *ret_index, uint32_t *ret_source)
{
	struct default_route best = { 0 };
	struct request q;

	route_request(&q, RTM_GETROUTE, NLM_F_DUMP, 0, 0);
	int r = request_run(n, &q, read_route, &best);
	if (r < 0)
		return r;
	if (!best.index)
		return -ENOENT;
	*ret_index = best.index;
	*ret_source = best.source;
	return 0;
}

/* ---- neighbors ---- */
static int neighbor_change(struct netlink *n, uint16_t type, uint16_t flags, const char *link,
	uint32_t ip, const uint8_t *mac, struct err *err)
{
	struct request q;
	int index, r = find(n, link, &index, err);

	if (r < 0)
		return r;
	struct ndmsg *m = request_init(&q, type, flags, sizeof(*m));
	m->ndm_family = AF_INET;
	m->ndm_ifindex = index;
	m->ndm_state = NUD_PERMANENT;
	mnl_attr_put_u32(q.h, NDA_DST, ip);
	if (mac)
		mnl_attr_put(q.h, NDA_LLADDR, 6, mac);
	return request_run(n, &q, NULL, NULL);
}

int neighbor_set(
	struct netlink *n, const char *link, uint32_t ip, const uint8_t mac[6], struct err *err)
{
	char text[INET_ADDRSTRLEN];
	int r = neighbor_change(n, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, link, ip, mac, err);

	return r < 0 ? err_errno(err, r, "cannot set the neighbor %s on %s",
			       inet_ntop(AF_INET, &ip, text, sizeof(text)), link)
		     : 0;
}

int neighbor_delete(struct netlink *n, const char *link, uint32_t ip, struct err *err)
{
	char text[INET_ADDRSTRLEN];
	int r = neighbor_change(n, RTM_DELNEIGH, 0, link, ip, NULL, err);

	if (r < 0 && r != -ENOENT && r != -ENODEV)
		return err_errno(err, r, "cannot delete the neighbor %s on %s",
			inet_ntop(AF_INET, &ip, text, sizeof(text)), link);
	return 0;
}
