/* See pump.c. Both belong to a loop; their owner zeroes them, fills in the first members and closes them before it goes. */
#ifndef SKIFF_KUBELET_PUMP_H
#define SKIFF_KUBELET_PUMP_H

#include <sys/socket.h>

#include "net/net.h"

struct pump_out { /* descriptor -> channel */
	struct loop *loop;
	struct channel_conn **conn; /* the owner's; *conn NULL: nobody listens, nothing is read */
	int channel, fd;
	void (*on_end)(void *arg); /* the descriptor's end was reached; it is closed */
	void *arg;
	struct fd_watch *watch;
};
void pump_out_start(struct pump_out *p);
void pump_out_run(struct pump_out *p);    /* takes what is there now */
void pump_out_resume(struct pump_out *p); /* the client caught up */
void pump_out_close(struct pump_out *p);

struct pump_in { /* bytes -> descriptor */
	struct loop *loop;
	bool is_socket; /* finishing shuts it down for writing and leaves it open to its owner */
	int fd;         /* owned unless a socket */
	bool started, finish, holds;
	struct buf waiting;
	struct fd_watch *watch;
	/* The owner's. While one of its descriptors takes too little, the client is held. */
	struct channel_conn **conn;
	unsigned *n_holds;
};
void pump_in_start(struct pump_in *p, int fd);
void pump_in_add(struct pump_in *p, struct str bytes); /* before the start: kept */
void pump_in_finish(struct pump_in *p);                /* closes once all is written */
void pump_in_run(struct pump_in *p);
void pump_in_close(struct pump_in *p);
#endif
