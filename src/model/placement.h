/* Rules on which node a pod may stand, shared by the scheduler, the DaemonSet controller and the kubelet's admission.
 * Source: https://kubernetes.io/docs/concepts/scheduling-eviction/ (taints and tolerations, assigning pods to nodes). */
#ifndef SKIFF_MODEL_PLACEMENT_H
#define SKIFF_MODEL_PLACEMENT_H

#include "gen/types.h"
#include "model/model.h"

bool toleration_tolerates(const struct core_v1_toleration *t, const struct core_v1_taint *taint);
/* The first taint of one of these effects that no toleration covers; NULL: none. effects: NULL-terminated. */
const struct core_v1_taint *taints_untolerated(const struct core_v1_taint_items *taints,
	const struct core_v1_toleration_items *tolerations, const char *const *effects);
bool node_selector_term_matches(const struct core_v1_node_selector_term *term,
	const struct str_map *labels, struct str node_name);
/* nodeSelector and the required node affinity. */
bool pod_node_affinity_matches(
	const struct core_v1_pod_spec *spec, const struct str_map *labels, struct str node_name);

/* What a pod asks for of one resource ("cpu" in thousandths, others in whole units): the larger of its containers' sum and its largest init
 * container (sidecars counted in), plus overhead; pod-level resources win. missing: what a container that asks for nothing counts as. */
int64_t pod_request(const struct core_v1_pod_spec *spec, struct str resource, int64_t missing);
int64_t resource_amount(struct str resource, struct str quantity);
/* Calls fn once for each resource that any container, or the pod, asks for. */
void pod_each_resource(
	const struct core_v1_pod_spec *spec, void (*fn)(void *arg, struct str resource), void *arg);

#endif
