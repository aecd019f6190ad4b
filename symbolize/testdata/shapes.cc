// SPDX-License-Identifier: Apache-2.0

#include <cstdio>
#include <string>
#include <vector>

namespace shapes {

template <typename T> struct Box {
	T side;
	explicit Box(T s) : side(s) {}
	__attribute__((noinline)) T area(int scale) const { return side * side * scale; }
};

namespace {
__attribute__((noinline)) int hidden(const std::vector<int> &v)
{
	int sum = 0;
	for (int n : v)
		sum += n;
	return sum;
}
} // namespace

struct Base {
	virtual ~Base() = default;
	virtual int kind(const std::string &s) { return (int)s.size(); }
};

int run(Base &b)
{
	auto twice = [&](int n) __attribute__((noinline)) { return b.kind("x") + n * 2; };
	return twice(hidden({1, 2, 3}));
}

} // namespace shapes

extern "C" int plain_c(int n) { return n + 1; }

int main(int argc, char **argv)
{
	shapes::Base b;
	shapes::Box<double> d(1.5);
	shapes::Box<long> l(argc);

	std::printf("%d %f %ld %d\n", shapes::run(b), d.area(argc), l.area(argc), plain_c(argc));
}
