/* persistentVolumeClaim: bound to a persistent volume of kind hostPath or local, which is a path of this machine. Others need a CSI
 * driver, which this kubelet does not speak to yet; the error says so. */
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "gen/types.h"
#include "kubelet/internal.h"

static const void *source(const struct core_v1_volume_source *v)
{
	return v->persistent_volume_claim;
}

/* The path is kept as a link in the volume's folder, so that a container may start again while the API is away. */
static int resolve(struct volume_ctx *c, struct str *ret, struct err *err)
{
	struct sync *s = c->s;
	struct str claim = c->v->volume_source.persistent_volume_claim->claim_name;
	struct core_v1_persistent_volume_claim *pvc;
	struct core_v1_persistent_volume *pv;

	if (!s->k->c.client)
		return err_set(
			err, -ENOTCONN, "a claim needs an API server, and this kubelet has none");
	int r = client_get(s->k->c.client, &core_v1_persistent_volume_claim_type,
		s->pod->metadata.namespace, claim, s->a, (void **)&pvc, err);
	if (r)
		return err_prefix(err, r < 0 ? r : -ENOENT, "persistentvolumeclaim \"" STR_FMT "\"",
			STR_ARG(claim));
	if (!pvc->spec.volume_name.len || !str_eqz(pvc->status.phase, "Bound"))
		return err_set(err, -EAGAIN,
			"persistentvolumeclaim \"" STR_FMT "\" is not bound to a volume yet",
			STR_ARG(claim));
	r = client_get(s->k->c.client, &core_v1_persistent_volume_type, STR_NONE,
		pvc->spec.volume_name, s->a, (void **)&pv, err);
	if (r)
		return err_prefix(err, r < 0 ? r : -ENOENT, "persistentvolume \"" STR_FMT "\"",
			STR_ARG(pvc->spec.volume_name));
	const struct core_v1_persistent_volume_source *v = &pv->spec.persistent_volume_source;
	if (!v->host_path && !v->local)
		return err_set(err, -ENOSYS,
			"persistentvolume \"" STR_FMT
			"\" is neither hostPath nor local: this kubelet has no CSI driver for it",
			STR_ARG(pvc->spec.volume_name));
	*ret = v->host_path ? v->host_path->path : v->local->path;
	if (v->host_path && str_eqz(v->host_path->type, "DirectoryOrCreate"))
		return dir_make(ret->p, 0755, err);
	char real[PATH_MAX]; /* who makes a volume may name it by a link */
	if (!realpath(ret->p, real))
		return err_errno(err, -errno, "persistentvolume \"" STR_FMT "\": path " STR_FMT,
			STR_ARG(pvc->spec.volume_name), STR_ARG(*ret));
	*ret = arena_strz(s->a, real);
	return 0;
}

static int setup(struct volume_ctx *c, struct err *err)
{
	struct str path = STR_NONE, parent = arena_strz(c->s->a, c->dir);

	int r = resolve(c, &path, err);
	if (r)
		return r;
	*strrchr((char *)parent.p, '/') = 0;
	r = dir_make(parent.p, 0755, err);
	if (r)
		return r;
	unlink(c->dir);
	if (symlink(path.p, c->dir))
		return err_errno(err, -errno, "%s", c->dir);
	return volume_own(path.p, c->fs_group, err);
}

static struct str host_path(struct volume_ctx *c)
{
	char path[4096];
	ssize_t n = readlink(c->dir, path, sizeof(path));

	return n > 0 ? arena_str(c->s->a, str_n(path, (size_t)n)) : str_of(c->dir);
}

const struct volume_kind volume_claim = { .plugin = "kubernetes.io~local-volume",
	.source = source,
	.setup = setup,
	.host_path = host_path };
