/* etcd v3 as the remote of a shared store: its calls over gRPC, and the rules by which several API servers live on one etcd. Knows keys and
 * bytes, no kinds. Upstream: apiserver's storage/etcd3.
 *
 * 1. A write is a transaction of one key with a condition on its mod_revision, so a revision is one write. What becomes of a write whose
 *    answer was lost is not known, and it is never sent twice: its client is told so (-ETIMEDOUT).
 * 2. One watch over all of etcd's keys feeds the store. So every revision that etcd reaches shows as an event, and "caught up" needs no
 *    progress notices, which older versions send too early.
 * 3. Any member may be connected; when it does not answer, knows no leader or goes, the next one is, and the watch goes on where it was.
 * 4. The cluster's number is remembered beside the data: another cluster under the same URL is refused. */
#ifndef SKIFF_ETCD_H
#define SKIFF_ETCD_H

#include "base/base.h"
#include "store/store.h"

struct etcd;
struct etcd_config {
	const char *urls;                           /* https://a:2379,https://b:2379 */
	const char *ca_file, *cert_file, *key_file; /* PEM; NULL: the system's, none */
	const char *id_file; /* remembers the cluster's number; NULL: any will do */
	unsigned timeout_ms; /* for the first answer; 0: 10 s */
	bool history; /* the first load is of some minutes ago, where etcd still knows that, so that watchers of before go on */
};
/* Connects and looks whether this is the right cluster. -EHOSTUNREACH: no member answers; -EBADMSG: another cluster's data. */
int etcd_open(const struct etcd_config *c, struct etcd **ret, struct err *err);
void etcd_close(struct etcd *e);                   /* NULL is fine */
extern const struct store_remote_type etcd_remote; /* for a struct etcd */

/* Forgets old revisions every 5 minutes, each of them once whoever else does so too. Ends with etcd_close. */
int etcd_compact_start(struct etcd *e, struct err *err);

/* ---- one key at a time; blocking ---- */
/* Keys with an end share leases, so one may live a minute longer than ttl_s. One thread at a time. */
int etcd_put(struct etcd *e, struct str key, struct str value, int64_t ttl_s, struct err *err);
int etcd_count(struct etcd *e, struct str prefix, uint64_t *ret, struct err *err);
int etcd_revision(struct etcd *e, uint64_t *ret, struct err *err); /* the newest */

/* ---- what restoring needs (restore.c); no server may run ---- */
int etcd_clear(
	struct etcd *e, struct str prefix, struct err *err); /* deletes all keys that begin so */
/* Writes until etcd is at this revision, some 10,000 a second, and has it forget all before: a cursor or a cache of before finds nothing to go on with. */
int etcd_advance(struct etcd *e, uint64_t revision, struct err *err);

#endif
