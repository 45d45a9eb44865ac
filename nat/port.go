package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Proto is a transport protocol, with its number in the IP header (IANA). The
// zero Proto is none and refused.
type Proto uint8

// The protocols that have ports to publish.
const (
	TCP Proto = 6
	UDP Proto = 17
)

// String returns "tcp", "udp", or the number of another protocol.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// check refuses a protocol that has no ports to publish.
func (p Proto) check() error {
	if p != TCP && p != UDP {
		return refuse.Input("the protocol is neither TCP nor UDP (%d)", uint8(p))
	}
	return nil
}

// MaxOwner is the length of the longest owner in bytes.
const MaxOwner = 127

// Port is one published port: connections to Host arrive at Box. Every field is
// required. Ports compare with ==.
type Port struct {
	Proto Proto

	// Host is the address and port that visitors use. The unspecified address
	// (0.0.0.0 or ::) stands for every address of the host of that family; a
	// port for both families is two Ports. 127.0.0.1 is for the host itself.
	// Refused are port 0, ::1, multicast and link-local addresses.
	Host netip.AddrPort

	// Box is where the box listens: of Host's family, neither unspecified nor
	// loopback, multicast or link-local, port not 0.
	Box netip.AddrPort

	// Owner says whose port this is; it is kept in the kernel as the element's
	// comment. 1 to 127 bytes of UTF-8 without control characters and '"'.
	Owner string
}

// String returns the port as "tcp 0.0.0.0:8080 -> 10.88.0.2:80".
func (p Port) String() string { return fmt.Sprintf("%v %v -> %v", p.Proto, p.Host, p.Box) }

// Published is a port that is published, with what the kernel counted.
type Published struct {
	Port

	// Connections is the number of connections (for UDP, of flows) that came to
	// the port since it was published.
	Connections uint64
}

// check refuses what cannot be published.
func (p Port) check() error {
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
		return refuse.Input("the host address %v and the box address %v are of different families", p.Host.Addr(), p.Box.Addr())
	}
	return checkOwner(p.Owner)
}

// checkEnd checks one end of a port; host says which.
func checkEnd(what string, ap netip.AddrPort, host bool) error {
	a := ap.Addr()
	bad := func(why string) error { return refuse.Input("the %s address %v %s", what, a, why) }
	switch {
	case !a.IsValid():
		return refuse.Input("the %s address is missing", what)
	case ap.Port() == 0:
		return refuse.Input("the %s port is 0", what)
	case a.Is4In6():
		return bad("is an IPv4 address in IPv6 form: use Unmap")
	case a.Zone() != "":
		return bad("has a zone")
	case a.IsMulticast():
		return bad("is multicast")
	case a.IsLinkLocalUnicast():
		return bad("is link-local")
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return bad("is the broadcast address")
	case host && a == netip.IPv6Loopback():
		return bad("cannot be published: the kernel does not translate connections to it")
	case !host && a.IsUnspecified():
		return bad("is unspecified")
	case !host && a.IsLoopback():
		return bad("is a loopback address: the box's own is not reachable from outside the box")
	}
	return nil
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

// hostKey is what a port occupies.
type hostKey struct {
	proto Proto
	host  netip.AddrPort
}

func (p Port) key() hostKey { return hostKey{p.Proto, p.Host} }

// wild is the key of the port on all addresses of its family.
func (k hostKey) wild() hostKey {
	a := netip.IPv4Unspecified()
	if k.host.Addr().Is6() {
		a = netip.IPv6Unspecified()
	}
	return hostKey{k.proto, netip.AddrPortFrom(a, k.host.Port())}
}

func (k hostKey) isWild() bool { return k.host.Addr().IsUnspecified() }

// checkPorts checks each port of a call, and that no two of them collide. It
// returns the port that is at fault.
func checkPorts(ports []Port) (Port, error) {
	seen := make(map[hostKey]Port, len(ports))
	specific := make(map[hostKey]Port) // by the wildcard that each collides with
	for _, p := range ports {
		if err := p.check(); err != nil {
			return p, err
		}
		k := p.key()
		other, taken := seen[k]
		if !taken && k.isWild() {
			other, taken = specific[k]
		} else if !taken {
			other, taken = seen[k.wild()]
		}
		if taken {
			return p, refuse.Input("the same call has %v, which takes the same host port", other)
		}
		seen[k] = p
		if !k.isWild() {
			specific[k.wild()] = p
		}
	}
	return Port{}, nil
}
