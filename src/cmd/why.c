/* `skiff why POD`: one page on why a pod is, or is not, running: the filters' verdict on each node while it has none, what the kubelet knows
 * (pulls, mounts, probes with their answers, last exits, last log lines), and the events, oldest first. From real state alone. */
#include <stdio.h>

#include "client/client.h"
#include "cmd/cmd.h"
#include "codec/codec.h"
#include "gen/types.h"
#include "scheduler/scheduler.h"

struct page {
	struct options o;
	struct arena *a;
	struct client *c;
	struct core_v1_pod *pod;
	struct scheduler_verdict *verdicts;
	size_t n_verdicts;
	struct core_v1_event_list *events;
	struct value node; /* the kubelet's answer; VALUE_NULL: none */
	struct str node_error;
};

static int ask_scheduling(struct page *p, struct err *err)
{
	struct core_v1_node_list *nodes;
	struct core_v1_pod_list *pods;
	int r = client_list(
		p->c, &core_v1_node_type, STR_NONE, NULL, NULL, p->a, (void **)&nodes, err);

	if (r == 0)
		r = client_list(
			p->c, &core_v1_pod_type, STR_NONE, NULL, NULL, p->a, (void **)&pods, err);
	if (r == 0)
		p->verdicts = scheduler_explain(nodes, pods, p->pod, p->a, &p->n_verdicts);
	return r;
}

/* The kubelet answers through the API server. That it does not is itself an answer, kept for the page. */
static void ask_kubelet(struct page *p)
{
	struct str target =
		arena_fmt(p->a, "/api/v1/nodes/" STR_FMT "/proxy/skiff/v1/why/" STR_FMT "/" STR_FMT,
			STR_ARG(p->pod->spec.node_name), STR_ARG(p->pod->metadata.namespace),
			STR_ARG(p->pod->metadata.name));
	struct err err = { 0 };
	struct str body;
	int code = 0,
	    r = client_raw(p->c, "GET", target.p, STR_NONE, STR_NONE, p->a, &body, &code, &err);

	if (r == 0 && json_parse(body, p->a, &p->node, &err) == 0)
		return;
	p->node = (struct value){ .kind = VALUE_NULL };
	p->node_error = arena_strz(p->a, err.text);
}

static int by_last_seen(const void *a, const void *b)
{
	const struct core_v1_event *x = a, *y = b;

	return time_cmp(x->last_timestamp.sec ? x->last_timestamp : x->metadata.creation_timestamp,
		y->last_timestamp.sec ? y->last_timestamp : y->metadata.creation_timestamp);
}

static int gather(struct page *p, struct err *err)
{
	struct str ns = str_of(p->o.namespace_), name = str_of(p->o.args[0]);
	struct str selector;
	int r = client_get(p->c, &core_v1_pod_type, ns, name, p->a, (void **)&p->pod, err);

	if (r)
		return r;
	if (!p->pod->spec.node_name.len)
		r = ask_scheduling(p, err);
	else
		ask_kubelet(p);
	if (r)
		return r;
	selector = arena_fmt(p->a, "involvedObject.uid=" STR_FMT, STR_ARG(p->pod->metadata.uid));
	r = client_list(
		p->c, &core_v1_event_type, ns, NULL, selector.p, p->a, (void **)&p->events, err);
	if (r == 0)
		qsort(p->events->items.items, p->events->items.len, sizeof(*p->events->items.items),
			by_last_seen);
	return r;
}

/* ---- text ---- */

static void print_verdicts(const struct page *p)
{
	if (!p->n_verdicts)
		puts("scheduling    there are no nodes");
	for (size_t i = 0; i < p->n_verdicts; i++) {
		const struct scheduler_verdict *v = &p->verdicts[i];

		if (v->plugin)
			printf("scheduling    node " STR_FMT ": refused by %s: " STR_FMT "\n",
				STR_ARG(v->node), v->plugin, STR_ARG(v->reasons));
		else
			printf("scheduling    node " STR_FMT ": fits\n", STR_ARG(v->node));
	}
}

static void print_state(const struct core_v1_container_status *c,
	const struct core_v1_container_state *s, const char *label)
{
	if (s->waiting)
		printf("%s " STR_FMT ": waiting: " STR_FMT " " STR_FMT "\n", label,
			STR_ARG(c->name), STR_ARG(s->waiting->reason),
			STR_ARG(s->waiting->message));
	if (s->running) {
		char since[TIME_TEXT_MAX];

		time_format(s->running->started_at, since);
		printf("%s " STR_FMT ": running since %s, %s, %d restarts\n", label,
			STR_ARG(c->name), since, c->ready ? "ready" : "not ready",
			c->restart_count);
	}
	if (s->terminated)
		printf("%s " STR_FMT ": ended with code %d (" STR_FMT ") " STR_FMT "\n", label,
			STR_ARG(c->name), s->terminated->exit_code, STR_ARG(s->terminated->reason),
			STR_ARG(str_trim(s->terminated->message)));
}

static void print_statuses(const struct core_v1_container_status_items *list, const char *label)
{
	LIST_EACH(c, list) {
		print_state(c, &c->state, label);
		print_state(c, &c->last_state, "  before     ");
	}
}

/* What the kubelet said, as indented "key: value" lines: the page shows all of it, whatever it has. */
static void print_value(const struct value *v, int depth)
{
	CLEAN_BUF struct buf b = { 0 };

	if (v->kind == VALUE_OBJECT) {
		for (size_t i = 0; i < v->object.len; i++) {
			const struct value_member *m = &v->object.members[i];
			bool nested = m->value.kind == VALUE_OBJECT || m->value.kind == VALUE_LIST;

			printf("%*s" STR_FMT ":%s", depth * 2 + 14, "", STR_ARG(m->key),
				nested ? "\n" : " ");
			print_value(&m->value, depth + 1);
		}
	} else if (v->kind == VALUE_LIST) {
		for (size_t i = 0; i < v->list.len; i++) {
			if (v->list.items[i].kind != VALUE_OBJECT)
				printf("%*s", depth * 2 + 14, "");
			else if (i)
				printf("%*s-\n", depth * 2 + 14, "");
			print_value(&v->list.items[i], depth);
		}
	} else if (v->kind == VALUE_TEXT) {
		printf(STR_FMT "\n", STR_ARG(v->text));
	} else {
		json_write(v, &b);
		puts(b.p);
	}
}

static void print_text(const struct page *p)
{
	const struct core_v1_pod *pod = p->pod;

	printf("pod           " STR_FMT "/" STR_FMT "  " STR_FMT "%s" STR_FMT " " STR_FMT "\n",
		STR_ARG(pod->metadata.namespace), STR_ARG(pod->metadata.name),
		STR_ARG(pod->status.phase),
		pod->metadata.deletion_timestamp.sec ? ", being deleted " : " ",
		STR_ARG(pod->status.reason), STR_ARG(pod->status.message));
	if (pod->spec.node_name.len)
		printf("node          " STR_FMT "  " STR_FMT "\n", STR_ARG(pod->spec.node_name),
			STR_ARG(pod->status.pod_ip));
	else
		print_verdicts(p);
	LIST_EACH(c, &pod->status.conditions) {
		if (!str_eqz(c->status, "True"))
			printf("condition     " STR_FMT " is " STR_FMT ": " STR_FMT " " STR_FMT
			       "\n",
				STR_ARG(c->type), STR_ARG(c->status), STR_ARG(c->reason),
				STR_ARG(c->message));
	}
	print_statuses(&pod->status.init_container_statuses, "init         ");
	print_statuses(&pod->status.container_statuses, "container    ");
	if (p->node.kind != VALUE_NULL) {
		puts("kubelet");
		print_value(&p->node, 0);
	} else if (p->node_error.len) {
		printf("kubelet       does not answer: " STR_FMT "\n", STR_ARG(p->node_error));
	}
	LIST_EACH(e, &p->events->items) {
		char at[TIME_TEXT_MAX];

		time_format(
			e->last_timestamp.sec ? e->last_timestamp : e->metadata.creation_timestamp,
			at);
		printf("event         %s %-7.*s %.*s (x%d): " STR_FMT "\n", at, STR_ARG(e->type),
			STR_ARG(e->reason), MAX(e->count, 1), STR_ARG(e->message));
	}
}

static void print_json(const struct page *p)
{
	CLEAN_BUF struct buf b = { 0 };

	buf_addz(&b, "{\"pod\":");
	json_encode(&core_v1_pod_type, p->pod, &b);
	buf_addz(&b, ",\"scheduling\":[");
	for (size_t i = 0; i < p->n_verdicts; i++) {
		buf_addz(&b, i ? ",{\"node\":" : "{\"node\":");
		json_write_text(p->verdicts[i].node, &b);
		buf_addz(&b, ",\"refusedBy\":");
		json_write_text(str_of(p->verdicts[i].plugin), &b);
		buf_addz(&b, ",\"reasons\":");
		json_write_text(p->verdicts[i].reasons, &b);
		buf_addc(&b, '}');
	}
	buf_addz(&b, "],\"kubelet\":");
	json_write(&p->node, &b);
	buf_addz(&b, ",\"events\":");
	json_encode(&core_v1_event_list_type, p->events, &b);
	buf_addc(&b, '}');
	puts(b.p);
}

int cmd_why(int argc, char **argv)
{
	struct page p = { .a = arena_new(0), .node = { .kind = VALUE_NULL } };
	struct err err = { 0 };
	int r = options_parse(&p.o, OPT_CLIENT, argc, argv);

	if (r)
		return r > 0 ? 0 : 2;
	if (p.o.n_args != 1) {
		fputs("usage: skiff why [-n NAMESPACE] [-o json] POD\n", stderr);
		return 2;
	}
	r = cmd_client(&p.o, &p.c, &err);
	if (r == 0)
		r = gather(&p, &err);
	if (r != 0)
		return cmd_fail("why", &err, 1);
	(p.o.output && !strcmp(p.o.output, "json") ? print_json : print_text)(&p);
	client_free(p.c);
	arena_free(p.a);
	return 0;
}
