/* Whether the server answers at all, as those who ask it through one client find out together. Upstream has each informer back off alone.
 *
 * While it is silent, those who wait share one back-off: each time it is over, one of them asks, with what it wants anyway. An answer of any
 * kind to anybody ends the silence for all.
 *
 * 1. The first turn comes 100 ms after the silence began, the next ones after twice as long each, at last each second; a quarter more or less, by
 *    chance. Turns do not wait for each other: one whose connection hangs holds nobody up.
 * 2. One of those who wait looks at the clock, the others sleep. Who leaves wakes one who does so next.
 * 3. What a server answers is no matter of this file: whoever is refused backs off alone. */
#include "client/internal.h"

#include "io/io.h"

#define TURN_FIRST_MS 100
#define TURN_MOST_MS 1000

void reach_init(struct reach *r)
{
	pthread_mutex_init(&r->lock, NULL);
	cond_init_mono(&r->changed);
}

void reach_deinit(struct reach *r)
{
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
}

uint64_t reach_chance(uint64_t ms)
{
	uint32_t chance;

	random_bytes(&chance, sizeof(chance));
	return ms * chance >> 32;
}

uint64_t reach_about(uint64_t ms)
{
	return ms - ms / 4 + reach_chance(ms / 2);
}

bool reach_is_silent(struct reach *r)
{
	return atomic_load_explicit(&r->silent, memory_order_acquire);
}

void reach_answered(struct reach *r)
{
	if (!reach_is_silent(r))
		return;
	pthread_mutex_lock(&r->lock);
	atomic_store_explicit(&r->silent, false, memory_order_release);
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

bool reach_failed(struct reach *r)
{
	pthread_mutex_lock(&r->lock);
	bool first = !reach_is_silent(r);

	if (first) {
		r->pause_ms = TURN_FIRST_MS;
		r->turn_ns = mono_now_ns() + reach_about(TURN_FIRST_MS) * 1000000;
		atomic_store_explicit(&r->silent, true, memory_order_release);
	}
	pthread_mutex_unlock(&r->lock);
	return first;
}

static bool take_turn(struct reach *r)
{
	uint64_t now = mono_now_ns();

	if (now < r->turn_ns)
		return false;
	r->pause_ms = MIN(r->pause_ms * 2, (uint64_t)TURN_MOST_MS);
	r->turn_ns = now + reach_about(r->pause_ms) * 1000000;
	return true;
}

bool reach_wait(struct reach *r, bool (*stopping)(void *arg), void *arg)
{
	bool turn = false;

	pthread_mutex_lock(&r->lock);
	while (reach_is_silent(r) && !stopping(arg) && !(turn = take_turn(r))) {
		if (r->clock_watched) {
			pthread_cond_wait(&r->changed, &r->lock);
			continue;
		}
		r->clock_watched = true;
		cond_wait_until(&r->changed, &r->lock, r->turn_ns);
		r->clock_watched = false;
	}
	if (!r->clock_watched)
		pthread_cond_signal(&r->changed);
	pthread_mutex_unlock(&r->lock);
	return turn;
}

void reach_nudge(struct reach *r)
{
	pthread_mutex_lock(&r->lock);
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}
