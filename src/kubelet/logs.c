/* Log files in the CRI form: one line a record, `TIME STREAM TAG TEXT`, tag F for a whole line and P for a part of one. */
#include <fcntl.h>
#include <sys/stat.h>

#include "kubelet/internal.h"
#include "linux/linux.h"

#define BLOCK 16384

/* A pod that mounts the folder may put a link in place of its log: it would be read as root, for whoever may see logs. */
int log_open(const struct kubelet *k, const char *path)
{
	size_t n = strlen(k->c.pod_log_dir);
	CLEAN_FD int dir = open(k->c.pod_log_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (dir < 0 || strncmp(path, k->c.pod_log_dir, n) != 0)
		return dir < 0 ? -errno : -EINVAL;
	CLEAN_FD int fd = path_open_in_root(dir, path + n, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return fd < 0 ? fd : -EINVAL;
	return TAKE_FD(fd);
}

bool log_parse_line(struct str line, struct log_line *ret)
{
	struct log_line l = { 0 };
	struct str rest, tag;

	if (!str_cut(line, ' ', &l.time_text, &rest) || !str_cut(rest, ' ', &l.stream, &rest))
		return false;
	if (!str_cut(rest, ' ', &tag, &l.text))
		l.text = STR("");
	if (time_parse(l.time_text, &l.at) ||
		(!str_eqz(l.stream, "stdout") && !str_eqz(l.stream, "stderr")))
		return false;
	l.partial = tag.len && tag.p[0] == 'P';
	*ret = l;
	return true;
}

/* Goes back from the end block by block, counting the ends of whole lines (a part is not a line of its own). */
int64_t log_tail_offset(int fd, int64_t lines)
{
	struct stat st;
	char block[BLOCK];

	if (lines < 0 || fstat(fd, &st))
		return 0;
	int64_t end = st.st_size, found = 0;
	if (lines == 0)
		return end;
	for (int64_t at = end; at > 0;) {
		size_t n = (size_t)MIN(at, BLOCK);
		at -= (int64_t)n;
		if (pread(fd, block, n, at) != (ssize_t)n)
			return 0;
		for (size_t i = n; i-- > 0;)
			if (block[i] == '\n' && at + (int64_t)i + 1 < end && ++found >= lines)
				return at + (int64_t)i + 1;
	}
	return 0;
}

bool log_filter(struct str in, struct log_options *o, struct buf *out, size_t *ret_used)
{
	size_t used = 0;

	while (used < in.len) {
		struct str rest = str_from(in, used);
		ssize_t n = str_find(rest, '\n');
		struct log_line l;
		if (n < 0)
			break;
		used += (size_t)n + 1;
		if (!log_parse_line(str_n(rest.p, (size_t)n), &l))
			continue;
		if (!(o->streams & (str_eqz(l.stream, "stdout") ? 1 : 2)) ||
			(!time_is_zero(o->since) && time_cmp(l.at, o->since) < 0))
			continue;
		size_t before = out->len;
		if (o->timestamps)
			buf_addf(out, STR_FMT " ", STR_ARG(l.time_text));
		buf_add_str(out, l.text);
		if (!l.partial)
			buf_addc(out, '\n');
		if (o->limit_bytes >= 0) {
			int64_t added = (int64_t)(out->len - before);
			if (added >= o->limit_bytes) {
				out->len = before + (size_t)o->limit_bytes;
				out->p[out->len] = 0;
				o->limit_bytes = 0;
				*ret_used = used;
				return false;
			}
			o->limit_bytes -= added;
		}
	}
	*ret_used = used;
	return true;
}
