/* Gives each node a /24 of the cluster's pod network. Upstream: pkg/controller/nodeipam's range allocator. IPv4.
 *
 * All nodes share one key, so that two nodes never get one range; what was given and is not in the cache yet is remembered. */
#include "controllers/internal.h"

#include <arpa/inet.h>

#include "controllers/table.h"

#define NODE_BITS 24
#define KEY STR("all")

struct state {
	uint32_t base;    /* host order */
	uint32_t ranges;  /* how many /24 there are */
	uint32_t next;    /* where the search begins: freed ranges rest for a round */
	struct map given; /* node's uid -> range number + 1; touched by the one reconcile alone */
};

static bool parse_range(struct state *st, struct str cidr, uint32_t *ret)
{
	struct str address, bits;
	struct in_addr in;
	char text[INET_ADDRSTRLEN];
	int64_t n;

	if (!str_cut(cidr, '/', &address, &bits) || str_to_i64(bits, &n) ||
		address.len >= sizeof(text))
		return false;
	memcpy(text, address.p, address.len);
	text[address.len] = 0;
	if (inet_pton(AF_INET, text, &in) != 1)
		return false;
	uint32_t ip = ntohl(in.s_addr);

	if (ip < st->base || (ip - st->base) >> (32 - NODE_BITS) >= st->ranges)
		return false;
	*ret = (ip - st->base) >> (32 - NODE_BITS);
	return true;
}

static int init(struct run *r, struct err *err)
{
	struct state *st = xcalloc(1, sizeof(*st));
	struct str cidr = str_of(r->config->cluster_cidr), address, bits;
	char text[INET_ADDRSTRLEN] = "";
	struct in_addr in;
	int64_t n;

	r->state = st;
	if (!str_cut(cidr, '/', &address, &bits) || str_to_i64(bits, &n) || n < 8 ||
		n > NODE_BITS || address.len >= sizeof(text) ||
		!memcpy(text, address.p, address.len) || inet_pton(AF_INET, text, &in) != 1)
		return err_set(err, -EINVAL,
			"pod network %s: an IPv4 range from /8 to /24 is needed (10.42.0.0/16)",
			r->config->cluster_cidr);
	st->base = ntohl(in.s_addr) & ~(uint32_t)((1ull << (32 - n)) - 1);
	st->ranges = 1u << (NODE_BITS - n);
	return 0;
}

static void deinit(struct run *r)
{
	struct state *st = r->state;

	map_deinit(&st->given, NULL);
	free(st);
}

static bool find_free(struct state *st, const uint8_t *used, uint32_t *ret)
{
	for (uint32_t i = 0; i < st->ranges; i++) {
		uint32_t k = (st->next + i) % st->ranges;

		if (!(used[k / 8] >> (k % 8) & 1)) {
			st->next = (k + 1) % st->ranges;
			*ret = k;
			return true;
		}
	}
	return false;
}

static int give(struct run *r, const struct core_v1_node *n, uint32_t range, struct err *err)
{
	struct state *st = r->state;
	struct in_addr in = { .s_addr = htonl(st->base + (range << (32 - NODE_BITS))) };
	char text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &in, text, sizeof(text));
	int ret = patch_merge_fmt(r, &core_v1_node_type, STR_NONE, n->metadata.name, NULL, err,
		"{\"spec\":{\"podCIDR\":\"%s/%d\",\"podCIDRs\":[\"%s/%d\"]}}", text, NODE_BITS,
		text, NODE_BITS);

	if (!ret)
		map_set(&st->given, n->metadata.uid, (void *)(uintptr_t)(range + 1));
	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

static void mark(uint8_t *used, uint32_t range)
{
	used[range / 8] |= (uint8_t)(1 << range % 8);
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	struct state *st = r->state;
	struct objects nodes = cache_objects(r, &core_v1_node_type, STR_NONE);
	uint8_t *used = arena_alloc(r->arena, st->ranges / 8 + 1);
	size_t i = 0;
	struct str uid;
	void *v;

	OBJECT_EACH(const struct core_v1_node, n, nodes) {
		uint32_t range;

		if (n->spec.pod_cidr.len)
			map_remove(&st->given, n->metadata.uid);
		if (n->spec.pod_cidr.len && parse_range(st, n->spec.pod_cidr, &range))
			mark(used, range);
	}
	while (map_next(&st->given, &i, &uid, &v)) {
		bool there = false;

		OBJECT_EACH(const struct core_v1_node, n, nodes)
			there |= str_eq(n->metadata.uid, uid);
		if (there)
			mark(used, (uint32_t)(uintptr_t)v - 1);
		else
			map_remove(&st->given,
				uid); /* deleted before its range was seen: one of that name later is another node */
	}
	OBJECT_EACH(const struct core_v1_node, n, nodes) {
		uint32_t range;

		if (n->spec.pod_cidr.len || map_get(&st->given, n->metadata.uid))
			continue;
		if (!find_free(st, used, &range)) {
			event_record(r->events, &core_v1_node_type, n, "Normal", "CIDRNotAvailable",
				"Node " STR_FMT " status is now: CIDRNotAvailable",
				STR_ARG(n->metadata.name));
			return err_set(err, -ENOSPC,
				"the pod network %s has no /%d left for node " STR_FMT,
				r->config->cluster_cidr, NODE_BITS, STR_ARG(n->metadata.name));
		}
		mark(used, range);
		int ret = give(r, n, range, err);

		if (ret)
			return ret;
	}
	return 0;
}

static void map_node(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct core_v1_node *n = now ? now->obj : NULL;

	if (n && !n->spec.pod_cidr.len)
		enqueue(r, KEY);
}

static bool enabled(const struct controllers_config *c)
{
	return c->cluster_cidr != NULL;
}

const struct controller node_ipam_controller = {
	.name = "node-ipam",
	.component = "cidrAllocator",
	.watches = { { &core_v1_node_type, map_node } },
	.enabled = enabled,
	.init = init,
	.deinit = deinit,
	.reconcile = reconcile,
};
