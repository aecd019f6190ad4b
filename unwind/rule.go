// SPDX-License-Identifier: Apache-2.0

// Package unwind turns the call frame information of a binary into compact
// tables, and walks stacks with them.
//
// The tables are what the BPF program in bpf/unwinder reads; [Walk] is the same
// walk in Go, used for samples that arrive with their registers and stack, and
// as the BPF walk's oracle.
package unwind

// Arch is the machine a table was made for. Both are compiled everywhere.
type Arch uint8

// The machines tables can be made for.
const (
	AMD64 Arch = iota
	ARM64
)

// Rule is a packed rule of 24 bits: kind | fp<<4 | off<<8. It says how to find the
// caller's registers at one PC. CFA (canonical frame address) is the stack
// pointer's value in the caller at the call, DWARF 5 §6.4.
//
// Offsets are bytes unless a comment says words; one word is 8 bytes.
// bpf/unwinder/abi.h has the same constants for the BPF program and a test
// holds the two equal.
type Rule uint32

// Kind is the low nibble of a packed rule.
type Kind uint8

// The kinds of rule.
const (
	// KindNone: no information; the walk ends with NO_RULE.
	KindNone Kind = iota
	// KindSP: CFA = SP + 8*off.
	KindSP
	// KindFP: CFA = FP + 8*off.
	KindFP
	// KindPLT: CFA = SP + 8 + ((PC&15) >= off ? 8 : 0), the expression linkers
	// write for lazy PLT entries. x86-64 only; FP unchanged, RA at CFA-8.
	KindPLT
	// KindGo: arm64 Go frames. CFA = SP + 8*off, RA at *(SP), FP at *(SP-8).
	// With off 0: leaf or prologue, RA = LR, FP unchanged. See
	// cmd/internal/obj/arm64: the frame record lies below SP.
	KindGo
	// KindSignal: the frame of a signal handler's return trampoline. All
	// registers are restored from the rt_sigframe: x86-64 sigcontext at
	// SP+40 (ucontext uc_mcontext; SP points at the ucontext), arm64 regs[0]
	// at SP+312. The frame found is an interrupted instruction.
	KindSignal
	// KindEnd: outermost frame, return address undefined.
	KindEnd
	// KindWide: off is an index into the table's wide rules.
	KindWide
	// KindFPWalk: frame-pointer walk. x86-64: CFA = FP+16, RA at CFA-8, FP at
	// CFA-16. arm64: FP at *(FP), RA at *(FP+8), SP = FP+16. FP must be 8-byte
	// aligned, at or above SP, and less than FPWalkMax above it, else the walk
	// ends with FP_IMPLAUSIBLE.
	KindFPWalk
	// KindFPJump: KindFPWalk across a stack switch (Go's systemstack, asmcgocall):
	// FP must be 8-byte aligned and not 0, the stack pointer may go anywhere.
	// SP = FP + 16 + 8*off; off is 0 on x86-64, and what lies above the frame
	// record on arm64, where Go keeps it at the bottom of the frame.
	KindFPJump
)

// FPWalkMax is how far above the stack pointer a frame pointer may lie to be
// believed where nothing but frame pointers is known.
const FPWalkMax = 1 << 20

// The fp nibble of KindSP and KindFP.
//
// x86-64 (RA always at CFA-8): FPSame; n in 1..14: FP saved at CFA-8*(n+1);
// FPUnknown: FP is lost, rules that need it end the walk.
//
// arm64: FPSame means FP unchanged and RA in LR (only legal in the top frame or
// below a signal frame, else LR_MID_STACK); n in 1..13: frame record, FP at
// CFA-8*(n+1) and RA one word above; FPRecordAtBase: FP at *(base), RA at
// *(base+8), base being the SP or FP that the CFA is relative to.
const (
	FPSame         = 0
	FPRecordAtBase = 14
	FPUnknown      = 15
)

// Wide is a rule that does not fit 24 bits: WideWords words in the table.
//
// CFA = reg + CFAOff, or with Deref: *(reg + CFAOff) + Add, or with Index too:
// *(reg + CFAOff + 8*index) + Add, an array of saved stack pointers.
type Wide struct {
	Reg    uint8 // DWARF register number (x86-64 psABI fig. 3.36, AADWARF64 §4.1)
	Deref  bool
	Index  uint8 // number of the index register, plus one; 0: none
	RA     Where // how to find the return address
	FP     Where // how to find the caller's frame pointer
	CFAOff int32
	Add    int32
	RAArg  int32
	FPArg  int32
}

// Where says how a wide rule recovers one register.
type Where uint8

// The places a wide rule can recover a register from.
const (
	WhereSame Where = iota // unchanged; for RA on arm64: in LR
	WhereCFA               // at *(CFA + arg)
	WhereReg               // in DWARF register arg (top frame only, unless SP or FP)
	WhereFP                // at *(FP + arg): DRAP frames
	// WhereUnknown: lost. A wide rule with RA lost stands for every row that
	// cannot be expressed: UNSUPPORTED_RULE, where KindNone gives NO_RULE.
	WhereUnknown
)

// WideWords is the size of an encoded wide rule in u32 words:
// word 0: Reg | load<<8 | RA<<16 | FP<<24, then CFAOff, Add, RAArg, FPArg. load is
// 0 without Deref, else 1 + Index.
const WideWords = 5

// MakeRule packs a rule.
func MakeRule(k Kind, fp uint8, off uint16) Rule {
	return Rule(k) | Rule(fp&15)<<4 | Rule(off)<<8
}

// Kind returns the kind nibble.
func (r Rule) Kind() Kind { return Kind(r & 15) }

// FP returns the fp nibble.
func (r Rule) FP() uint8 { return uint8(r >> 4 & 15) }

// Off returns the 16-bit operand: words, threshold, or wide index.
func (r Rule) Off() uint16 { return uint16(r >> 8) }
