// SPDX-License-Identifier: Apache-2.0

package dwarf

// Forms, DWARF 5 §7.5.6, and those that GNU tools use of versions before 5.
const (
	formAddr          = 0x01
	formBlock2        = 0x03
	formBlock4        = 0x04
	formData2         = 0x05
	formData4         = 0x06
	formData8         = 0x07
	formString        = 0x08
	formBlock         = 0x09
	formBlock1        = 0x0a
	formData1         = 0x0b
	formFlag          = 0x0c
	formSdata         = 0x0d
	formStrp          = 0x0e
	formUdata         = 0x0f
	formRefAddr       = 0x10
	formRef1          = 0x11
	formRef2          = 0x12
	formRef4          = 0x13
	formRef8          = 0x14
	formRefUdata      = 0x15
	formIndirect      = 0x16
	formSecOffset     = 0x17
	formExprloc       = 0x18
	formFlagPresent   = 0x19
	formStrx          = 0x1a
	formAddrx         = 0x1b
	formRefSup4       = 0x1c
	formStrpSup       = 0x1d
	formData16        = 0x1e
	formLineStrp      = 0x1f
	formRefSig8       = 0x20
	formImplicitConst = 0x21
	formLoclistx      = 0x22
	formRnglistx      = 0x23
	formRefSup8       = 0x24
	formStrx1         = 0x25
	formStrx2         = 0x26
	formStrx3         = 0x27
	formStrx4         = 0x28
	formAddrx1        = 0x29
	formAddrx2        = 0x2a
	formAddrx3        = 0x2b
	formAddrx4        = 0x2c
	formGNUAddrIndex  = 0x1f01
	formGNUStrIndex   = 0x1f02
	formGNURefAlt     = 0x1f20
	formGNUStrpAlt    = 0x1f21
)

// How a form is laid out.
const (
	layFixed = iota // n bytes; the value is the number they are, if n is at most 8
	layUleb
	laySleb
	layString
	layBlock1 // a length of 1 byte, then as many
	layBlock2
	layBlock4
	layBlockUleb
	layImplicit // the value n is in the abbreviation
	layIndirect // the form comes first
)

// op decodes one attribute, or skips several.
type op struct {
	lay  uint8
	slot uint8 // where the value goes; 0: nowhere
	form uint16
	n    uint32
}

// compile returns the op of a form; ok is false if the form is not known.
func compile(form uint64, version uint16, offSize uint8) (o op, ok bool) {
	o = op{form: uint16(form), lay: layFixed}
	if form > 0xffff {
		return o, false
	}
	switch form {
	case formFlagPresent:
		o.lay, o.n = layImplicit, 1
	case formData1, formFlag, formRef1, formStrx1, formAddrx1:
		o.n = 1
	case formData2, formRef2, formStrx2, formAddrx2:
		o.n = 2
	case formStrx3, formAddrx3:
		o.n = 3
	case formData4, formRef4, formRefSup4, formStrx4, formAddrx4:
		o.n = 4
	case formAddr, formData8, formRef8, formRefSig8, formRefSup8:
		o.n = 8
	case formData16:
		o.n = 16
	case formStrp, formSecOffset, formLineStrp, formStrpSup, formGNURefAlt, formGNUStrpAlt:
		o.n = uint32(offSize)
	case formRefAddr:
		o.n = uint32(offSize)
		if version <= 2 {
			o.n = 8 // the size of an address, DWARF 2 §7.5.4
		}
	case formUdata, formRefUdata, formStrx, formAddrx, formLoclistx, formRnglistx, formGNUAddrIndex, formGNUStrIndex:
		o.lay = layUleb
	case formSdata:
		o.lay = laySleb
	case formString:
		o.lay = layString
	case formBlock1:
		o.lay = layBlock1
	case formBlock2:
		o.lay = layBlock2
	case formBlock4:
		o.lay = layBlock4
	case formBlock, formExprloc:
		o.lay = layBlockUleb
	case formIndirect:
		o.lay = layIndirect
	case formImplicitConst:
		o.lay = layImplicit
	default:
		return o, false
	}
	return o, true
}

// value is a decoded attribute: its form and its number; for formString where the
// bytes begin.
type value struct {
	form uint16
	v    uint64
}
