/* What others need to check our service account tokens themselves: the issuer's discovery document and its public key. */
#include "apiserver/internal.h"

bool serve_oidc(struct request *q)
{
	const char *issuer = q->server->config.issuer;
	CLEAN_BUF struct buf out = { 0 };
	if (str_has_prefix(q->info.path, STR("/openid/"))) {
		buf_addf(&out, "{\"keys\":[" STR_FMT "]}",
			STR_ARG(token_keys_jwks(q->server->keys)));
		respond_text(
			q, 200, "application/jwk-set+json", arena_str(q->arena, buf_str(&out)));
		return true;
	}
	buf_addz(&out, "{\"issuer\":");
	json_write_text(str_of(issuer), &out);
	buf_addz(&out, ",\"jwks_uri\":");
	json_write_text(arena_fmt(q->arena, "%s/openid/v1/jwks", issuer), &out);
	buf_addz(&out,
		",\"response_types_supported\":[\"id_token\"],\"subject_types_supported\":[\"public\"],"
		"\"id_token_signing_alg_values_supported\":[\"ES256\"]}");
	respond_text(q, 200, "application/json", arena_str(q->arena, buf_str(&out)));
	return true;
}
