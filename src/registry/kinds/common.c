/* Small checks that several kinds share. */
#include <arpa/inet.h>

#include "registry/kinds/kinds.h"

static void add_text(const struct at *at, struct buf *b)
{
	if (at->up) {
		add_text(at->up, b);
		if (*at->name)
			buf_addc(b, '.');
	}
	buf_addz(b, at->name);
	if (at->index >= 0)
		buf_addf(b, "[%zd]", at->index);
	else if (at->key.p)
		buf_addf(b, "[" STR_FMT "]", STR_ARG(at->key));
}

struct str at_text(const struct at *at, struct arena *a)
{
	CLEAN_BUF struct buf b = { 0 };
	add_text(at, &b);
	return arena_str(a, buf_str(&b));
}

void cause_at(struct causes *cs, enum cause_reason r, const struct at *at, struct str value,
	const char *fmt, ...)
{
	va_list ap;
	if (cs->len >= CAUSES_MAX)
		return;
	va_start(ap, fmt);
	struct str text = arena_vfmt(cs->arena, fmt, ap);
	va_end(ap);
	const char *plain = text.len ? "%s" : NULL; /* nothing to say beyond the reason */
	cause_add(cs, r, at_text(at, cs->arena), value, plain, text.p);
}

void refuse_port(
	struct causes *cs, const struct at *at, struct int_or_str port, const char *bad_name)
{
	if (bad_name)
		INVALID(cs, at, shown(port.text), bad_name);
	else
		INVALID_NUM(cs, at, port.num, "must be between 1 and 65535, inclusive");
}

const char *valid_config_key(struct str s)
{
	if (s.len > 253)
		return "must be no more than 253 characters";
	if (str_eqz(s, "."))
		return "must not be '.'";
	if (str_eqz(s, ".."))
		return "must not be '..'";
	if (str_has_prefix(s, STR("..")))
		return "must not start with '..'";
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    c == '-' || c == '_' || c == '.'))
			return "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',"
			       "  or 'key-name', regex used "
			       "for validation is '[-._a-zA-Z0-9]+')";
	}
	return s.len
		? NULL
		: "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
		  "'key-name', "
		  "regex used for validation is '[-._a-zA-Z0-9]+')";
}

const char *valid_port_name(struct str s)
{
	bool letter = false;
	if (s.len > 15)
		return "must be no more than 15 characters";
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];
		if (c >= 'a' && c <= 'z')
			letter = true;
		else if (c == '-' && i > 0 && s.p[i - 1] == '-')
			return "must not contain consecutive hyphens";
		else if (c != '-' && !(c >= '0' && c <= '9'))
			return "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)";
	}
	if (!letter)
		return "must contain at least one letter (a-z)";
	if (s.p[0] == '-' || s.p[s.len - 1] == '-')
		return "must not begin or end with a hyphen";
	return NULL;
}

bool parse_ipv4(struct str s, uint32_t *ret)
{
	char z[INET_ADDRSTRLEN];
	struct in_addr in;
	if (s.len >= sizeof(z))
		return false;
	memcpy(z, s.p ? s.p : "", s.len);
	z[s.len] = '\0';
	if (inet_pton(AF_INET, z, &in) != 1)
		return false;
	*ret = ntohl(in.s_addr);
	return true;
}

const char *valid_ip(struct str s)
{
	char z[INET6_ADDRSTRLEN];
	struct in6_addr in;
	uint32_t v4;
	if (parse_ipv4(s, &v4))
		return NULL;
	if (s.len && s.len < sizeof(z)) {
		memcpy(z, s.p, s.len);
		z[s.len] = '\0';
		if (inet_pton(AF_INET6, z, &in) == 1)
			return NULL;
	}
	return "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
}

/* Addresses by which traffic would end at the machine that carries it, or at what answers only there (a cloud's metadata). */
const char *special_ip(struct str s)
{
	static const char *const
		loopback = "may not be in the loopback range (127.0.0.0/8, ::1/128)",
		*const unspecified = "may not be unspecified (0.0.0.0 or ::)",
		*const local = "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
		*const multicast =
			"may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
	char z[INET6_ADDRSTRLEN];
	struct in6_addr in;
	uint32_t v4 = 0;
	bool is_v4 = parse_ipv4(s, &v4);

	if (!is_v4) {
		if (s.len >= sizeof(z))
			return NULL;
		memcpy(z, s.p ? s.p : "", s.len);
		z[s.len] = '\0';
		if (inet_pton(AF_INET6, z, &in) != 1)
			return NULL;
		is_v4 = IN6_IS_ADDR_V4MAPPED(&in);
		memcpy(&v4, in.s6_addr + 12, sizeof(v4));
		v4 = ntohl(v4);
	}
	if (is_v4)
		return v4 >> 24 == 127        ? loopback
			: v4 == 0             ? unspecified
			: v4 >> 16 == 0xa9fe  ? local
			: v4 >> 8 == 0xe00000 ? multicast
					      : NULL;
	return IN6_IS_ADDR_LOOPBACK(&in)        ? loopback
		: IN6_IS_ADDR_UNSPECIFIED(&in)  ? unspecified
		: IN6_IS_ADDR_LINKLOCAL(&in)    ? local
		: IN6_IS_ADDR_MC_LINKLOCAL(&in) ? multicast
						: NULL;
}

bool text_among(struct str s, const char *const *values)
{
	for (; *values; values++)
		if (str_eqz(s, *values))
			return true;
	return false;
}
