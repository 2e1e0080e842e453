/* Many informers of one client, and a server that does not answer, answers again, or refuses. */
#include "client/fake_server.h"

#include <poll.h>

#define MANY 30

struct crowd {
	struct fake *f;
	struct informer *items[MANY];
	/* of the fake's lock */
	size_t watches; /* opened so far */
	uint64_t first_ns, last_ns;
};

static struct crowd the;

/* An empty list and a watch that stays silent. */
static void answer_crowd(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	if (str_find_str(q->query, STR("watch=true")) < 0)
		return reply(s, 200,
			"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}");
	http_stream_begin(s, 200, NULL, 0);
	http_stream_flush(s);
	the.last_ns = mono_now_ns();
	if (!the.watches++)
		the.first_ns = the.last_ns;
}

static void crowd_start(size_t n)
{
	const struct informer_config c = { .client = the.f->client, .type = &core_v1_pod_type };

	for (size_t i = 0; i < n; i++) {
		the.items[i] = informer_new(&c);
		assert_int_equal(informer_start(the.items[i], NULL), 0);
	}
}

static void await_watches(size_t n)
{
	uint64_t until = mono_now_ns() + WAIT_MS * 1000000ull;

	pthread_mutex_lock(&the.f->lock);
	while (the.watches < n)
		if (!cond_wait_until(&the.f->changed, &the.f->lock, until)) {
			pthread_mutex_unlock(&the.f->lock);
			fail_msg("%zu watches of %zu", the.watches, n);
		}
	pthread_mutex_unlock(&the.f->lock);
}

static void crowd_end(void)
{
	for (size_t i = 0; i < MANY; i++)
		informer_free(the.items[i]);
	fake_free(the.f);
	the = (struct crowd){ 0 };
}

/* Takes connections and hangs up, for a while or until there were so many; how many there were. */
static size_t hang_up(unsigned ms, size_t most)
{
	uint64_t until = mono_now_ns() + ms * 1000000ull, now;
	size_t n = 0;

	while (n < most && (now = mono_now_ns()) < until) {
		struct pollfd p = { the.f->listen_fd, POLLIN, 0 };
		int fd = poll(&p, 1, (int)((until - now) / 1000000) + 1) > 0
			? accept4(the.f->listen_fd, NULL, NULL, SOCK_CLOEXEC)
			: -1;

		n += fd >= 0;
		if (fd >= 0)
			close(fd);
	}
	return n;
}

static void test_silence_is_shared(void **state)
{
	the.f = fake_new_silent(answer_crowd);
	log_set_level(LOG_ERROR);
	crowd_start(MANY);
	assert_int_equal(hang_up(WAIT_MS, MANY), MANY); /* each found out for itself */
	/* From now on one of them asks at a time: after 100, 200, 400, 800 ms, then each second. */
	size_t turns = hang_up(4000, SIZE_MAX);

	if (turns < 3 || turns > 9)
		fail_msg("%zu connections in 4 s of silence", turns);
	fake_serve(the.f);
	await_watches(MANY);
	log_set_level(LOG_INFO);
	/* Spread over 300 ms: that all 30 choose the same third of it does not happen. */
	assert_true(the.last_ns - the.first_ns > 100000000);
	assert_false(the.f->client->crew.silent);
	for (size_t i = 0; i < MANY; i++)
		assert_true(informer_wait_synced(the.items[i], 0));
	crowd_end();
}

/* A server that takes connections and says nothing: one whose turn hangs keeps the clock from nobody. */
static void test_hung_turn_holds_nobody_up(void **state)
{
	int fds[4];

	the.f = fake_new_silent(answer_crowd);
	log_set_level(LOG_ERROR);
	crowd_start(MANY);
	assert_int_equal(hang_up(WAIT_MS, MANY), MANY);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
		struct pollfd p = { the.f->listen_fd, POLLIN, 0 };

		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		fds[i] = accept4(the.f->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	}
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
	fake_serve(the.f);
	await_watches(MANY);
	log_set_level(LOG_INFO);
	crowd_end();
}

/* Nobody's turn comes for an hour: only the answer to somebody else can wake them. */
static void test_any_answer_wakes_all(void **state)
{
	struct arena *a CLEAN_ARENA = arena_new(0);
	void *list;

	the.f = fake_new_silent(answer_crowd);
	struct crew *c = &the.f->client->crew;

	log_set_level(LOG_ERROR);
	c->silent = true;
	c->turn_ns = mono_now_ns() + 3600 * 1000000000ull;
	crowd_start(MANY);
	assert_int_equal(hang_up(WAIT_MS, MANY), MANY);
	fake_serve(the.f);
	usleep(300000);
	pthread_mutex_lock(&the.f->lock);
	assert_int_equal(the.f->n_log, 0);
	pthread_mutex_unlock(&the.f->lock);
	assert_int_equal(client_list(the.f->client, &core_v1_node_type, STR_NONE, NULL, NULL, a,
				 &list, NULL),
		0);
	await_watches(MANY);
	log_set_level(LOG_INFO);
	crowd_end();
}

/* Stopping does not wait for a turn, and whoever looked at the clock leaves that to another. */
static void test_stop_while_silent(void **state)
{
	the.f = fake_new_silent(answer_crowd);
	log_set_level(LOG_ERROR);
	crowd_start(MANY);
	assert_int_equal(hang_up(WAIT_MS, MANY), MANY);
	for (size_t i = 1; i < MANY; i++) {
		informer_free(the.items[i]);
		the.items[i] = NULL;
	}
	fake_serve(the.f);
	await_watches(1);
	log_set_level(LOG_INFO);
	crowd_end();
}

static void answer_refusing(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	if (str_eqz(q->path, "/api/v1/nodes"))
		return answer_crowd(f, s, q);
	f->stage++;
	reply(s, f->stage % 2 ? 429 : 500, "no");
}

/* One informer of pods against a server of which all others get what they want: how often it asks in so many seconds. */
static int asked_within(unsigned seconds,
	void (*answer)(struct fake *f, struct http_stream *s, const struct http_request *q))
{
	the.f = fake_new(answer);
	log_set_level(LOG_ERROR);
	crowd_start(1);
	for (uint64_t end = mono_now_ns() + seconds * 1000000000ull; mono_now_ns() < end;
		usleep(2000)) {
		struct arena *a CLEAN_ARENA = arena_new(0);
		void *list;

		assert_int_equal(client_list(the.f->client, &core_v1_node_type, STR_NONE, NULL,
					 NULL, a, &list, NULL),
			0);
	}
	pthread_mutex_lock(&the.f->lock);
	int n = the.f->stage;
	pthread_mutex_unlock(&the.f->lock);
	log_set_level(LOG_INFO);
	crowd_end();
	return n;
}

static void test_refusals_are_backed_off_from(void **state)
{
	/* At 0, 100, 300, 700 and 1,500 ms, a quarter more or less. */
	assert_in_range(asked_within(2, answer_refusing), 3, 6);
}

/* Lists, and has no room for watches. */
static void answer_crowded(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	if (str_find_str(q->query, STR("watch=true")) < 0) {
		f->stage++;
		return answer_crowd(f, s, q);
	}
	the.watches++;
	reply(s, 429, "no");
}

/* A server that is overloaded is not asked for lists on top. */
static void test_overload_is_no_reason_to_list(void **state)
{
	the.f = fake_new(answer_crowded);
	log_set_level(LOG_ERROR);
	crowd_start(1);
	await_watches(5);
	pthread_mutex_lock(&the.f->lock);
	assert_int_equal(the.f->stage, 1);
	pthread_mutex_unlock(&the.f->lock);
	log_set_level(LOG_INFO);
	crowd_end();
}

/* Others are answered, also by the same client; whoever asks for pods is hung up on. */
static void answer_nodes_alone(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	if (str_eqz(q->path, "/api/v1/nodes"))
		return answer_crowd(f, s, q);
	f->stage++;
	http_stream_abort(s);
}

/* That others are answered is no reason to ask at once, again and again, for what breaks the connection. */
static void test_own_trouble_is_backed_off_from(void **state)
{
	/* After 100, 200, 400, 800 and 1,600 ms, a quarter more or less, and at once each time that a kept connection broke. */
	assert_in_range(asked_within(4, answer_nodes_alone), 4, 14);
}

static void abort_stream(struct http_stream *s, void *arg)
{
	http_stream_abort(s);
}

/* Watches 1 to 4 break at once, as does each whose number is asked for. */
static void answer_breaking(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	answer_crowd(f, s, q);
	if (str_find_str(q->query, STR("watch=true")) < 0)
		return;
	if (the.watches <= 4)
		return http_stream_post(s, abort_stream, NULL);
	http_stream_unref(f->watch);
	f->watch = http_stream_ref(s);
}

/* What went wrong before a watch that was good for long is no reason to wait long when it breaks. */
static void test_good_watch_ends_back_off(void **state)
{
	the.f = fake_new(answer_breaking);
	log_set_level(LOG_ERROR);
	crowd_start(1);
	await_watches(5); /* the pauses before it: 100, 200, 400 and 800 ms */
	usleep(1200000);
	uint64_t broken = mono_now_ns();

	pthread_mutex_lock(&the.f->lock);
	http_stream_post(the.f->watch, abort_stream, NULL);
	pthread_mutex_unlock(&the.f->lock);
	await_watches(6);
	log_set_level(LOG_INFO);
	assert_true(the.last_ns - broken < 1000000000);
	crowd_end();
}

/* Events of one length: a little more than an informer takes at a time, and a little more with each watch, so that one of them leaves a rest that is no more
 * in the socket but in the reader. */
#define FLOODS 8
#define EVENT \
	"{\"type\":\"ADDED\",\"object\":{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"p%05d\",\"namespace\":\"x\"," \
	"\"uid\":\"u%05d\",\"resourceVersion\":\"%06d\"}}}\n"

static int flood_events(int which)
{
	return 256 * 1024 / (snprintf(NULL, 0, EVENT, 0, 0, 0)) + 2 + 9 * which;
}

static void write_flood(struct http_stream *s, void *arg)
{
	struct buf out CLEAN_BUF = { 0 };

	for (int k = 0; k < flood_events((int)(intptr_t)arg); k++)
		buf_addf(&out, EVENT, k, k, k + 2);
	http_stream_write(s, arena_str(http_stream_arena(s), buf_str(&out)), NULL, NULL);
	http_stream_flush(s);
}

static void answer_flood(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	answer_crowd(f, s, q);
	if (str_find_str(q->query, STR("watch=true")) >= 0)
		http_stream_post(s, write_flood, (void *)(intptr_t)(the.watches - 1));
}

struct order {
	_Atomic int heard, wrong, inside;
};

static void on_flood(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	struct order *o = arg;
	char name[16];

	snprintf(name, sizeof(name), "p%05d", o->heard);
	o->wrong += o->inside++ || !str_eqz(now->meta->name, name);
	o->inside--;
	o->heard++;
}

/* More than one thread takes at a time, and then silence: all of it is heard, in order, never by two at once. */
static void test_flood(void **state)
{
	struct order orders[FLOODS] = { 0 };
	int sent = 0, heard = 0, wrong = 0;

	the.f = fake_new(answer_flood);
	const struct informer_config c = { .client = the.f->client, .type = &core_v1_pod_type };

	for (int i = 0; i < FLOODS; i++) {
		the.items[i] = informer_new(&c);
		informer_add_handler(the.items[i], on_flood, &orders[i]);
		assert_int_equal(informer_start(the.items[i], NULL), 0);
		sent += flood_events(i);
	}
	uint64_t until = mono_now_ns() + WAIT_MS * 1000000ull;

	while (heard < sent && mono_now_ns() < until) {
		heard = wrong = 0;
		for (int i = 0; i < FLOODS; i++) {
			heard += orders[i].heard;
			wrong += orders[i].wrong;
		}
		usleep(1000);
	}
	assert_int_equal(heard, sent);
	assert_int_equal(wrong, 0);
	crowd_end();
}

#define HUNG 10

static struct http_stream *hung[HUNG];

static void answer_services(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	if (str_eqz(q->path, "/api/v1/services"))
		return answer_crowd(f, s, q);
	if (f->stage < HUNG)
		hung[f->stage++] = http_stream_ref(s);
	else
		reply(s, 500, "no");
}

static void refuse(struct http_stream *s, void *arg)
{
	reply(s, 500, "no");
}

/* More lists that get no answer than a crew has threads for them at first: others get through all the same. */
static void test_hung_lists_hold_nobody_up(void **state)
{
	the.f = fake_new(answer_services);
	const struct informer_config c = { .client = the.f->client, .type = &core_v1_service_type };

	log_set_level(LOG_ERROR);
	crowd_start(HUNG);
	the.items[HUNG] = informer_new(&c);
	assert_int_equal(informer_start(the.items[HUNG], NULL), 0);
	assert_true(informer_wait_synced(the.items[HUNG], WAIT_MS));
	await_watches(1);
	uint64_t until = mono_now_ns() + WAIT_MS * 1000000ull;

	pthread_mutex_lock(&the.f->lock);
	while (the.f->stage < HUNG)
		assert_true(cond_wait_until(&the.f->changed, &the.f->lock, until));
	pthread_mutex_unlock(&the.f->lock);
	for (size_t i = 0; i < HUNG; i++) {
		http_stream_post(hung[i], refuse, NULL);
		http_stream_unref(hung[i]);
	}
	crowd_end();
	log_set_level(LOG_INFO);
}

static _Atomic int blocked;

static void block(
	void *arg, enum informer_event ev, const struct cached *old, const struct cached *now)
{
	blocked++;
	usleep(200000);
	blocked--;
}

static void answer_one_event(struct fake *f, struct http_stream *s, const struct http_request *q)
{
	answer_crowd(f, s, q);
	if (str_find_str(q->query, STR("watch=true")) < 0)
		return;
	http_stream_unref(f->watch);
	f->watch = http_stream_ref(s);
}

/* When stop returns, no handler runs, and none will. */
static void test_stop_waits_for_handler(void **state)
{
	the.f = fake_new(answer_one_event);
	const struct informer_config c = { .client = the.f->client, .type = &core_v1_pod_type };

	the.items[0] = informer_new(&c);
	informer_add_handler(the.items[0], block, NULL);
	assert_int_equal(informer_start(the.items[0], NULL), 0);
	await_watches(1);
	for (int k = 0; k < 3; k++)
		fake_push(the.f, "ADDED",
			"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\",\"namespace\":\"x\",\"uid\":\"u\",\"resourceVersion\":\"2\"}}");
	while (!blocked)
		sched_yield();
	informer_stop(the.items[0]);
	assert_int_equal(blocked, 0);
	crowd_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_silence_is_shared),
		cmocka_unit_test(test_hung_turn_holds_nobody_up),
		cmocka_unit_test(test_any_answer_wakes_all),
		cmocka_unit_test(test_stop_while_silent),
		cmocka_unit_test(test_refusals_are_backed_off_from),
		cmocka_unit_test(test_overload_is_no_reason_to_list),
		cmocka_unit_test(test_own_trouble_is_backed_off_from),
		cmocka_unit_test(test_good_watch_ends_back_off),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_hung_lists_hold_nobody_up),
		cmocka_unit_test(test_stop_waits_for_handler),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
