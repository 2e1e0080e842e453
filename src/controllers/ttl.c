/* Deletes Jobs that ended ttlSecondsAfterFinished ago. Upstream: pkg/controller/ttlafterfinished. */
#include "controllers/job.h"

#include "controllers/table.h"

static int reconcile(struct run *r, struct str key, struct err *err)
{
	const struct batch_v1_job *cached = cache_object(r, &batch_v1_job_type, key);
	struct batch_v1_job *j;

	if (!cached || !cached->spec.ttl_seconds_after_finished.set ||
		!time_is_zero(cached->metadata.deletion_timestamp))
		return 0;
	const struct batch_v1_job_condition *end = job_condition(cached, "Complete");

	end = end ? end : job_condition(cached, "Failed");
	if (!end)
		return 0;
	double left = (double)cached->spec.ttl_seconds_after_finished.value -
		time_diff_s(r->now, end->last_transition_time);

	if (left > 0) {
		requeue_within(r, ms_of(left) + 1);
		return 0;
	}
	/* The time to live may have been raised meanwhile. */
	int ret = client_get(r->client, &batch_v1_job_type, cached->metadata.namespace,
		cached->metadata.name, r->arena, (void **)&j, err);

	if (ret)
		return ret == CLIENT_NOT_FOUND ? 0 : ret;
	if (j->spec.ttl_seconds_after_finished.value !=
		cached->spec.ttl_seconds_after_finished.value)
		return err_set(err, CLIENT_CONFLICT, "its time to live changed");
	const struct client_delete o = { .grace_seconds = -1,
		.uid = j->metadata.uid,
		.resource_version = j->metadata.resource_version,
		.propagation = "Foreground" };

	ret = client_delete(
		r->client, &batch_v1_job_type, j->metadata.namespace, j->metadata.name, &o, err);
	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

const struct controller ttl_after_finished_controller = {
	.name = "ttl-after-finished",
	.bulk = true,
	.watches = { { &batch_v1_job_type, map_self } },
	.reconcile = reconcile,
};
