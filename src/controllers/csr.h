/* What csr.c (signs) and csr_verdict.c (approves) share. */
#ifndef SKIFF_CONTROLLERS_CSR_H
#define SKIFF_CONTROLLERS_CSR_H

#include "controllers/internal.h"

#define NODE_PREFIX "system:node:"
#define NETWORK_PREFIX "system:node-network:"
#define NODES_GROUP "system:nodes"
#define NETWORK_GROUP "skiff:node-network"
#define SERVER_NODES_GROUP "skiff:server-nodes"

/* One who asks, at one request. */
struct csr_question {
	const struct certificates_v1_certificate_signing_request *csr;
	struct csr_info info;
	struct str node; /* whose certificate it is to be */
};
struct csr_verdict {
	const char *type; /* Approved, Denied; NULL: left to people */
	const char *reason;
	struct str message;
};
/* 0, or what the client said. */
typedef int (*csr_judge_fn)(
	struct run *r, const struct csr_question *q, struct csr_verdict *ret, struct err *err);
int csr_judge_node(
	struct run *r, const struct csr_question *q, struct csr_verdict *ret, struct err *err);
int csr_judge_serving(
	struct run *r, const struct csr_question *q, struct csr_verdict *ret, struct err *err);
int csr_judge_network(
	struct run *r, const struct csr_question *q, struct csr_verdict *ret, struct err *err);

int csr_judge_init(struct run *r, struct err *err);
void csr_judge_deinit(struct run *r);

#endif
