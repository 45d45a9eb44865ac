package nat

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// What is there already costs Sync next to nothing: it builds no element for it, and keeps none.
func TestSyncOfWhatIsThereKeepsNoElements(t *testing.T) {
	of := func(n int) float64 {
		gw := openWith(t, netnstest.New(t), Options{NoReserve: true})
		var ports []Port
		for i := range n {
			ports = append(ports, tcp(fmt.Sprintf("10.1.1.%d:%d", 1+i%2, 1000+i/2), "10.88.0.2:80", fmt.Sprintf("box%d", i%10)))
		}
		if err := gw.Sync(t.Context(), State{Ports: ports}); err != nil {
			t.Fatal(err)
		}
		least := math.Inf(1) // as the kernel may grow a set in the middle of a read
		for range 5 {
			least = min(least, allocs.PerRun(t, 1, func() {
				changed, err := gw.sync(t.Context(), State{Ports: ports})
				if err != nil || changed {
					t.Errorf("changed %t, %v", changed, err)
				}
			}))
		}
		return least
	}
	few, many := of(1000), of(5000)
	t.Logf("%v allocations for 1000 ports, %v for 5000", few, many)
	if many-few > 400 {
		t.Errorf("%v allocations for 1000 ports, and %v for 5000", few, many)
	}
}

// Whatever differs in an element of a port, or in a count of ports, is found among thousands that are right.
func TestSyncMendsOneElementAmongMany(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	ports := []Port{
		udp("10.1.1.1:7000", "10.88.0.2:7000", "range"), // and its neighbours, up to HostLast
		tcp("0.0.0.0:8080", "10.88.0.2:80", "web"),
	}
	ports[0].HostLast = 7009
	shifted := tcp("10.1.1.1:9000", "10.88.0.2:900", "shifted")
	shifted.HostLast = 9004
	ports = append(ports, shifted)
	for i := range 300 {
		ports = append(ports, tcp(fmt.Sprintf("10.1.1.%d:%d", 1+i%2, 1000+i/2), "10.88.0.2:80", "many"))
	}
	sync := func() bool {
		t.Helper()
		changed, err := gw.sync(t.Context(), State{Ports: ports})
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	sync()
	want := testutil.Run(t, ns, "nft", "-s", "list", "table", "inet", "boxwire")
	for _, broken := range []string{
		"delete element inet boxwire pub4 { 10.1.1.1 . tcp . 1000 }",
		"delete element inet boxwire pub4 { 10.1.1.1 . tcp . 1000 }; add element inet boxwire pub4 { 10.1.1.1 . tcp . 1000 comment \"many\" : 10.88.0.3 . 80 }",
		"delete element inet boxwire pub4 { 10.1.1.1 . tcp . 1000 }; add element inet boxwire pub4 { 10.1.1.1 . tcp . 1000 comment \"few\" : 10.88.0.2 . 80 }",
		"delete element inet boxwire pub4 { 10.1.1.1 . tcp . 9002 }; add element inet boxwire pub4 { 10.1.1.1 . tcp . 9002 comment \"shifted\" : 10.88.0.2 . 900 }",
		"add element inet boxwire pub4 { 10.1.1.3 . tcp . 1000 comment \"many\" : 10.88.0.2 . 80 }",
		"add element inet boxwire any4 { udp . 8080 comment \"web\" : 10.88.0.2 . 80 }",
		"add element inet boxwire rng4 { 10.1.1.1 . tcp . 9000-9010 comment \"shifted\" : 10.88.0.2 }",
		"add element inet boxwire pub4 { 0.0.0.0 . tcp . 8080 comment \"web\" : 10.88.0.2 . 80 }",
		"flush map inet boxwire rng4",
		"delete element inet boxwire uses4 { tcp . 1000 }",
		"delete element inet boxwire uses4 { tcp . 1000 }; add element inet boxwire uses4 { tcp . 1000 : 7 }",
		"add element inet boxwire uses4 { udp . 1000 : 1 }",
	} {
		testutil.Run(t, ns, "nft", broken)
		if !sync() {
			t.Errorf("after %q: nothing changed", broken)
		}
		got := testutil.Run(t, ns, "nft", "-s", "list", "table", "inet", "boxwire")
		if sortedWords(got) != sortedWords(want) {
			t.Errorf("after %q:\n%s\nwant:\n%s", broken, got, want)
		}
		if sync() {
			t.Errorf("after %q: the second Sync changed something", broken)
		}
	}
}

// So it is among those that Sync looks up.
func TestSyncMendsOneElementThatItLooksUp(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := openWith(t, ns, Options{NoReserve: true})
	gw.minKeys = 1000
	var ports []Port
	for i := range 1200 {
		ports = append(ports, tcp(fmt.Sprintf("10.1.1.%d:%d", 1+i%2, 1000+i/2), "10.88.0.2:80", "many"))
	}
	ports = append(ports, tcp("0.0.0.0:80", "10.88.0.2:80", "web"))
	sync := func(ports []Port) bool {
		t.Helper()
		changed, err := gw.sync(t.Context(), State{Ports: ports})
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	is := func(what string, ports []Port) {
		t.Helper()
		expectPorts(t, gw, ports...)
		if sync(ports) {
			t.Errorf("after %s: the second Sync changed something", what)
		}
	}
	sync(ports)
	is("the first", ports)
	const first = "10.1.1.1 . tcp . 1000"
	last := fmt.Sprintf("10.1.1.2 . tcp . %d", ports[1199].Host.Port())
	for _, broken := range []string{
		"delete element inet boxwire pub4 { " + first + " }",
		"delete element inet boxwire pub4 { " + last + " }; add element inet boxwire pub4 { " + last + " comment \"many\" : 10.88.0.3 . 80 }",
		"add element inet boxwire pub4 { 10.1.1.3 . tcp . 1000 comment \"many\" : 10.88.0.2 . 80 }",
		"delete element inet boxwire pub4 { " + first + " }; add element inet boxwire pub4 { 10.1.1.3 . tcp . 1000 comment \"many\" : 10.88.0.2 . 80 }",
	} {
		testutil.Run(t, ns, "nft", broken)
		if !sync(ports) {
			t.Errorf("after %q: nothing changed", broken)
		}
		is(broken, ports)
	}
	fewer := ports[1:]
	sync(fewer)
	is("one less", fewer)
	other := append(slices.Clone(fewer), tcp("10.1.1.9:1000", "10.88.0.2:80", "many"))
	sync(other)
	is("one more", other)
	sync(ports)
	is("another one", ports)
}

// A Sync whose answer was lost is not taken for committed while the table lacks what it had found there.
func TestSyncOfWhatIsGoneSinceIsNotCommitted(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	state := State{Ports: []Port{tcp("10.1.1.1:8080", "10.88.0.2:80", "web"), tcp("10.1.1.1:8081", "10.88.0.2:81", "web")}}
	if err := gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	c, err := gw.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer gw.unlock()
	for gone, want := range map[string]bool{
		"":                               true,
		"pub4 { 10.1.1.1 . tcp . 8080 }": false,
		"uses4 { tcp . 8081 }":           false,
	} {
		tx := &syncTx{desired: state}
		tx.over(gw, c)
		if _, err := tx.Build(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if gone != "" {
			testutil.Run(t, ns, "nft", "delete element inet boxwire "+gone)
		}
		if is, err := tx.Committed(t.Context()); is != want || err != nil {
			t.Errorf("without %q: committed %t, %v", gone, is, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := gw.run(t.Context(), c, &syncTx{desired: state}); err != nil {
			t.Fatal(err)
		}
	}
}

// sortedWords is a listing without the order of its elements.
func sortedWords(s string) string {
	lines := []byte(s)
	slices.Sort(lines)
	return string(lines)
}
