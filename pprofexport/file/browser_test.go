// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// browser drives one page of a running Chromium over its debugging pipe: JSON
// messages ended by a zero byte (Chrome DevTools Protocol).
type browser struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	session string
	last    int
	events  []event // seen so far
}

type event struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

// openPage loads url and returns once its script has run.
func openPage(t *testing.T, url string) *browser {
	t.Helper()
	cmd := chromium(t, "--remote-debugging-pipe")
	toR, toW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromR, fromW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{toR, fromW} // descriptors 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	toR.Close()
	fromW.Close()
	t.Cleanup(func() {
		toW.Close() // the browser ends with its pipe
		_ = cmd.Wait()
		fromR.Close()
	})
	if err := fromR.SetReadDeadline(time.Now().Add(45 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, in: toW, out: bufio.NewReader(fromR)}
	var target struct{ TargetID, SessionID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	b.session = target.SessionID
	for _, domain := range []string{"Page", "Network", "Log", "Runtime"} {
		b.call(domain+".enable", nil, nil)
	}
	b.call("Page.navigate", map[string]any{"url": url}, nil)
	for !b.saw("Page.loadEventFired") {
		b.read()
	}
	return b
}

func (b *browser) read() event {
	b.t.Helper()
	msg, err := b.out.ReadBytes(0)
	if err != nil {
		b.t.Fatalf("read from the browser: %v", err)
	}
	var e event
	if err := json.Unmarshal(msg[:len(msg)-1], &e); err != nil {
		b.t.Fatal(err)
	}
	b.events = append(b.events, e)
	return e
}

func (b *browser) saw(method string) bool {
	for _, e := range b.events {
		if e.Method == method {
			return true
		}
	}
	return false
}

func (b *browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.last++
	msg := map[string]any{"id": b.last, "method": method, "params": params}
	if params == nil {
		msg["params"] = map[string]any{}
	}
	if b.session != "" {
		msg["sessionId"] = b.session
	}
	data, err := json.Marshal(msg)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(data, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		e := b.read()
		if e.ID != b.last {
			continue
		}
		if e.Error != nil {
			b.t.Fatalf("%s: %s", method, e.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(e.Result, result); err != nil {
				b.t.Fatal(err)
			}
		}
		return
	}
}

// eval returns the value of a JavaScript expression as text.
func (b *browser) eval(js string) string {
	b.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": js, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", js, r.ExceptionDetails)
	}
	return fmt.Sprint(r.Result.Value)
}

func (b *browser) key(key string) {
	b.t.Helper()
	down := map[string]any{"type": "keyDown", "key": key}
	switch {
	case len(key) == 1:
		down["text"] = key
	case key == "Enter":
		down["text"] = "\r"
	}
	b.call("Input.dispatchKeyEvent", down, nil)
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key}, nil)
}

// mouse moves to the middle of the box called name, and clicks if asked to.
func (b *browser) mouse(name string, click bool) {
	b.t.Helper()
	var at struct{ X, Y float64 }
	pos := b.eval(fmt.Sprintf(`(() => { const r = document.querySelector('[data-name=%q]').getBoundingClientRect();
		return JSON.stringify({x: r.x + r.width / 2, y: r.y + r.height / 2}) })()`, name))
	if err := json.Unmarshal([]byte(pos), &at); err != nil {
		b.t.Fatal(err)
	}
	kinds := []string{"mouseMoved"}
	if click {
		kinds = append(kinds, "mousePressed", "mouseReleased")
	}
	for _, kind := range kinds {
		p := map[string]any{"type": kind, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}
		if kind == "mouseMoved" {
			p["button"], p["clickCount"] = "none", 0
		}
		b.call("Input.dispatchMouseEvent", p, nil)
	}
}

// want fails unless the expression js has the value want.
func (b *browser) want(when, js, want string) {
	b.t.Helper()
	if got := b.eval(js); got != want {
		b.t.Errorf("%s: %s is %q, want %q", when, js, got, want)
	}
}

func TestFlamegraphMouseAndKeys(t *testing.T) {
	b := openPage(t, writePage(t, scene(t)))
	const (
		boxes    = `document.querySelectorAll(".f").length + ""`
		zoomed   = `nameOf(view.zoom)`
		selected = `document.activeElement.dataset.name || document.activeElement.id || document.activeElement.tagName`
		matched  = `$("matched").textContent`
	)
	all := b.eval(boxes)

	b.mouse("ksys_read", false)
	tip := b.eval(`$("tip").hidden ? "hidden" : $("tip").innerText`)
	for _, want := range []string{"ksys_read", "/src/ksys_read.c:10", "[kernel.kallsyms]", "10.00 % of all", "10 samples", "100.0 ms"} {
		if !strings.Contains(tip, want) {
			t.Errorf("tooltip does not say %q: %q", want, tip)
		}
	}
	b.mouse("work", true)
	b.want("click", zoomed, "work")
	b.want("click", `location.hash`, "#z=5")
	b.key("Escape")
	b.want("Escape", zoomed, "all")
	b.want("Escape", boxes, all)

	for _, step := range []struct{ key, want string }{
		{"ArrowDown", "app"}, {"ArrowDown", "main"}, {"ArrowDown", "spin"}, {"ArrowRight", "work"}, {"ArrowRight", "work"},
		{"ArrowDown", "inner"}, {"ArrowUp", "work"}, {"ArrowLeft", "spin"}, {"ArrowUp", "main"}, {"ArrowUp", "app"}, {"ArrowRight", "other app"},
	} {
		b.key(step.key)
		b.want(step.key, selected, step.want)
	}
	b.key("Enter")
	b.want("Enter", zoomed, "other app")
	b.key("Escape")

	b.key("/")
	b.want("/", selected, "search")
	for _, c := range "jit" {
		b.key(string(c)) // letters that are shortcuts elsewhere
	}
	b.want("typing", matched, "no match")
	b.key("Escape")
	b.want("Escape", matched, "")
	b.key("/")
	for _, c := range "ksys" {
		b.key(string(c))
	}
	b.want("typing", matched, "matched 16.00 % · 160.0 ms")
	b.key("Enter")
	b.want("Enter", selected, "ksys_read")
	b.key("Escape")
	b.want("Escape", `document.querySelectorAll(".hit").length + ""`, "0")

	b.key("i")
	b.want("i", `view.flipped && document.querySelector('[data-name=all]').offsetTop > document.querySelector('[data-name=main]').offsetTop ? "yes" : "no"`, "yes")
	b.checkQuiet()
}

// checkQuiet fails if the page asked for anything but itself, complained, or
// ran something that came from a name.
func (b *browser) checkQuiet() {
	b.t.Helper()
	requests := 0
	for _, e := range b.events {
		switch e.Method {
		case "Network.requestWillBeSent":
			requests++
		case "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening":
			b.t.Errorf("%s: %s", e.Method, e.Params)
		}
	}
	if requests != 1 {
		b.t.Errorf("%d requests, want 1: the page itself", requests)
	}
	b.want("at the end", `document.images.length + ""`, "0")
}

func TestFlamegraphDrawingTime(t *testing.T) {
	b := openPage(t, writePage(t, comb(t, 900, 60)))
	ms := b.eval(`(() => { const t = performance.now(); draw(); document.body.offsetHeight; return Math.round(performance.now() - t) + "" })()`)
	t.Logf("%s boxes drawn and laid out in %s ms", b.eval(`view.boxes.size + ""`), ms)
	var n int
	if _, err := fmt.Sscan(ms, &n); err != nil || n > 10_000 {
		t.Errorf("took %s ms, %v", ms, err)
	}
}
