/* Volumes, claims and storage classes: what may not change. Upstream: pkg/registry/core/persistentvolume*, pkg/registry/storage. */
#include "registry/kinds/kinds.h"

static const struct at root = { NULL, "spec", -1, { NULL, 0 } };

static size_t sources(const struct core_v1_persistent_volume_source *s)
{
	size_t n = 0;
	for (size_t i = 0; i < core_v1_persistent_volume_source_type.n_fields; i++)
		n += *(void *const *)cmember(s, &core_v1_persistent_volume_source_type.fields[i]) !=
			NULL;
	return n;
}

static void pv_validate(struct write *w, struct causes *cs)
{
	struct core_v1_persistent_volume *v = w->obj;
	size_t n = sources(&v->spec.persistent_volume_source);
	if (!v->spec.access_modes.len)
		REQUIRED(cs, AT(&root, "accessModes"), "");
	if (!v->spec.capacity.len)
		REQUIRED(cs, AT(&root, "capacity"), "");
	else if (!str_map_has(&v->spec.capacity, STR("storage")))
		cause_at(cs, CAUSE_NOT_SUPPORTED, AT(&root, "capacity"),
			v->spec.capacity.items[0].key, "supported values: \"storage\"");
	if (n == 0)
		REQUIRED(cs, &root, "must specify a volume type");
	else if (n > 1)
		FORBIDDEN(cs, &root, "may not specify more than 1 volume type");
}

static void pv_validate_update(struct write *w, struct causes *cs)
{
	struct core_v1_persistent_volume *v = w->obj, *old = w->old;
	if (!model_equal(&core_v1_persistent_volume_source_type, &v->spec.persistent_volume_source,
		    &old->spec.persistent_volume_source))
		FORBIDDEN(cs, AT(&root, "persistentvolumesource"),
			"spec.persistentvolumesource is immutable after creation");
	if (!str_eq(v->spec.volume_mode, old->spec.volume_mode))
		INVALID(cs, AT(&root, "volumeMode"), shown(v->spec.volume_mode), IMMUTABLE);
}

const struct kind persistent_volume_kind = {
	.resource = "persistentvolumes",
	.flags = KIND_STATUS_META | KIND_RETURN_DELETED,
	.validate = pv_validate,
	.validate_update = pv_validate_update,
};

static void pvc_validate(struct write *w, struct causes *cs)
{
	struct core_v1_persistent_volume_claim *c = w->obj;
	struct quantity q;
	const struct at *amount = AT_KEY(AT(&root, "resources"), "requests", STR("storage"));
	struct str storage = str_map_get(&c->spec.resources.requests, STR("storage"));
	if (!c->spec.access_modes.len)
		REQUIRED(cs, AT(&root, "accessModes"), "at least 1 access mode is required");
	if (!storage.p)
		REQUIRED(cs, amount, "");
	else if (quantity_parse(storage, &q) || q.nano <= 0)
		INVALID(cs, amount, storage, "must be greater than zero");
}

static void pvc_validate_update(struct write *w, struct causes *cs)
{
	struct core_v1_persistent_volume_claim *c = w->obj, *old = w->old;
	struct core_v1_persistent_volume_claim_spec probe = c->spec;
	bool bound = str_eqz(old->status.phase, "Bound");
	if (!old->spec.volume_name.len)
		probe.volume_name = old->spec.volume_name;
	if (bound)
		probe.resources.requests = old->spec.resources.requests;
	if (!old->spec.storage_class_name.p) /* the default class was found later */
		probe.storage_class_name = old->spec.storage_class_name;
	probe.volume_attributes_class_name = old->spec.volume_attributes_class_name;
	if (!model_equal(&core_v1_persistent_volume_claim_spec_type, &probe, &old->spec))
		FORBIDDEN(cs, &root,
			"spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
}

const struct kind persistent_volume_claim_kind = {
	.resource = "persistentvolumeclaims",
	.flags = KIND_STATUS_META | KIND_RETURN_DELETED,
	.validate = pvc_validate,
	.validate_update = pvc_validate_update,
};

static void class_validate_update(struct write *w, struct causes *cs)
{
	struct storage_v1_storage_class *c = w->obj, *old = w->old;
	struct storage_v1_storage_class probe = *old;
	probe.parameters = c->parameters;
	if (!model_equal(w->type, &probe, old))
		FORBIDDEN(cs, AT(NULL, "parameters"), "updates to parameters are forbidden.");
	if (!str_eq(c->provisioner, old->provisioner))
		FORBIDDEN(cs, AT(NULL, "provisioner"), "updates to provisioner are forbidden.");
	if (!str_eq(c->reclaim_policy, old->reclaim_policy))
		FORBIDDEN(cs, AT(NULL, "reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
	if (!str_eq(c->volume_binding_mode, old->volume_binding_mode))
		INVALID(cs, AT(NULL, "volumeBindingMode"), c->volume_binding_mode, IMMUTABLE);
}

const struct kind storage_class_kind = {
	.resource = "storageclasses.storage.k8s.io",
	.flags = KIND_RETURN_DELETED,
	.validate_update = class_validate_update,
};
