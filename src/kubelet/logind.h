/* What the kubelet asks of systemd-logind over the system bus: that a shutdown waits, and to hear of it. One thread uses it. */
#ifndef SKIFF_KUBELET_LOGIND_H
#define SKIFF_KUBELET_LOGIND_H

#include <poll.h>

#include "base/base.h"

struct logind;
/* true: the machine goes down; false: it does not after all. */
typedef void (*logind_fn)(void *arg, bool shuts_down);

int sdbus_load(struct err *err);
/* -errno: no library, no bus, or nobody there who answers to logind's name. */
int logind_open(logind_fn fn, void *arg, struct logind **ret, struct err *err);
void logind_close(struct logind *l); /* NULL is fine */
/* A descriptor that holds a shutdown up for as long as it is open, at most for logind's longest delay. */
int logind_inhibit(struct logind *l, int *ret_fd, struct err *err);
/* Logind's longest delay is made as long as is needed, by a file of its configuration, when it is not. */
int logind_allow_delay(struct logind *l, uint64_t seconds, struct err *err);
bool logind_shuts_down(struct logind *l); /* just now */
/* What to wait for, and at most for how long (-1: for ever). */
int logind_poll(struct logind *l, struct pollfd *ret, int *ret_timeout_ms);
int logind_process(struct logind *l); /* calls fn for what came; < 0: the connection is gone */

#endif
