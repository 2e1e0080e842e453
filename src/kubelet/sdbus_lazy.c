/* sd-bus of libsystemd on first use: only a node that was given time for its shutdown talks to logind. */
#include "base/lazy.h"
#include "kubelet/internal.h"
#include "kubelet/logind.h"

#include <systemd/sd-bus.h>

#define B sd_bus *b
#define M sd_bus_message *m

static struct lazy library = { "libsystemd.so.0", "libsystemd0", NULL };

int sdbus_load(struct err *err)
{
	return lazy_load(&library, err);
}

/* clang-format off */
LAZY(&library, int, sd_bus_open_system, (sd_bus **ret), (ret))
LAZY(&library, sd_bus *, sd_bus_flush_close_unref, (B), (b))
LAZY(&library, int, sd_bus_get_fd, (B), (b))
LAZY(&library, int, sd_bus_get_events, (B), (b))
LAZY(&library, int, sd_bus_get_timeout, (B, uint64_t *usec), (b, usec))
LAZY(&library, int, sd_bus_process, (B, sd_bus_message **ret), (b, ret))
LAZY(&library, int, sd_bus_flush, (B), (b))
LAZY(&library, int, sd_bus_call, (B, M, uint64_t usec, sd_bus_error *e, sd_bus_message **reply), (b, m, usec, e, reply))
LAZY(&library, int, sd_bus_get_property_trivial, (B, const char *to, const char *path, const char *interface, const char *name, sd_bus_error *e, char type, void *ret),
	(b, to, path, interface, name, e, type, ret))
LAZY(&library, int, sd_bus_match_signal,
	(B, sd_bus_slot **ret, const char *from, const char *path, const char *interface, const char *name, sd_bus_message_handler_t handler, void *arg),
	(b, ret, from, path, interface, name, handler, arg))
LAZY(&library, int, sd_bus_message_new_method_call, (B, sd_bus_message **ret, const char *to, const char *path, const char *interface, const char *name),
	(b, ret, to, path, interface, name))
LAZY(&library, int, sd_bus_message_append_basic, (M, char type, const void *p), (m, type, p))
LAZY(&library, int, sd_bus_message_read_basic, (M, char type, void *p), (m, type, p))
LAZY(&library, sd_bus_message *, sd_bus_message_unref, (M), (m))
LAZY(&library, void, sd_bus_error_free, (sd_bus_error *e), (e))
/* clang-format on */
