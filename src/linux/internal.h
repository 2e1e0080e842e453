/* What the files about rtnetlink share. */
#ifndef SKIFF_LINUX_INTERNAL_H
#define SKIFF_LINUX_INTERNAL_H

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>

#include "linux/linux.h"

#define REQUEST_MAX 8192
struct request {
	struct nlmsghdr *h;
	char space[REQUEST_MAX];
};
void *request_init(struct request *q, uint16_t type, uint16_t flags,
	size_t header); /* the header behind nlmsghdr */
struct ifinfomsg *link_request(struct request *q, uint16_t type, uint16_t flags, int index);
struct rtmsg *route_request(
	struct request *q, uint16_t type, uint16_t flags, uint32_t destination, int prefix);
/* Sends q and reads until the answer's end; each message goes to cb. 0, or the kernel's -errno. */
int request_run(struct netlink *n, struct request *q, mnl_cb_t cb, void *arg);

#endif
