/* What pods say of other pods, as counters by node: how many pods there match a selector, how many pods there hold a term.
 *
 * 1. A matcher is a selector (or several that must all match) with its namespaces, a holding a matcher with a topology key, a weight or a
 *    refusal. Both are shared by all pods that say the same, counted by reference, and gone with the last of them.
 * 2. Counts follow nodes_place: a decision reads numbers, and never looks at a pod.
 * 3. A topology is, for each node, the number of the value of one label key; -1: the node lacks it. Counted by reference too: pods name any key.
 * 4. What speaks of one namespace alone, as most does, stands under it: a pod of another never meets it. */
#include "codec/codec.h"
#include "scheduler/internal.h"

static struct sayings nothing = { LIST_INIT(nothing.matchers), LIST_INIT(nothing.holdings) };

struct one {
	struct selector *labels,
		*namespaces; /* namespaces: of their labels; NULL: none are chosen so */
	struct str_list names;
	bool everywhere;
};
struct matcher {
	char *text;
	struct list among; /* sayings.matchers */
	struct arena *a;
	struct one *all;
	size_t n, refs;
	int32_t *count; /* by node */
	int64_t total;
};

/* ---- topologies ---- */

static void topology_set(struct nodes *t, struct topology *to, size_t i)
{
	const struct core_v1_node *node = t->object[i] ? t->object[i]->obj : NULL;
	struct str v = node ? str_map_get(&node->metadata.labels, str_of(to->key)) : STR_NONE;

	to->domain[i] = -1;
	if (!v.p)
		return;
	void *id = map_get(&to->ids, v);

	if (!id)
		map_set(&to->ids, v, id = (void *)(uintptr_t)++to->n);
	to->domain[i] = (int32_t)(uintptr_t)id - 1;
}

static size_t topology_of(struct nodes *t, struct str key)
{
	size_t at = (size_t)(uintptr_t)map_get(&t->topology_ids, key);
	struct topology *to;

	if (at) {
		t->topologies[at - 1].refs++;
		return at - 1;
	}
	for (at = 0; at < t->n_topologies && t->topologies[at].key; at++)
		;
	if (at == t->n_topologies)
		t->topologies = xrealloc(t->topologies, ++t->n_topologies * sizeof(*t->topologies));
	to = &t->topologies[at];
	*to = (struct topology){ .key = str_dup(key),
		.refs = 1,
		.domain = xcalloc(MAX(t->cap, (size_t)1), sizeof(int32_t)) };
	for (size_t i = 0; i < t->n; i++)
		topology_set(t, to, i);
	map_set(&t->topology_ids, key, (void *)(uintptr_t)(at + 1));
	return at;
}

static void topology_drop(struct nodes *t, size_t at)
{
	struct topology *to = &t->topologies[at];

	if (--to->refs)
		return;
	map_remove(&t->topology_ids, str_of(to->key));
	map_deinit(&to->ids, NULL);
	free(TAKE(to->key));
	free(TAKE(to->domain));
}

/* ---- by namespace ---- */

/* The namespace that it speaks of alone; STR_NONE: of several, or of others. */
static struct str namespace_of(const struct matcher *m)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->all[i].everywhere || m->all[i].namespaces || m->all[i].names.len != 1 ||
			!str_eq(m->all[i].names.items[0], m->all[0].names.items[0]))
			return STR_NONE;
	return m->n ? m->all[0].names.items[0] : STR_NONE;
}

static struct sayings *sayings_new(void)
{
	struct sayings *s = xcalloc(1, sizeof(*s));

	list_init(&s->matchers);
	list_init(&s->holdings);
	return s;
}

static struct sayings *sayings_for(struct nodes *t, const struct matcher *m)
{
	struct str ns = namespace_of(m);
	struct sayings *s = ns.len ? map_get(&t->by_namespace, ns) : t->everywhere;

	if (s)
		return s;
	s = sayings_new();
	if (ns.len)
		map_set(&t->by_namespace, ns, s);
	else
		t->everywhere = s;
	return s;
}

static void drop_if_silent(struct nodes *t, const struct matcher *m)
{
	struct str ns = namespace_of(m);
	struct sayings *s = ns.len ? map_get(&t->by_namespace, ns) : NULL;

	if (s && list_empty(&s->matchers) && list_empty(&s->holdings))
		free(map_remove(&t->by_namespace, ns));
}

struct both_sayings sayings_of(const struct nodes *t, struct str ns)
{
	const struct sayings *own = map_get(&t->by_namespace, ns);

	return (struct both_sayings){ { own ? own : &nothing,
		t->everywhere ? t->everywhere : &nothing } };
}

int32_t *topology_sums(
	const struct nodes *t, size_t topology, const int32_t *count, const uint64_t *of)
{
	const struct topology *to = &t->topologies[topology];
	int32_t *sums = xcalloc((size_t)to->n + 1, sizeof(*sums));

	for (size_t i = 0; i < t->n; i++)
		if (to->domain[i] >= 0 && (!of || bit_test(of, i)))
			sums[to->domain[i]] += count[i];
	return sums;
}

/* ---- matchers ---- */

static bool one_matches(
	const struct nodes *t, const struct one *o, struct str ns, const struct str_map *labels)
{
	bool there = o->everywhere;

	for (size_t i = 0; !there && i < o->names.len; i++)
		there = str_eq(o->names.items[i], ns);
	if (!there && o->namespaces && t->namespace_labels) {
		CLEAN_ARENA struct arena *a = arena_new(0);
		struct str_map of = { 0 };

		there = t->namespace_labels(t->namespace_arg, ns, a, &of) &&
			selector_matches(o->namespaces, &of);
	}
	return there && selector_matches(o->labels, labels);
}

bool matcher_matches(const struct nodes *t, const struct matcher *m, const struct core_v1_pod *pod)
{
	for (size_t i = 0; i < m->n; i++)
		if (!one_matches(t, &m->all[i], pod->metadata.namespace, &pod->metadata.labels))
			return false;
	return m->n > 0;
}

const int32_t *matcher_counts(const struct matcher *m)
{
	return m->count;
}

int64_t matcher_total(const struct matcher *m)
{
	return m->total;
}

static void matcher_count(struct matcher *m, size_t node, int by)
{
	m->count[node] += by;
	m->total += by;
}

static void count_all(struct nodes *t, struct matcher *m)
{
	for (size_t i = 0; i < t->n; i++)
		for (size_t k = 0; k < t->placed[i].len; k++)
			if (matcher_matches(t, m, t->placed[i].items[k]->object->obj))
				matcher_count(m, i, 1);
}

/* Pods that it chose by the labels that their namespace had when they came would be taken off by those that it has when they go. */
void matchers_namespace_changed(struct nodes *t)
{
	if (!t->everywhere)
		return;
	list_for_each(it, &t->everywhere->matchers) {
		struct matcher *m = list_entry(it, struct matcher, among);
		bool chooses = false;

		for (size_t i = 0; i < m->n; i++)
			chooses |= m->all[i].namespaces && !m->all[i].everywhere;
		if (!chooses)
			continue;
		memset(m->count, 0, t->cap * sizeof(*m->count));
		m->total = 0;
		count_all(t, m);
	}
}

/* The selector with the pod's own values of these labels added to it. */
static struct meta_v1_label_selector *with_keys(const struct meta_v1_label_selector *s,
	const struct str_list *keys, const char *op, const struct core_v1_pod *pod, struct arena *a)
{
	struct meta_v1_label_selector *out =
		s ? model_copy(&meta_v1_label_selector_type, s, a) : NULL;

	for (size_t i = 0; out && i < keys->len; i++) {
		struct str v = str_map_get(&pod->metadata.labels, keys->items[i]);
		struct meta_v1_label_selector_requirement *r;

		if (!v.p)
			continue;
		r = LIST_ADD(a, &out->match_expressions);
		r->key = arena_str(a, keys->items[i]);
		r->operator= str_of(op);
		*LIST_ADD(a, &r->values) = arena_str(a, v);
	}
	return out;
}

static struct matcher *matcher_take(struct nodes *t, const struct core_v1_pod_affinity_term *terms,
	size_t n, const struct core_v1_pod *pod)
{
	struct arena *a = arena_new(0);
	struct core_v1_pod_affinity_term *own = arena_alloc(a, n * sizeof(*own));
	CLEAN_BUF struct buf text = { 0 };
	struct matcher *m;
	struct err err;

	for (size_t i = 0; i < n; i++) {
		own[i].label_selector = with_keys(
			terms[i].label_selector, &terms[i].match_label_keys, "In", pod, a);
		own[i].label_selector = with_keys(
			own[i].label_selector, &terms[i].mismatch_label_keys, "NotIn", pod, a);
		for (size_t k = 0; k < terms[i].namespaces.len; k++)
			*LIST_ADD(a, &own[i].namespaces) =
				arena_str(a, terms[i].namespaces.items[k]);
		if (terms[i].namespace_selector)
			own[i].namespace_selector = model_copy(
				&meta_v1_label_selector_type, terms[i].namespace_selector, a);
		else if (!own[i].namespaces.len)
			*LIST_ADD(a, &own[i].namespaces) = arena_str(a, pod->metadata.namespace);
		json_encode(&core_v1_pod_affinity_term_type, &own[i], &text);
	}
	if ((m = map_get(&t->matchers, buf_str(&text)))) {
		arena_free(a);
		m->refs++;
		return m;
	}
	m = xcalloc(1, sizeof(*m));
	*m = (struct matcher){ .text = str_dup(buf_str(&text)),
		.a = a,
		.n = n,
		.refs = 1,
		.all = arena_alloc(a, n * sizeof(struct one)),
		.count = xcalloc(MAX(t->cap, (size_t)1), sizeof(int32_t)) };
	for (size_t i = 0; i < n; i++) {
		const struct meta_v1_label_selector *ns = own[i].namespace_selector;
		struct one *o = &m->all[i];

		o->names = own[i].namespaces;
		o->everywhere = ns && !ns->match_labels.len && !ns->match_expressions.len;
		if (selector_from_label_selector(own[i].label_selector, a, &o->labels, &err) ||
			(ns && selector_from_label_selector(ns, a, &o->namespaces, &err)))
			m->n = 0; /* the API refuses such a selector; if one is there, it matches nothing */
	}
	map_set(&t->matchers, str_of(m->text), m);
	list_insert(&sayings_for(t, m)->matchers, &m->among);
	count_all(t, m);
	return m;
}

static void matcher_free(void *arg)
{
	struct matcher *m = arg;

	free(m->text);
	free(m->count);
	arena_free(m->a);
	free(m);
}

static void matcher_drop(struct nodes *t, struct matcher *m)
{
	if (!m || --m->refs)
		return;
	map_remove(&t->matchers, str_of(m->text));
	list_remove(&m->among);
	drop_if_silent(t, m);
	matcher_free(m);
}

/* ---- holdings ---- */

static struct holding *holding_take(struct nodes *t, const struct core_v1_pod_affinity_term *term,
	int weight, const struct core_v1_pod *pod)
{
	struct matcher *m = matcher_take(t, term, 1, pod);
	size_t topology = topology_of(t, term->topology_key);
	char *text = xasprintf("%d %zu %s", weight, topology, m->text);
	struct holding *h = map_get(&t->holdings, str_of(text));

	if (h) {
		h->refs++;
		topology_drop(t, topology);
		matcher_drop(t, m);
		free(text);
		return h;
	}
	h = xcalloc(1, sizeof(*h));
	*h = (struct holding){ .text = text,
		.matcher = m,
		.topology = topology,
		.weight = weight,
		.refs = 1,
		.count = xcalloc(MAX(t->cap, (size_t)1), sizeof(int32_t)) };
	map_set(&t->holdings, str_of(text), h);
	list_insert(&sayings_for(t, m)->holdings, &h->among);
	return h;
}

static void holding_free(void *arg)
{
	struct holding *h = arg;

	free(h->text);
	free(h->count);
	free(h);
}

static void holding_drop(struct nodes *t, struct holding *h)
{
	if (--h->refs)
		return;
	map_remove(&t->holdings, str_of(h->text));
	list_remove(&h->among);
	topology_drop(t, h->topology);
	matcher_drop(t, h->matcher);
	holding_free(h);
}

/* ---- the terms of a pod ---- */

static void hold(struct nodes *t, struct pod_terms *p, const struct core_v1_pod_affinity_term *term,
	int weight, const struct core_v1_pod *pod)
{
	p->holds = xrealloc(p->holds, (p->n_holds + 1) * sizeof(*p->holds));
	p->holds[p->n_holds++] = holding_take(t, term, weight, pod);
}

static void take_spread(struct nodes *t, struct pod_terms *p,
	const struct core_v1_topology_spread_constraint *c, const struct core_v1_pod *pod)
{
	const struct core_v1_pod_affinity_term term = { .label_selector = c->label_selector,
		.match_label_keys = c->match_label_keys };
	struct spread *s;

	p->spreads = xrealloc(p->spreads, (p->n_spreads + 1) * sizeof(*p->spreads));
	s = &p->spreads[p->n_spreads++];
	*s = (struct spread){ .matcher = matcher_take(t, &term, 1, pod),
		.topology = topology_of(t, c->topology_key),
		.max_skew = c->max_skew,
		.min_domains = c->min_domains.set ? c->min_domains.value : 1,
		.hard = !str_eqz(c->when_unsatisfiable, "ScheduleAnyway"),
		.any_affinity = str_eqz(c->node_affinity_policy, "Ignore"),
		.heed_taints = str_eqz(c->node_taints_policy, "Honor") };
	s->self = matcher_matches(t, s->matcher, pod);
}

static size_t count_terms(const struct core_v1_pod_spec *s)
{
	const struct core_v1_affinity *a = s->affinity;
	size_t n = s->topology_spread_constraints.len;

	if (a && a->pod_affinity)
		n += a->pod_affinity->required_during_scheduling_ignored_during_execution.len +
			a->pod_affinity->preferred_during_scheduling_ignored_during_execution.len;
	if (a && a->pod_anti_affinity)
		n += a->pod_anti_affinity->required_during_scheduling_ignored_during_execution.len +
			a->pod_anti_affinity->preferred_during_scheduling_ignored_during_execution
				.len;
	return n;
}

struct pod_terms *terms_take(struct nodes *t, const struct core_v1_pod *pod)
{
	const struct core_v1_affinity *a = pod->spec.affinity;
	struct pod_terms *p;

	if (!(a && (a->pod_affinity || a->pod_anti_affinity)) &&
		!pod->spec.topology_spread_constraints.len)
		return NULL;
	p = xcalloc(1, sizeof(*p));
	p->too_many = count_terms(&pod->spec) > TERMS_MOST;
	if (p->too_many)
		return p;
	if (a && a->pod_affinity) {
		const struct core_v1_pod_affinity_term_items *need =
			&a->pod_affinity->required_during_scheduling_ignored_during_execution;

		if (need->len) {
			p->affinity = matcher_take(t, need->items, need->len, pod);
			p->affinity_self = matcher_matches(t, p->affinity, pod);
		}
		p->near = xcalloc(need->len + 1, sizeof(*p->near));
		LIST_EACH(term, need) {
			p->near[p->n_near++] = topology_of(t, term->topology_key);
			hold(t, p, term, REQUIRED_WEIGHT, pod);
		}
		LIST_EACH(w, &a->pod_affinity->preferred_during_scheduling_ignored_during_execution)
			hold(t, p, &w->pod_affinity_term, w->weight, pod);
	}
	if (a && a->pod_anti_affinity) {
		LIST_EACH(term,
			&a->pod_anti_affinity->required_during_scheduling_ignored_during_execution)
			hold(t, p, term, HOLDING_FORBIDS, pod);
		LIST_EACH(w,
			&a->pod_anti_affinity->preferred_during_scheduling_ignored_during_execution)
			hold(t, p, &w->pod_affinity_term, -w->weight, pod);
	}
	LIST_EACH(c, &pod->spec.topology_spread_constraints)
		take_spread(t, p, c, pod);
	return p;
}

void terms_drop(struct nodes *t, struct pod_terms *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->n_holds; i++)
		holding_drop(t, p->holds[i]);
	for (size_t i = 0; i < p->n_spreads; i++) {
		topology_drop(t, p->spreads[i].topology);
		matcher_drop(t, p->spreads[i].matcher);
	}
	for (size_t i = 0; i < p->n_near; i++)
		topology_drop(t, p->near[i]);
	matcher_drop(t, p->affinity);
	free(p->holds);
	free(p->spreads);
	free(p->near);
	free(p);
}

/* ---- what nodes.c tells ---- */

void matchers_place(struct nodes *t, const struct sched_pod *p, size_t node, int sign)
{
	struct both_sayings both =
		sayings_of(t, ((const struct core_v1_pod *)p->object->obj)->metadata.namespace);

	for (size_t k = 0; k < ARRAY_LEN(both.s); k++)
		list_for_each(it, &both.s[k]->matchers) {
			struct matcher *m = list_entry(it, struct matcher, among);

			if (matcher_matches(t, m, p->object->obj))
				matcher_count(m, node, sign);
		}
	for (size_t i = 0; p->terms && i < p->terms->n_holds; i++) {
		p->terms->holds[i]->count[node] += sign;
		p->terms->holds[i]->total += sign;
	}
}

void matchers_node(struct nodes *t, size_t node)
{
	for (size_t i = 0; i < t->n_topologies; i++)
		if (t->topologies[i].key)
			topology_set(t, &t->topologies[i], node);
}

static int32_t *grown(int32_t *array, size_t old_cap, size_t cap)
{
	array = xrealloc(array, cap * sizeof(*array));
	memset(array + old_cap, 0, (cap - old_cap) * sizeof(*array));
	return array;
}

void matchers_grow(struct nodes *t, size_t old_cap, size_t cap)
{
	void *v;

	for (size_t i = 0; map_next(&t->matchers, &i, NULL, &v);)
		((struct matcher *)v)->count = grown(((struct matcher *)v)->count, old_cap, cap);
	for (size_t i = 0; map_next(&t->holdings, &i, NULL, &v);)
		((struct holding *)v)->count = grown(((struct holding *)v)->count, old_cap, cap);
	for (size_t i = 0; i < t->n_topologies; i++)
		if (t->topologies[i].key)
			t->topologies[i].domain = grown(t->topologies[i].domain, old_cap, cap);
}

void matchers_deinit(struct nodes *t)
{
	for (size_t i = 0; i < t->n_topologies; i++) {
		free(t->topologies[i].key);
		free(t->topologies[i].domain);
		map_deinit(&t->topologies[i].ids, NULL);
	}
	free(t->topologies);
	map_deinit(&t->topology_ids, NULL);
	map_deinit(&t->by_namespace, free);
	free(t->everywhere);
	map_deinit(&t->holdings, holding_free);
	map_deinit(&t->matchers, matcher_free);
}
