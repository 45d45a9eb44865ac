package topology

import (
	"fmt"
	"net/netip"
)

// scene is a machine of n boxes on one bridge, each with a published port.
func scene(n int) *Snapshot {
	p := netip.MustParsePrefix
	host := &Namespace{Inode: 1, Own: true, Links: []*Link{
		{Index: 1, Name: "lo", Up: true, Running: true},
		{Index: 2, Name: "eth0", Up: true, Running: true, Addrs: []netip.Prefix{p("203.0.113.1/24")}},
		{Index: 3, Name: "br0", Kind: "bridge", Up: true, Running: true, Addrs: []netip.Prefix{p("10.88.0.1/16")}},
		{Index: 4, Name: "eth0.7", Kind: "vlan", Detail: "id 7", Up: true, Running: true, Peer: &End{1, "eth0", 2}},
	}, Routes: []Route{{Dst: p("0.0.0.0/0"), Via: netip.MustParseAddr("203.0.113.254"), Dev: "eth0"}},
		Networks: []Network{{Table: "inet boxwire", Interface: "br0", Flags: []string{"masquerade"}}}}
	s := &Snapshot{Namespaces: []*Namespace{host}}
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, 88, byte((i + 2) >> 8), byte(i + 2)})
		in := uint64(2 + i)
		host.Links = append(host.Links, &Link{Index: 10 + i, Name: fmt.Sprint("veth", i), Kind: "veth", Up: true, Running: true, Master: "br0", Peer: &End{in, "eth0", 2}})
		s.Namespaces = append(s.Namespaces, &Namespace{Inode: in, Names: []string{fmt.Sprint("/run/netns/box", i)}, Processes: []Process{{100 + i, "web"}},
			Links: []*Link{
				{Index: 1, Name: "lo", Up: true, Running: true},
				{Index: 2, Name: "eth0", Kind: "veth", Up: true, Running: true, Addrs: []netip.Prefix{netip.PrefixFrom(a, 16)}, Peer: &End{1, fmt.Sprint("veth", i), 10 + i}},
			}, Listeners: []Listener{{"tcp", netip.MustParseAddrPort("0.0.0.0:80")}}})
		port := Port{Table: "inet boxwire", Proto: "tcp", Host: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(8000+i)), Box: netip.AddrPortFrom(a, 80), Owner: fmt.Sprint("box", i), To: &End{in, "eth0", 2}}
		if i == 1 {
			port.Fault = "no program listens on tcp 10.88.0.3:80 in box1"
		}
		host.Ports = append(host.Ports, port)
	}
	s.sort()
	return s
}
