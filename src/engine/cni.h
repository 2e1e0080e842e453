/* What cni.c (which configuration, the chain, what is kept of it) and cni_plugin.c (one plugin) share with each other and with sandbox.c. */
#ifndef SKIFF_ENGINE_CNI_H
#define SKIFF_ENGINE_CNI_H

#include "engine/internal.h"

#define CNI_LINK "eth0"
#define CNI_CONTAINER_ENV "CNI_CONTAINERID="

struct cni {
	char *conf_dir;
	char **bin_dirs;
	unsigned timeout_ms; /* of one plugin */
};
int cni_new(const struct engine_local_config *c, struct cni **ret, struct err *err);
void cni_free(struct cni *cni);
/* A configuration is there, is well formed, and its plugins can be run. */
int cni_status(const struct cni *cni, struct err *err);
/* Runs the chain for a sandbox whose network namespace is pinned; gives it its addresses. What a failure left half-made is cni_del's. */
int cni_add(struct local *l, struct sandbox *s, struct err *err);
/* Undoes whatever cni_add did, in this life of the process or another; nothing: 0. */
int cni_del(struct local *l, const struct sandbox *s, struct err *err);

/* ---- cni_plugin.c ---- */
struct cni_call {
	const char *command, *container_id;
	const char *netns; /* empty: it is gone */
	struct str args;
	const struct value *port_mappings; /* NULL: none */
};
/* list: the configuration that plugin is of. previous: NULL for none. ret: the plugin's answer; NULL: of no interest. */
int cni_plugin_run(const struct cni *cni, const struct cni_call *c, char *const *dirs,
	const struct value *list, const struct value *plugin, const struct value *previous,
	struct arena *a, struct value *ret, struct err *err);
int cni_find_plugin(char *const *dirs, struct str type, char ret[PATH_MAX], struct err *err);
bool cni_version_at_least(struct str version, int major, int minor);
void cni_kill_left(const char *container_id); /* plugins that a former life of the agent left */
struct str cni_text(const struct value *object, const char *name);    /* empty: none */
struct value *cni_list(const struct value *object, const char *name); /* NULL: none */

#endif
