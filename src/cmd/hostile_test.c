/* What a user of one namespace writes must neither reach others nor hold up the controllers. */
#include "cmd/cluster_fixture.h"

#include <sys/resource.h>
#include <time.h>

#define MAP &core_v1_config_map_type

static const struct core_v1_config_map *make_map(
	const char *ns, const char *name, const char *owners)
{
	return make(MAP,
		arena_fmt(memory,
			"{\"metadata\":{\"name\":\"%s\",\"namespace\":\"%s\",\"ownerReferences\":[%s]}}",
			name, ns, owners)
			.p);
}

static const char *owner(const char *name, struct str uid)
{
	return arena_fmt(memory,
		"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"%s\",\"uid\":\"" STR_FMT
		"\"}",
		name, STR_ARG(uid))
		.p;
}

static bool is_gone(void *path)
{
	struct str ns, name;

	str_cut(str_of(path), '/', &ns, &name);
	return !get(MAP, arena_str(memory, ns).p, name.p);
}

/* The collector asks for owners as an administrator: a name that leads out of its request would be a request of its own. */
static void test_owner_names(void **state)
{
	new_namespace("victim");
	new_namespace("foe");
	make_map("victim", "precious", "");
	make_map("foe", "smuggler",
		owner("x HTTP/1.1\\r\\nhost: a\\r\\n\\r\\nDELETE /api/v1/namespaces/victim/configmaps/precious "
		      "HTTP/1.1\\r\\nhost: a\\r\\n\\r\\nGET /api",
			STR("1")));
	make_map("foe", "endless", owner("?watch=1&x=", STR("2")));
	make_map("foe", "climber", owner("../../victim/configmaps/precious", STR("3")));
	wait_for("owners of such names do not exist", is_gone, "foe/smuggler");
	wait_for("nor this one", is_gone, "foe/endless");
	wait_for("nor this one", is_gone, "foe/climber");
	assert_non_null(get(MAP, "victim", "precious"));
}

static bool has_one_owner(void *name)
{
	const struct core_v1_config_map *m = get(MAP, "victim", name);

	return m && m->metadata.owner_references.len == 1;
}

/* That an owner is not in the namespace of one who names it, or not under that name, says nothing of the owner. */
static void test_foreign_owner(void **state)
{
	const struct core_v1_config_map *o = make_map("victim", "o", "");
	struct str uid = o->metadata.uid;

	make_map("foe", "bait", owner("o", uid));
	wait_for("an owner in another namespace is none", is_gone, "foe/bait");
	make_map("victim", "bait", owner("other-name", uid));
	wait_for("an owner of another name is none", is_gone, "victim/bait");
	make_map("victim", "d",
		arena_fmt(memory, "%s,%s", owner("o", uid), owner("absent", STR("none"))).p);
	wait_for("the reference to nobody goes", has_one_owner, "d");
}

static bool owner_gone(void *arg)
{
	return !get(MAP, "victim", "o2");
}

/* Nor can one who names it from elsewhere keep it from going. */
static void test_foreign_dependent(void **state)
{
	const struct core_v1_config_map *o = make_map("victim", "o2", "");

	make(MAP,
		arena_fmt(memory,
			"{\"metadata\":{\"name\":\"anchor\",\"namespace\":\"foe\",\"finalizers\":[\"foe.example/hold\"],\"ownerReferences\":"
			"[{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"o2\",\"uid\":\"" STR_FMT
			"\",\"blockOwnerDeletion\":true}]}}",
			STR_ARG(o->metadata.uid))
			.p);
	delete (MAP, "victim", "o2", "Foreground");
	wait_for("the owner goes", owner_gone, NULL);
	patch(MAP, "foe", "anchor", "{\"metadata\":{\"finalizers\":null}}");
}

/* ---- numbers that nobody can mean ---- */
#define POD \
	"\"spec\":{\"restartPolicy\":\"Never\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}"
#define SPEC(app, more) \
	"{\"metadata\":{\"name\":\"" app "\",\"namespace\":\"foe\"},\"spec\":{" more "}}"

static bool pod_of(void *prefix)
{
	struct cached_list l;
	bool found = false;

	informer_list(informers_get(the.informers, &core_v1_pod_type), STR("foe"), &l);
	for (size_t i = 0; i < l.len; i++)
		found |= str_has_prefix(l.items[i]->meta->name, str_of(prefix));
	cached_list_deinit(&l);
	return found;
}

/* Memory and time go with the pods that there are. */
static void test_large_numbers(void **state)
{
	struct rlimit old;
	struct timespec before, after;

	getrlimit(RLIMIT_AS, &old);
#ifndef __SANITIZE_ADDRESS__
	/* A machine that is not taken down by a failure. */
	setrlimit(RLIMIT_AS, &(struct rlimit){ .rlim_cur = 6ull << 30, .rlim_max = old.rlim_max });
#endif
	make(&apps_v1_stateful_set_type,
		SPEC("huge",
			"\"replicas\":2147483647,\"serviceName\":\"s\",\"selector\":{\"matchLabels\":{\"app\":\"huge\"}}," TEMPLATE(
				"huge", "i")));
	make(&batch_v1_job_type,
		SPEC("indexed",
			"\"completionMode\":\"Indexed\",\"completions\":2147483647,\"parallelism\":2,\"successPolicy\":{\"rules\":"
			"[{\"succeededIndexes\":\"0-2147483646\"}]},\"template\":{" POD "}"));
	make(&batch_v1_job_type,
		SPEC("patient",
			"\"activeDeadlineSeconds\":9223372036854775807,\"template\":{" POD "}"));
	wait_for("the first pod of a huge set", pod_of, "huge-0");
	wait_for("of an indexed job", pod_of, "indexed-1");
	wait_for("of a patient one", pod_of, "patient-");
	/* Nothing is left to do: nobody is busy. */
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	usleep(1000000);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	assert_true(
		(after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000 <
		500);
	delete (&apps_v1_stateful_set_type, "foe", "huge", "Background");
	delete (&batch_v1_job_type, "foe", "indexed", "Background");
	delete (&batch_v1_job_type, "foe", "patient", "Background");
	setrlimit(RLIMIT_AS, &old);
}

/* ---- a claim names a volume that is not for it ---- */
static bool mismatch_told(void *arg)
{
	return has_event("foe", "VolumeMismatch", "gold");
}

static void test_foreign_volume(void **state)
{
	const struct core_v1_persistent_volume *v;

	make(&core_v1_persistent_volume_type,
		"{\"metadata\":{\"name\":\"gold\"},\"spec\":{\"capacity\":{\"storage\":\"1Gi\"},\"accessModes\":[\"ReadWriteOnce\"],"
		"\"storageClassName\":\"gold\",\"hostPath\":{\"path\":\"/x\"}}}");
	make(&core_v1_persistent_volume_claim_type,
		SPEC("c",
			"\"accessModes\":[\"ReadWriteOnce\"],\"storageClassName\":\"\",\"volumeName\":\"gold\",\"resources\":{\"requests\":"
			"{\"storage\":\"1Gi\"}}"));
	wait_for("the claim is refused", mismatch_told, NULL);
	v = get(&core_v1_persistent_volume_type, "", "gold");
	assert_null(v->spec.claim_ref);
}

/* ---- a budget over pods that nobody controls ---- */
static bool budget_counted(void *arg)
{
	const struct policy_v1_pod_disruption_budget *b =
		get(&policy_v1_pod_disruption_budget_type, "foe", "b");

	return b && b->status.observed_generation == 1 && b->status.conditions.len &&
		str_eqz(b->status.conditions.items[0].reason, "InsufficientPods") &&
		b->status.expected_pods == 0;
}

static void test_unmanaged_pods(void **state)
{
	make(&core_v1_pod_type,
		"{\"metadata\":{\"name\":\"alone\",\"namespace\":\"foe\",\"labels\":{\"app\":\"alone\"}}," POD
		"}");
	make(&policy_v1_pod_disruption_budget_type,
		SPEC("b",
			"\"maxUnavailable\":1,\"selector\":{\"matchLabels\":{\"app\":\"alone\"}}"));
	wait_for("they are left out", budget_counted, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_owner_names),
		cmocka_unit_test(test_foreign_owner),
		cmocka_unit_test(test_foreign_dependent),
		cmocka_unit_test(test_large_numbers),
		cmocka_unit_test(test_foreign_volume),
		cmocka_unit_test(test_unmanaged_pods),
	};

	memory = arena_new(0);
	int r = cmocka_run_group_tests_name("hostile", tests, start, end);

	arena_free(memory);
	return r;
}
