package wire

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// thousand is a host of a fleet with 1,000 peers: 2,000 prefixes.
func thousand(t testing.TB, m state.Mode) (*host, *state.Snapshot) {
	t.Helper()
	netnstest.NeedIPv6(t)
	cfg := config(m)
	cfg.Pools = []netip.Prefix{prefix("10.96.0.0/11"), prefix("fd99::/48")}
	s := &state.Snapshot{Config: &cfg, Nodes: map[state.ID]state.Node{}, Claims: map[netip.Prefix]state.ID{}}
	for i := range 1001 {
		id := state.ID{14: byte(i >> 8), 15: byte(i + 1)}
		key := [32]byte{30: id[14], 31: id[15]}
		s.Nodes[id] = state.Node{
			Version: 1, ID: id, Name: fmt.Sprint("n", i), MTU: 1500, Generation: 1, PublicKey: base64.StdEncoding.EncodeToString(key[:]),
			Endpoints: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, byte(4 + i/254), byte(1 + i%254)})},
			Prefixes:  []netip.Prefix{prefix("10.%d.%d.0/24", 100+i>>8, i&255), prefix("fd99:0:0:%x::/64", i)},
		}
	}
	h := &host{ns: netnstest.New(t), id: state.ID{15: 1}, prefixes: s.Nodes[state.ID{15: 1}].Prefixes}
	h.wire = New(h.ns, Options{Dir: t.TempDir()})
	try(t, second(link.Create(t.Context(), h.ns, link.Spec{
		Name: "eth0", Up: true, Kind: link.Bridge{}, Addrs: []netip.Prefix{prefix("192.0.7.254/22")},
	})))
	return h, s
}

func TestAThousandPeersOnOneKernel(t *testing.T) {
	t.Parallel()
	for _, mode := range []state.Mode{state.Tunnel, state.Direct} {
		h, s := thousand(t, mode)
		if mode == state.Direct { // the peers have IPv4 endpoints
			for id, n := range s.Nodes {
				n.Prefixes = n.Prefixes[:1]
				s.Nodes[id] = n
			}
		}
		did, p, err := h.reconcile(t.Context(), s, nil)
		try(t, err)
		if did.Routes.Added != len(p.Routes) || len(p.Routes) < 1000 || len(p.Skipped) > 0 {
			t.Errorf("%s: %v, of %d; skipped %v", mode, did, len(p.Routes), p.Skipped)
		}
		did, _, err = h.reconcile(t.Context(), s, nil)
		try(t, err)
		if did.Any() {
			t.Errorf("%s: nothing differs: %v", mode, did)
		}
	}
}

// IPv4 needs one neighbour for the whole tunnel link. IPv6 makes one for each address that is spoken to, which the kernel collects
// when the table is full: they keep nothing from being sent.
func TestNeighboursDoNotGrowWithPeers(t *testing.T) {
	t.Parallel()
	h, s := thousand(t, state.Tunnel)
	_, _, err := h.reconcile(t.Context(), s, nil)
	try(t, err)
	for box := range 2 {
		for i := 1; i <= 1000; i++ {
			for _, a := range []string{fmt.Sprintf("10.%d.%d.%d:9", 100+i>>8, i&255, 2+box), fmt.Sprintf("[fd99:0:0:%x::%x]:9", i, 2+box)} {
				c, err := h.ns.Dial(t.Context(), "udp", a)
				try(t, err)
				_, err = fmt.Fprint(c, "x")
				c.Close()
				if err != nil {
					t.Fatalf("a packet to %s: %v", a, err)
				}
			}
		}
	}
	for _, f := range []netns.Family{netns.IPv4, netns.IPv6} {
		out := testutil.Run(t, h.ns, "ip", fmt.Sprintf("-%d", f), "neigh", "show", "dev", "fl0", "nud", "all")
		n := strings.Count(out, "\n")
		if f == netns.IPv4 && n > 1 {
			t.Errorf("the tunnel link has %d neighbours:\n%s", n, out)
		}
		if f == netns.IPv6 && strings.Count(out, "NOARP") != n {
			t.Errorf("the tunnel link has neighbours that are resolved:\n%s", out)
		}
		t.Logf("%v: %d neighbours of 2,000 addresses", f, n)
	}
	if out := testutil.Run(t, h.ns, "bridge", "fdb", "show", "dev", "fl0"); out != "" {
		t.Errorf("the tunnel link has the forwarding database\n%s", out)
	}
}
