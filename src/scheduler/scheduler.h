/* Binds pods to nodes: queue, snapshot of nodes as arrays, filter and score plugins as rows. Upstream: kube-scheduler. */
#ifndef SKIFF_SCHEDULER_H
#define SKIFF_SCHEDULER_H

#include "client/client.h"

struct scheduler_config {
	struct client *client;
	struct informers *informers;       /* shared; started by the owner after scheduler_new */
	const struct clock *clock;
	const char *name;                  /* NULL: default-scheduler */
	uint64_t seed;                     /* of tie-breaks; 0: random */
};
struct scheduler;
int scheduler_new(const struct scheduler_config *c, struct scheduler **ret, struct err *err);
int scheduler_start(struct scheduler *s, struct err *err);
void scheduler_stop(struct scheduler *s);
void scheduler_free(struct scheduler *s);
#endif
