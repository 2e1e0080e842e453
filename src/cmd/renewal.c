/* The agent's certificates are renewed while it runs: each when two thirds of its life are over, by a request as the node. What fails is tried
 * again, sooner the nearer the end is.
 *
 * The clock may be moved: what is due is looked at anew every hour at the latest. Asking blocks, so a thread does it that lives no longer than that. */
#include "cmd/cmd.h"
#include "io/io.h"

#define LOOK_MS (3600 * 1000ULL)
#define AGAIN_LEAST_MS 1000
#define AGAIN_MOST_MS 60000
#define AGAIN_OVER_MS 5000

struct renewal {
	struct renewal_config c;
	struct timer *timer;
	uint64_t next_ms; /* written by the thread, read on the loop after it */
};

static bool read_certificate(const struct renewal *n, enum agent_credential which, struct buf *ret)
{
	CLEAN_FREE char *path =
		xasprintf("%s/agent/%s.crt", n->c.options->data_dir, join_certificate_name(which));
	struct err err;

	return file_read(path, 1 << 20, ret, &err) == 0;
}

/* Milliseconds until it is due; 0 now. */
static uint64_t due_ms(const struct renewal *n, enum agent_credential which)
{
	CLEAN_BUF struct buf pem = { 0 };

	return read_certificate(n, which, &pem) ? pki_renewal_due_ms(buf_str(&pem)) : 0;
}

/* Seconds of its life that are left; negative when it is over. */
static double left_s(const struct renewal *n, enum agent_credential which)
{
	CLEAN_BUF struct buf pem = { 0 };
	struct timestamp end;
	struct err err;

	return read_certificate(n, which, &pem) && cert_not_after(buf_str(&pem), &end, &err) == 0
		? time_diff_s(end, time_now())
		: -1;
}

/* After a tenth of what is left. */
static uint64_t again_ms(double left)
{
	return left < 0
		? AGAIN_OVER_MS
		: (uint64_t)MIN(MAX(left * 100, (double)AGAIN_LEAST_MS), (double)AGAIN_MOST_MS);
}

static uint64_t renew_one(struct renewal *n, enum agent_credential which)
{
	const char *name = join_certificate_name(which);
	struct err err = { 0 };
	uint64_t due = due_ms(n, which);
	int r;

	if (due)
		return due;
	/* A node whose certificate is over cannot ask as itself: it joins anew, or says what that needs. */
	if (which == CREDENTIAL_NODE && left_s(n, which) <= 0)
		r = join_client_certificate(n->c.options, &err);
	else
		r = join_certificate(n->c.options, which, n->c.node_client, &err);
	if (r == 0)
		r = n->c.on_renewed(n->c.arg, which, &err);
	if (r == 0) {
		log_info("agent", "certificate %s.crt was renewed", name);
		due = due_ms(n, which);
		if (due)
			return due;
		log_warn("agent",
			"by the clock of this machine the new certificate %s.crt is due already: compare it with the server's",
			name);
		return AGAIN_MOST_MS;
	}
	due = again_ms(left_s(n, which));
	log_warn("agent", "certificate %s.crt is not renewed yet: %s; tried again in %llu s", name,
		err.text, (unsigned long long)due / 1000);
	return due;
}

static void arm(void *arg)
{
	struct renewal *n = arg;

	timer_start(n->timer, MIN(n->next_ms, LOOK_MS), 0);
}

static void *renew(void *arg)
{
	struct renewal *n = arg;
	uint64_t next = LOOK_MS;

	for (int i = 0; i < N_CREDENTIALS; i++) {
		uint64_t due = renew_one(n, (enum agent_credential)i);

		next = MIN(next, due);
	}
	n->next_ms = next;
	loop_post(n->c.loop, arm, n);
	return NULL;
}

static void on_timer(void *arg)
{
	struct renewal *n = arg;
	uint64_t next = LOOK_MS;
	pthread_t thread;

	for (int i = 0; i < N_CREDENTIALS; i++)
		next = MIN(next, due_ms(n, (enum agent_credential)i));
	n->next_ms = next ? next : AGAIN_LEAST_MS;
	if (!next && thread_start(&thread, "renewal", renew, n) == 0)
		pthread_detach(thread);
	else
		arm(n);
}

void renewal_start(const struct renewal_config *c)
{
	struct renewal *n = xcalloc(1, sizeof(*n)); /* lives as long as the process */

	n->c = *c;
	n->timer = timer_new(c->loop, on_timer, n);
	timer_start(n->timer, 0, 0);
}
