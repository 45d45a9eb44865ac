package nat

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestPortsOfADeadOwnerChangeHands(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := openWith(t, ns, Options{Alive: func(owner string) bool { return !strings.HasPrefix(owner, "dead") }})
	dead := []Port{
		tcp("10.1.1.1:80", "10.88.0.2:80", "dead 1"), tcp("10.1.1.2:80", "10.88.0.3:80", "dead 2"),
		ranged(tcp("10.1.1.3:70", "10.88.0.4:70", "dead 3"), 85), tcp("0.0.0.0:90", "10.88.0.5:90", "dead 4"),
	}
	alive := tcp("10.1.1.4:100", "10.88.0.6:100", "alive")
	if err := gw.Publish(t.Context(), append(dead, alive)...); err != nil {
		t.Fatal(err)
	}
	// One of several holders is alive: nothing changes.
	err := gw.Publish(t.Context(), tcp("0.0.0.0:80", "10.88.0.9:80", "new"), tcp("0.0.0.0:100", "10.88.0.9:100", "new"))
	if !errors.Is(err, os.ErrExist) || !strings.Contains(fmt.Sprint(err), `"alive"`) {
		t.Errorf("beside a holder that is alive: %v", err)
	}
	expectPorts(t, gw, append(dead, alive)...)
	expectUses(t, ns)

	// One port takes the place of three, two others that of one.
	fresh := []Port{
		tcp("0.0.0.0:80", "10.88.0.9:80", "new"), tcp("10.1.1.1:90", "10.88.0.9:90", "new"), tcp("10.1.1.2:90", "10.88.0.9:90", "new"),
	}
	if err := gw.Publish(t.Context(), fresh...); err != nil {
		t.Fatal(err)
	}
	expectPorts(t, gw, append(fresh, alive)...)
	expectUses(t, ns)
	expectTaken(t, ns, "127.0.0.1:80", true, false)
	expectTaken(t, ns, "127.0.0.1:85", false, false)
	expectTaken(t, ns, "127.0.0.1:90", false, false)
	for _, p := range fresh {
		if missing := gw.missing(p); missing != nil {
			t.Errorf("not reserved: %v", missing)
		}
	}
	if len(gw.sockets) != len(fresh)+1 {
		t.Errorf("%d ports are reserved", len(gw.sockets))
	}
}

// What another program removed by hand leaves uses too high: that is no reason to
// refuse a port, and Sync sets it right.
func TestAWrongCountOfUsesIsNoObstacle(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	if err := gw.Publish(t.Context(), tcp("10.1.1.1:80", "10.88.0.2:80", "web")); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "nft", "flush map inet boxwire pub4")
	all := tcp("0.0.0.0:80", "10.88.0.2:80", "web")
	if err := gw.Publish(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if err := gw.Sync(t.Context(), State{Ports: []Port{all}}); err != nil {
		t.Fatal(err)
	}
	expectPorts(t, gw, all)
	expectUses(t, ns)
}
