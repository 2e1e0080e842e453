/* Bodies, patches, selectors and continue tokens of any bytes against a registry over the memory store. First byte: the resource, second: what is
 * done. Whatever is answered is an object that decodes, or a Status that says why not. */
#include "fuzz.h"
#include "registry/registry.h"

static struct registry *registry;
static const char *const plurals[] = { "pods", "services", "configmaps", "secrets", "namespaces",
	"replicationcontrollers", "nodes", "events" };

static void start(void)
{
	struct registry_config rc = { .service_cidr = "10.43.0.0/28" };
	struct store_config sc = { .backend = "memory" };
	struct err err;
	must(!store_open(&sc, &rc.store, &err));
	must(!registry_new(&rc, &registry, &err));
	must(!registry_bootstrap(registry, &err));
}

static void call(struct registry_request *q, enum resource_verb verb)
{
	struct registry_result res;
	struct err err;
	void *obj;
	q->verb = verb;
	registry_call(registry, q, &res);
	must(res.code >= 200 && res.code < 600);
	must(res.code < 300 || (res.status && res.status->message.len));
	if (res.object)
		must(!registry_decode(q->resource, res.object, q->arena, &obj, &err));
	object_unref(res.object);
}

static void list(struct registry_request *q)
{
	struct registry_list *l;
	struct meta_v1_status *st;
	struct str revision, cont;
	int64_t remaining;
	q->verb = VERB_LIST;
	q->limit = 1;
	if (registry_list_open(registry, q, &l, &st)) {
		must(st->message.len > 0);
		return;
	}
	while (registry_list_next(l))
		;
	registry_list_meta(l, &revision, &cont, &remaining);
	registry_list_free(l);
}

static void body(struct registry_request *q, struct str text, enum resource_verb verb)
{
	struct err err;
	if (json_decode(q->resource->row->type, text, q->arena, NULL, &q->obj, &err))
		return;
	call(q, verb);
}

static void patch(struct registry_request *q, struct str text, enum patch_type type)
{
	q->patch = text;
	q->patch_type = type;
	q->field_manager = STR("fuzz");
	q->force = true;
	call(q, VERB_PATCH);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	if (!registry)
		start();
	struct arena *a = arena_new(0);
	struct str text = arena_str(a, str_n((const char *)data + 2, size - 2));
	struct registry_request q = { .arena = a, .name = STR("x") };
	q.resource = registry_resource(
		registry, STR(""), STR("v1"), str_of(plurals[data[0] % ARRAY_LEN(plurals)]));
	q.ns = q.resource->row->namespaced ? STR("default") : STR_NONE;
	switch (data[1] % 8) {
	case 0:
		body(&q, text, VERB_CREATE);
		break;
	case 1:
		body(&q, text, VERB_UPDATE);
		break;
	case 2:
	case 3:
	case 4:
	case 5:
		patch(&q, text, (enum patch_type)(data[1] % 8 - 2));
		break;
	case 6:
		q.name = STR_NONE;
		q.continue_token = text;
		list(&q);
		break;
	case 7:
		q.name = STR_NONE;
		q.label_selector = q.field_selector = text;
		list(&q);
		break;
	}
	if (data[0] & 128)
		call(&q, VERB_DELETE);
	arena_free(a);
	return 0;
}
