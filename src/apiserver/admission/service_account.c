/* ServiceAccount: a pod runs as an account that exists, with its token, the cluster's CA and the namespace mounted where clients look.
 * Upstream: plugin/pkg/admission/serviceaccount. */
#include "apiserver/admission/admission.h"

#define MOUNT_PATH "/var/run/secrets/kubernetes.io/serviceaccount"
#define VOLUME_PREFIX "kube-api-access-"

static bool automount(const struct core_v1_pod *pod, const struct core_v1_service_account *sa)
{
	if (pod->spec.automount_service_account_token.set)
		return pod->spec.automount_service_account_token.value;
	return !sa->automount_service_account_token.set ||
		sa->automount_service_account_token.value;
}

static void add_volume(struct arena *a, struct core_v1_pod_spec *spec, struct str name)
{
	struct core_v1_volume *v = LIST_ADD(a, &spec->volumes);
	v->name = name;
	struct core_v1_projected_volume_source *p = v->volume_source.projected =
		arena_alloc(a, sizeof(*p));
	p->default_mode = (struct opt_int32)SOME(0644);
	struct core_v1_service_account_token_projection *token = arena_alloc(a, sizeof(*token));
	token->path = STR("token");
	token->expiration_seconds = (struct opt_int64)SOME(3607);
	LIST_ADD(a, &p->sources)->service_account_token = token;
	struct core_v1_config_map_projection *ca = arena_alloc(a, sizeof(*ca));
	ca->local_object_reference.name = STR("kube-root-ca.crt");
	struct core_v1_key_to_path *item = LIST_ADD(a, &ca->items);
	item->key = item->path = STR("ca.crt");
	LIST_ADD(a, &p->sources)->config_map = ca;
	struct core_v1_downward_api_projection *down = arena_alloc(a, sizeof(*down));
	struct core_v1_downward_api_volume_file *file = LIST_ADD(a, &down->items);
	file->path = STR("namespace");
	file->field_ref = arena_alloc(a, sizeof(*file->field_ref));
	file->field_ref->api_version = STR("v1");
	file->field_ref->field_path = STR("metadata.namespace");
	LIST_ADD(a, &p->sources)->downward_api = down;
}

static struct str volume_name(struct arena *a, const struct core_v1_pod_spec *spec, bool *ret_there)
{
	LIST_EACH(v, &spec->volumes) {
		if (str_has_prefix(v->name, STR(VOLUME_PREFIX))) {
			*ret_there = true;
			return v->name;
		}
	}
	char suffix[6];
	random_suffix(suffix, 5);
	*ret_there = false;
	return arena_fmt(a, VOLUME_PREFIX "%s", suffix);
}

static bool add_mounts(
	struct arena *a, struct core_v1_container_items *containers, struct str volume)
{
	bool any = false;
	LIST_EACH(c, containers) {
		bool mounted = false;
		LIST_EACH(m, &c->volume_mounts)
			mounted |= str_eqz(m->mount_path, MOUNT_PATH);
		if (mounted)
			continue;
		struct core_v1_volume_mount *m = LIST_ADD(a, &c->volume_mounts);
		m->name = volume;
		m->read_only = true;
		m->mount_path = STR(MOUNT_PATH);
		any = true;
	}
	return any;
}

static struct meta_v1_status *mirror_pod(
	const struct admission_attributes *at, const struct core_v1_pod *pod)
{
	if (pod->spec.service_account_name.len)
		return deny(at, "a mirror pod may not reference service accounts");
	LIST_EACH(v, &pod->spec.volumes) {
		if (v->volume_source.secret)
			return deny(at, "a mirror pod may not reference secrets");
		LIST_EACH(p,
			v->volume_source.projected ? &v->volume_source.projected->sources
						   : &(struct core_v1_volume_projection_items){ 0 })
			if (p->service_account_token)
				return deny(at,
					"a mirror pod may not use service account token projections");
	}
	return NULL;
}

static struct meta_v1_status *admit(struct apiserver *s, struct admission_attributes *at)
{
	struct arena *a = at->req->arena;
	struct core_v1_pod *pod = at->obj;
	if (is_mirror_pod(pod))
		return mirror_pod(at, pod);
	if (!pod->spec.service_account_name.len)
		pod->spec.service_account_name = STR("default");
	pod->spec.service_account = pod->spec.service_account_name;
	struct core_v1_service_account *sa;
	struct str name = pod->spec.service_account_name;
	if (lookup(s, s->known.service_accounts, at->req->ns, name, a, &sa) != 0)
		return deny(at,
			"error looking up service account " STR_FMT "/" STR_FMT
			": serviceaccount \"" STR_FMT "\" not found",
			STR_ARG(at->req->ns), STR_ARG(name), STR_ARG(name));
	if (automount(pod, sa)) {
		bool there;
		struct str volume = volume_name(a, &pod->spec, &there);
		bool any = add_mounts(a, &pod->spec.containers, volume);
		any |= add_mounts(a, &pod->spec.init_containers, volume);
		if (any && !there)
			add_volume(a, &pod->spec, volume);
	}
	if (!pod->spec.image_pull_secrets.len)
		LIST_EACH(secret, &sa->image_pull_secrets)
			LIST_ADD(a, &pod->spec.image_pull_secrets)->name = secret->name;
	return NULL;
}

const struct plugin service_account_plugin = {
	.name = "ServiceAccount",
	.operations = VERB_CREATE,
	.resources = { "pods" },
	.admit = admit,
};
