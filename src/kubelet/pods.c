/* The table of pods: what the API and the static folder want here, by uid, and which sandbox belongs to whom. kubelet.lock guards all of it. */
#include "gen/types.h"
#include "kubelet/internal.h"

void pods_set(struct kubelet *k, struct pod_object *o)
{
	struct str uid = o->pod->metadata.uid;

	pthread_mutex_lock(&k->lock);
	struct pod_worker *w = map_get(&k->workers, uid);
	struct pod_object *old = NULL;
	if (w) {
		old = w->desired;
		w->desired = o;
	} else {
		w = worker_new(k, o);
		map_set(&k->workers, uid, w);
		for (struct engine_sandbox *b = k->boot_sandboxes; b && b->id[0]; b++)
			if (str_eq(b->uid, uid))
				map_set(&k->by_sandbox, str_of(b->id), w);
	}
	worker_wake_locked(w);
	pthread_mutex_unlock(&k->lock);
	pod_object_unref(old);
}

void pods_remove(struct kubelet *k, struct str uid)
{
	pthread_mutex_lock(&k->lock);
	struct pod_worker *w = map_get(&k->workers, uid);
	if (w) {
		w->removed = true;
		worker_wake_locked(w);
	}
	pthread_mutex_unlock(&k->lock);
}

void pods_forget(struct pod_worker *w)
{
	struct kubelet *k = w->k;
	struct str key;
	void *value;
	size_t i = 0;
	struct pod_object *again = NULL;

	pthread_mutex_lock(&k->lock);
	struct pod_worker *gone = map_remove(&k->workers, str_of(w->uid));
	while (map_next(&k->by_sandbox, &i, &key, &value))
		if (value == w)
			map_remove(&k->by_sandbox, key);
	/* A file that came back while its pod was still going down. */
	for (i = 0; w->is_static && !again && map_next(&k->statics, &i, &key, &value);)
		if (str_eqz(((struct pod_object *)value)->pod->metadata.uid, w->uid))
			again = pod_object_ref(value);
	pthread_mutex_unlock(&k->lock);
	worker_unref(gone);
	if (again)
		pods_set(k, again);
	node_status_changed(k);
}

struct pod_worker *pods_find_uid(struct kubelet *k, struct str uid)
{
	pthread_mutex_lock(&k->lock);
	struct pod_worker *w = map_get(&k->workers, uid);
	if (w)
		worker_ref(w);
	pthread_mutex_unlock(&k->lock);
	return w;
}

struct pod_worker *pods_find_name(struct kubelet *k, struct str ns, struct str name)
{
	struct str key;
	void *value;
	size_t i = 0;
	struct pod_worker *found = NULL;

	pthread_mutex_lock(&k->lock);
	while (map_next(&k->workers, &i, &key, &value)) {
		struct pod_worker *w = value;
		if (str_eqz(ns, w->ns) && str_eqz(name, w->name) &&
			(!found || w->state < found->state))
			found = w;
	}
	if (found)
		worker_ref(found);
	pthread_mutex_unlock(&k->lock);
	return found;
}

void pods_list(struct kubelet *k, struct pod_worker ***ret, size_t *ret_n)
{
	struct str key;
	void *value;
	size_t i = 0, n = 0;

	pthread_mutex_lock(&k->lock);
	struct pod_worker **all = xcalloc(k->workers.len + 1, sizeof(*all));
	while (map_next(&k->workers, &i, &key, &value))
		all[n++] = worker_ref(value);
	pthread_mutex_unlock(&k->lock);
	*ret = all;
	*ret_n = n;
}

void pods_on_api(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct kubelet *k = arg;
	const struct cached *c = now ? now : old;
	const struct core_v1_pod *pod = c->obj;

	if (pod_is_mirror(pod)) {
		mirror_on_api(k, ev, c);
		return;
	}
	/* The same name under a new uid: the old one went while the watch was broken. */
	if (old && now && !str_eq(old->meta->uid, now->meta->uid))
		pods_remove(k, old->meta->uid);
	if (ev == INFORMER_DELETED)
		pods_remove(k, pod->metadata.uid);
	else
		pods_set(k, pod_object_from_cached(now));
}

/* The engine may be telling something just when it is asked to tell no more: a kubelet hears it only while it is on this list. */
static pthread_mutex_t ears_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list ears = LIST_INIT(ears);

void pods_listen(struct kubelet *k, bool on)
{
	if (!on)
		k->c.engine->v->set_event_handler(k->c.engine, NULL, NULL);
	pthread_mutex_lock(&ears_lock);
	if (on)
		list_insert(&ears, &k->ear);
	else if (k->ear.next)
		list_remove(&k->ear);
	pthread_mutex_unlock(&ears_lock);
	if (on)
		k->c.engine->v->set_event_handler(k->c.engine, pods_on_engine, k);
}

/* Sandboxes can be made now, or no more: the node says so, and pods that wait for it try again. */
static void network_changed(struct kubelet *k)
{
	struct str key;
	void *w;
	size_t i = 0;

	pthread_mutex_lock(&k->lock);
	while (map_next(&k->workers, &i, &key, &w))
		worker_wake_locked(w);
	pthread_mutex_unlock(&k->lock);
	node_status_now(k);
}

static void on_engine(struct kubelet *k, const char *sandbox_id, const char *container_id)
{
	if (!sandbox_id[0]) {
		network_changed(k);
		return;
	}
	pthread_mutex_lock(&k->lock);
	struct pod_worker *w = map_get(&k->by_sandbox, str_of(sandbox_id));
	if (w) {
		if (!container_id)
			w->sandbox_dirty = true;
		worker_wake_locked(w);
	}
	pthread_mutex_unlock(&k->lock);
	if (container_id)
		logs_container_ended(k, container_id);
}

void pods_on_engine(void *arg, const char *sandbox_id, const char *container_id)
{
	pthread_mutex_lock(&ears_lock);
	list_for_each(it, &ears)
		if (list_entry(it, struct kubelet, ear) == arg)
			on_engine(arg, sandbox_id, container_id);
	pthread_mutex_unlock(&ears_lock);
}

void pods_adopt_sandbox(struct pod_worker *w, const char *sandbox_id)
{
	pthread_mutex_lock(&w->k->lock);
	map_set(&w->k->by_sandbox, str_of(sandbox_id), w);
	pthread_mutex_unlock(&w->k->lock);
}

/* ---- start: what runs already ---- */

int pods_boot(struct kubelet *k, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_sandbox *list;
	size_t n;

	int r = k->c.engine->v->sandbox_list(k->c.engine, a, &list, &n, err);
	if (r)
		return r;
	k->boot_sandboxes = xcalloc(n + 1, sizeof(*list));
	for (size_t i = 0; i < n; i++) {
		struct engine_sandbox *b = &k->boot_sandboxes[i];
		*b = list[i];
		b->uid = str_of(str_dup(list[i].uid));
		b->name = str_of(str_dup(list[i].name));
		b->namespace_ = str_of(str_dup(list[i].namespace_));
		b->ip = str_of(str_dup(list[i].ip));
		b->second_ip = STR_NONE;
		b->netns_path = STR_NONE;
	}
	return 0;
}

static void reap(void *arg)
{
	struct kubelet *k = arg;
	struct err err;

	for (struct engine_sandbox *b = k->boot_sandboxes; b && b->id[0] && !k->stopping; b++) {
		pthread_mutex_lock(&k->lock);
		bool wanted = map_get(&k->workers, b->uid);
		pthread_mutex_unlock(&k->lock);
		if (wanted)
			continue;
		CLEAN_ARENA struct arena *a = arena_new(0);
		struct engine_container *list;
		size_t n;
		log_info("kubelet",
			"pod " STR_FMT "/" STR_FMT " (" STR_FMT ") is wanted no more: stopping it",
			STR_ARG(b->namespace_), STR_ARG(b->name), STR_ARG(b->uid));
		if (!k->c.engine->v->container_list(k->c.engine, b->id, a, &list, &n, &err))
			for (size_t i = 0; i < n; i++) {
				int64_t grace = 30;
				str_to_i64(container_annotation(&list[i], "grace", a), &grace);
				if (list[i].state == CONTAINER_RUNNING &&
					k->c.engine->v->container_stop(k->c.engine, list[i].id, 0,
						grace_bounded(grace) * 1000, &err))
					log_warn("kubelet", "container %s: %s", list[i].id,
						err.text);
			}
		if (k->c.engine->v->sandbox_stop(k->c.engine, b->id, &err) < 0 ||
			k->c.engine->v->sandbox_remove(k->c.engine, b->id, &err) < 0)
			log_warn("kubelet", "sandbox %s: %s", b->id, err.text);
		CLEAN_FREE char *uid = str_dup(b->uid),
				*logs = xasprintf("%s/" STR_FMT "_" STR_FMT "_" STR_FMT,
					k->c.pod_log_dir, STR_ARG(b->namespace_), STR_ARG(b->name),
					STR_ARG(b->uid));
		if (volumes_teardown(k, uid, &err) < 0 || dir_remove_tree(logs, &err) < 0)
			log_warn("kubelet", "pod %s: %s", uid, err.text);
	}
}

void pods_reap_orphans(struct kubelet *k)
{
	pool_submit(k->slow, reap, k);
}
