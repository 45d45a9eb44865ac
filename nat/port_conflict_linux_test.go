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
	expectRefCounts(t, ns)

	// One port takes the place of three, two others that of one.
	fresh := []Port{
		tcp("0.0.0.0:80", "10.88.0.9:80", "new"), tcp("10.1.1.1:90", "10.88.0.9:90", "new"), tcp("10.1.1.2:90", "10.88.0.9:90", "new"),
	}
	if err := gw.Publish(t.Context(), fresh...); err != nil {
		t.Fatal(err)
	}
	expectPorts(t, gw, append(fresh, alive)...)
	expectRefCounts(t, ns)
	expectTaken(t, ns, "127.0.0.1:80", true, false)
	expectTaken(t, ns, "127.0.0.1:85", false, false)
	expectTaken(t, ns, "127.0.0.1:90", false, false)
	for _, p := range fresh {
		if missing := gw.ports.Missing(p.claim()); missing != nil {
			t.Errorf("not reserved: %v", missing)
		}
	}
	if gw.ports.Len() != len(fresh)+1 {
		t.Errorf("%d ports are reserved", gw.ports.Len())
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
	expectRefCounts(t, ns)
}

// Many ports are looked for in the maps as a whole, or one by one where much is
// published: both find what is in the way, and what a gone owner has left.
func TestManyPortsFindTheirRivalsEitherWay(t *testing.T) {
	t.Parallel()
	for _, published := range []int{0, 1 << 30} {
		ns := netnstest.New(t)
		gw := openWith(t, ns, Options{NoReserve: true, Alive: func(owner string) bool { return owner != "gone" }})
		publish := func(ports ...Port) error {
			gw.elements = published // which way to go
			return gw.Publish(t.Context(), ports...)
		}
		held := []Port{tcp("0.0.0.0:70", "10.88.0.2:70", "held"), tcp("10.1.2.7:80", "10.88.0.2:80", "held"), tcp("10.1.0.1:90", "10.88.0.2:90", "held")}
		gone := []Port{tcp("10.1.1.9:80", "10.88.0.9:80", "gone"), tcp("0.0.0.0:60", "10.88.0.9:60", "gone")}
		if err := publish(append(gone, held...)...); err != nil {
			t.Fatal(err)
		}
		free := many(400, "new") // 10.1.0.0:80 to 10.1.1.143:80
		for _, x := range []struct{ want, held Port }{
			{tcp("10.1.1.1:70", "10.88.0.3:70", "new"), held[0]},
			{tcp("10.1.2.7:80", "10.88.0.3:80", "new"), held[1]},
			{tcp("0.0.0.0:90", "10.88.0.3:90", "new"), held[2]},
		} {
			err := publish(append(free, x.want)...)
			if !errors.Is(err, os.ErrExist) || !strings.Contains(fmt.Sprint(err), x.want.String()) || !strings.Contains(fmt.Sprint(err), x.held.String()) {
				t.Errorf("published %d: %v: %v", published, x.want, err)
			}
		}
		now := append(free, tcp("10.1.1.1:60", "10.88.0.3:60", "new"))
		if err := publish(now...); err != nil {
			t.Fatal(err)
		}
		expectPorts(t, gw, append(held, now...)...)
		expectRefCounts(t, ns)
		gw.elements = published
		if err := gw.Unpublish(t.Context(), append(now, tcp("10.1.9.9:1", "10.88.0.3:1", "new"))...); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("one of many is not published: %v", err)
		}
		gw.elements = published
		if err := gw.Unpublish(t.Context(), now...); err != nil {
			t.Fatal(err)
		}
		expectPorts(t, gw, held...)
		expectRefCounts(t, ns)
	}
}
