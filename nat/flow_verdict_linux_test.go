package nat

import (
	"testing"

	"github.com/boxwire/boxwire/internal/ct"
)

func TestAFlowIsJudgedByTheTable(t *testing.T) {
	t.Parallel()
	var items []item
	for _, n := range allOptions() {
		items = append(items, n.items()...)
	}
	items = append(items, portItems([]Port{
		tcp("0.0.0.0:8080", "10.88.0.2:80", "a"), udp("203.0.113.1:53", "10.88.0.2:53", "a"),
		ranged(udp("0.0.0.0:9000", "10.88.0.2:9000", "a"), 9010), tcp("[::]:8080", "[fd88::2]:80", "a"),
		tcp("0.0.0.0:70", "198.51.100.7:70", "a"), tcp("0.0.0.0:90", "172.16.0.7:90", "a"),
	})...)
	nets, err := networksOf(items)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newFlowPolicy(items, nets, nil)
	if err != nil {
		t.Fatal(err)
	}
	const (
		passing, toHost, fromHost = 0, 1, 2
		answered                  = 1 << 1
	)
	for _, c := range []struct {
		name     string
		proto    Proto
		src, dst string
		is, as   string // where it is led, and behind which source; "" for as it was
		ends     int
		status   uint32
		want     flowVerdict
	}{
		{"none of ours", TCP, "203.0.113.9:7", "198.51.100.9:80", "", "", passing, 0, flowStranger},
		{"none of ours, hidden", TCP, "203.0.113.9:7", "198.51.100.9:80", "", "203.0.113.1:7", passing, 0, flowForeign},
		{"from outside to a box", TCP, "203.0.113.9:7", "10.88.0.2:80", "", "", passing, 0, flowClosed},
		{"from outside to a box over IPv6", UDP, "[2001:db8:9::9]:7", "[fd88::2]:80", "", "", passing, 0, flowClosed},
		{"foretold by a helper", TCP, "203.0.113.9:7", "10.88.0.2:80", "", "", passing, statusExpected, flowRight},
		{"from outside to a box by another program's port", TCP, "203.0.113.9:7", "198.51.100.9:80", "10.88.0.2:80", "", passing, 0, flowRight},
		{"to a pinhole", TCP, "203.0.113.9:7", "192.0.2.2:80", "", "", passing, 0, flowRight},
		{"to a range of pinholes", TCP, "203.0.113.9:7", "192.0.2.2:8010", "", "", passing, 0, flowRight},
		{"beyond the range", TCP, "203.0.113.9:7", "192.0.2.2:8011", "", "", passing, 0, flowClosed},
		{"to a pinhole by another protocol", UDP, "203.0.113.9:7", "192.0.2.2:80", "", "", passing, 0, flowClosed},
		{"to a pinhole, hidden by another program", TCP, "203.0.113.9:7", "192.0.2.2:80", "", "192.0.2.1:7", passing, 0, flowForeign},
		{"between boxes", TCP, "10.88.0.2:7", "10.88.0.3:80", "", "", passing, 0, flowRight},
		{"between isolated boxes", TCP, "10.89.0.2:7", "10.89.0.3:80", "", "", passing, 0, flowWrong},
		{"an echo between isolated boxes", 58, "[fd89::2]:0", "[fd89::3]:0", "", "", passing, 0, flowWrong},
		{"on a link between networks", TCP, "10.89.0.2:7", "10.88.0.3:80", "", "", passing, 0, flowRight},
		{"against its direction", TCP, "10.88.0.2:7", "10.89.0.3:80", "", "", passing, 0, flowClosed},
		{"from an internal network to the outside", TCP, "192.0.2.2:7", "203.0.113.9:80", "", "", passing, 0, flowWrong},
		{"from an internal network to another", TCP, "192.0.2.2:7", "10.88.0.2:80", "", "", passing, 0, flowWrong},
		{"from an internal network to a linked one", TCP, "192.0.2.2:7", "10.89.0.2:80", "", "", passing, 0, flowRight},
		{"to the outside, masqueraded", TCP, "10.88.0.2:7", "203.0.113.9:80", "", "203.0.113.1:7", passing, 0, flowHidden},
		{"to the outside, not masqueraded", TCP, "10.88.0.2:7", "203.0.113.9:80", "", "", passing, 0, flowWrong},
		{"to the outside, behind its fixed address", TCP, "10.89.0.2:7", "203.0.113.9:80", "", "203.0.113.7:7", passing, 0, flowRight},
		{"to the outside, behind another", TCP, "10.89.0.2:7", "203.0.113.9:80", "", "203.0.113.1:7", passing, 0, flowWrong},
		{"to the outside, without its fixed address", TCP, "[fd91::2]:7", "[2001:db8:9::9]:80", "", "", passing, 0, flowWrong},
		{"from a trusted address", TCP, "198.51.100.9:7", "10.89.0.2:80", "", "", passing, 0, flowRight},
		{"from a trusted address to another network", TCP, "198.51.100.9:7", "10.88.0.2:80", "", "", passing, 0, flowClosed},
		{"from the rest of a prefix around networks", TCP, "10.92.0.9:7", "10.89.0.2:80", "", "", passing, 0, flowRight},
		{"from another network in a prefix around networks", TCP, "10.91.1.2:7", "10.89.0.2:80", "", "", passing, 0, flowClosed},
		{"from a trusted prefix inside the subnet", TCP, "10.91.7.9:7", "10.91.1.2:80", "", "", passing, 0, flowRight},
		{"to a trusted prefix inside the subnet", TCP, "10.91.1.2:7", "10.91.200.1:80", "", "", passing, 0, flowRight},
		{"to a trusted address, behind the fixed address", TCP, "10.91.1.2:7", "172.16.0.9:80", "", "203.0.113.8:7", passing, 0, flowForeign},
		{"to a trusted address", TCP, "10.91.1.2:7", "172.16.0.9:80", "", "", passing, 0, flowRight},
		{"multicast", UDP, "10.88.0.2:7", "224.0.0.251:5353", "", "", passing, 0, flowRight},
		{"multicast of an internal network", UDP, "192.0.2.2:7", "224.0.0.251:5353", "", "", passing, 0, flowRight},

		{"to a program of the host", TCP, "203.0.113.9:7", "203.0.113.1:22", "", "", toHost, answered, flowRight},
		{"of an internal box to a program of the host", TCP, "192.0.2.2:7", "203.0.113.1:22", "", "", toHost, answered, flowRight},
		{"published", TCP, "203.0.113.9:7", "203.0.113.1:8080", "10.88.0.2:80", "", toHost, 0, flowRight},
		{"published, in a range", UDP, "203.0.113.9:7", "203.0.113.1:9005", "10.88.0.2:9005", "", toHost, 0, flowRight},
		{"published, and answered by the host", TCP, "203.0.113.9:7", "203.0.113.1:8080", "", "", toHost, answered, flowRight},
		{"published, and not answered", TCP, "203.0.113.9:7", "203.0.113.1:8080", "", "", toHost, 0, flowWrong},
		{"published, and answered by the host over UDP", UDP, "203.0.113.9:7", "203.0.113.1:53", "", "", toHost, answered, flowWrong},
		{"published, and led elsewhere", TCP, "203.0.113.9:7", "203.0.113.1:8080", "10.88.0.3:80", "", toHost, answered, flowWrong},
		{"published over IPv6, of a neighbour by his link's address", TCP, "[fe80::9]:7", "[2001:db8:1::1]:8080", "", "", toHost, 0, flowRight},
		{"not published, and led to a box", TCP, "203.0.113.9:7", "203.0.113.1:81", "10.88.0.2:80", "", toHost, answered, flowMoved},
		{"another program's port", TCP, "203.0.113.9:7", "203.0.113.1:81", "172.17.0.2:80", "", toHost, answered, flowForeign},
		{"published, of a sibling", TCP, "10.88.0.3:7", "203.0.113.1:8080", "10.88.0.2:80", "10.88.0.1:7", toHost, 0, flowRight},
		{"published, of a sibling that is not hidden", TCP, "10.88.0.3:7", "203.0.113.1:8080", "10.88.0.2:80", "", toHost, 0, flowWrong},
		{"published, of another network", TCP, "10.89.0.3:7", "203.0.113.1:8080", "10.88.0.2:80", "", toHost, 0, flowRight},
		{"published, of an internal network", TCP, "192.0.2.2:7", "203.0.113.1:8080", "10.88.0.2:80", "", toHost, 0, flowWrong},
		{"published, of the host itself", TCP, "127.0.0.1:7", "203.0.113.1:8080", "10.88.0.2:80", "10.88.0.1:7", toHost | fromHost, 0, flowRight},
		{"published outside, of a masqueraded box", TCP, "10.88.0.3:7", "203.0.113.1:70", "198.51.100.7:70", "", toHost, 0, flowWrong},
		{"published, to another host", TCP, "203.0.113.9:7", "203.0.113.1:90", "172.16.0.7:90", "203.0.113.8:7", toHost, 0, flowRight},
		{"published, to another host, behind another address", TCP, "203.0.113.9:7", "203.0.113.1:90", "172.16.0.7:90", "203.0.113.7:7", toHost, 0, flowWrong},
		{"published, to another host, with its own address", TCP, "203.0.113.9:7", "203.0.113.1:90", "172.16.0.7:90", "", toHost, 0, flowWrong},
		{"published, to another host, of a network that trusts it", TCP, "10.91.1.2:7", "203.0.113.1:90", "172.16.0.7:90", "", toHost, 0, flowRight},
		{"published, to another host, of another network", TCP, "10.88.0.2:7", "203.0.113.1:90", "172.16.0.7:90", "203.0.113.8:7", toHost, 0, flowRight},
		{"published, to another host, of the host itself", TCP, "203.0.113.1:7", "203.0.113.1:90", "172.16.0.7:90", "203.0.113.8:7", toHost | fromHost, 0, flowRight},
		{"published, to another host, of the host itself, with its own address", TCP, "203.0.113.1:7", "203.0.113.1:90", "172.16.0.7:90", "", toHost | fromHost, 0, flowWrong},
		{"of the host to a box", TCP, "10.88.0.1:7", "10.88.0.2:80", "", "", fromHost, 0, flowRight},
	} {
		f := ct.Flow{Orig: ct.Tuple{Proto: uint8(c.proto), Src: ap(c.src), Dst: ap(c.dst), ICMP: ct.ICMP{Type: 128}}, Status: c.status}
		f.Reply = ct.Tuple{Proto: f.Orig.Proto, Src: f.Orig.Dst, Dst: f.Orig.Src}
		if c.is != "" {
			f.Reply.Src = ap(c.is)
		}
		if c.as != "" {
			f.Reply.Dst = ap(c.as)
		}
		if got := r.verdict(&f, c.ends&fromHost != 0, c.ends&toHost != 0); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	// Neighbour discovery between isolated boxes is no connection between them.
	for _, kind := range discoveryTypes {
		f := ct.Flow{Orig: ct.Tuple{Proto: 58, Src: ap("[fd89::2]:0"), Dst: ap("[fd89::3]:0"), ICMP: ct.ICMP{Type: kind}}}
		f.Reply = ct.Tuple{Proto: 58, Src: f.Orig.Dst, Dst: f.Orig.Src}
		if got := r.verdict(&f, false, false); got != flowRight {
			t.Errorf("ICMPv6 type %d: %d", kind, got)
		}
	}
}
