static inline long square(long n) { return n * n; }

static long cubes(long n)
{
	long sum = 0;
	for (long i = 0; i < n; i++)
		sum += square(i) * i;
	return sum;
}

long c_part(long n, long *out)
{
	if (n > 100) {
		*out = cubes(n);
		return square(n);
	}
	for (int i = 0; i < 4; i++)
		out[i] = cubes(n + i) ^ square(out[i]);
	return out[n & 3];
}
