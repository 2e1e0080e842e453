/* Who one is and what one may do: certificates, tokens, impersonation, RBAC, nodes, reviews, escalation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "apiserver/fixture.h"

static struct fixture f;
static struct http_client *bob, *nobody, *node1;

static int setup(void **state)
{
	fixture_start(&f);
	bob = fixture_client(&f, "bob", "devs");
	nobody = fixture_client(&f, NULL, NULL);
	node1 = fixture_client(&f, "system:node:n1", "system:nodes");
	return 0;
}

static int teardown(void **state)
{
	http_client_free(bob);
	http_client_free(nobody);
	http_client_free(node1);
	fixture_stop(&f);
	return 0;
}

static struct answer as(struct http_client *c, int want, const char *method, const char *target,
	const char *type, const char *body)
{
	struct answer a = ask_as(&f, c, method, target, type, NULL, body);
	if (a.code != want)
		fail_msg("%s %s: %d instead of %d: " STR_FMT, method, target, a.code, want,
			STR_ARG(a.body));
	return a;
}

static struct answer as_header(
	struct http_client *c, const char *target, struct http_header *h, size_t n)
{
	struct err err = { 0 };
	struct answer a = { 0 };
	struct http_call call = { .method = STR("GET"),
		.target = str_of(target),
		.headers = h,
		.n_headers = n,
		.accept = STR("application/json") };
	assert_int_equal(http_client_call(c, &call, f.arena, &a.reply, &err), 0);
	a.code = a.reply.status;
	a.body = a.reply.body;
	return a;
}

#define PODS "/api/v1/namespaces/default/pods"
#define RBAC "/apis/rbac.authorization.k8s.io/v1"

static void test_anonymous(void **state)
{
	static const struct {
		const char *path;
		int code;
		const char *part;
	} rows[] = {
		{ "/livez", 200, "ok" },
		{ "/readyz", 200, "ok" },
		{ "/healthz", 200, "ok" },
		{ "/version", 200, "gitVersion" },
		{ "/api", 403,
			"forbidden: User \\\"system:anonymous\\\" cannot get path \\\"/api\\\"" },
		{ "/apis", 403, "Forbidden" },
		{ "/metrics", 403, "Forbidden" },
		{ "/", 403, "Forbidden" },
		{ "/openapi/v2", 403, "Forbidden" },
		{ PODS, 403,
			"pods is forbidden: User \\\"system:anonymous\\\" cannot list resource \\\"pods\\\" in API group \\\"\\\" in the "
			"namespace \\\"default\\\"" },
		{ PODS "/x", 403,
			"pods \\\"x\\\" is forbidden: User \\\"system:anonymous\\\" cannot get resource" },
		{ "/api/v1/nodes", 403, "at the cluster scope" },
		{ "/apis/apps/v1/deployments", 403, "deployments.apps is forbidden" },
		{ "/nonsense", 403, "Forbidden" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct answer a = as(nobody, rows[i].code, "GET", rows[i].path, NULL, NULL);
		if (!has(a.body, rows[i].part))
			fail_msg("%s: " STR_FMT, rows[i].path, STR_ARG(a.body));
	}
}

/* A binding counts for the request after it; so does its end. */
static void test_rbac(void **state)
{
	as(bob, 403, "GET", PODS, NULL, NULL);
	expect(&f, 201, "POST", RBAC "/namespaces/default/roles",
		"{\"metadata\":{\"name\":\"r\"},\"rules\":[{\"apiGroups\":[\"\"],\"resources\":[\"pods\",\"pods/log\"],\"verbs\":[\"get\",\"list\"]},"
		"{\"apiGroups\":[\"\"],\"resources\":[\"configmaps\"],\"resourceNames\":[\"one\"],\"verbs\":[\"*\"]}]}");
	expect(&f, 201, "POST", RBAC "/namespaces/default/rolebindings",
		"{\"metadata\":{\"name\":\"b\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"r\"},"
		"\"subjects\":[{\"kind\":\"Group\",\"apiGroup\":\"rbac.authorization.k8s.io\",\"name\":\"devs\"}]}");
	as(bob, 200, "GET", PODS, NULL, NULL);
	as(bob, 404, "GET", PODS "/x", NULL, NULL);
	as(bob, 403, "DELETE", PODS "/x", NULL, NULL);
	as(bob, 403, "GET", "/api/v1/namespaces/kube-system/pods", NULL, NULL);
	as(bob, 403, "GET", "/api/v1/pods", NULL, NULL);
	as(bob, 404, "GET", "/api/v1/namespaces/default/configmaps/one", NULL, NULL);
	as(bob, 403, "GET", "/api/v1/namespaces/default/configmaps/two", NULL, NULL);
	as(bob, 403, "GET", "/api/v1/namespaces/default/configmaps", NULL, NULL);
	as(bob, 200, "GET",
		"/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3Done", NULL,
		NULL);
	expect(&f, 200, "DELETE", RBAC "/namespaces/default/roles/r", NULL);
	struct answer a = as(bob, 403, "GET", PODS, NULL, NULL);
	assert_true(has(a.body, "RBAC: role.rbac.authorization.k8s.io \\\"r\\\" not found"));
	expect(&f, 200, "DELETE", RBAC "/namespaces/default/rolebindings/b", NULL);
	a = as(bob, 403, "GET", PODS, NULL, NULL);
	assert_false(has(a.body, "RBAC:"));
}

/* admin's rules are nowhere but in the roles it aggregates. */
static void test_aggregation(void **state)
{
	expect(&f, 201, "POST", RBAC "/namespaces/default/rolebindings",
		"{\"metadata\":{\"name\":\"adm\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"admin\"},"
		"\"subjects\":[{\"kind\":\"User\",\"apiGroup\":\"rbac.authorization.k8s.io\",\"name\":\"bob\"}]}");
	as(bob, 200, "GET", PODS, NULL, NULL);
	as(bob, 200, "GET", "/api/v1/namespaces/default/secrets", NULL, NULL);
	as(bob, 403, "GET", "/api/v1/namespaces/default/resourcequotas/x/nonsense", NULL, NULL);
	expect(&f, 201, "POST", RBAC "/clusterroles",
		"{\"metadata\":{\"name\":\"more\",\"labels\":{\"rbac.authorization.k8s.io/aggregate-to-view\":\"true\"}},"
		"\"rules\":[{\"apiGroups\":[\"coordination.k8s.io\"],\"resources\":[\"leases\"],\"verbs\":[\"deletecollection\"]},"
		"{\"apiGroups\":[\"storage.k8s.io\"],\"resources\":[\"csistoragecapacities\"],\"verbs\":[\"list\"]}]}");
	as(bob, 200, "GET", "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities", NULL,
		NULL);
	expect(&f, 200, "DELETE", RBAC "/clusterroles/more", NULL);
	as(bob, 403, "GET", "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities", NULL,
		NULL);
}

/* bob is admin of default here: he may grant what he holds and no more. */
static void test_escalation(void **state)
{
	struct answer a = as(bob, 403, "POST", RBAC "/namespaces/default/roles", NULL,
		"{\"metadata\":{\"name\":\"up\"},\"rules\":[{\"apiGroups\":[\"\"],\"resources\":[\"nodes\"],\"verbs\":[\"get\"]}]}");
	assert_true(has(a.body,
		"is attempting to grant RBAC permissions not currently held:\\n{APIGroups:[\\\"\\\"], Resources:[\\\"nodes\\\"], "
		"Verbs:[\\\"get\\\"]}"));
	as(bob, 201, "POST", RBAC "/namespaces/default/roles", NULL,
		"{\"metadata\":{\"name\":\"same\"},\"rules\":[{\"apiGroups\":[\"\"],\"resources\":[\"pods\"],\"verbs\":[\"get\"]}]}");
	as(bob, 403, "POST", RBAC "/namespaces/default/rolebindings", NULL,
		"{\"metadata\":{\"name\":\"up\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"cluster-admin\"},"
		"\"subjects\":[{\"kind\":\"User\",\"apiGroup\":\"rbac.authorization.k8s.io\",\"name\":\"bob\"}]}");
	as(bob, 201, "POST", RBAC "/namespaces/default/rolebindings", NULL,
		"{\"metadata\":{\"name\":\"ok\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"view\"},"
		"\"subjects\":[{\"kind\":\"User\",\"apiGroup\":\"rbac.authorization.k8s.io\",\"name\":\"eve\"}]}");
	as(bob, 403, "PATCH", RBAC "/namespaces/default/roles/same", "application/merge-patch+json",
		"{\"rules\":[{\"apiGroups\":[\"*\"],\"resources\":[\"*\"],\"verbs\":[\"*\"]}]}");
	as(bob, 200, "PATCH", RBAC "/namespaces/default/roles/same", "application/merge-patch+json",
		"{\"metadata\":{\"labels\":{\"a\":\"b\"}}}");
	expect(&f, 200, "DELETE", RBAC "/namespaces/default/rolebindings/adm", NULL);
}

static void test_impersonation(void **state)
{
	struct http_header eve[] = { { STR("impersonate-user"), STR("eve") },
		{ STR("impersonate-group"), STR("system:masters") } };
	struct http_header sa[] = { { STR("impersonate-user"),
		STR("system:serviceaccount:default:x") } };
	struct http_header group_only[] = { { STR("impersonate-group"), STR("g") } };
	assert_int_equal(as_header(f.admin, PODS, eve, 1).code, 200); /* eve may view default */
	assert_int_equal(as_header(f.admin, "/api/v1/nodes", eve, 1).code, 403);
	assert_int_equal(as_header(f.admin, "/api/v1/nodes", eve, 2).code, 200);
	struct answer a = as_header(bob, PODS, eve, 1);
	assert_int_equal(a.code, 403);
	assert_true(has(a.body,
		"users \\\"eve\\\" is forbidden: User \\\"bob\\\" cannot impersonate resource \\\"users\\\" in API group \\\"\\\" at "
		"the cluster scope"));
	a = as_header(f.admin, "/api/v1/nodes", sa, 1);
	assert_true(has(a.body, "system:serviceaccount:default:x"));
	assert_int_equal(as_header(f.admin, PODS, group_only, 1).code, 500);
}

/* What authorization takes for the one name that is asked for is what the answer is about. */
static void test_names_in_selectors(void **state)
{
	expect(&f, 201, "POST", "/api/v1/namespaces/default/configmaps",
		"{\"metadata\":{\"name\":\"open\"}}");
	expect(&f, 201, "POST", "/api/v1/namespaces/default/configmaps",
		"{\"metadata\":{\"name\":\"shut\"}}");
	expect(&f, 201, "POST", RBAC "/namespaces/default/roles",
		"{\"metadata\":{\"name\":\"one\"},\"rules\":[{\"apiGroups\":[\"\"],"
		"\"resources\":[\"configmaps\"],\"resourceNames\":[\"open\"],\"verbs\":[\"list\",\"watch\",\"patch\",\"update\"]}]}");
	expect(&f, 201, "POST", RBAC "/namespaces/default/rolebindings",
		"{\"metadata\":{\"name\":\"one\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"one\"},"
		"\"subjects\":[{\"kind\":\"User\",\"apiGroup\":\"rbac.authorization.k8s.io\",\"name\":\"bob\"}]}");
	as(bob, 200, "GET",
		"/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3D%3Dopen", NULL,
		NULL);
	as(bob, 403, "GET",
		"/api/v1/namespaces/default/configmaps?fieldSelector=metadata.namespace!%3Dx%5C,metadata.name%3Dopen",
		NULL, NULL);
	as(bob, 403, "GET",
		"/api/v1/namespaces/default/configmaps?fieldSelector=metadata.namespace!%3Dx,metadata.name!%3Dopen",
		NULL, NULL);
	struct answer a = as(bob, 200, "GET",
		"/api/v1/watch/namespaces/default/configmaps/open?timeoutSeconds=1", NULL, NULL);
	assert_true(has(a.body, "\"open\"") && !has(a.body, "shut"));
	a = as(bob, 200, "GET",
		"/api/v1/watch/namespaces/default/configmaps/open?timeoutSeconds=1&fieldSelector=metadata.name%3Dshut",
		NULL, NULL);
	assert_false(has(a.body, "shut"));
	as(bob, 400, "GET", "/api/v1/namespaces/default%00x/configmaps", NULL, NULL);
	/* making what is not there takes create */
	expect(&f, 200, "DELETE", "/api/v1/namespaces/default/configmaps/open", NULL);
	a = as(bob, 403, "PATCH", "/api/v1/namespaces/default/configmaps/open?fieldManager=t",
		"application/apply-patch+yaml",
		"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"open\"}}");
	assert_true(has(a.body, "User \\\"bob\\\" cannot create resource \\\"configmaps\\\""));
	expect(&f, 200, "DELETE", RBAC "/namespaces/default/rolebindings/one", NULL);
}

/* Who rules in one namespace rules over that one, not over all that are reached by a path through it. */
static void test_namespaces_in_namespaces(void **state)
{
	expect(&f, 201, "POST", RBAC "/namespaces/default/roles",
		"{\"metadata\":{\"name\":\"lord\"},\"rules\":[{\"apiGroups\":[\"*\"],"
		"\"resources\":[\"*\"],\"verbs\":[\"*\"]}]}");
	expect(&f, 201, "POST", RBAC "/namespaces/default/rolebindings",
		"{\"metadata\":{\"name\":\"lord\"},\"roleRef\":{\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"lord\"},"
		"\"subjects\":[{\"kind\":\"User\",\"apiGroup\":\"rbac.authorization.k8s.io\",\"name\":\"bob\"}]}");
	as(bob, 200, "GET", "/api/v1/namespaces/default", NULL, NULL);
	as(bob, 403, "GET", "/api/v1/namespaces/kube-system", NULL, NULL);
	as(bob, 404, "GET", "/api/v1/namespaces/default/namespaces/kube-system", NULL, NULL);
	as(bob, 404, "DELETE", "/api/v1/namespaces/default/namespaces/kube-public", NULL, NULL);
	as(bob, 404, "GET", "/api/v1/namespaces/default/namespaces", NULL, NULL);
	as(bob, 404, "POST", "/api/v1/namespaces/default/namespaces", NULL,
		"{\"metadata\":{\"name\":\"mine\"}}");
	as(bob, 404, "GET", "/api/v1/namespaces/default/nodes", NULL, NULL);
	expect(&f, 200, "DELETE", RBAC "/namespaces/default/rolebindings/lord", NULL);
}

static struct str token_of(struct str body)
{
	struct value v;
	struct err err = { 0 };
	assert_int_equal(json_parse(body, f.arena, &v, &err), 0);
	return value_get(value_get(&v, STR("status")), STR("token"))->text;
}

static struct answer with_token(struct str token, const char *path)
{
	struct http_header h = { STR("authorization"),
		arena_fmt(f.arena, "Bearer " STR_FMT, STR_ARG(token)) };
	return as_header(nobody, path, &h, 1);
}

static void test_service_account_tokens(void **state)
{
	expect(&f, 201, "POST", "/api/v1/namespaces/default/serviceaccounts",
		"{\"metadata\":{\"name\":\"robot\"}}");
	struct answer a =
		expect(&f, 201, "POST", "/api/v1/namespaces/default/serviceaccounts/robot/token",
			"{\"spec\":{\"expirationSeconds\":600}}");
	struct str token = token_of(a.body);
	a = with_token(token, "/api/v1/nodes");
	assert_int_equal(a.code, 403);
	assert_true(has(a.body, "User \\\"system:serviceaccount:default:robot\\\""));
	assert_int_equal(with_token(token, "/apis").code,
		200); /* system:authenticated, and from the cache */
	assert_int_equal(
		with_token(arena_fmt(f.arena, STR_FMT "x", STR_ARG(token)), "/apis").code, 401);
	assert_int_equal(with_token(STR("nonsense"), "/apis").code, 401);
	assert_int_equal(with_token(STR("a.b.c"), "/apis").code, 401);
	a = expect(&f, 201, "POST", "/api/v1/namespaces/default/serviceaccounts/robot/token",
		"{\"spec\":{\"audiences\":[\"vault\"],"
		"\"expirationSeconds\":600}}");
	struct str other = token_of(a.body);
	assert_int_equal(with_token(other, "/apis").code, 401);
	a = expect(&f, 201, "POST", "/apis/authentication.k8s.io/v1/tokenreviews",
		arena_fmt(f.arena,
			"{\"spec\":{\"token\":\"" STR_FMT "\",\"audiences\":[\"vault\"]}}",
			STR_ARG(other))
			.p);
	assert_true(has(a.body, "\"authenticated\":true") &&
		has(a.body, "system:serviceaccount:default:robot") &&
		has(a.body, "\"audiences\":[\"vault\"]"));
	expect(&f, 404, "POST", "/api/v1/namespaces/default/serviceaccounts/none/token",
		"{\"spec\":{}}");
	expect(&f, 200, "DELETE", "/api/v1/namespaces/default/serviceaccounts/robot", NULL);
	assert_int_equal(with_token(token, "/apis").code, 401);
	/* the same name again is another account */
	expect(&f, 201, "POST", "/api/v1/namespaces/default/serviceaccounts",
		"{\"metadata\":{\"name\":\"robot\"}}");
	assert_int_equal(with_token(token, "/apis").code, 401);
}

static void test_expired_token(void **state)
{
	CLEAN_BUF struct buf token = { 0 };
	struct err err = { 0 };
	int64_t now = time_now().sec;
	struct answer a = expect(&f, 201, "POST", "/api/v1/namespaces/default/serviceaccounts",
		"{\"metadata\":{\"name\":\"old\"}}");
	struct str uid = json_member(json_member(a.body, STR("metadata")), STR("uid"));
	struct str payload = arena_fmt(f.arena,
		"{\"aud\":[\"https://kubernetes.default.svc.cluster.local\"],\"exp\":%lld,\"iat\":1,\"nbf\":1,"
		"\"iss\":\"https://kubernetes.default.svc.cluster.local\",\"kubernetes.io\":{\"namespace\":\"default\","
		"\"serviceaccount\":{\"name\":\"old\",\"uid\":" STR_FMT "}},"
		"\"sub\":\"system:serviceaccount:default:old\"}",
		(long long)now - 10, STR_ARG(uid));
	assert_int_equal(jwt_sign(buf_str(&f.key), STR("k"), payload, &token, &err), 0);
	a = with_token(buf_str(&token), "/apis");
	assert_int_equal(a.code, 401);
	assert_true(has(a.body, "\"message\":\"Unauthorized\"") &&
		has(a.body, "\"reason\":\"Unauthorized\""));
}

/* The old kind: lives in a Secret and as long as it. */
static void test_secret_tokens(void **state)
{
	expect(&f, 201, "POST", "/api/v1/namespaces/default/serviceaccounts",
		"{\"metadata\":{\"name\":\"veteran\"}}");
	struct answer a = expect(&f, 201, "POST", "/api/v1/namespaces/default/secrets",
		"{\"metadata\":{\"name\":\"vt\",\"annotations\":"
		"{\"kubernetes.io/service-account.name\":\"veteran\"}},\"type\":\"kubernetes.io/service-account-token\"}");
	struct value v;
	struct err err = { 0 };
	assert_int_equal(json_parse(a.body, f.arena, &v, &err), 0);
	const struct value *data = value_get(&v, STR("data"));
	CLEAN_BUF struct buf token = { 0 };
	assert_int_equal(base64_decode(&token, value_get(data, STR("token"))->text), 0);
	assert_true(str_eqz(value_get(data, STR("namespace"))->text, "ZGVmYXVsdA=="));
	a = with_token(buf_str(&token), "/api/v1/nodes");
	assert_true(a.code == 403 && has(a.body, "system:serviceaccount:default:veteran"));
	assert_int_equal(with_token(buf_str(&token), "/apis").code, 200);
	expect(&f, 200, "DELETE", "/api/v1/namespaces/default/secrets/vt", NULL);
	assert_int_equal(with_token(buf_str(&token), "/apis").code, 401);
}

static void test_bootstrap_tokens(void **state)
{
	expect(&f, 201, "POST", "/api/v1/namespaces/kube-system/secrets",
		"{\"metadata\":{\"name\":\"bootstrap-token-abcdef\"},\"type\":\"bootstrap.kubernetes.io/token\",\"stringData\":{\"token-id\":\"abcdef\","
		"\"token-secret\":\"0123456789abcdef\",\"usage-bootstrap-authentication\":\"true\",\"auth-extra-groups\":\"system:bootstrappers:x\"}}");
	struct answer a = with_token(STR("abcdef.0123456789abcdef"), "/api/v1/nodes");
	assert_true(a.code == 403 && has(a.body, "User \\\"system:bootstrap:abcdef\\\""));
	assert_int_equal(with_token(STR("abcdef.0123456789abcdeX"), "/api/v1/nodes").code, 401);
	assert_int_equal(with_token(STR("abcdef.0123456789abcde0"), "/api/v1/nodes").code, 401);
	assert_int_equal(with_token(STR("fedcba.0123456789abcdef"), "/api/v1/nodes").code, 401);
}

static void test_reviews(void **state)
{
	struct answer a = as(bob, 201, "POST",
		"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", NULL,
		"{\"spec\":{\"resourceAttributes\":{\"verb\":\"create\",\"resource\":\"pods\",\"namespace\":\"default\"}}}");
	assert_true(has(a.body, "\"allowed\":false"));
	a = as(bob, 201, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", NULL,
		"{\"spec\":{\"nonResourceAttributes\":{\"verb\":\"get\",\"path\":\"/api\"}}}");
	assert_true(has(a.body, "\"allowed\":true"));
	as(bob, 422, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", NULL,
		"{\"spec\":{}}");
	a = expect(&f, 201, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews",
		"{\"spec\":{\"user\":\"eve\",\"resourceAttributes\":{\"verb\":\"list\",\"resource\":\"pods\",\"namespace\":\"default\"}}}");
	assert_true(has(a.body, "\"allowed\":true"));
	assert_true(has(a.body,
		"RBAC: allowed by RoleBinding \\\"ok/default\\\" of ClusterRole \\\"view\\\" to User \\\"eve\\\""));
	a = expect(&f, 201, "POST",
		"/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews",
		"{\"spec\":{\"user\":\"eve\",\"resourceAttributes\":{\"verb\":\"delete\",\"resource\":\"pods\",\"namespace\":\"default\"}}}");
	assert_true(has(a.body, "\"allowed\":false"));
	a = as(bob, 201, "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", NULL,
		"{\"spec\":{\"namespace\":\"default\"}}");
	assert_true(
		has(a.body, "\"nonResourceRules\":[{") && has(a.body, "selfsubjectaccessreviews"));
	a = as(bob, 201, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", NULL, "{}");
	assert_true(has(a.body, "\"username\":\"bob\"") && has(a.body, "\"devs\"") &&
		has(a.body, "system:authenticated"));
}

#define POD(name, node, extra) \
	"{\"metadata\":{\"name\":\"" name "\"},\"spec\":{\"nodeName\":\"" node \
	"\",\"containers\":[{\"name\":\"c\"," \
	"\"image\":\"i\"" extra "}]}}"

/* A node reads what its pods name, writes itself and its own, and nothing else. */
static void test_node(void **state)
{
	/* the agent's own grants (service proxy, network policy) are RBAC's; here the authorizer is asked alone */
	ask(&f, "DELETE", RBAC "/clusterrolebindings/skiff:node-proxier", NULL);
	ask(&f, "DELETE", RBAC "/clusterrolebindings/skiff:node-network", NULL);
	expect(&f, 201, "POST", "/api/v1/namespaces/default/serviceaccounts",
		"{\"metadata\":{\"name\":\"default\"}}");
	expect(&f, 201, "POST", PODS,
		POD("mine", "n1",
			",\"envFrom\":[{\"secretRef\":{\"name\":\"s1\"}},{\"configMapRef\":{\"name\":\"c1\"}}]"));
	expect(&f, 201, "POST", PODS,
		POD("theirs", "n2", ",\"envFrom\":[{\"secretRef\":{\"name\":\"s2\"}}]"));
	expect(&f, 201, "POST", "/api/v1/namespaces/default/secrets",
		"{\"metadata\":{\"name\":\"s1\"}}");
	expect(&f, 201, "POST", "/api/v1/namespaces/default/secrets",
		"{\"metadata\":{\"name\":\"s2\"}}");
	static const struct {
		const char *method, *target, *body;
		int code;
		const char *part;
	} rows[] = {
		{ "GET", "/api/v1/namespaces/default/secrets/s1", NULL, 200 },
		{ "GET", "/api/v1/namespaces/default/secrets/s2", NULL, 403,
			"no relationship found between node 'n1' and this object" },
		{ "GET", "/api/v1/namespaces/default/secrets", NULL, 403, "No Object name found" },
		{ "GET", "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name%3Ds1",
			NULL, 200 },
		{ "GET", "/api/v1/namespaces/kube-system/secrets/s1", NULL, 403 },
		{ "GET", "/api/v1/namespaces/default/configmaps/c1", NULL, 404 },
		{ "GET", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt", NULL, 404 },
		{ "GET", "/api/v1/namespaces/default/configmaps/other", NULL, 403 },
		{ "DELETE", "/api/v1/namespaces/default/secrets/s1", NULL, 403 },
		{ "GET", PODS "/mine", NULL, 200 },
		{ "GET", PODS "/theirs", NULL, 403 },
		{ "GET", "/api/v1/pods", NULL, 403 },
		{ "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", NULL, 200 },
		{ "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2", NULL, 403 },
		{ "DELETE", PODS "/theirs", NULL, 403,
			"node 'n1' can only delete pods with spec.nodeName set to itself" },
		{ "POST", PODS, POD("new", "n1", ""), 403, "can only create mirror pods" },
		{ "POST", PODS,
			"{\"metadata\":{\"name\":\"mp\",\"annotations\":{\"kubernetes.io/config.mirror\":\"h\"}},"
			"\"spec\":{\"nodeName\":\"n1\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}",
			201 },
		{ "POST", PODS,
			"{\"metadata\":{\"name\":\"mq\",\"annotations\":{\"kubernetes.io/config.mirror\":\"h\"}},"
			"\"spec\":{\"nodeName\":\"n2\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}",
			403 },
		{ "POST", PODS,
			"{\"metadata\":{\"name\":\"mr\",\"annotations\":{\"kubernetes.io/config.mirror\":\"h\"}},"
			"\"spec\":{\"nodeName\":\"n1\",\"containers\":[{\"name\":\"c\",\"image\":\"i\",\"env\":[{\"name\":\"E\",\"valueFrom\":"
			"{\"secretKeyRef\":{\"name\":\"s2\",\"key\":\"k\"}}}]}]}}",
			403, "can not create pods that reference secrets" },
		{ "GET", "/api/v1/pods?fieldSelector=status.phase!%3Dx%5C,spec.nodeName%3Dn1", NULL,
			403 },
		{ "POST", "/api/v1/nodes",
			"{\"metadata\":{\"name\":\"n1\",\"labels\":{\"kubernetes.io/hostname\":\"n1\"}}}",
			201 },
		{ "POST", "/api/v1/nodes", "{\"metadata\":{\"name\":\"n2\"}}", 403,
			"node 'n1' is not allowed to modify node 'n2'" },
		{ "GET", "/api/v1/nodes/n1", NULL, 200 },
		{ "GET", "/api/v1/nodes/n2", NULL, 403 },
		{ "GET", "/api/v1/nodes", NULL, 403 },
		{ "GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1", NULL, 200 },
		{ "PATCH", "/api/v1/nodes/n1",
			"{\"metadata\":{\"labels\":{\"node-restriction.kubernetes.io/x\":\"y\"}}}",
			403,
			"is not allowed to "
			"modify the following labels: node-restriction.kubernetes.io/x" },
		{ "PATCH", "/api/v1/nodes/n1", "{\"spec\":{\"taints\":[]}}", 403,
			"is not allowed to modify taints" },
		{ "PATCH", "/api/v1/nodes/n1/status", "{\"status\":{\"capacity\":{\"cpu\":\"2\"}}}",
			200 },
		{ "DELETE", "/api/v1/nodes/n1", NULL, 403 },
		{ "POST", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
			"{\"metadata\":{\"name\":\"n1\"}}", 201 },
		{ "POST", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
			"{\"metadata\":{\"name\":\"n2\"}}", 403 },
		{ "GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2", NULL,
			403 },
		{ "GET", "/apis/coordination.k8s.io/v1/namespaces/default/leases/n1", NULL, 403 },
		{ "PATCH", PODS "/mine/status", "{\"status\":{\"phase\":\"Running\"}}", 200 },
		{ "PATCH", PODS "/theirs/status", "{\"status\":{\"phase\":\"Running\"}}", 403 },
		{ "POST", "/api/v1/namespaces/default/serviceaccounts/default/token",
			"{\"spec\":{}}", 403, "node requested token not bound to a pod" },
		{ "POST", "/api/v1/namespaces/kube-system/serviceaccounts/default/token",
			"{\"spec\":{}}", 403 },
		{ "GET", "/api/v1/services", NULL, 200 },
		{ "GET", "/api/v1/namespaces", NULL, 403 },
		{ "GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", NULL, 403 },
		{ "POST", "/api/v1/namespaces/default/events",
			"{\"metadata\":{\"name\":\"e\"},\"involvedObject\":{\"namespace\":\"default\"}}",
			201 },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *type =
			!strcmp(rows[i].method, "PATCH") ? "application/merge-patch+json" : NULL;
		struct answer a =
			as(node1, rows[i].code, rows[i].method, rows[i].target, type, rows[i].body);
		if (rows[i].part && !has(a.body, rows[i].part))
			fail_msg(
				"%s %s: " STR_FMT, rows[i].method, rows[i].target, STR_ARG(a.body));
	}
	/* the pod gone, so is the secret */
	expect(&f, 200, "DELETE", PODS "/mine?gracePeriodSeconds=0", NULL);
	as(node1, 403, "GET", "/api/v1/namespaces/default/secrets/s1", NULL, NULL);
}

/* No seat: 429 with Retry-After; masters need none, nor does a watch. */
static void test_seats(void **state)
{
	f.server->read_seats = f.server->write_seats = 0;
	struct answer a = as(bob, 429, "GET", "/apis", NULL, NULL);
	bool retry = false;
	for (size_t i = 0; i < a.reply.n_headers; i++)
		retry |= str_eqz(a.reply.headers[i].name, "retry-after") &&
			a.reply.headers[i].value.len;
	assert_true(retry && has(a.body, "\"reason\":\"TooManyRequests\""));
	as(bob, 429, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", NULL, "{}");
	expect(&f, 200, "GET", "/apis", NULL);
	f.server->read_seats = f.server->write_seats = 1;
	for (int i = 0; i < 3; i++) /* each gives its seat back */
		as(bob, 200, "GET", "/apis", NULL, NULL);
	for (int i = 0; i < 3; i++)
		as(bob, 201, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", NULL,
			"{}");
	f.server->read_seats = f.server->write_seats = 1000;
}

/* The index falls off the log while nobody asks, is loaded anew, and follows from there on. */
static void test_rbac_after_compaction(void **state)
{
	struct fixture g;
	fixture_start_history(&g, 50);
	struct http_client *eve = fixture_client(&g, "eve", NULL);
	assert_int_equal(ask_as(&g, eve, "GET", PODS, NULL, NULL, NULL).code, 403);
	for (int i = 0; i < 80; i++)
		expect(&g, 201, "POST", RBAC "/clusterroles",
			arena_fmt(g.arena, "{\"metadata\":{\"name\":\"r%d\"},\"rules\":[]}", i).p);
	assert_int_equal(ask_as(&g, eve, "GET", PODS, NULL, NULL, NULL).code, 403);
	for (int i = 0; i < 2; i++) {
		expect(&g, 201, "POST", RBAC "/clusterrolebindings",
			"{\"metadata\":{\"name\":\"b\"},\"roleRef\":{\"apiGroup\":"
			"\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"view\"},\"subjects\":[{\"kind\":\"User\","
			"\"apiGroup\":\"rbac.authorization.k8s.io\",\"name\":\"eve\"}]}");
		assert_int_equal(ask_as(&g, eve, "GET", PODS, NULL, NULL, NULL).code, 200);
		expect(&g, 200, "DELETE", RBAC "/clusterrolebindings/b", NULL);
		assert_int_equal(ask_as(&g, eve, "GET", PODS, NULL, NULL, NULL).code, 403);
	}
	http_client_free(eve);
	fixture_stop(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_anonymous),
		cmocka_unit_test(test_rbac),
		cmocka_unit_test(test_aggregation),
		cmocka_unit_test(test_escalation),
		cmocka_unit_test(test_impersonation),
		cmocka_unit_test(test_service_account_tokens),
		cmocka_unit_test(test_expired_token),
		cmocka_unit_test(test_secret_tokens),
		cmocka_unit_test(test_bootstrap_tokens),
		cmocka_unit_test(test_reviews),
		cmocka_unit_test(test_seats),
		cmocka_unit_test(test_node),
		cmocka_unit_test(test_names_in_selectors),
		cmocka_unit_test(test_rbac_after_compaction),
		cmocka_unit_test(test_namespaces_in_namespaces),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
