/* Life of the pod network. Informers name what changed. One thread turns policies, namespaces and pods into one transaction of nftables; another keeps
 * routes, woken by the informer of nodes and by the kernel itself (a link that went down takes its routes with it).
 *
 * 1. `lock` guards policies, ports, hooked, waiters and the kernel's tables: whoever holds it may write to nftables, and leaves both in step.
 * 2. Pods of all nodes are watched only once a policy names pods: without policies the agent knows its own pods alone.
 * 3. A pod's address comes from the kubelet (network_pod_ready) until the API shows it. */
#include "network/internal.h"

#include <arpa/inet.h>
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>

#include "io/io.h"

#define READY_WAIT_S 10
#define ROUTES_RETRY_MS 2000
#define GATHER_MS 100
#define AGAIN_MS 2000

struct hooked { /* a pod whose address the kubelet told and the API does not show yet */
	struct arena *arena;
	struct core_v1_pod *pod;
	struct str ip, second;
};
struct waiter { /* a call of network_pod_ready that waits until the worker came to its pod */
	struct list node;
	struct str key;
	bool taken, done;
	int result;
	struct err err;
};
struct network {
	struct network_config c;
	char pod_cidr[64];                                       /* c.pod_cidr; the router's */
	struct informer *nodes, *rules, *namespaces, *own, *all; /* all: NULL until it is needed */
	struct workqueue *
		dirty; /* "p ns/name" policy, "n name" namespace, "o ns/name" own pod, "a ns/name" pod, "h ns/name" hooked, "t" tables */
	pthread_mutex_t lock;
	pthread_cond_t told; /* waiters, that they are done */
	struct policies *policies;
	struct host_ports *ports;
	struct flow_cache *flows; /* NULL: off */
	_Atomic bool no_flows;    /* the kernel cannot */
	struct map hooked;        /* by "ns/name" */
	struct map localnet;      /* addresses of pods whose link is to carry loopback addresses */
	struct list waiters;
	pthread_t worker, router;
	bool started;
	int wake, monitor,
		tables; /* the router's: eventfd, news of links and routes, news of nftables */
	bool look;      /* tables were removed, maybe ours */
	bool stale;     /* the last writing of all failed */
	_Atomic bool stopping;
};

/* ---- what changed ---- */

static void mark(struct network *n, char kind, struct str key)
{
	CLEAN_FREE char *k = xasprintf("%c " STR_FMT, kind, STR_ARG(key));

	workqueue_add(n->dirty, str_of(k));
}

static void on_rule(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	mark(arg, 'p', (now ? now : old)->key);
}

static void on_namespace(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	mark(arg, 'n', (now ? now : old)->key);
}

static void on_own(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	mark(arg, 'o', (now ? now : old)->key);
}

static void on_pod(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	mark(arg, 'a', (now ? now : old)->key);
}

static void on_node(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct network *n = arg;

	if (node_moved(old, now))
		eventfd_write(n->wake, 1);
}

/* ---- pods ---- */

static void hooked_free(void *v)
{
	struct hooked *h = v;

	if (!h)
		return;
	arena_free(h->arena);
	free(h);
}

/* It becomes text of a rule, and comes from whoever is that pod's node. */
static bool is_address(struct str ip)
{
	char z[INET6_ADDRSTRLEN];
	struct in6_addr in;

	if (!ip.len || ip.len >= sizeof(z))
		return false;
	memcpy(z, ip.p, ip.len);
	z[ip.len] = 0;
	return inet_pton(strchr(z, ':') ? AF_INET6 : AF_INET, z, &in) == 1;
}

/* The address that a pod holds on the pod network. */
static struct str address_of(const struct core_v1_pod *pod)
{
	if (pod->spec.host_network || str_eqz(pod->status.phase, "Succeeded") ||
		str_eqz(pod->status.phase, "Failed"))
		return STR_NONE;
	return is_address(pod->status.pod_ip) ? pod->status.pod_ip : STR_NONE;
}

static bool has_ended(const struct core_v1_pod *pod)
{
	return str_eqz(pod->status.phase, "Succeeded") || str_eqz(pod->status.phase, "Failed");
}

static struct str second_of(const struct core_v1_pod *pod)
{
	LIST_EACH(p, &pod->status.pod_ips) {
		if (!str_eq(p->ip, pod->status.pod_ip))
			return is_address(p->ip) ? p->ip : STR_NONE;
	}
	return STR_NONE;
}

static void put_own(
	struct network *n, const struct core_v1_pod *pod, struct str ip, struct str second)
{
	policies_put_pod(n->policies, pod, ip, ip.len ? second : STR_NONE, true);
	if (!n->c.plugins && host_ports_put(n->ports, pod, ip))
		map_set(&n->localnet, ip, n);
}

static void own_changed(struct network *n, struct str key)
{
	struct cached *c = informer_get(n->own, key);
	struct hooked *h = map_get(&n->hooked, key);
	const struct core_v1_pod *pod = c ? c->obj : NULL;
	/* The kubelet may know of a pod's successor of the same name before this cache does. */
	bool newer = h &&
		(!pod ||
			(!str_eq(h->pod->metadata.uid, pod->metadata.uid) &&
				time_cmp(pod->metadata.creation_timestamp,
					h->pod->metadata.creation_timestamp) <= 0));
	bool mirror =
		pod && str_map_has(&pod->metadata.annotations, STR("kubernetes.io/config.mirror"));

	/* Another address in the status is one of a former sandbox. */
	if (h && pod &&
		(str_eq(pod->status.pod_ip, h->ip) ? !newer || mirror : !newer && has_ended(pod))) {
		hooked_free(map_remove(&n->hooked, key));
		h = NULL;
	}
	if (!pod && h)
		return; /* not shown yet; network_pod_gone ends it */
	if (!pod) {
		policies_remove_pod(n->policies, key);
		host_ports_remove(n->ports, key);
	} else if (!newer || !h) {
		put_own(n, pod, h ? h->ip : address_of(pod), h ? h->second : second_of(pod));
	}
	cached_unref(c);
}

static void hooked_came(struct network *n, struct str key)
{
	struct hooked *h = map_get(&n->hooked, key);

	if (h)
		put_own(n, h->pod, h->ip, h->second);
	own_changed(n, key);
	list_for_each(it, &n->waiters) {
		struct waiter *w = list_entry(it, struct waiter, node);

		w->taken |= str_eq(w->key, key);
	}
}

static void pod_changed(struct network *n, struct str key)
{
	struct cached *c = n->all ? informer_get(n->all, key) : NULL;
	const struct core_v1_pod *pod = c ? c->obj : NULL;

	if (pod && str_eqz(pod->spec.node_name, n->c.node_name)) {
		cached_unref(c);
		return; /* the informer of this node's pods tells about it */
	}
	if (pod && address_of(pod).len) {
		policies_put_pod(n->policies, pod, address_of(pod), second_of(pod), false);
	} else {
		struct cached *own = informer_get(n->own, key);

		if (!own && !map_get(&n->hooked, key))
			policies_remove_pod(n->policies, key);
		cached_unref(own);
	}
	cached_unref(c);
}

/* ---- policies and namespaces ---- */

static void rule_changed(struct network *n, struct str key)
{
	struct cached *c = informer_get(n->rules, key);

	if (c)
		policies_put_policy(n->policies, c->obj);
	else
		policies_remove_policy(n->policies, key);
	cached_unref(c);
}

static void namespace_changed(struct network *n, struct str key)
{
	struct cached *c = informer_get(n->namespaces, key);

	if (c)
		policies_put_namespace(n->policies, key, &c->meta->labels);
	else
		policies_remove_namespace(n->policies, key);
	cached_unref(c);
}

static void tables_changed(struct network *n, struct str key)
{
	n->look = true;
}

static void take(struct network *n, const char *key)
{
	static const struct {
		char kind;
		void (*fn)(struct network *n, struct str key);
	} kinds[] = {
		{ 'p', rule_changed },
		{ 'n', namespace_changed },
		{ 'o', own_changed },
		{ 'a', pod_changed },
		{ 'h', hooked_came },
		{ 't', tables_changed },
	};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].kind == key[0])
			kinds[i].fn(n, str_of(key + 2));
}

/* ---- the kernel's tables ---- */

static int set_localnet(struct netlink *netlink, struct str ip, struct err *err)
{
	char link[16], name[64];
	struct route r;
	uint32_t a;
	int mtu;

	if (ip_read(ip, &a) < 0 || route_find(netlink, htonl(a), &r) < 0 || r.gateway ||
		link_name_mtu(netlink, r.link, link, &mtu, NULL) < 0)
		return 0; /* the pod is on its way out */
	snprintf(name, sizeof(name), "net/ipv4/conf/%s/route_localnet", link);
	return sysctl_set(name, "1", err);
}

/* With the lock, once the guard of host ports is in force. */
static void set_localnets(struct network *n)
{
	struct netlink *netlink = NULL;
	struct err err = { 0 };
	struct str ip;
	size_t i = 0;
	void *v;

	if (!n->localnet.len)
		return;
	int r = netlink_open(&netlink, &err);

	while (r == 0 && map_next(&n->localnet, &i, &ip, &v))
		r = set_localnet(netlink, ip, &err);
	if (r < 0)
		log_warn("network", "host ports do not answer on 127.0.0.1: %s", err.text);
	map_deinit(&n->localnet, NULL);
	n->localnet = (struct map){ 0 };
	netlink_close(netlink);
}

/* With the lock. */
static int write_all(struct network *n, struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };

	policies_write(n->policies, &text);
	host_ports_write(n->ports, &text);
	int r = nft_apply(text.p, err);

	/* What the kernel has is not what policies and ports believe: no difference to that is right until all of it is there. */
	n->stale = r < 0;
	if (r == 0)
		set_localnets(n);
	else
		workqueue_add_after(n->dirty, STR("t tables"), AGAIN_MS);
	return r;
}

/* With the lock: what the calls that wait for this transaction get to know. */
static void tell_waiters(struct network *n, int result, const struct err *err)
{
	list_for_each(it, &n->waiters) {
		struct waiter *w = list_entry(it, struct waiter, node);

		if (!w->taken || w->done)
			continue;
		w->done = true;
		w->result = result;
		w->err = *err;
	}
	pthread_cond_broadcast(&n->told);
}

static bool tables_there(void)
{
	CLEAN_BUF struct buf all = { 0 };

	return nft_read("list tables", false, &all, NULL) == 0 && all.p &&
		strstr(all.p, "table " POLICY_TABLE "\n") &&
		strstr(all.p, "table " HOST_PORT_TABLE "\n");
}

/* With the lock: gives the kernel what changed. */
static int write_changes(struct network *n, struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };
	struct err first = { 0 };

	bool gone = !n->stale && n->look && !tables_there();

	n->look = false;
	if (gone)
		log_warn("network",
			"somebody removed the tables of policies and host ports (nft flush ruleset?), writing them again");
	if (gone || n->stale)
		return write_all(n, err);
	policies_change(n->policies, &text);
	host_ports_change(n->ports, &text);
	if (!text.len || nft_apply(text.p, &first) == 0) {
		set_localnets(n);
		return 0;
	}
	/* The kernel and our picture of it differ (somebody removed a table): start over. */
	log_warn("network", "rules were refused, writing all anew: %s", first.text);
	return write_all(n, err);
}

static void watch_all_pods(struct network *n)
{
	struct informer_config pods = { .client = n->c.client, .type = &core_v1_pod_type };
	struct err err = { 0 };

	n->all = informer_new(&pods);
	informer_add_handler(n->all, on_pod, n);
	if (informer_start(n->all, &err) < 0)
		log_error("network",
			"pods of other nodes cannot be watched, so policies let none of them in: %s",
			err.text);
}

/* Takes all that waits, so that a burst is one transaction. key is the first of it. */
static void take_burst(struct network *n, char *key)
{
	for (;;) {
		take(n, key);
		workqueue_done(n->dirty, key);
		free(key);
		if (!workqueue_len(n->dirty) || !(key = workqueue_get(n->dirty)))
			return;
	}
}

static void work(struct network *n)
{
	char *key;

	while ((key = workqueue_get(n->dirty))) {
		struct err err = { 0 };

		pthread_mutex_lock(&n->lock);
		take_burst(n, key);
		int r = write_changes(n, &err);

		if (r < 0)
			log_error("network", "policies and host ports cannot be written: %s",
				err.text);
		tell_waiters(n, r, &err);
		bool more = !n->all && policies_need_pods(n->policies);
		pthread_mutex_unlock(&n->lock);
		if (more)
			watch_all_pods(n);
	}
}

static bool wait_for(struct network *n, struct informer *i)
{
	while (!informer_wait_synced(i, 1000))
		if (atomic_load(&n->stopping))
			return false;
	return true;
}

static void take_waiting(struct network *n)
{
	char *key;

	while (workqueue_len(n->dirty) && (key = workqueue_get(n->dirty)))
		take_burst(n, key);
}

/* The tables of a former life stay until everything that makes them up is known. */
static void *work_thread(void *arg)
{
	struct network *n = arg;
	struct err err = { 0 };

	if (!wait_for(n, n->rules) || !wait_for(n, n->namespaces) || !wait_for(n, n->own))
		return NULL;
	pthread_mutex_lock(&n->lock);
	take_waiting(n);
	bool more = policies_need_pods(n->policies);
	pthread_mutex_unlock(&n->lock);
	if (more) {
		watch_all_pods(n);
		if (!wait_for(n, n->all))
			return NULL;
	}
	pthread_mutex_lock(&n->lock);
	take_waiting(n);
	int r = write_all(n, &err);

	if (r < 0)
		log_error("network", "policies and host ports cannot be written: %s", err.text);
	tell_waiters(n, r, &err);
	pthread_mutex_unlock(&n->lock);
	work(n);
	return NULL;
}

/* ---- what the kubelet tells ---- */

static void hook(struct network *n, const struct core_v1_pod *pod, const char *ip,
	const char *second, struct arena *a, struct str *ret_key)
{
	struct hooked *h = xcalloc(1, sizeof(*h));

	h->arena = arena_new(0);
	h->pod = model_copy(&core_v1_pod_type, pod, h->arena);
	h->ip = arena_strz(h->arena, ip);
	h->second = arena_strz(h->arena, second ? second : "");
	*ret_key = arena_fmt(a, STR_FMT "/" STR_FMT, STR_ARG(pod->metadata.namespace),
		STR_ARG(pod->metadata.name));
	hooked_free(map_set(&n->hooked, *ret_key, h));
}

int network_pod_ready(struct network *n, const struct core_v1_pod *pod, const char *ip,
	const char *second_ip, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(256);
	struct waiter w = { 0 };
	struct timespec until;
	int r = 0;

	if (pod->spec.host_network || !ip || !*ip)
		return 0;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += READY_WAIT_S;
	pthread_mutex_lock(&n->lock);
	hook(n, pod, ip, second_ip, a, &w.key);
	list_insert(&n->waiters, &w.node);
	/* Behind all that waits, so that a policy which came before the pod is in force with it. */
	mark(n, 'h', w.key);
	while (!w.done && r == 0 && !atomic_load(&n->stopping))
		r = pthread_cond_timedwait(&n->told, &n->lock, &until);
	list_remove(&w.node);
	pthread_mutex_unlock(&n->lock);
	if (!w.done)
		return err_set(err, -EAGAIN,
			"network policies are not known yet: the API server has not answered, or does not let this node list "
			"networkpolicies, namespaces and its pods (ClusterRole skiff:node-network)");
	if (w.result < 0 && err)
		*err = w.err;
	return w.result;
}

void network_pod_gone(struct network *n, struct str uid)
{
	struct str key;
	size_t i = 0;
	void *v;

	pthread_mutex_lock(&n->lock);
	while (map_next(&n->hooked, &i, &key, &v)) {
		struct hooked *h = v;

		if (!str_eq(h->pod->metadata.uid, uid))
			continue;
		mark(n, 'o', key);
		map_remove(&n->hooked, key);
		hooked_free(h);
		break;
	}
	pthread_mutex_unlock(&n->lock);
}

/* ---- routes ---- */

static void warn(void *arg, const char *text)
{
	log_warn("network", "%s", text);
}

static void own_range(struct network *n, const struct cached_list *nodes)
{
	for (size_t i = 0; i < nodes->len; i++) {
		const struct core_v1_node *o = nodes->items[i]->obj;

		if (!str_eqz(o->metadata.name, n->c.node_name) || !o->spec.pod_cidr.len ||
			o->spec.pod_cidr.len >= sizeof(n->pod_cidr) ||
			str_eqz(o->spec.pod_cidr, n->pod_cidr))
			continue;
		log_warn("network",
			"this node's pods get addresses of " STR_FMT
			" from now on, no longer of %s",
			STR_ARG(o->spec.pod_cidr), n->pod_cidr);
		snprintf(n->pod_cidr, sizeof(n->pod_cidr), STR_FMT, STR_ARG(o->spec.pod_cidr));
		if (n->c.pod_cidr_changed)
			n->c.pod_cidr_changed(n->c.arg, n->pod_cidr);
	}
}

/* -ENOENT: the kernel lacks something, which does not come by itself. Told once, and left alone. */
static void flow_cache_failed(struct network *n, int r, const char *what, const struct err *err)
{
	if (r != -ENOENT || !atomic_exchange(&n->no_flows, true))
		log_warn("network",
			"no flow cache for %s, whose packets take the kernel's whole way: %s", what,
			err->text);
}

/* tell: the nodes changed, so that clashes among them are news. */
static int keep_routes(struct network *n, struct netlink *netlink, bool tell, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct cached_list nodes;
	struct err e = { 0 };
	struct peers p;
	int r, also;

	informer_list(n->nodes, STR_NONE, &nodes);
	own_range(n, &nodes);
	p = peers_of(&n->c, &nodes, a, tell ? warn : NULL, n);
	r = routes_apply(netlink, &n->c, &p, err);
	if (n->flows && !atomic_load(&n->no_flows) &&
		(also = flow_cache_apply(n->flows, netlink, &n->c, &p, &e)) < 0) {
		if (also == -ENOENT) {
			flow_cache_failed(n, also, "the pod network", &e);
		} else if (r == 0) {
			r = also;
			*err = e;
		}
	}
	cached_list_deinit(&nodes);
	return r;
}

static void *route_thread(void *arg)
{
	struct network *n = arg;
	struct pollfd fds[] = { { .fd = n->wake, .events = POLLIN },
		{ .fd = n->monitor, .events = POLLIN }, { .fd = n->tables, .events = POLLIN } };
	struct netlink *netlink;
	struct err err = { 0 }, last = { 0 };
	eventfd_t count;

	if (!wait_for(n, n->nodes))
		return NULL;
	if (netlink_open(&netlink, &err) < 0) {
		log_error("network", "no routes to other nodes: %s", err.text);
		return NULL;
	}
	for (bool routes = true, tell = true; !atomic_load(&n->stopping);) {
		int r = 0;

		if (routes) {
			netlink_drain(n->monitor); /* else what came meanwhile is still news */
			r = keep_routes(n, netlink, tell, &err);
		}

		if (r < 0 && strcmp(err.text, last.text) != 0)
			log_error("network", "%s", err.text);
		if (routes)
			last = r < 0 ? err : (struct err){ 0 };
		/* The kernel's news come in bursts (a pod's link is several): they may gather for a while, nodes may not. */
		int events = poll(fds, ARRAY_LEN(fds), r < 0 ? ROUTES_RETRY_MS : -1);

		if (events > 0 && !fds[0].revents)
			poll(fds, 1, GATHER_MS);
		if (nft_monitor_lost(n->tables))
			mark(n, 't', STR("tables"));
		tell = eventfd_read(n->wake, &count) == 0;
		routes = tell || events <= 0 || fds[1].revents || last.text[0];
	}
	netlink_close(netlink);
	return NULL;
}

/* ---- life ---- */

static struct informer *watch(
	struct network *n, const struct type *t, const char *field_selector, informer_fn fn)
{
	struct informer_config c = {
		.client = n->c.client, .type = t, .field_selector = field_selector
	};
	struct informer *i = informer_new(&c);

	informer_add_handler(i, fn, n);
	return i;
}

int network_new(const struct network_config *c, struct network **ret, struct err *err)
{
	CLEAN_FREE char *selector = xasprintf("spec.nodeName=%s", c->node_name);
	struct network *n = xcalloc(1, sizeof(*n));
	pthread_condattr_t attr;
	int r;

	n->c = *c;
	snprintf(n->pod_cidr, sizeof(n->pod_cidr), "%s", c->pod_cidr ? c->pod_cidr : "");
	n->c.pod_cidr = n->pod_cidr;
	n->monitor = n->tables = -1;
	n->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = n->wake < 0 ? err_errno(err, -errno, "cannot make an eventfd")
			: netlink_monitor(&n->monitor, err);
	if (r == 0)
		r = nft_monitor(&n->tables, err);
	pthread_mutex_init(&n->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&n->told, &attr);
	list_init(&n->waiters);
	n->dirty = workqueue_new("network");
	n->policies = policies_new(c->dns_address);
	n->ports = host_ports_new();
	n->nodes = watch(n, &core_v1_node_type, NULL, on_node);
	n->rules = watch(n, &networking_v1_network_policy_type, NULL, on_rule);
	n->namespaces = watch(n, &core_v1_namespace_type, NULL, on_namespace);
	n->own = watch(n, &core_v1_pod_type, selector, on_own);
	if (r < 0) {
		network_free(n);
		return r;
	}
	*ret = n;
	return 0;
}

/* Plugins may have programs of their own on pods' links. */
static void end_flow_cache(struct netlink *netlink)
{
	struct err err = { 0 };

	if (flow_cache_remove(netlink, &err) < 0)
		log_warn("network", "the flow cache is not off everywhere: %s", err.text);
}

/* Before there are connections: the links out lose some packets. */
static void begin_flow_cache(struct network *n)
{
	struct netlink *netlink = NULL;
	struct peers nobody = { 0 };
	struct err err = { 0 };
	int r = netlink_open(&netlink, &err);

	if (r == 0 && (n->c.plugins || n->c.no_flow_cache)) {
		end_flow_cache(netlink);
	} else {
		if (r == 0)
			r = flow_cache_new(&n->flows, &err);
		if (r == 0)
			r = flow_cache_apply(n->flows, netlink, &n->c, &nobody, &err);
		if (r < 0)
			flow_cache_failed(n, r, "the pod network", &err);
	}
	netlink_close(netlink);
}

void network_link_made(struct network *n, const char *link)
{
	struct netlink *netlink = NULL;
	struct err err = { 0 };

	if (!n->flows || atomic_load(&n->no_flows))
		return;
	int r = netlink_open(&netlink, &err);

	if (r == 0)
		r = flow_cache_link(n->flows, netlink, link, &err);
	if (r < 0)
		flow_cache_failed(n, r, link, &err);
	netlink_close(netlink);
}

int network_start(struct network *n, struct err *err)
{
	struct informer *all[] = { n->nodes, n->rules, n->namespaces, n->own };
	int r = sysctl_set("net.ipv4.ip_forward", "1", err);
	struct err ip6;

	/* Plugins may put pods on a bridge, where a kernel without bridge-nf for IPv6 is no reason to stop. */
	if (n->c.plugins && sysctl_set("net.bridge.bridge-nf-call-ip6tables", "1", &ip6) < 0)
		log_warn("network", "policies do not stop IPv6 between pods of this node: %s",
			ip6.text);
	begin_flow_cache(n);
	for (size_t i = 0; i < ARRAY_LEN(all) && r == 0; i++)
		r = informer_start(all[i], err);
	if (r == 0)
		r = thread_start(&n->worker, "network", work_thread, n);
	if (r == 0 && thread_start(&n->router, "routes", route_thread, n) < 0) {
		r = -EAGAIN;
		atomic_store(&n->stopping, true);
		workqueue_stop(n->dirty);
		pthread_join(n->worker, NULL);
	}
	n->started = r == 0;
	return r;
}

void network_stop(struct network *n)
{
	if (!n->started)
		return;
	atomic_store(&n->stopping, true);
	eventfd_write(n->wake, 1);
	workqueue_stop(n->dirty);
	pthread_mutex_lock(&n->lock);
	pthread_cond_broadcast(&n->told);
	pthread_mutex_unlock(&n->lock);
	pthread_join(n->worker, NULL);
	pthread_join(n->router, NULL);
	struct informer *all[] = { n->nodes, n->rules, n->namespaces, n->own, n->all };
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (all[i])
			informer_stop(all[i]);
	n->started = false;
}

void network_free(struct network *n)
{
	if (!n)
		return;
	struct informer *all[] = { n->nodes, n->rules, n->namespaces, n->own, n->all };
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (all[i])
			informer_free(all[i]);
	workqueue_free(n->dirty);
	policies_free(n->policies);
	host_ports_free(n->ports);
	flow_cache_free(n->flows);
	map_deinit(&n->hooked, hooked_free);
	map_deinit(&n->localnet, NULL);
	if (n->wake >= 0)
		close(n->wake);
	if (n->monitor >= 0)
		close(n->monitor);
	if (n->tables >= 0)
		close(n->tables);
	free(n);
}

int network_cleanup(struct err *err)
{
	struct network_config none = { .node_name = "", .node_ip = "" };
	struct peers nobody = { 0 };
	struct netlink *n;
	int r = netlink_open(&n, err), also;

	if (r < 0)
		return r;
	r = routes_apply(n, &none, &nobody, err);
	if (r == 0)
		r = flow_cache_remove(n, err);
	netlink_close(n);
	also = nft_apply("table " POLICY_TABLE "\ndelete table " POLICY_TABLE
			 "\ntable " HOST_PORT_TABLE "\ndelete table " HOST_PORT_TABLE "\n",
		err);
	return r < 0 ? r : also;
}
