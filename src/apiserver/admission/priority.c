/* Priority: a pod's class becomes its number; one default class at most. Upstream: plugin/pkg/admission/priority. */
#include "apiserver/admission/admission.h"

struct find_default {
	struct apiserver *server;
	struct arena *arena;
	struct scheduling_v1_priority_class *best;
	struct str except;
};

static bool each_class(void *arg, struct object *o)
{
	struct find_default *f = arg;
	struct str flag = json_member(o->json, STR("globalDefault"));
	void *obj;
	if (!str_eqz(flag, "true") ||
		registry_decode(f->server->known.priority_classes, o, f->arena, &obj, NULL) < 0)
		return true;
	struct scheduling_v1_priority_class *pc = obj;
	if (!str_eq(pc->metadata.name, f->except) && (!f->best || pc->value < f->best->value))
		f->best = pc; /* several: the lowest, as upstream */
	return true;
}

static struct scheduling_v1_priority_class *default_class(
	struct apiserver *s, struct arena *a, struct str except)
{
	struct find_default f = { .server = s, .arena = a, .except = except };
	lookup_each(s, s->known.priority_classes, STR_NONE, each_class, &f);
	return f.best;
}

static struct meta_v1_status *settle(const struct admission_attributes *at,
	struct core_v1_pod_spec *spec, int32_t value, struct str policy)
{
	if (spec->priority.set && spec->priority.value != value)
		return deny(at,
			"the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given"
			" PriorityClass name",
			spec->priority.value, value);
	spec->priority = (struct opt_int32){ true, value };
	if (!policy.len)
		policy = STR("PreemptLowerPriority");
	if (spec->preemption_policy.len && !str_eq(spec->preemption_policy, policy))
		return deny(at,
			"the string value of PreemptionPolicy (" STR_FMT
			") must not be provided in pod spec; priority admission controller computed " STR_FMT
			" from the given PriorityClass name",
			STR_ARG(spec->preemption_policy), STR_ARG(policy));
	spec->preemption_policy = policy;
	return NULL;
}

static struct meta_v1_status *admit_create(
	struct apiserver *s, struct admission_attributes *at, struct core_v1_pod *pod)
{
	struct arena *a = at->req->arena;
	struct scheduling_v1_priority_class *pc = NULL;
	if (!pod->spec.priority_class_name.len) {
		pc = default_class(s, a, STR_NONE);
		if (pc)
			pod->spec.priority_class_name = pc->metadata.name;
	} else if (lookup(s, s->known.priority_classes, STR_NONE, pod->spec.priority_class_name, a,
			   &pc) != 0) {
		return deny(at, "no PriorityClass with name " STR_FMT " was found",
			STR_ARG(pod->spec.priority_class_name));
	}
	return settle(at, &pod->spec, pc ? pc->value : 0, pc ? pc->preemption_policy : STR_NONE);
}

static struct meta_v1_status *admit(struct apiserver *s, struct admission_attributes *at)
{
	struct core_v1_pod *pod = at->obj;
	if (at->operation == VERB_CREATE)
		return admit_create(s, at, pod);
	const struct core_v1_pod *old = at->old;
	if (!pod->spec.priority.set && old->spec.priority.set &&
		str_eq(pod->spec.priority_class_name, old->spec.priority_class_name))
		pod->spec.priority = old->spec.priority;
	if (!pod->spec.preemption_policy.len &&
		str_eq(pod->spec.priority_class_name, old->spec.priority_class_name))
		pod->spec.preemption_policy = old->spec.preemption_policy;
	return NULL;
}

const struct plugin priority_plugin = {
	.name = "Priority",
	.operations = VERB_CREATE | VERB_UPDATE,
	.resources = { "pods" },
	.admit = admit,
};

static struct meta_v1_status *validate_class(struct apiserver *s, struct admission_attributes *at)
{
	const struct scheduling_v1_priority_class *pc = at->obj;
	if (!pc->global_default)
		return NULL;
	const struct scheduling_v1_priority_class *other =
		default_class(s, at->req->arena, pc->metadata.name);
	if (!other)
		return NULL;
	return deny(at,
		"PriorityClass " STR_FMT
		" is already marked as default. Only one default can exist",
		STR_ARG(other->metadata.name));
}

const struct plugin priority_class_plugin = {
	.name = "Priority",
	.operations = VERB_CREATE | VERB_UPDATE,
	.resources = { "priorityclasses.scheduling.k8s.io" },
	.validate = validate_class,
};
