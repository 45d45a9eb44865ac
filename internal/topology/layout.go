package topology

import (
	"cmp"
	"fmt"
	"slices"
)

// Sizes of a picture, in pixels.
const (
	charWidth = 7.3 // of the font, a little more than most have
	rowHeight = 18
	padding   = 10
	columnGap = 110
	boxGap    = 16
	bandGap   = 32
	margin    = 20
	flagTip   = 8 // how far the tip of a flag reaches
	wide      = 1200
)

// mostAlike is how many links of one bridge are drawn, or ports, or namespaces without a wire, before
// the rest is a count.
const mostAlike = 30

// An area is where something is drawn.
type area struct{ x, y, width, height float64 }

// A picture is where each namespace is drawn.
type picture struct {
	s        *Snapshot
	unfolded func(group string) bool
	at       map[uint64]*Namespace // by their inode numbers
	near     map[uint64][]uint64   // the namespaces that each one is wired to
	on       map[End][]above       // the links that lie on those of other namespaces; an End without a name
	boxes    []*box
	of       map[uint64]*box // by the inode numbers of their namespaces
	width    float64
	height   float64
}

// lay places the namespaces. Those that are wired to each other are a band. A band begins with the
// host, or with the namespace that most links lead away from, and has most bridges. Left of it is what its
// default routes lead to, right of it are the others, in the order of the links that lead to them.
// Namespaces without a wire come last, side by side.
func (s *Snapshot) lay(unfolded func(string) bool) *picture {
	p := &picture{s: s, unfolded: unfolded, at: s.byInode(), near: s.near(), of: make(map[uint64]*box)}
	p.findAbove()
	var alone []*Namespace
	for _, band := range s.bands(p.at, p.near) {
		if len(band) == 1 && !band[0].Own && len(band[0].Ports) == 0 {
			alone = append(alone, band[0])
			continue
		}
		p.band(band)
	}
	p.alone(alone)
	p.notes()
	if len(p.boxes) > 0 {
		p.width, p.height = p.width+margin, p.height-bandGap+margin
	}
	return p
}

// notes places what could not be read below the rest.
func (p *picture) notes() {
	if len(p.s.Notes) == 0 {
		return
	}
	b := &box{id: "notes", class: "outside"}
	for _, note := range p.s.Notes {
		b.rows = append(b.rows, row{text: "note: " + note, small: true})
	}
	b.size()
	bottom := b.spread()
	b.x, b.y = margin, max(margin, p.height)
	p.width, p.height = max(p.width, b.x+b.width), b.y+bottom+bandGap
	p.boxes = append(p.boxes, b)
}

// bands are the namespaces that are wired to each other, each band with its first namespace first.
func (s *Snapshot) bands(at map[uint64]*Namespace, near map[uint64][]uint64) (bands [][]*Namespace) {
	seen := make(map[uint64]bool)
	for _, first := range s.Namespaces {
		if seen[first.Inode] {
			continue
		}
		seen[first.Inode] = true
		band := []*Namespace{first}
		for i := 0; i < len(band); i++ {
			for _, inode := range near[band[i].Inode] {
				if other := at[inode]; other != nil && !seen[inode] {
					seen[inode] = true
					band = append(band, other)
				}
			}
		}
		root := slices.MaxFunc(band, func(a, b *Namespace) int {
			return cmp.Or(len(near[a.Inode])-len(near[b.Inode]), a.bridges()-b.bridges())
		})
		if first.Own {
			root = first
		}
		i := slices.Index(band, root)
		copy(band[1:], band[:i]) // the others keep their order
		band[0] = root
		bands = append(bands, band)
	}
	return bands
}

// bridges counts the bridges of a namespace.
func (n *Namespace) bridges() (count int) {
	for _, l := range n.Links {
		if l.Kind == "bridge" {
			count++
		}
	}
	return count
}

// near are the namespaces that each one is wired to, once for each link.
func (s *Snapshot) near() map[uint64][]uint64 {
	all := make(map[uint64][]uint64)
	ends := make(map[End]bool)
	for _, n := range s.Namespaces {
		for _, l := range n.Links {
			if l.Peer == nil || l.Peer.Inode == n.Inode {
				continue
			}
			all[n.Inode] = append(all[n.Inode], l.Peer.Inode)
			ends[End{Inode: n.Inode, Index: l.Index}] = true
		}
	}
	for _, n := range s.Namespaces {
		for _, l := range n.Links {
			if l.Peer != nil && l.Peer.Inode != n.Inode && !ends[End{Inode: l.Peer.Inode, Index: l.Peer.Index}] {
				all[l.Peer.Inode] = append(all[l.Peer.Inode], n.Inode)
			}
		}
	}
	return all
}

// An above is a link that lies on one of another namespace.
type above struct {
	end  End
	text string
}

// findAbove finds the links that lie on those of other namespaces.
func (p *picture) findAbove() {
	p.on = make(map[End][]above)
	for _, n := range p.s.Namespaces {
		for _, l := range n.Links {
			if l.Peer == nil || l.Peer.Inode == n.Inode {
				continue
			}
			back := p.at[l.Peer.Inode].linkAt(l.Peer.Index)
			if back == nil || back.Peer != nil && back.Peer.Inode == n.Inode && back.Peer.Index == l.Index {
				continue // a pair
			}
			on := End{Inode: l.Peer.Inode, Index: l.Peer.Index}
			p.on[on] = append(p.on[on], above{
				end:  End{Inode: n.Inode, Link: l.Name, Index: l.Index},
				text: joinedBy(" ", l.Kind, l.Detail, "of", n.Title()),
			})
		}
	}
}

// leadsTo reports whether a namespace is wired to one other alone.
func (p *picture) leadsTo(n *Namespace, inode uint64) bool {
	return !slices.ContainsFunc(p.near[n.Inode], func(other uint64) bool { return other != inode })
}

// band places namespaces that are wired to each other, below what is there. Each is right of the one
// that leads to it, at the height of the link that does.
func (p *picture) band(band []*Namespace) {
	root := p.newBox(band[0])
	left := p.outside(root)
	columns := [][]*box{left, {root}}
	for i := 1; i < len(columns); i++ {
		var next []*box
		for _, at := range columns[i] {
			next = append(next, p.children(at)...)
		}
		if len(next) > 0 {
			columns = append(columns, next)
		}
	}
	top := max(margin, p.height)
	bottom := root.spread() + top
	root.shift(top)
	y := top
	for _, b := range left {
		b.spread()
		at := b.middle(0)
		if b.ns != nil {
			at, _ = b.rowOf(b.uplink.Peer.Index)
		}
		if row, ok := root.rowOf(b.uplink.Index); ok {
			y = max(y, row-at)
		}
		b.shift(y)
		y += b.height + boxGap
	}
	x := float64(margin)
	for i, column := range columns {
		width, flags := 0.0, 0.0
		for _, b := range column {
			width, flags = max(width, b.width), max(flags, b.flagWidth())
			bottom = max(bottom, b.y+b.height)
		}
		if len(column) == 0 {
			continue
		}
		x += flags
		for _, b := range column {
			b.x, b.width, b.column = x, width, i
		}
		x += width + columnGap
		p.boxes = append(p.boxes, column...)
	}
	p.width, p.height = max(p.width, x-columnGap), bottom+bandGap
}

// children makes the boxes that the links of a box lead to, and that have none yet.
func (p *picture) children(at *box) (all []*box) {
	at.leads = make(map[int]*box)
	for i, r := range at.rows {
		switch {
		case r.more != "" && r.far:
			at.leads[i] = p.moreBox(at, r)
		case r.above != nil && p.of[r.above.Inode] == nil && p.at[r.above.Inode] != nil:
			at.leads[i] = p.newBox(p.at[r.above.Inode])
			at.leads[i].by = r.above.Index
		case r.link != nil && r.link.Peer != nil && p.of[r.link.Peer.Inode] == nil && p.at[r.link.Peer.Inode] != nil:
			at.leads[i] = p.newBox(p.at[r.link.Peer.Inode])
			at.leads[i].by = r.link.Peer.Index
		default:
			continue
		}
		all = append(all, at.leads[i])
	}
	return all
}

// spread places the rows of a box that is at the height 0, and the boxes that they lead to. It returns
// where the last of these ends.
func (b *box) spread() (bottom float64) {
	y, end := float64(padding), -float64(boxGap)
	for i := range b.rows {
		r := &b.rows[i]
		if child := b.leads[i]; child != nil {
			height := child.spread()
			at, _ := child.rowOf(child.by)
			begin := max(y+rowHeight/2-at, end+boxGap)
			y = begin + at - rowHeight/2
			child.shift(begin)
			end = begin + height
		}
		r.y = y
		y += rowHeight
	}
	b.height = y + padding
	return max(b.height, end)
}

// shift moves a box and those that it leads to.
func (b *box) shift(y float64) {
	b.y += y
	for _, child := range b.leads {
		child.shift(y)
	}
}

// outside are the boxes of what is beyond the uplinks of a namespace: other namespaces, or gateways
// that are not on this machine.
func (p *picture) outside(root *box) (column []*box) {
	for _, l := range root.ns.Links {
		var gateways []string
		for _, r := range root.ns.Routes {
			switch {
			case !r.IsDefault() || r.Dev != l.Name:
			case r.Via.IsValid():
				gateways = append(gateways, "via "+r.Via.String())
			default:
				gateways = append(gateways, "on "+r.Dev)
			}
		}
		far := p.far(root.ns, l)
		switch {
		case far != nil && (len(gateways) > 0 || l.Master == "" && p.isOutside(root.ns, far)) && p.of[far.Inode] == nil && p.leadsTo(far, root.ns.Inode):
			b := p.newBox(far)
			b.uplink = l
			column = append(column, b)
		case far == nil && len(gateways) > 0:
			b := &box{id: fmt.Sprintf("outside-%d-%d", root.ns.Inode, l.Index), class: "outside", uplink: l, rows: []row{{text: "outside"}}}
			for _, text := range gateways {
				b.rows = append(b.rows, row{text: text, small: true})
			}
			b.size()
			column = append(column, b)
		}
	}
	return column
}

// far is the other namespace that a link leads to, or nil.
func (p *picture) far(n *Namespace, l *Link) *Namespace {
	if l.Peer == nil || l.Peer.Inode == n.Inode {
		return nil
	}
	return p.at[l.Peer.Inode]
}

// isOutside reports whether a namespace stands for what is outside of a host: it has no default route,
// and others that are wired to the host have one.
func (p *picture) isOutside(host, n *Namespace) bool {
	if slices.ContainsFunc(n.Routes, Route.IsDefault) {
		return false
	}
	return slices.ContainsFunc(host.Links, func(l *Link) bool {
		other := p.far(host, l)
		return other != nil && slices.ContainsFunc(other.Routes, Route.IsDefault)
	})
}

// alone places namespaces without a wire, side by side.
func (p *picture) alone(all []*Namespace) {
	shown, rest := all, 0
	if len(all) > mostAlike && !p.unfolded("alone") {
		shown, rest = all[:mostAlike], len(all)-mostAlike
	}
	var boxes []*box
	for _, n := range shown {
		boxes = append(boxes, p.newBox(n))
	}
	if rest > 0 {
		boxes = append(boxes, p.moreBox(nil, row{text: fmt.Sprintf("+ %d more", rest), more: "alone"}))
	}
	limit := max(wide, p.width)
	x, y, height := float64(margin), max(margin, p.height), 0.0
	for _, b := range boxes {
		b.spread()
		if x > margin && x+b.width > limit {
			x, y, height = margin, y+height+boxGap, 0
		}
		b.x, b.y = x, y
		x += b.width
		p.width, height = max(p.width, x), max(height, b.height)
		x += boxGap
		p.height = max(p.height, y+height+bandGap)
	}
	p.boxes = append(p.boxes, boxes...)
}
