/* DefaultStorageClass and DefaultIngressClass: what names no class gets the newest one marked as default. RuntimeClass: a pod gets its
 * class's overhead and placement. NamespaceLifecycle's last part: three namespaces cannot be deleted. */
#include "apiserver/admission/admission.h"

struct find_default {
	const struct resource *resource;
	const char *annotation;
	struct arena *arena;
	struct meta_v1_object_meta *best;
};

static bool each_class(void *arg, struct object *o)
{
	struct find_default *f = arg;
	void *obj;
	if (str_find_str(o->json, str_of(f->annotation)) < 0 ||
		registry_decode(f->resource, o, f->arena, &obj, NULL) < 0)
		return true;
	struct meta_v1_object_meta *m = model_meta(f->resource->storage->row->type, obj);
	if (!str_eqz(str_map_get(&m->annotations, str_of(f->annotation)), "true"))
		return true;
	int newer = f->best ? time_cmp(m->creation_timestamp, f->best->creation_timestamp) : 1;
	if (newer > 0 || (newer == 0 && str_cmp(m->name, f->best->name) < 0))
		f->best = m;
	return true;
}

static struct str default_name(
	struct apiserver *s, const struct resource *r, const char *annotation, struct arena *a)
{
	struct find_default f = { .resource = r, .annotation = annotation, .arena = a };
	lookup_each(s, r, STR_NONE, each_class, &f);
	return f.best ? f.best->name : STR_NONE;
}

static struct meta_v1_status *admit_claim(struct apiserver *s, struct admission_attributes *at)
{
	struct core_v1_persistent_volume_claim *pvc = at->obj;
	if (pvc->spec.storage_class_name.p ||
		str_map_has(
			&pvc->metadata.annotations, STR("volume.beta.kubernetes.io/storage-class")))
		return NULL;
	struct str name = default_name(s, s->known.storage_classes,
		"storageclass.kubernetes.io/is-default-class", at->req->arena);
	if (name.len)
		pvc->spec.storage_class_name = name;
	return NULL;
}

const struct plugin storage_class_plugin = {
	.name = "DefaultStorageClass",
	.operations = VERB_CREATE,
	.resources = { "persistentvolumeclaims" },
	.admit = admit_claim,
};

static struct meta_v1_status *admit_ingress(struct apiserver *s, struct admission_attributes *at)
{
	struct networking_v1_ingress *ing = at->obj;
	if (ing->spec.ingress_class_name.p ||
		str_map_has(&ing->metadata.annotations, STR("kubernetes.io/ingress.class")))
		return NULL;
	struct str name = default_name(s, s->known.ingress_classes,
		"ingressclass.kubernetes.io/is-default-class", at->req->arena);
	if (name.len)
		ing->spec.ingress_class_name = name;
	return NULL;
}

const struct plugin ingress_class_plugin = {
	.name = "DefaultIngressClass",
	.operations = VERB_CREATE,
	.resources = { "ingresses.networking.k8s.io" },
	.admit = admit_ingress,
};

static struct meta_v1_status *admit_runtime(struct apiserver *s, struct admission_attributes *at)
{
	struct core_v1_pod *pod = at->obj;
	struct node_v1_runtime_class *rc;
	struct arena *a = at->req->arena;
	if (!pod->spec.runtime_class_name.len)
		return pod->spec.overhead.len
			? deny(at,
				  "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
			: NULL;
	if (lookup(s, s->known.runtime_classes, STR_NONE, pod->spec.runtime_class_name, a, &rc) !=
		0)
		return deny(at, "pod rejected: RuntimeClass \"" STR_FMT "\" not found",
			STR_ARG(pod->spec.runtime_class_name));
	if (rc->overhead)
		pod->spec.overhead = rc->overhead->pod_fixed;
	for (size_t i = 0; rc->scheduling && i < rc->scheduling->node_selector.len; i++) {
		const struct str_pair *p = &rc->scheduling->node_selector.items[i];
		struct str own = str_map_get(&pod->spec.node_selector, p->key);
		if (own.p && !str_eq(own, p->value))
			return deny(at,
				"conflict: runtimeClass.scheduling.nodeSelector[" STR_FMT
				"] = " STR_FMT "; "
				"pod.spec.nodeSelector[" STR_FMT "] = " STR_FMT,
				STR_ARG(p->key), STR_ARG(p->value), STR_ARG(p->key), STR_ARG(own));
		str_map_set(a, &pod->spec.node_selector, p->key, p->value);
	}
	if (rc->scheduling)
		LIST_EACH(t, &rc->scheduling->tolerations)
			*LIST_ADD(a, &pod->spec.tolerations) = *t;
	return NULL;
}

const struct plugin runtime_class_plugin = {
	.name = "RuntimeClass",
	.operations = VERB_CREATE,
	.resources = { "pods" },
	.admit = admit_runtime,
};

static struct meta_v1_status *validate_namespace(
	struct apiserver *s, struct admission_attributes *at)
{
	static const char *const immortal[] = { "default", "kube-system", "kube-public" };
	for (size_t i = 0; i < ARRAY_LEN(immortal); i++)
		if (str_eqz(at->req->name, immortal[i]))
			return deny(at, "this namespace may not be deleted");
	return NULL;
}

const struct plugin namespace_plugin = {
	.name = "NamespaceLifecycle",
	.operations = VERB_DELETE,
	.resources = { "namespaces" },
	.validate = validate_namespace,
};
