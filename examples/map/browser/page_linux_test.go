package browser

import (
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A box that comes is drawn, and one that goes is not any more.
func TestBoxesComeAndGo(t *testing.T) {
	m := newMachine(t)
	web := m.box("web")
	web.listen(80)
	x := open(t, serve(t, "127.0.0.1:0"))
	x.wait(in(web.key()) + `?.textContent.includes("tcp :80")`)
	x.screenshot("one")
	db := m.box("db")
	x.wait(in(db.key()) + `?.textContent.includes("` + db.addr.String() + `/16")`)
	x.wait(`document.querySelector("#log ol").textContent.includes("db came")`)
	x.wait(`document.querySelector("#said").textContent.includes("db came")`)
	x.screenshot("two")
	db.remove()
	x.wait("!" + in(db.key()))
	x.wait(`document.querySelector("#log ol").textContent.includes("db went")`)
}

// What is focused, selected or open stays so while other things change.
func TestChangesDisturbNobody(t *testing.T) {
	m := newMachine(t)
	web := m.box("web")
	x := open(t, serve(t, "127.0.0.1:0"))
	x.wait(in(web.key()))
	x.click("#" + web.key() + " text")
	x.wait(`document.querySelector("#panel h2")?.textContent == "web"`)
	get[bool](x, in(web.key())+`.focus(), `+in(web.key())+`.mine = document.querySelector("#panel h2").mine = true`)
	before := m.box("a-box-before") // in the picture, so that web moves
	x.wait(in(before.key()))
	web.listen(443) // web changes
	x.wait(in(web.key()) + `.textContent.includes("tcp :443")`)
	x.wait(`document.querySelector("#panel").textContent.includes("tcp :443")`)
	if !get[bool](x, `document.activeElement == `+in(web.key())+` && `+in(web.key())+`.mine && document.querySelector("#panel h2").mine`) {
		t.Errorf("the focus is at %s", x.focus())
	}
	if !get[bool](x, in(web.key())+`.classList.contains("selected") && !document.getElementById("panel").hidden`) {
		t.Error("web is not selected any more")
	}
	x.screenshot("selected")
	before.remove()
	x.wait("!" + in(before.key()))
	web.remove()
	x.wait(`document.querySelector("#panel .gone")`)
	x.screenshot("gone")
	if x.focus() == "" {
		t.Error("the focus is nowhere")
	}
}

// A name is a text, whatever its characters are.
func TestOddNames(t *testing.T) {
	m := newMachine(t)
	odd := m.box("")
	odd.run("</script>")
	m.box(`"><svg-onload=alert(1)>`).run("\x1b[31m")
	m.box("$(reboot)&amp;'")
	x := open(t, serve(t, "127.0.0.1:0"))
	x.wait(in(odd.key()) + `?.querySelector("text").textContent.includes("</script>")`)
	if n := get[int](x, `document.querySelectorAll("script").length + 10 * document.querySelectorAll("#map svg svg, #map svg *|script").length`); n != 1 {
		t.Errorf("names have become elements: %d", n)
	}
	x.click("#" + odd.key() + " text")
	x.wait(`document.querySelector("#panel h2")?.textContent == "</script>"`)
	x.screenshot("panel")
	x.keys("/</script>")
	x.wait(`document.querySelector("#found").textContent == "1 of 1"`)
	x.wait(in(odd.key()) + `.classList.contains("match")`)
}

func TestSearch(t *testing.T) {
	m := newMachine(t)
	boxes := make(map[string]*box)
	for _, name := range []string{"web", "web-cache", "db", "mail"} {
		boxes[name] = m.box(name)
	}
	boxes["db"].listen(5432)
	boxes["mail"].run("postfix")
	x := open(t, serve(t, "127.0.0.1:0"))
	x.wait(in(boxes["mail"].key()) + `?.textContent.includes("postfix")`)
	found := func(q, count string, want ...string) {
		t.Helper()
		x.keys("/" + q)
		x.wait(`document.querySelector("#found").textContent == ` + quote(count))
		if got := get[string](x, `[...document.querySelectorAll("#map .match")].map(e => e.querySelector("text").textContent.split(" ")[0]).join(" ")`); got != strings.Join(want, " ") {
			t.Errorf("%q finds %q, want %q", q, got, want)
		}
	}
	clear := func() {
		t.Helper()
		x.keys(kb.Escape + kb.Escape)
		x.wait(`document.querySelector("#found").textContent == "" && document.activeElement == document.body`)
	}
	found("db", "1 of 1", "db")
	x.screenshot("name")
	clear()
	found(boxes["mail"].addr.String(), "1 of 1", "mail")
	clear()
	found("5432", "1 of 1", "db")
	clear()
	found("postfix", "1 of 1", "mail")
	clear()
	found("nothing", "no match")
	clear()
	found("web", "1 of 2", "web", "web-cache")
	current := func() string { return get[string](x, `document.querySelector("#map .current")?.id`) }
	first := current()
	if first != boxes["web"].key() {
		t.Errorf("the first match is %s, want web, which is the name itself", first)
	}
	x.keys(kb.Enter)
	x.wait(`document.querySelector("#found").textContent == "2 of 2"`)
	if got := current(); got != boxes["web-cache"].key() {
		t.Errorf("the second match is %s", got)
	}
	x.keys(kb.Enter)
	x.wait(`document.querySelector("#found").textContent == "1 of 2"`)
	// What comes and matches is found.
	late := m.box("webmail")
	x.wait(`document.querySelector("#found").textContent == "1 of 3"`)
	x.wait(in(late.key()) + `.classList.contains("match")`)
	x.keys(kb.ArrowDown) // into the picture
	x.wantFocus(first)
	x.keys("/")
	x.wantFocus("query")
	x.keys(kb.Escape)
	x.wait(`document.querySelector("#query").value == "" && !document.querySelector("#map .match, #map .searching")`)
}

// A port that is published is drawn, and is red with the reason while its box does not listen.
func TestPorts(t *testing.T) {
	m := newMachine(t)
	web := m.box("web")
	l := web.listen(80)
	p := serve(t, "127.0.0.1:0")
	x := open(t, p)
	x.wait(in(web.key()))
	m.publish(8080, web)
	x.wait(`document.querySelector("#map .port")?.textContent.includes(":8080")`)
	x.wait(`!document.querySelector("#map .port.fault")`)
	x.screenshot("published")
	l.Close()
	const words = "no program in the box listens on tcp port 80" // of nat.Explain
	x.wait(`document.querySelector("#map .port.fault title")?.textContent.includes("` + words + `")`)
	x.wait(`document.querySelector("#counts").textContent.includes("1 with a fault")`)
	if got, want := get[string](x, `getComputedStyle(document.querySelector("#map .fault .flag")).stroke`), "rgb(207, 34, 46)"; got != want {
		t.Errorf("the flag is %s, want %s", got, want)
	}
	x.click("#counts button")
	x.wait(`document.querySelector("#panel .fault")?.textContent.includes("` + words + `")`)
	x.wait(`document.querySelector("#panel").textContent.includes("nft list table inet boxwire")`)
	x.screenshot("fault")
	web.listen(80)
	x.wait(`!document.querySelector("#map .port.fault") && !document.querySelector("#panel .fault")`)
	x.keys("/8080")
	x.wait(`document.querySelector("#map .port").classList.contains("match")`)
}

func TestDarkAndLight(t *testing.T) {
	m := newMachine(t)
	web := m.box("web")
	x := open(t, serve(t, "127.0.0.1:0"), "prefers-color-scheme", "dark")
	x.wait(in(web.key()))
	x.click("#" + web.key() + " text")
	x.wait(`document.querySelector("#panel h2")?.textContent == "web"`)
	colours := func() string {
		return get[string](x, `[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector("#panel h2")).color,
			getComputedStyle(document.querySelector("#map .title")).fill].join(" ")`)
	}
	if got, want := colours(), "rgb(13, 17, 23) rgb(240, 246, 252) rgb(240, 246, 252)"; got != want {
		t.Errorf("dark: %s, want %s", got, want)
	}
	x.screenshot("dark")
	x.media("prefers-color-scheme", "light")
	if got, want := colours(), "rgb(255, 255, 255) rgb(31, 35, 40) rgb(31, 35, 40)"; got != want {
		t.Errorf("light: %s, want %s", got, want)
	}
	x.screenshot("light")
	x.media("prefers-reduced-motion", "reduce")
	db := m.box("db")
	x.wait(in(db.key()) + `?.classList.contains("flash")`)
	if got := get[string](x, `getComputedStyle(document.querySelector("#map .flash > rect")).animationName`); got != "none" {
		t.Errorf("the animation is %s for one who wants none", got)
	}
}

// When the program is gone the page says so, and when another one is there it says what has changed.
func TestConnectionLost(t *testing.T) {
	m := newMachine(t)
	web := m.box("web")
	p := serve(t, "127.0.0.1:0")
	x := open(t, p)
	x.wait(in(web.key()))
	x.losing()
	p.kill()
	x.wait(`!document.getElementById("banner").hidden && document.getElementById("banner").textContent.includes("lost")`)
	x.wait(`document.getElementById("state").dataset.state == "lost"`)
	x.screenshot("lost")
	db := m.box("db")
	web.remove()
	serve(t, p.address())
	x.wait(`document.getElementById("banner").hidden && document.getElementById("state").dataset.state == "live"`)
	x.wait(in(db.key()) + " && !" + in(web.key()))
	notice := get[string](x, `document.getElementById("notice").hidden ? "" : document.getElementById("notice").textContent`)
	for _, want := range []string{"Connected again", "db came", "web went"} {
		if !strings.Contains(notice, want) {
			t.Errorf("the notice is %q, want %q in it", notice, want)
		}
	}
	x.screenshot("again")
	x.click("#notice button")
	x.wait(`document.getElementById("notice").hidden`)
}

// Ports that are folded are found, and unfold.
func TestManyPorts(t *testing.T) {
	m := newMachine(t)
	web := m.box("web")
	web.listen(80)
	for i := range 35 {
		m.publish(uint16(8000+i), web)
	}
	x := open(t, serve(t, "127.0.0.1:0"))
	x.wait(`document.querySelector("#map .more")?.textContent.includes("+ 5 more ports")`)
	for _, found := range get[[]string](x, overlaps) {
		t.Error(found)
	}
	x.screenshot("folded")
	x.click("#map .more text")
	x.wait(`document.querySelectorAll("#map .port").length == 35`)
	for _, found := range get[[]string](x, overlaps) {
		t.Error(found)
	}
	x.click("#fold")
	x.wait(`document.querySelectorAll("#map .port").length == 30`)
	x.keys("/8034")
	x.wait(`document.querySelector("#map .port.current")?.textContent.includes(":8034")`)
	x.screenshot("found")
}

// A small window shows all by scrolling the picture, and paper has the picture alone.
func TestSmallWindowAndPaper(t *testing.T) {
	m := newMachine(t)
	web := m.box("web")
	x := open(t, serve(t, "127.0.0.1:0"))
	x.wait(in(web.key()))
	x.size(390, 800)
	x.click("#" + web.key() + " text")
	x.wait(`document.querySelector("#panel h2")?.textContent == "web"`)
	if !get[bool](x, `document.documentElement.scrollWidth <= innerWidth && document.querySelector("#map").getBoundingClientRect().bottom <= document.querySelector("#panel").getBoundingClientRect().top`) {
		t.Error("the page is wider than the window, or the panel lies over the picture")
	}
	x.wait(`(r => r.left >= 0 && r.right <= innerWidth)(` + in(web.key()) + `.querySelector("rect").getBoundingClientRect())`)
	x.screenshot("small")
	x.size(1440, 900)
	if _, err := chromedp.Call(x.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"}); err != nil {
		t.Fatal(err)
	}
	x.wait(`["#search", "header nav", "#state"].every(s => getComputedStyle(document.querySelector(s)).display == "none")`)
	x.wait(`document.querySelector("#map > svg").getBoundingClientRect().width > 100`)
	x.screenshot("print")
}
