// SPDX-License-Identifier: Apache-2.0
// Children that run on their parent's stack, by vfork, and on a stack of their own
// in their parent's memory, by posix_spawn. glibc keeps vfork's return address in a
// register meanwhile, since the child overwrites it.
// Truth: main → run → unit_vfork → child → hot about 70 % of the CPU, in children,
// and main → run → unit_cold → cold in the parent.
#include <spawn.h>
#include <sys/wait.h>

#include "truth.h"

static struct truth parts[] = { { .function = "hot" }, { .function = "cold" } };
static uint64_t deadline;
static struct rng rng = { 88172645463325252ULL };

BURNER(hot, 0x9e3779b97f4a7c15ULL)
BURNER(cold, 0xbf58476d1ce4e5b9ULL)

/* Runs in the child, whose thread clock begins at 0. */
KEEP void child(uint64_t want)
{
	uint64_t start = thread_ns(), x = start, used;

	do {
		x = hot(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_sink += x;
	truth_add(&parts[0], used);
}

KEEP void unit_vfork(void)
{
	uint64_t want = unit_ns(&rng);
	pid_t pid = vfork();

	if (pid == 0) {
		child(want);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		exit(1);
}

KEEP void unit_cold(void)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x = cold(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_sink += x;
	truth_add(&parts[1], used);
}

KEEP void spawn(void)
{
	char *args[] = { "true", NULL }, *env[] = { NULL };
	pid_t pid;

	if (posix_spawn(&pid, "/bin/true", NULL, NULL, args, env) || waitpid(pid, NULL, 0) != pid)
		exit(1);
}

KEEP void run(void)
{
	for (int i = 1; !expired(deadline); i++) {
		if (unit_is_hot(&rng))
			unit_vfork();
		else
			unit_cold();
		if (i % 16 == 0)
			spawn();
	}
}

KEEP int main(int argc, char **argv)
{
	deadline = deadline_ns(argc, argv);
	run();
	parts[0].chain = "[\"_start\",\"...\",\"main\",\"run\",\"unit_vfork\",\"child\",\"hot\"]";
	parts[1].chain = "[\"_start\",\"...\",\"main\",\"run\",\"unit_cold\",\"cold\"]";
	report_family(parts, 2, NULL);
	return 0;
}
