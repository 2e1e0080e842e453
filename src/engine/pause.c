/* The process that holds a shared process namespace open: a namespace lives no longer than its process 1, so of all of a pod's namespaces this one needs
 * somebody. It ignores SIGCHLD, so that the kernel reaps what is orphaned to it, and sleeps.
 * A program of its own, a hundred bytes and static: the pod's containers can see it, so it must not be a copy of the agent, and its root is empty, so that
 * /proc/1/root shows them nothing. It runs without rights as a container of crun that has the sandbox's id. */
#include "engine/internal.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define NOBODY 65534

#if defined(__x86_64__)
#define PAUSE_MACHINE EM_X86_64
__asm__(".pushsection .rodata\n"
	"pause_code:\n"
	"	mov $13, %eax\n" /* rt_sigaction(SIGCHLD, {SIG_IGN}, NULL, 8) */
	"	mov $17, %edi\n"
	"	lea 1f(%rip), %rsi\n"
	"	xor %edx, %edx\n"
	"	mov $8, %r10d\n"
	"	syscall\n"
	"0:	mov $34, %eax\n" /* pause() */
	"	syscall\n"
	"	jmp 0b\n"
	"	.balign 8\n"
	"1:	.quad 1, 0, 0, 0\n"
	"pause_code_end:\n"
	".popsection\n");
#elif defined(__aarch64__)
#define PAUSE_MACHINE EM_AARCH64
__asm__(".pushsection .rodata\n"
	"	.balign 8\n"
	"pause_code:\n"
	"	mov w8, #134\n" /* rt_sigaction(SIGCHLD, {SIG_IGN}, NULL, 8) */
	"	mov w0, #17\n"
	"	adr x1, 1f\n"
	"	mov x2, #0\n"
	"	mov x3, #8\n"
	"	svc #0\n"
	"0:	mov w8, #73\n" /* ppoll(NULL, 0, NULL, NULL, 0) */
	"	mov x0, #0\n"
	"	mov x1, #0\n"
	"	mov x2, #0\n"
	"	mov x3, #0\n"
	"	mov x4, #0\n"
	"	svc #0\n"
	"	b 0b\n"
	"	.balign 8\n"
	"1:	.quad 1, 0, 0, 0\n"
	"pause_code_end:\n"
	".popsection\n");
#endif

#ifdef PAUSE_MACHINE
extern const char pause_code[], pause_code_end[];

static void make_program(struct buf *ret)
{
	const uint64_t base = 0x400000, head = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr),
		       size = head + (uint64_t)(pause_code_end - pause_code);
	Elf64_Ehdr e = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			EV_CURRENT },
		.e_type = ET_EXEC,
		.e_machine = PAUSE_MACHINE,
		.e_version = EV_CURRENT,
		.e_entry = base + head,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 1,
	};
	Elf64_Phdr p = { .p_type = PT_LOAD,
		.p_flags = PF_R | PF_X,
		.p_vaddr = base,
		.p_paddr = base,
		.p_filesz = size,
		.p_memsz = size,
		.p_align = 0x1000 };

	buf_add(ret, &e, sizeof(e));
	buf_add(ret, &p, sizeof(p));
	buf_add(ret, pause_code, (size_t)(pause_code_end - pause_code));
}
#else
static void make_program(struct buf *ret) {}
#endif

static void make_config(const struct local *l, const struct sandbox *s, struct buf *out)
{
	static const struct {
		enum ns_kind kind;
		const char *type;
	} kinds[] = { { NS_NET, "network" }, { NS_UTS, "uts" }, { NS_IPC, "ipc" } };
	char path[PATH_MAX];

	buf_addf(out,
		"{\"ociVersion\":\"1.0.2\",\"process\":{\"terminal\":false,\"user\":{\"uid\":%d,\"gid\":%d},\"args\":[\"/pause\"],\"cwd\":\"/\","
		"\"noNewPrivileges\":true},\"root\":{\"path\":\"pause\",\"readonly\":true},\"mounts\":["
		"{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\",\"options\":[\"nosuid\",\"noexec\",\"nodev\"]},"
		"{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[\"nosuid\",\"mode=755\",\"size=64k\"]}],"
		"\"linux\":{\"cgroupsPath\":",
		NOBODY, NOBODY);
	CLEAN_FREE char *cgroup = xasprintf("/%s/%s", s->cgroup, s->id);
	json_write_text(str_of(cgroup), out);
	buf_addz(out,
		",\"resources\":{\"devices\":[{\"allow\":false,\"access\":\"rwm\"}]},\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"pid\"}");
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (kinds[i].kind == NS_IPC ? s->host_ipc : s->host_network)
			continue;
		sandbox_ns_path(l, s, kinds[i].kind, path);
		buf_addf(out, ",{\"type\":\"%s\",\"path\":", kinds[i].type);
		json_write_text(str_of(path), out);
		buf_addc(out, '}');
	}
	buf_addz(out, "]}}\n");
}

static int write_bundle(const struct local *l, const struct sandbox *s, struct err *err)
{
	CLEAN_BUF struct buf program = { 0 }, config = { 0 };
	char path[PATH_MAX];

	make_program(&program);
	if (!program.len)
		return err_set(err, -ENOSYS,
			"shareProcessNamespace is not supported on this kind of processor yet");
	make_config(l, s, &config);
	path_fmt(path, "%s/sandboxes/%s/pause", l->root, s->id);
	int r = dir_make(path, 0755, err);
	if (r < 0)
		return r;
	chmod(path, 0755);
	path_fmt(path, "%s/sandboxes/%s/pause/pause", l->root, s->id);
	if ((r = file_write_atomic(path, buf_str(&program), 0755, false, err)) < 0)
		return r;
	chmod(path, 0755);
	path_fmt(path, "%s/sandboxes/%s/config.json", l->root, s->id);
	return file_write_atomic(path, buf_str(&config), 0600, false, err);
}

int pause_start(struct local *l, struct sandbox *s, struct err *err)
{
	CLEAN_FREE char *bundle = xasprintf("%s/sandboxes/%s", l->root, s->id),
			*pid_file = xasprintf("%s/pause.pid", bundle);
	const char *const argv[] = { "run", "--detach", "--bundle", bundle, "--pid-file", pid_file,
		s->id, NULL };
	CLEAN_BUF struct buf text = { 0 };
	uint64_t start;
	int r = write_bundle(l, s, err);

	if (r == 0)
		r = runtime_crun(l, argv, err);
	if (r == 0)
		r = file_read(pid_file, 64, &text, err);
	if (r < 0)
		return err_prefix(err, r, "cannot make a process namespace");
	if (str_to_i64(str_trim(buf_str(&text)), &s->pause_pid) < 0 ||
		process_start_time((pid_t)s->pause_pid, &start) < 0)
		return err_set(err, -EIO,
			"the process that holds a pod's process namespace ended at once");
	s->pause_start = (int64_t)start;
	return 0;
}

int pause_stop(struct local *l, const struct sandbox *s, struct err *err)
{
	const char *const argv[] = { "delete", "--force", s->id, NULL };
	char path[PATH_MAX];

	path_fmt(path, "%s/crun/%s", l->run, s->id);
	if (access(path, F_OK) < 0)
		return 0;
	int r = runtime_crun(l, argv, err);
	return r < 0 && access(path, F_OK) < 0 ? 0 : r;
}
