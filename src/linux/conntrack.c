/* The kernel's memory of UDP flows over IPv4: those that lead to an endpoint which is gone are forgotten, since UDP has no end that would do it. */
#include "linux/linux.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

#define ANSWER_MAX 32768
#define TUPLE_MAX 256

struct doomed { /* the original tuple, as the kernel gave it */
	unsigned char bytes[TUPLE_MAX];
	uint16_t len;
};
struct dump {
	bool (*stale)(void *arg, const struct conntrack_flow *flow);
	void *arg;
	struct doomed *items;
	size_t len, room;
};

static void read_tuple(const struct nlattr *tuple, struct conntrack_end *from,
	struct conntrack_end *to, uint8_t *ret_protocol)
{
	const struct nlattr *outer, *a;

	mnl_attr_for_each_nested(outer, tuple)
	{
		bool ip = mnl_attr_get_type(outer) == CTA_TUPLE_IP;

		mnl_attr_for_each_nested(a, outer)
		{
			uint16_t type = mnl_attr_get_type(a), len = mnl_attr_get_payload_len(a);

			if (ip && len == 4 && type == CTA_IP_V4_SRC)
				from->ip = ntohl(mnl_attr_get_u32(a));
			else if (ip && len == 4 && type == CTA_IP_V4_DST)
				to->ip = ntohl(mnl_attr_get_u32(a));
			else if (!ip && len == 1 && type == CTA_PROTO_NUM)
				*ret_protocol = mnl_attr_get_u8(a);
			else if (!ip && len == 2 && type == CTA_PROTO_SRC_PORT)
				from->port = ntohs(mnl_attr_get_u16(a));
			else if (!ip && len == 2 && type == CTA_PROTO_DST_PORT)
				to->port = ntohs(mnl_attr_get_u16(a));
		}
	}
}

static int on_flow(const struct nlmsghdr *h, void *arg)
{
	const struct nlattr *a, *original = NULL;
	struct conntrack_flow f = { 0 };
	struct conntrack_end ignored;
	struct dump *d = arg;
	uint8_t protocol = 0;

	mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(a) == CTA_TUPLE_ORIG) {
			original = a;
			read_tuple(a, &f.client, &f.asked, &protocol);
		} else if (mnl_attr_get_type(a) == CTA_TUPLE_REPLY) {
			read_tuple(a, &f.answers, &ignored, &protocol);
		}
	}
	if (!original || protocol != IPPROTO_UDP || !d->stale(d->arg, &f) ||
		mnl_attr_get_payload_len(original) > TUPLE_MAX)
		return MNL_CB_OK;
	if (d->len == d->room) {
		d->room = d->room ? d->room * 2 : 16;
		d->items = xrealloc(d->items, d->room * sizeof(*d->items));
	}
	d->items[d->len].len = mnl_attr_get_payload_len(original);
	memcpy(d->items[d->len++].bytes, mnl_attr_get_payload(original),
		mnl_attr_get_payload_len(original));
	return MNL_CB_OK;
}

static struct nlmsghdr *request(char *space, uint16_t what, uint16_t flags, uint32_t seq)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(space);
	struct nfgenmsg *g;

	h->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | what;
	h->nlmsg_flags = NLM_F_REQUEST | flags;
	h->nlmsg_seq = seq;
	g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	g->nfgen_family = AF_INET;
	g->version = NFNETLINK_V0;
	return h;
}

/* Sends and takes in the whole answer. */
static int talk(struct mnl_socket *s, const struct nlmsghdr *h, mnl_cb_t cb, void *arg)
{
	CLEAN_FREE char *answer = xmalloc(ANSWER_MAX);
	int r = MNL_CB_OK;

	if (mnl_socket_sendto(s, h, h->nlmsg_len) < 0)
		return -errno;
	while (r > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(s, answer, ANSWER_MAX);

		if (n < 0)
			return -errno;
		r = mnl_cb_run(answer, (size_t)n, h->nlmsg_seq, mnl_socket_get_portid(s), cb, arg);
	}
	return r < 0 ? -errno : 0;
}

static int forget(struct mnl_socket *s, const struct doomed *d, uint32_t seq)
{
	char space[1024];
	struct nlmsghdr *h = request(space, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, seq);

	mnl_attr_put(h, CTA_TUPLE_ORIG | NLA_F_NESTED, d->len, d->bytes);
	int r = talk(s, h, NULL, NULL);
	return r == -ENOENT ? 0 : r;
}

int conntrack_forget_udp(bool (*stale)(void *arg, const struct conntrack_flow *flow), void *arg,
	size_t *ret_n, struct err *err)
{
	struct mnl_socket *s = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	struct dump d = { .stale = stale, .arg = arg };
	char space[1024];
	uint32_t seq = 1;

	if (!s || mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) < 0) {
		int r = -errno;

		if (s)
			mnl_socket_close(s);
		return err_errno(err, r, "cannot open the kernel's table of connections");
	}
	int r = talk(s, request(space, IPCTNL_MSG_CT_GET, NLM_F_DUMP, seq), on_flow, &d);
	for (size_t i = 0; i < d.len && r == 0; i++)
		r = forget(s, &d.items[i], ++seq);
	mnl_socket_close(s);
	free(d.items);
	if (r < 0)
		return err_errno(err, r,
			"cannot clean the kernel's table of connections (CONFIG_NF_CT_NETLINK)");
	*ret_n = d.len;
	return 0;
}
