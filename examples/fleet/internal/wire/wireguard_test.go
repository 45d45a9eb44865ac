package wire

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// needWireGuard skips a test on a kernel without WireGuard.
func needWireGuard(t testing.TB, m state.Mode) {
	t.Helper()
	if m == state.WireGuard {
		_, err := link.Create(t.Context(), netnstest.New(t), link.Spec{Name: "wg0", Kind: link.WireGuard{}})
		testutil.NeedKernel(t, 5, 6, "WireGuard", err)
	}
}

// peersOf are the peers of a host's WireGuard link.
func peersOf(t testing.TB, h *host) map[string]wgtypes.Peer {
	t.Helper()
	d, err := h.wire.device(t.Context())
	try(t, err)
	all := map[string]wgtypes.Peer{}
	for _, p := range d.Peers {
		all[p.PublicKey.String()] = p
	}
	return all
}

func TestWireGuard(t *testing.T) {
	t.Parallel()
	needWireGuard(t, state.WireGuard)
	for _, u := range []underlays{{v4: true}, {v6: true}, {v4: true, v6: true}} {
		hosts := newHosts(t, 3, u)
		cfg := config(state.WireGuard)
		for _, h := range hosts {
			try(t, h.wire.Check(t.Context(), cfg, h.prefixes...))
		}
		s := snapshotOf(t, cfg, hosts)
		join(t, s, hosts)
		allReachAll(t, hosts)
		if s := show(t, hosts[0]); s.LinkInfo.Kind != "wireguard" || s.addrs() != "10.100.1.1/32 fd99:0:0:1::1/128" {
			t.Errorf("the link is %+v", s)
		}
		d, err := hosts[0].wire.device(t.Context())
		try(t, err)
		if d.ListenPort != int(cfg.Port) || d.PublicKey.String() != s.Nodes[hosts[0].id].PublicKey || len(d.Peers) != 2 {
			t.Errorf("the device is %+v", d)
		}
		// An agent that has just started touches nothing, and the sessions stay.
		c := countChanges(t, hosts[0].ns)
		before := peersOf(t, hosts[0])
		hosts[0].wire = New(hosts[0].ns, hosts[0].wire.o)
		did, _, err := hosts[0].reconcile(t.Context(), s, nil)
		try(t, err)
		if did.Any() {
			t.Errorf("nothing differs: %v", did)
		}
		if events := c.seen(t); len(events) > 0 {
			t.Errorf("nothing differs, and these were changed: %q", events)
		}
		for key, p := range peersOf(t, hosts[0]) {
			if p.LastHandshakeTime.IsZero() || !p.LastHandshakeTime.Equal(before[key].LastHandshakeTime) {
				t.Errorf("the peer %s has the handshake of %v, and had that of %v", key, p.LastHandshakeTime, before[key].LastHandshakeTime)
			}
		}
	}
}

func TestPeersAreDiffed(t *testing.T) {
	t.Parallel()
	needWireGuard(t, state.WireGuard)
	hosts := newHosts(t, 3, underlays{v4: true})
	s := snapshotOf(t, config(state.WireGuard), hosts)
	join(t, s, hosts)
	allReachAll(t, hosts)
	h, second, third := hosts[0], s.Nodes[hosts[1].id], s.Nodes[hosts[2].id]
	step := func(what string, want Changes, down map[state.ID]bool) {
		t.Helper()
		did, _, err := h.reconcile(t.Context(), s, down)
		if err != nil || did != want {
			t.Errorf("%s: %v, %v; want %v", what, did, err, want)
		}
		did, _, err = h.reconcile(t.Context(), s, down)
		if err != nil || did.Any() {
			t.Errorf("%s, once more: %v, %v", what, did, err)
		}
	}

	// A peer moves although its session lives: the plan's new endpoint counts.
	moved := second
	moved.Endpoints = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	s.Nodes[second.ID] = moved
	step("a peer has moved", Changes{Peers: PeerChanges{Changed: 1}}, nil)
	if got := peersOf(t, h)[second.PublicKey].Endpoint.String(); got != "192.0.2.77:4790" {
		t.Errorf("its endpoint is %s", got)
	}
	s.Nodes[second.ID] = second
	step("it is back", Changes{Peers: PeerChanges{Changed: 1}}, nil)
	allReachAll(t, hosts)

	// A peer that is down stays one.
	step("a peer is down", Changes{Routes: route.Changes{Replaced: 2}}, map[state.ID]bool{third.ID: true})
	if _, ok := peersOf(t, h)[third.PublicKey]; !ok {
		t.Error("the peer that is down is gone")
	}
	step("it is up", Changes{Routes: route.Changes{Replaced: 2}}, nil)

	// One that has another key, which its prefixes follow.
	key, err := wgtypes.GeneratePrivateKey()
	try(t, err)
	other := third
	other.PublicKey = key.PublicKey().String()
	s.Nodes[third.ID] = other
	step("a peer has another key", Changes{Peers: PeerChanges{Added: 1, Deleted: 1}}, nil)
	if got := prefixesOf(new(peersOf(t, h)[other.PublicKey])); !slices.Equal(got, third.Prefixes) {
		t.Errorf("it may use %v", got)
	}
	s.Nodes[third.ID] = third
	step("it has the old one", Changes{Peers: PeerChanges{Added: 1, Deleted: 1}}, nil)

	// A peer that has vanished keeps its route, and so its session.
	keep, err := h.wire.Routes(t.Context())
	try(t, err)
	delete(s.Nodes, third.ID)
	self, err := h.wire.Self(t.Context(), h.id, *s.Config, h.prefixes)
	try(t, err)
	did, err := h.wire.Apply(t.Context(), plan.For(s, self, nil, keep))
	if err != nil || did.Any() {
		t.Errorf("kept routes: %v, %v", did, err)
	}
	step("it is forgotten", Changes{Routes: route.Changes{Deleted: 2}, Peers: PeerChanges{Deleted: 1}}, nil)
}

func TestAForeignWireGuardLinkStays(t *testing.T) {
	t.Parallel()
	needWireGuard(t, state.WireGuard)
	h := newHosts(t, 1, underlays{v4: true})[0]
	testutil.Run(t, h.ns, "ip", "link", "add", "fl0", "type", "wireguard")
	key, err := wgtypes.GeneratePrivateKey()
	try(t, err)
	try(t, h.wire.configure(t.Context(), "Ensure", wgtypes.Config{PrivateKey: &key}))
	for _, err := range []error{
		second(h.wire.Ensure(t.Context(), config(state.WireGuard), h.prefixes)), h.wire.Check(t.Context(), config(state.WireGuard)),
	} {
		if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "not this fleet's (kind wireguard") {
			t.Errorf("the error is %v", err)
		}
	}
	if d, err := h.wire.device(t.Context()); err != nil || d.PrivateKey != key {
		t.Errorf("its key is another one: %v", err)
	}
	try(t, h.wire.configure(t.Context(), "Ensure", wgtypes.Config{PrivateKey: new(wgtypes.Key{})}))
	try(t, second(h.wire.Ensure(t.Context(), config(state.WireGuard), h.prefixes)))
}

func TestCheckNamesAMissingModule(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true})[0]
	err := h.wire.Check(t.Context(), config(state.WireGuard), h.prefixes...)
	_, missing := link.Create(t.Context(), netnstest.New(t), link.Spec{Name: "wg0", Kind: link.WireGuard{}})
	if missing == nil {
		try(t, err)
	} else if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "its module wireguard") {
		t.Errorf("the error is %v", err)
	}
}

func TestWireGuardWithoutAStateDirectory(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true})[0]
	_, err := New(h.ns, Options{}).Ensure(t.Context(), config(state.WireGuard), h.prefixes)
	if !errors.Is(err, os.ErrInvalid) {
		t.Errorf("the error is %v", err)
	}
	if _, err := link.Get(t.Context(), h.ns, "fl0"); netns.IgnoreNotExist(err) != nil || err == nil {
		t.Errorf("the failed call has left a link, or %v", err)
	}
}

// TestDifference has no kernel: endpoints of peers that roam.
func TestDifference(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	peer := plan.Peer{Key: [32]byte{1}, Endpoint: at("192.0.2.2:4790"), Allowed: []netip.Prefix{prefix("10.100.2.0/24"), prefix("fd99:0:0:2::/64")}}
	have := func(endpoint string, handshake time.Time) *wgtypes.Peer {
		c, _ := (&Wire{}).difference(plan.Peer{Key: peer.Key, Endpoint: at(endpoint), Allowed: peer.Allowed}, nil, now)
		return &wgtypes.Peer{PublicKey: peer.Key, Endpoint: c.Endpoint, AllowedIPs: c.AllowedIPs, LastHandshakeTime: handshake}
	}
	fewer := have("192.0.2.2:4790", now)
	fewer.AllowedIPs = fewer.AllowedIPs[:1]
	for _, c := range []struct {
		name              string
		have              *wgtypes.Peer
		set               string // where an earlier call has set it
		endpoint, allowed bool
	}{
		{name: "none", endpoint: true, allowed: true},
		{name: "the same", have: have("192.0.2.2:4790", now)},
		{name: "the same, no session", have: have("192.0.2.2:4790", time.Time{})},
		{name: "elsewhere, with a session", have: have("198.51.100.2:1234", now.Add(-time.Minute))},
		{name: "elsewhere, with a session, set by this program", have: have("198.51.100.2:1234", now), set: "192.0.2.2:4790"},
		{name: "elsewhere, without a session", have: have("198.51.100.2:1234", now.Add(-time.Hour)), endpoint: true},
		{name: "elsewhere, with a session, and the plan has changed", have: have("192.0.2.9:4790", now), set: "192.0.2.9:4790", endpoint: true},
		{name: "other prefixes", have: fewer, allowed: true},
	} {
		w := New(nil, Options{})
		if c.set != "" {
			w.set[peer.Key] = endpoints{at(c.set)}
		}
		got, differs := w.difference(peer, c.have, now)
		if (got.Endpoint != nil) != c.endpoint || got.ReplaceAllowedIPs != c.allowed || differs != (c.endpoint || c.allowed) || got.UpdateOnly != (c.have != nil) {
			t.Errorf("%s: %+v, %v", c.name, got, differs)
		}
	}
}
