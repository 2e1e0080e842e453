/* Seats: how many reads and writes may be under way at once. Watches, logs and other long ones need none, nor do system:masters.
 * Upstream: priority and fairness, of which this keeps the bound and the 429. */
#include "apiserver/internal.h"

bool phase_seat(struct request *q)
{
	if (request_is_long_running(&q->info) ||
		str_list_has(&q->user.groups, STR("system:masters")))
		return true;
	bool read =
		!q->info.is_resource || (q->info.verb_bit & (VERB_GET | VERB_LIST | VERB_WATCH));
	_Atomic int *taken = read ? &q->server->reads : &q->server->writes;
	if (atomic_fetch_add(taken, 1) >= (read ? q->server->read_seats : q->server->write_seats)) {
		atomic_fetch_sub(taken, 1);
		respond_reason(q, REASON_TOO_MANY_REQUESTS,
			"The server has received too many requests and has asked us to try again later.");
		return false;
	}
	q->seat = read ? SEAT_READ : SEAT_WRITE;
	return true;
}

void seat_leave(struct request *q)
{
	if (q->seat != SEAT_NONE)
		atomic_fetch_sub(q->seat == SEAT_READ ? &q->server->reads : &q->server->writes, 1);
	q->seat = SEAT_NONE;
}
