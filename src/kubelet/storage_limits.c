/* Limits of ephemeral-storage: a container whose writable layer and logs outgrow its own, or a pod that outgrows the sum of its containers', is evicted. Looked at
 * with emptyDirs that have a sizeLimit (keeper.c), and only where there is such a limit. Source: the concept page on local ephemeral storage. */
#include "gen/types.h"
#include "kubelet/internal.h"

#define RESOURCE "ephemeral-storage"

/* The pod's total; false when no container has a limit. Those without one add nothing, as upstream has it. */
static bool limit_of_pod(const struct core_v1_pod *pod, struct quantity *ret)
{
	struct quantity sum = { 0 }, most = { 0 }, q;
	bool found = false;

	LIST_EACH(c, &pod->spec.containers) {
		if (!resource_quantity(&c->resources.limits, RESOURCE, &q))
			continue;
		sum = quantity_add(sum, q);
		found = true;
	}
	LIST_EACH(c, &pod->spec.init_containers) {
		if (!resource_quantity(&c->resources.limits, RESOURCE, &q))
			continue;
		if (str_eqz(c->restart_policy, "Always"))
			sum = quantity_add(sum, q);
		else if (quantity_cmp(q, most) > 0)
			most = q;
		found = true;
	}
	*ret = quantity_cmp(most, sum) > 0 ? most : sum;
	return found;
}

/* Writable layers of the containers of this name, and their logs. */
static uint64_t used_by(const struct pod_worker *w, const struct core_v1_pod *pod, struct str name,
	const struct engine_container *list, size_t n, struct arena *a)
{
	struct engine *e = w->k->c.engine;
	struct str logs = arena_fmt(
		a, STR_FMT "/" STR_FMT, STR_ARG(pod_log_folder(w->k, pod, a)), STR_ARG(name));
	uint64_t sum = dir_usage(logs.p), bytes;
	struct err err;

	for (size_t i = 0; i < n; i++)
		if (str_eq(list[i].name, name) &&
			!e->v->container_disk(e, list[i].id, &bytes, &err))
			sum += bytes;
	return sum;
}

static void evict(struct pod_worker *w, struct str text)
{
	log_warn("kubelet", "evicting pod %s/%s: %s", w->ns, w->name, text.p);
	worker_evict(w, "Evicted", text.p, 0);
}

void storage_limits_check(struct pod_worker *w, const struct core_v1_pod *pod)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine_container *list;
	struct quantity total, limit;
	char text[QUANTITY_TEXT_MAX];
	struct err err;
	size_t n;

	if (!limit_of_pod(pod, &total))
		return;
	pthread_mutex_lock(&w->lock);
	const struct pod_sandbox *b = worker_sandbox(w);
	struct str id = arena_strz(a, b ? b->id : "");
	pthread_mutex_unlock(&w->lock);
	if (!id.len || w->k->c.engine->v->container_list(w->k->c.engine, id.p, a, &list, &n, &err))
		return;
	uint64_t all = dir_usage(pod_dir(w->k, w->uid, a).p);

	LIST_EACH(c, &pod->spec.init_containers)
		all += used_by(w, pod, c->name, list, n, a);
	struct str over = STR_NONE;

	LIST_EACH(c, &pod->spec.containers) {
		uint64_t used = used_by(w, pod, c->name, list, n, a);

		all += used;
		if (!over.len && resource_quantity(&c->resources.limits, RESOURCE, &limit) &&
			(int64_t)used > quantity_value(limit))
			over = arena_fmt(a,
				"Container " STR_FMT
				" exceeded its local ephemeral storage limit \"" STR_FMT "\". ",
				STR_ARG(c->name),
				STR_ARG(str_n(text, quantity_format(limit, text))));
	}
	if ((int64_t)all > quantity_value(total))
		over = arena_fmt(a,
			"Pod ephemeral local storage usage exceeds the total limit of containers " STR_FMT
			". ",
			STR_ARG(str_n(text, quantity_format(total, text))));
	if (over.len)
		evict(w, over);
}
