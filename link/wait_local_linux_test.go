package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// underLoad keeps the kernel's workers busy, with namespaces that come and go,
// until stop is called.
func underLoad(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			for ctx.Err() == nil {
				ns, err := netns.New(ctx)
				if err != nil {
					return // no more of them, or the end
				}
				ns.Close()
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); busy.Wait() })
	t.Cleanup(stop)
	return stop
}

// reaches sends one datagram inside ns to an address of its own, once.
func reaches(t *testing.T, ns *netns.NS, a netip.Addr) error {
	t.Helper()
	any := "0.0.0.0:0"
	if a.Is6() {
		any = "[::]:0"
	}
	here, err := ns.ListenPacket(t.Context(), "udp", any)
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	port := here.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	c, err := ns.Dial(t.Context(), "udp", netip.AddrPortFrom(a, port).String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	here.SetReadDeadline(time.Now().Add(5 * time.Second)) // it is there at once, or never
	_, _, err = here.ReadFrom(make([]byte, 1))
	return err
}

// An IPv6 address is the host's own as soon as the call that gave it returns, on a
// machine whose workers are busy, too.
func TestAddressIsLocalAtOnce(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	rounds := 8
	if testing.Short() {
		rounds = 1
	}
	ctx := t.Context()
	host := netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	stop := underLoad(t)
	for _, way := range []struct {
		name string
		make func(web *netns.NS, addr Addr) error
	}{
		{"Create", func(web *netns.NS, addr Addr) error {
			_, err := Create(ctx, web, Spec{Name: "eth0", Up: true, Kind: Bridge{}, Addrs: []netip.Prefix{addr.Prefix}})
			return err
		}},
		{"Create of a pair", func(web *netns.NS, addr Addr) error {
			_, err := Create(ctx, host, Spec{Name: "web0", Up: true, Master: br.Ref(), Kind: Veth{Peer: Spec{
				NS: web, Name: "eth0", Up: true, Addrs: []netip.Prefix{addr.Prefix},
			}}})
			return err
		}},
		{"AddPrefixes", func(web *netns.NS, addr Addr) error {
			l, err := Create(ctx, web, Spec{Name: "eth0", Up: true, Kind: Bridge{}})
			return errors.Join(err, l.AddPrefixes(ctx, addr.Prefix))
		}},
		{"ReplaceAddrs", func(web *netns.NS, addr Addr) error {
			l, err := Create(ctx, web, Spec{Name: "eth0", Up: true, Kind: Bridge{}})
			return errors.Join(err, l.ReplaceAddrs(ctx, addr))
		}},
		{"Ensure", func(web *netns.NS, addr Addr) error {
			s := Spec{Name: "eth0", Up: true, Kind: Bridge{}}
			_, err := Create(ctx, web, s)
			s.Addrs = []netip.Prefix{addr.Prefix}
			_, eerr := Ensure(ctx, web, s)
			return errors.Join(err, eerr)
		}},
		{"WaitAddr", func(web *netns.NS, addr Addr) error {
			l, err := Create(ctx, web, Spec{Name: "eth0", Up: true, Kind: Veth{Peer: Spec{Name: "other", Up: true}}})
			addr.Flags = AddrOptimistic
			added := make(chan error, 1)
			go func() { added <- l.AddAddrs(ctx, addr) }()
			return errors.Join(err, l.WaitAddr(ctx, addr.Prefix.Addr()), <-added)
		}},
	} {
		for i := range rounds {
			web, err := netns.New(ctx)
			if err != nil {
				t.Fatal(err)
			}
			addr := StaticAddr(netip.MustParsePrefix(fmt.Sprintf("fd88::%x/64", i+2)))
			if err := way.make(web, addr); err != nil {
				t.Fatal(way.name, err)
			}
			err = reaches(t, web, addr.Prefix.Addr())
			if l, err := Get(ctx, host, "web0"); err == nil {
				if err := l.Delete(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
			web.Close()
			if err != nil {
				t.Errorf("%s: in round %d the address is not local yet: %v", way.name, i+1, err)
				break
			}
		}
	}
	stop()
}

// A link with IPv6 addresses has its link-local one from the start and for good,
// whether it has a carrier then or gets it later.
func TestLinkLocalAtOnce(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := t.Context()
	v6 := prefixes("fd88::1/64")
	for name, tt := range map[string]struct {
		spec Spec
		want int
	}{
		"bridge":        {Spec{Kind: Bridge{}, Addrs: v6}, 1},
		"pair":          {Spec{Kind: Veth{Peer: Spec{Name: "other", Up: true}}, Addrs: v6}, 1},
		"ifb":           {Spec{Kind: IFB{}, Addrs: v6}, 1},
		"TAP":           {Spec{Kind: Tun{Tap: true, Persist: true}, Addrs: v6}, 1},
		"one was given": {Spec{Kind: Bridge{}, Addrs: append(prefixes("fe80::1/64"), v6...)}, 0},
		"EUI-64":        {Spec{Kind: Bridge{}, Addrs: v6, IPv6: IPv6Conf{AddrGenMode: new(AddrGenEUI64)}}, 1},
		"none":          {Spec{Kind: Bridge{}, Addrs: v6, IPv6: IPv6Conf{AddrGenMode: new(AddrGenNone)}}, 0},
		"random":        {Spec{Kind: Bridge{}, Addrs: v6, IPv6: IPv6Conf{AddrGenMode: new(AddrGenRandom)}}, 0},
		"detection":     {Spec{Kind: Bridge{}, Addrs: v6, DAD: true}, 0},
		"IPv4 only":     {Spec{Kind: Bridge{}, Addrs: prefixes("10.0.0.1/24")}, 0},
		"down":          {Spec{Kind: Bridge{}, Addrs: v6}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			tt.spec.Name, tt.spec.Up = "l0", name != "down"
			l, err := Create(ctx, ns, tt.spec)
			if name == "TAP" {
				needTun(t, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if name == "down" {
				if err := l.SetUp(ctx); err != nil {
					t.Fatal(err)
				}
			}
			look := func() (n int) {
				mac := l.MAC
				want := fmt.Sprintf("fe80::%x:%xff:fe%02x:%x", uint16(mac[0]^2)<<8|uint16(mac[1]), mac[2], mac[3], uint16(mac[4])<<8|uint16(mac[5]))
				for _, a := range ipLinks(t, ns)["l0"].Addrs {
					if a.Family == "inet6" && netip.MustParseAddr(a.Local) == netip.MustParseAddr(want) && a.NoDAD && !a.Tentative {
						n++
					}
				}
				return n
			}
			if n := look(); n != tt.want {
				t.Errorf("ip shows %d usable link-local addresses of %s: %+v", n, l.MAC, ipLinks(t, ns)["l0"].Addrs)
			}
			if name != "bridge" {
				return
			}
			// Its first port brings it its carrier.
			mustCreate(t, ns, Spec{Name: "port", Up: true, Master: l.Ref(), Kind: Veth{Peer: Spec{Name: "far", Up: true}}})
			if _, err := l.WaitCarrier(ctx); err != nil {
				t.Fatal(err)
			}
			if n := look(); n != 1 {
				t.Errorf("with a carrier ip shows %d usable link-local addresses", n)
			}
			if out := testutil.Run(t, ns, "ip", "-6", "route", "show", "fe80::/64", "dev", "l0"); !strings.Contains(out, "fe80::/64") {
				t.Errorf("ip shows the route %q", out)
			}
		})
	}
}
