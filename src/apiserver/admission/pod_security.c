/* PodSecurity: the Pod Security Standards, by the namespace's labels: enforce refuses pods, warn tells about pods and workloads. Each
 * check is a row; a level is a bit. Versions are all "latest". Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
 * Upstream: k8s.io/pod-security-admission. */
#include "apiserver/admission/admission.h"

enum { BASELINE = 1, RESTRICTED = 2 };

struct container_view {
	struct str name;
	const struct core_v1_security_context *sc;
	const struct core_v1_container_port_items *ports;
};
struct pod_view {
	const struct core_v1_pod_spec *spec;
	const struct meta_v1_object_meta *meta;
	struct container_view *containers;
	size_t n;
	struct arena *arena;
};

static void view_containers(struct pod_view *v, const struct core_v1_container_items *l)
{
	LIST_EACH(c, l)
		v->containers[v->n++] =
			(struct container_view){ c->name, c->security_context, &c->ports };
}

static void view_make(struct pod_view *v, const struct core_v1_pod_spec *spec,
	const struct meta_v1_object_meta *meta, struct arena *a)
{
	size_t most =
		spec->init_containers.len + spec->containers.len + spec->ephemeral_containers.len;
	*v = (struct pod_view){ .spec = spec,
		.meta = meta,
		.arena = a,
		.containers = arena_alloc(a, (most + 1) * sizeof(*v->containers)) };
	view_containers(v, &spec->init_containers);
	view_containers(v, &spec->containers);
	LIST_EACH(c, &spec->ephemeral_containers)
		v->containers[v->n++] = (struct container_view){ c->ephemeral_container_common.name,
			c->ephemeral_container_common.security_context,
			&c->ephemeral_container_common.ports };
}

/* `container "a"` or `containers "a", "b"`: those for which bad says so; false: none. */
typedef bool (*bad_fn)(const struct pod_view *v, const struct container_view *c);
static bool put_bad(const struct pod_view *v, bad_fn bad, struct buf *out)
{
	CLEAN_BUF struct buf names = { 0 };
	size_t n = 0;
	for (size_t i = 0; i < v->n; i++)
		if (bad(v, &v->containers[i]))
			buf_addf(&names, "%s\"" STR_FMT "\"", n++ ? ", " : "",
				STR_ARG(v->containers[i].name));
	if (n)
		buf_addf(out, "container%s %s", n > 1 ? "s" : "", names.p);
	return n > 0;
}

/* ---- checks: false: fine; true: detail says what is wrong ---- */

static bool bad_escalation(const struct pod_view *v, const struct container_view *c)
{
	return !c->sc || !c->sc->allow_privilege_escalation.set ||
		c->sc->allow_privilege_escalation.value;
}

static bool check_escalation(const struct pod_view *v, struct buf *out)
{
	if (!put_bad(v, bad_escalation, out))
		return false;
	buf_addz(out, " must set securityContext.allowPrivilegeEscalation=false");
	return true;
}

static bool default_capability(struct str cap)
{
	static const char *const ok[] = { "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER",
		"FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP",
		"SETUID", "SYS_CHROOT" };
	for (size_t i = 0; i < ARRAY_LEN(ok); i++)
		if (str_eqz(cap, ok[i]))
			return true;
	return false;
}

static bool bad_capabilities(const struct pod_view *v, const struct container_view *c)
{
	for (size_t i = 0; c->sc && c->sc->capabilities && i < c->sc->capabilities->add.len; i++)
		if (!default_capability(c->sc->capabilities->add.items[i]))
			return true;
	return false;
}

static bool check_capabilities(const struct pod_view *v, struct buf *out)
{
	if (!put_bad(v, bad_capabilities, out))
		return false;
	buf_addz(out, " must not include ");
	size_t n = 0;
	for (size_t i = 0; i < v->n; i++) {
		const struct core_v1_security_context *sc = v->containers[i].sc;
		for (size_t k = 0; sc && sc->capabilities && k < sc->capabilities->add.len; k++)
			if (!default_capability(sc->capabilities->add.items[k]))
				buf_addf(out, "%s\"" STR_FMT "\"", n++ ? ", " : "",
					STR_ARG(sc->capabilities->add.items[k]));
	}
	buf_addz(out, " in securityContext.capabilities.add");
	return true;
}

static bool bad_drop(const struct pod_view *v, const struct container_view *c)
{
	return !c->sc || !c->sc->capabilities ||
		!str_list_has(&c->sc->capabilities->drop, STR("ALL"));
}

static bool bad_add(const struct pod_view *v, const struct container_view *c)
{
	for (size_t i = 0; c->sc && c->sc->capabilities && i < c->sc->capabilities->add.len; i++)
		if (!str_eqz(c->sc->capabilities->add.items[i], "NET_BIND_SERVICE"))
			return true;
	return false;
}

static bool check_drop(const struct pod_view *v, struct buf *out)
{
	bool drop = put_bad(v, bad_drop, out);
	if (drop)
		buf_addz(out, " must set securityContext.capabilities.drop=[\"ALL\"]");
	CLEAN_BUF struct buf add = { 0 };
	if (!put_bad(v, bad_add, &add))
		return drop;
	buf_addf(out,
		"%s%s must not include capabilities other than \"NET_BIND_SERVICE\" in securityContext.capabilities.add",
		drop ? "; " : "", add.p);
	return true;
}

static bool check_namespaces(const struct pod_view *v, struct buf *out)
{
	const struct {
		bool on;
		const char *name;
	} rows[] = { { v->spec->host_network, "hostNetwork" }, { v->spec->host_pid, "hostPID" },
		{ v->spec->host_ipc, "hostIPC" } };
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].on)
			buf_addf(out, "%s%s=true", n++ ? ", " : "", rows[i].name);
	return n > 0;
}

static bool check_host_path(const struct pod_view *v, struct buf *out)
{
	size_t n = 0;
	CLEAN_BUF struct buf names = { 0 };
	LIST_EACH(vol, &v->spec->volumes)
		if (vol->volume_source.host_path)
			buf_addf(&names, "%s\"" STR_FMT "\"", n++ ? ", " : "", STR_ARG(vol->name));
	if (n)
		buf_addf(out, "volume%s %s", n > 1 ? "s" : "", names.p);
	return n > 0;
}

static bool bad_port(const struct pod_view *v, const struct container_view *c)
{
	LIST_EACH(p, c->ports)
		if (p->host_port)
			return true;
	return false;
}

static bool check_host_ports(const struct pod_view *v, struct buf *out)
{
	if (!put_bad(v, bad_port, out))
		return false;
	size_t n = 0;
	CLEAN_BUF struct buf ports = { 0 };
	for (size_t i = 0; i < v->n; i++)
		LIST_EACH(p, v->containers[i].ports)
			if (p->host_port)
				buf_addf(&ports, "%s%d", n++ ? ", " : "", p->host_port);
	buf_addf(out, " uses hostPort%s %s", n > 1 ? "s" : "", ports.p);
	return true;
}

static bool bad_privileged(const struct pod_view *v, const struct container_view *c)
{
	return c->sc && c->sc->privileged.set && c->sc->privileged.value;
}

static bool check_privileged(const struct pod_view *v, struct buf *out)
{
	if (!put_bad(v, bad_privileged, out))
		return false;
	buf_addz(out, " must not set securityContext.privileged=true");
	return true;
}

static bool bad_proc(const struct pod_view *v, const struct container_view *c)
{
	return c->sc && c->sc->proc_mount.len && !str_eqz(c->sc->proc_mount, "Default");
}

static bool check_proc(const struct pod_view *v, struct buf *out)
{
	if (!put_bad(v, bad_proc, out))
		return false;
	buf_addz(out, " must not set securityContext.procMount to \"Unmasked\"");
	return true;
}

static const char *volume_type(const struct core_v1_volume_source *s)
{
	for (size_t i = 0; i < core_v1_volume_source_type.n_fields; i++) {
		const struct field *f = &core_v1_volume_source_type.fields[i];
		if (f->shape == SHAPE_PTR && *(void *const *)((const char *)s + f->offset))
			return f->name;
	}
	return "unknown";
}

static bool check_volumes(const struct pod_view *v, struct buf *out)
{
	size_t n = 0;
	LIST_EACH(vol, &v->spec->volumes) {
		const struct core_v1_volume_source *s = &vol->volume_source;
		if (s->config_map || s->csi || s->downward_api || s->empty_dir || s->ephemeral ||
			s->persistent_volume_claim || s->projected || s->secret || s->image)
			continue;
		const char *type = volume_type(s);
		if (strcmp(type, "unknown") != 0)
			buf_addf(out, "%svolume \"" STR_FMT "\" uses restricted volume type \"%s\"",
				n++ ? ", " : "", STR_ARG(vol->name), type);
	}
	return n > 0;
}

static bool bad_root(const struct pod_view *v, const struct container_view *c)
{
	const struct core_v1_pod_security_context *p = v->spec->security_context;
	if (c->sc && c->sc->run_as_non_root.set)
		return !c->sc->run_as_non_root.value;
	return !p || !p->run_as_non_root.set || !p->run_as_non_root.value;
}

static bool check_non_root(const struct pod_view *v, struct buf *out)
{
	CLEAN_BUF struct buf names = { 0 };
	if (!put_bad(v, bad_root, &names))
		return false;
	buf_addf(out, "pod or %s must set securityContext.runAsNonRoot=true", names.p);
	return true;
}

static bool bad_user(const struct pod_view *v, const struct container_view *c)
{
	return c->sc && c->sc->run_as_user.set && c->sc->run_as_user.value == 0;
}

static bool check_user(const struct pod_view *v, struct buf *out)
{
	const struct core_v1_pod_security_context *p = v->spec->security_context;
	bool pod = p && p->run_as_user.set && p->run_as_user.value == 0;
	CLEAN_BUF struct buf names = { 0 };
	bool some = put_bad(v, bad_user, &names);
	if (pod || some)
		buf_addf(out, "%s%s%s must not set runAsUser=0", pod ? "pod" : "",
			pod && some ? " and " : "", some ? names.p : "");
	return pod || some;
}

static bool forbidden_selinux(const struct core_v1_se_linux_options *o)
{
	static const char *const types[] = { "", "container_t", "container_init_t",
		"container_kvm_t", "container_engine_t" };
	bool type_ok = false;
	if (!o)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		type_ok |= str_eqz(o->type, types[i]);
	return !type_ok || o->user.len || o->role.len;
}

static bool bad_selinux(const struct pod_view *v, const struct container_view *c)
{
	return c->sc && forbidden_selinux(c->sc->se_linux_options);
}

static bool check_selinux(const struct pod_view *v, struct buf *out)
{
	const struct core_v1_pod_security_context *p = v->spec->security_context;
	bool pod = p && forbidden_selinux(p->se_linux_options);
	CLEAN_BUF struct buf names = { 0 };
	bool some = put_bad(v, bad_selinux, &names);
	if (pod || some)
		buf_addf(out, "%s%s%s set forbidden securityContext.seLinuxOptions",
			pod ? "pod" : "", pod && some ? " and " : "", some ? names.p : "");
	return pod || some;
}

static bool bad_unconfined(const struct pod_view *v, const struct container_view *c)
{
	return c->sc && c->sc->seccomp_profile &&
		str_eqz(c->sc->seccomp_profile->type, "Unconfined");
}

static bool check_seccomp(const struct pod_view *v, struct buf *out)
{
	const struct core_v1_pod_security_context *p = v->spec->security_context;
	bool pod = p && p->seccomp_profile && str_eqz(p->seccomp_profile->type, "Unconfined");
	CLEAN_BUF struct buf names = { 0 };
	bool some = put_bad(v, bad_unconfined, &names);
	if (pod || some)
		buf_addf(out,
			"%s%s%s must not set securityContext.seccompProfile.type to \"Unconfined\"",
			pod ? "pod" : "", pod && some ? " and " : "", some ? names.p : "");
	return pod || some;
}

static bool good_seccomp(const struct core_v1_seccomp_profile *p)
{
	return p && (str_eqz(p->type, "RuntimeDefault") || str_eqz(p->type, "Localhost"));
}

static bool bad_seccomp(const struct pod_view *v, const struct container_view *c)
{
	if (c->sc && c->sc->seccomp_profile)
		return !good_seccomp(c->sc->seccomp_profile);
	return !v->spec->security_context ||
		!good_seccomp(v->spec->security_context->seccomp_profile);
}

static bool check_seccomp_set(const struct pod_view *v, struct buf *out)
{
	CLEAN_BUF struct buf names = { 0 };
	if (!put_bad(v, bad_seccomp, &names))
		return false;
	buf_addf(out,
		"pod or %s must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
		names.p);
	return true;
}

static bool forbidden_apparmor(const struct core_v1_app_armor_profile *p)
{
	return p && !str_eqz(p->type, "RuntimeDefault") && !str_eqz(p->type, "Localhost");
}

static bool bad_apparmor(const struct pod_view *v, const struct container_view *c)
{
	return c->sc && forbidden_apparmor(c->sc->app_armor_profile);
}

static bool check_apparmor(const struct pod_view *v, struct buf *out)
{
	const struct core_v1_pod_security_context *p = v->spec->security_context;
	bool pod = p && forbidden_apparmor(p->app_armor_profile);
	CLEAN_BUF struct buf names = { 0 };
	bool some = put_bad(v, bad_apparmor, &names);
	if (pod || some)
		buf_addf(out, "%s%s%s must not set AppArmor profile type to \"Unconfined\"",
			pod ? "pod" : "", pod && some ? " and " : "", some ? names.p : "");
	return pod || some;
}

static bool check_sysctls(const struct pod_view *v, struct buf *out)
{
	static const char *const safe[] = { "kernel.shm_rmid_forced",
		"net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
		"net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
		"net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
		"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
		"net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem" };
	size_t n = 0;
	LIST_EACH(s,
		v->spec->security_context ? &v->spec->security_context->sysctls
					  : &(struct core_v1_sysctl_items){ 0 }) {
		bool ok = false;
		for (size_t i = 0; i < ARRAY_LEN(safe); i++)
			ok |= str_eqz(s->name, safe[i]);
		if (!ok)
			buf_addf(out, "%s" STR_FMT, n++ ? ", " : "", STR_ARG(s->name));
	}
	return n > 0;
}

static bool host_process(const struct core_v1_windows_security_context_options *w)
{
	return w && w->host_process.set && w->host_process.value;
}

static bool bad_host_process(const struct pod_view *v, const struct container_view *c)
{
	return c->sc && host_process(c->sc->windows_options);
}

static bool check_host_process(const struct pod_view *v, struct buf *out)
{
	bool pod = v->spec->security_context &&
		host_process(v->spec->security_context->windows_options);
	CLEAN_BUF struct buf names = { 0 };
	bool some = put_bad(v, bad_host_process, &names);
	if (pod || some)
		buf_addf(out, "%s%s%s must not set securityContext.windowsOptions.hostProcess=true",
			pod ? "pod" : "", pod && some ? " and " : "", some ? names.p : "");
	return pod || some;
}

static const struct check_row {
	const char *reason;
	unsigned levels;
	bool (*check)(const struct pod_view *v, struct buf *out);
} checks[] = {
	{ "allowPrivilegeEscalation != false", RESTRICTED, check_escalation },
	{ "forbidden AppArmor profile", BASELINE | RESTRICTED, check_apparmor },
	{ "non-default capabilities", BASELINE, check_capabilities },
	{ "unrestricted capabilities", RESTRICTED, check_drop },
	{ "host namespaces", BASELINE | RESTRICTED, check_namespaces },
	{ "hostPath volumes", BASELINE, check_host_path },
	{ "hostPort", BASELINE | RESTRICTED, check_host_ports },
	{ "privileged", BASELINE | RESTRICTED, check_privileged },
	{ "procMount", BASELINE | RESTRICTED, check_proc },
	{ "restricted volume types", RESTRICTED, check_volumes },
	{ "runAsNonRoot != true", RESTRICTED, check_non_root },
	{ "runAsUser=0", RESTRICTED, check_user },
	{ "seLinuxOptions", BASELINE | RESTRICTED, check_selinux },
	{ "seccompProfile", BASELINE, check_seccomp },
	{ "seccompProfile", RESTRICTED, check_seccomp_set },
	{ "forbidden sysctls", BASELINE | RESTRICTED, check_sysctls },
	{ "hostProcess", BASELINE | RESTRICTED, check_host_process },
};

static void evaluate(const struct pod_view *v, unsigned level, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
		CLEAN_BUF struct buf detail = { 0 };
		if ((checks[i].levels & level) && checks[i].check(v, &detail))
			buf_addf(
				out, "%s%s (%s)", out->len ? ", " : "", checks[i].reason, detail.p);
	}
}

/* ---- the plugin ---- */

static unsigned level_of(const struct object *ns, const char *label, struct str *ret_text)
{
	for (size_t i = 0; i < ns->n_labels; i++) {
		if (!str_eqz(ns->labels[i].key, label))
			continue;
		*ret_text = ns->labels[i].value;
		/* what is no level was meant to be one: the strictest, as upstream */
		return str_eqz(*ret_text, "privileged")  ? 0
			: str_eqz(*ret_text, "baseline") ? BASELINE
							 : RESTRICTED;
	}
	return 0;
}

static struct meta_v1_status *validate(struct apiserver *s, struct admission_attributes *at)
{
	CLEAN_OBJECT struct object *ns = NULL;
	struct meta_v1_object_meta *meta;
	struct str enforce, warn;
	if (lookup_object(s, s->known.namespaces, STR_NONE, at->req->ns, &ns) != 0)
		return NULL;
	unsigned enforced = level_of(ns, "pod-security.kubernetes.io/enforce", &enforce),
		 warned = level_of(ns, "pod-security.kubernetes.io/warn", &warn);
	if (!enforced && !warned)
		return NULL;
	const struct core_v1_pod_spec *spec = pod_spec_of(at->type, at->obj, &meta);
	if (!spec)
		return NULL;
	struct pod_view v;
	view_make(&v, spec, meta, at->req->arena);
	CLEAN_BUF struct buf text = { 0 };
	if (enforced && at->type == &core_v1_pod_type) {
		evaluate(&v, enforced, &text);
		if (text.len)
			return deny(at, "violates PodSecurity \"" STR_FMT ":latest\": %s",
				STR_ARG(enforce), text.p);
	}
	buf_clear(&text);
	if (warned)
		evaluate(&v, warned, &text);
	if (warned && text.len)
		*LIST_ADD(at->req->arena, &at->req->warnings) = arena_fmt(at->req->arena,
			"would violate PodSecurity \"" STR_FMT ":latest\": %s", STR_ARG(warn),
			text.p);
	return NULL;
}

static struct meta_v1_status *validate_pods(struct apiserver *s, struct admission_attributes *at)
{
	bool ephemeral = at->req->sub && !strcmp(at->req->sub->name, "ephemeralcontainers");
	return at->operation == VERB_CREATE || ephemeral ? validate(s, at) : NULL;
}

static struct meta_v1_status *dispatch_kind(struct apiserver *s, struct admission_attributes *at)
{
	if (!at->req->ns.len || !at->obj || (at->req->sub && at->type != &core_v1_pod_type))
		return NULL;
	if (at->type == &core_v1_pod_type)
		return validate_pods(s, at);
	return at->req->sub ? NULL : validate(s, at);
}

const struct plugin pod_security_plugin = {
	.name = "PodSecurity",
	.operations = VERB_CREATE | VERB_UPDATE,
	.validate = dispatch_kind,
};
