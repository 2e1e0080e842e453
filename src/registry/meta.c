/* ObjectMeta: what the server sets on create and update, and what it refuses. Upstream: registry/rest's BeforeCreate and
 * BeforeUpdate, apimachinery's validation of object metadata. */
#include "registry/internal.h"

enum {
	NAME_MAX_GENERATED = 63,
	NAME_SUFFIX = 5,
	ANNOTATIONS_MAX = 256 * 1024,
};

struct meta_v1_object_meta *write_meta(struct write *w)
{
	return model_meta(w->type, w->obj);
}

struct meta_v1_object_meta *write_old_meta(struct write *w)
{
	return w->old ? model_meta(w->type, w->old) : NULL;
}

static const char *path_segment(struct str s)
{
	if (str_eqz(s, "."))
		return "may not be '.'";
	if (str_eqz(s, ".."))
		return "may not be '..'";
	if (str_find(s, '/') >= 0)
		return "may not contain '/'";
	if (str_find(s, '%') >= 0)
		return "may not contain '%'";
	return NULL;
}

const char *name_check(enum name_rule rule, struct str name)
{
	static const char *(*const checks[])(struct str) = {
		[NAME_SUBDOMAIN] = valid_dns_subdomain,
		[NAME_LABEL] = valid_dns_label,
		[NAME_PATH_SEGMENT] = path_segment,
	};
	return checks[rule](name);
}

/* ---- create ---- */

bool meta_generate_name(struct write *w)
{
	struct meta_v1_object_meta *m = write_meta(w);
	char suffix[NAME_SUFFIX + 1];
	random_suffix(suffix, NAME_SUFFIX);
	size_t keep = MIN(m->generate_name.len, (size_t)(NAME_MAX_GENERATED - NAME_SUFFIX));
	m->name = arena_fmt(w->arena, "%.*s%s", (int)keep, m->generate_name.p, suffix);
	return true;
}

void meta_prepare_create(struct write *w)
{
	struct meta_v1_object_meta *m = write_meta(w);
	struct registry_request *req = w->req;
	if (m->resource_version.len && !str_eqz(m->resource_version, "0")) {
		w->refused = status_new(w->arena, REASON_NONE,
			"resourceVersion should not be set on objects to be created");
		return;
	}
	if (!w->res->row->namespaced) {
		m->namespace = STR_NONE;
	} else if (m->namespace.len && !str_eq(m->namespace, req->ns)) {
		w->refused = status_new(w->arena, REASON_BAD_REQUEST,
			"the namespace of the provided object does not match the namespace sent on the request");
		return;
	} else {
		m->namespace = req->ns;
	}
	if (req->name.len && m->name.len && !str_eq(req->name, m->name)) {
		w->refused = status_new(w->arena, REASON_BAD_REQUEST,
			"the name of the object (" STR_FMT
			") does not match the name on the URL (" STR_FMT ")",
			STR_ARG(m->name), STR_ARG(req->name));
		return;
	}
	if (req->name.len)
		m->name = req->name;
	if (!m->name.len && m->generate_name.len)
		w->generated = meta_generate_name(w);
	char uid[UUID_TEXT];
	uuid_v4(uid);
	m->uid = arena_strz(w->arena, uid);
	m->creation_timestamp = w->now;
	m->creation_timestamp.nsec = 0;
	m->self_link = STR_NONE;
	if (!w->applied)
		m->managed_fields = (__typeof__(m->managed_fields)){ 0 };
	m->resource_version = STR_NONE;
	m->deletion_timestamp = (struct timestamp){ 0 };
	m->deletion_grace_period_seconds = (struct opt_int64){ 0 };
	m->generation = 0;
}

static bool is_kind_prefix(struct meta_v1_owner_reference *o)
{
	return str_eqz(o->api_version, "v1") && str_eqz(o->kind, "Event");
}

static void validate_owners(const struct meta_v1_object_meta *m, struct str path, struct causes *cs)
{
	const struct meta_v1_owner_reference *controller = NULL;
	size_t i = 0;
	LIST_EACH(o, &m->owner_references) {
		struct str at =
			arena_fmt(cs->arena, STR_FMT ".ownerReferences[%zu]", STR_ARG(path), i++);
		const struct {
			const char *name, *why;
			struct str value;
		} parts[] = {
			{ "apiVersion", "version must not be empty", o->api_version },
			{ "kind", "must not be empty", o->kind },
			{ "name", "must not be empty", o->name },
			{ "uid", "must not be empty", o->uid },
		};
		for (size_t k = 0; k < ARRAY_LEN(parts); k++)
			if (!parts[k].value.len)
				cause_add(cs, CAUSE_INVALID,
					arena_fmt(cs->arena, STR_FMT ".%s", STR_ARG(at),
						parts[k].name),
					STR(""), "%s", parts[k].why);
		if (is_kind_prefix(o))
			cause_add(cs, CAUSE_INVALID, at, o->kind,
				"/v1, Kind=Event is disallowed from being an owner");
		if (!o->controller.value)
			continue;
		if (controller)
			cause_add(cs, CAUSE_INVALID,
				arena_fmt(cs->arena, STR_FMT ".ownerReferences", STR_ARG(path)),
				o->name,
				"Only one reference can have Controller set to true. Found \"true\" in references for " STR_FMT
				"/" STR_FMT " and " STR_FMT "/" STR_FMT,
				STR_ARG(controller->kind), STR_ARG(controller->name),
				STR_ARG(o->kind), STR_ARG(o->name));
		controller = o;
	}
}

void meta_validate_labels(const struct str_map *m, struct str path, struct causes *cs)
{
	LIST_EACH(p, m) {
		const char *bad = valid_label_key(p->key);
		if (bad)
			cause_add(cs, CAUSE_INVALID, path, p->key, "%s", bad);
		bad = valid_label_value(p->value);
		if (bad)
			cause_add(cs, CAUSE_INVALID, path, p->value, "%s", bad);
	}
}

void meta_validate_annotations(const struct str_map *m, struct str path, struct causes *cs)
{
	size_t total = 0;
	LIST_EACH(p, m) {
		struct str lower = arena_str(cs->arena, p->key);
		for (size_t i = 0; i < lower.len; i++)
			if (lower.p[i] >= 'A' && lower.p[i] <= 'Z')
				((char *)lower.p)[i] += 'a' - 'A';
		const char *bad = valid_label_key(lower);
		if (bad)
			cause_add(cs, CAUSE_INVALID, path, p->key, "%s", bad);
		total += p->key.len + p->value.len;
	}
	if (total > ANNOTATIONS_MAX)
		cause_add(cs, CAUSE_TOO_LONG, path, STR_NONE, "may not be more than %d bytes",
			ANNOTATIONS_MAX);
}

static void validate_finalizers(
	const struct meta_v1_object_meta *m, struct str path, struct causes *cs)
{
	struct str at = arena_fmt(cs->arena, STR_FMT ".finalizers", STR_ARG(path));
	bool orphan = false, foreground = false;
	LIST_EACH(f, &m->finalizers) {
		const char *bad = valid_label_key(*f);
		bool o = str_eqz(*f, "orphan"), fg = str_eqz(*f, "foregroundDeletion");
		orphan |= o;
		foreground |= fg;
		if (bad)
			cause_add(cs, CAUSE_INVALID, at, *f, "%s", bad);
		else if (str_find(*f, '/') < 0 && !o && !fg && !str_eqz(*f, "kubernetes"))
			cause_add(cs, CAUSE_INVALID, at, *f,
				"name is neither a standard finalizer name nor is it fully qualified");
	}
	if (orphan && foreground)
		cause_add(cs, CAUSE_INVALID, at, STR_NONE,
			"finalizer orphan and foregroundDeletion cannot be both set");
}

void meta_validate(const struct meta_v1_object_meta *m, struct str path, struct causes *cs)
{
	if (m->generation < 0)
		cause_add(cs, CAUSE_INVALID,
			arena_fmt(cs->arena, STR_FMT ".generation", STR_ARG(path)), STR_NONE,
			"%lld: must be greater than or equal to 0", (long long)m->generation);
	if (m->labels.len)
		meta_validate_labels(
			&m->labels, arena_fmt(cs->arena, STR_FMT ".labels", STR_ARG(path)), cs);
	if (m->annotations.len)
		meta_validate_annotations(&m->annotations,
			arena_fmt(cs->arena, STR_FMT ".annotations", STR_ARG(path)), cs);
	if (m->owner_references.len)
		validate_owners(m, path, cs);
	if (m->finalizers.len)
		validate_finalizers(m, path, cs);
}

void meta_validate_create(struct write *w, struct causes *cs)
{
	struct meta_v1_object_meta *m = write_meta(w);
	enum name_rule rule = w->res->kind ? w->res->kind->name_rule : NAME_SUBDOMAIN;
	const char *bad;
	if (m->generate_name.len) {
		/* a prefix: its last character need not end a name */
		struct str g = m->generate_name;
		if (g.p[g.len - 1] == '-')
			g = arena_fmt(cs->arena, "%.*sa", (int)g.len - 1, g.p);
		if ((bad = name_check(rule, g)))
			cause_add(cs, CAUSE_INVALID, STR("metadata.generateName"), m->generate_name,
				"%s", bad);
	}
	if (!m->name.len)
		cause_add(cs, CAUSE_REQUIRED, STR("metadata.name"), STR_NONE,
			"name or generateName is required");
	else if ((bad = name_check(rule, m->name)))
		cause_add(cs, CAUSE_INVALID, STR("metadata.name"), m->name, "%s", bad);
	meta_validate(m, STR("metadata"), cs);
}

/* ---- update ---- */

void meta_prepare_update(struct write *w)
{
	struct meta_v1_object_meta *m = write_meta(w), *old = write_old_meta(w);
	if (!m->uid.len)
		m->uid = old->uid;
	if (time_is_zero(m->creation_timestamp))
		m->creation_timestamp = old->creation_timestamp;
	if (time_is_zero(m->deletion_timestamp))
		m->deletion_timestamp = old->deletion_timestamp;
	if (!m->deletion_grace_period_seconds.set)
		m->deletion_grace_period_seconds = old->deletion_grace_period_seconds;
	if (!m->generate_name.len)
		m->generate_name = old->generate_name;
	m->self_link = STR_NONE;
	m->generation = old->generation;
	m->resource_version = old->resource_version;
}

static void immutable_time(
	struct causes *cs, const char *path, struct timestamp now, struct timestamp old)
{
	if (now.sec == old.sec)
		return;
	char text[TIME_TEXT_MAX];
	size_t n = time_format(now, text);
	cause_add(cs, CAUSE_INVALID, str_of(path), str_n(text, n), "field is immutable");
}

static void immutable_text(struct causes *cs, const char *path, struct str now, struct str old)
{
	if (!str_eq(now, old))
		cause_add(cs, CAUSE_INVALID, str_of(path), now.p ? now : STR(""),
			"field is immutable");
}

void meta_validate_update(struct write *w, struct causes *cs)
{
	struct meta_v1_object_meta *m = write_meta(w), *old = write_old_meta(w);
	immutable_text(cs, "metadata.name", m->name, old->name);
	immutable_text(cs, "metadata.namespace", m->namespace, old->namespace);
	immutable_text(cs, "metadata.uid", m->uid, old->uid);
	immutable_time(
		cs, "metadata.creationTimestamp", m->creation_timestamp, old->creation_timestamp);
	immutable_time(
		cs, "metadata.deletionTimestamp", m->deletion_timestamp, old->deletion_timestamp);
	if (m->deletion_grace_period_seconds.set != old->deletion_grace_period_seconds.set ||
		m->deletion_grace_period_seconds.value != old->deletion_grace_period_seconds.value)
		cause_add(cs, CAUSE_INVALID, STR("metadata.deletionGracePeriodSeconds"), STR_NONE,
			"%lld: field is immutable",
			(long long)m->deletion_grace_period_seconds.value);
	if (!time_is_zero(old->deletion_timestamp)) {
		CLEAN_BUF struct buf added = { 0 };
		LIST_EACH(f, &m->finalizers) {
			if (!str_list_has(&old->finalizers, *f))
				buf_addf(&added, "%s\"" STR_FMT "\"", added.len ? ", " : "",
					STR_ARG(*f));
		}
		if (added.len)
			cause_add(cs, CAUSE_FORBIDDEN, STR("metadata.finalizers"), STR_NONE,
				"no new finalizers can be added if the object is being deleted, found new finalizers []string{" STR_FMT
				"}",
				STR_ARG(buf_str(&added)));
	}
	meta_validate(m, STR("metadata"), cs);
}
