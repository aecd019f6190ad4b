/* SPDX-License-Identifier: GPL-2.0 */
/* Maps, options and per-CPU state. Sizes marked 1 are set before loading. */
#ifndef LOWFLAME_MAPS_H
#define LOWFLAME_MAPS_H

/* Options: set before the program is loaded, so that the verifier drops the
 * branches not taken. */
const volatile u8 cfg_filter;	     /* sample only tgids in unw_filter */
const volatile u8 cfg_follow;	     /* children of those are sampled too */
const volatile u8 cfg_threads;	     /* tell threads apart by tid */
const volatile u8 cfg_task_pt_regs;  /* bpf_task_pt_regs is there: 5.15 */
const volatile u8 cfg_no_kernel;     /* leave kernel stacks out */
const volatile u32 cfg_kernel_stack; /* THREAD_SIZE, bytes */
const volatile u32 cfg_self;	     /* tgid never sampled, 0 for none */
const volatile u8 cfg_idle;	     /* sample the idle task too */
const volatile u8 cfg_cgroups;	     /* sample only below this many cgroups in unw_cgroups */
const volatile u8 cfg_measure;	     /* keep unw_costs */
const volatile u8 cfg_compare;	     /* send every sample raw as well as walked */
const volatile u32 cfg_wake_bytes;   /* wake the reader of unw_traces at this fill */

/* Parity of the window being counted: flipped by user space, which then waits
 * for every CPU to leave the program (membarrier) and drains the other side. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, u64);
} unw_window SEC(".maps");

struct unw_shard {
	u32 words[UNW_SHARD_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, UNW_SHARDS);
	__type(key, u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_ARRAY);
			__uint(max_entries, 1);
			__uint(map_flags, BPF_F_MMAPABLE);
			__uint(key_size, sizeof(u32));
			__uint(value_size, sizeof(struct unw_shard));
		});
} unw_shards SEC(".maps");

struct unw_chunk {
	struct unw_mapping mappings[UNW_CHUNK_ENTRIES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, UNW_CHUNKS);
	__type(key, u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_ARRAY);
			__uint(max_entries, 1);
			__uint(map_flags, BPF_F_MMAPABLE);
			__uint(key_size, sizeof(u32));
			__uint(value_size, sizeof(struct unw_chunk));
		});
} unw_maps SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct unw_proc);
} unw_procs SEC(".maps");

/* When a process last began another program, CLOCK_MONOTONIC ns: mappings known
 * from before are not its any more, whenever user space comes to publish them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} unw_execs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u8);
} unw_filter SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, UNW_MAX_CGROUPS);
	__type(key, u32);
	__type(value, u32);
} unw_cgroups SEC(".maps");

/* By enum unw_cost; one entry unless cfg_measure. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct unw_histogram);
} unw_costs SEC(".maps");

/* Two sides, by window parity. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct unw_key);
	__type(value, struct unw_count);
} unw_counts0 SEC(".maps"), unw_counts1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1);
} unw_traces SEC(".maps"), unw_raws SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct unw_stats);
} unw_stats_map SEC(".maps");

/* The walk in progress on this CPU. The program runs with interrupts off and
 * never nests, so one per CPU is enough. */
struct unw_state {
	u64 pc, sp, fp, lr;
	u64 regs[UNW_REGS]; /* of the last interrupted instruction */
	u64 time;	    /* CLOCK_MONOTONIC ns */
	u64 hash;
	u32 user_n;
	u8 interrupted; /* pc is an interrupted instruction: regs are its */
	u8 fp_known;
	u8 jumped;	       /* the stack pointer may go anywhere in this step */
	u8 fp_walked;	       /* this frame was found by KIND_FP_WALK */
	u8 sp_guessed;	       /* and so sp is only known to be no higher than the real one */
	u8 called_interrupted; /* this frame called the one whose regs are known */
	u8 signals;	       /* a signal frame was crossed: regs are not the sample's */
	u32 kernel_n;
	u32 refills;
	struct unw_proc proc;
	struct unw_mapping map; /* of the last PC */
	u64 window_at;		/* address of window[0], 8-byte aligned */
	u64 window_n;		/* valid bytes */
	u8 window[UNW_WINDOW];
	struct sigcontext sigcontext;
	struct user_regs user_regs; /* as the kernel saved them; half of a BPF stack */
	struct unw_trace trace;
	u64 frames[UNW_FRAMES];
};
/* Per-CPU values are at most 32 KiB: kernel, PCPU_MIN_UNIT_SIZE. */
_Static_assert(sizeof(struct unw_state) <= 32768, "per-CPU map value");
_Static_assert(UNW_MAX_USER + UNW_MAX_KERNEL + 1 < UNW_FRAMES, "frames are indexed with a mask");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct unw_state);
} unw_states SEC(".maps");

/* A rule found before, for an address in the mappings of one generation. */
struct unw_rule_slot {
	u64 pc;
	u32 generation; /* 0: empty */
	u32 rule;	/* not UNW_KIND_WIDE, which needs its table */
};

struct unw_rule_cache {
	struct unw_rule_slot slots[UNW_RULE_SLOTS];
};
_Static_assert(sizeof(struct unw_rule_cache) <= 32768, "per-CPU map value");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct unw_rule_cache);
} unw_rule_caches SEC(".maps");

/* One page more than is sent, so that reads of up to a page may begin anywhere
 * below. */
struct unw_raw_buffer {
	struct unw_raw raw;
	u8 stack[UNW_RAW_STACK + UNW_RAW_FAR + 4096];
};
_Static_assert(sizeof(struct unw_raw_buffer) <= 32768, "per-CPU map value");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct unw_raw_buffer);
} unw_raw_buffers SEC(".maps");

#endif
