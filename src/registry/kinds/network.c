/* NetworkPolicy, ServiceCIDR and IPAddress. The cluster has one service range, given at start: a ServiceCIDR of another range is kept and shown, no
 * address comes from it. Upstream: pkg/registry/networking, pkg/apis/networking/validation. */
#include <arpa/inet.h>

#include "registry/kinds/kinds.h"

#define BAD_CIDR "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"

struct range {
	int family;
	uint8_t address[16];
	unsigned bits;
};

static bool range_parse(struct str s, struct range *ret)
{
	struct str address, bits;
	char text[INET6_ADDRSTRLEN];
	int64_t n;
	*ret = (struct range){ .family = AF_INET };
	if (!str_cut(s, '/', &address, &bits) || address.len >= sizeof(text) || valid_ip(address) ||
		str_to_i64(bits, &n) || n < 0)
		return false;
	memcpy(text, address.p, address.len);
	text[address.len] = '\0';
	if (inet_pton(AF_INET, text, ret->address) != 1) {
		ret->family = AF_INET6;
		if (inet_pton(AF_INET6, text, ret->address) != 1)
			return false;
	}
	ret->bits = (unsigned)n;
	return n <= (ret->family == AF_INET ? 32 : 128);
}

static bool range_within(const struct range *inner, const struct range *outer)
{
	if (inner->family != outer->family || inner->bits <= outer->bits)
		return false;
	for (unsigned i = 0; i < outer->bits; i++)
		if ((inner->address[i / 8] ^ outer->address[i / 8]) & (0x80 >> i % 8))
			return false;
	return true;
}

/* ---- NetworkPolicy ---- */

static void network_policy_fill(struct write *w, void *obj)
{
	struct networking_v1_network_policy *n = obj;
	if (n->spec.policy_types.len)
		return;
	*LIST_ADD(w->arena, &n->spec.policy_types) = STR("Ingress");
	if (n->spec.egress.len)
		*LIST_ADD(w->arena, &n->spec.policy_types) = STR("Egress");
}

static void check_policy_port(
	const struct networking_v1_network_policy_port *p, const struct at *at, struct causes *cs)
{
	const struct at *end = AT(at, "endPort");
	const char *bad = NULL;
	if (p->port.kind == IOS_STR
			? !!(bad = valid_port_name(p->port.text))
			: p->port.kind != IOS_NONE && (p->port.num < 1 || p->port.num > 65535))
		refuse_port(cs, AT(at, "port"), p->port, bad);
	if (!p->end_port.set)
		return;
	if (p->port.kind == IOS_NONE)
		INVALID_NUM(cs, end, p->end_port.value,
			"may not be specified when `port` is not specified");
	else if (p->port.kind == IOS_STR)
		INVALID_NUM(cs, end, p->end_port.value,
			"may not be specified when `port` is non-numeric");
	else if (p->end_port.value < p->port.num)
		INVALID_NUM(cs, end, p->port.num, "must be greater than or equal to `port`");
	else if (p->end_port.value > 65535)
		INVALID_NUM(cs, end, p->end_port.value, "must be between 1 and 65535, inclusive");
}

static void check_ip_block(
	const struct networking_v1_ip_block *b, const struct at *at, struct causes *cs)
{
	struct range all, but;
	if (!b->cidr.len)
		return; /* required, which was said already */
	if (!range_parse(b->cidr, &all)) {
		INVALID(cs, AT(at, "cidr"), b->cidr, BAD_CIDR);
		return;
	}
	for (size_t i = 0; i < b->except.len; i++) {
		struct str text = b->except.items[i];
		if (!range_parse(text, &but))
			INVALID(cs, AT_I(at, "except", i), shown(text), BAD_CIDR);
		else if (!range_within(&but, &all))
			INVALID(cs, AT_I(at, "except", i), text,
				"must be a strict subset of `cidr`");
	}
}

static void check_policy_peer(
	const struct networking_v1_network_policy_peer *p, const struct at *at, struct causes *cs)
{
	label_selector_validate(p->pod_selector, AT(at, "podSelector"), cs);
	label_selector_validate(p->namespace_selector, AT(at, "namespaceSelector"), cs);
	if (p->ip_block)
		check_ip_block(p->ip_block, AT(at, "ipBlock"), cs);
	if (!p->pod_selector && !p->namespace_selector && !p->ip_block)
		REQUIRED(cs, at, "must specify a peer");
	else if (p->ip_block && (p->pod_selector || p->namespace_selector))
		FORBIDDEN(cs, at, "may not specify both ipBlock and another peer");
}

static void network_policy_validate(struct write *w, struct causes *cs)
{
	struct networking_v1_network_policy *n = w->obj;
	const struct at *spec = AT(NULL, "spec");
	size_t i = 0, k;
	label_selector_validate(&n->spec.pod_selector, AT(spec, "podSelector"), cs);
	LIST_EACH(r, &n->spec.ingress) {
		const struct at *at = AT_I(spec, "ingress", i++);
		k = 0;
		LIST_EACH(p, &r->ports)
			check_policy_port(p, AT_I(at, "ports", k++), cs);
		k = 0;
		LIST_EACH(p, &r->from)
			check_policy_peer(p, AT_I(at, "from", k++), cs);
	}
	i = 0;
	LIST_EACH(r, &n->spec.egress) {
		const struct at *at = AT_I(spec, "egress", i++);
		k = 0;
		LIST_EACH(p, &r->ports)
			check_policy_port(p, AT_I(at, "ports", k++), cs);
		k = 0;
		LIST_EACH(p, &r->to)
			check_policy_peer(p, AT_I(at, "to", k++), cs);
	}
	if (n->spec.policy_types.len > 2)
		cause_at(cs, CAUSE_INVALID, AT(spec, "policyTypes"), STR_NONE,
			"may not specify more than two policyTypes");
}

const struct kind network_policy_kind = {
	.resource = "networkpolicies.networking.k8s.io",
	.flags = KIND_GENERATION,
	.fill = network_policy_fill,
	.validate = network_policy_validate,
};

/* ---- ServiceCIDR and IPAddress ---- */

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
	struct range range;
	if (!c->spec.cidrs.len)
		REQUIRED(cs, AT(at, "cidrs"), "at least one CIDR required");
	if (c->spec.cidrs.len > 2)
		cause_at(cs, CAUSE_INVALID, AT(at, "cidrs"), STR_NONE,
			"may only hold up to 2 values");
	for (size_t i = 0; i < c->spec.cidrs.len; i++)
		if (!range_parse(c->spec.cidrs.items[i], &range))
			INVALID(cs, AT_I(at, "cidrs", i), c->spec.cidrs.items[i], BAD_CIDR);
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
