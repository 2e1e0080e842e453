/* Daemon sets, stateful sets with their disruption budgets, jobs, and what the smaller controllers do, end to end. */
#include "cmd/cluster_fixture.h"

/* ---- daemon sets ---- */
static bool daemon_says(void *arg)
{
	const struct apps_v1_daemon_set_status *want = arg;
	const struct apps_v1_daemon_set *d = get(&apps_v1_daemon_set_type, "ds", "agent");

	return d->status.desired_number_scheduled == want->desired_number_scheduled &&
		d->status.number_available == want->number_available &&
		d->status.updated_number_scheduled == want->updated_number_scheduled &&
		d->status.observed_generation == d->metadata.generation;
}

static void test_daemon_set(void **state)
{
	struct apps_v1_daemon_set_status two = {
		.desired_number_scheduled = 2, .number_available = 2, .updated_number_scheduled = 2
	};
	struct apps_v1_daemon_set_status one = {
		.desired_number_scheduled = 1, .number_available = 1, .updated_number_scheduled = 1
	};
	struct cached_list l;
	bool on[2] = { false, false };

	new_namespace("ds");
	make(&apps_v1_daemon_set_type,
		"{\"metadata\":{\"name\":\"agent\",\"namespace\":\"ds\"},\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"a\"}}," TEMPLATE(
			"a", "i:1") "}}");
	wait_for("a pod on each node", daemon_says, &two);
	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("ds"), &l);
	for (size_t i = 0; i < l.len; i++)
		on[str_eqz(((struct core_v1_pod *)l.items[i]->obj)->spec.node_name, "n2")] = true;
	cached_list_deinit(&l);
	assert_true(on[0] && on[1]);
	assert_int_equal(count(&apps_v1_controller_revision_type, "ds"), 1);
	patch(&apps_v1_daemon_set_type, "ds", "agent", IMAGE("i:2"));
	wait_for("the update", daemon_says, &two);
	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("ds"), &l);
	for (size_t i = 0; i < l.len; i++)
		assert_true(str_eqz(
			((struct core_v1_pod *)l.items[i]->obj)->spec.containers.items[0].image,
			"i:2"));
	cached_list_deinit(&l);
	assert_int_equal(count(&apps_v1_controller_revision_type, "ds"), 2);
	patch(&core_v1_node_type, "", "n2", "{\"metadata\":{\"labels\":{\"pick\":\"me\"}}}");
	patch(&apps_v1_daemon_set_type, "ds", "agent",
		"{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"pick\":\"me\"}}}}}");
	wait_for("only the selected node", daemon_says, &one);
	delete (&apps_v1_daemon_set_type, "ds", "agent", "Background");
}

/* ---- stateful sets and disruption budgets ---- */
static bool stateful_says(void *arg)
{
	const char *image = arg;
	const struct apps_v1_stateful_set *s = get(&apps_v1_stateful_set_type, "sts", "db");
	int want = s->spec.replicas.value;

	for (int i = 0; i < want; i++) {
		const struct core_v1_pod *p =
			get(&core_v1_pod_type, "sts", arena_fmt(memory, "db-%d", i).p);

		if (!p || !str_eqz(p->spec.containers.items[0].image, image) ||
			!str_eqz(p->spec.hostname, p->metadata.name.p))
			return false;
	}
	return s->status.available_replicas == want && s->status.replicas == want &&
		s->status.observed_generation == s->metadata.generation &&
		str_eq(s->status.current_revision, s->status.update_revision) &&
		(int)count(&core_v1_pod_type, "sts") == want;
}

static bool partitioned(void *arg)
{
	const struct core_v1_pod *p0 = get(&core_v1_pod_type, "sts", "db-0"),
				 *p2 = get(&core_v1_pod_type, "sts", "db-2");
	const struct apps_v1_stateful_set *s = get(&apps_v1_stateful_set_type, "sts", "db");

	return p0 && p2 && str_eqz(p0->spec.containers.items[0].image, "i:1") &&
		str_eqz(p2->spec.containers.items[0].image, "i:2") &&
		s->status.updated_replicas == 1 && s->status.available_replicas == 3;
}

static bool budget_allows(void *n)
{
	const struct policy_v1_pod_disruption_budget *b =
		get(&policy_v1_pod_disruption_budget_type, "sts", "db");

	return b->status.disruptions_allowed == *(int *)n &&
		b->status.observed_generation == b->metadata.generation;
}

static void test_stateful_set(void **state)
{
	int one = 1, none = 0;

	new_namespace("sts");
	make(&apps_v1_stateful_set_type,
		"{\"metadata\":{\"name\":\"db\",\"namespace\":\"sts\"},\"spec\":{\"replicas\":3,\"serviceName\":\"db\","
		"\"selector\":{\"matchLabels\":{\"app\":\"db\"}}," TEMPLATE("db",
			"i:1") ",\"volumeClaimTemplates\":[{\"metadata\":{\"name\":\"d\"},"
			       "\"spec\":{\"accessModes\":[\"ReadWriteOnce\"],\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}]}}");
	wait_for("three in order", stateful_says, "i:1");
	assert_non_null(get(&core_v1_persistent_volume_claim_type, "sts", "d-db-2"));
	make(&policy_v1_pod_disruption_budget_type,
		"{\"metadata\":{\"name\":\"db\",\"namespace\":\"sts\"},\"spec\":{\"maxUnavailable\":1,"
		"\"selector\":{\"matchLabels\":{\"app\":\"db\"}}}}");
	wait_for("one may go", budget_allows, &one);
	patch(&policy_v1_pod_disruption_budget_type, "sts", "db",
		"{\"spec\":{\"maxUnavailable\":0}}");
	wait_for("none may go", budget_allows, &none);
	patch(&apps_v1_stateful_set_type, "sts", "db",
		"{\"spec\":{\"updateStrategy\":{\"rollingUpdate\":{\"partition\":2}}}}");
	patch(&apps_v1_stateful_set_type, "sts", "db", IMAGE("i:2"));
	wait_for("only the highest is updated", partitioned, NULL);
	delete (&core_v1_pod_type, "sts", "db-0", NULL);
	wait_for("the lowest comes back as it was", partitioned, NULL);
	patch(&apps_v1_stateful_set_type, "sts", "db",
		"{\"spec\":{\"updateStrategy\":{\"rollingUpdate\":{\"partition\":0}}}}");
	wait_for("all updated", stateful_says, "i:2");
	patch(&apps_v1_stateful_set_type, "sts", "db", "{\"spec\":{\"replicas\":1}}");
	wait_for("scaled down from the top", stateful_says, "i:2");
	assert_non_null(
		get(&core_v1_persistent_volume_claim_type, "sts", "d-db-2")); /* claims stay */
	delete (&apps_v1_stateful_set_type, "sts", "db", "Background");
}

/* ---- jobs ---- */
#define JOB(name, end, more) \
	"{\"metadata\":{\"name\":\"" name "\",\"namespace\":\"jobs\"},\"spec\":{" more \
	"\"template\":{\"metadata\":{\"labels\":{\"end\":\"" end \
	"\"}},\"spec\":{\"restartPolicy\":\"Never\"," \
	"\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}"

static const struct batch_v1_job_condition *job_is(const char *name, const char *type)
{
	const struct batch_v1_job *j = get(&batch_v1_job_type, "jobs", name);

	if (j)
		LIST_EACH(c, &j->status.conditions)
			if (str_eqz(c->type, type) && str_eqz(c->status, "True"))
				return c;
	return NULL;
}

static bool job_complete(void *name)
{
	return job_is(name, "Complete");
}

static bool job_failed(void *name)
{
	return job_is(name, "Failed");
}

static bool job_gone(void *name)
{
	return !get(&batch_v1_job_type, "jobs", name);
}

static bool no_tracked_pods(void *arg)
{
	struct cached_list l;
	bool none = true;

	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("jobs"), &l);
	for (size_t i = 0; i < l.len; i++)
		none &= !l.items[i]->meta->finalizers.len;
	cached_list_deinit(&l);
	return none;
}

static bool cron_ran(void *arg)
{
	const struct batch_v1_cron_job *c = get(&batch_v1_cron_job_type, "jobs", "tick");

	return !time_is_zero(c->status.last_schedule_time) &&
		!time_is_zero(c->status.last_successful_time);
}

static void test_jobs(void **state)
{
	new_namespace("jobs");
	make(&batch_v1_job_type, JOB("three", "Succeeded", "\"completions\":3,\"parallelism\":2,"));
	wait_for("three pods succeed", job_complete, "three");
	const struct batch_v1_job *j = get(&batch_v1_job_type, "jobs", "three");

	assert_int_equal(j->status.succeeded, 3);
	assert_int_equal(j->status.active + j->status.failed, 0);
	assert_false(time_is_zero(j->status.completion_time));
	make(&batch_v1_job_type,
		JOB("indexed", "Succeeded",
			"\"completions\":3,\"parallelism\":3,\"completionMode\":\"Indexed\","));
	wait_for("each index once", job_complete, "indexed");
	j = get(&batch_v1_job_type, "jobs", "indexed");
	assert_string_equal(j->status.completed_indexes.p, "0-2");
	make(&batch_v1_job_type, JOB("bad", "Failed", "\"backoffLimit\":0,"));
	wait_for("failure is final", job_failed, "bad");
	assert_true(str_eqz(job_is("bad", "Failed")->reason, "BackoffLimitExceeded"));
	make(&batch_v1_job_type,
		JOB("perindex", "odd",
			"\"completions\":4,\"parallelism\":4,\"completionMode\":\"Indexed\",\"backoffLimitPerIndex\":0,"));
	wait_for("bad indexes fail, the others succeed", job_failed, "perindex");
	j = get(&batch_v1_job_type, "jobs", "perindex");
	assert_string_equal(j->status.completed_indexes.p, "0,2");
	assert_string_equal(j->status.failed_indexes.p, "1,3");
	assert_true(str_eqz(job_is("perindex", "Failed")->reason, "FailedIndexes"));
	make(&batch_v1_job_type,
		JOB("enough", "odd",
			"\"completions\":4,\"parallelism\":4,\"completionMode\":\"Indexed\","
			"\"successPolicy\":{\"rules\":[{\"succeededIndexes\":\"0,2\"}]},"));
	wait_for("two indexes are enough", job_complete, "enough");
	assert_true(str_eqz(job_is("enough", "Complete")->reason, "SuccessPolicy"));
	make(&batch_v1_job_type, JOB("fleeting", "Succeeded", "\"ttlSecondsAfterFinished\":0,"));
	wait_for("it cleans itself up", job_gone, "fleeting");
	wait_for("no pod keeps the finalizer", no_tracked_pods, NULL);
	make(&batch_v1_cron_job_type,
		"{\"metadata\":{\"name\":\"tick\",\"namespace\":\"jobs\"},\"spec\":{\"schedule\":\"@every 1s\",\"jobTemplate\":" JOB(
			"x", "Succeeded", "") "}}");
	wait_for("the schedule ran", cron_ran, NULL);
	delete (&batch_v1_cron_job_type, "jobs", "tick", NULL);
}

/* ---- what the smaller controllers do ---- */
static bool quota_says(void *pods)
{
	const struct core_v1_resource_quota *q = get(&core_v1_resource_quota_type, "small", "q");

	return str_eqz(str_map_get(&q->status.used, STR("pods")), pods) &&
		str_eqz(str_map_get(&q->status.used, STR("requests.cpu")),
			strcmp(pods, "0") ? "1500m" : "0") &&
		str_eqz(str_map_get(&q->status.used, STR("count/deployments.apps")), "0") &&
		str_eqz(str_map_get(&q->status.hard, STR("pods")), "5");
}

static bool mirrored(void *arg)
{
	struct cached_list l;
	bool yes = false;

	informer_list(
		informers_get(the.informers, &discovery_v1_endpoint_slice_type), STR("small"), &l);
	for (size_t i = 0; i < l.len; i++) {
		const struct discovery_v1_endpoint_slice *s = l.items[i]->obj;

		yes |= s->endpoints.len == 1 &&
			str_eqz(s->endpoints.items[0].addresses.items[0], "192.0.2.7") &&
			str_eqz(str_map_get(&s->metadata.labels, STR("kubernetes.io/service-name")),
				"outside") &&
			s->ports.len == 1 && s->ports.items[0].port.value == 9999;
	}
	cached_list_deinit(&l);
	return yes;
}

static bool no_slices(void *arg)
{
	return !count(&discovery_v1_endpoint_slice_type, "small");
}

static bool aggregated(void *arg)
{
	const struct rbac_v1_cluster_role *r = get(&rbac_v1_cluster_role_type, "", "admin");

	LIST_EACH(rule, &r->rules)
		if (str_list_has(&rule->resources, STR("gadgets")))
			return true;
	return false;
}

static bool signed_info(void *arg)
{
	const struct core_v1_config_map *cm =
		get(&core_v1_config_map_type, "kube-public", "cluster-info");

	return str_map_has(&cm->data, STR("jws-kubeconfig-abcdef"));
}

static bool token_gone(void *arg)
{
	return !get(&core_v1_secret_type, "kube-system", "bootstrap-token-aaaaaa");
}

static bool claim_held(void *arg)
{
	const struct core_v1_persistent_volume_claim *c =
		get(&core_v1_persistent_volume_claim_type, "small", "c");

	return c && str_list_has(&c->metadata.finalizers, STR("kubernetes.io/pvc-protection"));
}

static bool claim_gone(void *arg)
{
	return !get(&core_v1_persistent_volume_claim_type, "small", "c");
}

/* ---- certificates ---- */
static void ask_certificate(const char *name, const char *organization, const char *const *dns,
	const char *signer, const char *usage)
{
	const char *const organizations[] = { organization, NULL };
	const struct cert_request q = {
		.common_name = "system:node:n9", .organizations = organizations, .dns_names = dns
	};
	struct buf key CLEAN_BUF = { 0 }, csr CLEAN_BUF = { 0 }, text CLEAN_BUF = { 0 };

	assert_int_equal(cert_new_key(&key, NULL), 0);
	assert_int_equal(cert_make_csr(&q, buf_str(&key), &csr, NULL), 0);
	base64_encode(&text, csr.p, csr.len);
	make(&certificates_v1_certificate_signing_request_type,
		arena_fmt(memory,
			"{\"metadata\":{\"name\":\"%s\"},\"spec\":{\"request\":\"%s\",\"signerName\":\"%s\",\"usages\":[\"digital signature\",\"%s\"]}}",
			name, text.p, signer, usage)
			.p);
}

static bool certificate_issued(void *name)
{
	const struct certificates_v1_certificate_signing_request *c =
		get(&certificates_v1_certificate_signing_request_type, "", name);
	struct timestamp end;

	return c->status.certificate.len && !cert_not_after(c->status.certificate, &end, NULL) &&
		time_diff_s(end, time_now()) > 86400 && c->status.conditions.len == 1 &&
		str_eqz(c->status.conditions.items[0].reason, "AutoApproved");
}

static bool certificate_open(const char *name)
{
	const struct certificates_v1_certificate_signing_request *c =
		get(&certificates_v1_certificate_signing_request_type, "", name);

	return !c->status.certificate.len && !c->status.conditions.len;
}

static void test_certificates(void **state)
{
	static const char *const names[] = { "n9.example", NULL };
	static const char kubelet[] = "kubernetes.io/kube-apiserver-client-kubelet";

	ask_certificate("masters", "system:masters", NULL, kubelet, "client auth");
	ask_certificate("named", "system:nodes", names, kubelet, "client auth");
	ask_certificate("server", "system:nodes", NULL, kubelet, "server auth");
	ask_certificate("foreign", "system:nodes", names, "kubernetes.io/kubelet-serving",
		"server auth"); /* not by the node itself */
	ask_certificate("good", "system:nodes", NULL, kubelet, "client auth");
	wait_for("a kubelet's certificate", certificate_issued, "good");
	assert_true(certificate_open("masters"));
	assert_true(certificate_open("named"));
	assert_true(certificate_open("server"));
	assert_true(certificate_open("foreign"));
}

/* ---- volumes ---- */
#define VOLUME(name, size, class) \
	"{\"metadata\":{\"name\":\"" name "\"},\"spec\":{\"capacity\":{\"storage\":\"" size \
	"\"},\"accessModes\":[\"ReadWriteOnce\"]," \
	"\"storageClassName\":\"" class \
		"\",\"persistentVolumeReclaimPolicy\":\"Retain\",\"hostPath\":{\"path\":\"/x\"}}}"
#define CLAIM(name, size, class) \
	"{\"metadata\":{\"name\":\"" name \
	"\",\"namespace\":\"vol\"},\"spec\":{\"accessModes\":[\"ReadWriteOnce\"]," \
	"\"storageClassName\":\"" class "\",\"resources\":{\"requests\":{\"storage\":\"" size \
					"\"}}}}"

static bool claim_has(void *volume)
{
	const struct core_v1_persistent_volume_claim *c =
		get(&core_v1_persistent_volume_claim_type, "vol", "c");
	const struct core_v1_persistent_volume *v =
		get(&core_v1_persistent_volume_type, "", volume);

	return c && v && str_eqz(c->spec.volume_name, volume) &&
		str_eqz(c->status.phase, "Bound") && str_eqz(v->status.phase, "Bound") &&
		str_eq(v->spec.claim_ref->uid, c->metadata.uid) && c->status.capacity.len == 1;
}

static bool volume_released(void *volume)
{
	const struct core_v1_persistent_volume *v =
		get(&core_v1_persistent_volume_type, "", volume);

	return str_eqz(v->status.phase, "Released");
}

static bool all_available(void *arg)
{
	struct cached_list l;
	bool yes = true;

	informer_list(informers_get(the.informers, &core_v1_persistent_volume_type), STR_NONE, &l);
	for (size_t i = 0; i < l.len; i++)
		yes &= str_eqz(
			((const struct core_v1_persistent_volume *)l.items[i]->obj)->status.phase,
			"Available");
	yes &= l.len == 4;
	cached_list_deinit(&l);
	return yes;
}

static bool late_is(void *phase)
{
	const struct core_v1_persistent_volume_claim *c =
		get(&core_v1_persistent_volume_claim_type, "vol", "late");

	return str_eqz(c->status.phase, phase);
}

static bool late_told(void *arg)
{
	return has_event("vol", "WaitForFirstConsumer", "waiting for first consumer");
}

static void test_volumes(void **state)
{
	new_namespace("vol");
	make(&core_v1_persistent_volume_type, VOLUME("large", "10Gi", "manual"));
	make(&core_v1_persistent_volume_type, VOLUME("small", "1Gi", "manual"));
	make(&core_v1_persistent_volume_type, VOLUME("right", "3Gi", "manual"));
	make(&core_v1_persistent_volume_type, VOLUME("other", "2Gi", "other"));
	wait_for("all available", all_available, NULL);
	make(&core_v1_persistent_volume_claim_type, CLAIM("c", "2Gi", "manual"));
	wait_for("the smallest that is large enough", claim_has, "right");
	delete (&core_v1_persistent_volume_claim_type, "vol", "c", NULL);
	wait_for("kept, but not free", volume_released, "right");
	make(&core_v1_persistent_volume_claim_type, CLAIM("c", "2Gi", "manual"));
	wait_for("the next one", claim_has, "large");

	/* the class comes last: the claim hears of it */
	make(&core_v1_persistent_volume_claim_type, CLAIM("late", "1Gi", "lazy"));
	make(&storage_v1_storage_class_type,
		"{\"metadata\":{\"name\":\"lazy\"},\"provisioner\":\"kubernetes.io/no-provisioner\","
		"\"volumeBindingMode\":\"WaitForFirstConsumer\"}");
	make(&core_v1_persistent_volume_type, VOLUME("lazy", "10Gi", "lazy"));
	wait_for("it waits and says so", late_told, NULL);
	assert_false(late_is("Bound"));
	make(&core_v1_pod_type,
		"{\"metadata\":{\"name\":\"user\",\"namespace\":\"vol\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}],"
		"\"volumes\":[{\"name\":\"v\",\"persistentVolumeClaim\":{\"claimName\":\"late\"}}]}}");
	wait_for("its first consumer came to a node", late_is, "Bound");
}

static void test_small_ones(void **state)
{
	new_namespace("small");
	make(&core_v1_resource_quota_type,
		"{\"metadata\":{\"name\":\"q\",\"namespace\":\"small\"},\"spec\":{\"hard\":{\"pods\":\"5\",\"requests.cpu\":\"3\","
		"\"count/deployments.apps\":\"1\"}}}");
	wait_for("nothing used", quota_says, "0");
	make(&core_v1_pod_type,
		"{\"metadata\":{\"name\":\"p\",\"namespace\":\"small\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\","
		"\"resources\":{\"requests\":{\"cpu\":\"1500m\"}}}],\"volumes\":[{\"name\":\"v\","
		"\"persistentVolumeClaim\":{\"claimName\":\"c\"}}]}}");
	wait_for("one used", quota_says, "1");

	make(&core_v1_persistent_volume_claim_type,
		"{\"metadata\":{\"name\":\"c\",\"namespace\":\"small\"},\"spec\":{\"accessModes\":[\"ReadWriteOnce\"],"
		"\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}");
	wait_for("the claim is protected", claim_held, NULL);
	delete (&core_v1_persistent_volume_claim_type, "small", "c", NULL);
	assert_true(claim_held(NULL));
	delete (&core_v1_pod_type, "small", "p", NULL);
	wait_for("none used again", quota_says, "0");
	wait_for("the claim goes after its last user", claim_gone, NULL);

	make(&core_v1_service_type,
		"{\"metadata\":{\"name\":\"outside\",\"namespace\":\"small\"},\"spec\":{\"ports\":[{\"port\":80}]}}");
	make(&core_v1_endpoints_type,
		"{\"metadata\":{\"name\":\"outside\",\"namespace\":\"small\"},\"subsets\":[{\"addresses\":[{\"ip\":\"192.0.2.7\"}],"
		"\"ports\":[{\"port\":9999}]}]}");
	wait_for("mirrored", mirrored, NULL);
	delete (&core_v1_endpoints_type, "small", "outside", NULL);
	wait_for("the mirror image goes too", no_slices, NULL);

	make(&rbac_v1_cluster_role_type,
		"{\"metadata\":{\"name\":\"gadgets\",\"labels\":{\"rbac.authorization.k8s.io/aggregate-to-admin\":\"true\"}},"
		"\"rules\":[{\"apiGroups\":[\"x.example\"],\"resources\":[\"gadgets\"],\"verbs\":[\"get\"]}]}");
	wait_for("admin gathers it", aggregated, NULL);

	make(&core_v1_config_map_type,
		"{\"metadata\":{\"name\":\"cluster-info\",\"namespace\":\"kube-public\"},\"data\":{\"kubeconfig\":\"abc\"}}");
	make(&core_v1_secret_type,
		"{\"metadata\":{\"name\":\"bootstrap-token-abcdef\",\"namespace\":\"kube-system\"},"
		"\"type\":\"bootstrap.kubernetes.io/token\","
		"\"stringData\":{\"token-id\":\"abcdef\",\"token-secret\":\"0123456789abcdef\",\"usage-bootstrap-signing\":\"true\"}}");
	wait_for("cluster-info is signed", signed_info, NULL);
	make(&core_v1_secret_type,
		"{\"metadata\":{\"name\":\"bootstrap-token-aaaaaa\",\"namespace\":\"kube-system\"},"
		"\"type\":\"bootstrap.kubernetes.io/token\","
		"\"stringData\":{\"token-id\":\"aaaaaa\",\"token-secret\":\"0123456789abcdef\",\"expiration\":\"2020-01-01T00:00:00Z\"}}");
	wait_for("an expired token goes", token_gone, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_daemon_set),
		cmocka_unit_test(test_stateful_set),
		cmocka_unit_test(test_jobs),
		cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_volumes),
		cmocka_unit_test(test_small_ones),
	};

	memory = arena_new(0);
	int r = cmocka_run_group_tests(tests, start, end);

	arena_free(memory);
	return r;
}
