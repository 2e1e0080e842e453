/* What a Job makes of ends: podFailurePolicy, failures an index (backoffLimitPerIndex), successPolicy. Upstream: job's pod_failure_policy.go,
 * indexed_job_utils.go, success_policy.go. Decisions only. */
#include "controllers/job.h"

static bool exit_codes_match(const struct batch_v1_pod_failure_policy_on_exit_codes_requirement *q,
	const struct core_v1_pod *p)
{
	LIST_EACH(c, &p->status.container_statuses) {
		bool in = false;

		if (!c->state.terminated ||
			(q->container_name.len && !str_eq(q->container_name, c->name)) ||
			!c->state.terminated->exit_code)
			continue;
		LIST_EACH(v, &q->values)
			in |= *v == c->state.terminated->exit_code;
		if (in == str_eqz(q->operator, "In"))
			return true;
	}
	return false;
}

static bool rule_matches(
	const struct batch_v1_pod_failure_policy_rule *rule, const struct core_v1_pod *p)
{
	if (rule->on_exit_codes)
		return exit_codes_match(rule->on_exit_codes, p);
	LIST_EACH(q, &rule->on_pod_conditions) {
		const struct core_v1_pod_condition *c = pod_condition(p, q->type.p);

		if (c && str_eq(c->status, q->status.len ? q->status : STR("True")))
			return true;
	}
	return false;
}

enum failure_action job_failure_action(const struct batch_v1_job *j, const struct core_v1_pod *p)
{
	static const char *const names[] = { [FAILURE_COUNTS] = "Count",
		[FAILURE_IGNORED] = "Ignore",
		[FAILURE_OF_INDEX] = "FailIndex",
		[FAILURE_OF_JOB] = "FailJob" };

	if (!j->spec.pod_failure_policy || !str_eqz(p->status.phase, "Failed"))
		return FAILURE_COUNTS;
	LIST_EACH(rule, &j->spec.pod_failure_policy->rules)
		if (rule_matches(rule, p))
			for (size_t i = 0; i < ARRAY_LEN(names); i++)
				if (str_eqz(rule->action, names[i]))
					return (enum failure_action)i;
	return FAILURE_COUNTS;
}

/* ---- failures an index ---- */
static int64_t noted_failures(const struct core_v1_pod *p)
{
	int64_t n;

	return str_to_i64(str_map_get(&p->metadata.annotations, STR(INDEX_FAILURES_KEY)), &n) ||
			n < 0
		? 0
		: n;
}

int job_index_failures(const struct job *x, int index)
{
	struct objects pods = job_pods_of_index(x, index);
	int64_t most = 0;

	OBJECT_EACH(const struct core_v1_pod, p, pods)
		if (job_counts_as_failed(x->j, p))
			most = MAX(most,
				noted_failures(p) +
					(job_failure_action(x->j, p) != FAILURE_IGNORED));
	return (int)MIN(most, (int64_t)INT32_MAX);
}

void job_find_failed_indexes(struct job *x)
{
	int *found = NULL;
	size_t n = 0;

	if (!job_indexed(x->j) || !x->j->spec.backoff_limit_per_index.set)
		return;
	OBJECT_EACH(const struct core_v1_pod, p, x->by_index) {
		int i = pod_index(p);

		if (i >= int32_or(&x->j->spec.completions, 1) || !job_counts_as_failed(x->j, p) ||
			indexes_have(&x->completed, i) || (n && found[n - 1] == i))
			continue;
		if (job_failure_action(x->j, p) == FAILURE_OF_INDEX ||
			job_index_failures(x, i) > x->j->spec.backoff_limit_per_index.value)
			*ARENA_ADD(x->r->arena, found, n) = i;
	}
	x->failed_indexes = indexes_with(&x->failed_indexes, found, n, x->r->arena);
	x->j->status.failed_indexes = indexes_text(&x->failed_indexes, x->r->arena);
}

/* ---- successPolicy ---- */
int job_success_rule(
	const struct batch_v1_job *j, const struct index_set *completed, struct arena *a)
{
	int completions = int32_or(&j->spec.completions, 1);

	if (!j->spec.success_policy || !job_indexed(j))
		return -1;
	LIST_EACH(rule, &j->spec.success_policy->rules) {
		struct index_set wanted = indexes_parse(rule->succeeded_indexes, a);
		int has = rule->succeeded_indexes.len
			? indexes_common(completed, &wanted, completions)
			: indexes_count(completed);
		int needs = rule->succeeded_count.set ? rule->succeeded_count.value
			: rule->succeeded_indexes.len ? indexes_count(&wanted)
						      : completions;

		if (has >= needs)
			return (int)(rule - j->spec.success_policy->rules.items);
	}
	return -1;
}
