package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func udp(host, box, owner string) Port {
	p := tcp(host, box, owner)
	p.Proto = UDP
	return p
}

// taken reports whether a program in ns finds the address in use, as TCP and as
// UDP.
func taken(t testing.TB, ns *netns.NS, addr string) (tcp, udp bool) {
	t.Helper()
	ln, err := ns.Listen(t.Context(), "tcp", addr)
	if err == nil {
		ln.Close()
	} else if tcp = errors.Is(err, unix.EADDRINUSE); !tcp {
		t.Fatal(err)
	}
	pc, err := ns.ListenPacket(t.Context(), "udp", addr)
	if err == nil {
		pc.Close()
	} else if udp = errors.Is(err, unix.EADDRINUSE); !udp {
		t.Fatal(err)
	}
	return tcp, udp
}

// expectTaken waits for what it expects: a socket that is closed lives on for a
// moment in a program that was just being started meanwhile.
func expectTaken(t testing.TB, ns *netns.NS, addr string, tcp, udp bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		isTCP, isUDP := taken(t, ns, addr)
		if isTCP == tcp && isUDP == udp {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s is in use for TCP: %v, UDP: %v; want %v, %v", addr, isTCP, isUDP, tcp, udp)
			return
		}
	}
}

func TestPublishedPortsAreTakenForOtherPrograms(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	web, dns := tcp("0.0.0.0:80", "10.0.0.2:80", "web"), udp("127.0.0.1:53", "10.0.0.2:53", "dns")
	six := tcp("[::]:81", "[fd00::2]:81", "six")
	later := tcp("192.0.2.7:82", "10.0.0.2:82", "later") // the host does not have the address
	rng := ranged(udp("0.0.0.0:1000", "10.0.0.2:1000", "rng"), 1255)
	shifted := ranged(tcp("0.0.0.0:2000", "10.0.0.2:3000", "rng"), 2009)
	if err := gw.Publish(t.Context(), web, dns, six, later, rng, shifted); err != nil {
		t.Fatal(err)
	}
	expectTaken(t, ns, "127.0.0.1:80", true, false)
	expectTaken(t, ns, "127.0.0.1:53", false, true)
	expectTaken(t, ns, "127.0.0.1:81", false, false)
	expectTaken(t, ns, "[::1]:81", true, false)
	expectTaken(t, ns, "127.0.0.1:1255", false, true)
	expectTaken(t, ns, "127.0.0.1:2009", true, false)
	if err := gw.Unpublish(t.Context(), web, rng); err != nil {
		t.Fatal(err)
	}
	expectTaken(t, ns, "127.0.0.1:80", false, false)
	expectTaken(t, ns, "127.0.0.1:1255", false, false)
	if err := gw.UnpublishOwner(t.Context(), "rng"); err != nil {
		t.Fatal(err)
	}
	expectTaken(t, ns, "127.0.0.1:2009", false, false)
	if err := gw.Sync(t.Context(), State{Ports: []Port{dns, web}}); err != nil {
		t.Fatal(err)
	}
	expectTaken(t, ns, "[::1]:81", false, false)
	expectTaken(t, ns, "127.0.0.1:80", true, false)
	for range 2 {
		if err := gw.Close(); err != nil {
			t.Fatal(err)
		}
	}
	expectTaken(t, ns, "127.0.0.1:80", false, false)
	expectTaken(t, ns, "127.0.0.1:53", false, false)
	if err := gw.Publish(t.Context(), six); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Publish after Close: %v", err)
	}

	// A program that starts again reserves again.
	again := open(t, ns)
	expectPorts(t, again, web, dns)
	if err := again.Sync(t.Context(), State{Ports: []Port{dns, web}}); err != nil {
		t.Fatal(err)
	}
	expectTaken(t, ns, "127.0.0.1:80", true, false)
	if err := again.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectTaken(t, ns, "127.0.0.1:80", false, false)
}

func TestAPortInUseNamesTheProgram(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	ln, err := ns.Listen(t.Context(), "tcp4", "0.0.0.0:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pc, err := ns.ListenPacket(t.Context(), "udp", "127.0.0.1:5353")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	dual, err := ns.Listen(t.Context(), "tcp", "[::]:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer dual.Close()
	free := tcp("0.0.0.0:30099", "10.0.0.2:99", "other")
	for _, p := range []Port{
		tcp("0.0.0.0:80", "10.0.0.2:80", "web"), tcp("127.0.0.1:80", "10.0.0.2:80", "web"),
		udp("0.0.0.0:5353", "10.0.0.2:5353", "dns"), tcp("0.0.0.0:8080", "10.0.0.2:8080", "web"),
		ranged(tcp("0.0.0.0:70", "10.0.0.2:70", "web"), 90), ranged(tcp("0.0.0.0:1", "10.0.0.2:1", "web"), 20000),
	} {
		for name, err := range map[string]error{
			"Publish": gw.Publish(t.Context(), free, p),
			"Sync":    gw.Sync(t.Context(), State{Ports: []Port{free, p}}),
		} {
			text := fmt.Sprint(err)
			if !errors.Is(err, os.ErrExist) || !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(text, p.String()) ||
				!strings.Contains(text, " (process ") {
				t.Errorf("%s %v: %v", name, p, err)
			}
		}
	}
	expectPorts(t, gw)
	expectTaken(t, ns, "127.0.0.1:30099", false, false)
	// On another address, and for another protocol, it is free.
	if err := gw.Publish(t.Context(), udp("127.0.0.2:5353", "10.0.0.2:53", "dns"), udp("0.0.0.0:80", "10.0.0.2:80", "quic")); err != nil {
		t.Error(err)
	}

	quiet := openWith(t, ns, Options{Name: "quiet", NoReserve: true})
	if err := quiet.Publish(t.Context(), tcp("0.0.0.0:80", "10.0.0.2:80", "web"), free); err != nil {
		t.Errorf("NoReserve: %v", err)
	}
	expectTaken(t, ns, "127.0.0.1:30099", false, false)
}

// Another NAT of the same table that still has a port is no obstacle; one of
// another table is.
func TestReservationsOfFellows(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	one, two := open(t, ns), open(t, ns)
	p := tcp("0.0.0.0:80", "10.0.0.2:80", "web")
	if err := one.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	other := openWith(t, ns, Options{Name: "other"})
	if err := other.Publish(t.Context(), p); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("another table: %v", err)
	}
	if err := two.Publish(t.Context(), p); !errors.Is(err, os.ErrExist) || !strings.Contains(fmt.Sprint(err), `"web"`) {
		t.Errorf("published already: %v", err)
	}
	if err := two.Unpublish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := two.Publish(t.Context(), tcp("0.0.0.0:80", "10.0.0.3:80", "new")); err != nil {
		t.Errorf("after the fellow's port was unpublished: %v", err)
	}
}

func TestNothingGetsIntoAReservedPort(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	// Connections to ::1 are not translated: they arrive at the socket.
	if err := gw.Publish(t.Context(), tcp("[::]:80", "[fd00::2]:80", "web")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if c, err := ns.Dial(ctx, "tcp", "[::1]:80"); err == nil {
		c.Close()
		t.Error("a connection was accepted")
	}
}
