/* Holds claims and volumes while they are used: takes the protection finalizer off what is being deleted and no longer in use. (Admission, or
 * upstream's rule at creation, puts it on; here it is put on too, when missing.) Upstream: pvc- and pv-protection. */
#include "controllers/internal.h"

#include "controllers/table.h"

#define CLAIM_FINALIZER "kubernetes.io/pvc-protection"
#define VOLUME_FINALIZER "kubernetes.io/pv-protection"

static bool uses_claim(const struct core_v1_pod *p, struct str claim)
{
	LIST_EACH(v, &p->spec.volumes) {
		if (v->volume_source.persistent_volume_claim &&
			str_eq(v->volume_source.persistent_volume_claim->claim_name, claim))
			return true;
		if (v->volume_source.ephemeral &&
			p->metadata.name.len + 1 + v->name.len == claim.len &&
			str_has_prefix(claim, p->metadata.name) &&
			claim.p[p->metadata.name.len] == '-' && str_has_suffix(claim, v->name))
			return true;
	}
	return false;
}

static bool claim_in_use(struct run *r, const struct core_v1_persistent_volume_claim *c)
{
	struct objects pods = cache_objects(r, &core_v1_pod_type, c->metadata.namespace);

	OBJECT_EACH(const struct core_v1_pod, p, pods)
		if (p->spec.node_name.len && !pod_ended(p) && uses_claim(p, c->metadata.name))
			return true;
	return false;
}

static int set_finalizer(struct run *r, const struct type *t, const struct meta_v1_object_meta *m,
	const char *name, bool on, struct err *err)
{
	struct buf b CLEAN_BUF = { 0 };
	bool first = true;

	buf_addf(&b, "{\"metadata\":{\"resourceVersion\":\"" STR_FMT "\",\"finalizers\":[",
		STR_ARG(m->resource_version));
	LIST_EACH(f, &m->finalizers) {
		if (str_eqz(*f, name))
			continue;
		if (!first)
			buf_addc(&b, ',');
		first = false;
		json_write_text(*f, &b);
	}
	if (on)
		buf_addf(&b, "%s\"%s\"", first ? "" : ",", name);
	buf_addz(&b, "]}}");
	int ret = client_patch(r->client, t, m->namespace, m->name, NULL, CLIENT_PATCH_MERGE,
		buf_str(&b), r->arena, NULL, err);

	return ret == CLIENT_NOT_FOUND ? 0 : ret;
}

static int hold_or_release(struct run *r, const struct type *t, const struct meta_v1_object_meta *m,
	const char *name, bool used, struct err *err)
{
	bool has = str_list_has(&m->finalizers, str_of(name)),
	     going = !time_is_zero(m->deletion_timestamp);

	if (going && has && !used)
		return set_finalizer(r, t, m, name, false, err);
	if (!going && !has)
		return set_finalizer(r, t, m, name, true, err);
	return 0;
}

static int reconcile_claim(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_persistent_volume_claim *c =
		cache_object(r, &core_v1_persistent_volume_claim_type, key);

	return c ? hold_or_release(r, &core_v1_persistent_volume_claim_type, &c->metadata,
			   CLAIM_FINALIZER, claim_in_use(r, c), err)
		 : 0;
}

static int reconcile_volume(struct run *r, struct str key, struct err *err)
{
	const struct core_v1_persistent_volume *v =
		cache_object(r, &core_v1_persistent_volume_type, key);

	return v ? hold_or_release(r, &core_v1_persistent_volume_type, &v->metadata,
			   VOLUME_FINALIZER, str_eqz(v->status.phase, "Bound"), err)
		 : 0;
}

/* A pod that ended or went may have been the last user. */
static void map_pod(
	struct run *r, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	const struct core_v1_pod *p = (now ? now : old)->obj;

	if (now && !pod_ended(p))
		return;
	LIST_EACH(v, &p->spec.volumes) {
		struct buf key CLEAN_BUF = { 0 };

		buf_addf(&key, STR_FMT "/", STR_ARG(p->metadata.namespace));
		if (v->volume_source.persistent_volume_claim)
			buf_add_str(&key, v->volume_source.persistent_volume_claim->claim_name);
		else if (v->volume_source.ephemeral)
			buf_addf(&key, STR_FMT "-" STR_FMT, STR_ARG(p->metadata.name),
				STR_ARG(v->name));
		else
			continue;
		enqueue(r, buf_str(&key));
	}
}

const struct controller claim_protection_controller = {
	.name = "pvc-protection",
	.watches = { { &core_v1_persistent_volume_claim_type, map_self },
		{ &core_v1_pod_type, map_pod } },
	.reconcile = reconcile_claim,
};

const struct controller volume_protection_controller = {
	.name = "pv-protection",
	.watches = { { &core_v1_persistent_volume_type, map_self } },
	.reconcile = reconcile_volume,
};
