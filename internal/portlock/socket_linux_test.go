package portlock

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

const (
	tcp = unix.IPPROTO_TCP
	udp = unix.IPPROTO_UDP
)

func port(proto uint8, host string) Range {
	ap := netip.MustParseAddrPort(host)
	return Range{proto, ap.Addr(), ap.Port(), ap.Port()}
}

func reserve(t *testing.T, l *Lock, r Range) *Hold {
	t.Helper()
	h := new(Hold)
	if _, err := l.Reserve(t.Context(), h, []Range{r}, false); err != nil {
		t.Fatal(err)
	}
	return h
}

// isTaken reports whether another program cannot bind a port of TCP.
func isTaken(t *testing.T, l *Lock, addr string) bool {
	t.Helper()
	ln, err := l.ns.Listen(t.Context(), "tcp", addr)
	if err == nil {
		ln.Close()
	} else if !errors.Is(err, unix.EADDRINUSE) {
		t.Fatal(err)
	}
	return err != nil
}

func TestReserveReleaseAndCancel(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	l := New(ns, "a")
	defer l.Close()
	r := port(tcp, "0.0.0.0:80")
	h := reserve(t, l, r)
	if again := reserve(t, l, r); !isTaken(t, l, "127.0.0.1:80") || l.Len() != 1 || len(again.ports) != 0 {
		t.Errorf("%d sockets, again %v", l.Len(), again)
	}
	if h.Cancel(); isTaken(t, l, "127.0.0.1:80") || l.Len() != 0 || len(l.Missing(r)) != 1 {
		t.Errorf("after Cancel, %d sockets", l.Len())
	}
	long := Range{tcp, netip.IPv4Unspecified(), 1000, 1255}
	reserve(t, l, long)
	reserve(t, l, r)
	if l.Len() != 257 || !isTaken(t, l, "127.0.0.1:1255") {
		t.Errorf("%d sockets", l.Len())
	}
	if l.Release([]Range{long, r}, []Range{port(tcp, "0.0.0.0:1000")}); l.Len() != 1 || isTaken(t, l, "127.0.0.1:1001") || !isTaken(t, l, "127.0.0.1:1000") {
		t.Errorf("after Release, %d sockets", l.Len())
	}
	if l.Retain([]Range{r}); l.Len() != 0 {
		t.Errorf("after Retain, %d sockets", l.Len())
	}
}

// A port of another program is refused; one of another Lock of the same name is not.
func TestReserveOfWhatIsTaken(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	one, same, other := New(ns, "a"), New(ns, "a"), New(ns, "b")
	for _, l := range []*Lock{one, same, other} {
		defer l.Close()
	}
	r := port(tcp, "0.0.0.0:80")
	reserve(t, one, r)
	h := reserve(t, same, r)
	if same.Len() != 0 || len(h.contested) != 1 {
		t.Errorf("%d sockets, contested %v", same.Len(), h.contested)
	}
	free := port(udp, "0.0.0.0:80")
	if at, err := other.Reserve(t.Context(), new(Hold), []Range{free, r}, false); at != 1 || !errors.Is(err, unix.EADDRINUSE) || other.Len() != 0 {
		t.Errorf("range %d: %v", at, err)
	}
	one.Close()
	if h.Rebind(t.Context()); same.Len() != 1 || h.contested != nil {
		t.Errorf("after Rebind, %d sockets, contested %v", same.Len(), h.contested)
	}
	if h.Cancel(); same.Len() != 0 {
		t.Errorf("after Cancel, %d sockets", same.Len())
	}
}

// What two calls have reserved for one purpose is released, or bound again, as one.
func TestOneHoldOfSeveralCalls(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	one, same := New(ns, "a"), New(ns, "a")
	defer one.Close()
	defer same.Close()
	first, second, free := port(tcp, "0.0.0.0:80"), port(tcp, "0.0.0.0:81"), port(tcp, "0.0.0.0:82")
	reserve(t, one, first)
	reserve(t, one, second)
	var h Hold
	for _, r := range []Range{first, free, second} {
		if _, err := same.Reserve(t.Context(), &h, []Range{r}, r == first); err != nil {
			t.Fatal(err)
		}
	}
	if same.Len() != 1 || len(h.contested) != 2 {
		t.Errorf("%d sockets, contested %v", same.Len(), h.contested)
	}
	one.Close()
	if h.Rebind(t.Context()); same.Len() != 3 {
		t.Errorf("after Rebind, %d sockets", same.Len())
	}
	if h.Cancel(); same.Len() != 0 || isTaken(t, same, "127.0.0.1:82") {
		t.Errorf("after Cancel, %d sockets", same.Len())
	}
}

func TestPick(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	l := New(ns, "a")
	defer l.Close()
	p, _, err := l.Pick(t.Context(), []HostPort{{tcp, netip.MustParseAddrPort("0.0.0.0:0")}, {udp, netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil || len(p.Ports) != 2 || l.Len() != 2 || p.Ports[0].Host.Port() == 0 || p.Ports[1].Host.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Fatalf("%v, %v", p, err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), p.Ports[0].Host.Port()).String()
	if fd, ok := l.Socket(p.Ports[0]); !ok || fd <= 0 || !isTaken(t, l, at) {
		t.Error("the pick is not reserved")
	}
	if p.Withdraw(); l.Len() != 0 || !isTaken(t, l, at) {
		t.Error("a withdrawn pick is free")
	}
	if p.Close(); isTaken(t, l, at) {
		t.Error("a closed pick is taken")
	}
}

// A pick whose port was released has no socket any more: its number may be another's.
func TestWithdrawAfterRelease(t *testing.T) {
	t.Parallel()
	l := New(netnstest.New(t), "a")
	defer l.Close()
	p, _, err := l.Pick(t.Context(), []HostPort{{tcp, netip.MustParseAddrPort("0.0.0.0:0")}, {udp, netip.MustParseAddrPort("0.0.0.0:0")}})
	if err != nil {
		t.Fatal(err)
	}
	l.Release([]Range{port(tcp, p.Ports[0].Host.String())}, nil)
	if l.Len() != 1 {
		t.Fatalf("%d ports are reserved after a release", l.Len())
	}
	if p.Withdraw(); l.Len() != 0 || len(p.sockets) != 1 {
		t.Errorf("%d ports are reserved, %d sockets are withdrawn", l.Len(), len(p.sockets))
	}
	p.Close()
}

// Sockets that were opened ahead keep ports of the namespace, and are closed with the
// Lock.
func TestSocketsAreReadyForTheNextPort(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	l := New(ns, "a")
	v4 := HostPort{Proto: tcp, Host: netip.MustParseAddrPort("0.0.0.0:1")}.kind()
	for i := range 2*ahead - 2 {
		host := netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(1000+i))
		reserve(t, l, port(tcp, host.String()))
		want := 0 // one port alone needs no more
		if i > 0 {
			want = ahead - 1 - (i-1)%ahead
		}
		if got := len(l.stock.free[v4]); got != want {
			t.Errorf("after %d ports, %d sockets are ready, want %d", i+1, got, want)
		}
		if !isTaken(t, l, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), host.Port()).String()) {
			t.Errorf("%v is free", host)
		}
	}
	inode := func(s socket) (ino uint64) {
		var st unix.Stat_t
		if unix.Fstat(int(s), &st) == nil {
			ino = st.Ino
		}
		return ino
	}
	spare := make(map[socket]uint64)
	for _, s := range l.stock.free[v4] {
		spare[s] = inode(s)
	}
	l.Close()
	if len(spare) == 0 {
		t.Error("no socket is ready")
	}
	for s, was := range spare { // another test may have the number since
		if is := inode(s); is == was {
			t.Errorf("descriptor %d is still open", s)
		}
	}
}

func TestTheStockIsNoBiggerThanItShouldBe(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	var st stock
	defer st.close()
	ports := make([]HostPort, 3*ahead)
	for i := range ports {
		ports[i] = HostPort{Proto: tcp, Host: netip.MustParseAddrPort("0.0.0.0:1")}
	}
	all, err := st.take(context.WithoutCancel(t.Context()), ns, ports)
	if err != nil {
		t.Fatal(err)
	}
	if k := ports[0].kind(); len(st.free[k]) != 0 {
		t.Errorf("%d sockets beside the %d that were asked for", len(st.free[k]), len(all))
	}
	st.put(ports, all)
	if k := ports[0].kind(); len(st.free[k]) != ahead {
		t.Errorf("%d sockets were kept, want %d", len(st.free[k]), ahead)
	}
}
