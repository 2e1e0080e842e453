/* `skiff token create|list|delete`: bootstrap tokens with which machines join. A token is ID.SECRET:PIN; PIN is the SHA-256 of the cluster's CA, so
 * that a machine needs nothing else to know whom it joins. Kept as upstream keeps them: Secrets kube-system/bootstrap-token-ID. */
#include <stdio.h>

#include "client/client.h"
#include "cmd/cmd.h"
#include "gen/types.h"

#define NS STR("kube-system")
#define PREFIX "bootstrap-token-"
#define ADDRESS_TRIES 50 /* at 100 ms */

/* Lower-case letters and digits, as the token's form asks. */
static void random_word(char *out, size_t n)
{
	static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";

	for (size_t i = 0; i < n;) {
		uint8_t b;

		random_bytes(&b, 1);
		if (b < 252) /* 7 * 36: no letter is likelier */
			out[i++] = alphabet[b % 36];
	}
	out[n] = 0;
}

#define STANDING_TTL_S (24 * 3600)
#define STANDING_LEAST_S (8 * 3600) /* a token that ends sooner is not given out any more */
#define STANDING_LABEL "skiff.dev/join"
#define SERVERS "server" /* the label's value on a server's token */
#define KEY_LEN 52       /* more than 256 bits */
#define SERVER_TOKEN_TEXT (TOKEN_TEXT + KEY_LEN + 1)

static bool is_servers(const char *label)
{
	return label && !strcmp(label, SERVERS);
}

/* ret_made may be NULL. */
static int make_in(struct client *c, int64_t ttl_s, const char *label, struct arena *a,
	char ret[TOKEN_TEXT], struct core_v1_secret **ret_made, struct err *err)
{
	struct core_v1_secret *s = model_new(&core_v1_secret_type, a);
	char id[7], secret[17], end[TIME_TEXT_MAX];
	int r;

	random_word(id, 6);
	random_word(secret, 16);
	s->metadata.name = arena_fmt(a, PREFIX "%s", id);
	s->metadata.namespace = NS;
	if (label)
		str_map_set(a, &s->metadata.labels, STR(STANDING_LABEL), str_of(label));
	s->type = STR("bootstrap.kubernetes.io/token");
	str_map_set(a, &s->data, STR("token-id"), str_of(id));
	str_map_set(a, &s->data, STR("token-secret"), str_of(secret));
	str_map_set(a, &s->data, STR("usage-bootstrap-authentication"), STR("true"));
	str_map_set(a, &s->data, STR("description"),
		is_servers(label) ? STR("lets one further server join")
				  : STR("lets machines join as nodes"));
	if (ttl_s > 0) {
		time_format(time_add_ns(time_now(), ttl_s * 1000000000LL), end);
		str_map_set(a, &s->data, STR("expiration"), str_of(end));
	}
	r = client_create(c, &core_v1_secret_type, NS, s, a, (void **)ret_made, err);
	if (r == 0)
		snprintf(ret, TOKEN_TEXT, "%s.%s", id, secret);
	return r > 0 ? -EIO : r;
}

static int make(
	struct client *c, int64_t ttl_s, const char *label, char ret[TOKEN_TEXT], struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);

	return make_in(c, ttl_s, label, a, ret, NULL, err);
}

/* One for a server, with the cluster's keys ready for it: *ret_text is ID.SECRET.KEY. */
static int make_servers(struct client *c, const char *data_dir, int64_t ttl_s,
	char ret[SERVER_TOKEN_TEXT], struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct core_v1_secret *made;
	char token[TOKEN_TEXT], key[KEY_LEN + 1];
	int r = make_in(c, ttl_s, SERVERS, a, token, &made, err);

	if (r < 0)
		return r;
	random_word(key, KEY_LEN);
	snprintf(ret, SERVER_TOKEN_TEXT, "%s.%s", token, key);
	return server_keys_publish(c, data_dir, made, str_n(token, 6), str_of(key), err);
}

int token_make(struct client *c, int64_t ttl_s, char ret[TOKEN_TEXT], struct err *err)
{
	return make(c, ttl_s, NULL, ret, err);
}

/* Seconds for which it lets machines join; 0: it does not. */
static int64_t token_left_s(const struct core_v1_secret *s)
{
	struct timestamp end;

	if (!str_eqz(str_map_get(&s->data, STR("usage-bootstrap-authentication")), "true") ||
		!time_is_zero(s->metadata.deletion_timestamp) ||
		time_parse(str_map_get(&s->data, STR("expiration")), &end) < 0)
		return 0;
	return MAX((int64_t)time_diff_s(end, time_now()), (int64_t)0);
}

int token_standing(struct client *c, char ret[TOKEN_TEXT], int64_t *ret_left_s, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct core_v1_secret_list *l;
	int64_t best = STANDING_LEAST_S;
	int r = client_list(c, &core_v1_secret_type, NS, STANDING_LABEL "=default",
		"type=bootstrap.kubernetes.io/token", a, (void **)&l, err);

	if (r)
		return r < 0 ? r : -EIO;
	LIST_EACH(s, &l->items) {
		struct str id = str_map_get(&s->data, STR("token-id")),
			   secret = str_map_get(&s->data, STR("token-secret"));
		int64_t left = token_left_s(s);

		if (left <= best || id.len != 6 || secret.len != 16)
			continue;
		best = left;
		snprintf(ret, TOKEN_TEXT, STR_FMT "." STR_FMT, STR_ARG(id), STR_ARG(secret));
	}
	if (best == STANDING_LEAST_S) {
		r = make(c, STANDING_TTL_S, "default", ret, err);
		best = STANDING_TTL_S;
	}
	*ret_left_s = best - STANDING_LEAST_S;
	return r;
}

/* ---- what a further server must be told alike ---- */

static bool is_alike(const struct options *o, const char *flag)
{
	static const char *const always[] = { "--store=", "--etcd-" };
	const struct {
		const char *name, *fallback;
	} others[] = { { "--pod-cidr=", o->pod_cidr }, { "--service-cidr=", o->service_cidr },
		{ "--cluster-domain=", o->cluster_domain } };

	for (size_t i = 0; i < ARRAY_LEN(always); i++)
		if (!strncmp(flag, always[i], strlen(always[i])))
			return true;
	for (size_t i = 0; i < ARRAY_LEN(others); i++) {
		size_t n = strlen(others[i].name);

		if (!strncmp(flag, others[i].name, n))
			return strcmp(flag + n, others[i].fallback) != 0;
	}
	return false;
}

static bool add_flags(const struct options *o, const char *pid, struct buf *ret)
{
	CLEAN_FREE char *path = xasprintf("/proc/%s/cmdline", pid);
	CLEAN_BUF struct buf argv = { 0 };
	struct str rest, arg;
	int n = 0;

	if (file_read(path, 1 << 20, &argv, NULL) < 0)
		return false;
	for (rest = buf_str(&argv); str_cut(rest, '\0', &arg, &rest); n++) {
		if (n == 1 && !str_eqz(arg, "control-plane"))
			return false;
		if (n > 1 && is_alike(o, arg.p))
			buf_addf(ret, " %s", arg.p);
	}
	return n > 1;
}

/* The flags of the control plane that runs here: its supervisor's number lies in the lock file. */
static int flags_of_server(const struct options *o, struct buf *ret, struct err *err)
{
	CLEAN_FREE char *lock = xasprintf("%s/server.lock", o->data_dir);
	CLEAN_BUF struct buf pid = { 0 }, children = { 0 };
	struct str rest, child;
	bool found = false;
	int r = file_read(lock, 64, &pid, err);

	if (r < 0)
		return r;
	CLEAN_FREE char *supervisor = str_dup(str_trim(buf_str(&pid)));
	CLEAN_FREE char *path = xasprintf("/proc/%s/task/%s/children", supervisor, supervisor);

	if (file_read(path, 1 << 16, &children, NULL) == 0)
		for (rest = buf_str(&children); !found && str_cut(rest, ' ', &child, &rest);) {
			CLEAN_FREE char *text = str_dup(child);

			found = add_flags(o, text, ret);
		}
	if (!found)
		return err_set(err, -ENOENT,
			"no server runs with %s: call this on the machine of a running server",
			o->data_dir);
	if (str_find_str(buf_str(ret), STR("--store=etcd=")) < 0)
		return err_set(err, -EINVAL,
			"this server's store is its own: several servers need etcd, see `skiff store migrate`");
	return 0;
}

static int create(const struct options *o, struct client *c, struct err *err)
{
	CLEAN_FREE char *ca_path = xasprintf("%s/pki/ca.crt", o->data_dir);
	CLEAN_BUF struct buf ca = { 0 }, pin = { 0 }, flags = { 0 };
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct core_v1_endpoints *ep;
	char token[SERVER_TOKEN_TEXT];
	bool servers = !strcmp(o->role, SERVERS);
	const char *ttl_text = o->ttl ? o->ttl : servers ? "1h" : "24h";
	int64_t ttl;
	int r = file_read(ca_path, 1 << 20, &ca, err);

	if (!servers && strcmp(o->role, "agent"))
		return err_set(err, -EINVAL, "--role %s: expected agent or server", o->role);
	if (duration_parse(str_of(ttl_text), &ttl) < 0 || ttl < 0)
		return err_set(err, -EINVAL,
			"--ttl %s: expected a duration, as in 24h (0s: for ever)", ttl_text);
	if (servers && ttl < 1000000000LL)
		return err_set(err, -EINVAL,
			"--ttl %s: a server's token must end: it opens the cluster's keys",
			ttl_text);
	if (r == 0)
		r = cert_pin(buf_str(&ca), &pin, err);
	if (r == 0 && servers)
		r = flags_of_server(o, &flags, err);
	/* A server that has just become ready publishes its address a moment later. */
	for (int i = 0; r == 0 && i < ADDRESS_TRIES; i++) {
		r = client_get(c, &core_v1_endpoints_type, STR("default"), STR("kubernetes"), a,
			(void **)&ep, err);
		if (r != CLIENT_NOT_FOUND || i == ADDRESS_TRIES - 1)
			break;
		r = 0;
		usleep(100000);
	}
	if (r == 0)
		r = servers ? make_servers(c, o->data_dir, ttl / 1000000000LL, token, err)
			    : token_make(c, ttl / 1000000000LL, token, err);
	if (r)
		return r < 0 ? r : -EIO;
	if (!ep->subsets.len || !ep->subsets.items[0].addresses.len ||
		!ep->subsets.items[0].ports.len)
		return err_set(err, -ENOENT,
			"service default/kubernetes has no address: the server is still starting");
	printf("skiff %s --server https://" STR_FMT ":%d --token %s:" STR_FMT "%s\n", o->role,
		STR_ARG(ep->subsets.items[0].addresses.items[0].ip),
		ep->subsets.items[0].ports.items[0].port, token, STR_ARG(buf_str(&pin)),
		flags.p ? flags.p : "");
	return 0;
}

static int list(const struct options *o, struct client *c, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct core_v1_secret_list *l;
	int r = client_list(c, &core_v1_secret_type, NS, NULL, "type=bootstrap.kubernetes.io/token",
		a, (void **)&l, err);

	if (r)
		return r < 0 ? r : -EIO;
	puts("ID      ROLE    EXPIRES");
	LIST_EACH(s, &l->items) {
		struct str end = str_map_get(&s->data, STR("expiration"));

		struct str label = str_map_get(&s->metadata.labels, STR(STANDING_LABEL));

		printf(STR_FMT "  %-6s  " STR_FMT "\n",
			STR_ARG(str_map_get(&s->data, STR("token-id"))),
			str_eqz(label, SERVERS) ? SERVERS : "agent",
			STR_ARG(end.p ? end : STR("never")));
	}
	return 0;
}

static int delete (const struct options *o, struct client *c, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct client_delete how = { .grace_seconds = -1 };
	struct str id, rest;
	int r;

	if (o->n_args != 2)
		return err_set(err, -EINVAL, "usage: skiff token delete ID");
	str_cut(str_of(o->args[1]), '.', &id, &rest);
	r = client_delete(
		c, &core_v1_secret_type, NS, arena_fmt(a, PREFIX STR_FMT, STR_ARG(id)), &how, err);
	return r > 0 ? -EIO : r;
}

/* clang-format off */
static const struct { const char *name; int (*run)(const struct options *o, struct client *c, struct err *err); } verbs[] = {
	{ "create", create },
	{ "list",   list },
	{ "delete", delete },
};
/* clang-format on */

int cmd_token(int argc, char **argv)
{
	struct options o;
	struct client *c;
	struct err err = { 0 };
	int r = options_parse(&o, OPT_CLIENT, argc, argv);

	if (r)
		return r > 0 ? 0 : 2;
	for (size_t i = 0; o.n_args && i < ARRAY_LEN(verbs); i++) {
		if (strcmp(o.args[0], verbs[i].name))
			continue;
		r = cmd_client(&o, &c, &err);
		if (r == 0)
			r = verbs[i].run(&o, c, &err);
		return r < 0 ? cmd_fail("token", &err, 1) : 0;
	}
	fputs("usage: skiff token create [--role agent|server] [--ttl 24h] | list | delete ID\n",
		stderr);
	return 2;
}
