/* Which store: sqlite, memory or etcd, by the text of --store. */
#include <semaphore.h>
#include <stdio.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "etcd/etcd.h"
#include "registry/registry.h"

#define ETCD STR("etcd=")
#define CATCH_UP_MS 30000
#define AGAIN_S 2
#define PATIENT_MS 3000
#define TELL_S 30

int cmd_etcd_open(
	const struct options *o, struct str urls, bool remember, struct etcd **ret, struct err *err)
{
	CLEAN_FREE char *text = str_dup(urls),
			*id = xasprintf("%s/store/etcd-cluster", o->data_dir);
	struct etcd_config c = { .urls = text,
		.ca_file = o->etcd_cafile,
		.cert_file = o->etcd_certfile,
		.key_file = o->etcd_keyfile,
		.id_file = remember ? id : NULL,
		.timeout_ms = remember ? PATIENT_MS : 0,
		.history = remember };

	return etcd_open(&c, ret, err);
}

struct caught_up {
	sem_t done;
	int result;
};

static void caught_up(void *arg, int result)
{
	struct caught_up *c = arg;

	c->result = result;
	sem_post(&c->done);
}

/* What was loaded may be of some minutes ago; nobody is to see that. */
static int wait_until_now(struct store *s, struct err *err)
{
	struct caught_up c;

	sem_init(&c.done, 0, 0);
	store_wait(s, 0, CATCH_UP_MS, caught_up, &c);
	while (sem_wait(&c.done) < 0)
		;
	sem_destroy(&c.done);
	return c.result < 0
		? err_set(err, c.result, "etcd does not tell what changed: %s", strerror(-c.result))
		: 0;
}

/* A server waits for its etcd rather than to end and be started again. What the operator must mend is told at once, and again each half minute. */
static int open_patiently(const struct options *o, struct str urls, void (*on_wait)(void),
	struct etcd **ret, struct err *err)
{
	uint64_t told_ns = 0;

	for (;;) {
		int r = cmd_etcd_open(o, urls, true, ret, err);
		uint64_t now = mono_now_ns();

		if (r != -EHOSTUNREACH) {
			if (r == 0 && told_ns)
				log_info("store", "etcd answers now");
			return r;
		}
		if (on_wait)
			on_wait();
		if (!told_ns || now - told_ns >= (uint64_t)TELL_S * 1000000000) {
			log_error("store", "%s. It is tried again every %d s", err->text, AGAIN_S);
			told_ns = now;
		}
		sleep(AGAIN_S);
	}
}

static int open_etcd(
	const struct options *o, struct str urls, struct cmd_store *ret, struct err *err)
{
	struct store_config c = { .backend = "shared", .shared = &ret->shared };
	struct etcd *e;
	int r = registry_codec_new(&ret->shared.codec, err);

	if (r == 0)
		r = open_patiently(o, urls, ret->on_wait, &e, err);
	if (r < 0)
		return r;
	ret->shared.type = &etcd_remote;
	ret->shared.remote = e;
	r = store_open(&c, &ret->store, err);
	if (r == 0)
		r = wait_until_now(ret->store, err);
	return r < 0 ? r : etcd_compact_start(e, err);
}

int cmd_store_open(const struct options *o, struct cmd_store *ret, struct err *err)
{
	CLEAN_FREE char *path = xasprintf("%s/store/skiff.db", o->data_dir);
	struct str text = str_of(o->store);
	struct store_config c = { .backend = o->store, .path = path };

	if (str_has_prefix(text, ETCD))
		return open_etcd(o, str_from(text, ETCD.len), ret, err);
	return store_open(&c, &ret->store, err);
}

void cmd_store_close(struct cmd_store *s)
{
	store_close(TAKE(s->store));
	registry_codec_free(&s->shared.codec);
}
