/* Every recorded object, with every field set, through all verbs: whatever is said of it, it is said as a Status, and nothing is read that is
 * not there. The objects are made of random texts, so most are refused; those that pass must come back as they were stored. */
#include <dirent.h>

#include "registry/registry_test.h"

static const char folder[] = "tests/golden/api";

static char *read_file(const char *path)
{
	CLEAN_BUF struct buf b = { 0 };
	FILE *f = fopen(path, "re");
	char chunk[4096];
	size_t n;
	if (!f)
		fail_msg("%s: %s", path, strerror(errno));
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		buf_add(&b, chunk, n);
	fclose(f);
	return buf_take(&b);
}

static void run(struct env *e, enum resource_verb verb, const struct resource *r,
	const struct subresource_row *sub, void *obj, const char *patch, int type)
{
	object_unref(e->res.object);
	e->res = (struct registry_result){ 0 };
	e->req = (struct registry_request){
		.arena = e->a, .resource = r, .sub = sub, .verb = verb, .obj = obj, .name = STR("x")
	};
	e->req.ns = r->row->namespaced ? STR("default") : STR_NONE;
	e->req.patch = str_of(patch);
	e->req.patch_type = (enum patch_type)type;
	e->req.field_manager = STR("m");
	if (verb == CREATE && !sub)
		e->req.name = STR_NONE;
	req_run(e);
	if (e->res.status && str_eqz(e->res.status->status, "Failure"))
		assert_true(e->res.code >= 400 && e->res.status->message.len > 0);
}

static void *decode(struct env *e, const struct resource *r, const char *text)
{
	struct err err;
	void *obj;
	if (json_decode(r->row->type, str_of(text), e->a, NULL, &obj, &err))
		fail_msg("%s: %s", r->row->kind, err.text);
	struct meta_v1_object_meta *m = model_meta(r->row->type, obj);
	if (!m)
		return NULL;
	m->name = STR("x");
	m->namespace = STR_NONE;
	m->resource_version = m->uid = STR_NONE;
	m->deletion_timestamp = m->creation_timestamp = (struct timestamp){ 0 };
	m->deletion_grace_period_seconds = (struct opt_int64){ 0 };
	m->finalizers = (struct str_list){ 0 };
	return obj;
}

/* Kept when it is asked for, not for a list; with the object, or with the event when objects keep enough. */
static void check_proto(const struct resource *r, struct object *o)
{
	static const size_t large = 8 << 20;
	CLEAN_BUF struct buf once = { 0 }, again = { 0 };
	struct store_event ev = { .object = o },
			   other = { .object = object_with_json(o, o->json, 2) };
	struct object *full = object_with_json(o, o->json, 3);
	registry_object_proto_once(r, o, &once);
	assert_true(once.len > 0 && !o->proto);
	assert_true(str_eq(registry_event_proto(r, &ev), buf_str(&once)));
	assert_true(o->proto && !ev.proto);
	registry_object_proto(r, o, &again);
	assert_true(str_eq(buf_str(&again), buf_str(&once)));

	struct store_form *f = xcalloc(1, large);
	f->len = large - sizeof(*f) - o->proto->len - sizeof(*f);
	assert_ptr_equal(object_keep_proto(full, f), f);
	registry_object_proto(r, other.object, &again);
	assert_int_equal(again.len, 2 * once.len);
	struct str kept = registry_event_proto(r, &other);
	assert_true(str_eq(kept, buf_str(&once)));
	assert_true(other.proto && !other.object->proto);
	assert_ptr_equal(registry_event_proto(r, &other).p, kept.p);
	free(other.proto);
	object_unref(other.object);
	object_unref(full);
}

static void all_verbs(struct env *e, const struct resource *r, const char *text)
{
	CLEAN_BUF struct buf cells = { 0 }, applied = { 0 };
	void *obj = decode(e, r, text);
	if (!obj || !(r->row->verbs & VERB_CREATE) || !(r->row->verbs & VERB_GET))
		return;
	run(e, CREATE, r, NULL, obj, NULL, 0);
	run(e, UPDATE, r, NULL, decode(e, r, text), NULL, 0);
	json_encode(r->row->type, decode(e, r, text), &applied);
	run(e, PATCH, r, NULL, NULL, "{\"metadata\":{\"labels\":{\"a\":\"b\"}}}",
		PATCH_TYPE_STRATEGIC);
	run(e, PATCH, r, NULL, NULL, applied.p, PATCH_TYPE_MERGE);
	run(e, PATCH, r, NULL, NULL, applied.p, PATCH_TYPE_STRATEGIC);
	run(e, PATCH, r, NULL, NULL, applied.p, PATCH_TYPE_APPLY);
	for (size_t i = 0; i < r->row->n_subs; i++) {
		const struct subresource_row *s = &r->row->subs[i];
		if (s->type == r->row->type && s->verbs & VERB_UPDATE)
			run(e, UPDATE, r, s, decode(e, r, text), NULL, 0);
	}
	run(e, GET, r, NULL, NULL, NULL, 0);
	/* an object of whatever kind as if it had been stored: tables and protobuf of it */
	struct object seed = { .key = STR("/x/y") };
	struct object *o = object_with_json(&seed, str_of(applied.p), 1);
	registry_table_cells(r, o, test_time, e->a, &cells);
	check_proto(r, o);
	object_unref(o);
	run(e, DELETE, r, NULL, NULL, NULL, 0);
}

static void golden(void **state)
{
	struct env *e = *state;
	size_t n_resources, seen = 0;
	const struct resource *const *all = registry_resources(e->r, &n_resources);
	DIR *d = opendir(folder);
	struct dirent *it;
	if (!d) {
		print_message("no %s here: run from the top folder\n", folder);
		skip();
	}
	while ((it = readdir(d))) {
		if (!str_has_suffix(str_of(it->d_name), STR(".json")))
			continue;
		char *path = xasprintf("%s/%s", folder, it->d_name), *text = read_file(path);
		struct str version, kind;
		struct err err;
		assert_int_equal(json_peek_type_meta(str_of(text), e->a, &version, &kind, &err), 0);
		for (size_t i = 0; i < n_resources; i++)
			if (str_eq(all[i]->kind_name, kind) &&
				str_eq(all[i]->api_version, version)) {
				all_verbs(e, all[i], text);
				seen++;
			}
		free(text);
		free(path);
	}
	closedir(d);
	assert_true(seen > 40);
}

/* The other end: objects with nothing set. */
static void empty(void **state)
{
	struct env *e = *state;
	size_t n;
	const struct resource *const *all = registry_resources(e->r, &n);
	for (size_t i = 0; i < n; i++)
		all_verbs(e, all[i], "{}");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
	const struct CMUnitTest tests[] = { T(golden), T(empty) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
