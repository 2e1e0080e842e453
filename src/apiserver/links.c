/* Links in proxied pages: /a in a page of a pod becomes /api/v1/namespaces/N/pods/P/proxy/a, so that a browser stays behind the proxy. Tags are looked at as
 * they stream by, one byte of state at a time; everything else goes through as it is. Upstream: apimachinery/pkg/util/proxy/transport.go. */
#include <ctype.h>
#include <strings.h>

#include "apiserver/connect.h"

enum { TAG_MAX = 64 * 1024 }; /* a longer tag is no tag */

static const struct {
	const char *tag;
	const char *attrs[4];
} linking[] = {
	{ "a", { "href" } },
	{ "applet", { "codebase" } },
	{ "area", { "href" } },
	{ "audio", { "src" } },
	{ "base", { "href" } },
	{ "blockquote", { "cite" } },
	{ "body", { "background" } },
	{ "button", { "formaction" } },
	{ "command", { "icon" } },
	{ "del", { "cite" } },
	{ "embed", { "src" } },
	{ "form", { "action" } },
	{ "frame", { "longdesc", "src" } },
	{ "head", { "profile" } },
	{ "html", { "manifest" } },
	{ "iframe", { "longdesc", "src" } },
	{ "img", { "longdesc", "src", "usemap" } },
	{ "input", { "src", "usemap", "formaction" } },
	{ "ins", { "cite" } },
	{ "link", { "href" } },
	{ "object", { "classid", "codebase", "data", "usemap" } },
	{ "q", { "cite" } },
	{ "script", { "src" } },
	{ "source", { "src" } },
	{ "video", { "poster", "src" } },
};
/* What stands between these and their ends is text, whatever it looks like. */
static const char *const raw_text[] = { "script", "style", "textarea", "title", "xmp", "iframe",
	"noembed", "noframes" };

struct links {
	struct str prefix;    /* without a slash at its end */
	struct str server[2]; /* HOST:PORT and HOST of the page's server */
	struct buf tag;       /* "<" and what came since; empty: outside */
	char quote;           /* inside an attribute's value */
	const char *raw;      /* the element of raw text whose end is awaited */
};

static bool is_word(struct str s, const char *word)
{
	return s.len == strlen(word) && !strncasecmp(s.p, word, s.len);
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}

/* Where a link's path begins, when it leads to the page's own server and from its root; -1: it does not. */
static ssize_t path_of(const struct links *l, struct str link)
{
	ssize_t host = -1;

	for (size_t i = 0; i < 2 && host < 0; i++) {
		static const char *const schemes[] = { "http://", "https://", "//" };

		for (size_t k = 0; k < ARRAY_LEN(schemes) && host < 0; k++) {
			size_t n = strlen(schemes[k]), end = n + l->server[i].len;

			if (link.len >= end && !strncasecmp(link.p, schemes[k], n) &&
				!memcmp(link.p + n, l->server[i].p, l->server[i].len) &&
				(link.len == end || link.p[end] == '/'))
				host = (ssize_t)end;
		}
	}
	if (host >= 0)
		return host;
	return link.len && link.p[0] == '/' && (link.len == 1 || link.p[1] != '/') ? 0 : -1;
}

static void add_link(const struct links *l, struct str link, struct buf *out)
{
	ssize_t path = path_of(l, link);

	if (path >= 0 && !str_has_prefix(str_from(link, (size_t)path), l->prefix)) {
		buf_add_str(out, l->prefix);
		link = str_from(link, (size_t)path);
	} else if (path > 0) {
		link = str_from(link, (size_t)path);
	}
	buf_add_str(out, link);
}

static const char *const *attrs_of(struct str name)
{
	for (size_t i = 0; i < ARRAY_LEN(linking); i++)
		if (is_word(name, linking[i].tag))
			return linking[i].attrs;
	return NULL;
}

static bool attr_links(const char *const *attrs, struct str name)
{
	for (size_t i = 0; i < 4 && attrs[i]; i++)
		if (is_word(name, attrs[i]))
			return true;
	return false;
}

/* From p on while it is (not) one of the characters that end a name. */
static size_t name_end(struct str tag, size_t p)
{
	while (p < tag.len && !is_space(tag.p[p]) && tag.p[p] != '=' && tag.p[p] != '>' &&
		tag.p[p] != '/')
		p++;
	return p;
}

static size_t spaces_end(struct str tag, size_t p)
{
	while (p < tag.len && is_space(tag.p[p]))
		p++;
	return p;
}

/* The value that begins at p: *ret_from and *ret_to without its quotes. Returns where to go on. */
static size_t value_at(struct str tag, size_t p, size_t *ret_from, size_t *ret_to)
{
	char quote = p < tag.len && (tag.p[p] == '"' || tag.p[p] == '\'') ? tag.p[p] : 0;

	*ret_from = p += quote != 0;
	while (p < tag.len && (quote ? tag.p[p] != quote : !is_space(tag.p[p]) && tag.p[p] != '>'))
		p++;
	*ret_to = p;
	return p + (quote && p < tag.len);
}

static void add_tag(struct links *l, struct str tag, struct buf *out)
{
	size_t at = 0, p = name_end(tag, 1);
	struct str name = str_n(tag.p + 1, p - 1);
	const char *const *attrs = attrs_of(name);

	for (size_t i = 0; i < ARRAY_LEN(raw_text); i++)
		if (is_word(name, raw_text[i]))
			l->raw = raw_text[i];
	while (attrs && p < tag.len) {
		size_t from = spaces_end(tag, p), end = name_end(tag, from), to;
		struct str attr = str_n(tag.p + from, end - from);

		p = spaces_end(tag, end);
		if (p >= tag.len || tag.p[p] != '=') {
			p = MAX(p, from + 1); /* a stray slash or the end */
			continue;
		}
		p = value_at(tag, spaces_end(tag, p + 1), &from, &to);
		if (!attr_links(attrs, attr))
			continue;
		buf_add(out, tag.p + at, from - at);
		add_link(l, str_n(tag.p + from, to - from), out);
		at = to;
	}
	buf_add(out, tag.p + at, tag.len - at);
}

/* What came since "<" is whole; false: not yet. Goes to out. */
static bool close_tag(struct links *l, struct buf *out)
{
	struct str tag = buf_str(&l->tag);

	if (str_has_prefix(tag, STR("<!--")) && (tag.len < 7 || !str_has_suffix(tag, STR("-->"))))
		return false;
	if (l->raw) {
		if (is_word(str_n(tag.p + 2, name_end(tag, 2) - 2), l->raw))
			l->raw = NULL;
		buf_add_str(out, tag);
	} else if (isalpha((unsigned char)tag.p[1])) {
		add_tag(l, tag, out);
	} else {
		buf_add_str(out, tag);
	}
	return true;
}

static void flush(struct links *l, struct buf *out)
{
	buf_add_str(out, buf_str(&l->tag));
	buf_clear(&l->tag);
	l->quote = 0;
}

/* false: what is held is no tag, as in "a < b", or no end of the raw text that it stands in. */
static bool may_be_tag(const struct links *l)
{
	struct str t = buf_str(&l->tag);

	if (t.len == 1)
		return true;
	if (l->raw)
		return t.p[1] == '/' &&
			(t.len < 3 ||
				!strncasecmp(t.p + 2, l->raw, MIN(t.len - 2, strlen(l->raw))));
	return t.len <= TAG_MAX &&
		(isalpha((unsigned char)t.p[1]) || t.p[1] == '/' || t.p[1] == '!' || t.p[1] == '?');
}

/* Whether a quote that comes now opens a value. */
static bool awaits_value(const struct links *l)
{
	size_t n = l->tag.len - 1;

	while (n > 1 && is_space(l->tag.p[n - 1]))
		n--;
	return isalpha((unsigned char)l->tag.p[1]) && l->tag.p[n - 1] == '=';
}

static void links_body(void *arg, struct str bytes, bool last, struct buf *out)
{
	struct links *l = arg;

	for (size_t i = 0; i < bytes.len; i++) {
		char c = bytes.p[i];
		bool comment = str_has_prefix(buf_str(&l->tag), STR("<!--"));

		if (c == '<' && !l->quote && !comment && l->tag.len)
			flush(l, out);
		if (!l->tag.len && c != '<') {
			buf_addc(out, c);
			continue;
		}
		buf_addc(&l->tag, c);
		if (!may_be_tag(l)) {
			flush(l, out);
		} else if (l->quote) {
			if (c == l->quote)
				l->quote = 0;
		} else if ((c == '"' || c == '\'') && awaits_value(l)) {
			l->quote = c;
		} else if (c == '>' && close_tag(l, out)) {
			buf_clear(&l->tag);
		}
	}
	if (last)
		flush(l, out);
}

static void set_header(struct http_reply *head, const char *name, struct str value)
{
	for (size_t i = 0; i < head->n_headers; i++)
		if (str_eqz(head->headers[i].name, name))
			head->headers[i].value = value;
}

static struct str header_of(const struct http_reply *head, const char *name)
{
	for (size_t i = 0; i < head->n_headers; i++)
		if (str_eqz(head->headers[i].name, name))
			return head->headers[i].value;
	return STR_NONE;
}

/* Where a redirect leads is a link too. Whom a pod lets read its answers is not for it to say here: they come from this server. */
static bool links_head(void *arg, struct http_reply *head, struct arena *a)
{
	struct links *l = arg;
	struct str location = header_of(head, "location"), type, rest;
	size_t n = 0;

	for (size_t i = 0; i < head->n_headers; i++)
		if (!str_has_prefix(head->headers[i].name, STR("access-control-allow-")))
			head->headers[n++] = head->headers[i];
	head->n_headers = n;
	if (location.len) {
		CLEAN_BUF struct buf b = { 0 };
		add_link(l, location, &b);
		set_header(head, "location", arena_str(a, buf_str(&b)));
		return false;
	}
	str_cut(header_of(head, "content-type"), ';', &type, &rest);
	return is_word(str_trim(type), "text/html") && !header_of(head, "content-encoding").len;
}

static void links_free(void *arg)
{
	struct links *l = arg;

	buf_deinit(&l->tag);
	free((void *)l->prefix.p);
	for (size_t i = 0; i < 2; i++)
		free((void *)l->server[i].p);
	free(l);
}

struct http_rewrite links_rewrite(struct str prefix, struct str host, int port)
{
	struct links *l = xcalloc(1, sizeof(*l));
	bool six = str_find(host, ':') >= 0;

	l->prefix = (struct str){ str_dup(prefix), prefix.len };
	for (size_t i = 0; i < 2; i++) {
		char *text = i
			? xasprintf(six ? "[" STR_FMT "]" : STR_FMT, STR_ARG(host))
			: xasprintf(six ? "[" STR_FMT "]:%d" : STR_FMT ":%d", STR_ARG(host), port);
		l->server[i] = str_of(text);
	}
	return (struct http_rewrite){ links_head, links_body, links_free, l };
}
