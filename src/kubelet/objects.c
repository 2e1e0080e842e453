/* ConfigMaps and Secrets that a pod uses, read when they are needed and again every minute for volumes (keeper.c). They are read one by one by
 * name: that is all that the Node authorizer grants. */
#include "gen/types.h"
#include "kubelet/internal.h"

int object_get(struct sync *s, const struct type *t, struct str name, void **ret, struct err *err)
{
	struct str ns = s->pod->metadata.namespace;
	const char *what = t == &core_v1_secret_type ? "secret" : "configmap";

	if (!s->k->c.client)
		return err_set(err, -ENOTCONN,
			"%s \"" STR_FMT "\": this kubelet has no API server to read it from", what,
			STR_ARG(name));
	int r = client_get(s->k->c.client, t, ns, name, s->a, ret, err);
	if (r == CLIENT_NOT_FOUND)
		return err_set(err, r, "%s \"" STR_FMT "\" not found", what, STR_ARG(name));
	if (r)
		return err_prefix(err, r, "failed to fetch %s \"" STR_FMT "/" STR_FMT "\"", what,
			STR_ARG(ns), STR_ARG(name));
	return 0;
}
