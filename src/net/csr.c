/* What a certificate signing request asks for: who is to decide about it looks at this. */
#include "net/internal.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

static void free_req(X509_REQ **x)
{
	X509_REQ_free(*x);
}
static void free_cert(X509 **x)
{
	X509_free(*x);
}
static void free_bio(BIO **b)
{
	BIO_free(*b);
}
static void free_exts(STACK_OF(X509_EXTENSION) * *e)
{
	sk_X509_EXTENSION_pop_free(*e, X509_EXTENSION_free);
}
static void free_names(GENERAL_NAMES **n)
{
	GENERAL_NAMES_free(*n);
}

static bool add(struct str *items, size_t *n, struct str text)
{
	if (*n == CSR_NAMES_MOST)
		return false;
	items[(*n)++] = text;
	return true;
}

static struct str asn1_text(const ASN1_STRING *s, struct arena *a)
{
	unsigned char *utf8 = NULL;
	int n = ASN1_STRING_to_UTF8(&utf8, s);
	struct str r = n < 0 ? STR_NONE : arena_str(a, str_n((char *)utf8, (size_t)n));

	OPENSSL_free(utf8);
	return r;
}

static void read_subject(X509_NAME *name, struct arena *a, struct csr_info *c)
{
	for (int i = 0; i < X509_NAME_entry_count(name); i++) {
		X509_NAME_ENTRY *e = X509_NAME_get_entry(name, i);
		int nid = OBJ_obj2nid(X509_NAME_ENTRY_get_object(e));
		struct str text = asn1_text(X509_NAME_ENTRY_get_data(e), a);

		if (nid == NID_commonName)
			c->common_name = text;
		else if (nid == NID_organizationName)
			add(c->organizations, &c->n_organizations, text);
	}
}

static void read_address(const ASN1_STRING *s, struct arena *a, struct csr_info *c)
{
	char text[INET6_ADDRSTRLEN];
	int family = ASN1_STRING_length(s) == 4 ? AF_INET : AF_INET6;

	if (ASN1_STRING_length(s) != (family == AF_INET ? 4 : 16) ||
		!inet_ntop(family, ASN1_STRING_get0_data(s), text, sizeof(text)) ||
		!add(c->ip_addresses, &c->n_ip_addresses, arena_strz(a, text)))
		c->n_other_names++;
}

/* A name too many counts as one of another kind: whoever signs must not overlook it. */
static void read_names(const GENERAL_NAMES *names, struct arena *a, struct csr_info *c)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

		if (g->type == GEN_IPADD)
			read_address(g->d.iPAddress, a, c);
		else if (g->type != GEN_DNS ||
			!add(c->dns_names, &c->n_dns_names, asn1_text(g->d.dNSName, a)))
			c->n_other_names++;
	}
}

int csr_read(struct str csr_pem, struct arena *a, struct csr_info *ret, struct err *err)
{
	CLEANUP(free_bio) BIO *in = BIO_new_mem_buf(csr_pem.p ? csr_pem.p : "", (int)csr_pem.len);
	CLEANUP(free_req) X509_REQ *req = PEM_read_bio_X509_REQ(in, NULL, NULL, NULL);
	struct csr_info c = { 0 };

	ERR_clear_error();
	if (!req)
		return err_set(err, -EINVAL, "not a certificate signing request in PEM");
	CLEANUP(free_exts) STACK_OF(X509_EXTENSION) *exts = X509_REQ_get_extensions(req);
	CLEANUP(free_names)
	GENERAL_NAMES *names = exts ? X509V3_get_d2i(exts, NID_subject_alt_name, NULL, NULL) : NULL;

	read_subject(X509_REQ_get_subject_name(req), a, &c);
	read_names(names, a, &c);
	*ret = c;
	return 0;
}

int cert_read(struct str cert_pem, struct arena *a, struct csr_info *ret, struct err *err)
{
	CLEANUP(free_bio)
	BIO *in = BIO_new_mem_buf(cert_pem.p ? cert_pem.p : "", (int)cert_pem.len);
	CLEANUP(free_cert) X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);
	struct csr_info c = { 0 };

	ERR_clear_error();
	if (!x)
		return err_set(err, -EINVAL, "not a certificate in PEM");
	CLEANUP(free_names)
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);

	read_subject(X509_get_subject_name(x), a, &c);
	read_names(names, a, &c);
	*ret = c;
	return 0;
}
