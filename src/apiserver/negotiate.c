/* Accept and Content-Type: which form the answer takes and which form the body has. Clauses are tried in the order written, as
 * upstream does when no quality is given; q is heeded only when it is 0. Upstream: endpoints/handlers/negotiation. */
#include "apiserver/internal.h"

const char *const content_types[] = { "application/json", "application/yaml",
	"application/vnd.kubernetes.protobuf" };

static bool eq_nocase(struct str s, const char *z)
{
	return s.len == strlen(z) && !strncasecmp(s.p, z, s.len);
}

static bool media_format(struct str media, struct accept *ac)
{
	static const struct {
		const char *name;
		enum out_format format;
	} rows[] = {
		{ "application/json", OUT_JSON },
		{ "*/*", OUT_JSON },
		{ "application/*", OUT_JSON },
		{ "application/vnd.kubernetes.protobuf", OUT_PROTO },
		{ "application/yaml", OUT_YAML },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (eq_nocase(media, rows[i].name)) {
			ac->format = rows[i].format;
			return true;
		}
	}
	return false;
}

/* The parameters of one clause. false: they ask for what cannot be given. */
static bool media_params(struct str rest, struct accept *ac)
{
	struct str param, key, value, as = STR_NONE, group = STR_NONE, version = STR_NONE;
	while (rest.len) {
		if (!str_cut(rest, ';', &param, &rest))
			rest = STR_NONE;
		str_cut(str_trim(param), '=', &key, &value);
		if (str_eqz(key, "as"))
			as = value;
		else if (str_eqz(key, "g"))
			group = value;
		else if (str_eqz(key, "v"))
			version = value;
		else if (str_eqz(key, "stream"))
			ac->stream = true;
		else if (str_eqz(key, "pretty"))
			ac->pretty = str_eqz(value, "1") || str_eqz(value, "true");
		else if (str_eqz(key, "q") && (str_eqz(value, "0") || str_eqz(value, "0.0")))
			return false;
	}
	if (!as.len)
		return true;
	if (!str_eqz(group, "meta.k8s.io") ||
		!(str_eqz(version, "v1") || str_eqz(version, "v1beta1")))
		return false;
	ac->beta = str_eqz(version, "v1beta1");
	if (str_eqz(as, "Table"))
		ac->view = VIEW_TABLE;
	else if (str_eqz(as, "PartialObjectMetadata") || str_eqz(as, "PartialObjectMetadataList"))
		ac->view = VIEW_PARTIAL;
	else
		return false;
	return ac->view != VIEW_TABLE || ac->format != OUT_PROTO; /* a Table has no protobuf form */
}

bool accept_parse(struct str header, struct accept *ret)
{
	struct str rest = str_trim(header), clause, media, params;
	if (!rest.len) {
		*ret = (struct accept){ .format = OUT_JSON };
		return true;
	}
	while (rest.len) {
		if (!str_cut(rest, ',', &clause, &rest))
			rest = STR_NONE;
		if (!str_cut(str_trim(clause), ';', &media, &params))
			params = STR_NONE;
		struct accept ac = { 0 };
		if (media_format(str_trim(media), &ac) && media_params(params, &ac)) {
			*ret = ac;
			return true;
		}
	}
	return false;
}

enum body_format content_type_parse(struct str header)
{
	static const struct {
		const char *name;
		enum body_format format;
	} rows[] = {
		{ "application/json", BODY_JSON },
		{ "application/yaml", BODY_YAML },
		{ "application/vnd.kubernetes.protobuf", BODY_PROTO },
		{ "application/json-patch+json", BODY_JSON_PATCH },
		{ "application/merge-patch+json", BODY_MERGE_PATCH },
		{ "application/strategic-merge-patch+json", BODY_STRATEGIC_PATCH },
		{ "application/apply-patch+yaml", BODY_APPLY_PATCH },
	};
	struct str media, params;
	str_cut(header, ';', &media, &params);
	media = str_trim(media);
	if (!media.len)
		return BODY_JSON;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (eq_nocase(media, rows[i].name))
			return rows[i].format;
	return BODY_UNKNOWN;
}

bool accepts_gzip(const struct http_request *h)
{
	struct str rest = http_request_header(h, "accept-encoding"), item, name, params;
	while (rest.len) {
		if (!str_cut(rest, ',', &item, &rest))
			rest = STR_NONE;
		if (!str_cut(str_trim(item), ';', &name, &params))
			params = STR_NONE;
		if (eq_nocase(str_trim(name), "gzip"))
			return !str_eqz(str_trim(params), "q=0");
	}
	return false;
}
