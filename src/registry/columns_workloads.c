/* Cells of controllers: ReplicationController, ReplicaSet, Deployment, StatefulSet, DaemonSet, Job, CronJob, ControllerRevision. */
#include "registry/columns.h"

/* Containers, images and selector of a kind whose template stands at `template`. */
#define TEMPLATE_CELLS(prefix, type, template) \
	static void prefix##_containers(struct cell *c, const void *obj) \
	{ \
		cell_containers(c, &((const struct type *)obj)->template.spec); \
	} \
	static void prefix##_images(struct cell *c, const void *obj) \
	{ \
		cell_images(c, &((const struct type *)obj)->template.spec); \
	}
#define SELECTOR_CELL(prefix, type, selector) \
	static void prefix##_selector(struct cell *c, const void *obj) \
	{ \
		cell_text(c, selector_text(c, ((const struct type *)obj)->selector)); \
	}

TEMPLATE_CELLS(rs, apps_v1_replica_set, spec.template)
SELECTOR_CELL(rs, apps_v1_replica_set, spec.selector)
TEMPLATE_CELLS(deployment, apps_v1_deployment, spec.template)
SELECTOR_CELL(deployment, apps_v1_deployment, spec.selector)
TEMPLATE_CELLS(sts, apps_v1_stateful_set, spec.template)
TEMPLATE_CELLS(ds, apps_v1_daemon_set, spec.template)
SELECTOR_CELL(ds, apps_v1_daemon_set, spec.selector)
TEMPLATE_CELLS(job, batch_v1_job, spec.template)
SELECTOR_CELL(job, batch_v1_job, spec.selector)
TEMPLATE_CELLS(cron, batch_v1_cron_job, spec.job_template.spec.template)
SELECTOR_CELL(cron, batch_v1_cron_job, spec.job_template.spec.selector)

static void rc_containers(struct cell *c, const void *obj)
{
	const struct core_v1_replication_controller *rc = obj;
	if (rc->spec.template)
		cell_containers(c, &rc->spec.template->spec);
	else
		cell_textz(c, "");
}

static void rc_images(struct cell *c, const void *obj)
{
	const struct core_v1_replication_controller *rc = obj;
	if (rc->spec.template)
		cell_images(c, &rc->spec.template->spec);
	else
		cell_textz(c, "");
}

static void rc_selector(struct cell *c, const void *obj)
{
	cell_text(c,
		labels_text(
			c, &((const struct core_v1_replication_controller *)obj)->spec.selector));
}

static void deployment_ready(struct cell *c, const void *obj)
{
	const struct apps_v1_deployment *d = obj;
	cell_fmt(c, "%d/%d", d->status.ready_replicas, d->spec.replicas.value);
}

static void sts_ready(struct cell *c, const void *obj)
{
	const struct apps_v1_stateful_set *s = obj;
	cell_fmt(c, "%d/%d", s->status.ready_replicas, s->spec.replicas.value);
}

static void ds_node_selector(struct cell *c, const void *obj)
{
	cell_text(c,
		labels_text(c,
			&((const struct apps_v1_daemon_set *)obj)
				 ->spec.template.spec.node_selector));
}

static bool job_condition(const struct batch_v1_job *j, const char *type)
{
	LIST_EACH(c, &j->status.conditions) {
		if (str_eqz(c->type, type) && str_eqz(c->status, "True"))
			return true;
	}
	return false;
}

static void job_status(struct cell *c, const void *obj)
{
	const struct batch_v1_job *j = obj;
	if (job_condition(j, "Complete") || job_condition(j, "Failed")) {
		cell_textz(c, job_condition(j, "Complete") ? "Complete" : "Failed");
		return;
	}
	if (!time_is_zero(j->metadata.deletion_timestamp)) {
		cell_textz(c, "Terminating");
		return;
	}
	static const char *const others[] = { "Suspended", "FailureTarget", "SuccessCriteriaMet" };
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		if (job_condition(j, others[i])) {
			cell_textz(c, others[i]);
			return;
		}
	cell_textz(c, "Running");
}

static void job_completions(struct cell *c, const void *obj)
{
	const struct batch_v1_job *j = obj;
	if (j->spec.completions.set)
		cell_fmt(c, "%d/%d", j->status.succeeded, j->spec.completions.value);
	else if (j->spec.parallelism.value > 1)
		cell_fmt(c, "%d/1 of %d", j->status.succeeded, j->spec.parallelism.value);
	else
		cell_fmt(c, "%d/1", j->status.succeeded);
}

static void job_duration(struct cell *c, const void *obj)
{
	const struct batch_v1_job *j = obj;
	char text[DURATION_TEXT_MAX];
	if (time_is_zero(j->status.start_time)) {
		cell_textz(c, "");
		return;
	}
	struct timestamp end =
		time_is_zero(j->status.completion_time) ? c->now : j->status.completion_time;
	cell_text(c,
		str_n(text, duration_human((int64_t)time_diff_s(end, j->status.start_time), text)));
}

static void cron_active(struct cell *c, const void *obj)
{
	cell_int(c, (int64_t)((const struct batch_v1_cron_job *)obj)->status.active.len);
}

static void cron_last_schedule(struct cell *c, const void *obj)
{
	const struct batch_v1_cron_job *j = obj;
	if (time_is_zero(j->status.last_schedule_time))
		cell_textz(c, "<none>");
	else
		cell_since(c, j->status.last_schedule_time);
}

static void cron_timezone(struct cell *c, const void *obj)
{
	cell_or(c, ((const struct batch_v1_cron_job *)obj)->spec.time_zone, "<none>");
}

static void cron_suspend(struct cell *c, const void *obj)
{
	struct opt_bool s = ((const struct batch_v1_cron_job *)obj)->spec.suspend;
	cell_textz(c, !s.set ? "<unset>" : s.value ? "True" : "False");
}

static void revision_controller(struct cell *c, const void *obj)
{
	const struct apps_v1_controller_revision *r = obj;
	LIST_EACH(o, &r->metadata.owner_references) {
		struct str group, version;
		if (!o->controller.value)
			continue;
		if (!str_cut(o->api_version, '/', &group, &version))
			group = STR_NONE;
		struct str kind = arena_str(c->arena, o->kind);
		for (size_t i = 0; i < kind.len; i++)
			if (kind.p[i] >= 'A' && kind.p[i] <= 'Z')
				((char *)kind.p)[i] += 'a' - 'A';
		cell_fmt(c, STR_FMT "%s" STR_FMT "/" STR_FMT, STR_ARG(kind), group.len ? "." : "",
			STR_ARG(group), STR_ARG(o->name));
		return;
	}
	cell_textz(c, "<none>");
}

const struct column_fn workload_columns[] = {
	{ "replication_controller_containers", rc_containers },
	{ "replication_controller_images", rc_images },
	{ "replication_controller_selector", rc_selector },
	{ "replica_set_containers", rs_containers },
	{ "replica_set_images", rs_images },
	{ "replica_set_selector", rs_selector },
	{ "deployment_ready", deployment_ready },
	{ "deployment_containers", deployment_containers },
	{ "deployment_images", deployment_images },
	{ "deployment_selector", deployment_selector },
	{ "stateful_set_ready", sts_ready },
	{ "stateful_set_containers", sts_containers },
	{ "stateful_set_images", sts_images },
	{ "daemon_set_node_selector", ds_node_selector },
	{ "daemon_set_containers", ds_containers },
	{ "daemon_set_images", ds_images },
	{ "daemon_set_selector", ds_selector },
	{ "job_status", job_status },
	{ "job_completions", job_completions },
	{ "job_duration", job_duration },
	{ "job_containers", job_containers },
	{ "job_images", job_images },
	{ "job_selector", job_selector },
	{ "cron_job_active", cron_active },
	{ "cron_job_last_schedule", cron_last_schedule },
	{ "cron_job_timezone", cron_timezone },
	{ "cron_job_suspend", cron_suspend },
	{ "cron_job_containers", cron_containers },
	{ "cron_job_images", cron_images },
	{ "cron_job_selector", cron_selector },
	{ "controller_revision_controller", revision_controller },
	{ 0 },
};
