package nat

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestPinholesAreElementsWithTheirOwner(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	err := gw.AddNetwork(t.Context(), Network{
		Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"),
		Pinholes: []Pinhole{pinhole("10.88.0.2:80", 0, "web")},
	})
	if err != nil {
		t.Fatal(err)
	}
	rng, six := pinhole("10.88.0.2:8000", 8010, "web"), pinhole("[fd88::2]:80", 80, "six")
	if err := gw.AddPinholes(t.Context(), rng, six); err != nil {
		t.Fatal(err)
	}
	for set, want := range map[string]string{
		"route4": `10.88.0.2 . tcp . 80 comment "web",`, "route6": `fd88::2 . tcp . 80 comment "six"`,
	} {
		if out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", set); !strings.Contains(out, want) {
			t.Errorf("%s lacks %s: %s", set, want, out)
		}
	}
	if out := listing(t, ns); !strings.Contains(out, `10.88.0.2 . tcp . 8000-8010 comment "web"`) {
		t.Errorf("the range is not listed: %s", out)
	}
	before := listing(t, ns)
	free := pinhole("10.88.0.3:80", 0, "web")
	for _, c := range []struct {
		o    Pinhole
		want error
		text string
	}{
		{pinhole("10.88.0.2:80", 0, "web"), os.ErrExist, `tcp 10.88.0.2:80 is opened by "web"`},
		{pinhole("10.88.0.2:8005", 0, "x"), os.ErrExist, `tcp 10.88.0.2:8000-8010 is opened by "web"`},
		{pinhole("10.99.0.2:80", 0, "x"), os.ErrNotExist, "no network's subnet"},
		{pinhole("10.88.0.2:90", 80, "x"), os.ErrInvalid, "below the first"},
	} {
		err := gw.AddPinholes(t.Context(), free, c.o)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("AddPinholes %v: %v, want %v with %s", c.o, err, c.want, c.text)
		}
	}
	other := rng
	other.Owner = "x"
	for _, c := range []struct {
		o    Pinhole
		want error
	}{
		{other, os.ErrPermission}, {free, os.ErrNotExist}, {pinhole("10.88.0.2:8000", 0, "web"), os.ErrNotExist},
	} {
		if err := gw.DeletePinholes(t.Context(), six, c.o); !errors.Is(err, c.want) {
			t.Errorf("DeletePinholes %v: %v, want %v", c.o, err, c.want)
		}
	}
	if got := listing(t, ns); got != before {
		t.Errorf("refused calls changed:\n%s", got)
	}
	if err := gw.DeletePinholes(t.Context(), rng, six); err != nil {
		t.Fatal(err)
	}
	if err := gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	if out := listing(t, ns); strings.Contains(out, "10.88.0.2") {
		t.Errorf("DeleteNetwork left a pinhole:\n%s", out)
	}
}

// echoed sends echo requests from ns until one is answered or stop says so.
func echoed(t *testing.T, ns *netns.NS, to string, stop func() bool) bool {
	t.Helper()
	a := netip.MustParseAddr(to)
	network, request := "ip4:icmp", []byte{8, 0, 0, 0, 0, 1, 0, 1}
	if a.Is6() {
		network, request[0] = "ip6:ipv6-icmp", 128 // the kernel fills in the checksum
	} else {
		request[2], request[3] = 0xf7, 0xfd
	}
	c, err := ns.Dial(t.Context(), network, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, answered := make([]byte, 128), false
	return until(func() bool {
		c.Write(request)
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, _, err := c.(net.PacketConn).ReadFrom(b) // without the IPv4 header, which Read returns
		answered = err == nil && n >= 8 && (b[0] == 0 || b[0] == 129)
		return answered || stop()
	}) && answered
}

// A routed box answers a ping from outside where that is opened.
func TestEchoRequestsReachABoxThatIsOpened(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		routed := network0()
		routed.Masquerade = false
		ping := func(box string) Pinhole {
			return Pinhole{Proto: ICMP, Box: netip.AddrPortFrom(netip.MustParseAddr(box), 0), Owner: "ops"}
		}
		routed.Pinholes = []Pinhole{ping("10.88.0.2")}
		s := newPublished(t, filtered, routed, network1())
		if err := s.gw.AddPinholes(t.Context(), ping("fd88::2")); err != nil {
			t.Fatal(err)
		}
		never := func() bool { return false }
		for _, to := range []string{"10.88.0.2", "fd88::2"} {
			for _, from := range []*netns.NS{s.outside, s.other} {
				if !echoed(t, from, to, never) {
					t.Errorf("%s does not answer", to)
				}
			}
		}
		dropped := func() uint64 {
			nets, err := s.gw.ListNetworks(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return nets[0].Drops.In
		}
		closed := func(to string) {
			t.Helper()
			before := dropped()
			if echoed(t, s.outside, to, func() bool { return dropped() > before }) {
				t.Errorf("%s answers", to)
			}
		}
		closed("10.88.0.3")
		closed("fd88::3")
		try(t, attempt{"outside", s.outside, TCP, "10.88.0.2:80", none}, attempt{"outside", s.outside, TCP, "[fd88::2]:80", none})

		if err := s.gw.AddPinholes(t.Context(), ping("fd88::2")); !errors.Is(err, os.ErrExist) {
			t.Errorf("opened twice: %v", err)
		}
		nets, err := s.gw.ListNetworks(t.Context())
		routed.Pinholes = append(routed.Pinholes, ping("fd88::2"))
		if err != nil || !reflect.DeepEqual(nets[0].Pinholes, routed.Pinholes) {
			t.Errorf("%v, %v", nets[0].Pinholes, err)
		}
		if err := Check(t.Context(), s.host, "", State{Networks: []Network{routed}}); err != nil {
			t.Error(err)
		}
		if err := s.gw.DeletePinholes(t.Context(), ping("10.88.0.2")); err != nil {
			t.Fatal(err)
		}
		testutil.Run(t, s.host, "nft", "flush chain inet boxwire connects") // so that the table is built again
		routed.Pinholes = routed.Pinholes[1:]
		if err := s.gw.Sync(t.Context(), State{Networks: []Network{routed, network1()}}); err != nil {
			t.Fatal(err)
		}
		if !echoed(t, s.outside, "fd88::2", never) {
			t.Error("after Sync fd88::2 does not answer")
		}
		if err := s.gw.DeleteNetwork(t.Context(), "br0"); err != nil {
			t.Fatal(err)
		}
		if out := testutil.Run(t, s.host, "nft", "list", "set", "inet", "boxwire", "echo6"); strings.Contains(out, "elements") {
			t.Errorf("left behind: %s", out)
		}
	})
}
