/* Jobs and cron jobs. Upstream: pkg/registry/batch. */
#include "base/zone.h"
#include "registry/kinds/kinds.h"

static const struct at root = { NULL, "spec", -1, { NULL, 0 } };

static void fill_spec(struct batch_v1_job_spec *s, struct arena *a)
{
	pod_spec_fill(&s->template.spec, a);
	if (!s->completions.set && !s->parallelism.set)
		s->completions = s->parallelism = (struct opt_int32)SOME(1);
	if (!s->parallelism.set)
		s->parallelism = (struct opt_int32)SOME(1);
	if (!s->backoff_limit.set)
		s->backoff_limit =
			(struct opt_int32)SOME(s->backoff_limit_per_index.set ? INT32_MAX : 6);
	if (!s->pod_replacement_policy.p)
		s->pod_replacement_policy =
			s->pod_failure_policy ? STR("Failed") : STR("TerminatingOrFailed");
}

static void job_fill(struct write *w, void *obj)
{
	struct batch_v1_job *j = obj;
	fill_spec(&j->spec, w->arena);
	if (!j->metadata.labels.len && j->spec.template.metadata.labels.len)
		j->metadata.labels = j->spec.template.metadata.labels;
}

/* Without manualSelector the job's own labels tell its pods from all others. */
static void job_prepare_create(struct write *w)
{
	struct batch_v1_job *j = w->obj;
	if (j->spec.manual_selector.value)
		return;
	struct meta_v1_object_meta *t = &j->spec.template.metadata;
	struct str_map old = t->labels;
	t->labels = (struct str_map){ 0 };
	LIST_EACH(p, &old)
		str_map_set(w->arena, &t->labels, p->key, p->value);
	str_map_set(w->arena, &t->labels, STR("controller-uid"), j->metadata.uid);
	str_map_set(
		w->arena, &t->labels, STR("batch.kubernetes.io/controller-uid"), j->metadata.uid);
	str_map_set(w->arena, &t->labels, STR("job-name"), j->metadata.name);
	str_map_set(w->arena, &t->labels, STR("batch.kubernetes.io/job-name"), j->metadata.name);
	if (!j->spec.selector)
		j->spec.selector = arena_alloc(w->arena, sizeof(*j->spec.selector));
	str_map_set(w->arena, &j->spec.selector->match_labels,
		STR("batch.kubernetes.io/controller-uid"), j->metadata.uid);
}

static void job_prepare_update(struct write *w)
{
	struct batch_v1_job *j = w->obj, *old = w->old;
	if (!j->spec.selector)
		j->spec.selector = old->spec.selector;
}

static void check_restart(
	const struct core_v1_pod_template_spec *t, const struct at *at, struct causes *cs)
{
	const struct at *here = AT(AT(at, "spec"), "restartPolicy");
	if (!t->spec.restart_policy.len || str_eqz(t->spec.restart_policy, "Always"))
		REQUIRED(cs, here, "valid values: \"OnFailure\", \"Never\"");
	else if (!str_eqz(t->spec.restart_policy, "OnFailure") &&
		!str_eqz(t->spec.restart_policy, "Never"))
		cause_at(cs, CAUSE_NOT_SUPPORTED, here, shown(t->spec.restart_policy),
			"supported values: \"OnFailure\", \"Never\"");
}

/* ---- what follows from failed pods ---- */

#define RULES_MAX 20
#define EXIT_CODES_MAX 255

static bool container_named(const struct core_v1_pod_spec *s, struct str name)
{
	LIST_EACH(c, &s->containers)
		if (str_eq(c->name, name))
			return true;
	LIST_EACH(c, &s->init_containers)
		if (str_eq(c->name, name))
			return true;
	return false;
}

static void check_exit_codes(const struct batch_v1_pod_failure_policy_on_exit_codes_requirement *r,
	const struct batch_v1_job_spec *s, const struct at *at, struct causes *cs)
{
	const struct at *values = AT(at, "values");
	bool ordered = true;
	if (r->container_name.p && !container_named(&s->template.spec, r->container_name))
		INVALID(cs, AT(at, "containerName"), shown(r->container_name),
			"must be one of the container or initContainer names in the pod template");
	if (r->values.len > EXIT_CODES_MAX)
		cause_at(cs, CAUSE_TOO_MANY, values, STR_NONE, "%zu: must have at most %d items",
			r->values.len, EXIT_CODES_MAX);
	for (size_t i = 0; i < r->values.len; i++) {
		if (str_eqz(r->operator, "In") && r->values.items[i] == 0)
			INVALID_NUM(
				cs, AT_I(at, "values", i), 0, "must not be 0 for the In operator");
		ordered &= !i || r->values.items[i - 1] <= r->values.items[i];
	}
	if (!r->values.len)
		INVALID(cs, values, STR_NONE, "at least one value is required");
	if (!ordered)
		INVALID(cs, values, STR_NONE, "must be ordered");
}

static void check_failure_policy(
	const struct batch_v1_job_spec *s, const struct at *up, struct causes *cs)
{
	const struct at *at = AT(up, "podFailurePolicy");
	const struct batch_v1_pod_failure_policy_rule_items *rules = &s->pod_failure_policy->rules;
	if (rules->len > RULES_MAX)
		cause_at(cs, CAUSE_TOO_MANY, AT(at, "rules"), STR_NONE,
			"%zu: must have at most %d items", rules->len, RULES_MAX);
	for (size_t i = 0; i < rules->len; i++) {
		const struct batch_v1_pod_failure_policy_rule *r = &rules->items[i];
		const struct at *here = AT_I(at, "rules", i);
		if (str_eqz(r->action, "FailIndex") && !s->backoff_limit_per_index.set)
			INVALID(cs, AT(here, "action"), r->action,
				"requires the backoffLimitPerIndex to be set");
		if (r->on_exit_codes)
			check_exit_codes(r->on_exit_codes, s, AT(here, "onExitCodes"), cs);
		if (r->on_pod_conditions.len > RULES_MAX)
			cause_at(cs, CAUSE_TOO_MANY, AT(here, "onPodConditions"), STR_NONE,
				"%zu: must have at most %d items", r->on_pod_conditions.len,
				RULES_MAX);
		if (r->on_exit_codes && r->on_pod_conditions.len)
			INVALID(cs, here, STR_NONE,
				"specifying both OnExitCodes and OnPodConditions is not supported");
		if (!r->on_exit_codes && !r->on_pod_conditions.len)
			INVALID(cs, here, STR_NONE,
				"specifying one of OnExitCodes and OnPodConditions is required");
	}
	if (!str_eqz(s->template.spec.restart_policy, "Never"))
		INVALID(cs, AT(AT(AT(up, "template"), "spec"), "restartPolicy"),
			shown(s->template.spec.restart_policy),
			"only \"Never\" is supported when podFailurePolicy is specified");
	if (s->pod_replacement_policy.p && !str_eqz(s->pod_replacement_policy, "Failed"))
		cause_at(cs, CAUSE_NOT_SUPPORTED, AT(up, "podReplacementPolicy"),
			shown(s->pod_replacement_policy), "supported values: \"Failed\"");
}

/* ---- when an indexed job has succeeded early ---- */

static const char *read_index(struct str text, int64_t completions, int64_t *ret)
{
	if (!text.len || text.p[0] == '-' || str_to_i64(text, ret))
		return "cannot convert string to integer for index";
	return *ret >= completions ? "too large index" : NULL;
}

/* "1,3-5,7": how many; NULL, or what is wrong with it. */
static const char *count_indexes(struct str text, int64_t completions, int64_t *ret)
{
	struct str part, first, last;
	int64_t before = -1;
	bool more = text.len > 0;
	*ret = 0;
	while (more) {
		int64_t x, y;
		more = str_cut(text, ',', &part, &text);
		bool range = str_cut(part, '-', &first, &last);
		const char *bad = read_index(first, completions, &x);
		y = x;
		if (!bad && range)
			bad = read_index(last, completions, &y);
		if (!bad && (x <= before || (range && x >= y)))
			bad = "non-increasing order";
		if (bad)
			return bad;
		*ret += y - x + 1;
		before = y;
	}
	return NULL;
}

static void check_success_policy(
	const struct batch_v1_job_spec *s, const struct at *at, struct causes *cs)
{
	const struct batch_v1_success_policy_rule_items *rules = &s->success_policy->rules;
	if (!rules->len)
		REQUIRED(cs, AT(at, "rules"),
			"at least one rules must be specified when the successPolicy is specified");
	if (rules->len > RULES_MAX)
		cause_at(cs, CAUSE_TOO_MANY, AT(at, "rules"), STR_NONE,
			"%zu: must have at most %d items", rules->len, RULES_MAX);
	for (size_t i = 0; i < rules->len; i++) {
		const struct batch_v1_success_policy_rule *r = &rules->items[i];
		const struct at *here = AT_I(at, "rules", i), *count = AT(here, "succeededCount");
		int64_t n = 0, wanted = r->succeeded_count.value;
		if (!r->succeeded_count.set && !r->succeeded_indexes.p)
			REQUIRED(cs, here,
				"at least one of succeededCount or succeededIndexes must be specified");
		const char *bad = count_indexes(r->succeeded_indexes, s->completions.value, &n);
		if (bad)
			cause_at(cs, CAUSE_INVALID, AT(here, "succeededIndexes"),
				r->succeeded_indexes, "error parsing succeededIndexes: %s", bad);
		if (r->succeeded_count.set && wanted < 0)
			INVALID_NUM(cs, count, wanted, "must be greater than or equal to 0");
		if (wanted > s->completions.value)
			INVALID_NUM(cs, count, wanted,
				"must be less than or equal to the number of specified completions");
		else if (r->succeeded_indexes.p && !bad && wanted > n)
			INVALID_NUM(cs, count, wanted,
				"must be less than or equal to the number of indexes in the specified succeededIndexes field");
	}
}

/* ---- the whole ---- */

#define PARALLELISM_MAX 100000
#define MANY_COMPLETIONS 100000
#define MANY_COMPLETIONS_LIMIT 10000

static void check_indexed(const struct batch_v1_job_spec *s, const struct at *at, struct causes *cs)
{
	if (!s->completions.set)
		REQUIRED(cs, AT(at, "completions"), "when completion mode is Indexed");
	if (s->parallelism.value > PARALLELISM_MAX)
		INVALID_NUM(cs, AT(at, "parallelism"), s->parallelism.value,
			"must be less than or equal to 100000 when completion mode is Indexed");
	if (s->completions.set && s->max_failed_indexes.value > s->completions.value)
		INVALID_NUM(cs, AT(at, "maxFailedIndexes"), s->max_failed_indexes.value,
			"must be less than or equal to completions");
	if (s->completions.value <= MANY_COMPLETIONS || !s->backoff_limit_per_index.set)
		return;
	if (!s->max_failed_indexes.set)
		REQUIRED(cs, AT(at, "maxFailedIndexes"),
			"must be specified when completions is above 100000");
	if (s->parallelism.value > MANY_COMPLETIONS_LIMIT)
		INVALID_NUM(cs, AT(at, "parallelism"), s->parallelism.value,
			"must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index");
	if (s->max_failed_indexes.value > MANY_COMPLETIONS_LIMIT)
		INVALID_NUM(cs, AT(at, "maxFailedIndexes"), s->max_failed_indexes.value,
			"must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index");
}

static void check_spec(const struct batch_v1_job_spec *s, const struct at *at, struct causes *cs)
{
	static const char only_indexed[] = "requires indexed completion mode";
	bool indexed = str_eqz(s->completion_mode, "Indexed");
	template_validate(&s->template, AT(at, "template"), false, cs);
	check_restart(&s->template, AT(at, "template"), cs);
	if (s->max_failed_indexes.set && !s->backoff_limit_per_index.set)
		REQUIRED(cs, AT(at, "backoffLimitPerIndex"), "when maxFailedIndexes is specified");
	if (indexed)
		check_indexed(s, at, cs);
	if (!indexed && s->backoff_limit_per_index.set)
		INVALID_NUM(cs, AT(at, "backoffLimitPerIndex"), s->backoff_limit_per_index.value,
			only_indexed);
	if (!indexed && s->max_failed_indexes.set)
		INVALID_NUM(
			cs, AT(at, "maxFailedIndexes"), s->max_failed_indexes.value, only_indexed);
	if (s->pod_failure_policy)
		check_failure_policy(s, at, cs);
	if (s->success_policy && !indexed)
		INVALID(cs, AT(at, "successPolicy"), STR_NONE, only_indexed);
	else if (s->success_policy && s->completions.set)
		check_success_policy(s, AT(at, "successPolicy"), cs);
}

/* Pods of an indexed job have its name and their index as their host name. */
static void check_job_name(const struct batch_v1_job *j, struct arena *a, struct causes *cs)
{
	if (!str_eqz(j->spec.completion_mode, "Indexed") || j->spec.completions.value <= 0)
		return;
	struct str longest = arena_fmt(
		a, STR_FMT "-%d", STR_ARG(j->metadata.name), j->spec.completions.value - 1);
	if (valid_dns_label(longest))
		cause_at(cs, CAUSE_INVALID, AT(AT(NULL, "metadata"), "name"), j->metadata.name,
			"will not able to create pod with invalid DNS label: " STR_FMT,
			STR_ARG(longest));
}

static void job_validate(struct write *w, struct causes *cs)
{
	struct batch_v1_job *j = w->obj;
	struct selector *sel;
	struct err err;
	check_spec(&j->spec, &root, cs);
	if (w->operation == VERB_CREATE)
		check_job_name(j, w->arena, cs);
	if (!j->spec.selector)
		REQUIRED(cs, AT(&root, "selector"), "");
	else if (selector_from_label_selector(j->spec.selector, w->arena, &sel, &err))
		INVALID(cs, AT(&root, "selector"), STR(""), err.text);
	else if (!selector_matches(sel, &j->spec.template.metadata.labels))
		selector_mismatch(&j->spec.template.metadata.labels, cs);
}

static void job_validate_update(struct write *w, struct causes *cs)
{
	struct batch_v1_job *j = w->obj, *old = w->old;
	bool suspended = old->spec.suspend.value && time_is_zero(old->status.start_time);
	bool indexed = str_eqz(j->spec.completion_mode, "Indexed");
	if (!suspended &&
		!model_equal(
			&core_v1_pod_template_spec_type, &j->spec.template, &old->spec.template))
		INVALID(cs, AT(&root, "template"), STR_NONE, IMMUTABLE);
	if (j->spec.completions.set == old->spec.completions.set &&
		j->spec.completions.value == old->spec.completions.value)
		return;
	if (!indexed)
		INVALID_NUM(cs, AT(&root, "completions"), j->spec.completions.value, IMMUTABLE);
	else if (j->spec.completions.value != j->spec.parallelism.value)
		INVALID_NUM(cs, AT(&root, "completions"), j->spec.completions.value,
			"can only be modified in tandem with spec.parallelism");
}

const struct kind job_kind = {
	.resource = "jobs.batch",
	.flags = KIND_GENERATION | KIND_STATUS_META | KIND_ORPHANS,
	.fill = job_fill,
	.prepare_create = job_prepare_create,
	.prepare_update = job_prepare_update,
	.validate = job_validate,
	.validate_update = job_validate_update,
};

/* ---- CronJob ---- */

static void cron_fill(struct write *w, void *obj)
{
	struct batch_v1_cron_job *c = obj;
	pod_spec_fill(&c->spec.job_template.spec.template.spec, w->arena);
}

/* Five fields, or a name or interval after @. Ranges are the controller's to read; here only what cannot be one is refused. */
static bool schedule_ok(struct str s)
{
	static const char *const names[] = { "@yearly", "@annually", "@monthly", "@weekly",
		"@daily", "@midnight", "@hourly", NULL };
	int64_t every;
	size_t fields = 0;
	if (str_has_prefix(s, STR("@every ")))
		return duration_parse(str_trim(str_from(s, 7)), &every) == 0 && every > 0;
	if (s.len && s.p[0] == '@')
		return text_among(s, names);
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];
		bool space = c == ' ' || c == '\t';
		if (!space && (i == 0 || s.p[i - 1] == ' ' || s.p[i - 1] == '\t'))
			fields++;
		if (!space && !strchr("*/,-?#", c) && !(c >= '0' && c <= '9') &&
			!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z'))
			return false;
	}
	return fields == 5;
}

static void check_zone(struct str name, struct arena *a, struct causes *cs)
{
	const struct zone *ignored;
	struct err err;
	if (!name.len)
		INVALID(cs, AT(&root, "timeZone"), name,
			"timeZone must be nil or non-empty string");
	else if (name.len == 5 && !strncasecmp(name.p, "Local", 5))
		INVALID(cs, AT(&root, "timeZone"), name,
			"timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
	else if (zone_load(name, a, &ignored, &err))
		INVALID(cs, AT(&root, "timeZone"), name, err.text);
}

static void cron_validate(struct write *w, struct causes *cs)
{
	struct batch_v1_cron_job *c = w->obj;
	const struct at *job = AT(AT(&root, "jobTemplate"), "spec");
	if (c->spec.schedule.len &&
		(str_has_prefix(c->spec.schedule, STR("TZ=")) ||
			str_has_prefix(c->spec.schedule, STR("CRON_TZ="))))
		INVALID(cs, AT(&root, "schedule"), c->spec.schedule,
			"cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
	else if (c->spec.schedule.len && !schedule_ok(c->spec.schedule))
		cause_at(cs, CAUSE_INVALID, AT(&root, "schedule"), c->spec.schedule,
			"expected exactly 5 fields, found " STR_FMT, STR_ARG(c->spec.schedule));
	const struct batch_v1_cron_job *old = w->old;
	if (c->spec.time_zone.p && !(old && str_eq(old->spec.time_zone, c->spec.time_zone)))
		check_zone(c->spec.time_zone, w->arena, cs);
	if (w->operation == VERB_CREATE && c->metadata.name.len > 52)
		INVALID(cs, AT(AT(NULL, "metadata"), "name"), c->metadata.name,
			"must be no more than 52 characters");
	check_spec(&c->spec.job_template.spec, job, cs);
	if (c->spec.job_template.spec.selector)
		INVALID(cs, AT(job, "selector"), STR_NONE, "`selector` will be auto-generated");
	if (c->spec.job_template.spec.manual_selector.value)
		cause_at(cs, CAUSE_NOT_SUPPORTED, AT(job, "manualSelector"), STR("true"),
			"supported values: \"nil\", \"false\"");
}

const struct kind cron_job_kind = {
	.resource = "cronjobs.batch",
	.flags = KIND_GENERATION | KIND_STATUS_META,
	.fill = cron_fill,
	.validate = cron_validate,
};
