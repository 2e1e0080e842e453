/* Making a pod run, or end: looks at the engine, plans (actions.c), acts. Runs on the worker's thread. */
#include "gen/types.h"
#include "kubelet/internal.h"

#define NETWORK_RETRY_NS (10 * NS_PER_S) /* without the engine's word, which comes at once */

/* ---- looking ---- */

static void sandbox_put(struct pod_worker *w, const struct engine_sandbox *b)
{
	struct pod_sandbox *slot = NULL;

	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < w->n_sandboxes && !slot; i++)
		if (!strcmp(w->sandboxes[i].id, b->id))
			slot = &w->sandboxes[i];
	if (!slot) {
		w->sandboxes = xrealloc(w->sandboxes, (w->n_sandboxes + 1) * sizeof(*w->sandboxes));
		size_t at = w->n_sandboxes++;
		for (; at > 0 && w->sandboxes[at - 1].attempt > b->attempt; at--)
			w->sandboxes[at] = w->sandboxes[at - 1];
		slot = &w->sandboxes[at];
		*slot = (struct pod_sandbox){ .attempt = b->attempt, .created_at = b->created_at };
		memcpy(slot->id, b->id, sizeof(slot->id));
	}
	slot->ready = b->state == SANDBOX_READY;
	CLEAN_FREE char *ip = str_dup(b->ip);
	set_text(&slot->ip, ip);
	CLEAN_FREE char *second = str_dup(b->second_ip);
	set_text(&slot->second_ip, second);
	pthread_mutex_unlock(&w->lock);
}

static void sandbox_drop(struct pod_worker *w, size_t i)
{
	pthread_mutex_lock(&w->lock);
	free(w->sandboxes[i].ip);
	free(w->sandboxes[i].second_ip);
	memmove(&w->sandboxes[i], &w->sandboxes[i + 1],
		(w->n_sandboxes - i - 1) * sizeof(*w->sandboxes));
	w->n_sandboxes--;
	pthread_mutex_unlock(&w->lock);
}

/* The engine said that one of them changed: asks for all, keeps ours. */
static int sandboxes_load(struct sync *s, struct err *err)
{
	struct engine_sandbox *list;
	struct pod_worker *w = s->w;
	size_t n;

	int r = s->k->c.engine->v->sandbox_list(s->k->c.engine, s->a, &list, &n, err);
	if (r)
		return r;
	for (size_t i = w->n_sandboxes; i-- > 0;) {
		bool there = false;
		for (size_t j = 0; j < n; j++)
			there |= !strcmp(list[j].id, w->sandboxes[i].id);
		if (!there)
			sandbox_drop(w, i);
	}
	for (size_t j = 0; j < n; j++)
		if (str_eqz(list[j].uid, w->uid)) {
			sandbox_put(w, &list[j]);
			pods_adopt_sandbox(w, list[j].id);
		}
	return 0;
}

static int newest_first(const void *x, const void *y)
{
	const struct engine_container *a = ((const struct view_container *)x)->c,
				      *b = ((const struct view_container *)y)->c;

	if (a->attempt != b->attempt)
		return a->attempt < b->attempt ? 1 : -1;
	return -time_cmp(a->created_at, b->created_at);
}

int view_load(struct sync *s, struct err *err)
{
	struct pod_worker *w = s->w;

	pthread_mutex_lock(&s->k->lock);
	bool dirty = w->sandbox_dirty;
	w->sandbox_dirty = false;
	pthread_mutex_unlock(&s->k->lock);
	if (!w->n_sandboxes && w->state == POD_NEW)
		for (struct engine_sandbox *b = s->k->boot_sandboxes; b && b->id[0]; b++)
			if (str_eqz(b->uid, w->uid))
				dirty = true;
	if (dirty) {
		int r = sandboxes_load(s, err);
		if (r) {
			w->sandbox_dirty = true;
			return r < 0 ? r : -EIO;
		}
	}
	s->view = (struct pod_view){ 0 };
	for (size_t i = 0; i < w->n_sandboxes; i++) {
		struct engine_container *list;
		size_t n;
		int r = s->k->c.engine->v->container_list(
			s->k->c.engine, w->sandboxes[i].id, s->a, &list, &n, err);
		if (r == ENGINE_NOT_FOUND)
			n = 0;
		else if (r)
			return r < 0 ? r : -EIO;
		if (!n)
			continue;
		s->view.items =
			arena_grow(s->a, s->view.items, s->view.len * sizeof(*s->view.items),
				(s->view.len + n) * sizeof(*s->view.items));
		for (size_t j = 0; j < n; j++)
			s->view.items[s->view.len++] =
				(struct view_container){ &list[j], i == w->n_sandboxes - 1 };
	}
	if (s->view.len)
		qsort(s->view.items, s->view.len, sizeof(*s->view.items), newest_first);
	return 0;
}

const struct engine_container *view_latest(const struct pod_view *v, struct str name)
{
	for (size_t i = 0; i < v->len; i++)
		if (str_eq(v->items[i].c->name, name))
			return v->items[i].c;
	return NULL;
}

const struct engine_container *view_current(const struct pod_view *v, struct str name)
{
	for (size_t i = 0; i < v->len; i++)
		if (v->items[i].current_sandbox && str_eq(v->items[i].c->name, name))
			return v->items[i].c;
	return NULL;
}

const struct engine_container *view_previous(
	const struct pod_view *v, const struct engine_container *than)
{
	bool past = false;

	for (size_t i = 0; i < v->len; i++) {
		if (past && str_eq(v->items[i].c->name, than->name))
			return v->items[i].c;
		past |= v->items[i].c == than;
	}
	return NULL;
}

/* ---- sandbox ---- */

static size_t sysctls_of(struct sync *s, struct engine_sandbox_config *c)
{
	const struct core_v1_pod_security_context *sc = s->pod->spec.security_context;
	size_t n = sc ? sc->sysctls.len : 0;
	__typeof__(*c->sysctls) *list = arena_alloc(s->a, (n + 1) * sizeof(*c->sysctls));

	for (size_t i = 0; i < n; i++) {
		memcpy((void *)&list[i].name, &sc->sysctls.items[i].name.p, sizeof(char *));
		memcpy((void *)&list[i].value, &sc->sysctls.items[i].value.p, sizeof(char *));
	}
	c->sysctls = list;
	return n;
}

static size_t ports_of(struct sync *s, struct engine_sandbox_config *c)
{
	size_t n = 0, max = 0;

	for (size_t i = 0; i < s->specs.len; i++)
		max += s->specs.items[i].c->ports.len;
	struct {
		int32_t host_port, container_port;
		int protocol;
		const char *host_ip;
	} *list = arena_alloc(s->a, (max + 1) * sizeof(*list));
	for (size_t i = 0; i < s->specs.len; i++)
		LIST_EACH(p, &s->specs.items[i].c->ports)
			if (p->host_port) {
				list[n].host_port = p->host_port;
				list[n].container_port = p->container_port;
				list[n].protocol = str_eqz(p->protocol, "UDP") ? IPPROTO_UDP
					: str_eqz(p->protocol, "SCTP")         ? IPPROTO_SCTP
									       : IPPROTO_TCP;
				list[n++].host_ip = p->host_ip.len ? p->host_ip.p : NULL;
			}
	c->port_mappings = (const void *)list;
	return n;
}

/* What a pod may ask for and this kubelet cannot give: said, not left out. */
static int sandbox_possible(struct sync *s, struct err *err)
{
	const struct core_v1_pod_spec *spec = &s->pod->spec;
	struct node_v1_runtime_class *class;

	if (spec->host_users.set && !spec->host_users.value)
		return err_set(err, -ENOSYS,
			"user namespaces (hostUsers: false) are not supported by this kubelet");
	if (spec->resource_claims.len)
		return err_set(err, -ENOSYS, "resource claims are not supported by this kubelet");
	if (!spec->runtime_class_name.len)
		return 0;
	if (!s->k->c.client)
		return err_set(err, -ENOTCONN,
			"runtimeClassName needs an API server, and this kubelet has none");
	int r = client_get(s->k->c.client, &node_v1_runtime_class_type, STR_NONE,
		spec->runtime_class_name, s->a, (void **)&class, err);
	if (r)
		return err_prefix(err, r < 0 ? r : -ENOENT,
			"failed to get sandbox runtime: RuntimeClass \"" STR_FMT "\"",
			STR_ARG(spec->runtime_class_name));
	if (!str_eqz(class->handler, "crun") && !str_eqz(class->handler, "runc"))
		return err_set(err, -ENOSYS,
			"no runtime for \"" STR_FMT "\" is configured: this node runs crun",
			STR_ARG(class->handler));
	return 0;
}

static int sandbox_create(struct sync *s, struct err *err)
{
	struct pod_worker *w = s->w;
	const struct core_v1_pod_spec *spec = &s->pod->spec;
	const struct pod_sandbox *last = worker_sandbox(w);
	struct engine_sandbox made;
	struct str resolv;
	struct engine_sandbox_config c = {
		.name = w->name,
		.namespace_ = w->ns,
		.uid = w->uid,
		.attempt = last ? last->attempt + 1 : 0,
		.hostname = pod_hostname(s->pod, s->k, s->a).p,
		.host_network = spec->host_network,
		.host_pid = spec->host_pid,
		.host_ipc = spec->host_ipc,
		.share_process_namespace =
			spec->share_process_namespace.set && spec->share_process_namespace.value,
		.log_directory = pod_log_folder(s->k, s->pod, s->a).p,
		.cgroup_parent = pod_cgroup(s->pod, s->a).p,
	};

	int r = sandbox_possible(s, err);
	if (!r)
		r = pod_resolv_conf(s, &resolv, err);
	if (r)
		return r;
	c.resolv_conf = resolv.p;
	pod_resources(s->pod, &c.resources);
	c.n_sysctls = sysctls_of(s, &c);
	if (!spec->host_network)
		c.n_port_mappings = ports_of(s, &c);
	r = s->k->c.engine->v->sandbox_run(s->k->c.engine, &c, s->a, &made, err);
	if (r == ENGINE_EXISTS)
		s->w->sandbox_dirty =
			true; /* made by a life of ours that did not see its end: found on the next look */
	if (r)
		return r < 0 ? r : -EEXIST;
	sandbox_put(w, &made);
	pods_adopt_sandbox(w, made.id);
	if (made.bypasses_host)
		worker_event(w, s->pod, "Warning", "NetworkPolicyNotEnforced",
			"the pod's CNI plugins lead its packets past this node's rules: network policies are not in force for it, and services may not answer it");
	for (size_t i = 0; i < s->view.len; i++)
		s->view.items[i].current_sandbox = false;
	return 0;
}

static uint64_t retry_after(unsigned failures, uint64_t max_ns)
{
	return MIN(max_ns, (NS_PER_S / 2) << MIN(failures, 8u));
}

/* The sandbox is gone or broken: whatever of it is left goes too. true: done */
static bool old_sandbox_clear(struct sync *s)
{
	struct pod_worker *w = s->w;
	struct err err;
	bool down = true;

	for (size_t i = 0; i < s->view.len; i++) {
		const struct engine_container *c = s->view.items[i].c;
		const struct container_spec *spec = container_specs_find(&s->specs, c->name);
		if (c->state == CONTAINER_RUNNING && spec)
			down &= kubelet_container_kill(s, spec, c, pod_grace_s(s), NULL);
	}
	if (!down)
		return false;
	const struct pod_sandbox *b = worker_sandbox(w);
	if (s->k->c.engine->v->sandbox_stop(s->k->c.engine, b->id, &err) < 0)
		log_warn("kubelet", "pod %s/%s: sandbox %s: %s", w->ns, w->name, b->id, err.text);
	return true;
}

static bool sandbox_ready(struct sync *s, bool clear_old)
{
	struct pod_worker *w = s->w;
	struct str why;
	struct err err;

	if (w->sandbox_retry_ns > now_ns(s->k)) {
		worker_at(w, w->sandbox_retry_ns);
		return false;
	}
	if (!s->pod->spec.host_network && node_network_status(s->k, s->a, &why) < 0) {
		worker_event(w, s->pod, "Warning", "NetworkNotReady",
			"network is not ready: " STR_FMT, STR_ARG(why));
		worker_at(w, now_ns(s->k) + NETWORK_RETRY_NS);
		return false;
	}
	if (clear_old && !old_sandbox_clear(s))
		return false;
	if (clear_old)
		worker_event(w, s->pod, "Normal", "SandboxChanged",
			"Pod sandbox changed, it will be killed and re-created.");
	if (sandbox_create(s, &err)) {
		worker_event(w, s->pod, "Warning", "FailedCreatePodSandBox",
			"Failed to create pod sandbox: %s", err.text);
		w->sandbox_retry_ns =
			now_ns(s->k) + retry_after(w->sandbox_failures++, 60 * NS_PER_S);
		worker_at(w, w->sandbox_retry_ns);
		return false;
	}
	w->sandbox_failures = 0;
	w->sandbox_retry_ns = 0;
	return true;
}

/* ---- running ---- */

static bool folders_ready(struct sync *s)
{
	struct err err;
	struct pod_worker *w = s->w;

	if (w->dirs_made)
		return true;
	int r = dir_make(pod_dir(s->k, w->uid, s->a).p, 0750, &err);
	if (!r)
		r = dir_make(pod_log_folder(s->k, s->pod, s->a).p, 0755, &err);
	if (r) {
		worker_event(w, s->pod, "Warning", "Failed",
			"error making pod data directories: %s", err.text);
		worker_at(w, now_ns(s->k) + retry_after(w->sync_failures++, 60 * NS_PER_S));
		return false;
	}
	w->dirs_made = true;
	return true;
}

/* What downwardAPI volumes show of the object. */
static uint64_t metadata_hash(const struct core_v1_pod *pod)
{
	uint64_t h = 1;
	const struct str_map *maps[] = { &pod->metadata.labels, &pod->metadata.annotations };

	for (size_t i = 0; i < ARRAY_LEN(maps); i++)
		LIST_EACH(p, maps[i])
			h = hash_bytes(
				p->value.p, p->value.len, hash_bytes(p->key.p, p->key.len, h));
	return h;
}

/* Is there a reason to look at them? Not set up yet, somebody asked (keeper.c), a token grows old, or labels changed. */
static bool volumes_due(struct sync *s)
{
	struct pod_worker *w = s->w;
	uint64_t hash = metadata_hash(s->pod);

	pthread_mutex_lock(&s->k->lock);
	bool asked = w->volumes_asked;
	w->volumes_asked = false;
	pthread_mutex_unlock(&s->k->lock);
	bool due = asked || !w->volumes_set || hash != w->volumes_hash ||
		(w->volumes_due_ns && now_ns(s->k) >= w->volumes_due_ns);
	w->volumes_hash = hash;
	if (!due && w->volumes_due_ns)
		worker_at(w, w->volumes_due_ns);
	return due;
}

/* Mounts what is not mounted, and brings up to date what follows the API. A pod whose volumes were once there is not held up by a refresh
 * that fails. */
static bool volumes_usable(struct sync *s)
{
	struct pod_worker *w = s->w;
	struct err err = { 0 };

	if (w->mount_retry_ns && now_ns(s->k) < w->mount_retry_ns) {
		worker_at(w, w->mount_retry_ns);
		return w->volumes_ready;
	}
	if (!w->mount_retry_ns && !volumes_due(s))
		return true;
	w->mount_retry_ns = w->volumes_due_ns = 0;
	if (!volumes_setup(s, &err)) {
		pthread_mutex_lock(&w->lock);
		w->volumes_ready = w->volumes_set = true;
		w->mount_failures = 0;
		set_text(&w->mount_error, NULL);
		pthread_mutex_unlock(&w->lock);
		if (w->volumes_due_ns)
			worker_at(w, w->volumes_due_ns);
		return true;
	}
	pthread_mutex_lock(&w->lock);
	set_text(&w->mount_error, err.text);
	pthread_mutex_unlock(&w->lock);
	worker_event(w, s->pod, "Warning", "FailedMount", "%s", err.text);
	w->mount_retry_ns = now_ns(s->k) + retry_after(w->mount_failures++, 20 * NS_PER_S);
	worker_at(w, w->mount_retry_ns);
	return w->volumes_ready;
}

/* A postStart hook holds back what comes after its container. */
static bool hook_runs(const struct pod_worker *w)
{
	for (size_t i = 0; i < w->n_slots; i++)
		if (w->slots[i]->tasks[TASK_POST_START].running)
			return true;
	return false;
}

static void act(struct sync *s, const struct pod_plan *p)
{
	for (size_t i = 0; i < p->len; i++) {
		const struct pod_action *a = &p->items[i];
		if (a->what == ACT_KILL) {
			struct opt_int64 own = { 0 };
			const struct core_v1_probe *probe = container_probe(a->spec->c,
				slot_probe_failed(worker_slot(s->w, a->spec->c->name),
					PROBE_STARTUP, a->container->id)
					? PROBE_STARTUP
					: PROBE_LIVENESS);
			if (probe && a->by_probe)
				own = probe->termination_grace_period_seconds;
			kubelet_container_kill(s, a->spec, a->container,
				own.set ? own.value : pod_grace_s(s), a->message);
		} else if (hook_runs(s->w) || container_start(s, a->spec) == START_WAITING) {
			break;
		}
	}
}

static void finish(struct sync *s)
{
	pthread_mutex_lock(&s->w->lock);
	s->w->end = END_COMPLETED;
	pthread_mutex_unlock(&s->w->lock);
	worker_move(s->w, POD_TERMINATING);
}

/* Before a container starts, policies are in force for the pod's address. */
static bool network_is_ready(struct sync *s, const struct pod_plan *p)
{
	const struct pod_sandbox *b = worker_sandbox(s->w);
	bool starts = false;
	struct err err;

	for (size_t i = 0; i < p->len; i++)
		starts |= p->items[i].what != ACT_KILL;
	if (!starts || !s->k->c.network_ready || s->pod->spec.host_network || !b || !b->ready)
		return true;
	if (s->k->c.network_ready(s->k->c.network_arg, s->pod, b->ip, b->second_ip, &err) == 0)
		return true;
	worker_event(
		s->w, s->pod, "Warning", "NetworkNotReady", "network is not ready: %s", err.text);
	worker_at(s->w, now_ns(s->k) + 2 * NS_PER_S);
	return false;
}

/* What an earlier life of this kubelet started runs on, also when its volumes cannot be looked at just now. */
static void adopt(struct sync *s)
{
	for (size_t i = 0; i < s->view.len && !s->w->volumes_ready; i++)
		if (s->view.items[i].c->state == CONTAINER_RUNNING &&
			s->view.items[i].current_sandbox) {
			pthread_mutex_lock(&s->w->lock);
			s->w->volumes_ready = true;
			pthread_mutex_unlock(&s->w->lock);
		}
}

void sync_running(struct sync *s)
{
	struct pod_worker *w = s->w;
	struct pod_plan plan;
	struct err err;

	adopt(s);
	plan_make(s, &plan);
	if (plan.finished) {
		finish(s);
		return;
	}
	if (!folders_ready(s) || !volumes_usable(s))
		return;
	if (plan.create_sandbox) {
		qos_update(s->k);
		if (!sandbox_ready(s, plan.kill_pod))
			return;
		plan_make(s, &plan);
	}
	w->initialized = plan.initialized;
	if (!network_is_ready(s, &plan))
		return;
	act(s, &plan);
	if (plan.len && view_load(s, &err) < 0) {
		log_warn("kubelet", "pod %s/%s: %s", w->ns, w->name, err.text);
	} else if (plan.len) {
		plan_make(s, &plan);
		w->initialized = plan.initialized;
		if (plan.finished) { /* what was started could not be, and will not be again */
			finish(s);
			return;
		}
	}
	qos_resize(s);
	probes_sync(s);
	keeper_prune_containers(s);
	mirror_sync(w);
}
