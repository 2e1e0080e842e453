/* The client against a handler of our own: outcomes, informer (pages, resume, 410, stop), events, lease. */
#include "client/fake_server.h"

/* ---- outcomes ---- */
static void answer_refusals(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	static const struct {
		const char *path;
		int code;
		const char *reason;
	} rows[] = {
		{ "/api/v1/namespaces/a/pods/missing", 404, "NotFound" },
		{ "/api/v1/namespaces/a/pods/there", 409, "AlreadyExists" },
		{ "/api/v1/namespaces/a/pods/stale", 409, "Conflict" },
		{ "/api/v1/namespaces/a/pods/old", 410, "Expired" },
		{ "/api/v1/namespaces/a/pods/forbidden", 403, "Forbidden" },
		{ "/api/v1/namespaces/a/pods/busy", 429, "TooManyRequests" },
		{ "/api/v1/namespaces/a/pods/broken", 500, "InternalError" },
		{ "/api/v1/namespaces/a/pods/odd", 418, "" },
	};
	char body[256];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (str_eqz(q->path, rows[i].path)) {
			snprintf(body, sizeof(body),
				"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\","
				"\"message\":\"said %s\",\"reason\":\"%s\",\"code\":%d}",
				rows[i].reason, rows[i].reason, rows[i].code);
			return reply(s, rows[i].code, body);
		}
	reply(s, 200,
		"{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"p\",\"namespace\":\"a\",\"uid\":\"u1\"}}");
}

static void test_outcomes(void **state)
{
	static const struct {
		const char *name;
		int outcome;
		const char *text;
	} rows[] = {
		{ "missing", CLIENT_NOT_FOUND, "said NotFound" },
		{ "there", CLIENT_EXISTS, "said AlreadyExists" },
		{ "stale", CLIENT_CONFLICT, "said Conflict" },
		{ "old", CLIENT_GONE, "said Expired" },
		{ "forbidden", CLIENT_FORBIDDEN, "said Forbidden" },
		{ "busy", CLIENT_TOO_MANY, "said TooManyRequests" },
		{ "broken", CLIENT_SERVER_ERROR, "said InternalError" },
		{ "odd", CLIENT_REFUSED, "said " },
	};
	struct fake *f = fake_new(answer_refusals);
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct core_v1_pod *pod;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err err = { "" };

		assert_int_equal(client_get(f->client, &core_v1_pod_type, STR("a"),
					 str_of(rows[i].name), a, (void **)&pod, &err),
			rows[i].outcome);
		assert_string_equal(err.text, rows[i].text);
	}
	assert_int_equal(client_get(f->client, &core_v1_pod_type, STR("a"), STR("p"), a,
				 (void **)&pod, NULL),
		0);
	assert_true(str_eqz(pod->metadata.uid, "u1"));
	fake_free(f);
}

static void test_requests_on_the_wire(void **state)
{
	struct fake *f = fake_new(answer_refusals);
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct core_v1_pod *pod = model_new(&core_v1_pod_type, a);
	const struct client_delete del = {
		.grace_seconds = 0, .uid = STR("u1"), .propagation = "Foreground"
	};

	pod->metadata.name = STR("p");
	pod->metadata.namespace = STR("a");
	assert_int_equal(
		client_create(f->client, &core_v1_pod_type, STR("a"), pod, a, NULL, NULL), 0);
	assert_true(logged(f,
		"POST /api/v1/namespaces/a/pods?fieldManager=tester {\"kind\":\"Pod\",\"apiVersion\":\"v1\""));
	assert_int_equal(
		client_update(f->client, &core_v1_pod_type, "status", pod, a, NULL, NULL), 0);
	assert_true(logged(f, "PUT /api/v1/namespaces/a/pods/p/status?"));
	assert_int_equal(client_patch(f->client, &core_v1_pod_type, STR("a"), STR("p"), NULL,
				 CLIENT_PATCH_MERGE, STR("{}"), a, NULL, NULL),
		0);
	assert_true(logged(f, "PATCH /api/v1/namespaces/a/pods/p?"));
	assert_int_equal(
		client_delete(f->client, &core_v1_pod_type, STR("a"), STR("p"), &del, NULL), 0);
	assert_true(logged(f,
		"\"gracePeriodSeconds\":0,\"preconditions\":{\"uid\":\"u1\"},\"propagationPolicy\":\"Foreground\""));
	fake_free(f);
}

/* ---- informer ---- */
#define POD(name, rv) \
	"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"" name \
	"\",\"namespace\":\"x\",\"uid\":\"u-" name "\",\"resourceVersion\":\"" rv \
	"\"},\"spec\":{\"nodeName\":\"n1\"}}"

static void answer_informer(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	struct str query = q->query;

	if (str_find_str(query, STR("watch=true")) >= 0) {
		http_stream_begin(s, 200, NULL, 0);
		http_stream_flush(s);
		http_stream_unref(f->watch);
		f->watch = http_stream_ref(s);
		return;
	}
	if (f->stage)
		return reply(s, 200,
			"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"40\"},\"items\":[" POD(
				"a", "11") "," POD("d", "30") "]}");
	if (str_find_str(query, STR("continue=next")) >= 0)
		return reply(s, 200,
			"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"10\"},\"items\":[" POD(
				"b", "2") "]}");
	reply(s, 200,
		"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"10\",\"continue\":\"next\"},"
		"\"items\":[" POD("a", "1") "]}");
}

struct heard {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	char text[1024]; /* +a +b ~a -c … */
};

static void on_event(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct heard *h = arg;

	pthread_mutex_lock(&h->lock);
	size_t n = strlen(h->text);

	snprintf(h->text + n, sizeof(h->text) - n, "%c" STR_FMT " ", "+~-"[ev],
		STR_ARG((now ? now : old)->meta->name));
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
}

static void await_heard(struct heard *h, const char *text)
{
	uint64_t until = mono_now_ns() + WAIT_MS * 1000000ull;

	pthread_mutex_lock(&h->lock);
	while (strcmp(h->text, text))
		if (!cond_wait_until(&h->changed, &h->lock, until)) {
			pthread_mutex_unlock(&h->lock);
			fail_msg("heard \"%s\", wanted \"%s\"", h->text, text);
		}
	pthread_mutex_unlock(&h->lock);
}

static void test_informer(void **state)
{
	struct fake *f = fake_new(answer_informer);
	struct heard h = { .text = "" };
	struct informers *is = informers_new(f->client);
	struct informer *i = informers_get(is, &core_v1_pod_type);
	struct cached_list l;

	pthread_mutex_init(&h.lock, NULL);
	cond_init_mono(&h.changed);
	assert_ptr_equal(i, informers_get(is, &core_v1_pod_type));
	informer_add_handler(i, on_event, &h);
	assert_int_equal(informers_start(is, NULL), 0);
	assert_true(informers_wait_synced(is, WAIT_MS));
	await_heard(&h, "+a +b "); /* two pages */
	await_request(f, "allowWatchBookmarks=true&resourceVersion=10&");

	fake_push(f, "MODIFIED", POD("a", "11"));
	fake_push(f, "ADDED", POD("c", "12"));
	fake_push(f, "BOOKMARK",
		"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"resourceVersion\":\"20\"}}");
	await_heard(&h, "+a +b ~a +c ");
	fake_end_watch(f);
	await_request(f,
		"allowWatchBookmarks=true&resourceVersion=20&"); /* resumed after the bookmark, without a list */

	informer_by_index(i, STR("node:n1"), &l);
	assert_int_equal(l.len, 3);
	cached_list_deinit(&l);
	informer_list(i, STR("x"), &l);
	assert_int_equal(l.len, 3);
	cached_list_deinit(&l);
	informer_list(i, STR("y"), &l);
	assert_int_equal(l.len, 0);

	pthread_mutex_lock(&f->lock);
	f->stage = 1;
	f->n_log = 0;
	memset(f->log, 0, sizeof(f->log));
	pthread_mutex_unlock(&f->lock);
	fake_push(f, "ERROR",
		"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"reason\":\"Expired\",\"code\":410,"
		"\"message\":\"too old resource version\"}");
	await_request(
		f, "allowWatchBookmarks=true&resourceVersion=40&"); /* a new list came between */
	pthread_mutex_lock(&h.lock);
	assert_non_null(strstr(h.text, "+d "));
	assert_non_null(strstr(h.text, "-b "));
	assert_non_null(strstr(h.text, "-c "));
	assert_null(strstr(h.text + strlen("+a +b ~a +c "), "a"));
	pthread_mutex_unlock(&h.lock);

	struct cached *c = informer_get(i, STR("x/d"));

	assert_non_null(c);
	assert_true(str_eqz(((struct core_v1_pod *)c->obj)->spec.node_name, "n1"));
	informers_free(is); /* while a watch is open, and a reference is out */
	assert_true(str_eqz(c->meta->name, "d"));
	cached_unref(c);
	fake_free(f);
}

static void answer_flaky(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	if (f->stage++ < 2)
		return reply(s, 500, "boom");
	answer_informer(f, s, q);
}

static void test_informer_tries_again(void **state)
{
	struct fake *f = fake_new(answer_flaky);
	const struct informer_config c = {
		.client = f->client, .type = &core_v1_pod_type, .meta_only = true
	};
	struct informer *i = informer_new(&c);

	log_set_level(LOG_ERROR);
	assert_int_equal(informer_start(i, NULL), 0);
	assert_true(informer_wait_synced(i, WAIT_MS));
	struct cached *d = informer_get(i, STR("x/d"));

	assert_null(d->obj);
	assert_true(str_eqz(d->meta->uid, "u-d"));
	cached_unref(d);
	informer_free(i);
	log_set_level(LOG_INFO);
	fake_free(f);
}

/* A server whose revisions began anew: ours lies in its future. */
static void answer_set_back(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	if (str_find_str(q->query, STR("watch=true")) >= 0 &&
		str_find_str(q->query, STR("resourceVersion=10&")) >= 0)
		return reply(s, 504,
			"{\"kind\":\"Status\",\"reason\":\"Timeout\",\"message\":\"Too large resource version: 10\",\"code\":504}");
	f->stage = f->n_log > 3;
	answer_informer(f, s, q);
}

static void test_server_set_back(void **state)
{
	struct fake *f = fake_new(answer_set_back);
	const struct informer_config c = { .client = f->client, .type = &core_v1_pod_type };
	struct informer *i = informer_new(&c);

	log_set_level(LOG_ERROR);
	assert_int_equal(informer_start(i, NULL), 0);
	await_request(f, "allowWatchBookmarks=true&resourceVersion=40&"); /* after a new list */
	assert_int_equal(informer_len(i), 2);
	informer_free(i);
	log_set_level(LOG_INFO);
	fake_free(f);
}

static void answer_unserved(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	reply(s, 404, "404 page not found");
}

static void test_resource_not_served(void **state)
{
	struct fake *f = fake_new(answer_unserved);
	const struct informer_config c = { .client = f->client, .type = &core_v1_pod_type };
	struct informer *i = informer_new(&c);

	assert_int_equal(informer_start(i, NULL), 0);
	assert_true(informer_wait_synced(i, WAIT_MS));
	assert_int_equal(informer_len(i), 0);
	informer_free(i); /* at once, though it rests for minutes */
	fake_free(f);
}

/* Who never starts one needs no client for it. */
static void test_never_started(void **state)
{
	const struct informer_config c = { .type = &core_v1_pod_type };
	struct informer *i = informer_new(&c);

	assert_false(informer_wait_synced(i, 0));
	informer_stop(i);
	informer_free(i);
}

/* ---- kubeconfig ---- */
static void write_file(const char *path, const char *text)
{
	assert_int_equal(file_write_atomic(path, str_of(text), 0600, false, NULL), 0);
}

static void test_kubeconfig(void **state)
{
	struct fake *f = fake_new(answer_refusals);
	char dir[] = "/tmp/kubeconfig-XXXXXX", path[64], token[64];
	struct arena *a CLEAN_ARENA = arena_new(0);
	struct client *c;
	struct core_v1_pod *pod;
	struct err err;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/config", dir);
	snprintf(token, sizeof(token), "%s/token", dir);
	write_file(token, "secret\n");
	write_file(path,
		arena_fmt(a,
			"apiVersion: v1\nkind: Config\ncurrent-context: here\n"
			"clusters:\n- name: other\n  cluster: {server: 'http://127.0.0.1:1'}\n- name: one\n  cluster:\n    server: http://127.0.0.1:%d\n"
			"contexts:\n- name: here\n  context: {cluster: one, user: me}\n"
			"users:\n- name: me\n  user: {tokenFile: '%s'}\n",
			http_server_port(f->server), token)
			.p);
	assert_int_equal(client_from_kubeconfig(path, "test", &c, &err), 0);
	assert_int_equal(
		client_get(c, &core_v1_pod_type, STR("a"), STR("p"), a, (void **)&pod, NULL), 0);
	client_free(c);

	static const struct {
		const char *text, *says;
	} wrong[] = {
		{ "current-context: nowhere\n", "nowhere" },
		{ "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {}}]\n",
			"no server" },
		{ "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: 'https://h'}}]\n"
		  "users: [{name: u, user: {exec: {command: aws}}}]\n",
			"exec plugins" },
		{ "current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
		  "clusters: [{name: c, cluster: {server: 'https://h', certificate-authority-data: '!!'}}]\n",
			"not base64" },
		{ "a: [unclosed\n", "kubeconfig" },
	};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		write_file(path, wrong[i].text);
		assert_true(client_from_kubeconfig(path, "test", &c, &err) < 0);
		if (!strstr(err.text, wrong[i].says))
			fail_msg("row %zu says: %s", i, err.text);
	}
	unlink(path);
	assert_int_equal(client_from_kubeconfig(path, "test", &c, &err), -ENOENT);
	assert_non_null(strstr(err.text, path));
	unlink(token);
	rmdir(dir);
	fake_free(f);
}

/* ---- events ---- */
static void answer_ok(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	reply(s, 200, "{}");
}

static size_t count_logged(struct fake *f, const char *text)
{
	size_t n = 0;

	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; i < MIN(f->n_log, (size_t)64); i++)
		n += strstr(f->log[i], text) != NULL;
	pthread_mutex_unlock(&f->lock);
	return n;
}

static void test_events(void **state)
{
	struct fake *f = fake_new(answer_ok);
	struct event_recorder *r = event_recorder_new(f->client, "tester", "host1"),
			      *other = event_recorder_for(r, "other");
	const struct core_v1_pod pod = {
		.metadata = { .name = STR("p"), .namespace = STR("a"), .uid = STR("u1") }
	};

	for (int i = 0; i < 3; i++)
		event_record(r, &core_v1_pod_type, &pod, "Warning", "BackOff", "Back-off %d", 7);
	event_record(other, &core_v1_pod_type, &pod, "Normal", "Fine", "all is \"well\"");
	await_request(f, "\"count\":3");
	await_request(f, "all is \\\"well\\\"");
	assert_int_equal(count_logged(f, "POST /api/v1/namespaces/a/events"), 2);
	assert_int_equal(count_logged(f, "PATCH /api/v1/namespaces/a/events/p."), 2);
	assert_true(logged(f,
		"\"involvedObject\":{\"kind\":\"Pod\",\"namespace\":\"a\",\"name\":\"p\",\"uid\":\"u1\",\"apiVersion\":\"v1\"}"));
	assert_true(logged(f, "\"source\":{\"component\":\"other\""));
	event_recorder_free(other);
	event_recorder_free(r);
	fake_free(f);
}

static void test_events_do_not_flood(void **state)
{
	struct fake *f = fake_new(answer_ok);
	struct event_recorder *r = event_recorder_new(f->client, "tester", "");
	const struct core_v1_pod pod = {
		.metadata = { .name = STR("p"), .namespace = STR("a"), .uid = STR("u1") }
	};

	for (int i = 0; i < 60; i++)
		event_record(r, &core_v1_pod_type, &pod, "Normal", "Made", "made number %d", i);
	event_recorder_free(r); /* sends what waits */
	assert_int_equal(count_logged(f, "events"), 25);
	assert_int_equal(count_logged(f, "POST"), 10);
	assert_int_equal(count_logged(f, "(combined from similar events): made number"), 16);
	fake_free(f);
}

/* ---- lease ---- */
static void answer_lease(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	char body[512];
	ssize_t at;

	if (str_eqz(q->method, "GET") && !f->version)
		return reply(s, 404,
			"{\"kind\":\"Status\",\"reason\":\"NotFound\",\"message\":\"no lease\",\"code\":404}");
	if (!str_eqz(q->method, "GET")) {
		char version[64];

		snprintf(version, sizeof(version), "\"resourceVersion\":\"%d\"", f->version);
		if (f->version && str_find_str(q->body, str_of(version)) < 0)
			return reply(s, 409,
				"{\"kind\":\"Status\",\"reason\":\"Conflict\",\"message\":\"stale\",\"code\":409}");
		at = str_find_str(q->body, STR("\"holderIdentity\":\""));
		f->holder[0] = 0;
		if (at >= 0)
			sscanf(q->body.p + at, "\"holderIdentity\":\"%63[^\"]", f->holder);
		f->version++;
	}
	snprintf(body, sizeof(body),
		"{\"apiVersion\":\"coordination.k8s.io/v1\",\"kind\":\"Lease\",\"metadata\":{\"name\":\"l\",\"namespace\":\"k\","
		"\"resourceVersion\":\"%d\"},\"spec\":{\"holderIdentity\":\"%s\",\"leaseDurationSeconds\":2}}",
		f->version, f->holder);
	reply(s, 200, body);
}

struct candidate {
	struct fake *f;
	_Atomic int started, stopped;
};

static void on_started(void *arg)
{
	struct candidate *c = arg;

	c->started++;
	pthread_mutex_lock(&c->f->lock);
	pthread_cond_broadcast(&c->f->changed);
	pthread_mutex_unlock(&c->f->lock);
}

static void on_stopped(void *arg)
{
	((struct candidate *)arg)->stopped++;
}

static void await_count(struct fake *f, _Atomic int *n, int want)
{
	uint64_t until = mono_now_ns() + WAIT_MS * 1000000ull;

	pthread_mutex_lock(&f->lock);
	while (*n < want)
		assert_true(cond_wait_until(&f->changed, &f->lock, until));
	pthread_mutex_unlock(&f->lock);
}

static void test_lease(void **state)
{
	struct fake *f = fake_new(answer_lease);
	struct candidate one = { f, 0, 0 }, two = { f, 0, 0 };
	struct lease_config c = { .client = f->client,
		.ns = "k",
		.name = "l",
		.identity = "one",
		.duration_s = 3,
		.renew_s = 2,
		.retry_s = 1,
		.on_started = on_started,
		.on_stopped = on_stopped,
		.arg = &one };
	struct lease *l1, *l2;

	log_set_level(LOG_ERROR);
	assert_int_equal(lease_start(&c, &l1, NULL), 0);
	await_count(f, &one.started, 1);
	c.identity = "two";
	c.arg = &two;
	assert_int_equal(lease_start(&c, &l2, NULL), 0);
	int before = f->version;

	await_request(f, "PUT");
	assert_true(f->version >= before);
	assert_int_equal(two.started, 0);
	lease_stop(l1); /* gives it back: the other need not wait for its end */
	assert_int_equal(one.stopped, 1);
	await_count(f, &two.started, 1);
	assert_string_equal(f->holder, "two");
	/* Someone else takes it by force: every renewal meets a foreign holder. */
	pthread_mutex_lock(&f->lock);
	snprintf(f->holder, sizeof(f->holder), "three");
	f->version += 10;
	pthread_mutex_unlock(&f->lock);
	uint64_t until = mono_now_ns() + WAIT_MS * 1000000ull;

	while (!two.stopped && mono_now_ns() < until)
		sched_yield();
	assert_int_equal(two.stopped, 1);
	lease_stop(l2);
	log_set_level(LOG_INFO);
	fake_free(f);
}

/* A server that takes the renewal and says nothing: the leader's time is over all the same, before another's begins. */
static void answer_lease_once(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	if (!f->version || f->stage)
		return answer_lease(f, s, q);
	http_stream_begin(s, 200, NULL, 0);
	f->watch = http_stream_ref(s);
	f->stage = 1;
}

static void test_lease_hangs(void **state)
{
	struct fake *f = fake_new(answer_lease_once);
	struct candidate one = { f, 0, 0 };
	const struct lease_config c = { .client = f->client,
		.ns = "k",
		.name = "l",
		.identity = "one",
		.duration_s = 3,
		.renew_s = 2,
		.retry_s = 1,
		.on_started = on_started,
		.on_stopped = on_stopped,
		.arg = &one };
	struct lease *l;
	uint64_t began = mono_now_ns();

	log_set_level(LOG_ERROR);
	assert_int_equal(lease_start(&c, &l, NULL), 0);
	await_count(f, &one.started, 1);
	while (!one.stopped && mono_now_ns() - began < 10000000000ull)
		usleep(10000);
	assert_int_equal(one.stopped, 1);
	assert_true(mono_now_ns() - began < 3000000000ull);
	fake_end_watch(f);
	lease_stop(l);
	log_set_level(LOG_INFO);
	fake_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_outcomes),
		cmocka_unit_test(test_requests_on_the_wire),
		cmocka_unit_test(test_informer),
		cmocka_unit_test(test_informer_tries_again),
		cmocka_unit_test(test_server_set_back),
		cmocka_unit_test(test_resource_not_served),
		cmocka_unit_test(test_never_started),
		cmocka_unit_test(test_kubeconfig),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_events_do_not_flood),
		cmocka_unit_test(test_lease),
		cmocka_unit_test(test_lease_hangs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
