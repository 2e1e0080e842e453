/* Creates what a cluster must have and does not. An object that is there is left as it is, but for RBAC, whose missing parts are added
 * as upstream does (bootstrap_roles.c). Writes of one phase run at once. */
#include "registry/bootstrap.h"

struct bootstrap {
	struct registry *r;
	struct arena *arena;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t wake;
	size_t under_way;
	int failed;
	struct err err;
};
struct job {
	struct bootstrap *b;
	struct registry_request req;
};

static struct str apiserver_groups[] = { { "system:masters", 14 }, { "system:authenticated", 20 } };
static const struct user_info apiserver_user = { .name = { "system:apiserver", 16 },
	.groups = { apiserver_groups, 2 } };

struct arena *bootstrap_arena(struct bootstrap *b)
{
	return b->arena;
}

static void job_done(void *arg, struct registry_request *req, struct registry_result *res)
{
	struct job *j = arg;
	struct bootstrap *b = j->b;
	const struct meta_v1_status *st = res->status;
	bool failed = st && str_eqz(st->status, "Failure") && !str_eqz(st->reason, "AlreadyExists");
	object_unref(res->object);
	pthread_mutex_lock(&b->lock);
	if (failed && !b->failed)
		b->failed = err_set(&b->err, -EIO,
			"the cluster's first objects: " STR_FMT " of group \"" STR_FMT
			"\" was not stored: " STR_FMT,
			STR_ARG(req->resource->plural), STR_ARG(req->resource->group),
			STR_ARG(st->message));
	b->under_way--;
	pthread_cond_signal(&b->wake);
	pthread_mutex_unlock(&b->lock);
	arena_free(req->arena);
}

/* Each write has an arena of its own: several threads finish them. obj stays in the bootstrap's. */
static void submit(struct bootstrap *b, enum resource_verb verb, const struct resource *res,
	struct str ns, struct str name, void *obj)
{
	struct arena *a = arena_new(0);
	struct job *j = arena_alloc(a, sizeof(*j));
	j->b = b;
	j->req = (struct registry_request){ .arena = a,
		.resource = res,
		.verb = verb,
		.ns = ns,
		.name = name,
		.user = &apiserver_user,
		.obj = obj };
	pthread_mutex_lock(&b->lock);
	b->under_way++;
	pthread_mutex_unlock(&b->lock);
	registry_execute(b->r, &j->req, job_done, j);
}

static const struct resource *resource_of(
	struct bootstrap *b, const char *group, const char *plural)
{
	return registry_resource(b->r, str_of(group), STR("v1"), str_of(plural));
}

void bootstrap_create(
	struct bootstrap *b, const char *group, const char *plural, struct str ns, void *obj)
{
	submit(b, VERB_CREATE, resource_of(b, group, plural), ns, STR_NONE, obj);
}

void bootstrap_update(struct bootstrap *b, const char *group, const char *plural, struct str ns,
	struct str name, void *obj)
{
	submit(b, VERB_UPDATE, resource_of(b, group, plural), ns, name, obj);
}

void *bootstrap_get(
	struct bootstrap *b, const char *group, const char *plural, struct str ns, struct str name)
{
	const struct resource *res = resource_of(b, group, plural);
	CLEAN_OBJECT struct object *o = NULL;
	void *obj;
	struct err err;
	if (store_get(b->r->store, resource_key(res, ns, name, b->arena), &o) ||
		registry_decode(res, o, b->arena, &obj, &err))
		return NULL;
	return obj;
}

static int wait_all(struct bootstrap *b, struct err *err)
{
	pthread_mutex_lock(&b->lock);
	while (b->under_way)
		pthread_cond_wait(&b->wake, &b->lock);
	int rc = b->failed;
	pthread_mutex_unlock(&b->lock);
	if (rc && err)
		*err = b->err;
	return rc;
}

static void namespaces(struct bootstrap *b)
{
	static const char *const names[] = { "default", "kube-system", "kube-public",
		"kube-node-lease" };
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (bootstrap_get(b, "", "namespaces", STR_NONE, str_of(names[i])))
			continue;
		struct core_v1_namespace *ns = model_new(&core_v1_namespace_type, b->arena);
		ns->metadata.name = str_of(names[i]);
		bootstrap_create(b, "", "namespaces", STR_NONE, ns);
	}
}

/* The first address of the service range is the API's own. */
static void kubernetes_service(struct bootstrap *b)
{
	struct arena *a = b->arena;
	if (bootstrap_get(b, "", "services", STR("default"), STR("kubernetes")))
		return;
	struct core_v1_service *s = model_new(&core_v1_service_type, a);
	s->metadata.name = STR("kubernetes");
	s->metadata.namespace = STR("default");
	str_map_set(a, &s->metadata.labels, STR("component"), STR("apiserver"));
	str_map_set(a, &s->metadata.labels, STR("provider"), STR("kubernetes"));
	s->spec.cluster_ip = services_first_address(b->r, a);
	s->spec.type = STR("ClusterIP");
	struct core_v1_service_port *p = LIST_ADD(a, &s->spec.ports);
	p->name = STR("https");
	p->protocol = STR("TCP");
	p->port = 443;
	p->target_port = (struct int_or_str){ .kind = IOS_INT,
		.num = b->r->config.api_port ? b->r->config.api_port : 6443 };
	bootstrap_create(b, "", "services", STR("default"), s);
}

static void service_range(struct bootstrap *b)
{
	if (bootstrap_get(b, "networking.k8s.io", "servicecidrs", STR_NONE, STR("kubernetes")))
		return;
	struct networking_v1_service_cidr *c =
		model_new(&networking_v1_service_cidr_type, b->arena);
	c->metadata.name = STR("kubernetes");
	*LIST_ADD(b->arena, &c->spec.cidrs) = str_of(b->r->config.service_cidr);
	bootstrap_create(b, "networking.k8s.io", "servicecidrs", STR_NONE, c);
}

static void priority_classes(struct bootstrap *b)
{
	static const struct {
		const char *name, *description;
		int32_t value;
	} classes[] = {
		{ "system-cluster-critical",
			"Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
			2000000000 },
		{ "system-node-critical",
			"Used for system critical pods that must not be moved from their current node.",
			2000001000 },
	};
	for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
		if (bootstrap_get(b, "scheduling.k8s.io", "priorityclasses", STR_NONE,
			    str_of(classes[i].name)))
			continue;
		struct scheduling_v1_priority_class *c =
			model_new(&scheduling_v1_priority_class_type, b->arena);
		c->metadata.name = str_of(classes[i].name);
		c->value = classes[i].value;
		c->description = str_of(classes[i].description);
		bootstrap_create(b, "scheduling.k8s.io", "priorityclasses", STR_NONE, c);
	}
}

int registry_bootstrap(struct registry *r, struct err *err)
{
	struct bootstrap b = { .r = r, .arena = arena_new(0) };
	pthread_mutex_init(&b.lock, NULL);
	pthread_cond_init(&b.wake, NULL);
	namespaces(&b);
	int rc = wait_all(&b, err);
	if (!rc) {
		kubernetes_service(&b);
		service_range(&b);
		priority_classes(&b);
		bootstrap_rbac(&b);
		rc = wait_all(&b, err);
	}
	pthread_cond_destroy(&b.wake);
	pthread_mutex_destroy(&b.lock);
	arena_free(b.arena);
	return rc;
}
