/* logind by sd-bus. Interface: https://systemd.io/INHIBITOR_LOCKS and org.freedesktop.login1(5). */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>

#include "io/io.h"
#include "kubelet/internal.h"
#include "kubelet/logind.h"

#include <systemd/sd-bus.h>

#define SERVICE "org.freedesktop.login1"
#define OBJECT "/org/freedesktop/login1"
#define MANAGER "org.freedesktop.login1.Manager"
#define CONFIG_DIR "/etc/systemd/logind.conf.d"
#define CALL_US (5 * 1000000ull)
#define REREAD_MS 100
#define REREADS 30

struct logind {
	sd_bus *bus;
	logind_fn fn;
	void *arg;
};

static int on_signal(sd_bus_message *m, void *arg, sd_bus_error *e)
{
	struct logind *l = arg;
	int shuts_down = 0;

	if (sd_bus_message_read_basic(m, 'b', &shuts_down) > 0)
		l->fn(l->arg, shuts_down);
	return 0;
}

static int failed(struct err *err, int r, sd_bus_error *e, const char *what)
{
	if (e->message)
		r = err_set(err, r, "%s: %s", what, e->message);
	else
		r = err_errno(err, r, "%s", what);
	sd_bus_error_free(e);
	return r;
}

static int longest_delay(struct logind *l, uint64_t *ret_us, struct err *err)
{
	sd_bus_error e = { 0 };
	int r = sd_bus_get_property_trivial(
		l->bus, SERVICE, OBJECT, MANAGER, "InhibitDelayMaxUSec", &e, 't', ret_us);

	return r < 0 ? failed(err, r, &e, "cannot ask systemd-logind for its longest delay") : 0;
}

int logind_open(logind_fn fn, void *arg, struct logind **ret, struct err *err)
{
	struct logind *l;
	sd_bus *bus;
	uint64_t us;
	int r = sdbus_load(err);

	if (r < 0)
		return r;
	r = sd_bus_open_system(&bus);
	if (r < 0)
		return err_errno(err, r, "cannot reach the system bus");
	l = xcalloc(1, sizeof(*l));
	*l = (struct logind){ bus, fn, arg };
	r = sd_bus_match_signal(
		bus, NULL, SERVICE, OBJECT, MANAGER, "PrepareForShutdown", on_signal, l);
	if (r < 0)
		err_errno(err, r, "cannot listen to systemd-logind");
	else
		r = longest_delay(l, &us, err); /* that it is there */
	if (r < 0) {
		logind_close(l);
		return r;
	}
	*ret = l;
	return 0;
}

void logind_close(struct logind *l)
{
	if (!l)
		return;
	sd_bus_flush_close_unref(l->bus);
	free(l);
}

int logind_inhibit(struct logind *l, int *ret_fd, struct err *err)
{
	static const char *const words[] = { "shutdown", "skiff",
		"pods of this node are given time to end", "delay" };
	sd_bus_message *call = NULL, *reply = NULL;
	sd_bus_error e = { 0 };
	int fd = -1,
	    r = sd_bus_message_new_method_call(l->bus, &call, SERVICE, OBJECT, MANAGER, "Inhibit");

	for (size_t i = 0; r >= 0 && i < ARRAY_LEN(words); i++)
		r = sd_bus_message_append_basic(call, 's', words[i]);
	if (r >= 0)
		r = sd_bus_call(l->bus, call, CALL_US, &e, &reply);
	if (r >= 0)
		r = sd_bus_message_read_basic(reply, 'h', &fd);
	if (r >= 0) /* the message owns its own */
		r = fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (r < 0)
		r = failed(err, r == -1 ? -errno : r, &e, "systemd-logind gives no delay");
	sd_bus_message_unref(call);
	sd_bus_message_unref(reply);
	if (r < 0)
		return r;
	*ret_fd = fd;
	return 0;
}

/* Tells systemd to have logind read its configuration. */
static int reload(struct logind *l, struct err *err)
{
	sd_bus_message *call = NULL, *reply = NULL;
	sd_bus_error e = { 0 };
	int32_t signal_hup = 1;
	int r = sd_bus_message_new_method_call(l->bus, &call, "org.freedesktop.systemd1",
		"/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "KillUnit");

	if (r >= 0)
		r = sd_bus_message_append_basic(call, 's', "systemd-logind.service");
	if (r >= 0)
		r = sd_bus_message_append_basic(call, 's', "all");
	if (r >= 0)
		r = sd_bus_message_append_basic(call, 'i', &signal_hup);
	if (r >= 0)
		r = sd_bus_call(l->bus, call, CALL_US, &e, &reply);
	if (r < 0)
		failed(err, r, &e, "cannot have systemd-logind read its configuration");
	sd_bus_message_unref(call);
	sd_bus_message_unref(reply);
	return MIN(r, 0);
}

int logind_allow_delay(struct logind *l, uint64_t seconds, struct err *err)
{
	CLEAN_FREE char *text = xasprintf(
		"# Written by skiff: the pods of this node are given so much time when it shuts down.\n[Login]\nInhibitDelayMaxSec=%llu\n",
		(unsigned long long)seconds);
	uint64_t us;
	int r = longest_delay(l, &us, err);

	if (r < 0 || us >= seconds * 1000000)
		return r;
	r = dir_make(CONFIG_DIR, 0755, err);
	if (r == 0)
		r = file_write_atomic(KUBELET_LOGIND_CONFIG, str_of(text), 0644, false, err);
	if (r == 0)
		r = reload(l, err);
	/* It says nothing when it has read it. */
	for (int i = 0; r == 0 && us < seconds * 1000000 && i < REREADS; i++) {
		nanosleep(&(struct timespec){ .tv_nsec = REREAD_MS * 1000000 }, NULL);
		r = longest_delay(l, &us, err);
	}
	if (r == 0 && us < seconds * 1000000)
		r = err_set(err, -EPERM,
			"systemd-logind delays a shutdown by %llu s at most, whatever " KUBELET_LOGIND_CONFIG
			" says: another file there sets InhibitDelayMaxSec",
			(unsigned long long)us / 1000000);
	return r;
}

bool logind_shuts_down(struct logind *l)
{
	int shuts_down = 0;

	return sd_bus_get_property_trivial(l->bus, SERVICE, OBJECT, MANAGER, "PreparingForShutdown",
		       NULL, 'b', &shuts_down) >= 0 &&
		shuts_down;
}

int logind_poll(struct logind *l, struct pollfd *ret, int *ret_timeout_ms)
{
	uint64_t until_us, now_us = mono_now_ns() / 1000;
	int fd = sd_bus_get_fd(l->bus), events = sd_bus_get_events(l->bus),
	    r = sd_bus_get_timeout(l->bus, &until_us);

	if (fd < 0 || events < 0 || r < 0)
		return MIN(MIN(fd, events), r);
	*ret = (struct pollfd){ .fd = fd, .events = (short)events };
	*ret_timeout_ms = until_us == UINT64_MAX ? -1
		: until_us <= now_us             ? 0
						 : (int)((until_us - now_us) / 1000 + 1);
	return 0;
}

int logind_process(struct logind *l)
{
	int r;

	while ((r = sd_bus_process(l->bus, NULL)) > 0)
		;
	return r;
}
