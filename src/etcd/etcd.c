/* Opening, closing, blocking calls, and reading everything. */
#include <stdio.h>

#include "etcd/internal.h"
#include "io/io.h"

enum {
	PAGE = 500,
	OPEN_MS = 10000,
	FILE_MAX = 1 << 20,
	TELL_S = 30,
	RECENT = 1000, /* revisions */
};

static const struct http_header metadata[] = {
	{ { "hasleader", 9 },
		{ "true", 4 } }, /* a member without a leader says so instead of waiting */
	{ { "user-agent", 10 }, { "skiff", 5 } },
};

bool etcd_no_leader(struct str text)
{
	/* The whole of it: what the client says of a connection that it gave up for that reason is no word of etcd's about a call. */
	return str_find_str(text, STR("etcdserver: no leader")) >= 0;
}

bool etcd_header_fits(const struct etcd *e, const struct etcd_v3_response_header *h)
{
	return !h || !e->cluster_id || (uint64_t)h->cluster_id == e->cluster_id;
}

/* ---- calls ---- */

int etcd_call(struct etcd *e, const char *path, const struct type *req_type, const void *req,
	const struct type *type, struct arena *a, unsigned timeout_ms, void **ret, struct err *err)
{
	CLEAN_BUF struct buf out = { 0 }, in = { 0 };
	uint64_t until = mono_now_ns() + (uint64_t)timeout_ms * 1000000;
	int r;
	proto_encode(req_type, req, &out);
	for (;;) {
		uint64_t now = mono_now_ns();
		unsigned left = until > now ? (unsigned)((until - now) / 1000000) + 1 : 1;
		struct err why = { 0 };
		int status = 0;
		r = grpc_call_wait(e->client, path, buf_str(&out), left, &in, &status, &why);
		if (r == 0)
			break;
		bool again = status == GRPC_UNAVAILABLE && mono_now_ns() < until &&
			!atomic_load(&e->closing);
		if (!again)
			return err_set(err, r, "etcd: %s", why.text);
		if (etcd_no_leader(str_of(why.text)))
			grpc_client_rotate(e->client, why.text);
	}
	return proto_decode(type, arena_str(a, buf_str(&in)), a, ret, err);
}

/* ---- opening ---- */

static int read_pem(const char *path, struct buf *ret, struct err *err)
{
	return path ? file_read(path, FILE_MAX, ret, err) : 0;
}

static int open_tls(struct etcd *e, const struct etcd_config *c, struct err *err)
{
	CLEAN_BUF struct buf ca = { 0 }, cert = { 0 }, key = { 0 };
	if (!c->cert_file != !c->key_file)
		return err_set(err, -EINVAL, "--etcd-certfile and --etcd-keyfile go together");
	int r = read_pem(c->ca_file, &ca, err);
	r = r ? r : read_pem(c->cert_file, &cert, err);
	r = r ? r : read_pem(c->key_file, &key, err);
	if (r)
		return r;
	struct tls_client_config tc = { .ca_pem = buf_str(&ca),
		.cert_pem = buf_str(&cert),
		.key_pem = buf_str(&key),
		.http2 = true };
	return tls_client_new(&tc, &e->tls, err);
}

static int split_urls(struct etcd *e, const struct etcd_config *c, struct err *err)
{
	bool secure = false, plain = false;
	e->urls_text = xstrdup(c->urls);
	for (char *at = e->urls_text, *next; at; at = next) {
		next = strchr(at, ',');
		if (next)
			*next++ = '\0';
		bool https = !strncmp(at, "https://", 8);
		if (!https && strncmp(at, "http://", 7))
			return err_set(err, -EINVAL,
				"\"%s\" is no URL of etcd: expected https://HOST:PORT", at);
		if (!strchr(at + 8, ':'))
			return err_set(err, -EINVAL,
				"the URL of etcd %s names no port: the usual one is 2379", at);
		if (e->n_urls == ARRAY_LEN(e->urls))
			return err_set(
				err, -EINVAL, "more than %zu URLs of etcd", ARRAY_LEN(e->urls));
		secure |= https;
		plain |= !https;
		e->urls[e->n_urls++] = at;
	}
	if (plain && (c->cert_file || c->ca_file))
		return err_set(err, -EINVAL,
			"%s is without TLS, so --etcd-cafile and --etcd-certfile have no meaning: use https://",
			c->urls);
	return secure ? open_tls(e, c, err) : 0;
}

static void tell_state(void *arg, bool up, const char *url, const char *text)
{
	struct etcd *e = arg;
	if (!e->cluster_id) /* still opening: the failure is told whole */
		return;
	uint64_t now = mono_now_ns();
	if (up) {
		log_info("etcd", "connected to %s", url);
		e->told_ns = 0;
	} else if (!atomic_load(&e->closing) &&
		now - e->told_ns > (e->told_ns ? (uint64_t)TELL_S * 1000000000 : 0)) {
		log_warn("etcd", "%s: %s", url, text);
		e->told_ns = now;
	}
}

/* Is it the cluster that this data belongs to? */
static int check_id(struct etcd *e, const char *file, struct err *err)
{
	CLEAN_BUF struct buf was = { 0 };
	char now[24];
	if (!file)
		return 0;
	snprintf(now, sizeof(now), "%llx\n", (unsigned long long)e->cluster_id);
	int r = file_read(file, 64, &was, NULL);
	if (r == -ENOENT)
		return file_write_atomic(file, str_of(now), 0600, true, err);
	if (r)
		return err_errno(err, r, "cannot read %s", file);
	if (str_eqz(buf_str(&was), now))
		return 0;
	return err_set(err, -EBADMSG,
		"this is etcd cluster %.16s, but %s says that this server's data is in cluster " STR_FMT
		": give the right --store, or remove that file to start with what is in this etcd",
		now, file, STR_ARG(str_trim(buf_str(&was))));
}

static int first_contact(struct etcd *e, const struct etcd_config *c, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct etcd_v3_range_request req = {
		.key = STR(ETCD_PREFIX), .limit = 1, .keys_only = true
	};
	struct etcd_v3_range_response *resp;
	int r = etcd_call(e, "/etcdserverpb.KV/Range", &etcd_v3_range_request_type, &req,
		&etcd_v3_range_response_type, a, c->timeout_ms ? c->timeout_ms : OPEN_MS,
		(void **)&resp, err);
	if (r)
		return err_prefix(err, -EHOSTUNREACH,
			"the store %s cannot be used; is etcd running there, with a leader, and are the certificates right?",
			c->urls);
	if (!resp->header || !resp->header->cluster_id)
		return err_set(err, -EPROTO, "%s does not answer as etcd does", c->urls);
	e->cluster_id = (uint64_t)resp->header->cluster_id;
	return check_id(e, c->id_file, err);
}

int etcd_open(const struct etcd_config *c, struct etcd **ret, struct err *err)
{
	struct etcd *e = xcalloc(1, sizeof(*e));
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&e->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_mutex_init(&e->lock, NULL);
	pthread_mutex_init(&e->leases.lock, NULL);
	e->history = c->history;
	int r = split_urls(e, c, err);
	if (r == 0) {
		struct grpc_client_config gc = { .urls = e->urls,
			.n_urls = e->n_urls,
			.tls = e->tls,
			.metadata = metadata,
			.n_metadata = ARRAY_LEN(metadata),
			.on_state = tell_state,
			.arg = e,
			.name = "etcd" };
		r = grpc_client_new(&gc, &e->client, err);
	}
	r = r ? r : first_contact(e, c, err);
	if (r) {
		etcd_close(e);
		return r;
	}
	*ret = e;
	return 0;
}

void etcd_close(struct etcd *e)
{
	if (!e)
		return;
	atomic_store(&e->closing, true);
	compact_stop(e);
	grpc_client_free(e->client);
	tls_context_free(e->tls);
	pthread_mutex_destroy(&e->leases.lock);
	pthread_mutex_destroy(&e->lock);
	pthread_cond_destroy(&e->wake);
	free(e->urls_text);
	free(e);
}

/* ---- reading everything ---- */

struct str etcd_prefix_end(struct arena *a, struct str prefix)
{
	struct str end = arena_str(a, prefix);
	while (end.len && (unsigned char)end.p[end.len - 1] == 0xff)
		end.len--;
	if (end.len)
		((char *)end.p)[end.len - 1]++;
	return end;
}

static int each_page(struct etcd *e, const struct etcd_v3_range_response *resp,
	store_remote_each_fn each, void *arg, struct err *err)
{
	LIST_EACH(kv, &resp->kvs) {
		struct store_remote_kv k = { .key = kv->key,
			.value = kv->value,
			.revision = (uint64_t)kv->mod_revision,
			.create_revision = (uint64_t)kv->create_revision };
		int r = each(arg, &k, err);
		if (r)
			return r;
	}
	return 0;
}

static int read_all(struct etcd *e, int64_t revision, store_remote_each_fn each, void *arg,
	uint64_t *ret_revision, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf from = { 0 };
	buf_addz(&from, ETCD_PREFIX);
	for (;;) {
		struct etcd_v3_range_response *resp;
		arena_reset(a);
		struct etcd_v3_range_request req = { .key = buf_str(&from),
			.range_end = etcd_prefix_end(a, STR(ETCD_PREFIX)),
			.limit = PAGE,
			.revision = revision };
		int r = etcd_call(e, "/etcdserverpb.KV/Range", &etcd_v3_range_request_type, &req,
			&etcd_v3_range_response_type, a, 3 * ETCD_CALL_MS, (void **)&resp, err);
		r = r ? r : each_page(e, resp, each, arg, err);
		if (r)
			return err_prefix(err, r, "reading what is stored");
		if (!revision)
			revision = resp->header ? resp->header->revision : 0;
		if (!resp->more || !resp->kvs.len)
			break;
		buf_clear(&from);
		buf_add_str(&from, resp->kvs.items[resp->kvs.len - 1].key);
		buf_addc(&from, '\0');
	}
	*ret_revision = (uint64_t)revision;
	return 0;
}

/* A revision of some minutes ago that etcd still knows; 0: none. In the first minutes of an etcd nobody has written one down: then it is one of not long
 * ago. */
static int64_t past_revision(struct etcd *e)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct etcd_v3_range_request read = { .key = STR(ETCD_COMPACT_KEY) };
	struct etcd_v3_range_response *resp;
	int64_t revision = 0;
	if (etcd_call(e, "/etcdserverpb.KV/Range", &etcd_v3_range_request_type, &read,
		    &etcd_v3_range_response_type, a, ETCD_CALL_MS, (void **)&resp, NULL))
		return 0;
	if (resp->kvs.len && str_to_i64(resp->kvs.items[0].value, &revision))
		return 0;
	if (revision <= 0 && resp->header)
		revision = MAX(resp->header->revision - RECENT, (int64_t)1);
	if (revision <= 0)
		return 0;
	struct etcd_v3_range_request probe = {
		.key = STR(ETCD_PREFIX), .count_only = true, .revision = revision
	};
	if (etcd_call(e, "/etcdserverpb.KV/Range", &etcd_v3_range_request_type, &probe,
		    &etcd_v3_range_response_type, a, ETCD_CALL_MS, (void **)&resp, NULL))
		return 0; /* compacted */
	return revision;
}

static int load(
	void *remote, store_remote_each_fn each, void *arg, uint64_t *ret_revision, struct err *err)
{
	struct etcd *e = remote;
	int64_t revision = e->history ? past_revision(e) : 0;
	e->history = false;
	return read_all(e, revision, each, arg, ret_revision, err);
}

static int count(
	struct etcd *e, struct str prefix, uint64_t *ret_n, uint64_t *ret_revision, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct etcd_v3_range_request req = {
		.key = prefix, .range_end = etcd_prefix_end(a, prefix), .count_only = true
	};
	struct etcd_v3_range_response *resp;
	int r = etcd_call(e, "/etcdserverpb.KV/Range", &etcd_v3_range_request_type, &req,
		&etcd_v3_range_response_type, a, ETCD_CALL_MS, (void **)&resp, err);
	if (r)
		return r;
	*ret_n = (uint64_t)resp->count;
	*ret_revision = resp->header ? (uint64_t)resp->header->revision : 0;
	return 0;
}

int etcd_count(struct etcd *e, struct str prefix, uint64_t *ret, struct err *err)
{
	uint64_t revision;
	return count(e, prefix, ret, &revision, err);
}

int etcd_revision(struct etcd *e, uint64_t *ret, struct err *err)
{
	uint64_t n;
	return count(e, STR(ETCD_PREFIX), &n, ret, err);
}

static int put_lease(struct etcd *e, int64_t ttl_s, struct arena *a, struct err *err)
{
	struct etcd_v3_lease_grant_request req = { .ttl = ttl_s + LEASE_REUSE_S };
	struct etcd_v3_lease_grant_response *resp;
	if (e->put_lease && e->put_ttl_s == ttl_s && mono_now_ns() < e->put_until_ns)
		return 0;
	int r = etcd_call(e, "/etcdserverpb.Lease/LeaseGrant", &etcd_v3_lease_grant_request_type,
		&req, &etcd_v3_lease_grant_response_type, a, ETCD_CALL_MS, (void **)&resp, err);
	if (r)
		return r;
	e->put_lease = resp->id;
	e->put_ttl_s = ttl_s;
	e->put_until_ns = mono_now_ns() + (uint64_t)LEASE_REUSE_S * 1000000000;
	return 0;
}

int etcd_put(struct etcd *e, struct str key, struct str value, int64_t ttl_s, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct etcd_v3_put_request req = { .key = key, .value = value };
	void *resp;
	int r = ttl_s ? put_lease(e, ttl_s, a, err) : 0;
	if (r)
		return r;
	req.lease = ttl_s ? e->put_lease : 0;
	return etcd_call(e, "/etcdserverpb.KV/Put", &etcd_v3_put_request_type, &req,
		&etcd_v3_put_response_type, a, ETCD_CALL_MS, &resp, err);
}

static uint64_t size(void *remote)
{
	return atomic_load(&((struct etcd *)remote)->db_size);
}

static void close_remote(void *remote)
{
	etcd_close(remote);
}

const struct store_remote_type etcd_remote = {
	.load = load,
	.follow = remote_follow,
	.write = remote_write,
	.ask = remote_ask,
	.hurry = remote_hurry,
	.size = size,
	.close = close_remote,
};
