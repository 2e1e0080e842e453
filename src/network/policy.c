/* See internal.h. Commands are collected by step, so that within one transaction a thing is made before it is used and removed after: sets, chains,
 * elements out, elements in, then what nobody uses any more. */
#include "network/internal.h"

#include <stdio.h>

#define DNS_NAMESPACE "kube-system"

enum direction { INGRESS, EGRESS, DIRECTIONS };
static const char *const direction_names[] = { "ingress", "egress" };

enum step {
	ADD_SETS,
	ADD_CHAINS,
	DROP_ELEMENTS,
	ADD_ELEMENTS,
	DROP_PROFILES,
	DROP_POLICIES,
	DROP_SETS,
	STEPS
};

struct pod_set { /* addresses of pods, or "address . protocol . port" of those with a port of that name */
	struct arena *arena;
	char *id; /* what it is found by */
	char name[16];
	unsigned refs;
	struct str ns; /* empty: by ns_selector */
	struct selector *ns_selector, *pod_selector;
	struct str port; /* names with commas between; empty: addresses */
	const char *protocol;
	struct map elements; /* -> how many pods put it there */
};
struct policy {
	struct arena *arena;
	struct str key, ns;
	unsigned number;
	bool isolates[DIRECTIONS];
	struct selector *selector;
	char *rules[DIRECTIONS]; /* of the chain, as last told */
	struct pod_set **sets;
	size_t n_sets;
	bool needs_pods;
};
struct profile { /* the policies of one direction that select a pod */
	char *id;
	char chain[16];
	unsigned refs;
	unsigned *numbers;
	size_t n;
};
struct pod {
	struct arena *arena;
	struct str key, ns, ip, ip6; /* empty: none of that family */
	struct str_map labels;
	struct pod_port {
		struct str name;
		const char *protocol;
		int32_t port;
	} * ports;
	size_t n_ports;
	bool local;
	struct membership {
		struct pod_set *set;
		struct str element;
	} * in;
	size_t n_in;
	struct profile *profiles[DIRECTIONS];
};
struct policies {
	struct map policies, namespaces,
		pods; /* by key; namespaces -> struct arena with a struct str_map at its start */
	struct map sets, profiles; /* by id */
	struct map owners;         /* address -> local pod: the last one that took it */
	unsigned next;             /* number of the next policy, set or profile */
	bool hooked[DIRECTIONS];   /* the kernel asks our chains of this direction about packets */
	struct buf steps[STEPS];   /* of the change being made */
	struct buf changes;        /* of whole changes, in order */
};

static struct str address_of(const struct pod *pod)
{
	return pod->ip.len ? pod->ip : pod->ip6;
}

static struct str key_of(struct arena *a, struct str ns, struct str name)
{
	return arena_fmt(a, STR_FMT "/" STR_FMT, STR_ARG(ns), STR_ARG(name));
}

static size_t count_of(struct map *m, struct str key, int change)
{
	size_t n = (size_t)(uintptr_t)map_get(m, key) + (size_t)change;

	if (n)
		map_set(m, key, (void *)(uintptr_t)n);
	else
		map_remove(m, key);
	return n;
}

/* Ends each change: its steps in their order, behind those of the changes before it. */
static void change_end(struct policies *p)
{
	for (int s = 0; s < STEPS; s++) {
		buf_add_str(&p->changes, buf_str(&p->steps[s]));
		buf_clear(&p->steps[s]);
	}
}

/* ---- namespaces ---- */

struct namespace_labels {
	struct arena *arena;
	struct str_map labels;
};

static void namespace_free(void *v)
{
	struct namespace_labels *n = v;

	arena_free(n->arena);
	free(n);
}

static void copy_labels(struct arena *a, const struct str_map *from, struct str_map *to)
{
	for (size_t i = 0; i < from->len; i++)
		str_map_set(a, to, arena_str(a, from->items[i].key),
			arena_str(a, from->items[i].value));
}

/* ---- pods in sets ---- */

static bool set_wants(struct policies *p, const struct pod_set *s, const struct pod *pod)
{
	static const struct str_map none = { 0 };

	if (!pod->ip.len || (s->ns.len && !str_eq(s->ns, pod->ns)))
		return false;
	if (!s->ns.len && s->ns_selector) {
		const struct namespace_labels *n = map_get(&p->namespaces, pod->ns);

		if (!selector_matches(s->ns_selector, n ? &n->labels : &none))
			return false;
	}
	return selector_matches(s->pod_selector, &pod->labels);
}

static void element_change(struct policies *p, struct pod_set *s, struct str element, int change)
{
	size_t n = count_of(&s->elements, element, change);

	if (change > 0 && n == 1)
		buf_addf(&p->steps[ADD_ELEMENTS],
			"add element " POLICY_TABLE " %s { " STR_FMT " }\n", s->name,
			STR_ARG(element));
	else if (change < 0 && n == 0)
		buf_addf(&p->steps[DROP_ELEMENTS],
			"delete element " POLICY_TABLE " %s { " STR_FMT " }\n", s->name,
			STR_ARG(element));
}

static void enter(struct policies *p, struct pod *pod, struct pod_set *s, struct str element)
{
	*ARENA_ADD(pod->arena, pod->in, pod->n_in) = (struct membership){ s, element };
	element_change(p, s, element, 1);
}

static bool among(struct str name, struct str names)
{
	struct str one;

	while (names.len) {
		str_cut(names, ',', &one, &names);
		if (str_eq(one, name))
			return true;
	}
	return false;
}

static void enter_if_wanted(struct policies *p, struct pod *pod, struct pod_set *s)
{
	if (!set_wants(p, s, pod))
		return;
	if (!s->port.len)
		enter(p, pod, s, pod->ip);
	for (size_t i = 0; s->port.len && i < pod->n_ports; i++) {
		const struct pod_port *q = &pod->ports[i];

		if (among(q->name, s->port) && !strcmp(q->protocol, s->protocol))
			enter(p, pod, s,
				arena_fmt(pod->arena, STR_FMT " . %s . %d", STR_ARG(pod->ip),
					q->protocol, q->port));
	}
}

static void leave_all(struct policies *p, struct pod *pod)
{
	for (size_t i = 0; i < pod->n_in; i++)
		element_change(p, pod->in[i].set, pod->in[i].element, -1);
	pod->n_in = 0;
	pod->in = NULL;
}

static void enter_all(struct policies *p, struct pod *pod)
{
	size_t i = 0;
	void *s;

	while (map_next(&p->sets, &i, NULL, &s))
		enter_if_wanted(p, pod, s);
}

/* ---- sets ---- */

static void set_free(void *v)
{
	struct pod_set *s = v;

	map_deinit(&s->elements, NULL);
	arena_free(s->arena);
	free(s->id);
	free(s);
}

static void set_declare(const struct pod_set *s, struct buf *out)
{
	buf_addf(out, "add set " POLICY_TABLE " %s { type %s; }\n", s->name,
		s->port.len ? "ipv4_addr . inet_proto . inet_service" : "ipv4_addr");
}

/* The sets of one policy at once: pods are gone through but once, however many there are. */
static void sets_unref(struct policies *p, struct pod_set **sets, size_t n)
{
	CLEAN_FREE struct pod_set **dead = xcalloc(n + 1, sizeof(*dead));
	size_t n_dead = 0, i = 0;
	void *v;

	for (size_t k = 0; k < n; k++)
		if (!--sets[k]->refs)
			dead[n_dead++] = sets[k];
	while (n_dead && map_next(&p->pods, &i, NULL, &v)) {
		struct pod *pod = v;

		for (size_t k = pod->n_in; k-- > 0;)
			if (!pod->in[k].set->refs)
				pod->in[k] = pod->in[--pod->n_in];
	}
	for (i = 0; i < n_dead; i++) {
		buf_addf(&p->steps[DROP_SETS], "delete set " POLICY_TABLE " %s\n", dead[i]->name);
		map_remove(&p->sets, str_of(dead[i]->id));
		set_free(dead[i]);
	}
}

static struct pod_set *set_new(struct policies *p, const char *id)
{
	struct pod_set *s = xcalloc(1, sizeof(*s));

	s->arena = arena_new(256);
	s->id = xstrdup(id);
	snprintf(s->name, sizeof(s->name), "s%u", p->next++);
	map_set(&p->sets, str_of(id), s);
	return s;
}

static void set_fill(struct policies *p, struct pod_set *s)
{
	size_t i = 0;
	void *pod;

	set_declare(s, &p->steps[ADD_SETS]);
	while (map_next(&p->pods, &i, NULL, &pod))
		enter_if_wanted(p, pod, s);
}

/* ---- what policy_rules.c asks for ---- */

struct asking {
	struct policies *p;
	struct policy *policy;
};

static const char *hold(struct asking *q, struct pod_set *s)
{
	struct policy *o = q->policy;

	s->refs++;
	*ARENA_ADD(o->arena, o->sets, o->n_sets) = s;
	o->needs_pods = true;
	return s->name;
}

/* A selector that does not parse (the API server takes none such) selects nothing. */
static struct selector *selector_of(const struct meta_v1_label_selector *l, struct arena *a)
{
	struct selector *s;

	if (selector_from_label_selector(l, a, &s, NULL) < 0)
		selector_from_label_selector(NULL, a, &s, NULL);
	return s;
}

static const char *ask_pods(void *arg, struct str ns,
	const struct meta_v1_label_selector *ns_selector,
	const struct meta_v1_label_selector *pod_selector)
{
	struct asking *q = arg;
	CLEAN_ARENA struct arena *a = arena_new(256);
	CLEAN_BUF struct buf id = { 0 };
	struct pod_set *s;

	buf_addf(&id, "pods|" STR_FMT "|", STR_ARG(ns_selector ? STR_NONE : ns));
	if (ns_selector)
		selector_format(selector_of(ns_selector, a), &id);
	buf_addc(&id, '|');
	if (pod_selector)
		selector_format(selector_of(pod_selector, a), &id);
	s = map_get(&q->p->sets, buf_str(&id));
	if (!s) {
		s = set_new(q->p, id.p);
		s->ns = ns_selector ? STR_NONE : arena_str(s->arena, ns);
		/* Copies, since selectors keep texts of what they were made from. */
		if (ns_selector)
			s->ns_selector = selector_of(
				model_copy(&meta_v1_label_selector_type, ns_selector, s->arena),
				s->arena);
		if (pod_selector)
			s->pod_selector = selector_of(
				model_copy(&meta_v1_label_selector_type, pod_selector, s->arena),
				s->arena);
		set_fill(q->p, s);
	}
	return hold(q, s);
}

static const char *ask_ports(void *arg, struct str name, const char *protocol)
{
	struct asking *q = arg;
	CLEAN_FREE char *id = xasprintf("port|%s|" STR_FMT, protocol, STR_ARG(name));
	struct pod_set *s = map_get(&q->p->sets, str_of(id));

	if (!s) {
		s = set_new(q->p, id);
		s->port = arena_str(s->arena, name);
		s->protocol = protocol;
		set_fill(q->p, s);
	}
	return hold(q, s);
}

/* ---- profiles ---- */

static void profile_free(void *v)
{
	struct profile *f = v;

	free(f->id);
	free(f->numbers);
	free(f);
}

static void profile_write(const struct profile *f, struct buf *out)
{
	buf_addf(out, "add chain " POLICY_TABLE " %s\n", f->chain);
	for (size_t i = 0; i < f->n; i++)
		buf_addf(out, "add rule " POLICY_TABLE " %s jump policy_%u_%s\n", f->chain,
			f->numbers[i], f->id[0] == 'i' ? "in" : "out");
	buf_addf(out, "add rule " POLICY_TABLE " %s drop\n", f->chain);
}

static int by_number(const void *x, const void *y)
{
	const unsigned *a = x, *b = y;

	return *a < *b ? -1 : *a > *b;
}

static struct profile *profile_ref(struct policies *p, const struct pod *pod, enum direction d)
{
	CLEAN_FREE unsigned *numbers = xcalloc(p->policies.len + 1, sizeof(*numbers));
	CLEAN_BUF struct buf id = { 0 };
	struct profile *f;
	size_t n = 0, i = 0;
	void *v;

	while (pod->local && address_of(pod).len && map_next(&p->policies, &i, NULL, &v)) {
		const struct policy *o = v;

		if (o->isolates[d] && str_eq(o->ns, pod->ns) &&
			selector_matches(o->selector, &pod->labels))
			numbers[n++] = o->number;
	}
	if (!n)
		return NULL;
	qsort(numbers, n, sizeof(*numbers), by_number);
	buf_addz(&id, direction_names[d]);
	for (i = 0; i < n; i++)
		buf_addf(&id, " %u", numbers[i]);
	f = map_get(&p->profiles, buf_str(&id));
	if (!f) {
		f = xcalloc(1, sizeof(*f));
		f->id = buf_take(&id);
		snprintf(f->chain, sizeof(f->chain), "pods_%u", p->next++);
		f->numbers = TAKE(numbers);
		f->n = n;
		map_set(&p->profiles, str_of(f->id), f);
		profile_write(f, &p->steps[ADD_CHAINS]);
	}
	f->refs++;
	return f;
}

static void profile_unref(struct policies *p, struct profile *f)
{
	if (!f || --f->refs)
		return;
	buf_addf(&p->steps[DROP_PROFILES],
		"flush chain " POLICY_TABLE " %s\ndelete chain " POLICY_TABLE " %s\n", f->chain,
		f->chain);
	map_remove(&p->profiles, str_of(f->id));
	profile_free(f);
}

/* Packets of IPv6 are dropped, since policies say nothing that would let them pass: by the pod's IPv6 address where a CNI plugin gave it one, and by its
 * hardware address, which the engine makes of its IPv4 address. */
static void mac_text(struct str ip, char ret[24])
{
	uint32_t a = 0;

	ip_read(ip, &a);
	snprintf(ret, 24, "0a:58:%02x:%02x:%02x:%02x", a >> 24, a >> 16 & 255, a >> 8 & 255,
		a & 255);
}

static void isolation_write(
	const struct pod *pod, enum direction d, const char *verb, struct buf *out)
{
	bool with_value = verb[0] == 'a';
	char mac[24];

	if (pod->ip6.len)
		buf_addf(out, "%s element " POLICY_TABLE " %s_ip6 { " STR_FMT " }\n", verb,
			direction_names[d], STR_ARG(pod->ip6));
	if (!pod->ip.len)
		return;
	mac_text(pod->ip, mac);
	buf_addf(out, "%s element " POLICY_TABLE " %s { " STR_FMT "%s%s }\n", verb,
		direction_names[d], STR_ARG(pod->ip), with_value ? " : jump " : "",
		with_value ? pod->profiles[d]->chain : "");
	buf_addf(
		out, "%s element " POLICY_TABLE " %s_macs { %s }\n", verb, direction_names[d], mac);
}

static void self_write(const struct pod *pod, const char *verb, struct buf *out)
{
	if (pod->ip.len)
		buf_addf(out, "%s element " POLICY_TABLE " self { " STR_FMT " . " STR_FMT " }\n",
			verb, STR_ARG(pod->ip), STR_ARG(pod->ip));
}

static bool is_isolated(const struct pod *pod)
{
	return pod->profiles[INGRESS] || pod->profiles[EGRESS];
}

/* Chains that look at each packet: from the first pod on that is isolated here, so that others pay nothing for what they do not use. The node itself
 * reaches its pods whatever policies say: its packets pass the output hook, where nothing is. */
static void hook(struct policies *p, enum direction d, struct buf *out)
{
	static const struct {
		const char *name, *hook, *priority;
		enum direction d;
	} hooks[] = {
		{ "egress_forward", "forward", "filter", EGRESS },
		{ "egress_input", "input", "filter", EGRESS },
		{ "ingress_forward", "forward", "filter + 1", INGRESS },
	};
	const char *side = d == EGRESS ? "saddr" : "daddr", *set = direction_names[d];

	for (size_t i = 0; i < ARRAY_LEN(hooks) && !p->hooked[d]; i++)
		if (hooks[i].d == d)
			buf_addf(out,
				"table " POLICY_TABLE " {\n"
				"chain %s { type filter hook %s priority %s; policy accept;\n"
				"ct state established,related accept\n"
				"ip saddr . ip daddr @self accept\n"
				"meta nfproto ipv6 ether %s @%s_macs drop\n"
				"ip6 %s @%s_ip6 drop\n"
				"ip %s vmap @%s\n}\n}\n",
				hooks[i].name, hooks[i].hook, hooks[i].priority, side, set, side,
				set, side, set);
	p->hooked[d] = true;
}

/* Brings the pod under the policies that select it now; `none`: under none. Only who owns the address writes. */
static void isolate(struct policies *p, struct pod *pod, bool none)
{
	bool owns = map_get(&p->owners, address_of(pod)) == pod, was = is_isolated(pod);

	for (int d = 0; d < DIRECTIONS; d++) {
		struct profile *now = none || !owns ? NULL : profile_ref(p, pod, (enum direction)d),
			       *old = pod->profiles[d];

		if (now != old) {
			if (old && owns)
				isolation_write(
					pod, (enum direction)d, "delete", &p->steps[DROP_ELEMENTS]);
			pod->profiles[d] = now;
			if (now) {
				hook(p, (enum direction)d, &p->steps[ADD_ELEMENTS]);
				isolation_write(
					pod, (enum direction)d, "add", &p->steps[ADD_ELEMENTS]);
			}
		}
		profile_unref(p, old);
	}
	if (owns && was != is_isolated(pod))
		self_write(
			pod, was ? "delete" : "add", &p->steps[was ? DROP_ELEMENTS : ADD_ELEMENTS]);
}

/* ---- pods ---- */

static void pod_free(void *v)
{
	arena_free(((struct pod *)v)->arena);
}

static void add_ports(struct pod *pod, const struct core_v1_container_items *containers, bool all)
{
	LIST_EACH(c, containers) {
		if (!all && !str_eqz(c->restart_policy, "Always"))
			continue;
		LIST_EACH(q, &c->ports) {
			if (!q->name.len)
				continue;
			*ARENA_ADD(pod->arena, pod->ports, pod->n_ports) =
				(struct pod_port){ arena_str(pod->arena, q->name),
					protocol_name(q->protocol), q->container_port };
		}
	}
}

static struct pod *pod_new(struct str ns, struct str name, struct str ip, bool local)
{
	struct arena *a = arena_new(512);
	struct pod *pod = arena_alloc(a, sizeof(*pod));

	pod->arena = a;
	pod->ns = arena_str(a, ns);
	pod->key = key_of(a, ns, name);
	pod->ip = arena_str(a, ip);
	pod->local = local;
	return pod;
}

static void pod_take_out(struct policies *p, struct pod *pod)
{
	isolate(p, pod, true);
	leave_all(p, pod);
	if (map_get(&p->owners, address_of(pod)) == pod)
		map_remove(&p->owners, address_of(pod));
	map_remove(&p->pods, pod->key);
	pod_free(pod);
}

static void pod_take_in(struct policies *p, struct pod *pod)
{
	struct pod *before;

	map_set(&p->pods, pod->key, pod);
	enter_all(p, pod);
	if (!pod->local || !address_of(pod).len)
		return;
	/* An address that was another's: the former holder is on its way out. */
	before = map_get(&p->owners, address_of(pod));
	if (before)
		isolate(p, before, true);
	map_set(&p->owners, address_of(pod), pod);
	isolate(p, pod, false);
}

static bool pods_equal(const struct pod *a, const struct pod *b)
{
	if (!str_eq(a->ip, b->ip) || !str_eq(a->ip6, b->ip6) || a->local != b->local ||
		a->n_ports != b->n_ports || a->labels.len != b->labels.len)
		return false;
	for (size_t i = 0; i < a->labels.len; i++)
		if (!str_eq(a->labels.items[i].key, b->labels.items[i].key) ||
			!str_eq(a->labels.items[i].value, b->labels.items[i].value))
			return false;
	for (size_t i = 0; i < a->n_ports; i++)
		if (!str_eq(a->ports[i].name, b->ports[i].name) ||
			a->ports[i].port != b->ports[i].port ||
			a->ports[i].protocol != b->ports[i].protocol)
			return false;
	return true;
}

void policies_put_pod(struct policies *p, const struct core_v1_pod *o, struct str ip,
	struct str second, bool local)
{
	bool six = str_find(ip, ':') >= 0;
	struct pod *now = pod_new(
			   o->metadata.namespace, o->metadata.name, six ? second : ip, local),
		   *old;

	now->ip6 = arena_str(now->arena, six ? ip : second);
	copy_labels(now->arena, &o->metadata.labels, &now->labels);
	add_ports(now, &o->spec.containers, true);
	add_ports(now, &o->spec.init_containers, false);
	old = map_get(&p->pods, now->key);
	if (old && pods_equal(old, now)) {
		pod_free(now);
		return;
	}
	if (old)
		pod_take_out(p, old);
	pod_take_in(p, now);
	change_end(p);
}

void policies_remove_pod(struct policies *p, struct str key)
{
	struct pod *pod = map_get(&p->pods, key);

	if (pod)
		pod_take_out(p, pod);
	change_end(p);
}

static void put_dns(struct policies *p, const char *address)
{
	struct pod *dns = pod_new(STR(DNS_NAMESPACE), STR(".cluster-dns"), str_of(address), false);

	str_map_set(dns->arena, &dns->labels, STR("k8s-app"), STR("kube-dns"));
	dns->ports = arena_alloc(dns->arena, 2 * sizeof(*dns->ports));
	dns->ports[dns->n_ports++] = (struct pod_port){ STR("dns"), "udp", 53 };
	dns->ports[dns->n_ports++] = (struct pod_port){ STR("dns-tcp"), "tcp", 53 };
	pod_take_in(p, dns);
}

/* ---- namespaces: their pods are sorted into the sets anew ---- */

static void resort(struct policies *p, struct str ns)
{
	size_t i = 0;
	void *v;

	while (map_next(&p->pods, &i, NULL, &v)) {
		struct pod *pod = v;

		if (!str_eq(pod->ns, ns))
			continue;
		leave_all(p, pod);
		enter_all(p, pod);
	}
	change_end(p);
}

void policies_put_namespace(struct policies *p, struct str name, const struct str_map *labels)
{
	struct namespace_labels *n = xcalloc(1, sizeof(*n)), *old;

	n->arena = arena_new(256);
	copy_labels(n->arena, labels, &n->labels);
	old = map_set(&p->namespaces, name, n);
	if (old)
		namespace_free(old);
	resort(p, name);
}

void policies_remove_namespace(struct policies *p, struct str name)
{
	struct namespace_labels *old = map_remove(&p->namespaces, name);

	if (old)
		namespace_free(old);
	resort(p, name);
}

/* ---- policies ---- */

static void policy_free(void *v)
{
	struct policy *o = v;

	free(o->rules[INGRESS]);
	free(o->rules[EGRESS]);
	arena_free(o->arena);
}

static bool has_type(const struct networking_v1_network_policy_spec *s, enum direction d)
{
	if (s->policy_types.len)
		return str_list_has(
			&s->policy_types, d == INGRESS ? STR("Ingress") : STR("Egress"));
	return d == INGRESS || s->egress.len;
}

static void chain_of(const struct policy *o, enum direction d, char ret[32])
{
	snprintf(ret, 32, "policy_%u_%s", o->number, d == INGRESS ? "in" : "out");
}

static void isolate_namespace(struct policies *p, struct str ns)
{
	size_t i = 0;
	void *v;

	while (map_next(&p->pods, &i, NULL, &v)) {
		struct pod *pod = v;

		if (pod->local && str_eq(pod->ns, ns))
			isolate(p, pod, false);
	}
}

static void policy_release(struct policies *p, struct policy *o)
{
	sets_unref(p, o->sets, o->n_sets);
	policy_free(o);
}

static void tell_chains(struct policies *p, const struct policy *old, const struct policy *now)
{
	char chain[32];

	for (int d = 0; d < DIRECTIONS; d++) {
		chain_of(now, (enum direction)d, chain);
		if (old && !strcmp(old->rules[d], now->rules[d]))
			continue;
		buf_addf(&p->steps[ADD_CHAINS], "%s chain " POLICY_TABLE " %s\n%s",
			old ? "flush" : "add", chain, now->rules[d]);
	}
}

void policies_put_policy(struct policies *p, const struct networking_v1_network_policy *o)
{
	struct arena *a = arena_new(512);
	struct policy *now = arena_alloc(a, sizeof(*now)), *old;
	struct asking q = { p, now };
	struct rule_sets sets = { ask_pods, ask_ports, &q };
	char chain[32];

	now->arena = a;
	now->ns = arena_str(a, o->metadata.namespace);
	now->key = key_of(a, o->metadata.namespace, o->metadata.name);
	now->selector =
		selector_of(model_copy(&meta_v1_label_selector_type, &o->spec.pod_selector, a), a);
	old = map_get(&p->policies, now->key);
	now->number = old ? old->number : p->next++;
	for (int d = 0; d < DIRECTIONS; d++) {
		struct buf rules = { 0 };

		now->isolates[d] = has_type(&o->spec, (enum direction)d);
		chain_of(now, (enum direction)d, chain);
		if (now->isolates[d])
			(d == INGRESS ? policy_ingress_rules : policy_egress_rules)(
				o, &sets, chain, &rules);
		now->rules[d] = buf_take(&rules);
	}
	tell_chains(p, old, now);
	map_set(&p->policies, now->key, now);
	isolate_namespace(p, now->ns);
	if (old)
		policy_release(p, old);
	change_end(p);
}

void policies_remove_policy(struct policies *p, struct str key)
{
	struct policy *o = map_remove(&p->policies, key);
	char chain[32];

	if (!o)
		return;
	isolate_namespace(p, o->ns);
	for (int d = 0; d < DIRECTIONS; d++) {
		chain_of(o, (enum direction)d, chain);
		buf_addf(&p->steps[DROP_POLICIES],
			"flush chain " POLICY_TABLE " %s\ndelete chain " POLICY_TABLE " %s\n",
			chain, chain);
	}
	policy_release(p, o);
	change_end(p);
}

bool policies_need_pods(const struct policies *p)
{
	size_t i = 0;
	void *o;

	while (map_next(&p->policies, &i, NULL, &o))
		if (((struct policy *)o)->needs_pods)
			return true;
	return false;
}

/* ---- as commands ---- */

static void table_begin(struct buf *out)
{
	buf_addz(out,
		"table " POLICY_TABLE "\ndelete table " POLICY_TABLE "\ntable " POLICY_TABLE " {\n"
		"set self { type ipv4_addr . ipv4_addr; }\n");
	for (int d = 0; d < DIRECTIONS; d++)
		buf_addf(out,
			"map %s { type ipv4_addr : verdict; }\nset %s_macs { type ether_addr; }\nset %s_ip6 { type ipv6_addr; }\n",
			direction_names[d], direction_names[d], direction_names[d]);
	buf_addz(out, "}\n");
}

static void set_write(const struct pod_set *s, struct buf *out)
{
	size_t i = 0, n = 0;
	struct str element;
	void *count;

	set_declare(s, out);
	while (map_next(&s->elements, &i, &element, &count)) {
		if (n++ == 0)
			buf_addf(out, "add element " POLICY_TABLE " %s { " STR_FMT, s->name,
				STR_ARG(element));
		else
			buf_addf(out, ", " STR_FMT, STR_ARG(element));
	}
	buf_addz(out, n ? " }\n" : "");
}

void policies_write(struct policies *p, struct buf *out)
{
	char chain[32];
	size_t i = 0;
	void *v;

	buf_clear(&p->changes);
	memset(p->hooked, 0, sizeof(p->hooked));
	table_begin(out);
	while (map_next(&p->sets, &i, NULL, &v))
		set_write(v, out);
	for (i = 0; map_next(&p->policies, &i, NULL, &v);) {
		const struct policy *o = v;

		for (int d = 0; d < DIRECTIONS; d++) {
			chain_of(o, (enum direction)d, chain);
			buf_addf(out, "add chain " POLICY_TABLE " %s\n%s", chain, o->rules[d]);
		}
	}
	for (i = 0; map_next(&p->profiles, &i, NULL, &v);)
		profile_write(v, out);
	for (i = 0; map_next(&p->owners, &i, NULL, &v);) {
		const struct pod *pod = v;

		for (int d = 0; d < DIRECTIONS; d++)
			if (pod->profiles[d]) {
				hook(p, (enum direction)d, out);
				isolation_write(pod, (enum direction)d, "add", out);
			}
		if (is_isolated(pod))
			self_write(pod, "add", out);
	}
}

void policies_change(struct policies *p, struct buf *out)
{
	buf_add_str(out, buf_str(&p->changes));
	buf_clear(&p->changes);
}

struct policies *policies_new(const char *dns_address)
{
	struct policies *p = xcalloc(1, sizeof(*p));

	p->next = 1;
	if (dns_address)
		put_dns(p, dns_address);
	return p;
}

void policies_free(struct policies *p)
{
	if (!p)
		return;
	map_deinit(&p->policies, policy_free);
	map_deinit(&p->pods, pod_free);
	map_deinit(&p->sets, set_free);
	map_deinit(&p->profiles, profile_free);
	map_deinit(&p->namespaces, namespace_free);
	map_deinit(&p->owners, NULL);
	for (int s = 0; s < STEPS; s++)
		buf_deinit(&p->steps[s]);
	buf_deinit(&p->changes);
	free(p);
}
