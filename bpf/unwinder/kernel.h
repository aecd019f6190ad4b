/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The few kernel types and BPF helpers the program uses, instead of a
 * vmlinux.h of 100 000 lines. Structs marked CORE hold only the fields that are
 * read; their offsets are relocated at load from the running kernel's BTF.
 */
#ifndef LOWFLAME_KERNEL_H
#define LOWFLAME_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed int s32;
typedef signed long long s64;

_Static_assert(sizeof(u64) == 8 && sizeof(u32) == 4 && sizeof(u16) == 2, "integer widths");

#define NULL ((void *)0)
#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#define CORE __attribute__((preserve_access_index))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
/* Makes a value look used and changed to the compiler. */
#define opaque(x) asm volatile("" : "+r"(x))
/* Nothing moves across it. */
#define barrier() asm volatile("" : : : "memory")

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_NOEXIST = 1,
	BPF_F_MMAPABLE = 1 << 10,
	BPF_F_USER_STACK = 1 << 8,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
	BPF_RB_AVAIL_DATA = 0,
	PF_KTHREAD = 0x00200000,
};

/* include/uapi/linux/bpf.h, by helper number. */
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value,
				   u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_get_current_comm)(void *buf, u32 size) = (void *)16;
static u64 (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_current_task_under_cgroup)(void *map, u32 index) = (void *)37;
static long (*bpf_get_stack)(void *ctx, void *buf, u32 size, u64 flags) = (void *)67;
static long (*bpf_probe_read_user)(void *dst, u32 size, const void *src) = (void *)112;
static long (*bpf_probe_read_kernel)(void *dst, u32 size, const void *src) = (void *)113;
static long (*bpf_ringbuf_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static u64 (*bpf_ringbuf_query)(void *ring, u64 flags) = (void *)134;
static void *(*bpf_get_current_task_btf)(void) = (void *)158;
static long (*bpf_task_pt_regs)(void *task) = (void *)175;

struct atomic {
	s32 counter;
} CORE;

struct signal_struct {
	struct atomic live;
} CORE;

struct task_struct {
	s32 pid;
	s32 tgid;
	u32 flags;
	void *mm;
	void *stack;
	struct signal_struct *signal;
	u64 self_exec_id;
} CORE;

/* Only its size is asked for. */
struct pt_regs {
	u64 first;
} CORE;

/* BPF_TYPE_SIZE of the running kernel's type: clang, BPF CO-RE relocations. */
#define KERNEL_SIZEOF(type) __builtin_preserve_type_info(*(type *)0, 1)

/* Reads one field through the relocated offset. */
#define READ_FIELD(dst, ptr, field)                                                                    \
	bpf_probe_read_kernel(&(dst), sizeof(dst), __builtin_preserve_access_index(&(ptr)->field))

struct bpf_raw_tracepoint_args {
	u64 args[0];
};

#endif
