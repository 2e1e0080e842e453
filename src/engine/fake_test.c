/* The fake engine keeps the vtable's promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "engine/engine.h"

static char told[ENGINE_ID];

static void on_event(void *arg, const char *sandbox, const char *container)
{
	memcpy(told, container ? container : sandbox, ENGINE_ID);
}

static void test_life(void **state)
{
	CLEAN_ARENA struct arena *a = arena_new(0);
	struct engine *e = engine_fake_new(&clock_real);
	struct engine_sandbox_config sc = { .name = "p", .namespace_ = "d", .uid = "u" };
	struct engine_container_config cc = { .name = "c", .image = "busybox" };
	struct engine_sandbox s;
	struct engine_container c;
	struct engine_image image;
	struct err err = { 0 };
	char id[ENGINE_ID];

	e->v->set_event_handler(e, on_event, NULL);
	assert_int_equal(e->v->sandbox_run(e, &sc, a, &s, &err), 0);
	assert_string_equal(s.ip.p, "10.244.0.1");
	assert_int_equal(e->v->sandbox_run(e, &sc, a, &s, &err), ENGINE_EXISTS);
	assert_int_equal(e->v->container_create(e, s.id, &cc, id, &err), ENGINE_NOT_FOUND);
	assert_int_equal(e->v->image_pull(e, STR("busybox"), a, &image, &err), 0);
	assert_string_equal(image.repo_tags.items[0].p, "docker.io/library/busybox:latest");
	assert_int_equal(e->v->container_create(e, s.id, &cc, id, &err), 0);
	assert_int_equal(e->v->container_create(e, s.id, &cc, id, &err), ENGINE_EXISTS);
	engine_fake_fail(e, "container_start", 1, "no luck");
	assert_int_equal(e->v->container_start(e, id, &err), -EIO);
	assert_string_equal(err.text, "no luck");
	assert_int_equal(e->v->container_start(e, id, &err), 0);
	engine_fake_exit(e, id, 3, false);
	assert_string_equal(told, id);
	assert_int_equal(e->v->container_status(e, id, a, &c, &err), 0);
	assert_int_equal(c.state, CONTAINER_EXITED);
	assert_int_equal(c.exit_code, 3);
	assert_int_equal(engine_fake_calls(e, "container_start"), 2);
	assert_int_equal(e->v->sandbox_remove(e, s.id, &err), 0);
	assert_int_equal(e->v->container_status(e, id, a, &c, &err), ENGINE_NOT_FOUND);
	e->v->free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_life) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
