/* A registry over the memory store, and requests in one line, for the tests of this folder. Included by each of them. */
#ifndef SKIFF_REGISTRY_TEST_H
#define SKIFF_REGISTRY_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "registry/internal.h"

static struct timestamp test_time = { 1700000000, 0 }; /* what the registry's clock says */

struct env {
	struct store *store;
	struct registry *r;
	struct arena *a;
	struct registry_request req; /* the last one, and its answer */
	struct registry_result res;
	struct buf text;
	struct value tree;
};
#define GET VERB_GET
#define CREATE VERB_CREATE
#define UPDATE VERB_UPDATE
#define PATCH VERB_PATCH
#define DELETE VERB_DELETE

static struct timestamp test_wall(const struct clock *c)
{
	return test_time;
}
static const struct clock test_clock = { .wall = test_wall };

UNUSED static const struct resource *res_of(struct env *e, struct str path)
{
	struct str gv, group = STR_NONE, version = STR("v1"), plural = path;
	if (!str_cut(path, ':', &gv, &plural)) {
		plural = path;
	} else if (!str_cut(gv, '/', &group, &version)) {
		version = gv;
		group = STR_NONE;
	}
	const struct resource *r = registry_resource(e->r, group, version, plural);
	if (!r)
		fail_msg("no resource " STR_FMT, STR_ARG(path));
	return r;
}

/* path: "pods/web", "pods/web/status", "apps/v1:deployments/web/scale"; a name may be left out. The request is made, not run. */
UNUSED static struct registry_request *req_new(
	struct env *e, enum resource_verb verb, const char *path, const char *ns, const char *body)
{
	struct str what, rest, name = STR_NONE, sub = STR_NONE, text = str_of(path), gv = STR_NONE;
	ssize_t colon = str_find(text, ':');
	if (colon >= 0) {
		gv = str_n(text.p, (size_t)colon + 1);
		text = str_from(text, (size_t)colon + 1);
	}
	str_cut(text, '/', &what, &rest);
	str_cut(rest, '/', &name, &sub);
	struct registry_request *q = &e->req;
	object_unref(e->res.object);
	e->res = (struct registry_result){ 0 };
	*q = (struct registry_request){
		.arena = e->a, .verb = verb, .ns = str_of(ns), .name = arena_str(e->a, name)
	};
	q->resource = res_of(e, arena_fmt(e->a, STR_FMT STR_FMT, STR_ARG(gv), STR_ARG(what)));
	for (size_t i = 0; i < q->resource->row->n_subs; i++)
		if (sub.len && str_eqz(sub, q->resource->row->subs[i].name))
			q->sub = &q->resource->row->subs[i];
	if (sub.len && !q->sub)
		fail_msg("no subresource of %s", path);
	if (!name.len)
		q->name = STR_NONE;
	struct err err;
	if (verb == VERB_PATCH) {
		q->patch = arena_strz(e->a, body);
		q->patch_type = PATCH_TYPE_MERGE;
	} else if (body &&
		json_decode(q->sub ? q->sub->type : q->resource->row->type, arena_strz(e->a, body),
			e->a, NULL, &q->obj, &err)) {
		fail_msg("body of %s: %s", path, err.text);
	}
	return q;
}

/* The last answer as JSON. */
UNUSED static const char *body(struct env *e)
{
	buf_clear(&e->text);
	if (e->res.status)
		json_encode(&meta_v1_status_type, e->res.status, &e->text);
	else if (e->res.object)
		buf_add_str(&e->text, e->res.object->json);
	else if (e->res.obj)
		json_encode(e->res.obj_type, e->res.obj, &e->text);
	return e->text.p ? e->text.p : "";
}

UNUSED static int req_run(struct env *e)
{
	struct err err;
	registry_call(e->r, &e->req, &e->res);
	e->tree = (struct value){ 0 };
	if (json_parse(str_of(body(e)), e->a, &e->tree, &err))
		fail_msg("answer is no JSON: %s: %s", err.text, body(e));
	return e->res.code;
}

UNUSED static int req(
	struct env *e, enum resource_verb verb, const char *path, const char *ns, const char *text)
{
	req_new(e, verb, path, ns, text);
	return req_run(e);
}

/* A member of the last answer by path ("metadata.name", "status.conditions.0.type", labels with "~" for a dot); "-": not there. */
UNUSED static const char *at(struct env *e, const char *path)
{
	const struct value *v = &e->tree;
	struct str rest = str_of(path), head;
	while (v && rest.len) {
		int64_t i;
		if (!str_cut(rest, '.', &head, &rest))
			rest = STR_NONE;
		char *key = str_dup(head);
		for (char *c = key; *c; c++)
			*c = *c == '~' ? '.' : *c;
		if (v->kind == VALUE_LIST)
			v = !str_to_i64(head, &i) && i >= 0 && (size_t)i < v->list.len
				? &v->list.items[i]
				: NULL;
		else
			v = v->kind == VALUE_OBJECT ? value_get(v, str_of(key)) : NULL;
		free(key);
	}
	if (!v)
		return "-";
	if (v->kind == VALUE_TEXT)
		return arena_str(e->a, v->text).p;
	CLEAN_BUF struct buf b = { 0 };
	json_write(v, &b);
	return arena_str(e->a, buf_str(&b)).p;
}

#define assert_at(e, path, text) assert_string_equal(at((e), (path)), (text))
/* The code, and the message or part of it. */
#define assert_refused(e, code_, part) \
	do { \
		if ((e)->res.code != (code_)) \
			fail_msg("%s: code %d: %s", (part), (e)->res.code, body(e)); \
		if (!strstr(at((e), "message"), (part))) \
			fail_msg("message is: %s", at((e), "message")); \
	} while (0)
#define assert_code(e, code_) \
	do { \
		if ((e)->res.code != (code_)) \
			fail_msg("code %d: %s", (e)->res.code, body(e)); \
	} while (0)
#define OK(e, verb, path, ns, text) \
	do { \
		req((e), (verb), (path), (ns), (text)); \
		assert_code((e), (verb) == VERB_CREATE ? 201 : 200); \
	} while (0)

UNUSED static const char *pod(struct env *e, const char *name, const char *more)
{
	return arena_fmt(e->a,
		"{\"metadata\":{\"name\":\"%s\",\"labels\":{\"app\":\"a\"}},\"spec\":{%s\"containers\":[{\"name\":\"c\",\"image\":\"i:1\"}]}}",
		name, more)
		.p;
}

UNUSED static void make_namespace(struct env *e, const char *name)
{
	OK(e, CREATE, "namespaces", "",
		arena_fmt(e->a, "{\"metadata\":{\"name\":\"%s\"}}", name).p);
}

UNUSED static int env_setup(void **state)
{
	struct env *e = xcalloc(1, sizeof(*e));
	struct err err;
	struct store_config sc = { .backend = "memory" };
	if (store_open(&sc, &e->store, &err))
		fail_msg("%s", err.text);
	struct registry_config rc = {
		.store = e->store, .clock = &test_clock, .service_cidr = "10.43.0.0/24"
	};
	if (registry_new(&rc, &e->r, &err))
		fail_msg("%s", err.text);
	e->a = arena_new(0);
	test_time.sec = 1700000000;
	make_namespace(e, "default");
	*state = e;
	return 0;
}

UNUSED static int env_teardown(void **state)
{
	struct env *e = *state;
	object_unref(e->res.object);
	registry_free(e->r);
	store_close(e->store);
	buf_deinit(&e->text);
	arena_free(e->a);
	free(e);
	return 0;
}

/* ---- lists and watches ---- */

/* Names on the page, by commas; the request stands in e->req. */
UNUSED static const char *list(struct env *e, struct str *ret_continue, int64_t *ret_remaining)
{
	struct registry_list *l;
	struct meta_v1_status *st = NULL;
	CLEAN_BUF struct buf b = { 0 };
	struct object *o;
	struct str rv, cont;
	int64_t remaining;
	e->req.verb = VERB_LIST;
	if (registry_list_open(e->r, &e->req, &l, &st)) {
		e->res = (struct registry_result){ .status = st, .code = st->code };
		struct err err;
		json_parse(arena_strz(e->a, body(e)), e->a, &e->tree, &err);
		return "refused";
	}
	while ((o = registry_list_next(l))) {
		struct str ns, name;
		key_parts(e->req.resource, o->key, &ns, &name);
		buf_addf(&b, "%s" STR_FMT, b.len ? "," : "", STR_ARG(name));
	}
	registry_list_meta(l, &rv, &cont, &remaining);
	if (ret_continue)
		*ret_continue = cont;
	if (ret_remaining)
		*ret_remaining = remaining;
	registry_list_free(l);
	return arena_str(e->a, buf_str(&b)).p;
}

UNUSED static const char *list_of(
	struct env *e, const char *path, const char *ns, const char *labels, const char *fields)
{
	req_new(e, VERB_LIST, path, ns, NULL);
	e->req.label_selector = str_of(labels);
	e->req.field_selector = str_of(fields);
	return list(e, NULL, NULL);
}

UNUSED static void no_wake(void *arg) {}

UNUSED static struct registry_watch *watch_of(struct env *e, const char *path, const char *ns,
	const char *labels, const char *fields, const char *revision)
{
	struct registry_watch *w;
	struct meta_v1_status *st = NULL;
	req_new(e, VERB_WATCH, path, ns, NULL);
	e->req.label_selector = str_of(labels);
	e->req.field_selector = str_of(fields);
	e->req.resource_version = str_of(revision);
	if (registry_watch_open(e->r, &e->req, false, no_wake, NULL, &w, &st)) {
		e->res = (struct registry_result){ .status = st, .code = st->code };
		return NULL;
	}
	return w;
}

/* "ADDED name", "none", "gone" */
UNUSED static const char *next(struct env *e, struct registry_watch *w)
{
	static const char *const types[] = {
		[WATCH_ADDED] = "ADDED", [WATCH_MODIFIED] = "MODIFIED", [WATCH_DELETED] = "DELETED"
	};
	struct registry_watch_event ev;
	int rc = registry_watch_next(w, &ev);
	if (rc)
		return rc == STORE_NOT_FOUND ? "none" : "gone";
	const char *name = strrchr(ev.object->key.p, '/') + 1;
	struct err err;
	json_parse(arena_str(e->a, ev.object->json), e->a, &e->tree, &err);
	return arena_fmt(e->a, "%s %s", types[ev.type], name).p;
}
#define assert_next(e, w, text) assert_string_equal(next((e), (w)), (text))

#endif
