package nat

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// What policies deny is recorded, and watched, in both directions and families.
func TestWhatPoliciesDenyIsRecorded(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	s.waitReady(t)
	p := Policy{Box: addrs("10.88.0.2", "fd88::2"), Owner: "web", Refuse: true, Egress: allows(t), Ingress: allows(t)}
	if err := s.gw.SetPolicies(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.88.0.2:80", "[fd88::2]:80"} {
		if err := s.gw.AddPinholes(t.Context(), Pinhole{Proto: TCP, Box: ap(a), Owner: "web"}); err != nil {
			t.Fatal(err)
		}
	}
	if reaches(t, s.box, "203.0.113.9:81") {
		t.Fatal("reached")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen []Denial
	want := []Denial{
		{Proto: TCP, Src: netip.MustParseAddr("10.88.0.2"), Dst: netip.MustParseAddr("203.0.113.9"), Port: 81},
		{Proto: TCP, Src: netip.MustParseAddr("fd88::2"), Dst: netip.MustParseAddr("fd88::1"), Port: 82},
		{Proto: TCP, Src: netip.MustParseAddr("203.0.113.9"), Dst: netip.MustParseAddr("10.88.0.2"), Port: 80, Ingress: true},
		{Proto: TCP, Src: netip.MustParseAddr("2001:db8:1::9"), Dst: netip.MustParseAddr("fd88::2"), Port: 80, Ingress: true},
	}
	step := 0
	attempts := []func(){
		func() { reaches(t, s.box, "[fd88::1]:82") },
		func() { reaches(t, s.outside, "10.88.0.2:80") },
		func() { reaches(t, s.outside, "[fd88::2]:80") },
		cancel,
	}
	synced := false
	for e, err := range s.gw.WatchDenied(ctx) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			break
		}
		switch e.Kind {
		case netns.EventSynced:
			synced = true
		case netns.EventPresent, netns.EventChanged:
			if synced != (e.Kind == netns.EventChanged) {
				t.Errorf("an event of kind %v, synced: %v", e.Kind, synced)
			}
			d := e.Denial
			if d.Packets == 0 {
				t.Errorf("no packet: %+v", d)
			}
			if d.Packets, d.Ago = 0, 0; step >= len(want) || d != want[step] {
				t.Errorf("event %d is %+v", step, d)
			}
			seen = append(seen, d)
			step++
		}
		if synced && step > 0 && step <= len(attempts) && (e.Kind != netns.EventPresent) {
			attempts[step-1]()
		}
	}
	if len(seen) != len(want) {
		t.Errorf("seen: %+v", seen)
	}
	all, err := s.gw.ListDenied(t.Context())
	if err != nil || len(all) != len(want) {
		t.Errorf("listed: %+v, %v", all, err)
	}
	for _, d := range all {
		if d.Box() != p.Box[0] && d.Box() != p.Box[1] {
			t.Errorf("%+v is of %v", d, d.Box())
		}
	}
}

// One program watches at a time, and the other learns why it cannot.
func TestOneProgramWatchesWhatIsDenied(t *testing.T) {
	t.Parallel()
	s := host(t)
	gw := open(t, s)
	for e, err := range gw.WatchDenied(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != netns.EventSynced {
			continue
		}
		for _, err := range gw.WatchDenied(t.Context()) {
			if !errors.Is(err, os.ErrExist) {
				t.Errorf("the second watch: %v", err)
			}
			break
		}
		break
	}
	if err := gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := gw.ListDenied(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a table: %v", err)
	}
}

func FuzzLoggedPacket(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 88, 0, 2, 203, 0, 113, 9, 0, 1, 0, 80})
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 0, 0, 64}, make([]byte, 48)...))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if d, ok := decodePacket(packet); ok && (!d.Src.IsValid() || !d.Dst.IsValid() || d.Port != 0 && d.Proto.check() != nil) {
			t.Errorf("%x is %+v", packet, d)
		}
	})
}
