/* securityContext of pod and container, merged (the container's wins), as the engine wants it. Source: the API pages of SecurityContext and
 * PodSecurityContext. */
#include "gen/types.h"
#include "kubelet/internal.h"

static const char *const no_paths[] = { NULL };

static const char *const *texts(const struct str_list *l, struct arena *a)
{
	const char **r = arena_alloc(a, (l->len + 1) * sizeof(*r));

	if (!l->len)
		return NULL;
	for (size_t i = 0; i < l->len; i++)
		r[i] = l->items[i].p;
	return r;
}

static bool digits(struct str s, int64_t *ret)
{
	struct str user, group;

	str_cut(s, ':', &user, &group);
	return user.len && str_to_i64(user, ret) == 0;
}

/* runAsNonRoot: the user that will run must be known by number and not be 0. */
static int check_non_root(struct sync *s, const struct core_v1_container *c,
	const struct engine_image *image, const struct engine_container_config *conf,
	struct err *err)
{
	struct str pod = pod_format(s->pod, s->a);
	int64_t uid = 0;

	if (conf->run_as_user > 0)
		return 0;
	if (conf->run_as_user == 0)
		return err_set(err, -EPERM,
			"container's runAsUser breaks non-root policy (pod: \"" STR_FMT
			"\", container: " STR_FMT ")",
			STR_ARG(pod), STR_ARG(c->name));
	if (!image->user.len || (digits(image->user, &uid) && uid == 0))
		return err_set(err, -EPERM,
			"container has runAsNonRoot and image will run as root (pod: \"" STR_FMT
			"\", container: " STR_FMT ")",
			STR_ARG(pod), STR_ARG(c->name));
	if (!digits(image->user, &uid)) {
		struct str name, rest;
		str_cut(image->user, ':', &name, &rest);
		return err_set(err, -EPERM,
			"container has runAsNonRoot and image has non-numeric user (" STR_FMT
			"), cannot verify user is non-root (pod: \"" STR_FMT
			"\", container: " STR_FMT ")",
			STR_ARG(name), STR_ARG(pod), STR_ARG(c->name));
	}
	return 0;
}

static int seccomp(struct sync *s, const struct core_v1_seccomp_profile *p,
	struct engine_container_config *ret, struct err *err)
{
	if (!p || str_eqz(p->type, "Unconfined"))
		return 0;
	if (str_eqz(p->type, "RuntimeDefault")) {
		ret->seccomp_profile = "RuntimeDefault";
		return 0;
	}
	if (!str_eqz(p->type, "Localhost") || !p->localhost_profile.len)
		return err_set(err, -EINVAL,
			"seccomp profile of type \"" STR_FMT "\" without a localhostProfile",
			STR_ARG(p->type));
	/* Below our folder: a profile of the pod's own making, found in a volume of it, would be no profile. */
	struct str part, rest = p->localhost_profile;
	bool out = rest.p[0] == '/';
	while (rest.len) {
		str_cut(rest, '/', &part, &rest);
		out |= str_eqz(part, "..");
	}
	if (out)
		return err_set(err, -EINVAL,
			"localhostProfile \"" STR_FMT "\" leads out of the folder of profiles",
			STR_ARG(p->localhost_profile));
	ret->seccomp_profile = arena_fmt(
		s->a, "%s/seccomp/" STR_FMT, s->k->c.root_dir, STR_ARG(p->localhost_profile))
				       .p;
	if (access(ret->seccomp_profile, R_OK))
		return err_errno(
			err, -errno, "cannot load seccomp profile \"%s\"", ret->seccomp_profile);
	return 0;
}

static void groups(struct sync *s, const struct core_v1_pod_security_context *p,
	struct engine_container_config *ret)
{
	if (!p)
		return;
	int64_t *list = arena_alloc(s->a, (p->supplemental_groups.len + 1) * sizeof(*list));
	size_t n = 0;
	for (size_t i = 0; i < p->supplemental_groups.len; i++)
		list[n++] = p->supplemental_groups.items[i];
	if (p->fs_group.set)
		list[n++] = p->fs_group.value;
	ret->only_given_groups = str_eqz(p->supplemental_groups_policy, "Strict");
	ret->supplemental_groups = list;
	ret->n_supplemental_groups = n;
}

int security_apply(struct sync *s, const struct core_v1_container *c,
	const struct engine_image *image, struct engine_container_config *ret, struct err *err)
{
	static const struct core_v1_pod_security_context no_pod;
	static const struct core_v1_security_context none;
	const struct core_v1_pod_security_context *p =
		s->pod->spec.security_context ? s->pod->spec.security_context : &no_pod;
	const struct core_v1_security_context *sc =
		c->security_context ? c->security_context : &none;

	struct opt_int64 user = sc->run_as_user.set ? sc->run_as_user : p->run_as_user;
	struct opt_int64 group = sc->run_as_group.set ? sc->run_as_group : p->run_as_group;
	struct opt_bool non_root =
		sc->run_as_non_root.set ? sc->run_as_non_root : p->run_as_non_root;
	ret->run_as_user = user.set ? user.value : -1;
	ret->run_as_group = group.set ? group.value : -1;
	if (non_root.set && non_root.value) {
		int r = check_non_root(s, c, image, ret, err);
		if (r)
			return r;
	}
	groups(s, p, ret);
	ret->privileged = sc->privileged.set && sc->privileged.value;
	ret->read_only_rootfs =
		sc->read_only_root_filesystem.set && sc->read_only_root_filesystem.value;
	ret->no_new_privs =
		sc->allow_privilege_escalation.set && !sc->allow_privilege_escalation.value;
	if (sc->capabilities) {
		ret->add_capabilities = texts(&sc->capabilities->add, s->a);
		ret->drop_capabilities = texts(&sc->capabilities->drop, s->a);
		for (size_t i = 0; i < sc->capabilities->add.len; i++)
			if (str_eqz(sc->capabilities->add.items[i], "CAP_SYS_ADMIN") ||
				str_eqz(sc->capabilities->add.items[i], "SYS_ADMIN"))
				ret->no_new_privs = false;
	}
	if (ret->privileged)
		ret->no_new_privs = false;
	if (str_eqz(sc->proc_mount, "Unmasked") || ret->privileged)
		ret->masked_paths = ret->readonly_paths = no_paths;
	return ret->privileged
		? 0
		: seccomp(s, sc->seccomp_profile ? sc->seccomp_profile : p->seccomp_profile, ret,
			  err);
}
