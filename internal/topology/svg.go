package topology

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/boxwire/boxwire/internal/plain"
)

// style has the colours of a picture, in light and in dark.
const style = `
  text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2328; white-space: pre }
  .title { font-weight: bold }
  .small { fill: #59636e }
  .box, .more rect, .outside rect { fill: #f6f8fa; stroke: #818b98 }
  .own { stroke-width: 2 }
  .outside rect, .more rect { stroke-dasharray: 4 3 }
  .bridge { fill: #ffffff; stroke: #d1d9e0 }
  .wire, .arrow { fill: none; stroke: #0969da; stroke-width: 1.5 }
  .down { stroke: #818b98; stroke-dasharray: 4 3 }
  .arrow { stroke: #1a7f37; stroke-dasharray: 6 3 }
  .flag { fill: #dafbe1; stroke: #1a7f37 }
  .tip { fill: #1a7f37 }
  .fault .flag { fill: #ffebe9; stroke: #cf222e }
  .fault .arrow { stroke: #cf222e }
  .fault .tip, .fault text { fill: #cf222e }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .box, .more rect, .outside rect { fill: #151b23; stroke: #656c76 }
    .bridge { fill: #0d1117; stroke: #3d444d }
    .wire { stroke: #4493f8 }
    .down { stroke: #656c76 }
    .arrow { stroke: #3fb950 }
    .flag { fill: #12261e; stroke: #3fb950 }
    .tip { fill: #3fb950 }
    .fault .flag { fill: #25171c; stroke: #f85149 }
    .fault .arrow { stroke: #f85149 }
    .fault .tip, .fault text { fill: #f85149 }
  }
`

// An SVG is how a picture is drawn. The zero SVG folds what is alike.
type SVG struct {
	// Unfolded reports whether a group is drawn whole. A group is what is folded into one "+ 270
	// more"; the attribute data-group names it. nil folds all.
	Unfolded func(group string) bool
}

// WriteSVG writes a snapshot as a picture, and folds what is alike. See [SVG.Write].
func WriteSVG(w io.Writer, s *Snapshot) error { return SVG{}.Write(w, s) }

// Write writes a snapshot as a picture that needs nothing else: no script, no font, no other file. The
// same snapshot gives the same bytes.
//
// The elements of the picture are <g class="ns" data-inode> for a namespace, <g class="port" data-port>
// for a port, <g class="more" data-group> for what is folded, <g class="outside"> for a gateway that is
// not on the machine, and <path class="wire">. Each has an id that stays the same from snapshot to
// snapshot, and a <title>.
func (d SVG) Write(w io.Writer, s *Snapshot) error {
	if d.Unfolded == nil {
		d.Unfolded = func(string) bool { return false }
	}
	p := s.lay(d.Unfolded)
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0[1]f\" height=\"%.0[2]f\" viewBox=\"0 0 %.0[1]f %.0[2]f\" role=\"img\">\n", p.width, p.height)
	fmt.Fprintf(&b, "<title>%d network namespaces</title>\n<style>%s</style>\n", len(s.Namespaces), style)
	for _, from := range p.boxes {
		p.wires(&b, from)
	}
	for _, x := range p.boxes {
		x.write(&b)
	}
	for _, x := range p.boxes {
		p.flags(&b, x)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// wires draws the lines from a namespace to those of later columns, and within its own column. The
// lines of what is outside and of what is folded begin at the box that it belongs to.
func (p *picture) wires(b *strings.Builder, from *box) {
	switch {
	case from.uplink != nil && from.ns == nil:
		p.uplink(b, from)
	case from.from != nil:
		for i, r := range from.from.rows {
			if r.more == from.more {
				curve(b, "wire down", "wire-"+from.id, r.text, from.from.x+from.from.width, from.from.middle(i), from.x, from.middle(0))
			}
		}
	case from.ns != nil:
		p.overlays(b, from)
		for _, l := range from.ns.Links {
			p.pair(b, from, l)
		}
	}
}

// uplink draws the line from what is outside to the link that leads there.
func (p *picture) uplink(b *strings.Builder, from *box) {
	for _, to := range p.boxes {
		if to.ns == nil || from.id != fmt.Sprintf("outside-%d-%d", to.ns.Inode, from.uplink.Index) {
			continue
		}
		if y, ok := to.rowOf(from.uplink.Index); ok {
			curve(b, "wire", "wire-"+from.id, "outside - "+to.ns.Title()+" "+from.uplink.Name, from.x+from.width, from.middle(0), to.x, y)
		}
	}
}

// overlays draws the lines to links of other namespaces that lie on links of this one.
func (p *picture) overlays(b *strings.Builder, from *box) {
	for i, r := range from.rows {
		if r.above == nil {
			continue
		}
		to := p.of[r.above.Inode]
		if to == nil || to.column <= from.column {
			continue
		}
		if y, ok := to.rowOf(r.above.Index); ok {
			curve(b, "wire", fmt.Sprintf("wire-%d-%d", r.above.Inode, r.above.Index), from.ns.Title()+" - "+to.ns.Title()+" "+r.above.Link,
				from.x+from.width, from.middle(i), to.x, y)
		}
	}
}

// pair draws the line of a link that leads to another namespace.
func (p *picture) pair(b *strings.Builder, from *box, l *Link) {
	if l.Peer == nil || l.Peer.Inode == from.ns.Inode {
		return
	}
	to := p.of[l.Peer.Inode]
	if to == nil || to.column < from.column || to.column == from.column && to.y < from.y {
		return
	}
	y1, ok1 := from.rowOf(l.Index)
	y2, ok2 := to.rowOf(l.Peer.Index)
	if !ok1 || !ok2 {
		return
	}
	class := "wire"
	if !l.Running {
		class += " down"
	}
	title := fmt.Sprintf("%s %s - %s %s", from.ns.Title(), l.Name, to.ns.Title(), l.Peer.Link)
	id := fmt.Sprintf("wire-%d-%d", from.ns.Inode, l.Index)
	x2 := to.x
	if to.column == from.column { // around the right side
		x2 = to.x + to.width
	}
	curve(b, class, id, title, from.x+from.width, y1, x2, y2)
}

// curve draws a line that leaves to the right, and arrives from the left where that is possible.
func curve(b *strings.Builder, class, id, title string, x1, y1, x2, y2 float64) {
	bend, arrive := (x1+x2)/2, (x1+x2)/2
	if x2 <= x1+columnGap/2 {
		bend = max(x1, x2) + columnGap/3
		arrive = bend
	}
	fmt.Fprintf(b, "<path class=\"%s\" id=\"%s\" d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f\"><title>%s</title></path>\n",
		class, escape(id), x1, y1, bend, y1, arrive, y2, x2, y2, escape(title))
}

// write draws a box.
func (x *box) write(b *strings.Builder) {
	class, title, data := x.class, x.rows[0].text, ""
	switch {
	case x.ns != nil:
		class, title = "ns", fmt.Sprintf("%s, net:[%d]", x.ns.Title(), x.ns.Inode)
		data = fmt.Sprintf(" tabindex=\"0\" data-inode=\"%d\"", x.ns.Inode)
	case x.more != "":
		data = fmt.Sprintf(" tabindex=\"0\" data-group=\"%s\"", escape(x.more))
	}
	fmt.Fprintf(b, "<g class=\"%s\" id=\"%s\"%s><title>%s</title>\n<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"6\"/>\n",
		class, escape(x.id), data, escape(title), x.class, x.x, x.y, x.width, x.height)
	for _, g := range x.bridge {
		fmt.Fprintf(b, "<rect class=\"bridge\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"4\"/>\n",
			x.x+padding/2, x.y+x.rows[g[0]].y, x.width-padding, x.rows[g[1]-1].y+rowHeight-x.rows[g[0]].y)
	}
	for i, r := range x.rows {
		if r.port != nil || r.more != "" && !r.far {
			continue // has an element of its own
		}
		class := ""
		switch {
		case i == 0 && !r.small:
			class = " class=\"title\""
		case r.small || r.more != "":
			class = " class=\"small\""
		}
		x.text(b, class, i)
	}
	b.WriteString("</g>\n")
}

// text draws a row.
func (x *box) text(b *strings.Builder, class string, i int) {
	r := &x.rows[i]
	left, base := x.x+padding+r.indent(), x.middle(i)+4
	fmt.Fprintf(b, "<text%s x=\"%.1f\" y=\"%.1f\">%s</text>\n", class, left, base, escape(r.text))
	if r.tail != "" {
		fmt.Fprintf(b, "<text class=\"small\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", left+textWidth(r.text)+2*charWidth, base, escape(r.tail))
	}
}

// flags draws the ports of a namespace: a flag at its left edge, and an arrow to the box that a port
// leads to.
func (p *picture) flags(b *strings.Builder, x *box) {
	for i, r := range x.rows {
		if r.more != "" && !r.far {
			fmt.Fprintf(b, "<g class=\"more\" id=\"more-%s\" tabindex=\"0\" data-group=\"%[1]s\"><title>%s</title>\n", escape(r.more), escape(r.text))
			x.text(b, " class=\"small\"", i)
			b.WriteString("</g>\n")
		}
		if r.port == nil {
			continue
		}
		class, title := "port", r.port.text()
		if r.port.Fault != "" {
			class, title = "port fault", title+"\n"+r.port.Fault
		}
		key := x.ns.PortKey(r.port)
		fmt.Fprintf(b, "<g class=\"%s\" id=\"port-%s\" tabindex=\"0\" data-port=\"%[2]s\"><title>%[3]s</title>\n", class, escape(key), escape(title))
		text := clip(plain.Text(r.port.flag()))
		right, width, y := x.x, textWidth(text)+padding, x.middle(i)
		const half = rowHeight/2 - 1.0
		fmt.Fprintf(b, "<path class=\"flag\" d=\"M%.1f %.1fH%.1fL%.1f %.1fL%.1f %.1fH%.1fZ\"/>\n",
			right-flagTip-width, y-half, right-flagTip, right, y, right-flagTip, y+half, right-flagTip-width)
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", right-flagTip-width+padding/2, y+4, escape(text))
		x.text(b, "", i)
		p.arrow(b, x, r.port, y)
		b.WriteString("</g>\n")
	}
}

// arrow draws the way from a port to the box that it leads to, if that is drawn to the right.
func (p *picture) arrow(b *strings.Builder, from *box, port *Port, y float64) {
	if port.To == nil {
		return
	}
	to := p.of[port.To.Inode]
	if to == nil || to.column <= from.column {
		return
	}
	y2, _ := to.rowOf(port.To.Index)
	if y2 += rowHeight; y2 > to.y+to.height-rowHeight/2 {
		y2 -= rowHeight / 2
	}
	x1, x2 := from.x+from.width, to.x-6
	bend := (x1 + x2) / 2
	fmt.Fprintf(b, "<path class=\"arrow\" d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f\"/>\n", x1, y, bend, y, bend, y2, x2, y2)
	fmt.Fprintf(b, "<path class=\"tip\" d=\"M%.1f %.1fl-8 -4v8z\"/>\n", to.x, y2)
}

// escape returns a text as XML has it.
func escape(s string) string {
	var b strings.Builder
	for i, line := range strings.Split(s, "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		_ = xml.EscapeText(&b, []byte(plain.Text(line))) // a Builder does not fail
	}
	return b.String()
}
