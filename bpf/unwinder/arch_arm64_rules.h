/* SPDX-License-Identifier: GPL-2.0 */
/* arm64: kinds SP, FP and GO. The return address is in LR until it is saved. */
#ifndef LOWFLAME_ARCH_RULES_H
#define LOWFLAME_ARCH_RULES_H

static __always_inline u32 return_in_link_register(struct unw_state *s, struct caller *c)
{
	c->pc = s->lr;
	return s->interrupted ? UNW_STOP_NONE : UNW_STOP_LR_MID_STACK;
}

/* Reads a saved FP and the return address one word above it. */
static __always_inline u32 read_record(struct unw_state *s, u64 at, struct caller *c)
{
	c->fp_known = 1;
	if (read_word(s, at, &c->fp) || read_word(s, at + 8, &c->pc))
		return UNW_STOP_READ_STACK;
	return UNW_STOP_NONE;
}

/* The stack pointer of a frame whose record FP points at, by a rule of kind SP or GO
 * that says where the record is. */
static __always_inline u64 sp_of_record(struct unw_state *s, u32 rule)
{
	u32 fp = (rule >> 4) & 15, off = (rule >> 8) & 0xffff;

	if ((rule & 15) == UNW_KIND_GO)
		return s->fp + 8;
	return fp == UNW_FP_RECORD_AT_BASE ? s->fp : s->fp - 8 * ((u64)off - fp - 1);
}

static __always_inline u32 apply_narrow(struct unw_state *s, u32 rule, struct caller *c)
{
	u32 fp = (rule >> 4) & 15, off = (rule >> 8) & 0xffff;
	u64 base;

	switch (rule & 15) {
	case UNW_KIND_SP:
	case UNW_KIND_GO:
		base = s->sp;
		if (s->sp_guessed) {
			base = sp_of_record(s, rule);
			if (base - s->sp >= UNW_FP_WALK_MAX)
				return UNW_STOP_FP_IMPLAUSIBLE;
		}
		break;
	case UNW_KIND_FP:
		if (!s->fp_known)
			return UNW_STOP_UNSUPPORTED_RULE;
		base = s->fp;
		break;
	default:
		return UNW_STOP_UNSUPPORTED_RULE;
	}
	c->sp = base + 8 * off;
	if ((rule & 15) == UNW_KIND_GO)
		return off ? read_record(s, base - 8, c) : return_in_link_register(s, c);
	if (fp == UNW_FP_SAME)
		return return_in_link_register(s, c);
	if (fp == UNW_FP_RECORD_AT_BASE)
		return read_record(s, base, c);
	if (fp == UNW_FP_UNKNOWN)
		return UNW_STOP_UNSUPPORTED_RULE;
	return read_record(s, c->sp - 8 * (fp + 1), c);
}

#endif
