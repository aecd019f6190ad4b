// SPDX-License-Identifier: Apache-2.0
// The string functions of the C library: hand-written, in as many variants as
// there are vector extensions, without frames, and without names in a stripped
// library. Short and long operands, so that first and last instructions are hit too.
// Truth: main → run → unit_F → F in libc (or in main's own code around it), a
// twelfth of the CPU for each function F.
#include <string.h>

#include "truth.h"

#define CALLS 20000 /* of a short operand, about a millisecond */
#define LONG 4096

static uint64_t deadline;
static struct rng rng = { 88172645463325252ULL };
static char one[LONG], two[LONG];

/* Runs CALL for the length of a unit; n is the length of its operands. */
#define UNIT(name, CALL)                                                       \
	KEEP uint64_t unit_##name(void)                                        \
	{                                                                      \
		uint64_t want = unit_ns(&rng), start = thread_ns(), x = 0;     \
                                                                               \
		do {                                                           \
			for (size_t i = 0; i < CALLS / 16; i++) {              \
				size_t n = i % 8 ? i % 61 + 1 : LONG - 1;      \
				one[n] = two[n] = 0;                           \
				x += (uint64_t)(CALL);                         \
				one[n] = two[n] = 'a';                         \
			}                                                      \
		} while (thread_ns() - start < want);                          \
		return x;                                                      \
	}

UNIT(memcpy, memcpy(one, two, n))
UNIT(memmove, memmove(one, one + (i & 1), n))
UNIT(memset, memset(one, 'a', n))
UNIT(memcmp, memcmp(one, two, n))
UNIT(memchr, memchr(one, 0, n + 1))
UNIT(strlen, strlen(one))
UNIT(strnlen, strnlen(one, LONG))
UNIT(strcmp, strcmp(one, two))
UNIT(strncmp, strncmp(one, two, n))
UNIT(strchr, strchr(one, 'b'))
UNIT(strrchr, strrchr(one, 'b'))
UNIT(strcpy, strcpy(one, two))

static const struct {
	const char *name;
	uint64_t (*unit)(void);
} units[] = {
#define ENTRY(name) { #name, unit_##name }
	ENTRY(memcpy), ENTRY(memmove), ENTRY(memset), ENTRY(memcmp),
	ENTRY(memchr), ENTRY(strlen),  ENTRY(strnlen), ENTRY(strcmp),
	ENTRY(strncmp), ENTRY(strchr), ENTRY(strrchr), ENTRY(strcpy),
};
#define UNITS (sizeof(units) / sizeof(units[0]))

static struct truth parts[UNITS];

KEEP void run(void)
{
	while (!expired(deadline)) {
		size_t which = rng_next(&rng) % UNITS;
		uint64_t start = thread_ns();

		truth_sink += units[which].unit();
		truth_add(&parts[which], thread_ns() - start);
	}
}

KEEP int main(int argc, char **argv)
{
	char *present = "[", *more;

	memset(one, 'a', LONG);
	memset(two, 'a', LONG);
	deadline = deadline_ns(argc, argv);
	run();
	for (size_t i = 0; i < UNITS; i++) {
		const char *name = units[i].name;

		parts[i].function = format("unit_%s", name);
		parts[i].under = 1;
		parts[i].chain = format("[\"_start\",\"...\",\"main\",\"run\",\"unit_%s\",\"...\"]", name);
		more = format("[\"_start\",\"...\",\"main\",\"run\",\"unit_%s\",\"?@libc.so.6\"]", name);
		if (asprintf(&present, "%s%s%s", present, i ? "," : "", more) < 0)
			exit(1);
	}
	report(parts, UNITS, format("%s]", present));
	return 0;
}
