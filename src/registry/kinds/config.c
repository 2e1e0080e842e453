/* Secrets and ConfigMaps. Upstream: pkg/registry/core/secret and configmap. */
#include "registry/kinds/kinds.h"

enum { DATA_MAX = 1024 * 1024 };
#define FROZEN "field is immutable when `immutable` is set"

static bool map_equal(const struct str_map *a, const struct str_map *b)
{
	if (a->len != b->len)
		return false;
	for (size_t i = 0; i < a->len; i++)
		if (!str_eq(a->items[i].key, b->items[i].key) ||
			!str_eq(a->items[i].value, b->items[i].value))
			return false;
	return true;
}

static size_t check_keys(const struct str_map *m, const char *name, struct causes *cs)
{
	size_t total = 0;
	LIST_EACH(p, m) {
		const char *bad = valid_config_key(p->key);
		if (bad)
			INVALID(cs, AT_KEY(NULL, name, p->key), p->key, bad);
		total += p->value.len;
	}
	return total;
}

static void check_frozen(struct opt_bool now, struct opt_bool old, struct causes *cs)
{
	if (old.value && !now.value)
		FORBIDDEN(cs, AT(NULL, "immutable"), FROZEN);
}

/* ---- Secret ---- */

/* All of over's, over m's, in one pass: tens of thousands of keys fit a Secret. */
static void merge(struct arena *a, struct str_map *m, const struct str_map *over)
{
	const struct str_map old = *m;
	struct str_map sum = {
		arena_alloc(a, model_list_room(old.len + over->len) * sizeof(*sum.items)), 0
	};

	for (size_t i = 0, k = 0; i < old.len || k < over->len;) {
		int order = i == old.len ? 1
			: k == over->len ? -1
					 : str_cmp(old.items[i].key, over->items[k].key);

		sum.items[sum.len++] = order < 0 ? old.items[i] : over->items[k];
		i += order <= 0;
		k += order >= 0;
	}
	*m = sum;
}

static void secret_fill(struct write *w, void *obj)
{
	struct core_v1_secret *s = obj;
	if (!s->string_data.len)
		return;
	merge(w->arena, &s->data, &s->string_data);
	s->string_data = (struct str_map){ 0 };
}

/* clang-format off */
static const struct {
	const char *type, *key;
} required_keys[] = {
	{ "kubernetes.io/dockercfg", ".dockercfg" },
	{ "kubernetes.io/dockerconfigjson", ".dockerconfigjson" },
	{ "kubernetes.io/ssh-auth", "ssh-privatekey" },
	{ "kubernetes.io/tls", "tls.crt" },
	{ "kubernetes.io/tls", "tls.key" },
};
/* clang-format on */

static void check_json(const struct core_v1_secret *s, const char *key, struct causes *cs)
{
	struct value v;
	struct err err;
	struct str text = str_map_get(&s->data, str_of(key));
	if (text.p && json_parse(text, cs->arena, &v, &err))
		INVALID(cs, AT_KEY(NULL, "data", str_of(key)), STR("<secret contents redacted>"),
			err.text);
}

static void secret_validate(struct write *w, struct causes *cs)
{
	struct core_v1_secret *s = w->obj;
	if (check_keys(&s->data, "data", cs) > DATA_MAX)
		cause_at(cs, CAUSE_TOO_LONG, AT(NULL, "data"), STR_NONE,
			"may not be more than %d bytes", DATA_MAX);
	for (size_t i = 0; i < ARRAY_LEN(required_keys); i++)
		if (str_eqz(s->type, required_keys[i].type) &&
			!str_map_has(&s->data, str_of(required_keys[i].key)))
			REQUIRED(cs, AT_KEY(NULL, "data", str_of(required_keys[i].key)), "");
	if (str_eqz(s->type, "kubernetes.io/basic-auth") &&
		!str_map_has(&s->data, STR("username")) &&
		!str_map_has(&s->data, STR("password"))) {
		REQUIRED(cs, AT_KEY(NULL, "data", STR("username")), "");
		REQUIRED(cs, AT_KEY(NULL, "data", STR("password")), "");
	}
	const struct str sa = STR("kubernetes.io/service-account.name");
	if (str_eqz(s->type, "kubernetes.io/service-account-token") &&
		!str_map_get(&s->metadata.annotations, sa).len)
		REQUIRED(cs, AT_KEY(AT(NULL, "metadata"), "annotations", sa), "");
	if (str_eqz(s->type, "kubernetes.io/dockerconfigjson"))
		check_json(s, ".dockerconfigjson", cs);
	if (str_eqz(s->type, "kubernetes.io/dockercfg"))
		check_json(s, ".dockercfg", cs);
}

static void secret_validate_update(struct write *w, struct causes *cs)
{
	struct core_v1_secret *s = w->obj, *old = w->old;
	check_frozen(s->immutable, old->immutable, cs);
	if (old->immutable.value && !map_equal(&s->data, &old->data))
		FORBIDDEN(cs, AT(NULL, "data"), FROZEN);
}

const struct kind secret_kind = {
	.resource = "secrets",
	.fill = secret_fill,
	.validate = secret_validate,
	.validate_update = secret_validate_update,
};

/* ---- ConfigMap ---- */

static void config_map_validate(struct write *w, struct causes *cs)
{
	struct core_v1_config_map *c = w->obj;
	size_t total =
		check_keys(&c->data, "data", cs) + check_keys(&c->binary_data, "binaryData", cs);
	LIST_EACH(p, &c->data) {
		if (str_map_has(&c->binary_data, p->key))
			INVALID(cs, AT_KEY(NULL, "data", p->key), p->key,
				"duplicate of key present in binaryData");
	}
	if (total > DATA_MAX)
		cause_add(cs, CAUSE_TOO_LONG, STR(""), STR_NONE, "may not be more than %d bytes",
			DATA_MAX);
}

static void config_map_validate_update(struct write *w, struct causes *cs)
{
	struct core_v1_config_map *c = w->obj, *old = w->old;
	check_frozen(c->immutable, old->immutable, cs);
	if (old->immutable.value && !map_equal(&c->data, &old->data))
		FORBIDDEN(cs, AT(NULL, "data"), FROZEN);
	if (old->immutable.value && !map_equal(&c->binary_data, &old->binary_data))
		FORBIDDEN(cs, AT(NULL, "binaryData"), FROZEN);
}

const struct kind config_map_kind = {
	.resource = "configmaps",
	.validate = config_map_validate,
	.validate_update = config_map_validate_update,
};
