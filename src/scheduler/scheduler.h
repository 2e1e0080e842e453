/* Binds pods to nodes: queue, snapshot of nodes as arrays, filter and score plugins as rows. Upstream: kube-scheduler. */
#ifndef SKIFF_SCHEDULER_H
#define SKIFF_SCHEDULER_H

#include "client/client.h"

struct scheduler_config {
	struct client *client;
	struct informers *informers; /* shared; started by the owner after scheduler_new */
	const struct clock *clock;
	const char *name; /* NULL: default-scheduler */
	uint64_t seed;    /* of tie-breaks; 0: random */
};
struct scheduler;
int scheduler_new(const struct scheduler_config *c, struct scheduler **ret, struct err *err);
int scheduler_start(struct scheduler *s, struct err *err);
void scheduler_stop(struct scheduler *s);
void scheduler_free(struct scheduler *s);

/* What the filters say of one pod and each node, from lists as the API gives them; nothing runs. For `skiff why`. */
struct scheduler_verdict {
	struct str node;
	const char *plugin; /* the first that refuses; NULL: the node fits */
	struct str reasons; /* its reasons, joined by ", " */
};
struct scheduler_verdict *scheduler_explain(const struct core_v1_node_list *nodes,
	const struct core_v1_pod_list *pods, const struct core_v1_pod *pod, struct arena *a,
	size_t *ret_n);
#endif
