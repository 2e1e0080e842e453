/* A Job during one reconcile, shared by job.c (what to do), job_count.c (what ended, and how
 * often), job_policy.c (what that means) and job_indexes.c. */
#ifndef SKIFF_CONTROLLERS_JOB_H
#define SKIFF_CONTROLLERS_JOB_H

#include "controllers/internal.h"

#define TRACKING "batch.kubernetes.io/job-tracking"
#define INDEX_KEY "batch.kubernetes.io/job-completion-index"
#define INDEX_FAILURES_KEY "batch.kubernetes.io/job-index-failure-count"

struct job {
	struct run *r;
	struct batch_v1_job *j; /* a copy; its status is written back */
	struct str key;
	struct objects pods;               /* all that it controls */
	const struct core_v1_pod **active; /* neither ended nor going */
	size_t n_active;
	int ready, terminating;
	int succeeded, failed;   /* as the status will say once all is counted */
	const char *fail_reason; /* of a podFailurePolicy's FailJob; NULL: none */
	struct str fail_message;
};

bool job_indexed(const struct batch_v1_job *j);
int pod_index(const struct core_v1_pod *p); /* -1: none */
bool job_counts_as_failed(const struct batch_v1_job *j, const struct core_v1_pod *p);
const struct batch_v1_job_condition *job_condition(
	const struct batch_v1_job *j, const char *type); /* with status True */

/* Notes pods that ended in status.uncountedTerminatedPods, and counts those whose finalizer is gone. */
void job_count(struct job *x);
/* Takes the finalizer off pods that the stored status has noted. */
int job_release_pods(struct job *x, bool all, struct err *err);
int pod_drop_tracking(struct run *r, const struct core_v1_pod *p, struct err *err);
/* Index sets as text: "0-2,4". */
bool indexes_have(struct str text, int index);
struct str indexes_add(struct str text, int index, struct arena *a);
int indexes_count(struct str text);
/* When may pods be made again after failures (of one index; -1: of any): milliseconds to wait, 0: now. */
uint64_t job_backoff_ms(const struct job *x, int index);

/* ---- job_policy.c ---- */
enum failure_action { FAILURE_COUNTS, FAILURE_IGNORED, FAILURE_OF_INDEX, FAILURE_OF_JOB };
enum failure_action job_failure_action(const struct batch_v1_job *j, const struct core_v1_pod *p);
int job_index_failures(const struct job *x, int index); /* how often it failed so far */
void job_find_failed_indexes(struct job *x);            /* into status.failedIndexes */
int job_success_rule(
	const struct batch_v1_job *j); /* the first rule of successPolicy that is met; -1: none */

#endif
