package nat

import (
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// The host's address may be on a link whose other end is a port of the bridge that the
// uplink is a port of, too. With br_netfilter, what the host sends passes the firewall
// a second time, when it is bridged.
func TestTheUplinkMayBeAPortOfABridge(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		for name, masquerade := range map[string]bool{"masqueraded": true, "routed": false, "routed, addresses begin as boxes' do": false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := wire(t)
				bridgeNF(t, s.host, filtered)
				setSysctl(t, s.host, "ipv6/conf/default/accept_dad", "0")
				ip(t, s.host, `
					addr flush dev up0
					link add brup type bridge
					link set brup up
					link set up0 master brup
					link add va type veth peer name vb
					link set vb master brup up
					link set va up
					addr add 203.0.113.1/24 dev va
					addr add 2001:db8:1::1/64 dev va nodad`)
				network := network0()
				network.Masquerade = masquerade
				network.Pinholes = []Pinhole{pinhole("10.88.0.2:81", 0, "web"), pinhole("[fd88::2]:81", 0, "web")}
				s.gw = open(t, s.host)
				if err := s.gw.AddNetwork(t.Context(), network); err != nil {
					t.Fatal(err)
				}
				if strings.Contains(name, "begin") {
					if err := s.gw.AddNetwork(t.Context(), Network{Interface: "br2", Subnets: prefixes("203.0.200.0/24", "2001:db9::/64")}); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.gw.Publish(t.Context(), tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("[::]:8080", "[fd88::2]:80", "web"),
					udp("0.0.0.0:8080", "10.88.0.2:80", "web"), udp("[::]:8080", "[fd88::2]:80", "web")); err != nil {
					t.Fatal(err)
				}
				s.waitReady(t)
				for _, proto := range []Proto{TCP, UDP} {
					answer(t, s.box, proto)
					answer(t, s.outside, proto)
				}
				serve(t, s.box, ":81")
				serve(t, s.host, ":90")
				me4, me6 := "203.0.113.1", "2001:db8:1::1"
				if !masquerade {
					me4, me6 = "10.88.0.2", "fd88::2"
				}
				try(t,
					attempt{"outside", s.outside, TCP, "203.0.113.1:8080", "203.0.113.9"}, attempt{"outside", s.outside, TCP, "[2001:db8:1::1]:8080", "2001:db8:1::9"},
					attempt{"outside", s.outside, UDP, "203.0.113.1:8080", "203.0.113.9"}, attempt{"outside", s.outside, UDP, "[2001:db8:1::1]:8080", "2001:db8:1::9"},
					attempt{"outside", s.outside, TCP, "203.0.113.1:90", "203.0.113.9"}, attempt{"outside", s.outside, TCP, "[2001:db8:1::1]:90", "2001:db8:1::9"},
					attempt{"outside", s.outside, TCP, "10.88.0.2:81", "203.0.113.9"}, attempt{"outside", s.outside, TCP, "[fd88::2]:81", "2001:db8:1::9"},
					attempt{"outside", s.outside, TCP, "10.88.0.2:80", none}, attempt{"outside", s.outside, TCP, "[fd88::2]:80", none},
					attempt{"box", s.box, TCP, "203.0.113.9:80", me4}, attempt{"box", s.box, TCP, "[2001:db8:1::9]:80", me6},
					attempt{"box", s.box, UDP, "203.0.113.9:80", me4}, attempt{"box", s.box, UDP, "[2001:db8:1::9]:80", me6},
					attempt{"host", s.host, TCP, "203.0.113.9:80", "203.0.113.1"}, attempt{"host", s.host, TCP, "[2001:db8:1::9]:80", "2001:db8:1::1"},
				)
			})
		}
	})
}
