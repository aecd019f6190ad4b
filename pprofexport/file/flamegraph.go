// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bufio"
	"crypto/sha256"
	_ "embed" // the page, its style and its script
	"encoding/base64"
	"encoding/json"
	"html"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/pprofexport"
)

var (
	//go:embed assets/page.html
	flamePage string
	//go:embed assets/flame.css
	flameCSS string
	//go:embed assets/flame.js
	flameJS string
)

// maxNodes bounds the page: about 5 MB, and a second to load.
const maxNodes = 200_000

// flameData is what the page draws, as assets/flame.js reads it.
type flameData struct {
	Title   string   `json:"title"`
	Quality string   `json:"quality"`
	Unit    string   `json:"unit"`   // of Values
	Hidden  int      `json:"hidden"` // nodes left out for being the smallest
	Strings []string `json:"strings"`
	// Frames holds 7 numbers for each frame: name, file and binary (indexes
	// into Strings), kind, first and last line seen, line it begins at.
	Frames []int64 `json:"frames"`
	// Nodes holds 4 numbers for each node: frame, depth, value, samples; in
	// the order of drawing. The first is the root, with frame -1.
	Nodes []int64 `json:"nodes"`
}

// flamegraph writes one page that loads nothing: the content security policy
// admits its own script and style, by hash, and no other source of anything.
// Data is JSON in which "<", ">" and "&" are escaped (encoding/json), so that
// no name can end its element; the script puts names into the page as text.
func flamegraph(w *bufio.Writer, p *profile.Profile, o Options) error {
	d := newFlameData(p, o)
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	policy := "default-src 'none'; script-src " + cspHash(flameJS) + "; style-src " + cspHash(flameCSS) +
		"; base-uri 'none'; form-action 'none'"
	_, err = strings.NewReplacer(
		"{{policy}}", html.EscapeString(policy),
		"{{title}}", html.EscapeString(d.Title),
		"{{style}}", flameCSS,
		"{{data}}", string(data),
		"{{script}}", flameJS,
	).WriteString(w, flamePage)
	return err
}

// cspHash returns the source expression for an inline element (CSP 3 §2.3.1).
func cspHash(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func newFlameData(p *profile.Profile, o Options) *flameData {
	s := newStacks(p, o.Root)
	nodes, hidden := prune(callTree(p, s), maxNodes)
	d := &flameData{
		Title:   pprofexport.Clean(o.Title),
		Quality: pprofexport.Clean(pprofexport.Comment(p, "quality")),
		Unit:    unitOf(p, s),
		Hidden:  hidden,
		Strings: []string{},
		Frames:  make([]int64, 0, 7*len(s.frames)),
		Nodes:   make([]int64, 0, 4*len(nodes)),
	}
	if d.Title == "" {
		d.Title = "CPU profile"
	}
	index := make(map[string]int64)
	text := func(s string) int64 {
		i, ok := index[s]
		if !ok {
			i = int64(len(d.Strings))
			index[s] = i
			d.Strings = append(d.Strings, s)
		}
		return i
	}
	for _, f := range s.frames {
		d.Frames = append(d.Frames, text(f.name), text(f.file), text(f.binary), int64(f.kind), f.minLine, f.maxLine, f.startLine)
	}
	for _, n := range drawingOrder(nodes, s) {
		d.Nodes = append(d.Nodes, int64(n.frame), int64(n.depth), n.value, n.count)
	}
	return d
}
