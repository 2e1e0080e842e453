/* Nodes as arrays of numbers. An index stays a node's for as long as the node, or a pod on it, is there; then the next newcomer gets it. (Pods may
 * name any node; what they name must not stay.) */
#include "scheduler/internal.h"

#define SCORED_CPU_MILLI 100
#define SCORED_MEMORY (200LL * 1024 * 1024)

static const char *const fixed_resources[RES_FIXED] = { "cpu", "memory", "ephemeral-storage" };

void nodes_init(struct nodes *t)
{
	*t = (struct nodes){ 0 };
	for (size_t i = 0; i < RES_FIXED; i++)
		t->resource_name[i] = xstrdup(fixed_resources[i]);
	t->n_resources = RES_FIXED;
}

static void grow(struct nodes *t)
{
	size_t cap = t->cap ? t->cap * 2 : 16;

#define GROW(array) t->array = xrealloc(t->array, cap * sizeof(*t->array))
	GROW(name);
	GROW(object);
	GROW(scored_cpu);
	GROW(scored_memory);
	GROW(pods);
	GROW(max_pods);
	GROW(unschedulable);
	GROW(tainted);
	GROW(ports);
	GROW(placed);
	GROW(lowest);
	for (size_t r = 0; r < t->n_resources; r++) {
		GROW(allocatable[r]);
		GROW(used[r]);
	}
#undef GROW
	matchers_grow(t, t->cap, cap);
	t->cap = cap;
}

void nodes_deinit(struct nodes *t)
{
	for (size_t i = 0; i < t->n; i++) {
		free(t->name[i]);
		free(t->ports[i].items);
		free(t->placed[i].items);
		cached_unref(t->object[i]);
	}
	for (size_t r = 0; r < t->n_resources; r++) {
		free(t->resource_name[r]);
		free(t->allocatable[r]);
		free(t->used[r]);
	}
	free(t->name);
	free(t->object);
	free(t->scored_cpu);
	free(t->scored_memory);
	free(t->pods);
	free(t->max_pods);
	free(t->unschedulable);
	free(t->tainted);
	free(t->ports);
	free(t->placed);
	free(t->lowest);
	matchers_deinit(t);
	free(t->vacant);
	map_deinit(&t->by_name, NULL);
}

size_t nodes_find(const struct nodes *t, struct str name)
{
	void *v = map_get(&t->by_name, name);

	return v ? (size_t)v - 1 : NO_NODE;
}

size_t nodes_find_or_add(struct nodes *t, struct str name)
{
	size_t i = nodes_find(t, name);

	if (i != NO_NODE)
		return i;
	if (t->n_vacant) {
		i = t->vacant[--t->n_vacant];
	} else {
		if (t->n == t->cap)
			grow(t);
		i = t->n++;
	}
	t->name[i] = str_dup(name);
	t->object[i] = NULL;
	t->scored_cpu[i] = t->scored_memory[i] = 0;
	t->pods[i] = t->max_pods[i] = 0;
	t->unschedulable[i] = t->tainted[i] = 0;
	t->ports[i].items = NULL;
	t->ports[i].len = 0;
	memset(&t->placed[i], 0, sizeof(t->placed[i]));
	t->lowest[i] = INT32_MAX;
	for (size_t r = 0; r < t->n_resources; r++)
		t->allocatable[r][i] = t->used[r][i] = 0;
	map_set(&t->by_name, name, (void *)(i + 1));
	matchers_node(t, i);
	return i;
}

/* Neither a Node nor a pod is there any more. */
static void vacate(struct nodes *t, size_t i)
{
	map_remove(&t->by_name, str_of(t->name[i]));
	free(TAKE(t->name[i]));
	free(TAKE(t->ports[i].items));
	free(TAKE(t->placed[i].items));
	t->vacant = xrealloc(t->vacant, (t->n_vacant + 1) * sizeof(*t->vacant));
	t->vacant[t->n_vacant++] = i;
}

/* Pods that were placed before the column was there are counted now. */
static void count_placed(struct nodes *t, size_t r)
{
	struct str name = str_of(t->resource_name[r]);

	for (size_t i = 0; i < t->n; i++)
		for (size_t k = 0; k < t->placed[i].len; k++) {
			struct sched_pod *p = t->placed[i].items[k];
			const struct core_v1_pod *pod = p->object->obj;

			p->requests.amount[r] = pod_request(&pod->spec, name, 0);
			t->used[r][i] += p->requests.amount[r];
		}
}

static bool some_node_has(const struct nodes *t, struct str resource)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->object[i] &&
			str_map_has(&((const struct core_v1_node *)t->object[i]->obj)
					     ->status.allocatable,
				resource))
			return true;
	return false;
}

int nodes_resource(struct nodes *t, struct str name)
{
	for (size_t r = 0; r < t->n_resources; r++)
		if (str_eqz(name, t->resource_name[r]))
			return (int)r;
	if (t->n_resources == RES_MAX || !some_node_has(t, name))
		return -1;
	size_t r = t->n_resources++;

	t->resource_name[r] = str_dup(name);
	t->allocatable[r] = xcalloc(MAX(t->cap, (size_t)1), sizeof(int64_t));
	t->used[r] = xcalloc(MAX(t->cap, (size_t)1), sizeof(int64_t));
	for (size_t i = 0; i < t->n; i++)
		if (t->object[i]) {
			const struct core_v1_node *node = t->object[i]->obj;
			struct str q = str_map_get(&node->status.allocatable, name);

			t->allocatable[r][i] = q.p ? resource_amount(name, q) : 0;
		}
	count_placed(t, r);
	return (int)r;
}

void nodes_set(struct nodes *t, size_t i, struct cached *object)
{
	const struct core_v1_node *node = object ? object->obj : NULL;

	cached_unref(t->object[i]);
	t->object[i] = object;
	t->unschedulable[i] = node && node->spec.unschedulable;
	t->tainted[i] = node && node->spec.taints.len > 0;
	t->max_pods[i] = 0;
	for (size_t r = 0; r < t->n_resources; r++) {
		struct str name = str_of(t->resource_name[r]);
		struct str q = node ? str_map_get(&node->status.allocatable, name) : STR_NONE;

		t->allocatable[r][i] = q.p ? resource_amount(name, q) : 0;
	}
	if (node) {
		struct str q = str_map_get(&node->status.allocatable, STR("pods"));

		t->max_pods[i] =
			q.p ? (int32_t)MIN(resource_amount(STR("pods"), q), (int64_t)INT32_MAX) : 0;
	}
	matchers_node(t, i);
	if (!node && !t->placed[i].len)
		vacate(t, i);
}

struct request_fill {
	struct nodes *nodes;
	const struct core_v1_pod_spec *spec;
	struct requests *to;
};

static void fill_one(void *arg, struct str resource)
{
	struct request_fill *f = arg;
	int r = nodes_resource(f->nodes, resource);

	if (r >= 0)
		f->to->amount[r] = pod_request(f->spec, resource, 0);
	else
		f->to->lacks |= pod_request(f->spec, resource, 0) > 0;
}

void nodes_requests(struct nodes *t, const struct core_v1_pod *pod, struct requests *ret)
{
	struct request_fill f = { t, &pod->spec, ret };

	*ret = (struct requests){ 0 };
	pod_each_resource(&pod->spec, fill_one, &f);
	ret->scored_cpu = pod_request(&pod->spec, STR("cpu"), SCORED_CPU_MILLI);
	ret->scored_memory = pod_request(&pod->spec, STR("memory"), SCORED_MEMORY);
}

static void ports_add(struct nodes *t, size_t node, const struct core_v1_container_port *p)
{
	struct host_port *hp;

	t->ports[node].items =
		xrealloc(t->ports[node].items, (t->ports[node].len + 1) * sizeof(*hp));
	hp = &t->ports[node].items[t->ports[node].len++];
	*hp = (struct host_port){ .port = p->host_port };
	memcpy(hp->protocol, p->protocol.len ? p->protocol.p : "TCP",
		MIN(p->protocol.len ? p->protocol.len : 3, sizeof(hp->protocol) - 1));
	memcpy(hp->ip, p->host_ip.p ? p->host_ip.p : "", MIN(p->host_ip.len, sizeof(hp->ip) - 1));
}

static void ports_remove(struct nodes *t, size_t node, const struct core_v1_container_port *p)
{
	for (size_t i = 0; i < t->ports[node].len; i++) {
		struct host_port *hp = &t->ports[node].items[i];

		if (hp->port == p->host_port &&
			str_eqz(p->protocol.len ? p->protocol : STR("TCP"), hp->protocol) &&
			str_eqz(p->host_ip, hp->ip)) {
			*hp = t->ports[node].items[--t->ports[node].len];
			return;
		}
	}
}

/* all: not only those that run beside the others. */
static void place_ports(struct nodes *t, const struct core_v1_container_items *containers, bool all,
	size_t node, int sign)
{
	LIST_EACH(c, containers) {
		if (!all && !str_eqz(c->restart_policy, "Always"))
			continue;
		LIST_EACH(port, &c->ports) {
			if (port->host_port > 0)
				(sign > 0 ? ports_add : ports_remove)(t, node, port);
		}
	}
}

static void list_placed(struct nodes *t, struct sched_pod *p, size_t node, int sign)
{
	if (sign < 0) {
		struct sched_pod *last = t->placed[node].items[--t->placed[node].len];

		t->placed[node].items[p->slot] = last;
		last->slot = p->slot;
		return;
	}
	if (t->placed[node].len == t->placed[node].cap) {
		t->placed[node].cap = MAX(t->placed[node].cap * 2, (size_t)4);
		t->placed[node].items =
			xrealloc(t->placed[node].items, t->placed[node].cap * sizeof(p));
	}
	p->slot = t->placed[node].len;
	t->placed[node].items[t->placed[node].len++] = p;
	t->lowest[node] = MIN(t->lowest[node], p->priority);
}

void nodes_place(struct nodes *t, struct sched_pod *p, size_t node, int sign)
{
	const struct core_v1_pod *pod = p->object->obj;

	list_placed(t, p, node, sign);
	matchers_place(t, p, node, sign);
	t->pods[node] += sign;
	t->scored_cpu[node] += sign * p->requests.scored_cpu;
	t->scored_memory[node] += sign * p->requests.scored_memory;
	for (size_t r = 0; r < t->n_resources; r++)
		t->used[r][node] += sign * p->requests.amount[r];
	place_ports(t, &pod->spec.containers, true, node, sign);
	place_ports(t, &pod->spec.init_containers, false, node, sign);
	if (sign < 0 && !t->placed[node].len && !t->object[node])
		vacate(t, node);
}
