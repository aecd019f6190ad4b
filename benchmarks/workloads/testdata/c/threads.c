// SPDX-License-Identifier: Apache-2.0
// Eight POSIX threads, named worker-0 to worker-7; main only waits.
// Truth: clone3 → start_thread (both in libc, not in its dynamic symbols) →
// worker → unit → hot 70 %, cold 30 %, over all threads.
#include <pthread.h>

#include "unit.h"

/* The file of the C library. */
#ifndef LIBC
#define LIBC "libc.so.6"
#endif

#define THREADS 8

KEEP void *worker(void *arg)
{
	struct rng rng = { 88172645463325252ULL * (2 * (uintptr_t)arg + 1) };
	char name[16];
	uint64_t sum = 0;

	snprintf(name, sizeof(name), "worker-%d", (int)(uintptr_t)arg);
	pthread_setname_np(pthread_self(), name);
	while (!expired(deadline))
		sum += unit(&rng);
	return (void *)(uintptr_t)sum;
}

KEEP int main(int argc, char **argv)
{
	pthread_t threads[THREADS];

	deadline = deadline_ns(argc, argv);
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, worker, (void *)i))
			return 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	report_units("\"?@" LIBC "\",\"?@" LIBC "\",\"worker\"", NULL);
	return 0;
}
