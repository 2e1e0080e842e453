/* Controllers of pods: ReplicationController, ReplicaSet, Deployment, StatefulSet, DaemonSet, ControllerRevision, PodTemplate. Upstream:
 * pkg/registry/apps and core/replicationcontroller. */
#include "registry/kinds/kinds.h"

static const struct at root = { NULL, "spec", -1, { NULL, 0 } };

static void immutable_selector(const struct meta_v1_label_selector *now,
	const struct meta_v1_label_selector *old, struct causes *cs)
{
	if (!now != !old || (now && !model_equal(&meta_v1_label_selector_type, now, old)))
		INVALID(cs, AT(&root, "selector"), STR_NONE, IMMUTABLE);
}

/* ---- ReplicationController ---- */

static void rc_fill(struct write *w, void *obj)
{
	struct core_v1_replication_controller *rc = obj;
	if (!rc->spec.template)
		return;
	pod_spec_fill(&rc->spec.template->spec, w->arena);
	const struct str_map *labels = &rc->spec.template->metadata.labels;
	if (!labels->len)
		return;
	if (!rc->spec.selector.len)
		rc->spec.selector = *labels;
	if (!rc->metadata.labels.len)
		rc->metadata.labels = *labels;
}

static void rc_validate(struct write *w, struct causes *cs)
{
	struct core_v1_replication_controller *rc = w->obj;
	if (!rc->spec.selector.len)
		REQUIRED(cs, AT(&root, "selector"), "");
	if (!rc->spec.template) {
		REQUIRED(cs, AT(&root, "template"), "");
		return;
	}
	template_validate(rc->spec.template, AT(&root, "template"), true, cs);
	LIST_EACH(p, &rc->spec.selector) {
		if (str_eq(str_map_get(&rc->spec.template->metadata.labels, p->key), p->value))
			continue;
		selector_mismatch(&rc->spec.template->metadata.labels, cs);
		break;
	}
}

const struct kind replication_controller_kind = {
	.resource = "replicationcontrollers",
	.flags = KIND_GENERATION | KIND_STATUS_META | KIND_ORPHANS,
	.fill = rc_fill,
	.validate = rc_validate,
};

/* ---- ReplicaSet ---- */

static void rs_fill(struct write *w, void *obj)
{
	struct apps_v1_replica_set *rs = obj;
	pod_spec_fill(&rs->spec.template.spec, w->arena);
}

static void rs_validate(struct write *w, struct causes *cs)
{
	struct apps_v1_replica_set *rs = w->obj;
	selector_template_validate(rs->spec.selector, &rs->spec.template, "replicaset", cs);
	template_validate(&rs->spec.template, AT(&root, "template"), true, cs);
}

const struct kind replica_set_kind = {
	.resource = "replicasets.apps",
	.flags = KIND_GENERATION | KIND_STATUS_META,
	.fill = rs_fill,
	.validate = rs_validate,
};

/* ---- Deployment ---- */

static void deployment_fill(struct write *w, void *obj)
{
	struct apps_v1_deployment *d = obj;
	struct apps_v1_deployment_strategy *s = &d->spec.strategy;
	pod_spec_fill(&d->spec.template.spec, w->arena);
	if (!str_eqz(s->type, "RollingUpdate"))
		return;
	if (!s->rolling_update)
		s->rolling_update = arena_alloc(w->arena, sizeof(*s->rolling_update));
	const struct int_or_str quarter = { .kind = IOS_STR, .text = STR("25%") };
	if (s->rolling_update->max_unavailable.kind == IOS_NONE)
		s->rolling_update->max_unavailable = quarter;
	if (s->rolling_update->max_surge.kind == IOS_NONE)
		s->rolling_update->max_surge = quarter;
}

static bool is_zero(struct int_or_str v)
{
	return v.kind == IOS_STR ? str_eqz(v.text, "0%") : v.num == 0;
}

static void check_amount(
	struct int_or_str v, bool at_most_all, const struct at *at, struct causes *cs)
{
	int64_t n;
	if (v.kind == IOS_INT && v.num < 0)
		INVALID_NUM(cs, at, v.num, "must be greater than or equal to 0");
	if (v.kind != IOS_STR)
		return;
	struct str digits = v.text;
	bool percent = str_has_suffix(digits, STR("%"));
	digits.len -= percent;
	if (!percent || str_to_i64(digits, &n) || n < 0)
		INVALID(cs, at, v.text,
			"a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
			"validation is "
			"'[0-9]+%')");
	else if (at_most_all && n > 100)
		INVALID(cs, at, v.text, "must not be greater than 100%");
}

static void deployment_validate(struct write *w, struct causes *cs)
{
	struct apps_v1_deployment *d = w->obj;
	const struct at *at = AT(&root, "strategy"), *rolling = AT(at, "rollingUpdate");
	selector_template_validate(d->spec.selector, &d->spec.template, "deployment", cs);
	template_validate(&d->spec.template, AT(&root, "template"), true, cs);
	if (str_eqz(d->spec.strategy.type, "Recreate") && d->spec.strategy.rolling_update)
		FORBIDDEN(cs, rolling, "may not be specified when strategy `type` is 'Recreate'");
	const struct apps_v1_rolling_update_deployment *ru = d->spec.strategy.rolling_update;
	if (ru && str_eqz(d->spec.strategy.type, "RollingUpdate")) {
		check_amount(ru->max_unavailable, true, AT(rolling, "maxUnavailable"), cs);
		check_amount(ru->max_surge, false, AT(rolling, "maxSurge"), cs);
		if (is_zero(ru->max_unavailable) && is_zero(ru->max_surge))
			INVALID(cs, AT(rolling, "maxUnavailable"),
				ru->max_unavailable.kind == IOS_STR ? ru->max_unavailable.text
								    : STR("0"),
				"may not be 0 when `maxSurge` is 0");
	}
	if (d->spec.progress_deadline_seconds.set &&
		d->spec.progress_deadline_seconds.value <= d->spec.min_ready_seconds)
		INVALID_NUM(cs, AT(&root, "progressDeadlineSeconds"),
			d->spec.progress_deadline_seconds.value,
			"must be greater than minReadySeconds");
}

const struct kind deployment_kind = {
	.resource = "deployments.apps",
	.flags = KIND_GENERATION_ANNOTATIONS | KIND_STATUS_META,
	.fill = deployment_fill,
	.validate = deployment_validate,
};

/* ---- StatefulSet ---- */

static void sts_fill(struct write *w, void *obj)
{
	struct apps_v1_stateful_set *s = obj;
	pod_spec_fill(&s->spec.template.spec, w->arena);
	struct apps_v1_stateful_set_update_strategy *u = &s->spec.update_strategy;
	if (str_eqz(u->type, "RollingUpdate")) {
		if (!u->rolling_update)
			u->rolling_update = arena_alloc(w->arena, sizeof(*u->rolling_update));
		if (!u->rolling_update->partition.set)
			u->rolling_update->partition = (struct opt_int32)SOME(0);
	}
	LIST_EACH(c, &s->spec.volume_claim_templates) {
		c->api_version = STR("v1");
		c->kind = STR("PersistentVolumeClaim");
		if (!c->status.phase.len)
			c->status.phase = STR("Pending");
	}
}

/* The template as its pods will be: each claim template is a volume of that name. */
static struct core_v1_pod_template_spec with_claims(
	const struct apps_v1_stateful_set *s, struct arena *a)
{
	struct core_v1_pod_template_spec t = s->spec.template;
	struct core_v1_volume_items all = { 0 };
	LIST_EACH(v, &t.spec.volumes)
		*LIST_ADD(a, &all) = *v;
	LIST_EACH(c, &s->spec.volume_claim_templates) {
		bool there = false;
		LIST_EACH(v, &t.spec.volumes)
			there |= str_eq(v->name, c->metadata.name);
		if (there)
			continue;
		struct core_v1_volume *v = LIST_ADD(a, &all);
		v->name = c->metadata.name;
		v->volume_source.persistent_volume_claim =
			arena_alloc(a, sizeof(*v->volume_source.persistent_volume_claim));
	}
	t.spec.volumes = all;
	return t;
}

static void sts_validate(struct write *w, struct causes *cs)
{
	struct apps_v1_stateful_set *s = w->obj;
	selector_template_validate(s->spec.selector, &s->spec.template, "statefulset", cs);
	struct core_v1_pod_template_spec t = with_claims(s, w->arena);
	template_validate(&t, AT(&root, "template"), true, cs);
	const char *bad = w->operation == VERB_CREATE && s->metadata.name.len
		? valid_dns_label(s->metadata.name)
		: NULL;
	if (bad)
		INVALID(cs, AT(AT(NULL, "metadata"), "name"), s->metadata.name, bad);
	if (str_eqz(s->spec.update_strategy.type, "OnDelete") &&
		s->spec.update_strategy.rolling_update)
		INVALID(cs, AT(AT(&root, "updateStrategy"), "rollingUpdate"), STR_NONE,
			"only allowed for updateStrategy 'RollingUpdate'");
}

static void sts_validate_update(struct write *w, struct causes *cs)
{
	struct apps_v1_stateful_set *s = w->obj, *old = w->old;
	struct apps_v1_stateful_set_spec probe = s->spec;
	probe.replicas = old->spec.replicas;
	probe.template = old->spec.template;
	probe.update_strategy = old->spec.update_strategy;
	probe.revision_history_limit = old->spec.revision_history_limit;
	probe.min_ready_seconds = old->spec.min_ready_seconds;
	probe.ordinals = old->spec.ordinals;
	probe.persistent_volume_claim_retention_policy =
		old->spec.persistent_volume_claim_retention_policy;
	if (!model_equal(&apps_v1_stateful_set_spec_type, &probe, &old->spec))
		FORBIDDEN(cs, &root,
			"updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
			"'revisionHistoryLimit', "
			"'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
}

const struct kind stateful_set_kind = {
	.resource = "statefulsets.apps",
	.flags = KIND_GENERATION | KIND_STATUS_META,
	.fill = sts_fill,
	.validate = sts_validate,
	.validate_update = sts_validate_update,
};

/* ---- DaemonSet ---- */

static void ds_fill(struct write *w, void *obj)
{
	struct apps_v1_daemon_set *d = obj;
	pod_spec_fill(&d->spec.template.spec, w->arena);
	struct apps_v1_daemon_set_update_strategy *u = &d->spec.update_strategy;
	if (!str_eqz(u->type, "RollingUpdate"))
		return;
	if (!u->rolling_update)
		u->rolling_update = arena_alloc(w->arena, sizeof(*u->rolling_update));
	if (u->rolling_update->max_unavailable.kind == IOS_NONE)
		u->rolling_update->max_unavailable =
			(struct int_or_str){ .kind = IOS_INT, .num = 1 };
	if (u->rolling_update->max_surge.kind == IOS_NONE)
		u->rolling_update->max_surge = (struct int_or_str){ .kind = IOS_INT };
}

static void ds_validate(struct write *w, struct causes *cs)
{
	struct apps_v1_daemon_set *d = w->obj;
	const struct at *rolling = AT(AT(&root, "updateStrategy"), "rollingUpdate");
	selector_template_validate(d->spec.selector, &d->spec.template, "daemonset", cs);
	template_validate(&d->spec.template, AT(&root, "template"), true, cs);
	const struct apps_v1_rolling_update_daemon_set *ru = d->spec.update_strategy.rolling_update;
	if (!ru)
		return;
	check_amount(ru->max_unavailable, true, AT(rolling, "maxUnavailable"), cs);
	check_amount(ru->max_surge, true, AT(rolling, "maxSurge"), cs);
	if (is_zero(ru->max_unavailable) && is_zero(ru->max_surge))
		INVALID(cs, AT(rolling, "maxUnavailable"), STR("0"),
			"cannot be 0 when maxSurge is 0");
}

static void ds_prepare_create(struct write *w)
{
	struct apps_v1_daemon_set *d = w->obj;
	if (!str_map_has(&d->metadata.annotations, STR("deprecated.daemonset.template.generation")))
		str_map_set(w->arena, &d->metadata.annotations,
			STR("deprecated.daemonset.template.generation"), STR("1"));
}

static void ds_prepare_update(struct write *w)
{
	struct apps_v1_daemon_set *d = w->obj, *old = w->old;
	const struct str key = STR("deprecated.daemonset.template.generation");
	int64_t n;
	if (str_to_i64(str_map_get(&old->metadata.annotations, key), &n))
		return;
	n += !model_equal(&core_v1_pod_template_spec_type, &d->spec.template, &old->spec.template);
	str_map_set(
		w->arena, &d->metadata.annotations, key, arena_fmt(w->arena, "%lld", (long long)n));
}

static void ds_validate_update(struct write *w, struct causes *cs)
{
	struct apps_v1_daemon_set *d = w->obj, *old = w->old;
	immutable_selector(d->spec.selector, old->spec.selector, cs);
}

const struct kind daemon_set_kind = {
	.resource = "daemonsets.apps",
	.flags = KIND_GENERATION | KIND_STATUS_META,
	.fill = ds_fill,
	.prepare_create = ds_prepare_create,
	.prepare_update = ds_prepare_update,
	.validate = ds_validate,
	.validate_update = ds_validate_update,
};

/* ---- ControllerRevision, PodTemplate ---- */

static void revision_validate_update(struct write *w, struct causes *cs)
{
	struct apps_v1_controller_revision *c = w->obj, *old = w->old;
	if (!str_eq(c->data, old->data))
		INVALID(cs, AT(NULL, "data"), STR_NONE, IMMUTABLE);
}

const struct kind controller_revision_kind = { .resource = "controllerrevisions.apps",
	.validate_update = revision_validate_update };

static void template_fill(struct write *w, void *obj)
{
	pod_spec_fill(&((struct core_v1_pod_template *)obj)->template.spec, w->arena);
}

static void template_kind_validate(struct write *w, struct causes *cs)
{
	template_validate(&((struct core_v1_pod_template *)w->obj)->template, AT(NULL, "template"),
		false, cs);
}

const struct kind pod_template_kind = {
	.resource = "podtemplates",
	.flags = KIND_GENERATION | KIND_RETURN_DELETED,
	.fill = template_fill,
	.validate = template_kind_validate,
};
