/* Runs pods to their end. Upstream: pkg/controller/job.
 *
 * 1. What ended is counted by job_count.c; here: how many to run now, when the Job is over, and its conditions.
 * 2. A Job that is over says so in two steps: SuccessCriteriaMet or FailureTarget at once, Complete or Failed when no pod runs any more and
 *    all are counted.
 * 3. Of an Indexed Job each index below completions has one pod at a time until it succeeded, or failed for good (backoffLimitPerIndex). */
#include "controllers/job.h"

#include "controllers/table.h"

#define BURST 500
#define GATHER_MS 5
#define POD_PREFIX "pod!"

static bool suspended(const struct job *x)
{
	return x->j->spec.suspend.value;
}

static void set_condition(
	struct job *x, const char *type, const char *status, const char *reason, struct str message)
{
	struct batch_v1_job_condition *c = NULL;

	LIST_EACH(k, &x->j->status.conditions)
		if (str_eqz(k->type, type))
			c = k;
	if (c && str_eqz(c->status, status) && str_eqz(c->reason, reason))
		return;
	if (!c)
		c = LIST_ADD(x->r->arena, &x->j->status.conditions);
	*c = (struct batch_v1_job_condition){ .type = str_of(type),
		.status = str_of(status),
		.reason = str_of(reason),
		.message = message,
		.last_probe_time = x->r->now,
		.last_transition_time = x->r->now };
}

/* ---- is it over? ---- */
static bool past_deadline(struct job *x)
{
	if (!x->j->spec.active_deadline_seconds.set || suspended(x) ||
		time_is_zero(x->j->status.start_time))
		return false;
	double left = (double)x->j->spec.active_deadline_seconds.value -
		time_diff_s(x->r->now, x->j->status.start_time);

	if (left > 0)
		requeue_within(x->r, ms_of(left) + 1);
	return left <= 0;
}

/* With restartPolicy OnFailure the kubelet restarts: its restarts count. */
static bool past_backoff_limit(const struct job *x)
{
	int limit = int32_or(&x->j->spec.backoff_limit,
		    x->j->spec.backoff_limit_per_index.set ? INT32_MAX : 6),
	    restarts = 0;

	if (x->failed > limit)
		return true;
	if (!str_eqz(x->j->spec.template.spec.restart_policy, "OnFailure"))
		return false;
	for (size_t i = 0; i < x->n_active; i++)
		LIST_EACH(c, &x->active[i]->status.container_statuses)
			restarts += c->restart_count;
	return limit ? restarts >= limit : restarts > 0;
}

static bool succeeded(const struct job *x)
{
	if (!x->j->spec.completions.set)
		return x->succeeded > 0 && !x->n_active;
	return x->succeeded >= x->j->spec.completions.value;
}

/* Every index ended, some of them badly; or more failed than may. */
static const char *indexes_failed(const struct job *x, const char **ret_message)
{
	int failed = indexes_count(&x->failed_indexes);

	if (!x->j->spec.backoff_limit_per_index.set || !failed)
		return NULL;
	if (x->j->spec.max_failed_indexes.set && failed > x->j->spec.max_failed_indexes.value) {
		*ret_message = "Job has exceeded the specified maximal number of failed indexes";
		return "MaxFailedIndexesExceeded";
	}
	*ret_message = "Job has failed indexes";
	return failed + indexes_count(&x->completed) >= int32_or(&x->j->spec.completions, 1)
		? "FailedIndexes"
		: NULL;
}

static void judge(struct job *x)
{
	const char *message = "", *indexes = indexes_failed(x, &message);
	int rule = job_success_rule(x->j, &x->completed, x->r->arena);

	if (job_condition(x->j, "SuccessCriteriaMet") || job_condition(x->j, "FailureTarget"))
		return;
	if (rule >= 0 && !x->fail_reason)
		return set_condition(x, "SuccessCriteriaMet", "True", "SuccessPolicy",
			arena_fmt(x->r->arena, "Matched rules at index %d", rule));
	if (indexes && !x->fail_reason)
		return set_condition(x, "FailureTarget", "True", indexes, str_of(message));
	if (x->fail_reason)
		set_condition(x, "FailureTarget", "True", x->fail_reason, x->fail_message);
	else if (past_backoff_limit(x))
		set_condition(x, "FailureTarget", "True", "BackoffLimitExceeded",
			STR("Job has reached the specified backoff limit"));
	else if (past_deadline(x))
		set_condition(x, "FailureTarget", "True", "DeadlineExceeded",
			STR("Job was active longer than specified deadline"));
	else if (succeeded(x))
		set_condition(x, "SuccessCriteriaMet", "True", "CompletionsReached",
			STR("Reached expected number of succeeded pods"));
}

static bool over(const struct job *x)
{
	return job_condition(x->j, "SuccessCriteriaMet") || job_condition(x->j, "FailureTarget");
}

/* Rule 2, second step. */
static void finish(struct job *x)
{
	const struct batch_v1_uncounted_terminated_pods *u = x->j->status.uncounted_terminated_pods;
	const struct batch_v1_job_condition *failure = job_condition(x->j, "FailureTarget"),
					    *success;

	if (!over(x) || x->n_active || x->terminating || x->more ||
		(u && (u->succeeded.len || u->failed.len)))
		return;
	if (failure) {
		set_condition(x, "Failed", "True", failure->reason.p, failure->message);
		event_record(x->r->events, &batch_v1_job_type, x->j, "Warning", failure->reason.p,
			STR_FMT, STR_ARG(failure->message));
	} else {
		success = job_condition(x->j, "SuccessCriteriaMet");
		set_condition(x, "Complete", "True", success->reason.p, success->message);
		x->j->status.completion_time = x->r->now;
		event_record(x->r->events, &batch_v1_job_type, x->j, "Normal", "Completed",
			"Job completed");
	}
}

/* ---- pods ---- */
struct change {
	struct job *x;
	const int *indexes; /* of an Indexed Job's new pods */
	const struct core_v1_pod **victims;
};

static void add_index_env(struct core_v1_container_items *cs, struct arena *a)
{
	LIST_EACH(c, cs) {
		bool there = false;

		LIST_EACH(e, &c->env)
			there |= str_eqz(e->name, "JOB_COMPLETION_INDEX");
		if (there)
			continue;
		struct core_v1_env_var *e = LIST_ADD(a, &c->env);

		e->name = STR("JOB_COMPLETION_INDEX");
		e->value_from = arena_alloc(a, sizeof(*e->value_from));
		e->value_from->field_ref = arena_alloc(a, sizeof(*e->value_from->field_ref));
		e->value_from->field_ref->api_version = STR("v1");
		e->value_from->field_ref->field_path = STR("metadata.labels['" INDEX_KEY "']");
	}
}

static void set_index(const struct job *x, struct core_v1_pod *p, int index, struct arena *a)
{
	struct str text = arena_fmt(a, "%d", index);

	str_map_set(a, &p->metadata.annotations, STR(INDEX_KEY), text);
	str_map_set(a, &p->metadata.labels, STR(INDEX_KEY), text);
	if (x->j->spec.backoff_limit_per_index.set)
		str_map_set(a, &p->metadata.annotations, STR(INDEX_FAILURES_KEY),
			arena_fmt(a, "%d", job_index_failures(x, index)));
	p->metadata.generate_name =
		arena_fmt(a, STR_FMT "-%d-", STR_ARG(x->j->metadata.name), index);
	if (!p->spec.hostname.len)
		p->spec.hostname = arena_fmt(a, STR_FMT "-%d", STR_ARG(x->j->metadata.name), index);
	add_index_env(&p->spec.init_containers, a);
	add_index_env(&p->spec.containers, a);
}

static int create_one(void *arg, size_t i, struct err *err)
{
	const struct change *c = arg;
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct core_v1_pod *p =
		pod_from_template(&c->x->j->spec.template, &batch_v1_job_type, c->x->j, a);

	*LIST_ADD(a, &p->metadata.finalizers) = STR(TRACKING);
	if (c->indexes)
		set_index(c->x, p, c->indexes[i], a);
	int r = pod_create(c->x->r, p, &batch_v1_job_type, c->x->j, err);

	if (r)
		creation_observed(c->x->r->state, c->x->key);
	return namespace_ends(r, err) ? 0 : r;
}

static int delete_one(void *arg, size_t i, struct err *err)
{
	const struct change *c = arg;
	int r = pod_delete(c->x->r, c->victims[i], &batch_v1_job_type, c->x->j, err);

	if (r)
		deletion_observed(c->x->r->state, c->x->key, c->victims[i]->metadata.uid);
	return r == CLIENT_NOT_FOUND ? 0 : r;
}

struct victim {
	const struct core_v1_pod *pod;
	struct timestamp
		now; /* one moment for all: an order that changes while it is made is none */
};

static int victim_first(const void *pa, const void *pb)
{
	const struct victim *a = pa, *b = pb;

	return pod_victim_cmp(a->pod, 0, b->pod, 0, a->now);
}

static void sort_victims(struct job *x)
{
	struct victim *v = arena_alloc(x->r->arena, (x->n_active + 1) * sizeof(*v));

	for (size_t i = 0; i < x->n_active; i++)
		v[i] = (struct victim){ x->active[i], x->r->now };
	qsort(v, x->n_active, sizeof(*v), victim_first);
	for (size_t i = 0; i < x->n_active; i++)
		x->active[i] = v[i].pod;
}

static int delete_active(struct job *x, size_t n, struct err *err)
{
	struct change c = { .x = x, .victims = x->active };
	int failure;

	if (n < x->n_active)
		sort_victims(x);
	for (size_t i = 0; i < n; i++)
		expect_deletion(x->r->state, x->key, x->active[i]->metadata.uid);
	run_parallel(x->r, n, delete_one, &c, &failure, err);
	x->terminating += (int)n;
	x->n_active -= n;
	x->active += n;
	return failure;
}

/* With a limit of its own an index waits for itself alone. */
static bool rests(struct job *x, int index)
{
	uint64_t wait = x->j->spec.backoff_limit_per_index.set ? job_backoff_ms(x, index) : 0;

	if (wait)
		requeue_within(x->r, wait);
	return wait > 0;
}

static int cmp_int(const void *pa, const void *pb)
{
	return *(const int *)pa < *(const int *)pb ? -1 : *(const int *)pa > *(const int *)pb;
}

/* The lowest indexes that neither succeeded nor run. completions may be any number: what is taken is stepped over, never looked at one by one. */
static size_t free_indexes(struct job *x, int *ret, size_t most)
{
	int64_t completions = int32_or(&x->j->spec.completions, 1);
	int *busy = arena_alloc(x->r->arena, (x->n_active + 1) * sizeof(int));
	struct index_set taken = indexes_with(&x->completed, NULL, 0, x->r->arena);
	size_t n = 0, at;

	for (size_t i = 0; i < x->n_active; i++)
		busy[i] = pod_index(x->active[i]);
	if (x->n_active)
		qsort(busy, x->n_active, sizeof(int), cmp_int);
	for (at = 0; at < x->n_active && busy[at] < 0; at++)
		;
	taken = indexes_with(&taken, busy + at, x->n_active - at, x->r->arena);
	for (int64_t k = 0; k < completions && n < most;) {
		size_t i = indexes_find(&taken, k), f = indexes_find(&x->failed_indexes, k);

		if (i < taken.n && taken.items[i].from <= k) {
			k = taken.items[i].to + 1;
		} else if (f < x->failed_indexes.n && x->failed_indexes.items[f].from <= k) {
			k = x->failed_indexes.items[f].to + 1;
		} else {
			if (!rests(x, (int)k))
				ret[n++] = (int)k;
			k++;
		}
	}
	return n;
}

static int create_pods(struct job *x, size_t n, struct err *err)
{
	struct change c = { .x = x };
	int failure = 0;

	n = MIN(n, (size_t)BURST);
	if (job_indexed(x->j)) {
		int *indexes = arena_alloc(x->r->arena, (n + 1) * sizeof(int));

		n = free_indexes(x, indexes, n);
		c.indexes = indexes;
	}
	expect_creations(x->r->state, x->key, n);
	size_t done = run_parallel(x->r, n, create_one, &c, &failure, err);

	x->j->status.active += (int)done;
	return failure;
}

static int manage(struct job *x, struct err *err)
{
	int parallelism = int32_or(&x->j->spec.parallelism, 1), active = (int)x->n_active, want;

	if (over(x) || suspended(x))
		return delete_active(x, x->n_active, err);
	if (!x->j->spec.completions.set)
		want = x->succeeded > 0 ? MIN(active, parallelism) : parallelism;
	else
		want = MAX(MIN(x->j->spec.completions.value - x->succeeded, parallelism), 0);
	if (active > want)
		return delete_active(x, (size_t)(active - want), err);
	if (str_eqz(x->j->spec.pod_replacement_policy, "Failed"))
		want -= x->terminating;
	uint64_t wait = want > active && !x->j->spec.backoff_limit_per_index.set
		? job_backoff_ms(x, -1)
		: 0;

	if (wait)
		requeue_within(x->r, wait);
	return want > active && !wait ? create_pods(x, (size_t)(want - active), err) : 0;
}

/* ---- suspension ---- */
static void follow_suspension(struct job *x)
{
	const struct batch_v1_job_condition *c = job_condition(x->j, "Suspended");

	if (suspended(x) && !c) {
		set_condition(x, "Suspended", "True", "JobSuspended", STR("Job suspended"));
		event_record(x->r->events, &batch_v1_job_type, x->j, "Normal", "Suspended",
			"Job suspended");
		x->j->status.start_time = (struct timestamp){ 0 };
	} else if (!suspended(x) && c) {
		set_condition(x, "Suspended", "False", "JobResumed", STR("Job resumed"));
		event_record(
			x->r->events, &batch_v1_job_type, x->j, "Normal", "Resumed", "Job resumed");
	}
	if (!suspended(x) && time_is_zero(x->j->status.start_time))
		x->j->status.start_time = x->r->now;
}

/* ---- reconcile ---- */
static int survey(struct job *x, struct err *err)
{
	struct selector *selector;
	int ret = selector_from_label_selector(x->j->spec.selector, x->r->arena, &selector, err);
	const struct type *t = &batch_v1_job_type;

	if (ret)
		return ret;
	const struct claim claim = {
		.owner_type = t, .owner = x->j, .selector = selector, .type = &core_v1_pod_type
	};

	ret = claim_objects(x->r, &claim, &x->pods, err);
	if (ret)
		return ret;
	x->active = arena_alloc(x->r->arena, (x->pods.len + 1) * sizeof(*x->active));
	OBJECT_EACH(const struct core_v1_pod, p, x->pods) {
		if (pod_ended(p))
			continue;
		if (!time_is_zero(p->metadata.deletion_timestamp)) {
			x->terminating++;
		} else {
			x->active[x->n_active++] = p;
			x->ready += pod_ready(p);
		}
	}
	return 0;
}

static int write_status(struct job *x, const struct batch_v1_job *cached, struct err *err)
{
	struct batch_v1_job_status *st = &x->j->status;

	st->ready = (struct opt_int32)SOME(x->ready);
	st->terminating = (struct opt_int32)SOME(x->terminating);
	if (model_equal(&batch_v1_job_status_type, st, &cached->status))
		return 0;
	struct batch_v1_job *back;
	int ret = client_update(
		x->r->client, &batch_v1_job_type, "status", x->j, x->r->arena, (void **)&back, err);

	if (!ret)
		expect_version(x->r->state, x->key, back->metadata.resource_version);
	return ret;
}

/* A finished Job's pods may still carry the finalizer, when taking it off met a conflict. */
static int release_leftovers(struct run *r, const struct batch_v1_job *j, struct err *err)
{
	struct objects pods = cache_indexed(r, &core_v1_pod_type, "uid:", j->metadata.uid);
	struct job x = { .r = r };

	return job_release_pods(&x, &pods, err);
}

static int reconcile_job(struct run *r, struct str key, struct err *err)
{
	const struct batch_v1_job *cached = cache_object(r, &batch_v1_job_type, key);

	if (!cached) {
		expectations_forget(r->state, key);
		return 0;
	}
	if (!version_seen(r->state, key, cached->metadata.resource_version))
		return 0; /* what was counted would be counted again; its event brings us back */
	if (cached->spec.managed_by.len &&
		!str_eqz(cached->spec.managed_by, "kubernetes.io/job-controller"))
		return 0;
	if (job_condition(cached, "Complete") || job_condition(cached, "Failed"))
		return release_leftovers(r, cached, err);
	struct job x = {
		.r = r, .key = key, .j = model_copy(&batch_v1_job_type, cached, r->arena)
	};
	int ret = survey(&x, err), failure = 0;

	if (ret)
		return ret;
	follow_suspension(&x);
	job_count(&x);
	judge(&x);
	x.j->status.active = (int32_t)x.n_active;
	if (may_act(r, key) && time_is_zero(x.j->metadata.deletion_timestamp)) {
		failure = manage(&x, err);
		if (over(&x) || suspended(&x))
			x.j->status.active = (int32_t)x.n_active;
	}
	finish(&x);
	ret = write_status(&x, cached, failure ? NULL : err);
	if (!ret)
		ret = job_release_pods(&x, &x.noted, failure ? NULL : err);
	if (!ret && x.more)
		requeue_within(r, 1);
	return failure ? failure : ret;
}

/* Of a pod whose Job is gone nobody counts the end any more. */
static int reconcile_pod(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_pod *p = cache_object(r, &core_v1_pod_type, key);
	const struct meta_v1_owner_reference *o = p ? client_controller_of(&p->metadata) : NULL;
	struct batch_v1_job *j;

	if (!p || !str_list_has(&p->metadata.finalizers, STR(TRACKING)))
		return 0;
	if (o && str_eqz(o->kind, "Job")) {
		int ret = client_get(r->client, &batch_v1_job_type, p->metadata.namespace, o->name,
			r->arena, (void **)&j, err);

		if (ret && ret != CLIENT_NOT_FOUND)
			return ret;
		if (!ret && str_eq(j->metadata.uid, o->uid) && !job_condition(j, "Complete") &&
			!job_condition(j, "Failed"))
			return 0;
	}
	return pod_drop_tracking(r, p, err);
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	if (str_has_prefix(key, STR(POD_PREFIX)))
		return reconcile_pod(r, str_from(key, strlen(POD_PREFIX)), err);
	return reconcile_job(r, key, err);
}

/* ---- events ---- */
static void enqueue_pod(struct run *r, struct str key)
{
	struct buf b CLEAN_BUF = { 0 };

	buf_addz(&b, POD_PREFIX);
	buf_add_str(&b, key);
	enqueue(r, buf_str(&b));
}

/* The jobs that would adopt an orphan. */
static void enqueue_matching(struct run *r, const struct cached *pod)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct cached_list all;
	struct selector *s;

	informer_list(run_informer(r, &batch_v1_job_type), pod->meta->namespace, &all);
	for (size_t i = 0; i < all.len; i++) {
		const struct batch_v1_job *j = all.items[i]->obj;

		if (!selector_from_label_selector(j->spec.selector, a, &s, NULL) &&
			selector_matches(s, &pod->meta->labels))
			enqueue(r, all.items[i]->key);
	}
	cached_list_deinit(&all);
}

/* A pod that left its job: the job makes another, or takes it back. */
static void left_behind(struct run *r, const struct cached *old, const struct cached *now)
{
	const struct meta_v1_owner_reference *was = client_controller_of(old->meta);

	if (was && str_eqz(was->kind, "Job")) {
		struct buf key CLEAN_BUF = { 0 };

		buf_addf(&key, STR_FMT "/" STR_FMT, STR_ARG(old->meta->namespace),
			STR_ARG(was->name));
		enqueue(r, buf_str(&key));
	}
	if (time_is_zero(now->meta->deletion_timestamp) && now->meta->labels.len)
		enqueue_matching(r, now);
}

static void map_pod(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct cached *c = now ? now : old;
	const struct meta_v1_owner_reference *o = client_controller_of(c->meta);
	bool tracked = now && str_list_has(&now->meta->finalizers, STR(TRACKING));
	struct buf key CLEAN_BUF = { 0 };

	if (!o || !str_eqz(o->kind, "Job")) {
		if (tracked)
			enqueue_pod(r, now->key);
		if (old && now && !o)
			left_behind(r, old, now);
		return;
	}
	buf_addf(&key, STR_FMT "/" STR_FMT, STR_ARG(c->meta->namespace), STR_ARG(o->name));
	struct cached *job = informer_get(run_informer(r, &batch_v1_job_type), buf_str(&key));

	if (job && str_eq(job->meta->uid, o->uid)) {
		if (!now || !time_is_zero(now->meta->deletion_timestamp))
			deletion_observed(r->state, buf_str(&key), c->meta->uid);
		else if (ev == INFORMER_ADDED)
			creation_observed(r->state, buf_str(&key));
		enqueue_after(r, buf_str(&key), GATHER_MS);
		if (tracked &&
			(job_condition(job->obj, "Complete") || job_condition(job->obj, "Failed")))
			enqueue_pod(r, now->key);
	} else if (tracked) {
		enqueue_pod(r, now->key);
	}
	cached_unref(job);
}

static void map_job(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct buf value CLEAN_BUF = { 0 };
	struct cached_list pods;

	enqueue(r, (now ? now : old)->key);
	if (now)
		return;
	buf_addf(&value, "uid:" STR_FMT, STR_ARG(old->meta->uid));
	informer_by_index(run_informer(r, &core_v1_pod_type), buf_str(&value), &pods);
	for (size_t i = 0; i < pods.len; i++)
		if (str_list_has(&pods.items[i]->meta->finalizers, STR(TRACKING)))
			enqueue_pod(r, pods.items[i]->key);
	cached_list_deinit(&pods);
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

const struct controller job_controller = {
	.name = "job",
	.bulk = true,
	.component = "job-controller",
	.watches = { { &batch_v1_job_type, map_job }, { &core_v1_pod_type, map_pod } },
	.init = init,
	.deinit = deinit,
	.reconcile = reconcile,
};
