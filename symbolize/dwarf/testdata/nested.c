#include <stdlib.h>

static inline int outer(int n)
{
	int scale = n * 3;
	int __attribute__((noinline)) nested(int k)
	{
		int inner(int j) { return j * scale + k; }
		return inner(k) + inner(k + 1);
	}
	return nested(n) + nested(n + 1);
}

int main(int argc, char **argv)
{
	return outer(argc) + outer(atoi(argv[0]));
}
