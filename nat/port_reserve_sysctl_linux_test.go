package nat

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestPortsOfALongRangeAreNotGivenAway(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	const setting = "ipv4/ip_local_reserved_ports"
	setSysctl(t, ns, "ipv4/ip_local_port_range", "40000 49999")
	setSysctl(t, ns, setting, "41000-41009,9") // the administrator's
	gw := open(t, ns)
	rtp, six := ranged(udp("0.0.0.0:30000", "10.0.0.2:30000", "rtp"), 42000), ranged(udp("[::]:41990", "[fd00::2]:41990", "six"), 42999)
	short := ranged(udp("0.0.0.0:45000", "10.0.0.2:45000", "short"), 45255)
	below := ranged(udp("0.0.0.0:1000", "10.0.0.2:1000", "below"), 1999)
	is := func(when, want, record string) {
		t.Helper()
		if got := sysctl(t, ns, setting); got != want {
			t.Errorf("%s: the setting is %q, want %q", when, got, want)
		}
		out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", "listed")
		if record == "" && strings.Contains(out, "elements") || !strings.Contains(strings.Join(strings.Fields(out), " "), record) {
			t.Errorf("%s: recorded are %s, want %s", when, out, record)
		}
	}
	publish := func(p ...Port) {
		t.Helper()
		if err := gw.Publish(t.Context(), p...); err != nil {
			t.Fatal(err)
		}
	}
	unpublish := func(p Port) {
		t.Helper()
		if err := gw.Unpublish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	publish(short, below)
	is("short ranges and low ones", "9,41000-41009", "")
	publish(rtp)
	is("published", "9,40000-42000", "ip . 40000-40999, ip . 41010-42000")
	publish(six)
	is("another that overlaps", "9,40000-42999", "ip . 40000-40999, ip . 41010-42999")
	if err := gw.Publish(t.Context(), tcp("0.0.0.0:70", "10.0.0.2:70", "x"), ranged(udp("10.1.1.1:42000", "10.0.0.2:42000", "x"), 49999)); err == nil {
		t.Error("ranges overlap")
	}
	is("refused", "9,40000-42999", "ip . 40000-40999, ip . 41010-42999")
	unpublish(rtp)
	is("the first is gone", "9,41000-41009,41990-42999", "ip . 41990-42999")

	// A program that ended before it could write the setting, and another's flush.
	setSysctl(t, ns, setting, "9,41000-41009")
	state := State{Ports: []Port{six, short}}
	if err := gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	is("repaired", "9,41000-41009,41990-42999", "ip . 41990-42999")
	testutil.Run(t, ns, "nft", "flush ruleset")
	if err := gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	is("flushed and restored", "9,41000-41009,41990-42999", "ip . 41990-42999")

	bare := openWith(t, ns, Options{NoReserve: true})
	if err := bare.Sync(t.Context(), State{Ports: []Port{six, rtp}[:1]}); err != nil {
		t.Fatal(err)
	}
	is("one that does not reserve leaves it", "9,41000-41009,41990-42999", "ip . 41990-42999")
	if err := gw.UnpublishOwner(t.Context(), "six"); err != nil {
		t.Fatal(err)
	}
	is("none left", "9,41000-41009", "")

	setSysctl(t, ns, setting, "\n")
	publish(six)
	if err := gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sysctl(t, ns, setting); got != "" {
		t.Errorf("after Delete the setting is %q", got)
	}
}

// A range over all ports that the kernel gives to programs of the host leaves them
// half of those: they could connect nowhere without.
func TestPublishedRangesLeaveTheHostPortsToConnectFrom(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	const setting = "ipv4/ip_local_reserved_ports"
	all := ranged(udp("203.0.113.1:40000", "10.88.0.2:40000", "all"), 40999)
	var some, few []Port // that are all together
	for first := uint16(40000); first < 41000; first += 500 {
		host, box := netip.AddrPortFrom(all.Host.Addr(), first), netip.AddrPortFrom(all.Box.Addr(), first)
		some = append(some, Port{Proto: TCP, Host: host, HostLast: first + 499, Box: box, Owner: "some"})
	}
	for first := uint16(40000); first < 41000; first += 250 {
		host, box := netip.AddrPortFrom(netip.IPv4Unspecified(), first), netip.AddrPortFrom(all.Box.Addr(), first)
		few = append(few, Port{Proto: TCP, Host: host, HostLast: first + 249, Box: box, Owner: "few"})
	}
	var free []Port
	for range 600 {
		free = append(free, tcp("0.0.0.0:0", "10.88.0.2:80", "free"))
	}
	sync := func(t *testing.T, gw *NAT, ports []Port) error {
		return gw.Sync(t.Context(), State{Ports: ports})
	}
	for turn, c := range []struct {
		name    string
		admin   string
		publish func(t *testing.T, gw *NAT) error
		want    string // the setting
	}{
		{"one range", "", func(t *testing.T, gw *NAT) error { return gw.Publish(t.Context(), all) }, "40000-40499"},
		{"of all ports", "", func(t *testing.T, gw *NAT) error {
			return gw.Publish(t.Context(), ranged(udp("[::]:1", "[fd88::2]:1", "all"), 65535))
		}, "40000-40499"},
		{"synced", "", func(t *testing.T, gw *NAT) error { return sync(t, gw, []Port{all}) }, "40000-40499"},
		{"several ranges", "", func(t *testing.T, gw *NAT) error { return gw.Publish(t.Context(), some...) }, "40000-40499"},
		{"the second later", "", func(t *testing.T, gw *NAT) error {
			return errors.Join(gw.Publish(t.Context(), some[1]), gw.Publish(t.Context(), some[0]))
		}, "40000-40499"},
		{"beside the administrator's", "40700-40999", func(t *testing.T, gw *NAT) error { return gw.Publish(t.Context(), all) }, "40000-40199,40700-40999"},
		{"the administrator's are more", "40100-40999", func(t *testing.T, gw *NAT) error { return gw.Publish(t.Context(), all) }, "40100-40999"},
		{"ranges with sockets", "", func(t *testing.T, gw *NAT) error { return gw.Publish(t.Context(), few...) }, ""},
		{"ranges with sockets, one by one", "", func(t *testing.T, gw *NAT) (err error) {
			for _, p := range few {
				err = errors.Join(err, gw.Publish(t.Context(), p))
			}
			return err
		}, ""},
		{"ranges with sockets, synced", "", func(t *testing.T, gw *NAT) error { return sync(t, gw, few) }, ""},
		{"free ones", "", func(t *testing.T, gw *NAT) error {
			_, err := gw.PublishFree(t.Context(), free...)
			return err
		}, ""},
		{"both", "", func(t *testing.T, gw *NAT) error { return gw.Publish(t.Context(), append(some[:1:1], few[2:]...)...) }, "40000-40499"},
	} {
		if !testutil.Spread(turn, 3) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			setSysctl(t, ns, "ipv4/ip_local_port_range", "40000 40999")
			setSysctl(t, ns, setting, c.admin+"\n")
			gw := open(t, ns)
			if err := c.publish(t, gw); err != nil {
				t.Fatal(err)
			}
			if got := sysctl(t, ns, setting); got != c.want {
				t.Errorf("the setting is %q, want %q", got, c.want)
			}
			for _, to := range []string{"127.0.0.1", "[::1]"} {
				ln, err := ns.Listen(t.Context(), "tcp", to+":7")
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				for range 50 {
					c, err := ns.Dial(t.Context(), "tcp", to+":7")
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
				}
				pc, err := ns.ListenPacket(t.Context(), "udp", to+":0")
				if err != nil {
					t.Fatal(err)
				}
				pc.Close()
			}
			if err := gw.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := sysctl(t, ns, setting); got != c.admin {
				t.Errorf("after Delete the setting is %q, want %q", got, c.admin)
			}
		})
	}
}

// What a program of before, which listed them all, has left is set right by the next.
func TestSyncGivesBackListedPortsThatAreTooMany(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	const setting = "ipv4/ip_local_reserved_ports"
	setSysctl(t, ns, "ipv4/ip_local_port_range", "40000 40999")
	gw := open(t, ns)
	all := ranged(udp("203.0.113.1:40000", "10.88.0.2:40000", "all"), 40999)
	if err := gw.Publish(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "nft", "flush set inet boxwire listed; add element inet boxwire listed { ip . 40000-40999 }")
	setSysctl(t, ns, setting, "40000-40999")
	if err := gw.Sync(t.Context(), State{Ports: []Port{all}}); err != nil {
		t.Fatal(err)
	}
	if got := sysctl(t, ns, setting); got != "40000-40499" {
		t.Errorf("the setting is %q", got)
	}
}

// Each port has one of the eight states of the table at reservedPorts: bit 0 of its
// number says that the setting has it, bit 1 that it is ours, bit 2 that it is needed.
func TestReservedPortsTruthTable(t *testing.T) {
	t.Parallel()
	const had, ours, need = 1, 2, 4
	of := func(in func(p int) bool) (s portSet) {
		for p := range 8 {
			if in(p) {
				s.add(uint16(p), uint16(p))
			}
		}
		return s
	}
	r := reservedPorts{set: of(func(p int) bool { return p&had != 0 })}
	oursBefore, needed := of(func(p int) bool { return p&ours != 0 }), of(func(p int) bool { return p&need != 0 })
	recorded := r.plan(&oursBefore, &needed)
	for name, x := range map[string]struct {
		got  portSet
		want []int
	}{
		"shrunk":   {r.shrunk, []int{had, had | need, had | ours | need}},
		"grown":    {r.grown, []int{need, ours | need, had, had | need, had | ours | need}},
		"recorded": {recorded, []int{need, ours | need, had | ours | need}},
	} {
		if want := of(func(p int) bool { return slices.Contains(x.want, p) }); x.got != want {
			t.Errorf("%s are %v, want %v", name, &x.got, &want)
		}
	}
}

func TestPortSetsRoundTrip(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		var s portSet
		for range r.IntN(20) {
			first := uint16(r.IntN(65536))
			s.add(first, uint16(min(65535, int(first)+r.IntN(1000))))
		}
		got, err := parsePortSet(s.String())
		if err != nil || *got != s {
			t.Fatalf("%q came back as %v, %v", s.String(), got, err)
		}
	}
	for _, bad := range []string{"x", "1-", "65536", "-1", "1-2-3"} {
		if s, err := parsePortSet(bad); err == nil {
			t.Errorf("%q: %v", bad, s)
		}
	}
}
