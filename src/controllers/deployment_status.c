/* A Deployment's status: counts, Available, Progressing with its deadline, ReplicaFailure. Upstream: deployment's progress.go. */
#include "controllers/rollout.h"

const struct apps_v1_deployment_condition *deployment_condition(
	const struct apps_v1_deployment_status *st, const char *type)
{
	LIST_EACH(c, &st->conditions)
		if (str_eqz(c->type, type))
			return c;
	return NULL;
}

static void remove_condition(struct apps_v1_deployment_status *st, const char *type)
{
	size_t n = 0;

	for (size_t i = 0; i < st->conditions.len; i++)
		if (!str_eqz(st->conditions.items[i].type, type))
			st->conditions.items[n++] = st->conditions.items[i];
	st->conditions.len = n;
}

static void put_condition(
	struct run *r, struct apps_v1_deployment_status *st, struct apps_v1_deployment_condition c)
{
	const struct apps_v1_deployment_condition *now = deployment_condition(st, c.type.p);

	if (now && str_eq(now->status, c.status) && str_eq(now->reason, c.reason))
		return;
	if (now && str_eq(now->status, c.status))
		c.last_transition_time = now->last_transition_time;
	remove_condition(st, c.type.p);
	*LIST_ADD(r->arena, &st->conditions) = c;
}

void set_deployment_condition(struct run *r, struct apps_v1_deployment_status *st, const char *type,
	const char *status, const char *reason, struct str message)
{
	put_condition(r, st,
		(struct apps_v1_deployment_condition){ .type = str_of(type),
			.status = str_of(status),
			.reason = str_of(reason),
			.message = message,
			.last_update_time = r->now,
			.last_transition_time = r->now });
}

static void count(struct rollout *o, struct apps_v1_deployment_status *st)
{
	bool all_tell = o->n_all > 0;
	int32_t terminating = 0;

	st->observed_generation = o->d->metadata.generation;
	st->replicas = st->ready_replicas = st->available_replicas = 0;
	SET_EACH(s, o) {
		st->replicas += (*s)->status.replicas;
		st->ready_replicas += (*s)->status.ready_replicas;
		st->available_replicas += (*s)->status.available_replicas;
		terminating += (*s)->status.terminating_replicas.value;
		all_tell &= (*s)->status.terminating_replicas.set;
	}
	st->terminating_replicas =
		all_tell ? (struct opt_int32)SOME(terminating) : (struct opt_int32){ 0 };
	st->updated_replicas = o->new_set ? o->new_set->status.replicas : 0;
	st->unavailable_replicas = MAX(rollout_total(o, false) - st->available_replicas, 0);
}

static struct apps_v1_deployment_status compute(struct rollout *o)
{
	struct apps_v1_deployment_status st = *(const struct apps_v1_deployment_status *)model_copy(
		&apps_v1_deployment_status_type, &o->d->status, o->r->arena);
	int surge, unavailable;

	count(o, &st);
	rollout_bounds(o->d, &surge, &unavailable);
	if (st.available_replicas >= rollout_replicas(o->d) - unavailable)
		set_deployment_condition(o->r, &st, "Available", "True", "MinimumReplicasAvailable",
			STR("Deployment has minimum availability."));
	else
		set_deployment_condition(o->r, &st, "Available", "False",
			"MinimumReplicasUnavailable",
			STR("Deployment does not have minimum availability."));
	return st;
}

int write_deployment(struct rollout *o, struct err *err)
{
	struct apps_v1_deployment *back;
	struct run *r = o->r;
	struct str revision = str_map_get(&o->d->metadata.annotations, STR(REVISION));
	int ret = client_update(
		r->client, &apps_v1_deployment_type, "status", o->d, r->arena, (void **)&back, err);

	if (ret)
		return ret;
	/* Upstream's server takes annotations along with a status; where one does not, they need a write of their own. */
	if (revision.len &&
		!str_eq(revision, str_map_get(&back->metadata.annotations, STR(REVISION)))) {
		ret = patch_merge_fmt(r, &apps_v1_deployment_type, o->d->metadata.namespace,
			o->d->metadata.name, NULL, err,
			"{\"metadata\":{\"annotations\":{\"" REVISION "\":\"" STR_FMT "\"}}}",
			STR_ARG(revision));
		if (!ret)
			return err_set(err, CLIENT_CONFLICT, "revision noted, status next");
		return ret;
	}
	o->d->metadata.resource_version = back->metadata.resource_version;
	o->d->status = back->status;
	return 0;
}

static bool same_status(
	const struct apps_v1_deployment_status *a, const struct apps_v1_deployment_status *b)
{
	return model_equal(&apps_v1_deployment_status_type, a, b);
}

int sync_status(struct rollout *o, struct err *err)
{
	const struct apps_v1_deployment_status st = compute(o);

	if (same_status(&st, &o->d->status))
		return 0;
	o->d->status = st;
	return write_deployment(o, err);
}

static bool progressing(
	const struct apps_v1_deployment_status *old, const struct apps_v1_deployment_status *now)
{
	return now->updated_replicas > old->updated_replicas ||
		now->replicas - now->updated_replicas < old->replicas - old->updated_replicas ||
		now->ready_replicas > old->ready_replicas ||
		now->available_replicas > old->available_replicas;
}

static bool timed_out(struct rollout *o, const struct apps_v1_deployment_status *st)
{
	const struct apps_v1_deployment_condition *c = deployment_condition(st, "Progressing");

	if (!c || str_eqz(c->reason, "NewReplicaSetAvailable"))
		return false;
	return str_eqz(c->reason, "ProgressDeadlineExceeded") ||
		time_diff_s(o->r->now, c->last_update_time) >
		o->d->spec.progress_deadline_seconds.value;
}

static struct str about(struct rollout *o, const char *what)
{
	return o->new_set ? arena_fmt(o->r->arena, "ReplicaSet \"" STR_FMT "\" %s",
				    STR_ARG(o->new_set->metadata.name), what)
			  : arena_fmt(o->r->arena, "Deployment \"" STR_FMT "\" %s",
				    STR_ARG(o->d->metadata.name), what);
}

static void judge_progress(struct rollout *o, struct apps_v1_deployment_status *st)
{
	const struct apps_v1_deployment_condition *was =
		deployment_condition(&o->d->status, "Progressing");

	if (st->replicas == st->updated_replicas && was &&
		str_eqz(was->reason, "NewReplicaSetAvailable"))
		return;
	if (rollout_complete(o->d, st)) {
		set_deployment_condition(o->r, st, "Progressing", "True", "NewReplicaSetAvailable",
			about(o, "has successfully progressed."));
	} else if (progressing(&o->d->status, st)) {
		/* Written anew each time, for its lastUpdateTime: the deadline counts from there. */
		struct apps_v1_deployment_condition c = { .type = STR("Progressing"),
			.status = STR("True"),
			.reason = STR("ReplicaSetUpdated"),
			.message = about(o, "is progressing."),
			.last_update_time = o->r->now,
			.last_transition_time = o->r->now };

		if (was && str_eqz(was->status, "True"))
			c.last_transition_time = was->last_transition_time;
		remove_condition(st, "Progressing");
		put_condition(o->r, st, c);
	} else if (timed_out(o, st)) {
		set_deployment_condition(o->r, st, "Progressing", "False",
			"ProgressDeadlineExceeded", about(o, "has timed out progressing."));
	}
}

static const struct apps_v1_replica_set_condition *failure_of(const struct apps_v1_replica_set *rs)
{
	LIST_EACH(c, &rs->status.conditions)
		if (str_eqz(c->type, "ReplicaFailure"))
			return c;
	return NULL;
}

static void take_failures(struct rollout *o, struct apps_v1_deployment_status *st)
{
	const struct apps_v1_replica_set_condition *f = o->new_set ? failure_of(o->new_set) : NULL;

	SET_EACH(s, o)
		f = f ? f : failure_of(*s);
	if (!f)
		return remove_condition(st, "ReplicaFailure");
	put_condition(o->r, st,
		(struct apps_v1_deployment_condition){ .type = STR("ReplicaFailure"),
			.status = f->status,
			.reason = f->reason,
			.message = f->message,
			.last_transition_time = f->last_transition_time,
			.last_update_time = f->last_transition_time });
}

static void come_back_at_deadline(struct rollout *o, const struct apps_v1_deployment_status *st)
{
	const struct apps_v1_deployment_condition *c = deployment_condition(st, "Progressing");

	if (!c || !rollout_has_deadline(o->d) || rollout_complete(o->d, st) ||
		str_eqz(c->reason, "ProgressDeadlineExceeded") ||
		str_eqz(c->reason, "NewReplicaSetAvailable"))
		return;
	double left = o->d->spec.progress_deadline_seconds.value -
		time_diff_s(o->r->now, c->last_update_time);

	requeue_within(o->r, ms_of(left) + 1000);
}

int sync_rollout_status(struct rollout *o, struct err *err)
{
	struct apps_v1_deployment_status st = compute(o);

	if (rollout_has_deadline(o->d))
		judge_progress(o, &st);
	else
		remove_condition(&st, "Progressing");
	take_failures(o, &st);
	come_back_at_deadline(o, &st);
	if (same_status(&st, &o->d->status))
		return 0;
	o->d->status = st;
	return write_deployment(o, err);
}
