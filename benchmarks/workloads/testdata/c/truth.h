/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every workload shares: units of work that are timed with the thread's
 * own CPU clock, and the report of where the time went.
 *
 * A unit lasts 10 to 30 ms and its length is random, so that neither the clock
 * reads (one per ~1 ms of work) nor the sampling period can bias a share: the
 * count of samples in a unit differs from its length by less than one sample,
 * and a run of 3 s has about 150 units.
 *
 * Usage of every workload: PROGRAM [SECONDS [ARGS]], 5 seconds by default.
 * The last line on stdout is the report, one JSON object:
 *
 *	{"pid":1,"family":false,"cpu_ns":1,"user_ns":1,
 *	 "truth":[{"function":"hot","under":false,"share":0.7,"chain":["main","hot"]}],
 *	 "present":[["main","cold"]]}
 *
 * With family the report is of all the program's processes. share is of the CPU time: with under, the time anywhere below
 * function, else the time in function itself. chain is the stack root first of
 * every sample counted for that entry; see ParseChain in the Go package for its
 * language.
 */
#ifndef TRUTH_H
#define TRUTH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Keeps its name, its frame and its calls whatever the optimizer thinks. */
#define KEEP __attribute__((noipa))

/* One burner call with CHUNK takes about a millisecond. */
#define CHUNK 300000ULL

#define NS_PER_SEC 1000000000ULL
#define UNIT_MIN_NS 10000000ULL
#define UNIT_MAX_NS 30000000ULL

typedef uint64_t burner(uint64_t n, uint64_t x);

/*
 * A leaf that burns CPU: a chain of dependent steps, no calls, no memory. The
 * odd constant makes each one different code.
 */
#define BURNER(name, odd)                                                      \
	KEEP uint64_t name(uint64_t n, uint64_t x)                             \
	{                                                                      \
		for (uint64_t i = 0; i < n; i++) {                             \
			x ^= x >> 29;                                          \
			x = x * (odd) + i;                                     \
		}                                                              \
		return x;                                                      \
	}

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

static inline uint64_t thread_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static inline uint64_t user_ns(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (uint64_t)u.ru_utime.tv_sec * NS_PER_SEC +
	       (uint64_t)u.ru_utime.tv_usec * 1000;
}

/* Where results of burners go so that none is dead code. */
static volatile uint64_t truth_sink;

/* State of a pseudo-random sequence: one per thread. */
struct rng {
	uint64_t x;
};

static inline uint64_t rng_next(struct rng *r)
{
	r->x ^= r->x << 13;
	r->x ^= r->x >> 7;
	r->x ^= r->x << 17;
	return r->x;
}

/* How long the next unit is to be, ns of CPU. */
static inline uint64_t unit_ns(struct rng *r)
{
	return UNIT_MIN_NS + rng_next(r) % (UNIT_MAX_NS - UNIT_MIN_NS);
}

/* Whether the next unit is one of the hot function: 7 times of 10. */
static inline int unit_is_hot(struct rng *r)
{
	return rng_next(r) % 10 < 7;
}

static inline uint64_t deadline_ns(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 5;

	return clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
}

static inline int expired(uint64_t deadline)
{
	return clock_ns(CLOCK_MONOTONIC) >= deadline;
}

/* One line of truth: share of CPU time and the stack that goes with it. */
struct truth {
	const char *function;
	int under;
	uint64_t ns;
	const char *chain; /* JSON array */
};

/* Threads and signal handlers share a truth. */
static inline void truth_add(struct truth *t, uint64_t ns)
{
	__atomic_fetch_add(&t->ns, ns, __ATOMIC_RELAXED);
}

static inline uint64_t truth_ns(const struct truth *t)
{
	return __atomic_load_n(&t->ns, __ATOMIC_RELAXED);
}

/* Returns text with name in place of its %s. */
static inline char *format(const char *text, const char *name)
{
	char *s;

	if (asprintf(&s, text, name) < 0)
		exit(1);
	return s;
}

/* Prints the report of total ns of CPU; family: of the children too. */
static inline void report_total(const struct truth *t, int n, const char *present,
				uint64_t total, int family)
{
	printf("{\"pid\":%d,\"family\":%s,\"cpu_ns\":%llu,\"user_ns\":%llu,\"truth\":[",
	       (int)getpid(), family ? "true" : "false", (unsigned long long)total,
	       (unsigned long long)user_ns());
	for (int i = 0; i < n; i++)
		printf("%s{\"function\":\"%s\",\"under\":%s,\"share\":%.5f,\"chain\":%s}",
		       i ? "," : "", t[i].function,
		       t[i].under ? "true" : "false",
		       (double)truth_ns(&t[i]) / (double)total, t[i].chain);
	printf("],\"present\":%s}\n", present ? present : "[]");
	fflush(stdout);
}

/* Prints the report. present is a JSON array of chains, or NULL. */
static inline void report(const struct truth *t, int n, const char *present)
{
	report_total(t, n, present, clock_ns(CLOCK_PROCESS_CPUTIME_ID), 0);
}

/* The same for the process and the children it has waited for. */
static inline void report_family(const struct truth *t, int n, const char *present)
{
	struct rusage u;

	getrusage(RUSAGE_CHILDREN, &u);
	report_total(t, n, present,
		     clock_ns(CLOCK_PROCESS_CPUTIME_ID) +
			     ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * NS_PER_SEC +
			     ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000,
		     1);
}

#endif
