/* Admission as a client meets it: what is filled in, what is refused, and in which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "apiserver/fixture.h"

static struct fixture f;

static int setup(void **state)
{
	fixture_start(&f);
	return 0;
}

static int teardown(void **state)
{
	fixture_stop(&f);
	return 0;
}

static const char *namespace(const char *name, const char *labels)
{
	expect(&f, 201, "POST", "/api/v1/namespaces",
		arena_fmt(f.arena, "{\"metadata\":{\"name\":\"%s\",\"labels\":{%s}}}", name, labels)
			.p);
	expect(&f, 201, "POST", arena_fmt(f.arena, "/api/v1/namespaces/%s/serviceaccounts", name).p,
		"{\"metadata\":{\"name\":\"default\"},"
		"\"imagePullSecrets\":[{\"name\":\"reg\"}]}");
	return arena_fmt(f.arena, "/api/v1/namespaces/%s/pods", name).p;
}

static const char *pod(const char *spec, const char *container)
{
	return arena_fmt(f.arena,
		"{\"metadata\":{\"generateName\":\"p-\"},\"spec\":{%s\"containers\":[{\"name\":\"c\",\"image\":\"i\"%s}]}}",
		spec, container)
		.p;
}

static void expect_parts(struct str body, const char *const *parts)
{
	for (; *parts; parts++) {
		bool not = (*parts)[0] == '!';
		if (has(body, *parts + not ) == not )
			fail_msg("%s in " STR_FMT, *parts, STR_ARG(body));
	}
}

static void test_service_account(void **state)
{
	const char *pods = namespace("sa", "");
	struct answer a = expect(&f, 201, "POST", pods, pod("", ""));
	expect_parts(a.body,
		(const char *const[]){ "\"serviceAccountName\":\"default\"",
			"\"serviceAccount\":\"default\"",
			"\"volumes\":[{\"name\":\"kube-api-access-",
			"\"serviceAccountToken\":{\"expirationSeconds\":3607,\"path\":\"token\"}",
			"\"configMap\":{\"name\":\"kube-root-ca.crt\",\"items\":[{\"key\":\"ca.crt\",\"path\":\"ca.crt\"}]}",
			"\"downwardAPI\":{\"items\":[{\"path\":\"namespace\",\"fieldRef\":{\"apiVersion\":\"v1\",\"fieldPath\":\"metadata.namespace\"}}]}",
			"\"defaultMode\":420",
			"\"readOnly\":true,\"mountPath\":\"/var/run/secrets/kubernetes.io/serviceaccount\"",
			"\"imagePullSecrets\":[{\"name\":\"reg\"}]", NULL });
	a = expect(&f, 201, "POST", pods, pod("\"automountServiceAccountToken\":false,", ""));
	expect_parts(a.body, (const char *const[]){ "!kube-api-access", NULL });
	a = expect(&f, 403, "POST", pods, pod("\"serviceAccountName\":\"none\",", ""));
	expect_parts(a.body,
		(const char *const[]){
			"error looking up service account sa/none: serviceaccount \\\"none\\\" not found",
			NULL });
}

static void test_priority(void **state)
{
	const char *pods = namespace("prio", "");
	struct answer a = expect(&f, 201, "POST", pods, pod("", ""));
	expect_parts(a.body,
		(const char *const[]){
			"\"priority\":0", "\"preemptionPolicy\":\"PreemptLowerPriority\"", NULL });
	a = expect(
		&f, 201, "POST", pods, pod("\"priorityClassName\":\"system-node-critical\",", ""));
	expect_parts(a.body, (const char *const[]){ "\"priority\":2000001000", NULL });
	a = expect(&f, 403, "POST", pods, pod("\"priorityClassName\":\"none\",", ""));
	expect_parts(
		a.body, (const char *const[]){ "no PriorityClass with name none was found", NULL });
	a = expect(&f, 403, "POST", pods, pod("\"priority\":7,", ""));
	expect_parts(a.body,
		(const char *const[]){
			"the integer value of priority (7) must not be provided in pod spec",
			NULL });
	expect(&f, 201, "POST", "/apis/scheduling.k8s.io/v1/priorityclasses",
		"{\"metadata\":{\"name\":\"mid\"},\"value\":50,\"globalDefault\":true}");
	a = expect(&f, 201, "POST", pods, pod("", ""));
	expect_parts(a.body,
		(const char *const[]){ "\"priorityClassName\":\"mid\"", "\"priority\":50", NULL });
	a = expect(&f, 403, "POST", "/apis/scheduling.k8s.io/v1/priorityclasses",
		"{\"metadata\":{\"name\":\"mid2\"},\"value\":60,\"globalDefault\":true}");
	expect_parts(a.body,
		(const char *const[]){ "PriorityClass mid is already marked as default", NULL });
	expect(&f, 200, "DELETE", "/apis/scheduling.k8s.io/v1/priorityclasses/mid", NULL);
}

static void test_tolerations_and_taints(void **state)
{
	const char *pods = namespace("tol", "");
	struct answer a = expect(&f, 201, "POST", pods, pod("", ""));
	expect_parts(a.body,
		(const char *const[]){
			"\"key\":\"node.kubernetes.io/not-ready\",\"operator\":\"Exists\",\"effect\":\"NoExecute\","
			"\"tolerationSeconds\":300",
			"\"key\":\"node.kubernetes.io/unreachable\"", NULL });
	a = expect(&f, 201, "POST", pods, pod("\"tolerations\":[{\"operator\":\"Exists\"}],", ""));
	expect_parts(a.body, (const char *const[]){ "!not-ready", NULL });
	a = expect(&f, 201, "POST", "/api/v1/nodes", "{\"metadata\":{\"name\":\"n\"}}");
	expect_parts(a.body,
		(const char *const[]){
			"\"taints\":[{\"key\":\"node.kubernetes.io/not-ready\",\"effect\":\"NoSchedule\"}]",
			NULL });
}

static void test_limit_range(void **state)
{
	const char *pods = namespace("lim", "");
	expect(&f, 201, "POST", "/api/v1/namespaces/lim/limitranges",
		"{\"metadata\":{\"name\":\"l\"},\"spec\":{\"limits\":[{\"type\":\"Container\",\"default\":{\"cpu\":\"500m\"},"
		"\"defaultRequest\":{\"cpu\":\"100m\"},"
		"\"min\":{\"cpu\":\"50m\"},\"max\":{\"cpu\":\"1\"}}]}}");
	struct answer a = expect(&f, 201, "POST", pods, pod("", ""));
	expect_parts(a.body,
		(const char *const[]){
			"\"limits\":{\"cpu\":\"500m\"},\"requests\":{\"cpu\":\"100m\"}",
			"\"kubernetes.io/limit-ranger\":\"LimitRanger plugin set: cpu request for container c; cpu limit for container c\"",
			NULL });
	a = expect(&f, 403, "POST", pods, pod("", ",\"resources\":{\"limits\":{\"cpu\":\"2\"}}"));
	expect_parts(a.body,
		(const char *const[]){
			"maximum cpu usage per Container is 1, but limit is 2", NULL });
	a = expect(
		&f, 403, "POST", pods, pod("", ",\"resources\":{\"requests\":{\"cpu\":\"10m\"}}"));
	expect_parts(a.body,
		(const char *const[]){
			"minimum cpu usage per Container is 50m, but request is 10m", NULL });
}

static void test_pod_security(void **state)
{
	const char *base = namespace("base", "\"pod-security.kubernetes.io/enforce\":\"baseline\"");
	const char *hard =
		namespace("hard", "\"pod-security.kubernetes.io/enforce\":\"restricted\"");
	static const struct {
		const char *spec, *container, *part;
	} rows[] = {
		{ "\"hostNetwork\":true,", "", "host namespaces (hostNetwork=true)" },
		{ "\"volumes\":[{\"name\":\"v\",\"hostPath\":{\"path\":\"/\"}}],", "",
			"hostPath volumes (volume \\\"v\\\")" },
		{ "", ",\"securityContext\":{\"privileged\":true}",
			"privileged (container \\\"c\\\" must not set securityContext.privileged=true)" },
		{ "", ",\"securityContext\":{\"capabilities\":{\"add\":[\"NET_ADMIN\"]}}",
			"non-default capabilities (container \\\"c\\\" must not "
			"include \\\"NET_ADMIN\\\" in securityContext.capabilities.add)" },
		{ "", ",\"ports\":[{\"containerPort\":80,\"hostPort\":80}]",
			"hostPort (container \\\"c\\\" uses hostPort 80)" },
	};
	expect(&f, 201, "POST", base, pod("", ""));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct answer a =
			expect(&f, 403, "POST", base, pod(rows[i].spec, rows[i].container));
		expect_parts(a.body,
			(const char *const[]){ "violates PodSecurity \\\"baseline:latest\\\": ",
				rows[i].part, NULL });
	}
	struct answer a = expect(&f, 403, "POST", hard, pod("", ""));
	expect_parts(a.body,
		(const char *const[]){
			"violates PodSecurity \\\"restricted:latest\\\": allowPrivilegeEscalation != false (container "
			"\\\"c\\\" must set"
			" securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \\\"c\\\" must set "
			"securityContext.capabilities.drop=[\\\"ALL\\\"]),"
			" runAsNonRoot != true (pod or container \\\"c\\\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "
			"\\\"c\\\" must set"
			" securityContext.seccompProfile.type to \\\"RuntimeDefault\\\" or \\\"Localhost\\\")",
			NULL });
	expect(&f, 201, "POST", hard,
		pod("\"securityContext\":{\"runAsNonRoot\":true,\"seccompProfile\":{\"type\":\"RuntimeDefault\"}},",
			",\"securityContext\":{\"allowPrivilegeEscalation\":false,\"capabilities\":{\"drop\":[\"ALL\"]}}"));
	namespace("warn", "\"pod-security.kubernetes.io/warn\":\"restricted\"");
	a = expect(&f, 201, "POST", "/apis/apps/v1/namespaces/warn/deployments",
		"{\"metadata\":{\"name\":\"d\"},\"spec\":{\"selector\":{\"matchLabels\":{\"a\":\"b\"}},\"template\":{\"metadata\":{\"labels\":{\"a\":\"b\"}},"
		"\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}");
	bool warned = false;
	for (size_t i = 0; i < a.reply.n_headers; i++)
		warned |= str_eqz(a.reply.headers[i].name, "warning") &&
			has(a.reply.headers[i].value, "would violate PodSecurity");
	assert_true(warned);
}

static void test_quota(void **state)
{
	const char *pods = namespace("quo", "");
	expect(&f, 201, "POST", "/api/v1/namespaces/quo/resourcequotas",
		"{\"metadata\":{\"name\":\"q\"},\"spec\":{\"hard\":{\"pods\":\"1\","
		"\"count/configmaps\":\"1\"}}}");
	expect(&f, 201, "POST", pods, pod("", ""));
	struct answer a = expect(&f, 403, "POST", pods, pod("", ""));
	expect_parts(a.body,
		(const char *const[]){
			"exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
			NULL });
	expect(&f, 201, "POST", "/api/v1/namespaces/quo/configmaps",
		"{\"metadata\":{\"name\":\"a\"}}");
	expect(&f, 403, "POST", "/api/v1/namespaces/quo/configmaps",
		"{\"metadata\":{\"name\":\"b\"}}");
	expect(&f, 201, "POST", "/api/v1/namespaces/quo/secrets",
		"{\"metadata\":{\"name\":\"b\"}}");
	expect(&f, 201, "POST", "/api/v1/namespaces/quo/resourcequotas",
		"{\"metadata\":{\"name\":\"cpu\"},\"spec\":{\"hard\":{\"requests.cpu\":\"1\"}}}");
	a = expect(&f, 403, "POST", pods, pod("", ""));
	expect_parts(a.body,
		(const char *const[]){
			"failed quota: cpu: must specify requests.cpu for: c", NULL });
}

#define CLAIM(name, rest) \
	"{\"metadata\":{\"name\":\"" name "\"},\"spec\":{" rest \
	"\"accessModes\":[\"ReadWriteOnce\"],\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}"

/* Claims by class and attributes class, ports of services, affinity to other namespaces, and what an update adds. */
static void test_quota_scopes(void **state)
{
	const char *pods = namespace("quo2", "");
	const char *claims = "/api/v1/namespaces/quo2/persistentvolumeclaims",
		   *services = "/api/v1/namespaces/quo2/services",
		   *quotas = "/api/v1/namespaces/quo2/resourcequotas";
	expect(&f, 201, "POST", quotas,
		"{\"metadata\":{\"name\":\"slow\"},\"spec\":{\"hard\":{\"slow.storageclass.storage.k8s.io/persistentvolumeclaims\":\"1\"}}}");
	expect(&f, 201, "POST", quotas,
		"{\"metadata\":{\"name\":\"gold\"},\"spec\":{\"hard\":{\"requests.storage\":\"1Gi\"},\"scopeSelector\":{\"matchExpressions\":["
		"{\"scopeName\":\"VolumeAttributesClass\",\"operator\":\"In\",\"values\":[\"gold\"]}]}}}");
	expect(&f, 201, "POST", quotas,
		"{\"metadata\":{\"name\":\"ports\"},\"spec\":{\"hard\":{\"services.nodeports\":\"1\"}}}");
	expect(&f, 201, "POST", quotas,
		"{\"metadata\":{\"name\":\"far\"},\"spec\":{\"hard\":{\"pods\":\"0\"},\"scopeSelector\":{\"matchExpressions\":["
		"{\"scopeName\":\"CrossNamespacePodAffinity\",\"operator\":\"Exists\"}]}}}");

	expect(&f, 201, "POST", claims, CLAIM("a", "\"storageClassName\":\"slow\","));
	expect(&f, 403, "POST", claims, CLAIM("b", "\"storageClassName\":\"slow\","));
	expect(&f, 201, "POST", claims,
		CLAIM("c", "\"storageClassName\":\"\",\"volumeAttributesClassName\":\"gold\","));
	expect(&f, 403, "POST", claims,
		CLAIM("d", "\"storageClassName\":\"\",\"volumeAttributesClassName\":\"gold\","));
	expect(&f, 201, "POST", claims,
		CLAIM("e", "\"storageClassName\":\"\",\"volumeAttributesClassName\":\"tin\","));

	expect(&f, 403, "POST", services,
		"{\"metadata\":{\"name\":\"two\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"name\":\"a\",\"port\":1},{\"name\":\"b\",\"port\":2}]}}");
	expect(&f, 201, "POST", services,
		"{\"metadata\":{\"name\":\"one\"},\"spec\":{\"type\":\"NodePort\",\"ports\":[{\"port\":1}]}}");
	expect(&f, 201, "POST", services,
		"{\"metadata\":{\"name\":\"inner\"},\"spec\":{\"ports\":[{\"port\":1}]}}");
	struct answer a = ask_as(&f, f.admin, "PATCH", "/api/v1/namespaces/quo2/services/inner",
		"application/merge-patch+json", NULL, "{\"spec\":{\"type\":\"NodePort\"}}");
	assert_int_equal(a.code, 403);

	expect(&f, 201, "POST", pods, pod("", ""));
	expect(&f, 403, "POST", pods,
		pod("\"affinity\":{\"podAntiAffinity\":{\"requiredDuringSchedulingIgnoredDuringExecution\":[{\"topologyKey\":\"z\",\"namespaces\":[\"x\"]}]}},",
			""));
}

/* A resize is held to what a new pod is held to. */
static void test_resize(void **state)
{
	static const char body[] =
		"{\"spec\":{\"containers\":[{\"name\":\"c\",\"resources\":{\"requests\":{\"cpu\":\"%s\"}}}]}}";
	const char *pods = namespace("rsz", "");
	expect(&f, 201, "POST", "/api/v1/namespaces/rsz/resourcequotas",
		"{\"metadata\":{\"name\":\"q\"},\"spec\":{\"hard\":{\"requests.cpu\":\"300m\"}}}");
	expect(&f, 201, "POST", "/api/v1/namespaces/rsz/limitranges",
		"{\"metadata\":{\"name\":\"l\"},\"spec\":{\"limits\":[{\"type\":\"Container\",\"min\":{\"cpu\":\"50m\"}}]}}");
	expect(&f, 201, "POST", pods,
		"{\"metadata\":{\"name\":\"p\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\",\"resources\":{\"requests\":{\"cpu\":\"100m\"}}}]}}");
	static const struct {
		const char *cpu;
		int code;
		const char *text;
	} rows[] = {
		{ "301m", 403, "exceeded quota: q, requested: requests.cpu=201m" },
		{ "20m", 403, "minimum cpu usage per Container is 50m" },
		{ "300m", 200, "300m" },
		{ "60m", 200, "60m" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct answer a =
			ask_as(&f, f.admin, "PATCH", "/api/v1/namespaces/rsz/pods/p/resize",
				"application/strategic-merge-patch+json", NULL,
				arena_fmt(f.arena, body, rows[i].cpu).p);
		assert_int_equal(a.code, rows[i].code);
		assert_true(has(a.body, rows[i].text));
	}
}

static void test_classes(void **state)
{
	const char *pods = namespace("cls", "");
	expect(&f, 201, "POST", "/apis/storage.k8s.io/v1/storageclasses",
		"{\"metadata\":{\"name\":\"fast\",\"annotations\":{\"storageclass.kubernetes.io/is-default-class\":\"true\"}},\"provisioner\":\"x\"}");
	struct answer a = expect(&f, 201, "POST", "/api/v1/namespaces/cls/persistentvolumeclaims",
		"{\"metadata\":{\"name\":\"c\"},\"spec\":{\"accessModes\":[\"ReadWriteOnce\"],\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}");
	expect_parts(a.body, (const char *const[]){ "\"storageClassName\":\"fast\"", NULL });
	a = expect(&f, 403, "POST", pods, pod("\"runtimeClassName\":\"none\",", ""));
	expect_parts(a.body, (const char *const[]){ "RuntimeClass \\\"none\\\" not found", NULL });
	expect(&f, 201, "POST", "/apis/node.k8s.io/v1/runtimeclasses",
		"{\"metadata\":{\"name\":\"vm\"},\"handler\":\"vm\","
		"\"overhead\":{\"podFixed\":{\"cpu\":\"1\"}}}");
	a = expect(&f, 201, "POST", pods, pod("\"runtimeClassName\":\"vm\",", ""));
	expect_parts(a.body, (const char *const[]){ "\"overhead\":{\"cpu\":\"1\"}", NULL });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_service_account),
		cmocka_unit_test(test_priority),
		cmocka_unit_test(test_tolerations_and_taints),
		cmocka_unit_test(test_limit_range),
		cmocka_unit_test(test_pod_security),
		cmocka_unit_test(test_quota),
		cmocka_unit_test(test_quota_scopes),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_classes),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
