package nat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// A connection that was idle for longer than the flowtable keeps it goes on.
func TestIdleFlowsOutliveTheFlowtable(t *testing.T) {
	t.Parallel()
	s := newFlowing(t, nil)
	setSysctl(t, s.host, "netfilter/nf_flowtable_tcp_timeout", "1")
	setSysctl(t, s.host, "netfilter/nf_flowtable_udp_timeout", "1")
	boxServers(t, s, TCP, UDP)
	for _, proto := range []Proto{TCP, UDP} {
		d := begin(t, s.outside, proto, "203.0.113.1:8080")
		d.offloaded(t, s.gw)
		if !until(func() bool { return !d.isOffloaded(t, s.gw) }) {
			t.Fatal("it stays")
		}
		flows, err := s.gw.ListFlows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range flows {
			if f.Original.Src == d.local {
				if want := map[Proto]time.Duration{TCP: time.Hour, UDP: 20 * time.Second}[proto]; f.Timeout < want {
					t.Errorf("%v: %v left, want %v", proto, f.Timeout, want)
				}
			}
		}
		d.offloaded(t, s.gw)
	}
}

// Two hundred ports, with names as long as can be.
func TestFlowtableOfManyPorts(t *testing.T) {
	t.Parallel()
	needFlowtable(t)
	ns := netnstest.New(t)
	ip(t, ns, "link add br0 type bridge")
	var lines []string
	for i := range 200 {
		lines = append(lines, fmt.Sprintf("link add verylongname%03d type dummy\nlink set verylongname%03d master br0", i, i))
	}
	ip(t, ns, strings.Join(lines, "\n"))
	lines = nil
	for i := range 120 {
		lines = append(lines, fmt.Sprintf("link add alsolongname%03d type dummy\naddr add 10.9.%d.1/24 dev alsolongname%03d", i, i, i))
	}
	ip(t, ns, strings.Join(lines, "\n"))
	gw := open(t, ns)
	net := flowNetwork(0, true)
	state := State{Networks: []Network{net}}
	maintain(t, newMaintainer(gw, always(state)))
	_, devices := flowtableOf(t, ns)
	want := 121
	if throughPorts() {
		want = maxDevices
	}
	if len(devices) != want || !slices.Contains(devices, "br0") {
		t.Errorf("%d devices, want %d", len(devices), want)
	}
	for i := range 120 {
		ip(t, ns, fmt.Sprintf("addr del 10.9.%d.1/24 dev alsolongname%03d", i, i))
		if i%10 == 0 {
			if err := Check(t.Context(), ns, "", state); err != nil {
				t.Error(err)
			}
		}
	}
	want = 1
	if throughPorts() {
		want = maxDevices
	}
	if !until(func() bool { _, devices = flowtableOf(t, ns); return len(devices) == want }) {
		t.Errorf("%d devices, want %d: %v", len(devices), want, devices)
	}
}

// Two NATs, and another program's flowtable with the same links.
func TestFlowtablesSideBySide(t *testing.T) {
	t.Parallel()
	s := newFlowing(t, nil)
	testutil.Run(t, s.host, "nft", "add table inet theirs; add flowtable inet theirs f { hook ingress priority 0; devices = { up0, br0, box0 }; }")
	if err := s.gw.DeleteNetwork(t.Context(), "br1"); err != nil {
		t.Fatal(err)
	}
	two, err := Open(t.Context(), s.host, Options{Name: "second"})
	if err != nil {
		t.Fatal(err)
	}
	net := network1()
	net.Flowtable = true
	if err := two.AddNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	boxServers(t, s, TCP, UDP)
	hearing(t, s.outside, UDP, "203.0.113.9:90")
	hearing(t, s.outside, TCP, "203.0.113.9:90")
	for _, d := range []dialogue{
		begin(t, s.outside, TCP, "203.0.113.1:8080"), begin(t, s.outside, UDP, "203.0.113.1:8080"),
		begin(t, s.other, TCP, "203.0.113.9:90"), begin(t, s.other, UDP, "203.0.113.9:90"),
	} {
		d.offloaded(t, s.gw)
	}
	if err := errors.Join(Check(t.Context(), s.host, "", State{}), Check(t.Context(), s.host, "second", State{Networks: []Network{net}})); err != nil {
		t.Error(err)
	}
	if err := errors.Join(two.Delete(t.Context()), s.gw.Delete(t.Context())); err != nil {
		t.Error(err)
	}
	if out := testutil.Run(t, s.host, "nft", "list", "tables"); strings.Contains(out, "flowtable") {
		t.Error(out)
	}
}

// A call that is cancelled in its middle leaves networks and the flowtable's table that agree.
func TestCancelledCallsLeaveTheFlowtableWhole(t *testing.T) {
	t.Parallel()
	needFlowtable(t)
	host, _ := netnstest.Bridge(t, 1)
	gw := open(t, host.NS)
	net := boxNetwork(host, 0)
	if err := gw.AddNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 5
	}
	for i := 0; i < 150; i += step { // the calls have more and more time
		net.Flowtable = i%2 == 0
		net.MSS = uint16(1000 + i)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*200*time.Microsecond)
		var err error
		if i%3 == 0 {
			err = gw.Sync(ctx, State{Networks: []Network{net}})
		} else {
			err = gw.SetNetwork(ctx, net)
		}
		cancel()
		nets, lerr := gw.ListNetworks(t.Context())
		if lerr != nil || len(nets) != 1 {
			t.Fatal(nets, lerr)
		}
		if err == nil && nets[0].Flowtable != net.Flowtable {
			t.Errorf("%d: done, but Flowtable is %t", i, nets[0].Flowtable)
		}
		var want []string
		if nets[0].Flowtable {
			want = []string{"br0"}
		}
		hasFlowtable(t, host.NS, want...)
		if err := Check(t.Context(), host.NS, "", State{Networks: []Network{nets[0].Network}}); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}
