#include "shapes.h"

#include <cstdio>
#include <cstdlib>

using namespace shapes;

namespace {
struct Local {
	long v;
	long __attribute__((noinline)) slow(long n) const
	{
		if (n == 0)
			abort();
		return Shape::bias(n) * v;
	}
};
} // namespace

static long __attribute__((noinline)) unused_by_linker(long n) { return Shape::bias(n); }
long dead_code(long n);
long dead_code(long n) { return unused_by_linker(n) + 1; }

static inline __attribute__((always_inline)) long level1(long n) { return Shape::bias(n) + 1; }
static inline __attribute__((always_inline)) long level2(long n)
{
	long r = level1(n);
	return r + level1(n + 1);
}

long drive(int argc);
long drive(int argc)
{
	struct Counter {
		long n = 0;
		__attribute__((noinline)) long next() { return n += level1(n & 7); }
	} counter;
	auto twist = [&](long v) __attribute__((noinline)) {
		if (v & 1)
			return level2(v);
		return counter.next();
	};
	long sum = 0;
	for (int i = 0; i < argc * 4; i++)
		sum += twist(i);
	try {
		Local l{sum};
		sum += l.slow(argc);
	} catch (...) {
		sum--;
	}
	return sum;
}

int main(int argc, char **argv)
{
	Polygon<long, 3> a(argc);
	Polygon<int, 4> b(argc + 1);
	Shape *s[] = {&a, &b};
	long out[4] = {};
	long sum = total(s, 2) + drive(argc) + c_part(argc, out) + level2(argc);
	std::printf("%ld %s\n", sum + out[0], argv[0]);
	return 0;
}
