package nat

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Guard binds a port of a bridge to the box behind it: to one MAC address and the box's IP
// addresses. The box cannot pass for another one or for the host, and what it sends to its siblings
// passes the firewall.
//
// # What the box may send
//
//   - Only frames from its MAC, without a VLAN tag, of IPv4, IPv6 and ARP. IP only from its addresses.
//     Its IPv6 link-local address is the one that the kernel makes of the MAC (EUI-64), or it is
//     named in Box.
//   - ARP requests, ARP replies and neighbour advertisements only for its addresses. It may probe for
//     these, too (duplicate address detection), and solicit routers.
//   - DHCP requests. No answers of a DHCP server, no router advertisements, ICMPv6 redirects and queries
//     for multicast listeners.
//   - By multicast and broadcast: UDP, ICMP and reports of listeners, without fragmentation headers.
//     Neighbour discovery is taken without any extension header (RFC 6980).
//
// Everything else is dropped and counted (see [GuardState]). IP packets that arrive on the port itself
// instead of the bridge are dropped as well: while the port is in no bridge, and those with an address
// of the 802.1D group (01:80:c2:00:00:0x), which bridges do not forward.
//
// # Traffic between siblings
//
// Unicast IP from and to a guarded port is handed to the host, which routes it, whatever MAC address it
// was sent to. So connections between boxes of one bridge are judged as those between networks are: by
// a [Policy], and by [Network.Isolated] without the flag "isolated" on the port. That holds with and
// without br_netfilter. Bridged are only ARP and neighbour discovery. Multicast and broadcast of a box
// reach the host, and no sibling; siblings do not reach each other by link-local addresses; a packet
// between them loses one hop of its TTL. The host sends a guarded box no ICMP redirects, which would
// name the direct way.
//
// A port without a guard binds nothing: its box can pass for a guarded one. So all ports of a bridge
// whose boxes are not trusted need a guard.
//
// The host is the router of a guarded box. A router or DHCP server behind another port of the bridge
// does not reach it. A box that sends with addresses of others ([Network.Behind]) cannot be guarded.
//
// # Order
//
// A box is closed from its first frame if the caller keeps an order: create the link, down; SetGuards;
// [NAT.SetPolicies]; then bring the link up. To remove a box, delete the link first, then the policy,
// then the guard. A guard outlives its port; a new link of that name needs SetGuards again, and passes
// no IP until then.
//
// The bridge learns where a MAC address is from frames that it does not forward, too, and those pass no
// firewall. A guarded port hears no unicast frame for another MAC, but a box can take a sibling off the
// net for a moment that way. LinkLocalLearn false in link.Bridge prevents it.
type Guard struct {
	// Port is the name of the bridge port on the host, such as the host's end of a veth pair.
	Port string

	// MAC is the hardware address of the box's own interface: 6 bytes, not a group address. No other
	// guard may name it.
	MAC net.HardwareAddr

	// Box are the addresses of the box: at least one, all in subnets of networks, but for link-local
	// IPv6 addresses. List returns them sorted, without the link-local address of the MAC.
	Box []netip.Addr

	// Owner names whose guard this is. The limits are those of [Port.Owner].
	Owner string
}

// GuardState is a guard of the table, with what it has stopped.
type GuardState struct {
	Guard

	// Forged counts the frames of the box that were not its own to send. Changes of the guard keep
	// the count.
	Forged uint64
}

// subject names the guard in errors.
func (g Guard) subject() string { return "the guard of port " + g.Port }

// checked refuses a guard that cannot be, and returns it with lists of its own in one form.
func (g Guard) checked() (Guard, error) {
	if err := checkInterface(g.Port); err != nil {
		return g, err
	}
	switch {
	case len(g.MAC) != 6:
		return g, refuse.Input("the MAC address has %d bytes, not 6", len(g.MAC))
	case g.MAC[0]&1 != 0:
		return g, refuse.Input("the MAC address %v is that of a group", g.MAC)
	case bytes.Equal(g.MAC, make([]byte, 6)):
		return g, refuse.Input("the MAC address is zero")
	}
	global := slices.DeleteFunc(slices.Clone(g.Box), func(a netip.Addr) bool { return a.Is6() && a.Zone() == "" && a.IsLinkLocalUnicast() })
	if len(global) > 0 || len(g.Box) == 0 {
		if err := checkBox(global); err != nil {
			return g, err
		}
	}
	if err := checkOwner(g.Owner); err != nil {
		return g, err
	}
	g.MAC, g.Box = slices.Clone(g.MAC), slices.Clone(g.Box)
	slices.SortFunc(g.Box, netip.Addr.Compare)
	for i, a := range g.Box {
		if i > 0 && a == g.Box[i-1] {
			return g, refuse.Input("the box has the address %v twice", a)
		}
	}
	g.Box = slices.DeleteFunc(g.Box, func(a netip.Addr) bool { return a == g.linkLocal() })
	return g, nil
}

// checkGuards checks guards that are to stand side by side. It returns them as checked does, and
// with an error the one at fault.
func checkGuards(guards []Guard) ([]Guard, Guard, error) {
	all := make([]Guard, len(guards))
	ports, macs := make(map[string]bool), make(map[string]string)
	for i, g := range guards {
		var err error
		if all[i], err = g.checked(); err != nil {
			return nil, g, err
		}
		if ports[g.Port] {
			return nil, g, refuse.Input("two guards are of this port")
		}
		if other, twice := macs[string(g.MAC)]; twice {
			return nil, g, refuse.Input("the guard of port %s has the MAC address %v, too", other, g.MAC)
		}
		ports[g.Port], macs[string(g.MAC)] = true, g.Port
	}
	return all, Guard{}, nil
}

// linkLocal is the IPv6 link-local address that the kernel makes of the MAC (RFC 4291, appendix A).
func (g Guard) linkLocal() netip.Addr {
	m := g.MAC
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// record is the text of a guard without its port, for [parseGuard].
func (g Guard) record() string {
	var b strings.Builder
	b.WriteString(g.MAC.String())
	for _, a := range g.Box {
		b.WriteString(" " + a.String())
	}
	b.WriteString("|" + g.Owner)
	return b.String()
}

// parseGuard is the inverse of [Guard.record]. What no guard can be is an error.
func parseGuard(port, record string) (Guard, error) {
	rest, owner, ok := strings.Cut(record, "|")
	words := strings.Fields(rest)
	if !ok || len(words) == 0 {
		return Guard{}, fmt.Errorf("the record of the guard of %s: %q is none", port, record)
	}
	mac, err := net.ParseMAC(words[0])
	g := Guard{Port: port, MAC: mac, Owner: owner}
	for _, word := range words[1:] {
		a, aerr := netip.ParseAddr(word)
		err = cmp.Or(err, aerr)
		g.Box = append(g.Box, a)
	}
	if err == nil && len(mac) != 6 {
		err = errors.New("the MAC address has not 6 bytes")
	}
	if err != nil {
		return Guard{}, fmt.Errorf("the record of the guard of %s: %w", port, err)
	}
	return g, nil
}

// equal reports whether both guards are the same.
func (g Guard) equal(o Guard) bool { return g.Port == o.Port && g.record() == o.record() }
