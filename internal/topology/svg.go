package topology

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// style has the colours of a picture, in light and in dark.
const style = `
  text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2328; white-space: pre }
  .title { font-weight: bold }
  .small { fill: #59636e }
  .box { fill: #f6f8fa; stroke: #818b98 }
  .own { stroke-width: 2 }
  .wire { fill: none; stroke: #0969da; stroke-width: 1.5 }
  .down { stroke: #818b98; stroke-dasharray: 4 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .box { fill: #151b23; stroke: #656c76 }
    .wire { stroke: #4493f8 }
    .down { stroke: #656c76 }
  }
`

// WriteSVG writes a snapshot as a picture that needs nothing else: no script, no font, no other
// file. The same snapshot gives the same bytes.
func WriteSVG(w io.Writer, s *Snapshot) error {
	p := s.lay()
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0[1]f\" height=\"%.0[2]f\" viewBox=\"0 0 %.0[1]f %.0[2]f\" role=\"img\">\n", p.width, p.height)
	fmt.Fprintf(&b, "<title>%d network namespaces</title>\n<style>%s</style>\n", len(s.Namespaces), style)
	for _, from := range p.boxes {
		if from.ns != nil {
			s.wires(&b, p, from)
		}
	}
	for _, x := range p.boxes {
		x.write(&b)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// wires draws the lines from a namespace to those of later columns, and within its own column.
func (s *Snapshot) wires(b *strings.Builder, p *picture, from *box) {
	for _, l := range from.ns.Links {
		if l.Peer == nil || l.Peer.Inode == from.ns.Inode {
			continue
		}
		to := p.of[l.Peer.Inode]
		if to == nil || to.column < from.column || to.column == from.column && to.y < from.y {
			continue
		}
		y1, ok1 := from.rowOf(l.Index)
		y2, ok2 := to.rowOf(l.Peer.Index)
		if !ok1 || !ok2 {
			continue
		}
		class := "wire"
		if !l.Running {
			class += " down"
		}
		x1, x2, bend := from.x+from.width, to.x, (from.x+from.width+to.x)/2
		if to.column == from.column { // around the right side
			x2 = to.x + to.width
			bend = x1 + columnGap/3
		}
		fmt.Fprintf(b, "<path class=\"%s\" d=\"M%.1f %.1fH%.1fV%.1fH%.1f\"><title>%s</title></path>\n", class, x1, y1, bend, y2, x2,
			escape(fmt.Sprintf("%s %s - %s %s", from.ns.Title(), l.Name, to.ns.Title(), l.Peer.Link)))
	}
}

// write draws a namespace.
func (x *box) write(b *strings.Builder) {
	class, title := "box", x.rows[0].text
	if x.ns != nil {
		title = fmt.Sprintf("%s, net:[%d]", x.ns.Title(), x.ns.Inode)
		if x.ns.Own {
			class += " own"
		}
	}
	fmt.Fprintf(b, "<g><title>%s</title>\n<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"6\"/>\n",
		escape(title), class, x.x, x.y, x.width, x.height)
	for i, r := range x.rows {
		class := ""
		switch {
		case i == 0:
			class = " class=\"title\""
		case r.small:
			class = " class=\"small\""
		}
		fmt.Fprintf(b, "<text%s x=\"%.1f\" y=\"%.1f\">%s</text>\n", class, x.x+padding, x.y+padding+float64(i)*rowHeight+13, escape(r.text))
	}
	b.WriteString("</g>\n")
}

// escape returns a text as XML has it.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(plain(s))) // a Builder does not fail
	return b.String()
}
