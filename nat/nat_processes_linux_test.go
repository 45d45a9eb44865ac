package nat

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/portlock"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// stress returns how much a stress test does: little under -short, much with
// BOXWIRE_STRESS=1.
func stress[T any](short, usual, much T) T {
	switch {
	case os.Getenv("BOXWIRE_STRESS") == "1":
		return much
	case testing.Short():
		return short
	}
	return usual
}

// expectRefCounts checks that the reference counts are those of pub, by nft's words.
func expectRefCounts(t testing.TB, ns *netns.NS) {
	t.Helper()
	want, got := map[string]int{}, map[string]int{}
	eachElement(t, ns, func(set string, key []any, val any) {
		switch set {
		case "pub4", "pub6":
			want["uses"+set[3:]+keyText(key[1:])]++
		case "uses4", "uses6":
			got[set+keyText(key)] = int(val.(float64))
		}
	})
	if !reflect.DeepEqual(got, want) {
		t.Errorf("uses are %v, want %v", got, want)
	}
}

func keyText(key []any) string {
	b, _ := json.Marshal(key)
	return string(b)
}

// eachElement calls fn with the elements of the maps that have concatenated keys.
func eachElement(t testing.TB, ns *netns.NS, fn func(set string, key []any, val any)) {
	t.Helper()
	for _, x := range objects(t, ns).(map[string]any)["nftables"].([]any) {
		m, ok := x.(map[string]any)["map"].(map[string]any)
		if !ok {
			continue
		}
		elems, _ := m["elem"].([]any)
		for _, e := range elems {
			pair := e.([]any)
			key := pair[0].(map[string]any)
			if inner, ok := key["elem"].(map[string]any); ok {
				key = inner["val"].(map[string]any)
			}
			if parts, ok := key["concat"].([]any); ok {
				fn(m["name"].(string), parts, pair[1])
			}
		}
	}
}

// Two processes publish, unpublish and sync at once, over the same ports in part.
// In the end, what each believes to have is there, and nothing else.
func TestTwoProcessesKeepOneTable(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	var want []Port
	var done []func()
	for i, name := range []string{"a", "b"} {
		o := order{Name: name, Seed: uint64(i), For: stress(time.Second, 3*time.Second, 20*time.Second), Base: 1000 * (i + 1)}
		cmd, out := o.start(t, ns)
		r := ready(t, out)
		done = append(done, func() {
			var ports []Port
			if err := json.NewDecoder(r).Decode(&ports); err != nil {
				t.Errorf("worker %s: %v", name, err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("worker %s: %v", name, err)
			}
			want = append(want, ports...)
		})
	}
	for _, wait := range done {
		wait()
	}
	expectPorts(t, gw, want...)
	expectRefCounts(t, ns)
	if t.Failed() {
		t.Log(listing(t, ns))
	}
}

// A process is killed at some moment of its work. The next one comes to exactly
// the state that it wants, with its ports reserved.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	r := rand.New(rand.NewPCG(3, 4))
	net := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"), Masquerade: true}
	for i := range stress(10, 40, 200) {
		cmd, out := order{Name: "k", Seed: uint64(i), Base: 1000}.start(t, ns)
		ready(t, out)
		time.Sleep(time.Duration(r.IntN(30_000)) * time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()

		w := worker{order: order{Name: "k", Base: 1000}, r: r}
		var s State
		for range r.IntN(8) {
			s.Ports = append(s.Ports, w.port())
		}
		if _, _, found := overlap(s.Ports); found {
			s.Ports = s.Ports[:1]
		}
		if i%3 != 0 {
			s.Networks = []Network{net}
		}
		gw := open(t, ns)
		if err := gw.Sync(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		expectPorts(t, gw, s.Ports...)
		expectRefCounts(t, ns)
		forwarding := map[bool]string{true: "1", false: "0"}[s.Networks != nil]
		expect(t, ns, map[string]string{"ipv4/conf/br0/route_localnet": forwarding, "ipv4/conf/up0/forwarding": forwarding})
		var reserved []portlock.HostPort
		for _, p := range s.Ports {
			reserved = append(reserved, gw.ports.Missing(p.claim())...)
		}
		if len(reserved) > 0 {
			t.Errorf("not reserved: %v", reserved)
		}
		if i%2 == 0 {
			gw.Close()
		} else if err := gw.Delete(t.Context()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Fatalf("in round %d:\n%s", i, listing(t, ns))
		}
	}
	if left := slices.DeleteFunc(dirNames(t, "/run"), func(name string) bool { return name == "netns" }); len(left) > 0 {
		t.Logf("in /run: %v", left)
	}
}

func dirNames(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Rules left after a crash shadow new ones (podman#27516): a program that ends
// without a word leaves its ports, and the next one's lead to its own boxes.
func TestWhatACrashLeftShadowsNothing(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := wire(t)
	serve(t, s.sibling, ":80") // the box that is gone has no server
	old, now := tcp("0.0.0.0:8080", "10.88.0.2:80", "old"), tcp("203.0.113.1:8080", "10.88.0.3:80", "now")
	before := func(t *testing.T) {
		t.Helper()
		gw := open(t, another(t, s.host))
		if err := gw.Sync(t.Context(), State{Networks: []Network{network0()}, Ports: []Port{old}}); err != nil {
			t.Fatal(err)
		}
		gw.Close() // the kernel does as much for a process that is killed
	}
	for name, takeOver := range map[string]func(*NAT) error{
		"Sync": func(gw *NAT) error {
			return gw.Sync(t.Context(), State{Networks: []Network{network0()}, Ports: []Port{now}})
		},
		"Publish": func(gw *NAT) error { return gw.Publish(t.Context(), now) },
	} {
		before(t)
		gw, err := Open(t.Context(), s.host, Options{Alive: func(owner string) bool { return owner != "old" }})
		if err != nil {
			t.Fatal(err)
		}
		if err := takeOver(gw); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		expectPorts(t, gw, now)
		if got, err := ask(t, s.outside, "203.0.113.1:8080"); err != nil || got != "203.0.113.9" {
			t.Errorf("%s: the outside reaches %q, %v", name, got, err)
		}
		if err := gw.Unpublish(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		gw.Close()
	}
}
