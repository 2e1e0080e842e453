/* hostPath: a file or folder of the machine, checked or made as its type says. */
#include <fcntl.h>
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/internal.h"

static const void *source(const struct core_v1_volume_source *v)
{
	return v->host_path;
}

/* clang-format off */
static const struct {
	const char *type;
	mode_t kind;                      /* S_IFMT bits; 0: any */
	bool create;
	const char *complaint;
} types[] = {
	{ "Directory",         S_IFDIR,  false, "is not a directory" },
	{ "DirectoryOrCreate", S_IFDIR,  true,  "is not a directory" },
	{ "File",              S_IFREG,  false, "is not a file" },
	{ "FileOrCreate",      S_IFREG,  true,  "is not a file" },
	{ "Socket",            S_IFSOCK, false, "is not a socket" },
	{ "CharDevice",        S_IFCHR,  false, "is not a character device" },
	{ "BlockDevice",       S_IFBLK,  false, "is not a block device" },
};
/* clang-format on */

static int setup(struct volume_ctx *c, struct err *err)
{
	const struct core_v1_host_path_volume_source *h = c->v->volume_source.host_path;
	struct stat st;

	if (!h->type.len) {
		/* Nothing is promised; the runtimes of upstream make a missing one a folder. */
		return stat(h->path.p, &st) && errno == ENOENT ? dir_make(h->path.p, 0755, err) : 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		if (!str_eqz(h->type, types[i].type))
			continue;
		if (stat(h->path.p, &st)) {
			if (errno != ENOENT || !types[i].create)
				return err_set(err, -EINVAL,
					"hostPath type check failed: " STR_FMT " %s",
					STR_ARG(h->path), types[i].complaint);
			if (types[i].kind == S_IFDIR)
				return dir_make(h->path.p, 0755, err);
			CLEAN_FD int fd = open(h->path.p, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
			return fd < 0
				? err_errno(err, -errno, "hostPath " STR_FMT, STR_ARG(h->path))
				: 0;
		}
		if ((st.st_mode & S_IFMT) != types[i].kind)
			return err_set(err, -EINVAL, "hostPath type check failed: " STR_FMT " %s",
				STR_ARG(h->path), types[i].complaint);
		return 0;
	}
	return err_set(err, -EINVAL, "hostPath type \"" STR_FMT "\" is unknown", STR_ARG(h->type));
}

static struct str host_path(struct volume_ctx *c)
{
	return c->v->volume_source.host_path->path;
}

const struct volume_kind volume_host_path = { .plugin = "kubernetes.io~host-path",
	.source = source,
	.setup = setup,
	.host_path = host_path };
