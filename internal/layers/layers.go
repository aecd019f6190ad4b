// SPDX-License-Identifier: Apache-2.0

// Package layers holds the import rules of the module and checks the source
// tree against them. It parses the files itself: a test that asks `go list`
// is served stale from the test cache, which does not know what `go list` read.
package layers

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Violation is one place that breaks a rule.
type Violation struct {
	File string // slash-separated, relative to the module's root
	Line int
	Text string // what is wrong, and whose business it is instead
}

func (v Violation) String() string {
	return fmt.Sprintf("%s:%d: %s", v.File, v.Line, v.Text)
}

// Check returns the violations of r in the Go files of tree, the module's root,
// ordered by file and line, and the number of files it read. It leaves out
// nested modules, testdata, and directories whose name starts with a dot or an
// underscore. It returns an error if a file cannot be read or parsed.
func Check(tree fs.FS, r Rules) (found []Violation, files int, err error) {
	err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipDir(tree, name)
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		files++
		v, err := checkFile(tree, name, r)
		found = append(found, v...)
		return err
	})
	slices.SortFunc(found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text))
	})
	return found, files, err
}

func skipDir(tree fs.FS, name string) error {
	base := path.Base(name)
	if name == "." {
		return nil
	}
	if base == "testdata" || base[0] == '.' || base[0] == '_' {
		return fs.SkipDir
	}
	if _, err := fs.Stat(tree, path.Join(name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func checkFile(tree fs.FS, name string, r Rules) ([]Violation, error) {
	src, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	c := checker{
		Rules: r,
		fset:  token.NewFileSet(),
		name:  name,
		pkg:   path.Dir(name),
		test:  strings.HasSuffix(name, "_test.go"),
	}
	file, err := parser.ParseFile(c.fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	if _, known := c.imports(); !known {
		c.report(file.Package, "package %s is in no layer: give it one in internal/layers/rules.go", c.pkg)
		return c.found, nil
	}
	for _, spec := range file.Imports {
		c.checkImport(spec)
	}
	if !c.test && !matchAny(r.Free, c.pkg) {
		c.checkBody(file)
	}
	return c.found, nil
}

type checker struct {
	Rules
	fset  *token.FileSet
	name  string
	pkg   string
	test  bool
	found []Violation
}

func (c *checker) report(at token.Pos, format string, args ...any) {
	c.found = append(c.found, Violation{c.name, c.fset.Position(at).Line, fmt.Sprintf(format, args...)})
}

func (c *checker) checkImport(spec *ast.ImportSpec) {
	imp, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		c.report(spec.Pos(), "import %s: %v", spec.Path.Value, err)
		return
	}
	first, _, _ := strings.Cut(imp, "/")
	switch {
	case imp == c.Module || strings.HasPrefix(imp, c.Module+"/"):
		c.checkInside(spec, strings.TrimPrefix(strings.TrimPrefix(imp, c.Module), "/"))
	case strings.Contains(first, "."):
		c.checkOutside(spec, imp)
	default:
		c.checkStandard(spec, imp)
	}
}

// checkInside lets tests import any package but the two that wire everything:
// a test that needs those belongs to them.
func (c *checker) checkInside(spec *ast.ImportSpec, pkg string) {
	allowed, _ := c.imports()
	wiring := pkg == "agent" || match("cmd/...", pkg)
	if pkg == c.pkg || matchAny(allowed, pkg) || c.test && !wiring {
		return
	}
	c.report(spec.Pos(), "%s may not import %s", c.pkg, pkg)
}

func (c *checker) checkOutside(spec *ast.ImportSpec, imp string) {
	if c.test {
		return
	}
	for _, m := range c.TestOnly {
		if match(m+"/...", imp) {
			c.report(spec.Pos(), "%s is for tests only", m)
			return
		}
	}
	for m, homes := range c.Homes {
		if !match(m+"/...", imp) {
			continue
		}
		if !matchAny(homes, c.pkg) {
			c.report(spec.Pos(), "%s may not import %s: its home is %s", c.pkg, m, strings.Join(homes, ", "))
		}
		return
	}
	c.report(spec.Pos(), "%s has no home: name one in internal/layers/rules.go", imp)
}

func (c *checker) checkStandard(spec *ast.ImportSpec, imp string) {
	homes, restricted := c.Restricted[imp]
	if !restricted || c.test || matchAny(c.Free, c.pkg) || matchAny(homes, c.pkg) {
		return
	}
	c.report(spec.Pos(), "%s may not import %s", c.pkg, imp)
}

// checkBody finds goroutines started outside Starters, and calls of the parts
// of debug/elf that parse: only its constants are for use on foreign files.
func (c *checker) checkBody(file *ast.File) {
	elf := importName(file, "debug/elf")
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if !matchAny(c.Starters, c.pkg) {
				c.report(n.Pos(), "go statement in %s: only %s start goroutines", c.pkg, strings.Join(c.Starters, ", "))
			}
		case *ast.CallExpr:
			// errgroup.Group.Go and sync.WaitGroup.Go.
			sel, ok := n.Fun.(*ast.SelectorExpr)
			if ok && sel.Sel.Name == "Go" && len(n.Args) == 1 && !matchAny(c.Starters, c.pkg) {
				c.report(n.Pos(), "call of Go in %s: only %s start goroutines", c.pkg, strings.Join(c.Starters, ", "))
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if ok && elf != "" && x.Name == elf && (n.Sel.Name == "Open" || n.Sel.Name == "NewFile") {
				c.report(n.Pos(), "elf.%s in %s: debug/elf is not hardened; use package objfile", n.Sel.Name, c.pkg)
			}
		}
		return true
	})
}

// importName is the name by which file knows the package imp, or "".
func importName(file *ast.File, imp string) string {
	for _, spec := range file.Imports {
		if p, _ := strconv.Unquote(spec.Path.Value); p == imp {
			if spec.Name != nil {
				return spec.Name.Name
			}
			return path.Base(imp)
		}
	}
	return ""
}

// imports returns what c.pkg may import, by the longest key that matches it.
func (c *checker) imports() (allowed []string, known bool) {
	best := ""
	for key, list := range c.Imports {
		if match(key, c.pkg) && (!known || specificity(key) > specificity(best)) {
			best, allowed, known = key, list, true
		}
	}
	return allowed, known
}

// specificity orders patterns that match one package: longer is narrower, and
// an exact name is narrower than the same name with "/...".
func specificity(pattern string) int {
	if base, wild := strings.CutSuffix(pattern, "/..."); wild {
		return 2 * len(base)
	}
	return 2*len(pattern) + 1
}

func matchAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, pkg) })
}

func match(pattern, pkg string) bool {
	if pattern == "..." {
		return true
	}
	base, wild := strings.CutSuffix(pattern, "/...")
	return pkg == base || wild && strings.HasPrefix(pkg, base+"/")
}
