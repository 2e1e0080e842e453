/* What the scheduler promised is checked again where it counts: pods, resources, node selector and affinity, host ports, taints that forbid running;
 * and what only the node can say: is it under pressure, and does a sysctl stay inside the pod. Reasons and messages are upstream's (lifecycle
 * admission of the kubelet). A static pod is let in whatever it asks. */
#include "gen/types.h"
#include "kubelet/internal.h"
#include "model/placement.h"

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

/* ---- sysctls: those that a pod has for itself and that do no harm to others. Source: the task page on sysctls in a cluster ---- */

static const struct {
	const char *name;
	bool ipc; /* else of the network namespace */
} safe_sysctls[] = {
	{ "kernel.shm_rmid_forced", true },
	{ "net.ipv4.ip_local_port_range", false },
	{ "net.ipv4.tcp_syncookies", false },
	{ "net.ipv4.ping_group_range", false },
	{ "net.ipv4.ip_unprivileged_port_start", false },
	{ "net.ipv4.ip_local_reserved_ports", false },
	{ "net.ipv4.tcp_keepalive_time", false },
	{ "net.ipv4.tcp_fin_timeout", false },
	{ "net.ipv4.tcp_keepalive_intvl", false },
	{ "net.ipv4.tcp_keepalive_probes", false },
	{ "net.ipv4.tcp_rmem", false },
	{ "net.ipv4.tcp_wmem", false },
};

/* a/b.c is a.b/c */
static struct str sysctl_name(struct str name, struct arena *a)
{
	struct str r = arena_str(a, name);
	char *p = (char *)r.p;
	bool slashes = p[strcspn(p, "./")] == '/';

	for (size_t i = 0; slashes && i < r.len; i++)
		p[i] = p[i] == '/' ? '.' : p[i] == '.' ? '/' : p[i];
	return r;
}

static bool sysctls_fit(struct sync *s, char **reason, char **message)
{
	const struct core_v1_pod_spec *spec = &s->pod->spec;

	if (!spec->security_context)
		return true;
	LIST_EACH(c, &spec->security_context->sysctls) {
		struct str name = sysctl_name(c->name, s->a);
		size_t i = 0;
		while (i < ARRAY_LEN(safe_sysctls) && !str_eqz(name, safe_sysctls[i].name))
			i++;
		if (i == ARRAY_LEN(safe_sysctls))
			return refuse(reason, message, "SysctlForbidden",
				xasprintf("forbidden sysctl: \"" STR_FMT "\" not allowlisted",
					STR_ARG(name)));
		if (safe_sysctls[i].ipc ? spec->host_ipc : spec->host_network)
			return refuse(reason, message, "SysctlForbidden",
				xasprintf("forbidden sysctl: \"" STR_FMT
					  "\" not allowed with host %s enabled",
					STR_ARG(name), safe_sysctls[i].ipc ? "IPC" : "Net"));
	}
	return true;
}

/* ---- pressure: who could make it worse stays out ---- */

static bool pressure_allows(struct sync *s, char **reason, char **message)
{
	static const char *const words[N_PRESSURES] = { "MemoryPressure", "DiskPressure",
		"PIDPressure" };
	const struct core_v1_taint memory = { .key = STR("node.kubernetes.io/memory-pressure"),
		.effect = STR("NoSchedule") };
	CLEAN_BUF struct buf b = { 0 };
	bool only_memory = true, fits = kubelet_pod_qos(s->pod) != QOS_BEST_EFFORT;

	for (int i = 0; i < N_PRESSURES; i++)
		if (evictor_pressure(s->k, i)) {
			buf_addf(&b, "%s%s", b.len ? " " : "", words[i]);
			only_memory &= i == PRESSURE_MEMORY;
		}
	LIST_EACH(t, &s->pod->spec.tolerations)
		fits |= toleration_tolerates(t, &memory);
	if (!b.len || (only_memory && fits) || s->pod->spec.priority.value >= PRIORITY_CRITICAL)
		return true;
	return refuse(reason, message, "Evicted",
		xasprintf("The node had condition: [" STR_FMT "]. ", STR_ARG(buf_str(&b))));
}

/* ---- room ---- */

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
	static const char *const no_execute[] = { "NoExecute", NULL };
	struct cached *node;
	bool ok = true;

	if (!pressure_allows(s, reason, message) || !sysctls_fit(s, reason, message))
		return false;
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
	const struct core_v1_node *here = node->obj;
	if (taints_untolerated(&here->spec.taints, &s->pod->spec.tolerations, no_execute))
		ok = refuse(reason, message, "TaintToleration",
			xstrdup("Predicate TaintToleration failed: node(s) had taints that the pod "
				"didn't tolerate"));
	else if (!pod_node_affinity_matches(
			 &s->pod->spec, &here->metadata.labels, here->metadata.name))
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
	if (shutdown_active(s->k)) { /* static pods too */
		const char *text = "Pod was rejected as the node is shutting down.";

		worker_event(s->w, s->pod, "Warning", "NodeShutdown", "%s", text);
		return refuse(ret_reason, ret_message, "NodeShutdown", xstrdup(text));
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
