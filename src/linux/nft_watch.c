/* Learning that somebody removed tables: `nft flush ruleset`, as a firewall's reload does, takes those of everybody. */
#include "linux/linux.h"

#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

#define MESSAGES_MAX 16384

int nft_monitor(int *ret_fd, struct err *err)
{
	struct sockaddr_nl a = { .nl_family = AF_NETLINK,
		.nl_groups = 1u << (NFNLGRP_NFTABLES - 1) };
	CLEAN_FD int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return err_errno(err, -errno, "cannot watch nftables");
	*ret_fd = TAKE_FD(fd);
	return 0;
}

bool nft_monitor_lost(int fd)
{
	const uint16_t gone = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE;
	CLEAN_FREE char *b = xmalloc(MESSAGES_MAX);
	bool lost = false;
	ssize_t n;

	/* What did not fit the socket's buffer (ENOBUFS) may have been one. */
	while ((n = recv(fd, b, MESSAGES_MAX, 0)) > 0 || errno == ENOBUFS) {
		int left = (int)n;

		lost |= n < 0;
		for (const struct nlmsghdr *h = (const void *)b; mnl_nlmsg_ok(h, left);
			h = mnl_nlmsg_next(h, &left))
			lost |= h->nlmsg_type == gone;
	}
	return lost;
}
