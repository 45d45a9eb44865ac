package networkmanager

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/scene"
	"github.com/boxwire/boxwire/link"
)

// Without any setting, NetworkManager takes the bridge for one that is connected externally, and leaves it and the boxes alone
// while it starts, stops, is killed, reads its files and sleeps.
func TestWithoutSettings(t *testing.T) {
	t.Parallel()
	nm := start(t, false)
	before := nm.state(t)
	h := scene.New(t, nm.Machine, 3)
	h.Check(t, "made beside NetworkManager")
	was := h.State(t)
	for _, step := range nm.steps(t) {
		h.During(t, step.what, func() {
			step.do()
			nm.ready(t)
		})
		scene.CheckState(t, step.what, was, h.State(t))
	}
	if s := nm.states(); s[scene.Front] != "connected (externally)" || s["veth-box0"] != "unmanaged" {
		t.Errorf("NetworkManager says %v", s)
	}
	h.Reopen(t)
	h.Check(t, "our program begun anew")
	h.Remove(t)
	scene.CheckState(t, "removed", before, nm.state(t))
}

func (h *host) state(t *testing.T) scene.State { return (&scene.Host{M: h.Machine, NS: h.NS}).State(t) }

// off switches networking off and on again.
func (h *host) off(t *testing.T) {
	t.Helper()
	h.Run(t, "nmcli", "networking", "off")
	machine.Until(t, "eth0 is switched off", func() error {
		if out := h.Run(t, "ip", "address", "show", "dev", "eth0"); strings.Contains(out, "192.0.2.2") {
			return errors.New(out)
		}
		return nil
	})
	h.Run(t, "nmcli", "networking", "on")
	h.ready(t)
}

// Switched off and on, networking costs the bridge its addresses and ports. A veth whose name is like that of a network card
// gets DHCP. That is why the page "beside other programs" has the setting of TestUnmanaged.
func TestNetworkingOffTakesTheBridge(t *testing.T) {
	t.Parallel()
	nm := start(t, false)
	ctx := t.Context()
	br, err := link.Create(ctx, nm.NS, link.Spec{Name: "boxwire0", Up: true, Kind: link.Bridge{}, Addrs: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24")}})
	if err != nil {
		t.Fatal(err)
	}
	port, err := link.Create(ctx, nm.NS, link.Spec{Name: "veth-a", Up: true, Master: br.Ref(), Kind: link.Veth{Peer: link.Spec{NS: nm.LAN, Name: "a", Up: true}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := link.Create(ctx, nm.NS, link.Spec{Name: "eth7", Up: true, Kind: link.Veth{Peer: link.Spec{NS: nm.LAN, Name: "b", Up: true}}}); err != nil {
		t.Fatal(err)
	}
	machine.Until(t, "NetworkManager takes the bridge and eth7 for its own", func() error {
		s := nm.states()
		if s["boxwire0"] != "connected (externally)" || !strings.HasPrefix(s["eth7"], "connecting") {
			return fmt.Errorf("%v", s)
		}
		return nil
	})
	nm.off(t)
	machine.Until(t, "the bridge has no address and no port", func() error {
		now, err := link.ByIndex(ctx, nm.NS, port.Index)
		if err != nil {
			return err
		}
		addrs, err := br.Addrs(ctx)
		for _, a := range addrs {
			if a.Prefix.Addr().Is4() {
				err = errors.Join(err, fmt.Errorf("the bridge has %v", a.Prefix))
			}
		}
		if now.Master != 0 {
			err = errors.Join(err, errors.New("the port has a master"))
		}
		return err
	})
}

// With the setting that the page "beside other programs" advises, nothing that NetworkManager does changes anything of ours.
func TestUnmanaged(t *testing.T) {
	t.Parallel()
	nm := start(t, true)
	// Boxes with a fixed address outside keep their connections while eth0 has lost it.
	h := scene.NewSNAT(t, nm.Machine, 3)
	eth7, err := link.Create(t.Context(), nm.NS, link.Spec{Name: "eth7", Up: true, Kind: link.Veth{Peer: link.Spec{NS: nm.LAN, Name: "b", Up: true}}})
	if err != nil {
		t.Fatal(err)
	}
	h.Links = append(h.Links, eth7)
	nm.ready(t)
	h.Check(t, "made beside NetworkManager")
	run := h.Run(t)
	run.Check(t, "made beside NetworkManager")
	was := h.State(t)
	for _, step := range append(nm.steps(t), step{"networking off and on", func() { nm.off(t) }}) {
		h.During(t, step.what, func() {
			step.do()
			nm.ready(t)
		})
		run.Check(t, step.what)
		scene.CheckState(t, step.what, was, h.State(t))
	}
	for name, s := range nm.states() {
		if name != "eth0" && name != "lo" && s != "unmanaged" {
			t.Errorf("%s is %s", name, s)
		}
	}
	h.Reopen(t)
	run.Kill(t)
	h.Check(t, "our programs begun anew")
	run.Check(t, "our programs begun anew")
	run.Stop(t)
	h.Remove(t)
}
