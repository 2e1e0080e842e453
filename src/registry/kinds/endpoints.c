/* Endpoints and EndpointSlices. Upstream: pkg/registry/core/endpoint and discovery. */
#include "registry/kinds/kinds.h"

enum { SLICE_ENDPOINTS_MAX = 1000, SLICE_ADDRESSES_MAX = 100, SLICE_PORTS_MAX = 20000 };

/* ---- Endpoints ---- */

static void check_addresses(const struct core_v1_endpoint_address_items *list, const char *name,
	const struct at *at, struct causes *cs)
{
	size_t i = 0;
	LIST_EACH(a, list) {
		const struct at *here = AT_I(at, name, i++);
		const char *bad = valid_ip(a->ip);
		if (bad)
			INVALID(cs, AT(here, "ip"), shown(a->ip), bad);
		else if ((bad = special_ip(a->ip)))
			INVALID(cs, AT(here, "ip"), a->ip, bad);
		if (a->hostname.len && (bad = valid_dns_label(a->hostname)))
			INVALID(cs, AT(here, "hostname"), a->hostname, bad);
	}
}

static void endpoints_validate(struct write *w, struct causes *cs)
{
	struct core_v1_endpoints *e = w->obj;
	size_t i = 0;
	LIST_EACH(s, &e->subsets) {
		const struct at *at = AT_I(NULL, "subsets", i++);
		if (!s->addresses.len && !s->not_ready_addresses.len)
			REQUIRED(cs, at, "must specify `addresses` or `notReadyAddresses`");
		check_addresses(&s->addresses, "addresses", at, cs);
		check_addresses(&s->not_ready_addresses, "notReadyAddresses", at, cs);
		size_t k = 0;
		LIST_EACH(p, &s->ports) {
			const struct at *here = AT_I(at, "ports", k++);
			const char *bad;
			if (!p->name.len && s->ports.len > 1)
				REQUIRED(cs, AT(here, "name"), "");
			else if (p->name.len && (bad = valid_dns_label(p->name)))
				INVALID(cs, AT(here, "name"), p->name, bad);
		}
	}
}

const struct kind endpoints_kind = {
	.resource = "endpoints", .flags = KIND_CREATE_ON_UPDATE, .validate = endpoints_validate
};

/* ---- EndpointSlice ---- */

static void slice_fill(struct write *w, void *obj)
{
	struct discovery_v1_endpoint_slice *s = obj;
	LIST_EACH(p, &s->ports) {
		if (!p->name.p)
			p->name = STR("");
		if (!p->protocol.p)
			p->protocol = STR("TCP");
	}
}

/* NULL: one of the slice's sort, and one that traffic may be sent to. */
static const char *bad_slice_address(struct str type, struct str a)
{
	uint32_t v4;
	if (str_eqz(type, "FQDN"))
		return valid_dns_subdomain(a);
	if (valid_ip(a))
		return valid_ip(a);
	if (parse_ipv4(a, &v4) != str_eqz(type, "IPv4"))
		return str_eqz(type, "IPv4") ? "must be a valid IPv4 address"
					     : "must be a valid IPv6 address";
	return special_ip(a);
}

static void slice_validate(struct write *w, struct causes *cs)
{
	struct discovery_v1_endpoint_slice *s = w->obj;
	size_t i = 0;
	if (s->endpoints.len > SLICE_ENDPOINTS_MAX)
		cause_add(cs, CAUSE_TOO_MANY, STR("endpoints"), STR_NONE,
			"%zu: must have at most %d items", s->endpoints.len, SLICE_ENDPOINTS_MAX);
	LIST_EACH(e, &s->endpoints) {
		const struct at *at = AT_I(NULL, "endpoints", i++);
		if (!e->addresses.len)
			REQUIRED(cs, AT(at, "addresses"), "must contain at least 1 address");
		else if (e->addresses.len > SLICE_ADDRESSES_MAX)
			cause_at(cs, CAUSE_TOO_MANY, AT(at, "addresses"), STR_NONE,
				"%zu: must have at most %d items", e->addresses.len,
				SLICE_ADDRESSES_MAX);
		for (size_t k = 0; k < e->addresses.len; k++) {
			struct str a = e->addresses.items[k];
			const char *bad = bad_slice_address(s->address_type, a);
			if (bad)
				INVALID(cs, AT_I(at, "addresses", k), a, bad);
		}
		if (e->hostname.len && valid_dns_label(e->hostname))
			INVALID(cs, AT(at, "hostname"), e->hostname, valid_dns_label(e->hostname));
	}
	i = 0;
	LIST_EACH(p, &s->ports) {
		const struct at *at = AT_I(NULL, "ports", i++);
		for (const struct discovery_v1_endpoint_port *q = s->ports.items; q < p; q++)
			if (str_eq(q->name, p->name)) {
				DUPLICATE(cs, AT(at, "name"), shown(p->name));
				break;
			}
		if (p->name.len && valid_dns_label(p->name))
			INVALID(cs, AT(at, "name"), p->name, valid_dns_label(p->name));
	}
}

static void slice_validate_update(struct write *w, struct causes *cs)
{
	struct discovery_v1_endpoint_slice *s = w->obj, *old = w->old;
	if (!str_eq(s->address_type, old->address_type))
		INVALID(cs, AT(NULL, "addressType"), shown(s->address_type), IMMUTABLE);
}

const struct kind endpoint_slice_kind = {
	.resource = "endpointslices.discovery.k8s.io",
	.flags = KIND_GENERATION,
	.fill = slice_fill,
	.validate = slice_validate,
	.validate_update = slice_validate_update,
};
