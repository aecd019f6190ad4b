// SPDX-License-Identifier: Apache-2.0
// Copies /dev/zero to /dev/null in 256 KiB blocks, as dd does: nearly all samples
// are in the kernel, with the user stack of the system call below.
// Truth: main → run → unit_copy → copy_block → read in libc → kernel, about 70 %
// of the CPU at or below copy_block; the rest in cold.
#include <fcntl.h>

#include "truth.h"

#define BLOCK_BYTES (256 << 10)

static struct truth parts[] = { { "copy_block", 1, 0, 0 }, { "cold", 0, 0, 0 } };
static uint64_t deadline;
static struct rng rng = { 88172645463325252ULL };
static char block[BLOCK_BYTES];

BURNER(cold, 0xbf58476d1ce4e5b9ULL)

KEEP void copy_block(int from, int to)
{
	if (read(from, block, sizeof(block)) != sizeof(block) ||
	    write(to, block, sizeof(block)) != sizeof(block))
		exit(1);
}

KEEP void unit_copy(int from, int to)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), used;

	do {
		for (int i = 0; i < 64; i++)
			copy_block(from, to);
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[0], used);
}

KEEP uint64_t unit_cold(void)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x = cold(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[1], used);
	return x;
}

KEEP void run(int from, int to)
{
	while (!expired(deadline))
		if (unit_is_hot(&rng))
			unit_copy(from, to);
		else
			truth_sink += unit_cold();
}

KEEP int main(int argc, char **argv)
{
	int from = open("/dev/zero", O_RDONLY), to = open("/dev/null", O_WRONLY);

	if (from < 0 || to < 0)
		return 1;
	deadline = deadline_ns(argc, argv);
	run(from, to);
	parts[0].chain = "[\"_start\",\"...\",\"main\",\"run\",\"unit_copy\",\"copy_block\",\"...\"]";
	parts[1].chain = "[\"_start\",\"...\",\"main\",\"run\",\"unit_cold\",\"cold\"]";
	report(parts, 2,
	       "[[\"_start\",\"...\",\"main\",\"run\",\"unit_copy\",\"copy_block\",\"?@libc.so.6\",\"[kernel]\"]]");
	return 0;
}
