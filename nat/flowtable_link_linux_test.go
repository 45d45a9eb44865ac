package nat

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// Flows go on, whatever kind of link leads to the outside.
func TestFlowtableByLinksOfAllKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, host, outside string }{
		{"vlan", "link add x0 link up0 type vlan id 7", "link add x0 link wan0 type vlan id 7"},
		{"macvlan", "link add x0 link up0 type macvlan mode bridge", "link add x0 link wan0 type macvlan mode bridge"},
		{"ipvlan", "link add x0 link up0 type ipvlan mode l2", "link add x0 link wan0 type ipvlan mode l2"},
		{"ipip", "link add x0 type ipip local 203.0.113.1 remote 203.0.113.9", "link add x0 type ipip local 203.0.113.9 remote 203.0.113.1"},
		{"sit", "link add x0 type sit mode any local 203.0.113.1 remote 203.0.113.9", "link add x0 type sit mode any local 203.0.113.9 remote 203.0.113.1"},
		{"gre", "link add x0 type gre local 203.0.113.1 remote 203.0.113.9", "link add x0 type gre local 203.0.113.9 remote 203.0.113.1"},
		{"gretap", "link add x0 type gretap local 203.0.113.1 remote 203.0.113.9", "link add x0 type gretap local 203.0.113.9 remote 203.0.113.1"},
		{"ip6tnl", "link add x0 type ip6tnl mode any local 2001:db8:1::1 remote 2001:db8:1::9", "link add x0 type ip6tnl mode any local 2001:db8:1::9 remote 2001:db8:1::1"},
		{"vxlan", "link add x0 type vxlan id 7 dstport 4789 local 203.0.113.1 remote 203.0.113.9", "link add x0 type vxlan id 7 dstport 4789 local 203.0.113.9 remote 203.0.113.1"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			s := newFlowing(t, nil)
			six := c.kind != "ipip" && c.kind != "gre"
			for _, n := range []struct {
				ns          *netns.NS
				links, last string
			}{{s.host, c.host, "1"}, {s.outside, c.outside, "9"}} {
				lines := n.links + "\nlink set x0 up\naddr add 192.0.2." + n.last + "/24 dev x0"
				if six {
					lines += "\naddr add 2001:db8:7::" + n.last + "/64 dev x0 nodad"
				}
				ip(t, n.ns, lines)
			}
			maintain(t, newMaintainer(s.gw, always(State{Networks: []Network{flowingNetwork(), network1()}, Ports: flowPorts()})))
			addrs := []string{"192.0.2.9:90"}
			if six {
				addrs = append(addrs, "[2001:db8:7::9]:90")
			}
			for _, addr := range addrs {
				for _, proto := range []Proto{TCP, UDP} {
					hearing(t, s.outside, proto, addr)
					d := begin(t, s.box, proto, addr)
					for range 20 {
						d.answered(t)
					}
					// From 7.2 on, the kernel does not find the way of IPv6 tunnels.
					if !throughPorts() || c.kind != "ip6tnl" {
						d.offloaded(t, s.gw)
					}
				}
			}
			large(t, s, addrs[0])
		})
	}
}

// large moves a megabyte from the box to an echo server of the outside and back.
func large(t *testing.T, s topology, addr string) {
	t.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddrPort(addr).Addr(), 91).String()
	parrot(t, s.outside, at)
	d := begin(t, s.box, TCP, at)
	returned(t, d, 1<<19)
}

// returned sends some bytes and waits for their return.
func returned(t *testing.T, d dialogue, n int) {
	t.Helper()
	d.SetDeadline(time.Now().Add(40 * time.Second))
	go d.Write(make([]byte, n))
	if _, err := io.ReadFull(d, make([]byte, n)); err != nil {
		t.Errorf("%v to %v: %d bytes: %v", d.local, d.RemoteAddr(), n, err)
	}
}

// The MTU of a link on the way gets smaller: senders hear of it.
func TestFlowtableHeedsASmallerMTU(t *testing.T) {
	t.Parallel()
	for _, link := range []string{"up0", "br0", "box0"} {
		for _, on := range []bool{false, true} {
			t.Run(fmt.Sprint(link, on), func(t *testing.T) {
				t.Parallel()
				s := newFlowing(t, nil)
				if !on {
					if err := errors.Join(s.gw.SetNetwork(t.Context(), network0()), s.gw.SetNetwork(t.Context(), network1())); err != nil {
						t.Fatal(err)
					}
				}
				var all []dialogue
				for _, addr := range []string{"203.0.113.9:91", "[2001:db8:1::9]:91"} {
					parrot(t, s.outside, addr)
					d := begin(t, s.box, TCP, addr)
					returned(t, d, 1<<16)
					if on && !until(func() bool { returned(t, d, 100); return d.isOffloaded(t, s.gw) }) {
						t.Fatal("not offloaded")
					}
					all = append(all, d)
				}
				net := network0()
				net.Flowtable = on
				maintain(t, newMaintainer(s.gw, always(State{Networks: []Network{net, network1()}, Ports: flowPorts()})))
				switch link {
				case "up0":
					ip(t, s.host, "link set up0 mtu 1300")
					ip(t, s.outside, "link set wan0 mtu 1300")
				default: // the box's end, and the bridge
					ip(t, s.host, "link set box0 mtu 1300\nlink set br0 mtu 1300")
					ip(t, s.box, "link set eth0 mtu 1300")
				}
				for _, d := range all {
					returned(t, d, 1<<16)
				}
			})
		}
	}
}
