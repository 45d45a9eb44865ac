package nat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

// told is one turn of a Keep's loop.
type told struct {
	Repair
	err error
	at  time.Time
}

// keep runs a keeper until the test ends, and returns what it tells once it has
// started.
func keep(t *testing.T, k *keeper) <-chan told {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	all, over := make(chan told, 100), make(chan struct{})
	go func() {
		defer close(over)
		for r, err := range k.keep(ctx) {
			all <- told{r, err, time.Now()}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-over
		var last told
		for len(all) > 0 {
			last = <-all
		}
		if !errors.Is(last.err, context.Canceled) {
			t.Errorf("the last is %v, %v", last.Repair, last.err)
		}
	})
	if r := next(t, all); r.Reason != KeepStarted {
		t.Fatalf("the first is %v", r)
	}
	return all
}

// next waits for the next repair.
func next(t *testing.T, all <-chan told) told {
	t.Helper()
	select {
	case r := <-all:
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was repaired")
		return told{}
	}
}

// another is a second handle, as another program would have it: what is done by
// way of one is no own change to the other.
func another(t *testing.T, ns *netns.NS) *netns.NS {
	t.Helper()
	var again *netns.NS
	err := ns.WithFd(func(fd int) (err error) {
		again, err = netns.OpenPath(t.Context(), fmt.Sprintf("/proc/self/fd/%d", fd))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	return again
}

// content is the table without counters: its chains as they are, and the words of
// its sets sorted, whose elements come in any order.
func content(t *testing.T, ns *netns.NS) string {
	t.Helper()
	out := testutil.Run(t, ns, "nft", "--stateless", "list", "table", "inet", "boxwire")
	at := strings.Index(out, "\tchain ")
	words := strings.Fields(strings.ReplaceAll(out[:at], ",", " "))
	slices.Sort(words)
	return strings.Join(words, " ") + "\n" + out[at:]
}

func always(s State) func() State { return func() State { return s } }

// Rules lost on a reload and never restored: netavark#230. The listing is
// compared with that before, and traffic goes on.
func TestKeepRestoresWhatOthersRemove(t *testing.T) {
	t.Parallel()
	s := wire(t)
	s.gw = open(t, s.host)
	web := tcp("0.0.0.0:8080", "10.88.0.2:80", "web")
	state := State{Networks: []Network{network0()}, Ports: []Port{web, tcp("127.0.0.1:9090", "10.88.0.2:80", "web")}}
	all := keep(t, newKeeper(s.gw, always(state)))
	serve(t, s.box, ":80")
	before := content(t, s.host)
	for _, c := range []struct {
		name, nft string
		reason    Reason
	}{
		{"the ruleset flushed", "flush ruleset", TableRemoved},
		{"the table deleted", "delete table inet boxwire", TableRemoved},
		{"a firewall reloaded", `flush ruleset; table inet filter { chain f { type filter hook forward priority 0; policy accept; }; }`, TableRemoved},
		{"a chain flushed", "flush chain inet boxwire to_box", TableChanged},
		{"a rule added", "insert rule inet boxwire to_box accept", TableChanged},
		{"the rules flushed", "flush table inet boxwire", TableChanged},
		{"an element deleted", "delete element inet boxwire any4 { tcp . 8080 }", TableChanged},
		{"the table put to sleep", "table inet boxwire { flags dormant; }", TableChanged},
		{"a set flushed", "flush set inet boxwire ifs", TableChanged},
	} {
		began := time.Now()
		testutil.Run(t, s.host, "nft", c.nft)
		r := next(t, all)
		if r.Reason != c.reason || !strings.HasPrefix(r.By, "nft (") {
			t.Errorf("%s: %v", c.name, r)
		}
		t.Logf("%s: %v after %v", c.name, r, r.at.Sub(began).Round(time.Millisecond))
		if after := content(t, s.host); after != before {
			t.Errorf("%s: the table is now\n%s\nwant\n%s", c.name, after, before)
		}
		if got, err := ask(t, s.outside, "203.0.113.1:8080"); err != nil || got != "203.0.113.9" {
			t.Errorf("%s: then the outside reaches %q, %v", c.name, got, err)
		}
	}
}

// A connection that sends nothing in the gap does not notice.
func TestAConnectionOutlivesTheRepair(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	web := tcp("0.0.0.0:8080", "10.88.0.2:80", "web")
	all := keep(t, newKeeper(s.gw, always(State{Networks: []Network{network0()}, Ports: []Port{web}})))
	ln, err := s.box.Listen(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := s.outside.Dial(t.Context(), "tcp", "203.0.113.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	testutil.Run(t, s.host, "nft", "flush ruleset")
	next(t, all)
	b := make([]byte, 5)
	for _, end := range []struct{ from, to net.Conn }{{c, in}, {in, c}} {
		end.to.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := end.from.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(end.to, b); err != nil || string(b) != "hello" {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// A flow that began while the table was away is not stuck with that.
func TestKeepEndsFlowsThatBeganInTheGap(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	port := tcp("0.0.0.0:5300", "10.88.0.2:53", "dns")
	port.Proto = UDP
	echo(t, s.box, "10.88.0.2:53", "dns")
	testutil.Run(t, s.host, "nft", "delete table inet boxwire")
	testutil.Run(t, s.host, "nft", "add table inet t; add chain inet t c { type filter hook prerouting priority 0; }; add rule inet t c ct state new accept")
	c, err := s.outside.Dial(t.Context(), "udp", "203.0.113.1:5300")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := exchange(t, c, 100*time.Millisecond); got != "" {
		t.Fatalf("without a table the flow reaches %q", got)
	}
	keep(t, newKeeper(s.gw, always(State{Networks: []Network{network0()}, Ports: []Port{port}})))
	if got := exchange(t, c, 10*time.Second); got != "dns" {
		t.Errorf("the flow reaches %q", got)
	}
}

func TestKeepLeavesWhatThisProgramAndOthersAdd(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw, other := open(t, ns), open(t, ns)
	web, dns, own := tcp("0.0.0.0:80", "10.88.0.2:80", "web"), tcp("0.0.0.0:53", "10.88.0.3:53", "dns"), tcp("0.0.0.0:81", "10.88.0.2:81", "web")
	all := keep(t, newKeeper(gw, always(State{Ports: []Port{web}, Owners: func(o string) bool { return o == "web" }})))
	if err := other.Publish(t.Context(), dns); err != nil {
		t.Fatal(err)
	}
	if err := gw.Publish(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	if err := gw.Unpublish(t.Context(), own, web); err != nil {
		t.Fatal(err)
	}
	expectPorts(t, gw, dns)
	testutil.Run(t, ns, "nft", "flush chain inet boxwire forward")
	if r := next(t, all); r.Reason != TableChanged {
		t.Errorf("%v", r)
	}
	expectPorts(t, gw, dns, web)
}

// Two programs, each with its own ports in one table.
func TestTwoKeepsRestoreTheirParts(t *testing.T) {
	t.Parallel()
	ns := host(t)
	state := func(p Port) func() State {
		return always(State{Ports: []Port{p}, Owners: func(o string) bool { return o == p.Owner }})
	}
	web, dns := tcp("0.0.0.0:80", "10.88.0.2:80", "web"), tcp("0.0.0.0:53", "10.88.0.3:53", "dns")
	one, two := keep(t, newKeeper(open(t, ns), state(web))), keep(t, newKeeper(open(t, another(t, ns)), state(dns)))
	for range 3 {
		testutil.Run(t, ns, "nft", "flush ruleset")
		next(t, one)
		next(t, two)
		expectPorts(t, open(t, ns), dns, web)
	}
	if len(one)+len(two) != 0 {
		t.Errorf("repairs of each other's: %d and %d", len(one), len(two))
	}
}

// Two states that exclude each other: the repairs get rare.
func TestKeepsThatExcludeEachOtherSlowDown(t *testing.T) {
	t.Parallel()
	ns := host(t)
	// Each takes the whole table for its own.
	web, dns := tcp("0.0.0.0:80", "10.88.0.2:80", "web"), tcp("0.0.0.0:53", "10.88.0.3:53", "dns")
	one := keep(t, newKeeper(open(t, ns), always(State{Ports: []Port{web}})))
	keep(t, newKeeper(open(t, another(t, ns)), always(State{Ports: []Port{dns}})))
	first := next(t, one)
	const more = 4
	var last told
	for range more {
		last = next(t, one)
	}
	least := time.Duration(0)
	for i := range more {
		least += firstPause << i
	}
	if took := last.at.Sub(first.at); took < least {
		t.Errorf("%d more repairs within %v, want at least %v", more, took, least)
	}
}

func TestKeepMakesLaterLinksForward(t *testing.T) {
	t.Parallel()
	ns := host(t)
	nets := []Network{{Interface: "later0", Subnets: prefixes("10.99.0.0/16")}}
	all := keep(t, newKeeper(open(t, ns), always(State{Networks: nets})))
	testutil.Run(t, ns, "ip", "link", "add", "other0", "type", "bridge")
	for _, link := range []string{"other0", "later0"} {
		testutil.Run(t, ns, "ip", "link", "set", "other0", "name", link) // the second time it is renamed
		if link == "other0" {
			if r := next(t, all); r.Reason != LinkAppeared {
				t.Errorf("%v", r)
			}
		}
	}
	testutil.Run(t, ns, "ip", "link", "add", "late0", "type", "bridge")
	next(t, all)
	// Which of the two was told is not known.
	for _, name := range []string{"later0/route_localnet", "later0/forwarding", "late0/forwarding"} {
		if !until(func() bool { return sysctl(t, ns, "ipv4/conf/"+name) == "1" }) {
			t.Errorf("%s stays 0", name)
		}
	}
}

func TestKeepLooksAfterLostEvents(t *testing.T) {
	t.Parallel()
	ns := host(t)
	k := newKeeper(open(t, ns), always(State{Ports: []Port{tcp("0.0.0.0:80", "10.88.0.2:80", "web")}}))
	k.buffer = 1 // as small as the kernel makes it
	all := keep(t, k)
	want := content(t, ns)
	var elems []string
	for i := range 3000 {
		elems = append(elems, fmt.Sprintf("10.0.%d.%d", i/250, i%250))
	}
	k.mu.Lock() // nothing is read meanwhile
	_, err := testutil.Try(t, ns, "nft", "table ip many { set s { type ipv4_addr; elements = { "+strings.Join(elems, ",")+" }; }; }; delete table inet boxwire; delete table ip many")
	k.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if r := next(t, all); r.Reason != EventsLost {
		t.Errorf("%v", r)
	}
	if got := content(t, ns); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestKeepTellsWhatItCannotRepair(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw := open(t, ns)
	var errs []error
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for r, err := range gw.Keep(ctx, always(State{})) {
		switch {
		case err == nil && r.Reason == KeepStarted:
			testutil.Run(t, ns, "nft", "delete table inet boxwire; add table inet boxwire { comment \"theirs\"; }")
		case err != nil && len(errs) < 2:
			errs = append(errs, err)
		case err != nil:
			testutil.Run(t, ns, "nft", "delete table inet boxwire")
		case err == nil:
			cancel()
		}
	}
	if len(errs) != 2 {
		t.Fatalf("%v", errs)
	}
	for _, err := range errs {
		if !strings.Contains(err.Error(), "theirs") {
			t.Errorf("%v", err)
		}
	}
}
