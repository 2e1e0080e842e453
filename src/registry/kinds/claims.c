/* Addresses and ports that services hold. Rebuilt from the stored services at start, so nothing is stored twice; a create that is
 * under way holds its claim from before the commit until it is settled.
 *
 * As upstream's, the lower end of each range is left to those who ask for a certain number: what is chosen for a client comes from above
 * it first. The lock guards the bits. */
#include "registry/kinds/claims.h"

enum { MAX_ADDRESSES = 65536, PROTOCOLS = 3, DNS_OFFSET = 10 };

struct range {
	uint64_t *bits;
	uint64_t *
		under_way; /* of a shared store: claims of writes that are not stored yet; NULL: in bits too */
	uint32_t size, reserved; /* offsets 0 … size - 1; those below reserved are chosen last */
	uint32_t never;          /* chosen; 0: none */
};
struct service_claims {
	pthread_mutex_t lock;
	uint32_t network, mask_len, host_first;
	char cidr[32];
	struct range addresses; /* offset from the network's address */
	struct range ports[PROTOCOLS];
	int port_first, port_last;
	uint32_t random;
};

static bool has(const struct range *r, uint32_t i)
{
	return (r->bits[i / 64] | (r->under_way ? r->under_way[i / 64] : 0)) >> (i % 64) & 1;
}

static bool take(struct range *r, uint32_t i)
{
	if (has(r, i))
		return false;
	(r->under_way ? r->under_way : r->bits)[i / 64] |= (uint64_t)1 << (i % 64);
	return true;
}

static void drop(struct range *r, uint32_t i)
{
	(r->under_way ? r->under_way : r->bits)[i / 64] &= ~((uint64_t)1 << (i % 64));
}

static void set_stored(struct range *r, uint32_t i, bool held)
{
	uint64_t bit = (uint64_t)1 << (i % 64);
	r->bits[i / 64] = held ? r->bits[i / 64] | bit : r->bits[i / 64] & ~bit;
}

static bool choose_in(struct range *r, uint32_t from, uint32_t to, uint32_t start, uint32_t *ret)
{
	for (uint32_t k = 0; k < to - from; k++) {
		uint32_t i = from + (start + k) % (to - from);
		if (!(r->never && i == r->never) && take(r, i)) {
			*ret = i;
			return true;
		}
	}
	return false;
}

static bool choose(struct range *r, uint32_t first, uint32_t start, uint32_t *ret)
{
	uint32_t low = MAX(first, MIN(r->reserved, r->size));
	return (low < r->size && choose_in(r, low, r->size, start, ret)) ||
		(first < low && choose_in(r, first, low, start, ret));
}

static void range_init(struct range *r, uint32_t size, uint32_t reserved)
{
	r->size = size;
	r->reserved = reserved;
	r->bits = xcalloc(size / 64 + 1, sizeof(*r->bits));
}

int claims_new(const char *cidr, int port_first, int port_last, struct service_claims **ret,
	struct err *err)
{
	struct str address, bits;
	int64_t len;
	uint32_t network;
	if (!str_cut(str_of(cidr), '/', &address, &bits) || !parse_ipv4(address, &network) ||
		str_to_i64(bits, &len) || len < 8 || len > 30)
		return err_set(err, -EINVAL,
			"service range \"%s\" cannot be used: it is an IPv4 network such as 10.43.0.0/16",
			cidr);
	if (port_first < 1 || port_last > 65535 || port_first > port_last)
		return err_set(err, -EINVAL,
			"node port range %d-%d cannot be used: both are ports, the lower first",
			port_first, port_last);
	struct service_claims *c = xcalloc(1, sizeof(*c));
	pthread_mutex_init(&c->lock, NULL);
	uint32_t hosts = (uint32_t)MIN((uint64_t)1 << (32 - len), (uint64_t)MAX_ADDRESSES);
	c->network = network & ~(uint32_t)(((uint64_t)1 << (32 - len)) - 1);
	c->mask_len = (uint32_t)len;
	snprintf(c->cidr, sizeof(c->cidr), "%u.%u.%u.%u/%u", c->network >> 24,
		c->network >> 16 & 255, c->network >> 8 & 255, c->network & 255, c->mask_len);
	/* neither the network's own address nor the last one */
	range_init(&c->addresses, hosts - 1, MIN(MAX(16, hosts / 16), 256) + 1);
	c->addresses.never = DNS_OFFSET;
	c->port_first = port_first;
	c->port_last = port_last;
	uint32_t n = (uint32_t)(port_last - port_first + 1);
	for (int i = 0; i < PROTOCOLS; i++)
		range_init(&c->ports[i], n, MIN(MAX(16, n / 32), 128));
	random_bytes(&c->random, sizeof(c->random));
	*ret = c;
	return 0;
}

void claims_free(struct service_claims *c)
{
	if (!c)
		return;
	for (int i = -1; i < PROTOCOLS; i++) {
		struct range *r = i < 0 ? &c->addresses : &c->ports[i];
		free(r->bits);
		free(r->under_way);
	}
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static uint32_t next_random(struct service_claims *c)
{
	c->random = c->random * 1664525u + 1013904223u;
	return c->random >> 8;
}

const char *claims_cidr(const struct service_claims *c)
{
	return c->cidr;
}

static bool offset_of(const struct service_claims *c, struct str ip, uint32_t *ret)
{
	uint32_t v;
	if (!parse_ipv4(ip, &v) || v <= c->network || v - c->network >= c->addresses.size)
		return false;
	*ret = v - c->network;
	return true;
}

bool claims_is_dns(const struct service_claims *c, struct str ip)
{
	uint32_t i;
	return offset_of(c, ip, &i) && i == DNS_OFFSET;
}

int claims_take_address(struct service_claims *c, struct str ip)
{
	uint32_t i;
	if (!offset_of(c, ip, &i))
		return CLAIM_OUT_OF_RANGE;
	pthread_mutex_lock(&c->lock);
	bool ok = take(&c->addresses, i);
	pthread_mutex_unlock(&c->lock);
	return ok ? 0 : CLAIM_TAKEN;
}

int claims_choose_address(struct service_claims *c, struct arena *a, struct str *ret)
{
	uint32_t i;
	pthread_mutex_lock(&c->lock);
	bool ok = choose(&c->addresses, 1, next_random(c), &i);
	pthread_mutex_unlock(&c->lock);
	if (!ok)
		return CLAIM_FULL;
	uint32_t v = c->network + i;
	*ret = arena_fmt(a, "%u.%u.%u.%u", v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255);
	return 0;
}

void claims_drop_address(struct service_claims *c, struct str ip)
{
	uint32_t i;
	if (!offset_of(c, ip, &i))
		return;
	pthread_mutex_lock(&c->lock);
	drop(&c->addresses, i);
	pthread_mutex_unlock(&c->lock);
}

static struct range *ports_of(struct service_claims *c, struct str protocol)
{
	return &c->ports[str_eqz(protocol, "UDP") ? 1 : str_eqz(protocol, "SCTP") ? 2 : 0];
}

int claims_take_port(struct service_claims *c, struct str protocol, int port)
{
	if (port < c->port_first || port > c->port_last)
		return CLAIM_OUT_OF_RANGE;
	pthread_mutex_lock(&c->lock);
	bool ok = take(ports_of(c, protocol), (uint32_t)(port - c->port_first));
	pthread_mutex_unlock(&c->lock);
	return ok ? 0 : CLAIM_TAKEN;
}

int claims_choose_port(struct service_claims *c, struct str protocol, int *ret)
{
	uint32_t i;
	pthread_mutex_lock(&c->lock);
	bool ok = choose(ports_of(c, protocol), 0, next_random(c), &i);
	pthread_mutex_unlock(&c->lock);
	if (!ok)
		return CLAIM_FULL;
	*ret = c->port_first + (int)i;
	return 0;
}

void claims_drop_port(struct service_claims *c, struct str protocol, int port)
{
	if (port < c->port_first || port > c->port_last)
		return;
	pthread_mutex_lock(&c->lock);
	drop(ports_of(c, protocol), (uint32_t)(port - c->port_first));
	pthread_mutex_unlock(&c->lock);
}

struct str claims_first_address(const struct service_claims *c, struct arena *a)
{
	uint32_t v = c->network + 1;
	return arena_fmt(a, "%u.%u.%u.%u", v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255);
}

/* ---- a shared store: what is stored is told, not concluded ---- */

void claims_stored_none(struct service_claims *c)
{
	pthread_mutex_lock(&c->lock);
	for (int i = -1; i < PROTOCOLS; i++) {
		struct range *r = i < 0 ? &c->addresses : &c->ports[i];
		size_t words = r->size / 64 + 1;
		memset(r->bits, 0, words * sizeof(*r->bits));
		if (!r->under_way)
			r->under_way = xcalloc(words, sizeof(*r->under_way));
	}
	pthread_mutex_unlock(&c->lock);
}

void claims_stored_address(struct service_claims *c, struct str ip, bool held)
{
	uint32_t i;
	if (!offset_of(c, ip, &i))
		return;
	pthread_mutex_lock(&c->lock);
	set_stored(&c->addresses, i, held);
	pthread_mutex_unlock(&c->lock);
}

void claims_stored_port(struct service_claims *c, struct str protocol, int port, bool held)
{
	if (port < c->port_first || port > c->port_last)
		return;
	pthread_mutex_lock(&c->lock);
	set_stored(ports_of(c, protocol), (uint32_t)(port - c->port_first), held);
	pthread_mutex_unlock(&c->lock);
}
