/* Mirror pods: how the API shows a static pod. Made when there is an API server to make them in, remade when somebody deletes them,
 * deleted with their file. The annotation config.mirror holds the hash of the static pod that they stand for. */
#include "gen/types.h"
#include "kubelet/internal.h"

#define MIRROR_KEY "kubernetes.io/config.mirror"
#define HASH_KEY "kubernetes.io/config.hash"
#define SOURCE_KEY "kubernetes.io/config.source"

static struct pod_object *mirror_get(struct kubelet *k, struct str full_name)
{
	pthread_mutex_lock(&k->lock);
	struct pod_object *o = map_get(&k->mirrors, full_name);
	if (o)
		pod_object_ref(o);
	pthread_mutex_unlock(&k->lock);
	return o;
}

bool mirror_find(
	struct kubelet *k, const struct pod_worker *w, struct arena *a, struct str *ret_uid)
{
	struct pod_object *o = mirror_get(k, arena_fmt(a, "%s_%s", w->name, w->ns));

	if (!o)
		return false;
	*ret_uid = arena_str(a, o->pod->metadata.uid);
	pod_object_unref(o);
	return true;
}

struct removal {
	struct kubelet *k;
	char *ns, *name, *uid;
};

static void run_removal(void *arg)
{
	struct removal *r = arg;
	struct err err;
	struct client_delete opt = { .grace_seconds = 0, .uid = str_of(r->uid) };

	int got = client_delete(
		r->k->c.client, &core_v1_pod_type, str_of(r->ns), str_of(r->name), &opt, &err);
	if (got && got != CLIENT_NOT_FOUND && got != CLIENT_CONFLICT)
		log_warn("kubelet", "mirror pod %s/%s: %s", r->ns, r->name, err.text);
	free(r->ns);
	free(r->name);
	free(r->uid);
	free(r);
}

static void remove_mirror(struct kubelet *k, const struct core_v1_pod *pod)
{
	struct removal *r = xcalloc(1, sizeof(*r));

	r->k = k;
	r->ns = str_dup(pod->metadata.namespace);
	r->name = str_dup(pod->metadata.name);
	r->uid = str_dup(pod->metadata.uid);
	pool_submit(k->talk, run_removal, r);
}

/* Somebody else's pod with our annotation, or that of a node object that is no more, is no mirror of ours. */
static bool owner_is_us(struct kubelet *k, const struct core_v1_pod *pod)
{
	struct cached *node = node_cached(k);
	bool ours = true;

	LIST_EACH(o, &pod->metadata.owner_references)
		ours &= str_eqz(o->kind, "Node") && str_eqz(o->name, k->c.node_name) &&
			(!node || str_eq(o->uid, node->meta->uid));
	cached_unref(node);
	return ours;
}

void mirror_on_api(struct kubelet *k, enum informer_event ev, const struct cached *obj)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	const struct core_v1_pod *pod = obj->obj;
	struct str name = pod_full_name(pod, a);
	bool ours = owner_is_us(k, pod);
	struct pod_object *old, *now = ev == INFORMER_DELETED ? NULL : pod_object_from_cached(obj);

	pthread_mutex_lock(&k->lock);
	old = now ? map_set(&k->mirrors, name, now) : map_remove(&k->mirrors, name);
	struct pod_object *file = map_get(&k->statics, name);
	bool right = ours && file &&
		str_eq(str_map_get(&pod->metadata.annotations, STR(MIRROR_KEY)),
			str_map_get(&file->pod->metadata.annotations, STR(HASH_KEY)));
	struct pod_worker *w = file ? map_get(&k->workers, file->pod->metadata.uid) : NULL;
	if (w)
		worker_ref(w);
	pthread_mutex_unlock(&k->lock);
	pod_object_unref(old);
	if (now && (!right || !time_is_zero(pod->metadata.deletion_timestamp)))
		remove_mirror(k, pod);
	else if (w && (ev == INFORMER_ADDED || !now)) {
		pthread_mutex_lock(&w->lock);
		w->sent_version = 0; /* the new mirror knows nothing */
		w->status_epoch++;
		pthread_mutex_unlock(&w->lock);
		worker_wake(w);
	}
	worker_unref(w);
}

static void create_mirror(void *arg)
{
	struct pod_worker *w = arg;
	struct kubelet *k = w->k;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct err err;

	pthread_mutex_lock(&k->lock);
	struct pod_object *o = pod_object_ref(w->desired);
	pthread_mutex_unlock(&k->lock);
	struct core_v1_pod *m = model_copy(&core_v1_pod_type, o->pod, a);
	struct cached *node = node_cached(k);
	m->metadata.uid = STR_NONE;
	m->metadata.resource_version = STR_NONE;
	memset(&m->status, 0, sizeof(m->status));
	str_map_set(a, &m->metadata.annotations, STR(MIRROR_KEY),
		str_map_get(&m->metadata.annotations, STR(HASH_KEY)));
	if (node) {
		struct meta_v1_owner_reference *owner = LIST_ADD(a, &m->metadata.owner_references);
		owner->api_version = STR("v1");
		owner->kind = STR("Node");
		owner->name = arena_strz(a, k->c.node_name);
		owner->uid = arena_str(a, node->meta->uid);
		owner->controller = (struct opt_bool)SOME(true);
		cached_unref(node);
	}
	int r = client_create(
		k->c.client, &core_v1_pod_type, m->metadata.namespace, m, a, NULL, &err);
	if (r && r != CLIENT_EXISTS) {
		log_warn("kubelet", "mirror pod of %s/%s: %s", w->ns, w->name, err.text);
		worker_ref(w);
		if (!wake_set(&k->wakes, &w->status_wake, now_ns(k) + 10 * NS_PER_S))
			worker_unref(w);
	}
	pod_object_unref(o);
	worker_unref(w);
}

void mirror_sync(struct pod_worker *w)
{
	struct kubelet *k = w->k;
	CLEAN_ARENA struct arena *a = arena_new(256);

	if (!w->is_static || !k->c.client || !k->api_synced)
		return;
	struct pod_object *m = mirror_get(k, arena_fmt(a, "%s_%s", w->name, w->ns));
	if (w->removed && m)
		remove_mirror(k, m->pod);
	else if (!w->removed && !m)
		pool_submit(k->talk, create_mirror, worker_ref(w));
	pod_object_unref(m);
}
