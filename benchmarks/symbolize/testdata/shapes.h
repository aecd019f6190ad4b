#ifndef SHAPES_H
#define SHAPES_H

namespace shapes {

struct Shape {
	virtual ~Shape();
	virtual long area(long scale) const = 0;
	long twice(long scale) const { return area(scale) * 2 + bias(scale); }
	static long bias(long n)
	{
		long sum = 0;
		for (long i = 0; i < n; i++)
			sum += i ^ (sum << 1);
		return sum;
	}
};

template <typename T, int N> struct Polygon : Shape {
	T side;
	explicit Polygon(T s) : side(s) {}
	long area(long scale) const override { return mix(side * N) * scale; }
	static long mix(T v)
	{
		return Shape::bias(v & 15) + v % 7;
	}
};

long total(Shape **s, int n);

} // namespace shapes

extern "C" long c_part(long n, long *out);

#endif
