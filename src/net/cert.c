/* Keys and certificates: ECDSA P-256 keys, X.509 v3 certificates, signing requests. All text is PEM. */
#include "net/internal.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

static void free_key(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}
static void free_x509(X509 **x)
{
	X509_free(*x);
}
static void free_req(X509_REQ **x)
{
	X509_REQ_free(*x);
}
static void free_bio(BIO **b)
{
	BIO_free(*b);
}
static void free_exts(STACK_OF(X509_EXTENSION) * *e)
{
	sk_X509_EXTENSION_pop_free(*e, X509_EXTENSION_free);
}
#define CLEAN_KEY CLEANUP(free_key)
#define CLEAN_X509 CLEANUP(free_x509)
#define CLEAN_REQ CLEANUP(free_req)
#define CLEAN_BIO CLEANUP(free_bio)

static int failed(struct err *err, int code, const char *what)
{
	unsigned long e = ERR_peek_last_error();
	const char *why = e ? ERR_reason_error_string(e) : NULL;

	ERR_clear_error();
	return err_set(err, code, "%s: %s", what, why ? why : "unknown reason");
}

static BIO *bio_of(struct str pem)
{
	return BIO_new_mem_buf(pem.p ? pem.p : "", (int)pem.len);
}

static void take_bio(BIO *b, struct buf *ret)
{
	char *p;
	long n = BIO_get_mem_data(b, &p);

	buf_clear(ret);
	buf_add(ret, p, (size_t)n);
}

static EVP_PKEY *read_key(struct str pem)
{
	CLEAN_BIO BIO *in = bio_of(pem);

	return PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
}

static X509 *read_cert(struct str pem)
{
	CLEAN_BIO BIO *in = bio_of(pem);

	return PEM_read_bio_X509(in, NULL, NULL, NULL);
}

int cert_new_key(struct buf *ret_key_pem, struct err *err)
{
	CLEAN_KEY EVP_PKEY *key = EVP_EC_gen("P-256");
	CLEAN_BIO BIO *out = BIO_new(BIO_s_mem());

	if (!key || !PEM_write_bio_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL))
		return failed(err, -EIO, "cannot make a key");
	take_bio(out, ret_key_pem);
	return 0;
}

static bool set_subject(X509_NAME *name, const struct cert_request *r)
{
	bool ok = true;

	for (const char *const *o = r->organizations; ok && o && *o; o++)
		ok = X509_NAME_add_entry_by_txt(
			name, "O", MBSTRING_UTF8, (const unsigned char *)*o, -1, -1, 0);
	return ok &&
		X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
			(const unsigned char *)r->common_name, -1, -1, 0);
}

static bool add_name(GENERAL_NAMES *names, int type, const void *value, int n)
{
	GENERAL_NAME *g = GENERAL_NAME_new();
	ASN1_STRING *s = type == GEN_IPADD ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();

	if (!g || !s || !ASN1_STRING_set(s, value, n) || !sk_GENERAL_NAME_push(names, g)) {
		GENERAL_NAME_free(g);
		ASN1_STRING_free(s);
		return false;
	}
	GENERAL_NAME_set0_value(g, type, s);
	return true;
}

/* NULL with err set: an address is none. Empty when the request names nothing. */
static GENERAL_NAMES *alt_names(const struct cert_request *r, struct err *err)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();

	for (const char *const *d = r->dns_names; d && *d; d++)
		add_name(names, GEN_DNS, *d, (int)strlen(*d));
	for (const char *const *a = r->ip_addresses; a && *a; a++) {
		unsigned char bytes[16];
		int n = inet_pton(AF_INET, *a, bytes) == 1    ? 4
			: inet_pton(AF_INET6, *a, bytes) == 1 ? 16
							      : 0;

		if (!n) {
			err_set(err, -EINVAL,
				"%s is not an IP address that a certificate could name", *a);
			GENERAL_NAMES_free(names);
			return NULL;
		}
		add_name(names, GEN_IPADD, bytes, n);
	}
	return names;
}

static bool add_ext(X509 *x, X509V3_CTX *ctx, int nid, const char *value)
{
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, ctx, nid, value);
	bool ok = e && X509_add_ext(x, e, -1);

	X509_EXTENSION_free(e);
	return ok;
}

struct usage {
	bool is_ca, server_auth, client_auth;
};

static bool add_usage(X509 *x, X509 *issuer, struct usage u)
{
	X509V3_CTX ctx;

	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	X509V3_set_ctx_nodb(&ctx);
	if (!add_ext(x, &ctx, NID_basic_constraints,
		    u.is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE"))
		return false;
	if (!add_ext(x, &ctx, NID_key_usage,
		    u.is_ca ? "critical,digitalSignature,keyEncipherment,keyCertSign,cRLSign"
			    : "critical,digitalSignature,keyEncipherment"))
		return false;
	const char *extended = u.server_auth && u.client_auth ? "serverAuth,clientAuth"
		: u.server_auth                               ? "serverAuth"
		: u.client_auth                               ? "clientAuth"
							      : NULL;

	if (extended && !add_ext(x, &ctx, NID_ext_key_usage, extended))
		return false;
	if (!add_ext(x, &ctx, NID_subject_key_identifier, "hash"))
		return false;
	return issuer == x || add_ext(x, &ctx, NID_authority_key_identifier, "keyid");
}

static long tolerance(int64_t valid_seconds)
{
	return valid_seconds < 86400 ? CLOCK_TOLERANCE_SHORT_S : CLOCK_TOLERANCE_S;
}

static bool set_frame(
	X509 *x, int64_t valid_seconds, X509_NAME *subject, X509_NAME *issuer, EVP_PKEY *key)
{
	unsigned char serial[16];
	BIGNUM *number;
	bool ok;

	random_bytes(serial, sizeof(serial));
	serial[0] = (serial[0] & 0x7f) | 0x01;
	number = BN_bin2bn(serial, sizeof(serial), NULL);
	ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x));
	BN_free(number);
	return ok && X509_set_version(x, X509_VERSION_3) &&
		X509_gmtime_adj(X509_getm_notBefore(x), -tolerance(valid_seconds)) &&
		X509_time_adj_ex(X509_getm_notAfter(x), (int)(valid_seconds / 86400),
			valid_seconds % 86400, NULL) &&
		X509_set_subject_name(x, subject) && X509_set_issuer_name(x, issuer) &&
		X509_set_pubkey(x, key);
}

static int write_cert(X509 *x, struct buf *ret, struct err *err)
{
	CLEAN_BIO BIO *out = BIO_new(BIO_s_mem());

	if (!PEM_write_bio_X509(out, x))
		return failed(err, -EIO, "cannot write a certificate");
	take_bio(out, ret);
	return 0;
}

int cert_issue(const struct cert_request *r, struct str key_pem, struct str ca_cert_pem,
	struct str ca_key_pem, struct buf *ret_cert_pem, struct err *err)
{
	CLEAN_KEY EVP_PKEY *key = read_key(key_pem);
	CLEAN_KEY EVP_PKEY *ca_key = ca_key_pem.len ? read_key(ca_key_pem) : NULL;
	CLEAN_X509 X509 *ca = ca_cert_pem.len ? read_cert(ca_cert_pem) : NULL;
	CLEAN_X509 X509 *x = X509_new();
	X509_NAME *subject = X509_NAME_new();

	if (!key || (ca_key_pem.len && !ca_key) || (ca_cert_pem.len && !ca)) {
		X509_NAME_free(subject);
		return failed(err, -EINVAL, "cannot read the key, or the CA's certificate or key");
	}
	GENERAL_NAMES *names = alt_names(r, err);

	if (!names) {
		X509_NAME_free(subject);
		return -EINVAL;
	}
	X509 *issuer = ca ? ca : x;
	bool ok = set_subject(subject, r) &&
		set_frame(x, r->valid_seconds, subject, ca ? X509_get_subject_name(ca) : subject,
			key) &&
		add_usage(x, issuer, (struct usage){ r->is_ca, r->server_auth, r->client_auth });

	if (ok && sk_GENERAL_NAME_num(names))
		ok = X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, 0) == 1;
	ok = ok && X509_sign(x, ca_key ? ca_key : key, EVP_sha256());
	GENERAL_NAMES_free(names);
	X509_NAME_free(subject);
	if (!ok)
		return failed(err, -EIO, "cannot issue a certificate");
	return write_cert(x, ret_cert_pem, err);
}

/* Of what a request asks for, the names are taken over; what the certificate may be used for is the signer's word. */
static bool copy_alt_names(X509 *x, X509_REQ *req)
{
	CLEANUP(free_exts) STACK_OF(X509_EXTENSION) *exts = X509_REQ_get_extensions(req);
	int at = X509v3_get_ext_by_NID(exts, NID_subject_alt_name, -1);

	return at < 0 || X509_add_ext(x, X509v3_get_ext(exts, at), -1);
}

int cert_sign_csr(struct str csr_pem, struct str ca_cert_pem, struct str ca_key_pem,
	int64_t valid_seconds, bool server_auth, bool client_auth, struct buf *ret_cert_pem,
	struct err *err)
{
	CLEAN_BIO BIO *in = bio_of(csr_pem);
	CLEAN_REQ X509_REQ *req = PEM_read_bio_X509_REQ(in, NULL, NULL, NULL);
	CLEAN_KEY EVP_PKEY *ca_key = read_key(ca_key_pem);
	CLEAN_X509 X509 *ca = read_cert(ca_cert_pem);
	CLEAN_X509 X509 *x = X509_new();

	if (!req)
		return failed(err, -EINVAL, "cannot read the certificate signing request");
	if (!ca || !ca_key)
		return failed(err, -EINVAL, "cannot read the CA's certificate or key");
	EVP_PKEY *key = X509_REQ_get0_pubkey(req);

	if (!key || X509_REQ_verify(req, key) != 1)
		return failed(err, -EACCES,
			"the certificate signing request is not signed by its own key");
	bool ok = set_frame(x, valid_seconds, X509_REQ_get_subject_name(req),
			  X509_get_subject_name(ca), key) &&
		add_usage(x, ca, (struct usage){ false, server_auth, client_auth }) &&
		copy_alt_names(x, req) && X509_sign(x, ca_key, EVP_sha256());

	if (!ok)
		return failed(err, -EIO, "cannot sign the certificate");
	return write_cert(x, ret_cert_pem, err);
}

int cert_make_csr(
	const struct cert_request *r, struct str key_pem, struct buf *ret_csr_pem, struct err *err)
{
	CLEAN_KEY EVP_PKEY *key = read_key(key_pem);
	CLEAN_REQ X509_REQ *req = X509_REQ_new();
	CLEAN_BIO BIO *out = BIO_new(BIO_s_mem());

	if (!key)
		return failed(err, -EINVAL, "cannot read the key");
	GENERAL_NAMES *names = alt_names(r, err);

	if (!names)
		return -EINVAL;
	bool ok = X509_REQ_set_version(req, 0) && set_subject(X509_REQ_get_subject_name(req), r) &&
		X509_REQ_set_pubkey(req, key);

	if (ok && sk_GENERAL_NAME_num(names)) {
		CLEANUP(free_exts) STACK_OF(X509_EXTENSION) *exts = NULL;

		ok = X509V3_add1_i2d(&exts, NID_subject_alt_name, names, 0, 0) == 1 &&
			X509_REQ_add_extensions(req, exts);
	}
	GENERAL_NAMES_free(names);
	if (!ok || !X509_REQ_sign(req, key, EVP_sha256()) || !PEM_write_bio_X509_REQ(out, req))
		return failed(err, -EIO, "cannot make a certificate signing request");
	take_bio(out, ret_csr_pem);
	return 0;
}

static bool seconds_of(const ASN1_TIME *t, int64_t *ret)
{
	ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
	int days, seconds;
	bool ok = ASN1_TIME_diff(&days, &seconds, epoch, t) == 1;

	ASN1_TIME_free(epoch);
	if (ok)
		*ret = (int64_t)days * 86400 + seconds;
	return ok;
}

bool cert_seconds(const X509 *x, int64_t *ret_begin, int64_t *ret_end)
{
	return seconds_of(X509_get0_notBefore(x), ret_begin) &&
		seconds_of(X509_get0_notAfter(x), ret_end);
}

int cert_life(
	struct str cert_pem, struct timestamp *ret_made, struct timestamp *ret_end, struct err *err)
{
	CLEAN_X509 X509 *x = read_cert(cert_pem);
	int64_t begin, end;

	if (!x)
		return failed(err, -EINVAL, "cannot read the certificate");
	if (!cert_seconds(x, &begin, &end))
		return failed(err, -EINVAL, "cannot read the certificate's begin and end");
	int64_t before = tolerance(end - begin - CLOCK_TOLERANCE_S);
	if (end - begin > before)
		begin += before;
	*ret_made = (struct timestamp){ begin, 0 };
	*ret_end = (struct timestamp){ end, 0 };
	return 0;
}

int cert_not_after(struct str cert_pem, struct timestamp *ret, struct err *err)
{
	struct timestamp made;

	return cert_life(cert_pem, &made, ret, err);
}
