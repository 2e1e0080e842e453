/* The list of all controllers, in the order in which they get their first turn. */
#ifndef SKIFF_CONTROLLERS_TABLE_H
#define SKIFF_CONTROLLERS_TABLE_H

#include "controllers/internal.h"

#define CONTROLLERS(X) \
	X(namespace_controller) \
	X(serviceaccount_controller) \
	X(root_ca_controller) \
	X(deployment_controller) \
	X(replicaset_controller) \
	X(replication_controller) \
	X(endpoints_controller) \
	X(endpointslice_controller) \
	X(service_lb_controller) \
	X(garbage_collector) \
	X(node_lifecycle_controller) \
	X(taint_eviction_controller) \
	X(pod_gc_controller) \
	X(node_ipam_controller) \
	X(csr_controller) \
	X(daemonset_controller) \
	X(statefulset_controller) \
	X(disruption_controller) \
	X(job_controller) \
	X(ttl_after_finished_controller) \
	X(cronjob_controller) \
	X(clusterrole_aggregation_controller) \
	X(slice_mirroring_controller) \
	X(quota_controller) \
	X(bootstrap_controller) \
	X(claim_protection_controller) \
	X(volume_protection_controller) \
	X(volume_binder_controller)

#define DECLARE_CONTROLLER(c) extern const struct controller c;
CONTROLLERS(DECLARE_CONTROLLER)
#undef DECLARE_CONTROLLER

#define COUNT_CONTROLLER(c) +1
enum { N_CONTROLLERS = 0 CONTROLLERS(COUNT_CONTROLLER) };
#undef COUNT_CONTROLLER
extern const struct controller *const controller_rows[N_CONTROLLERS];

#endif
