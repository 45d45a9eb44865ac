package udev

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/scene"
	"github.com/boxwire/boxwire/link"
)

// made is a link and what it was when Create or another call returned it.
type made struct {
	what string
	l    link.Link
}

// check checks that udevd has left the links as they were.
func check(t *testing.T, m *machine.Machine, when string, links []made) {
	t.Helper()
	scene.Settle(t, m)
	for _, l := range links {
		now, err := link.ByIndex(t.Context(), m.NS, l.l.Index)
		if err != nil {
			t.Errorf("%s: %s: %v", when, l.what, err)
			continue
		}
		if now.Name != l.l.Name || !bytes.Equal(now.MAC, l.l.MAC) || now.MTU != l.l.MTU {
			t.Errorf("%s: %s is %s with %s and MTU %d, was made as %s with %s and %d", when, l.what, now.Name, now.MAC, now.MTU, l.l.Name, l.l.MAC, l.l.MTU)
		}
	}
}

// Every kind of link that has a hardware address keeps it, and its name, beside MACAddressPolicy=persistent
// and NamePolicy= of 99-default.link.
func TestLinksStayAsTheyWereMade(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	withGlobs(t, m)
	// As Spec.MAC advises.
	m.WriteFile(t, "/etc/systemd/network/50-none.link", "[Match]\nOriginalName=tap-none* bond*\n[Link]\nMACAddressPolicy=none\n", 0o644)
	udevd := scene.Udev(t, m)
	below, err := link.Create(t.Context(), m.NS, link.Spec{Name: "below", Up: true, Kind: link.Veth{Peer: link.Spec{Name: "below1", Up: true}}})
	if err != nil {
		t.Fatal(err)
	}
	links := []made{{"veth below", below}}
	var missing []string
	for i, k := range []struct {
		what   string
		kind   link.Kind
		parent bool
		name   string
	}{
		{what: "bridge", kind: link.Bridge{}},
		{what: "veth", kind: link.Veth{Peer: link.Spec{Name: "peer0", Up: true}}},
		{what: "dummy", kind: link.Dummy{}},
		{what: "ifb", kind: link.IFB{}},
		{what: "vrf", kind: link.VRF{Table: 10}},
		{what: "macvlan", kind: link.Macvlan{Mode: link.MacvlanBridge}, parent: true},
		{what: "macvtap", kind: link.Macvtap{}, parent: true},
		{what: "ipvlan", kind: link.IPVLAN{}, parent: true},
		{what: "vlan", kind: link.VLAN{ID: 5}, parent: true},
		{what: "vxlan", kind: link.VXLAN{ID: new(uint32(1)), Port: 4789}},
		{what: "geneve", kind: link.Geneve{ID: new(uint32(1)), Remote: netip.MustParseAddr("192.0.2.1")}},
		{what: "netkit", kind: link.Netkit{Mode: new(link.NetkitL2), Peer: link.Spec{Name: "peer1", Up: true}}},
		{what: "netkit L3", kind: link.Netkit{Peer: link.Spec{Name: "peer2", Up: true}}},
		{what: "tun", kind: link.Tun{Persist: true}},
		{what: "tap without a policy", kind: link.Tun{Tap: true, Persist: true}, name: "tap-none0"},
		{what: "bond without a policy", kind: link.Bond{}, name: "bond7"},
		{what: "wireguard", kind: link.WireGuard{}},
	} {
		spec := link.Spec{Name: fmt.Sprint("kind", i), Up: true, Kind: k.kind}
		if k.name != "" {
			spec.Name = k.name
		}
		if k.parent {
			spec.Parent = below.Ref()
			if _, ok := k.kind.(link.IPVLAN); ok { // not beside macvlans
				other, err := link.Create(t.Context(), m.NS, link.Spec{Name: "other", Up: true, Kind: link.Veth{Peer: link.Spec{Name: "other1", Up: true}}})
				if err != nil {
					t.Fatal(err)
				}
				spec.Parent = other.Ref()
			}
		}
		l, err := link.Create(t.Context(), m.NS, spec)
		if errors.Is(err, errors.ErrUnsupported) {
			missing = append(missing, k.what)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", k.what, err)
			continue
		}
		links = append(links, made{k.what, l})
		if l.PeerIndex != 0 && !k.parent {
			peer, err := link.ByIndex(t.Context(), m.NS, l.PeerIndex)
			if err != nil {
				t.Error(err)
			}
			links = append(links, made{k.what + " (peer)", peer})
		}
	}
	t.Logf("this kernel has no %q", missing)
	check(t, m, "made", links)

	scene.Trigger(t, m, "change")
	scene.Trigger(t, m, "add")
	check(t, m, "reported again", links)
	udevd.Kill(t)
	udevd.Start(t)
	scene.UdevReady(t, m, udevd)
	scene.Trigger(t, m, "add")
	check(t, m, "killed and started again", links)

	// A rename and a move are reported, too.
	for i := range links {
		if links[i].what == "veth below" {
			continue // a parent
		}
		now, err := links[i].l.Update(t.Context(), link.Spec{Name: fmt.Sprint("renamed", i)})
		if err != nil {
			t.Errorf("renaming %s: %v", links[i].what, err)
			continue
		}
		links[i].l = now
	}
	check(t, m, "renamed", links)
}

// Create succeeds for a TAP device whenever udevd comes in between, and the device keeps its name.
func TestTapsBesideUdevd(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	scene.Udev(t, m)
	var taps []link.Link
	for i := range 100 {
		l, err := link.Create(t.Context(), m.NS, link.Spec{Name: fmt.Sprint("tap", i), Up: true, Kind: link.Tun{Tap: true, Persist: true}})
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		taps = append(taps, l)
	}
	scene.Settle(t, m)
	replaced := 0
	for _, l := range taps {
		now, err := link.ByIndex(t.Context(), m.NS, l.Index)
		if err != nil || now.Name != l.Name {
			t.Errorf("%s is %s now: %v", l.Name, now.Name, err)
		}
		if !bytes.Equal(now.MAC, l.MAC) {
			replaced++
		}
	}
	t.Logf("udevd has replaced the addresses of %d of %d TAP devices", replaced, len(taps))
}
