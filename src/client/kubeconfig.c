/* A client from a kubeconfig file: the current context's cluster and user; certificates, keys and CA inline (…-data, base64) or by path
 * (relative to the file's folder), tokens inline or by tokenFile. Exec plugins and auth providers are refused in words. */
#include "client/internal.h"

#include <libgen.h>

#include "io/io.h"

#define FILE_MOST (1024 * 1024)

struct kubeconfig {
	const char *path;
	struct arena *arena;
	struct value root;
};

static const struct value *member(const struct value *o, const char *key)
{
	return o && o->kind == VALUE_OBJECT ? value_get(o, str_of(key)) : NULL;
}

static struct str text(const struct value *o, const char *key)
{
	const struct value *v = member(o, key);

	return v && v->kind == VALUE_TEXT ? v->text : STR_NONE;
}

/* clusters: [{name: x, cluster: {…}}] */
static const struct value *named(
	const struct kubeconfig *k, const char *list, const char *what, struct str name)
{
	const struct value *l = member(&k->root, list);

	for (size_t i = 0; l && l->kind == VALUE_LIST && i < l->list.len; i++)
		if (str_eq(text(&l->list.items[i], "name"), name))
			return member(&l->list.items[i], what);
	return NULL;
}

/* key-data in base64, or the file that key names; none: empty. */
static int bytes(const struct kubeconfig *k, const struct value *o, const char *key,
	struct str *ret, struct err *err)
{
	struct str data = text(o, arena_fmt(k->arena, "%s-data", key).p), path = text(o, key);
	struct buf b CLEAN_BUF = { 0 };

	if (data.len) {
		if (base64_decode(&b, data))
			return err_set(err, -EBADMSG, "kubeconfig %s: %s-data is not base64",
				k->path, key);
	} else if (path.len) {
		struct str full = path;

		if (path.p[0] != '/')
			full = arena_fmt(k->arena, "%s/" STR_FMT,
				dirname((char *)arena_strz(k->arena, k->path).p), STR_ARG(path));
		int r = file_read(full.p, FILE_MOST, &b, err);

		if (r)
			return err_prefix(err, r, "kubeconfig %s: %s", k->path, key);
	} else {
		return 0;
	}
	*ret = arena_str(k->arena, buf_str(&b));
	return 0;
}

static int connect_to(const struct kubeconfig *k, const struct value *cluster,
	const struct value *user, struct http_client **ret, struct err *err)
{
	struct tls_client_config tls = { 0 };
	struct tls_context *context = NULL;
	struct str server = text(cluster, "server"), token = text(user, "token");
	struct buf file CLEAN_BUF = { 0 };
	const struct value *skip = member(cluster, "insecure-skip-tls-verify");
	int r;

	if (!server.len)
		return err_set(err, -EINVAL, "kubeconfig %s: the cluster names no server", k->path);
	if (member(user, "exec") || member(user, "auth-provider"))
		return err_set(err, -ENOTSUP,
			"kubeconfig %s: exec plugins are not supported: use a certificate or a token",
			k->path);
	if ((r = bytes(k, cluster, "certificate-authority", &tls.ca_pem, err)) ||
		(r = bytes(k, user, "client-certificate", &tls.cert_pem, err)) ||
		(r = bytes(k, user, "client-key", &tls.key_pem, err)))
		return r;
	tls.insecure_skip_verify = skip && skip->kind == VALUE_BOOL && skip->boolean;
	tls.server_name = text(cluster, "tls-server-name").p;
	if (!token.len && text(user, "tokenFile").len) {
		if ((r = file_read(text(user, "tokenFile").p, FILE_MOST, &file, err)))
			return err_prefix(err, r, "kubeconfig %s: tokenFile", k->path);
		token = str_trim(buf_str(&file));
	}
	if (str_has_prefix(server, STR("https://")) && (r = tls_client_new(&tls, &context, err)))
		return err_prefix(err, r, "kubeconfig %s", k->path);
	r = http_client_new(server.p, context, ret, err);
	tls_context_free(context);
	if (!r && token.len)
		http_client_set_bearer(*ret, token);
	return r;
}

int client_from_kubeconfig(
	const char *path, const char *user_agent, struct client **ret, struct err *err)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct kubeconfig k = { .path = path, .arena = a };
	struct buf file CLEAN_BUF = { 0 };
	struct http_client *http;
	int r = file_read(path, FILE_MOST, &file, err);

	if (r)
		return r;
	r = yaml_parse(buf_str(&file), a, &k.root, err);
	if (r)
		return err_prefix(err, r, "kubeconfig %s", path);
	struct str current = text(&k.root, "current-context");
	const struct value *context = named(&k, "contexts", "context", current);
	const struct value *cluster = named(&k, "clusters", "cluster", text(context, "cluster"));

	if (!context || !cluster)
		return err_set(err, -EINVAL,
			"kubeconfig %s: current-context \"" STR_FMT
			"\" names no context with a cluster",
			path, STR_ARG(current));
	r = connect_to(&k, cluster, named(&k, "users", "user", text(context, "user")), &http, err);
	if (r)
		return r;
	const struct client_config c = { .http = http, .user_agent = user_agent };

	*ret = client_new(&c);
	return 0;
}
