/* One pod on each node that a DaemonSet wants. Upstream: pkg/controller/daemon.
 *
 * 1. A pod is pinned to its node by affinity on metadata.name; the scheduler binds it.
 * 2. Daemon pods tolerate what says that a node is unwell: they are part of the node.
 * 3. Rolling update: old pods that do not serve go at once; of those that do, only so many that maxUnavailable holds; with maxSurge the new
 *    one comes first. OnDelete waits for people.
 * 4. Creates and deletes are expectations (see internal.h). */
#include "controllers/history.h"

#include "controllers/table.h"
#include "model/placement.h"

#define BURST 250
#define GATHER_MS 5
#define NODES_GATHER_MS \
	20 /* thousands of nodes may come at once, and each reconcile looks at all of them */
#define FAILED_REST_S 2

struct node_pods {
	const struct core_v1_node *node;
	const struct core_v1_pod **pods; /* oldest first */
	size_t n;
	bool should_run, may_stay;
};

struct daemon {
	struct run *r;
	struct apps_v1_daemon_set *d; /* a copy */
	struct str key, hash;
	struct history history;
	struct node_pods
		*nodes; /* those there are, and, last, one row a pod whose node is unknown */
	size_t n_nodes;
	const struct core_v1_pod **doomed;
	size_t n_doomed;
	struct str *needy; /* nodes that get a pod */
	size_t n_needy;
};

/* ---- where ---- */
static const struct {
	const char *key, *effect;
	bool host_network_only;
} daemon_tolerations[] = {
	{ "node.kubernetes.io/not-ready", "NoExecute", false },
	{ "node.kubernetes.io/unreachable", "NoExecute", false },
	{ "node.kubernetes.io/disk-pressure", "NoSchedule", false },
	{ "node.kubernetes.io/memory-pressure", "NoSchedule", false },
	{ "node.kubernetes.io/pid-pressure", "NoSchedule", false },
	{ "node.kubernetes.io/unschedulable", "NoSchedule", false },
	{ "node.kubernetes.io/network-unavailable", "NoSchedule", true },
};

static void add_tolerations(struct core_v1_pod_spec *spec, struct arena *a)
{
	for (size_t i = 0; i < ARRAY_LEN(daemon_tolerations); i++) {
		const struct core_v1_toleration t = { .key = str_of(daemon_tolerations[i].key),
			.operator= STR("Exists"),
			.effect = str_of(daemon_tolerations[i].effect) };
		bool there = false;

		if (daemon_tolerations[i].host_network_only && !spec->host_network)
			continue;
		LIST_EACH(x, &spec->tolerations)
			there |= model_equal(&core_v1_toleration_type, x, &t);
		if (!there)
			*LIST_ADD(a, &spec->tolerations) = t;
	}
}

static void judge_node(const struct core_v1_pod_spec *spec, const struct core_v1_node *n,
	bool *ret_should, bool *ret_may_stay)
{
	static const char *const both[] = { "NoSchedule", "NoExecute", NULL },
				 *const execute[] = { "NoExecute", NULL };

	*ret_should = *ret_may_stay = false;
	if ((spec->node_name.len && !str_eq(spec->node_name, n->metadata.name)) ||
		!pod_node_affinity_matches(spec, &n->metadata.labels, n->metadata.name))
		return;
	*ret_should = !taints_untolerated(&n->spec.taints, &spec->tolerations, both);
	*ret_may_stay = !taints_untolerated(&n->spec.taints, &spec->tolerations, execute);
}

static struct str pinned_to(const struct core_v1_pod *p)
{
	if (p->spec.node_name.len)
		return p->spec.node_name;
	const struct core_v1_node_affinity *na =
		p->spec.affinity ? p->spec.affinity->node_affinity : NULL;
	const struct core_v1_node_selector *s =
		na ? na->required_during_scheduling_ignored_during_execution : NULL;

	if (!s)
		return STR_NONE;
	LIST_EACH(term, &s->node_selector_terms)
		LIST_EACH(f, &term->match_fields)
			if (str_eqz(f->key, "metadata.name") && str_eqz(f->operator, "In") &&
				f->values.len == 1)
				return f->values.items[0];
	return STR_NONE;
}

static void pin(struct core_v1_pod_spec *spec, struct str node, struct arena *a)
{
	struct core_v1_node_selector *s = arena_alloc(a, sizeof(*s));
	struct core_v1_node_selector_requirement *f =
		LIST_ADD(a, &LIST_ADD(a, &s->node_selector_terms)->match_fields);

	f->key = STR("metadata.name");
	f->operator= STR("In");
	*LIST_ADD(a, &f->values) = node;
	if (!spec->affinity)
		spec->affinity = arena_alloc(a, sizeof(*spec->affinity));
	if (!spec->affinity->node_affinity)
		spec->affinity->node_affinity =
			arena_alloc(a, sizeof(*spec->affinity->node_affinity));
	spec->affinity->node_affinity->required_during_scheduling_ignored_during_execution = s;
}

/* ---- what is where ---- */
static int older_first(const void *pa, const void *pb)
{
	const struct core_v1_pod *a = *(void *const *)pa, *b = *(void *const *)pb;

	if (!a->spec.node_name.len != !b->spec.node_name.len)
		return a->spec.node_name.len ? -1 : 1; /* bound ones before those that wait */
	int r = time_cmp(a->metadata.creation_timestamp, b->metadata.creation_timestamp);

	return r ? r : str_cmp(a->metadata.name, b->metadata.name);
}

static void add_pod(struct daemon *x, struct node_pods *np, const struct core_v1_pod *p)
{
	*ARENA_ADD(x->r->arena, np->pods, np->n) = p;
}

static int survey(struct daemon *x, const struct selector *selector, struct err *err)
{
	const struct claim claim = { .owner_type = &apps_v1_daemon_set_type,
		.owner = x->d,
		.selector = selector,
		.type = &core_v1_pod_type };
	struct core_v1_pod_spec spec = *(const struct core_v1_pod_spec *)model_copy(
		&core_v1_pod_spec_type, &x->d->spec.template.spec, x->r->arena);
	struct objects pods, nodes = cache_objects(x->r, &core_v1_node_type, STR_NONE);
	struct map by_name = { 0 };
	int ret = claim_objects(x->r, &claim, &pods, err);

	if (ret)
		return ret;
	add_tolerations(&spec, x->r->arena);
	x->nodes = arena_alloc(x->r->arena, (nodes.len + pods.len + 1) * sizeof(*x->nodes));
	OBJECT_EACH(const struct core_v1_node, n, nodes) {
		struct node_pods *np = &x->nodes[x->n_nodes++];

		np->node = n;
		judge_node(&spec, n, &np->should_run, &np->may_stay);
		map_set(&by_name, n->metadata.name, np);
	}
	OBJECT_EACH(const struct core_v1_pod, p, pods) {
		struct str node = pinned_to(p);
		struct node_pods *np = node.len ? map_get(&by_name, node) : NULL;

		if (!np && node.len) {
			np = &x->nodes[x->n_nodes++]; /* its node is no more: pod garbage collection or we remove it */
			map_set(&by_name, node, np);
		}
		if (np)
			add_pod(x, np, p);
	}
	map_deinit(&by_name, NULL);
	for (size_t i = 0; i < x->n_nodes; i++)
		if (x->nodes[i].n > 1)
			qsort(x->nodes[i].pods, x->nodes[i].n, sizeof(*x->nodes[i].pods),
				older_first);
	return 0;
}

static bool is_new(const struct daemon *x, const struct core_v1_pod *p)
{
	return str_eq(str_map_get(&p->metadata.labels, STR(REVISION_HASH_LABEL)), x->hash);
}

static bool available(const struct daemon *x, const struct core_v1_pod *p)
{
	uint64_t wait;
	bool yes = time_is_zero(p->metadata.deletion_timestamp) &&
		pod_available(p, x->d->spec.min_ready_seconds, x->r->now, &wait);

	if (!yes && time_is_zero(p->metadata.deletion_timestamp) && wait)
		requeue_within(x->r, wait);
	return yes;
}

static void doom(struct daemon *x, const struct core_v1_pod *p)
{
	if (!time_is_zero(p->metadata.deletion_timestamp))
		return;
	*ARENA_ADD(x->r->arena, x->doomed, x->n_doomed) = p;
}

static void need(struct daemon *x, struct str node)
{
	*ARENA_ADD(x->r->arena, x->needy, x->n_needy) = node;
}

static void bounds(const struct daemon *x, int desired, int *ret_surge, int *ret_unavailable)
{
	const struct apps_v1_rolling_update_daemon_set *u =
		x->d->spec.update_strategy.rolling_update;

	*ret_surge = u ? scaled_value(&u->max_surge, desired, true, 0) : 0;
	*ret_unavailable = u ? scaled_value(&u->max_unavailable, desired, true, 1) : 1;
	if (!*ret_surge && !*ret_unavailable)
		*ret_unavailable = 1;
}

static int count_desired(const struct daemon *x)
{
	int n = 0;

	for (size_t i = 0; i < x->n_nodes; i++)
		n += x->nodes[i].should_run;
	return n;
}

static bool rolling(const struct daemon *x)
{
	return !str_eqz(x->d->spec.update_strategy.type, "OnDelete");
}

/* Whoever called it failed: its containers have not. */
static bool runs(const struct core_v1_pod *p)
{
	LIST_EACH(c, &p->status.container_statuses)
		if (c->state.running)
			return true;
	return false;
}

/* Of a node that keeps its pod: ended ones go, doubles go (with surge an old and a new one may stand side by side). */
static void tidy_node(struct daemon *x, const struct node_pods *np, bool surge)
{
	const struct core_v1_pod *kept_old = NULL, *kept_new = NULL;
	size_t running = 0;

	for (size_t i = 0; i < np->n; i++) {
		const struct core_v1_pod *p = np->pods[i];

		if (!time_is_zero(p->metadata.deletion_timestamp))
			continue;
		if (pod_ended(p)) {
			bool failed = str_eqz(p->status.phase, "Failed");

			if (!runs(p) &&
				time_diff_s(x->r->now, p->metadata.creation_timestamp) <
					FAILED_REST_S) {
				requeue_within(x->r,
					FAILED_REST_S *
						1000); /* one that fails at once must not spin */
				continue;
			}

			event_record(x->r->events, &apps_v1_daemon_set_type, x->d,
				failed ? "Warning" : "Normal",
				failed ? "FailedDaemonPod" : "SucceededDaemonPod",
				"Found %s daemon pod " STR_FMT "/" STR_FMT " on node " STR_FMT
				", will try to %s it",
				failed ? "failed" : "succeeded", STR_ARG(p->metadata.namespace),
				STR_ARG(p->metadata.name), STR_ARG(np->node->metadata.name),
				failed ? "kill" : "delete");
			doom(x, p);
			continue;
		}
		const struct core_v1_pod **kept = surge && is_new(x, p) ? &kept_new : &kept_old;

		if (*kept)
			doom(x, p);
		else
			*kept = p;
		running++;
	}
	if (surge && kept_new && kept_old && running == 2 && !is_new(x, kept_old) &&
		available(x, kept_new))
		doom(x, kept_old);
}

static void manage(struct daemon *x)
{
	int surge, unavailable;

	bounds(x, count_desired(x), &surge, &unavailable);
	for (size_t i = 0; i < x->n_nodes; i++) {
		const struct node_pods *np = &x->nodes[i];

		if (!np->node || (!np->may_stay && !np->should_run)) {
			for (size_t k = 0; k < np->n; k++)
				doom(x, np->pods[k]);
		} else if (np->should_run && !np->n) {
			need(x, np->node->metadata.name);
		} else if (np->n) {
			tidy_node(x, np, surge > 0 && rolling(x));
		}
	}
}

/* ---- rolling update ---- */
static void find_old_and_new(const struct daemon *x, const struct node_pods *np,
	const struct core_v1_pod **ret_old, const struct core_v1_pod **ret_new)
{
	*ret_old = *ret_new = NULL;
	for (size_t i = 0; i < np->n; i++) {
		const struct core_v1_pod *p = np->pods[i];

		if (!time_is_zero(p->metadata.deletion_timestamp))
			continue;
		if (is_new(x, p))
			*ret_new = *ret_new ? *ret_new : p;
		else
			*ret_old = *ret_old ? *ret_old : p;
	}
}

static void replace_old(struct daemon *x, int most)
{
	const struct core_v1_pod **candidates =
		arena_alloc(x->r->arena, (x->n_nodes + 1) * sizeof(*candidates));
	size_t n = 0;
	int gone = 0;

	for (size_t i = 0; i < x->n_nodes; i++) {
		const struct core_v1_pod *old, *new;

		if (!x->nodes[i].should_run)
			continue;
		find_old_and_new(x, &x->nodes[i], &old, &new);
		if (!old && !new)
			gone++;
		else if (!old)
			gone += !available(x, new);
		else if (!new && !available(x, old))
			doom(x, old); /* serves nobody: replacing it costs nothing */
		else if (!new)
			candidates[n++] = old;
	}
	for (size_t i = 0; i < n && gone < most; i++, gone++)
		doom(x, candidates[i]);
}

static void surge_new(struct daemon *x, int most)
{
	struct str *candidates = arena_alloc(x->r->arena, (x->n_nodes + 1) * sizeof(*candidates));
	size_t n = 0;
	int surged = 0;

	for (size_t i = 0; i < x->n_nodes; i++) {
		const struct core_v1_pod *old, *new;

		if (!x->nodes[i].should_run)
			continue;
		find_old_and_new(x, &x->nodes[i], &old, &new);
		if (!old)
			continue;
		if (new) {
			surged += !available(x, new);
			if (!available(x, old))
				doom(x, old);
		} else if (!available(x, old)) {
			need(x, x->nodes[i].node->metadata.name);
		} else {
			candidates[n++] = x->nodes[i].node->metadata.name;
		}
	}
	for (size_t i = 0; i < n && surged < most; i++, surged++)
		need(x, candidates[i]);
}

static void roll(struct daemon *x)
{
	int surge, unavailable;

	bounds(x, count_desired(x), &surge, &unavailable);
	if (surge > 0)
		surge_new(x, surge);
	else
		replace_old(x, unavailable);
}

/* ---- acting ---- */
static int create_one(void *arg, size_t i, struct err *err)
{
	struct daemon *x = arg;
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct core_v1_pod *p =
		pod_from_template(&x->d->spec.template, &apps_v1_daemon_set_type, x->d, a);

	str_map_set(a, &p->metadata.labels, STR(REVISION_HASH_LABEL), x->hash);
	add_tolerations(&p->spec, a);
	pin(&p->spec, x->needy[i], a);
	int r = pod_create(x->r, p, &apps_v1_daemon_set_type, x->d, err);

	if (r)
		creation_observed(x->r->state, x->key);
	return namespace_ends(r, err) ? 0 : r;
}

static int delete_one(void *arg, size_t i, struct err *err)
{
	struct daemon *x = arg;
	int r = pod_delete(x->r, x->doomed[i], &apps_v1_daemon_set_type, x->d, err);

	if (r)
		deletion_observed(x->r->state, x->key, x->doomed[i]->metadata.uid);
	return r == CLIENT_NOT_FOUND ? 0 : r;
}

static int act(struct daemon *x, struct err *err)
{
	int failure = 0, failed_create = 0;

	x->n_needy = MIN(x->n_needy, (size_t)BURST);
	x->n_doomed = MIN(x->n_doomed, (size_t)BURST);
	expect_creations(x->r->state, x->key, x->n_needy);
	for (size_t i = 0; i < x->n_doomed; i++)
		expect_deletion(x->r->state, x->key, x->doomed[i]->metadata.uid);
	run_parallel(x->r, x->n_needy, create_one, x, &failed_create, err);
	run_parallel(x->r, x->n_doomed, delete_one, x, &failure, failed_create ? NULL : err);
	x->n_needy = x->n_doomed = 0;
	return failed_create ? failed_create : failure;
}

static int write_status(struct daemon *x, struct err *err)
{
	struct apps_v1_daemon_set_status st = { .collision_count = x->d->status.collision_count,
		.conditions = x->d->status.conditions,
		.observed_generation = x->d->metadata.generation };

	for (size_t i = 0; i < x->n_nodes; i++) {
		const struct node_pods *np = &x->nodes[i];

		if (!np->should_run) {
			st.number_misscheduled += np->node && np->n;
			continue;
		}
		st.desired_number_scheduled++;
		if (!np->n)
			continue;
		st.current_number_scheduled++;
		const struct core_v1_pod *p = np->pods[0];

		if (pod_ready(p)) {
			st.number_ready++;
			st.number_available += available(x, p);
		}
		st.updated_number_scheduled += is_new(x, p);
	}
	st.number_unavailable = st.desired_number_scheduled - st.number_available;
	const struct apps_v1_daemon_set *cached =
		cache_object(x->r, &apps_v1_daemon_set_type, x->key);

	if (cached && model_equal(&apps_v1_daemon_set_status_type, &st, &cached->status))
		return 0;
	x->d->status = st;
	return client_update(
		x->r->client, &apps_v1_daemon_set_type, "status", x->d, x->r->arena, NULL, err);
}

static bool revision_in_use(void *arg, const struct apps_v1_controller_revision *c)
{
	const struct daemon *x = arg;

	for (size_t i = 0; i < x->n_nodes; i++)
		for (size_t k = 0; k < x->nodes[i].n; k++)
			if (str_eq(str_map_get(&x->nodes[i].pods[k]->metadata.labels,
					   STR(REVISION_HASH_LABEL)),
				    history_hash(c)))
				return true;
	return false;
}

static int reconcile_living(struct daemon *x, struct err *err)
{
	int ret = 0;

	if (may_act(x->r, x->key)) {
		manage(x);
		ret = act(x, err);
		if (!ret && rolling(x) && may_act(x->r, x->key)) {
			roll(x);
			ret = act(x, err);
		}
		if (!ret)
			ret = history_truncate(&x->history,
				int32_or(&x->d->spec.revision_history_limit, 10), revision_in_use,
				x, err);
	}
	int st = write_status(x, ret ? NULL : err);

	return ret ? ret : st;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct apps_v1_daemon_set *cached = cache_object(r, &apps_v1_daemon_set_type, key);
	struct selector *selector;

	if (!cached) {
		expectations_forget(r->state, key);
		return 0;
	}
	struct daemon x = {
		.r = r, .key = key, .d = model_copy(&apps_v1_daemon_set_type, cached, r->arena)
	};

	if (!x.d->spec.selector ||
		(!x.d->spec.selector->match_labels.len &&
			!x.d->spec.selector->match_expressions.len)) {
		event_record(r->events, &apps_v1_daemon_set_type, x.d, "Warning", "SelectingAll",
			"This daemon set is selecting all pods. A non-empty selector is required.");
		return 0;
	}
	int ret = selector_from_label_selector(x.d->spec.selector, r->arena, &selector, err);

	if (ret || !time_is_zero(x.d->metadata.deletion_timestamp))
		return ret;
	x.history = (struct history){ .r = r,
		.owner_type = &apps_v1_daemon_set_type,
		.owner = x.d,
		.selector = selector,
		.template = &x.d->spec.template,
		.collisions = &x.d->status.collision_count };
	ret = history_sync(&x.history, err);
	if (ret)
		return ret;
	x.hash = history_hash(x.history.current);
	ret = survey(&x, selector, err);
	return ret ? ret : reconcile_living(&x, err);
}

/* ---- events ---- */
static void map_pod(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct cached *c = now ? now : old;
	const struct meta_v1_owner_reference *o = client_controller_of(c->meta);
	struct buf key CLEAN_BUF = { 0 };

	if (!o || !str_eqz(o->kind, "DaemonSet"))
		return;
	buf_addf(&key, STR_FMT "/" STR_FMT, STR_ARG(c->meta->namespace), STR_ARG(o->name));
	if (!now || !time_is_zero(now->meta->deletion_timestamp))
		deletion_observed(r->state, buf_str(&key), c->meta->uid);
	else if (ev == INFORMER_ADDED)
		creation_observed(r->state, buf_str(&key));
	/* The kubelet may soon say again that it runs. */
	if (old && now && !pod_ended(old->obj) && pod_ended(now->obj))
		enqueue(r, buf_str(&key));
	else
		enqueue_after(r, buf_str(&key), GATHER_MS);
}

static bool placement_changed(const struct core_v1_node *a, const struct core_v1_node *b)
{
	const struct core_v1_node x = { .metadata.labels = a->metadata.labels,
		.spec.taints = a->spec.taints },
				  y = { .metadata.labels = b->metadata.labels,
					  .spec.taints = b->spec.taints };

	return !model_equal(&core_v1_node_type, &x, &y);
}

static void map_node(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct cached_list all;

	if (old && now && !placement_changed(old->obj, now->obj))
		return;
	informer_list(run_informer(r, &apps_v1_daemon_set_type), STR_NONE, &all);
	for (size_t i = 0; i < all.len; i++)
		enqueue_after(r, all.items[i]->key, NODES_GATHER_MS);
	cached_list_deinit(&all);
}

static void map_revision(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	map_owner(r, ev, old, now, "DaemonSet");
}

static int init(struct run *r, struct err *err)
{
	r->state = expectations_new();
	return 0;
}

static void deinit(struct run *r)
{
	expectations_free(r->state);
}

const struct controller daemonset_controller = {
	.name = "daemonset",
	.bulk = true,
	.component = "daemonset-controller",
	.watches = {
		{ &apps_v1_daemon_set_type, map_self },
		{ &core_v1_pod_type, map_pod },
		{ &core_v1_node_type, map_node },
		{ &apps_v1_controller_revision_type, map_revision },
	},
	.init = init,
	.deinit = deinit,
	.reconcile = reconcile,
};
