package link

import (
	"context"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// later runs do in the background, once a program in the namespace listens to
// events: the wait that follows.
func later(t *testing.T, ns *netns.NS, do func() error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !listens(t, ns) {
			runtime.Gosched()
		}
		if err := do(); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { <-done })
}

// listens looks for a socket with groups in the kernel's list.
func listens(t *testing.T, ns *netns.NS) bool {
	list, err := netns.Do(context.Background(), ns, func(context.Context) ([]byte, error) {
		return os.ReadFile("/proc/thread-self/net/netlink")
	})
	if err != nil {
		t.Error(err)
		return true
	}
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == "0" && f[3] != "00000000" {
			return true
		}
	}
	return false
}

func TestWaitForUpCarrierForwardingGone(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	a := mustCreate(t, ns, Spec{Name: "a", Master: br.Ref(), Kind: Veth{Peer: Spec{Name: "b"}}})
	b, err := Get(ctx, ns, "b")
	if err != nil {
		t.Fatal(err)
	}
	later(t, ns, func() error { return a.SetUp(ctx) })
	if now, err := a.WaitUp(ctx); err != nil || !now.Up || now.Running {
		t.Fatalf("%+v, %v", now, err)
	}
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	_, err = a.WaitCarrier(short)
	wantErr(t, err, context.DeadlineExceeded, "link.WaitCarrier link a")
	wantErr(t, a.WaitForwarding(short), context.DeadlineExceeded)
	later(t, ns, func() error { return b.SetUp(ctx) })
	if now, err := a.WaitCarrier(ctx); err != nil || !now.Running || !ipLinks(t, ns)["a"].up() {
		t.Fatalf("%+v, %v", now, err)
	}
	if err := a.WaitForwarding(ctx); err != nil {
		t.Fatal(err)
	}
	if p := showPort(t, ns, "a"); p["state"] != "forwarding" {
		t.Errorf("ip shows %v", p["state"])
	}
	wantErr(t, b.WaitForwarding(ctx), os.ErrInvalid, "not the port")
	later(t, ns, func() error { return b.Delete(ctx) })
	if err := a.WaitGone(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = a.WaitUp(ctx)
	wantErr(t, err, os.ErrNotExist)
	wantErr(t, a.WaitAddr(ctx, netip.MustParseAddr("10.0.0.1")), os.ErrNotExist)
}

func TestWaitEndsWhenTheLinkGoes(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	a := mustCreate(t, ns, Spec{Name: "a", Up: true, Kind: Veth{Peer: Spec{Name: "b"}}})
	later(t, ns, func() error { return a.Delete(context.Background()) })
	_, err := a.WaitCarrier(t.Context())
	wantErr(t, err, os.ErrNotExist)
}

// Two hosts on one link: WaitAddr reports it to the second that takes the address.
func TestWaitAddrDetection(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := t.Context()
	one, two := netnstest.New(t), netnstest.New(t)
	a := mustCreate(t, one, Spec{Name: "eth0", Up: true, Kind: Veth{Peer: Spec{NS: two, Name: "eth0", Up: true}}})
	b, err := Get(ctx, two, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.WaitCarrier(ctx); err != nil {
		t.Fatal(err)
	}
	addr := Addr{Prefix: netip.MustParsePrefix("fd00::1/64")}
	ip := addr.Prefix.Addr()
	later(t, one, func() error { return a.AddAddrs(ctx, addr) })
	if err := a.WaitAddr(ctx, ip); err != nil {
		t.Fatal(err)
	}
	if show := showAddrs(t, one, "eth0"); show["fd00::1"] == nil || show["fd00::1"]["tentative"] != nil {
		t.Errorf("ip shows %v", show)
	}
	if err := b.AddAddrs(ctx, addr); err != nil {
		t.Fatal(err)
	}
	wantErr(t, b.WaitAddr(ctx, ip), os.ErrExist, "another host has the address fd00::1")
	if show := showAddrs(t, two, "eth0"); show["fd00::1"]["dadfailed"] != true {
		t.Errorf("ip shows %v", show)
	}
	four := netip.MustParseAddr("10.0.0.1")
	later(t, two, func() error { return b.AddPrefixes(ctx, prefixes("10.0.0.1/24")...) })
	if err := b.WaitAddr(ctx, four); err != nil {
		t.Error(err)
	}
	wantErr(t, b.WaitAddr(ctx, netip.Addr{}), os.ErrInvalid)
}
