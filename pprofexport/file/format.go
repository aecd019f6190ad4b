// SPDX-License-Identifier: Apache-2.0

// Package file writes profiles to files: pprof, folded stacks, speedscope
// JSON, and a flame graph as one HTML page; and a table for the terminal.
package file

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Format is what a profile is written as. Its value is what users call it.
type Format string

const (
	// Pprof is the gzipped protocol buffer that go tool pprof reads.
	Pprof Format = "pprof"
	// Folded is one line for each stack, "root;caller;leaf count", as
	// flamegraph.pl and inferno read it.
	Folded Format = "folded"
	// Speedscope is the JSON that speedscope.app imports.
	Speedscope Format = "speedscope"
	// FlamegraphHTML is a page that needs nothing but a browser.
	FlamegraphHTML Format = "flamegraph-html"
)

const choices = "pprof (.pb.gz, .pprof), folded (.folded, .collapsed, .txt), " +
	"speedscope (.speedscope.json, .json), flamegraph-html (.html)"

// DefaultName is what a file of format f is called for want of another name.
func (f Format) DefaultName() string {
	switch f {
	case Folded:
		return "profile.folded"
	case Speedscope:
		return "profile.speedscope.json"
	case FlamegraphHTML:
		return "profile.html"
	}
	return "profile.pb.gz"
}

// ParseFormat returns the format called name or, if name is empty, the one the
// end of path asks for. Standard output, the path "-", is pprof unless named
// otherwise.
func ParseFormat(name, path string) (Format, error) {
	if name != "" {
		switch f := Format(name); f {
		case Pprof, Folded, Speedscope, FlamegraphHTML:
			return f, nil
		}
		return "", fmt.Errorf("no format is called %q; choose one of %s", name, choices)
	}
	if path == "-" {
		return Pprof, nil
	}
	base := strings.ToLower(filepath.Base(path))
	switch ext := filepath.Ext(base); {
	case strings.HasSuffix(base, ".pb.gz"), ext == ".pprof":
		return Pprof, nil
	case ext == ".folded", ext == ".collapsed", ext == ".txt":
		return Folded, nil
	case ext == ".json":
		return Speedscope, nil
	case ext == ".html":
		return FlamegraphHTML, nil
	}
	return "", fmt.Errorf("the name %q does not say what to write; end it in one of these or name a format: %s", path, choices)
}
