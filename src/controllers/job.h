/* A Job during one reconcile, shared by job.c (what to do), job_count.c (what ended, and how
 * often), job_policy.c (what that means) and job_indexes.c. */
#ifndef SKIFF_CONTROLLERS_JOB_H
#define SKIFF_CONTROLLERS_JOB_H

#include "controllers/internal.h"

#define TRACKING "batch.kubernetes.io/job-tracking"
#define INDEX_KEY "batch.kubernetes.io/job-completion-index"
#define INDEX_FAILURES_KEY "batch.kubernetes.io/job-index-failure-count"

struct index_range {
	int64_t from, to;
};
struct index_set { /* of completion indexes: ascending, apart (job_indexes.c) */
	struct index_range *items;
	size_t n;
};

struct job {
	struct run *r;
	struct batch_v1_job *j; /* a copy; its status is written back */
	struct str key;
	struct objects pods;               /* all that it controls */
	const struct core_v1_pod **active; /* neither ended nor going */
	size_t n_active;
	int ready, terminating;
	struct index_set completed, failed_indexes; /* as the status will say */
	struct objects by_index; /* all pods with an index, by it (job_pods_of_index) */
	struct objects noted; /* ended, and in the status that is written: their finalizer may go */
	bool more;            /* ended ones that had no room in this status */
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
struct objects job_pods_of_index(const struct job *x, int index); /* a part of by_index */
/* Takes the finalizer off these pods. */
int job_release_pods(struct job *x, const struct objects *pods, struct err *err);
int pod_drop_tracking(struct run *r, const struct core_v1_pod *p, struct err *err);
struct index_set indexes_parse(struct str text, struct arena *a); /* up to what is no index */
struct index_set indexes_with(const struct index_set *s, const int *add, size_t n, struct arena *a);
size_t indexes_find(const struct index_set *s, int64_t index);
bool indexes_have(const struct index_set *s, int64_t index);
int indexes_count(const struct index_set *s);
int indexes_common(const struct index_set *a, const struct index_set *b, int below);
struct str indexes_text(const struct index_set *s, struct arena *a);
/* When may pods be made again after failures (of one index; -1: of any): milliseconds to wait, 0: now. */
uint64_t job_backoff_ms(const struct job *x, int index);

/* ---- job_policy.c ---- */
enum failure_action { FAILURE_COUNTS, FAILURE_IGNORED, FAILURE_OF_INDEX, FAILURE_OF_JOB };
enum failure_action job_failure_action(const struct batch_v1_job *j, const struct core_v1_pod *p);
int job_index_failures(const struct job *x, int index); /* how often it failed so far */
void job_find_failed_indexes(struct job *x);            /* into status.failedIndexes */
int job_success_rule(const struct batch_v1_job *j, const struct index_set *completed,
	struct arena *a); /* the first rule of successPolicy that is met; -1: none */

#endif
