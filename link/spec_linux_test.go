package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestBadInputIsRefusedByNameAndReason(t *testing.T) {
	t.Parallel()
	ns, other := netnstest.New(t), netnstest.New(t)
	ok := Spec{Name: "a", Kind: Veth{Peer: Spec{NS: other, Name: "b"}}}
	with := func(change func(*Spec)) Spec {
		s := ok
		change(&s)
		return s
	}
	name := func(n string) func(*Spec) { return func(s *Spec) { s.Name = n } }
	mac := func(m ...byte) func(*Spec) { return func(s *Spec) { s.MAC = net.HardwareAddr(m) } }
	addrs := func(ps ...netip.Prefix) func(*Spec) { return func(s *Spec) { s.Addrs = ps } }

	// Each is tried on the outer end and on the peer.
	for _, c := range []struct {
		what   string
		change func(*Spec)
		reason string
	}{
		{"empty name", name(""), "name is empty"},
		{"name of 16 bytes", name("abcdefghijklmnop"), "16 bytes"},
		{"name with slash", name("a/b"), "not allowed"},
		{"name with colon", name("a:b"), "not allowed"},
		{"name with percent", name("veth%d"), "not allowed"},
		{"name with space", name("a b"), "white space"},
		{"name with newline", name("a\n"), "white space"},
		{"name with NUL", name("a\x00b"), "control"},
		{"name with Latin-1 space", name("a\xa0b"), "white space"},
		{"name is a dot", name("."), `must not be "."`},
		{"name is two dots", name(".."), `must not be ".."`},
		{"negative index", func(s *Spec) { s.Index = -1 }, "index -1"},
		{"negative master", func(s *Spec) { s.Master.Index = -3 }, "master -3"},
		{"own master", func(s *Spec) { s.Master.Index, s.Index = 7, 7 }, "its own master"},
		{"negative MTU", func(s *Spec) { s.MTU = -1 }, "MTU -1"},
		{"small MTU", func(s *Spec) { s.MTU = 67 }, "MTU 67"},
		{"large MTU", func(s *Spec) { s.MTU = 65536 }, "MTU 65536"},
		{"MTU too small for IPv6", func(s *Spec) { s.MTU, s.Addrs = 1279, prefixes("fd88::1/64") }, "at least 1280"},
		{"short MAC", mac(2, 0, 0), "3 bytes"},
		{"empty MAC", func(s *Spec) { s.MAC = net.HardwareAddr{} }, "0 bytes"},
		{"long MAC", mac(2, 0, 0, 0, 0, 0, 0, 0), "8 bytes"},
		{"multicast MAC", mac(1, 0, 0, 0, 0, 1), "multicast"},
		{"zero MAC", mac(0, 0, 0, 0, 0, 0), "all zero"},
		{"zero prefix", addrs(netip.Prefix{}), "not a valid prefix"},
		{"prefix too long", addrs(netip.PrefixFrom(netip.MustParseAddr("10.0.0.1"), 33)), "not a valid prefix"},
		{"unspecified", addrs(prefixes("0.0.0.0/8")...), "unspecified"},
		{"unspecified IPv6", addrs(prefixes("::/64")...), "unspecified"},
		{"multicast", addrs(prefixes("224.0.0.1/24")...), "multicast"},
		{"multicast IPv6", addrs(prefixes("ff02::1/64")...), "multicast"},
		{"broadcast", addrs(prefixes("255.255.255.255/32")...), "broadcast"},
		{"IPv4 in IPv6", addrs(netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 120)), "IPv4 form 10.0.0.1"},
		{"duplicate", addrs(prefixes("10.0.0.1/24", "10.0.0.1/24")...), "twice"},
		{"duplicate IPv6", addrs(prefixes("fd88::1/64", "fd88::1/128")...), "twice"},
	} {
		outer := with(c.change)
		inner := with(func(s *Spec) {
			p := Spec{NS: other, Name: "b"}
			c.change(&p)
			s.Kind = Veth{Peer: p}
		})
		for end, s := range map[string]Spec{"outer": outer, "peer": inner} {
			wantRefused(t, c.what+", "+end, ns, s, c.reason)
			if end == "peer" {
				wantRefused(t, c.what+", "+end, ns, s, "peer: ")
			}
		}
	}

	for _, c := range []struct {
		what   string
		ns     *netns.NS
		spec   Spec
		reason string
	}{
		{"nil namespace", nil, ok, "namespace is nil"},
		{"no kind", ns, Spec{Name: "a"}, "no Kind"},
		{"pointer to a kind", ns, Spec{Name: "a", Kind: &Bridge{}}, "*link.Bridge"},
		{"kind in peer", ns, with(func(s *Spec) { s.Kind = Veth{Peer: Spec{Name: "b", Kind: Bridge{}}} }), "Kind of its own"},
		{"port of nothing", ns, with(func(s *Spec) { s.Port.Isolated = new(true) }), "without a Master"},
		{"port of nothing", ns, with(func(s *Spec) { s.BondPort.Queue = new(uint16(1)) }), "without a Master"},
		{"same name twice", ns, Spec{Name: "a", Kind: Veth{Peer: Spec{Name: "a"}}}, `named "a"`},
		{"same name twice, NS given", ns, Spec{Name: "a", Kind: Veth{Peer: Spec{NS: ns, Name: "a"}}}, `named "a"`},
		{"index of the peer alone", ns, Spec{Name: "a", Kind: Veth{Peer: Spec{NS: other, Name: "b", Index: 9}}}, "give both an Index"},
		{"same index twice", ns, Spec{Name: "a", Index: 9, Kind: Veth{Peer: Spec{Name: "b", Index: 9}}}, "index 9"},
	} {
		wantRefused(t, c.what, c.ns, c.spec, c.reason)
	}
	onlyLo(t, ns, other)

	// The limits themselves are fine.
	for _, s := range []Spec{
		{Name: "abcdefghijklmno", MTU: 68, Kind: Veth{Peer: Spec{NS: other, Name: "abcdefghijklmno", MTU: 65535}}},
		{Name: "ü-1.x", Kind: Bridge{}, Addrs: prefixes("10.0.0.1/24", "10.0.0.1/25", "127.0.0.2/8")},
	} {
		mustCreate(t, ns, s)
	}
}

func wantRefused(t *testing.T, what string, ns *netns.NS, s Spec, reason string) {
	t.Helper()
	l, err := Create(context.Background(), ns, s)
	switch {
	case err == nil:
		t.Errorf("%s: made %v", what, l)
	case !errors.Is(err, os.ErrInvalid):
		t.Errorf("%s: %v is not os.ErrInvalid", what, err)
	case !strings.Contains(err.Error(), reason) || !strings.HasPrefix(err.Error(), "link.Create link "):
		t.Errorf("%s: %q does not say %q", what, err, reason)
	}
	if l.NS() != nil {
		t.Errorf("%s: returned a Link beside the error: %v", what, l)
	}
}
