/* What a ResourceQuota counts: which objects it speaks of, and how much of each of its names one of them takes. For admission, which holds it, and
 * the controller, which tells of it. Upstream: pkg/quota/v1/evaluator/core. */
#ifndef SKIFF_MODEL_QUOTA_H
#define SKIFF_MODEL_QUOTA_H

#include "base/values.h"
#include "gen/types.h"
#include "model/model.h"

/* By its scopes. */
bool quota_speaks_of(
	const struct core_v1_resource_quota_spec *q, const struct type *t, const void *obj);
/* requests.cpu, count/deployments.apps, gold.storageclass.storage.k8s.io/requests.storage … of an object of that resource ("pods",
 * "deployments.apps"). false: the name has nothing to do with it. */
bool quota_takes(struct str name, struct str group_resource, const struct type *t, const void *obj,
	struct quantity *ret);
/* Whether name is an amount of cpu, memory or the like, that containers ask for or are limited to. */
bool quota_compute_name(struct str name, bool *ret_limits, struct str *ret_resource);

#endif
