/* The filters, one node at a time, for people who ask why. The same plugins and node arrays as a real decision. */
#include "scheduler/internal.h"

/* Objects that live in the caller's arena, seen as the informers' are; their count never falls to zero. */
static struct cached *as_cached(
	struct arena *a, const struct type *t, void *obj, struct meta_v1_object_meta *meta)
{
	struct cached *c = arena_alloc(a, sizeof(*c));

	*c = (struct cached){ .refs = UINT32_MAX / 2,
		.type = t,
		.obj = obj,
		.meta = meta,
		.key = meta->name,
		.arena = a };
	return c;
}

static void place(struct nodes *t, struct core_v1_pod *p, struct arena *a)
{
	struct sched_pod *sp = arena_alloc(a, sizeof(*sp));

	if (!p->spec.node_name.len || str_eqz(p->status.phase, "Succeeded") ||
		str_eqz(p->status.phase, "Failed"))
		return;
	sp->object = as_cached(a, &core_v1_pod_type, p, &p->metadata);
	sp->priority = p->spec.priority.set ? p->spec.priority.value : 0;
	nodes_requests(t, p, &sp->requests);
	sp->terms = terms_take(t, p);
	nodes_place(t, sp, nodes_find_or_add(t, p->spec.node_name), 1);
}

static void ask(struct state *st, size_t node, struct arena *a, struct scheduler_verdict *ret)
{
	CLEAN_BUF struct buf text = { 0 };

	memset(st->fits, 0, st->words * sizeof(*st->fits));
	st->fits[node / 64] |= 1ULL << (node % 64);
	ret->node = arena_strz(a, st->nodes->name[node]);
	for (size_t i = 0; i < n_plugins; i++) {
		struct refusals r = { 0 };

		if (!plugins[i]->filter)
			continue;
		plugins[i]->filter(st, &r);
		if (bit_test(st->fits, node))
			continue;
		for (size_t k = 0; k < r.len; k++)
			buf_addf(&text, "%s%s", k ? ", " : "", r.reasons[k].text);
		ret->plugin = plugins[i]->name;
		ret->reasons = arena_str(a, buf_str(&text));
		return;
	}
}

struct scheduler_verdict *scheduler_explain(const struct core_v1_node_list *nodes,
	const struct core_v1_pod_list *pods, const struct core_v1_pod *pod, struct arena *a,
	size_t *ret_n)
{
	struct scheduler_verdict *v = arena_alloc(a, (nodes->items.len + 1) * sizeof(*v));
	struct requests q;
	struct nodes t;
	size_t n = 0;

	nodes_init(&t);
	LIST_EACH(node, &nodes->items)
		nodes_set(&t, nodes_find_or_add(&t, node->metadata.name),
			as_cached(a, &core_v1_node_type, node, &node->metadata));
	LIST_EACH(p, &pods->items)
		place(&t, p, a);
	nodes_requests(&t, pod, &q);
	struct pod_terms *terms = terms_take(&t, pod);
	struct state st = {
		.nodes = &t, .pod = pod, .requests = &q, .terms = terms, .words = t.n / 64 + 1
	};

	st.fits = arena_alloc(a, st.words * sizeof(*st.fits));
	for (size_t i = 0; i < t.n; i++)
		if (t.object[i])
			ask(&st, i, a, &v[n++]);
	terms_drop(&t, terms);
	for (size_t i = 0; i < t.n; i++)
		for (size_t k = 0; k < t.placed[i].len; k++)
			terms_drop(&t, t.placed[i].items[k]->terms);
	nodes_deinit(&t);
	*ret_n = n;
	return v;
}
