/* From requests and limits to QoS class, cgroup and engine figures. Sources: the API page of ResourceRequirements; KEP-2570 is not followed (no
 * memory.min). Shares of 1024 a core, a quota over 100 ms, never less than 2 shares and 1 ms. */
#include "gen/types.h"
#include "kubelet/internal.h"

#define MIN_SHARES 2
#define MAX_SHARES 262144
#define PERIOD_US 100000

bool resource_quantity(const struct str_map *m, const char *name, struct quantity *ret)
{
	struct str v = str_map_get(m, str_of(name));

	return v.p && quantity_parse(v, ret) == 0;
}

static bool positive(const struct str_map *m, const char *name)
{
	struct quantity q;

	return resource_quantity(m, name, &q) && q.nano > 0;
}

static bool same(const struct core_v1_resource_requirements *r, const char *name)
{
	struct quantity request, limit;

	if (!resource_quantity(&r->limits, name, &limit) || limit.nano <= 0)
		return false;
	return !resource_quantity(&r->requests, name, &request) || !quantity_cmp(request, limit);
}

static void qos_look(const struct core_v1_resource_requirements *r, bool *any, bool *all_same)
{
	static const char *const names[] = { "cpu", "memory" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (positive(&r->requests, names[i]) || positive(&r->limits, names[i]))
			*any = true;
		if (!same(r, names[i]))
			*all_same = false;
	}
}

enum qos_class kubelet_pod_qos(const struct core_v1_pod *pod)
{
	bool any = false, all_same = true;

	if (pod->spec.resources) {
		qos_look(pod->spec.resources, &any, &all_same);
	} else {
		LIST_EACH(c, &pod->spec.init_containers)
			qos_look(&c->resources, &any, &all_same);
		LIST_EACH(c, &pod->spec.containers)
			qos_look(&c->resources, &any, &all_same);
	}
	return !any ? QOS_BEST_EFFORT : all_same ? QOS_GUARANTEED : QOS_BURSTABLE;
}

const char *qos_text(enum qos_class q)
{
	static const char *const text[] = { "Guaranteed", "Burstable", "BestEffort" };

	return text[q];
}

struct str pod_cgroup(const struct core_v1_pod *pod, struct arena *a)
{
	static const char *const folder[] = { "", "burstable/", "besteffort/" };

	return arena_fmt(a, "kubepods/%spod" STR_FMT, folder[kubelet_pod_qos(pod)],
		STR_ARG(pod->metadata.uid));
}

static int64_t shares_of(int64_t milli)
{
	int64_t shares = milli * 1024 / 1000;

	return MAX(MIN_SHARES, MIN(MAX_SHARES, shares));
}

static int64_t quota_of(int64_t milli)
{
	return milli <= 0 ? 0 : MAX(1000, milli * PERIOD_US / 1000);
}

/* What one container asks for: its request, else its limit. */
static struct quantity request_of(const struct core_v1_resource_requirements *r, const char *name)
{
	struct quantity q = { 0 };

	if (!resource_quantity(&r->requests, name, &q))
		resource_quantity(&r->limits, name, &q);
	return q;
}

void pod_requests(const struct core_v1_pod *pod, const char *resource, struct quantity *ret)
{
	struct quantity sum = { 0 }, sidecars = { 0 }, most = { 0 }, overhead;

	LIST_EACH(c, &pod->spec.containers)
		sum = quantity_add(sum, request_of(&c->resources, resource));
	LIST_EACH(c, &pod->spec.init_containers) {
		struct quantity q = request_of(&c->resources, resource);
		if (str_eqz(c->restart_policy, "Always")) {
			sidecars = quantity_add(sidecars, q);
			q = sidecars;
		} else {
			q = quantity_add(q, sidecars);
		}
		if (quantity_cmp(q, most) > 0)
			most = q;
	}
	sum = quantity_add(sum, sidecars);
	if (quantity_cmp(most, sum) > 0)
		sum = most;
	if (pod->spec.resources) {
		struct quantity own = request_of(pod->spec.resources, resource);
		if (own.nano)
			sum = own;
	}
	if (resource_quantity(&pod->spec.overhead, resource, &overhead))
		sum = quantity_add(sum, overhead);
	*ret = sum;
}

/* The sum of limits; false when a container has none: then the pod has none. */
static bool pod_limit(const struct core_v1_pod *pod, const char *resource, struct quantity *ret)
{
	struct quantity sum = { 0 }, q;

	if (pod->spec.resources && resource_quantity(&pod->spec.resources->limits, resource, ret))
		return true;
	LIST_EACH(c, &pod->spec.containers) {
		if (!resource_quantity(&c->resources.limits, resource, &q) || !q.nano)
			return false;
		sum = quantity_add(sum, q);
	}
	LIST_EACH(c, &pod->spec.init_containers) {
		if (!resource_quantity(&c->resources.limits, resource, &q) || !q.nano)
			return false;
		if (str_eqz(c->restart_policy, "Always"))
			sum = quantity_add(sum, q);
		else if (quantity_cmp(q, sum) > 0)
			sum = q;
	}
	*ret = sum;
	return sum.nano > 0;
}

void pod_resources(const struct core_v1_pod *pod, struct engine_resources *ret)
{
	struct quantity cpu, q;

	*ret = (struct engine_resources){ 0 };
	pod_requests(pod, "cpu", &cpu);
	ret->cpu_shares = shares_of(quantity_milli_value(cpu));
	if (pod_limit(pod, "cpu", &q)) {
		ret->cpu_quota_us = quota_of(quantity_milli_value(q));
		ret->cpu_period_us = PERIOD_US;
	}
	if (pod_limit(pod, "memory", &q))
		ret->memory_limit = quantity_value(q);
}

static int64_t oom_score(
	const struct kubelet *k, const struct core_v1_pod *pod, const struct core_v1_container *c)
{
	struct quantity q;
	enum qos_class qos = kubelet_pod_qos(pod);

	if (pod->spec.priority.set && pod->spec.priority.value >= PRIORITY_CRITICAL)
		return -997;
	if (qos == QOS_GUARANTEED)
		return -997;
	if (qos == QOS_BEST_EFFORT || !k->memory_bytes)
		return 1000;
	q = request_of(&c->resources, "memory");
	int64_t score =
		1000 - (int64_t)((__int128)1000 * quantity_value(q) / (__int128)k->memory_bytes);
	return MAX(3, MIN(999, score));
}

void container_resources(const struct kubelet *k, const struct core_v1_pod *pod,
	const struct core_v1_container *c, struct engine_resources *ret)
{
	struct quantity q = request_of(&c->resources, "cpu");

	*ret = (struct engine_resources){ .cpu_shares = shares_of(quantity_milli_value(q)),
		.oom_score_adj = oom_score(k, pod, c) };
	if (resource_quantity(&c->resources.limits, "cpu", &q) && q.nano) {
		ret->cpu_quota_us = quota_of(quantity_milli_value(q));
		ret->cpu_period_us = PERIOD_US;
	}
	if (resource_quantity(&c->resources.limits, "memory", &q))
		ret->memory_limit = quantity_value(q);
}
