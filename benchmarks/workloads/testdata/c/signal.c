// SPDX-License-Identifier: Apache-2.0
// A signal handler that burns CPU. The second argument says how the signal comes:
//   timer     ITIMER_PROF interrupts cold anywhere (default)
//   altstack  the same, the handler runs on a stack of its own, which lies above
//             or below the interrupted one
//   raise     run calls raise
// Truth: main → run → unit_cold → cold → restorer (in libc, without a name) →
// on_signal → hot for timer and altstack; main → run → raise and what it calls in
// libc → restorer → on_signal → hot for raise. hot takes about 60 % of the CPU,
// cold the rest.
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "truth.h"

/* The file of the C library. */
#ifndef LIBC
#define LIBC "libc.so.6"
#endif

#define TIMER_US 30000
#define ALTSTACK_BYTES (64 << 10)

static struct truth parts[] = { { .function = "hot" }, { .function = "cold" } };
static uint64_t deadline;
static struct rng rng = { 88172645463325252ULL };
static int by_raise;

BURNER(hot, 0x9e3779b97f4a7c15ULL)
BURNER(cold, 0xbf58476d1ce4e5b9ULL)

KEEP void on_signal(int sig)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x = hot(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_sink += x + (uint64_t)sig;
	truth_add(&parts[0], used);
}

KEEP uint64_t unit_cold(void)
{
	uint64_t start = thread_ns(), hot_before = truth_ns(&parts[0]), x = start, used;

	do {
		x = cold(CHUNK, x);
		used = thread_ns() - start;
	} while (used < UNIT_MIN_NS);
	truth_add(&parts[1], used - (truth_ns(&parts[0]) - hot_before));
	return x;
}

KEEP void run(void)
{
	while (!expired(deadline)) {
		truth_sink += unit_cold();
		if (by_raise)
			raise(SIGPROF);
	}
}

static void use_altstack(void)
{
	stack_t s = { .ss_size = ALTSTACK_BYTES };

	s.ss_sp = mmap(NULL, ALTSTACK_BYTES, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s.ss_sp == MAP_FAILED || sigaltstack(&s, NULL))
		exit(1);
}

KEEP int main(int argc, char **argv)
{
	const char *mode = argc > 2 ? argv[2] : "timer";
	struct sigaction act = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct itimerval every = { { 0, TIMER_US }, { 0, TIMER_US } }, off = { 0 };

	by_raise = !strcmp(mode, "raise");
	if (!strcmp(mode, "altstack")) {
		use_altstack();
		act.sa_flags |= SA_ONSTACK;
	}
	deadline = deadline_ns(argc, argv);
	sigaction(SIGPROF, &act, NULL);
	if (!by_raise)
		setitimer(ITIMER_PROF, &every, NULL);
	run();
	setitimer(ITIMER_PROF, &off, NULL);
	parts[0].chain = by_raise ?
		"[\"_start\",\"...\",\"main\",\"run\",\"?@" LIBC "\",\"...\",\"?@" LIBC "\",\"on_signal\",\"hot\"]" :
		"[\"_start\",\"...\",\"main\",\"run\",\"...\",\"?@" LIBC "\",\"on_signal\",\"hot\"]";
	parts[1].chain = "[\"_start\",\"...\",\"main\",\"run\",\"unit_cold\",\"cold\"]";
	report(parts, 2, by_raise ? NULL :
		"[[\"_start\",\"...\",\"main\",\"run\",\"unit_cold\",\"cold\",\"?@" LIBC "\",\"on_signal\",\"hot\"]]");
	return 0;
}
