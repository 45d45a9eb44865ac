package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// wantErr fails the test unless err is target and says all of the words.
func wantErr(t *testing.T, err, target error, words ...string) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error %v is not %v", err, target)
		return
	}
	var e *netns.Error
	if !errors.As(err, &e) {
		t.Errorf("%v is not a *netns.Error", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestCreateFailsWholeAndSaysWhy(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	for _, c := range []struct {
		what  string
		spec  func(host, web *netns.NS) Spec
		is    error
		words []string
	}{
		{"outer name taken", func(_, web *netns.NS) Spec {
			return Spec{Name: "lo", Kind: Veth{Peer: Spec{NS: web, Name: "b"}}}
		}, os.ErrExist, []string{"link lo", "the name lo is taken"}},
		{"outer name taken, bridge", func(_, _ *netns.NS) Spec {
			return Spec{Name: "lo", Kind: Bridge{}}
		}, os.ErrExist, []string{"the name lo is taken"}},
		{"peer's name taken", func(_, web *netns.NS) Spec {
			return Spec{Name: "a", Kind: Veth{Peer: Spec{NS: web, Name: "lo"}}}
		}, os.ErrExist, []string{"link a", "the peer's name lo is taken in netns"}},
		{"outer index taken", func(_, web *netns.NS) Spec {
			return Spec{Name: "a", Index: 1, Kind: Veth{Peer: Spec{NS: web, Name: "b"}}}
		}, os.ErrExist, []string{"index 1 is taken", "by link lo"}},
		{"peer's index taken", func(_, web *netns.NS) Spec {
			return Spec{Name: "a", Index: 900, Kind: Veth{Peer: Spec{NS: web, Name: "b", Index: 1}}}
		}, os.ErrExist, []string{"the peer's index 1 is taken", "by link lo"}},
		{"master missing", func(_, web *netns.NS) Spec {
			return Spec{Name: "a", Master: Ref{Index: 4711}, Kind: Veth{Peer: Spec{NS: web, Name: "b"}}}
		}, os.ErrNotExist, []string{"master 4711 does not exist"}},
		{"peer's master missing", func(_, web *netns.NS) Spec {
			return Spec{Name: "a", Kind: Veth{Peer: Spec{NS: web, Name: "b", Master: Ref{Index: 4712}}}}
		}, os.ErrNotExist, []string{"link b", "master 4712 does not exist"}},
		{"master takes no ports", func(_, web *netns.NS) Spec {
			return Spec{Name: "a", Master: Ref{Index: 1}, Kind: Veth{Peer: Spec{NS: web, Name: "b"}}}
		}, errors.ErrUnsupported, []string{"master 1 (lo) takes no ports"}},
		{"bridge as a port of a link that takes none", func(_, _ *netns.NS) Spec {
			return Spec{Name: "a", Master: Ref{Index: 1}, Kind: Bridge{}}
		}, errors.ErrUnsupported, []string{"takes no ports"}},
		{"address step of the peer fails", func(_, web *netns.NS) Spec {
			return Spec{Name: "a", Up: true, Kind: Veth{Peer: Spec{NS: web, Name: "b", Up: true, MTU: 1500, Addrs: prefixes("10.0.0.1/24", "::1/128")}}}
		}, unix.EADDRNOTAVAIL, []string{"address ::1/128 on link b"}},
		{"address step of the outer end fails", func(_, web *netns.NS) Spec {
			return Spec{Name: "a", Addrs: prefixes("10.0.0.1/24", "::1/128"), Kind: Veth{Peer: Spec{NS: web, Name: "b", Up: true}}}
		}, unix.EADDRNOTAVAIL, []string{"address ::1/128 on link a"}},
		{"address step of a bridge fails", func(_, _ *netns.NS) Spec {
			return Spec{Name: "a", Addrs: prefixes("::1/128"), Kind: Bridge{}}
		}, unix.EADDRNOTAVAIL, []string{"address ::1/128 on link a"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			host, web := netnstest.New(t), netnstest.New(t)
			_, err := Create(ctx, host, c.spec(host, web))
			t.Log(err)
			wantErr(t, err, c.is, c.words...)
			onlyLo(t, host, web)
		})
	}
}

func TestCreateInClosedNamespace(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, closed := netnstest.New(t), netnstest.New(t)
	closed.Close()
	_, err := Create(ctx, closed, Spec{Name: "a", Kind: Bridge{}})
	wantErr(t, err, os.ErrClosed)
	_, err = Create(ctx, host, Spec{Name: "a", Kind: Veth{Peer: Spec{NS: closed, Name: "b"}}})
	wantErr(t, err, os.ErrClosed, "the peer's namespace")
	onlyLo(t, host)
	_, err = List(ctx, closed, Filter{})
	wantErr(t, err, os.ErrClosed)
	_, err = Get(ctx, closed, "lo")
	wantErr(t, err, os.ErrClosed)
}

func TestCreateWithContextDone(t *testing.T) {
	t.Parallel()
	host, web := netnstest.New(t), netnstest.New(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Create(ctx, host, Spec{Name: "a", Kind: Veth{Peer: Spec{NS: web, Name: "b"}}})
	wantErr(t, err, context.Canceled, "link a")
	onlyLo(t, host, web)
}

// A context that is done at every possible moment in turn: either the link is
// whole, or nothing is left.
func TestCreateWithContextDoneMidway(t *testing.T) {
	t.Parallel()
	host, web := netnstest.New(t), netnstest.New(t)
	spec := Spec{
		Name: "a", Up: true, Addrs: prefixes("10.0.0.1/24"),
		Kind: Veth{Peer: Spec{NS: web, Name: "b", Up: true, Addrs: prefixes("10.0.0.2/24")}},
	}
	failed := 0
	for n := 1; ; n++ {
		ctx := &countedContext{Context: context.Background(), left: n}
		l, err := Create(ctx, host, spec)
		if err == nil {
			if w := ipLinks(t, web)["b"]; len(w.addrs()) != 1 || !w.up() {
				t.Errorf("Create succeeded, the peer is %+v", w)
			}
			if err := l.Delete(context.Background()); err != nil {
				t.Fatal(err)
			}
			break
		}
		failed++
		wantErr(t, err, context.Canceled)
		onlyLo(t, host, web)
	}
	if failed < 3 {
		t.Errorf("only %d moments were tried", failed)
	}
}

// countedContext is cancelled once Err has been asked for so many times.
type countedContext struct {
	context.Context
	left int
}

func (c *countedContext) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// CAP_NET_ADMIN is taken from the effective set of one thread: the kernel looks
// at the sender's, beside that of the socket's opener.
func TestWithoutPermission(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	l := mustCreate(t, host, Spec{Name: "keep", Kind: Bridge{}})
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	dropNetAdmin(t)

	_, err := Create(ctx, host, Spec{Name: "a", Kind: Veth{Peer: Spec{NS: web, Name: "b"}}})
	wantErr(t, err, os.ErrPermission, "CAP_NET_ADMIN", "link a")
	_, err = Create(ctx, host, Spec{Name: "a", Kind: Bridge{}})
	wantErr(t, err, os.ErrPermission, "CAP_NET_ADMIN")
	wantErr(t, l.SetUp(ctx), os.ErrPermission, "link keep")
	wantErr(t, l.AddPrefixes(ctx, prefixes("10.0.0.1/24")...), os.ErrPermission, "10.0.0.1/24 on link keep")
	_, err = l.SyncNeighbours(ctx, syncOwner, Neighbour{Addr: netip.MustParseAddr("10.0.0.2"), MAC: mac(1)})
	wantErr(t, err, os.ErrPermission, "link.SyncNeighbours neighbour 10.0.0.2")
	wantErr(t, l.Delete(ctx), os.ErrPermission)
	wantErr(t, l.SetMaster(ctx, Ref{}), os.ErrPermission, "link.SetMaster link keep")
	_, err = l.Update(ctx, Spec{MTU: 1400, Alias: "other"})
	wantErr(t, err, os.ErrPermission, "link.Update link keep")
	_, err = Ensure(ctx, host, Spec{Name: "keep", MTU: 1400, Kind: Bridge{}})
	wantErr(t, err, os.ErrPermission, "link.Ensure link keep")
	_, err = l.Move(ctx, web, MoveOptions{})
	wantErr(t, err, os.ErrPermission, "link.Move link keep")
	wantErr(t, DeleteAll(ctx, l, l), os.ErrPermission, "link.DeleteAll")
	if _, err := Get(ctx, host, "keep"); err != nil { // reading is free
		t.Error(err)
	}
	onlyLo(t, web)
}

func dropNetAdmin(t *testing.T) {
	t.Helper()
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		t.Skip(err)
	}
	d[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&h, &d[0]); err != nil {
		t.Skip(err)
	}
}

func TestFullBridgeSaysSo(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Kind: Bridge{}})
	var err error
	for i := 0; i <= 1023 && err == nil; i++ {
		_, err = Create(ctx, host, Spec{Name: fmt.Sprintf("p%d", i), Master: br.Ref(), Kind: Veth{Peer: Spec{NS: web, Name: fmt.Sprintf("q%d", i)}}})
	}
	wantErr(t, err, unix.EXFULL, "link p1023", "at most 1,023 ports")
	for ns, prefix := range map[*netns.NS]string{host: "p", web: "q"} {
		links, err := List(ctx, ns, Filter{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, l := range links {
			if strings.HasPrefix(l.Name, prefix) {
				n++
			}
		}
		if n != 1023 {
			t.Errorf("%d links %s*, want 1023", n, prefix)
		}
	}
}
