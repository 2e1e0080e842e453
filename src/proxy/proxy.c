/* Life of the proxy: informers name services that changed, one thread builds their rules and gives the difference to the kernel in one
 * transaction. The first transaction writes everything anew in place of what is there, so that a restart leaves no gap and the memory of clients
 * (affinity.c) stays. Another thread hears from the kernel that tables were removed (nft flush ruleset, as a firewall's reload does): then, too, all is
 * written anew; and after a failure, until it succeeds. */
#include "proxy/internal.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "linux/linux.h"

#define LOOK STR("") /* in place of a service's key: look whether the table is there */
#define AGAIN_MS 2000

struct proxy {
	struct proxy_config c;
	struct service_view *view;
	struct informer *node;   /* this one's; NULL: neither its zone nor its end matters */
	struct health *health;   /* NULL: nobody asks */
	struct flows flows;      /* to be looked at when the rules are the kernel's */
	struct workqueue *dirty; /* keys of services */
	struct applied applied;
	struct map rules; /* service key -> struct rules as the kernel has them */
	struct claims claims;
	bool look,
		stale; /* whether the table is there is to be asked; the kernel lacks what `applied` says */
	int monitor, wake; /* news of nftables; an eventfd that ends the watch */
	pthread_t thread, watch;
	bool started;
	_Atomic bool stopping;
};

static void on_service(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct proxy *p = arg;

	workqueue_add(p->dirty, (now ? now : old)->key);
}

static void on_slice(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	CLEAN_ARENA struct arena *a = arena_new(256);
	const struct cached *both[] = { old, now };
	struct proxy *p = arg;

	for (size_t i = 0; i < 2; i++) {
		struct str key = both[i] ? slice_service_key(both[i]->obj, a) : STR_NONE;

		if (key.len)
			workqueue_add(p->dirty, key);
	}
}

static struct str zone_of(const struct cached *c)
{
	return c ? str_map_get(&c->meta->labels, STR("topology.kubernetes.io/zone")) : STR_NONE;
}

/* It is deleted, or the cluster autoscaler is about to. */
static bool is_leaving(const struct cached *c)
{
	const struct core_v1_node *n = c ? c->obj : NULL;

	if (!n || !time_is_zero(n->metadata.deletion_timestamp))
		return true;
	LIST_EACH(t, &n->spec.taints)
		if (str_eqz(t->key, "ToBeDeletedByClusterAutoscaler"))
			return true;
	return false;
}

static void on_node(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct proxy *p = arg;
	struct cached_list all;

	if (p->health)
		health_leaving(p->health, is_leaving(now));
	if (str_eq(zone_of(old), zone_of(now)))
		return;
	informer_list(p->view->services, STR_NONE, &all);
	for (size_t i = 0; i < all.len; i++)
		workqueue_add(p->dirty, all.items[i]->key);
	cached_list_deinit(&all);
}

static struct rules *rules_new(void)
{
	struct arena *a = arena_new(1024);
	struct rules *r = arena_alloc(a, sizeof(*r));

	r->arena = a;
	return r;
}

static void rules_free(void *v)
{
	struct rules *r = v;

	if (r)
		arena_free(r->arena);
}

/* The rules that a service should have; NULL: it is gone. */
static struct rules *wanted(struct proxy *p, struct str key)
{
	struct cached *service = informer_get(p->view->services, key);
	const struct discovery_v1_endpoint_slice **slices;
	struct cached_list list;
	struct rules *r;

	if (!service)
		return NULL;
	r = rules_new();
	informer_by_index(p->view->slices, key, &list);
	slices = arena_alloc(r->arena, (list.len + 1) * sizeof(*slices));
	for (size_t i = 0; i < list.len; i++)
		slices[i] = list.items[i]->obj;
	struct cached *node = p->node ? informer_get(p->node, str_of(p->c.node_name)) : NULL;
	struct proxy_node here = { p->c.node_name, zone_of(node) };

	rules_build(r, service->obj, slices, list.len, &here, map_get(&p->rules, key));
	cached_unref(node);
	cached_list_deinit(&list);
	cached_unref(service);
	return r;
}

static void moved(void *arg, struct str key)
{
	struct proxy *p = arg;

	workqueue_add(p->dirty, key);
}

/* Once for each change of what it may have. */
static void tell_losses(struct str key, const struct rules *was, const struct rules *now)
{
	size_t lost = 0, before = 0;
	struct str first = STR_NONE;

	for (size_t i = 0; was && i < was->n_fronts; i++)
		before += !was->fronts[i].held;
	for (size_t i = 0; now && i < now->n_fronts; i++)
		if (!now->fronts[i].held && !lost++)
			first = now->fronts[i].key;
	if (lost > before)
		log_warn("proxy",
			"service " STR_FMT " does not get %zu of its addresses (" STR_FMT
			"): another's, or an API server's",
			STR_ARG(key), lost, STR_ARG(first));
	if (now && now->cut && !(was && was->cut))
		log_warn("proxy",
			"service " STR_FMT " wants more than %d rules: the rest is left out",
			STR_ARG(key), RULES_MOST);
}

static void waits(struct proxy *p)
{
	if (p->health)
		health_waits(p->health);
}

/* The kernel has all. */
static void written(struct proxy *p)
{
	flows_forget(&p->flows);
	if (p->health)
		health_updated(p->health);
}

static void replace(struct proxy *p, struct str key, struct buf *out)
{
	struct rules *now = wanted(p, key), *was = map_get(&p->rules, key);

	claims_change(&p->claims, key, was, now, moved, p);
	tell_losses(key, was, now);
	rules_change(&p->applied, was, now, out);
	flows_add(&p->flows, was, now);
	if (p->health && ((was && was->health_port) || (now && now->health_port)))
		health_set(p->health, key, now ? now->health_port : 0, now ? now->ready_local : 0);
	if (now)
		map_set(&p->rules, key, now);
	else
		map_remove(&p->rules, key);
	rules_free(was);
}

bool table_chains(struct arena *a, struct str_list *ret)
{
	CLEAN_BUF struct buf all = { 0 };
	bool ours = false, found = false;
	struct str rest, line, name;

	if (nft_read("list chains inet", false, &all, NULL) < 0)
		return false;
	for (rest = buf_str(&all); rest.len;) {
		str_cut(rest, '\n', &line, &rest);
		if (str_has_prefix(line, STR("table ")))
			ours = str_eqz(line, "table " PROXY_TABLE " {");
		found |= ours;
		line = str_trim(line);
		if (ours && str_has_prefix(line, STR("chain ")) &&
			str_cut(str_n(line.p + 6, line.len - 6), ' ', &name, &line))
			*LIST_ADD(a, ret) = arena_str(a, name);
	}
	return found;
}

/* chains NULL: in place of the whole table, else only of what is in it. */
static int write_all(
	struct proxy *p, const struct str_list *chains, struct str services, struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };

	table_write(
		&(struct table_config){ p->c.dns_address, p->c.cluster_cidr, p->c.service_cidr },
		chains, &text);
	buf_add_str(&text, services);
	return nft_apply(text.p, err);
}

static int apply_all(struct proxy *p, struct err *err)
{
	CLEAN_ARENA struct arena *a = arena_new(1024);
	CLEAN_BUF struct buf text = { 0 };
	struct str_list chains = { 0 };
	struct cached_list all;
	int r = -ENOENT;

	applied_deinit(&p->applied);
	map_deinit(&p->rules, rules_free);
	claims_deinit(&p->claims);
	p->applied = (struct applied){ 0 };
	p->rules = (struct map){ 0 };
	p->claims = (struct claims){ 0 };
	informer_list(p->view->services, STR_NONE, &all);
	for (size_t i = 0; i < all.len; i++)
		replace(p, all.items[i]->key, &text);
	cached_list_deinit(&all);
	if (table_chains(a, &chains) && (r = write_all(p, &chains, buf_str(&text), err)) < 0)
		log_warn("proxy",
			"the table of services cannot be written over, it is made anew and clients with affinity are forgotten: %s",
			err->text);
	if (r < 0)
		r = write_all(p, NULL, buf_str(&text), err);
	p->look = false;
	p->stale = r < 0;
	if (!p->stale) {
		written(p);
	} else {
		log_error("proxy", "service rules cannot be written: %s; again in %d s", err->text,
			AGAIN_MS / 1000);
		workqueue_add_after(p->dirty, LOOK, AGAIN_MS);
	}
	return r;
}

static bool table_there(void)
{
	CLEAN_BUF struct buf all = { 0 };

	return nft_read("list tables", false, &all, NULL) == 0 && all.p &&
		strstr(all.p, "table " PROXY_TABLE "\n");
}

/* Takes all services that wait, so that a burst is one transaction. key is the first of it. */
static void take_burst(struct proxy *p, char *key, struct buf *text)
{
	for (;;) {
		if (*key)
			replace(p, str_of(key), text);
		else
			p->look = true;
		workqueue_done(p->dirty, key);
		free(key);
		if (!workqueue_len(p->dirty) || !(key = workqueue_get(p->dirty)))
			return;
	}
}

static void *worker(struct proxy *p)
{
	char *key;

	while ((key = workqueue_get(p->dirty))) {
		CLEAN_BUF struct buf text = { 0 };
		struct err err = { 0 };
		bool gone;

		waits(p);
		take_burst(p, key, &text);
		gone = p->look && !p->stale && !table_there();
		if (gone)
			log_warn("proxy",
				"somebody removed the table of services (nft flush ruleset?), writing it again");
		if (gone || p->stale) {
			apply_all(p, &err);
			continue;
		}
		p->look = false;
		if (!text.len || nft_apply(text.p, &err) == 0) {
			written(p);
			continue;
		}
		/* The kernel and our picture of it differ: start over. */
		log_warn("proxy", "rules were refused, writing all anew: %s", err.text);
		apply_all(p, &err);
	}
	return NULL;
}

static void *watch_thread(void *arg)
{
	struct proxy *p = arg;
	struct pollfd fds[] = { { .fd = p->wake, .events = POLLIN },
		{ .fd = p->monitor, .events = POLLIN } };

	while (!atomic_load(&p->stopping)) {
		poll(fds, ARRAY_LEN(fds), -1);
		if (nft_monitor_lost(p->monitor))
			workqueue_add(p->dirty, LOOK);
	}
	return NULL;
}

int proxy_new(const struct proxy_config *c, struct proxy **ret, struct err *err)
{
	struct proxy *p = xcalloc(1, sizeof(*p));
	int r = c->loop ? health_new(c->loop, &clock_real, c->healthz_address, c->status_address,
				  &p->health, err)
			: 0;

	if (r < 0) {
		free(p);
		return err_prefix(err, r, "the service proxy's addresses");
	}
	p->c = *c;
	p->view = c->view;
	p->dirty = workqueue_new("proxy");
	p->monitor = p->wake = -1;
	informer_add_handler(p->view->services, on_service, p);
	informer_add_handler(p->view->slices, on_slice, p);
	if (c->client) {
		CLEAN_FREE char *own = xasprintf("metadata.name=%s", c->node_name);
		struct informer_config ic = {
			.client = c->client, .type = &core_v1_node_type, .field_selector = own
		};

		p->node = informer_new(&ic);
		informer_add_handler(p->node, on_node, p);
	}
	*ret = p;
	return 0;
}

/* Waits for the caches apart from the caller: the API server may not be there yet, and old rules go on meanwhile. */
static void *start_then_work(void *arg)
{
	struct proxy *p = arg;
	struct err err = { 0 };

	while (!service_view_wait_synced(p->view, 1000))
		if (atomic_load(&p->stopping))
			return NULL;
	waits(p);
	apply_all(p, &err);
	return worker(p);
}

int proxy_start(struct proxy *p, struct err *err)
{
	int r = sysctl_set("net.ipv4.ip_forward", "1", err);

	if (r == 0 && p->node)
		r = informer_start(p->node, err);
	if (r == 0)
		r = nft_monitor(&p->monitor, err);
	p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r == 0 && p->wake < 0)
		r = err_errno(err, -errno, "cannot make an eventfd");
	if (r == 0)
		r = thread_start(&p->watch, "proxy-watch", watch_thread, p);
	if (r == 0 && thread_start(&p->thread, "proxy", start_then_work, p) < 0) {
		r = err_set(err, -EAGAIN, "cannot start the proxy's thread");
		atomic_store(&p->stopping, true);
		eventfd_write(p->wake, 1);
		pthread_join(p->watch, NULL);
	}
	p->started = r == 0;
	return r;
}

void proxy_stop(struct proxy *p)
{
	atomic_store(&p->stopping, true);
	workqueue_stop(p->dirty);
	if (p->started) {
		eventfd_write(p->wake, 1);
		pthread_join(p->watch, NULL);
		pthread_join(p->thread, NULL);
	}
	if (p->node)
		informer_stop(p->node);
	p->started = false;
}

void proxy_free(struct proxy *p)
{
	if (!p)
		return;
	if (p->node)
		informer_free(p->node);
	health_free(p->health);
	flows_deinit(&p->flows);
	workqueue_free(p->dirty);
	map_deinit(&p->rules, rules_free);
	applied_deinit(&p->applied);
	claims_deinit(&p->claims);
	if (p->monitor >= 0)
		close(p->monitor);
	if (p->wake >= 0)
		close(p->wake);
	free(p);
}

int proxy_cleanup(struct err *err)
{
	return nft_apply("table " PROXY_TABLE "\ndelete table " PROXY_TABLE "\n", err);
}
