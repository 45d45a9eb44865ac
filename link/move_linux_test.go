package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestMoveWithNewNameMTUAndMAC(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	l := mustCreate(t, host, Spec{Name: "a", AltNames: []string{"alt"}, Kind: Veth{Peer: Spec{Name: "eth0", Up: true}}})
	// The new name exists here, too.
	got, err := l.Move(ctx, web, MoveOptions{Name: "eth0", MTU: 1400, MAC: hw("02:00:00:00:00:07"), Up: true})
	if err != nil {
		t.Fatal(err)
	}
	w := ipLinks(t, web)["eth0"]
	if got.Name != "eth0" || got.NS() != web || w.Index != got.Index || w.MTU != 1400 || w.MAC != "02:00:00:00:00:07" || !w.up() {
		t.Errorf("Move returned %+v, ip shows %+v", got, w)
	}
	onlyThese(t, host, "lo", "eth0")
	back, err := got.Move(ctx, host, MoveOptions{Name: "a"})
	if err != nil || back.Name != "a" || back.MTU != 1400 || back.Up {
		t.Errorf("%+v, %v", back, err)
	}
	onlyLo(t, web)
	wantErr(t, got.SetUp(ctx), os.ErrNotExist)
}

func TestMoveThatFailsLeavesTheLink(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web, closed := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	l := mustCreate(t, host, Spec{Name: "a", MTU: 1450, Master: br.Ref(), Up: true, Kind: Veth{Peer: Spec{Name: "b", Up: true}}})
	mustCreate(t, web, Spec{Name: "taken", Index: 500, Kind: Bridge{}})
	closed.Close()
	before := stateOf(t, host)
	lo, err := Get(ctx, host, "lo")
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Move(ctx, web, MoveOptions{Name: "taken"})
	wantErr(t, err, os.ErrExist, "link.Move link a", "the name taken is taken in netns "+web.String())
	_, err = l.Move(ctx, web, MoveOptions{Index: 500})
	wantErr(t, err, os.ErrExist, "index 500 is taken", "by link taken")
	_, err = l.Move(ctx, web, MoveOptions{Name: "x", MTU: 70000})
	wantErr(t, err, os.ErrInvalid, "MTU 70000")
	_, err = l.Move(ctx, web, MoveOptions{MAC: hw("01:00:00:00:00:01")})
	wantErr(t, err, os.ErrInvalid, "multicast")
	_, err = l.Move(ctx, host, MoveOptions{})
	wantErr(t, err, os.ErrInvalid, "already")
	_, err = l.Move(ctx, nil, MoveOptions{})
	wantErr(t, err, os.ErrInvalid, "nil")
	_, err = l.Move(ctx, closed, MoveOptions{})
	wantErr(t, err, os.ErrClosed)
	_, err = lo.Move(ctx, web, MoveOptions{Name: "lo1"})
	wantErr(t, err, unix.EINVAL, "link lo")
	wantSame(t, "something was changed", before, stateOf(t, host))
	onlyThese(t, web, "lo", "taken")

	// The kernel moves first and looks at the rest then: it comes back.
	m := move{link: l, to: web, o: MoveOptions{Name: "x", MTU: 60}}
	if m.from, err = route(host); err == nil {
		m.at, err = route(web)
	}
	if err == nil {
		m.before, _, err = readDetails(ctx, host, m.from, "", l.Index)
	}
	if err != nil {
		t.Fatal(err)
	}
	err = m.run(ctx)
	t.Log(err)
	if err == nil {
		t.Fatal("no error")
	}
	onlyThese(t, web, "lo", "taken")
	if w := ipLinks(t, host)["a"]; w.Index != l.Index || w.MTU != 1450 || w.Master != "br0" || !w.up() {
		t.Errorf("ip shows %+v", w)
	}
}

// The kernel chooses the index of a link that moves since Linux 5.13. An older one is
// found out before the link moves.
func TestMoveToAnIndex(t *testing.T) {
	t.Parallel()
	host, web := netnstest.New(t), netnstest.New(t)
	l := mustCreate(t, host, Spec{Name: "b", Up: true, Kind: Veth{Peer: Spec{Name: "c"}}, Addrs: prefixes("10.0.1.1/24")})
	before := stateOf(t, host)
	got, err := l.Move(t.Context(), web, MoveOptions{Index: 900})
	if !testutil.KernelAtLeast(5, 13) {
		wantErr(t, err, errors.ErrUnsupported, "index 900", "5.13")
		wantSame(t, "something was changed", before, stateOf(t, host))
		onlyLo(t, web)
	} else if w := ipLinks(t, web)["b"]; err != nil || got.Index != 900 || w.Index != 900 {
		t.Errorf("%+v, %v; ip shows %+v", got, err, w)
	}
}

// A link that comes back has its addresses and its state, also where an old kernel
// gives it another index because its own was taken where it had gone.
func TestMoveBackFromWhereTheIndexIsTaken(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	host, web := netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	l := mustCreate(t, host, Spec{Name: "a", Index: 500, MTU: 1450, Master: br.Ref(), Up: true, Kind: Veth{Peer: Spec{Name: "b", Up: true}}, Addrs: prefixes("10.0.0.1/24")})
	mustCreate(t, web, Spec{Name: "taken", Index: 500, Kind: Bridge{}})
	// The kernel moves first and looks at the MTU then.
	m := move{link: l, to: web, o: MoveOptions{Name: "x", MTU: 60}}
	var err error
	if m.from, err = route(host); err == nil {
		m.at, err = route(web)
	}
	if err == nil {
		m.before, _, err = readDetails(ctx, host, m.from, "", l.Index)
	}
	if err == nil {
		m.lost, err = readDependents(ctx, m.from, &m.before)
	}
	if err == nil {
		err = m.send(ctx, &MoveOptions{MTU: 60})
	}
	if err == nil {
		t.Fatal("the kernel takes an MTU of 60")
	}
	err = m.back(ctx, err)
	w := ipLinks(t, host)["a"]
	if w.MTU != 1450 || w.Master != "br0" || !w.up() || !slices.Equal(w.addrs(), prefixes("10.0.0.1/24")) {
		t.Errorf("%v: ip shows %+v", err, w)
	}
	if testutil.KernelAtLeast(5, 13) {
		if w.Index != l.Index {
			t.Errorf("%v: ip shows index %d", err, w.Index)
		}
	} else if want := fmt.Sprint("with index ", w.Index); !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %q", err, want)
	}
	onlyThese(t, web, "lo", "taken")
}

func TestSetMaster(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	l := mustCreate(t, ns, Spec{Name: "a", Kind: Veth{Peer: Spec{Name: "b"}}})
	for _, c := range []struct {
		master int
		name   string
	}{{br.Index, "br0"}, {br.Index, "br0"}, {0, ""}, {0, ""}} {
		if err := l.SetMaster(ctx, Ref{Index: c.master}); err != nil {
			t.Error(err)
		}
		if w := ipLinks(t, ns)["a"]; w.Master != c.name {
			t.Errorf("ip shows %+v, want master %q", w, c.name)
		}
	}
	wantErr(t, l.SetMaster(ctx, Ref{Index: 4711}), os.ErrNotExist, "link.SetMaster link a", "master 4711 does not exist")
	wantErr(t, l.SetMaster(ctx, Ref{Index: 1}), unix.EOPNOTSUPP, "master 1 (lo) takes no ports")
	wantErr(t, l.SetMaster(ctx, l.Ref()), os.ErrInvalid, "own master")
	wantErr(t, l.SetMaster(ctx, Ref{Index: -1}), os.ErrInvalid)
}
