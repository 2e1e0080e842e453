/* A Deployment during one reconcile, shared by deployment.c (what to do next), rollout.c (arithmetic without side effects) and
 * deployment_status.c. All memory is the reconcile's. */
#ifndef SKIFF_CONTROLLERS_ROLLOUT_H
#define SKIFF_CONTROLLERS_ROLLOUT_H

#include "controllers/internal.h"

#define HASH_LABEL "pod-template-hash"
#define REVISION "deployment.kubernetes.io/revision"
#define REVISION_HISTORY "deployment.kubernetes.io/revision-history"
#define DESIRED_REPLICAS "deployment.kubernetes.io/desired-replicas"
#define MAX_REPLICAS "deployment.kubernetes.io/max-replicas"

struct rollout {
	struct run *r;
	struct apps_v1_deployment *d;     /* a copy that may be changed */
	struct apps_v1_replica_set **all; /* copies; oldest first */
	size_t n_all;
	struct apps_v1_replica_set *new_set; /* one of all, or NULL */
};
#define SET_EACH(it, o) \
	for (struct apps_v1_replica_set **it = (o)->all; it < (o)->all + (o)->n_all; it++)

/* ---- rollout.c ---- */
int rollout_replicas(const struct apps_v1_deployment *d);
int set_replicas(const struct apps_v1_replica_set *rs);
bool is_rolling(const struct apps_v1_deployment *d);
void rollout_bounds(const struct apps_v1_deployment *d, int *ret_surge, int *ret_unavailable);
int rollout_total(const struct rollout *o, bool old_only); /* sum of spec.replicas */
int rollout_available(const struct rollout *o);            /* sum of status.availableReplicas */
int rollout_new_size(const struct rollout *o,
	const struct apps_v1_replica_set *rs); /* what the new set should have now */
int rollout_may_go(const struct rollout *o);   /* how many old pods may be taken away */
/* Proportional scaling: the size each active set should get, in `ret` beside all. */
void rollout_proportions(const struct rollout *o, int *ret_sizes);
bool template_equal_but_hash(const struct core_v1_pod_template_spec *a,
	const struct core_v1_pod_template_spec *b, struct arena *arena);
int64_t annotation_int(const struct meta_v1_object_meta *m, const char *key, int64_t fallback);
bool rollout_has_deadline(const struct apps_v1_deployment *d);
bool rollout_complete(
	const struct apps_v1_deployment *d, const struct apps_v1_deployment_status *st);

/* ---- deployment_status.c ---- */
const struct apps_v1_deployment_condition *deployment_condition(
	const struct apps_v1_deployment_status *st, const char *type);
void set_deployment_condition(struct run *r, struct apps_v1_deployment_status *st, const char *type,
	const char *status, const char *reason, struct str message);
int write_deployment(struct rollout *o, struct err *err); /* status and the revision annotation */
int sync_status(struct rollout *o, struct err *err);      /* paused, scaling, being deleted */
int sync_rollout_status(struct rollout *o, struct err *err); /* with progress */

#endif
