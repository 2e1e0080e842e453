/* Bootstrap tokens: removes those that expired, and signs the kubeconfig in ConfigMap kube-public/cluster-info with each that may sign, so that a
 * joining machine that knows the token can trust what it reads. Upstream: tokencleaner and bootstrapsigner.
 *
 * Tokens are Secrets bootstrap-token-ID of kube-system; the signature is a detached JWS (HS256) under jws-kubeconfig-ID. */
#include "controllers/internal.h"

#include "controllers/table.h"

#define TOKEN_TYPE "bootstrap.kubernetes.io/token"
#define SYSTEM_NAMESPACE "kube-system"
#define PUBLIC_NAMESPACE "kube-public"
#define CLUSTER_INFO "cluster-info"
#define SIGNATURE_PREFIX "jws-kubeconfig-"
#define SIGN_KEY STR(CLUSTER_INFO)

struct state {
	struct informer *tokens; /* its own: only Secrets of this type */
};

static struct str field(const struct core_v1_secret *s, const char *key)
{
	return str_map_get(&s->data, str_of(key));
}

static bool expired(struct run *r, const struct core_v1_secret *s, double *ret_left_s)
{
	struct str text = field(s, "expiration");
	struct timestamp t;

	*ret_left_s = -1;
	if (!text.len)
		return false;
	if (time_parse(str_trim(text), &t))
		return true; /* unreadable: as upstream, better gone than for ever */
	*ret_left_s = time_diff_s(t, r->now);
	return *ret_left_s <= 0;
}

/* ---- signing ---- */
static void hmac_sha256(struct str key, struct str text, uint8_t out[32])
{
	uint8_t k[64] = { 0 }, inner[32];
	struct buf b CLEAN_BUF = { 0 };

	if (key.len > sizeof(k))
		sha256(key.p, key.len, k);
	else
		memcpy(k, key.p, key.len);
	for (size_t i = 0; i < sizeof(k); i++)
		buf_addc(&b, (char)(k[i] ^ 0x36));
	buf_add_str(&b, text);
	sha256(b.p, b.len, inner);
	buf_clear(&b);
	for (size_t i = 0; i < sizeof(k); i++)
		buf_addc(&b, (char)(k[i] ^ 0x5c));
	buf_add(&b, inner, sizeof(inner));
	sha256(b.p, b.len, out);
}

static struct str sign(struct str id, struct str secret, struct str content, struct arena *a)
{
	struct buf signed_text CLEAN_BUF = { 0 }, ret CLEAN_BUF = { 0 };
	struct str header =
		arena_fmt(a, "{\"alg\":\"HS256\",\"kid\":\"" STR_FMT "\"}", STR_ARG(id));
	uint8_t mac[32];

	base64url_encode(&signed_text, header.p, header.len);
	buf_add_str(&ret, buf_str(&signed_text));
	buf_addc(&signed_text, '.');
	base64url_encode(&signed_text, content.p, content.len);
	hmac_sha256(secret, buf_str(&signed_text), mac);
	buf_addz(&ret, "..");
	base64url_encode(&ret, mac, sizeof(mac));
	return arena_str(a, buf_str(&ret));
}

static int sign_cluster_info(struct run *r, struct err *err)
{
	struct state *st = r->state;
	struct core_v1_config_map *cm;
	struct cached_list tokens;
	struct str_map data = { 0 };
	int ret = client_get(r->client, &core_v1_config_map_type, STR(PUBLIC_NAMESPACE),
		STR(CLUSTER_INFO), r->arena, (void **)&cm, err);

	if (ret)
		return ret == CLIENT_NOT_FOUND ? 0 : ret;
	struct str content = str_map_get(&cm->data, STR("kubeconfig"));

	if (!content.len)
		return 0;
	LIST_EACH(p, &cm->data)
		if (!str_has_prefix(p->key, STR(SIGNATURE_PREFIX)))
			str_map_set(r->arena, &data, p->key, p->value);
	informer_list(st->tokens, STR_NONE, &tokens);
	for (size_t i = 0; i < tokens.len; i++) {
		const struct core_v1_secret *s = tokens.items[i]->obj;
		struct str id = field(s, "token-id"), secret = field(s, "token-secret");
		double left;

		if (id.len && secret.len && str_eqz(field(s, "usage-bootstrap-signing"), "true") &&
			!expired(r, s, &left))
			str_map_set(r->arena, &data,
				arena_fmt(r->arena, SIGNATURE_PREFIX STR_FMT, STR_ARG(id)),
				sign(id, secret, content, r->arena));
	}
	cached_list_deinit(&tokens);
	const struct core_v1_config_map a = { .data = cm->data }, b = { .data = data };

	if (model_equal(&core_v1_config_map_type, &a, &b))
		return 0;
	cm->data = data;
	return client_update(r->client, &core_v1_config_map_type, NULL, cm, r->arena, NULL, err);
}

/* ---- cleaning ---- */
static int clean(struct run *r, struct str key, struct err *err)
{
	struct state *st = r->state;
	struct cached *c = informer_get(st->tokens, key);
	double left;
	int ret = 0;

	if (!c)
		return 0;
	if (expired(r, c->obj, &left)) {
		const struct client_delete o = { .grace_seconds = -1, .uid = c->meta->uid };

		ret = client_delete(r->client, &core_v1_secret_type, c->meta->namespace,
			c->meta->name, &o, err);
		if (ret == CLIENT_NOT_FOUND || ret == CLIENT_CONFLICT)
			ret = 0;
	} else if (left > 0) {
		requeue_within(r, ms_of(left) + 1);
	}
	cached_unref(c);
	return ret;
}

static int reconcile(struct run *r, struct str key, struct err *err)
{
	return str_eq(key, SIGN_KEY) ? sign_cluster_info(r, err) : clean(r, key, err);
}

static void on_token(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	if (now)
		enqueue(arg, now->key);
	enqueue(arg, SIGN_KEY);
}

static void map_info(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	if (now && str_eqz(now->meta->name, CLUSTER_INFO) &&
		str_eqz(now->meta->namespace, PUBLIC_NAMESPACE))
		enqueue(r, SIGN_KEY);
}

static int init(struct run *r, struct err *err)
{
	struct state *st = xcalloc(1, sizeof(*st));
	const struct informer_config c = { .client = r->client,
		.type = &core_v1_secret_type,
		.ns = STR(SYSTEM_NAMESPACE),
		.field_selector = "type=" TOKEN_TYPE };

	r->state = st;
	st->tokens = informer_new(&c);
	informer_add_handler(st->tokens, on_token, r);
	return 0;
}

static void start(struct run *r)
{
	struct state *st = r->state;
	struct err err;

	if (informer_start(st->tokens, &err))
		log_error("bootstrap", "%s", err.text);
}

static void deinit(struct run *r)
{
	struct state *st = r->state;

	if (!st)
		return;
	informer_free(st->tokens);
	free(st);
}

const struct controller bootstrap_controller = {
	.name = "bootstrap-token",
	.watches = { { &core_v1_config_map_type, map_info, .meta_only = true } },
	.init = init,
	.start = start,
	.deinit = deinit,
	.reconcile = reconcile,
};
