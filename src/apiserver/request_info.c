/* Path and query of a request, taken apart as upstream's RequestInfo: which verb on which resource, before anything is looked up.
 * Pure: no table of resources is needed, so that authorization can refuse what does not exist. Upstream: apiserver/pkg/endpoints/request. */
#include "apiserver/internal.h"

static const struct verb_row {
	const char *name;
	uint32_t bit;
} verb_rows[] = {
	{ "get", VERB_GET },
	{ "list", VERB_LIST },
	{ "watch", VERB_WATCH },
	{ "create", VERB_CREATE },
	{ "update", VERB_UPDATE },
	{ "patch", VERB_PATCH },
	{ "delete", VERB_DELETE },
	{ "deletecollection", VERB_DELETECOLLECTION },
};

uint32_t verb_bit_of(struct str verb)
{
	for (size_t i = 0; i < ARRAY_LEN(verb_rows); i++)
		if (str_eqz(verb, verb_rows[i].name))
			return verb_rows[i].bit;
	return 0;
}

static struct str verb_name(uint32_t bit)
{
	for (size_t i = 0; i < ARRAY_LEN(verb_rows); i++)
		if (verb_rows[i].bit == bit)
			return str_of(verb_rows[i].name);
	return STR_NONE;
}

static const struct method_row {
	const char *method, *lower;
	uint32_t verb;
} method_rows[] = {
	{ "GET", "get", VERB_GET },
	{ "HEAD", "head", VERB_GET },
	{ "POST", "post", VERB_CREATE },
	{ "PUT", "put", VERB_UPDATE },
	{ "PATCH", "patch", VERB_PATCH },
	{ "DELETE", "delete", VERB_DELETE },
	{ "OPTIONS", "options", 0 },
};

static const struct method_row *method_find(struct str method)
{
	for (size_t i = 0; i < ARRAY_LEN(method_rows); i++)
		if (str_eqz(method, method_rows[i].method))
			return &method_rows[i];
	return NULL;
}

/* ---- the query ---- */

enum option_kind { OPTION_TEXT, OPTION_I64, OPTION_OPT_I64, OPTION_OPT_BOOL, OPTION_DURATION };
#define OPTION(name, kind, member) \
	{ \
		name, kind, offsetof(struct request_options, member) \
	}
static const struct option_row {
	const char *name;
	enum option_kind kind;
	size_t offset;
} option_rows[] = {
	OPTION("limit", OPTION_I64, limit),
	OPTION("labelSelector", OPTION_TEXT, label_selector),
	OPTION("fieldSelector", OPTION_TEXT, field_selector),
	OPTION("continue", OPTION_TEXT, continue_),
	OPTION("resourceVersion", OPTION_TEXT, resource_version),
	OPTION("resourceVersionMatch", OPTION_TEXT, resource_version_match),
	OPTION("watch", OPTION_OPT_BOOL, watch),
	OPTION("allowWatchBookmarks", OPTION_OPT_BOOL, allow_watch_bookmarks),
	OPTION("sendInitialEvents", OPTION_OPT_BOOL, send_initial_events),
	OPTION("timeoutSeconds", OPTION_I64, timeout_seconds),
	OPTION("fieldManager", OPTION_TEXT, field_manager),
	OPTION("fieldValidation", OPTION_TEXT, field_validation),
	OPTION("dryRun", OPTION_TEXT, dry_run),
	OPTION("force", OPTION_OPT_BOOL, force),
	OPTION("pretty", OPTION_TEXT, pretty),
	OPTION("includeObject", OPTION_TEXT, include_object),
	OPTION("gracePeriodSeconds", OPTION_OPT_I64, grace_period_seconds),
	OPTION("propagationPolicy", OPTION_TEXT, propagation_policy),
	OPTION("orphanDependents", OPTION_OPT_BOOL, orphan_dependents),
	OPTION("timeout", OPTION_DURATION, timeout_ns),
};

/* As upstream converts them: absent text is false, "false" and "0" are false, anything else is true. */
static bool option_true(struct str v)
{
	return !(str_eqz(v, "false") || str_eqz(v, "0"));
}

static int option_set(
	const struct option_row *row, struct str value, struct request_options *o, struct err *err)
{
	void *at = (char *)o + row->offset;
	int64_t n;
	switch (row->kind) {
	case OPTION_TEXT:
		*(struct str *)at = value;
		return 0;
	case OPTION_OPT_BOOL:
		*(struct opt_bool *)at = (struct opt_bool){ true, option_true(value) };
		return 0;
	case OPTION_DURATION:
		if (value.len && duration_parse(value, at) < 0)
			return err_set(err, -EBADMSG,
				"invalid timeout specified in the request URL - time: invalid duration \"" STR_FMT
				"\"",
				STR_ARG(value));
		return 0;
	case OPTION_I64:
	case OPTION_OPT_I64:
		if (value.len == 0)
			return 0;
		if (str_to_i64(value, &n) < 0)
			return err_set(err, -EBADMSG,
				"strconv.ParseInt: parsing \"" STR_FMT "\": invalid syntax",
				STR_ARG(value));
		if (row->kind == OPTION_I64)
			*(int64_t *)at = n;
		else
			*(struct opt_int64 *)at = (struct opt_int64){ true, n };
		return 0;
	}
	return 0;
}

int request_options_parse(
	struct str query, struct arena *a, struct request_options *ret, struct err *err)
{
	struct str rest = query, key, value;
	while (url_query_next(&rest, a, &key, &value)) {
		for (size_t i = 0; i < ARRAY_LEN(option_rows); i++) {
			if (!str_eqz(key, option_rows[i].name))
				continue;
			int r = option_set(&option_rows[i], value, ret, err);
			if (r < 0)
				return r;
			break;
		}
	}
	return 0;
}

/* ---- the path ---- */

#define PARTS_MAX 9 /* api v1 watch namespaces NS RESOURCE NAME SUB; the rest stays in one piece */

static size_t path_split(struct str path, struct str parts[PARTS_MAX])
{
	size_t n = 0, i = 0;
	while (i < path.len && n < PARTS_MAX) {
		while (i < path.len && path.p[i] == '/')
			i++;
		size_t start = i;
		while (i < path.len && path.p[i] != '/')
			i++;
		if (i > start)
			parts[n++] = str_n(path.p + start, i - start);
	}
	return n;
}

/* The first comma that no backslash escapes, or the end. */
static size_t term_end(struct str s)
{
	size_t i = 0;
	while (i < s.len && s.p[i] != ',')
		i += s.p[i] == '\\' ? 2 : 1;
	return MIN(i, s.len);
}

struct str field_selector_value(struct str selector, const char *key)
{
	size_t len = strlen(key);
	while (selector.len) {
		size_t n = term_end(selector);
		struct str term = str_n(selector.p, n);
		selector = n < selector.len ? str_from(selector, n + 1) : STR_NONE;
		if (!str_has_prefix(term, str_of(key)) || term.len <= len || term.p[len] != '=')
			continue;
		struct str value = str_from(term, len + 1);
		value = value.len && value.p[0] == '=' ? str_from(value, 1) : value;
		if (value.len && str_find(value, '\\') < 0) /* no name needs one */
			return value;
	}
	return STR_NONE;
}

static void info_verb(const struct request_options *o, struct request_info *i)
{
	if (i->name.len || i->subresource.len)
		return;
	if (i->verb_bit == VERB_GET)
		i->verb_bit = o->watch.set && o->watch.value ? VERB_WATCH : VERB_LIST;
	else if (i->verb_bit == VERB_DELETE)
		i->verb_bit = VERB_DELETECOLLECTION;
	if (i->verb_bit & (VERB_LIST | VERB_WATCH | VERB_DELETECOLLECTION))
		i->name = field_selector_value(o->field_selector,
			"metadata.name"); /* what authorization by name looks at */
}

/* parts: what follows /api/v1 or /apis/GROUP/VERSION. */
static void info_resource(
	const struct str *parts, size_t n, const struct request_options *o, struct request_info *i)
{
	bool legacy_watch = false;
	if (n > 1 && str_eqz(parts[0], "watch")) {
		legacy_watch = true;
		parts++;
		n--;
	}
	if (n > 1 && str_eqz(parts[0], "namespaces")) {
		i->ns = parts[1];
		if (n > 2 && !str_eqz(parts[2], "status") && !str_eqz(parts[2], "finalize")) {
			parts += 2;
			n -= 2;
		}
	}
	i->resource = parts[0];
	if (n > 1)
		i->name = parts[1];
	if (n > 2)
		i->subresource = parts[2];
	if (n > 3) {
		const char *end = i->path.p + i->path.len;
		const char *from = parts[2].p + parts[2].len;
		i->rest = str_n(from, (size_t)(end - from));
	} else if (n == 3 && i->path.p[i->path.len - 1] == '/') {
		i->rest = STR("/");
	}
	if (legacy_watch && i->verb_bit == VERB_GET)
		i->verb_bit = VERB_WATCH;
	else
		info_verb(o, i);
	i->verb = verb_name(i->verb_bit);
}

int request_info_parse(struct str method, struct str path, const struct request_options *o,
	struct arena *a, struct request_info *ret, struct err *err)
{
	struct request_info i = { .path = path };
	if (memchr(path.p, '%', path.len)) {
		int r = url_decode(path, false, a, &i.path);
		if (r < 0)
			return err_set(err, -EBADMSG, "the path has a broken %%-escape");
	}
	if (memchr(i.path.p, '\0',
		    i.path.len)) /* what ends at it for one reader goes on for another */
		return err_set(err, -EBADMSG, "the path holds a zero byte");
	if (i.path.len == 0 || i.path.p[0] != '/')
		return err_set(err, -EBADMSG, "the path does not begin with /");
	const struct method_row *m = method_find(method);
	i.verb = m ? str_of(m->lower) : method;
	struct str parts[PARTS_MAX];
	size_t n = path_split(i.path, parts);
	size_t head = n && str_eqz(parts[0], "api") ? 2 : n && str_eqz(parts[0], "apis") ? 3 : 0;
	if (head && n > head) {
		i.is_resource = true;
		i.prefix = parts[0];
		i.group = head == 3 ? parts[1] : STR("");
		i.version = parts[head - 1];
		i.verb_bit = m ? m->verb : 0;
		info_resource(parts + head, n - head, o, &i);
		if (!i.verb_bit)
			i.verb = m ? str_of(m->lower) : method;
	}
	*ret = i;
	return 0;
}

bool request_is_long_running(const struct request_info *i)
{
	static const char *const subresources[] = { "log", "exec", "attach", "portforward",
		"proxy" };
	if (i->verb_bit == VERB_WATCH)
		return true;
	for (size_t n = 0; i->is_resource && n < ARRAY_LEN(subresources); n++)
		if (str_eqz(i->subresource, subresources[n]))
			return true;
	return false;
}
