/* DefaultTolerationSeconds: pods bear a node that is not ready or unreachable for five minutes unless they say otherwise; and
 * TaintNodesByCondition: a new node takes no pods until it was seen to be ready. Upstream: plugin/pkg/admission/{defaulttolerationseconds,nodetaint}. */
#include "apiserver/admission/admission.h"

static bool tolerates(const struct core_v1_pod_spec *spec, const char *key)
{
	LIST_EACH(t, &spec->tolerations)
		if ((str_eqz(t->key, key) || !t->key.len) &&
			(str_eqz(t->effect, "NoExecute") || !t->effect.len))
			return true;
	return false;
}

static struct meta_v1_status *admit_pod(struct apiserver *s, struct admission_attributes *at)
{
	static const char *const keys[] = { "node.kubernetes.io/not-ready",
		"node.kubernetes.io/unreachable" };
	struct core_v1_pod *pod = at->obj;
	bool missing[ARRAY_LEN(keys)];
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		missing[i] = !tolerates(&pod->spec, keys[i]);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (!missing[i])
			continue;
		*LIST_ADD(at->req->arena, &pod->spec.tolerations) =
			(struct core_v1_toleration){ .key = str_of(keys[i]),
				.operator= STR("Exists"),
				.effect = STR("NoExecute"),
				.toleration_seconds = SOME(300) };
	}
	return NULL;
}

const struct plugin default_tolerations_plugin = {
	.name = "DefaultTolerationSeconds",
	.operations = VERB_CREATE | VERB_UPDATE,
	.resources = { "pods" },
	.admit = admit_pod,
};

static struct meta_v1_status *admit_node(struct apiserver *s, struct admission_attributes *at)
{
	struct core_v1_node *node = at->obj;
	LIST_EACH(t, &node->spec.taints)
		if (str_eqz(t->key, "node.kubernetes.io/not-ready") &&
			str_eqz(t->effect, "NoSchedule"))
			return NULL;
	*LIST_ADD(at->req->arena, &node->spec.taints) =
		(struct core_v1_taint){ .key = STR("node.kubernetes.io/not-ready"),
			.effect = STR("NoSchedule") };
	return NULL;
}

const struct plugin node_taint_plugin = {
	.name = "TaintNodesByCondition",
	.operations = VERB_CREATE,
	.resources = { "nodes" },
	.admit = admit_node,
};
