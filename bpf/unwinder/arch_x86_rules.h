/* SPDX-License-Identifier: GPL-2.0 */
/* x86-64: kinds SP, FP and PLT. The return address is always at CFA-8. */
#ifndef LOWFLAME_ARCH_RULES_H
#define LOWFLAME_ARCH_RULES_H

static __always_inline u32 return_in_link_register(struct unw_state *s, struct caller *c)
{
	return UNW_STOP_UNSUPPORTED_RULE;
}

static __always_inline u32 apply_narrow(struct unw_state *s, u32 rule, struct caller *c)
{
	u32 fp = (rule >> 4) & 15, off = (rule >> 8) & 0xffff;
	u64 cfa;

	switch (rule & 15) {
	case UNW_KIND_SP:
		cfa = s->sp + 8 * off;
		break;
	case UNW_KIND_FP:
		if (!s->fp_known)
			return UNW_STOP_UNSUPPORTED_RULE;
		cfa = s->fp + 8 * off;
		break;
	case UNW_KIND_PLT:
		cfa = s->sp + 8 + ((s->pc & 15) >= off ? 8 : 0);
		fp = UNW_FP_SAME;
		break;
	default:
		return UNW_STOP_UNSUPPORTED_RULE;
	}
	if (fp == UNW_FP_UNKNOWN)
		c->fp_known = 0;
	else if (fp != UNW_FP_SAME) {
		c->fp_known = 1;
		if (read_word(s, cfa - 8 * (fp + 1), &c->fp))
			return UNW_STOP_READ_STACK;
	}
	c->sp = cfa;
	return read_word(s, cfa - 8, &c->pc) ? UNW_STOP_READ_STACK : UNW_STOP_NONE;
}

#endif
