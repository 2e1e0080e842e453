/* Get and list. Neither decodes: they hand out stored objects.
 *
 * A list reads one snapshot in batches. Its continue token is upstream's in form: base64url of {"v","rv","start"}, where rv is the
 * snapshot's revision and start the key to go on from; -1 means "from the newest", for a client whose snapshot is gone. */
#include "registry/internal.h"

enum { LIST_BATCH = 128 };

/* ---- list ---- */

struct registry_list {
	struct registry *r;
	const struct resource *res;
	struct arena *arena;
	struct selection sel;
	struct store_snapshot *snapshot;
	struct str prefix, next; /* next: the key to go on from; empty: the prefix' first */
	struct object *batch[LIST_BATCH];
	size_t n, at;
	bool exhausted;       /* nothing is behind the batch */
	int64_t limit, given; /* limit 0: none */
	bool full;            /* the page is full and more is there */
	struct object *converted;
	struct buf next_buf;
};

static const struct resource list_options = {
	.group = { "meta.k8s.io", 11 },
	.version = { "v1", 2 },
	.kind_name = { "ListOptions", 11 },
	.plural = { "listoptions", 11 },
};

static struct meta_v1_status *check_match(const struct registry_request *req)
{
	struct str match = req->resource_version_match;
	struct causes cs = { .arena = req->arena };
	struct str path = STR("resourceVersionMatch");
	if (!match.len)
		return NULL;
	if (!req->resource_version.len)
		cause_add(&cs, CAUSE_FORBIDDEN, path, STR_NONE,
			"resourceVersionMatch is forbidden unless resourceVersion is provided");
	if (req->continue_token.len)
		cause_add(&cs, CAUSE_FORBIDDEN, path, STR_NONE,
			"resourceVersionMatch is forbidden when continue is provided");
	bool exact = str_eqz(match, "Exact");
	if (!exact && !str_eqz(match, "NotOlderThan"))
		cause_add(&cs, CAUSE_NOT_SUPPORTED, path, match,
			"supported values: \"Exact\", \"NotOlderThan\", \"\"");
	if (exact && str_eqz(req->resource_version, "0"))
		cause_add(&cs, CAUSE_FORBIDDEN, path, STR_NONE,
			"resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
	return cs.len ? status_invalid(req->arena, &list_options, STR_NONE, &cs) : NULL;
}

struct meta_v1_status *revision_parse(struct arena *a, struct str text, uint64_t *ret)
{
	int64_t v = 0;
	if (text.len && (str_to_i64(text, &v) || v < 0)) {
		struct causes cs = { .arena = a };
		cause_add(&cs, CAUSE_INVALID, STR("resourceVersion"), text,
			"strconv.ParseUint: parsing \"" STR_FMT "\": invalid syntax",
			STR_ARG(text));
		return status_invalid(a, &list_options, STR_NONE, &cs);
	}
	*ret = (uint64_t)v;
	return NULL;
}

struct meta_v1_status *revision_too_large(struct arena *a, uint64_t asked, uint64_t present)
{
	struct meta_v1_status *st =
		status_new(a, REASON_TIMEOUT, "Too large resource version: %llu, current: %llu",
			(unsigned long long)asked, (unsigned long long)present);
	st->details = arena_alloc(a, sizeof(*st->details));
	st->details->retry_after_seconds = 1;
	struct meta_v1_status_cause *c = LIST_ADD(a, &st->details->causes);
	c->reason = STR("ResourceVersionTooLarge");
	c->message = STR("Too large resource version");
	return st;
}

/* ---- get ---- */

void registry_get(
	struct registry *r, struct registry_request *req, registry_done_fn done, void *arg)
{
	struct object *o;
	char key[640];
	const struct resource *res = req->resource;
	if (req->resource_version.len) {
		uint64_t asked, present = store_revision(r->store);
		struct meta_v1_status *st =
			revision_parse(req->arena, req->resource_version, &asked);
		if (!st && asked > present)
			st = revision_too_large(req->arena, asked, present);
		if (st) {
			answer_status(req, st, done, arg);
			return;
		}
	}
	size_t n = resource_key_into(res, req->ns, req->name, key, sizeof(key));
	if (!n || store_get(r->store, str_n(key, n), &o)) {
		answer_status(req, status_not_found(req->arena, res, req->name), done, arg);
		return;
	}
	answer_object(req, o, 200, done, arg);
}

/* ---- continue tokens ---- */

struct token {
	int64_t revision;
	struct str start;
};

static struct str token_write(struct arena *a, int64_t revision, struct str start)
{
	CLEAN_BUF struct buf json = { 0 }, out = { 0 };
	buf_addf(&json, "{\"v\":\"meta.k8s.io/v1\",\"rv\":%lld,\"start\":", (long long)revision);
	json_write_text(start, &json);
	buf_addc(&json, '}');
	base64url_encode(&out, json.p, json.len);
	return arena_str(a, buf_str(&out));
}

static struct meta_v1_status *token_read(struct arena *a, struct str text, struct token *ret)
{
	CLEAN_BUF struct buf json = { 0 };
	struct value v;
	struct err err;
	if (!base64url_decode(&json, text) &&
		!json_parse(arena_str(a, buf_str(&json)), a, &v, &err) && v.kind == VALUE_OBJECT) {
		struct value *version = value_get(&v, STR("v")), *rv = value_get(&v, STR("rv")),
			     *start = value_get(&v, STR("start"));
		if (version && rv && start && version->kind == VALUE_TEXT &&
			str_eqz(version->text, "meta.k8s.io/v1") && rv->kind == VALUE_INT &&
			start->kind == VALUE_TEXT && start->text.len &&
			str_find_str(start->text, STR("..")) < 0) {
			*ret = (struct token){ rv->integer, start->text };
			return NULL;
		}
	}
	return status_new(a, REASON_BAD_REQUEST,
		"continue key is not valid: it is given out by a list and goes back as it was");
}

static struct meta_v1_status *expired_token(struct arena *a, struct str start)
{
	struct meta_v1_status *st = status_new(a, REASON_EXPIRED,
		"The provided continue parameter is too old to display a consistent list result. You can start a new list without the "
		"continue parameter, or use the "
		"continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an "
		"inconsistent list - "
		"objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.");
	st->metadata.continue_ = token_write(a, -1, start);
	return st;
}

static struct meta_v1_status *open_continued(struct registry_list *l, struct registry_request *req)
{
	struct token t;
	if (req->resource_version.len && !str_eqz(req->resource_version, "0"))
		return status_new(req->arena, REASON_BAD_REQUEST,
			"specifying resource version is not allowed when using continue");
	struct meta_v1_status *st = token_read(req->arena, req->continue_token, &t);
	if (st)
		return st;
	/* start is relative to the prefix, so that no token reaches another resource */
	buf_addf(&l->next_buf, STR_FMT STR_FMT, STR_ARG(l->prefix), STR_ARG(t.start));
	l->next = buf_str(&l->next_buf);
	if (t.revision < 0)
		l->snapshot = store_snapshot(l->r->store);
	else
		l->snapshot = store_snapshot_at(l->r->store, (uint64_t)t.revision);
	return l->snapshot ? NULL : expired_token(req->arena, t.start);
}

static struct meta_v1_status *open_snapshot(struct registry_list *l, struct registry_request *req)
{
	uint64_t revision;
	if (req->continue_token.len)
		return open_continued(l, req);
	struct meta_v1_status *st = revision_parse(req->arena, req->resource_version, &revision);
	if (st)
		return st;
	bool exact = str_eqz(req->resource_version_match, "Exact") ||
		(!req->resource_version_match.len && revision && req->limit > 0);
	uint64_t present = store_revision(l->r->store);
	if (revision > present)
		return revision_too_large(req->arena, revision, present);
	l->snapshot =
		exact ? store_snapshot_at(l->r->store, revision) : store_snapshot(l->r->store);
	return l->snapshot ? NULL
			   : status_new(req->arena, REASON_EXPIRED,
				     "The resourceVersion for the provided list is too old.");
}

int registry_list_open(struct registry *r, struct registry_request *req, struct registry_list **ret,
	struct meta_v1_status **ret_status)
{
	struct registry_list *l = xcalloc(1, sizeof(*l));
	l->r = r;
	l->res = req->resource;
	l->arena = req->arena;
	l->limit = MAX(req->limit, 0);
	l->prefix = resource_key(req->resource, req->ns, STR_NONE, req->arena);
	struct meta_v1_status *st = check_match(req);
	st = st ? st : selection_parse(req, &l->sel);
	st = st ? st : open_snapshot(l, req);
	if (st) {
		registry_list_free(l);
		*ret_status = st;
		return REASON_BAD_REQUEST;
	}
	/* one name of one namespace is one look-up */
	if (l->sel.name.len && (req->ns.len || !req->resource->row->namespaced) &&
		!req->continue_token.len)
		l->prefix = resource_key(req->resource, req->ns, l->sel.name, req->arena);
	*ret = l;
	return 0;
}

static bool take(void *arg, struct object *o)
{
	struct registry_list *l = arg;
	l->batch[l->n++] = o;
	return l->n < LIST_BATCH;
}

static void next_after(struct registry_list *l, struct str key)
{
	buf_clear(&l->next_buf);
	buf_add_str(&l->next_buf, key);
	buf_addc(&l->next_buf, '\0');
	l->next = buf_str(&l->next_buf);
}

static struct object *peek(struct registry_list *l)
{
	if (l->at == l->n && !l->exhausted) {
		l->n = l->at = 0;
		store_snapshot_each(l->snapshot, l->prefix, l->next, take, l);
		l->exhausted = l->n < LIST_BATCH;
		if (l->n)
			next_after(l, l->batch[l->n - 1]->key);
	}
	return l->at < l->n ? l->batch[l->at] : NULL;
}

static struct object *convert(struct registry_list *l, struct object *o)
{
	if (l->res->storage == l->res)
		return o;
	struct err err;
	object_unref(l->converted);
	l->converted = object_convert(l->res, o, &err);
	if (!l->converted)
		log_error("registry", "list of " STR_FMT ": left out " STR_FMT ": %s",
			STR_ARG(l->res->group_resource), STR_ARG(o->key), err.text);
	return l->converted;
}

struct object *registry_list_next(struct registry_list *l)
{
	struct object *o;
	while ((o = peek(l))) {
		if (!selection_matches(&l->sel, l->res, o)) {
			l->at++;
			continue;
		}
		if (l->limit && l->given == l->limit) {
			l->full = true;
			return NULL;
		}
		l->at++;
		o = convert(l, o);
		if (!o)
			continue;
		l->given++;
		return o;
	}
	return NULL;
}

void registry_list_meta(struct registry_list *l, struct str *ret_resource_version,
	struct str *ret_continue, int64_t *ret_remaining)
{
	uint64_t revision = store_snapshot_revision(l->snapshot);
	*ret_resource_version = arena_fmt(l->arena, "%llu", (unsigned long long)revision);
	*ret_continue = STR_NONE;
	*ret_remaining = -1;
	if (!l->full)
		return;
	struct str key = l->batch[l->at]->key;
	store_snapshot_keep(l->snapshot);
	*ret_continue = token_write(l->arena, (int64_t)revision, str_from(key, l->prefix.len));
	if (!selection_any(&l->sel))
		*ret_remaining = (int64_t)store_snapshot_count(l->snapshot, l->prefix, key);
}

void registry_list_free(struct registry_list *l)
{
	if (!l)
		return;
	object_unref(l->converted);
	if (l->snapshot)
		store_snapshot_free(l->snapshot);
	buf_deinit(&l->next_buf);
	free(l);
}
