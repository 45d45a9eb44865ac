package nl_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// route returns an rtnetlink connection in a fresh namespace.
func route(t testing.TB) *nl.Conn {
	t.Helper()
	return exchange(t, netnstest.New(t))
}

func exchange(t testing.TB, ns *netns.NS) *nl.Conn {
	t.Helper()
	c, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// address is the message that adds (or removes) 127.1.x.y/32 on lo.
func address(typ uint16, i int) nl.Request {
	b := []byte{unix.AF_INET, 32, 0, unix.RT_SCOPE_HOST, 1, 0, 0, 0}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		b[4], b[7] = 0, 1
	}
	ip := net.IPv4(127, 1, byte(i>>8), byte(i)).To4()
	b = nl.AppendAttr(b, unix.IFA_LOCAL, ip)
	r := nl.Request{Type: typ, Body: b}
	if typ == unix.RTM_NEWADDR {
		r.Flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	return r
}

func addresses(t testing.TB, c *nl.Conn) (n int) {
	t.Helper()
	req := nl.Request{Type: unix.RTM_GETADDR, Body: []byte{unix.AF_INET, 0, 0, 0, 0, 0, 0, 0}}
	err := c.Dump(t.Context(), req, func() { n = 0 }, func(nl.Message) error { n++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestExecNamesEachFailure(t *testing.T) {
	t.Parallel()
	c := route(t)
	reqs := []nl.Request{address(unix.RTM_NEWADDR, 1), address(unix.RTM_NEWADDR, 1), address(unix.RTM_NEWADDR, 2), address(unix.RTM_DELADDR, 9), address(unix.RTM_NEWADDR, 3)}
	err := c.Exec(t.Context(), reqs, nil)
	var many *nl.ExecError
	if !errors.As(err, &many) || len(many.Failed) != 2 || many.Failed[0].Index != 1 || many.Failed[1].Index != 3 || many.Sent != 5 {
		t.Fatalf("%+v", err)
	}
	if !errors.Is(many.Failed[0].Err, os.ErrExist) || !errors.Is(many.Failed[1].Err, os.ErrNotExist) {
		t.Errorf("%v and %v", many.Failed[0].Err, many.Failed[1].Err)
	}
	if n := addresses(t, c); n != 4 { // 127.0.0.1 and the three that were fine
		t.Errorf("%d addresses, want 4", n)
	}
}

func TestExecInChunks(t *testing.T) {
	t.Parallel()
	c := route(t)
	const n = 1000
	reqs := make([]nl.Request, n)
	for i := range reqs {
		reqs[i] = address(unix.RTM_NEWADDR, i+1)
	}
	if err := c.Exec(t.Context(), reqs, nil); err != nil {
		t.Fatal(err)
	}
	if got := addresses(t, c); got != n+1 {
		t.Errorf("%d addresses, want %d", got, n+1)
	}
	// A failure ends the sends after its own.
	reqs[0] = address(unix.RTM_NEWADDR, 5000)
	var many *nl.ExecError
	if err := c.Exec(t.Context(), reqs, nil); !errors.As(err, &many) || many.Sent >= n || many.Failed[0].Index != 1 {
		t.Errorf("%v", err)
	}
	if got := addresses(t, c); got != n+2 {
		t.Errorf("%d addresses, want %d", got, n+2)
	}
}

func TestRepliesGoToTheirRequest(t *testing.T) {
	t.Parallel()
	c := route(t)
	get := nl.Request{Type: unix.RTM_GETLINK, Body: append(make([]byte, 16), nl.AppendString(nil, unix.IFLA_IFNAME, "lo")...)}
	var from []int
	err := c.Exec(t.Context(), []nl.Request{get, address(unix.RTM_NEWADDR, 1), get}, func(i int, m nl.Message) error {
		if m.Type == unix.RTM_NEWLINK {
			from = append(from, i)
		}
		return nil
	})
	if err != nil || len(from) != 2 || from[0] != 0 || from[1] != 2 {
		t.Errorf("replies for %v, %v", from, err)
	}
	mine := errors.New("mine")
	if err := c.Call(t.Context(), get, func(nl.Message) error { return mine }); err != mine {
		t.Errorf("an error of the callback: %v", err)
	}
	if n := addresses(t, c); n != 2 {
		t.Errorf("after that, %d addresses, want 2", n)
	}
}

func TestExtackNamesTheAttribute(t *testing.T) {
	t.Parallel()
	c := route(t)
	body := make([]byte, 16)
	binary.NativeEndian.PutUint32(body[4:], 1)
	body = nl.AppendU32(body, unix.IFLA_MTU, 1500)
	body = nl.AppendAttr(body, unix.IFLA_TXQLEN, []byte{1}) // one byte of four
	req := nl.Request{Type: unix.RTM_NEWLINK, Body: body, Names: func(path []uint16) string {
		if len(path) == 1 && path[0] == unix.IFLA_TXQLEN {
			return "IFLA_TXQLEN"
		}
		return ""
	}}
	err := c.Call(t.Context(), req, nil)
	var e *nl.Error
	if !errors.As(err, &e) || e.Attr != "IFLA_TXQLEN" || e.Msg == "" || e.Errno != unix.ERANGE && e.Errno != unix.EINVAL {
		t.Errorf("%#v", err)
	}
	req.Names = nil
	if err := c.Call(t.Context(), req, nil); err == nil || !strings.Contains(err.Error(), "attribute 13") {
		t.Errorf("without names: %v", err)
	}
}

func TestNestedAttributeIsNamedByItsPath(t *testing.T) {
	t.Parallel()
	c := route(t)
	body, info := nl.Begin(make([]byte, 16), unix.IFLA_LINKINFO)
	body = nl.AppendString(body, unix.IFLA_INFO_KIND, "veth")
	body, data := nl.Begin(body, unix.IFLA_INFO_DATA)
	body = nl.AppendU8(body, 1, 0) // VETH_INFO_PEER, too short for its header
	nl.End(body, data)
	nl.End(body, info)
	err := c.Call(t.Context(), nl.Request{Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE, Body: body}, nil)
	if err == nil || !strings.Contains(err.Error(), "attribute 18/2/1") {
		t.Errorf("%v", err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	c := route(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	get := nl.Request{Type: unix.RTM_GETLINK, Body: make([]byte, 16)}
	for i, err := range []error{
		c.Call(ctx, get, nil),
		c.Exec(ctx, []nl.Request{get}, nil),
		c.Exec(ctx, nil, nil),
		c.Dump(ctx, get, nil, func(nl.Message) error { return nil }),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%d: %v", i, err)
		}
	}
	// While another exchange has the connection, a context ends the wait for it.
	err := c.Dump(t.Context(), get, nil, func(nl.Message) error {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Call(ctx, get, nil) }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("waiting: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// dial opens a socket in a namespace.
func dial(ns *netns.NS, family int) func() (*os.File, error) {
	return func() (*os.File, error) {
		return netns.Do(context.Background(), ns, func(context.Context) (*os.File, error) { return nl.Dial(family) })
	}
}

// silent returns a socket that answers nothing by itself, and its other end.
func silent(t *testing.T) (f *os.File, other int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	f = os.NewFile(uintptr(fds[0]), "silent")
	unix.SetNonblock(fds[0], true)
	return f, fds[1]
}

// TestBrokenSocketIsReplaced gives the connection no socket, then one that fails,
// and then one without an answer.
func TestBrokenSocketIsReplaced(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	broken := errors.New("no socket to be had")
	mute, _ := silent(t)
	dials, dialled := 0, make(chan struct{})
	c := nl.NewConn(unix.NETLINK_ROUTE, func() (*os.File, error) {
		switch dials++; dials {
		case 1:
			return nil, broken
		case 2: // a family without a kernel side
			return dial(ns, unix.NETLINK_USERSOCK)()
		case 3:
			defer close(dialled)
			return mute, nil
		}
		return dial(ns, unix.NETLINK_ROUTE)()
	})
	defer c.Close()
	get := nl.Request{Type: unix.RTM_GETLINK, Body: append(make([]byte, 16), nl.AppendString(nil, unix.IFLA_IFNAME, "lo")...)}
	if err := c.Call(t.Context(), get, nil); !errors.Is(err, broken) {
		t.Errorf("a dial that fails: %v", err)
	}
	if err := c.Call(t.Context(), get, nil); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a call without a receiver: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { <-dialled; cancel() }()
	if err := c.Call(ctx, get, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a call without an answer: %v", err)
	}
	if err := c.Call(t.Context(), get, nil); err != nil || dials != 4 {
		t.Errorf("after that, with dial %d: %v", dials, err)
	}
}

// acknowledge waits for a request at the far end of a silent socket, and answers
// it.
func acknowledge(fd int) error {
	b := make([]byte, 100)
	n, err := unix.Read(fd, b)
	if err != nil {
		return err
	}
	ack := binary.NativeEndian.AppendUint32(nil, 36)
	ack = binary.NativeEndian.AppendUint16(ack, unix.NLMSG_ERROR)
	ack = append(ack, make([]byte, 14)...)
	copy(ack[8:], b[8:12]) // the sequence number
	_, err = unix.Write(fd, append(ack, b[:min(n, 16)]...))
	return err
}

// An answer that is not there when the send returns is waited for.
func TestALateAnswer(t *testing.T) {
	t.Parallel()
	f, other := silent(t)
	c := nl.NewConn(unix.NETLINK_ROUTE, func() (*os.File, error) { return f, nil })
	defer c.Close()
	answered := make(chan error, 1)
	go func() { answered <- acknowledge(other) }() // the caller is on its way to waiting, or waits
	if err := c.Call(t.Context(), nl.Request{Type: unix.RTM_GETLINK, Body: make([]byte, 16)}, nil); err != nil {
		t.Error(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	c := route(t)
	get := nl.Request{Type: unix.RTM_GETLINK, Body: make([]byte, 16)}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	for i, err := range []error{
		c.Call(t.Context(), get, nil),
		c.Exec(t.Context(), []nl.Request{get}, nil),
		c.Dump(t.Context(), get, nil, func(nl.Message) error { return nil }),
		c.Transaction(t.Context(), get, []nl.Request{get}, get),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestDumpUnderChurn reads a table of several datagrams while it changes.
func TestDumpUnderChurn(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c := exchange(t, ns)
	const n = 1000
	reqs := make([]nl.Request, n)
	for i := range reqs {
		reqs[i] = address(unix.RTM_NEWADDR, i+1)
	}
	if err := c.Exec(t.Context(), reqs, nil); err != nil {
		t.Fatal(err)
	}
	second := nl.NewConn(unix.NETLINK_ROUTE, dial(ns, unix.NETLINK_ROUTE))
	defer second.Close()
	other := func(r nl.Request) error { return second.Call(t.Context(), r, nil) }
	again, changed := 0, false
	req := nl.Request{Type: unix.RTM_GETADDR, Body: []byte{unix.AF_INET, 0, 0, 0, 0, 0, 0, 0}}
	got := 0
	err := c.Dump(t.Context(), req, func() { again++; got = 0 }, func(nl.Message) error {
		if got++; got == 1 && !changed { // in the middle of the first try
			changed = true
			return other(address(unix.RTM_NEWADDR, 5000))
		}
		return nil
	})
	if err != nil || got != n+2 || again < 2 {
		t.Errorf("%d addresses after %d tries (%v), want %d after 2", got, again, err, n+2)
	}
	// One that never holds still ends.
	i := 6000
	err = c.Dump(t.Context(), req, func() { got = 0 }, func(nl.Message) error {
		if got++; got == 1 {
			i++
			return other(address(unix.RTM_NEWADDR, i))
		}
		return nil
	})
	if !errors.Is(err, nl.ErrInterrupted) {
		t.Errorf("a table that always changes: %v", err)
	}
	if n := addresses(t, c); n == 0 {
		t.Error("the connection is of no use after that")
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	c := route(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				if err := c.Call(t.Context(), address(unix.RTM_NEWADDR, 1+w*50+i), nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := addresses(t, c); n != 401 {
		t.Errorf("%d addresses, want 401", n)
	}
}

func TestCallAllocations(t *testing.T) {
	c := route(t)
	get := nl.Request{Type: unix.RTM_GETLINK, Body: append(make([]byte, 16), nl.AppendString(nil, unix.IFLA_IFNAME, "lo")...)}
	ctx := context.Background()
	if n := allocs.PerRun(t, 100, func() { c.Call(ctx, get, nil) }); n > 1 {
		t.Errorf("a call allocates %v times", n)
	}
}

func BenchmarkCall(b *testing.B) {
	c := route(b)
	get := nl.Request{Type: unix.RTM_GETLINK, Body: append(make([]byte, 16), nl.AppendString(nil, unix.IFLA_IFNAME, "lo")...)}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Call(b.Context(), get, nil); err != nil {
			b.Fatal(err)
		}
	}
}
