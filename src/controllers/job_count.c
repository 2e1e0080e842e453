/* Which pods of a Job ended. Upstream: job's tracking with finalizers.
 *
 * A pod carries a finalizer until its end is in the Job's status: first its uid is noted (uncountedTerminatedPods), then the finalizer goes, then
 * the uid becomes part of the counter. Whatever breaks in between, nothing is counted twice or lost. A status holds so many at most: the rest
 * has its turn when those are counted. */
#include "base/map.h"
#include "controllers/job.h"

#define NOTED_MOST 500 /* upstream's too */

#define BACKOFF_FIRST_S 10
#define BACKOFF_MOST_S 600

bool job_indexed(const struct batch_v1_job *j)
{
	return str_eqz(j->spec.completion_mode, "Indexed");
}

int pod_index(const struct core_v1_pod *p)
{
	int64_t n;

	if (str_to_i64(str_map_get(&p->metadata.annotations, STR(INDEX_KEY)), &n) || n < 0 ||
		n > INT32_MAX)
		return -1;
	return (int)n;
}

const struct batch_v1_job_condition *job_condition(const struct batch_v1_job *j, const char *type)
{
	LIST_EACH(c, &j->status.conditions)
		if (str_eqz(c->type, type) && str_eqz(c->status, "True"))
			return c;
	return NULL;
}

bool job_counts_as_failed(const struct batch_v1_job *j, const struct core_v1_pod *p)
{
	if (str_eqz(p->status.phase, "Failed"))
		return true;
	return !time_is_zero(p->metadata.deletion_timestamp) &&
		!str_eqz(p->status.phase, "Succeeded") &&
		!str_eqz(j->spec.pod_replacement_policy, "Failed");
}

/* ---- counting ---- */
static bool tracked(const struct core_v1_pod *p)
{
	return str_list_has(&p->metadata.finalizers, STR(TRACKING));
}

static struct batch_v1_uncounted_terminated_pods *uncounted(struct job *x)
{
	if (!x->j->status.uncounted_terminated_pods)
		x->j->status.uncounted_terminated_pods =
			arena_alloc(x->r->arena, sizeof(struct batch_v1_uncounted_terminated_pods));
	return x->j->status.uncounted_terminated_pods;
}

/* uids whose pods lost their finalizer leave the list and are counted. tracked: uid -> pod that has it. */
static int settle(struct str_list *uids, const struct map *tracked)
{
	size_t n = 0;
	int counted = 0;

	for (size_t i = 0; i < uids->len; i++) {
		if (map_get(tracked, uids->items[i]))
			uids->items[n++] = uids->items[i];
		else
			counted++;
	}
	uids->len = n;
	if (!n)
		uids->items = NULL;
	return counted;
}

static int max_index(const struct job *x)
{
	return int32_or(&x->j->spec.completions, 1);
}

/* What one round of noting has found. */
struct noting {
	struct job *x;
	struct map known; /* uids in the status' lists */
	int *done;        /* indexes that succeeded */
	size_t n_done;
};

static void note(struct noting *n, const struct core_v1_pod *p)
{
	bool succeeded = str_eqz(p->status.phase, "Succeeded");
	struct job *x = n->x;
	struct batch_v1_uncounted_terminated_pods *u = uncounted(x);

	*ARENA_ADD(x->r->arena, x->noted.items, x->noted.len) = p;
	if (map_get(&n->known, p->metadata.uid))
		return;
	if (succeeded && job_indexed(x->j)) { /* the index is what counts; one is done once */
		int i = pod_index(p);

		if (i >= 0 && i < max_index(x))
			*ARENA_ADD(x->r->arena, n->done, n->n_done) = i;
		return;
	}
	if (!succeeded && job_failure_action(x->j, p) == FAILURE_IGNORED)
		return; /* it goes without a trace */
	if (!succeeded && job_failure_action(x->j, p) == FAILURE_OF_JOB) {
		x->fail_reason = "PodFailurePolicy";
		x->fail_message = arena_fmt(x->r->arena,
			"Pod " STR_FMT "/" STR_FMT " has failed matching a FailJob rule",
			STR_ARG(p->metadata.namespace), STR_ARG(p->metadata.name));
	}
	*LIST_ADD(x->r->arena, succeeded ? &u->succeeded : &u->failed) = p->metadata.uid;
}

static int by_index(const void *pa, const void *pb)
{
	int a = pod_index(*(void *const *)pa), b = pod_index(*(void *const *)pb);

	return a < b ? -1 : a > b;
}

static void sort_by_index(struct job *x)
{
	OBJECT_EACH(const struct core_v1_pod, p, x->pods)
		if (pod_index(p) >= 0)
			*ARENA_ADD(x->r->arena, x->by_index.items, x->by_index.len) = p;
	if (x->by_index.len)
		qsort(x->by_index.items, x->by_index.len, sizeof(void *), by_index);
}

struct objects job_pods_of_index(const struct job *x, int index)
{
	size_t low = 0, high = x->by_index.len, end;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (pod_index(x->by_index.items[middle]) < index)
			low = middle + 1;
		else
			high = middle;
	}
	for (end = low; end < x->by_index.len && pod_index(x->by_index.items[end]) == index; end++)
		;
	return (struct objects){ x->by_index.items + low, end - low };
}

static void note_ended(struct noting *n)
{
	struct job *x = n->x;
	struct batch_v1_uncounted_terminated_pods *u = uncounted(x);

	LIST_EACH(uid, &u->succeeded)
		map_set(&n->known, *uid, n);
	LIST_EACH(uid, &u->failed)
		map_set(&n->known, *uid, n);
	OBJECT_EACH(const struct core_v1_pod, p, x->pods) {
		if (!tracked(p) ||
			(!str_eqz(p->status.phase, "Succeeded") && !job_counts_as_failed(x->j, p)))
			continue;
		if (x->noted.len >= NOTED_MOST && !map_get(&n->known, p->metadata.uid))
			x->more = true;
		else
			note(n, p);
	}
}

void job_count(struct job *x)
{
	struct batch_v1_uncounted_terminated_pods *u = uncounted(x);
	struct noting n = { .x = x };
	struct map have = { 0 };

	OBJECT_EACH(const struct core_v1_pod, p, x->pods)
		if (tracked(p))
			map_set(&have, p->metadata.uid, x);
	x->j->status.succeeded += settle(&u->succeeded, &have);
	x->j->status.failed += settle(&u->failed, &have);
	map_deinit(&have, NULL);
	sort_by_index(x);
	x->completed = indexes_parse(x->j->status.completed_indexes, x->r->arena);
	x->failed_indexes = indexes_parse(x->j->status.failed_indexes, x->r->arena);
	note_ended(&n);
	map_deinit(&n.known, NULL);
	if (n.n_done) {
		x->completed = indexes_with(&x->completed, n.done, n.n_done, x->r->arena);
		x->j->status.completed_indexes = indexes_text(&x->completed, x->r->arena);
	}
	job_find_failed_indexes(x);
	if (job_indexed(x->j))
		x->j->status.succeeded = indexes_count(&x->completed);
	x->succeeded = x->j->status.succeeded + (int)u->succeeded.len;
	x->failed = x->j->status.failed + (int)u->failed.len;
}

int pod_drop_tracking(struct run *r, const struct core_v1_pod *p, struct err *err)
{
	struct buf b CLEAN_BUF = { 0 };
	bool first = true;

	buf_addf(&b,
		"{\"metadata\":{\"uid\":\"" STR_FMT "\",\"resourceVersion\":\"" STR_FMT
		"\",\"finalizers\":[",
		STR_ARG(p->metadata.uid), STR_ARG(p->metadata.resource_version));
	LIST_EACH(f, &p->metadata.finalizers) {
		if (str_eqz(*f, TRACKING))
			continue;
		if (!first)
			buf_addc(&b, ',');
		first = false;
		json_write_text(*f, &b);
	}
	buf_addz(&b, "]}}");
	int ret = client_patch(r->client, &core_v1_pod_type, p->metadata.namespace,
		p->metadata.name, NULL, CLIENT_PATCH_MERGE, buf_str(&b), r->arena, NULL, err);

	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

int job_release_pods(struct job *x, const struct objects *pods, struct err *err)
{
	OBJECT_EACH(const struct core_v1_pod, p, *pods) {
		int ret = tracked(p) ? pod_drop_tracking(x->r, p, err) : 0;

		if (ret)
			return ret;
	}
	return 0;
}

/* ---- back-off ---- */
static struct timestamp ended_at(const struct core_v1_pod *p)
{
	struct timestamp t = { 0 };

	LIST_EACH(c, &p->status.container_statuses)
		if (c->state.terminated && time_cmp(c->state.terminated->finished_at, t) > 0)
			t = c->state.terminated->finished_at;
	if (time_is_zero(t))
		t = p->metadata.deletion_timestamp;
	return time_is_zero(t) ? p->metadata.creation_timestamp : t;
}

/* index -1: of the Job as a whole. */
uint64_t job_backoff_ms(const struct job *x, int index)
{
	struct timestamp last_success = { 0 }, last_failure = { 0 };
	struct objects pods = index < 0 ? x->pods : job_pods_of_index(x, index);
	int n = 0;

	OBJECT_EACH(const struct core_v1_pod, p, pods)
		if (index < 0 && str_eqz(p->status.phase, "Succeeded") &&
			time_cmp(ended_at(p), last_success) > 0)
			last_success = ended_at(p);
	OBJECT_EACH(const struct core_v1_pod, p, pods) {
		if (!str_eqz(p->status.phase, "Failed") ||
			time_cmp(ended_at(p), last_success) < 0 ||
			job_failure_action(x->j, p) == FAILURE_IGNORED)
			continue;
		n++;
		if (time_cmp(ended_at(p), last_failure) > 0)
			last_failure = ended_at(p);
	}
	if (!n)
		return 0;
	int64_t wait_s = n > 7 ? BACKOFF_MOST_S
			       : MIN((int64_t)BACKOFF_FIRST_S << (n - 1), (int64_t)BACKOFF_MOST_S);
	double left = (double)wait_s - time_diff_s(x->r->now, last_failure);

	return left > 0 ? ms_of(left) + 1 : 0;
}
