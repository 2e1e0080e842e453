/* What a user of one namespace writes must neither reach others nor hold up the controllers. */
#include "cmd/cluster_fixture.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_owner_names),
		cmocka_unit_test(test_foreign_owner),
		cmocka_unit_test(test_foreign_dependent),
	};

	memory = arena_new(0);
	int r = cmocka_run_group_tests_name("hostile", tests, start, end);

	arena_free(memory);
	return r;
}
