package link

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// boxBridge is a bridge with boxes on it.
type boxBridge struct {
	host  *netns.NS
	br    Link
	dual  bool // IPv6, too
	quiet bool // as "Many boxes on one bridge" in the documentation of Bridge has it
	port  PortOptions
	kind  Bridge
}

func (c *boxBridge) build(t testing.TB) {
	t.Helper()
	c.host = netnstest.New(t)
	if c.quiet {
		c.kind.MulticastSnooping = new(false)
	}
	c.br = mustCreate(t, c.host, Spec{
		Name: "br0", MAC: hw("02:00:00:00:00:fe"), MTU: 1500, Up: true, Kind: c.kind, Addrs: prefixes("10.88.255.254/16", "fd88::ffff/64"),
	})
}

func (c *boxBridge) addrs(i int) []netip.Prefix {
	v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88, byte(i >> 8), byte(i)}), 16)
	if !c.dual {
		return []netip.Prefix{v4}
	}
	a := netip.MustParseAddr("fd88::").As16()
	a[14], a[15] = byte(i>>8), byte(i)
	return []netip.Prefix{v4, netip.PrefixFrom(netip.AddrFrom16(a), 64)}
}

// attach makes a box, wires it to the bridge and says how long both took.
func (c *boxBridge) attach(t testing.TB, i int) (*netns.NS, Link, time.Duration) {
	t.Helper()
	start := time.Now()
	web, err := netns.New(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Close() })
	peer := Spec{NS: web, Name: "eth0", Up: true, Addrs: c.addrs(i)}
	if c.quiet {
		peer.IPv6.AddrGenMode = new(AddrGenNone)
	}
	l := mustCreate(t, c.host, Spec{
		Name: fmt.Sprintf("p%d", i), Up: true, Master: c.br.Ref(), Port: c.port, Kind: Veth{Peer: peer},
	})
	return web, l, time.Since(start)
}

// reach fails the test unless a packet from one box arrives in another, for which
// the one has to find out the hardware address of the other.
func (c *boxBridge) reach(t *testing.T, from, to *netns.NS, addrs []netip.Prefix) {
	t.Helper()
	ctx := context.Background()
	for _, p := range addrs {
		listen, err := to.ListenPacket(ctx, "udp", netip.AddrPortFrom(p.Addr(), 0).String())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := from.Dial(ctx, "udp", listen.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		listen.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, _, err := listen.ReadFrom(make([]byte, 10)); err != nil || n != 5 {
			t.Errorf("%s is not reached: %v", p, err)
		}
		listen.Close()
		conn.Close()
	}
}

// Both address families find each other as soon as a box's port forwards, though
// nothing on the bridge keeps account of multicast groups and no box looks for
// duplicates.
func TestBoxesOnQuietBridgeFindEachOther(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	c := boxBridge{dual: true, quiet: true}
	c.build(t)
	var boxes []*netns.NS
	for i := 1; i <= 6; i++ {
		web := c.ready(t, i)
		c.reach(t, c.host, web, c.addrs(i))
		for k, old := range boxes {
			c.reach(t, old, web, c.addrs(i))
			c.reach(t, web, old, c.addrs(k+1))
		}
		boxes = append(boxes, web)
	}
	if links := ipLinks(t, boxes[0])["eth0"]; len(links.Addrs) != 2 {
		t.Errorf("a box has made addresses by itself: %+v", links.Addrs)
	}
}

// The other way, in which the bridge knows the members of each group and floods
// nothing else to boxes: they find each other after membership intervals have
// passed, because the bridge asks and they answer.
func TestBoxesOnSnoopingBridgeFindEachOther(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	c := boxBridge{dual: true, port: PortOptions{MulticastFlood: new(false)}, kind: Bridge{
		QueryResponseInterval: 100 * millis, StartupQueryInterval: time.Second, QueryInterval: time.Second, MembershipInterval: 1500 * millis,
		QuerierInterval: 2 * time.Second, MLDVersion: 2,
	}}
	c.build(t)
	// After the intervals, as the kernel waits one of them from here on.
	if _, err := c.br.Update(context.Background(), Spec{Kind: Bridge{MulticastQuerier: new(true)}}); err != nil {
		t.Fatal(err)
	}
	var boxes []*netns.NS
	first := time.Now()
	for i := 1; i <= 4; i++ {
		boxes = append(boxes, c.ready(t, i))
	}
	intervals := 2
	if testing.Short() {
		intervals = 1
	}
	time.Sleep(time.Until(first.Add(time.Duration(intervals)*1500*millis + 200*millis)))
	for i, from := range boxes {
		to := (i + 1) % len(boxes)
		c.reach(t, from, boxes[to], c.addrs(to+1))
	}
}

// ready attaches a box and waits until its port forwards.
func (c *boxBridge) ready(t *testing.T, i int) *netns.NS {
	t.Helper()
	// The kernel looks at carriers once a second for all namespaces, at most a
	// hundred links each time: beside other tests that may take a while.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	web, l, _ := c.attach(t, i)
	if err := l.WaitForwarding(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.br.WaitCarrier(ctx); err != nil {
		t.Fatal(err)
	}
	return web
}

// A box, its namespace included, attached to an empty bridge and to one with 999
// others, in turns; medians. Milliseconds of processor time on Linux 6.18 with two
// processors, which other work kept busy (time that passes was twice as much and
// more, and not to be relied on):
//
//	                      first  1000th
//	IPv4, quiet           1.8    3.9
//	dual stack, quiet     1.9    3.8
//	IPv4, defaults        2.9    5.4
//	dual stack, defaults  2.4    6.1
//
// The part of the floods that other processors and later moments bear is not in
// these figures. Of what is left, adding the port is 0.1 and 0.9: the kernel walks
// over all ports for the bridge's features, offload sizes, spanning tree and
// adjacency.
func BenchmarkAttachToCrowdedBridge(b *testing.B) {
	for _, v := range []struct {
		name        string
		dual, quiet bool
	}{
		{"IPv4, quiet", false, true},
		{"dual stack, quiet", true, true},
		{"IPv4, defaults", false, false},
		{"dual stack, defaults", true, false},
	} {
		b.Run(v.name, func(b *testing.B) {
			small, big := boxBridge{dual: v.dual, quiet: v.quiet}, boxBridge{dual: v.dual, quiet: v.quiet}
			small.build(b)
			big.build(b)
			for i := range 999 {
				big.attach(b, i+1)
			}
			var took, cpu [2][]time.Duration
			for i := 0; b.Loop(); i++ {
				for k := range 2 {
					which := (i + k) % 2
					c := []*boxBridge{&small, &big}[which]
					before := processTime(b)
					web, l, d := c.attach(b, 2000+i)
					cpu[which] = append(cpu[which], processTime(b)-before)
					took[which] = append(took[which], d)
					if err := l.Delete(context.Background()); err != nil {
						b.Fatal(err)
					}
					web.Close()
				}
			}
			median := func(list []time.Duration) float64 {
				slices.Sort(list)
				return float64(list[len(list)/2]) / 1e6
			}
			first, last := median(took[0]), median(took[1])
			b.ReportMetric(first, "ms/first")
			b.ReportMetric(last, "ms/1000th")
			b.ReportMetric(last/first, "ratio")
			b.ReportMetric(median(cpu[0]), "cpu-ms/first")
			b.ReportMetric(median(cpu[1]), "cpu-ms/1000th")
			b.ReportMetric(median(cpu[1])/median(cpu[0]), "cpu-ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// processTime is the processor time that the test has used, which others on the
// machine disturb less than the time that passes.
func processTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
