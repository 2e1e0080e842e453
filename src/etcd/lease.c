/* Leases for keys that end by themselves (events). One lease serves many keys: those put within LEASE_REUSE_S of its making, USES_MAX at most, so
 * a key lives up to LEASE_REUSE_S longer than asked. */
#include "etcd/internal.h"

enum { USES_MAX = 1000 };

static void grant_message(void *arg, struct str message)
{
	struct etcd *e = arg;
	struct lease_pool *p = &e->leases;
	CLEAN_ARENA struct arena *a = arena_new(512);
	struct etcd_v3_lease_grant_response *resp;
	if (proto_decode(&etcd_v3_lease_grant_response_type, message, a, (void **)&resp, NULL) ||
		!resp->id)
		return;
	pthread_mutex_lock(&p->lock);
	p->id = resp->id;
	p->uses = 0;
	p->until_ns = mono_now_ns() + (uint64_t)LEASE_REUSE_S * 1000000000;
	pthread_mutex_unlock(&p->lock);
}

static void granted(void *arg, int status, struct str text, bool sent)
{
	struct etcd *e = arg;
	struct lease_pool *p = &e->leases;
	pthread_mutex_lock(&p->lock);
	p->granting = false;
	int64_t id = p->id;
	struct txn *t = TAKE(p->waiting);
	for (struct txn *w = t; w; w = w->next)
		p->uses++;
	pthread_mutex_unlock(&p->lock);
	while (t) {
		struct txn *next = t->next;
		t->lease = id;
		if (status == GRPC_OK && id)
			txn_send(t);
		else
			txn_fail(t, -EHOSTUNREACH); /* the key was not put */
		t = next;
	}
}

static void grant(struct etcd *e, int64_t ttl_s)
{
	static const struct grpc_events events = { grant_message, granted };
	CLEAN_BUF struct buf out = { 0 };
	struct etcd_v3_lease_grant_request req = { .ttl = ttl_s + LEASE_REUSE_S };
	proto_encode(&etcd_v3_lease_grant_request_type, &req, &out);
	grpc_call_start(e->client, "/etcdserverpb.Lease/LeaseGrant", buf_str(&out), ETCD_CALL_MS,
		false, &events, e);
}

void lease_send(struct etcd *e, struct txn *t)
{
	struct lease_pool *p = &e->leases;
	bool start = false;
	pthread_mutex_lock(&p->lock);
	if (p->id && p->ttl_s == t->ttl_s && p->uses < USES_MAX && mono_now_ns() < p->until_ns &&
		!p->granting) {
		t->lease = p->id;
		p->uses++;
	} else {
		t->next = p->waiting;
		p->waiting = t;
		start = !p->granting;
		p->granting = true;
		p->id = start ? 0 : p->id;
		p->ttl_s = start ? t->ttl_s : p->ttl_s;
	}
	bool send = t->lease != 0;
	pthread_mutex_unlock(&p->lock);
	if (send)
		txn_send(t);
	else if (start)
		grant(e, t->ttl_s);
}

void lease_forget(struct etcd *e, int64_t id)
{
	pthread_mutex_lock(&e->leases.lock);
	if (e->leases.id == id)
		e->leases.id = 0;
	pthread_mutex_unlock(&e->leases.lock);
}
