/* SPDX-License-Identifier: GPL-2.0 */
/* What a step of the walk reads: stack words, mappings, table rules, registers. */
#ifndef LOWFLAME_LOOKUP_H
#define LOWFLAME_LOOKUP_H

static const u32 zero = 0;

static __always_inline struct unw_state *state(void)
{
	return bpf_map_lookup_elem(&unw_states, &zero);
}

/*
 * Reads the stack word at addr through the window: bpf_probe_read_user costs
 * the same for 8 bytes as for 1024. A window that would cross into memory that
 * is not there is cut at the page's end.
 */
static __always_inline int read_word(struct unw_state *s, u64 addr, u64 *word)
{
	u64 off = addr - s->window_at;

	if (unlikely(addr & 7))
		return bpf_probe_read_user(word, 8, (void *)addr);
	if (off >= s->window_n) {
		u64 n = UNW_WINDOW;

		s->refills++;
		s->window_n = 0;
		if (bpf_probe_read_user(s->window, UNW_WINDOW, (void *)addr)) {
			n = 4096 - (addr & 4095);
			if (n >= UNW_WINDOW)
				return -1;
			if (bpf_probe_read_user(s->window, n & (UNW_WINDOW - 1), (void *)addr))
				return -1;
		}
		s->window_at = addr;
		s->window_n = n;
		off = 0;
	}
	off &= UNW_WINDOW - 8;
	*word = *(u64 *)(s->window + off);
	return 0;
}

/*
 * One step of a binary search without a branch, neither for the CPU to guess
 * nor for the verifier to follow both ways of: keeps the part of [lo, lo+n)
 * after its middle when the middle is at or before the key, else the part before.
 * diff is key - value, of which the sign counts.
 */
#define SEARCH_STEP(lo, n, half, diff)                                                                 \
	do {                                                                                           \
		u32 before = (s64)(diff) >> 63; /* all ones: the middle is after the key */            \
                                                                                                       \
		opaque(before);                                                                        \
		lo += (half + 1) & ~before;                                                            \
		n = (half & before) | ((n - half - 1) & ~before);                                      \
	} while (0)

#define MAPPING_STEPS 13
_Static_assert(UNW_PROC_MAPPINGS < 1 << MAPPING_STEPS, "the search comes to its end");

/* Loads the mapping that holds pc into s->map. */
static __always_inline int find_mapping(struct unw_state *s, u64 pc)
{
	struct unw_chunk *chunk;
	u32 lo = s->proc.off, n = s->proc.n;
	void *inner;

	inner = bpf_map_lookup_elem(&unw_maps, &s->proc.chunk);
	if (!inner)
		return -1;
	chunk = bpf_map_lookup_elem(inner, &zero);
	if (!chunk)
		return -1;
	/* First entry that begins after pc. */
	for (int i = 0; i < MAPPING_STEPS; i++) {
		u32 half = n >> 1;

		if (n == 0)
			break;
		SEARCH_STEP(lo, n, half,
			    pc - chunk->mappings[(lo + half) & (UNW_CHUNK_ENTRIES - 1)].begin);
	}
	if (lo == s->proc.off)
		return -1;
	s->map = chunk->mappings[(lo - 1) & (UNW_CHUNK_ENTRIES - 1)];
	if (pc < s->map.begin || pc >= s->map.end || s->map.generation != s->proc.generation) {
		s->map.begin = s->map.end = 0;
		return -1;
	}
	return 0;
}

#define ROW_STEPS 12
_Static_assert(UNW_PAGE_ROWS < 1 << ROW_STEPS, "the search comes to its end");

#define WORD(i) shard->words[(i) & (UNW_SHARD_WORDS - 1)]

/* Looks the packed rule for pc up in the table piece of s->map: an index, a few
 * binary steps, a run. See unwind/table.go. */
static __always_inline u32 find_rule(struct unw_state *s, struct unw_shard *shard, u64 pc)
{
	u64 rel = pc - s->map.base;
	u32 page = rel >> (s->map.shift & 31), target = rel & 0xffff;
	u32 lo = WORD(s->map.idx + page), n = WORD(s->map.idx + page + 1) - lo;
	u32 row, delta, head, rule, run;

	for (int i = 0; i < ROW_STEPS; i++) {
		u32 half = n >> 1;

		if (n == 0)
			break;
		SEARCH_STEP(lo, n, half, (u64)target - (WORD(s->map.row + lo + half) & 0xffff));
	}
	if (lo == 0)
		return UNW_KIND_NONE;
	row = WORD(s->map.row + lo - 1);
	delta = (target - row) & 0xffff;
	run = s->map.dict + (row >> 16);
	head = WORD(run);
	rule = head >> 8;
	n = head & 0xff;
	if (n > 1) {
		u32 last = WORD(run + n - 1);

		if ((last & 0xff) <= delta)
			return last >> 8;
	}
	for (u32 i = 1; i < 8; i++) {
		u32 entry;

		if (i >= n)
			break;
		entry = WORD(run + i);
		if ((entry & 0xff) > delta)
			break;
		rule = entry >> 8;
	}
	return rule;
}

/* Finds the rule for pc in the mappings and their tables. shard is set to the table
 * that a wide rule is in. Returns a stop, or UNW_STOP_NONE. */
static __always_inline u32 search_rule(struct unw_state *s, u64 pc, u32 *rule,
				       struct unw_shard **shard)
{
	void *inner;

	if ((pc < s->map.begin || pc >= s->map.end) && find_mapping(s, pc))
		return UNW_STOP_NO_MAPPING;
	switch (s->map.kind) {
	case UNW_MAP_TABLE:
		inner = bpf_map_lookup_elem(&unw_shards, &s->map.shard);
		if (!inner)
			return UNW_STOP_TABLE_MISSING;
		*shard = bpf_map_lookup_elem(inner, &zero);
		if (!*shard)
			return UNW_STOP_TABLE_MISSING;
		*rule = find_rule(s, *shard, pc);
		return UNW_STOP_NONE;
	case UNW_MAP_FP:
		*rule = UNW_KIND_FP_WALK;
		return UNW_STOP_NONE;
	case UNW_MAP_NO_RULE:
		*rule = UNW_KIND_NONE;
		return UNW_STOP_NONE;
	}
	return UNW_STOP_TABLE_MISSING;
}

/*
 * search_rule, but for addresses met before: callers of what runs now are callers of
 * what ran at the last tick. A search touches half a dozen cache lines, this one.
 * Mappings that change have another generation, so nothing stays that is not true.
 */
static __always_inline u32 lookup_rule(struct unw_state *s, struct unw_rule_cache *cache, u64 pc,
				       u32 *rule, struct unw_shard **shard)
{
	u64 hash = (pc ^ ((u64)s->proc.generation << 40)) * 0x9e3779b97f4a7c15ULL;
	struct unw_rule_slot *slot = &cache->slots[(hash >> 32) & (UNW_RULE_SLOTS - 1)];
	u32 stop;

	if (slot->pc == pc && slot->generation == s->proc.generation) {
		*rule = slot->rule;
		return UNW_STOP_NONE;
	}
	stop = search_rule(s, pc, rule, shard);
	if (stop == UNW_STOP_NONE && (*rule & 15) != UNW_KIND_WIDE) {
		slot->pc = pc;
		slot->generation = s->proc.generation;
		slot->rule = *rule;
	}
	return stop;
}

/* A register's value in the current frame, by DWARF number. */
static __always_inline int get_reg(struct unw_state *s, u32 reg, u64 *value)
{
	if (reg == REG_SP) {
		*value = s->sp;
		return FP_WALK_TELLS_SP || !s->sp_guessed ? 0 : -1;
	}
	if (reg == REG_FP) {
		*value = s->fp;
		return s->fp_known ? 0 : -1;
	}
	/* Keeps the index apart from the sign-extended word it comes from, of which
	 * 5.10 learns no bounds from comparing its lower half. */
	opaque(reg);
	if (reg >= UNW_REGS)
		return -1;
	if (!s->interrupted && !(s->called_interrupted && reg < 32 && (REGS_VOLATILE >> reg & 1)))
		return -1;
	*value = s->regs[reg];
	return 0;
}

/* The registers of the calling frame, as a rule gives them. */
struct caller {
	u64 pc, sp, fp;
	u8 fp_known;
};

#endif
