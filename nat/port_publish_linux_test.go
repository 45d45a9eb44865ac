package nat

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestPublishedPortsAreElementsWithTheirOwner(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	udp := tcp("0.0.0.0:53", "10.0.0.2:5353", "dns")
	udp.Proto = UDP
	ports := []Port{
		tcp("0.0.0.0:8080", "10.0.0.2:80", "web"), udp,
		tcp("127.0.0.1:9090", "10.0.0.3:90", "local"),
		tcp("[::]:8080", "[fd00::2]:80", "web"),
		tcp("[2001:db8::1]:443", "[fd00::2]:4430", "tls"),
	}
	if err := gw.Publish(t.Context(), ports...); err != nil {
		t.Fatal(err)
	}
	out := listing(t, ns)
	for _, want := range []string{
		`tcp . 8080 counter packets 0 bytes 0 comment "web" : 10.0.0.2 . 80`,
		`udp . 53 counter packets 0 bytes 0 comment "dns" : 10.0.0.2 . 5353`,
		`127.0.0.1 . tcp . 9090 counter packets 0 bytes 0 comment "local" : 10.0.0.3 . 90`,
		`tcp . 8080 counter packets 0 bytes 0 comment "web" : fd00::2 . 80`,
		`2001:db8::1 . tcp . 443 counter packets 0 bytes 0 comment "tls" : fd00::2 . 4430`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("nft does not list %s", want)
		}
	}
	got, err := gw.ListPorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Port{ports[0], ports[2], ports[3], ports[4], ports[1]}
	if len(got) != len(want) {
		t.Fatalf("List: %v", got)
	}
	for i := range want {
		if got[i].Port != want[i] {
			t.Errorf("List[%d] is %v, want %v", i, got[i], want[i])
		}
	}
	if t.Failed() {
		t.Log(out)
	}
	if err := gw.Unpublish(t.Context(), ports...); err != nil {
		t.Fatal(err)
	}
	if got, err := gw.ListPorts(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("List after Unpublish: %v, %v", got, err)
	}
}

func TestATakenPortNamesItsHolder(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	if err := gw.Publish(t.Context(), tcp("0.0.0.0:80", "10.0.0.2:80", "web"), tcp("10.1.1.1:90", "10.0.0.2:90", "mail")); err != nil {
		t.Fatal(err)
	}
	free := tcp("0.0.0.0:99", "10.0.0.2:99", "other")
	for _, c := range []struct {
		port  Port
		owner string
	}{
		{tcp("0.0.0.0:80", "10.0.0.2:80", "web"), "web"},   // the same again
		{tcp("0.0.0.0:80", "10.0.0.2:80", "other"), "web"}, // same data, which the kernel alone takes for the same
		{tcp("0.0.0.0:80", "10.0.0.9:80", "other"), "web"},
		{tcp("10.1.1.1:80", "10.0.0.9:80", "other"), "web"}, // one address of all
		{tcp("10.1.1.1:90", "10.0.0.9:80", "other"), "mail"},
		{tcp("0.0.0.0:90", "10.0.0.9:80", "other"), "mail"}, // all of one
	} {
		err := gw.Publish(t.Context(), free, c.port)
		if !errors.Is(err, os.ErrExist) || !strings.Contains(fmt.Sprint(err), fmt.Sprintf("%q", c.owner)) {
			t.Errorf("%v: %v, want os.ErrExist that names %q", c.port, err, c.owner)
		}
	}
	if got, err := gw.ListPorts(t.Context()); err != nil || len(got) != 2 {
		t.Errorf("a refused call left something: %v, %v", got, err)
	}
	// Another protocol, another family and another port are free.
	udp := tcp("0.0.0.0:80", "10.0.0.2:80", "u")
	udp.Proto = UDP
	if err := gw.Publish(t.Context(), udp, tcp("[::]:80", "[fd00::2]:80", "six"), tcp("10.1.1.2:90", "10.0.0.2:90", "two")); err != nil {
		t.Error(err)
	}
}

func TestUnpublishChecksOwnerAndBox(t *testing.T) {
	t.Parallel()
	gw := open(t, netnstest.New(t))
	p := tcp("0.0.0.0:80", "10.0.0.2:80", "web")
	if err := gw.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := gw.Unpublish(t.Context(), tcp("0.0.0.0:80", "10.0.0.2:80", "other")); !errors.Is(err, os.ErrPermission) {
		t.Errorf("another owner: %v", err)
	}
	if err := gw.Unpublish(t.Context(), tcp("0.0.0.0:80", "10.0.0.3:80", "web")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another box: %v", err)
	}
	if err := gw.Unpublish(t.Context(), p, tcp("0.0.0.0:81", "10.0.0.2:80", "web")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("one of two is missing: %v", err)
	}
	if got, err := gw.ListPorts(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("refused calls changed something: %v, %v", got, err)
	}
	if err := gw.Unpublish(t.Context(), p); err != nil {
		t.Error(err)
	}
	if err := gw.Unpublish(t.Context(), p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second time: %v", err)
	}
}

func TestThousandsOfPortsInOneCall(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	n := 5000
	if testing.Short() {
		// What a normal user may send at once: net.core.wmem_max is 208 KiB on Linux 6.12 and older.
		n = 2000
	}
	var ports []Port
	for i := range n {
		ports = append(ports, tcp(fmt.Sprintf("0.0.0.0:%d", i+1), "10.0.0.2:80", "bulk"))
		ports = append(ports, tcp(fmt.Sprintf("[2001:db8::1]:%d", i+1), "[fd00::2]:80", "bulk"))
	}
	if err := gw.Publish(t.Context(), ports...); err != nil {
		t.Fatal(err)
	}
	if got, err := gw.ListPorts(t.Context()); err != nil || len(got) != len(ports) {
		t.Fatalf("List: %d ports, %v", len(got), err)
	}
	if got := strings.Count(testutil.Run(t, ns, "nft", "list", "map", "inet", "boxwire", "any4"), `"bulk"`); got != n {
		t.Errorf("nft lists %d elements of any4", got)
	}
	if err := gw.Unpublish(t.Context(), ports...); err != nil {
		t.Fatal(err)
	}
}

func TestPublishAtTheSameTimeGivesThePortToOne(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[int]int{}
	for i := range 8 {
		wg.Go(func() {
			for port := range 10 {
				host := "0.0.0.0"
				if i%2 == 1 {
					host = "10.1.1.1" // collides only by the check before the commit
				}
				err := gw.Publish(t.Context(), tcp(fmt.Sprintf("%s:%d", host, port+1), "10.0.0.2:80", fmt.Sprint("owner ", i)))
				switch {
				case err == nil:
					mu.Lock()
					won[port]++
					mu.Unlock()
				case !errors.Is(err, os.ErrExist):
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for port := range 10 {
		if won[port] != 1 {
			t.Errorf("port %d went to %d callers", port+1, won[port])
		}
	}
}

func TestCancelledContextChangesNothing(t *testing.T) {
	t.Parallel()
	gw := open(t, netnstest.New(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := gw.Publish(ctx, tcp("0.0.0.0:80", "10.0.0.2:80", "web")); !errors.Is(err, context.Canceled) {
		t.Errorf("Publish: %v", err)
	}
	if got, err := gw.ListPorts(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("List: %v, %v", got, err)
	}
}

// What a publish allocates does not grow with what is published, and is little.
func TestPublishAllocations(t *testing.T) {
	for name, o := range map[string]Options{"reserved": {}, "NoReserve": {NoReserve: true}} {
		gw := openWith(t, netnstest.New(t), o)
		if err := gw.Publish(t.Context(), many(500, "there")...); err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"0.0.0.0:8080", "10.1.1.1:8080"} {
			p := tcp(host, "10.88.0.2:80", "web")
			n := allocs.PerRun(t, 50, func() {
				if err := gw.Publish(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				if err := gw.Unpublish(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			})
			t.Logf("%s: publish and unpublish %v: %v allocations", name, p, n)
			if n > 170 {
				t.Errorf("%s: to publish and unpublish %v takes %v allocations, want at most 170", name, p, n)
			}
		}
	}
}

// Many at once allocate a few times each. The least of five runs counts: the kernel may grow the set in the middle of a
// read, and a set that was read so is read again (see nft.Conn.ElementsOf).
func TestPublishManyAllocations(t *testing.T) {
	gw := openWith(t, netnstest.New(t), Options{NoReserve: true})
	ports := many(1000, "bulk")
	least := math.Inf(1)
	for range 5 {
		least = min(least, allocs.PerRun(t, 1, func() {
			if err := gw.Publish(t.Context(), ports...); err != nil {
				t.Fatal(err)
			}
			if err := gw.Unpublish(t.Context(), ports...); err != nil {
				t.Fatal(err)
			}
		}))
	}
	t.Logf("%v allocations", least)
	if least > 6.5*1000 {
		t.Errorf("to publish and unpublish %d ports takes %v allocations", len(ports), least)
	}
}

func FuzzDecodePort(f *testing.F) {
	for _, p := range keyPorts() {
		it := p.item()
		f.Add(it.elem.Key, it.elem.KeyEnd, it.elem.Data, byte(slices.Index(setNames(), it.set)))
	}
	f.Fuzz(func(t *testing.T, key, end, data []byte, at byte) {
		set := setNames()[int(at)%len(setNames())]
		if !isPortSet(set) {
			return
		}
		p, err := decodeItem(item{set, nft.Element{Key: key, KeyEnd: end, Data: data}})
		if err != nil {
			return
		}
		if !p.Box.Addr().IsValid() || p.Host.Addr().Is6() != (familyOfSet(set) == families[1]) || p.HostLast != 0 && p.HostLast <= p.Host.Port() {
			t.Errorf("decoded to %v", p)
		}
	})
}

func keyPorts() []Port {
	return []Port{
		tcp("0.0.0.0:80", "10.0.0.2:81", "a"), tcp("10.1.1.1:80", "10.0.0.2:81", "b"),
		tcp("[::]:80", "[fd00::2]:81", "c"), tcp("[2001:db8::1]:65535", "[fd00::2]:81", "d"),
		ranged(tcp("10.1.1.1:8000", "10.0.0.2:8000", "e"), 8010), ranged(tcp("[::]:1", "[fd00::2]:1", "f"), 65535),
	}
}

func TestKeysRoundTrip(t *testing.T) {
	t.Parallel()
	for _, p := range keyPorts() {
		got, err := decodeItem(p.item())
		if err != nil || got != p.normal() {
			t.Errorf("%v came back as %v, %v", p, got, err)
		}
	}
}

// item is itemIn with room of its own.
func (p Port) item() item { return p.itemIn(new([]byte)) }
