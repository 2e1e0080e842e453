/* A set's templates over time, kept as ControllerRevisions. Upstream: pkg/controller/history. For DaemonSets and StatefulSets. */
#ifndef SKIFF_CONTROLLERS_HISTORY_H
#define SKIFF_CONTROLLERS_HISTORY_H

#include "controllers/internal.h"

#define REVISION_HASH_LABEL "controller-revision-hash"

struct history {
	struct run *r;
	const struct type *owner_type;
	const void *owner;
	const struct selector *selector;
	const struct core_v1_pod_template_spec *template;
	struct opt_int32 *
		collisions; /* of the status; raised here when a name is taken by another template */
	/* out */
	struct apps_v1_controller_revision **all; /* oldest first; the current one is among them */
	size_t n_all;
	struct apps_v1_controller_revision *current; /* of the present template */
};
/* Finds or makes the revision of the present template; it gets the highest number. */
int history_sync(struct history *h, struct err *err);
/* Deletes the oldest ones beyond `limit`, but those that `in_use` names. */
int history_truncate(struct history *h, int32_t limit,
	bool (*in_use)(void *arg, const struct apps_v1_controller_revision *c), void *arg,
	struct err *err);
/* The template that a revision stands for. */
int history_template(struct run *r, const struct apps_v1_controller_revision *c,
	struct core_v1_pod_template_spec **ret, struct err *err);
struct str history_hash(const struct apps_v1_controller_revision *c);

#endif
