package link

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// A bond takes its ports while they are down: Create sees to that, for links that
// are to be up, too.
func TestBondWithPorts(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	bond, err := Create(ctx, ns, Spec{Name: "bond0", Up: true, Kind: Bond{Mode: new(BondActiveBackup), MIIMonitor: new(100 * millis)}})
	testutil.NeedKernel(t, 5, 4, "bonds", err)
	one := mustCreate(t, ns, Spec{Name: "one", Up: true, Master: bond.Ref(), Kind: Veth{Peer: Spec{Name: "x", Up: true}}})
	two := mustCreate(t, ns, Spec{
		Name: "two", Up: true, Master: bond.Ref(), BondPort: BondPort{Queue: new(uint16(2))}, Kind: Veth{Peer: Spec{Name: "y", Up: true}},
	})
	for _, l := range []Link{one, two} {
		if w := ipLinks(t, ns)[l.Name]; w.Master != "bond0" || !w.up() || w.Info.SlaveKind != "bond" {
			t.Errorf("ip shows %+v", w)
		}
	}
	if q := ipFull(t, ns, "two").Info.Port["queue_id"]; q != 2.0 {
		t.Errorf("ip shows queue %v", q)
	}
	if _, err := two.Update(ctx, Spec{BondPort: BondPort{Queue: new(uint16(3))}}); err != nil {
		t.Error(err)
	}
	d, err := two.Details(ctx)
	if err != nil || d.SlaveKind != "bond" || d.Spec.BondPort.Queue == nil || *d.Spec.BondPort.Queue != 3 {
		t.Errorf("%+v, %v", d.Spec.BondPort, err)
	}
	if _, err := bond.Update(ctx, Spec{Kind: Bond{Primary: one.Ref()}}); err != nil {
		t.Error(err)
	}
	if i := ipInfo(t, ns, "bond0"); i["primary"] != "one" {
		t.Errorf("ip shows %v", i)
	}
	if _, err = two.Update(ctx, Spec{BondPort: BondPort{Priority: new(int32(-5))}}); err != nil {
		testutil.NeedKernel(t, 6, 0, "priorities of bond ports", err)
	}
}

func TestVRFWithPorts(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	vrf, err := Create(ctx, ns, Spec{Name: "red", Up: true, Kind: VRF{Table: 100}})
	testutil.NeedKernel(t, 5, 4, "VRFs", err)
	l := mustCreate(t, ns, Spec{Name: "a", Up: true, Master: vrf.Ref(), Addrs: prefixes("10.0.0.1/24"), Kind: Veth{Peer: Spec{Name: "b", Up: true}}})
	ports, err := List(ctx, ns, Filter{Master: vrf.Ref()})
	if err != nil || len(ports) != 1 || ports[0].Index != l.Index {
		t.Errorf("%v, %v", ports, err)
	}
	_, err = Create(ctx, ns, Spec{Name: "c", Master: vrf.Ref(), BondPort: BondPort{Queue: new(uint16(1))}, Kind: Veth{Peer: Spec{Name: "d"}}})
	wantErr(t, err, os.ErrInvalid, "is no bond")
	onlyThese(t, ns, "lo", "red", "a", "b")
}

func TestNetkitWithPeerInAnotherNamespace(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	spec := Spec{Name: "web0", Up: true, Addrs: prefixes("10.0.0.1/24"), Kind: Netkit{Peer: Spec{
		NS: web, Name: "eth0", Up: true, MTU: 1400, Addrs: prefixes("10.0.0.2/24"),
	}}}
	l, err := Create(ctx, host, spec)
	if err != nil {
		onlyLo(t, host, web)
	}
	testutil.NeedKernel(t, 6, 7, "netkit", err)
	w := ipLinks(t, web)["eth0"]
	if l.PeerIndex != w.Index || w.MTU != 1400 || !w.up() || !sameSet(w.addrs(), prefixes("10.0.0.2/24")) {
		t.Errorf("Create returned %+v, ip shows %+v", l, w)
	}
	c := boxBridge{host: host}
	c.reach(t, host, web, prefixes("10.0.0.2/24"))
	if again, err := Ensure(ctx, host, spec); err != nil || again.Index != l.Index {
		t.Errorf("%v, %v", again, err)
	}
	if err := l.Delete(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	onlyLo(t, host, web)
}
