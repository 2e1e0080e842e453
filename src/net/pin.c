/* Trust on the first contact: the CA is taken from the server's own chain, when and only when it has the hash that a token told. */
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <poll.h>
#include <sys/socket.h>

#include "net/internal.h"

static void x509_hex(X509 *x, struct buf *out)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	X509_digest(x, EVP_sha256(), digest, &n);
	hex_encode(out, digest, n);
}

static void x509_pem(X509 *x, struct buf *out)
{
	BIO *b = BIO_new(BIO_s_mem());
	char *p;
	long n;

	PEM_write_bio_X509(b, x);
	n = BIO_get_mem_data(b, &p);
	buf_add(out, p, (size_t)n);
	BIO_free(b);
}

int cert_pin(struct str cert_pem, struct buf *ret_hex, struct err *err)
{
	BIO *b = BIO_new_mem_buf(cert_pem.p, (int)cert_pem.len);
	X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);

	BIO_free(b);
	ERR_clear_error();
	if (!x)
		return err_set(err, -EBADMSG, "not a PEM certificate");
	x509_hex(x, ret_hex);
	X509_free(x);
	return 0;
}

/* A blocking socket with a time limit on each step. */
static int dial(const char *host, const char *port, unsigned timeout_ms, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	struct timeval limit = { .tv_sec = timeout_ms / 1000,
		.tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000 };
	int g = getaddrinfo(host, port, &hints, &list), fd = -1, e = EHOSTUNREACH;

	if (g)
		return err_set(err, -EHOSTUNREACH, "cannot find the address of %s: %s", host,
			gai_strerror(g));
	for (struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next) {
		fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0) {
			e = errno;
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(list);
	return fd < 0 ? err_errno(err, -e, "cannot connect to %s:%s", host, port) : fd;
}

static int find_pinned(SSL *ssl, struct str pin, struct buf *ret_ca_pem)
{
	STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);

	for (int i = 0; i < sk_X509_num(chain); i++) {
		CLEAN_BUF struct buf hex = { 0 };

		x509_hex(sk_X509_value(chain, i), &hex);
		if (str_eq(buf_str(&hex), pin)) {
			x509_pem(sk_X509_value(chain, i), ret_ca_pem);
			return 0;
		}
	}
	return -EACCES;
}

int tls_fetch_ca(const char *url, struct str pin, unsigned timeout_ms, struct buf *ret_ca_pem,
	struct err *err)
{
	struct str rest = str_of(url), host, port;
	int r;

	if (!str_has_prefix(rest, STR("https://")))
		return err_set(err, -EINVAL, "%s: expected https://HOST:PORT", url);
	str_cut(str_from(rest, 8), '/', &rest, &port);
	str_cut(rest, ':', &host, &port);
	CLEAN_FREE char *host_z = str_dup(host), *port_z = str_dup(port.len ? port : STR("443"));
	CLEAN_FD int fd = dial(host_z, port_z, timeout_ms, err);

	if (fd < 0)
		return fd;
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(ctx);

	SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
	SSL_set_fd(ssl, fd);
	if (SSL_connect(ssl) != 1)
		r = err_set(err, -EPROTO, "%s does not speak TLS", url);
	else if (find_pinned(ssl, pin, ret_ca_pem) < 0)
		r = err_set(err, -EACCES,
			"%s belongs to another cluster: its CA is not the one that the token names",
			url);
	else
		r = 0;
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	ERR_clear_error();
	return r;
}
