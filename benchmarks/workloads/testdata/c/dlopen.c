// SPDX-License-Identifier: Apache-2.0
// A plugin loaded after the program began, from the directory of the program.
// With "reload" as second argument it is unloaded every 300 ms and another one,
// of a different build, takes its place, usually at the same address.
// Truth: main → run → unit_plugin → plugin_enter → plugin_hot_a (or _b) in
// libplugin-a.so (-b), about 70 % together; the rest in cold.
#include <dlfcn.h>
#include <libgen.h>
#include <string.h>

#include "truth.h"

#define RELOAD_NS 300000000ULL

static struct truth parts[] = {
	{ "plugin_hot_a", 0, 0, 0 }, { "plugin_hot_b", 0, 0, 0 }, { "cold", 0, 0, 0 }
};
static uint64_t deadline;
static struct rng rng = { 88172645463325252ULL };
static char path[4096];
static void *handle;
static burner *plugin;

BURNER(cold, 0xbf58476d1ce4e5b9ULL)

KEEP uint64_t unit_plugin(int which)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x = plugin(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[which], used);
	return x;
}

KEEP uint64_t unit_cold(void)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x = cold(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[2], used);
	return x;
}

static void load(const char *program, int which)
{
	char *copy = strdup(program);

	if (handle)
		dlclose(handle);
	snprintf(path, sizeof(path), "%s/libplugin-%c.so", dirname(copy), 'a' + which);
	free(copy);
	handle = dlopen(path, RTLD_NOW);
	plugin = handle ? (burner *)dlsym(handle, "plugin_enter") : NULL;
	if (!plugin) {
		fprintf(stderr, "load %s: %s\n", path, dlerror());
		exit(1);
	}
}

KEEP void run(const char *program, int reload)
{
	uint64_t loaded = clock_ns(CLOCK_MONOTONIC);
	int which = 0;

	load(program, which);
	while (!expired(deadline)) {
		truth_sink += unit_is_hot(&rng) ? unit_plugin(which) : unit_cold();
		if (reload && clock_ns(CLOCK_MONOTONIC) - loaded > RELOAD_NS) {
			which = !which;
			load(program, which);
			loaded = clock_ns(CLOCK_MONOTONIC);
		}
	}
}

KEEP int main(int argc, char **argv)
{
	int reload = argc > 2 && !strcmp(argv[2], "reload");

	deadline = deadline_ns(argc, argv);
	// Some CPU before the library exists, so that a table of mappings made
	// at the start is out of date.
	truth_sink += unit_cold() + unit_cold();
	run(argv[0], reload);
	parts[0].chain =
		"[\"_start\",\"...\",\"main\",\"run\",\"unit_plugin\",\"plugin_enter@libplugin-a.so\",\"plugin_hot_a@libplugin-a.so\"]";
	parts[1].chain =
		"[\"_start\",\"...\",\"main\",\"run\",\"unit_plugin\",\"plugin_enter@libplugin-b.so\",\"plugin_hot_b@libplugin-b.so\"]";
	parts[2].chain = "[\"_start\",\"...\",\"main\",\"...\",\"unit_cold\",\"cold\"]";
	report(parts, 3, NULL);
	return 0;
}
