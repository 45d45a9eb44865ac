package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestPublishFreeChoosesAPortAndSaysWhich(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	// Four ports to choose from, of which one is in use and one is published,
	// without a socket.
	setSysctl(t, ns, "ipv4/ip_local_port_range", "40000 40003")
	ln, err := ns.Listen(t.Context(), "tcp4", "127.0.0.1:40001")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	bare := openWith(t, ns, Options{NoReserve: true})
	held := tcp("10.1.1.1:40002", "10.0.0.2:80", "held")
	if err := bare.Publish(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	gw := open(t, ns)
	free := Port{Proto: TCP, Host: netip.MustParseAddrPort("0.0.0.0:0"), Box: ap("10.0.0.2:80"), Owner: "web"}
	fixed := udp("0.0.0.0:53", "10.0.0.2:53", "dns")
	got, err := gw.PublishFree(t.Context(), free, fixed, free)
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[uint16]bool{got[0].Host.Port(): true, got[2].Host.Port(): true}
	if !numbers[40000] || !numbers[40003] || got[1] != fixed {
		t.Errorf("chosen: %v", got)
	}
	expectPorts(t, gw, append(got, held)...)
	expectTaken(t, ns, "127.0.0.1:40000", true, false)
	for name, gw := range map[string]*NAT{"reserving": gw, "not reserving": bare} {
		if all, err := gw.PublishFree(t.Context(), free); err == nil {
			t.Errorf("%s: with none left: %v", name, all)
		}
	}
	expectPorts(t, gw, append(got, held)...)
	if err := gw.Unpublish(t.Context(), got...); err != nil {
		t.Fatal(err)
	}
	for _, p := range got {
		expectTaken(t, ns, fmt.Sprintf("127.0.0.1:%d", p.Host.Port()), false, false)
	}
	if got, err = bare.PublishFree(t.Context(), free); err != nil {
		t.Fatal(err)
	}
	expectPorts(t, gw, append(got, held)...)
	expectTaken(t, ns, fmt.Sprintf("127.0.0.1:%d", got[0].Host.Port()), false, false)
	if _, err := gw.PublishFree(t.Context(), tcp("0.0.0.0:1", "10.0.0.2:80", "web"), tcp("10.1.1.1:40002", "10.0.0.2:80", "web")); !errors.Is(err, os.ErrExist) {
		t.Errorf("a fixed port that is taken: %v", err)
	}
	if _, err := gw.PublishFree(t.Context(), ranged(free, 10)); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a range: %v", err)
	}
}
