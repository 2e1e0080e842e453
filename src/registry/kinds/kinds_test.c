/* Every other kind that has rules of its own, a few rows each: defaults, refusals, what may not change, subresources. */
#include "registry/registry_test.h"

#define TEMPLATE \
	"\"template\":{\"metadata\":{\"labels\":{\"app\":\"a\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}"
#define SELECTOR "\"selector\":{\"matchLabels\":{\"app\":\"a\"}}"

static void namespaces(void **state)
{
	struct env *e = *state;
	make_namespace(e, "n");
	assert_at(e, "spec.finalizers", "[\"kubernetes\"]");
	assert_at(e, "status.phase", "Active");
	assert_at(e, "metadata.labels.kubernetes~io/metadata~name", "n");
	OK(e, CREATE, "configmaps", "n", "{\"metadata\":{\"name\":\"m\"}}");
	OK(e, DELETE, "namespaces/n", "", NULL);
	assert_at(e, "status.phase", "Terminating");
	assert_at(e, "metadata.deletionGracePeriodSeconds", "-");
	OK(e, DELETE, "namespaces/n", "", NULL);
	req(e, CREATE, "configmaps", "n", "{\"metadata\":{\"name\":\"x\"}}");
	assert_refused(e, 403,
		"configmaps \"x\" is forbidden: unable to create new content in namespace n because it is being terminated");
	assert_at(e, "details.causes.0.reason", "NamespaceTerminating");
	assert_at(e, "details.causes.0.message", "namespace n is being terminated");
	OK(e, PATCH, "namespaces/n", "",
		"{\"spec\":{\"finalizers\":[]}}"); /* not by an ordinary write */
	OK(e, GET, "namespaces/n", "", NULL);
	OK(e, UPDATE, "namespaces/n/finalize", "",
		"{\"metadata\":{\"name\":\"n\"},\"spec\":{\"finalizers\":[]}}");
	req(e, GET, "namespaces/n", "", NULL);
	assert_code(e, 404);
	req(e, DELETE, "namespaces/default", "", NULL);
	assert_refused(
		e, 403, "namespaces \"default\" is forbidden: this namespace may not be deleted");
	req(e, CREATE, "namespaces", "", "{\"metadata\":{\"name\":\"a.b\"}}");
	assert_refused(e, 422,
		"metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of");
}

static void workload_rows(void **state)
{
	static const struct {
		const char *path, *name, *body, *at_path, *value;
	} rows[] = {
		{ "replicationcontrollers", "rc", "{" TEMPLATE "}", "spec.selector.app", "a" },
		{ "replicationcontrollers", "rc2", "{" TEMPLATE "}", "metadata.labels.app", "a" },
		{ "apps/v1:replicasets", "rs", "{" SELECTOR "," TEMPLATE "}", "spec.replicas",
			"1" },
		{ "apps/v1:deployments", "d", "{" SELECTOR "," TEMPLATE "}",
			"spec.strategy.rollingUpdate.maxSurge", "25%" },
		{ "apps/v1:deployments", "d2", "{" SELECTOR "," TEMPLATE "}",
			"spec.progressDeadlineSeconds", "600" },
		{ "apps/v1:deployments", "d3", "{" SELECTOR "," TEMPLATE "}",
			"spec.template.spec.restartPolicy", "Always" },
		{ "apps/v1:deployments", "d4", "{" SELECTOR "," TEMPLATE "}", "metadata.generation",
			"1" },
		{ "apps/v1:statefulsets", "s", "{\"serviceName\":\"x\"," SELECTOR "," TEMPLATE "}",
			"spec.updateStrategy.rollingUpdate.partition", "0" },
		{ "apps/v1:statefulsets", "s2",
			"{\"serviceName\":\"x\"," SELECTOR
			",\"template\":{\"metadata\":{\"labels\":{\"app\":\"a\"}},\"spec\":{\"containers\":[{\"name\":\"c\","
			"\"image\":\"i\",\"volumeMounts\":[{\"name\":\"d\",\"mountPath\":\"/d\"}]}]}},"
			"\"volumeClaimTemplates\":[{\"metadata\":{\"name\":\"d\"}}]}",
			"spec.volumeClaimTemplates.0.kind", "PersistentVolumeClaim" },
		{ "apps/v1:daemonsets", "ds", "{" SELECTOR "," TEMPLATE "}",
			"spec.updateStrategy.rollingUpdate.maxUnavailable", "1" },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		OK(e, CREATE, rows[i].path, "default",
			arena_fmt(e->a,
				"{\"metadata\":{\"name\":\"%s\"},\"spec\":%s,\"status\":{\"replicas\":7}}",
				rows[i].name, rows[i].body)
				.p);
		assert_at(e, rows[i].at_path, rows[i].value);
		assert_string_not_equal(at(e, "status.replicas"), "7");
	}
}

static void workload_refusals(void **state)
{
	static const struct {
		const char *path, *spec, *message;
	} rows[] = {
		{ "replicationcontrollers", "{}", "spec.template: Required value" },
		{ "replicationcontrollers", "{\"selector\":{\"x\":\"y\"}," TEMPLATE "}",
			"spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`" },
		{ "apps/v1:deployments",
			"{\"selector\":{\"matchLabels\":{\"x\":\"y\"}}," TEMPLATE "}",
			"spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`" },
		{ "apps/v1:deployments", "{\"selector\":{}," TEMPLATE "}",
			"spec.selector: Invalid value: {}: empty selector is invalid for deployment" },
		{ "apps/v1:deployments", "{" TEMPLATE "}", "spec.selector: Required value" },
		{ "apps/v1:deployments",
			"{\"selector\":{\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"In\"}]}," TEMPLATE
			"}",
			"spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'" },
		{ "apps/v1:deployments", "{\"replicas\":-1," SELECTOR "," TEMPLATE "}",
			"spec.replicas: Invalid value: -1: must be greater than or equal to 0" },
		{ "apps/v1:deployments",
			"{\"strategy\":{\"type\":\"Recreate\",\"rollingUpdate\":{}}," SELECTOR
			"," TEMPLATE "}",
			"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'" },
		{ "apps/v1:deployments",
			"{\"strategy\":{\"rollingUpdate\":{\"maxSurge\":0,\"maxUnavailable\":0}}," SELECTOR
			"," TEMPLATE "}",
			"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: " },
		{ "apps/v1:replicasets",
			"{" SELECTOR
			",\"template\":{\"metadata\":{\"labels\":{\"app\":\"a\"}},\"spec\":{\"restartPolicy\":\"Never\","
			"\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}",
			"spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"" },
		{ "batch/v1:jobs", "{" TEMPLATE "}",
			"spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"" },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		req(e, CREATE, rows[i].path, "default",
			arena_fmt(e->a, "{\"metadata\":{\"name\":\"x\"},\"spec\":%s}", rows[i].spec)
				.p);
		assert_refused(e, 422, rows[i].message);
	}
}

static void immutable_rows(void **state)
{
	static const struct {
		const char *path, *ns, *body, *patch, *message;
	} rows[] = {
		{ "apps/v1:deployments", "default", "\"spec\":{" SELECTOR "," TEMPLATE "}",
			"{\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"b\"}},\"template\":{\"metadata\":{\"labels\":{\"app\":\"b\"}}}}}",
			"spec.selector: Invalid value: " },
		{ "apps/v1:statefulsets", "default",
			"\"spec\":{\"serviceName\":\"x\"," SELECTOR "," TEMPLATE "}",
			"{\"spec\":{\"serviceName\":\"y\"}}",
			"spec: Forbidden: updates to statefulset spec for fields other than 'replicas'," },
		{ "secrets", "default", "\"type\":\"a/b\"", "{\"type\":\"c/d\"}",
			"type: Invalid value: \"c/d\": field is immutable" },
		{ "secrets", "default", "\"immutable\":true,\"data\":{\"k\":\"dg==\"}",
			"{\"data\":{\"k\":\"dnY=\"}}",
			"data: Forbidden: field is immutable when `immutable` is set" },
		{ "secrets", "default", "\"immutable\":true", "{\"immutable\":false}",
			"immutable: Forbidden: field is immutable when `immutable` is set" },
		{ "configmaps", "default", "\"immutable\":true,\"data\":{\"k\":\"v\"}",
			"{\"data\":{\"k\":\"w\"}}",
			"data: Forbidden: field is immutable when `immutable` is set" },
		{ "scheduling.k8s.io/v1:priorityclasses", "", "\"value\":5", "{\"value\":6}",
			"value: Forbidden: may not be changed in an update." },
		{ "rbac.authorization.k8s.io/v1:clusterrolebindings", "",
			"\"roleRef\":{\"kind\":\"ClusterRole\",\"name\":\"a\"}",
			"{\"roleRef\":{\"name\":\"b\"}}",
			"roleRef: Invalid value: \"b\": cannot change roleRef" },
		{ "storage.k8s.io/v1:storageclasses", "", "\"provisioner\":\"a\"",
			"{\"provisioner\":\"b\"}",
			"provisioner: Forbidden: updates to provisioner are forbidden." },
		{ "discovery.k8s.io/v1:endpointslices", "default",
			"\"addressType\":\"IPv4\",\"endpoints\":[]", "{\"addressType\":\"IPv6\"}",
			"addressType: Invalid value: \"IPv6\"" },
		{ "persistentvolumes", "",
			"\"spec\":{\"accessModes\":[\"ReadWriteOnce\"],\"capacity\":{\"storage\":\"1Gi\"},\"hostPath\":{\"path\":\"/a\"}}",
			"{\"spec\":{\"hostPath\":{\"path\":\"/b\"}}}",
			"spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation" },
		{ "persistentvolumeclaims", "default",
			"\"spec\":{\"accessModes\":[\"ReadWriteOnce\"],\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}",
			"{\"spec\":{\"accessModes\":[\"ReadWriteMany\"]}}",
			"spec: Forbidden: spec is immutable after creation except resources.requests" },
		{ "nodes", "", "\"spec\":{\"podCIDR\":\"10.0.0.0/24\"}",
			"{\"spec\":{\"podCIDR\":\"10.0.1.0/24\",\"podCIDRs\":[\"10.0.1.0/24\"]}}",
			"spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid" },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		OK(e, CREATE, rows[i].path, rows[i].ns,
			arena_fmt(e->a, "{\"metadata\":{\"name\":\"x%zu\"},%s}", i, rows[i].body)
				.p);
		req(e, PATCH, arena_fmt(e->a, "%s/x%zu", rows[i].path, i).p, rows[i].ns,
			rows[i].patch);
		assert_refused(e, 422, rows[i].message);
	}
}

static void default_rows(void **state)
{
	static const struct {
		const char *path, *ns, *body, *at_path, *value;
	} rows[] = {
		{ "autoscaling/v2:horizontalpodautoscalers", "default",
			"\"spec\":{\"scaleTargetRef\":{\"kind\":\"D\",\"name\":\"d\"},\"maxReplicas\":3}",
			"spec.metrics.0.resource.target.averageUtilization", "80" },
		{ "autoscaling/v2:horizontalpodautoscalers", "default",
			"\"spec\":{\"scaleTargetRef\":{\"kind\":\"D\",\"name\":\"d\"},\"maxReplicas\":3,\"behavior\":{}}",
			"spec.behavior.scaleUp.policies.0.value", "4" },
		{ "limitranges", "default",
			"\"spec\":{\"limits\":[{\"type\":\"Container\",\"max\":{\"cpu\":\"2\"}}]}",
			"spec.limits.0.defaultRequest.cpu", "2" },
		{ "networking.k8s.io/v1:networkpolicies", "default",
			"\"spec\":{\"podSelector\":{},\"egress\":[{}]}", "spec.policyTypes",
			"[\"Ingress\",\"Egress\"]" },
		{ "admissionregistration.k8s.io/v1:validatingwebhookconfigurations", "",
			"\"webhooks\":[{\"name\":\"a.b.c\",\"clientConfig\":{\"url\":\"https://x\"},\"sideEffects\":\"None\","
			"\"admissionReviewVersions\":[\"v1\"],"
			"\"rules\":[{\"operations\":[\"*\"],\"apiGroups\":[\"\"],\"apiVersions\":[\"v1\"],\"resources\":[\"pods\"]}]}]",
			"webhooks.0.rules.0.scope", "*" },
		{ "endpoints", "default",
			"\"subsets\":[{\"addresses\":[{\"ip\":\"10.0.0.1\"}],\"ports\":[{\"port\":1}]}]",
			"subsets.0.ports.0.protocol", "TCP" },
		{ "discovery.k8s.io/v1:endpointslices", "default",
			"\"addressType\":\"IPv4\",\"endpoints\":[],\"ports\":[{\"port\":1}]",
			"ports.0.name", "" },
		{ "persistentvolumeclaims", "default",
			"\"spec\":{\"accessModes\":[\"ReadWriteOnce\"],\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}",
			"status.phase", "Pending" },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		OK(e, CREATE, rows[i].path, rows[i].ns,
			arena_fmt(e->a, "{\"metadata\":{\"name\":\"x%zu\"},%s}", i, rows[i].body)
				.p);
		assert_at(e, rows[i].at_path, rows[i].value);
	}
}

static void generations(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "apps/v1:deployments", "default",
		"{\"metadata\":{\"name\":\"d\"},\"spec\":{" SELECTOR "," TEMPLATE "}}");
	OK(e, PATCH, "apps/v1:deployments/d", "default",
		"{\"metadata\":{\"labels\":{\"l\":\"1\"}}}");
	assert_at(e, "metadata.generation", "1");
	OK(e, PATCH, "apps/v1:deployments/d", "default", "{\"spec\":{\"replicas\":3}}");
	assert_at(e, "metadata.generation", "2");
	OK(e, PATCH, "apps/v1:deployments/d", "default",
		"{\"metadata\":{\"annotations\":{\"l\":\"1\"}}}");
	assert_at(e, "metadata.generation", "3");
	OK(e, PATCH, "apps/v1:deployments/d/status", "default",
		"{\"status\":{\"replicas\":2},\"spec\":{\"replicas\":9}}");
	assert_at(e, "metadata.generation", "3");
	assert_at(e, "spec.replicas", "3");
	assert_at(e, "status.replicas", "2");
	OK(e, UPDATE, "apps/v1:deployments/d", "default",
		"{\"metadata\":{\"name\":\"d\"},\"spec\":{" SELECTOR "," TEMPLATE "}}");
	assert_at(e, "status.replicas", "2");
}

static void scale(void **state)
{
	static const struct {
		const char *path, *spec;
	} rows[] = {
		{ "replicationcontrollers", "{" TEMPLATE "}" },
		{ "apps/v1:replicasets", "{" SELECTOR "," TEMPLATE "}" },
		{ "apps/v1:deployments", "{" SELECTOR "," TEMPLATE "}" },
		{ "apps/v1:statefulsets", "{\"serviceName\":\"x\"," SELECTOR "," TEMPLATE "}" },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *one = arena_fmt(e->a, "%s/s", rows[i].path).p,
			   *sub = arena_fmt(e->a, "%s/scale", one).p;
		OK(e, CREATE, rows[i].path, "default",
			arena_fmt(e->a, "{\"metadata\":{\"name\":\"s\"},\"spec\":%s}", rows[i].spec)
				.p);
		OK(e, GET, sub, "default", NULL);
		assert_at(e, "kind", "Scale");
		assert_at(e, "apiVersion", "autoscaling/v1");
		assert_at(e, "spec.replicas", "1");
		assert_at(e, "status.selector", "app=a");
		const char *revision = at(e, "metadata.resourceVersion");
		OK(e, UPDATE, sub, "default",
			"{\"metadata\":{\"name\":\"s\"},\"spec\":{\"replicas\":5}}");
		assert_at(e, "spec.replicas", "5");
		OK(e, GET, one, "default", NULL);
		assert_at(e, "spec.replicas", "5");
		assert_at(e, "metadata.generation", "2");
		OK(e, PATCH, sub, "default", "{\"spec\":{\"replicas\":0}}");
		assert_at(e, "spec.replicas", "-");
		req(e, UPDATE, sub, "default",
			arena_fmt(e->a,
				"{\"metadata\":{\"name\":\"s\",\"resourceVersion\":\"%s\"},\"spec\":{\"replicas\":5}}",
				revision)
				.p);
		assert_code(e, 409);
		req(e, PATCH, sub, "default", "{\"spec\":{\"replicas\":-2}}");
		assert_refused(e, 422,
			"Scale.autoscaling \"s\" is invalid: spec.replicas: Invalid value: -2: must be greater than or equal to 0");
	}
}

static void configuration(void **state)
{
	static const struct {
		const char *path, *body, *message;
	} rows[] = {
		{ "secrets", "\"type\":\"kubernetes.io/tls\",\"data\":{\"tls.crt\":\"\"}",
			"data[tls.key]: Required value" },
		{ "secrets",
			"\"type\":\"kubernetes.io/dockerconfigjson\",\"stringData\":{\".dockerconfigjson\":\"{\"}",
			"data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\"" },
		{ "secrets", "\"type\":\"kubernetes.io/service-account-token\"",
			"metadata.annotations[kubernetes.io/service-account.name]: Required value" },
		{ "secrets", "\"data\":{\"a b\":\"\"}",
			"data[a b]: Invalid value: \"a b\": a valid config key must consist of" },
		{ "configmaps", "\"data\":{\"k\":\"v\"},\"binaryData\":{\"k\":\"\"}",
			"data[k]: Invalid value: \"k\": duplicate of key present in binaryData" },
	};
	struct env *e = *state;
	OK(e, CREATE, "secrets", "default",
		"{\"metadata\":{\"name\":\"s\"},\"data\":{\"a\":\"dg==\",\"b\":\"dg==\"},\"stringData\":{\"b\":\"text\"}}");
	assert_at(e, "type", "Opaque");
	assert_at(e, "data.a", "dg==");
	assert_at(e, "data.b", "dGV4dA==");
	assert_at(e, "stringData", "-");
	assert_string_equal(list_of(e, "secrets", "default", NULL, "type=Opaque"), "s");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		req(e, CREATE, rows[i].path, "default",
			arena_fmt(e->a, "{\"metadata\":{\"name\":\"x\"},%s}", rows[i].body).p);
		assert_refused(e, 422, rows[i].message);
	}
}

static void jobs(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "batch/v1:jobs", "default",
		"{\"metadata\":{\"name\":\"j\"},\"spec\":{\"template\":{\"spec\":{\"restartPolicy\":\"Never\","
		"\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}");
	const char *uid = at(e, "metadata.uid");
	assert_at(e, "spec.selector.matchLabels.batch~kubernetes~io/controller-uid", uid);
	assert_at(e, "spec.template.metadata.labels.batch~kubernetes~io/job-name", "j");
	assert_at(e, "spec.completions", "1");
	assert_at(e, "spec.backoffLimit", "6");
	OK(e, PATCH, "batch/v1:jobs/j", "default", "{\"spec\":{\"parallelism\":3}}");
	req(e, PATCH, "batch/v1:jobs/j", "default", "{\"spec\":{\"completions\":3}}");
	assert_refused(e, 422, "spec.completions: Invalid value: 3: field is immutable");
	OK(e, DELETE, "batch/v1:jobs/j", "default", NULL); /* by default its pods are orphaned */
	assert_at(e, "metadata.finalizers", "[\"orphan\"]");
	req(e, CREATE, "batch/v1:cronjobs", "default",
		"{\"metadata\":{\"name\":\"c\"},\"spec\":{\"schedule\":\"often\","
		"\"jobTemplate\":{\"spec\":{\"template\":{\"spec\":{\"restartPolicy\":\"Never\",\"containers\":[{\"name\":"
		"\"c\",\"image\":\"i\"}]}}}}}}");
	assert_refused(e, 422, "spec.schedule: Invalid value: \"often\"");
}

static void job_rules(void **state)
{
#define JOB_TEMPLATE(policy) \
	"\"template\":{\"spec\":{" policy "\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}"
#define NEVER JOB_TEMPLATE("\"restartPolicy\":\"Never\",")
#define RULE(rule) "\"podFailurePolicy\":{\"rules\":[" rule "]}," NEVER
#define INDEXED(rest) "\"completionMode\":\"Indexed\",\"completions\":3," rest "," NEVER
	static const struct {
		const char *spec, *message; /* NULL: it is made */
	} rows[] = {
		{ JOB_TEMPLATE(""),
			"spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"" },
		{ RULE("{\"action\":\"Ignore\"}"),
			"spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required" },
		{ RULE("{\"action\":\"FailIndex\",\"onExitCodes\":{\"operator\":\"In\",\"values\":[1]}}"),
			"spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set" },
		{ RULE("{\"action\":\"FailJob\",\"onExitCodes\":{\"operator\":\"In\",\"values\":[0]}}"),
			"spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator" },
		{ RULE("{\"action\":\"FailJob\",\"onExitCodes\":{\"operator\":\"In\",\"values\":[2,1]}}"),
			"spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: must be ordered" },
		{ RULE("{\"action\":\"FailJob\",\"onExitCodes\":{\"operator\":\"In\",\"values\":[1],\"containerName\":\"x\"}}"),
			"spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the container" },
		{ "\"podFailurePolicy\":{\"rules\":[]}," JOB_TEMPLATE(
			  "\"restartPolicy\":\"OnFailure\","),
			"only \"Never\" is supported when podFailurePolicy is specified" },
		{ "\"podReplacementPolicy\":\"TerminatingOrFailed\"," RULE(
			  "{\"action\":\"Count\",\"onPodConditions\":[{\"type\":\"A\"}]}"),
			"spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\"" },
		{ "\"backoffLimitPerIndex\":1," NEVER,
			"spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode" },
		{ INDEXED("\"maxFailedIndexes\":1"),
			"spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified" },
		{ INDEXED("\"backoffLimitPerIndex\":1,\"maxFailedIndexes\":4"),
			"spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions" },
		{ "\"successPolicy\":{\"rules\":[{\"succeededCount\":1}]}," NEVER,
			"spec.successPolicy: Invalid value: requires indexed completion mode" },
		{ INDEXED("\"successPolicy\":{\"rules\":[{\"succeededCount\":4}]}"),
			"spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to" },
		{ INDEXED("\"successPolicy\":{\"rules\":[{}]}"),
			"spec.successPolicy.rules[0]: Required value: at least one of" },
		{ INDEXED("\"successPolicy\":{\"rules\":[{\"succeededIndexes\":\"1-5\"}]}"),
			"error parsing succeededIndexes: too large index" },
		{ INDEXED("\"successPolicy\":{\"rules\":[{\"succeededIndexes\":\"1,0\"}]}"),
			"error parsing succeededIndexes: non-increasing order" },
		{ INDEXED("\"successPolicy\":{\"rules\":[{\"succeededIndexes\":\"0,2\",\"succeededCount\":1}]}"),
			NULL },
		{ RULE("{\"action\":\"FailJob\",\"onExitCodes\":{\"operator\":\"NotIn\",\"values\":[0,3],\"containerName\":\"c\"}}"),
			NULL },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		req(e, CREATE, "batch/v1:jobs", "default",
			arena_fmt(e->a, "{\"metadata\":{\"name\":\"r%zu\"},\"spec\":{%s}}", i,
				rows[i].spec)
				.p);
		if (rows[i].message)
			assert_refused(e, 422, rows[i].message);
		else
			assert_at(e, "spec.podReplacementPolicy",
				strstr(rows[i].spec, "podFailure") ? "Failed"
								   : "TerminatingOrFailed");
	}
	OK(e, CREATE, "batch/v1:jobs", "default",
		"{\"metadata\":{\"name\":\"elastic\"},\"spec\":{\"parallelism\":3," INDEXED(
			"\"suspend\":true") "}}");
	req(e, PATCH, "batch/v1:jobs/elastic", "default", "{\"spec\":{\"completions\":4}}");
	assert_refused(e, 422,
		"spec.completions: Invalid value: 4: can only be modified in tandem with spec.parallelism");
	OK(e, PATCH, "batch/v1:jobs/elastic", "default",
		"{\"spec\":{\"completions\":4,\"parallelism\":4}}");
	req(e, CREATE, "batch/v1:cronjobs", "default",
		"{\"metadata\":{\"name\":\"z\"},\"spec\":{\"schedule\":\"@daily\",\"timeZone\":\"bad-time-zone\",\"jobTemplate\":{\"spec\":{" NEVER
		"}}}}");
	assert_refused(e, 422,
		"spec.timeZone: Invalid value: \"bad-time-zone\": unknown time zone bad-time-zone");
}

static int issue(void *arg, struct str ns, struct str account, struct str uid,
	const struct authentication_v1_token_request *req, struct arena *a, struct str *ret_token,
	struct timestamp *ret_expires, struct err *err)
{
	*ret_token = arena_fmt(a, STR_FMT "/" STR_FMT "/%lld", STR_ARG(ns), STR_ARG(account),
		(long long)req->spec.expiration_seconds.value);
	*ret_expires = time_add_ns(test_time, req->spec.expiration_seconds.value * 1000000000);
	return 0;
}

static void tokens(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "serviceaccounts", "default", "{\"metadata\":{\"name\":\"sa\"}}");
	req(e, CREATE, "serviceaccounts/sa/token", "default", "{}");
	assert_code(e, 503);
	e->r->config.tokens.issue = issue;
	OK(e, CREATE, "serviceaccounts/sa/token", "default",
		"{\"spec\":{\"expirationSeconds\":700}}");
	assert_at(e, "status.token", "default/sa/700");
	assert_at(e, "kind", "TokenRequest");
	req(e, CREATE, "serviceaccounts/sa/token", "default",
		"{\"spec\":{\"expirationSeconds\":7}}");
	assert_refused(e, 422,
		"spec.expirationSeconds: Invalid value: 7: may not specify a duration less than 10 minutes");
	req(e, CREATE, "serviceaccounts/nobody/token", "default", "{}");
	assert_refused(e, 404, "serviceaccounts \"nobody\" not found");
	OK(e, CREATE, "pods", "default", pod(e, "p", "\"serviceAccountName\":\"other\","));
	req(e, CREATE, "serviceaccounts/sa/token", "default",
		"{\"spec\":{\"boundObjectRef\":{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"name\":\"p\"}}}");
	assert_refused(e, 400,
		"cannot bind token for serviceaccount \"sa\" to pod running with different serviceaccount name.");
}

static void signing_requests(void **state)
{
	struct env *e = *state;
	struct user_info user = { .name = STR("jane") };
	req_new(e, CREATE, "certificates.k8s.io/v1:certificatesigningrequests", "",
		"{\"metadata\":{\"name\":\"r\"},\"spec\":{\"username\":\"root\",\"signerName\":\"a.b/c\",\"usages\":[\"client auth\"],\"request\":"
		"\"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0=\"}}")
		->user = &user;
	assert_int_equal(req_run(e), 201);
	assert_at(e, "spec.username", "jane");
	OK(e, PATCH, "certificates.k8s.io/v1:certificatesigningrequests/r/status", "",
		"{\"status\":{\"conditions\":[{\"type\":\"Approved\",\"status\":\"True\"}],\"certificate\":\"eA==\"}}");
	assert_at(e, "status.conditions", "-"); /* approval has its own door */
	assert_at(e, "status.certificate", "eA==");
	OK(e, PATCH, "certificates.k8s.io/v1:certificatesigningrequests/r/approval", "",
		"{\"status\":{\"conditions\":[{\"type\":\"Approved\",\"status\":\"True\"}]}}");
	assert_at(e, "status.conditions.0.type", "Approved");
	assert_at(e, "status.certificate", "eA==");
	req(e, PATCH, "certificates.k8s.io/v1:certificatesigningrequests/r/approval", "",
		"{\"status\":{\"conditions\":[{\"type\":\"Approved\",\"status\":\"True\"},{\"type\":\"Denied\",\"status\":\"True\"}]}}");
	assert_refused(e, 422, "Approved and Denied conditions are mutually exclusive");
}

static void network_policies(void **state)
{
#define PORTS(p) "\"egress\":[{\"ports\":[{" p "}]}]"
#define PEER(p) "\"ingress\":[{\"from\":[{" p "}]}]"
	static const struct {
		const char *spec, *refused; /* NULL: it is taken */
	} rows[] = {
		{ PORTS("\"port\":80,\"endPort\":80"), NULL },
		{ PORTS("\"port\":\"http\""), NULL },
		{ PORTS("\"endPort\":80"),
			"spec.egress[0].ports[0].endPort: Invalid value: 80: may not be specified when `port` is not specified" },
		{ PORTS("\"port\":\"http\",\"endPort\":80"),
			"may not be specified when `port` is non-numeric" },
		{ PORTS("\"port\":80,\"endPort\":79"),
			"endPort: Invalid value: 80: must be greater than or equal to `port`" },
		{ PORTS("\"port\":80,\"endPort\":70000"),
			"must be between 1 and 65535, inclusive" },
		{ PORTS("\"port\":0"), "spec.egress[0].ports[0].port: Invalid value: 0" },
		{ PORTS("\"port\":\"-\""), "spec.egress[0].ports[0].port: Invalid value: \"-\"" },
		{ PEER("\"podSelector\":{},\"namespaceSelector\":{}"), NULL },
		{ PEER("\"ipBlock\":{\"cidr\":\"10.0.0.0/8\",\"except\":[\"10.1.0.0/16\"]}"),
			NULL },
		{ PEER("\"ipBlock\":{\"cidr\":\"fd00::/8\",\"except\":[\"fd01::/16\"]}"), NULL },
		{ PEER(""), "spec.ingress[0].from[0]: Required value: must specify a peer" },
		{ PEER("\"podSelector\":{},\"ipBlock\":{\"cidr\":\"10.0.0.0/8\"}"),
			"may not specify both ipBlock and another peer" },
		{ PEER("\"ipBlock\":{\"cidr\":\"10.0.0.0\"}"), "must be a valid CIDR value" },
		{ PEER("\"ipBlock\":{\"cidr\":\"10.0.0.0/8\",\"except\":[\"11.0.0.0/16\"]}"),
			"must be a strict subset of `cidr`" },
		{ PEER("\"ipBlock\":{\"cidr\":\"10.0.0.0/8\",\"except\":[\"10.0.0.0/8\"]}"),
			"must be a strict subset of `cidr`" },
		{ PEER("\"ipBlock\":{\"cidr\":\"10.0.0.0/8\",\"except\":[\"fd01::/16\"]}"),
			"must be a strict subset of `cidr`" },
	};
#undef PORTS
#undef PEER
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEAN_FREE char *text = xasprintf(
			"{\"metadata\":{\"name\":\"p%zu\"},\"spec\":{\"podSelector\":{},%s}}", i,
			rows[i].spec);
		req(e, CREATE, "networking.k8s.io/v1:networkpolicies", "default", text);
		if (rows[i].refused)
			assert_refused(e, 422, rows[i].refused);
		else
			assert_code(e, 201);
	}
}

static void events_go(void **state)
{
	static const char old_one[] =
		"{\"metadata\":{\"name\":\"a\"},\"involvedObject\":{\"namespace\":\"default\"}}";
	static const char repeated[] =
		"{\"metadata\":{\"name\":\"b\"},\"involvedObject\":{\"namespace\":\"default\"},\"lastTimestamp\":\"2023-11-14T22:43:20Z\"}";
	struct env *e = *state;
	OK(e, CREATE, "events", "default", old_one);
	OK(e, CREATE, "events", "default", repeated);
	assert_true(registry_expire(e->r));
	test_time.sec += 3600;
	registry_expire(e->r);
	make_namespace(e, "later"); /* the deletes stand before it in the queue */
	assert_string_equal(list_of(e, "events", "default", NULL, NULL), "b");
	req(e, CREATE, "events", "later",
		"{\"metadata\":{\"name\":\"x\"},\"involvedObject\":{\"namespace\":\"default\"}}");
	assert_refused(e, 422,
		"involvedObject.namespace: Invalid value: \"default\": does not match event.namespace");
}

static void bootstrap(void **state)
{
	struct env *e = *state;
	struct err err = { 0 };
	if (registry_bootstrap(e->r, &err))
		fail_msg("%s", err.text);
	OK(e, GET, "services/kubernetes", "default", NULL);
	assert_at(e, "spec.clusterIP", "10.43.0.1");
	OK(e, GET, "namespaces/kube-node-lease", "", NULL);
	OK(e, GET, "networking.k8s.io/v1:servicecidrs/kubernetes", "", NULL);
	assert_at(e, "spec.cidrs", "[\"10.43.0.0/24\"]");
	assert_at(e, "status.conditions.0.type", "Ready");
	OK(e, GET, "scheduling.k8s.io/v1:priorityclasses/system-node-critical", "", NULL);
	OK(e, GET, "rbac.authorization.k8s.io/v1:clusterroles/cluster-admin", "", NULL);
	assert_at(e, "rules.0.apiGroups", "[\"*\"]");
	assert_at(e, "rules.1.nonResourceURLs", "[\"*\"]");
	assert_at(e, "metadata.annotations.rbac~authorization~kubernetes~io/autoupdate", "true");
	OK(e, GET, "rbac.authorization.k8s.io/v1:clusterroles/edit", "", NULL);
	assert_non_null(strstr(body(e), "pods/exec"));   /* its own part */
	assert_non_null(strstr(body(e), "limitranges")); /* and view's */
	assert_at(e,
		"aggregationRule.clusterRoleSelectors.0.matchLabels.rbac~authorization~k8s~io/aggregate-to-edit",
		"true");
	OK(e, GET,
		"rbac.authorization.k8s.io/v1:clusterrolebindings/system:controller:job-controller",
		"", NULL);
	assert_at(e, "subjects.0.name", "job-controller");
	assert_at(e, "subjects.0.namespace", "kube-system");
	OK(e, GET,
		"rbac.authorization.k8s.io/v1:rolebindings/system::leader-locking-kube-scheduler",
		"kube-system", NULL);
	uint64_t revision = store_revision(e->store);
	assert_int_equal(registry_bootstrap(e->r, &err), 0); /* again: nothing to do */
	assert_int_equal(store_revision(e->store), revision);
	/* what was taken away comes back, unless the annotation says otherwise */
	OK(e, PATCH, "rbac.authorization.k8s.io/v1:clusterroles/system:kube-dns", "",
		"{\"rules\":[]}");
	OK(e, PATCH, "rbac.authorization.k8s.io/v1:clusterroles/system:discovery", "",
		"{\"rules\":[],\"metadata\":{\"annotations\":{\"rbac.authorization.kubernetes.io/autoupdate\":\"false\"}}}");
	assert_int_equal(registry_bootstrap(e->r, &err), 0);
	OK(e, GET, "rbac.authorization.k8s.io/v1:clusterroles/system:kube-dns", "", NULL);
	assert_at(e, "rules.0.resources", "[\"endpoints\",\"services\"]");
	OK(e, GET, "rbac.authorization.k8s.io/v1:clusterroles/system:discovery", "", NULL);
	assert_at(e, "rules.0", "-");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
	const struct CMUnitTest tests[] = {
		T(namespaces),
		T(workload_rows),
		T(workload_refusals),
		T(immutable_rows),
		T(default_rows),
		T(generations),
		T(scale),
		T(configuration),
		T(jobs),
		T(job_rules),
		T(tokens),
		T(signing_requests),
		T(network_policies),
		T(events_go),
		T(bootstrap),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
