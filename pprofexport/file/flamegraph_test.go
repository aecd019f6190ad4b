// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"context"
	"html"
	"image/png"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/stack"
)

// chromium returns a command that runs a browser without a display and without
// any name it could resolve.
func chromium(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, path, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir=" + t.TempDir(), "--window-size=1400,800",
		"--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"}, args...)...)
}

func writePage(t *testing.T, p *profile.Profile) (url string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flame.html")
	if err := Write(path, p, Options{Format: FlamegraphHTML, Title: "Title " + hostileName}); err != nil {
		t.Fatal(err)
	}
	return "file://" + path
}

// box is a frame as the browser laid it out.
type box struct {
	name, class, text string
	left, width, top  float64
}

var boxRE = regexp.MustCompile(`(?s)<div class="(f [^"]*)" data-i="\d+" data-name="([^"]*)"[^>]*" style="left: ([0-9.]+)px; width: ([0-9.]+)px; top: ([0-9]+)px;">(.*?)</div>`)

// dumpDOM returns the page as it is once its script has run, and its boxes.
func dumpDOM(t *testing.T, url string) (string, []box) {
	t.Helper()
	cmd := chromium(t, "--virtual-time-budget=5000", "--dump-dom", url)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if strings.Contains(stderr.String(), "CONSOLE") {
		t.Errorf("the page complains:\n%s", stderr.String())
	}
	var boxes []box
	for _, m := range boxRE.FindAllStringSubmatch(string(out), -1) {
		b := box{name: html.UnescapeString(m[2]), class: m[1], text: html.UnescapeString(m[6])}
		for i, to := range []*float64{&b.left, &b.width, &b.top} {
			if *to, err = strconv.ParseFloat(m[3+i], 64); err != nil {
				t.Fatal(err)
			}
		}
		boxes = append(boxes, b)
	}
	return string(out), boxes
}

func find(t *testing.T, boxes []box, name string) box {
	t.Helper()
	for _, b := range boxes {
		if b.name == name {
			return b
		}
	}
	t.Fatalf("no box for %q", name)
	return box{}
}

func TestFlamegraphInBrowser(t *testing.T) {
	dom, boxes := dumpDOM(t, writePage(t, scene(t)))
	all := find(t, boxes, "all")
	if all.width < 1000 {
		t.Fatalf("root is %v px wide", all.width)
	}
	tests := []struct {
		name, class   string
		percent, left float64
		depth         float64
	}{
		{"app", "process", 84, 0, 1},
		{"main", "user", 84, 0, 2},
		{"spin", "user", 54, 0, 3},
		{"work", "user", 30, 54, 3},
		{"inner", "inlined", 30, 54, 4},
		{"[libc.so.6]", "unnamed", 10, 54, 5},
		{"ksys_read", "kernel", 10, 54, 6},
		{"Lfoo;.bar", "jit", 8, 84, 3},
		{"[truncated: NO_RULE]", "marker", 6, 92, 2},
		{pprofexport.Clean(hostileName), "user", 4, 0, 4},
	}
	for _, tt := range tests {
		b := find(t, boxes, tt.name)
		if math.Abs(b.width-tt.percent/100*all.width) > 1 || math.Abs(b.left-tt.left/100*all.width) > 1 || b.top != 20*tt.depth {
			t.Errorf("%s: left %.1f, width %.1f, top %.0f of %.1f px; want %.0f %%, %.0f %%, row %.0f", tt.name, b.left, b.width, b.top, all.width, tt.left, tt.percent, tt.depth)
		}
		if !strings.Contains(b.class, "f "+tt.class) {
			t.Errorf("%s: class %q, want %s", tt.name, b.class, tt.class)
		}
	}
	for _, want := range []string{"93.0 % complete stacks", "lowflame used 0.3 % of one CPU, 40 MiB", "100 samples · 1.00 s", "incomplete stack"} {
		if !strings.Contains(dom, want) {
			t.Errorf("page does not say %q", want)
		}
	}
}

func TestFlamegraphHostileNames(t *testing.T) {
	url := writePage(t, scene(t))
	raw, err := os.ReadFile(strings.TrimPrefix(url, "file://"))
	if err != nil {
		t.Fatal(err)
	}
	dom, _ := dumpDOM(t, url)
	for what, page := range map[string]string{"file": string(raw), "DOM": dom} {
		if n := strings.Count(page, "</script>"); n != 2 {
			t.Errorf("%s has %d script ends, want 2", what, n)
		}
		if regexp.MustCompile(`<(img|svg|iframe|link|object|embed)\b`).MatchString(stripAttributes(page)) {
			t.Errorf("%s has an element that came from a name", what)
		}
	}
	if m := regexp.MustCompile(`(?i)\b(src|href|action)=|url\(|@import|https?://`).FindString(stripData(string(raw))); m != "" {
		t.Errorf("page refers to something outside itself: %q", m)
	}
}

// stripAttributes removes quoted attribute values, in which "<" means nothing.
func stripAttributes(page string) string {
	return regexp.MustCompile(`="[^"]*"`).ReplaceAllString(page, "")
}

// stripData removes the title and the data, which hold names.
func stripData(page string) string {
	return regexp.MustCompile(`(?s)<title>.*?</title>|<script type="application/json".*?</script>`).ReplaceAllString(page, "")
}

func TestFlamegraphSearch(t *testing.T) {
	url := writePage(t, scene(t))
	tests := []struct {
		query, matched string
		hits           []string
	}{
		{"SPIN", "matched 54.00 % · 540.0 ms", []string{"spin"}},
		{"/^(work|inner)$/", "matched 30.00 % · 300.0 ms", []string{"work", "inner"}}, // inner is below work: counted once
		{"ksys", "matched 16.00 % · 160.0 ms", []string{"ksys_read", "ksys_read"}},
		{"nowhere", "no match", nil},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			dom, boxes := dumpDOM(t, url+"#q="+tt.query)
			if !strings.Contains(dom, ">"+tt.matched+"<") {
				t.Errorf("page does not say %q", tt.matched)
			}
			var hits []string
			for _, b := range boxes {
				if strings.HasSuffix(b.class, " hit") {
					hits = append(hits, b.name)
				}
			}
			if strings.Join(hits, " ") != strings.Join(tt.hits, " ") {
				t.Errorf("hits %q, want %q", hits, tt.hits)
			}
		})
	}
}

func TestFlamegraphZoom(t *testing.T) {
	_, boxes := dumpDOM(t, writePage(t, scene(t))+"#z=5") // all app main spin evil work
	all, work, read := find(t, boxes, "all"), find(t, boxes, "work"), find(t, boxes, "ksys_read")
	if work.width != all.width || work.left != 0 || math.Abs(read.width-all.width/3) > 1 {
		t.Errorf("zoomed on work: all %.1f, work %.1f at %.1f, ksys_read %.1f px", all.width, work.width, work.left, read.width)
	}
	for _, b := range boxes {
		if b.name == "spin" {
			t.Error("spin is not above or below work and still there")
		}
	}
}

func TestFlamegraphEmpty(t *testing.T) {
	for name, p := range map[string]*profile.Profile{"no samples": build(t, testBuilder()), "zero": {}} {
		if dom, _ := dumpDOM(t, writePage(t, p)); !strings.Contains(dom, "holds no samples") {
			t.Errorf("%s: page does not say so", name)
		}
	}
}

func TestFlamegraphManyNodes(t *testing.T) {
	for name, tt := range map[string]struct {
		p     *profile.Profile
		boxes int // at least
	}{
		"most below a pixel": {forest(t, 130_000), 500},
		"all above a pixel":  {comb(t, 900, 60), 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			if n := len(callTree(tt.p, newStacks(tt.p, RootProcess))); n < 50_000 {
				t.Fatalf("only %d nodes", n)
			}
			start := time.Now()
			_, boxes := dumpDOM(t, writePage(t, tt.p))
			took := time.Since(start)
			t.Logf("%d boxes in %v", len(boxes), took)
			if took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			if len(boxes) < tt.boxes || len(boxes) > 10_000 {
				t.Errorf("%d boxes, want %d to 10000", len(boxes), tt.boxes)
			}
			for _, b := range boxes {
				if b.width < 1 {
					t.Fatalf("%s is %v px wide", b.name, b.width)
				}
			}
		})
	}
}

// TestFlamegraphColours looks at pixels: the page must be light or dark as the
// reader's system is, and kernel code blue in both.
func TestFlamegraphColours(t *testing.T) {
	url := writePage(t, scene(t))
	for scheme, dark := range map[string]bool{"0": true, "1": false} {
		shot := filepath.Join(t.TempDir(), "shot.png")
		cmd := chromium(t, "--blink-settings=preferredColorScheme="+scheme, "--screenshot="+shot, "--virtual-time-budget=5000", url)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		data, err := os.ReadFile(shot)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		r, _, _, _ := img.At(700, 600).RGBA()
		if (r < 0x4000) != dark {
			t.Errorf("dark %v: background has red %#x", dark, r)
		}
		var blue, amber int
		for y := 78; y < 240; y++ {
			for x := 0; x < 1400; x++ {
				r, g, b, _ := img.At(x, y).RGBA()
				switch {
				case b > r+0x4000 && b > g:
					blue++
				case r > b+0x4000 && r > g+0x1000:
					amber++
				}
			}
		}
		if blue < 2000 || amber < 20000 {
			t.Errorf("dark %v: %d blue and %d amber pixels", dark, blue, amber)
		}
	}
}

func TestPrune(t *testing.T) {
	p := forest(t, 5000)
	s := newStacks(p, RootProcess)
	nodes := callTree(p, s)
	for _, limit := range []int{1, 10, 500, len(nodes), len(nodes) + 1} {
		kept, gone := prune(nodes, limit)
		if len(kept) > limit || len(kept) == 0 || len(kept)+gone != len(nodes) || kept[0].value != nodes[0].value {
			t.Errorf("limit %d: %d kept, %d gone of %d", limit, len(kept), gone, len(nodes))
		}
		for i, n := range kept[1:] {
			if n.parent > i || kept[n.parent].value < n.value {
				t.Fatalf("limit %d: node %d of value %d below node %d", limit, i+1, n.value, n.parent)
			}
		}
		if d := drawingOrder(kept, s); len(d) != len(kept) {
			t.Errorf("limit %d: %d drawn of %d", limit, len(d), len(kept))
		}
	}
}

// TestDeepStack: a stack deeper than any walker makes must not end the program.
func TestDeepStack(t *testing.T) {
	f := frameAt(&pprofexport.Mapping{End: 0x100, File: "/opt/app"}, 1, "f")
	frames := make([]*pprofexport.Frame, 100_000)
	for i := range frames {
		frames[i] = f
	}
	b := testBuilder()
	b.Add(pprofexport.Sample{Frames: frames, Count: 1, Stop: stack.StopEnd})
	p := build(t, b)
	for _, format := range []Format{Pprof, Folded, Speedscope, FlamegraphHTML} {
		if out := encode(t, p, Options{Format: format}); len(out) == 0 {
			t.Errorf("%s: nothing written", format)
		}
	}
}
