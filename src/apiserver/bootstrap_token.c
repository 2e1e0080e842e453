/* Tokens ID.SECRET of Secrets kube-system/bootstrap-token-ID, with which a machine joins. Upstream: plugin/pkg/auth/authenticator/
 * token/bootstrap. */
#include "apiserver/internal.h"

static bool in_alphabet(struct str s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9')))
			return false;
	return true;
}

static bool same_secret(struct str a, struct str b)
{
	unsigned char diff = a.len != b.len;
	for (size_t i = 0; i < a.len && i < b.len; i++)
		diff |= (unsigned char)(a.p[i] ^ b.p[i]);
	return diff == 0;
}

static struct str data(const struct core_v1_secret *s, const char *key)
{
	return str_map_get(&s->data, str_of(key));
}

static int check_secret(
	const struct core_v1_secret *s, struct str id, struct str secret, struct err *err)
{
	if (!str_eqz(s->type, "bootstrap.kubernetes.io/token"))
		return err_set(err, -EACCES, "Secret kube-system/" STR_FMT " is no bootstrap token",
			STR_ARG(s->metadata.name));
	if (!time_is_zero(s->metadata.deletion_timestamp))
		return err_set(
			err, -EACCES, "bootstrap token " STR_FMT " is being deleted", STR_ARG(id));
	if (!str_eq(data(s, "token-id"), id) || !data(s, "token-secret").len ||
		!same_secret(data(s, "token-secret"), secret))
		return err_set(err, -EACCES, "the secret of bootstrap token " STR_FMT " is wrong",
			STR_ARG(id));
	struct str expiration = data(s, "expiration");
	struct timestamp at;
	if (expiration.len && (time_parse(expiration, &at) < 0 || time_cmp(at, time_now()) <= 0))
		return err_set(err, -EACCES,
			"bootstrap token " STR_FMT " expired at " STR_FMT
			"; make a new one: skiff token create",
			STR_ARG(id), STR_ARG(expiration));
	if (!str_eqz(data(s, "usage-bootstrap-authentication"), "true"))
		return err_set(err, -EACCES,
			"bootstrap token " STR_FMT " is not for authentication", STR_ARG(id));
	return 0;
}

int bootstrap_token_check(struct apiserver *s, struct str token, struct arena *a,
	struct user_info *ret, struct err *err)
{
	struct str id, secret;
	if (!str_cut(token, '.', &id, &secret) || id.len != 6 || secret.len != 16 ||
		!in_alphabet(id) || !in_alphabet(secret))
		return TOKEN_NOT_MINE;
	struct core_v1_secret *obj;
	struct str name = arena_fmt(a, "bootstrap-token-" STR_FMT, STR_ARG(id));
	if (lookup(s, s->known.secrets, STR("kube-system"), name, a, &obj) != 0)
		return err_set(err, -EACCES,
			"there is no bootstrap token " STR_FMT "; make one: skiff token create",
			STR_ARG(id));
	int r = check_secret(obj, id, secret, err);
	if (r < 0)
		return r;
	*ret = (struct user_info){ .name = arena_fmt(a, "system:bootstrap:" STR_FMT, STR_ARG(id)) };
	*LIST_ADD(a, &ret->groups) = STR("system:bootstrappers");
	struct str groups = data(obj, "auth-extra-groups"), group;
	while (groups.len) {
		if (!str_cut(groups, ',', &group, &groups))
			groups = STR_NONE;
		if (str_has_prefix(group, STR("system:bootstrappers:")))
			*LIST_ADD(a, &ret->groups) = group;
	}
	return 0;
}
