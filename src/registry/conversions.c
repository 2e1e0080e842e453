/* Versions of one resource that share its storage: how one becomes the other. Fields that one side does not know travel in it where
 * upstream puts them, or are lost where upstream loses them. */
#include "registry/internal.h"

/* ---- events.k8s.io/v1 <-> v1: the same object in other words ---- */

static void *event_to_core(const void *obj, struct arena *a)
{
	const struct events_v1_event *e = obj;
	struct core_v1_event *c = model_new(&core_v1_event_type, a);
	c->metadata = e->metadata;
	c->event_time = e->event_time;
	if (e->series) {
		c->series = arena_alloc(a, sizeof(*c->series));
		c->series->count = e->series->count;
		c->series->last_observed_time = e->series->last_observed_time;
	}
	c->reporting_component = e->reporting_controller;
	c->reporting_instance = e->reporting_instance;
	c->action = e->action;
	c->reason = e->reason;
	c->involved_object = e->regarding;
	c->related = e->related;
	c->message = e->note;
	c->type = e->type;
	c->source = e->deprecated_source;
	c->first_timestamp = e->deprecated_first_timestamp;
	c->last_timestamp = e->deprecated_last_timestamp;
	c->count = e->deprecated_count;
	return c;
}

static void *event_from_core(const void *obj, struct arena *a)
{
	const struct core_v1_event *c = obj;
	struct events_v1_event *e = model_new(&events_v1_event_type, a);
	e->metadata = c->metadata;
	e->event_time = c->event_time;
	if (c->series) {
		e->series = arena_alloc(a, sizeof(*e->series));
		e->series->count = c->series->count;
		e->series->last_observed_time = c->series->last_observed_time;
	}
	e->reporting_controller = c->reporting_component;
	e->reporting_instance = c->reporting_instance;
	e->action = c->action;
	e->reason = c->reason;
	e->regarding = c->involved_object;
	e->related = c->related;
	e->note = c->message;
	e->type = c->type;
	e->deprecated_source = c->source;
	e->deprecated_first_timestamp = c->first_timestamp;
	e->deprecated_last_timestamp = c->last_timestamp;
	e->deprecated_count = c->count;
	return e;
}

/* ---- autoscaling/v1 <-> v2: v1 knows the cpu target only; what else v2 has, upstream keeps in annotations ---- */

static const struct str metrics_key = { "autoscaling.alpha.kubernetes.io/metrics", 39 };
static const struct str conditions_key = { "autoscaling.alpha.kubernetes.io/conditions", 42 };
static const struct str current_key = { "autoscaling.alpha.kubernetes.io/current-metrics", 47 };
static const struct str behavior_key = { "autoscaling.alpha.kubernetes.io/behavior", 40 };

static bool is_cpu(const struct autoscaling_v2_metric_spec *m)
{
	return str_eqz(m->type, "Resource") && m->resource && str_eqz(m->resource->name, "cpu") &&
		str_eqz(m->resource->target.type, "Utilization");
}

static void *hpa_to_v2(const void *obj, struct arena *a)
{
	const struct autoscaling_v1_horizontal_pod_autoscaler *v1 = obj;
	struct autoscaling_v2_horizontal_pod_autoscaler *v2 =
		model_new(&autoscaling_v2_horizontal_pod_autoscaler_type, a);
	struct err err;
	v2->metadata = v1->metadata;
	v2->spec.scale_target_ref.api_version = v1->spec.scale_target_ref.api_version;
	v2->spec.scale_target_ref.kind = v1->spec.scale_target_ref.kind;
	v2->spec.scale_target_ref.name = v1->spec.scale_target_ref.name;
	v2->spec.min_replicas = v1->spec.min_replicas;
	v2->spec.max_replicas = v1->spec.max_replicas;
	struct str kept = str_map_get(&v1->metadata.annotations, metrics_key);
	if (kept.len) { /* what hpa_from_v2 put there, as a v2 spec */
		void *spec;
		if (!json_decode(&autoscaling_v2_horizontal_pod_autoscaler_spec_type,
			    arena_fmt(a, "{\"metrics\":" STR_FMT "}", STR_ARG(kept)), a, NULL,
			    &spec, &err))
			v2->spec.metrics =
				((struct autoscaling_v2_horizontal_pod_autoscaler_spec *)spec)
					->metrics;
	}
	kept = str_map_get(&v1->metadata.annotations, behavior_key);
	if (kept.len) {
		void *behavior;
		if (!json_decode(&autoscaling_v2_horizontal_pod_autoscaler_behavior_type, kept, a,
			    NULL, &behavior, &err))
			v2->spec.behavior = behavior;
	}
	if (v1->spec.target_cpu_utilization_percentage.set) {
		struct autoscaling_v2_metric_spec *m = LIST_ADD(a, &v2->spec.metrics);
		m->type = STR("Resource");
		m->resource = arena_alloc(a, sizeof(*m->resource));
		m->resource->name = STR("cpu");
		m->resource->target.type = STR("Utilization");
		m->resource->target.average_utilization =
			v1->spec.target_cpu_utilization_percentage;
	}
	if (v1->metadata.annotations.len) {
		v2->metadata.annotations = (struct str_map){ 0 };
		LIST_EACH(p, &v1->metadata.annotations) {
			if (!str_eq(p->key, metrics_key) && !str_eq(p->key, behavior_key) &&
				!str_eq(p->key, conditions_key) && !str_eq(p->key, current_key))
				str_map_set(a, &v2->metadata.annotations, p->key, p->value);
		}
	}
	v2->status.observed_generation = v1->status.observed_generation;
	v2->status.last_scale_time = v1->status.last_scale_time;
	v2->status.current_replicas = v1->status.current_replicas;
	v2->status.desired_replicas = v1->status.desired_replicas;
	return v2;
}

static void annotate(struct autoscaling_v1_horizontal_pod_autoscaler *v1, struct str key,
	struct str value, struct arena *a)
{
	struct str_map old = v1->metadata.annotations, now = { 0 };
	LIST_EACH(p, &old)
		str_map_set(a, &now, p->key, p->value);
	str_map_set(a, &now, key, value);
	v1->metadata.annotations = now;
}

static void *hpa_from_v2(const void *obj, struct arena *a)
{
	const struct autoscaling_v2_horizontal_pod_autoscaler *v2 = obj;
	struct autoscaling_v1_horizontal_pod_autoscaler *v1 =
		model_new(&autoscaling_v1_horizontal_pod_autoscaler_type, a);
	struct autoscaling_v2_horizontal_pod_autoscaler_spec rest = { 0 };
	v1->metadata = v2->metadata;
	v1->spec.scale_target_ref.api_version = v2->spec.scale_target_ref.api_version;
	v1->spec.scale_target_ref.kind = v2->spec.scale_target_ref.kind;
	v1->spec.scale_target_ref.name = v2->spec.scale_target_ref.name;
	v1->spec.min_replicas = v2->spec.min_replicas;
	v1->spec.max_replicas = v2->spec.max_replicas;
	LIST_EACH(m, &v2->spec.metrics) {
		if (is_cpu(m) && !v1->spec.target_cpu_utilization_percentage.set)
			v1->spec.target_cpu_utilization_percentage =
				m->resource->target.average_utilization;
		else
			*LIST_ADD(a, &rest.metrics) = *m;
	}
	CLEAN_BUF struct buf b = { 0 };
	if (rest.metrics.len) {
		buf_addc(&b, '[');
		LIST_EACH(m, &rest.metrics) {
			if (m != rest.metrics.items)
				buf_addc(&b, ',');
			json_encode(&autoscaling_v2_metric_spec_type, m, &b);
		}
		buf_addc(&b, ']');
		annotate(v1, metrics_key, arena_str(a, buf_str(&b)), a);
	}
	if (v2->spec.behavior) {
		buf_clear(&b);
		json_encode(&autoscaling_v2_horizontal_pod_autoscaler_behavior_type,
			v2->spec.behavior, &b);
		annotate(v1, behavior_key, arena_str(a, buf_str(&b)), a);
	}
	v1->status.observed_generation = v2->status.observed_generation;
	v1->status.last_scale_time = v2->status.last_scale_time;
	v1->status.current_replicas = v2->status.current_replicas;
	v1->status.desired_replicas = v2->status.desired_replicas;
	return v1;
}

const struct conversion conversions[] = {
	{ "events.k8s.io/v1", "events", "v1", event_to_core, event_from_core },
	{ "autoscaling/v1", "horizontalpodautoscalers", "autoscaling/v2", hpa_to_v2, hpa_from_v2 },
	{ 0 },
};
