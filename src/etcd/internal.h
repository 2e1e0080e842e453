/* What the files of this folder share.
 *
 *   etcd.c      opening, blocking calls, loading
 *   remote.c    writes, the question for the newest revision, the watch
 *   lease.c     leases that keys with an end are put under
 *   compact.c   forgetting old revisions
 *   restore.c   what restoring needs
 *
 * Answers arrive on the gRPC client's thread. */
#ifndef SKIFF_ETCD_INTERNAL_H
#define SKIFF_ETCD_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "codec/codec.h"
#include "etcd/etcd.h"
#include "gen/types.h"
#include "net/net.h"

#define ETCD_PREFIX "/registry/"
#define ETCD_COMPACT_KEY \
	"compact_rev_key" /* upstream's: holds what etcd's revision was at the last compaction */
#define ETCD_GUARD "skiff/guard/" /* keys of guards */
#define ETCD_CALL_MS 10000
#define LEASE_REUSE_S 60 /* a lease takes keys for so long */

struct txn;
struct lease_pool {
	pthread_mutex_t lock; /* guards what follows */
	int64_t id, ttl_s;
	uint64_t until_ns; /* no more keys are put under it */
	unsigned uses;
	bool granting;
	struct txn *waiting; /* writes that need the next one */
};

struct watch {
	struct store *store;    /* NULL: nobody follows */
	struct grpc_call *call; /* the client's thread's, as what follows */
	uint64_t revision;      /* everything up to here was told */
};

struct etcd {
	struct grpc_client *client;
	struct tls_context *tls;
	char *urls_text;
	const char *urls[16];
	size_t n_urls;
	uint64_t cluster_id;
	_Atomic uint64_t db_size;
	uint64_t told_ns; /* when a failed connection was logged last; the client's thread's */
	bool history;     /* load begins in the past, once */
	struct lease_pool leases;
	struct watch watch;
	atomic_bool closing; /* nothing is tried again */

	int64_t put_lease, put_ttl_s; /* etcd_put's */
	uint64_t put_until_ns;

	pthread_t compactor;
	bool compacting;
	pthread_mutex_t lock; /* guards stop */
	pthread_cond_t wake;
	bool stop;
};

/* One message there, one back, decoded into the arena. Tried again while no server answers, until timeout_ms have passed. */
int etcd_call(struct etcd *e, const char *path, const struct type *req_type, const void *req,
	const struct type *type, struct arena *a, unsigned timeout_ms, void **ret, struct err *err);
/* The same, as an answer's header says; false: another cluster answered. */
bool etcd_header_fits(const struct etcd *e, const struct etcd_v3_response_header *h);
/* etcd's own answer that nothing was done, since it knows no leader. */
bool etcd_no_leader(struct str text);
/* The first key after all that begin with prefix; "" is none: it ends in 0xff alone. */
struct str etcd_prefix_end(struct arena *a, struct str prefix);

/* A transaction on its way. */
struct txn {
	struct txn *next;
	struct etcd *etcd;
	struct store *store;
	void *token;
	int verb;
	struct str key, value, guard; /* in one piece with the txn; guard is a key, empty: none */
	uint64_t guard_revision;
	uint64_t expect, deadline_ns;
	int64_t ttl_s, lease;
	int result;
	uint64_t revision;
};
void txn_send(struct txn *t);
void txn_fail(struct txn *t, int result);

/* Sends t under a lease of about its time: at once, or when the lease is there. */
void lease_send(struct etcd *e, struct txn *t);
void lease_forget(struct etcd *e, int64_t id); /* it is gone */

void remote_follow(void *remote, struct store *s, uint64_t revision);
void remote_write(void *remote, struct store *s, const struct store_remote_write *w);
void remote_ask(void *remote, struct store *s);
void remote_hurry(void *remote, unsigned within_ms);
void compact_stop(struct etcd *e);

#endif
