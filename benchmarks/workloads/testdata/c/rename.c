// SPDX-License-Identifier: Apache-2.0
// Two threads that call themselves "a) R 1\n\xff": bytes that end the name in
// /proc/PID/stat too early, end a line, and are no UTF-8.
// Truth: clone3 → start_thread → renamed → unit → hot 70 %, cold 30 %.
#include <pthread.h>
#include <sys/prctl.h>

#include "unit.h"

#define THREADS 2

KEEP void *renamed(void *arg)
{
	struct rng rng = { 88172645463325252ULL * (2 * (uintptr_t)arg + 1) };
	uint64_t sum = 0;

	prctl(PR_SET_NAME, "a) R 1\n\xff");
	while (!expired(deadline))
		sum += unit(&rng);
	return (void *)(uintptr_t)sum;
}

KEEP int main(int argc, char **argv)
{
	pthread_t threads[THREADS];

	deadline = deadline_ns(argc, argv);
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, renamed, (void *)i))
			return 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	report_units("\"?@libc.so.6\",\"?@libc.so.6\",\"renamed\"", NULL);
	return 0;
}
