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
	if (!str_eqz(t->spec.restart_policy, "OnFailure") &&
		!str_eqz(t->spec.restart_policy, "Never"))
		cause_at(cs, CAUSE_NOT_SUPPORTED, AT(AT(at, "spec"), "restartPolicy"),
			shown(t->spec.restart_policy),
			"supported values: \"OnFailure\", \"Never\"");
}

static void check_spec(const struct batch_v1_job_spec *s, const struct at *at, struct causes *cs)
{
	template_validate(&s->template, AT(at, "template"), false, cs);
	check_restart(&s->template, AT(at, "template"), cs);
	if (str_eqz(s->completion_mode, "Indexed") && !s->completions.set)
		REQUIRED(cs, AT(at, "completions"), "when completion mode is Indexed");
}

static void job_validate(struct write *w, struct causes *cs)
{
	struct batch_v1_job *j = w->obj;
	struct selector *sel;
	struct err err;
	check_spec(&j->spec, &root, cs);
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
	if (!indexed &&
		(j->spec.completions.set != old->spec.completions.set ||
			j->spec.completions.value != old->spec.completions.value))
		INVALID_NUM(cs, AT(&root, "completions"), j->spec.completions.value, IMMUTABLE);
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
	template_validate(&c->spec.job_template.spec.template, AT(job, "template"), false, cs);
	check_restart(&c->spec.job_template.spec.template, AT(job, "template"), cs);
}

const struct kind cron_job_kind = {
	.resource = "cronjobs.batch",
	.flags = KIND_GENERATION | KIND_STATUS_META,
	.fill = cron_fill,
	.validate = cron_validate,
};
