/* For tests: an API server of the smallest kind, over plain HTTP on loopback. Objects are JSON trees by path; lists take a field selector on
 * spec.nodeName or metadata.name, watches send every later change, patches merge (conditions by type). No validation, no defaults. */
#ifndef SKIFF_KUBELET_TEST_API_H
#define SKIFF_KUBELET_TEST_API_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <time.h>

#include "client/client.h"
#include "codec/codec.h"
#include "kubelet/internal.h"

struct test_watch {
	struct list node;
	struct http_stream *stream;
	char *collection, *selector;
	bool closed;
};

struct test_event {
	char *path, *json;
	const char *type;
	long revision;
};

struct test_api {
	struct loop *loop;
	struct http_server *server;
	struct client *client;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	struct map objects; /* path -> JSON text (owned) */
	struct list watches;
	struct test_event *log; /* all that ever happened */
	size_t n_log;
	long revision;
	unsigned patches, deletes;
};

static struct value test_tree(struct arena *a, const char *json)
{
	struct value v = { 0 };
	struct err err;

	if (json_parse(str_of(json), a, &v, &err))
		fail_msg("%s in %s", err.text, json);
	return v;
}

/* a.b[2].c */
static const struct value *test_at(const struct value *v, const char *path)
{
	struct str rest = str_of(path), part;

	while (rest.len && v) {
		str_cut(rest, '.', &part, &rest);
		struct str key, index;
		bool list = str_cut(part, '[', &key, &index);
		v = v->kind == VALUE_OBJECT ? value_get(v, key) : NULL;
		if (list && v) {
			size_t i = (size_t)strtoul(index.p, NULL, 10);
			v = v->kind == VALUE_LIST && i < v->list.len ? &v->list.items[i] : NULL;
		}
	}
	return v;
}

static UNUSED const char *test_text(const struct value *v, const char *path)
{
	const struct value *x = test_at(v, path);

	return x && x->kind == VALUE_TEXT ? x->text.p : "";
}

static UNUSED int64_t test_int(const struct value *v, const char *path)
{
	const struct value *x = test_at(v, path);

	return x && x->kind == VALUE_INT ? x->integer : -1;
}

static bool test_selected(const struct value *v, const char *selector)
{
	struct str s = str_of(selector), key, want;

	if (!selector || !*selector || !str_cut(s, '=', &key, &want))
		return true;
	CLEAN_FREE char *path = str_dup(key);
	return str_eqz(want, test_text(v, path));
}

static void test_send(struct test_watch *w, const struct test_event *e)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct value v = test_tree(a, e->json);
	/* /api/v1/pods sees /api/v1/namespaces/X/pods/NAME too */
	const char *slash = strrchr(w->collection, '/'), *in = strstr(e->path, slash);

	if (w->closed || !in || in[strlen(slash)] != '/' || !test_selected(&v, w->selector))
		return;
	CLEAN_BUF struct buf b = { 0 };
	buf_addf(&b, "{\"type\":\"%s\",\"object\":%s}\n", e->type, e->json);
	http_stream_write(
		w->stream, arena_str(http_stream_arena(w->stream), buf_str(&b)), NULL, NULL);
	http_stream_flush(w->stream);
}

static void test_tell(struct test_api *t, const char *path, const char *type, const char *json)
{
	t->log = xrealloc(t->log, (t->n_log + 1) * sizeof(*t->log));
	struct test_event *e = &t->log[t->n_log++];
	*e = (struct test_event){ xstrdup(path), xstrdup(json), type, t->revision };
	list_for_each(it, &t->watches)
		test_send(list_entry(it, struct test_watch, node), e);
}

/* On the loop. json NULL: removed. */
static void test_store(struct test_api *t, const char *path, const char *json)
{
	pthread_mutex_lock(&t->lock);
	if (!json)
		t->revision++;
	char *old = json ? map_set(&t->objects, str_of(path), xstrdup(json))
			 : map_remove(&t->objects, str_of(path));
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
	if (json || old)
		test_tell(t, path,
			!json         ? "DELETED"
				: old ? "MODIFIED"
				      : "ADDED",
			json ? json : old);
	free(old);
}

static char *test_stamp(struct test_api *t, struct arena *a, struct value *v, bool fresh)
{
	CLEAN_BUF struct buf b = { 0 };
	struct value *m = value_get(v, STR("metadata"));
	char uid[UUID_TEXT];

	if (!m) {
		m = value_set(a, v, STR("metadata"));
		*m = (struct value){ .kind = VALUE_OBJECT };
	}
	*value_set(a, m, STR("resourceVersion")) =
		(struct value){ .kind = VALUE_TEXT, .text = arena_fmt(a, "%ld", ++t->revision) };
	if (fresh && !*test_text(v, "metadata.uid")) {
		uuid_v4(uid);
		*value_set(a, m, STR("uid")) =
			(struct value){ .kind = VALUE_TEXT, .text = arena_strz(a, uid) };
	}
	json_write(v, &b);
	return buf_take(&b);
}

static void test_answer(struct http_stream *s, int code, const char *json)
{
	struct arena *a = http_stream_arena(s);
	struct http_header h = { STR("content-type"), STR("application/json") };

	http_respond(s, code, arena_memdup(a, &h, sizeof(h)), 1, arena_strz(a, json), NULL, NULL);
}

static void test_refuse(struct http_stream *s, int code, const char *reason)
{
	CLEAN_BUF struct buf b = { 0 };

	buf_addf(&b,
		"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"reason\":\"%s\",\"message\":\"%s\",\"code\":%d}",
		reason, reason, code);
	test_answer(s, code, b.p);
}

static void test_watch_closed(struct http_stream *s, void *arg)
{
	struct test_watch *w = arg;

	w->closed = true;
}

static void test_begin_watch(struct test_api *t, struct http_stream *s, const char *collection,
	const char *selector, long since)
{
	static const struct http_header type = { { "content-type", 12 },
		{ "application/json", 16 } };
	struct test_watch *w = xcalloc(1, sizeof(*w));

	w->stream = http_stream_ref(s);
	w->collection = xstrdup(collection);
	w->selector = xstrdup(selector ? selector : "");
	list_insert(&t->watches, &w->node);
	http_stream_on_close(s, test_watch_closed, w);
	http_stream_begin(s, 200, &type, 1);
	http_stream_flush(s);
	for (size_t i = 0; i < t->n_log; i++)
		if (t->log[i].revision > since)
			test_send(w, &t->log[i]);
}

static void test_list(
	struct test_api *t, struct http_stream *s, const char *collection, const char *selector)
{
	CLEAN_BUF struct buf b = { 0 };
	CLEAN_ARENA struct arena *a = arena_new(0);
	const char *slash = strrchr(collection, '/');
	struct str key;
	void *json;
	size_t i = 0, n = 0;

	buf_addf(&b,
		"{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"%ld\"},\"items\":[",
		t->revision);
	while (map_next(&t->objects, &i, &key, &json)) {
		CLEAN_FREE char *path = str_dup(key);
		const char *in = strstr(path, slash);
		struct value v = test_tree(a, json);
		if (!in || in[strlen(slash)] != '/' || !test_selected(&v, selector))
			continue;
		buf_addf(&b, "%s%s", n++ ? "," : "", (char *)json);
	}
	buf_addz(&b, "]}");
	test_answer(s, 200, b.p);
}

/* One condition: put in the place of its namesake, or taken out by {"$patch":"delete"}. */
static void test_condition(struct arena *a, struct value *list, const struct value *c)
{
	struct value *items = list->list.items, *same = NULL;

	for (size_t k = 0; k < list->list.len; k++)
		if (!strcmp(test_text(&items[k], "type"), test_text(c, "type")))
			same = &items[k];
	if (!value_get(c, STR("$patch")))
		*(same ? same : value_append(a, list)) = value_copy(a, c);
	else if (same)
		*same = items[--list->list.len];
}

static void test_merge(struct arena *a, struct value *to, const struct value *from)
{
	for (size_t i = 0; i < from->object.len; i++) {
		const struct value_member *m = &from->object.members[i];
		struct value *old = value_get(to, m->key);
		if (m->value.kind == VALUE_NULL) {
			value_remove(to, m->key);
		} else if (old && old->kind == VALUE_OBJECT && m->value.kind == VALUE_OBJECT) {
			test_merge(a, old, &m->value);
		} else if (old && old->kind == VALUE_LIST && str_eqz(m->key, "conditions")) {
			for (size_t j = 0; j < m->value.list.len; j++)
				test_condition(a, old, &m->value.list.items[j]);
		} else {
			struct value copy = value_copy(a, &m->value);
			/* a directive among items is for merging only */
			if (copy.kind == VALUE_LIST && copy.list.len &&
				value_get(&copy.list.items[copy.list.len - 1], STR("$patch")))
				copy.list.len--;
			*value_set(a, to, m->key) = copy;
		}
	}
}

static void test_token(struct http_stream *s)
{
	CLEAN_BUF struct buf b = { 0 }, payload = { 0 }, text = { 0 };

	buf_addf(&text, "{\"iat\":%lld}", (long long)time_now().sec);
	base64url_encode(&payload, text.p, text.len);
	buf_addf(&b,
		"{\"kind\":\"TokenRequest\",\"apiVersion\":\"authentication.k8s.io/v1\",\"metadata\":{},\"spec\":{\"audiences\":null},"
		"\"status\":{\"token\":\"h.%s.s\","
		"\"expirationTimestamp\":\"2099-01-01T00:00:00Z\"}}",
		payload.p);
	test_answer(s, 201, b.p);
}

static void test_on_request(void *arg, struct http_stream *s)
{
	struct test_api *t = arg;
	const struct http_request *q = http_stream_request(s);
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct str rest = q->query, key, value, selector = STR("");
	CLEAN_FREE char *path = str_dup(q->path);
	bool watch = false;
	long since = 0;

	while (url_query_next(&rest, a, &key, &value)) {
		if (str_eqz(key, "watch"))
			watch = true;
		if (str_eqz(key, "fieldSelector"))
			selector = value;
		if (str_eqz(key, "resourceVersion"))
			since = atol(value.p);
	}
	if (str_has_suffix(q->path, STR("/token"))) {
		test_token(s);
		return;
	}
	if (str_has_suffix(q->path, STR("/status")))
		path[strlen(path) - 7] = 0;
	const char *have = map_get(&t->objects, str_of(path));
	if (str_eqz(q->method, "GET")) {
		const char *last = strrchr(path, '/') + 1;
		static const char *const collections[] = { "pods", "services", "nodes", "events",
			"leases" };
		for (size_t i = 0; i < ARRAY_LEN(collections); i++)
			if (!strcmp(last, collections[i])) {
				if (watch)
					test_begin_watch(t, s, path, selector.p, since);
				else
					test_list(t, s, path, selector.p);
				return;
			}
		if (have)
			test_answer(s, 200, have);
		else
			test_refuse(s, 404, "NotFound");
		return;
	}
	CLEAN_FREE char *body = str_dup(q->body), *json = NULL;
	struct value v = *body ? test_tree(a, body) : (struct value){ .kind = VALUE_OBJECT };
	if (str_eqz(q->method, "POST")) {
		CLEAN_FREE char *full = xasprintf("%s/%s", path, test_text(&v, "metadata.name"));
		if (map_get(&t->objects, str_of(full))) {
			test_refuse(s, 409, "AlreadyExists");
			return;
		}
		json = test_stamp(t, a, &v, true);
		test_store(t, full, json);
		test_answer(s, 201, json);
		return;
	}
	if (!have) {
		test_refuse(s, 404, "NotFound");
		return;
	}
	if (str_eqz(q->method, "DELETE")) {
		t->deletes++;
		CLEAN_FREE char *copy = xstrdup(have);
		test_store(t, path, NULL);
		test_answer(s, 200, copy);
		return;
	}
	if (str_eqz(q->method, "PATCH")) {
		struct value now = test_tree(a, arena_strz(a, have).p);
		t->patches++;
		test_merge(a, &now, &v);
		v = now;
	}
	json = test_stamp(t, a, &v, false);
	test_store(t, path, json);
	test_answer(s, 200, json);
}

static UNUSED void test_api_start(struct test_api *t)
{
	struct err err = { "" };
	struct http_client *http;
	char url[64];

	*t = (struct test_api){ .lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER };
	list_init(&t->watches);
	assert_int_equal(loop_new("api", &t->loop, &err), 0);
	assert_int_equal(loop_start(t->loop, &err), 0);
	struct http_server_config c = { .loops = &t->loop,
		.n_loops = 1,
		.address = "127.0.0.1",
		.handler = { .on_request = test_on_request, .arg = t } };
	if (http_server_start(&c, &t->server, &err))
		fail_msg("%s", err.text);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d", http_server_port(t->server));
	assert_int_equal(http_client_new(url, NULL, &http, &err), 0);
	struct client_config cc = {
		.http = http, .user_agent = "test", .field_manager = "kubelet"
	};
	t->client = client_new(&cc);
}

static UNUSED void test_api_stop(struct test_api *t)
{
	client_free(t->client); /* its connections close: the server need not wait for them */
	http_server_stop(t->server);
	loop_stop(t->loop);
	loop_join(t->loop);
	list_for_each(it, &t->watches) {
		struct test_watch *w = list_entry(it, struct test_watch, node);
		http_stream_unref(w->stream);
		free(w->collection);
		free(w->selector);
		free(w);
	}
	loop_free(t->loop);
	map_deinit(&t->objects, free);
	for (size_t i = 0; i < t->n_log; i++) {
		free(t->log[i].path);
		free(t->log[i].json);
	}
	free(t->log);
}

struct test_change {
	struct test_api *t;
	const char *path, *json;
	bool done;
};

static void test_change_on_loop(void *arg)
{
	struct test_change *c = arg;

	if (c->json) {
		CLEAN_ARENA struct arena *a = arena_new(0);
		struct value v = test_tree(a, c->json);
		CLEAN_FREE char *json = test_stamp(c->t, a, &v, true);
		test_store(c->t, c->path, json);
	} else {
		test_store(c->t, c->path, NULL);
	}
	pthread_mutex_lock(&c->t->lock);
	c->done = true;
	pthread_cond_broadcast(&c->t->changed);
	pthread_mutex_unlock(&c->t->lock);
}

/* Writes an object as if somebody else did; json NULL: removes it. */
static UNUSED void test_put(struct test_api *t, const char *path, const char *json)
{
	struct test_change c = { t, path, json, false };

	loop_post(t->loop, test_change_on_loop, &c);
	pthread_mutex_lock(&t->lock);
	while (!c.done)
		pthread_cond_wait(&t->changed, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

/* Waits for an object that pleases `fn`; json in the arena. NULL of fn: that it is gone. Fails the test after 5 s. */
typedef bool (*test_pred)(const struct value *v, const void *arg);
static UNUSED struct value test_await(struct test_api *t, const char *path, test_pred fn,
	const void *arg, struct arena *a, const char *what)
{
	struct timespec until;
	struct value v = { 0 };

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 5;
	pthread_mutex_lock(&t->lock);
	for (;;) {
		const char *json = map_get(&t->objects, str_of(path));
		if (!fn && !json)
			break;
		if (fn && json) {
			v = test_tree(a, arena_strz(a, json).p);
			if (fn(&v, arg))
				break;
		}
		if (pthread_cond_timedwait(&t->changed, &t->lock, &until)) {
			pthread_mutex_unlock(&t->lock);
			fail_msg("never came: %s; %s is %s", what, path, json ? json : "not there");
		}
	}
	pthread_mutex_unlock(&t->lock);
	return v;
}

#endif
