/* Values with a text form of their own: times, durations, quantities, base64, uuids. */
#ifndef SKIFF_BASE_VALUES_H
#define SKIFF_BASE_VALUES_H

#include "base/base.h"

/* ---- time: seconds since 1970 and nanoseconds, UTC. {0,0} is "no time" (JSON null). ---- */
struct timestamp {
	int64_t sec;
	int32_t nsec;
};
/* The process's clock. Components are handed a `const struct clock *` so that tests can run on virtual time. */
struct clock {
	struct timestamp (*wall)(const struct clock *c); /* civil time */
	uint64_t (*mono_ns)(const struct clock *c);      /* never goes back */
};
extern const struct clock clock_real;
struct timestamp time_now(void); /* clock_real, wall */
uint64_t mono_now_ns(void);      /* clock_real, mono */
bool time_is_zero(struct timestamp t);
int time_cmp(struct timestamp a, struct timestamp b);
double time_diff_s(struct timestamp a, struct timestamp b); /* a - b */
struct timestamp time_add_ns(struct timestamp t, int64_t ns);
#define TIME_TEXT_MAX 40
size_t time_format(
	struct timestamp t, char out[TIME_TEXT_MAX]); /* 2026-01-02T03:04:05Z; returns its length */
size_t time_format_micro(
	struct timestamp t, char out[TIME_TEXT_MAX]); /* 2026-01-02T03:04:05.000000Z */
size_t time_format_nano(
	struct timestamp t, char out[TIME_TEXT_MAX]); /* RFC3339Nano, trailing zeros cut */
int time_parse(struct str s, struct timestamp *ret);  /* RFC 3339 with any offset; -EINVAL */

/* ---- duration: int64 nanoseconds, text as Go writes it (1h0m5s, 1.5s, 100ms) ---- */
#define DURATION_TEXT_MAX 40
size_t duration_format(int64_t ns, char out[DURATION_TEXT_MAX]);
int duration_parse(struct str s, int64_t *ret_ns); /* -EINVAL, -ERANGE */
/* Age as kubectl and server-side tables write it: 5s, 2m10s, 3h, 4d2h, 2y. */
size_t duration_human(int64_t seconds, char out[DURATION_TEXT_MAX]);

/* ---- quantity: resource amounts (100m, 1Gi, 1e3), kept exactly as value * 10^-9 in 128 bits ----
 * Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ */
struct quantity {
	__int128 nano; /* the value times 10^9, rounded up away from zero as upstream does */
	char format;   /* 'D' decimal SI, 'B' binary SI, 'E' decimal exponent */
};
#define QUANTITY_TEXT_MAX 64
int quantity_parse(
	struct str s, struct quantity *ret); /* -EINVAL: not a quantity; -ERANGE: too large */
size_t quantity_format(struct quantity q, char out[QUANTITY_TEXT_MAX]); /* canonical form */
int quantity_cmp(struct quantity a, struct quantity b);
struct quantity quantity_add(struct quantity a, struct quantity b);
struct quantity quantity_sub(struct quantity a, struct quantity b);
int64_t quantity_value(struct quantity q);       /* whole units, rounded up; saturates */
int64_t quantity_milli_value(struct quantity q); /* thousandths, rounded up; saturates */

/* ---- base64 (standard and url alphabets), hex, uuid, random ---- */
void base64_encode(struct buf *out, const void *p, size_t n);
int base64_decode(struct buf *out, struct str s); /* padding required; newlines skipped; -EINVAL */
void base64url_encode(struct buf *out, const void *p, size_t n); /* no padding (JWT) */
int base64url_decode(struct buf *out, struct str s);
void hex_encode(struct buf *out, const void *p, size_t n);
void random_bytes(void *p, size_t n); /* getrandom */
#define UUID_TEXT 37
void uuid_v4(char out[UUID_TEXT]);
/* Upstream's generateName suffix and pod-template-hash alphabet: bcdfghjklmnpqrstvwxz2456789. */
void random_suffix(char *out, size_t n); /* writes n characters and NUL */
void safe_encode_suffix(
	char *inout); /* maps each byte onto that alphabet (rand.SafeEncodeString) */

#endif
