package topology

import (
	"fmt"
	"unicode/utf8"
)

// Sizes of a picture, in pixels.
const (
	charWidth  = 7.3 // of the font, a little more than most have
	rowHeight  = 18
	padding    = 10
	columnGap  = 90
	boxGap     = 16
	mostInRow  = 30 // namespaces below one link's namespace that are drawn, before the rest is a count
	marginSide = 20
)

// A row is a line of text in the box of a namespace.
type row struct {
	text  string
	small bool  // it says more about the row above
	link  *Link // that the row is about, or nil
}

// A box is a namespace in a picture.
type box struct {
	ns     *Namespace // nil for the count of those that are not drawn
	rows   []row
	x, y   float64
	width  float64
	height float64
	column int
}

// A picture is where each namespace is drawn.
type picture struct {
	boxes         []*box
	of            map[uint64]*box
	width, height float64
}

// lay places the namespaces: the caller's own in the first column, those that its links lead to in
// the next, and so on. In a column they follow the order of the links that lead to them.
func (s *Snapshot) lay() *picture {
	p := &picture{of: make(map[uint64]*box)}
	var columns [][]*box
	place := func(n *Namespace, column int) *box {
		b := newBox(n, column)
		p.of[n.Inode] = b
		for len(columns) <= column {
			columns = append(columns, nil)
		}
		columns[column] = append(columns[column], b)
		return b
	}
	for _, root := range s.Namespaces {
		if p.of[root.Inode] != nil || !root.Own && len(s.far(root)) > 0 && s.reached(root) {
			continue
		}
		for queue := []*box{place(root, 0)}; len(queue) > 0; queue = queue[1:] {
			at, drawn, more := queue[0], 0, 0
			for _, n := range s.far(at.ns) {
				switch {
				case p.of[n.Inode] != nil:
				case drawn == mostInRow:
					p.of[n.Inode] = &box{ns: n, column: -1}
					more++
				default:
					drawn++
					queue = append(queue, place(n, at.column+1))
				}
			}
			if more > 0 {
				b := &box{rows: []row{{text: fmt.Sprintf("+ %d more", more)}}, column: at.column + 1}
				b.size()
				columns[b.column] = append(columns[b.column], b)
			}
		}
	}
	x := float64(marginSide)
	for _, column := range columns {
		y, width := float64(marginSide), 0.0
		for _, b := range column {
			b.x, b.y = x, y
			y += b.height + boxGap
			width = max(width, b.width)
			p.boxes = append(p.boxes, b)
		}
		for _, b := range column {
			b.width = width
		}
		x += width + columnGap
		p.height = max(p.height, y-boxGap+marginSide)
	}
	p.width = max(0, x-columnGap+marginSide)
	return p
}

// far are the namespaces that the links of one lead to, in their order.
func (s *Snapshot) far(n *Namespace) (all []*Namespace) {
	seen := map[uint64]bool{n.Inode: true}
	for _, l := range n.ordered() {
		if l.link.Peer == nil || seen[l.link.Peer.Inode] {
			continue
		}
		seen[l.link.Peer.Inode] = true
		if other := s.Namespace(l.link.Peer.Inode); other != nil {
			all = append(all, other)
		}
	}
	return all
}

// reached reports whether a namespace is wired, over others, to one that comes before it.
func (s *Snapshot) reached(n *Namespace) bool {
	seen := map[uint64]bool{n.Inode: true}
	for queue := []*Namespace{n}; len(queue) > 0; queue = queue[1:] {
		for _, o := range s.far(queue[0]) {
			if !seen[o.Inode] {
				seen[o.Inode] = true
				queue = append(queue, o)
			}
		}
	}
	for _, first := range s.Namespaces {
		if seen[first.Inode] {
			return first != n
		}
	}
	return false
}

// An indented is a link in the order of a picture.
type indented struct {
	link  *Link
	depth int
}

// ordered are the links of a namespace, each bridge before its ports.
func (n *Namespace) ordered() (all []indented) {
	ports := make(map[string][]*Link)
	for _, l := range n.Links {
		if l.Master != "" {
			ports[l.Master] = append(ports[l.Master], l)
		}
	}
	var walk func(l *Link, depth int)
	walk = func(l *Link, depth int) {
		all = append(all, indented{l, depth})
		for _, p := range ports[l.Name] {
			if p != l && depth < 8 { // a VRF or a bond in a bridge; no more is possible
				walk(p, depth+1)
			}
		}
	}
	for _, l := range n.Links {
		if l.Master == "" {
			walk(l, 0)
		}
	}
	return all
}

func newBox(n *Namespace, column int) *box {
	b := &box{ns: n, column: column, rows: []row{{text: n.Title()}}}
	if who := n.who(); who != "" {
		b.rows = append(b.rows, row{text: who, small: true})
	}
	for _, l := range n.ordered() {
		if l.link.Name == "lo" {
			continue
		}
		indent := ""
		for range l.depth {
			indent += "  "
		}
		text := indent + l.link.Name
		if state := l.link.state(); state != "" {
			text += " (" + state + ")"
		}
		b.rows = append(b.rows, row{text: text, link: l.link})
		if addrs := l.link.addrs(); addrs != "" {
			b.rows = append(b.rows, row{text: indent + "  " + addrs, small: true})
		}
	}
	if text := listeners(n.Listeners); text != "" {
		b.rows = append(b.rows, row{text: "listens on " + text, small: true})
	}
	for _, note := range n.Notes {
		b.rows = append(b.rows, row{text: "note: " + note, small: true})
	}
	b.size()
	return b
}

// size makes the box as large as its rows need.
func (b *box) size() {
	for i := range b.rows {
		b.rows[i].text = clip(plain(b.rows[i].text))
		b.width = max(b.width, float64(utf8.RuneCountInString(b.rows[i].text))*charWidth+2*padding)
	}
	b.height = float64(len(b.rows))*rowHeight + 2*padding
}

// clip bounds the length of a row.
func clip(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// rowOf is the middle of the row of a link, by its height in the picture.
func (b *box) rowOf(index int) (y float64, ok bool) {
	for i, r := range b.rows {
		if r.link != nil && r.link.Index == index {
			return b.y + padding + (float64(i)+0.5)*rowHeight, true
		}
	}
	return 0, false
}
