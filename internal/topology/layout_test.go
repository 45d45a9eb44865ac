package topology

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// wiredAtRandom is a machine whose namespaces are wired by chance.
func wiredAtRandom(seed uint64) *Snapshot {
	r := rand.New(rand.NewPCG(seed, 1))
	s := &Snapshot{}
	for i := range 2 + r.IntN(60) {
		n := &Namespace{Inode: uint64(1 + i), Own: i == 0, Processes: []Process{{i, fmt.Sprint("program", r.IntN(9))}}}
		n.Links = append(n.Links, &Link{Index: 1, Name: "lo"}, &Link{Index: 2, Name: "br0", Kind: "bridge"})
		s.Namespaces = append(s.Namespaces, n)
	}
	for range r.IntN(120) {
		a, b := s.Namespaces[r.IntN(len(s.Namespaces))], s.Namespaces[r.IntN(len(s.Namespaces)/2)]
		x := &Link{Index: 1 + len(a.Links), Name: fmt.Sprint("veth", len(a.Links)), Kind: "veth"}
		a.Links = append(a.Links, x)
		y := &Link{Index: 1 + len(b.Links), Name: fmt.Sprint("veth", len(b.Links)), Kind: "veth", Master: []string{"", "br0"}[r.IntN(2)]}
		b.Links = append(b.Links, y)
		x.Peer = &End{b.Inode, y.Name, y.Index}
		if r.IntN(4) > 0 { // a pair, and otherwise a link on another one
			y.Peer = &End{a.Inode, x.Name, x.Index}
		}
		if r.IntN(2) == 0 {
			b.Routes = append(b.Routes, Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: y.Name})
		}
		port := Port{Table: "ip nat", Proto: "udp", Host: netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(1+r.IntN(60000)))}
		if r.IntN(4) > 0 {
			port.To = &End{a.Inode, x.Name, x.Index}
		}
		b.Ports = append(b.Ports, port)
	}
	s.sort()
	return s
}

// No box covers another one, or a flag, and each row has a line of its own in its box.
func TestNothingOverlaps(t *testing.T) {
	t.Parallel()
	seeds := uint64(200)
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		s := wiredAtRandom(seed)
		for _, whole := range []bool{false, true} {
			p := s.lay(func(string) bool { return whole })
			var areas []area
			ids := make(map[string]bool)
			for _, b := range p.boxes {
				areas = append(areas, b.area)
				if ids[b.id] {
					t.Errorf("seed %d: two boxes are %s", seed, b.id)
				}
				ids[b.id] = true
				below := 0.0
				for _, r := range b.rows {
					if r.y < below || r.y+rowHeight > b.height || r.indent()+textWidth(r.text) > b.width {
						t.Errorf("seed %d: row %q of %s is at %.0f, of %.0f x %.0f", seed, r.text, b.id, r.y, b.width, b.height)
					}
					below = r.y + rowHeight
					if r.port != nil {
						width := textWidth(r.port.flag()) + padding
						areas = append(areas, area{b.x - flagTip - width, b.y + r.y, width, rowHeight - 1})
					}
				}
			}
			for i, a := range areas {
				if a.x < 0 || a.y < 0 || a.x+a.width > p.width || a.y+a.height > p.height {
					t.Errorf("seed %d: %+v is outside of %.0f x %.0f", seed, a, p.width, p.height)
				}
				for _, b := range areas[:i] {
					if a.x < b.x+b.width && b.x < a.x+a.width && a.y < b.y+b.height && b.y < a.y+a.height {
						t.Errorf("seed %d, whole %v: %+v covers %+v", seed, whole, a, b)
					}
				}
			}
			if whole && len(p.of) != len(s.Namespaces) {
				t.Errorf("seed %d: %d of %d namespaces are drawn", seed, len(p.of), len(s.Namespaces))
			}
			if t.Failed() {
				return
			}
		}
	}
}
