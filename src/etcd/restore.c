/* What restoring a cluster into etcd needs: room, and a revision beyond everything that a client may remember.
 *
 * etcd's revision rises by one with each transaction and cannot be set, so one key is written as often as it takes, many writes on their way at a
 * time. What was written is forgotten at once. */
#include "etcd/internal.h"

enum { IN_FLIGHT = 500, STEP = 50000, FAILURES_MAX = 1000 };
#define KEY STR("skiff/restore")

struct advance {
	struct etcd *etcd;
	struct buf request;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t ended;
	uint64_t left; /* to be sent */
	unsigned running, failures;
};

static void advance_start(struct advance *v);

static void advance_ended(void *arg, int status, struct str text, bool sent)
{
	struct advance *v = arg;
	pthread_mutex_lock(&v->lock);
	v->failures += status != GRPC_OK;
	bool more = v->left && v->failures < FAILURES_MAX;
	v->left -= more;
	v->running -= !more;
	if (!v->running)
		pthread_cond_signal(&v->ended);
	pthread_mutex_unlock(&v->lock);
	if (more)
		advance_start(v);
}

static void advance_message(void *arg, struct str message) {}

static void advance_start(struct advance *v)
{
	static const struct grpc_events events = { advance_message, advance_ended };
	grpc_call_start(v->etcd->client, "/etcdserverpb.KV/Put", buf_str(&v->request), ETCD_CALL_MS,
		false, &events, v);
}

/* Some n writes; how far that came the revision tells. */
static int advance_by(struct etcd *e, uint64_t n, struct err *err)
{
	struct etcd_v3_put_request put = { .key = KEY };
	struct advance v = {
		.etcd = e, .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER
	};
	unsigned running = (unsigned)MIN(n, (uint64_t)IN_FLIGHT);
	proto_encode(&etcd_v3_put_request_type, &put, &v.request);
	v.running = running;
	v.left = n - running;
	for (unsigned i = 0; i < running; i++)
		advance_start(&v);
	pthread_mutex_lock(&v.lock);
	while (v.running)
		pthread_cond_wait(&v.ended, &v.lock);
	pthread_mutex_unlock(&v.lock);
	buf_deinit(&v.request);
	return v.failures < FAILURES_MAX
		? 0
		: err_set(err, -EIO, "etcd does not take writes: see its log");
}

static int forget_before(struct etcd *e, uint64_t revision, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(512);
	struct etcd_v3_compaction_request req = { .revision = (int64_t)revision };
	void *resp;
	int r = etcd_call(e, "/etcdserverpb.KV/Compact", &etcd_v3_compaction_request_type, &req,
		&etcd_v3_compaction_response_type, a, 3 * ETCD_CALL_MS, &resp, err);
	return r && err && strstr(err->text, "compacted") ? 0 : r;
}

int etcd_clear(struct etcd *e, struct str prefix, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(512);
	struct etcd_v3_delete_range_request req = { .key = prefix,
		.range_end = etcd_prefix_end(a, prefix) };
	void *resp;
	return etcd_call(e, "/etcdserverpb.KV/DeleteRange", &etcd_v3_delete_range_request_type,
		&req, &etcd_v3_delete_range_response_type, a, 3 * ETCD_CALL_MS, &resp, err);
}

int etcd_advance(struct etcd *e, uint64_t revision, struct err *err)
{
	uint64_t now = 0;
	int r = etcd_revision(e, &now, err);
	while (r == 0 && now < revision) {
		r = advance_by(e, MIN(revision - now, (uint64_t)STEP), err);
		r = r ? r : etcd_revision(e, &now, err);
		r = r ? r : forget_before(e, now, err);
	}
	r = r ? r : etcd_clear(e, KEY, err);
	r = r ? r : etcd_revision(e, &now, err);
	return r ? r : forget_before(e, now, err);
}
