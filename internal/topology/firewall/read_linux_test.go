package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// only selects some namespaces.
func only(spaces ...*netns.NS) func(netns.Info) bool {
	return func(info netns.Info) bool {
		return slices.ContainsFunc(spaces, func(ns *netns.NS) bool { return ns.ID() == info.ID })
	}
}

// machine is a host with a box, and a port of the host that is published for the box.
func machine(t *testing.T) (host, box netnstest.Box, gw *nat.NAT) {
	t.Helper()
	host, boxes := netnstest.Bridge(t, 1)
	gw, err := nat.Open(t.Context(), host.NS, nat.Options{})
	if err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { gw.Close() })
	network := nat.Network{Interface: "br0", Subnets: []netip.Prefix{host.Addr4.Masked()}, Masquerade: true, Isolated: true}
	if err := gw.AddNetwork(t.Context(), network); err != nil {
		t.Fatal(err)
	}
	port := nat.Port{Proto: nat.TCP, Owner: "web", Host: netip.MustParseAddrPort("0.0.0.0:8080"), Box: netip.AddrPortFrom(boxes[0].Addr4.Addr(), 80)}
	if err := gw.Publish(t.Context(), port); err != nil {
		t.Fatal(err)
	}
	return host, boxes[0], gw
}

func read(t *testing.T, host, box netnstest.Box) (*topology.Snapshot, *topology.Namespace) {
	t.Helper()
	s, err := topology.Read(t.Context(), topology.Options{Host: host.NS, Some: only(host.NS, box.NS), Firewall: Read})
	if err != nil {
		t.Fatal(err)
	}
	n := s.Namespace(host.ID().Ino)
	if n == nil || len(n.Notes) > 0 {
		t.Fatalf("the host is %+v", n)
	}
	return s, n
}

// A snapshot has the networks and ports of a table, and says what nobody listens to.
func TestRead(t *testing.T) {
	t.Parallel()
	host, box, _ := machine(t)
	_, n := read(t, host, box)
	if len(n.Networks) != 1 || n.Networks[0].Interface != "br0" || !slices.Equal(n.Networks[0].Flags, []string{"masquerade", "isolated"}) {
		t.Errorf("networks %+v", n.Networks)
	}
	if len(n.Ports) != 1 {
		t.Fatalf("ports %+v", n.Ports)
	}
	p := n.Ports[0]
	if p.Table != "inet boxwire" || p.Proto != "tcp" || p.Host != netip.MustParseAddrPort("0.0.0.0:8080") || p.Owner != "web" ||
		p.To == nil || p.To.Inode != box.ID().Ino || p.To.Link != box.Link {
		t.Errorf("the port is %+v", p)
	}
	if !strings.Contains(p.Fault, "no program listens") {
		t.Errorf("the fault is %q, but nobody listens", p.Fault)
	}
	// nft shows a port as an element of the map of its address.
	if shown := testutil.Run(t, host.NS, "nft", "list", "map", "inet", "boxwire", "any4"); !strings.Contains(shown, "tcp . 8080") || !strings.Contains(shown, box.Addr4.Addr().String()+" . 80") {
		t.Errorf("nft shows %s", shown)
	}

	ln, err := box.Listen(t.Context(), "tcp4", "0.0.0.0:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, n = read(t, host, box); n.Ports[0].Fault != "" {
		t.Errorf("the fault is %q, but a program listens", n.Ports[0].Fault)
	}
}

// Why has the words of nat.Explain, and leaves ports of other tables alone.
func TestWhy(t *testing.T) {
	t.Parallel()
	host, box, gw := machine(t)
	s, n := read(t, host, box)
	causes, err := Why(t.Context(), s, n.Inode, n.Ports[0])
	if err != nil {
		t.Fatal(err)
	}
	want, err := gw.Explain(t.Context(), nat.Port{Proto: nat.TCP, Host: n.Ports[0].Host}, nat.Hints{Box: box.NS})
	if err != nil {
		t.Fatal(err)
	}
	if causes.String() != want.String() || len(causes) == 0 {
		t.Errorf("the causes are %q, and those of Explain %q", causes, want)
	}
	foreign := n.Ports[0]
	foreign.Table = "ip nat"
	if causes, err := Why(t.Context(), s, n.Inode, foreign); !errors.Is(err, ErrForeign) {
		t.Errorf("a port of another table: %v, %v", causes, err)
	}
	gone := n.Ports[0]
	gone.Host = netip.MustParseAddrPort("0.0.0.0:8081")
	if causes, err := Why(t.Context(), s, n.Inode, gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a port that is not published: %v, %v", causes, err)
	}
}

// What changes a table is seen by a watch without delay, and a port goes with its table.
func TestWatchSeesPorts(t *testing.T) {
	t.Parallel()
	host, box, gw := machine(t)
	published, deleted := false, false
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for s, err := range topology.Watch(ctx, topology.Options{Host: host.NS, Some: only(host.NS, box.NS), Firewall: Read}) {
		if err != nil {
			t.Fatal(err)
		}
		n := s.Namespace(host.ID().Ino)
		switch {
		case n == nil:
		case !published && len(n.Ports) == 1:
			published = true
			port := nat.Port{Proto: nat.UDP, Owner: "dns", Host: netip.MustParseAddrPort("0.0.0.0:53"), Box: netip.AddrPortFrom(box.Addr4.Addr(), 53)}
			if err := gw.Publish(t.Context(), port); err != nil {
				t.Fatal(err)
			}
		case !deleted && len(n.Ports) == 2:
			deleted = true
			if err := gw.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
		case deleted && len(n.Ports) == 0:
			return
		}
	}
}

// Ports of other firewalls are read from their rules. What is no single port is named.
func TestReadForeign(t *testing.T) {
	t.Parallel()
	host, boxes := netnstest.Bridge(t, 1)
	to := boxes[0].Addr4.Addr()
	file := filepath.Join(t.TempDir(), "engine.nft")
	rules := fmt.Sprintf(`table ip engine {
		chain pre {
			type nat hook prerouting priority dstnat
			fib daddr type local jump ports
			ip daddr 198.51.100.0/24 tcp dport 7000 dnat to %[1]v:7000
		}
		chain ports {
			tcp dport 8080 dnat to %[1]v:80
			ip daddr 203.0.113.1 udp dport 5000-5010 dnat to %[1]v
		}
	}`, to)
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, host.NS, "nft", "-f", file)
	s, err := topology.Read(t.Context(), topology.Options{Host: host.NS, Some: only(host.NS, boxes[0].NS), Firewall: Read})
	if err != nil {
		t.Fatal(err)
	}
	n := s.Namespace(host.ID().Ino)
	eth0, err := link.Get(t.Context(), boxes[0].NS, boxes[0].Link)
	if err != nil {
		t.Fatal(err)
	}
	end := &topology.End{Inode: boxes[0].ID().Ino, Link: boxes[0].Link, Index: eth0.Index}
	want := []topology.Port{
		{Table: "ip engine", Proto: "udp", Host: netip.MustParseAddrPort("203.0.113.1:5000"), Last: 5010, Box: netip.AddrPortFrom(to, 5000), To: end},
		{Table: "ip engine", Proto: "tcp", Host: netip.MustParseAddrPort("0.0.0.0:8080"), Box: netip.AddrPortFrom(to, 80), To: end, Fault: n.Ports[len(n.Ports)-1].Fault},
	}
	if !reflect.DeepEqual(n.Ports, want) || !strings.Contains(want[1].Fault, "no program listens") {
		t.Errorf("ports %+v, want %+v", n.Ports, want)
	}
	if len(n.Notes) != 1 || !strings.Contains(n.Notes[0], "198.51.100.0/24") {
		t.Errorf("notes %q", n.Notes)
	}
}
