/* Forgetting old revisions: every PERIOD_S what was there a period before. Every API server on an etcd tries, upstream's too, and one does it:
 * the one whose transaction on compact_rev_key finds the version that it saw last. Nobody leads. */
#include <stdio.h>

#include "etcd/internal.h"
#include "io/io.h"

enum { PERIOD_S = 300 };
#define KEY STR(ETCD_COMPACT_KEY)

struct round {
	int64_t version;  /* of the key, as seen last */
	int64_t revision; /* etcd's then: what is forgotten next */
};

static int forget(struct etcd *e, struct arena *a, int64_t revision, struct err *err)
{
	struct etcd_v3_compaction_request req = { .revision = revision };
	void *resp;
	int r = etcd_call(e, "/etcdserverpb.KV/Compact", &etcd_v3_compaction_request_type, &req,
		&etcd_v3_compaction_response_type, a, ETCD_CALL_MS, &resp, err);
	if (r && err && strstr(err->text, "compacted"))
		return 0; /* somebody did */
	if (r == 0)
		log_debug("etcd", "forgot what was before revision %lld", (long long)revision);
	return r;
}

static int once(struct etcd *e, struct round *seen, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	char text[24];
	int n = snprintf(text, sizeof(text), "%lld", (long long)seen->revision);
	struct etcd_v3_compare c = { .key = KEY, .version = SOME(seen->version) };
	struct etcd_v3_put_request put = { .key = KEY, .value = str_n(text, (size_t)n) };
	struct etcd_v3_range_request read = { .key = KEY };
	struct etcd_v3_request_op yes = { .request_put = &put }, no = { .request_range = &read };
	struct etcd_v3_txn_request req = {
		.compare = { &c, 1 }, .success = { &yes, 1 }, .failure = { &no, 1 }
	};
	struct etcd_v3_txn_response *resp;
	int r = etcd_call(e, "/etcdserverpb.KV/Txn", &etcd_v3_txn_request_type, &req,
		&etcd_v3_txn_response_type, a, ETCD_CALL_MS, (void **)&resp, err);
	if (r)
		return r;
	int64_t due = seen->revision;
	seen->revision = resp->header ? resp->header->revision : 0;
	if (!resp->succeeded) {
		const struct etcd_v3_range_response *now =
			resp->responses.len ? resp->responses.items[0].response_range : NULL;
		seen->version = now && now->kvs.len ? now->kvs.items[0].version : 0;
		return 0;
	}
	seen->version++;
	return due ? forget(e, a, due, err) : 0;
}

static void measure(struct etcd *e)
{
	CLEAN_ARENA struct arena *a = arena_new(512);
	struct etcd_v3_status_request req = { 0 };
	struct etcd_v3_status_response *resp;
	if (etcd_call(e, "/etcdserverpb.Maintenance/Status", &etcd_v3_status_request_type, &req,
		    &etcd_v3_status_response_type, a, ETCD_CALL_MS, (void **)&resp, NULL) == 0)
		atomic_store(&e->db_size, (uint64_t)resp->db_size);
}

/* false: the end. */
static bool pause_s(struct etcd *e, time_t seconds)
{
	struct timespec until;
	int r = 0;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&e->lock);
	while (!e->stop && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&e->wake, &e->lock, &until);
	bool stop = e->stop;
	pthread_mutex_unlock(&e->lock);
	return !stop;
}

static void *run(void *arg)
{
	struct etcd *e = arg;
	struct round seen = { 0 };
	do {
		struct err err = { 0 };
		measure(e);
		if (once(e, &seen, &err))
			log_warn("etcd", "old revisions are not forgotten: %s", err.text);
	} while (pause_s(e, PERIOD_S));
	return NULL;
}

int etcd_compact_start(struct etcd *e, struct err *err)
{
	int r = thread_start(&e->compactor, "etcd-compact", run, e);
	if (r)
		return err_errno(err, r, "start the thread that forgets old revisions");
	e->compacting = true;
	return 0;
}

void compact_stop(struct etcd *e)
{
	if (!e->compacting)
		return;
	pthread_mutex_lock(&e->lock);
	e->stop = true;
	pthread_cond_signal(&e->wake);
	pthread_mutex_unlock(&e->lock);
	pthread_join(e->compactor, NULL);
}
