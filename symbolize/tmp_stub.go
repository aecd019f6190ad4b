package symbolize

import (
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

type Binary struct {
	ID     string
	Object *objfile.Object
}
type Config struct{}
type Symbolizer struct{}
type JITProcess struct{ PID, NSPID uint32 }

func New(Config) *Symbolizer                                              { return &Symbolizer{} }
func (s *Symbolizer) User(b *Binary, a stack.LinkAddr) []Line             { return nil }
func (s *Symbolizer) Kernel(a stack.Addr) (string, []Line)                { return "", nil }
func (s *Symbolizer) JIT(j JITProcess, a stack.Addr) []Line               { return nil }
func (s *Symbolizer) KernelSymbol(stack.Addr, uint64, string, bool)       {}
func VDSO() (*objfile.Object, error)                                      { return nil, objfile.ErrNotFound }
