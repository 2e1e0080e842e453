/* See fixture.h. Nothing but tests calls it, so the linker leaves it out of the program. */
#include "apiserver/fixture.h"

#include <stdio.h>

static void must(int r, const struct err *err)
{
	if (r == 0)
		return;
	fprintf(stderr, "fixture: %s\n", err->text);
	abort();
}

static struct tls_context *server_tls(struct fixture *f)
{
	struct err err = { 0 };
	struct tls_context *tls;
	CLEAN_BUF struct buf key = { 0 }, cert = { 0 };
	const char *ips[] = { "127.0.0.1", NULL };
	must(cert_new_key(&f->ca_key, &err), &err);
	must(cert_issue(
		     &(struct cert_request){
			     .common_name = "ca", .valid_seconds = 3600, .is_ca = true },
		     buf_str(&f->ca_key), STR_NONE, STR_NONE, &f->ca, &err),
		&err);
	must(cert_new_key(&key, &err), &err);
	must(cert_issue(&(struct cert_request){ .common_name = "server",
				.valid_seconds = 3600,
				.server_auth = true,
				.ip_addresses = ips },
		     buf_str(&key), buf_str(&f->ca), buf_str(&f->ca_key), &cert, &err),
		&err);
	must(tls_server_new(&(struct tls_server_config){ .cert_pem = buf_str(&cert),
				    .key_pem = buf_str(&key),
				    .client_ca_pem = buf_str(&f->ca) },
		     &tls, &err),
		&err);
	return tls;
}

void fixture_start(struct fixture *f)
{
	fixture_start_history(f, 0);
}

void fixture_start_history(struct fixture *f, uint64_t history)
{
	struct err err = { 0 };
	*f = (struct fixture){ .arena = arena_new(0) };
	for (size_t i = 0; i < ARRAY_LEN(f->loops); i++) {
		must(loop_new("test", &f->loops[i], &err), &err);
		must(loop_start(f->loops[i], &err), &err);
	}
	f->loop = f->loops[0];
	must(cert_new_key(&f->key, &err), &err);
	must(store_open(&(struct store_config){ .backend = "memory", .history = history },
		     &f->store, &err),
		&err);
	must(registry_new(&(struct registry_config){ .store = f->store,
				  .clock = &clock_real,
				  .service_cidr = "10.43.0.0/16",
				  .node_port_first = 30000,
				  .node_port_last = 32767 },
		     &f->registry, &err),
		&err);
	f->tls = server_tls(f);
	must(tls_client_new(&(struct tls_client_config){ .ca_pem = buf_str(&f->ca) },
		     &f->kubelet_tls, &err),
		&err);
	struct apiserver_config c = { .loops = f->loops,
		.n_loops = ARRAY_LEN(f->loops),
		.address = "127.0.0.1",
		.tls = f->tls,
		.registry = f->registry,
		.service_account_key = buf_str(&f->key),
		.issuer = "https://kubernetes.default.svc.cluster.local",
		.git_version = "v1.36.3",
		.kubelet_tls = f->kubelet_tls };
	must(apiserver_new(&c, &f->server, &err), &err);
	must(registry_bootstrap(f->registry, &err), &err);
	must(apiserver_start(f->server, &err), &err);
	f->admin = fixture_client(f, "admin", "system:masters");
}

void fixture_stop(struct fixture *f)
{
	http_client_free(f->admin);
	apiserver_stop(f->server);
	for (size_t i = 0; i < ARRAY_LEN(f->loops); i++) {
		loop_stop(f->loops[i]);
		loop_join(f->loops[i]);
	}
	apiserver_free(f->server);
	registry_free(f->registry);
	store_close(f->store);
	for (size_t i = 0; i < ARRAY_LEN(f->loops); i++)
		loop_free(f->loops[i]);
	tls_context_free(f->tls);
	tls_context_free(f->kubelet_tls);
	buf_deinit(&f->key);
	buf_deinit(&f->ca);
	buf_deinit(&f->ca_key);
	arena_free(f->arena);
}

struct http_client *fixture_client(struct fixture *f, const char *name, const char *groups)
{
	struct err err = { 0 };
	struct tls_context *tls;
	struct http_client *c;
	CLEAN_BUF struct buf key = { 0 }, cert = { 0 };
	const char *list[9] = { 0 };
	size_t n = 0;
	struct str rest = str_of(groups ? groups : ""), one;
	while (rest.len && n < ARRAY_LEN(list) - 1) {
		if (!str_cut(rest, ',', &one, &rest))
			rest = STR_NONE;
		list[n++] = arena_str(f->arena, one).p;
	}
	if (name) {
		must(cert_new_key(&key, &err), &err);
		must(cert_issue(&(struct cert_request){ .common_name = name,
					.organizations = list,
					.valid_seconds = 3600,
					.client_auth = true },
			     buf_str(&key), buf_str(&f->ca), buf_str(&f->ca_key), &cert, &err),
			&err);
	}
	must(tls_client_new(&(struct tls_client_config){ .ca_pem = buf_str(&f->ca),
				    .cert_pem = buf_str(&cert),
				    .key_pem = buf_str(&key) },
		     &tls, &err),
		&err);
	must(http_client_new(
		     arena_fmt(f->arena, "https://127.0.0.1:%d", apiserver_port(f->server)).p, tls,
		     &c, &err),
		&err);
	tls_context_free(tls);
	return c;
}

struct answer ask_as(struct fixture *f, struct http_client *c, const char *method,
	const char *target, const char *type, const char *accept, const char *body)
{
	struct err err = { 0 };
	struct answer a = { 0 };
	struct http_call call = { .method = str_of(method),
		.target = str_of(target),
		.body = str_of(body ? body : ""),
		.content_type = body ? str_of(type ? type : "application/json") : STR_NONE,
		.accept = str_of(accept ? accept : "application/json"),
		.timeout_ms = 20000 };
	if (http_client_call(c, &call, f->arena, &a.reply, &err) < 0) {
		fprintf(stderr, "%s %s: %s\n", method, target, err.text);
		abort();
	}
	a.code = a.reply.status;
	a.body = a.reply.body;
	return a;
}

struct answer ask(struct fixture *f, const char *method, const char *target, const char *body)
{
	return ask_as(f, f->admin, method, target, NULL, NULL, body);
}

bool has(struct str text, const char *part)
{
	return str_find_str(text, str_of(part)) >= 0;
}

struct answer expect_at(struct fixture *f, int want, const char *method, const char *target,
	const char *body, const char *file, int line)
{
	struct answer a = ask(f, method, target, body);
	if (a.code == want)
		return a;
	fprintf(stderr, "%s:%d: %s %s: %d instead of %d: " STR_FMT "\n", file, line, method, target,
		a.code, want, STR_ARG(a.body));
	abort();
}
