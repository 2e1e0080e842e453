/* Whether a node's certificate request may be approved without people.
 *
 * 1. A node's client certificate: the server lets the requester create certificatesigningrequests/nodeclient (a bootstrap token) or /selfnodeclient
 *    (renewal of its own name). A token takes neither the name nor the address of a living node, nor the address of an API server.
 * 2. A serving certificate: for the node that asks, with its name and with addresses that are nobody else's. Whoever holds a certificate for an
 *    API server's name or address is that API server to every client.
 * 3. A network certificate: for the node that asks.
 *
 * Nodes beside an API server share its address. They are known by a group that only the cluster's CA key gives (skiff:server-nodes). A machine that
 * joins tells its address in an annotation of its request: it is how a node that comes back is told from another one with its name. */
#include "base/map.h"
#include "controllers/csr.h"

#define NODE_ADDRESS STR("skiff.dev/node-address")
#define JOINING_S 15 /* from the certificate to the first sign of life, and then some */

static void approve(struct csr_verdict *v, const char *message)
{
	*v = (struct csr_verdict){ "Approved", "AutoApproved", str_of(message) };
}

static void refuse(struct csr_verdict *v, const char *reason, struct str message)
{
	*v = (struct csr_verdict){ "Denied", reason, message };
}

static int may_create(struct run *r, const struct csr_question *q, const char *subresource,
	bool *ret, struct err *err)
{
	struct authorization_v1_subject_access_review
		*sar = model_new(&authorization_v1_subject_access_review_type, r->arena),
		*back;
	struct authorization_v1_resource_attributes *ra = arena_alloc(r->arena, sizeof(*ra));

	*ra = (struct authorization_v1_resource_attributes){ .group = STR("certificates.k8s.io"),
		.resource = STR("certificatesigningrequests"),
		.verb = STR("create"),
		.version = STR("*"),
		.subresource = str_of(subresource) };
	sar->spec.user = q->csr->spec.username;
	sar->spec.uid = q->csr->spec.uid;
	sar->spec.groups.items = q->csr->spec.groups.items;
	sar->spec.groups.len = q->csr->spec.groups.len;
	sar->spec.resource_attributes = ra;
	int ret_code = client_create(r->client, &authorization_v1_subject_access_review_type,
		STR_NONE, sar, r->arena, (void **)&back, err);

	if (!ret_code)
		*ret = back->status.allowed;
	return ret_code;
}

/* ---- who has a name or an address ---- */

static bool node_lives(const struct core_v1_node *n)
{
	LIST_EACH(c, &n->status.conditions)
		if (str_eqz(c->type, "Ready"))
			return str_eqz(c->status, "True");
	return false;
}

static bool node_has_address(const struct core_v1_node *n, struct str ip)
{
	LIST_EACH(a, &n->status.addresses)
		if (str_eq(a->address, ip) && !str_eqz(a->type, "Hostname"))
			return true;
	return false;
}

static struct str internal_ip(const struct core_v1_node *n)
{
	LIST_EACH(a, &n->status.addresses)
		if (str_eqz(a->type, "InternalIP"))
			return a->address;
	return STR("an unknown address");
}

static const struct core_v1_node *living_node_at(struct run *r, struct str ip, struct str but_not)
{
	struct objects nodes = cache_objects(r, &core_v1_node_type, STR_NONE);

	OBJECT_EACH(const struct core_v1_node, n, nodes)
		if (!str_eq(n->metadata.name, but_not) && node_lives(n) && node_has_address(n, ip))
			return n;
	return NULL;
}

static bool is_service_address(struct run *r, struct str ip)
{
	struct objects services = cache_objects(r, &core_v1_service_type, STR_NONE);

	OBJECT_EACH(const struct core_v1_service, s, services)
		if (str_eq(s->spec.cluster_ip, ip) || str_list_has(&s->spec.cluster_ips, ip))
			return true;
	return false;
}

static int is_api_server_address(struct run *r, struct str ip, bool *ret, struct err *err)
{
	struct core_v1_endpoints *e;
	int got = client_get(r->client, &core_v1_endpoints_type, STR("default"), STR("kubernetes"),
		r->arena, (void **)&e, err);

	*ret = false;
	if (got == CLIENT_NOT_FOUND)
		return 0;
	if (got)
		return got;
	LIST_EACH(s, &e->subsets)
		LIST_EACH(a, &s->addresses)
			*ret |= str_eq(a->ip, ip);
	return 0;
}

/* Every machine's own, under which it may know an API server. */
static bool is_everybodys(struct str ip)
{
	return str_has_prefix(ip, STR("127.")) || str_has_prefix(ip, STR("0.")) ||
		str_eqz(ip, "::1") || str_eqz(ip, "::") || str_has_prefix(ip, STR("::ffff:")) ||
		str_has_prefix(ip, STR("0:"));
}

/* ret->type stays NULL when the address is free for this node. */
static int judge_address(struct run *r, const struct csr_question *q, struct str ip,
	struct csr_verdict *ret, struct err *err)
{
	const struct core_v1_node *other;
	bool of_server = false;
	int got = str_list_has(&q->csr->spec.groups, STR(SERVER_NODES_GROUP))
		? 0
		: is_api_server_address(r, ip, &of_server, err);

	if (got)
		return got;
	other = living_node_at(r, ip, q->node);
	if (is_everybodys(ip))
		refuse(ret, "AddressTaken",
			arena_fmt(r->arena,
				STR_FMT
				" is an address of every machine: give this machine's own with --node-ip",
				STR_ARG(ip)));
	else if (of_server)
		refuse(ret, "AddressTaken",
			arena_fmt(r->arena,
				STR_FMT
				" is the address of an API server: give this machine's own with --node-ip. (On the "
				"server's machine `skiff server` runs the agent itself)",
				STR_ARG(ip)));
	else if (other)
		refuse(ret, "AddressTaken",
			arena_fmt(r->arena,
				STR_FMT " is the address of node \"" STR_FMT
					"\", which is Ready: give this machine's own "
					"with --node-ip",
				STR_ARG(ip), STR_ARG(other->metadata.name)));
	else if (is_service_address(r, ip))
		refuse(ret, "AddressTaken",
			arena_fmt(r->arena,
				STR_FMT
				" is the address of a service: give this machine's own with --node-ip",
				STR_ARG(ip)));
	return 0;
}

/* What clients look for in the API server's certificate. */
static bool is_server_name(struct str name)
{
	return str_eqz(name, "localhost") || str_eqz(name, "kubernetes") ||
		str_eqz(name, "kubernetes.default") || str_eqz(name, "kubernetes.default.svc") ||
		str_has_prefix(name, STR("kubernetes.default.svc."));
}

/* ---- names given out moments ago: their nodes have not told an address yet, and requests are judged in parallel ---- */

struct given {
	uint64_t at_ns;
	char *to; /* the machine's address, or its request */
};
struct names_given {
	pthread_mutex_t lock; /* guards names */
	struct map names;     /* node -> struct given */
};

static void given_free(void *p)
{
	struct given *g = p;

	free(g->to);
	free(g);
}

int csr_judge_init(struct run *r, struct err *err)
{
	struct names_given *st = xcalloc(1, sizeof(*st));

	pthread_mutex_init(&st->lock, NULL);
	r->state = st;
	return 0;
}

void csr_judge_deinit(struct run *r)
{
	struct names_given *st = r->state;

	if (!st)
		return;
	map_deinit(&st->names, given_free);
	pthread_mutex_destroy(&st->lock);
	free(st);
}

static void drop_old(struct names_given *st, uint64_t now)
{
	struct str name;
	void *value;
	size_t i = 0;

	while (map_next(&st->names, &i, &name, &value))
		if (now - ((struct given *)value)->at_ns > JOINING_S * 1000000000ULL)
			given_free(map_remove(&st->names, name));
}

/* false: another machine got it and has not shown itself in the Node (n, may be NULL) yet. */
static bool take_name(
	struct names_given *st, struct str node, struct str to, const struct core_v1_node *n)
{
	uint64_t now = mono_now_ns();
	struct given *g;
	bool mine;

	pthread_mutex_lock(&st->lock);
	drop_old(st, now);
	g = map_get(&st->names, node);
	if (g && n && node_has_address(n, str_of(g->to))) {
		given_free(map_remove(&st->names, node));
		g = NULL;
	}
	mine = !g || str_eqz(to, g->to);
	if (!g) {
		g = xcalloc(1, sizeof(*g));
		*g = (struct given){ now, str_dup(to) };
		map_set(&st->names, node, g);
	}
	pthread_mutex_unlock(&st->lock);
	return mine;
}

/* A token's holder wants to be this node. */
static int judge_newcomer(
	struct run *r, const struct csr_question *q, struct csr_verdict *ret, struct err *err)
{
	struct str address = str_map_get(&q->csr->metadata.annotations, NODE_ADDRESS);
	const struct core_v1_node *n = cache_object(r, &core_v1_node_type, q->node);
	int got = address.len ? judge_address(r, q, address, ret, err) : 0;

	if (got || ret->type)
		return got;

	if (is_server_name(q->node)) {
		refuse(ret, "NameTaken",
			arena_fmt(r->arena,
				"\"" STR_FMT
				"\" is a name of the API server: give another with --node-name",
				STR_ARG(q->node)));
		return 0;
	}
	if (n && node_lives(n) && !(address.len && node_has_address(n, address))) {
		refuse(ret, "NameTaken",
			arena_fmt(r->arena,
				"node \"" STR_FMT "\" is Ready at " STR_FMT
				": give this machine another name with "
				"--node-name. If that machine is gone, wait until its node is NotReady, or `kubectl delete node " STR_FMT
				"`",
				STR_ARG(q->node), STR_ARG(internal_ip(n)), STR_ARG(q->node)));
		return 0;
	}
	if (!take_name(r->state, q->node, address.len ? address : q->csr->metadata.uid, n)) {
		refuse(ret, "NameTaken",
			arena_fmt(r->arena,
				"another machine joined as node \"" STR_FMT
				"\" less than %d s ago: give this one another name with "
				"--node-name",
				STR_ARG(q->node), JOINING_S));
		return 0;
	}
	return 0;
}

/* ---- the verdicts ---- */

int csr_judge_node(
	struct run *r, const struct csr_question *q, struct csr_verdict *ret, struct err *err)
{
	bool allowed = false;
	int got = 0;

	if (str_eq(q->csr->spec.username, q->info.common_name))
		got = may_create(r, q, "selfnodeclient", &allowed, err);
	if (got)
		return got;
	if (allowed) {
		approve(ret,
			"Auto approving self kubelet client certificate after SubjectAccessReview.");
		return 0;
	}
	got = may_create(r, q, "nodeclient", &allowed, err);
	if (!got && allowed)
		got = judge_newcomer(r, q, ret, err);
	if (!got && allowed && !ret->type)
		approve(ret,
			"Auto approving kubelet client certificate after SubjectAccessReview.");
	return got;
}

int csr_judge_serving(
	struct run *r, const struct csr_question *q, struct csr_verdict *ret, struct err *err)
{
	if (!str_list_has(&q->csr->spec.groups, STR(NODES_GROUP)))
		return 0;
	for (size_t i = 0; i < q->info.n_dns_names; i++)
		if (!str_eq(q->info.dns_names[i], q->node) || is_server_name(q->node))
			return 0;
	for (size_t i = 0; i < q->info.n_ip_addresses; i++) {
		int got = judge_address(r, q, q->info.ip_addresses[i], ret, err);

		if (got || ret->type)
			return got;
	}
	approve(ret, "Auto approving kubelet serving certificate of the node that asks.");
	return 0;
}

int csr_judge_network(
	struct run *r, const struct csr_question *q, struct csr_verdict *ret, struct err *err)
{
	struct str asker = arena_fmt(r->arena, NODE_PREFIX STR_FMT, STR_ARG(q->node));

	if (str_eq(q->csr->spec.username, asker) &&
		str_list_has(&q->csr->spec.groups, STR(NODES_GROUP)))
		approve(ret, "Auto approving network certificate of the node that asks.");
	return 0;
}
