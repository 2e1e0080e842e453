/* The programs of the flow cache, as eBPF.
 *
 * A packet that comes in on a link is looked up by its addresses, ports, class and link. Known: it gets the header that the stack gave to the one before it (addresses,
 * ports, time to live, Ethernet addresses) and leaves by the same link, past routes and rules. Not known, or known for longer than FLOW_LIFE_MS: it is noted
 * for this CPU and takes its way through the stack. When the same packet leaves a link, what became of it is remembered. So whatever anybody configured
 * by these or by connection holds: routes, policies, translation, firewalls of others; a change of theirs reaches a connection under way after FLOW_LIFE_MS at
 * most. What wants to see each packet (inspection of payload, FTP's helper, rates and quotas of rules, netdev chains) sees one in FLOW_LIFE_MS;
 * filters of traffic control see all.
 *
 * 1. Only IPv4 TCP to this machine's Ethernet address, without SYN, FIN and RST, without IP options and fragments: connections begin and end in the stack, and
 *    conntrack knows them. Those three also end what is known of their direction, so that conntrack sees the last acknowledgment, and the next connection
 *    with the same ports owes nothing to the one before.
 * 2. A packet is noted and remembered within one pass through the stack, which does not leave the CPU. It carries the number of its note, drawn by lot, and is
 *    compared with it in all that a router keeps (length, id, sequence numbers): another one is not remembered. Neither is one that somebody marked, changed
 *    in another way, or made here.
 * 3. The link it came from is part of the key: what a link may not send, it may not send by the cache.
 * 4. Larger packets than the one that the stack let pass are asked for: links and routes may take none of that size, which the stack answers. */
#include <arpa/inet.h>
#include <assert.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <netinet/in.h>

#include "network/internal.h"

#define FLOWS 8192 /* the least recently used go */

struct flow_key { /* as on the wire */
	uint32_t source, destination, ports;
	uint32_t link;  /* that it came in on */
	uint32_t class; /* DSCP: routes and rules may ask for it */
};
struct flow { /* what the stack did */
	uint64_t at;
	uint32_t link, size;
	uint32_t source, destination, ports; /* after translation */
	uint32_t translated;
	uint32_t address_diff, port_diff; /* of checksums */
	uint32_t header_diff;             /* address_diff in 16 bits */
	uint16_t mac[6];                  /* Ethernet header but the type */
};
struct seen { /* a packet on its way through the stack, one a CPU */
	struct flow_key key;
	uint32_t number; /* that the packet carries as its tc_index; 0: none is on its way */
	uint32_t head, id, sequence, acknowledged; /* head: version to length; id: and fragments */
	uint16_t life, flags;                      /* life: and protocol */
};

int flow_maps_new(struct flow_maps *ret, struct err *err)
{
	static const struct bpf_map_spec flows = { "skiff_flows", BPF_MAP_TYPE_LRU_HASH,
		sizeof(struct flow_key), sizeof(struct flow), FLOWS },
					 seen = { "skiff_seen", BPF_MAP_TYPE_PERCPU_ARRAY,
						 sizeof(uint32_t), sizeof(struct seen), 1 };
	int r = bpf_map_new(&flows, &ret->flows, err);

	if (r == 0 && (r = bpf_map_new(&seen, &ret->seen, err)) < 0)
		close(ret->flows);
	return r;
}

/* ---- an assembler ---- */

enum reg { R0, R1, R2, R3, R4, R5, SKB, FLOW, SEEN, TEMP, STACK };
enum place { NEXT, PASS, MISS, FORGET, WHOLE, SIZED, SAME, PLACES };
struct code {
	struct bpf_insn *insns;
	size_t n, at[PLACES];
	enum place to[FLOW_CODE_MAX]; /* where the jump at this position goes; NEXT: no jump */
};

static void put(struct code *c, int op, int d, int s, int offset, int imm)
{
	assert(c->n < FLOW_CODE_MAX);
	c->insns[c->n++] = (struct bpf_insn){ .code = (uint8_t)op,
		.dst_reg = (uint8_t)d & 15,
		.src_reg = (uint8_t)s & 15,
		.off = (int16_t)offset,
		.imm = imm };
}

static void move(struct code *c, enum reg d, enum reg s)
{
	put(c, BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0);
}

static void set(struct code *c, enum reg d, int value)
{
	put(c, BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, value);
}

static void math(struct code *c, enum reg d, int op, int value)
{
	put(c, BPF_ALU64 | op | BPF_K, d, 0, 0, value);
}

static void math_reg(struct code *c, enum reg d, int op, enum reg s)
{
	put(c, BPF_ALU64 | op | BPF_X, d, s, 0, 0);
}

static void load(struct code *c, int size, enum reg d, enum reg from, int offset)
{
	put(c, BPF_LDX | size | BPF_MEM, d, from, offset, 0);
}

static void store(struct code *c, int size, enum reg to, int offset, enum reg s)
{
	put(c, BPF_STX | size | BPF_MEM, to, s, offset, 0);
}

static void store_value(struct code *c, int size, enum reg to, int offset, int value)
{
	put(c, BPF_ST | size | BPF_MEM, to, 0, offset, value);
}

static void copy(struct code *c, int size, enum reg to, int to_offset, enum reg from, int offset)
{
	load(c, size, R1, from, offset);
	store(c, size, to, to_offset, R1);
}

static void address(struct code *c, enum reg d, enum reg base, int offset)
{
	move(c, d, base);
	math(c, d, BPF_ADD, offset);
}

static void map(struct code *c, enum reg d, int fd)
{
	put(c, BPF_LD | BPF_DW | BPF_IMM, d, BPF_PSEUDO_MAP_FD, 0, fd);
	put(c, 0, 0, 0, 0, 0);
}

static void call(struct code *c, int function)
{
	put(c, BPF_JMP | BPF_CALL, 0, 0, 0, function);
}

static void jump_if(struct code *c, enum reg d, int op, int value, enum place to)
{
	c->to[c->n] = to;
	put(c, BPF_JMP | op | BPF_K, d, 0, 0, value);
}

static void jump_if_reg(struct code *c, enum reg d, int op, enum reg s, enum place to)
{
	c->to[c->n] = to;
	put(c, BPF_JMP | op | BPF_X, d, s, 0, 0);
}

static void jump(struct code *c, enum place to)
{
	c->to[c->n] = to;
	put(c, BPF_JMP | BPF_JA, 0, 0, 0, 0);
}

static void here(struct code *c, enum place p)
{
	c->at[p] = c->n;
}

static size_t finish(struct code *c)
{
	here(c, PASS);
	set(c, R0, TC_ACT_UNSPEC); /* as if this program were not there */
	put(c, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	for (size_t i = 0; i < c->n; i++)
		if (c->to[i] != NEXT)
			c->insns[i].off = (int16_t)(c->at[c->to[i]] - i - 1);
	return c->n;
}

/* ---- what both sides do ---- */

/* The stack of a program; the IP header lies on a multiple of four. */
enum {
	TCP = -24,
	IP = TCP - 20,
	FRAME = IP - 14,
	KEY = -80,
	ZERO = -84,
	NEW = -88 - (int)sizeof(struct flow),
};
#define FRAME_SIZE (-FRAME - 4) /* the three headers */
#define CHANGED (14 + 20 + 4)   /* as far as the ports */
#define TCP_CHECKSUM (14 + 20 + 16)
#define ONE_HOP ((int)htons(0x0100)) /* time to live counts in this */
#define F(type, member) ((int)offsetof(struct type, member))

_Static_assert(sizeof(struct flow) % 8 == 0 && NEW % 8 == 0, "the stack is read by words");

static void find_seen(struct code *c, const struct flow_maps *m)
{
	store_value(c, BPF_W, STACK, ZERO, 0);
	map(c, R1, m->seen);
	address(c, R2, STACK, ZERO);
	call(c, BPF_FUNC_map_lookup_elem);
	jump_if(c, R0, BPF_JEQ, 0, PASS);
	move(c, SEEN, R0);
}

/* The three headers onto the stack, when they are of the kind that is cached. */
static void read_headers(struct code *c)
{
	move(c, R1, SKB);
	set(c, R2, 0);
	address(c, R3, STACK, FRAME);
	set(c, R4, FRAME_SIZE);
	call(c, BPF_FUNC_skb_load_bytes);
	jump_if(c, R0, BPF_JNE, 0, PASS);
	load(c, BPF_B, R1, STACK, IP);
	jump_if(c, R1, BPF_JNE, 0x45, PASS); /* no options */
	load(c, BPF_H, R1, STACK, IP + 6);
	math(c, R1, BPF_AND, (int)htons(0xbfff)); /* a fragment; "don't fragment" may be set */
	jump_if(c, R1, BPF_JNE, 0, PASS);
	load(c, BPF_B, R1, STACK, IP + 9);
	jump_if(c, R1, BPF_JNE, IPPROTO_TCP, PASS);
}

/* FIN, SYN, RST */
static void if_it_begins_or_ends(struct code *c, enum place to)
{
	load(c, BPF_B, R1, STACK, TCP + 13);
	math(c, R1, BPF_AND, 0x07);
	jump_if(c, R1, BPF_JNE, 0, to);
}

/* TEMP = the IP packet's size. One that was put together from several leaves as several: each of them counts. */
static void measure(struct code *c)
{
	load(c, BPF_H, TEMP, STACK, IP + 2);
	put(c, BPF_ALU | BPF_END | BPF_TO_BE, TEMP, 0, 0, 16);
	load(c, BPF_W, R1, SKB, F(__sk_buff, gso_size));
	jump_if(c, R1, BPF_JEQ, 0, WHOLE);
	load(c, BPF_B, TEMP, STACK, TCP + 12);
	math(c, TEMP, BPF_RSH, 4);
	math(c, TEMP, BPF_LSH, 2);
	math_reg(c, TEMP, BPF_ADD, R1);
	math(c, TEMP, BPF_ADD, 20);
	here(c, WHOLE);
}

/* d = d folded to 16 bits once; uses R2 */
static void fold(struct code *c, enum reg d)
{
	move(c, R2, d);
	math(c, R2, BPF_RSH, 16);
	math(c, d, BPF_AND, 0xffff);
	math_reg(c, d, BPF_ADD, R2);
}

/* ---- in ---- */

static void make_key(struct code *c)
{
	for (int i = 0; i < 3; i++)
		copy(c, BPF_W, STACK, KEY + 4 * i, STACK, IP + 12 + 4 * i);
	copy(c, BPF_W, STACK, KEY + F(flow_key, link), SKB, F(__sk_buff, ifindex));
	load(c, BPF_B, R1, STACK, IP + 1);
	math(c, R1, BPF_AND, 0xfc); /* without ECN */
	store(c, BPF_W, STACK, KEY + F(flow_key, class), R1);
}

static void with_key(struct code *c, const struct flow_maps *m, int function)
{
	map(c, R1, m->flows);
	address(c, R2, STACK, KEY);
	call(c, function);
}

/* Jumps to MISS when nothing is known, or not since a moment ago. FLOW: what is. */
static void find_flow(struct code *c, const struct flow_maps *m)
{
	with_key(c, m, BPF_FUNC_map_lookup_elem);
	jump_if(c, R0, BPF_JEQ, 0, MISS);
	move(c, FLOW, R0);
	call(c, BPF_FUNC_ktime_get_coarse_ns);
	load(c, BPF_DW, R1, FLOW, F(flow, at));
	math_reg(c, R0, BPF_SUB, R1);
	jump_if(c, R0, BPF_JGT, FLOW_LIFE_MS * 1000000, MISS);
}

static void check_size(struct code *c)
{
	measure(c);
	load(c, BPF_W, R1, FLOW, F(flow, size));
	jump_if_reg(c, TEMP, BPF_JGT, R1, MISS);
}

static void replace_checksum(struct code *c, int diff, int flags)
{
	move(c, R1, SKB);
	set(c, R2, TCP_CHECKSUM);
	set(c, R3, 0);
	load(c, BPF_W, R4, FLOW, diff);
	set(c, R5, flags);
	call(c, BPF_FUNC_l4_csum_replace);
	jump_if(c, R0, BPF_JNE, 0, PASS);
}

static void translate(struct code *c)
{
	load(c, BPF_W, R1, FLOW, F(flow, translated));
	jump_if(c, R1, BPF_JEQ, 0, SAME);
	load(c, BPF_H, TEMP, STACK, IP + 10);
	math(c, TEMP, BPF_XOR, 0xffff);
	load(c, BPF_W, R1, FLOW, F(flow, header_diff));
	math_reg(c, TEMP, BPF_ADD, R1);
	fold(c, TEMP);
	math(c, TEMP, BPF_XOR, 0xffff);
	store(c, BPF_H, STACK, IP + 10, TEMP);
	for (int i = 0; i < 3; i++)
		copy(c, BPF_W, STACK, IP + 12 + 4 * i, FLOW, F(flow, source) + 4 * i);
	/* Where hardware is to complete the checksum it is the addresses' alone so far. */
	replace_checksum(c, F(flow, address_diff), BPF_F_PSEUDO_HDR);
	replace_checksum(c, F(flow, port_diff), 0);
	here(c, SAME);
}

static void take_hop(struct code *c)
{
	load(c, BPF_H, R1, STACK, IP + 8);
	math(c, R1, BPF_SUB, ONE_HOP);
	store(c, BPF_H, STACK, IP + 8, R1);
	load(c, BPF_H, R1, STACK, IP + 10);
	math(c, R1, BPF_ADD, ONE_HOP);
	jump_if(c, R1, BPF_JLT, 0xffff, SIZED);
	math(c, R1, BPF_ADD, 1);
	here(c, SIZED);
	store(c, BPF_H, STACK, IP + 10, R1);
}

static void forward(struct code *c)
{
	for (int i = 0; i < 6; i++)
		copy(c, BPF_H, STACK, FRAME + 2 * i, FLOW, F(flow, mac) + 2 * i);
	move(c, R1, SKB);
	set(c, R2, 0);
	address(c, R3, STACK, FRAME);
	set(c, R4, CHANGED);
	set(c, R5, 0);
	call(c, BPF_FUNC_skb_store_bytes);
	jump_if(c, R0, BPF_JNE, 0, PASS);
	load(c, BPF_W, R1, FLOW, F(flow, link));
	set(c, R2, 0);
	call(c, BPF_FUNC_redirect);
	put(c, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static void note(struct code *c)
{
	for (int i = 0; i < F(seen, number); i += 4) /* the key */
		copy(c, BPF_W, SEEN, i, STACK, KEY + i);
	copy(c, BPF_W, SEEN, F(seen, head), STACK, IP);
	copy(c, BPF_W, SEEN, F(seen, id), STACK, IP + 4);
	copy(c, BPF_H, SEEN, F(seen, life), STACK, IP + 8);
	copy(c, BPF_W, SEEN, F(seen, sequence), STACK, TCP + 4);
	copy(c, BPF_W, SEEN, F(seen, acknowledged), STACK, TCP + 8);
	copy(c, BPF_H, SEEN, F(seen, flags), STACK, TCP + 12);
	call(c, BPF_FUNC_get_prandom_u32);
	math(c, R0, BPF_AND, 0xffff);
	math(c, R0, BPF_OR, 1);
	store(c, BPF_W, SEEN, F(seen, number), R0);
	store(c, BPF_W, SKB, F(__sk_buff, tc_index), R0);
}

static void ingress(struct code *c, const struct flow_maps *m)
{
	move(c, SKB, R1);
	find_seen(c, m);
	store_value(c, BPF_W, SEEN, F(seen, number), 0);
	load(c, BPF_W, R1, SKB, F(__sk_buff, pkt_type));
	jump_if(c, R1, BPF_JNE, PACKET_HOST, PASS);
	read_headers(c);
	make_key(c);
	if_it_begins_or_ends(c, FORGET);
	load(c, BPF_B, R1, STACK, IP + 8);
	jump_if(c, R1, BPF_JLT, 2, PASS);
	find_flow(c, m);
	check_size(c);
	translate(c);
	take_hop(c);
	forward(c);
	here(c, MISS);
	note(c);
	jump(c, PASS);
	here(c, FORGET);
	with_key(c, m, BPF_FUNC_map_delete_elem);
}

/* ---- out ---- */

/* Whether it is the packet whose note is this CPU's: not another one that waited, for a hardware address or in a queue, while that one was dropped. */
static void find_note(struct code *c, const struct flow_maps *m)
{
	find_seen(c, m);
	load(c, BPF_W, R1, SEEN, F(seen, number));
	jump_if(c, R1, BPF_JEQ, 0, PASS);
	load(c, BPF_W, R2, SKB, F(__sk_buff, tc_index));
	jump_if_reg(c, R1, BPF_JNE, R2, PASS);
	set(c, R1, 0);
	store(c, BPF_W, SEEN, F(seen, number), R1);
	store(c, BPF_W, SKB, F(__sk_buff, tc_index), R1);
}

/* The packet that was noted, after the stack did what routers do. */
static void compare(struct code *c)
{
	static const struct {
		int size, there, noted, less;
	} same[] = {
		{ BPF_W, IP, F(seen, head), 0 },
		{ BPF_W, IP + 4, F(seen, id), 0 },
		{ BPF_H, IP + 8, F(seen, life), 1 },
		{ BPF_W, TCP + 4, F(seen, sequence), 0 },
		{ BPF_W, TCP + 8, F(seen, acknowledged), 0 },
		{ BPF_H, TCP + 12, F(seen, flags), 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		load(c, same[i].size, R1, STACK, same[i].there);
		load(c, same[i].size, R2, SEEN, same[i].noted);
		if (same[i].less)
			math(c, R2, BPF_SUB, ONE_HOP);
		jump_if_reg(c, R1, BPF_JNE, R2, PASS);
	}
}

/* diff = the sum of what is there now less that of what was noted */
static void difference(struct code *c, int member, int noted, int size, int diff)
{
	address(c, R1, SEEN, noted);
	set(c, R2, size);
	address(c, R3, STACK, NEW + member);
	set(c, R4, size);
	set(c, R5, 0);
	call(c, BPF_FUNC_csum_diff);
	store(c, BPF_W, STACK, NEW + diff, R0);
}

static void describe(struct code *c)
{
	measure(c);
	store(c, BPF_W, STACK, NEW + F(flow, size), TEMP);
	copy(c, BPF_W, STACK, NEW + F(flow, link), SKB, F(__sk_buff, ifindex));
	for (int i = 0; i < 6; i++)
		copy(c, BPF_H, STACK, NEW + F(flow, mac) + 2 * i, STACK, FRAME + 2 * i);
	for (int i = 0; i < 3; i++)
		copy(c, BPF_W, STACK, NEW + F(flow, source) + 4 * i, STACK, IP + 12 + 4 * i);
	difference(c, F(flow, source), F(seen, key.source), 8, F(flow, address_diff));
	difference(c, F(flow, ports), F(seen, key.ports), 4, F(flow, port_diff));
	load(c, BPF_W, TEMP, STACK, NEW + F(flow, address_diff));
	fold(c, TEMP);
	fold(c, TEMP);
	store(c, BPF_W, STACK, NEW + F(flow, header_diff), TEMP);
	set(c, TEMP, 0);
	for (int i = 0; i < 3; i++) {
		load(c, BPF_W, R1, STACK, NEW + F(flow, source) + 4 * i);
		load(c, BPF_W, R2, SEEN, F(seen, key.source) + 4 * i);
		math_reg(c, R1, BPF_XOR, R2);
		math_reg(c, TEMP, BPF_OR, R1);
	}
	store(c, BPF_W, STACK, NEW + F(flow, translated), TEMP);
	call(c, BPF_FUNC_ktime_get_coarse_ns);
	store(c, BPF_DW, STACK, NEW + F(flow, at), R0);
}

static void egress(struct code *c, const struct flow_maps *m)
{
	move(c, SKB, R1);
	load(c, BPF_W, R1, SKB, F(__sk_buff, mark));
	jump_if(c, R1, BPF_JNE, 0, PASS);
	load(c, BPF_W, TEMP, SKB, F(__sk_buff, ingress_ifindex));
	jump_if(c, TEMP, BPF_JEQ, 0, PASS);
	find_note(c, m);
	load(c, BPF_W, R1, SEEN, F(seen, key.link));
	jump_if_reg(c, R1, BPF_JNE, TEMP, PASS);
	read_headers(c);
	if_it_begins_or_ends(c, PASS);
	compare(c);
	describe(c);
	map(c, R1, m->flows);
	move(c, R2, SEEN);
	address(c, R3, STACK, NEW);
	set(c, R4, BPF_ANY);
	call(c, BPF_FUNC_map_update_elem);
}

size_t flow_code(enum link_side side, const struct flow_maps *m, struct bpf_insn *ret)
{
	static void (*const sides[LINK_SIDES])(struct code * c,
		const struct flow_maps *m) = { [LINK_INGRESS] = ingress, [LINK_EGRESS] = egress };
	struct code c = { .insns = ret };

	sides[side](&c, m);
	return finish(&c);
}
