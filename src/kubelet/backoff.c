/* Back-off of restarts and pulls: 10 s, doubling to 5 min; forgotten when what failed had been at peace for 10 min. Upstream:
 * client-go's flowcontrol.Backoff as the kubelet uses it: the first restart is free, and each restart sets the wait of the next one. */
#include "kubelet/internal.h"

static bool expired(const struct backoff *b, uint64_t event_ns)
{
	return event_ns > b->since_ns && event_ns - b->since_ns > 2 * BACKOFF_MAX_NS;
}

uint64_t backoff_until(const struct backoff *b, uint64_t event_ns)
{
	if (!b->delay_ns || expired(b, event_ns))
		return 0;
	return event_ns + b->delay_ns;
}

void backoff_next(struct backoff *b, uint64_t event_ns)
{
	if (!b->delay_ns || expired(b, event_ns))
		b->delay_ns = BACKOFF_FIRST_NS;
	else
		b->delay_ns = MIN(b->delay_ns * 2, BACKOFF_MAX_NS);
	b->since_ns = event_ns;
}
