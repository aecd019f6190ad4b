/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The usual load: unit() runs a timed unit of hot (about 70 % of them) or cold.
 * A workload puts whatever stack it is about between main and unit.
 */
#ifndef UNIT_H
#define UNIT_H

#include "truth.h"

static struct truth parts[] = { { .function = "hot" }, { .function = "cold" } };
static uint64_t deadline;

BURNER(hot, 0x9e3779b97f4a7c15ULL)
BURNER(cold, 0xbf58476d1ce4e5b9ULL)

KEEP uint64_t unit(struct rng *rng)
{
	int which = !unit_is_hot(rng);
	uint64_t want = unit_ns(rng), start = thread_ns(), x = start, used;
	burner *burn = which ? cold : hot;

	do {
		x = burn(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[which], used);
	return x;
}

/* The chain of JSON strings path, then unit, then leaf. */
static inline char *unit_chain(const char *path, const char *leaf)
{
	char *s;

	if (asprintf(&s, "[%s,\"unit\",\"%s\"]", path, leaf) < 0)
		exit(1);
	return s;
}

/* Prints the report for units whose caller's stack is path. */
static inline void report_units(const char *path, const char *present)
{
	parts[0].chain = unit_chain(path, "hot");
	parts[1].chain = unit_chain(path, "cold");
	report(parts, 2, present);
}

#endif
