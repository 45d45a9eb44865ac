package browser

import "testing"

// A box that comes is drawn, and one that goes is not any more.
func TestBoxesComeAndGo(t *testing.T) {
	m := newMachine(t)
	m.box("web").listen(80)
	p := serve(t, "127.0.0.1:0")
	x := open(t, p)
	x.screenshot("one")
	db := m.box("db")
	x.wait(in(db.key()) + `?.textContent.includes("` + db.addr.String() + `/16")`)
	x.wait(`document.querySelector("#log ol").textContent.includes("db came")`)
	x.screenshot("two")
	db.remove(t.Context())
	x.wait("!" + in(db.key()))
}
