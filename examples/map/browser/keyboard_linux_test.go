package browser

import (
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Everything is reached, opened and left by keys alone.
func TestKeyboard(t *testing.T) {
	m := newMachine(t)
	var boxes []*box
	for i := range 40 {
		boxes = append(boxes, m.box(fmt.Sprintf("box%02d", i)))
	}
	boxes[0].listen(80)
	x := open(t, serve(t, "127.0.0.1:0"))
	x.wait(`document.querySelector("#map .more")?.textContent.includes("+ 10 more")`)
	host := get[string](x, `document.querySelector("#map .own").parentNode.id`)

	for _, want := range []string{"skip", "query", "Changes", "svg", "json"} {
		x.keys(kb.Tab)
		if got := x.focus(); got != want {
			t.Fatalf("Tab goes to %q, want %q", got, want)
		}
	}
	for range 3 { // the picture itself may be a stop, because it scrolls
		if x.focus() == host {
			break
		}
		x.keys(kb.Tab)
	}
	x.wantFocus(host)
	x.keys(kb.Tab)
	x.wantFocus(boxes[0].key())
	x.screenshot("focus")
	if got := get[string](x, `getComputedStyle(document.activeElement.querySelector("rect")).strokeWidth`); got != "3px" {
		t.Errorf("what has the focus looks like the rest: %s", got)
	}

	x.keys(kb.ArrowDown)
	x.wantFocus(boxes[1].key())
	x.keys(kb.ArrowDown + kb.ArrowDown + kb.ArrowUp)
	x.wantFocus(boxes[2].key())
	x.keys(kb.ArrowLeft)
	x.wantFocus(host)
	x.keys(kb.ArrowRight)
	x.wantFocus(boxes[0].key())

	// The details, and back.
	x.keys(kb.Enter)
	x.wantFocus("panel-title")
	x.wait(`document.querySelector("#panel").textContent.includes("ip -n box00 addr")`)
	for range 3 {
		x.keys(kb.Tab)
		if x.focus() == "host veth1" {
			break
		}
	}
	x.keys(kb.Enter) // the other end of its link
	x.wait(`document.querySelector("#panel h2").textContent == "host"`)
	x.keys(kb.Escape)
	x.wait(`document.getElementById("panel").hidden`)
	x.wantFocus(host)

	// What is folded.
	x.keys(kb.End)
	x.wait(`document.activeElement.classList.contains("more")`)
	x.keys(kb.Enter)
	x.wait(in(boxes[39].key()))
	x.wantFocus(boxes[30].key())
	x.keys(kb.Home)
	x.wantFocus(host)

	// A folded match unfolds.
	get[bool](x, `document.getElementById("fold").focus(), true`)
	x.keys(kb.Enter)
	x.wait("!" + in(boxes[39].key()))
	x.keys("/box38" + kb.Enter)
	x.wait(in(boxes[38].key()) + `?.classList.contains("current")`)
	x.wait(`(r => r.top >= 0 && r.bottom <= innerHeight)(` + in(boxes[38].key()) + `.getBoundingClientRect())`)
	x.screenshot("unfolded")
	x.keys(kb.Tab, kb.ModifierShift)
	x.wantFocus("skip")
	x.keys(kb.Enter) // to the picture
	x.wantFocus("map")
}

// Whatever takes the focus has a role and a name for those who do not see it.
func TestAccessibleNames(t *testing.T) {
	m := newMachine(t)
	web := m.box("web")
	x := open(t, serve(t, "127.0.0.1:0"))
	x.wait(in(web.key()))
	x.click("#" + web.key() + " text")
	x.wait(`document.querySelector("#panel .command button")`)
	tree, err := chromedp.Call(x.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		t.Fatal(err)
	}
	named, buttons := 0, 0
	for _, n := range tree.Nodes {
		focusable := false
		for _, p := range n.Properties {
			focusable = focusable || p.Name == accessibility.PropertyNameFocusable && string(p.Value.Value) == "true"
		}
		if !focusable || n.Ignored {
			continue
		}
		role, name := string(n.Role.Value), ""
		if n.Name != nil {
			name = string(n.Name.Value)
		}
		if name == "" || name == `""` || role == `"generic"` || role == `"none"` {
			t.Errorf("a %s can have the focus, and has the name %s", role, name)
		}
		named++
		if role == `"button"` {
			buttons++
		}
	}
	if named < 10 || buttons < 5 {
		t.Errorf("%d elements can have the focus, %d of them buttons", named, buttons)
	}
}
