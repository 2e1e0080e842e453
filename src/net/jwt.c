/* Compact JSON Web Signatures (RFC 7515) over P-256, and keys as JSON Web Keys (RFC 7517).
 * Verification also takes RS256, since tokens of other issuers are signed so. The algorithm must fit the key: the token's
 * header does not choose. */
#include "net/internal.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>

#define P256_BYTES 32

static void free_key(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}
static void free_digest(EVP_MD_CTX **c)
{
	EVP_MD_CTX_free(*c);
}
static void free_sig(ECDSA_SIG **s)
{
	ECDSA_SIG_free(*s);
}
static void free_bn(BIGNUM **b)
{
	BN_free(*b);
}

void sha256(const void *p, size_t n, uint8_t out[32])
{
	SHA256(p, n, out);
}

static EVP_PKEY *read_private(struct str pem)
{
	BIO *in = BIO_new_mem_buf(pem.p ? pem.p : "", (int)pem.len);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);

	BIO_free(in);
	ERR_clear_error();
	return key;
}

static EVP_PKEY *read_any(struct str pem)
{
	BIO *in = BIO_new_mem_buf(pem.p ? pem.p : "", (int)pem.len);
	EVP_PKEY *key = PEM_read_bio_PUBKEY(in, NULL, NULL, NULL);

	if (!key) {
		BIO_reset(in);
		X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);

		key = x ? X509_get_pubkey(x) : NULL;
		X509_free(x);
	}
	BIO_free(in);
	ERR_clear_error();
	return key ? key : read_private(pem);
}

static bool is_p256(const EVP_PKEY *key)
{
	char group[32];

	return EVP_PKEY_is_a(key, "EC") &&
		EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) &&
		!strcmp(group, "prime256v1");
}

/* DER in, the two numbers side by side out. */
static bool raw_signature(const unsigned char *der, size_t n, unsigned char out[2 * P256_BYTES])
{
	CLEANUP(free_sig) ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)n);

	return sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, P256_BYTES) == P256_BYTES &&
		BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + P256_BYTES, P256_BYTES) == P256_BYTES;
}

int jwt_sign(struct str key_pem, struct str key_id, struct str payload_json, struct buf *ret,
	struct err *err)
{
	CLEANUP(free_key) EVP_PKEY *key = read_private(key_pem);
	CLEANUP(free_digest) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	CLEAN_BUF struct buf header = { 0 }, token = { 0 };
	unsigned char der[128], raw[2 * P256_BYTES];
	size_t n = sizeof(der);

	if (!key || !is_p256(key))
		return err_set(err, -EINVAL,
			"cannot sign a token: the key is not an ECDSA P-256 private key in PEM");
	buf_addf(&header, "{\"alg\":\"ES256\",\"kid\":\"" STR_FMT "\"}", STR_ARG(key_id));
	base64url_encode(&token, header.p, header.len);
	buf_addc(&token, '.');
	base64url_encode(&token, payload_json.p, payload_json.len);
	if (EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) != 1 ||
		EVP_DigestSign(ctx, der, &n, (const unsigned char *)token.p, token.len) != 1 ||
		!raw_signature(der, n, raw)) {
		ERR_clear_error();
		return err_set(err, -EIO, "cannot sign a token: OpenSSL refused");
	}
	buf_addc(&token, '.');
	base64url_encode(&token, raw, sizeof(raw));
	buf_deinit(ret);
	*ret = token;
	token = (struct buf){ 0 };
	return 0;
}

static bool signature_fits(EVP_PKEY *key, struct str signed_part, const struct buf *signature)
{
	CLEANUP(free_digest) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	const unsigned char *sig = (const unsigned char *)signature->p;
	size_t n = signature->len;
	unsigned char *der = NULL;

	if (is_p256(key)) {
		CLEANUP(free_sig) ECDSA_SIG *pair = ECDSA_SIG_new();

		if (n != 2 * P256_BYTES)
			return false;
		ECDSA_SIG_set0(pair, BN_bin2bn(sig, P256_BYTES, NULL),
			BN_bin2bn(sig + P256_BYTES, P256_BYTES, NULL));
		int der_len = i2d_ECDSA_SIG(pair, &der);

		if (der_len <= 0)
			return false;
		sig = der;
		n = (size_t)der_len;
	}
	bool ok = EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
		EVP_DigestVerify(
			ctx, sig, n, (const unsigned char *)signed_part.p, signed_part.len) == 1;

	OPENSSL_free(der);
	ERR_clear_error();
	return ok;
}

static bool names_algorithm(struct str header_json, const char *alg)
{
	/* One member is looked for; whatever else the header says cannot change what is checked. */
	CLEAN_FREE char *text = str_dup(header_json);
	char *at = strstr(text, "\"alg\"");

	if (!at)
		return false;
	at += 5;
	at += strspn(at, " \t\r\n:");
	return *at == '"' && !strncmp(at + 1, alg, strlen(alg)) && at[1 + strlen(alg)] == '"';
}

int jwt_verify(struct str public_or_cert_or_key_pem, struct str token, struct buf *ret_payload_json,
	struct err *err)
{
	CLEANUP(free_key) EVP_PKEY *key = read_any(public_or_cert_or_key_pem);
	CLEAN_BUF struct buf header = { 0 }, payload = { 0 }, signature = { 0 };
	struct str head, body, tail, rest;

	if (!key)
		return err_set(err, -EINVAL,
			"cannot check a token: the key is not PEM of a public key, certificate or private key");
	if (!str_cut(token, '.', &head, &rest) || !str_cut(rest, '.', &body, &tail) ||
		str_find(tail, '.') >= 0 || base64url_decode(&header, head) < 0 ||
		base64url_decode(&payload, body) < 0 || base64url_decode(&signature, tail) < 0)
		return err_set(err, -EINVAL, "the token is not a compact JSON Web Signature");
	const char *alg = is_p256(key) ? "ES256" : EVP_PKEY_is_a(key, "RSA") ? "RS256" : NULL;

	if (!alg || !names_algorithm(buf_str(&header), alg))
		return err_set(err, -EACCES, "the token's algorithm does not fit the key");
	if (!signature_fits(key, str_n(token.p, head.len + 1 + body.len), &signature))
		return err_set(err, -EACCES, "the token's signature is wrong");
	buf_deinit(ret_payload_json);
	*ret_payload_json = payload;
	payload = (struct buf){ 0 };
	return 0;
}

static bool add_coordinate(struct buf *out, const EVP_PKEY *key, const char *param)
{
	CLEANUP(free_bn) BIGNUM *bn = NULL;
	unsigned char bytes[P256_BYTES];

	if (!EVP_PKEY_get_bn_param(key, param, &bn) ||
		BN_bn2binpad(bn, bytes, sizeof(bytes)) != sizeof(bytes))
		return false;
	base64url_encode(out, bytes, sizeof(bytes));
	return true;
}

int jwk_from_key(
	struct str key_pem, struct buf *ret_jwk_json, struct buf *ret_key_id, struct err *err)
{
	CLEANUP(free_key) EVP_PKEY *key = read_any(key_pem);
	CLEAN_BUF struct buf id = { 0 }, jwk = { 0 };
	unsigned char *der = NULL;
	uint8_t digest[32];

	if (!key || !is_p256(key))
		return err_set(err, -EINVAL,
			"cannot describe the key: it is not an ECDSA P-256 key in PEM");
	int n = i2d_PUBKEY(key, &der);

	if (n <= 0)
		return err_set(err, -EIO, "cannot encode the public key");
	sha256(der, (size_t)n, digest);
	OPENSSL_free(der);
	base64url_encode(&id, digest, sizeof(digest));
	buf_addf(&jwk,
		"{\"use\":\"sig\",\"kty\":\"EC\",\"kid\":\"%s\",\"crv\":\"P-256\",\"alg\":\"ES256\",\"x\":\"",
		id.p);
	bool ok = add_coordinate(&jwk, key, OSSL_PKEY_PARAM_EC_PUB_X);

	buf_addz(&jwk, "\",\"y\":\"");
	if (!ok || !add_coordinate(&jwk, key, OSSL_PKEY_PARAM_EC_PUB_Y))
		return err_set(err, -EIO, "cannot read the key's point");
	buf_addz(&jwk, "\"}");
	buf_deinit(ret_jwk_json);
	buf_deinit(ret_key_id);
	*ret_jwk_json = jwk;
	*ret_key_id = id;
	jwk = id = (struct buf){ 0 };
	return 0;
}
