/* Writes, the question for the newest revision, and the watch that feeds the store. */
#include "etcd/internal.h"

enum { ASK_MS = 5000 };

/* ---- writes ---- */

static void txn_end(struct txn *t)
{
	store_remote_answer(t->store, t->token, t->result, t->revision);
	free(t);
}

void txn_fail(struct txn *t, int result)
{
	t->result = result;
	txn_end(t);
}

static void txn_message(void *arg, struct str message)
{
	struct txn *t = arg;
	CLEAN_ARENA struct arena *a = arena_new(1024);
	struct etcd_v3_txn_response *resp;
	if (proto_decode(&etcd_v3_txn_response_type, message, a, (void **)&resp, NULL) ||
		!resp->header)
		return;
	t->revision = (uint64_t)resp->header->revision;
	t->result = 0;
	if (resp->succeeded)
		return;
	bool there = resp->responses.len && resp->responses.items[0].response_range &&
		resp->responses.items[0].response_range->kvs.len;
	if (t->verb == STORE_CREATE)
		t->result = there ? STORE_EXISTS : STORE_CONFLICT; /* the guard's */
	else
		t->result = there ? STORE_CONFLICT : STORE_NOT_FOUND;
}

/* What a failed call says about a write. */
static int failure(int status, struct str text, bool sent)
{
	if (status == GRPC_RESOURCE_EXHAUSTED && str_find_str(text, STR("space")) >= 0)
		return -ENOSPC;
	if ((status == GRPC_INVALID_ARGUMENT && str_find_str(text, STR("too large")) >= 0) ||
		(status == GRPC_RESOURCE_EXHAUSTED &&
			str_find_str(text, STR("larger than max")) >= 0))
		return -EMSGSIZE;
	if (!sent || etcd_no_leader(text))
		return -EHOSTUNREACH;
	return status == GRPC_UNAVAILABLE || status == GRPC_DEADLINE_EXCEEDED ||
			status == GRPC_CANCELLED
		? -ETIMEDOUT
		: -EIO;
}

static void txn_answered(void *arg, int status, struct str text, bool sent)
{
	struct txn *t = arg;
	if (status == GRPC_OK) {
		txn_end(t);
		return;
	}
	t->result = failure(status, text, sent);
	if (t->lease && str_find_str(text, STR("lease not found")) >= 0) {
		lease_forget(t->etcd, t->lease);
		t->lease = 0;
		lease_send(t->etcd, t);
		return;
	}
	/* It did not happen, so it may be sent again. */
	if (t->result == -EHOSTUNREACH && !atomic_load(&t->etcd->closing) &&
		mono_now_ns() < t->deadline_ns) {
		if (etcd_no_leader(text))
			grpc_client_rotate(t->etcd->client, "it has no leader");
		txn_send(t);
		return;
	}
	if (t->result != -ENOSPC && t->result != -EMSGSIZE)
		log_warn("etcd", "write of " STR_FMT ": " STR_FMT, STR_ARG(t->key), STR_ARG(text));
	txn_end(t);
}

enum { EQUAL = 0, GREATER = 1, LESS = 2, VERSION = 0, MOD = 2 };

static struct etcd_v3_compare condition(const struct txn *t)
{
	struct etcd_v3_compare c = { .key = t->key,
		.result = EQUAL,
		.target = MOD,
		.mod_revision = SOME((int64_t)t->expect) };
	if (t->verb != STORE_CREATE && !t->expect)
		c = (struct etcd_v3_compare){
			.key = t->key, .result = GREATER, .target = VERSION, .version = SOME(0)
		};
	else if (t->verb == STORE_CREATE)
		c.mod_revision.value = 0;
	return c;
}

void txn_send(struct txn *t)
{
	static const struct grpc_events events = { txn_message, txn_answered };
	CLEAN_BUF struct buf out = { 0 };
	struct etcd_v3_compare c[] = { condition(t),
		{ .key = t->guard,
			.result = LESS,
			.target = MOD,
			.mod_revision = SOME((int64_t)t->guard_revision + 1) } };
	struct etcd_v3_put_request put_guard = { .key = t->guard },
				   put = { .key = t->key, .value = t->value, .lease = t->lease };
	struct etcd_v3_delete_range_request del = { .key = t->key };
	struct etcd_v3_range_request read = { .key = t->key, .keys_only = true };
	struct etcd_v3_request_op yes[] = { { 0 }, { .request_put = &put_guard } },
				  no = { .request_range = &read };
	size_t n = t->guard.len ? 2 : 1;
	struct etcd_v3_txn_request req = {
		.compare = { c, n }, .success = { yes, n }, .failure = { &no, 1 }
	};
	if (t->verb == STORE_DELETE)
		yes[0].request_delete_range = &del;
	else
		yes[0].request_put = &put;
	proto_encode(&etcd_v3_txn_request_type, &req, &out);
	t->result = -EIO;
	uint64_t now = mono_now_ns();
	unsigned left = t->deadline_ns > now ? (unsigned)((t->deadline_ns - now) / 1000000) + 1 : 1;
	grpc_call_start(
		t->etcd->client, "/etcdserverpb.KV/Txn", buf_str(&out), left, false, &events, t);
}

void remote_write(void *remote, struct store *s, const struct store_remote_write *w)
{
	struct etcd *e = remote;
	size_t guard = w->guard.len ? sizeof(ETCD_GUARD) - 1 + w->guard.len : 0;
	struct txn *t = xcalloc(1, sizeof(*t) + w->key.len + w->value.len + guard + 1);
	char *at = (char *)(t + 1);
	t->etcd = e;
	t->store = s;
	t->token = w->token;
	t->verb = w->verb;
	t->key = str_n(memcpy(at, w->key.p, w->key.len), w->key.len);
	at += w->key.len;
	if (w->value.len)
		memcpy(at, w->value.p, w->value.len);
	t->value = str_n(at, w->value.len);
	at += w->value.len;
	if (guard) {
		memcpy(at, ETCD_GUARD, sizeof(ETCD_GUARD) - 1);
		memcpy(at + sizeof(ETCD_GUARD) - 1, w->guard.p, w->guard.len);
		t->guard = str_n(at, guard);
		t->guard_revision = w->guard_revision;
	}
	t->expect = w->expect;
	t->ttl_s = w->verb == STORE_DELETE ? 0 : w->ttl_s;
	t->deadline_ns = mono_now_ns() + (uint64_t)ETCD_CALL_MS * 1000000;
	if (t->ttl_s)
		lease_send(e, t);
	else
		txn_send(t);
}

/* ---- the newest revision ---- */

struct question {
	struct etcd *etcd;
	struct store *store;
	uint64_t deadline_ns, revision;
};

static void ask_send(struct question *q);

static void ask_message(void *arg, struct str message)
{
	struct question *q = arg;
	CLEAN_ARENA struct arena *a = arena_new(512);
	struct etcd_v3_range_response *resp;
	if (proto_decode(&etcd_v3_range_response_type, message, a, (void **)&resp, NULL) == 0 &&
		resp->header)
		q->revision = (uint64_t)resp->header->revision;
}

static void ask_answered(void *arg, int status, struct str text, bool sent)
{
	struct question *q = arg;
	if (status != GRPC_OK && !atomic_load(&q->etcd->closing) &&
		mono_now_ns() < q->deadline_ns) {
		if (etcd_no_leader(text))
			grpc_client_rotate(q->etcd->client, "it has no leader");
		ask_send(q);
		return;
	}
	bool good = status == GRPC_OK && q->revision;
	store_remote_now(q->store,
		good                                       ? 0
			: status == GRPC_DEADLINE_EXCEEDED ? -ETIMEDOUT
							   : -EHOSTUNREACH,
		q->revision);
	free(q);
}

/* A linearizable read of one key that is not there: its answer names a revision not older than the question. */
static void ask_send(struct question *q)
{
	static const struct grpc_events events = { ask_message, ask_answered };
	CLEAN_BUF struct buf out = { 0 };
	struct etcd_v3_range_request req = {
		.key = STR(ETCD_PREFIX), .limit = 1, .count_only = true
	};
	uint64_t now = mono_now_ns();
	proto_encode(&etcd_v3_range_request_type, &req, &out);
	grpc_call_start(q->etcd->client, "/etcdserverpb.KV/Range", buf_str(&out),
		q->deadline_ns > now ? (unsigned)((q->deadline_ns - now) / 1000000) + 1 : 1, false,
		&events, q);
}

void remote_ask(void *remote, struct store *s)
{
	struct question *q = xcalloc(1, sizeof(*q));
	q->etcd = remote;
	q->store = s;
	q->deadline_ns = mono_now_ns() + (uint64_t)ASK_MS * 1000000;
	ask_send(q);
}

/* ---- the watch ---- */

static void watch_start(struct etcd *e);

static void tell_events(struct etcd *e, const struct etcd_v3_watch_response *resp)
{
	size_t n = 0;
	CLEAN_FREE struct store_remote_kv *kvs = xcalloc(resp->events.len, sizeof(*kvs));
	uint64_t revision = e->watch.revision;
	LIST_EACH(ev, &resp->events) {
		if (!ev->kv)
			continue;
		revision = MAX(revision, (uint64_t)ev->kv->mod_revision);
		if (!str_has_prefix(ev->kv->key, STR(ETCD_PREFIX)))
			continue;
		kvs[n++] = (struct store_remote_kv){ .deleted = ev->type == 1,
			.key = ev->kv->key,
			.value = ev->kv->value,
			.revision = (uint64_t)ev->kv->mod_revision,
			.create_revision = (uint64_t)ev->kv->create_revision };
	}
	if (revision == e->watch.revision)
		return;
	e->watch.revision = revision;
	store_remote_events(e->watch.store, kvs, n, revision);
}

static void watch_message(void *arg, struct str message)
{
	struct etcd *e = arg;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct etcd_v3_watch_response *resp;
	struct err err = { 0 };
	if (!e->watch.call || !e->watch.store)
		return;
	if (proto_decode(&etcd_v3_watch_response_type, message, a, (void **)&resp, &err)) {
		log_error("etcd", "a message of the watch cannot be read: %s", err.text);
		grpc_call_cancel(e->watch.call);
		return;
	}
	if (!etcd_header_fits(e, resp->header)) {
		log_error("etcd",
			"the server belongs to another cluster: all --store URLs must name members of one");
		grpc_client_rotate(e->client, "it belongs to another cluster");
		return;
	}
	if (resp->compact_revision) {
		struct store *s = TAKE(e->watch.store);
		grpc_call_cancel(e->watch.call);
		store_remote_lost(s); /* it follows again */
	} else if (resp->canceled) {
		log_warn("etcd", "the watch was ended: " STR_FMT, STR_ARG(resp->cancel_reason));
		grpc_call_cancel(e->watch.call);
	} else if (resp->events.len) {
		tell_events(e, resp);
	}
}

static void watch_ended(void *arg, int status, struct str text, bool sent)
{
	struct etcd *e = arg;
	e->watch.call = NULL;
	if (atomic_load(&e->closing) || !e->watch.store)
		return;
	if (etcd_no_leader(text))
		grpc_client_rotate(e->client, "it has no leader");
	watch_start(e);
}

static void watch_start(struct etcd *e)
{
	static const struct grpc_events events = { watch_message, watch_ended };
	CLEAN_BUF struct buf out = { 0 };
	struct etcd_v3_watch_create_request create = { .key = { "\0", 1 },
		.range_end = { "\0", 1 },
		.start_revision = (int64_t)e->watch.revision + 1 };
	struct etcd_v3_watch_request req = { .create_request = &create };
	proto_encode(&etcd_v3_watch_request_type, &req, &out);
	e->watch.call = grpc_call_start(
		e->client, "/etcdserverpb.Watch/Watch", buf_str(&out), 0, true, &events, e);
}

struct follow {
	struct etcd *etcd;
	struct store *store;
	uint64_t revision;
};

static void follow(void *arg)
{
	struct follow *f = arg;
	f->etcd->watch.store = f->store;
	f->etcd->watch.revision = f->revision;
	if (!f->etcd->watch.call)
		watch_start(f->etcd);
	free(f);
}

/* Calls fail sooner, and none is sent again. */
void remote_hurry(void *remote, unsigned within_ms)
{
	struct etcd *e = remote;
	atomic_store(&e->closing, true);
	grpc_client_hurry(e->client, within_ms);
}

void remote_follow(void *remote, struct store *s, uint64_t revision)
{
	struct follow *f = xcalloc(1, sizeof(*f));
	*f = (struct follow){ remote, s, revision };
	grpc_client_post(f->etcd->client, follow, f);
}
