/* The gRPC health check as a probe asks it: one unary call over HTTP/2 without TLS. So little of HTTP/2 is needed for it (a preface, two
 * frames out; any frames in until the message or the trailers) that it is spoken here by hand, with headers in HPACK's plain literal form.
 * Source: the GRPC Health Checking Protocol, RFC 9113, RFC 7541. What comes from the container is not trusted: lengths are checked,
 * nothing is kept. */
#include <poll.h>
#include <stdio.h>

#include "gen/types.h"
#include "kubelet/internal.h"

#define FRAME_MAX 16384
enum {
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_RST = 3,
	FRAME_SETTINGS = 4,
	FRAME_PING = 6,
	FRAME_GOAWAY = 7
};

static void frame(struct buf *b, int type, int flags, uint32_t stream, struct str payload)
{
	uint8_t head[9] = { (uint8_t)(payload.len >> 16), (uint8_t)(payload.len >> 8),
		(uint8_t)payload.len, (uint8_t)type, (uint8_t)flags, (uint8_t)(stream >> 24),
		(uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream };

	buf_add(b, head, sizeof(head));
	buf_add_str(b, payload);
}

static void literal(struct buf *b, const char *name, struct str value)
{
	buf_addc(b, 0); /* without indexing, new name */
	buf_addc(b, (char)strlen(name));
	buf_addz(b, name);
	buf_addc(b, (char)MIN(value.len, 126u));
	buf_add(b, value.p, MIN(value.len, 126u));
}

static void request(struct buf *out, const char *ip, const struct core_v1_grpc_action *g)
{
	CLEAN_BUF struct buf headers = { 0 }, body = { 0 };
	size_t n = MIN(g->service.len, 120u);
	char authority[96];

	snprintf(authority, sizeof(authority), strchr(ip, ':') ? "[%s]:%d" : "%s:%d", ip, g->port);
	literal(&headers, ":method", STR("POST"));
	literal(&headers, ":scheme", STR("http"));
	literal(&headers, ":path", STR("/grpc.health.v1.Health/Check"));
	literal(&headers, ":authority", str_of(authority));
	literal(&headers, "content-type", STR("application/grpc"));
	literal(&headers, "user-agent", STR("kube-probe/1.36"));
	literal(&headers, "te", STR("trailers"));
	buf_add(&body, "\0\0\0\0", 4);
	buf_addc(&body, (char)(n ? n + 2 : 0));
	if (n) {
		buf_addc(&body, 0x0a);
		buf_addc(&body, (char)n);
		buf_add(&body, g->service.p, n);
	}
	buf_addz(out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
	frame(out, FRAME_SETTINGS, 0, 0, STR_NONE);
	frame(out, FRAME_HEADERS, 4, 1, buf_str(&headers));
	frame(out, FRAME_DATA, 1, 1, buf_str(&body));
}

static bool read_full(int fd, void *p, size_t n, uint64_t until_ns)
{
	for (size_t got = 0; got < n;) {
		uint64_t now = mono_now_ns();
		struct pollfd f = { .fd = fd, .events = POLLIN };
		if (now >= until_ns || poll(&f, 1, (int)((until_ns - now) / NS_PER_MS + 1)) <= 0)
			return false;
		ssize_t r = read(fd, (char *)p + got, n - got);
		if (r <= 0 && errno != EAGAIN)
			return false;
		if (r > 0)
			got += (size_t)r;
	}
	return true;
}

/* The message of a response: 5 bytes of gRPC framing, then field 1, the status: 1 is SERVING. */
static int serving_status(const uint8_t *p, size_t n)
{
	if (n < 5)
		return -1;
	if (n >= 7 && p[5] == 0x08)
		return p[6];
	return n == 5 ? 0 : -1;
}

enum probe_result grpc_health(int fd, const char *ip, const struct core_v1_grpc_action *g,
	unsigned timeout_ms, struct buf *ret_output)
{
	CLEAN_FD int close_it = fd;
	CLEAN_BUF struct buf out = { 0 };
	CLEAN_FREE uint8_t *payload = xmalloc(FRAME_MAX);
	uint64_t until = mono_now_ns() + timeout_ms * NS_PER_MS;
	uint8_t head[9];
	static const char *const names[] = { "UNKNOWN", "SERVING", "NOT_SERVING",
		"SERVICE_UNKNOWN" };

	(void)close_it;
	request(&out, ip, g);
	if (write(fd, out.p, out.len) != (ssize_t)out.len) {
		buf_addz(ret_output, "error: this server cannot be written to");
		return PROBE_FAILURE;
	}
	while (read_full(fd, head, sizeof(head), until)) {
		size_t n = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
		int type = head[3], flags = head[4];
		if (n > FRAME_MAX || !read_full(fd, payload, n, until))
			break;
		CLEAN_BUF struct buf answer = { 0 };
		if (type == FRAME_SETTINGS && !(flags & 1))
			frame(&answer, FRAME_SETTINGS, 1, 0, STR_NONE);
		else if (type == FRAME_PING && !(flags & 1))
			frame(&answer, FRAME_PING, 1, 0, str_n((char *)payload, n));
		if (answer.len && write(fd, answer.p, answer.len) < 0)
			break;
		if (type == FRAME_DATA && n) {
			int status = serving_status(payload, n);
			if (status == 1)
				return PROBE_SUCCESS;
			buf_addf(ret_output, "service unhealthy (responded with \"%s\")",
				status >= 0 && status < 4 ? names[status] : "garbage");
			return PROBE_FAILURE;
		}
		if (type == FRAME_RST || type == FRAME_GOAWAY ||
			(type == FRAME_HEADERS && flags & 1)) {
			buf_addz(ret_output,
				"error: this server does not implement the grpc health protocol (grpc.health.v1.Health) or "
				"does not know the service");
			return PROBE_FAILURE;
		}
	}
	buf_addf(ret_output, "timeout: health rpc did not complete within %us", timeout_ms / 1000);
	return PROBE_FAILURE;
}
