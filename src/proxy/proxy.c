/* Life of the proxy: informers name services that changed, one thread builds their rules and gives the difference to the kernel in one
 * transaction. The first transaction makes the table anew with everything in it, so that a restart leaves no gap. */
#include "proxy/internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "linux/linux.h"

struct proxy {
	struct proxy_config c;
	struct service_view *view;
	struct workqueue *dirty; /* keys of services */
	struct applied applied;
	struct map rules; /* service key -> struct rules as the kernel has them */
	pthread_t thread;
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
	rules_build(r, service->obj, slices, list.len, p->c.node_name);
	cached_list_deinit(&list);
	cached_unref(service);
	return r;
}

static void replace(struct proxy *p, struct str key, struct buf *out)
{
	struct rules *now = wanted(p, key), *was = map_get(&p->rules, key);

	rules_change(&p->applied, was, now, out);
	if (now)
		map_set(&p->rules, key, now);
	else
		map_remove(&p->rules, key);
	rules_free(was);
}

/* The table anew with all services in it. */
static int apply_all(struct proxy *p, struct err *err)
{
	CLEAN_BUF struct buf text = { 0 };
	struct cached_list all;

	applied_deinit(&p->applied);
	map_deinit(&p->rules, rules_free);
	p->applied = (struct applied){ 0 };
	p->rules = (struct map){ 0 };
	buf_addz(&text, "table " PROXY_TABLE "\ndelete table " PROXY_TABLE "\n");
	table_write(&text);
	informer_list(p->view->services, STR_NONE, &all);
	for (size_t i = 0; i < all.len; i++)
		replace(p, all.items[i]->key, &text);
	cached_list_deinit(&all);
	return nft_apply(text.p, err);
}

/* Takes all services that wait, so that a burst is one transaction. */
static void *worker(void *arg)
{
	struct proxy *p = arg;
	char *key;

	while ((key = workqueue_get(p->dirty))) {
		CLEAN_BUF struct buf text = { 0 };
		struct err err = { 0 };

		for (;;) {
			replace(p, str_of(key), &text);
			workqueue_done(p->dirty, key);
			free(key);
			if (!workqueue_len(p->dirty) || !(key = workqueue_get(p->dirty)))
				break;
		}
		if (!text.len || nft_apply(text.p, &err) == 0)
			continue;
		/* The kernel and our picture of it differ (somebody removed the table): start over. */
		log_warn("proxy", "rules were refused, writing all anew: %s", err.text);
		if (apply_all(p, &err) < 0)
			log_error("proxy", "service rules cannot be written: %s", err.text);
	}
	return NULL;
}

int proxy_new(const struct proxy_config *c, struct proxy **ret, struct err *err)
{
	struct proxy *p = xcalloc(1, sizeof(*p));

	p->c = *c;
	p->view = c->view;
	p->dirty = workqueue_new("proxy");
	informer_add_handler(p->view->services, on_service, p);
	informer_add_handler(p->view->slices, on_slice, p);
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
	if (apply_all(p, &err) < 0)
		log_error("proxy", "service rules cannot be written: %s", err.text);
	return worker(p);
}

int proxy_start(struct proxy *p, struct err *err)
{
	int r = sysctl_set("net.ipv4.ip_forward", "1", err);

	if (r == 0) {
		r = thread_start(&p->thread, "proxy", start_then_work, p);
		p->started = r == 0;
	}
	return r;
}

void proxy_stop(struct proxy *p)
{
	atomic_store(&p->stopping, true);
	workqueue_stop(p->dirty);
	if (p->started)
		pthread_join(p->thread, NULL);
	p->started = false;
}

void proxy_free(struct proxy *p)
{
	if (!p)
		return;
	workqueue_free(p->dirty);
	map_deinit(&p->rules, rules_free);
	applied_deinit(&p->applied);
	free(p);
}

int proxy_cleanup(struct err *err)
{
	return nft_apply("table " PROXY_TABLE "\ndelete table " PROXY_TABLE "\n", err);
}
