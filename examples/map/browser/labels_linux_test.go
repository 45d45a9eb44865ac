package browser

import (
	"fmt"
	"testing"
)

// overlaps lists the texts of the picture that lie over each other or leave their boxes, boxes that lie
// over each other, and what is outside of the picture.
const overlaps = `(() => {
	const found = [], svg = document.querySelector("#map > svg"), whole = svg.getBoundingClientRect();
	const rect = e => e.getBoundingClientRect();
	const cross = (a, b) => a.left < b.right - .5 && b.left < a.right - .5 && a.top < b.bottom - .5 && b.top < a.bottom - .5;
	const inside = (a, b) => a.left >= b.left - .5 && a.right <= b.right + .5 && a.top >= b.top - .5 && a.bottom <= b.bottom + .5;
	const boxes = [...svg.querySelectorAll(":scope > g > rect:first-of-type")].map(e => ({e, r: rect(e)}));
	const flags = [...svg.querySelectorAll(".flag")].map(e => ({e, r: rect(e)}));
	const texts = [...svg.querySelectorAll("text")].map(e => ({e, t: e.textContent, r: rect(e)}));
	if (!texts.length || !boxes.length) found.push("there is nothing");
	texts.sort((a, b) => a.r.top - b.r.top);
	texts.forEach((a, i) => {
		for (let j = i + 1; j < texts.length && texts[j].r.top < a.r.bottom; j++) {
			if (cross(a.r, texts[j].r)) found.push(a.t + " lies over " + texts[j].t);
		}
		const around = [...boxes, ...flags].filter(b => cross(a.r, b.r));
		if (!around.some(b => inside(a.r, b.r))) found.push(a.t + " leaves its box");
		if (around.some(b => !inside(a.r, b.r))) found.push(a.t + " reaches into another box");
		if (!inside(a.r, whole)) found.push(a.t + " is outside of the picture");
	});
	boxes.forEach((a, i) => {
		if (!inside(a.r, whole)) found.push(a.e.parentNode.id + " is outside of the picture");
		for (const b of [...boxes.slice(i + 1), ...flags]) if (cross(a.r, b.r)) found.push(a.e.parentNode.id + " lies over " + b.e.parentNode.id);
	});
	return found;
})()`

// No label lies over another one, whether there are few boxes or many, folded or not.
func TestLabels(t *testing.T) {
	m := newMachine(t)
	x := (*tab)(nil)
	p := serve(t, "127.0.0.1:0")
	made := 0
	for _, count := range []int{3, 30, 300} {
		for ; made < count; made++ {
			b := m.box([]string{"web", "a-database-with-a-long-name-", "q"}[made%3] + fmt.Sprint(made))
			switch made {
			case 0:
				b.listen(80)
				m.publish(8080, b)
			case 1:
				b.run("postgres")
				m.publish(5432, b) // no program listens there
			case 2:
				for port := range 12 {
					b.listen(10000 + port)
				}
			}
		}
		if x == nil {
			x = open(t, p)
		}
		x.wait(fmt.Sprintf(`document.querySelector("#counts").textContent.startsWith("%d namespaces")`, count+1))
		for _, found := range get[[]string](x, overlaps) {
			t.Errorf("%d boxes: %s", count, found)
		}
		x.screenshot(fmt.Sprint(count))
	}
	x.wait(`document.querySelector("#map .more")?.textContent.includes("+ 270 more")`)
	get[bool](x, `document.querySelector("#map").scrollTo(0, 1e6), true`)
	x.screenshot("300-end")
	x.click("#map .more text")
	x.wait(`document.querySelectorAll("#map .ns").length == 301`)
	for _, found := range get[[]string](x, overlaps) {
		t.Errorf("300 boxes, unfolded: %s", found)
	}
	x.screenshot("300-unfolded")
}
