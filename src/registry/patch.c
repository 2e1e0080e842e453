/* Patches: the object as a tree, changed, and back into a struct of its type. Messages as upstream's patch handler words them. */
#include "registry/internal.h"

struct patch_job {
	struct write *w;
	const struct type *t;
	struct value doc, patch;
	struct err err;
};

/* A patch that is no object of the kind: 422 on field "patch". */
static struct meta_v1_status *invalid_patch(struct write *w, struct str value, const char *why)
{
	struct causes cs = { .arena = w->arena };
	static const struct resource nameless;
	cause_add(&cs, CAUSE_INVALID, STR("patch"), value, "%s", why);
	struct meta_v1_status *st = status_invalid(w->arena, &nameless, STR_NONE, &cs);
	return st;
}

static struct meta_v1_status *rejected(struct write *w, const char *why)
{
	struct meta_v1_status *st = status_new(w->arena, REASON_INVALID,
		"the server rejected our request due to an error in our request");
	st->details = arena_alloc(w->arena, sizeof(*st->details));
	struct meta_v1_status_cause *c = LIST_ADD(w->arena, &st->details->causes);
	c->reason = STR("UnexpectedServerResponse");
	c->message = arena_strz(w->arena, why);
	return st;
}

static struct meta_v1_status *apply_json(struct patch_job *j)
{
	return patch_json(&j->doc, &j->patch, j->w->arena, &j->err) ? rejected(j->w, j->err.text)
								    : NULL;
}

static struct meta_v1_status *apply_merge(struct patch_job *j)
{
	return patch_merge(&j->doc, &j->patch, j->w->arena, &j->err)
		? status_new(j->w->arena, REASON_BAD_REQUEST, "%s", j->err.text)
		: NULL;
}

static struct meta_v1_status *apply_strategic(struct patch_job *j)
{
	if (j->patch.kind != VALUE_OBJECT)
		return status_new(j->w->arena, REASON_BAD_REQUEST,
			"error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}");
	return patch_strategic(j->t, &j->doc, &j->patch, j->w->arena, &j->err)
		? status_new(j->w->arena, REASON_BAD_REQUEST, "%s", j->err.text)
		: NULL;
}

static struct meta_v1_status *(*const appliers[])(struct patch_job *) = {
	[PATCH_TYPE_JSON] = apply_json,
	[PATCH_TYPE_MERGE] = apply_merge,
	[PATCH_TYPE_STRATEGIC] = apply_strategic,
	[PATCH_TYPE_APPLY] =
		apply_merge, /* only of what has no managedFields: Scale; all else goes to managed.c */
};

static struct meta_v1_status *take_notes(struct write *w, const struct decode_notes *notes)
{
	if (!notes->len || w->req->field_validation == FIELD_VALIDATION_IGNORE)
		return NULL;
	if (w->req->field_validation == FIELD_VALIDATION_WARN) {
		for (size_t i = 0; i < notes->len && w->attempts == 0; i++)
			*LIST_ADD(w->arena, &w->req->warnings) = notes->items[i];
		return NULL;
	}
	CLEAN_BUF struct buf b = { 0 };
	buf_addz(&b, "strict decoding error: ");
	for (size_t i = 0; i < notes->len; i++)
		buf_addf(&b, "%s" STR_FMT, i ? ", " : "", STR_ARG(notes->items[i]));
	return invalid_patch(w, w->req->patch, buf_str(&b).p);
}

int write_patch(struct write *w, const struct type *t, const void *from, void **ret)
{
	struct patch_job j = { .w = w, .t = t };
	struct decode_notes notes = { .arena = w->arena };
	struct meta_v1_status *st = NULL;
	if (json_parse(w->req->patch, w->arena, &j.patch, &j.err))
		st = status_new(
			w->arena, REASON_BAD_REQUEST, "error decoding patch: %s", j.err.text);
	if (!st) {
		value_from_object(t, from, w->arena, &j.doc);
		st = appliers[w->req->patch_type](&j);
	}
	if (!st && value_to_object(t, &j.doc, w->arena, &notes, ret, &j.err))
		st = invalid_patch(w, w->req->patch, j.err.text);
	if (!st)
		st = take_notes(w, &notes);
	if (!st)
		return 0;
	write_refuse(w, st);
	return REASON_INVALID;
}
