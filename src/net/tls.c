/* TLS by OpenSSL, over memory: the session reads ciphertext from a span its owner gives and appends ciphertext to a buffer.
 *
 * A context is what new sessions are made from; it is shared by threads and can be replaced while connections run (lock
 * guards ctx). A client certificate that does not verify does not end the handshake: the peer is then a stranger, and
 * whether strangers may come in is decided above. */
#include "net/internal.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>

struct tls_context {
	atomic_uint refs;
	pthread_mutex_t lock;
	SSL_CTX *ctx;
	atomic_uint generation; /* of ctx */
	bool skip_verify;
	char *server_name;
};

static BIO_METHOD *memory_method;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---- the session's two ends ---- */

static int memory_read(BIO *b, char *p, int n)
{
	struct tls_conn *t = BIO_get_data(b);
	size_t take = MIN(t->in.len, (size_t)n);

	BIO_clear_retry_flags(b);
	if (!take) {
		BIO_set_retry_read(b);
		return -1;
	}
	memcpy(p, t->in.p, take);
	t->in = str_from(t->in, take);
	return (int)take;
}

static int memory_write(BIO *b, const char *p, int n)
{
	struct tls_conn *t = BIO_get_data(b);

	buf_add(t->out, p, (size_t)n);
	return n;
}

static long memory_ctrl(BIO *b, int cmd, long num, void *p)
{
	return cmd == BIO_CTRL_FLUSH;
}

static void make_method(void)
{
	memory_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "memory");
	if (!memory_method)
		abort();
	BIO_meth_set_read(memory_method, memory_read);
	BIO_meth_set_write(memory_method, memory_write);
	BIO_meth_set_ctrl(memory_method, memory_ctrl);
}

/* ---- contexts ---- */

static const char *openssl_reason(void)
{
	unsigned long e = ERR_peek_last_error();
	const char *text = e ? ERR_reason_error_string(e) : NULL;

	ERR_clear_error();
	return text ? text : "unknown reason";
}

static int add_ca(SSL_CTX *ctx, struct str pem, bool name_to_peer, struct err *err)
{
	BIO *in = BIO_new_mem_buf(pem.p, (int)pem.len);
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	X509 *x;
	int n = 0;

	while ((x = PEM_read_bio_X509(in, NULL, NULL, NULL))) {
		X509_STORE_add_cert(store, x);
		if (name_to_peer)
			SSL_CTX_add_client_CA(ctx, x);
		X509_free(x);
		n++;
	}
	BIO_free(in);
	ERR_clear_error();
	return n ? 0 : err_set(err, -EINVAL, "the CA certificates hold no PEM block CERTIFICATE");
}

static int use_chain(SSL_CTX *ctx, struct str cert_pem, struct str key_pem, struct err *err)
{
	BIO *in = BIO_new_mem_buf(cert_pem.p, (int)cert_pem.len);
	X509 *leaf = PEM_read_bio_X509_AUX(in, NULL, NULL, NULL), *x;
	bool ok = leaf && SSL_CTX_use_certificate(ctx, leaf) == 1;

	X509_free(leaf);
	while (ok && (x = PEM_read_bio_X509(in, NULL, NULL, NULL)))
		ok = SSL_CTX_add0_chain_cert(ctx, x) == 1;
	BIO_free(in);
	if (!ok)
		return err_set(err, -EINVAL, "cannot use the certificate: %s", openssl_reason());
	ERR_clear_error();
	in = BIO_new_mem_buf(key_pem.p, (int)key_pem.len);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);

	ok = key && SSL_CTX_use_PrivateKey(ctx, key) == 1;
	EVP_PKEY_free(key);
	BIO_free(in);
	if (!ok)
		return err_set(err, -EINVAL, "cannot use the private key with its certificate: %s",
			openssl_reason());
	return 0;
}

static SSL_CTX *base_ctx(const SSL_METHOD *method)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	pthread_once(&once, make_method);
	if (!ctx)
		abort();
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(
		ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 0);
	return ctx;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
	const unsigned char *in, unsigned in_len, void *http2)
{
	static const unsigned char both[] = "\x02h2\x08http/1.1";
	const unsigned char *ours = http2 ? both : both + 3;
	unsigned n = (unsigned)(sizeof(both) - 1) - (http2 ? 0 : 3);

	if (SSL_select_next_proto((unsigned char **)out, out_len, ours, n, in, in_len) !=
		OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	return SSL_TLSEXT_ERR_OK;
}

/* Of a server's certificate that is refused for its time, what that time is. */
static int note_time(int ok, X509_STORE_CTX *store)
{
	int why = X509_STORE_CTX_get_error(store);

	if (!ok && (why == X509_V_ERR_CERT_NOT_YET_VALID || why == X509_V_ERR_CERT_HAS_EXPIRED)) {
		SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
		struct tls_conn *t = BIO_get_data(SSL_get_rbio(ssl));

		cert_seconds(X509_STORE_CTX_get_current_cert(store), &t->begin_s, &t->end_s);
	}
	return ok;
}

static int accept_stranger(int ok, X509_STORE_CTX *store)
{
	return 1;
}

static int make_server_ctx(const struct tls_server_config *c, SSL_CTX **ret, struct err *err)
{
	SSL_CTX *ctx = base_ctx(TLS_server_method());
	int r = use_chain(ctx, c->cert_pem, c->key_pem, err);

	if (r == 0 && c->client_ca_pem.len) {
		r = add_ca(ctx, c->client_ca_pem, true, err);
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, accept_stranger);
	}
	if (r < 0) {
		SSL_CTX_free(ctx);
		return r;
	}
	SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, c->http2 ? &once : NULL);
	*ret = ctx;
	return 0;
}

static struct tls_context *context_new(SSL_CTX *ctx)
{
	struct tls_context *t = xcalloc(1, sizeof(*t));

	atomic_init(&t->refs, 1);
	pthread_mutex_init(&t->lock, NULL);
	t->ctx = ctx;
	return t;
}

int tls_server_new(const struct tls_server_config *c, struct tls_context **ret, struct err *err)
{
	SSL_CTX *ctx;
	int r = make_server_ctx(c, &ctx, err);

	if (r < 0)
		return r;
	*ret = context_new(ctx);
	return 0;
}

static void replace_ctx(struct tls_context *t, SSL_CTX *ctx)
{
	pthread_mutex_lock(&t->lock);
	SSL_CTX *former = t->ctx;

	t->ctx = ctx;
	atomic_fetch_add(&t->generation, 1);
	pthread_mutex_unlock(&t->lock);
	SSL_CTX_free(former);
}

unsigned tls_context_generation(struct tls_context *t)
{
	return t ? atomic_load(&t->generation) : 0;
}

int tls_server_update(struct tls_context *t, const struct tls_server_config *c, struct err *err)
{
	SSL_CTX *ctx;
	int r = make_server_ctx(c, &ctx, err);

	if (r == 0)
		replace_ctx(t, ctx);
	return r;
}

static int make_client_ctx(const struct tls_client_config *c, SSL_CTX **ret, struct err *err)
{
	SSL_CTX *ctx = base_ctx(TLS_client_method());
	int r = 0;

	if (c->ca_pem.len)
		r = add_ca(ctx, c->ca_pem, false, err);
	else if (!c->insecure_skip_verify)
		SSL_CTX_set_default_verify_paths(ctx);
	if (r == 0 && c->cert_pem.len)
		r = use_chain(ctx, c->cert_pem, c->key_pem, err);
	if (r < 0) {
		SSL_CTX_free(ctx);
		return r;
	}
	SSL_CTX_set_verify(
		ctx, c->insecure_skip_verify ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, note_time);
	if (c->http2)
		SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)"\x02h2", 3);
	else
		SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)"\x08http/1.1", 9);
	*ret = ctx;
	return 0;
}

int tls_client_new(const struct tls_client_config *c, struct tls_context **ret, struct err *err)
{
	SSL_CTX *ctx;
	int r = make_client_ctx(c, &ctx, err);

	if (r < 0)
		return r;
	struct tls_context *t = context_new(ctx);

	t->skip_verify = c->insecure_skip_verify;
	t->server_name = c->server_name ? xstrdup(c->server_name) : NULL;
	*ret = t;
	return 0;
}

int tls_client_update(struct tls_context *t, const struct tls_client_config *c, struct err *err)
{
	SSL_CTX *ctx;
	int r = make_client_ctx(c, &ctx, err);

	if (r == 0)
		replace_ctx(t, ctx);
	return r;
}

struct tls_context *tls_context_ref(struct tls_context *t)
{
	if (t)
		atomic_fetch_add(&t->refs, 1);
	return t;
}

void tls_context_free(struct tls_context *t)
{
	if (!t || atomic_fetch_sub(&t->refs, 1) != 1)
		return;
	SSL_CTX_free(t->ctx);
	pthread_mutex_destroy(&t->lock);
	free(t->server_name);
	free(t);
}

/* ---- sessions ---- */

int tls_conn_init(struct tls_conn *t, struct tls_context *ctx, bool server, struct err *err)
{
	pthread_mutex_lock(&ctx->lock);
	SSL *ssl = SSL_new(ctx->ctx);

	pthread_mutex_unlock(&ctx->lock);
	BIO *bio = ssl ? BIO_new(memory_method) : NULL;

	if (!bio) {
		SSL_free(ssl);
		return err_set(err, -ENOMEM, "cannot start a TLS session: %s", openssl_reason());
	}
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	if (server)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	t->ssl = ssl;
	t->in = STR_NONE;
	t->begin_s = t->end_s = 0;
	return 0;
}

int tls_conn_set_peer(
	struct tls_conn *t, struct tls_context *ctx, const char *host, struct err *err)
{
	const char *name = ctx->server_name ? ctx->server_name : host;
	unsigned char address[16];
	bool is_address =
		inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
	int ok = 1;

	if (!is_address)
		ok = (int)SSL_set_tlsext_host_name(t->ssl, name);
	if (ok && !ctx->skip_verify)
		ok = is_address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), name)
				: SSL_set1_host(t->ssl, name);
	return ok ? 0
		  : err_set(err, -EINVAL, "%s cannot be the name of a TLS server: %s", name,
			    openssl_reason());
}

void tls_conn_deinit(struct tls_conn *t)
{
	SSL_free(t->ssl);
	t->ssl = NULL;
}

static int session_error(struct tls_conn *t, int r, struct err *err)
{
	switch (SSL_get_error(t->ssl, r)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	default:
		return err_set(err, -EPROTO, "TLS: %s", openssl_reason());
	}
}

/* A certificate that is not valid yet, or no longer, may well be: then it is a clock that is wrong. */
static int certificate_refused(struct tls_conn *t, long verdict, struct err *err)
{
	char begin[TIME_TEXT_MAX], end[TIME_TEXT_MAX], now[TIME_TEXT_MAX];

	if (!t->end_s)
		return err_set(err, -EACCES, "the server's certificate is not trusted: %s",
			X509_verify_cert_error_string(verdict));
	time_format((struct timestamp){ .sec = t->begin_s }, begin);
	time_format((struct timestamp){ .sec = t->end_s }, end);
	time_format(time_now(), now);
	return err_set(err, -EACCES,
		"the server's certificate is not trusted: %s: it is valid from %s to %s, and the clock of this machine says %s; compare the clocks of "
		"both machines",
		X509_verify_cert_error_string(verdict), begin, end, now);
}

int tls_handshake(struct tls_conn *t, struct err *err)
{
	ERR_clear_error();
	int r = SSL_do_handshake(t->ssl);

	if (r == 1)
		return 0;
	long verdict = SSL_get_verify_result(t->ssl);

	if (verdict != X509_V_OK && SSL_get_verify_mode(t->ssl) != SSL_VERIFY_NONE &&
		!SSL_is_server(t->ssl) && SSL_get_error(t->ssl, r) == SSL_ERROR_SSL) {
		ERR_clear_error();
		return certificate_refused(t, verdict, err);
	}
	return session_error(t, r, err);
}

ssize_t tls_read(struct tls_conn *t, void *p, size_t n, struct err *err)
{
	ERR_clear_error();
	int r = SSL_read(t->ssl, p, (int)MIN(n, (size_t)INT32_MAX));

	if (r > 0)
		return r;
	if (SSL_get_error(t->ssl, r) == SSL_ERROR_ZERO_RETURN)
		return 0;
	return session_error(t, r, err);
}

int tls_write(struct tls_conn *t, const void *p, size_t n)
{
	ERR_clear_error();
	while (n) {
		int r = SSL_write(t->ssl, p, (int)MIN(n, (size_t)TLS_RECORD));

		if (r <= 0)
			return -EPROTO;
		p = (const char *)p + r;
		n -= (size_t)r;
	}
	return 0;
}

void tls_shutdown(struct tls_conn *t)
{
	if (SSL_is_init_finished(t->ssl))
		SSL_shutdown(t->ssl);
	ERR_clear_error();
}

bool tls_chose_http2(const struct tls_conn *t)
{
	const unsigned char *name;
	unsigned n;

	SSL_get0_alpn_selected(t->ssl, &name, &n);
	return n == 2 && !memcmp(name, "h2", 2);
}

/* ---- who the peer is ---- */

static void add_text(struct buf *texts, struct str *s, const ASN1_STRING *value)
{
	unsigned char *utf8 = NULL;
	int n = ASN1_STRING_to_UTF8(&utf8, value);

	/* An offset for now: the buffer moves while it grows. */
	s->p = (const char *)texts->len;
	s->len = n > 0 ? (size_t)n : 0;
	buf_add(texts, utf8, s->len);
	buf_addc(texts, '\0');
	OPENSSL_free(utf8);
}

static void read_subject(X509 *x, struct tls_identity *id, struct buf *texts)
{
	X509_NAME *subject = X509_get_subject_name(x);
	ASN1_OBJECT *uid = OBJ_txt2obj("1.3.6.1.4.1.57683.2", 1);

	for (int i = 0; i < X509_NAME_entry_count(subject); i++) {
		X509_NAME_ENTRY *e = X509_NAME_get_entry(subject, i);
		ASN1_OBJECT *type = X509_NAME_ENTRY_get_object(e);
		int nid = OBJ_obj2nid(type);

		if (nid == NID_commonName)
			add_text(texts, &id->common_name, X509_NAME_ENTRY_get_data(e));
		else if (nid == NID_organizationName &&
			id->n_organizations < ARRAY_LEN(id->organizations))
			add_text(texts, &id->organizations[id->n_organizations++],
				X509_NAME_ENTRY_get_data(e));
		else if (!OBJ_cmp(type, uid))
			add_text(texts, &id->uid, X509_NAME_ENTRY_get_data(e));
	}
	ASN1_OBJECT_free(uid);
}

static void settle(struct str *s, const char *base)
{
	s->p = s->len ? base + (uintptr_t)s->p : "";
}

bool tls_peer_shows_certificate(const struct tls_conn *t)
{
	return SSL_get0_peer_certificate(t->ssl) != NULL;
}

struct tls_identity *tls_peer_identity(const struct tls_conn *t)
{
	X509 *x = SSL_get0_peer_certificate(t->ssl);
	struct tls_identity id = { 0 };
	CLEAN_BUF struct buf texts = { 0 };
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	if (!x || SSL_get_verify_result(t->ssl) != X509_V_OK)
		return NULL;
	struct tm end;

	read_subject(x, &id, &texts);
	if (ASN1_TIME_to_tm(X509_get0_notAfter(x), &end))
		id.not_after_s = timegm(&end);
	X509_digest(x, EVP_sha256(), digest, &n);
	id.fingerprint = (struct str){ (const char *)texts.len, n * 2 };
	hex_encode(&texts, digest, n);
	struct tls_identity *ret = xmalloc(sizeof(*ret) + texts.len + 1);
	char *base = (char *)(ret + 1);

	memcpy(base, texts.p, texts.len + 1);
	*ret = id;
	settle(&ret->common_name, base);
	settle(&ret->uid, base);
	settle(&ret->fingerprint, base);
	for (size_t i = 0; i < ret->n_organizations; i++)
		settle(&ret->organizations[i], base);
	return ret;
}
