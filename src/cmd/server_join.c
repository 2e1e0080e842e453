/* How a further server over the same etcd gets the cluster's keys: `skiff token create --role server` seals everything of DATA/pki that is not the
 * machine's own, and `skiff server --server URL --token …` opens it. Upstream: kubeadm's certificate key.
 *
 * 1. What lies in the cluster is Secret kube-system/skiff-server-ID, sealed with AES-256-GCM. Its key is the third part of the token and nowhere else:
 *    neither etcd, nor a snapshot, nor an administrator of the API can open it.
 * 2. A Role of its own lets system:bootstrap:ID, the user of that very token, read it, and take it and the token away.
 * 3. It is for one server: whoever has it takes both away. The token's Secret owns the rest, so all of it goes when the token expires.
 * 4. DATA/pki appears whole or not at all, and one that is there is never touched. */
#include <dirent.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/values.h"
#include "client/client.h"
#include "cmd/cmd.h"
#include "codec/codec.h"
#include "gen/types.h"
#include "io/io.h"

#define NS STR("kube-system")
#define RBAC STR("rbac.authorization.k8s.io")
#define TYPE STR("skiff.dev/server-keys")
#define MEMBER STR("sealed")

enum { NONCE = 12, TAG = 16, FILE_MAX = 1 << 20 };

/* ---- sealing: nonce, ciphertext, tag; the token's ID is authenticated with it ---- */

static int cipher(bool seal, struct str key_text, struct str id, uint8_t *nonce, struct str in,
	uint8_t *out, uint8_t *tag)
{
	EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
	uint8_t key[32];
	int n = 0, m = 0;

	sha256(key_text.p, key_text.len, key);
	bool good = EVP_CipherInit_ex(x, EVP_aes_256_gcm(), NULL, key, nonce, seal) == 1 &&
		EVP_CipherUpdate(x, NULL, &n, (const uint8_t *)id.p, (int)id.len) == 1 &&
		EVP_CipherUpdate(x, out, &n, (const uint8_t *)in.p, (int)in.len) == 1 &&
		(seal || EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_GCM_SET_TAG, TAG, tag) == 1) &&
		EVP_CipherFinal_ex(x, out + n, &m) == 1 &&
		(!seal || EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_GCM_GET_TAG, TAG, tag) == 1);

	EVP_CIPHER_CTX_free(x);
	OPENSSL_cleanse(key, sizeof(key));
	return good ? 0 : -EBADMSG;
}

int server_keys_seal(struct str key, struct str id, struct str plain, struct buf *ret)
{
	uint8_t nonce[NONCE], tag[TAG];

	random_bytes(nonce, sizeof(nonce));
	buf_clear(ret);
	buf_add(ret, nonce, sizeof(nonce));
	buf_reserve(ret, plain.len + TAG + 1);
	if (cipher(true, key, id, nonce, plain, (uint8_t *)ret->p + ret->len, tag) < 0)
		return -EIO;
	ret->len += plain.len;
	buf_add(ret, tag, sizeof(tag));
	return 0;
}

int server_keys_open(struct str key, struct str id, struct str sealed, struct buf *ret)
{
	uint8_t nonce[NONCE], tag[TAG];

	if (sealed.len < NONCE + TAG)
		return -EBADMSG;
	size_t n = sealed.len - NONCE - TAG;

	memcpy(nonce, sealed.p, NONCE);
	memcpy(tag, sealed.p + NONCE + n, TAG);
	buf_clear(ret);
	buf_reserve(ret, n + 1);
	if (cipher(false, key, id, nonce, str_n(sealed.p + NONCE, n), (uint8_t *)ret->p, tag) < 0)
		return -EBADMSG;
	ret->len = n;
	return 0;
}

/* ---- the files: {"NAME": "base64", …} ---- */

static bool is_shared(const char *name)
{
	return name[0] != '.' && strncmp(name, "server.", 7) && strlen(name) < 64;
}

static int pack(const char *data_dir, struct buf *ret, struct err *err)
{
	CLEAN_FREE char *dir = xasprintf("%s/pki", data_dir);
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = 0;

	if (!d)
		return err_errno(err, -errno, "reading %s", dir);
	buf_addc(ret, '{');
	while (r == 0 && (e = readdir(d))) {
		CLEAN_FREE char *path = xasprintf("%s/%s", dir, e->d_name);
		CLEAN_BUF struct buf bytes = { 0 };

		if (!is_shared(e->d_name))
			continue;
		r = file_read(path, FILE_MAX, &bytes, err);
		buf_addf(ret, "%s\"%s\":\"", ret->len > 1 ? "," : "", e->d_name);
		base64_encode(ret, bytes.p, bytes.len);
		buf_addc(ret, '"');
	}
	buf_addc(ret, '}');
	closedir(d);
	return r;
}

static int write_file(
	const char *dir, const struct value_member *m, uid_t uid, gid_t gid, struct err *err)
{
	CLEAN_FREE char *name = str_dup(m->key), *path = xasprintf("%s/%s", dir, name);
	CLEAN_BUF struct buf bytes = { 0 };

	if (!is_shared(name) || strchr(name, '/') || m->value.kind != VALUE_TEXT ||
		base64_decode(&bytes, m->value.text) < 0)
		return err_set(err, -EBADMSG,
			"the keys from the first server have no file like \"%s\"", name);
	int r = file_write_atomic(
		path, buf_str(&bytes), strstr(name, ".key") ? 0600 : 0644, true, err);

	if (r == 0 && uid != (uid_t)-1 && chown(path, uid, gid) < 0)
		r = err_errno(err, -errno, "cannot give %s to uid %u", path, uid);
	return r;
}

/* Beside first, then renamed. */
static int unpack(const char *data_dir, struct str json, uid_t uid, gid_t gid, struct err *err)
{
	CLEAN_FREE char *dir = xasprintf("%s/pki", data_dir),
			*part = xasprintf("%s/pki.part", data_dir);
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct value v;
	int r = json_parse(json, a, &v, err);

	if (r == 0 &&
		(v.kind != VALUE_OBJECT || !value_get(&v, STR("ca.key")) ||
			!value_get(&v, STR("ca.crt")) ||
			!value_get(&v, STR("service-account.key"))))
		r = err_set(err, -EBADMSG, "the keys from the first server are not complete");
	if (r == 0)
		r = dir_make(part, 0750, err);
	for (size_t i = 0; r == 0 && i < v.object.len; i++)
		r = write_file(part, &v.object.members[i], uid, gid, err);
	if (r == 0 && uid != (uid_t)-1 && chown(part, uid, gid) < 0)
		r = err_errno(err, -errno, "cannot give %s to uid %u", part, uid);
	if (r == 0 && rename(part, dir) < 0)
		r = err_errno(err, -errno, "cannot name %s", dir);
	return r < 0 ? r : dir_sync(data_dir, err);
}

/* ---- the first server's side ---- */

static void describe(struct arena *a, struct meta_v1_object_meta *m, struct str name,
	const struct core_v1_secret *token)
{
	struct meta_v1_owner_reference *o = LIST_ADD(a, &m->owner_references);

	m->name = name;
	m->namespace = NS;
	*o = (struct meta_v1_owner_reference){ .api_version = STR("v1"),
		.kind = STR("Secret"),
		.name = token->metadata.name,
		.uid = token->metadata.uid };
}

static void allow(struct arena *a, struct rbac_v1_role *role, const char *verb, struct str secret)
{
	struct rbac_v1_policy_rule *rule = LIST_ADD(a, &role->rules);

	*LIST_ADD(a, &rule->verbs) = str_of(verb);
	*LIST_ADD(a, &rule->api_groups) = STR("");
	*LIST_ADD(a, &rule->resources) = STR("secrets");
	*LIST_ADD(a, &rule->resource_names) = secret;
}

static int publish_role(struct client *c, struct arena *a, struct str name, struct str id,
	const struct core_v1_secret *token, struct err *err)
{
	struct rbac_v1_role *role = model_new(&rbac_v1_role_type, a);
	struct rbac_v1_role_binding *binding = model_new(&rbac_v1_role_binding_type, a);
	int r;

	describe(a, &role->metadata, name, token);
	allow(a, role, "get", name);
	allow(a, role, "delete", name);
	allow(a, role, "delete", token->metadata.name);
	describe(a, &binding->metadata, name, token);
	binding->role_ref = (struct rbac_v1_role_ref){ RBAC, STR("Role"), name };
	*LIST_ADD(a, &binding->subjects) = (struct rbac_v1_subject){ .kind = STR("User"),
		.api_group = RBAC,
		.name = arena_fmt(a, "system:bootstrap:" STR_FMT, STR_ARG(id)) };
	r = client_create(c, &rbac_v1_role_type, NS, role, a, NULL, err);
	return r ? r : client_create(c, &rbac_v1_role_binding_type, NS, binding, a, NULL, err);
}

int server_keys_publish(struct client *c, const char *data_dir, const struct core_v1_secret *token,
	struct str id, struct str key, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf plain = { 0 }, sealed = { 0 };
	struct core_v1_secret *s = model_new(&core_v1_secret_type, a);
	struct str name = arena_fmt(a, "skiff-server-" STR_FMT, STR_ARG(id));
	int r = pack(data_dir, &plain, err);

	if (r == 0 && server_keys_seal(key, id, buf_str(&plain), &sealed) < 0)
		r = err_set(err, -EIO, "cannot seal the keys under %s/pki", data_dir);
	if (r == 0)
		r = publish_role(c, a, name, id, token, err);
	if (r)
		return r < 0 ? r : -EIO;
	describe(a, &s->metadata, name, token);
	s->type = TYPE;
	str_map_set(a, &s->data, MEMBER, buf_str(&sealed));
	r = client_create(c, &core_v1_secret_type, NS, s, a, NULL, err);
	return r > 0 ? -EIO : r;
}

/* ---- the further server's side ---- */

struct server_token {
	struct str bearer, id, key, pin;
};

static int split(const char *text, struct server_token *ret, struct err *err)
{
	struct str front, secret, rest;
	bool good = text && str_cut(str_of(text), ':', &front, &ret->pin) &&
		str_cut(front, '.', &ret->id, &rest);

	if (good && !str_cut(rest, '.', &secret, &ret->key))
		return err_set(err, -EINVAL,
			"--token: this one lets agents join; `skiff token create --role server` on a server prints the line for a further server");
	if (!good || ret->pin.len != 64)
		return err_set(err, -EINVAL,
			"--token: expected ID.SECRET.KEY:PIN, as `skiff token create --role server` on a server prints it");
	ret->bearer = str_n(front.p, front.len - ret->key.len - 1);
	return 0;
}

/* 1: there are no keys yet. */
static int look(const struct options *o, struct str pin, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/pki/ca.crt", o->data_dir),
			*dir = xasprintf("%s/pki", o->data_dir);
	CLEAN_BUF struct buf ca = { 0 }, have = { 0 };

	if (access(dir, F_OK) < 0 && errno == ENOENT)
		return 1;
	int r = file_read(path, FILE_MAX, &ca, err);

	if (r == 0)
		r = cert_pin(buf_str(&ca), &have, err);
	if (r == 0 && !str_eq(buf_str(&have), pin))
		r = err_set(err, -EEXIST,
			"%s holds the keys of another cluster than --token names: give another --data-dir, or `skiff uninstall` first",
			dir);
	return r;
}

static int refused(
	const struct options *o, const struct server_token *t, int outcome, struct err *err)
{
	static const char remedy[] =
		"`skiff token create --role server` on a server prints a new line";

	if (outcome == CLIENT_UNAUTHORIZED)
		return err_set(err, -EACCES,
			"%s does not take token " STR_FMT
			": it was used already, has expired, was revoked, or is mistyped; %s",
			o->server, STR_ARG(t->id), remedy);
	if (outcome == CLIENT_NOT_FOUND || outcome == CLIENT_FORBIDDEN)
		return err_set(err, -EACCES,
			"token " STR_FMT
			" opens no server's keys on %s: they were fetched already, or it is no server's token; %s",
			STR_ARG(t->id), o->server, remedy);
	return outcome > 0 ? -EIO : outcome;
}

static void use_up(struct client *c, const struct server_token *t, struct str name)
{
	struct client_delete how = { .grace_seconds = -1 };
	CLEAN_FREE char *token = xasprintf("bootstrap-token-" STR_FMT, STR_ARG(t->id));
	struct err err = { 0 };
	int r = client_delete(c, &core_v1_secret_type, NS, name, &how, &err);

	if (r == 0)
		r = client_delete(c, &core_v1_secret_type, NS, str_of(token), &how, &err);
	if (r)
		log_warn("server",
			"token " STR_FMT
			" could not be taken away: %s; `skiff token delete " STR_FMT "` does",
			STR_ARG(t->id), err.text, STR_ARG(t->id));
}

static int fetch(const struct options *o, const struct server_token *t, uid_t uid, gid_t gid,
	struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf plain = { 0 };
	struct str name = arena_fmt(a, "skiff-server-" STR_FMT, STR_ARG(t->id));
	struct core_v1_secret *s;
	struct client *c = NULL;
	int r = join_connect(o->server, t->bearer, t->pin, NULL, &c, err);

	if (r < 0)
		return r;
	r = client_get(c, &core_v1_secret_type, NS, name, a, (void **)&s, err);
	if (r)
		r = refused(o, t, r, err);
	else if (server_keys_open(t->key, t->id, str_map_get(&s->data, MEMBER), &plain) < 0)
		r = err_set(err, -EACCES,
			"the third part of token " STR_FMT
			" does not open the keys: it is mistyped",
			STR_ARG(t->id));
	if (r == 0)
		r = unpack(o->data_dir, buf_str(&plain), uid, gid, err);
	OPENSSL_cleanse(plain.p, plain.len);
	if (r == 0) {
		use_up(c, t, name);
		log_info("server", "the cluster's keys were fetched from %s", o->server);
	}
	client_free(c);
	return r;
}

int server_join(const struct options *o, uid_t uid, gid_t gid, struct err *err)
{
	struct server_token t = { 0 };

	if (!o->server && !o->token)
		return 0;
	if (!o->server || !o->token)
		return err_set(err, -EINVAL,
			"--server and --token go together: take both from the line of `skiff token create --role server`");
	if (!str_has_prefix(str_of(o->store), STR("etcd=")))
		return err_set(err, -EINVAL,
			"a further server shares the store of the first one: give --store etcd=… and --etcd-cafile and so on, as there");
	int r = split(o->token, &t, err);

	if (r == 0)
		r = look(o, t.pin, err);
	return r == 1 ? fetch(o, &t, uid, gid, err) : r;
}
