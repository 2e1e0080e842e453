/* For the tests of this folder: an API server over a store in memory, asked over TLS on the loopback. */
#ifndef SKIFF_APISERVER_FIXTURE_H
#define SKIFF_APISERVER_FIXTURE_H

#include "apiserver/internal.h"

struct fixture {
	struct loop *loops[2], *loop; /* loop: the first */
	struct store *store;
	struct registry *registry;
	struct apiserver *server;
	struct arena *arena;       /* of the running test */
	struct http_client *admin; /* system:masters */
	struct tls_context *tls, *kubelet_tls;
	struct buf key, ca, ca_key;
};
void fixture_start(struct fixture *f); /* with the bootstrap objects */
void fixture_start_history(
	struct fixture *f, uint64_t history); /* how many events the store's log keeps */
void fixture_stop(struct fixture *f);
/* A client of this user; groups comma-separated; name NULL: anonymous. */
struct http_client *fixture_client(struct fixture *f, const char *name, const char *groups);
struct answer {
	int code;
	struct str body;
	struct http_reply reply;
};
/* type: content type of the body (NULL: JSON); accept NULL: JSON. */
struct answer ask_as(struct fixture *f, struct http_client *c, const char *method,
	const char *target, const char *type, const char *accept, const char *body);
struct answer ask(struct fixture *f, const char *method, const char *target,
	const char *body); /* as admin, JSON */
bool has(struct str text, const char *part);
/* ask, and fail the test unless the code is as wanted. */
#define expect(f, want, method, target, body) \
	expect_at(f, want, method, target, body, __FILE__, __LINE__)
struct answer expect_at(struct fixture *f, int want, const char *method, const char *target,
	const char *body, const char *file, int line);

#endif
