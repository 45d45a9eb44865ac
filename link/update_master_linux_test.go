package link

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// unchanged makes a call that fails with target and leaves everything as it was.
func unchanged(t *testing.T, target error, call func(context.Context) error, spaces ...*netns.NS) {
	t.Helper()
	w := testutil.World{Spaces: spaces, Call: call}
	if err := w.Fails(t); !errors.Is(err, target) {
		t.Errorf("error %v is not %v", err, target)
	}
}

// A port that its new master does not take is in its old one, with what it had there.
func TestSetMasterThatFailsKeepsTheOld(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	y := newUndoTopology(t)
	for what, master := range map[string]int{"none": 9999, "takes no ports": y.free.Index, "lo": 1, "itself below": y.port.Index + 5000} {
		target := error(unix.EOPNOTSUPP)
		if master > 1000 {
			target = os.ErrNotExist
		}
		t.Run(what, func(t *testing.T) {
			unchanged(t, target, func(ctx context.Context) error { return y.port.SetMaster(ctx, Ref{Index: master}) }, y.host, y.box)
			unchanged(t, target, func(ctx context.Context) error {
				_, err := y.port.Update(ctx, Spec{Master: Ref{Index: master}})
				return err
			}, y.host, y.box)
		})
	}
	bridge := mustCreate(t, y.host, Spec{Name: "br2", Kind: Bridge{}}) // a bridge takes no bridge
	unchanged(t, unix.ELOOP, func(ctx context.Context) error { return bridge.SetMaster(ctx, y.br.Ref()) }, y.host)
}

// The port comes back with its VLANs and its static entries.
func TestSetMasterThatFailsKeepsVLANs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	quiet := IPv6Conf{AddrGenMode: new(AddrGenNone)}
	br, err := Create(ctx, ns, Spec{Name: "br0", Up: true, IPv6: quiet, Kind: Bridge{VLANFiltering: new(true)}})
	testutil.NeedKernel(t, 3, 9, "VLAN filtering of bridges", err)
	l := mustCreate(t, ns, Spec{Name: "a", Up: true, IPv6: quiet, Master: br.Ref(), Kind: Veth{Peer: Spec{Name: "b", Up: true, IPv6: quiet}}})
	for _, err := range []error{
		l.SyncVLANs(ctx, PortVLAN{ID: 5, PVID: true, Untagged: true}, PortVLAN{ID: 7, End: 9}),
		l.AddFDBEntries(ctx, FDBEntry{MAC: mac(1), VLAN: 7}, FDBEntry{MAC: mac(2)}),
		l.WaitForwarding(ctx),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	unchanged(t, unix.EOPNOTSUPP, func(ctx context.Context) error { return l.SetMaster(ctx, Ref{Index: 1}) }, ns)
}

// A bond refuses ports that are up.
func TestSetMasterToABondThatRefuses(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	y := newUndoTopology(t)
	bond, err := Create(ctx, y.host, Spec{Name: "bond0", Kind: Bond{Mode: new(BondActiveBackup)}})
	testutil.NeedKernel(t, 2, 6, "bonding", err)
	unchanged(t, os.ErrPermission, func(ctx context.Context) error { return y.port.SetMaster(ctx, bond.Ref()) }, y.host, y.box)
}

// An ifb has no hardware address to be set: it does not move without.
func TestMoveThatFailsKeepsWhatTheLinkHas(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	y := newUndoTopology(t)
	hw := net.HardwareAddr{2, 0, 0, 0, 9, 9}
	move := func(l Link, to *netns.NS, o MoveOptions) func(context.Context) error {
		return func(ctx context.Context) error { _, err := l.Move(ctx, to, o); return err }
	}
	unchanged(t, unix.EOPNOTSUPP, move(y.ifb, y.box, MoveOptions{MAC: hw}), y.host, y.box)
	unchanged(t, unix.EOPNOTSUPP, move(y.ifb, y.box, MoveOptions{Name: "x", MTU: 1400, MAC: hw, Up: true}), y.host, y.box)
	unchanged(t, os.ErrExist, move(y.port, y.box, MoveOptions{Name: "eth0"}), y.host, y.box)
	lo, err := Get(t.Context(), y.host, "lo")
	if err != nil {
		t.Fatal(err)
	}
	unchanged(t, unix.EINVAL, move(lo, y.box, MoveOptions{Name: "lo1"}), y.host, y.box)
}

// A VXLAN refuses its options beside an MTU: they go in messages of their own.
func TestChangeAVXLANWithAnMTU(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	spec := Spec{Name: "vx0", MTU: 1400, Kind: VXLAN{ID: new(uint32(7)), Port: 4789, TTL: 5}}
	l := mustCreate(t, ns, spec)
	spec.MTU, spec.Kind = 1380, VXLAN{ID: new(uint32(7)), Port: 4789, TTL: 6}
	if _, err := Ensure(ctx, ns, spec); err != nil {
		t.Error(err)
	}
	if w := ipLinks(t, ns)["vx0"]; w.MTU != 1380 {
		t.Errorf("ip shows %+v", w)
	}
	if _, err := l.Update(ctx, Spec{MTU: 1390, Kind: VXLAN{TTL: 7}}); err != nil {
		t.Error(err)
	}
	if d, err := l.Details(ctx); err != nil || d.MTU != 1390 || d.Spec.Kind.(VXLAN).TTL != 7 {
		t.Errorf("%+v, %v", d, err)
	}
	unchanged(t, os.ErrExist, func(ctx context.Context) error {
		_, err := l.Update(ctx, Spec{MTU: 1300, AltNames: []string{"lo"}, Kind: VXLAN{TTL: 9}})
		return err
	}, ns)
}
