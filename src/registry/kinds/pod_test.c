/* Pods: defaults, validation, what may change, grace, binding, eviction, the other subresources. */
#include "registry/registry_test.h"

static void defaults(void **state)
{
	static const struct {
		const char *path, *value;
	} rows[] = {
		{ "spec.restartPolicy", "Always" },
		{ "spec.dnsPolicy", "ClusterFirst" },
		{ "spec.schedulerName", "default-scheduler" },
		{ "spec.terminationGracePeriodSeconds", "30" },
		{ "spec.enableServiceLinks", "true" },
		{ "spec.securityContext", "{}" },
		{ "spec.containers.0.imagePullPolicy", "Always" },
		{ "spec.containers.1.imagePullPolicy", "IfNotPresent" },
		{ "spec.containers.0.terminationMessagePath", "/dev/termination-log" },
		{ "spec.containers.0.ports.0.protocol", "TCP" },
		{ "spec.containers.0.resources.requests.cpu", "1" },
		{ "spec.containers.0.livenessProbe.periodSeconds", "10" },
		{ "spec.containers.0.livenessProbe.httpGet.path", "/" },
		{ "spec.volumes.0.emptyDir", "{}" },
		{ "spec.volumes.1.secret.defaultMode", "420" },
		{ "spec.serviceAccount", "sa" },
		{ "status.phase", "Pending" },
		{ "status.qosClass", "Burstable" },
		{ "metadata.generation", "1" },
	};
	struct env *e = *state;
	OK(e, CREATE, "pods", "default",
		"{\"metadata\":{\"name\":\"p\"},\"spec\":{\"serviceAccountName\":\"sa\",\"containers\":[{\"name\":\"a\","
		"\"image\":\"r:5000/x\",\"ports\":[{\"containerPort\":80}],"
		"\"resources\":{\"limits\":{\"cpu\":\"1\"}},\"livenessProbe\":{\"httpGet\":{\"port\":80}}},{\"name\":\"b\",\"image\":\"x:1\"}],"
		"\"volumes\":[{\"name\":\"v\"},{\"name\":\"s\",\"secret\":{\"secretName\":\"s\"}}]},\"status\":{\"phase\":\"Running\"}}");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_at(e, rows[i].path, rows[i].value);
}

#define C "{\"name\":\"c\",\"image\":\"i:1\""
static void refusals(void **state)
{
	static const struct {
		const char *spec, *message;
	} rows[] = {
		{ "{\"containers\":[" C "}," C "}]}",
			"spec.containers[1].name: Duplicate value: \"c\"" },
		{ "{\"containers\":[{\"name\":\"c\"}]}",
			"spec.containers[0].image: Required value" },
		{ "{\"containers\":[" C ",\"ports\":[{\"name\":\"Bad_\",\"containerPort\":1}]}]}",
			"spec.containers[0].ports[0].name: Invalid value: \"Bad_\"" },
		{ "{\"containers\":[" C ",\"env\":[{\"name\":\"a=b\"}]}]}",
			"spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name" },
		{ "{\"containers\":[" C
		  ",\"env\":[{\"name\":\"a\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"spec.x\"}}}]}]}",
			"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.x\": supported values: "
			"\"metadata.name\"" },
		{ "{\"containers\":[" C
		  ",\"volumeMounts\":[{\"name\":\"v\",\"mountPath\":\"/v\"}]}]}",
			"spec.containers[0].volumeMounts[0].name: Not found: \"v\"!" },
		{ "{\"containers\":[" C
		  ",\"resources\":{\"requests\":{\"cpu\":\"2\"},\"limits\":{\"cpu\":\"1\"}}}]}",
			"spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1" },
		{ "{\"containers\":[" C ",\"resources\":{\"requests\":{\"disk\":\"2\"}}}]}",
			"spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource for containers" },
		{ "{\"containers\":[" C ",\"livenessProbe\":{}}]}",
			"spec.containers[0].livenessProbe: Required value: must specify a handler type" },
		{ "{\"containers\":[" C
		  ",\"livenessProbe\":{\"successThreshold\":2,\"tcpSocket\":{\"port\":1}}}]}",
			"spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1" },
		{ "{\"containers\":[" C ",\"readinessProbe\":{\"tcpSocket\":{\"port\":0}}}]}",
			"spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive" },
		{ "{\"containers\":[" C
		  "}],\"volumes\":[{\"name\":\"v\",\"emptyDir\":{},\"hostPath\":{\"path\":\"/\"}}]}",
			"spec.volumes[0]: Forbidden: may not specify more than 1 volume type" },
		{ "{\"containers\":[" C
		  "}],\"initContainers\":[{\"name\":\"i\",\"image\":\"i\",\"livenessProbe\":{\"tcpSocket\":{\"port\":1}}}]}",
			"spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always" },
		{ "{\"containers\":[" C
		  ",\"securityContext\":{\"seccompProfile\":{\"type\":\"Localhost\",\"localhostProfile\":\"../x\"}}}]}",
			"spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'" },
		{ "{\"containers\":[" C
		  ",\"volumeMounts\":[{\"name\":\"v\",\"mountPath\":\"/v\",\"subPathExpr\":\"$(A)/../x\"}]}],\"volumes\":[{\"name\":\"v\",\"emptyDir\":{}}]}",
			"spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: \"$(A)/../x\": must not contain '..'" },
		{ "{\"containers\":[" C "}],\"tolerations\":[{\"operator\":\"Equal\"}]}",
			"spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty" },
		{ "{\"containers\":[" C
		  "}],\"affinity\":{\"nodeAffinity\":{\"requiredDuringSchedulingIgnoredDuringExecution\":{\"nodeSelectorTerms\":"
		  "[{\"matchExpressions\":[{\"key\":\"k\",\"operator\":\"In\"}]}]}}}}",
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required "
			"value: must be specified when `operator` is 'In' or 'NotIn'" },
		{ "{\"containers\":[" C
		  "}],\"affinity\":{\"podAntiAffinity\":{\"requiredDuringSchedulingIgnoredDuringExecution\":[{\"topologyKey\":\"a b\"}]}}}",
			"spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"a b\"" },
		{ "{\"containers\":[" C
		  "}],\"topologySpreadConstraints\":[{\"maxSkew\":1,\"topologyKey\":\"z\",\"whenUnsatisfiable\":\"DoNotSchedule\"},"
		  "{\"maxSkew\":2,\"topologyKey\":\"z\",\"whenUnsatisfiable\":\"DoNotSchedule\"}]}",
			"spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{z, DoNotSchedule}\"" },
		{ "{\"containers\":[" C
		  ",\"securityContext\":{\"privileged\":true,\"allowPrivilegeEscalation\":false}}]}",
			"spec.containers[0].securityContext: Invalid value: {}: cannot set `allowPrivilegeEscalation` to false and "
			"`privileged` to true" },
		{ "{\"containers\":[" C "}],\"dnsPolicy\":\"None\"}",
			"spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None" },
		{ "{\"containers\":[" C
		  ",\"restartPolicyRules\":[{\"action\":\"Restart\",\"exitCodes\":{\"operator\":\"In\",\"values\":[1]}}]}]}",
			"spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used" },
		{ "{\"containers\":[" C
		  ",\"restartPolicy\":\"Never\",\"restartPolicyRules\":[{\"action\":\"RestartAllContainers\",\"exitCodes\":{\"operator\":\"In\",\"values\":[1]}}]}]}",
			"spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"RestartAllContainers\": supported values: \"Restart\"" },
		{ "{\"containers\":[" C "}],\"hostnameOverride\":\"Not_A_Name\"}",
			"spec.hostnameOverride: Invalid value: \"Not_A_Name\"" },
		{ "{\"containers\":[" C
		  "}],\"hostnameOverride\":\"a\",\"hostNetwork\":true,\"setHostnameAsFQDN\":true}",
			"spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true" },
		{ "{\"containers\":[" C "}],\"activeDeadlineSeconds\":0}",
			"spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive" },
		{ "{\"containers\":[" C
		  ",\"ports\":[{\"containerPort\":1,\"hostPort\":9},{\"containerPort\":2,\"hostPort\":9}]}]}",
			"spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\"" },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		req(e, CREATE, "pods", "default",
			arena_fmt(e->a, "{\"metadata\":{\"name\":\"p\"},\"spec\":%s}", rows[i].spec)
				.p);
		size_t n = strlen(rows[i].message); /* ! at the end: the message ends there */
		bool whole = rows[i].message[n - 1] == '!';
		const char *part = arena_str(e->a, str_n(rows[i].message, n - whole)).p,
			   *said = at(e, "message");
		assert_refused(e, 422, part);
		if (whole)
			assert_string_equal(said + strlen(said) - strlen(part), part);
		assert_int_equal(strncmp(at(e, "message"), "Pod \"p\" is invalid: ", 20), 0);
	}
}

static void qos(void **state)
{
	static const struct {
		const char *resources, *class;
	} rows[] = {
		{ "{}", "BestEffort" },
		{ "{\"limits\":{\"cpu\":\"1\",\"memory\":\"1Gi\"}}", "Guaranteed" },
		{ "{\"limits\":{\"cpu\":\"1\",\"memory\":\"1Gi\"},\"requests\":{\"cpu\":\"1000m\"}}",
			"Guaranteed" },
		{ "{\"requests\":{\"cpu\":\"1\"}}", "Burstable" },
	};
	struct env *e = *state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		OK(e, CREATE, "pods", "default",
			arena_fmt(e->a,
				"{\"metadata\":{\"name\":\"p%zu\"},\"spec\":{\"containers\":[" C
				",\"resources\":%s}]}}",
				i, rows[i].resources)
				.p);
		assert_at(e, "status.qosClass", rows[i].class);
	}
}

static void updates(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "pods", "default",
		pod(e, "p",
			"\"activeDeadlineSeconds\":10,\"tolerations\":[{\"key\":\"k\",\"operator\":\"Exists\"}],"));
	OK(e, PATCH, "pods/p", "default", "{\"spec\":{\"activeDeadlineSeconds\":5}}");
	assert_at(e, "metadata.generation", "2");
	OK(e, PATCH, "pods/p", "default",
		"{\"spec\":{\"tolerations\":[{\"key\":\"k\",\"operator\":\"Exists\"},{\"key\":\"l\",\"operator\":\"Exists\"}]}}");
	req(e, PATCH, "pods/p", "default", "{\"spec\":{\"activeDeadlineSeconds\":6}}");
	assert_refused(e, 422,
		"spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value");
	req(e, PATCH, "pods/p", "default", "{\"spec\":{\"tolerations\":[]}}");
	assert_refused(e, 422,
		"spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds");
	req(e, PATCH, "pods/p", "default", "{\"spec\":{\"hostNetwork\":true}}");
	assert_refused(e, 422,
		"spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,");
	req_new(e, PATCH, "pods/p", "default",
		"[{\"op\":\"replace\",\"path\":\"/spec/containers/0/image\",\"value\":\"j:2\"}]")
		->patch_type = PATCH_TYPE_JSON;
	assert_int_equal(req_run(e), 200);
	assert_at(e, "spec.containers.0.image", "j:2");
	req_new(e, PATCH, "pods/p", "default",
		"[{\"op\":\"add\",\"path\":\"/spec/containers/-\",\"value\":{\"name\":\"d\",\"image\":\"x\"}}]")
		->patch_type = PATCH_TYPE_JSON;
	req_run(e);
	assert_refused(
		e, 422, "spec.containers: Forbidden: pod updates may not add or remove containers");
	OK(e, PATCH, "pods/p", "default",
		"{\"status\":{\"phase\":\"Running\"}}"); /* the pod itself does not take a status */
	assert_at(e, "status.phase", "Pending");
}

static void status_alone(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "pods", "default", pod(e, "p", ""));
	OK(e, PATCH, "pods/p/status", "default",
		"{\"spec\":{\"hostNetwork\":true},\"status\":{\"phase\":\"Running\",\"podIP\":\"10.0.0.1\"},"
		"\"metadata\":{\"annotations\":{\"n\":\"1\"},\"ownerReferences\":"
		"[{\"apiVersion\":\"v1\",\"kind\":\"X\",\"name\":\"x\",\"uid\":\"1\"}]}}");
	assert_at(e, "spec.hostNetwork", "-");
	assert_at(e, "metadata.ownerReferences", "-");
	assert_at(e, "metadata.annotations.n", "1");
	assert_at(e, "metadata.generation", "1");
	assert_at(e, "status.podIPs.0.ip", "10.0.0.1");
	assert_at(e, "status.qosClass", "BestEffort");
	assert_string_equal(
		list_of(e, "pods", "", NULL, "status.podIP=10.0.0.1,status.phase=Running"), "p");
	OK(e, GET, "pods/p/status", "default", NULL);
	assert_at(e, "status.phase", "Running");
}

static void bind_once(void **state)
{
	static const char to_n1[] =
		"{\"metadata\":{\"annotations\":{\"why\":\"because\"}},\"target\":{\"kind\":\"Node\",\"name\":\"n1\"}}";
	struct env *e = *state;
	OK(e, CREATE, "pods", "default", pod(e, "p", ""));
	OK(e, CREATE, "pods/p/binding", "default", to_n1);
	assert_at(e, "status", "Success");
	OK(e, GET, "pods/p", "default", NULL);
	assert_at(e, "spec.nodeName", "n1");
	assert_at(e, "metadata.annotations.why", "because");
	assert_at(e, "status.conditions.0.type", "PodScheduled");
	assert_at(e, "status.conditions.0.status", "True");
	req(e, CREATE, "pods/p/binding", "default", to_n1);
	assert_refused(e, 409,
		"Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"");
	req(e, CREATE, "pods/q/binding", "default", to_n1);
	assert_refused(e, 404, "pods \"q\" not found");
	OK(e, CREATE, "pods", "default", pod(e, "q", ""));
	req(e, CREATE, "pods/q/binding", "default",
		"{\"target\":{\"kind\":\"Bed\",\"name\":\"n1\"}}");
	assert_refused(e, 422,
		"target.kind: Unsupported value: \"Bed\": supported values: \"Node\", \"<empty>\"");
	req(e, CREATE, "pods/q/binding", "default",
		"{\"metadata\":{\"uid\":\"x\"},\"target\":{\"name\":\"n1\"}}");
	assert_refused(e, 409, "Precondition failed: UID in precondition: x, UID in object meta: ");
	OK(e, CREATE, "bindings", "default",
		"{\"metadata\":{\"name\":\"q\"},\"target\":{\"name\":\"n2\"}}");
	OK(e, GET, "pods/q", "default", NULL);
	assert_at(e, "spec.nodeName", "n2");
}

static int remove_pod(struct env *e, const char *path, int64_t grace)
{
	struct meta_v1_delete_options *opt = arena_alloc(e->a, sizeof(*opt));
	if (grace >= 0)
		opt->grace_period_seconds = (struct opt_int64)SOME(grace);
	req_new(e, DELETE, path, "default", NULL)->delete_options = opt;
	return req_run(e);
}

static void grace(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "pods", "default", pod(e, "free", "")); /* on no node: at once */
	assert_int_equal(remove_pod(e, "pods/free", -1), 200);
	assert_at(e, "kind", "Pod");
	req(e, GET, "pods/free", "default", NULL);
	assert_code(e, 404);
	OK(e, CREATE, "pods", "default", pod(e, "p", "\"nodeName\":\"n\","));
	assert_int_equal(remove_pod(e, "pods/p", -1), 200);
	assert_at(e, "metadata.deletionGracePeriodSeconds", "30");
	assert_at(e, "metadata.deletionTimestamp", "2023-11-14T22:13:50Z");
	assert_at(e, "metadata.generation", "2");
	const char *revision = at(e, "metadata.resourceVersion");
	assert_int_equal(remove_pod(e, "pods/p", 60), 200); /* never longer */
	assert_at(e, "metadata.resourceVersion", revision);
	assert_int_equal(remove_pod(e, "pods/p", 10), 200);
	assert_at(e, "metadata.deletionGracePeriodSeconds", "10");
	assert_at(e, "metadata.deletionTimestamp", "2023-11-14T22:13:30Z");
	OK(e, GET, "pods/p", "default", NULL);
	assert_int_equal(remove_pod(e, "pods/p", 0), 200);
	req(e, GET, "pods/p", "default", NULL);
	assert_code(e, 404);
	OK(e, CREATE, "pods", "default", pod(e, "done", "\"nodeName\":\"n\","));
	OK(e, PATCH, "pods/done/status", "default", "{\"status\":{\"phase\":\"Succeeded\"}}");
	assert_int_equal(remove_pod(e, "pods/done", -1), 200);
	req(e, GET, "pods/done", "default", NULL);
	assert_code(e, 404);
}

static void grace_and_finalizers(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "pods", "default", pod(e, "p", "\"nodeName\":\"n\","));
	OK(e, PATCH, "pods/p", "default", "{\"metadata\":{\"finalizers\":[\"x.io/f\"]}}");
	assert_int_equal(remove_pod(e, "pods/p", -1), 200);
	OK(e, PATCH, "pods/p", "default", "{\"metadata\":{\"labels\":{\"a\":\"1\"}}}");
	assert_int_equal(
		remove_pod(e, "pods/p", 0), 200); /* its node is through; the finalizer is not */
	OK(e, GET, "pods/p", "default", NULL);
	assert_at(e, "metadata.deletionGracePeriodSeconds", "0");
	OK(e, PATCH, "pods/p", "default", "{\"metadata\":{\"finalizers\":[]}}");
	req(e, GET, "pods/p", "default", NULL);
	assert_code(e, 404);
}

static void eviction(void **state)
{
	static const char evict[] = "{\"metadata\":{\"name\":\"p\"}}";
	struct env *e = *state;
	OK(e, CREATE, "pods", "default", pod(e, "p", "\"nodeName\":\"n\","));
	OK(e, PATCH, "pods/p/status", "default",
		"{\"status\":{\"phase\":\"Running\",\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}");
	OK(e, CREATE, "policy/v1:poddisruptionbudgets", "default",
		"{\"metadata\":{\"name\":\"b\"},\"spec\":{\"minAvailable\":1,\"selector\":{\"matchLabels\":{\"app\":\"a\"}}}}");
	OK(e, PATCH, "policy/v1:poddisruptionbudgets/b/status", "default",
		"{\"status\":{\"observedGeneration\":1,\"disruptionsAllowed\":0,\"currentHealthy\":1,\"desiredHealthy\":1,\"expectedPods\":1}}");
	OK(e, PATCH, "pods/p/status", "default", "{\"status\":{\"phase\":\"Running\"}}");
	req(e, CREATE, "pods/p/eviction", "default", evict);
	assert_refused(e, 429, "Cannot evict pod as it would violate the pod's disruption budget.");
	assert_at(e, "details.causes.0.reason", "DisruptionBudget");
	assert_at(e, "details.causes.0.message",
		"The disruption budget b needs 1 healthy pods and has 1 currently");
	OK(e, PATCH, "policy/v1:poddisruptionbudgets/b/status", "default",
		"{\"status\":{\"disruptionsAllowed\":1}}");
	OK(e, CREATE, "pods/p/eviction", "default", evict);
	assert_at(e, "status", "Success");
	OK(e, GET, "pods/p", "default", NULL);
	assert_string_not_equal(at(e, "metadata.deletionTimestamp"), "-");
	OK(e, GET, "policy/v1:poddisruptionbudgets/b", "default", NULL);
	assert_at(e, "status.disruptionsAllowed", "0");
	assert_at(e, "status.disruptedPods.p", "2023-11-14T22:13:20Z");
}

static void ephemeral_and_resize(void **state)
{
	struct env *e = *state;
	OK(e, CREATE, "pods", "default", pod(e, "p", ""));
	OK(e, PATCH, "pods/p/ephemeralcontainers", "default",
		"{\"spec\":{\"hostNetwork\":true,\"ephemeralContainers\":[{\"name\":\"dbg\",\"image\":\"b\"}]}}");
	assert_at(e, "spec.ephemeralContainers.0.name", "dbg");
	assert_at(e, "spec.hostNetwork", "-");
	req(e, PATCH, "pods/p/ephemeralcontainers", "default",
		"{\"spec\":{\"ephemeralContainers\":[]}}");
	assert_refused(e, 422, "spec.ephemeralContainers: Forbidden: ");
	req(e, PATCH, "pods/p/ephemeralcontainers", "default",
		"{\"spec\":{\"ephemeralContainers\":[{\"name\":\"dbg\",\"image\":\"b\"},{\"name\":\"c\",\"image\":\"b\"}]}}");
	assert_refused(e, 422, "spec.ephemeralContainers[1].name: Duplicate value: \"c\"");
	OK(e, CREATE, "pods", "default",
		"{\"metadata\":{\"name\":\"q\"},\"spec\":{\"containers\":[" C
		",\"resources\":{\"requests\":{\"cpu\":\"1\"}}}]}}");
	OK(e, PATCH, "pods/q/resize", "default",
		"{\"spec\":{\"containers\":[" C
		",\"imagePullPolicy\":\"IfNotPresent\",\"terminationMessagePath\":\"/dev/termination-log\","
		"\"terminationMessagePolicy\":\"File\",\"resources\":{\"requests\":{\"cpu\":\"2\"}}}]}}");
	assert_at(e, "spec.containers.0.resources.requests.cpu", "2");
	req(e, PATCH, "pods/q/resize", "default",
		"{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"other\",\"resources\":{\"requests\":{\"cpu\":\"2\"}}}]}}");
	assert_refused(e, 422, "spec: Forbidden: only cpu and memory resources are mutable");
#define FULL \
	C ",\"imagePullPolicy\":\"IfNotPresent\",\"terminationMessagePath\":\"/dev/termination-log\",\"terminationMessagePolicy\":\"File\""
	req(e, PATCH, "pods/q/resize", "default",
		"{\"spec\":{\"resources\":{\"requests\":{\"cpu\":\"3\"}}}}");
	assert_refused(e, 422, "spec.resources: Forbidden: pod-level resources cannot be resized");
	static const struct {
		const char *containers, *message;
	} rows[] = {
		{ FULL "}",
			"spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed" },
		{ FULL ",\"resources\":{\"requests\":{\"cpu\":\"2\",\"ephemeral-storage\":\"1Gi\"}}}",
			"spec: Forbidden: only cpu and memory resources are mutable" },
		{ FULL ",\"resources\":{\"requests\":{\"cpu\":\"2\"}}},{\"name\":\"d\",\"image\":\"i\"}",
			"spec.containers: Forbidden: containers may not be added or removed on resize" },
		{ "{\"name\":\"d\",\"image\":\"i\",\"resources\":{\"requests\":{\"cpu\":\"2\"}}}",
			"spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		req(e, PATCH, "pods/q/resize", "default",
			arena_fmt(e->a, "{\"spec\":{\"containers\":[%s]}}", rows[i].containers).p);
		assert_refused(e, 422, rows[i].message);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, env_setup, env_teardown)
	const struct CMUnitTest tests[] = {
		T(defaults),
		T(refusals),
		T(qos),
		T(updates),
		T(status_alone),
		T(bind_once),
		T(grace),
		T(grace_and_finalizers),
		T(eviction),
		T(ephemeral_and_resize),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
