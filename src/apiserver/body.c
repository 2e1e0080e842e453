/* Bodies: JSON, YAML or protobuf into the struct that the path asks for, patches into JSON text. What is wrong is answered here in
 * upstream's words. Upstream: endpoints/handlers/create.go and rest.go. */
#include "apiserver/internal.h"

enum { ANSWERED = 1 };

static struct str summary(struct arena *a, struct str body)
{
	if (!body.len)
		return STR("<empty>");
	CLEAN_BUF struct buf b = { 0 };
	json_write_text(str_n(body.p, MIN(body.len, 30)), &b);
	if (body.len > 30)
		buf_addz(&b, " ...");
	return arena_str(a, buf_str(&b));
}

static int refuse_body(struct request *q, const struct type *t, struct str api_version,
	struct str kind, const char *why)
{
	if (kind.len) {
		struct str group, version;
		if (!str_cut(api_version, '/', &group, &version))
			version = api_version;
		respond_reason(q, REASON_BAD_REQUEST,
			STR_FMT " in version \"" STR_FMT "\" cannot be handled as a %s: %s",
			STR_ARG(kind), STR_ARG(version), t->name, why);
	} else {
		respond_reason(q, REASON_BAD_REQUEST,
			"the object provided is unrecognized (must be of type %s): %s (" STR_FMT
			")",
			t->name, why, STR_ARG(summary(q->arena, q->http->body)));
	}
	return ANSWERED;
}

static int unsupported(struct request *q, const char *accepted)
{
	respond_reason(q, REASON_UNSUPPORTED_MEDIA_TYPE,
		"the body of the request was in an unknown format - accepted media types include: %s",
		accepted);
	return ANSWERED;
}

/* Warnings or a refusal out of what strict decoding noted. */
static int check_notes(struct request *q, const struct type *t, struct object_head *head,
	const struct decode_notes *notes)
{
	struct str mode = q->options.field_validation;
	if (!notes->len || str_eqz(mode, "Ignore"))
		return 0;
	if (!str_eqz(mode, "Strict")) {
		for (size_t i = 0; i < notes->len; i++)
			request_warn(q, STR_FMT, STR_ARG(notes->items[i]));
		return 0;
	}
	CLEAN_BUF struct buf b = { 0 };
	buf_addz(&b, "strict decoding error: ");
	for (size_t i = 0; i < notes->len; i++)
		buf_addf(&b, "%s" STR_FMT, i ? ", " : "", STR_ARG(notes->items[i]));
	return refuse_body(q, t, head->api_version, head->kind, b.p);
}

static int check_field_validation(struct request *q)
{
	struct str mode = q->options.field_validation;
	if (!mode.len || str_eqz(mode, "Strict") || str_eqz(mode, "Warn") ||
		str_eqz(mode, "Ignore"))
		return 0;
	struct causes cs = { .arena = q->arena };
	cause_add(&cs, CAUSE_NOT_SUPPORTED, STR("fieldValidation"), mode,
		"supported values: \"Ignore\", \"Strict\", \"Warn\"");
	respond_status(q, status_invalid(q->arena, q->resource, STR(""), &cs));
	return ANSWERED;
}

/* Fills in what the body leaves out and refuses what it has wrong. want_group NULL: any group and version will do. */
static int check_head(struct request *q, const struct type *t, const char *want_group,
	const char *want_version, struct object_head *head)
{
	struct str want = !want_group ? STR_NONE
		: *want_group         ? arena_fmt(q->arena, "%s/%s", want_group, want_version)
				      : str_of(want_version);
	if (!head->kind.len)
		head->kind = str_of(t->name);
	if (!head->api_version.len)
		head->api_version = want.len ? want : STR("v1");
	if (want_group && !str_eqz(head->kind, t->name)) {
		CLEAN_BUF struct buf b = { 0 };
		struct str version = head->api_version, group, tail;
		if (str_cut(version, '/', &group, &tail))
			version = tail;
		buf_addf(&b,
			"no kind \"" STR_FMT "\" is registered for version \"" STR_FMT
			"\" in this resource; it takes %s",
			STR_ARG(head->kind), STR_ARG(head->api_version), t->name);
		return refuse_body(q, t, head->api_version, head->kind, b.p);
	}
	if (want_group && !str_eq(head->api_version, want)) {
		respond_reason(q, REASON_BAD_REQUEST,
			"the API version in the data (" STR_FMT
			") does not match the expected API version (" STR_FMT ")",
			STR_ARG(head->api_version), STR_ARG(want));
		return ANSWERED;
	}
	return 0;
}

static int decode_json(
	struct request *q, const struct type *t, struct decode_notes *notes, void **ret)
{
	struct err err = { 0 };
	if (json_decode(t, q->http->body, q->arena, notes, ret, &err) == 0)
		return 0;
	struct str api_version = STR_NONE, kind = STR_NONE;
	if (json_peek_type_meta(q->http->body, q->arena, &api_version, &kind, NULL) < 0)
		kind = STR_NONE;
	return refuse_body(q, t, api_version, kind, err.text);
}

static int decode_yaml(
	struct request *q, const struct type *t, struct decode_notes *notes, void **ret)
{
	struct err err = { 0 };
	struct value v;
	if (yaml_parse(q->http->body, q->arena, &v, &err) < 0 ||
		value_to_object(t, &v, q->arena, notes, ret, &err) < 0)
		return refuse_body(q, t, STR_NONE, STR_NONE, err.text);
	return 0;
}

static int decode_proto(struct request *q, const struct type *t, void **ret)
{
	struct err err = { 0 };
	struct proto_envelope e;
	if (proto_open(q->http->body, &e, &err) < 0)
		return refuse_body(q, t, STR_NONE, STR_NONE, err.text);
	if (e.kind.len && !str_eqz(e.kind, t->name))
		err_set(&err, -EBADMSG, "it is a " STR_FMT, STR_ARG(e.kind));
	else if (proto_decode(t, e.raw, q->arena, ret, &err) == 0) {
		struct object_head *head = *ret;
		head->api_version = arena_str(q->arena, e.api_version);
		head->kind = arena_str(q->arena, e.kind);
		return 0;
	}
	return refuse_body(q, t, e.api_version, e.kind, err.text);
}

int body_decode(struct request *q, const struct type *t, const char *want_group,
	const char *want_version, void **ret)
{
	struct decode_notes notes = { .arena = q->arena };
	void *obj = NULL;
	int r = check_field_validation(q);
	if (r)
		return r;
	switch (content_type_parse(http_request_header(q->http, "content-type"))) {
	case BODY_JSON:
		r = decode_json(q, t, &notes, &obj);
		break;
	case BODY_YAML:
		r = decode_yaml(q, t, &notes, &obj);
		break;
	case BODY_PROTO:
		r = decode_proto(q, t, &obj);
		break;
	default:
		return unsupported(q,
			"application/json, application/yaml, application/vnd.kubernetes.protobuf");
	}
	if (r == 0)
		r = check_head(q, t, want_group, want_version, obj);
	if (r == 0)
		r = check_notes(q, t, obj, &notes);
	if (r == 0)
		*ret = obj;
	return r;
}

/* ---- delete ---- */

static void options_from_query(struct request *q, struct meta_v1_delete_options *d)
{
	const struct request_options *o = &q->options;
	if (o->grace_period_seconds.set)
		d->grace_period_seconds = o->grace_period_seconds;
	if (o->propagation_policy.len)
		d->propagation_policy = o->propagation_policy;
	if (o->orphan_dependents.set)
		d->orphan_dependents = o->orphan_dependents;
	if (o->dry_run.p)
		*LIST_ADD(q->arena, &d->dry_run) = o->dry_run;
}

int body_delete_options(struct request *q, const struct meta_v1_delete_options **ret)
{
	struct meta_v1_delete_options *d;
	if (q->http->body.len) {
		void *obj;
		int r = body_decode(q, &meta_v1_delete_options_type, NULL, NULL, &obj);
		if (r)
			return r;
		d = obj;
		if (q->options.dry_run.p && !d->dry_run.len)
			*LIST_ADD(q->arena, &d->dry_run) = q->options.dry_run;
	} else {
		d = arena_alloc(q->arena, sizeof(*d));
		options_from_query(q, d);
	}
	*ret = d;
	return 0;
}

/* ---- patches ---- */

static int apply_patch(struct request *q)
{
	struct err err = { 0 };
	struct value v;
	if (yaml_parse(q->http->body, q->arena, &v, &err) < 0) {
		respond_reason(q, REASON_BAD_REQUEST, "error decoding YAML: %s", err.text);
		return ANSWERED;
	}
	if (!q->options.field_manager.len) {
		struct causes cs = { .arena = q->arena };
		cause_add(&cs, CAUSE_REQUIRED, STR("fieldManager"), STR_NONE,
			"is required for apply patch");
		respond_status(q, status_invalid(q->arena, q->resource, STR(""), &cs));
		return ANSWERED;
	}
	CLEAN_BUF struct buf b = { 0 };
	json_write(&v, &b);
	q->reg.patch = arena_str(q->arena, buf_str(&b));
	return 0;
}

int body_patch(struct request *q)
{
	static const struct {
		enum body_format format;
		enum patch_type type;
	} rows[] = {
		{ BODY_JSON_PATCH, PATCH_TYPE_JSON },
		{ BODY_MERGE_PATCH, PATCH_TYPE_MERGE },
		{ BODY_STRATEGIC_PATCH, PATCH_TYPE_STRATEGIC },
		{ BODY_APPLY_PATCH, PATCH_TYPE_APPLY },
	};
	int r = check_field_validation(q);
	if (r)
		return r;
	enum body_format f = content_type_parse(http_request_header(q->http, "content-type"));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (rows[i].format != f)
			continue;
		q->reg.patch_type = rows[i].type;
		q->reg.force = q->options.force.set && q->options.force.value;
		if (q->reg.force && f != BODY_APPLY_PATCH) {
			struct causes cs = { .arena = q->arena };
			cause_add(&cs, CAUSE_FORBIDDEN, STR("force"), STR_NONE,
				"may not be specified for non-apply patch");
			respond_status(q, status_invalid(q->arena, q->resource, STR(""), &cs));
			return ANSWERED;
		}
		if (f == BODY_APPLY_PATCH)
			return apply_patch(q);
		q->reg.patch = q->http->body;
		return 0;
	}
	return unsupported(q,
		"application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, "
		"application/apply-patch+yaml");
}
