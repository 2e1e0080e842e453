/* Addresses and node ports of services: who holds which. Thread-safe. */
#ifndef SKIFF_REGISTRY_CLAIMS_H
#define SKIFF_REGISTRY_CLAIMS_H

#include "registry/kinds/kinds.h"

enum { CLAIM_TAKEN = 1, CLAIM_OUT_OF_RANGE, CLAIM_FULL };

int claims_new(const char *cidr, int port_first, int port_last, struct service_claims **ret,
	struct err *err);
void claims_free(struct service_claims *c);
const char *claims_cidr(const struct service_claims *c);
struct str claims_first_address(const struct service_claims *c, struct arena *a);
/* The tenth address: nodes answer DNS there, whatever services say. It is never chosen for a client. */
bool claims_is_dns(const struct service_claims *c, struct str ip);
int claims_take_address(struct service_claims *c, struct str ip);
int claims_choose_address(struct service_claims *c, struct arena *a, struct str *ret);
void claims_drop_address(struct service_claims *c, struct str ip);
int claims_take_port(struct service_claims *c, struct str protocol, int port);
int claims_choose_port(struct service_claims *c, struct str protocol, int *ret);
void claims_drop_port(struct service_claims *c, struct str protocol, int port);

/* Of a shared store: from the first call on, take, choose and drop are about writes under way, and what stored services hold is told here. */
void claims_stored_none(struct service_claims *c); /* nothing, until told */
void claims_stored_address(struct service_claims *c, struct str ip, bool held);
void claims_stored_port(struct service_claims *c, struct str protocol, int port, bool held);

#endif
