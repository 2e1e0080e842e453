/* Image references, normalised as docker does: busybox is docker.io/library/busybox:latest.
 * Source: https://github.com/distribution/reference (the grammar in its documentation). */
#include "engine/internal.h"

#include <ctype.h>

#define NAME_LIMIT 255
#define TAG_LIMIT 128

static bool is_digest(struct str s)
{
	if (s.len != 71 || !str_has_prefix(s, STR("sha256:")))
		return false;
	for (size_t i = 7; i < s.len; i++)
		if (!isdigit((unsigned char)s.p[i]) && !(s.p[i] >= 'a' && s.p[i] <= 'f'))
			return false;
	return true;
}

static bool is_tag(struct str s)
{
	if (!s.len || s.len > TAG_LIMIT || s.p[0] == '.' || s.p[0] == '-')
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (!isalnum((unsigned char)s.p[i]) && !memchr("_.-", s.p[i], 3))
			return false;
	return true;
}

/* Lower-case words, joined by one dot, one or two underscores, or any number of hyphens. */
static bool is_component(struct str s)
{
	size_t i = 0;

	for (;;) {
		size_t start = i;
		while (i < s.len &&
			(isdigit((unsigned char)s.p[i]) || (s.p[i] >= 'a' && s.p[i] <= 'z')))
			i++;
		if (i == start)
			return false;
		if (i == s.len)
			return true;
		if (s.p[i] == '.')
			i++;
		else if (s.p[i] == '_')
			i += i + 1 < s.len && s.p[i + 1] == '_' ? 2 : 1;
		else if (s.p[i] == '-')
			while (i < s.len && s.p[i] == '-')
				i++;
		else
			return false;
	}
}

static bool is_path(struct str s)
{
	struct str head;

	while (str_cut(s, '/', &head, &s))
		if (!is_component(head))
			return false;
	return is_component(head);
}

static bool is_domain(struct str s)
{
	struct str host = s, port = STR_NONE;
	bool with_port = s.len && s.p[0] != '[' && str_cut(s, ':', &host, &port);

	for (size_t i = 0; i < host.len; i++)
		if (!isalnum((unsigned char)host.p[i]) && !memchr(".-[]:", host.p[i], 5))
			return false;
	for (size_t i = 0; i < port.len; i++)
		if (!isdigit((unsigned char)port.p[i]))
			return false;
	return host.len && (!with_port || port.len) && host.p[0] != '-' && host.p[0] != '.';
}

/* Is the part before the first slash a registry? Only when it cannot be a user's name. */
static bool looks_like_domain(struct str s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] == '.' || s.p[i] == ':' || isupper((unsigned char)s.p[i]))
			return true;
	return str_eqz(s, "localhost");
}

static int split_domain(struct str name, struct arena *a, struct str *ret)
{
	struct str domain, path;

	if (!str_cut(name, '/', &domain, &path) || !looks_like_domain(domain)) {
		domain = STR("docker.io");
		path = name;
	} else if (str_eqz(domain, "index.docker.io")) {
		domain = STR("docker.io");
	}
	if (!is_domain(domain) || !is_path(path))
		return -EINVAL;
	bool official = str_eqz(domain, "docker.io") && str_find(path, '/') < 0;
	*ret = arena_fmt(a, STR_FMT "/%s" STR_FMT, STR_ARG(domain), official ? "library/" : "",
		STR_ARG(path));
	return 0;
}

int image_ref_parse(struct str text, struct arena *a, struct image_ref *ret, struct err *err)
{
	struct str name = text, digest = STR_NONE, tag = STR_NONE;
	ssize_t at = str_find(text, '@'), colon = -1;
	struct image_ref r;

	if (at >= 0) {
		digest = str_from(text, (size_t)at + 1);
		name = str_n(text.p, (size_t)at);
		if (!is_digest(digest))
			return err_set(err, -EINVAL,
				"invalid image reference \"" STR_FMT
				"\": what follows @ must be sha256: and 64 hex "
				"digits",
				STR_ARG(text));
	}
	for (size_t i = 0; i < name.len; i++) {
		if (name.p[i] == ':')
			colon = (ssize_t)i;
		else if (name.p[i] == '/')
			colon = -1;
	}
	if (colon >= 0) {
		tag = str_from(name, (size_t)colon + 1);
		name = str_n(name.p, (size_t)colon);
		if (!is_tag(tag))
			return err_set(err, -EINVAL,
				"invalid image reference \"" STR_FMT "\": the tag is malformed",
				STR_ARG(text));
	}
	if (split_domain(name, a, &r.name) < 0 || r.name.len > NAME_LIMIT)
		return err_set(err, -EINVAL,
			"invalid image reference \"" STR_FMT
			"\": a name is lower-case words joined by . _ - and /",
			STR_ARG(text));
	r.digest = arena_str(a, digest);
	r.tag = arena_str(a, tag.len || digest.len ? tag : STR("latest"));
	r.canonical = r.tag.len
		? arena_fmt(a, STR_FMT ":" STR_FMT, STR_ARG(r.name), STR_ARG(r.tag))
		: arena_fmt(a, STR_FMT "@" STR_FMT, STR_ARG(r.name), STR_ARG(r.digest));
	*ret = r;
	return 0;
}
