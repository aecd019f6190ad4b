// SPDX-License-Identifier: Apache-2.0

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int __attribute__((noinline)) twice(int n)
{
	return n * 2 + rand();
}

int __attribute__((noinline)) measure(const char *s)
{
	return (int)strlen(s) + twice(3);
}

void __attribute__((weak, noinline)) say(const char *s)
{
	char copy[64];

	strncpy(copy, s, sizeof(copy) - 1);
	printf("%s %d\n", copy, measure(s));
}

int main(int argc, char **argv)
{
	int (*compare)(const char *, const char *) = strcmp;

	say(argv[0]);
	return compare(argv[0], "x") && argc > 5 ? atoi(argv[1]) : 0;
}
