package docker

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/nat"
)

// Boxes join a host with Docker, which restarts, is killed, and is there as before when they have gone.
func TestDockerFirst(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "nft")
	serveAround(t, m)
	e := start(t, m)
	world(t, m, nil, e).Check(t, "Docker alone", theirs)
	before := rules(t, m)
	b := newBoxes(t, m)
	w := world(t, m, b, e)
	w.Check(t, "boxes, no AcceptForward", cutOff)
	b.isDropped(t)
	b.accept(t)
	w.Check(t, "boxes and containers", everyone)
	b.remove(t, m)
	unchanged(t, m, before)
	b = newBoxes(t, m)
	b.accept(t)
	w = world(t, m, b, e)
	held := []*reach.Held{w.Hold(t, "lan", "pub4"), w.Hold(t, "lan", "pub6"), w.Hold(t, "db", "lan4"), w.Hold(t, "db", "lan6")}
	stillHeld := func(when string) {
		t.Helper()
		for _, h := range held {
			h.Check(t, when)
		}
	}
	w.During(t, "dockerd restarts", ours, func() {
		e.d.Restart(t)
		e.back(t)
	})
	stillHeld("dockerd has restarted")
	world(t, m, b, e).Check(t, "dockerd has restarted", everyone)
	w.During(t, "dockerd is killed", ours, func() {
		e.d.Kill(t)
		e.d.Start(t)
		e.back(t)
	})
	stillHeld("dockerd was killed and is back")
	world(t, m, b, e).Check(t, "dockerd was killed and is back", everyone)
	b.remove(t, m)
	if left := rules(t, m); strings.Contains(left, "boxwire") {
		t.Errorf("of the boxes is left:\n%s", left)
	}
	world(t, m, nil, e).Check(t, "boxes have gone", theirs)
}

// Docker comes to a host with boxes.
func TestBoxesFirst(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "nft")
	serveAround(t, m)
	b := newBoxes(t, m)
	b.accept(t) // there is nothing to accept them yet
	world(t, m, b, nil).Check(t, "boxes alone", ours)
	e := start(t, m)
	w := world(t, m, b, e)
	w.Check(t, "Docker has come", cutOff)
	b.isDropped(t)
	b.accept(t)
	w.Check(t, "AcceptForward again", everyone)
	e.d.Stop(t)
	world(t, m, b, nil).Check(t, "Docker has stopped", ours)
	e.d.Start(t)
	e.back(t)
	world(t, m, b, e).Check(t, "Docker is back", everyone)
	b.remove(t, m)
	world(t, m, nil, e).Check(t, "boxes have gone", theirs)
	if left := rules(t, m); strings.Contains(left, "boxwire") {
		t.Errorf("of the boxes is left:\n%s", left)
	}
}

// What an administrator's `iptables -F` leaves of Docker's rules is a policy that drops and a chain that nothing leads to.
func TestFlushed(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "nft")
	serveAround(t, m)
	start(t, m)
	b := newBoxes(t, m)
	b.accept(t)
	w := world(t, m, b, nil)
	w.Check(t, "before", ours)
	for _, tool := range []string{"iptables", "ip6tables"} {
		m.Run(t, tool, "-F")
	}
	w.Check(t, "flushed", cutOff)
	b.isDropped(t)
	b.accept(t)
	w.Check(t, "AcceptForward again", ours)
	for _, p := range ports {
		if causes, err := b.gw.Explain(t.Context(), p, nat.Hints{From: visitor(p)}); err != nil || len(causes) > 0 {
			t.Errorf("Explain of %v: %v, %v", p, causes, err)
		}
	}
}

// visitor is the LAN's address of a port's family.
func visitor(p nat.Port) netip.Addr {
	if p.Host.Addr().Is4() {
		return netip.MustParseAddr("192.0.2.1")
	}
	return netip.MustParseAddr("2001:db8:1::1")
}

// isDropped fails the test unless Explain blames the other firewall for both directions, and says what helps.
func (b *boxes) isDropped(t *testing.T) {
	t.Helper()
	for _, causes := range b.explain(t) {
		if len(causes) == 0 || causes[0].Kind != nat.CauseForeignDrop || !causes[0].Certain || !strings.Contains(causes[0].Text, "AcceptForward") {
			t.Errorf("Explain: %v", causes)
		}
	}
}

// explain asks why web's ports are not reached, and why it does not get out.
func (b *boxes) explain(t *testing.T) (all []nat.Causes) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, p := range ports {
		causes, err := b.gw.Explain(ctx, p, nat.Hints{From: visitor(p)})
		if err != nil {
			t.Fatal(err)
		}
		out, err := b.gw.ExplainOut(ctx, p.Box.Addr(), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, causes, out)
	}
	return all
}
