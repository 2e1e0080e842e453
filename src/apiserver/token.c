/* Service account tokens: ES256 JWTs with upstream's claims, issued for TokenRequests and checked on every request. A token is
 * good while its signature, times and audience are, and while what it is bound to (account, pod, node, secret) exists with the
 * same uid. Verified signatures are remembered; everything else is asked anew each time. Upstream: pkg/serviceaccount.
 *
 * Tokens in Secrets of type kubernetes.io/service-account-token (issuer kubernetes/serviceaccount) never end by themselves and count
 * while their Secret holds them. Leaves out: foreign keys. */
#include "apiserver/internal.h"

#define CACHE_SLOTS 512
#define TOKEN_MAX 16384
#define EXTENDED_SECONDS \
	(365 * 24 * 3600) /* what a token of 3607 s really gets, so that old clients survive */
#define PROJECTED_SECONDS 3607
#define GONE_SECONDS \
	60 /* how long a token outlives the time by which what it is bound to was to be gone, as upstream */

struct bound {
	struct str name, uid; /* name empty: not bound to one */
};
struct claims {
	struct str ns, jti, subject, issuer;
	struct str_list audiences;
	int64_t expires, not_before;
	struct bound account, pod, node, secret;
};
struct cached_token {
	struct arena *arena;
	struct str token;
	struct claims claims;
};
struct token_keys {
	struct str private_pem;
	char *private_text;
	struct buf key_id, jwk;
	pthread_mutex_t lock; /* guards slots */
	uint64_t seed;
	struct cached_token *slots[CACHE_SLOTS];
};

struct token_keys *token_keys_new(const struct apiserver_config *c, struct err *err)
{
	struct token_keys *k = xcalloc(1, sizeof(*k));
	pthread_mutex_init(&k->lock, NULL);
	random_bytes(&k->seed, sizeof(k->seed));
	k->private_text = str_dup(c->service_account_key);
	k->private_pem = str_n(k->private_text, c->service_account_key.len);
	if (k->private_pem.len && jwk_from_key(k->private_pem, &k->jwk, &k->key_id, err) < 0) {
		token_keys_free(k);
		return NULL;
	}
	return k;
}

static void cached_free(struct cached_token *t)
{
	if (t)
		arena_free(t->arena);
}

void token_keys_free(struct token_keys *k)
{
	if (!k)
		return;
	for (size_t i = 0; i < CACHE_SLOTS; i++)
		cached_free(k->slots[i]);
	pthread_mutex_destroy(&k->lock);
	buf_deinit(&k->key_id);
	buf_deinit(&k->jwk);
	if (k->private_text)
		explicit_bzero(k->private_text, k->private_pem.len);
	free(k->private_text);
	free(k);
}

struct str token_keys_jwks(const struct token_keys *k)
{
	return buf_str(&k->jwk);
}

/* ---- reading ---- */

static struct str text_of(const struct value *object, const char *key)
{
	const struct value *v =
		object && object->kind == VALUE_OBJECT ? value_get(object, str_of(key)) : NULL;
	return v && v->kind == VALUE_TEXT ? v->text : STR_NONE;
}

static int64_t number_of(const struct value *object, const char *key)
{
	const struct value *v = value_get(object, str_of(key));
	if (v && v->kind == VALUE_DOUBLE)
		return (int64_t)v->number;
	return v && v->kind == VALUE_INT ? v->integer : 0;
}

static struct bound bound_of(const struct value *object, const char *key)
{
	const struct value *v =
		object && object->kind == VALUE_OBJECT ? value_get(object, str_of(key)) : NULL;
	return (struct bound){ text_of(v, "name"), text_of(v, "uid") };
}

#define LEGACY_ISSUER "kubernetes/serviceaccount"
#define LEGACY "kubernetes.io/serviceaccount/"

static void claims_legacy(const struct value *v, struct claims *c)
{
	c->ns = text_of(v, LEGACY "namespace");
	c->account = (struct bound){ text_of(v, LEGACY "service-account.name"),
		text_of(v, LEGACY "service-account.uid") };
	c->secret = (struct bound){ text_of(v, LEGACY "secret.name"), STR_NONE };
}

static int claims_parse(struct str payload, struct arena *a, struct claims *ret, struct err *err)
{
	struct value v;
	int r = json_parse(payload, a, &v, err);
	if (r < 0)
		return r;
	if (v.kind != VALUE_OBJECT)
		return err_set(err, -EACCES, "the token's payload is no object");
	struct claims c = { .issuer = text_of(&v, "iss"),
		.subject = text_of(&v, "sub"),
		.jti = text_of(&v, "jti"),
		.expires = number_of(&v, "exp"),
		.not_before = number_of(&v, "nbf") };
	const struct value *aud = value_get(&v, STR("aud")),
			   *k = value_get(&v, STR("kubernetes.io"));
	if (aud && aud->kind == VALUE_TEXT)
		*LIST_ADD(a, &c.audiences) = aud->text;
	for (size_t i = 0; aud && aud->kind == VALUE_LIST && i < aud->list.len; i++)
		if (aud->list.items[i].kind == VALUE_TEXT)
			*LIST_ADD(a, &c.audiences) = aud->list.items[i].text;
	c.ns = text_of(k, "namespace");
	c.account = bound_of(k, "serviceaccount");
	c.pod = bound_of(k, "pod");
	c.node = bound_of(k, "node");
	c.secret = bound_of(k, "secret");
	if (str_eqz(c.issuer, LEGACY_ISSUER))
		claims_legacy(&v, &c);
	*ret = c;
	return 0;
}

static bool same_text(struct str a, struct str b)
{
	unsigned char diff = a.len != b.len;
	for (size_t i = 0; i < a.len && i < b.len; i++)
		diff |= (unsigned char)(a.p[i] ^ b.p[i]);
	return !diff;
}

static void claims_copy(const struct claims *c, struct arena *a, struct claims *ret)
{
	*ret = *c;
	struct str *const texts[] = { &ret->ns, &ret->jti, &ret->subject, &ret->issuer,
		&ret->account.name, &ret->account.uid, &ret->pod.name, &ret->pod.uid,
		&ret->node.name, &ret->node.uid, &ret->secret.name, &ret->secret.uid };
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		*texts[i] = arena_str(a, *texts[i]);
	ret->audiences = (struct str_list){ 0 };
	for (size_t i = 0; i < c->audiences.len; i++)
		*LIST_ADD(a, &ret->audiences) = arena_str(a, c->audiences.items[i]);
}

/* The claims of a token whose signature is good; copied into a. */
static int claims_verified(struct token_keys *k, struct str token, struct arena *a,
	struct claims *ret, struct err *err)
{
	size_t slot = hash_bytes(token.p, token.len, k->seed) % CACHE_SLOTS;
	pthread_mutex_lock(&k->lock);
	const struct cached_token *hit = k->slots[slot];
	bool found = hit && same_text(hit->token, token);
	if (found)
		claims_copy(&hit->claims, a, ret);
	pthread_mutex_unlock(&k->lock);
	if (found)
		return 0;
	CLEAN_BUF struct buf payload = { 0 };
	int r = jwt_verify(k->private_pem, token, &payload, err);
	if (r < 0)
		return r;
	struct arena *own = arena_new(1024);
	struct cached_token *t = arena_alloc(own, sizeof(*t));
	t->arena = own;
	t->token = arena_str(own, token);
	r = claims_parse(arena_str(own, buf_str(&payload)), own, &t->claims, err);
	if (r < 0) {
		arena_free(own);
		return r;
	}
	claims_copy(&t->claims, a, ret);
	pthread_mutex_lock(&k->lock);
	struct cached_token *old = k->slots[slot];
	k->slots[slot] = t;
	pthread_mutex_unlock(&k->lock);
	cached_free(old);
	return 0;
}

/* ---- checking ---- */

static int check_bound(struct apiserver *s, const struct resource *r, struct str ns,
	const struct bound *b, struct err *err)
{
	if (!b->name.len)
		return 0;
	CLEAN_OBJECT struct object *o = NULL;
	if (lookup_object(s, r, ns, b->name, &o) != 0)
		return err_set(err, -EACCES, "%s " STR_FMT " that the token is bound to is gone",
			r->row->singular, STR_ARG(b->name));
	struct str uid = json_member(json_member(o->json, STR("metadata")), STR("uid"));
	if (uid.len != b->uid.len + 2 || memcmp(uid.p + 1, b->uid.p, b->uid.len) != 0)
		return err_set(err, -EACCES,
			"%s " STR_FMT " is not the one that the token is bound to",
			r->row->singular, STR_ARG(b->name));
	struct str gone =
		json_member(json_member(o->json, STR("metadata")), STR("deletionTimestamp"));
	struct timestamp at;
	if (gone.len > 2 &&
		(time_parse(str_n(gone.p + 1, gone.len - 2), &at) < 0 ||
			at.sec + GONE_SECONDS < time_now().sec))
		return err_set(err, -EACCES,
			"%s " STR_FMT " that the token is bound to is being deleted",
			r->row->singular, STR_ARG(b->name));
	return 0;
}

static int check_times(const struct claims *c, struct err *err)
{
	int64_t now = time_now().sec;
	if (!c->expires)
		return err_set(err, -EACCES, "the token does not say when it ends");
	if (now >= c->expires)
		return err_set(err, -EACCES, "the token expired %lld s ago",
			(long long)(now - c->expires));
	if (c->not_before && now + CLOCK_TOLERANCE_S < c->not_before)
		return err_set(err, -EACCES, "the token is not valid yet; compare the clocks");
	return 0;
}

static int check_audience(const struct apiserver *s, const struct claims *c,
	const struct str_list *wanted, struct arena *a, struct str_list *ret, struct err *err)
{
	struct str own = str_of(s->config.issuer);
	const struct str_list mine = { &own, 1 };
	if (!wanted || !wanted->len)
		wanted = &mine;
	size_t n = 0;
	for (size_t i = 0; i < wanted->len; i++) {
		if (!str_list_has(&c->audiences, wanted->items[i]))
			continue;
		n++;
		if (ret)
			*LIST_ADD(a, ret) = wanted->items[i];
	}
	return n ? 0 : err_set(err, -EACCES, "the token is for another audience");
}

static int check_claims(struct apiserver *s, const struct claims *c, struct err *err)
{
	const struct known *k = &s->known;
	int r = check_times(c, err);
	if (r == 0)
		r = check_bound(s, k->service_accounts, c->ns, &c->account, err);
	if (r == 0)
		r = check_bound(s, k->pods, c->ns, &c->pod, err);
	if (r == 0)
		r = check_bound(s, k->secrets, c->ns, &c->secret, err);
	if (r == 0 && !c->pod.name.len)
		r = check_bound(s, k->nodes, STR_NONE, &c->node, err);
	return r;
}

static int check_legacy(struct apiserver *s, const struct claims *c, struct str token,
	struct arena *a, struct err *err)
{
	struct core_v1_secret *secret;
	if (!c->secret.name.len ||
		lookup(s, s->known.secrets, c->ns, c->secret.name, a, &secret) != 0)
		return err_set(err, -EACCES, "Secret " STR_FMT " that holds the token is gone",
			STR_ARG(c->secret.name));
	if (!same_text(str_map_get(&secret->data, STR("token")), token))
		return err_set(err, -EACCES, "Secret " STR_FMT " holds another token by now",
			STR_ARG(c->secret.name));
	return check_bound(s, s->known.service_accounts, c->ns, &c->account, err);
}

static void user_from(const struct claims *c, struct arena *a, struct user_info *u)
{
	*u = (struct user_info){ .name = c->subject, .uid = c->account.uid };
	*LIST_ADD(a, &u->groups) = STR("system:serviceaccounts");
	*LIST_ADD(a, &u->groups) = arena_fmt(a, "system:serviceaccounts:" STR_FMT, STR_ARG(c->ns));
	if (c->jti.len)
		user_extra_add(a, u, STR("authentication.kubernetes.io/credential-id"),
			arena_fmt(a, "JTI=" STR_FMT, STR_ARG(c->jti)));
	const struct {
		struct str key, value;
	} extra[] = {
		{ STR("authentication.kubernetes.io/pod-name"), c->pod.name },
		{ STR("authentication.kubernetes.io/pod-uid"), c->pod.uid },
		{ STR("authentication.kubernetes.io/node-name"), c->node.name },
		{ STR("authentication.kubernetes.io/node-uid"), c->node.uid },
	};
	for (size_t i = 0; i < ARRAY_LEN(extra); i++)
		if (extra[i].value.len)
			user_extra_add(a, u, extra[i].key, extra[i].value);
}

static bool looks_like_jwt(struct str token)
{
	ssize_t first = str_find(token, '.');
	return first > 0 && str_find(str_from(token, (size_t)first + 1), '.') > 0;
}

int service_token_check(struct apiserver *s, struct str token, const struct str_list *audiences,
	struct arena *a, struct user_info *ret, struct str_list *ret_audiences, struct err *err)
{
	if (!s->keys->private_pem.len || token.len > TOKEN_MAX || !looks_like_jwt(token))
		return TOKEN_NOT_MINE;
	struct claims c;
	int r = claims_verified(s->keys, token, a, &c, err);
	if (r < 0)
		return r;
	bool legacy = str_eqz(c.issuer, LEGACY_ISSUER);
	struct str own = str_of(s->config.issuer);
	if (!legacy && !str_eqz(c.issuer, s->config.issuer))
		return err_set(err, -EACCES,
			"the token was issued by " STR_FMT ", not by this cluster",
			STR_ARG(c.issuer));
	struct str want = arena_fmt(a, "system:serviceaccount:" STR_FMT ":" STR_FMT, STR_ARG(c.ns),
		STR_ARG(c.account.name));
	if (!c.account.name.len || !str_eq(want, c.subject))
		return err_set(err, -EACCES, "the token's subject and account differ");
	if (legacy)
		c.audiences = (struct str_list){ &own, 1 };
	r = check_audience(s, &c, audiences, a, ret_audiences, err);
	if (r == 0)
		r = legacy ? check_legacy(s, &c, token, a, err) : check_claims(s, &c, err);
	if (r == 0)
		user_from(&c, a, ret);
	return r;
}

/* ---- issuing ---- */

static void add_bound(struct buf *out, const char *key, struct str name, struct str uid)
{
	buf_addf(out, ",\"%s\":{\"name\":", key);
	json_write_text(name, out);
	buf_addz(out, ",\"uid\":");
	json_write_text(uid, out);
	buf_addc(out, '}');
}

static struct str uid_of(const struct object *o)
{
	struct str uid = json_member(json_member(o->json, STR("metadata")), STR("uid"));
	return uid.len >= 2 ? str_n(uid.p + 1, uid.len - 2) : STR_NONE;
}

/* The bound object's claims; a pod's node comes with it. */
static int add_reference(struct apiserver *s, struct str ns,
	const struct authentication_v1_bound_object_reference *ref, struct buf *out,
	struct err *err)
{
	const struct {
		const char *kind, *claim;
		const struct resource *resource;
		struct str ns;
	} rows[] = {
		{ "Pod", "pod", s->known.pods, ns },
		{ "Secret", "secret", s->known.secrets, ns },
		{ "Node", "node", s->known.nodes, STR_NONE },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (!str_eqz(ref->kind, rows[i].kind))
			continue;
		CLEAN_OBJECT struct object *o = NULL;
		if (lookup_object(s, rows[i].resource, rows[i].ns, ref->name, &o) != 0)
			return err_set(err, -ENOENT, "%s \"" STR_FMT "\" not found",
				rows[i].resource->row->plural, STR_ARG(ref->name));
		if (ref->uid.len && !str_eq(ref->uid, uid_of(o)))
			return err_set(err, -ESTALE,
				"the UID in the bound object reference (" STR_FMT
				") does not match the UID in record."
				" The object might have been deleted and then recreated",
				STR_ARG(ref->uid));
		add_bound(out, rows[i].claim, ref->name, uid_of(o));
		struct str node = i == 0 ? object_field(o, STR("spec.nodeName")) : STR_NONE;
		CLEAN_OBJECT struct object *n = NULL;
		if (node.len && lookup_object(s, s->known.nodes, STR_NONE, node, &n) == 0)
			add_bound(out, "node", node, uid_of(n));
		return 0;
	}
	return err_set(err, -EINVAL,
		"cannot bind token for serviceaccount to object of kind \"" STR_FMT "\"",
		STR_ARG(ref->kind));
}

static void add_audiences(
	const struct apiserver *s, const struct str_list *audiences, struct buf *out)
{
	buf_addz(out, "{\"aud\":[");
	if (!audiences->len)
		json_write_text(str_of(s->config.issuer), out);
	for (size_t i = 0; i < audiences->len; i++) {
		if (i)
			buf_addc(out, ',');
		json_write_text(audiences->items[i], out);
	}
	buf_addc(out, ']');
}

int service_token_issue(void *apiserver, struct str ns, struct str name, struct str uid,
	const struct authentication_v1_token_request *req, struct arena *a, struct str *ret_token,
	struct timestamp *ret_expires, struct err *err)
{
	struct apiserver *s = apiserver;
	if (!s->keys->private_pem.len)
		return err_set(err, -ENOTSUP,
			"no service account key is configured, tokens cannot be issued");
	const struct authentication_v1_token_request_spec *spec = &req->spec;
	struct str issuer = str_of(s->config.issuer);
	int64_t now = time_now().sec;
	int64_t seconds = spec->expiration_seconds.set ? spec->expiration_seconds.value : 3600;
	bool for_us = !spec->audiences.len || str_list_has(&spec->audiences, issuer);
	bool extend = seconds == PROJECTED_SECONDS && for_us && spec->bound_object_ref;
	CLEAN_BUF struct buf p = { 0 };
	add_audiences(s, &spec->audiences, &p);
	char jti[UUID_TEXT];
	uuid_v4(jti);
	buf_addf(&p, ",\"exp\":%lld,\"iat\":%lld,\"iss\":",
		(long long)(now + (extend ? EXTENDED_SECONDS : seconds)), (long long)now);
	json_write_text(issuer, &p);
	buf_addf(&p, ",\"jti\":\"%s\",\"kubernetes.io\":{\"namespace\":", jti);
	json_write_text(ns, &p);
	if (spec->bound_object_ref) {
		int r = add_reference(s, ns, spec->bound_object_ref, &p, err);
		if (r < 0)
			return r;
	}
	add_bound(&p, "serviceaccount", name, uid);
	if (extend)
		buf_addf(&p, ",\"warnafter\":%lld", (long long)(now + seconds));
	buf_addf(&p, "},\"nbf\":%lld,\"sub\":", (long long)now);
	json_write_text(arena_fmt(a, "system:serviceaccount:" STR_FMT ":" STR_FMT, STR_ARG(ns),
				STR_ARG(name)),
		&p);
	buf_addc(&p, '}');
	CLEAN_BUF struct buf token = { 0 };
	int r = jwt_sign(s->keys->private_pem, buf_str(&s->keys->key_id), buf_str(&p), &token, err);
	if (r < 0)
		return r;
	*ret_token = arena_str(a, buf_str(&token));
	*ret_expires = (struct timestamp){ .sec = now + seconds };
	return 0;
}

int service_token_legacy(struct apiserver *s, struct str ns, struct str secret, struct str account,
	struct str uid, struct arena *a, struct str *ret_token, struct err *err)
{
	CLEAN_BUF struct buf p = { 0 }, token = { 0 };
	const struct {
		const char *key;
		struct str value;
	} rows[] = {
		{ "iss", STR(LEGACY_ISSUER) },
		{ LEGACY "namespace", ns },
		{ LEGACY "secret.name", secret },
		{ LEGACY "service-account.name", account },
		{ LEGACY "service-account.uid", uid },
		{ "sub",
			arena_fmt(a, "system:serviceaccount:" STR_FMT ":" STR_FMT, STR_ARG(ns),
				STR_ARG(account)) },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		buf_addf(&p, "%s\"%s\":", i ? "," : "{", rows[i].key);
		json_write_text(rows[i].value, &p);
	}
	buf_addc(&p, '}');
	if (!s->keys->private_pem.len)
		return err_set(err, -ENOTSUP,
			"no service account key is configured, tokens cannot be issued");
	int r = jwt_sign(s->keys->private_pem, buf_str(&s->keys->key_id), buf_str(&p), &token, err);
	if (r == 0)
		*ret_token = arena_str(a, buf_str(&token));
	return r;
}
