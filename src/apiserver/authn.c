/* Who asks: the client certificate, then the bearer token, then nobody in particular. A credential that is there and wrong is
 * 401; none at all is system:anonymous. Upstream: apiserver/pkg/authentication. */
#include "apiserver/internal.h"

#include <strings.h>

void user_extra_add(struct arena *a, struct user_info *u, struct str key, struct str value)
{
	size_t n = u->extra_keys.len;
	u->extra_values = arena_grow(a, u->extra_values, n * sizeof(*u->extra_values),
		(n + 1) * sizeof(*u->extra_values));
	*LIST_ADD(a, &u->extra_keys) = key;
	u->extra_values[n] = (struct str_list){ 0 };
	*LIST_ADD(a, &u->extra_values[n]) = value;
}

struct str user_extra_get(const struct user_info *u, struct str key)
{
	for (size_t i = 0; i < u->extra_keys.len; i++)
		if (str_eq(u->extra_keys.items[i], key) && u->extra_values[i].len)
			return u->extra_values[i].items[0];
	return STR_NONE;
}

static void add_authenticated(struct arena *a, struct user_info *u)
{
	if (!str_list_has(&u->groups, STR("system:authenticated")) &&
		!str_list_has(&u->groups, STR("system:unauthenticated")))
		*LIST_ADD(a, &u->groups) = STR("system:authenticated");
}

int authn_token(struct apiserver *s, struct str token, const struct str_list *audiences,
	struct arena *a, struct user_info *ret, struct str_list *ret_audiences, struct err *err)
{
	int r = service_token_check(s, token, audiences, a, ret, ret_audiences, err);
	if (r == TOKEN_NOT_MINE) {
		struct str own = str_of(s->config.issuer);
		if (audiences && audiences->len && !str_list_has(audiences, own))
			return err_set(err, -EACCES, "the token is for another audience");
		r = bootstrap_token_check(s, token, a, ret, err);
		if (r == 0 && audiences && audiences->len && ret_audiences)
			*LIST_ADD(a, ret_audiences) = own;
	}
	if (r == 0)
		add_authenticated(a, ret);
	return r == TOKEN_NOT_MINE ? err_set(err, -EACCES, "the token is of no kind known here")
				   : r;
}

static void from_certificate(const struct tls_identity *id, struct arena *a, struct user_info *u)
{
	u->name = id->common_name;
	u->uid = id->uid;
	for (size_t i = 0; i < id->n_organizations; i++)
		*LIST_ADD(a, &u->groups) = id->organizations[i];
	if (id->fingerprint.len)
		user_extra_add(a, u, STR("authentication.kubernetes.io/credential-id"),
			arena_fmt(a, "X509SHA256=" STR_FMT, STR_ARG(id->fingerprint)));
	add_authenticated(a, u);
}

static struct str bearer_token(const struct http_request *h)
{
	struct str header = http_request_header(h, "authorization");
	if (header.len > 7 && !strncasecmp(header.p, "bearer ", 7))
		return str_trim(str_from(header, 7));
	/* A browser cannot set headers on a WebSocket: the token rides in the protocol list. */
	struct str protocols =
			   h->upgrade ? http_request_header(h, "sec-websocket-protocol") : STR_NONE,
		   one;
	while (protocols.len) {
		if (!str_cut(protocols, ',', &one, &protocols))
			protocols = STR_NONE;
		one = str_trim(one);
		if (str_has_prefix(one, STR("base64url.bearer.authorization.k8s.io.")))
			return one;
	}
	return STR_NONE;
}

static struct str token_text(struct str token, struct arena *a)
{
	struct str prefix = STR("base64url.bearer.authorization.k8s.io.");
	if (!str_has_prefix(token, prefix))
		return token;
	CLEAN_BUF struct buf text = { 0 };
	if (base64url_decode(&text, str_from(token, prefix.len)) < 0)
		return STR("invalid");
	return arena_str(a, buf_str(&text));
}

static void anonymous(struct arena *a, struct user_info *u)
{
	u->name = STR("system:anonymous");
	*LIST_ADD(a, &u->groups) = STR("system:unauthenticated");
}

bool phase_authenticate(struct request *q)
{
	const struct tls_identity *peer = q->http->peer;
	if (peer && peer->common_name.len) {
		from_certificate(peer, q->arena, &q->user);
		return true;
	}
	struct str token = token_text(bearer_token(q->http), q->arena);
	if (!token.len && q->http->peer_refused) {
		respond_reason(q, REASON_UNAUTHORIZED, "Unauthorized");
		return false;
	}
	if (!token.len) {
		anonymous(q->arena, &q->user);
		return true;
	}
	struct err err = { 0 };
	if (authn_token(q->server, token, NULL, q->arena, &q->user, NULL, &err) == 0)
		return true;
	log_debug("apiserver", "token refused: %s", err.text);
	respond_reason(q, REASON_UNAUTHORIZED, "Unauthorized");
	return false;
}
