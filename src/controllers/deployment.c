/* Moves a Deployment's pods from old replica sets to the one of its present template. Upstream: pkg/controller/deployment.
 *
 * 1. Each reconcile takes one step (one set created or some scaled), writes the status and waits for the sets to follow.
 * 2. The set of a template is found by comparing templates, never by its hash; the hash only names it. A name taken by a different
 *    template raises status.collisionCount and gives a new name.
 * 3. Sets carry revision, desired and max replicas as annotations: what proportional scaling and rollback read. */
#include "controllers/rollout.h"

#include <limits.h>
#include <stdio.h>

#include "controllers/table.h"

#define HISTORY_MOST 2000

static const char *const not_copied[] = {
	"kubectl.kubernetes.io/last-applied-configuration",
	REVISION,
	REVISION_HISTORY,
	DESIRED_REPLICAS,
	MAX_REPLICAS,
	"deprecated.deployment.rollback.to",
};

static bool set_annotation(
	struct run *r, struct meta_v1_object_meta *m, const char *key, struct str value)
{
	if (str_map_has(&m->annotations, str_of(key)) &&
		str_eq(str_map_get(&m->annotations, str_of(key)), value))
		return false;
	str_map_set(r->arena, &m->annotations, arena_strz(r->arena, key), value);
	return true;
}

static bool set_annotation_int(
	struct run *r, struct meta_v1_object_meta *m, const char *key, int64_t n)
{
	return set_annotation(r, m, key, arena_fmt(r->arena, "%lld", (long long)n));
}

static bool note_sizes(struct rollout *o, struct apps_v1_replica_set *rs)
{
	int surge, unavailable, want = rollout_replicas(o->d);

	rollout_bounds(o->d, &surge, &unavailable);
	bool a = set_annotation_int(o->r, &rs->metadata, DESIRED_REPLICAS, want);
	bool b = set_annotation_int(o->r, &rs->metadata, MAX_REPLICAS, want + surge);

	return a || b;
}

/* ---- scaling one set ---- */
static int update_set(struct rollout *o, struct apps_v1_replica_set *rs, struct err *err)
{
	struct apps_v1_replica_set *back;
	int r = client_update(o->r->client, &apps_v1_replica_set_type, NULL, rs, o->r->arena,
		(void **)&back, err);

	if (!r)
		*rs = *back;
	return r;
}

static int scale_set(struct rollout *o, struct apps_v1_replica_set *rs, int to, struct err *err)
{
	int from = set_replicas(rs);
	bool noted = note_sizes(o, rs);

	if (from == to && !noted)
		return 0;
	rs->spec.replicas = (struct opt_int32)SOME(to);
	int r = update_set(o, rs, err);

	if (!r && from != to)
		event_record(o->r->events, &apps_v1_deployment_type, o->d, "Normal",
			"ScalingReplicaSet", "Scaled %s replica set " STR_FMT " from %d to %d",
			to > from ? "up" : "down", STR_ARG(rs->metadata.name), from, to);
	return r;
}

/* ---- the set of the present template ---- */
static int64_t highest_old_revision(const struct rollout *o)
{
	int64_t most = 0;

	SET_EACH(s, o)
		if (*s != o->new_set)
			most = MAX(most, annotation_int(&(*s)->metadata, REVISION, 0));
	return most;
}

/* "1,3": the revisions that this set once was. */
static void note_history(struct run *r, struct apps_v1_replica_set *rs, struct str was)
{
	struct str history = str_map_get(&rs->metadata.annotations, STR(REVISION_HISTORY));
	struct str head, tail;

	while (history.len && history.len + was.len + 1 > HISTORY_MOST &&
		str_cut(history, ',', &head, &tail))
		history = tail;
	set_annotation(r, &rs->metadata, REVISION_HISTORY,
		history.len
			? arena_fmt(r->arena, STR_FMT "," STR_FMT, STR_ARG(history), STR_ARG(was))
			: was);
}

static bool copy_annotations(struct rollout *o, struct apps_v1_replica_set *rs)
{
	bool changed = false;

	LIST_EACH(p, &o->d->metadata.annotations) {
		bool skip = false;

		for (size_t i = 0; i < ARRAY_LEN(not_copied); i++)
			skip |= str_eqz(p->key, not_copied[i]);
		if (!skip)
			changed |= set_annotation(o->r, &rs->metadata, p->key.p, p->value);
	}
	return changed;
}

static bool annotate_new_set(
	struct rollout *o, struct apps_v1_replica_set *rs, int64_t revision, bool exists)
{
	bool changed = copy_annotations(o, rs);
	struct str was = str_map_get(&rs->metadata.annotations, STR(REVISION));

	if (annotation_int(&rs->metadata, REVISION, 0) < revision) {
		if (was.len)
			note_history(o->r, rs, arena_str(o->r->arena, was));
		set_annotation_int(o->r, &rs->metadata, REVISION, revision);
		changed = true;
	}
	if (!exists)
		note_sizes(o, rs);
	return changed;
}

static int adopt_new_set(struct rollout *o, struct err *err)
{
	struct apps_v1_replica_set *rs = o->new_set;
	bool changed = annotate_new_set(o, rs, highest_old_revision(o) + 1, true);

	if (changed || rs->spec.min_ready_seconds != o->d->spec.min_ready_seconds) {
		rs->spec.min_ready_seconds = o->d->spec.min_ready_seconds;
		int r = update_set(o, rs, err);

		if (r)
			return r;
	}
	changed = set_annotation(o->r, &o->d->metadata, REVISION,
		str_map_get(&rs->metadata.annotations, STR(REVISION)));
	if (rollout_has_deadline(o->d) && !deployment_condition(&o->d->status, "Progressing")) {
		set_deployment_condition(o->r, &o->d->status, "Progressing", "True",
			"FoundNewReplicaSet",
			arena_fmt(o->r->arena, "Found new replica set \"" STR_FMT "\"",
				STR_ARG(rs->metadata.name)));
		changed = true;
	}
	return changed ? write_deployment(o, err) : 0;
}

static struct apps_v1_replica_set *build_set(struct rollout *o)
{
	struct arena *a = o->r->arena;
	const struct apps_v1_deployment *d = o->d;
	struct apps_v1_replica_set *rs = model_new(&apps_v1_replica_set_type, a);
	struct str hash = template_hash(&d->spec.template, &d->status.collision_count, a);

	rs->spec.template = *(struct core_v1_pod_template_spec *)model_copy(
		&core_v1_pod_template_spec_type, &d->spec.template, a);
	str_map_set(a, &rs->spec.template.metadata.labels, STR(HASH_LABEL), hash);
	rs->spec.selector = model_copy(&meta_v1_label_selector_type, d->spec.selector, a);
	str_map_set(a, &rs->spec.selector->match_labels, STR(HASH_LABEL), hash);
	rs->spec.min_ready_seconds = d->spec.min_ready_seconds;
	rs->spec.replicas = (struct opt_int32)SOME(0);
	rs->metadata.name =
		arena_fmt(a, STR_FMT "-" STR_FMT, STR_ARG(d->metadata.name), STR_ARG(hash));
	rs->metadata.namespace = d->metadata.namespace;
	rs->metadata.labels = rs->spec.template.metadata.labels;
	*LIST_ADD(a, &rs->metadata.owner_references) =
		controller_reference(&apps_v1_deployment_type, d, a);
	rs->spec.replicas.value = rollout_new_size(o, rs);
	return rs;
}

/* The name is taken: by ourselves, in a reconcile that the cache does not show yet, or by another template. */
static int name_taken(struct rollout *o, struct apps_v1_replica_set **rs, struct err *err)
{
	struct apps_v1_replica_set *there;
	int r = client_get(o->r->client, &apps_v1_replica_set_type, (*rs)->metadata.namespace,
		(*rs)->metadata.name, o->r->arena, (void **)&there, err);

	if (r)
		return r;
	if (owned_by(&there->metadata, o->d->metadata.uid) &&
		template_equal_but_hash(&o->d->spec.template, &there->spec.template, o->r->arena)) {
		*rs = there;
		return 0;
	}
	o->d->status.collision_count =
		(struct opt_int32)SOME(int32_or(&o->d->status.collision_count, 0) + 1);
	r = write_deployment(o, err);
	return r ? r
		 : err_set(err, CLIENT_CONFLICT,
			   "the name " STR_FMT " belongs to another template: taking the next",
			   STR_ARG((*rs)->metadata.name));
}

static int create_failed(
	struct rollout *o, const struct apps_v1_replica_set *rs, int failure, struct err *err)
{
	struct str text =
		arena_fmt(o->r->arena, "Failed to create new replica set \"" STR_FMT "\": %s",
			STR_ARG(rs->metadata.name), err->text);

	if (namespace_ends(failure, err))
		return 0;
	event_record(o->r->events, &apps_v1_deployment_type, o->d, "Warning",
		"ReplicaSetCreateError", "%s", text.p);
	if (rollout_has_deadline(o->d)) {
		set_deployment_condition(
			o->r, &o->d->status, "Progressing", "False", "ReplicaSetCreateError", text);
		write_deployment(o, NULL); /* the failure itself is what is told */
	}
	return failure;
}

static int create_new_set(struct rollout *o, struct err *err)
{
	struct apps_v1_replica_set *rs = build_set(o), *made = NULL;
	int64_t revision = highest_old_revision(o) + 1;

	annotate_new_set(o, rs, revision, false);
	int r = client_create(o->r->client, &apps_v1_replica_set_type, rs->metadata.namespace, rs,
		o->r->arena, (void **)&made, err);
	bool existed = r == CLIENT_EXISTS;

	if (existed) {
		made = rs;
		r = name_taken(o, &made, err);
		if (r)
			return r;
	}
	if (r)
		return create_failed(o, rs, r, err);
	if (!existed && set_replicas(made) > 0)
		event_record(o->r->events, &apps_v1_deployment_type, o->d, "Normal",
			"ScalingReplicaSet", "Scaled up replica set " STR_FMT " from 0 to %d",
			STR_ARG(made->metadata.name), set_replicas(made));
	o->all = arena_grow(
		o->r->arena, o->all, o->n_all * sizeof(*o->all), (o->n_all + 1) * sizeof(*o->all));
	o->all[o->n_all++] = o->new_set = made;
	bool changed = set_annotation_int(o->r, &o->d->metadata, REVISION, revision);

	if (!existed && rollout_has_deadline(o->d)) {
		set_deployment_condition(o->r, &o->d->status, "Progressing", "True",
			"NewReplicaSetCreated",
			arena_fmt(o->r->arena, "Created new replica set \"" STR_FMT "\"",
				STR_ARG(made->metadata.name)));
		changed = true;
	}
	return changed ? write_deployment(o, err) : 0;
}

static int ensure_new_set(struct rollout *o, bool create, struct err *err)
{
	if (o->new_set)
		return adopt_new_set(o, err);
	return create ? create_new_set(o, err) : 0;
}

/* ---- steps of a rollout ---- */
/* Old sets' pods that do not run well go first: they serve nobody. */
static int drop_unhealthy(struct rollout *o, int most, int *gone, struct err *err)
{
	int r = 0;

	SET_EACH(s, o) {
		int has = set_replicas(*s), sick = has - (*s)->status.available_replicas;

		if (r || *s == o->new_set || !has || sick <= 0 || *gone >= most)
			continue;
		int take = MIN(most - *gone, sick);

		r = scale_set(o, *s, has - take, err);
		*gone += take;
	}
	return r;
}

static int drop_available(struct rollout *o, int *gone, struct err *err)
{
	int surge, unavailable, r = 0;

	rollout_bounds(o->d, &surge, &unavailable);
	int most = rollout_available(o) - (rollout_replicas(o->d) - unavailable), taken = 0;

	SET_EACH(s, o) {
		int has = set_replicas(*s);

		if (r || *s == o->new_set || !has || taken >= most)
			continue;
		int take = MIN(has, most - taken);

		r = scale_set(o, *s, has - take, err);
		taken += take;
	}
	*gone += taken;
	return r;
}

static int shrink_old(struct rollout *o, bool *ret_done, struct err *err)
{
	int most = rollout_may_go(o), gone = 0;

	*ret_done = false;
	if (!rollout_total(o, true) || most <= 0)
		return 0;
	int r = drop_unhealthy(o, most, &gone, err);

	if (!r)
		r = drop_available(o, &gone, err);
	*ret_done = gone > 0;
	return r;
}

struct aged {
	struct apps_v1_replica_set *rs;
	int64_t revision;
};

static int by_revision(const void *a, const void *b)
{
	int64_t ra = ((const struct aged *)a)->revision, rb = ((const struct aged *)b)->revision;

	return ra < rb ? -1 : ra > rb;
}

static int clean_history(struct rollout *o, struct err *err)
{
	struct aged *old = arena_alloc(o->r->arena, (o->n_all + 1) * sizeof(*old));
	int32_t keep = int32_or(&o->d->spec.revision_history_limit, INT_MAX);
	size_t n = 0;

	SET_EACH(s, o)
		if (*s != o->new_set && time_is_zero((*s)->metadata.deletion_timestamp))
			old[n++] =
				(struct aged){ *s, annotation_int(&(*s)->metadata, REVISION, 0) };
	if (keep == INT_MAX || n <= (size_t)keep)
		return 0;
	qsort(old, n, sizeof(*old), by_revision);
	for (size_t i = 0; i < n - (size_t)keep; i++) {
		const struct apps_v1_replica_set *rs = old[i].rs;
		const struct client_delete del = { .grace_seconds = -1, .uid = rs->metadata.uid };

		if (rs->status.replicas || set_replicas(rs) ||
			rs->metadata.generation > rs->status.observed_generation)
			continue;
		int r = client_delete(o->r->client, &apps_v1_replica_set_type,
			rs->metadata.namespace, rs->metadata.name, &del, err);

		if (r && r != CLIENT_NOT_FOUND && r != CLIENT_CONFLICT)
			return r;
	}
	return 0;
}

static int roll(struct rollout *o, struct err *err)
{
	bool shrunk = false;
	int r = ensure_new_set(o, true, err);

	if (r || !o->new_set)
		return r;
	int size = rollout_new_size(o, o->new_set);

	if (size != set_replicas(o->new_set)) {
		r = scale_set(o, o->new_set, size, err);
		return r ? r : sync_rollout_status(o, err);
	}
	r = shrink_old(o, &shrunk, err);
	if (r)
		return r;
	if (!shrunk && rollout_complete(o->d, &o->d->status) && (r = clean_history(o, err)))
		return r;
	return sync_rollout_status(o, err);
}

static bool old_pods_run(struct rollout *o)
{
	SET_EACH(s, o) {
		if (*s == o->new_set)
			continue;
		if ((*s)->status.replicas > 0)
			return true;
		struct objects pods = cache_owned(o->r, &core_v1_pod_type, &(*s)->metadata);

		OBJECT_EACH(const struct core_v1_pod, p, pods)
			if (!pod_ended(p))
				return true;
	}
	return false;
}

static int recreate(struct rollout *o, struct err *err)
{
	bool shrunk = false;
	int r = ensure_new_set(o, false, err);

	SET_EACH(s, o)
		if (!r && *s != o->new_set && set_replicas(*s)) {
			r = scale_set(o, *s, 0, err);
			shrunk = true;
		}
	if (r)
		return r;
	if (shrunk || old_pods_run(o))
		return sync_rollout_status(o, err);
	if (!o->new_set && ((r = create_new_set(o, err)) || !o->new_set))
		return r;
	if (set_replicas(o->new_set) != rollout_replicas(o->d) &&
		(r = scale_set(o, o->new_set, rollout_replicas(o->d), err)))
		return r;
	if (rollout_complete(o->d, &o->d->status) && (r = clean_history(o, err)))
		return r;
	return sync_rollout_status(o, err);
}

/* ---- paused, or only the size changed ---- */
static bool saturated(const struct rollout *o)
{
	const struct apps_v1_replica_set *rs = o->new_set;
	int want = rollout_replicas(o->d);

	return rs && set_replicas(rs) == want &&
		annotation_int(&rs->metadata, DESIRED_REPLICAS, -1) == want &&
		rs->status.available_replicas == want;
}

static int rescale(struct rollout *o, struct err *err)
{
	struct apps_v1_replica_set *only = NULL;
	size_t active = 0;
	int r = 0;

	SET_EACH(s, o)
		if (set_replicas(*s) > 0) {
			active++;
			only = *s;
		}
	if (!active && o->n_all)
		only = o->new_set ? o->new_set : o->all[o->n_all - 1];
	if (active <= 1)
		return only && set_replicas(only) != rollout_replicas(o->d)
			? scale_set(o, only, rollout_replicas(o->d), err)
			: 0;
	if (saturated(o)) {
		SET_EACH(s, o)
			if (!r && *s != o->new_set && set_replicas(*s))
				r = scale_set(o, *s, 0, err);
		return r;
	}
	if (!is_rolling(o->d))
		return 0;
	int *sizes = arena_alloc(o->r->arena, o->n_all * sizeof(int));

	rollout_proportions(o, sizes);
	for (size_t i = 0; !r && i < o->n_all; i++)
		if (set_replicas(o->all[i]) > 0)
			r = scale_set(o, o->all[i], sizes[i], err);
	return r;
}

static int sync_sizes(struct rollout *o, struct err *err)
{
	int r = ensure_new_set(o, false, err);

	if (!r)
		r = rescale(o, err);
	if (!r && o->d->spec.paused)
		r = clean_history(o, err);
	return r ? r : sync_status(o, err);
}

/* Only the number of replicas changed since the sets were last scaled. Not asked of Recreate with several sets at work: there the old ones
 * have to go first anyhow. */
static bool size_changed(const struct rollout *o)
{
	int want = rollout_replicas(o->d);
	size_t active = 0, changed = 0;

	SET_EACH(s, o) {
		active += set_replicas(*s) > 0;
		changed += set_replicas(*s) > 0 &&
			annotation_int(&(*s)->metadata, DESIRED_REPLICAS, want) != want;
	}
	return changed && (is_rolling(o->d) || active == 1);
}

static int note_pause(struct rollout *o, struct err *err)
{
	const struct apps_v1_deployment_condition *c =
		deployment_condition(&o->d->status, "Progressing");
	bool noted = c && str_eqz(c->reason, "DeploymentPaused");

	if (!rollout_has_deadline(o->d) || (c && str_eqz(c->reason, "ProgressDeadlineExceeded")) ||
		noted == o->d->spec.paused)
		return 0;
	set_deployment_condition(o->r, &o->d->status, "Progressing", "Unknown",
		o->d->spec.paused ? "DeploymentPaused" : "DeploymentResumed",
		o->d->spec.paused ? STR("Deployment is paused") : STR("Deployment is resumed"));
	return write_deployment(o, err);
}

/* ---- reconcile ---- */
static int older_first(const void *pa, const void *pb)
{
	const struct apps_v1_replica_set *a = *(void *const *)pa, *b = *(void *const *)pb;
	int r = time_cmp(a->metadata.creation_timestamp, b->metadata.creation_timestamp);

	return r ? r : str_cmp(a->metadata.name, b->metadata.name);
}

static int gather(struct rollout *o, struct err *err)
{
	struct selector *selector;
	struct objects sets;
	int r = selector_from_label_selector(o->d->spec.selector, o->r->arena, &selector, err);
	const struct claim claim = { .owner_type = &apps_v1_deployment_type,
		.owner = o->d,
		.type = &apps_v1_replica_set_type };

	if (r)
		return r;
	struct claim with = claim;

	with.selector = selector;
	r = claim_objects(o->r, &with, &sets, err);
	if (r)
		return r;
	o->all = arena_alloc(o->r->arena, (sets.len + 1) * sizeof(*o->all));
	for (size_t i = 0; i < sets.len; i++)
		o->all[o->n_all++] =
			model_copy(&apps_v1_replica_set_type, sets.items[i], o->r->arena);
	qsort(o->all, o->n_all, sizeof(*o->all), older_first);
	SET_EACH(s, o)
		if (!o->new_set &&
			template_equal_but_hash(
				&(*s)->spec.template, &o->d->spec.template, o->r->arena))
			o->new_set = *s;
	return 0;
}

static bool selects_all(const struct meta_v1_label_selector *s)
{
	return s && !s->match_labels.len && !s->match_expressions.len;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct apps_v1_deployment *cached = cache_object(r, &apps_v1_deployment_type, key);

	if (!cached)
		return 0;
	struct rollout o = { .r = r, .d = model_copy(&apps_v1_deployment_type, cached, r->arena) };

	if (selects_all(o.d->spec.selector)) {
		event_record(r->events, &apps_v1_deployment_type, o.d, "Warning", "SelectingAll",
			"This deployment is selecting all pods. A non-empty selector is required.");
		return 0;
	}
	int ret = gather(&o, err);

	if (ret)
		return ret;
	if (!time_is_zero(o.d->metadata.deletion_timestamp))
		return sync_status(&o, err);
	ret = note_pause(&o, err);
	if (ret)
		return ret;
	if (o.d->spec.paused || size_changed(&o))
		return sync_sizes(&o, err);
	return is_rolling(o.d) ? roll(&o, err) : recreate(&o, err);
}

/* ---- events ---- */
static void map_set_event(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct cached *c = now ? now : old;

	if (client_controller_of(c->meta))
		return map_owner(r, ev, old, now, "Deployment");
	if (!now)
		return;
	/* An orphan: any deployment of its namespace may want it. */
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct cached_list all;

	informer_list(run_informer(r, &apps_v1_deployment_type), c->meta->namespace, &all);
	for (size_t i = 0; i < all.len; i++) {
		const struct apps_v1_deployment *d = all.items[i]->obj;
		struct selector *s;

		if (!selector_from_label_selector(d->spec.selector, a, &s, NULL) &&
			selector_matches(s, &c->meta->labels))
			enqueue(r, all.items[i]->key);
	}
	cached_list_deinit(&all);
}

/* Recreate waits until the last old pod is gone: only a pod's end matters. */
static void map_pod_event(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct cached *c = now ? now : old;
	const struct meta_v1_owner_reference *o = client_controller_of(c->meta);
	struct buf key CLEAN_BUF = { 0 };

	if (!o || !str_eqz(o->kind, "ReplicaSet") || (now && !pod_ended(now->obj)))
		return;
	buf_addf(&key, STR_FMT "/" STR_FMT, STR_ARG(c->meta->namespace), STR_ARG(o->name));
	struct cached *rs = informer_get(run_informer(r, &apps_v1_replica_set_type), buf_str(&key));
	const struct meta_v1_owner_reference *d = rs ? client_controller_of(rs->meta) : NULL;

	if (d && str_eqz(d->kind, "Deployment")) {
		buf_clear(&key);
		buf_addf(&key, STR_FMT "/" STR_FMT, STR_ARG(c->meta->namespace), STR_ARG(d->name));
		struct cached *owner =
			informer_get(run_informer(r, &apps_v1_deployment_type), buf_str(&key));

		if (owner && !is_rolling(owner->obj))
			enqueue(r, buf_str(&key));
		cached_unref(owner);
	}
	cached_unref(rs);
}

const struct controller deployment_controller = {
	.name = "deployment",
	.bulk = true,
	.component = "deployment-controller",
	.watches = {
		{ &apps_v1_deployment_type, map_self },
		{ &apps_v1_replica_set_type, map_set_event },
		{ &core_v1_pod_type, map_pod_event },
	},
	.reconcile = reconcile,
};
