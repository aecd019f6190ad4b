// SPDX-License-Identifier: Apache-2.0
// Runs machine code it wrote into anonymous memory, as a JIT compiler does, and
// writes /tmp/perf-PID.map with its names. The code keeps frame pointers; the C
// around it does not.
// Truth: main → run → unit_jit → jit_hot (anonymous memory), about 70 %, and
// main → run → jit_outer (anonymous memory) → from_jit → cold, the rest.
#include <string.h>
#include <sys/mman.h>

#include "truth.h"

static struct truth parts[] = { { "jit_hot", 0, 0, 0 }, { "cold", 0, 0, 0 } };
static uint64_t deadline;
static struct rng rng = { 88172645463325252ULL };

BURNER(cold, 0xbf58476d1ce4e5b9ULL)

#if defined(__x86_64__)
// uint64_t jit_hot(uint64_t n, uint64_t x)
static const uint8_t hot_code[] = {
	0x55,			      // push %rbp
	0x48, 0x89, 0xe5,	      // mov %rsp,%rbp
	0x48, 0x89, 0xf0,	      // mov %rsi,%rax
	0x48, 0x6b, 0xc0, 0x4d,	      // 1: imul $77,%rax,%rax
	0x48, 0x01, 0xf8,	      // add %rdi,%rax
	0x48, 0xc1, 0xc0, 0x07,	      // rol $7,%rax
	0x48, 0xff, 0xcf,	      // dec %rdi
	0x75, 0xf0,		      // jne 1b
	0x5d,			      // pop %rbp
	0xc3,			      // ret
};
// uint64_t jit_outer(uint64_t (*f)(void)): calls f and adds 1
static const uint8_t outer_code[] = {
	0x55,			      // push %rbp
	0x48, 0x89, 0xe5,	      // mov %rsp,%rbp
	0x48, 0x83, 0xec, 0x20,	      // sub $32,%rsp
	0xff, 0xd7,		      // call *%rdi
	0x48, 0xff, 0xc0,	      // inc %rax
	0xc9,			      // leave
	0xc3,			      // ret
};
#elif defined(__aarch64__)
static const uint32_t hot_code[] = {
	0xa9bf7bfd,		      // stp x29,x30,[sp,#-16]!
	0x910003fd,		      // mov x29,sp
	0xd28009a2,		      // mov x2,#77
	0x9b020021,		      // 1: madd x1,x1,x2,x0
	0x93c11c21,		      // ror x1,x1,#7
	0xf1000400,		      // subs x0,x0,#1
	0x54ffffa1,		      // b.ne 1b
	0xaa0103e0,		      // mov x0,x1
	0xa8c17bfd,		      // ldp x29,x30,[sp],#16
	0xd65f03c0,		      // ret
};
static const uint32_t outer_code[] = {
	0xa9be7bfd,		      // stp x29,x30,[sp,#-32]!
	0x910003fd,		      // mov x29,sp
	0xd63f0000,		      // blr x0
	0x91000400,		      // add x0,x0,#1
	0xa8c27bfd,		      // ldp x29,x30,[sp],#32
	0xd65f03c0,		      // ret
};
#else
#error "write hot_code and outer_code for this machine"
#endif

#define OUTER_AT 256

static burner *jit_hot;
static uint64_t (*jit_outer)(uint64_t (*)(void));

static void compile(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *code = mmap(NULL, size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char path[64];
	FILE *map;

	if (code == MAP_FAILED)
		exit(1);
	memcpy(code, hot_code, sizeof(hot_code));
	memcpy(code + OUTER_AT, outer_code, sizeof(outer_code));
	__builtin___clear_cache((char *)code, (char *)code + size);
	if (mprotect(code, size, PROT_READ | PROT_EXEC))
		exit(1);
	jit_hot = (burner *)code;
	jit_outer = (uint64_t (*)(uint64_t (*)(void)))(code + OUTER_AT);

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	map = fopen(path, "w");
	if (!map)
		exit(1);
	fprintf(map, "%lx %zx jit_hot\n%lx %zx jit_outer\n", (unsigned long)code,
		sizeof(hot_code), (unsigned long)(code + OUTER_AT),
		sizeof(outer_code));
	if (fclose(map))
		exit(1);
}

KEEP uint64_t unit_jit(void)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x = jit_hot(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[0], used);
	return x;
}

KEEP uint64_t from_jit(void)
{
	uint64_t want = unit_ns(&rng), start = thread_ns(), x = start, used;

	do {
		x = cold(CHUNK, x);
		used = thread_ns() - start;
	} while (used < want);
	truth_add(&parts[1], used);
	return x;
}

KEEP void run(void)
{
	while (!expired(deadline))
		truth_sink += unit_is_hot(&rng) ? unit_jit() : jit_outer(from_jit);
}

KEEP int main(int argc, char **argv)
{
	deadline = deadline_ns(argc, argv);
	compile();
	run();
	parts[0].chain = "[\"_start\",\"...\",\"main\",\"run\",\"unit_jit\",\"jit_hot@[anon]\"]";
	parts[1].chain = "[\"_start\",\"...\",\"main\",\"run\",\"jit_outer@[anon]\",\"from_jit\",\"cold\"]";
	report(parts, 2, NULL);
	return 0;
}
