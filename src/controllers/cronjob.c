/* Makes Jobs by the clock. Upstream: pkg/controller/cronjob. A run's name is made of its scheduled minute, so that one moment never makes two
 * Jobs. */
#include "controllers/cron.h"
#include "controllers/job.h"

#include "controllers/table.h"

#define SCHEDULED_AT "batch.kubernetes.io/cronjob-scheduled-timestamp"
#define SLACK_MS 100

struct cronjob {
	struct run *r;
	struct batch_v1_cron_job *c; /* a copy */
	struct objects jobs;         /* that it controls */
	struct cron schedule;
};

static void say(struct cronjob *x, const char *type, const char *reason, struct str text)
{
	event_record(
		x->r->events, &batch_v1_cron_job_type, x->c, type, reason, STR_FMT, STR_ARG(text));
}

static const char *ended(const struct batch_v1_job *j)
{
	return job_condition(j, "Complete")  ? "Complete"
		: job_condition(j, "Failed") ? "Failed"
					     : NULL;
}

static const struct batch_v1_job *find_job(const struct cronjob *x, struct str uid)
{
	OBJECT_EACH(const struct batch_v1_job, j, x->jobs)
		if (str_eq(j->metadata.uid, uid))
			return j;
	return NULL;
}

/* status.active follows the jobs. */
static int follow_jobs(struct cronjob *x, struct err *err)
{
	struct core_v1_object_reference_items *active = &x->c->status.active;
	size_t n = 0;

	for (size_t i = 0; i < active->len; i++) {
		const struct core_v1_object_reference *ref = &active->items[i];
		const struct batch_v1_job *j = find_job(x, ref->uid);
		void *live;

		if (j && !ended(j)) {
			active->items[n++] = *ref;
			continue;
		}
		if (j) {
			say(x, "Normal", "SawCompletedJob",
				arena_fmt(x->r->arena,
					"Saw completed job: " STR_FMT ", condition: %s",
					STR_ARG(ref->name), ended(j)));
			continue;
		}
		/* Not in the cache: just made, or gone. */
		int ret = client_get(x->r->client, &batch_v1_job_type, x->c->metadata.namespace,
			ref->name, x->r->arena, &live, err);

		if (!ret)
			active->items[n++] = *ref;
		else if (ret == CLIENT_NOT_FOUND)
			say(x, "Normal", "MissingJob",
				arena_fmt(x->r->arena, "Active job went missing: " STR_FMT,
					STR_ARG(ref->name)));
		else
			return ret;
	}
	active->len = n;
	OBJECT_EACH(const struct batch_v1_job, j, x->jobs)
		if (job_condition(j, "Complete") &&
			time_cmp(j->status.completion_time, x->c->status.last_successful_time) > 0)
			x->c->status.last_successful_time = j->status.completion_time;
	return 0;
}

static int older_first(const void *pa, const void *pb)
{
	const struct batch_v1_job *a = *(void *const *)pa, *b = *(void *const *)pb;
	int r = time_cmp(a->status.start_time, b->status.start_time);

	return r ? r : str_cmp(a->metadata.name, b->metadata.name);
}

static int delete_job(struct cronjob *x, const struct batch_v1_job *j, struct err *err)
{
	const struct client_delete o = {
		.grace_seconds = -1, .uid = j->metadata.uid, .propagation = "Background"
	};
	int ret = client_delete(
		x->r->client, &batch_v1_job_type, j->metadata.namespace, j->metadata.name, &o, err);

	if (ret == CLIENT_NOT_FOUND || ret == CLIENT_CONFLICT)
		return 0;
	if (!ret)
		say(x, "Normal", "SuccessfulDelete",
			arena_fmt(x->r->arena, "Deleted job " STR_FMT, STR_ARG(j->metadata.name)));
	return ret;
}

static int thin(struct cronjob *x, const char *condition, int32_t keep, struct err *err)
{
	const void **found = arena_alloc(x->r->arena, (x->jobs.len + 1) * sizeof(void *));
	size_t n = 0;

	OBJECT_EACH(const struct batch_v1_job, j, x->jobs)
		if (job_condition(j, condition))
			found[n++] = j;
	if (n <= (size_t)MAX(keep, 0))
		return 0;
	qsort(found, n, sizeof(void *), older_first);
	for (size_t i = 0; i < n - (size_t)MAX(keep, 0); i++) {
		int ret = delete_job(x, found[i], err);

		if (ret)
			return ret;
	}
	return 0;
}

static struct batch_v1_job *build(struct cronjob *x, int64_t at)
{
	struct arena *a = x->r->arena;
	struct batch_v1_job *j = model_new(&batch_v1_job_type, a);
	const struct batch_v1_job_template_spec *tpl =
		model_copy(&batch_v1_job_template_spec_type, &x->c->spec.job_template, a);
	char text[TIME_TEXT_MAX];

	time_format((struct timestamp){ at, 0 }, text);
	j->metadata.name =
		arena_fmt(a, STR_FMT "-%lld", STR_ARG(x->c->metadata.name), (long long)at / 60);
	j->metadata.namespace = x->c->metadata.namespace;
	j->metadata.labels = tpl->metadata.labels;
	j->metadata.annotations = tpl->metadata.annotations;
	str_map_set(a, &j->metadata.annotations, STR(SCHEDULED_AT), arena_strz(a, text));
	*LIST_ADD(a, &j->metadata.owner_references) =
		controller_reference(&batch_v1_cron_job_type, x->c, a);
	j->spec = tpl->spec;
	return j;
}

static int make_job(struct cronjob *x, int64_t at, struct err *err)
{
	struct batch_v1_job *j = build(x, at), *made = NULL;
	int ret = client_create(x->r->client, &batch_v1_job_type, j->metadata.namespace, j,
		x->r->arena, (void **)&made, err);

	if (ret ==
		CLIENT_EXISTS) { /* by us, before a restart, or it is someone else's: either way the moment is used up */
		x->c->status.last_schedule_time = (struct timestamp){ at, 0 };
		return 0;
	}
	if (ret) {
		if (!namespace_ends(ret, err))
			say(x, "Warning", "FailedCreate",
				arena_fmt(x->r->arena, "Error creating job: %s", err->text));
		return ret;
	}
	say(x, "Normal", "SuccessfulCreate",
		arena_fmt(x->r->arena, "Created job " STR_FMT, STR_ARG(made->metadata.name)));
	*LIST_ADD(x->r->arena, &x->c->status.active) =
		(struct core_v1_object_reference){ .kind = STR("Job"),
			.api_version = STR("batch/v1"),
			.namespace = made->metadata.namespace,
			.name = made->metadata.name,
			.uid = made->metadata.uid,
			.resource_version = made->metadata.resource_version };
	x->c->status.last_schedule_time = (struct timestamp){ at, 0 };
	return 0;
}

/* Any number may be named. */
static int64_t deadline_s(const struct cronjob *x)
{
	return MIN(MAX(x->c->spec.starting_deadline_seconds.value, (int64_t)0), (int64_t)INT32_MAX);
}

static int run_due(struct cronjob *x, int64_t at, struct err *err)
{
	int64_t now = x->r->now.sec;

	if (x->c->spec.starting_deadline_seconds.set && at < now - deadline_s(x)) {
		char text[TIME_TEXT_MAX];

		time_format((struct timestamp){ at, 0 }, text);
		say(x, "Warning", "MissSchedule",
			arena_fmt(x->r->arena, "Missed scheduled time to start a job: %s", text));
		return 0;
	}
	if (str_eqz(x->c->spec.concurrency_policy, "Forbid") && x->c->status.active.len) {
		say(x, "Normal", "JobAlreadyActive",
			STR("Not starting job because prior execution is running and concurrency policy is Forbid"));
		return 0;
	}
	if (str_eqz(x->c->spec.concurrency_policy, "Replace")) {
		LIST_EACH(ref, &x->c->status.active) {
			const struct batch_v1_job *j = find_job(x, ref->uid);
			int ret = j ? delete_job(x, j, err) : 0;

			if (ret)
				return ret;
		}
		x->c->status.active.len = 0;
	}
	return make_job(x, at, err);
}

static bool readable(struct cronjob *x)
{
	struct err why;

	if (cron_parse(x->c->spec.schedule, &x->schedule, &why)) {
		say(x, "Warning", "UnparseableSchedule",
			arena_fmt(x->r->arena, "unparseable schedule: %s", why.text));
		return false;
	}
	if (x->c->spec.time_zone.len &&
		zone_load(x->c->spec.time_zone, x->r->arena, &x->schedule.zone, &why)) {
		say(x, "Warning", "UnknownTimeZone",
			arena_fmt(x->r->arena, "invalid timeZone: \"" STR_FMT "\": %s",
				STR_ARG(x->c->spec.time_zone), why.text));
		return false;
	}
	return true;
}

static int schedule(struct cronjob *x, struct err *err)
{
	int64_t now = x->r->now.sec, from = x->c->status.last_schedule_time.sec;

	if (x->c->spec.suspend.value || !time_is_zero(x->c->metadata.deletion_timestamp) ||
		!readable(x))
		return 0;
	if (!from)
		from = x->c->metadata.creation_timestamp.sec;
	if (x->c->spec.starting_deadline_seconds.set)
		from = MAX(from, now - deadline_s(x) - 1);
	int64_t due = cron_last(&x->schedule, from, now);
	int ret = due ? run_due(x, due, err) : 0;
	int64_t next = cron_next(&x->schedule, x->schedule.every_s ? MAX(from, due) : now);

	if (next)
		requeue_within(x->r,
			(uint64_t)MAX(next - now, (int64_t)0) * 1000 -
				(uint64_t)(x->r->now.nsec / 1000000) * (next > now) + SLACK_MS);
	return ret;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct batch_v1_cron_job *cached = cache_object(r, &batch_v1_cron_job_type, key);

	if (!cached)
		return 0;
	struct cronjob x = { .r = r, .c = model_copy(&batch_v1_cron_job_type, cached, r->arena) };

	x.jobs = cache_owned(r, &batch_v1_job_type, &x.c->metadata);
	int ret = follow_jobs(&x, err);

	if (!ret)
		ret = thin(
			&x, "Complete", int32_or(&x.c->spec.successful_jobs_history_limit, 3), err);
	if (!ret)
		ret = thin(&x, "Failed", int32_or(&x.c->spec.failed_jobs_history_limit, 1), err);
	int failure = ret ? ret : schedule(&x, err);

	if (!model_equal(&batch_v1_cron_job_status_type, &x.c->status, &cached->status))
		ret = client_update(r->client, &batch_v1_cron_job_type, "status", x.c, r->arena,
			NULL, failure ? NULL : err);
	return failure ? failure : ret;
}

static void map_job(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	map_owner(r, ev, old, now, "CronJob");
}

const struct controller cronjob_controller = {
	.name = "cronjob",
	.bulk = true,
	.component = "cronjob-controller",
	.watches = { { &batch_v1_cron_job_type, map_self }, { &batch_v1_job_type, map_job } },
	.reconcile = reconcile,
};
