# SPDX-License-Identifier: Apache-2.0
# A row of every kind that call frame information can ask for on x86-64.
	.text
	.globl	_start
	.type	_start, @function
_start:
	.cfi_startproc
	.cfi_undefined rip
	xorl	%ebp, %ebp
	call	usual
	hlt
	.cfi_endproc
	.size	_start, .-_start

	.balign	16
	.type	usual, @function
usual:
	.cfi_startproc
	pushq	%rbp
	.cfi_def_cfa_offset 16
	.cfi_offset rbp, -16
	movq	%rsp, %rbp
	.cfi_def_cfa_register rbp
	call	wide
	popq	%rbp
	.cfi_def_cfa rsp, 8
	.cfi_same_value rbp
	ret
	.cfi_endproc
	.size	usual, .-usual

	.balign	16
	.type	wide, @function
wide:
	.cfi_startproc
	movq	%rsp, %r10
	.cfi_def_cfa r10, 8
	nop
	.cfi_def_cfa rsp, 524288 * 8
	nop
	# CFA = *(rbp - 8) + 16: DW_OP_breg6 -8, deref, plus_uconst 16
	.cfi_escape 0x0f, 0x05, 0x76, 0x78, 0x06, 0x23, 0x10
	nop
	# rbp at *(rbp + 0): DW_OP_breg6 0
	.cfi_escape 0x10, 0x06, 0x02, 0x76, 0x00
	nop
	# CFA = rsp + rax: no rule says that
	.cfi_escape 0x0f, 0x05, 0x77, 0x00, 0x70, 0x00, 0x22
	nop
	.cfi_def_cfa rsp, 16
	.cfi_register rip, rdi
	.cfi_undefined rbp
	ret
	.cfi_endproc
	.size	wide, .-wide

	.balign	16
	.type	unknown, @function
unknown:
	int3
	.size	unknown, .-unknown
