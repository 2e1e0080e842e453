/* ClientIP affinity: who comes back within the timeout is sent where it was sent before, for as long as that endpoint is there. The kernel remembers: a map from
 * client and place to the number of an endpoint, which the packets themselves fill and the timeout empties. Upstream: affinity sets of kube-proxy's nftables mode.
 *
 * 1. An endpoint keeps its number over all changes of its service. One that is gone has none: its clients draw anew, and nobody else's do.
 * 2. The number comes from the endpoint's address (its lower half), so that another life of the agent finds the same. Where two of a service port want one,
 *    the later in order takes another that is free, and keeps it while this process lives.
 * 3. The maps outlive a writing of all rules (proxy.c); they are made with the first chain that needs them.
 * 4. A map holds REMEMBERED_MOST clients. Who finds it full is sent by a hash of its address: to the same endpoint while their number stays.
 *
 * A client is remembered by the place at which it asks: by a service address and by a node port it may be sent to two endpoints (upstream: to one). */
#include "proxy/internal.h"

#include <stdio.h>
#include <stdlib.h>

#define NUMBERS_MOST (MARK_MASQUERADE - 1) /* 0 stands for nobody */
#define STEP 32749 /* prime to NUMBERS_MOST; away from neighbours, which have their own numbers */
#define REMEMBERED_MOST 65536
#define TIMEOUT_DEFAULT 10800
#define TIMEOUT_MOST 86400

uint32_t affinity_timeout(const struct core_v1_service *s)
{
	const struct core_v1_session_affinity_config *c = s->spec.session_affinity_config;
	struct opt_int32 t =
		c && c->client_ip ? c->client_ip->timeout_seconds : (struct opt_int32){ 0 };

	if (!str_eqz(s->spec.session_affinity, "ClientIP"))
		return 0;
	return !t.set || t.value < 1 ? TIMEOUT_DEFAULT : MIN((uint32_t)t.value, TIMEOUT_MOST);
}

/* ---- numbers of endpoints ---- */

struct endpoint_key {
	uint32_t address;
	int32_t port;
};

static struct str key_of(const struct target *t, struct endpoint_key *space)
{
	*space = (struct endpoint_key){ t->address, t->port };
	return str_n((char *)space, sizeof(*space));
}

static int by_address(const void *va, const void *vb)
{
	const struct target *a = va, *b = vb;

	if (a->address != b->address)
		return a->address < b->address ? -1 : 1;
	return a->port < b->port ? -1 : a->port > b->port;
}

/* All of a port's, each once. */
static struct targets union_of(struct arena *a, struct targets one, struct targets two)
{
	struct targets all = { .items = arena_alloc(
				       a, (one.len + two.len + 1) * sizeof(*all.items)) };
	size_t n = 0;

	for (size_t i = 0; i < one.len; i++)
		all.items[n++] = one.items[i];
	for (size_t i = 0; i < two.len; i++)
		all.items[n++] = two.items[i];
	qsort(all.items, n, sizeof(*all.items), by_address);
	for (size_t i = 0; i < n; i++)
		if (!all.len || by_address(&all.items[all.len - 1], &all.items[i]) != 0)
			all.items[all.len++] = all.items[i];
	return all;
}

static const struct numbered *numbered_before(
	const struct rules *was, const struct core_v1_service_port *p)
{
	for (size_t i = 0; was && i < was->n_numbered; i++)
		if (was->numbered[i].port == p->port &&
			was->numbered[i].protocol == protocol_text(p->protocol))
			return &was->numbered[i];
	return NULL;
}

static uint32_t take_number(bool *taken, uint32_t address)
{
	uint32_t n = MAX(address & NUMBERS_MOST, 1u);

	while (taken[n])
		n = (n - 1 + STEP) % NUMBERS_MOST + 1;
	taken[n] = true;
	return n;
}

/* Their numbers, by key_of. */
static void number_all(struct targets *all, const struct numbered *before, struct map *numbers)
{
	CLEAN_FREE bool *taken = xcalloc(NUMBERS_MOST + 1, sizeof(*taken));
	struct endpoint_key space;
	struct map old = { 0 };

	for (size_t i = 0; before && i < before->all.len; i++)
		map_set(&old, key_of(&before->all.items[i], &space), &before->all.items[i]);
	for (size_t i = 0; i < all->len; i++) {
		const struct target *same = map_get(&old, key_of(&all->items[i], &space));

		all->items[i].number = same ? same->number : 0;
		taken[all->items[i].number] = true;
	}
	all->len = MIN(all->len, NUMBERS_MOST);
	for (size_t i = 0; i < all->len; i++) {
		struct target *t = &all->items[i];

		if (!t->number)
			t->number = take_number(taken, t->address);
		map_set(numbers, key_of(t, &space), t);
	}
	map_deinit(&old, NULL);
}

static void copy_numbers(struct targets *t, const struct map *numbers)
{
	struct endpoint_key space;

	for (size_t i = 0; i < t->len; i++) {
		const struct target *known = map_get(numbers, key_of(&t->items[i], &space));

		t->items[i].number = known ? known->number : 0;
	}
}

void affinity_number(struct rules *r, const struct rules *was, const struct core_v1_service_port *p,
	struct port_targets *t)
{
	struct targets all = union_of(r->arena, t->everywhere, t->local);
	struct map numbers = { 0 };

	number_all(&all, numbered_before(was, p), &numbers);
	copy_numbers(&t->everywhere, &numbers);
	copy_numbers(&t->cluster, &numbers);
	copy_numbers(&t->local, &numbers);
	map_deinit(&numbers, NULL);
	*ARENA_ADD(r->arena, r->numbered, r->n_numbered) =
		(struct numbered){ p->port, protocol_text(p->protocol), all };
}

/* ---- chains ---- */

void affinity_chain_name(uint32_t count, uint32_t timeout, struct buf *out)
{
	chain_kind_name(count, out);
	buf_addf(out, "sticky_%u_%u", count & CHAIN_COUNT, timeout);
}

/* What a chain is written with. */
struct words {
	const char *chain, *place; /* place: how a packet names it */
	const char *choices, *endpoints, *memory, *memory_key;
	uint32_t count, timeout, mark;
};

static const struct words at_address = {
	.place = "ip daddr . meta l4proto . th dport",
	.choices = "choices",
	.endpoints = "endpoints",
	.memory = "clients",
	.memory_key = "ipv4_addr . ipv4_addr . inet_proto . inet_service",
};
static const struct words at_node_port = {
	.place = "meta l4proto . th dport",
	.choices = "node_port_choices",
	.endpoints = "node_port_endpoints",
	.memory = "node_port_clients",
	.memory_key = "ipv4_addr . inet_proto . inet_service",
};

static void rule(const struct words *w, struct buf *out, const char *text)
{
	buf_addf(out, "add rule " PROXY_TABLE " %s %s\n", w->chain, text);
}

/* The mark becomes the number of the endpoint that is i-th by `draw`. */
static void choose_rules(const struct words *w, const char *draw, struct buf *out)
{
	CLEAN_FREE char *number = xasprintf("meta mark set %s mod %u%s offset %u", draw, w->count,
				strstr(draw, "jhash") ? " seed 0x736b6966" : "", w->mark),
			*choice = xasprintf(
				"meta mark set %s . meta mark map @%s", w->place, w->choices);

	rule(w, out, number);
	rule(w, out, choice);
}

/* A rule ends at the first expression that finds nothing. The memory is read again after it was written, since two first packets of one client may be under
 * way; what is written is kept when there is something already, hence the removal of who leads nowhere. */
void affinity_chain_write(uint32_t count, uint32_t timeout, struct buf *out)
{
	struct words w = count & CHAIN_NODE ? at_node_port : at_address;
	CLEAN_BUF struct buf name = { 0 };

	affinity_chain_name(count, timeout, &name);
	w.chain = name.p;
	w.count = count & CHAIN_COUNT;
	w.mark = mark_of(count);
	CLEAN_FREE char *recall =
				xasprintf("meta mark set ip saddr . %s map @%s", w.place, w.memory),
			*remember =
				xasprintf("update @%s { ip saddr . %s timeout %us : meta mark }",
					w.memory, w.place, timeout),
			*lead = xasprintf(
				"dnat ip to %s . meta mark map @%s", w.place, w.endpoints),
			*again = xasprintf("meta mark != 0 %s %s", remember, lead),
			*forget =
				xasprintf("meta mark != 0 delete @%s { ip saddr . %s : meta mark }",
					w.memory, w.place),
			*recall_and_lead = xasprintf("%s %s", recall, lead);

	buf_addf(out,
		"add map " PROXY_TABLE " %s { type %s : mark; flags dynamic, timeout; size %d; }\n"
		"add chain " PROXY_TABLE " %s\n",
		w.memory, w.memory_key, REMEMBERED_MOST, w.chain);
	rule(&w, out, "meta mark set 0");
	rule(&w, out, recall);
	rule(&w, out, again);
	rule(&w, out, forget);
	choose_rules(&w, "numgen random", out);
	rule(&w, out, remember);
	rule(&w, out, recall_and_lead);
	choose_rules(&w, "jhash ip saddr", out); /* nothing was remembered: it is full */
	rule(&w, out, lead);
}
