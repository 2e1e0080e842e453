/* Pods with identities: NAME-0, NAME-1 … each with its own claims. Upstream: pkg/controller/statefulset.
 *
 * 1. A pod's identity is its name: the server refuses a second one of that name, so two pods of one identity never run, whatever caches say.
 *    A pod that is being deleted holds its identity until it is gone.
 * 2. OrderedReady: one step at a time, each only when all before it are ready and available; scaling down from the highest ordinal.
 * 3. Rolling update goes from the highest ordinal down to the partition, one (maxUnavailable) at a time, and waits for health.
 * 4. Pods below the partition, and all while an update runs, are made again in the revision that they had.
 * 5. Claims are never deleted here; with a retention policy they get an owner, and garbage collection does it.
 * 6. replicas may be any number: what a reconcile takes, of memory and time, is bounded by the pods that there are. */
#include "controllers/history.h"

#include <stdio.h>

#include "controllers/table.h"

#define BURST 500
#define NAME_LABEL "statefulset.kubernetes.io/pod-name"
#define INDEX_LABEL "apps.kubernetes.io/pod-index"

struct stateful {
	struct run *r;
	struct apps_v1_stateful_set *s; /* a copy; status is written back */
	struct str key;
	struct history history;
	struct apps_v1_controller_revision *current, *update;
	struct core_v1_pod_template_spec *current_template;
	int start, replicas;
	int window; /* how many of the replicas are looked at: as many as there are pods, and BURST more (rule 6) */
	const struct core_v1_pod **pods; /* by ordinal - start, `window` of them; NULL: not there */
	const struct core_v1_pod **others;    /* replicas too, behind the window */
	const struct core_v1_pod **condemned; /* ordinals beyond, ascending */
	size_t n_others, n_condemned;
	int created; /* in this reconcile */
	const struct core_v1_pod *first_sick;
};

/* ---- identity ---- */
static int ordinal_of(const struct apps_v1_stateful_set *s, struct str pod_name)
{
	int64_t n;
	struct str prefix = s->metadata.name;

	if (!str_has_prefix(pod_name, prefix) || pod_name.len < prefix.len + 2 ||
		pod_name.p[prefix.len] != '-')
		return -1;
	struct str digits = str_from(pod_name, prefix.len + 1);

	if (str_to_i64(digits, &n) || n < 0 || n > INT32_MAX ||
		(digits.len > 1 && digits.p[0] == '0'))
		return -1;
	return (int)n;
}

static bool is_member(void *arg, const void *pod)
{
	return ordinal_of(arg, ((const struct core_v1_pod *)pod)->metadata.name) >= 0;
}

static struct str claim_name(
	const struct stateful *x, const struct core_v1_persistent_volume_claim *tpl, int ordinal)
{
	return arena_fmt(x->r->arena, STR_FMT "-" STR_FMT "-%d", STR_ARG(tpl->metadata.name),
		STR_ARG(x->s->metadata.name), ordinal);
}

static struct str revision_of(const struct core_v1_pod *p)
{
	return str_map_get(&p->metadata.labels, STR(REVISION_HASH_LABEL));
}

static bool terminating(const struct core_v1_pod *p)
{
	return !time_is_zero(p->metadata.deletion_timestamp);
}

static bool running_and_ready(const struct core_v1_pod *p)
{
	return str_eqz(p->status.phase, "Running") && pod_ready(p);
}

static bool available(struct stateful *x, const struct core_v1_pod *p)
{
	uint64_t wait;
	bool yes = pod_available(p, x->s->spec.min_ready_seconds, x->r->now, &wait);

	if (wait)
		requeue_within(x->r, wait);
	return yes && str_eqz(p->status.phase, "Running");
}

static bool healthy(struct stateful *x, const struct core_v1_pod *p)
{
	return p && !terminating(p) && running_and_ready(p) && available(x, p);
}

static int partition(const struct stateful *x)
{
	const struct apps_v1_rolling_update_stateful_set_strategy *u =
		x->s->spec.update_strategy.rolling_update;

	return u ? int32_or(&u->partition, 0) : 0;
}

static bool rolling(const struct stateful *x)
{
	return !str_eqz(x->s->spec.update_strategy.type, "OnDelete");
}

static bool ordered(const struct stateful *x)
{
	return !str_eqz(x->s->spec.pod_management_policy, "Parallel");
}

/* Rule 4. */
static bool wants_current(const struct stateful *x, int ordinal)
{
	if (!rolling(x) || x->current == x->update)
		return false;
	if (x->s->spec.update_strategy.rolling_update)
		return ordinal - x->start < partition(x);
	return ordinal - x->start < x->s->status.current_replicas;
}

static void set_claims(struct stateful *x, struct core_v1_pod *p, int ordinal)
{
	struct core_v1_volume_items volumes = { 0 };

	LIST_EACH(tpl, &x->s->spec.volume_claim_templates) {
		struct core_v1_volume *v = LIST_ADD(x->r->arena, &volumes);

		v->name = tpl->metadata.name;
		v->volume_source.persistent_volume_claim =
			arena_alloc(x->r->arena, sizeof(*v->volume_source.persistent_volume_claim));
		v->volume_source.persistent_volume_claim->claim_name = claim_name(x, tpl, ordinal);
	}
	LIST_EACH(v, &p->spec.volumes) {
		bool replaced = false;

		LIST_EACH(tpl, &x->s->spec.volume_claim_templates)
			replaced |= str_eq(tpl->metadata.name, v->name);
		if (!replaced)
			*LIST_ADD(x->r->arena, &volumes) = *v;
	}
	p->spec.volumes = volumes;
}

static struct core_v1_pod *build_pod(struct stateful *x, int ordinal)
{
	struct arena *a = x->r->arena;
	bool old = wants_current(x, ordinal);
	struct core_v1_pod *p = pod_from_template(old ? x->current_template : &x->s->spec.template,
		&apps_v1_stateful_set_type, x->s, a);

	p->metadata.generate_name = STR_NONE;
	p->metadata.name = arena_fmt(a, STR_FMT "-%d", STR_ARG(x->s->metadata.name), ordinal);
	str_map_set(a, &p->metadata.labels, STR(NAME_LABEL), p->metadata.name);
	str_map_set(a, &p->metadata.labels, STR(INDEX_LABEL), arena_fmt(a, "%d", ordinal));
	str_map_set(a, &p->metadata.labels, STR(REVISION_HASH_LABEL),
		old ? x->current->metadata.name : x->update->metadata.name);
	p->spec.hostname = p->metadata.name;
	p->spec.subdomain = x->s->spec.service_name;
	set_claims(x, p, ordinal);
	return p;
}

/* ---- acts, with upstream's events ---- */
static void say(struct stateful *x, const char *verb, const char *what, struct str pod, int failure,
	const struct err *err)
{
	const char *reason = !strcmp(verb, "create")
		? (failure ? "FailedCreate" : "SuccessfulCreate")
		: !strcmp(verb, "update") ? (failure ? "FailedUpdate" : "SuccessfulUpdate")
					  : (failure ? "FailedDelete" : "SuccessfulDelete");

	if (failure)
		event_record(x->r->events, &apps_v1_stateful_set_type, x->s, "Warning", reason,
			"%s %s " STR_FMT " in StatefulSet " STR_FMT " failed error: %s", verb, what,
			STR_ARG(pod), STR_ARG(x->s->metadata.name), err->text);
	else
		event_record(x->r->events, &apps_v1_stateful_set_type, x->s, "Normal", reason,
			"%s %s " STR_FMT " in StatefulSet " STR_FMT " successful", verb, what,
			STR_ARG(pod), STR_ARG(x->s->metadata.name));
}

static bool keeps(struct str policy)
{
	return !str_eqz(policy, "Delete");
}

static int create_claims(struct stateful *x, int ordinal, struct err *err)
{
	const struct type *t = &core_v1_persistent_volume_claim_type;
	const struct apps_v1_stateful_set_persistent_volume_claim_retention_policy *keep =
		x->s->spec.persistent_volume_claim_retention_policy;

	LIST_EACH(tpl, &x->s->spec.volume_claim_templates) {
		struct core_v1_persistent_volume_claim *c = model_copy(t, tpl, x->r->arena);

		c->api_version = STR("v1");
		c->kind = STR("PersistentVolumeClaim");
		c->metadata.name = claim_name(x, tpl, ordinal);
		c->metadata.namespace = x->s->metadata.namespace;
		if (cache_object(
			    x->r, t, key_of(x->r->arena, c->metadata.namespace, c->metadata.name)))
			continue;
		if (x->s->spec.selector)
			LIST_EACH(l, &x->s->spec.selector->match_labels)
				str_map_set(x->r->arena, &c->metadata.labels, l->key, l->value);
		if (keep && !keeps(keep->when_deleted))
			*LIST_ADD(x->r->arena, &c->metadata.owner_references) =
				controller_reference(&apps_v1_stateful_set_type, x->s, x->r->arena);
		int r = client_create(
			x->r->client, t, c->metadata.namespace, c, x->r->arena, NULL, err);

		if (r == CLIENT_EXISTS)
			continue;
		say(x, "create", "Claim", c->metadata.name, r, err);
		if (r)
			return r;
	}
	return 0;
}

static int create_pod(struct stateful *x, int ordinal, struct err *err)
{
	struct core_v1_pod *p = build_pod(x, ordinal);
	int r = create_claims(x, ordinal, err);

	if (r)
		return r;
	r = client_create(
		x->r->client, &core_v1_pod_type, p->metadata.namespace, p, x->r->arena, NULL, err);
	if (r == CLIENT_EXISTS)
		return err_set(err, CLIENT_CONFLICT,
			"pod " STR_FMT " is there and not in the cache yet",
			STR_ARG(p->metadata.name));
	if (namespace_ends(r, err))
		return 0;
	say(x, "create", "Pod", p->metadata.name, r, err);
	x->created++;
	return r;
}

static int delete_pod(struct stateful *x, const struct core_v1_pod *p, struct err *err)
{
	const struct client_delete o = { .grace_seconds = -1, .uid = p->metadata.uid };
	int r = client_delete(
		x->r->client, &core_v1_pod_type, p->metadata.namespace, p->metadata.name, &o, err);

	if (r == CLIENT_NOT_FOUND || r == CLIENT_CONFLICT)
		return 0;
	say(x, "delete", "Pod", p->metadata.name, r, err);
	return r;
}

/* whenScaled: Delete: claims of a condemned pod go when it goes. */
static int let_claims_go(struct stateful *x, const struct core_v1_pod *p, struct err *err)
{
	const struct apps_v1_stateful_set_persistent_volume_claim_retention_policy *keep =
		x->s->spec.persistent_volume_claim_retention_policy;

	if (!keep || keeps(keep->when_scaled))
		return 0;
	LIST_EACH(tpl, &x->s->spec.volume_claim_templates) {
		int r = patch_merge_fmt(x->r, &core_v1_persistent_volume_claim_type,
			p->metadata.namespace,
			claim_name(x, tpl, ordinal_of(x->s, p->metadata.name)), NULL, err,
			"{\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"name\":\"" STR_FMT
			"\",\"uid\":\"" STR_FMT "\"}]}}",
			STR_ARG(p->metadata.name), STR_ARG(p->metadata.uid));

		if (r && r != CLIENT_NOT_FOUND)
			return r;
	}
	return 0;
}

static int mend_labels(
	struct stateful *x, const struct core_v1_pod *p, int ordinal, struct err *err)
{
	struct str name = str_map_get(&p->metadata.labels, STR(NAME_LABEL)),
		   index = str_map_get(&p->metadata.labels, STR(INDEX_LABEL));
	char want[16];

	snprintf(want, sizeof(want), "%d", ordinal);
	if (str_eq(name, p->metadata.name) && str_eqz(index, want))
		return 0;
	return patch_merge_fmt(x->r, &core_v1_pod_type, p->metadata.namespace, p->metadata.name,
		NULL, err,
		"{\"metadata\":{\"labels\":{\"" NAME_LABEL "\":\"" STR_FMT "\",\"" INDEX_LABEL
		"\":\"%s\"}}}",
		STR_ARG(p->metadata.name), want);
}

/* ---- steps; *ret_stop: wait for what was begun ---- */
static int step_replica(struct stateful *x, int i, bool *ret_stop, struct err *err)
{
	const struct core_v1_pod *p = x->pods[i];
	int ordinal = x->start + i;

	*ret_stop = ordered(x);
	if (!p)
		return create_pod(x, ordinal, err);
	if (pod_ended(p)) {
		bool failed = str_eqz(p->status.phase, "Failed");

		*ret_stop = true;
		if (terminating(p))
			return 0;
		event_record(x->r->events, &apps_v1_stateful_set_type, x->s,
			failed ? "Warning" : "Normal",
			failed ? "RecreatingFailedPod" : "RecreatingTerminatedPod",
			"StatefulSet " STR_FMT "/" STR_FMT " is recreating %s Pod " STR_FMT,
			STR_ARG(x->s->metadata.namespace), STR_ARG(x->s->metadata.name),
			failed ? "failed" : "terminated", STR_ARG(p->metadata.name));
		return delete_pod(x, p, err);
	}
	if (str_eqz(p->status.phase, "Pending")) {
		int r = create_claims(x, ordinal, err);

		if (r)
			return r;
	}
	if (ordered(x) && !healthy(x, p))
		return 0;
	*ret_stop = false;
	return terminating(p) ? 0 : mend_labels(x, p, ordinal, err);
}

static int step_condemned(
	struct stateful *x, const struct core_v1_pod *p, bool *ret_stop, struct err *err)
{
	*ret_stop = ordered(x);
	if (terminating(p))
		return 0;
	if (ordered(x) && p != x->first_sick && !healthy(x, p))
		return 0;
	int r = let_claims_go(x, p, err);

	return r ? r : delete_pod(x, p, err);
}

static int step_update(struct stateful *x, struct err *err)
{
	const struct apps_v1_rolling_update_stateful_set_strategy *u =
		x->s->spec.update_strategy.rolling_update;
	int most = u ? scaled_value(&u->max_unavailable, x->replicas, false, 1) : 1,
	    sick = x->replicas;

	most = MAX(most, 1);
	for (int i = 0; i < x->window; i++)
		sick -= healthy(x, x->pods[i]);
	for (size_t i = 0; i < x->n_others; i++)
		sick -= healthy(x, x->others[i]);
	for (int i = x->window - 1; i >= MAX(partition(x), 0); i--) {
		const struct core_v1_pod *p = x->pods[i];

		if (!p || terminating(p) || str_eq(revision_of(p), x->update->metadata.name)) {
			if (most == 1 && !healthy(x, p))
				return 0; /* rule 3 */
			continue;
		}
		if (healthy(x, p) && sick >= most)
			return 0;
		sick += healthy(x, p);
		int r = delete_pod(x, p, err);

		if (r || most == 1)
			return r;
	}
	return 0;
}

static int step(struct stateful *x, struct err *err)
{
	bool stop;

	for (int i = 0; i < x->window; i++) {
		int r = step_replica(x, i, &stop, err);

		if (r || (stop && ordered(x)))
			return r;
		if (x->created >= BURST) {
			requeue_within(x->r, 1); /* others have their turn between */
			return 0;
		}
	}
	for (size_t i = x->n_condemned; i-- > 0;) {
		int r = step_condemned(x, x->condemned[i], &stop, err);

		if (r || stop)
			return r;
	}
	return rolling(x) ? step_update(x, err) : 0;
}

/* ---- what is there ---- */
static int by_ordinal(const void *pa, const void *pb)
{
	const struct core_v1_pod *a = *(void *const *)pa, *b = *(void *const *)pb;

	if (a->metadata.name.len != b->metadata.name.len)
		return a->metadata.name.len < b->metadata.name.len ? -1 : 1;
	return str_cmp(a->metadata.name, b->metadata.name);
}

static int survey(struct stateful *x, const struct selector *selector, struct err *err)
{
	const struct claim claim = { .owner_type = &apps_v1_stateful_set_type,
		.owner = x->s,
		.selector = selector,
		.type = &core_v1_pod_type,
		.filter = is_member,
		.arg = x->s };
	struct objects os;
	int r = claim_objects(x->r, &claim, &os, err);

	if (r)
		return r;
	x->start = x->s->spec.ordinals ? x->s->spec.ordinals->start : 0;
	x->replicas = int32_or(&x->s->spec.replicas, 1);
	x->window = (int)MIN((size_t)x->replicas, os.len + BURST);
	x->pods = arena_alloc(x->r->arena, ((size_t)x->window + 1) * sizeof(*x->pods));
	x->others = arena_alloc(x->r->arena, (os.len + 1) * sizeof(*x->others));
	x->condemned = arena_alloc(x->r->arena, (os.len + 1) * sizeof(*x->condemned));
	OBJECT_EACH(const struct core_v1_pod, p, os) {
		int n = ordinal_of(x->s, p->metadata.name);

		if (n >= x->start && n - x->start < x->window)
			x->pods[n - x->start] = p;
		else if (n >= x->start && n - x->start < x->replicas)
			x->others[x->n_others++] = p;
		else if (n >= 0)
			x->condemned[x->n_condemned++] = p;
	}
	if (x->n_condemned)
		qsort(x->condemned, x->n_condemned, sizeof(*x->condemned), by_ordinal);
	for (int i = 0; i < x->window && !x->first_sick; i++)
		x->first_sick = x->pods[i] && !healthy(x, x->pods[i]) ? x->pods[i] : NULL;
	for (size_t i = 0; i < x->n_condemned && !x->first_sick; i++)
		x->first_sick = !healthy(x, x->condemned[i]) ? x->condemned[i] : NULL;
	return 0;
}

/* ---- status ---- */
static void count_pod(
	struct stateful *x, const struct core_v1_pod *p, struct apps_v1_stateful_set_status *st)
{
	if (!p || !p->status.phase.len)
		return;
	st->replicas++;
	if (running_and_ready(p)) {
		st->ready_replicas++;
		st->available_replicas += available(x, p);
	}
	if (terminating(p))
		return;
	st->current_replicas += str_eq(revision_of(p), x->current->metadata.name);
	st->updated_replicas += str_eq(revision_of(p), x->update->metadata.name);
}

static void count(struct stateful *x, struct apps_v1_stateful_set_status *st)
{
	*st = (struct apps_v1_stateful_set_status){ .observed_generation =
							    x->s->metadata.generation,
		.collision_count = x->s->status.collision_count,
		.conditions = x->s->status.conditions,
		.current_revision = x->current->metadata.name,
		.update_revision = x->update->metadata.name };
	for (int i = 0; i < x->window; i++)
		count_pod(x, x->pods[i], st);
	for (size_t i = 0; i < x->n_others; i++)
		count_pod(x, x->others[i], st);
	for (size_t i = 0; i < x->n_condemned; i++)
		count_pod(x, x->condemned[i], st);
	if (!st->collision_count.set)
		st->collision_count = (struct opt_int32)SOME(0);
}

static int write_status(struct stateful *x, struct err *err)
{
	struct apps_v1_stateful_set_status st;
	const struct apps_v1_stateful_set *cached =
		cache_object(x->r, &apps_v1_stateful_set_type, x->key);

	count(x, &st);
	if (rolling(x) && x->current != x->update && st.updated_replicas == st.replicas &&
		st.ready_replicas == st.replicas && st.replicas == x->replicas) {
		st.current_replicas = st.updated_replicas; /* the update is complete */
		st.current_revision = st.update_revision;
	}
	if (cached && model_equal(&apps_v1_stateful_set_status_type, &st, &cached->status))
		return 0;
	x->s->status = st;
	struct apps_v1_stateful_set *back;
	int ret = client_update(x->r->client, &apps_v1_stateful_set_type, "status", x->s,
		x->r->arena, (void **)&back, err);

	if (!ret)
		expect_version(x->r->state, x->key, back->metadata.resource_version);
	return ret;
}

static bool revision_in_use(void *arg, const struct apps_v1_controller_revision *c)
{
	const struct stateful *x = arg;

	if (c == x->current || c == x->update)
		return true;
	for (size_t i = 0; i < x->n_others; i++)
		if (str_eq(revision_of(x->others[i]), c->metadata.name))
			return true;
	for (int i = 0; i < x->window; i++)
		if (x->pods[i] && str_eq(revision_of(x->pods[i]), c->metadata.name))
			return true;
	for (size_t i = 0; i < x->n_condemned; i++)
		if (str_eq(revision_of(x->condemned[i]), c->metadata.name))
			return true;
	return false;
}

/* ---- reconcile ---- */
static int find_revisions(struct stateful *x, const struct selector *selector, struct err *err)
{
	x->history = (struct history){ .r = x->r,
		.owner_type = &apps_v1_stateful_set_type,
		.owner = x->s,
		.selector = selector,
		.template = &x->s->spec.template,
		.collisions = &x->s->status.collision_count };
	int r = history_sync(&x->history, err);

	if (r)
		return r;
	x->update = x->current = x->history.current;
	for (size_t i = 0; i < x->history.n_all; i++)
		if (str_eq(x->history.all[i]->metadata.name, x->s->status.current_revision))
			x->current = x->history.all[i];
	return x->current == x->update
		? 0
		: history_template(x->r, x->current, &x->current_template, err);
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct apps_v1_stateful_set *cached =
		cache_object(r, &apps_v1_stateful_set_type, key);
	struct selector *selector;

	if (!cached) {
		expectations_forget(r->state, key);
		return 0;
	}
	if (!version_seen(r->state, key, cached->metadata.resource_version))
		return 0;
	struct stateful x = {
		.r = r, .key = key, .s = model_copy(&apps_v1_stateful_set_type, cached, r->arena)
	};
	int ret = selector_from_label_selector(x.s->spec.selector, r->arena, &selector, err);

	if (!ret)
		ret = find_revisions(&x, selector, err);
	if (!ret)
		ret = survey(&x, selector, err);
	if (ret)
		return ret;
	int failure = time_is_zero(x.s->metadata.deletion_timestamp) ? step(&x, err) : 0;

	ret = write_status(&x, failure ? NULL : err);
	if (!failure && !ret)
		ret = history_truncate(&x.history, int32_or(&x.s->spec.revision_history_limit, 10),
			revision_in_use, &x, err);
	return failure ? failure : ret;
}

/* ---- events ---- */
static void map_pod(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct cached *c = now ? now : old;
	struct cached_list all;

	if (client_controller_of(c->meta))
		return map_owner(r, ev, old, now, "StatefulSet");
	if (!now)
		return;
	informer_list(run_informer(r, &apps_v1_stateful_set_type), c->meta->namespace, &all);
	for (size_t i = 0; i < all.len; i++)
		if (ordinal_of(all.items[i]->obj, c->meta->name) >= 0)
			enqueue(r, all.items[i]->key);
	cached_list_deinit(&all);
}

static void map_revision(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	map_owner(r, ev, old, now, "StatefulSet");
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

const struct controller statefulset_controller = {
	.name = "statefulset",
	.bulk = true,
	.component = "statefulset-controller",
	.watches = {
		{ &apps_v1_stateful_set_type, map_self },
		{ &core_v1_pod_type, map_pod },
		{ &apps_v1_controller_revision_type, map_revision },
		{ &core_v1_persistent_volume_claim_type, NULL },
	},
	.init = init,
	.deinit = deinit,
	.reconcile = reconcile,
};
