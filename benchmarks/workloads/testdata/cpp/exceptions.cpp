// SPDX-License-Identifier: Apache-2.0
// C++: virtual calls through a base class, and exceptions thrown through frames
// with destructors. Raising one makes libgcc's unwinder walk and then rewrite this
// very stack, with frames whose unwind rules are unusual (_Unwind_RaiseException).
// Truth: main → work::run → work::spend → work::Circle::burn, a virtual call, about
// 60 % of the CPU; main → work::run → work::throw_many → work::catcher →
// work::thrower × 1 to 8 → libstdc++ and libgcc, about 40 % at or below throw_many.
#include <memory>

#include "../c/truth.h"

static struct truth parts[] = {
	{ "work::Circle::burn", 0, 0, nullptr },
	{ "work::throw_many", 1, 0, nullptr },
};

namespace work {

static uint64_t deadline;
static struct rng rng = { 88172645463325252ULL };

struct Problem {
	uint64_t code;
};

struct Shape {
	virtual ~Shape() = default;
	virtual uint64_t burn(uint64_t n, uint64_t x) const = 0;
};

struct Circle : Shape {
	KEEP uint64_t burn(uint64_t n, uint64_t x) const override
	{
		for (uint64_t i = 0; i < n; i++) {
			x ^= x >> 29;
			x = x * 0x9e3779b97f4a7c15ULL + i;
		}
		return x;
	}
};

struct Square : Shape {
	KEEP uint64_t burn(uint64_t n, uint64_t x) const override
	{
		return n + x;
	}
};

struct Guard {
	uint64_t *count;
	KEEP ~Guard() { ++*count; }
};

KEEP uint64_t thrower(int depth, uint64_t *count)
{
	Guard guard{ count };

	if (depth <= 1)
		throw Problem{ *count };
	return thrower(depth - 1, count) + 1;
}

KEEP uint64_t catcher(int depth)
{
	uint64_t count = 0;

	try {
		return thrower(depth, &count);
	} catch (const Problem &p) {
		return p.code + count;
	}
}

KEEP uint64_t throw_many(int n)
{
	uint64_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += catcher(1 + i % 8);
	return sum;
}

KEEP uint64_t spend(const Shape &shape)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x = shape.burn(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[0], used);
	return x;
}

KEEP uint64_t throw_unit()
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x += throw_many(200);
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[1], used);
	return x;
}

KEEP void run(const Shape &shape)
{
	while (!expired(deadline))
		truth_sink += rng_next(&rng) % 10 < 6 ? spend(shape) : throw_unit();
}

} // namespace work

KEEP int main(int argc, char **argv)
{
	std::unique_ptr<work::Shape> shape;

	if (argc > 9)
		shape = std::make_unique<work::Square>();
	else
		shape = std::make_unique<work::Circle>();
	work::deadline = deadline_ns(argc, argv);
	work::run(*shape);
	parts[0].chain =
		"[\"_start\",\"...\",\"main\",\"work::run\",\"work::spend\",\"work::Circle::burn\"]";
	parts[1].chain =
		"[\"_start\",\"...\",\"main\",\"work::run\",\"work::throw_unit\",\"work::throw_many\",\"...\"]";
	report(parts, 2,
	       "[[\"_start\",\"...\",\"main\",\"work::run\",\"work::throw_unit\",\"work::throw_many\",\"work::catcher\",\"work::thrower*8\",\"__cxa_throw@libstdc++.so.6\",\"_Unwind_RaiseException@libgcc_s.so.1\",\"...\"]]");
	return 0;
}
