package nat

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/linkname"
	"github.com/boxwire/boxwire/internal/portlock"
	"github.com/boxwire/boxwire/internal/refuse"
)

// checkPorts checks each port of a call, and that no two of them overlap. It
// returns the port that is at fault.
func checkPorts(ports []Port) (Port, error) {
	for i, p := range ports {
		err := p.checkEnds()
		if err == nil && (i == 0 || p.Owner != ports[i-1].Owner) {
			err = checkOwner(p.Owner)
		}
		if err != nil {
			return p, err
		}
	}
	if i, j, found := overlap(ports); found {
		return ports[j], refuse.Input("the same call has %v, which takes the same host port", ports[i])
	}
	return Port{}, nil
}

// overlap returns the indexes of some two ports that claim the same, the later one
// second. It sorts, so that thousands of ports are no problem.
func overlap(ports []Port) (i, j int, found bool) {
	if len(ports) < 2 {
		return 0, 0, false
	}
	order := make([]int, len(ports))
	for i := range order {
		order[i] = i
	}
	// Those on all addresses come before the others of their family.
	slices.SortFunc(order, func(i, j int) int { return compareHost(&ports[i], &ports[j]) })
	var wild []portlock.Range // those on all addresses, of one protocol and family
	var of []int              // the index of the port of each
	last, before := -1, portlock.Range{}
	for _, at := range order {
		c := ports[at].claim()
		if last >= 0 && before.Overlaps(c) { // none of those on its address reaches further
			return min(at, last), max(at, last), true
		}
		if before.Proto != c.Proto || before.Addr.BitLen() != c.Addr.BitLen() {
			wild, of = wild[:0], of[:0]
		}
		last, before = at, c
		if c.Wildcard() {
			wild, of = append(wild, c), append(of, at)
			continue
		}
		// The first of them that does not end below c.
		n, _ := slices.BinarySearchFunc(wild, c.First, func(w portlock.Range, first uint16) int { return cmp.Compare(w.Last, first) })
		if n < len(wild) && wild[n].Overlaps(c) {
			return min(at, of[n]), max(at, of[n]), true
		}
	}
	return 0, 0, false
}

// compareHost orders ports by protocol, host address (IPv4 first) and first port.
func compareHost(p, o *Port) int {
	if p.Proto != o.Proto {
		return cmp.Compare(p.Proto, o.Proto)
	}
	return p.Host.Compare(o.Host)
}

// unspecified stands for all addresses of a's family.
func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// check refuses what cannot be published.
func (p Port) check() error {
	if err := p.checkEnds(); err != nil {
		return err
	}
	return checkOwner(p.Owner)
}

// checkEnds checks all but the owner.
func (p *Port) checkEnds() error {
	if err := p.Proto.check(); err != nil {
		return err
	}
	if err := checkEnd("host", p.Host, true); err != nil {
		return err
	}
	if err := checkEnd("box", p.Box, false); err != nil {
		return err
	}
	if p.Host.Addr().Is4() != p.Box.Addr().Is4() {
		return refuse.Input("the host address %v and the box address %v are of different families: NAT.Proxy relays from one to the other", p.Host.Addr(), p.Box.Addr())
	}
	if p.Host.Addr().Is6() && !kernel.HasIPv6() {
		return refuse.As(errors.ErrUnsupported, "the host address %v: the kernel has no IPv6 (ipv6.disable=1)", p.Host.Addr())
	}
	return p.checkRange()
}

// checkFree is checkPorts for ports whose host port may be 0.
func checkFree(ports []Port) (Port, error) {
	var fixed []Port
	for _, p := range ports {
		if p.Host.Port() != 0 {
			fixed = append(fixed, p)
			continue
		}
		if p.HostLast != 0 || p.BoxLast != 0 {
			return p, refuse.Input("a range needs its first host port")
		}
		p.Host = netip.AddrPortFrom(p.Host.Addr(), 1)
		if err := p.check(); err != nil {
			return p, err
		}
	}
	return checkPorts(fixed)
}

// checkExpandLink checks a port that is to be published on a link's addresses.
func checkExpandLink(link string, p Port) error {
	if err := linkname.Check(link); err != nil {
		return err
	}
	if p.Host.Addr().IsValid() && !p.Host.Addr().IsUnspecified() {
		return refuse.Input("the host address is %v and not left open (0.0.0.0 or ::)", p.Host.Addr())
	}
	_, err := checkFree([]Port{p})
	return err
}

func (p *Port) checkRange() error {
	switch host, box := p.Host.Port(), p.Box.Port(); {
	case p.HostLast != 0 && p.HostLast < host:
		return refuse.Input("the host's range ends (%d) before it begins (%d)", p.HostLast, host)
	case p.BoxLast != 0 && p.BoxLast < box:
		return refuse.Input("the box's range ends (%d) before it begins (%d)", p.BoxLast, box)
	case p.BoxLast != 0 && int(p.BoxLast)-int(box)+1 != p.count():
		return refuse.Input("the ranges differ in length: %d ports on the host, %d in the box", p.count(), int(p.BoxLast)-int(box)+1)
	case int(box)+p.count()-1 > 65535:
		return refuse.Input("the box's range of %d ports from %d on ends after 65535", p.count(), box)
	}
	return nil
}

// checkEnd checks one end of a port; host says which.
func checkEnd(what string, ap netip.AddrPort, host bool) error {
	a := ap.Addr()
	why := ""
	switch {
	case !a.IsValid():
		return refuse.Input("the %s address is missing", what)
	case ap.Port() == 0 && host:
		return refuse.Input("the host port is 0: PublishFree chooses one")
	case ap.Port() == 0:
		return refuse.Input("the box port is 0")
	case a.Is4In6():
		why = "is an IPv4 address in IPv6 form: use Unmap"
	case a.Zone() != "":
		why = "has a zone"
	case a.IsMulticast():
		why = "is multicast"
	case a.IsLinkLocalUnicast():
		why = "is link-local"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		why = "is the broadcast address"
	case host && a == netip.IPv6Loopback():
		why = "cannot be published: the kernel does not translate connections to it; NAT.Proxy relays them"
	case !host && a.IsUnspecified():
		why = "is unspecified"
	case !host && a.IsLoopback():
		why = "is a loopback address: the box's own is not reachable from outside the box"
	default:
		return nil
	}
	return refuse.Input("the %s address %v %s", what, a, why)
}

func checkOwner(owner string) error {
	switch {
	case owner == "":
		return refuse.Input("the owner is empty")
	case len(owner) > MaxOwner:
		return refuse.Input("the owner has %d bytes, %d is the most", len(owner), MaxOwner)
	case !utf8.ValidString(owner):
		return refuse.Input("the owner %q is not UTF-8", owner)
	case strings.ContainsFunc(owner, unicode.IsControl):
		return refuse.Input("the owner %q contains a control character", owner)
	case strings.ContainsRune(owner, '"'):
		return refuse.Input("the owner %q contains a quotation mark, which nft could not read back", owner)
	}
	return nil
}

// check refuses a protocol that has no ports to publish.
func (p Proto) check() error {
	switch p {
	case TCP, UDP, SCTP:
		return nil
	}
	return refuse.Input("the protocol is neither TCP, UDP nor SCTP (%d)", uint8(p))
}
