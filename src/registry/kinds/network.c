/* ServiceCIDR and IPAddress. The cluster has one service range, given at start: a ServiceCIDR of another range is kept and shown, no address
 * comes from it. Upstream: pkg/registry/networking. */
#include "registry/kinds/kinds.h"

static bool valid_cidr(struct str s)
{
	struct str address, bits;
	int64_t n;
	uint32_t v4;
	if (!str_cut(s, '/', &address, &bits) || valid_ip(address) || str_to_i64(bits, &n) || n < 0)
		return false;
	return n <= (parse_ipv4(address, &v4) ? 32 : 128);
}

static void cidr_prepare_create(struct write *w)
{
	struct networking_v1_service_cidr *c = w->obj;
	struct meta_v1_condition *ready = LIST_ADD(w->arena, &c->status.conditions);
	ready->type = STR("Ready");
	ready->status = STR("True");
	ready->reason = STR("Ready");
	ready->message = STR("Kubernetes Service CIDR is ready");
	ready->last_transition_time = (struct timestamp){ w->now.sec, 0 };
}

static void cidr_validate(struct write *w, struct causes *cs)
{
	struct networking_v1_service_cidr *c = w->obj;
	const struct at *at = AT(NULL, "spec");
	if (!c->spec.cidrs.len)
		REQUIRED(cs, AT(at, "cidrs"), "at least one CIDR required");
	if (c->spec.cidrs.len > 2)
		cause_at(cs, CAUSE_INVALID, AT(at, "cidrs"), STR_NONE,
			"may only hold up to 2 values");
	for (size_t i = 0; i < c->spec.cidrs.len; i++)
		if (!valid_cidr(c->spec.cidrs.items[i]))
			INVALID(cs, AT_I(at, "cidrs", i), c->spec.cidrs.items[i],
				"must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
}

static void cidr_validate_update(struct write *w, struct causes *cs)
{
	struct networking_v1_service_cidr *c = w->obj, *old = w->old;
	if (!model_equal(&networking_v1_service_cidr_spec_type, &c->spec, &old->spec))
		INVALID(cs, AT(AT(NULL, "spec"), "cidrs"), STR_NONE, IMMUTABLE);
}

const struct kind service_cidr_kind = {
	.resource = "servicecidrs.networking.k8s.io",
	.flags = KIND_STATUS_META,
	.prepare_create = cidr_prepare_create,
	.validate = cidr_validate,
	.validate_update = cidr_validate_update,
};

static void ip_validate(struct write *w, struct causes *cs)
{
	struct networking_v1_ip_address *a = w->obj;
	const struct networking_v1_parent_reference *p = a->spec.parent_ref;
	const struct at *at = AT(AT(NULL, "spec"), "parentRef");
	const char *bad = valid_ip(a->metadata.name);
	if (bad)
		INVALID(cs, AT(AT(NULL, "metadata"), "name"), shown(a->metadata.name), bad);
	if (p && p->group.len && valid_dns_subdomain(p->group))
		INVALID(cs, AT(at, "group"), p->group, valid_dns_subdomain(p->group));
}

static void ip_validate_update(struct write *w, struct causes *cs)
{
	struct networking_v1_ip_address *a = w->obj, *old = w->old;
	if (!model_equal(&networking_v1_ip_address_spec_type, &a->spec, &old->spec))
		INVALID(cs, AT(AT(NULL, "spec"), "parentRef"), STR_NONE, IMMUTABLE);
}

const struct kind ip_address_kind = {
	.resource = "ipaddresses.networking.k8s.io",
	.flags = KIND_GENERATION,
	.name_rule = NAME_PATH_SEGMENT, /* an IPv6 address is no DNS name */
	.validate = ip_validate,
	.validate_update = ip_validate_update,
};
