package nat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// none is where there is no answer.
const none = ""

// ways says who reaches a published port of the box, by where it is published:
// the source address that the box sees, or none. Host loopback dials 127.0.0.1 or
// ::1, the others dial the host's address on up0.
var ways = []struct {
	from string
	v6   bool

	any, one, loopback string
}{
	{"host loopback", false, "10.88.0.1", none, "10.88.0.1"},
	{"host address", false, "203.0.113.1", "203.0.113.1", none},
	{"outside", false, "203.0.113.9", "203.0.113.9", none},
	{"sibling", false, "10.88.0.1", "10.88.0.1", none},
	{"box itself", false, "10.88.0.1", "10.88.0.1", none},
	{"other network", false, "10.89.0.2", "10.89.0.2", none},

	{"host loopback", true, none, none, none}, // the kernel does not translate what is for ::1
	{"host address", true, "2001:db8:1::1", "2001:db8:1::1", none},
	{"outside", true, "2001:db8:1::9", "2001:db8:1::9", none},
	{"sibling", true, "fd88::1", "fd88::1", none},
	{"box itself", true, "fd88::1", "fd88::1", none},
	{"other network", true, "fd89::2", "fd89::2", none},
}

// Ports of the matrix, by where they are published.
const onAny, onOne, onLoopback = 8001, 8002, 8003

// Hairpin, siblings and the source address are among them (moby#15086).
func TestWhoReachesAPublishedPort(t *testing.T) {
	each(t, func(t *testing.T, filtered bool) { reachPorts(t, filtered, TCP, UDP) })
}

func TestWhoReachesAPublishedSCTPPort(t *testing.T) {
	needSCTP(t, netnstest.New(t))
	each(t, func(t *testing.T, filtered bool) { reachPorts(t, filtered, SCTP) })
}

func reachPorts(t *testing.T, filtered bool, protos ...Proto) {
	t.Helper()
	netnstest.NeedIPv6(t)
	s := wire(t)
	bridgeNF(t, s.host, filtered)
	s.gw = open(t, s.host)
	for _, net := range []Network{network0(), network1()} {
		if err := s.gw.AddNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
	}
	s.waitReady(t)
	for _, proto := range protos {
		publishMatrix(t, s, proto)
		answer(t, s.box, proto)
	}
	walk(t, s, protos...)
	if t.Failed() {
		t.Log(listing(t, s.host))
	}
}

// publishMatrix publishes the box's port 80 in every way.
func publishMatrix(t *testing.T, s topology, proto Proto) {
	t.Helper()
	for host, box := range map[string]string{
		"0.0.0.0:8001": "10.88.0.2:80", "203.0.113.1:8002": "10.88.0.2:80", "127.0.0.1:8003": "10.88.0.2:80",
		"[::]:8001": "[fd88::2]:80", "[2001:db8:1::1]:8002": "[fd88::2]:80",
	} {
		p := tcp(host, box, "web")
		p.Proto = proto
		if err := s.gw.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
}

// walk goes all the ways.
func walk(t *testing.T, s topology, protos ...Proto) {
	t.Helper()
	from := map[string]*netns.NS{
		"host loopback": s.host, "host address": s.host, "outside": s.outside,
		"sibling": s.sibling, "box itself": s.box, "other network": s.other,
	}
	var all []attempt
	for _, w := range ways {
		dst := "203.0.113.1"
		switch {
		case w.v6 && w.from == "host loopback":
			dst = "::1"
		case w.v6:
			dst = "2001:db8:1::1"
		case w.from == "host loopback":
			dst = "127.0.0.1"
		}
		for _, proto := range protos {
			for port, want := range map[uint16]string{onAny: w.any, onOne: w.one, onLoopback: w.loopback} {
				addr := netip.AddrPortFrom(netip.MustParseAddr(dst), port).String()
				all = append(all, attempt{w.from, from[w.from], proto, addr, want})
			}
		}
	}
	try(t, all...)
}

// attempt is a call to an address, and the source address that the server there
// shall see, or none.
type attempt struct {
	name  string
	from  *netns.NS
	proto Proto
	addr  string
	want  string
}

func (a attempt) String() string { return fmt.Sprintf("from the %s to %v %s", a.name, a.proto, a.addr) }

// try makes the attempts. Those that must get no answer go on while the others
// are made, and made again: no time has to be waited out, for an answer would have
// come with theirs.
func try(t *testing.T, all ...attempt) {
	t.Helper()
	refused, cancel := context.WithCancel(t.Context())
	defer cancel()
	var silent, heard sync.WaitGroup
	answered := func(a attempt) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if got, err := call(ctx, a.from, a.proto, a.addr); err != nil || got != a.want {
			t.Errorf("%v: the server sees %q, %v; want %s", a, got, err, a.want)
		}
	}
	for _, a := range all {
		if a.want != none {
			heard.Go(func() { answered(a) })
			continue
		}
		silent.Go(func() {
			if got, err := call(refused, a.from, a.proto, a.addr); err == nil {
				t.Errorf("%v: there is an answer, which sees %q", a, got)
			}
		})
	}
	heard.Wait()
	for _, a := range all {
		if a.want != none {
			answered(a)
		}
	}
	cancel()
	silent.Wait()
}

// answer serves port 80 of ns: it answers the client's address.
func answer(t *testing.T, ns *netns.NS, proto Proto) {
	t.Helper()
	switch proto {
	case TCP:
		serve(t, ns, ":80")
	case SCTP:
		ln := listenSCTP(t, ns, ap("[::]:80"))
		t.Cleanup(func() { ln.Close() })
		go tellClients(ln)
	case UDP:
		c, err := ns.ListenPacket(t.Context(), "udp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 64)
			for {
				_, from, err := c.ReadFrom(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					c.WriteTo([]byte(from.(*net.UDPAddr).AddrPort().Addr().Unmap().String()), from)
				}
			}
		}()
	}
}

// call asks the server at addr for the address it sees, until it answers or ctx
// ends.
func call(ctx context.Context, ns *netns.NS, proto Proto, addr string) (string, error) {
	for {
		got, err := callOnce(ctx, ns, proto, addr)
		if err == nil || ctx.Err() != nil {
			return got, err
		}
		select { // refused: nothing says that it stays so
		case <-ctx.Done():
			return "", err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func callOnce(ctx context.Context, ns *netns.NS, proto Proto, addr string) (string, error) {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) { return dialSCTP(ctx, ns, addr) }
	if proto != SCTP {
		dial = ns.Dial
	}
	c, err := dial(ctx, proto.String(), addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if proto != UDP {
		b, err := io.ReadAll(c)
		return string(b), err
	}
	c.SetReadDeadline(time.Now().Add(time.Second)) // then again: datagrams may be lost
	if _, err := c.Write([]byte("?")); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}
