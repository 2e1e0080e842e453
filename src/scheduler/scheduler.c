/* Life of the scheduler: informer handlers keep queue and nodes; one thread decides; a pool binds.
 * Events and conditions are upstream's: Scheduled, FailedScheduling, Preempted, PodScheduled=False/Unschedulable.
 * Room that is being made for a pod (nominated) is kept from pods of a lower priority: it counts on its node while they are decided. */
#include <stdio.h>

#include "codec/codec.h"
#include "scheduler/internal.h"

#define BINDERS 16
#define FLUSH_NS \
	(300ULL * \
		1000000000) /* refused pods are tried again after five minutes, whatever happened */

struct scheduler {
	struct scheduler_config c;
	struct informer *pod_informer, *node_informer, *budget_informer, *namespace_informer,
		*volume_informers[3];
	struct event_recorder *events;
	struct pool *binders;
	pthread_t thread;
	bool started, stopping;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct nodes nodes;
	struct queue queue;
	struct list nominated;
	struct map pods; /* uid -> struct sched_pod: waiting, assumed and placed ones */
	uint64_t seed, last_flush_ns;
};

/* What the binder needs; lives apart from sched_pod, which may go meanwhile. */
struct job {
	struct scheduler *s;
	struct cached *pod;
	char *node; /* NULL: report `message` instead */
	char *message;
	char *nominated; /* with message: room is made here; "": no longer anywhere; NULL: as before */
	struct cached **victims; /* that make the room by going */
	size_t n_victims;
};

static uint64_t now_ns(const struct scheduler *s)
{
	return s->c.clock->mono_ns(s->c.clock);
}

/* ---- pods ---- */

static bool is_over(const struct core_v1_pod *p)
{
	return str_eqz(p->status.phase, "Succeeded") || str_eqz(p->status.phase, "Failed");
}

static bool is_mine(const struct scheduler *s, const struct core_v1_pod *p)
{
	return p->spec.scheduler_name.len ? str_eqz(p->spec.scheduler_name, s->c.name)
					  : !strcmp(s->c.name, "default-scheduler");
}

static void wake_refused(struct scheduler *s, uint32_t events)
{
	queue_wake_all(&s->queue, events, now_ns(s));
	pthread_cond_signal(&s->changed);
}

static void unplace(struct scheduler *s, struct sched_pod *p)
{
	if (p->place == POD_ASSUMED || p->place == POD_PLACED)
		nodes_place(&s->nodes, p, p->node, -1);
}

static void nominate(struct scheduler *s, struct sched_pod *p, const char *node)
{
	list_remove(&p->nominated);
	free(p->nominated_node);
	p->nominated_node = node ? xstrdup(node) : NULL;
	if (node)
		list_insert(&s->nominated, &p->nominated);
}

static void pod_forget(struct scheduler *s, struct sched_pod *p)
{
	bool was_on_node = p->place == POD_ASSUMED || p->place == POD_PLACED || p->nominated_node;

	unplace(s, p);
	nominate(s, p, NULL);
	terms_drop(&s->nodes, p->terms);
	queue_remove(&s->queue, p);
	map_remove(&s->pods, str_of(p->uid));
	cached_unref(p->object);
	free(p->key);
	free(p->uid);
	free(p);
	if (was_on_node)
		wake_refused(s, EVENT_POD_GONE);
}

static bool same_labels(const struct meta_v1_object_meta *a, const struct meta_v1_object_meta *b)
{
	if (a->labels.len != b->labels.len)
		return false;
	for (size_t i = 0; i < a->labels.len; i++)
		if (!str_eq(a->labels.items[i].key, b->labels.items[i].key) ||
			!str_eq(a->labels.items[i].value, b->labels.items[i].value))
			return false;
	return true;
}

static struct sched_pod *pod_take(struct scheduler *s, const struct cached *c)
{
	struct sched_pod *p = map_get(&s->pods, c->meta->uid);
	const struct core_v1_pod *pod = c->obj;

	if (!p) {
		p = xcalloc(1, sizeof(*p));
		p->uid = str_dup(c->meta->uid);
		p->key = str_dup(c->key);
		p->place = POD_GATED;
		list_init(&p->parked);
		list_init(&p->nominated);
		map_set(&s->pods, c->meta->uid, p);
	}
	if (!p->object || p->place == POD_GATED || !same_labels(p->object->meta, c->meta)) {
		terms_drop(&s->nodes, p->terms);
		p->terms = terms_take(&s->nodes, pod);
	}
	cached_unref(p->object);
	p->object = cached_ref((struct cached *)c);
	p->priority = pod->spec.priority.set ? pod->spec.priority.value : 0;
	return p;
}

/* The pod stands on a node, by us or by others. */
static void pod_placed(struct scheduler *s, const struct cached *c)
{
	struct sched_pod *p = map_get(&s->pods, c->meta->uid);
	const struct core_v1_pod *pod = c->obj;
	bool helps = s->nodes.matchers.len &&
		(!p || p->place != POD_PLACED || !same_labels(p->object->meta, c->meta));

	if (p) {
		unplace(s, p);
		nominate(s, p, NULL);
	}
	p = pod_take(s, c);
	queue_remove(&s->queue, p);
	p->node = nodes_find_or_add(&s->nodes, pod->spec.node_name);
	nodes_requests(&s->nodes, pod, &p->requests);
	p->place = POD_PLACED;
	nodes_place(&s->nodes, p, p->node, 1);
	if (helps)
		wake_refused(s, EVENT_POD_PLACED);
}

static void pod_waits(struct scheduler *s, const struct cached *c, const struct cached *old)
{
	const struct core_v1_pod *pod = c->obj, *before = old ? old->obj : NULL;
	struct sched_pod *p = map_get(&s->pods, c->meta->uid);

	if (p && p->place == POD_ASSUMED)
		return; /* an echo from before our binding */
	bool first = !p;

	p = pod_take(s, c);
	nodes_requests(&s->nodes, pod, &p->requests);
	if (first && pod->status.nominated_node_name.len) {
		CLEAN_FREE char *name = str_dup(pod->status.nominated_node_name);

		nominate(s, p, name);
	}
	if (pod->spec.scheduling_gates.len) {
		queue_remove(&s->queue, p);
		p->place = POD_GATED;
	} else if (p->place == POD_GATED) {
		queue_add(&s->queue, p);
	} else if (before && !model_equal(&core_v1_pod_spec_type, &before->spec, &pod->spec)) {
		queue_wake(&s->queue, p, EVENT_POD_UPDATE, now_ns(s));
	}
	pthread_cond_signal(&s->changed);
}

static void on_pod(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct scheduler *s = arg;
	const struct core_v1_pod *pod = now ? now->obj : NULL;

	pthread_mutex_lock(&s->lock);
	if (!now || is_over(pod) ||
		(pod->metadata.deletion_timestamp.sec && !pod->spec.node_name.len)) {
		struct sched_pod *p = map_get(&s->pods, (now ? now : old)->meta->uid);

		if (p)
			pod_forget(s, p);
	} else if (pod->spec.node_name.len) {
		pod_placed(s, now);
	} else if (is_mine(s, pod)) {
		pod_waits(s, now, old);
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- nodes ---- */

/* Only what a plugin looks at: a heartbeat wakes nobody. */
static bool node_changed(const struct core_v1_node *a, const struct core_v1_node *b)
{
	return a->spec.unschedulable != b->spec.unschedulable ||
		!model_equal(&core_v1_node_spec_type, &a->spec, &b->spec) ||
		a->metadata.labels.len != b->metadata.labels.len ||
		!model_equal(&meta_v1_object_meta_type,
			&(struct meta_v1_object_meta){ .labels = a->metadata.labels },
			&(struct meta_v1_object_meta){ .labels = b->metadata.labels }) ||
		!model_equal(&core_v1_node_status_type,
			&(struct core_v1_node_status){ .allocatable = a->status.allocatable },
			&(struct core_v1_node_status){ .allocatable = b->status.allocatable });
}

static void on_node(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct scheduler *s = arg;
	size_t i;

	pthread_mutex_lock(&s->lock);
	i = nodes_find_or_add(&s->nodes, (now ? now : old)->meta->name);
	nodes_set(&s->nodes, i, now ? cached_ref((struct cached *)now) : NULL);
	if (now && (!old || node_changed(old->obj, now->obj)))
		wake_refused(s, EVENT_NODE);
	pthread_mutex_unlock(&s->lock);
}

/* ---- binding ---- */

static void write_condition(
	struct scheduler *s, const struct cached *c, const char *message, const char *nominated)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	CLEAN_BUF struct buf patch = { 0 };
	const struct core_v1_pod *pod = c->obj;
	char now[TIME_TEXT_MAX];
	struct err err;

	LIST_EACH(cond, &pod->status.conditions) {
		if (!nominated && str_eqz(cond->type, "PodScheduled") &&
			str_eqz(cond->status, "False") && str_eqz(cond->message, message))
			return;
	}
	time_format(s->c.clock->wall(s->c.clock), now);
	buf_addz(&patch, "{\"status\":{");
	if (nominated && nominated[0])
		buf_addf(&patch, "\"nominatedNodeName\":\"%s\",", nominated);
	else if (nominated)
		buf_addz(&patch, "\"nominatedNodeName\":null,");
	buf_addf(&patch,
		"\"conditions\":[{\"type\":\"PodScheduled\",\"status\":\"False\",\"reason\":\"Unschedulable\","
		"\"lastProbeTime\":null,\"lastTransitionTime\":\"%s\",\"observedGeneration\":%lld,\"message\":",
		now, (long long)c->meta->generation);
	json_write_text(str_of(message), &patch);
	buf_addz(&patch, "}]}}");
	if (client_patch(s->c.client, &core_v1_pod_type, c->meta->namespace, c->meta->name,
		    "status", CLIENT_PATCH_STRATEGIC, buf_str(&patch), a, NULL, &err) < 0)
		log_warn("scheduler", "cannot tell pod " STR_FMT " that it was refused: %s",
			STR_ARG(c->key), err.text);
}

/* The binding failed: room is given back and the pod tried again after its back-off. */
static void binding_failed(struct scheduler *s, const struct cached *c)
{
	struct sched_pod *p;

	pthread_mutex_lock(&s->lock);
	p = map_get(&s->pods, c->meta->uid);
	if (p && p->place == POD_ASSUMED) {
		unplace(s, p);
		queue_park(&s->queue, p, 0);
		p->ready_at_ns = now_ns(s) + backoff_ns(p->attempts);
		queue_wake(&s->queue, p, 0, now_ns(s));
		pthread_cond_signal(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
}

static void bind(struct scheduler *s, const struct cached *c, const char *node)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct core_v1_binding *b = model_new(&core_v1_binding_type, a);
	struct err err = { 0 };
	int r = volume_claims_select(&s->nodes, s->c.client, c->obj, node, &err);

	if (r) {
		log_warn("scheduler", "claims of pod " STR_FMT ": %s", STR_ARG(c->key), err.text);
		binding_failed(s, c);
		return;
	}
	b->metadata.name = c->meta->name;
	b->metadata.namespace = c->meta->namespace;
	b->metadata.uid = c->meta->uid;
	b->target.kind = STR("Node");
	b->target.name = str_of(node);
	r = client_create_sub(s->c.client, &core_v1_pod_type, c->meta->namespace, c->meta->name,
		"binding", &core_v1_binding_type, b, a, NULL, &err);
	if (r == 0) {
		event_record(s->events, &core_v1_pod_type, c->obj, "Normal", "Scheduled",
			"Successfully assigned " STR_FMT "/" STR_FMT " to %s",
			STR_ARG(c->meta->namespace), STR_ARG(c->meta->name), node);
		return;
	}
	if (r != CLIENT_NOT_FOUND && r != CLIENT_CONFLICT)
		log_warn("scheduler", "binding pod " STR_FMT " to %s: %s", STR_ARG(c->key), node,
			err.text);
	binding_failed(s, c);
}

/* A victim is told why, then deleted with its own grace. */
static void evict(
	struct scheduler *s, const struct cached *victim, const struct cached *c, const char *node)
{
	const struct client_delete o = { .grace_seconds = -1, .uid = victim->meta->uid };
	CLEAN_ARENA struct arena *a = arena_new(0);
	char now[TIME_TEXT_MAX];
	struct err err;
	int r;

	time_format(s->c.clock->wall(s->c.clock), now);
	struct str patch = arena_fmt(a,
		"{\"status\":{\"conditions\":[{\"type\":\"DisruptionTarget\",\"status\":\"True\",\"reason\":\"PreemptionByScheduler\","
		"\"message\":\"%s: preempting to accommodate a higher priority pod\",\"lastTransitionTime\":\"%s\",\"observedGeneration\":%lld}]}}",
		s->c.name, now, (long long)victim->meta->generation);

	r = client_patch(s->c.client, &core_v1_pod_type, victim->meta->namespace,
		victim->meta->name, "status", CLIENT_PATCH_STRATEGIC, patch, a, NULL, &err);
	if (r != CLIENT_NOT_FOUND)
		r = client_delete(s->c.client, &core_v1_pod_type, victim->meta->namespace,
			victim->meta->name, &o, &err);
	if (r == 0)
		event_record(s->events, &core_v1_pod_type, victim->obj, "Normal", "Preempted",
			"Preempted by pod " STR_FMT " on node %s", STR_ARG(c->meta->uid), node);
	else if (r != CLIENT_NOT_FOUND)
		log_warn("scheduler", "preempting pod " STR_FMT ": %s", STR_ARG(victim->key),
			err.text);
}

static void run_job(void *arg)
{
	struct job *j = arg;

	if (j->node) {
		bind(j->s, j->pod, j->node);
	} else {
		event_record(j->s->events, &core_v1_pod_type, j->pod->obj, "Warning",
			"FailedScheduling", "%s", j->message);
		for (size_t i = 0; i < j->n_victims; i++)
			evict(j->s, j->victims[i], j->pod, j->nominated);
		write_condition(j->s, j->pod, j->message, j->nominated);
	}
	for (size_t i = 0; i < j->n_victims; i++)
		cached_unref(j->victims[i]);
	free(j->victims);
	free(j->nominated);
	cached_unref(j->pod);
	free(j->node);
	free(j->message);
	free(j);
}

/* ---- the scheduling thread ---- */

/* Pods that room is kept for, of this priority or more, count where they are expected (sign 1), and no longer (-1). */
static void count_nominated(struct scheduler *s, const struct sched_pod *but, int sign)
{
	list_for_each(it, &s->nominated) {
		struct sched_pod *p = list_entry(it, struct sched_pod, nominated);
		size_t node = nodes_find(&s->nodes, str_of(p->nominated_node));

		if (p == but || p->priority < but->priority || node == NO_NODE ||
			p->place == POD_ASSUMED)
			continue;
		p->is_nominated = sign > 0;
		nodes_place(&s->nodes, p, node, sign);
	}
}

/* Pods on the node where room is being made are still ending: that is waited for. */
static bool room_is_coming(const struct scheduler *s, const struct sched_pod *p)
{
	size_t node =
		p->nominated_node ? nodes_find(&s->nodes, str_of(p->nominated_node)) : NO_NODE;

	for (size_t i = 0; node != NO_NODE && i < s->nodes.placed[node].len; i++) {
		const struct sched_pod *o = s->nodes.placed[node].items[i];

		if (o->priority < p->priority && !time_is_zero(o->object->meta->deletion_timestamp))
			return true;
	}
	return false;
}

static size_t take_budgets(
	struct scheduler *s, struct cached_list *l, struct arena *a, struct budget **ret)
{
	size_t n = 0;
	struct err err;

	informer_list(s->budget_informer, STR_NONE, l);
	*ret = arena_alloc(a, (l->len + 1) * sizeof(**ret));
	for (size_t i = 0; i < l->len; i++) {
		struct budget *b = &(*ret)[n];

		b->pdb = l->items[i]->obj;
		if (b->pdb->spec.selector &&
			selector_from_label_selector(
				b->pdb->spec.selector, a, &b->selector, &err) == 0)
			n++;
	}
	return n;
}

/* Pods of a lower priority that were promised room on the node look for another. */
static void take_promises(struct scheduler *s, const struct sched_pod *p, const char *node)
{
	list_for_each(it, &s->nominated) {
		struct sched_pod *o = list_entry(it, struct sched_pod, nominated);

		if (o != p && o->priority < p->priority && !strcmp(o->nominated_node, node)) {
			nominate(s, o, NULL);
			queue_wake(&s->queue, o, ~0U, now_ns(s));
		}
	}
}

/* Needs the lock. Who must go so that the refused pod fits, into the job. */
static void make_room(struct scheduler *s, struct sched_pod *p, struct job *j)
{
	const struct core_v1_pod *pod = p->object->obj;
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct preempting w = { &s->nodes, pod, p->priority, &p->requests, p->terms, NULL, 0 };
	struct cached_list budgets = { 0 };
	CLEAN_FREE struct sched_pod **victims = NULL;
	size_t node;

	if (str_eqz(pod->spec.preemption_policy, "Never") || room_is_coming(s, p))
		return;
	bool any = false; /* most pods have nobody below them */

	for (size_t i = 0; !any && i < s->nodes.n; i++)
		any = s->nodes.lowest[i] < p->priority;
	if (any)
		w.n_budgets = take_budgets(s, &budgets, a, &w.budgets);
	node = any ? preempt(&w, &s->seed, &victims, &j->n_victims) : NO_NODE;
	cached_list_deinit(&budgets);
	if (node == NO_NODE) {
		if (p->nominated_node)
			j->nominated = xstrdup("");
		nominate(s, p, NULL);
		return;
	}
	j->victims = xcalloc(j->n_victims, sizeof(*j->victims));
	for (size_t i = 0; i < j->n_victims; i++)
		j->victims[i] = cached_ref(victims[i]->object);
	j->nominated = xstrdup(s->nodes.name[node]);
	nominate(s, p, j->nominated);
	take_promises(s, p, j->nominated);
}

/* Needs the lock. */
static struct job *schedule_one(struct scheduler *s, struct sched_pod *p)
{
	struct job *j = xcalloc(1, sizeof(*j));
	struct verdict v;

	*j = (struct job){ .s = s, .pod = cached_ref(p->object) };
	p->attempts++;
	nodes_requests(&s->nodes, p->object->obj, &p->requests);
	count_nominated(s, p, 1);
	decide(&s->nodes, p->object->obj, &p->requests, p->terms, &s->seed, &v);
	if (v.node == NO_NODE)
		make_room(s, p, j);
	count_nominated(s, p, -1);
	if (v.node == NO_NODE) {
		p->ready_at_ns = now_ns(s) + backoff_ns(p->attempts);
		queue_park(&s->queue, p, v.refused_by);
		j->message = v.message;
		return j;
	}
	nominate(s, p, NULL);
	p->place = POD_ASSUMED;
	p->node = v.node;
	nodes_place(&s->nodes, p, v.node, 1);
	if (s->nodes.matchers.len)
		wake_refused(s, EVENT_POD_PLACED);
	j->node = xstrdup(s->nodes.name[v.node]);
	return j;
}

/* Needs the lock. Waits for a pod, at most until the next back-off ends. */
static void wait_for_work(struct scheduler *s, uint64_t until_ns)
{
	struct timespec ts;
	uint64_t now = now_ns(s), ns = until_ns ? (until_ns > now ? until_ns - now : 1) : FLUSH_NS;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ns = MIN(ns, FLUSH_NS);
	ts.tv_sec += (time_t)(ns / 1000000000);
	ts.tv_nsec += (long)(ns % 1000000000);
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_nsec -= 1000000000;
		ts.tv_sec++;
	}
	pthread_cond_timedwait(&s->changed, &s->lock, &ts);
}

static void *scheduling_thread(void *arg)
{
	struct scheduler *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		uint64_t until = queue_expire(&s->queue, now_ns(s));
		struct sched_pod *p = queue_pop(&s->queue);

		if (p) {
			struct job *j = schedule_one(s, p);

			pthread_mutex_unlock(&s->lock);
			pool_submit(s->binders, run_job, j);
			pthread_mutex_lock(&s->lock);
			continue;
		}
		if (now_ns(s) - s->last_flush_ns > FLUSH_NS) {
			s->last_flush_ns = now_ns(s);
			wake_refused(s, ~0U);
			continue;
		}
		wait_for_work(s, until);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- life ---- */

static const struct type *const volume_types[] = { &core_v1_persistent_volume_claim_type,
	&core_v1_persistent_volume_type, &storage_v1_storage_class_type };

static struct cached *find(void *arg, const struct type *t, struct str key)
{
	struct scheduler *s = arg;

	for (size_t i = 0; i < ARRAY_LEN(volume_types); i++)
		if (t == volume_types[i])
			return informer_get(s->volume_informers[i], key);
	return NULL;
}

static void find_all(void *arg, const struct type *t, struct cached_list *ret)
{
	struct scheduler *s = arg;

	*ret = (struct cached_list){ 0 };
	for (size_t i = 0; i < ARRAY_LEN(volume_types); i++)
		if (t == volume_types[i])
			informer_list(s->volume_informers[i], STR_NONE, ret);
}

static void on_volume(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct scheduler *s = arg;

	if (ev == INFORMER_DELETED)
		return;
	pthread_mutex_lock(&s->lock);
	wake_refused(s, EVENT_VOLUME);
	pthread_mutex_unlock(&s->lock);
}

/* Terms may choose namespaces by their labels. */
static void on_namespace(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct scheduler *s = arg;

	if (old && now && same_labels(old->meta, now->meta))
		return;
	pthread_mutex_lock(&s->lock);
	matchers_namespace_changed(&s->nodes);
	wake_refused(s, EVENT_POD_PLACED);
	pthread_mutex_unlock(&s->lock);
}

static bool namespace_labels(void *arg, struct str ns, struct arena *a, struct str_map *ret)
{
	struct cached *c = informer_get(((struct scheduler *)arg)->namespace_informer, ns);

	if (!c)
		return false;
	LIST_EACH(l, &c->meta->labels)
		str_map_set(a, ret, arena_str(a, l->key), arena_str(a, l->value));
	cached_unref(c);
	return true;
}

int scheduler_new(const struct scheduler_config *c, struct scheduler **ret, struct err *err)
{
	struct scheduler *s = xcalloc(1, sizeof(*s));
	pthread_condattr_t attr;

	s->c = *c;
	if (!s->c.name)
		s->c.name = "default-scheduler";
	s->seed = c->seed;
	while (!s->seed)
		random_bytes(&s->seed, sizeof(s->seed));
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	nodes_init(&s->nodes);
	queue_init(&s->queue);
	list_init(&s->nominated);
	s->nodes.namespace_labels = namespace_labels;
	s->nodes.namespace_arg = s;
	s->nodes.find = find;
	s->nodes.find_all = find_all;
	s->nodes.find_arg = s;
	for (size_t i = 0; i < ARRAY_LEN(volume_types); i++) {
		s->volume_informers[i] = informers_get(c->informers, volume_types[i]);
		informer_add_handler(s->volume_informers[i], on_volume, s);
	}
	s->budget_informer = informers_get(c->informers, &policy_v1_pod_disruption_budget_type);
	s->namespace_informer = informers_get(c->informers, &core_v1_namespace_type);
	informer_add_handler(s->namespace_informer, on_namespace, s);
	s->last_flush_ns = now_ns(s);
	s->pod_informer = informers_get(c->informers, &core_v1_pod_type);
	s->node_informer = informers_get(c->informers, &core_v1_node_type);
	informer_add_handler(s->node_informer, on_node, s);
	informer_add_handler(s->pod_informer, on_pod, s);
	*ret = s;
	return 0;
}

int scheduler_start(struct scheduler *s, struct err *err)
{
	int r;

	s->events = event_recorder_new(s->c.client, s->c.name, NULL);
	s->binders = pool_new("binder", BINDERS);
	if (!informer_wait_synced(s->node_informer, 30000) ||
		!informer_wait_synced(s->pod_informer, 30000))
		return err_set(err, -ETIMEDOUT,
			"the scheduler's caches of pods and nodes did not fill within 30 s");
	r = thread_start(&s->thread, "scheduler", scheduling_thread, s);
	if (r < 0)
		return err_errno(err, r, "cannot start the scheduler's thread");
	s->started = true;
	return 0;
}

void scheduler_stop(struct scheduler *s)
{
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (s->started)
		pthread_join(s->thread, NULL);
	s->started = false;
}

void scheduler_free(struct scheduler *s)
{
	void *v;

	if (!s)
		return;
	scheduler_stop(s);
	if (s->binders)
		pool_free(s->binders);
	if (s->events)
		event_recorder_free(s->events);
	for (size_t i = 0; map_next(&s->pods, &i, NULL, &v);)
		pod_forget(s, v);
	map_deinit(&s->pods, NULL);
	queue_deinit(&s->queue);
	nodes_deinit(&s->nodes);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
