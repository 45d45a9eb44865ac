package nat

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// tracking is another program's table that has the host track connections even
// while ours is away.
const tracking = "add table inet t; add chain inet t c { type filter hook prerouting priority 0; }; add rule inet t c ct state new accept"

// attackedState is the state that newAttacked builds for two networks.
func attackedState() State {
	s := State{Networks: []Network{network0(), network1()}}
	for host, box := range map[string]string{
		"0.0.0.0:8080": "10.88.0.2:80", "[::]:8080": "[fd88::2]:80", "127.0.0.1:9090": "10.88.0.2:80",
	} {
		p := tcp(host, box, "web")
		p.Proto = UDP
		s.Ports = append(s.Ports, p)
	}
	return s
}

// What began while the table was away has no business to go on as an established
// connection once it is back.
func TestFlowsThatSlippedInAreEndedWhenTheTableIsBack(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, restore := range map[string]func(t *testing.T, s *topology) error{
		"Sync": func(t *testing.T, s *topology) error { return s.gw.Sync(t.Context(), attackedState()) },
		"AddNetwork": func(t *testing.T, s *topology) error {
			gw := open(t, s.host)
			return errors.Join(gw.AddNetwork(t.Context(), network0()), gw.AddNetwork(t.Context(), network1()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, build := newAttacked(t, network0(), network1())
			build(t)
			outside, toHost := newWireEnd(t, s.outside, "wan0"), macOf(t, s.host, "up0")
			box, toGate := newWireEnd(t, s.box, "eth0"), macOf(t, s.host, "br0")
			atBox, atOther := listenAndAnswer(t, s.box, ":80"), listenAndAnswer(t, s.other, ":80")
			flows := []attack{
				{name: "outside to box", end: outside, to: toHost, src: "203.0.113.9:7", dst: "10.88.0.2:80", at: atBox},
				{name: "outside to box over IPv6", end: outside, to: toHost, src: "[2001:db8:1::9]:7", dst: "[fd88::2]:80", at: atBox},
				{name: "box to another network", end: box, to: toGate, src: "10.88.0.2:7", dst: "10.89.0.2:80", at: atOther},
				{name: "box to another network over IPv6", end: box, to: toGate, src: "[fd88::2]:7", dst: "[fd89::2]:80", at: atOther},
			}
			testutil.Run(t, s.host, "nft", "flush ruleset; "+tracking)
			for _, f := range flows {
				if !until(func() bool { f.end.send(t, f.to, ap(f.src), ap(f.dst), f.name); return f.at.has(f.name) }) {
					t.Fatalf("%s: does not arrive without a table", f.name)
				}
			}
			if err := restore(t, s); err != nil {
				t.Fatal(err)
			}
			for _, f := range flows {
				late := f.name + ", later"
				_, before := findRule(t, s.host, "to_box", theRest)
				if !until(func() bool {
					f.end.send(t, f.to, ap(f.src), ap(f.dst), late)
					_, count := findRule(t, s.host, "to_box", theRest)
					return count > before || f.at.has(late)
				}) || f.at.has(late) {
					t.Errorf("%s: goes on", f.name)
				}
			}
		})
	}
}

// Attackers do not stop while the table is removed and Maintain puts it back. What is
// published on 127.0.0.1 stays closed all the time, because it goes and comes with
// what guards it; the rest is closed again once the repair is reported.
func TestNothingGetsInOnceMaintainHasRepaired(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s, build := newAttacked(t, network0(), network1())
	build(t)
	outside, toHost := newWireEnd(t, s.outside, "wan0"), macOf(t, s.host, "up0")
	box, toGate := newWireEnd(t, s.box, "eth0"), macOf(t, s.host, "br0")
	atBox, atOther, local := listenAndAnswer(t, s.box, ":80"), listenAndAnswer(t, s.other, ":80"), listen(t, s.host, "127.0.0.1:5353")
	const always4, always6 = "203.0.113.1:8080", "[2001:db8:1::1]:8080" // published: what shows that packets arrive
	streams := []struct {
		attack
		never bool
	}{
		{attack{name: "to a port published on 127.0.0.1", end: outside, to: toHost, src: "203.0.113.9:7", dst: "127.0.0.1:9090", at: atBox}, true},
		{attack{name: "from 127.0.0.2 to a published port", end: outside, to: toHost, src: "127.0.0.2:7", dst: always4, at: atBox}, true},
		{attack{name: "outside to box", end: outside, to: toHost, src: "203.0.113.9:7", dst: "10.88.0.2:80", at: atBox}, false},
		{attack{name: "outside to box over IPv6", end: outside, to: toHost, src: "[2001:db8:1::9]:7", dst: "[fd88::2]:80", at: atBox}, false},
		{attack{name: "box to another network", end: box, to: toGate, src: "10.88.0.2:7", dst: "10.89.0.2:80", at: atOther}, false},
		{attack{name: "box to a service of the host on 127.0.0.1", end: box, to: toGate, src: "10.88.0.2:8", dst: "127.0.0.1:5353", at: local}, false},
	}
	testutil.Run(t, s.host, "nft", tracking)
	all := maintain(t, newMaintainer(s.gw, always(attackedState())))

	var phase atomic.Int64 // odd: the table is there
	phase.Store(1)
	text := func(name string, phase int64) string { return fmt.Sprintf("%s, phase %d", name, phase) }
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		for ctx.Err() == nil {
			// Read before all is sent: a datagram never claims a later phase than that it is sent in.
			at := phase.Load()
			for _, a := range streams {
				a.end.send(t, a.to, ap(a.src), ap(a.dst), text(a.name, at))
			}
			for src, dst := range map[string]string{"203.0.113.9:9": always4, "[2001:db8:1::9]:9": always6} {
				outside.send(t, toHost, ap(src), ap(dst), text(dst, at))
			}
			box.send(t, toGate, ap("10.88.0.2:9"), ap(always4), text("from a box", at))
			time.Sleep(time.Millisecond)
		}
	}()
	defer func() { cancel(); <-over }()
	arrives := func() {
		t.Helper()
		at := phase.Load()
		for _, what := range []string{always4, always6, "from a box"} {
			if !until(func() bool { return atBox.has(text(what, at)) }) {
				t.Fatalf("phase %d: what is published is not reached: %s", at, what)
			}
		}
	}
	arrives()
	for round := range 5 {
		phase.Add(1)
		arrives() // and before it all that claims the last phase, which is sent or under way still
		testutil.Run(t, s.host, "nft", []string{"flush ruleset; " + tracking, "delete table inet boxwire"}[round%2])
		if r := next(t, all); r.Reason != ReasonTableRemoved {
			t.Errorf("%v", r.Repair)
		}
		phase.Add(1)
		arrives()
	}
	cancel()
	<-over
	for _, a := range streams {
		for p := range phase.Load() + 1 {
			if (a.never || p%2 == 1) && a.at.has(text(a.name, p)) {
				t.Errorf("%s arrived", text(a.name, p))
			}
		}
	}
}
