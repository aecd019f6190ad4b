/* SPDX-License-Identifier: Apache-2.0 */
/* Functions of every shape, to be compiled without call frame information. */
#define _GNU_SOURCE
#include <alloca.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))

struct big {
	long v[9];
};

static volatile int sink;
static volatile char drain;

static NOINLINE void touch(volatile char *p, int n)
{
	for (int i = 0; i < n; i += 64)
		p[i] = i;
	drain = p[n / 2];
}

static NOINLINE __attribute__((noreturn)) void fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

static NOINLINE int checked(int n)
{
	if (n < 0)
		fail("negative");
	if (n > 1000)
		fail("too large");
	return n + 1;
}

static NOINLINE int many(int a, int b, int c, int d, int e, int f, int g, struct big s)
{
	return checked(a + b + c + d + e + f + g) + (int)s.v[a & 7];
}

static NOINLINE int pass(int n)
{
	struct big s = {{n, 1, 2, 3, 4, 5, 6, 7}};

	return many(n, 1, 2, 3, 4, 5, 6, s) + many(1, 2, 3, 4, 5, 6, n, s);
}

static NOINLINE int large(int n)
{
	volatile char buf[3 * 4096 + 40];

	touch(buf, sizeof(buf));
	return buf[n] + pass(n);
}

static NOINLINE int huge(int n)
{
	volatile char buf[40 * 4096];

	touch(buf, 4096);
	return buf[0] + pass(n);
}

static NOINLINE int variable(int n)
{
	int sum = 0;

	for (int i = 1; i < 4; i++) {
		volatile char buf[n * i];

		touch(buf, n * i);
		sum += checked(buf[0] & 7);
	}
	volatile char *more = alloca(n);

	touch(more, n);
	return sum + more[0];
}

static NOINLINE int varargs(const char *format, ...)
{
	char text[64];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	return (int)strlen(text);
}

static NOINLINE int table(int n, int m)
{
	int x = checked(m);

	switch (n) {
	case 0: return checked(x) * 3;
	case 1: sink = pass(x); break;
	case 2: x += large(1); break;
	case 3: touch((char[64]){0}, 64); return x;
	case 4: x ^= varargs("%d %s", n, "four"); break;
	case 5: return variable(100);
	case 6: x += huge(2); break;
	case 7: x -= checked(7); return x + checked(8);
	case 8: sink = pass(n); fail(m > 50 ? "too many" : "too few");
	default: fail("no such case");
	}
	return checked(x & 511) + sink;
}

static int compare(const void *a, const void *b)
{
	return checked(*(const int *)a) - checked(*(const int *)b);
}

static void handler(int sig)
{
	sink += checked(sig);
}

static NOINLINE int rare(int *p)
{
	if (!p)
		return 0;
	for (int i = 0; i < 3; i++)
		p[i] = checked(p[i] & 255) ^ pass(i);
	return p[0] + p[1];
}

static NOINLINE int tail(int n)
{
	return n & 1 ? checked(n & 255) : table(n & 1, n & 255);
}

int main(int argc, char **argv)
{
	int numbers[] = {5, 4, 3, 2, 1};

	(void)argv;
	signal(SIGUSR1, handler);
	raise(SIGUSR1);
	qsort(numbers, 5, sizeof(int), compare);
	rare(numbers);
	sink += tail(4) + tail(argc);
	for (int i = 0; i < 8; i++)
		sink += table(i, argc);
	return 0;
}
