/* The label and field selectors of one request, parsed and checked once, asked for each object without decoding it. */
#include "registry/internal.h"

/* events.k8s.io spells some labels of the stored version in its own words. */
static const struct {
	const char *label, *stored;
} event_labels[] = {
	{ "regarding.", "involvedObject." },
	{ "reportingController", "reportingComponent" },
};

static struct str stored_label(const struct resource *r, struct str label, struct arena *a)
{
	if (r->storage == r)
		return label;
	for (size_t i = 0; i < ARRAY_LEN(event_labels); i++) {
		struct str from = str_of(event_labels[i].label);
		if (str_has_prefix(label, from))
			return arena_fmt(a, "%s" STR_FMT, event_labels[i].stored,
				STR_ARG(str_from(label, from.len)));
	}
	return label;
}

static bool known_field(const struct resource *r, struct str label)
{
	const struct resource_extra *x = extra_of(r);
	for (size_t i = 0; i < x->n_fields; i++)
		if (str_eq(x->fields[i].name, label))
			return true;
	return false;
}

static void pin(struct str *slot, struct str value, struct selection *ret)
{
	if (slot->len && !str_eq(*slot, value))
		ret->none = true;
	*slot = value;
	if (!value.len)
		ret->none = true;
}

static struct meta_v1_status *take_term(
	const struct registry_request *req, struct field_term t, struct selection *ret)
{
	const struct resource *r = req->resource;
	bool is_name = str_eqz(t.key, "metadata.name"),
	     is_ns = str_eqz(t.key, "metadata.namespace") && r->row->namespaced;
	if (str_eqz(t.key, "spec.host") && str_eqz(r->group_resource, "pods"))
		t.key = STR("spec.nodeName");
	if (!is_name && !is_ns && !known_field(r, t.key)) {
		if (extra_of(r)->n_fields)
			return status_new(req->arena, REASON_BAD_REQUEST,
				"field label not supported: " STR_FMT, STR_ARG(t.key));
		return status_new(req->arena, REASON_BAD_REQUEST,
			"\"" STR_FMT
			"\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
			STR_ARG(t.key));
	}
	if ((is_name || is_ns) && !t.negate) {
		pin(is_name ? &ret->name : &ret->ns, t.value, ret);
		return NULL;
	}
	t.key = stored_label(r, t.key, req->arena);
	ret->fields[ret->n_fields++] = t;
	return NULL;
}

struct meta_v1_status *selection_parse(const struct registry_request *req, struct selection *ret)
{
	struct err err = { 0 };
	*ret = (struct selection){ 0 };
	if (req->label_selector.len &&
		selector_parse_labels(req->label_selector, req->arena, &ret->labels, &err))
		return status_new(req->arena, REASON_BAD_REQUEST, "unable to parse requirement: %s",
			err.text);
	if (req->field_selector.len) {
		struct field_term *terms;
		size_t n;
		if (selector_parse_fields(req->field_selector, req->arena, &terms, &n, &err))
			return status_new(req->arena, REASON_BAD_REQUEST, "%s", err.text);
		ret->fields = arena_alloc(req->arena, (n + 1) * sizeof(*terms));
		for (size_t i = 0; i < n; i++) {
			struct meta_v1_status *st = take_term(req, terms[i], ret);
			if (st)
				return st;
		}
	}
	if (req->name.len)
		pin(&ret->name, req->name, ret);
	if (ret->ns.len && req->ns.len && !str_eq(ret->ns, req->ns))
		ret->none = true;
	return NULL;
}

bool selection_any(const struct selection *s)
{
	return s->labels || s->n_fields || s->name.len || s->ns.len || s->none;
}

const char *field_absent(const struct resource *storage, struct str label)
{
	const struct resource_extra *x = extra_of(storage);
	for (size_t i = 0; i < x->n_fields; i++)
		if (str_eq(x->fields[i].name, label))
			return x->fields[i].absent;
	return "";
}

static struct str value_in(const struct resource *storage, const struct object *o, struct str label,
	struct str ns, struct str name)
{
	if (str_eqz(label, "metadata.name"))
		return name;
	if (str_eqz(label, "metadata.namespace"))
		return ns;
	for (size_t i = 0; i < o->n_fields; i++)
		if (str_eq(o->fields[i].key, label))
			return o->fields[i].value;
	return str_of(field_absent(storage, label));
}

bool selection_matches(const struct selection *s, const struct resource *r, const struct object *o)
{
	if (s->none)
		return false;
	if (s->name.len || s->ns.len || s->n_fields) {
		struct str ns, name;
		key_parts(r, o->key, &ns, &name);
		if ((s->name.len && !str_eq(s->name, name)) || (s->ns.len && !str_eq(s->ns, ns)))
			return false;
		for (size_t i = 0; i < s->n_fields; i++)
			if (str_eq(value_in(r->storage, o, s->fields[i].key, ns, name),
				    s->fields[i].value) == s->fields[i].negate)
				return false;
	}
	if (!s->labels)
		return true;
	struct str_map labels = { (struct str_pair *)o->labels, o->n_labels };
	return selector_matches(s->labels, &labels);
}
