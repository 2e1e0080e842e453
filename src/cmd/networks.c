/* Networks that must not overlap: those of pods and of services, and the addresses of machines. Mixed up, packets would go where nobody looks for them, so an
 * overlap is refused at the start, by name. What is no IPv4 network is left to whoever reads it. */
#include <arpa/inet.h>
#include <stdio.h>

#include "cmd/cmd.h"

struct range {
	uint32_t address, mask;
};

static bool range_read(const char *text, struct range *ret)
{
	unsigned b[4], bits;

	if (!text || sscanf(text, "%u.%u.%u.%u/%u", &b[0], &b[1], &b[2], &b[3], &bits) != 5 ||
		bits > 32)
		return false;
	ret->mask = bits ? ~(uint32_t)0 << (32 - bits) : 0;
	ret->address = (b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3]) & ret->mask;
	return true;
}

static bool overlap(const struct range *a, const struct range *b)
{
	uint32_t mask = a->mask & b->mask;

	return (a->address & mask) == (b->address & mask);
}

/* A node's address among those of pods or services is answered by the wrong one. */
static bool has_address(const struct range *r, const char *ip)
{
	struct in_addr in;

	return ip && inet_pton(AF_INET, ip, &in) == 1 && (ntohl(in.s_addr) & r->mask) == r->address;
}

int networks_check(const struct options *o, struct err *err)
{
	const struct {
		const char *flag, *value;
	} rows[] = { { "--pod-cidr", o->pod_cidr }, { "--service-cidr", o->service_cidr } };
	struct range range[2];
	bool known[2];

	for (int i = 0; i < 2; i++) {
		known[i] = range_read(rows[i].value, &range[i]);
		if (known[i] && has_address(&range[i], o->node_ip))
			return err_set(err, -EINVAL,
				"%s %s has this machine's address %s in it: choose another network, the same for all machines of the cluster",
				rows[i].flag, rows[i].value, o->node_ip);
	}
	if (known[0] && known[1] && overlap(&range[0], &range[1]))
		return err_set(err, -EINVAL,
			"--pod-cidr %s and --service-cidr %s overlap: pods and services need networks of their own",
			o->pod_cidr, o->service_cidr);
	return 0;
}

int networks_check_node(const struct options *o, const char *pod_cidr, struct err *err)
{
	struct range pods, services;
	CLEAN_FREE char *what = NULL;

	if (!range_read(pod_cidr, &pods))
		return 0;
	if (range_read(o->service_cidr, &services) && overlap(&pods, &services))
		what = xasprintf("overlaps the services' network %s", o->service_cidr);
	else if (has_address(&pods, o->node_ip))
		what = xasprintf("has the node's own address %s in it", o->node_ip);
	else
		return 0;
	return err_set(err, -EINVAL,
		"spec.podCIDR of node %s is %s, which %s: delete the node and start this agent again, so that it is given another one",
		o->node_name, pod_cidr, what);
}
