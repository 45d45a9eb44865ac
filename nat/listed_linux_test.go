package nat

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestPortsOfALongRangeAreNotGivenAway(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	const setting = "ipv4/ip_local_reserved_ports"
	setSysctl(t, ns, "ipv4/ip_local_port_range", "40000 49999")
	setSysctl(t, ns, setting, "41000-41009,9") // the administrator's
	gw := open(t, ns)
	rtp, six := ranged(udp("0.0.0.0:30000", "10.0.0.2:30000", "rtp"), 42000), ranged(udp("[::]:41990", "[fd00::2]:41990", "six"), 42999)
	short := ranged(udp("0.0.0.0:45000", "10.0.0.2:45000", "short"), 45255)
	below := ranged(udp("0.0.0.0:1000", "10.0.0.2:1000", "below"), 1999)
	is := func(when, want, record string) {
		t.Helper()
		if got := sysctl(t, ns, setting); got != want {
			t.Errorf("%s: the setting is %q, want %q", when, got, want)
		}
		out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", "listed")
		if record == "" && strings.Contains(out, "elements") || !strings.Contains(strings.Join(strings.Fields(out), " "), record) {
			t.Errorf("%s: recorded are %s, want %s", when, out, record)
		}
	}
	publish := func(p ...Port) {
		t.Helper()
		if err := gw.Publish(t.Context(), p...); err != nil {
			t.Fatal(err)
		}
	}
	unpublish := func(p Port) {
		t.Helper()
		if err := gw.Unpublish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	publish(short, below)
	is("short ranges and low ones", "9,41000-41009", "")
	publish(rtp)
	is("published", "9,40000-42000", "ip . 40000-40999, ip . 41010-42000")
	publish(six)
	is("another that overlaps", "9,40000-42999", "ip . 40000-40999, ip . 41010-42999")
	if err := gw.Publish(t.Context(), tcp("0.0.0.0:70", "10.0.0.2:70", "x"), ranged(udp("10.1.1.1:42000", "10.0.0.2:42000", "x"), 49999)); err == nil {
		t.Error("ranges overlap")
	}
	is("refused", "9,40000-42999", "ip . 40000-40999, ip . 41010-42999")
	unpublish(rtp)
	is("the first is gone", "9,41000-41009,41990-42999", "ip . 41990-42999")

	// A program that ended before it could write the setting, and another's flush.
	setSysctl(t, ns, setting, "9,41000-41009")
	state := State{Ports: []Port{six, short}}
	if err := gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	is("repaired", "9,41000-41009,41990-42999", "ip . 41990-42999")
	testutil.Run(t, ns, "nft", "flush ruleset")
	if err := gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	is("flushed and restored", "9,41000-41009,41990-42999", "ip . 41990-42999")

	bare := openWith(t, ns, Options{NoReserve: true})
	if err := bare.Sync(t.Context(), State{Ports: []Port{six, rtp}[:1]}); err != nil {
		t.Fatal(err)
	}
	is("one that does not reserve leaves it", "9,41000-41009,41990-42999", "ip . 41990-42999")
	if err := gw.UnpublishOwner(t.Context(), "six"); err != nil {
		t.Fatal(err)
	}
	is("none left", "9,41000-41009", "")

	setSysctl(t, ns, setting, "\n")
	publish(six)
	if err := gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sysctl(t, ns, setting); got != "" {
		t.Errorf("after Delete the setting is %q", got)
	}
}

func TestPortSetsRoundTrip(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		var s portSet
		for range r.IntN(20) {
			first := uint16(r.IntN(65536))
			s.add(first, uint16(min(65535, int(first)+r.IntN(1000))))
		}
		got, err := parsePortSet(s.String())
		if err != nil || *got != s {
			t.Fatalf("%q came back as %v, %v", s.String(), got, err)
		}
	}
	for _, bad := range []string{"x", "1-", "65536", "-1", "1-2-3"} {
		if s, err := parsePortSet(bad); err == nil {
			t.Errorf("%q: %v", bad, s)
		}
	}
}
