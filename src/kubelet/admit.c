/* What the scheduler promised is checked again where it counts: pods, resources, node selector and affinity, host ports, taints that forbid running.
 * Reasons and messages are upstream's (lifecycle admission of the kubelet). A static pod is let in whatever it asks. */
#include "gen/types.h"
#include "kubelet/internal.h"

static bool in_list(const struct str_list *l, struct str v)
{
	return str_list_has(l, v);
}

static bool number_cmp(struct str a, const struct str_list *l, bool greater)
{
	int64_t x, y;

	if (l->len != 1 || str_to_i64(a, &x) || str_to_i64(l->items[0], &y))
		return false;
	return greater ? x > y : x < y;
}

static bool requirement(const struct core_v1_node_selector_requirement *r, struct str value)
{
	bool there = value.p != NULL;

	if (str_eqz(r->operator, "In"))
		return there && in_list(&r->values, value);
	if (str_eqz(r->operator, "NotIn"))
		return !there || !in_list(&r->values, value);
	if (str_eqz(r->operator, "Exists"))
		return there;
	if (str_eqz(r->operator, "DoesNotExist"))
		return !there;
	return there && number_cmp(value, &r->values, str_eqz(r->operator, "Gt"));
}

static bool term_matches(const struct core_v1_node_selector_term *t, const struct core_v1_node *n)
{
	if (!t->match_expressions.len && !t->match_fields.len)
		return false;
	LIST_EACH(r, &t->match_expressions)
		if (!requirement(r, str_map_get(&n->metadata.labels, r->key)))
			return false;
	LIST_EACH(r, &t->match_fields)
		if (!str_eqz(r->key, "metadata.name") || !requirement(r, n->metadata.name))
			return false;
	return true;
}

static bool affinity_matches(const struct core_v1_pod *pod, const struct core_v1_node *n)
{
	LIST_EACH(p, &pod->spec.node_selector)
		if (!str_eq(str_map_get(&n->metadata.labels, p->key), p->value) ||
			!str_map_has(&n->metadata.labels, p->key))
			return false;
	if (!pod->spec.affinity || !pod->spec.affinity->node_affinity)
		return true;
	const struct core_v1_node_selector *sel =
		pod->spec.affinity->node_affinity
			->required_during_scheduling_ignored_during_execution;
	if (!sel)
		return true;
	LIST_EACH(t, &sel->node_selector_terms)
		if (term_matches(t, n))
			return true;
	return false;
}

static bool same_port(
	const struct core_v1_container_port *a, const struct core_v1_container_port *b)
{
	bool any_a = !a->host_ip.len || str_eqz(a->host_ip, "0.0.0.0"),
	     any_b = !b->host_ip.len || str_eqz(b->host_ip, "0.0.0.0");

	return a->host_port && a->host_port == b->host_port &&
		str_eq(a->protocol.len ? a->protocol : STR("TCP"),
			b->protocol.len ? b->protocol : STR("TCP")) &&
		(any_a || any_b || str_eq(a->host_ip, b->host_ip));
}

static bool ports_clash(const struct core_v1_pod *a, const struct core_v1_pod *b)
{
	LIST_EACH(ca, &a->spec.containers)
		LIST_EACH(pa, &ca->ports)
			LIST_EACH(cb, &b->spec.containers)
				LIST_EACH(pb, &cb->ports)
					if (same_port(pa, pb))
						return true;
	return false;
}

static bool refuse(char **reason, char **message, const char *why, char *text)
{
	*reason = xstrdup(why);
	*message = text;
	return false;
}

static bool wants_apparmor(const struct core_v1_app_armor_profile *p)
{
	return p && !str_eqz(p->type, "Unconfined");
}

/* What no node of this kind can give. */
static bool machine_fits(const struct core_v1_pod *pod, char **reason, char **message)
{
	bool apparmor = pod->spec.security_context &&
		wants_apparmor(pod->spec.security_context->app_armor_profile);

	if (pod->spec.os && pod->spec.os->name.len && !str_eqz(pod->spec.os->name, "linux"))
		return refuse(reason, message, "PodOSNotSupported",
			xstrdup("Failed to admit pod as the OS field doesn't match node OS"));
	LIST_EACH(c, &pod->spec.containers)
		apparmor |= c->security_context &&
			wants_apparmor(c->security_context->app_armor_profile);
	LIST_EACH(c, &pod->spec.init_containers)
		apparmor |= c->security_context &&
			wants_apparmor(c->security_context->app_armor_profile);
	if (apparmor)
		return refuse(reason, message, "AppArmor",
			xstrdup("Cannot enforce AppArmor: AppArmor is not enabled on the host"));
	return true;
}

/* Is there room beside the pods that run? `others` and their number are given. */
static bool resources_fit(
	struct sync *s, struct pod_object **others, size_t n, char **reason, char **message)
{
	static const char *const names[] = { "cpu", "memory", "ephemeral-storage" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct quantity want, used = { 0 }, have, q;
		pod_requests(s->pod, names[i], &want);
		if (want.nano <= 0 || !node_allocatable(s->k, names[i], &have))
			continue;
		for (size_t j = 0; j < n; j++) {
			pod_requests(others[j]->pod, names[i], &q);
			used = quantity_add(used, q);
		}
		if (quantity_cmp(quantity_add(want, used), have) <= 0)
			continue;
		bool milli = !strcmp(names[i], "cpu");
		long long w = milli ? quantity_milli_value(want) : quantity_value(want),
			  u = milli ? quantity_milli_value(used) : quantity_value(used),
			  h = milli ? quantity_milli_value(have) : quantity_value(have);
		CLEAN_FREE char *why = xasprintf("OutOf%s", names[i]);
		return refuse(reason, message, why,
			xasprintf(
				"Node didn't have enough resource: %s, requested: %lld, used: %lld, capacity: "
				"%lld",
				names[i], w, u, h));
	}
	return true;
}

static struct pod_object **living_pods(struct sync *s, size_t *ret_n)
{
	struct str key;
	void *value;
	size_t i = 0, n = 0;

	pthread_mutex_lock(&s->k->lock);
	struct pod_object **list = xcalloc(s->k->workers.len + 1, sizeof(*list));
	while (map_next(&s->k->workers, &i, &key, &value)) {
		struct pod_worker *w = value;
		if (w != s->w && w->admitted && w->state < POD_TERMINATED)
			list[n++] = pod_object_ref(w->desired);
	}
	s->w->admitted = true; /* counted from now on: two pods cannot take the same place */
	pthread_mutex_unlock(&s->k->lock);
	*ret_n = n;
	return list;
}

static bool check(
	struct sync *s, struct pod_object **others, size_t n, char **reason, char **message)
{
	struct cached *node;
	bool ok = true;

	if (n >= (size_t)s->k->c.max_pods)
		return refuse(reason, message, "OutOfpods",
			xasprintf(
				"Node didn't have enough resource: pods, requested: 1, used: %zu, "
				"capacity: %d",
				n, s->k->c.max_pods));
	if (!machine_fits(s->pod, reason, message) || !resources_fit(s, others, n, reason, message))
		return false;
	for (size_t i = 0; i < n; i++)
		if (ports_clash(s->pod, others[i]->pod))
			return refuse(reason, message, "NodePorts",
				xstrdup("Predicate NodePorts failed: node(s) didn't have free ports for "
					"the requested pod ports"));
	if (s->w->is_static || !(node = node_cached(s->k)))
		return true;
	if (!affinity_matches(s->pod, node->obj))
		ok = refuse(reason, message, "NodeAffinity",
			xstrdup("Predicate NodeAffinity failed: node(s) didn't match Pod's node "
				"affinity/selector"));
	cached_unref(node);
	return ok;
}

bool admit_pod(struct sync *s, char **ret_reason, char **ret_message)
{
	size_t n;
	char *reason = NULL, *message = NULL;

	/* What ran before this kubelet started goes on. */
	if (s->w->n_sandboxes) {
		s->w->admitted = true;
		return true;
	}
	struct pod_object **others = living_pods(s, &n);
	bool ok = check(s, others, n, &reason, &message);
	for (size_t i = 0; i < n; i++)
		pod_object_unref(others[i]);
	free(others);
	if (ok || s->w->is_static) {
		free(reason);
		free(message);
		return true;
	}
	s->w->admitted = false;
	worker_event(s->w, s->pod, "Warning", reason, "%s", message);
	*ret_reason = reason;
	*ret_message = message;
	return false;
}
