package topology

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/boxwire/boxwire/internal/plain"
)

// A row is a line of text in a box.
type row struct {
	text  string
	tail  string // says more about the text
	small bool   // it says more about the row above
	link  *Link  // that the row is about, or nil
	port  *Port  // that the row is about, or nil
	more  string // the group that is folded, or ""
	far   bool   // what is folded leads to other namespaces
	above *End   // a link of another namespace that lies on the one of the row above
	depth int
	y     float64 // from the top of the box
}

// A box is a namespace in a picture, a count of those that are not drawn, or what is outside of the
// machine.
type box struct {
	ns     *Namespace // or nil
	id     string
	class  string
	more   string // the group that it stands for
	rows   []row
	bridge [][2]int // the rows of a bridge and its ports: the first, and the one after the last
	area
	column int

	leads map[int]*box // what rows lead to, but for what another box leads to
	by    int          // the index of the link by which the box is led to

	ports map[uint64][]*Port // those that have no row yet, by the namespaces that they lead to; 0 for none

	uplink *Link // the root's link that leads outside
	from   *box  // whose links a count stands for
}

// newBox returns the box of a namespace.
func (p *picture) newBox(n *Namespace) *box {
	b := &box{ns: n, id: fmt.Sprint("ns-", n.Inode), class: "box"}
	p.of[n.Inode] = b
	if n.Own {
		b.class += " own"
	}
	b.rows = []row{{text: n.Title(), tail: n.who()}}
	b.ports = make(map[uint64][]*Port)
	for i := range n.Ports {
		to := inodeOf(n.Ports[i].To)
		b.ports[to] = append(b.ports[to], &n.Ports[i])
	}
	p.links(b, "", 0)
	if text := n.listening(); text != "" {
		b.rows = append(b.rows, row{text: "listens on " + text, small: true})
	}
	p.ports(b, 0, fmt.Sprintf("%d-ports", n.Inode), slices.Sorted(maps.Keys(b.ports))...)
	for _, note := range n.Notes {
		b.rows = append(b.rows, row{text: "note: " + note, small: true})
	}
	b.size()
	return b
}

// moreBox returns the box of namespaces that are folded into a row.
func (p *picture) moreBox(from *box, r row) *box {
	b := &box{id: "more-" + r.more, class: "more", more: r.more, rows: []row{{text: r.text}}, from: from}
	b.size()
	return b
}

// links adds the links of a master, each bridge before its ports, and those of the namespace itself
// for "".
func (p *picture) links(b *box, master string, depth int) {
	var links []*Link
	index := 0
	for _, l := range b.ns.Links {
		if l.Name == master {
			index = l.Index
		}
		if l.Master == master && l.Name != "lo" && l.Name != master {
			links = append(links, l)
		}
	}
	if master != "" {
		p.byFarTitle(links)
	}
	group := fmt.Sprintf("%d-%d", b.ns.Inode, index)
	alike, folded := 0, make(map[uint64]bool)
	for _, l := range links {
		far := l.Peer != nil && l.Peer.Inode != b.ns.Inode
		if far || master != "" {
			if alike++; alike > mostAlike && !p.unfolded(group) {
				if far {
					folded[l.Peer.Inode] = true
				}
				continue
			}
		}
		p.link(b, l, depth)
	}
	if alike > mostAlike && !p.unfolded(group) {
		text := fmt.Sprintf("+ %d more", alike-mostAlike)
		if ports := b.take(slices.Collect(maps.Keys(folded))...); len(ports) > 0 {
			text += fmt.Sprintf(" with %d ports", len(ports))
		}
		b.rows = append(b.rows, row{text: text, depth: depth, more: group, far: true})
	}
}

// link adds a link with its ports.
func (p *picture) link(b *box, l *Link, depth int) {
	begin := len(b.rows)
	text := l.Name
	if state := l.state(b.ns); state != "" {
		text += " (" + state + ")"
	}
	b.rows = append(b.rows, row{text: text, tail: joined(l.addrs(), b.ns.network(l.Name)), link: l, depth: depth})
	if l.Peer != nil && l.Peer.Inode != b.ns.Inode {
		p.ports(b, depth+1, fmt.Sprintf("%d-%d-ports", b.ns.Inode, l.Index), l.Peer.Inode)
	}
	p.above(b, l, depth+1)
	const deepest = 8 // a VRF or a bond in a bridge; no more is possible
	if depth < deepest {
		p.links(b, l.Name, depth+1)
	}
	if l.Kind == "bridge" && depth == 0 {
		b.bridge = append(b.bridge, [2]int{begin, len(b.rows)})
	}
}

// above adds the links of other namespaces that lie on a link: macvlan, ipvlan, VLANs.
func (p *picture) above(b *box, l *Link, depth int) {
	all := p.on[End{Inode: b.ns.Inode, Index: l.Index}]
	group := fmt.Sprintf("%d-%d-above", b.ns.Inode, l.Index)
	for i, x := range all {
		if i == mostAlike && !p.unfolded(group) {
			b.rows = append(b.rows, row{text: fmt.Sprintf("+ %d more", len(all)-i), depth: depth, more: group, far: true})
			return
		}
		b.rows = append(b.rows, row{text: x.text, small: true, depth: depth, far: true, above: &x.end})
	}
}

// ports adds the ports of a namespace that lead to some others, and have no row yet.
func (p *picture) ports(b *box, depth int, group string, to ...uint64) {
	ports, rest := b.take(to...), 0
	if len(ports) > mostAlike && !p.unfolded(group) {
		ports, rest = ports[:mostAlike], len(ports)-mostAlike
	}
	for _, port := range ports {
		b.rows = append(b.rows, row{text: port.text(), port: port, depth: depth})
	}
	if rest > 0 {
		b.rows = append(b.rows, row{text: fmt.Sprintf("+ %d more ports", rest), more: group, depth: depth})
	}
}

// take returns the ports that lead to some namespaces, in their order, and that it has not returned
// before.
func (b *box) take(to ...uint64) (ports []*Port) {
	for _, inode := range to {
		ports = append(ports, b.ports[inode]...)
		delete(b.ports, inode)
	}
	slices.SortFunc(ports, func(x, y *Port) int { return comparePorts(*x, *y) })
	return ports
}

// size makes the box as large as its rows need.
func (b *box) size() {
	b.width = 0
	for i := range b.rows {
		r := &b.rows[i]
		r.text, r.tail = clip(plain.Text(r.text)), clip(plain.Text(r.tail))
		width := textWidth(r.text) + r.indent() + 2*padding
		if r.tail != "" {
			width += textWidth(r.tail) + 2*charWidth
		}
		b.width = max(b.width, width)
	}
}

// indent is how far a row begins from the left, in pixels.
func (r *row) indent() float64 { return float64(r.depth) * 2 * charWidth }

func textWidth(s string) float64 { return float64(utf8.RuneCountInString(s)) * charWidth }

// flagWidth is the room that the flags of a namespace's ports need.
func (b *box) flagWidth() (width float64) {
	for _, r := range b.rows {
		if r.port != nil {
			width = max(width, textWidth(r.port.flag())+padding+flagTip+boxGap)
		}
	}
	return width
}

// clip bounds the length of a row.
func clip(s string) string {
	const most = 80
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// middle is the middle of a row, by its height in the picture.
func (b *box) middle(i int) float64 { return b.y + b.rows[i].y + rowHeight/2 }

// rowOf is the middle of the row of a link, or of the first row.
func (b *box) rowOf(index int) (y float64, ok bool) {
	i := slices.IndexFunc(b.rows, func(r row) bool { return r.link != nil && r.link.Index == index })
	return b.middle(max(i, 0)), i >= 0
}

// byFarTitle sorts the ports of a bridge by the titles of the namespaces that they lead to. Others go
// by their own names.
func (p *picture) byFarTitle(links []*Link) {
	titles := make(map[*Link]string, len(links))
	for _, l := range links {
		titles[l] = l.Name
		if l.Peer != nil && p.at[l.Peer.Inode] != nil {
			titles[l] = p.at[l.Peer.Inode].Title()
		}
	}
	slices.SortStableFunc(links, func(a, b *Link) int { return natural(titles[a], titles[b]) })
}

// natural compares texts with the numbers in them as numbers: box2 comes before box10.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x == 0 || y == 0 {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		if c := cmp.Or(cmp.Compare(x, y), cmp.Compare(a[:x], b[:y])); c != 0 {
			return c
		}
		a, b = a[x:], b[y:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits is the number of digits that a text begins with.
func digits(s string) (n int) {
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}
