/* CertificateApproval, CertificateSigning: who approves or signs needs the verb on the signer's name. CertificateSubjectRestriction:
 * no client certificate for system:masters. Upstream: plugin/pkg/admission/certificates. */
#include "apiserver/admission/admission.h"

static bool may_sign(struct apiserver *s, const struct admission_attributes *at, const char *verb,
	struct str signer)
{
	struct str group = STR("certificates.k8s.io"), domain, path;
	if (may(s, at, verb, group, "signers", STR_NONE, signer))
		return true;
	return str_cut(signer, '/', &domain, &path) &&
		may(s, at, verb, group, "signers", STR_NONE,
			arena_fmt(at->req->arena, STR_FMT "/*", STR_ARG(domain)));
}

static struct meta_v1_status *validate_approval(
	struct apiserver *s, struct admission_attributes *at)
{
	const struct certificates_v1_certificate_signing_request *csr = at->old ? at->old : at->obj;
	if (may_sign(s, at, "approve", csr->spec.signer_name))
		return NULL;
	return deny(at, "user not permitted to approve requests with signerName \"" STR_FMT "\"",
		STR_ARG(csr->spec.signer_name));
}

const struct plugin csr_approval_plugin = {
	.name = "CertificateApproval",
	.operations = VERB_UPDATE,
	.resources = { "certificatesigningrequests.certificates.k8s.io/approval" },
	.validate = validate_approval,
};

static struct meta_v1_status *validate_signing(struct apiserver *s, struct admission_attributes *at)
{
	const struct certificates_v1_certificate_signing_request *csr = at->obj, *old = at->old;
	bool same_conditions = old && csr->status.conditions.len == old->status.conditions.len;
	if (old && str_eq(csr->status.certificate, old->status.certificate) && same_conditions)
		return NULL;
	if (may_sign(s, at, "sign", old ? old->spec.signer_name : csr->spec.signer_name))
		return NULL;
	return deny(at, "user not permitted to sign requests with signerName \"" STR_FMT "\"",
		STR_ARG(csr->spec.signer_name));
}

const struct plugin csr_signing_plugin = {
	.name = "CertificateSigning",
	.operations = VERB_UPDATE,
	.resources = { "certificatesigningrequests.certificates.k8s.io/status" },
	.validate = validate_signing,
};

/* Read as the certificate's subject will be when it is shown, in whatever string type it was written. */
static bool asks_for(struct str pem, struct str group, struct arena *a)
{
	struct csr_info c;
	if (csr_read(pem, a, &c, NULL) < 0)
		return false; /* nobody can sign that */
	for (size_t i = 0; i < c.n_organizations; i++)
		if (str_eq(c.organizations[i], group))
			return true;
	return false;
}

static struct meta_v1_status *validate_subject(struct apiserver *s, struct admission_attributes *at)
{
	const struct certificates_v1_certificate_signing_request *csr = at->obj;
	if (!str_eqz(csr->spec.signer_name, "kubernetes.io/kube-apiserver-client") ||
		!asks_for(csr->spec.request, STR("system:masters"), at->req->arena))
		return NULL;
	return deny(at,
		"use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed");
}

const struct plugin csr_subject_plugin = {
	.name = "CertificateSubjectRestriction",
	.operations = VERB_CREATE,
	.resources = { "certificatesigningrequests.certificates.k8s.io" },
	.validate = validate_subject,
};
