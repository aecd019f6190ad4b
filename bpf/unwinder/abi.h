/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the BPF program and package unwinder share. bpf2go writes the Go side of
 * every struct and enum here from the object's BTF; rules and tables are
 * specified in unwind/rule.go and unwind/table.go, and abi_test.go holds the
 * constants equal.
 */
#ifndef LOWFLAME_ABI_H
#define LOWFLAME_ABI_H

#include "stops.h"

enum unw_limits {
	UNW_MAX_USER = 1024,	     /* user frames */
	UNW_MAX_KERNEL = 127,	     /* kernel frames: perf_event_max_stack */
	UNW_FRAMES = 2048,	     /* slots, a power of two for the verifier's mask */
	UNW_SHARDS = 256,	     /* table shards */
	UNW_SHARD_WORDS = 1 << 18,   /* u32 words in a shard: 1 MiB */
	UNW_CHUNKS = 64,	     /* mapping chunks */
	UNW_CHUNK_ENTRIES = 1 << 14, /* mappings in a chunk: 1 MiB */
	UNW_PROC_MAPPINGS = 1 << 12, /* mappings of one process */
	UNW_PAGE_ROWS = 4095,	     /* rows of a table in one page: unwind.MaxPageRows */
	UNW_RULE_SLOTS = 2048,	     /* rules remembered on each CPU */
	UNW_WINDOW = 2048,	     /* bytes of stack read at once */
	UNW_RAW_STACK = 16384,	     /* bytes of stack that travel with a raw sample */
	UNW_RAW_FAR = 8192,	     /* and of another stack that its frame pointers lead to */
	UNW_MAX_CGROUPS = 16,	     /* cgroups that can be sampled alone */
	UNW_COST_BUCKETS = 4096,     /* of a histogram of costs */
	UNW_REGS = 33,		     /* registers by DWARF number */
	UNW_COMM = 16,		     /* TASK_COMM_LEN */
};

enum unw_stop {
#define X(name, complete, text) UNW_STOP_##name,
	UNW_STOPS(X)
#undef X
		UNW_NUM_STOPS,
};
_Static_assert(UNW_NUM_STOPS <= 16, "unw_stats.stops is indexed with a mask of 15");

/* unwind/rule.go */
enum unw_kind {
	UNW_KIND_NONE,
	UNW_KIND_SP,
	UNW_KIND_FP,
	UNW_KIND_PLT,
	UNW_KIND_GO,
	UNW_KIND_SIGNAL,
	UNW_KIND_END,
	UNW_KIND_WIDE,
	UNW_KIND_FP_WALK,
	UNW_KIND_FP_JUMP,
};

enum unw_fp {
	UNW_FP_SAME = 0,
	UNW_FP_RECORD_AT_BASE = 14,
	UNW_FP_UNKNOWN = 15,
};

enum unw_where {
	UNW_WHERE_SAME,
	UNW_WHERE_CFA,
	UNW_WHERE_REG,
	UNW_WHERE_FP,
	UNW_WHERE_UNKNOWN,
};

#define UNW_WIDE_WORDS 5
#define UNW_FP_WALK_MAX (1ULL << 20) /* bytes a frame pointer may lie above SP */

/* What a mapping's code is walked with. */
enum unw_map_kind {
	UNW_MAP_NO_RULE, /* nothing is known about the file */
	UNW_MAP_TABLE,
	UNW_MAP_FP,	 /* anonymous executable memory: frame pointers */
	UNW_MAP_MISSING, /* the file has a table that is not loaded */
};

/* One executable mapping, or the part of one that a table piece covers. The
 * mappings of a process are sorted by begin and do not overlap. */
struct unw_mapping {
	u64 begin, end; /* process addresses */
	u64 base;	/* process address of the piece's first page */
	u32 idx;	/* word offsets in the shard */
	u32 row;
	u32 dict;
	u32 wide;
	u32 shard;
	u8 shift; /* log2 of the page size, bytes */
	u8 kind;  /* enum unw_map_kind */
	u16 reserved16;
	u32 generation; /* of the extent: another's after reuse */
	u32 reserved32;
	u64 reserved64;
};
_Static_assert(sizeof(struct unw_mapping) * UNW_CHUNK_ENTRIES == 1 << 20, "chunks are 1 MiB");

/* Where the mappings of a process are: entries [off, off+n) of a chunk. */
struct unw_proc {
	u32 chunk;
	u32 off;
	u32 n;
	u32 generation; /* differs each time the mappings change */
	u32 flags;	/* enum unw_proc_flags */
	u32 reserved;
};

enum unw_proc_flags {
	/* User space knows no more of addresses in no mapping, or without a
	 * rule: such samples are not sent raw. */
	UNW_PROC_SETTLED = 1,
};

/* What makes two samples the same. */
struct unw_key {
	u64 hash; /* of frames, kernel frame count and stop */
	u32 tgid;
	u32 tid;	/* 0 unless threads are told apart */
	u32 exec_id;	/* low half of task_struct.self_exec_id: a PID's images */
	u32 generation; /* unw_proc.generation: equal addresses may be other code */
	u32 stop;	/* enum unw_stop */
	u32 reserved;
	u8 comm[UNW_COMM]; /* of the thread */
};

struct unw_count {
	u64 n;
	u64 sent; /* the frames are in unw_traces; if not, the next of its kind tries again */
};

/* Head of a record in unw_traces; kernel_n + user_n frames follow, kernel
 * first, each innermost first. Bit 63 of a user frame: the address is an
 * interrupted instruction, not a return address. */
struct unw_trace {
	struct unw_key key;
	u64 time;   /* CLOCK_MONOTONIC ns */
	u32 window; /* parity of the window counted in */
	u16 kernel_n;
	u16 user_n;
};
#define UNW_FRAME_INTERRUPTED (1ULL << 63)

/* Head of a record in unw_raws: a sample whose user stack is left to user
 * space; stack_n bytes from the stack pointer up follow, then far_n from far up. */
struct unw_raw {
	struct unw_key key; /* hash is 0 */
	u64 time;
	u32 window;
	u16 kernel_n;
	u16 stack_n;
	u64 far; /* where the frame pointers first leave the bytes from the stack pointer up */
	u16 far_n;
	u16 walked; /* cfg_compare: the walk here is in unw_traces, with this time */
	u32 reserved;
	u64 regs[UNW_REGS]; /* by DWARF number */
	u64 pc, sp, fp, lr;
	u64 kernel[UNW_MAX_KERNEL];
};

/* What is timed with cfg_measure. A histogram has buckets of 16 ns, that of
 * UNW_COST_FRAME of 1 ns; the last bucket holds all that is longer. */
enum unw_cost {
	UNW_COST_WALK,	   /* the user stack */
	UNW_COST_FRAME,	   /* the same, by user frame */
	UNW_COST_SAMPLE,   /* the whole program, for a sample with a user stack that is counted */
	UNW_COST_BASELINE, /* bpf_get_stack(BPF_F_USER_STACK), for processes so marked */
	UNW_COSTS,
};

/* What unw_filter says of a process. */
enum unw_filtered {
	UNW_FILTER_SAMPLE = 1,
	UNW_FILTER_BASELINE = 2, /* cfg_measure: time the kernel's own walk instead */
};

struct unw_histogram {
	u64 sum;    /* ns */
	u64 frames; /* user frames */
	u64 n;
	u32 buckets[UNW_COST_BUCKETS];
};

/* Counters of one window on one CPU. In every window
 * fired = idle + filtered + counted + raw + every drop. */
struct unw_stats {
	u64 fired;	   /* timer expiries that ran the program */
	u64 idle;	   /* of the idle task */
	u64 filtered;	   /* of processes not asked for */
	u64 counted;	   /* in unw_counts, frames sent or not */
	u64 raw;	   /* in unw_raws */
	u64 drop_counts;   /* unw_counts was full or busy */
	u64 traces_full;   /* not a drop yet: unw_traces was full */
	u64 drop_state;	   /* per-CPU state was not there: cannot happen */
	u64 raw_full;	   /* not a drop: unw_raws was full, counted with its stop */
	u64 kernel_errors; /* not a drop: the kernel stack could not be taken */
	u64 ns;		   /* time spent in the program */
	u64 frames;	   /* user frames walked */
	u64 refills;	   /* stack windows read */
	u64 stops[16];	   /* by enum unw_stop, counted and raw alike */
};

#endif
