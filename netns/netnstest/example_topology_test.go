package netnstest_test

import (
	"fmt"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// Two namespaces with a link between them.
func ExamplePair() {
	run(func(t testing.TB) { // func TestPing(t *testing.T)
		a, b := netnstest.Pair(t)
		ln, err := b.Listen(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := a.Dial(t.Context(), "tcp", b.Addr4.Addr().String()+":80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Println("connected to", c.RemoteAddr())
	})
	// Output: connected to 10.77.0.2:80
}

// Three boxes on a bridge; their host has an address there.
func ExampleBridge() {
	run(func(t testing.TB) { // func TestSiblings(t *testing.T)
		host, boxes := netnstest.Bridge(t, 3)
		fmt.Println(host.Link, host.Addr4)
		for _, box := range boxes {
			fmt.Println(box.Link, box.Addr4)
		}
	})
	// Output:
	// br0 10.88.0.1/16
	// eth0 10.88.0.2/16
	// eth0 10.88.0.3/16
	// eth0 10.88.0.4/16
}

// A host and its neighbour, to which its default route leads.
func ExampleHost() {
	run(func(t testing.TB) { // func TestOutside(t *testing.T)
		host, outside := netnstest.Host(t)
		connect(t, host, outside)
	})
	// Output: outside sees 203.0.113.1
}

// Boxes on a bridge of a host that has a neighbour.
func ExampleOn() {
	run(func(t testing.TB) { // func TestWayOut(t *testing.T)
		host, _ := netnstest.Host(t)
		bridge, boxes := netnstest.On(t, host.NS, 2)
		fmt.Println(bridge.Link, bridge.Addr4, len(boxes))
	})
	// Output: br0 10.88.0.1/16 2
}

// The packets of a link are written if the test fails: BOXWIRE_PCAP_DIR=/tmp go test
func ExampleCapture() {
	run(func(t testing.TB) { // func TestPackets(t *testing.T)
		a, b := netnstest.Pair(t)
		netnstest.Capture(t, a.NS, a.Link)
		c, err := a.Dial(t.Context(), "udp", b.Addr4.Addr().String()+":53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "a packet")
	})
	// Output:
}
