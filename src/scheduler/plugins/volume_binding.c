/* VolumeBinding: a pod goes where its claims' volumes can be used. Claims that wait for their first consumer are bound by the volume binder once
 * the pod has a node; what an outside provisioner needs to know of that node is written by volume_claims_select. Not here: capacity of drivers. */
#include <stdio.h>

#include "codec/codec.h"
#include "scheduler/internal.h"

#define SELECTED_NODE "volume.kubernetes.io/selected-node"

static struct str claim_of(
	const struct core_v1_pod *pod, const struct core_v1_volume *v, struct arena *a)
{
	if (v->volume_source.persistent_volume_claim)
		return v->volume_source.persistent_volume_claim->claim_name;
	if (v->volume_source.ephemeral)
		return arena_fmt(
			a, STR_FMT "-" STR_FMT, STR_ARG(pod->metadata.name), STR_ARG(v->name));
	return STR_NONE;
}

static struct cached *get_claim(
	const struct nodes *t, const struct core_v1_pod *pod, struct str name, struct arena *a)
{
	return t->find(t->find_arg, &core_v1_persistent_volume_claim_type,
		arena_fmt(a, STR_FMT "/" STR_FMT, STR_ARG(pod->metadata.namespace), STR_ARG(name)));
}

static void refuse_all(struct state *st, struct refusals *r, const char *why)
{
	EACH_FIT(i, st) {
		bit_clear(st->fits, i);
		refuse(r, why);
	}
}

static bool reaches(const struct core_v1_persistent_volume *v, const struct state *st, size_t node)
{
	const struct core_v1_node_selector *s =
		v->spec.node_affinity ? v->spec.node_affinity->required : NULL;
	const struct core_v1_node *n = st->nodes->object[node]->obj;

	if (!s)
		return true;
	LIST_EACH(term, &s->node_selector_terms)
		if (node_selector_term_matches(term, &n->metadata.labels, n->metadata.name))
			return true;
	return false;
}

static void bound_filter(
	struct state *st, struct refusals *r, const struct core_v1_persistent_volume_claim *c)
{
	struct cached *v = st->nodes->find(
		st->nodes->find_arg, &core_v1_persistent_volume_type, c->spec.volume_name);

	if (!v) {
		refuse_all(st, r,
			"node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)");
		return;
	}
	EACH_FIT(i, st) {
		if (!reaches(v->obj, st, i)) {
			bit_clear(st->fits, i);
			refuse(r, "node(s) didn't match PersistentVolume's node affinity");
		}
	}
	cached_unref(v);
}

/* Not bound yet. Without a provisioner one of the class' free volumes must reach the node. */
static void unbound_filter(
	struct state *st, struct refusals *r, const struct core_v1_persistent_volume_claim *c)
{
	const struct nodes *t = st->nodes;
	struct cached *class = c->spec.storage_class_name.len
		? t->find(t->find_arg, &storage_v1_storage_class_type, c->spec.storage_class_name)
		: NULL;
	const struct storage_v1_storage_class *sc = class ? class->obj : NULL;
	struct cached_list volumes = { 0 };

	if (!sc || !str_eqz(sc->volume_binding_mode, "WaitForFirstConsumer")) {
		refuse_all(st, r, "pod has unbound immediate PersistentVolumeClaims");
	} else if (str_eqz(sc->provisioner, "kubernetes.io/no-provisioner")) {
		t->find_all(t->find_arg, &core_v1_persistent_volume_type, &volumes);
		EACH_FIT(i, st) {
			bool found = false;

			for (size_t k = 0; !found && k < volumes.len; k++) {
				const struct core_v1_persistent_volume *v = volumes.items[k]->obj;

				found = str_eq(v->spec.storage_class_name,
						c->spec.storage_class_name) &&
					(!v->spec.claim_ref ||
						(str_eq(v->spec.claim_ref->name,
							 c->metadata.name) &&
							str_eq(v->spec.claim_ref->namespace,
								c->metadata.namespace))) &&
					reaches(v, st, i);
			}
			if (!found) {
				bit_clear(st->fits, i);
				refuse(r,
					"node(s) didn't find available persistent volumes to bind");
			}
		}
		cached_list_deinit(&volumes);
	}
	cached_unref(class);
}

static void filter(struct state *st, struct refusals *r)
{
	CLEAN_ARENA struct arena *a = NULL;

	if (!st->nodes->find)
		return;
	LIST_EACH(v, &st->pod->spec.volumes) {
		if (!v->volume_source.persistent_volume_claim && !v->volume_source.ephemeral)
			continue;
		if (!a)
			a = arena_new(0);
		struct str name = claim_of(st->pod, v, a);
		struct cached *c = get_claim(st->nodes, st->pod, name, a);
		const struct core_v1_persistent_volume_claim *claim = c ? c->obj : NULL;

		if (!claim)
			refuse_all(st, r,
				arena_fmt(a, "persistentvolumeclaim \"" STR_FMT "\" not found",
					STR_ARG(name))
					.p);
		else if (!time_is_zero(claim->metadata.deletion_timestamp))
			refuse_all(st, r,
				arena_fmt(a,
					"persistentvolumeclaim \"" STR_FMT "\" is being deleted",
					STR_ARG(name))
					.p);
		else if (claim->spec.volume_name.len)
			bound_filter(st, r, claim);
		else
			unbound_filter(st, r, claim);
		cached_unref(c);
	}
}

const struct plugin volume_binding = { .name = "VolumeBinding",
	.events = EVENT_NODE | EVENT_VOLUME | EVENT_POD_UPDATE,
	.filter = filter };

int volume_claims_select(const struct nodes *t, struct client *client,
	const struct core_v1_pod *pod, const char *node, struct err *err)
{
	CLEAN_ARENA struct arena *a = NULL;
	int ret = 0;

	LIST_EACH(v, &pod->spec.volumes) {
		if (ret || !t->find ||
			(!v->volume_source.persistent_volume_claim && !v->volume_source.ephemeral))
			continue;
		if (!a)
			a = arena_new(0);
		struct cached *c = get_claim(t, pod, claim_of(pod, v, a), a);
		const struct core_v1_persistent_volume_claim *claim = c ? c->obj : NULL;

		if (claim && !claim->spec.volume_name.len &&
			!str_eqz(str_map_get(&claim->metadata.annotations, STR(SELECTED_NODE)),
				node))
			ret = client_patch(client, &core_v1_persistent_volume_claim_type,
				claim->metadata.namespace, claim->metadata.name, NULL,
				CLIENT_PATCH_MERGE,
				arena_fmt(a,
					"{\"metadata\":{\"annotations\":{\"" SELECTED_NODE
					"\":\"%s\"}}}",
					node),
				a, NULL, err);
		cached_unref(c);
	}
	return ret;
}
