/* Room on a node: NodePorts, NodeResourcesFit (least allocated scores higher) and NodeResourcesBalancedAllocation. */
#include <math.h>
#include <stdio.h>

#include "scheduler/internal.h"

static bool any_address(const char *ip)
{
	return !ip[0] || !strcmp(ip, "0.0.0.0") || !strcmp(ip, "::");
}

static bool port_clashes(
	const struct nodes *t, size_t node, const struct core_v1_container_port *want)
{
	struct str protocol = want->protocol.len ? want->protocol : STR("TCP");
	bool want_any = !want->host_ip.len || str_eqz(want->host_ip, "0.0.0.0") ||
		str_eqz(want->host_ip, "::");

	for (size_t i = 0; i < t->ports[node].len; i++) {
		const struct host_port *hp = &t->ports[node].items[i];

		if (hp->port == want->host_port && str_eqz(protocol, hp->protocol) &&
			(want_any || any_address(hp->ip) || str_eqz(want->host_ip, hp->ip)))
			return true;
	}
	return false;
}

static void filter_ports_of(struct state *st, struct refusals *r,
	const struct core_v1_container_items *containers, bool all)
{
	LIST_EACH(c, containers) {
		if (!all && !str_eqz(c->restart_policy, "Always"))
			continue;
		LIST_EACH(port, &c->ports) {
			if (port->host_port <= 0)
				continue;
			EACH_FIT(i, st) {
				if (port_clashes(st->nodes, i, port)) {
					bit_clear(st->fits, i);
					refuse(r,
						"node(s) didn't have free ports for the requested pod ports");
				}
			}
		}
	}
}

static void ports_filter(struct state *st, struct refusals *r)
{
	filter_ports_of(st, r, &st->pod->spec.containers, true);
	filter_ports_of(st, r, &st->pod->spec.init_containers, false);
}

const struct plugin node_ports = { .name = "NodePorts",
	.events = EVENT_NODE | EVENT_POD_GONE,
	.filter = ports_filter,
	.preemptable = true };

struct lacking {
	struct state *st;
	char text[128];
};

static void find_lacking(void *arg, struct str resource)
{
	struct lacking *l = arg;

	if (!l->text[0] && nodes_resource(l->st->nodes, resource) < 0 &&
		pod_request(&l->st->pod->spec, resource, 0) > 0)
		snprintf(l->text, sizeof(l->text), "Insufficient " STR_FMT, STR_ARG(resource));
}

/* What no node has, none has enough of. */
static void refuse_all(struct state *st, struct refusals *r)
{
	struct lacking l = { .st = st };

	pod_each_resource(&st->pod->spec, find_lacking, &l);
	EACH_FIT(i, st) {
		bit_clear(st->fits, i);
		refuse(r, l.text);
	}
}

static void fit_filter(struct state *st, struct refusals *r)
{
	struct nodes *t = st->nodes;

	if (st->requests->lacks)
		return refuse_all(st, r);

	EACH_FIT(i, st) {
		bool short_of = false;

		if (t->pods[i] >= t->max_pods[i]) {
			refuse(r, "Too many pods");
			short_of = true;
		}
		for (size_t k = 0; k < t->n_resources; k++) {
			int64_t want = st->requests->amount[k];
			char text[128];

			if (want <= 0 || want <= t->allocatable[k][i] - t->used[k][i])
				continue;
			snprintf(text, sizeof(text), "Insufficient %s", t->resource_name[k]);
			refuse(r, text);
			short_of = true;
		}
		if (short_of)
			bit_clear(st->fits, i);
	}
}

/* What would be free of cpu and memory, in percent, averaged over those that the node has. */
static void least_allocated_score(struct state *st)
{
	struct nodes *t = st->nodes;

	EACH_FIT(i, st) {
		int64_t used[] = { t->scored_cpu[i] + st->requests->scored_cpu,
			t->scored_memory[i] + st->requests->scored_memory };
		int64_t have[] = { t->allocatable[RES_CPU][i], t->allocatable[RES_MEMORY][i] };
		double sum = 0, n = 0;

		for (size_t k = 0; k < 2; k++)
			if (have[k] > 0) {
				sum += used[k] < have[k]
					? floor((double)(have[k] - used[k]) * 100 / (double)have[k])
					: 0;
				n++;
			}
		st->raw[i] = n > 0 ? floor(sum / n) : 0;
	}
}

const struct plugin resources_fit = { .name = "NodeResourcesFit",
	.events = EVENT_NODE | EVENT_POD_GONE | EVENT_POD_UPDATE,
	.filter = fit_filter,
	.score = least_allocated_score,
	.shape = SCORE_PLAIN,
	.weight = 1,
	.preemptable = true };

/* Highest where the shares of cpu and memory in use would be alike. */
static void balanced_score(struct state *st)
{
	struct nodes *t = st->nodes;

	EACH_FIT(i, st) {
		double cpu = t->allocatable[RES_CPU][i] > 0
			? (double)(t->used[RES_CPU][i] + st->requests->amount[RES_CPU]) /
				(double)t->allocatable[RES_CPU][i]
			: 0;
		double memory = t->allocatable[RES_MEMORY][i] > 0
			? (double)(t->used[RES_MEMORY][i] + st->requests->amount[RES_MEMORY]) /
				(double)t->allocatable[RES_MEMORY][i]
			: 0;

		st->raw[i] = floor((1 - fabs(MIN(cpu, 1.0) - MIN(memory, 1.0)) / 2) * 100);
	}
}

const struct plugin balanced_allocation = { .name = "NodeResourcesBalancedAllocation",
	.events = EVENT_NODE,
	.score = balanced_score,
	.shape = SCORE_PLAIN,
	.weight = 1 };
