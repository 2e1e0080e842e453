/* From names in a path of the node API to the engine's container. Refusals are in upstream's words, with the status code as the result. */
#include "gen/types.h"
#include "kubelet/internal.h"

/* All runs of one container, newest first by attempt. */
static int runs_of(struct kubelet *k, struct pod_worker *w, struct str name, struct arena *a,
	struct engine_container **ret, size_t *ret_n, struct err *err)
{
	struct engine_container *all = NULL;
	size_t n = 0;

	pthread_mutex_lock(&w->lock);
	size_t n_ids = w->n_sandboxes;
	char(*ids)[ENGINE_ID] = arena_alloc(a, (n_ids + 1) * ENGINE_ID);
	for (size_t i = 0; i < n_ids; i++)
		memcpy(ids[i], w->sandboxes[i].id, ENGINE_ID);
	pthread_mutex_unlock(&w->lock);
	for (size_t i = 0; i < n_ids; i++) {
		struct engine_container *list;
		size_t m;
		int r = k->c.engine->v->container_list(k->c.engine, ids[i], a, &list, &m, err);
		if (r == ENGINE_NOT_FOUND)
			continue;
		if (r)
			return 500;
		for (size_t j = 0; j < m; j++) {
			if (!str_eq(list[j].name, name))
				continue;
			all = arena_grow(a, all, n * sizeof(*all), (n + 1) * sizeof(*all));
			size_t at = n++;
			for (; at > 0 && all[at - 1].attempt < list[j].attempt; at--)
				all[at] = all[at - 1];
			all[at] = list[j];
		}
	}
	*ret = all;
	*ret_n = n;
	return 0;
}

/* As the message to somebody who asks for logs says it. */
static const char *waiting_words(const char *reason)
{
	if (!strcmp(reason, "ErrImagePull"))
		return "image can't be pulled";
	return strcmp(reason, "ImagePullBackOff") ? reason : "trying and failing to pull image";
}

int server_find_container(struct kubelet *k, struct str ns, struct str pod, struct str container,
	bool previous, struct arena *a, struct engine_container *ret, struct str *ret_log,
	struct err *err)
{
	CLEANUP(worker_unrefp) struct pod_worker *w = pods_find_name(k, ns, pod);
	struct engine_container *runs;
	size_t n;

	if (!w)
		return err_set(err, 404,
			"pod \"" STR_FMT "\" not found in namespace \"" STR_FMT "\"", STR_ARG(pod),
			STR_ARG(ns));
	pthread_mutex_lock(&k->lock);
	struct pod_object *o = pod_object_ref(w->desired);
	pthread_mutex_unlock(&k->lock);
	struct container_specs specs = pod_containers(o->pod, a);
	bool known = container_specs_find(&specs, container);
	const char *not_yet =
		o->pod->spec.init_containers.len ? "PodInitializing" : "ContainerCreating";
	pod_object_unref(o);
	if (!known)
		return err_set(err, 404,
			"container \"" STR_FMT "\" not found in pod \"" STR_FMT "\"",
			STR_ARG(container), STR_ARG(pod));
	int r = runs_of(k, w, container, a, &runs, &n, err);
	if (r)
		return r;
	if (!n || (n == 1 && runs[0].state == CONTAINER_CREATED)) {
		pthread_mutex_lock(&w->lock);
		const struct slot *slot = NULL;
		for (size_t i = 0; i < w->n_slots; i++)
			if (str_eqz(container, w->slots[i]->name))
				slot = w->slots[i];
		const char *reason = waiting_words(
			slot && slot->waiting_reason ? slot->waiting_reason : not_yet);
		r = previous ? err_set(err, 400,
				       "previous terminated container \"" STR_FMT
				       "\" in pod \"" STR_FMT "\" not found",
				       STR_ARG(container), STR_ARG(pod))
			     : err_set(err, 400,
				       "container \"" STR_FMT "\" in pod \"" STR_FMT
				       "\" is waiting to start: %s",
				       STR_ARG(container), STR_ARG(pod), reason);
		pthread_mutex_unlock(&w->lock);
		return r;
	}
	/* In back-off the run that ended last is what "previous" means. */
	size_t at = previous && runs[0].state != CONTAINER_EXITED ? 1 : 0;
	if (previous && runs[0].state == CONTAINER_EXITED && n > 1)
		at = 1;
	if (at >= n || (previous && runs[at].state != CONTAINER_EXITED))
		return err_set(err, 400,
			"previous terminated container \"" STR_FMT "\" in pod \"" STR_FMT
			"\" not found",
			STR_ARG(container), STR_ARG(pod));
	*ret = runs[at];
	*ret_log = arena_fmt(a, "%s/%s_%s_%s/" STR_FMT "/%u.log", k->c.pod_log_dir, w->ns, w->name,
		w->uid, STR_ARG(container), ret->attempt);
	return 0;
}
