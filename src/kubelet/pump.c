/* Bytes between a descriptor and a channel of an upgraded connection, both ways, on the connection's loop.
 * 1. A descriptor is read while the client keeps up; when it went away, no more: the writer waits, as for any reader who is slow.
 * 2. What a descriptor does not take waits in a buffer; when that holds WAITING_MAX, the client waits too. */
#include <fcntl.h>

#include "kubelet/pump.h"

#define BLOCK (32 * 1024)
#define PENDING_MAX (256 * 1024)
#define WAITING_MAX (256 * 1024)

static void on_readable(void *arg, int events)
{
	struct pump_out *p = arg;

	pump_out_run(p);
}

static void watch(struct pump_out *p)
{
	struct err err;

	if (!p->watch && p->fd >= 0 &&
		fd_watch_new(p->loop, p->fd, IO_READ, on_readable, p, &p->watch, &err))
		p->watch = NULL;
}

void pump_out_start(struct pump_out *p)
{
	if (p->fd < 0)
		return;
	fcntl(p->fd, F_SETFL, fcntl(p->fd, F_GETFL) | O_NONBLOCK);
	watch(p);
}

static void end(struct pump_out *p)
{
	pump_out_close(p);
	if (p->on_end)
		p->on_end(p->arg);
}

void pump_out_run(struct pump_out *p)
{
	char block[BLOCK];

	while (p->fd >= 0) {
		if (!*p->conn || channel_pending(*p->conn) > PENDING_MAX) {
			if (p->watch)
				fd_watch_free(p->watch);
			p->watch = NULL;
			return; /* until pump_out_resume, or for good */
		}
		ssize_t n = read(p->fd, block, sizeof(block));
		if (n > 0) {
			channel_write(*p->conn, p->channel, str_n(block, (size_t)n));
		} else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			watch(p);
			return;
		} else {
			end(p);
			return;
		}
	}
}

void pump_out_resume(struct pump_out *p)
{
	if (p->fd >= 0 && !p->watch)
		pump_out_run(p);
}

void pump_out_close(struct pump_out *p)
{
	if (p->watch)
		fd_watch_free(p->watch);
	p->watch = NULL;
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

/* ---- towards a descriptor ---- */

static void on_writable(void *arg, int events)
{
	pump_in_run(arg);
}

/* Is there more than should wait here? Then the client waits. */
static void pace(struct pump_in *p)
{
	bool hold = p->waiting.len > WAITING_MAX;

	if (hold == p->holds)
		return;
	p->holds = hold;
	*p->n_holds += hold ? 1 : -1;
	if (*p->conn)
		channel_hold(*p->conn, *p->n_holds > 0);
}

void pump_in_start(struct pump_in *p, int fd)
{
	p->fd = fd;
	p->started = true;
	if (fd >= 0)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	pump_in_run(p);
}

void pump_in_add(struct pump_in *p, struct str bytes)
{
	if (p->started && p->fd < 0)
		return;
	buf_add_str(&p->waiting, bytes);
	pump_in_run(p);
	pace(p); /* also before the start */
}

void pump_in_finish(struct pump_in *p)
{
	p->finish = true;
	pump_in_run(p);
}

void pump_in_run(struct pump_in *p)
{
	struct err err;
	size_t done = 0;

	if (!p->started)
		return;
	while (p->fd >= 0 && done < p->waiting.len) {
		ssize_t n = p->is_socket
			? send(p->fd, p->waiting.p + done, p->waiting.len - done, MSG_NOSIGNAL)
			: write(p->fd, p->waiting.p + done, p->waiting.len - done);
		if (n > 0) {
			done += (size_t)n;
		} else if (n < 0 && errno == EINTR) {
			continue;
		} else if (n < 0 && errno == EAGAIN) {
			if (!p->watch &&
				fd_watch_new(
					p->loop, p->fd, IO_WRITE, on_writable, p, &p->watch, &err))
				p->watch = NULL;
			break;
		} else {
			done = p->waiting.len; /* nobody reads */
			p->finish = true;
		}
	}
	if (done) /* the buffer may be none at all */
		memmove(p->waiting.p, p->waiting.p + done, p->waiting.len - done);
	p->waiting.len -= done;
	pace(p);
	if (p->waiting.len)
		return;
	if (p->watch)
		fd_watch_free(p->watch);
	p->watch = NULL;
	if (p->finish && p->fd >= 0) {
		if (p->is_socket)
			shutdown(p->fd, SHUT_WR);
		else
			close(p->fd);
		p->fd = -1;
	}
}

void pump_in_close(struct pump_in *p)
{
	if (p->watch)
		fd_watch_free(p->watch);
	p->watch = NULL;
	if (p->fd >= 0 && !p->is_socket)
		close(p->fd);
	p->fd = -1;
	p->started = true;
	buf_deinit(&p->waiting);
	pace(p);
}
