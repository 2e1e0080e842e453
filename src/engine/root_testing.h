/* What tests with real containers share, the engine's and the kubelet's: namespaces that take along what a failure leaves, a shell, an image. Root only.
 * The includer includes cmocka first and defines ROOT, its folder below /tmp. */
#ifndef SKIFF_ENGINE_ROOT_TESTING_H
#define SKIFF_ENGINE_ROOT_TESTING_H

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "io/io.h"

static struct err err;

#define must(call) \
	do { \
		int r_ = (call); \
		if (r_ != 0) \
			fail_msg("%s: %d: %s", #call, r_, err.text); \
	} while (0)

UNUSED static void sh(const char *command)
{
	const char *argv[] = { "sh", "-ec", command, NULL };
	struct process_result r = { 0 };

	must(process_run(argv, STR_NONE, 0, &r, &err));
	if (r.status)
		fail_msg("%s: status %d: " STR_FMT, command, r.status, STR_ARG(buf_str(&r.err)));
	process_result_deinit(&r);
}

/* ROOT/busybox.tar: the machine's busybox and these files; also lo goes up. Texts as printf takes them. */
UNUSED static void make_image(const char *passwd, const char *group)
{
	CLEAN_FREE char *script = xasprintf(
		"mkdir -p " ROOT "/fs/bin " ROOT "/fs/etc " ROOT "/fs/tmp && cp /bin/busybox " ROOT
		"/fs/bin/ && for a in $(busybox --list); do [ $a = busybox ] || ln -sf busybox " ROOT
		"/fs/bin/$a; done && printf '%s' > " ROOT "/fs/etc/passwd && printf '%s' > " ROOT
		"/fs/etc/group && tar -C " ROOT "/fs -cf " ROOT
		"/busybox.tar . && ip link set lo up",
		passwd, group);

	sh(script);
}

/* Process 1 of the new process namespace: runs the tests in a child and reaps what they orphan. When it ends, the kernel ends all the rest. */
UNUSED static int init_main(int (*group)(void))
{
	int status, result = 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWNS | CLONE_NEWNET) ||
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		mount("proc", "/proc", "proc", 0, NULL) ||
		mount("tmpfs", "/tmp", "tmpfs", 0, NULL) || mkdir(ROOT, 0700)) {
		perror("namespaces");
		return 1;
	}
	pid_t tests = fork();
	if (tests == 0)
		exit(group());
	for (pid_t p; (p = wait(&status)) > 0;)
		if (p == tests) {
			result = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
			break;
		}
	return result;
}

/* Between: a process that has given its children another process namespace can itself start nothing more once that has ended. */
UNUSED static int run_namespaced(int (*group)(void))
{
	int status;

	if (unshare(CLONE_NEWPID) < 0) {
		perror("unshare");
		return 1;
	}
	pid_t init = fork();
	if (init == 0)
		exit(init_main(group));
	waitpid(init, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

#endif
