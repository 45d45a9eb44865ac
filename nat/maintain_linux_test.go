package nat

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"github.com/boxwire/boxwire/netns/netnstest"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

// turn is one turn of the loop of Maintain.
type turn struct {
	Repair
	err error
	at  time.Time
}

// maintain runs a maintainer until the test ends, and returns what it yields after it
// has started.
func maintain(t *testing.T, k *maintainer) <-chan turn {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	all, over := make(chan turn, 100), make(chan struct{})
	go func() {
		defer close(over)
		k.maintain(ctx, func(r Repair, err error) bool {
			all <- turn{r, err, time.Now()}
			return true
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-over
		var last turn
		for len(all) > 0 {
			last = <-all
		}
		if !errors.Is(last.err, context.Canceled) {
			t.Errorf("the last is %v, %v", last.Repair, last.err)
		}
	})
	if r := next(t, all); r.Reason != ReasonStarted {
		t.Fatalf("the first is %v", r)
	}
	return all
}

// next waits for the next repair.
func next(t *testing.T, all <-chan turn) turn {
	t.Helper()
	select {
	case r := <-all:
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r
	case <-time.After(time.Minute):
		t.Fatal("nothing was repaired")
		return turn{}
	}
}

// harm is what nft does to a table, and why Maintain restores it then.
type harm struct {
	nft    string
	reason Reason
}

// expectRestored does each harm, and has check look at what is restored.
func expectRestored(t *testing.T, ns *netns.NS, all <-chan turn, harms []harm, check func(nft string)) {
	t.Helper()
	for _, h := range harms {
		testutil.Run(t, ns, "nft", h.nft)
		if r := next(t, all); r.Reason != h.reason || !strings.HasPrefix(r.By, "nft (") {
			t.Errorf("%s: %v", h.nft, r)
		}
		check(h.nft)
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
func TestMaintainRestoresWhatOthersRemove(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := wire(t)
	s.gw = open(t, s.host)
	web := tcp("0.0.0.0:8080", "10.88.0.2:80", "web")
	state := State{Networks: []Network{network0()}, Ports: []Port{web, tcp("127.0.0.1:9090", "10.88.0.2:80", "web")}}
	all := maintain(t, newMaintainer(s.gw, always(state)))
	serve(t, s.box, ":80")
	before := content(t, s.host)
	for _, c := range []struct {
		name, nft string
		reason    Reason
	}{
		{"the ruleset flushed", "flush ruleset", ReasonTableRemoved},
		{"the table deleted", "delete table inet boxwire", ReasonTableRemoved},
		{"a firewall reloaded", `flush ruleset; table inet filter { chain f { type filter hook forward priority 0; policy accept; }; }`, ReasonTableRemoved},
		{"a chain flushed", "flush chain inet boxwire to_box", ReasonTableChanged},
		{"a rule added", "insert rule inet boxwire to_box accept", ReasonTableChanged},
		{"the rules flushed", "flush table inet boxwire", ReasonTableChanged},
		{"an element deleted", "delete element inet boxwire any4 { tcp . 8080 }", ReasonTableChanged},
		{"the table put to sleep", "table inet boxwire { flags dormant; }", ReasonTableChanged},
		{"a set flushed", "flush set inet boxwire ifs", ReasonTableChanged},
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
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	web := tcp("0.0.0.0:8080", "10.88.0.2:80", "web")
	all := maintain(t, newMaintainer(s.gw, always(State{Networks: []Network{network0()}, Ports: []Port{web}})))
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
func TestMaintainEndsFlowsThatBeganInTheGap(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
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
	maintain(t, newMaintainer(s.gw, always(State{Networks: []Network{network0()}, Ports: []Port{port}})))
	if got := exchange(t, c, 10*time.Second); got != "dns" {
		t.Errorf("the flow reaches %q", got)
	}
}

func TestMaintainLeavesWhatThisProgramAndOthersAdd(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw, other := open(t, ns), open(t, ns)
	web, dns, own := tcp("0.0.0.0:80", "10.88.0.2:80", "web"), tcp("0.0.0.0:53", "10.88.0.3:53", "dns"), tcp("0.0.0.0:81", "10.88.0.2:81", "web")
	all := maintain(t, newMaintainer(gw, always(State{Ports: []Port{web}, Owners: func(o string) bool { return o == "web" }})))
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
	if r := next(t, all); r.Reason != ReasonTableChanged {
		t.Errorf("%v", r)
	}
	expectPorts(t, gw, dns, web)
}

// Two programs, each with its own ports in one table.
func TestTwoMaintainersRestoreTheirParts(t *testing.T) {
	t.Parallel()
	ns := host(t)
	state := func(p Port) func() State {
		return always(State{Ports: []Port{p}, Owners: func(o string) bool { return o == p.Owner }})
	}
	web, dns := tcp("0.0.0.0:80", "10.88.0.2:80", "web"), tcp("0.0.0.0:53", "10.88.0.3:53", "dns")
	one, two := maintain(t, newMaintainer(open(t, ns), state(web))), maintain(t, newMaintainer(open(t, another(t, ns)), state(dns)))
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
func TestMaintainersThatExcludeEachOtherSlowDown(t *testing.T) {
	t.Parallel()
	ns := host(t)
	// Each takes the whole table for its own.
	web, dns := tcp("0.0.0.0:80", "10.88.0.2:80", "web"), tcp("0.0.0.0:53", "10.88.0.3:53", "dns")
	one := maintain(t, newMaintainer(open(t, ns), always(State{Ports: []Port{web}})))
	maintain(t, newMaintainer(open(t, another(t, ns)), always(State{Ports: []Port{dns}})))
	first := next(t, one)
	const more = 4
	var last turn
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

func TestMaintainMakesLaterLinksForward(t *testing.T) {
	t.Parallel()
	ns := host(t)
	nets := []Network{{Interface: "later0", Subnets: prefixes("10.99.0.0/16")}}
	all := maintain(t, newMaintainer(open(t, ns), always(State{Networks: nets})))
	testutil.Run(t, ns, "ip", "link", "add", "other0", "type", "bridge")
	for _, link := range []string{"other0", "later0"} {
		testutil.Run(t, ns, "ip", "link", "set", "other0", "name", link) // the second time it is renamed
		if link == "other0" {
			if r := next(t, all); r.Reason != ReasonLinkAppeared {
				t.Errorf("%v", r)
			}
		}
	}
	testutil.Run(t, ns, "ip", "link", "add", "late0", "type", "bridge")
	next(t, all)
	// Which of the two was reported is not known.
	for _, name := range []string{"later0/route_localnet", "later0/forwarding", "late0/forwarding"} {
		if !until(func() bool { return sysctl(t, ns, "ipv4/conf/"+name) == "1" }) {
			t.Errorf("%s stays 0", name)
		}
	}
}

func TestMaintainLooksAfterLostEvents(t *testing.T) {
	t.Parallel()
	ns := host(t)
	k := newMaintainer(open(t, ns), always(State{Ports: []Port{tcp("0.0.0.0:80", "10.88.0.2:80", "web")}}))
	k.buffer = 1 // as small as the kernel makes it
	all := maintain(t, k)
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
	if r := next(t, all); r.Reason != ReasonEventsLost {
		t.Errorf("%v", r)
	}
	if got := content(t, ns); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestMaintainTellsWhatItCannotRepair(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw := open(t, ns)
	var errs []error
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for r, err := range gw.Maintain(ctx, always(State{})) {
		switch {
		case err == nil && r.Reason == ReasonStarted:
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

// The sequence is a value: a loop that is left begins again, and two may run at once.
func TestTheSequenceOfMaintainMayBeRangedOverAgain(t *testing.T) {
	t.Parallel()
	ns := host(t)
	web := tcp("0.0.0.0:80", "10.88.0.2:80", "web")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	repairs := open(t, ns).Maintain(ctx, always(State{Ports: []Port{web}}))
	for round := range 3 {
		var reasons []Reason
		for r, err := range repairs {
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if reasons = append(reasons, r.Reason); len(reasons) == 2 {
				break
			}
			for r, err := range repairs { // within the other
				if err != nil || r.Reason != ReasonStarted {
					t.Errorf("round %d: %v, %v", round, r, err)
				}
				break
			}
			testutil.Run(t, ns, "nft", "flush ruleset")
		}
		if !slices.Equal(reasons, []Reason{ReasonStarted, ReasonTableRemoved}) {
			t.Errorf("round %d: %v", round, reasons)
		}
	}
}

// Another program switches off what the networks need, of all links or of one.
func TestMaintainSwitchesForwardingOnAgain(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	setSysctl(t, ns, "ipv4/ip_forward", "1") // a router to begin with
	k := newMaintainer(open(t, ns), always(State{Networks: []Network{{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}}}))
	k.again = 50 * time.Millisecond
	all := maintain(t, k)
	_, noForce := ns.Sysctl(t.Context(), "net/ipv6/conf/all/force_forwarding")
	six := "ipv6/conf/br0/force_forwarding"
	if noForce != nil {
		six = "ipv6/conf/all/forwarding"
	}
	on := map[string]string{"ipv4/conf/br0/forwarding": "1", "ipv4/conf/up0/forwarding": "1", "ipv4/conf/br0/route_localnet": "1", six: "1"}
	expect(t, ns, on)
	for _, name := range []string{
		"ipv4/ip_forward", "ipv4/conf/up0/forwarding", "ipv4/conf/br0/forwarding", "ipv4/conf/all/forwarding",
		"ipv4/conf/br0/route_localnet", six, strings.Replace(six, "br0", "up0", 1),
	} {
		if name == "ipv4/conf/all/forwarding" {
			setSysctl(t, ns, name, "1")
		}
		setSysctl(t, ns, name, "0")
		if r := next(t, all); r.Reason != ReasonForwardingOff {
			t.Errorf("%s: %v", name, r)
		}
		// One repair may be reported for the first of a program's many events.
		if !until(func() bool {
			for name, want := range on {
				if sysctl(t, ns, name) != want {
					return false
				}
			}
			return true
		}) {
			expect(t, ns, on)
		}
		for len(all) > 0 {
			<-all
		}
	}
	// A machine that is no router any more lets nothing of strangers pass by that.
	if out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", "flipped4"); !strings.Contains(out, `"up0"`) {
		t.Errorf("flipped4: %s", out)
	}
}

// A program removes its network before it says so to Maintain.
func TestMaintainDoesNotForwardForARemovedNetwork(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	gw := open(t, ns)
	before := look(t, ns)
	nets := []Network{{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}}
	maintain(t, newMaintainer(gw, always(State{Networks: nets})))
	if err := gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	// The events of that have been looked at when a later one has.
	if _, err := gw.forwardLinks(t.Context(), nets, false); err != nil {
		t.Fatal(err)
	}
	before.same(t, ns, "DeleteNetwork")
}

// Bytes that a kernel sent.
func TestEventsOfSettingsThatMatter(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"0200000008000100040000000800020000000000":                 true,  // forwarding of link 4 off
		"02000000080001000400000008000200" + "01000000":            false, // and on
		"02000000080001000400000008000300" + "00000000":            false, // rp_filter
		"0a0000000800010002000000":                                 true,  // force_forwarding
		"02000000080001000400000008000200000000000800030000000000": false, // a new link
		"0200": false, "": false,
	} {
		body, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := switchedOff(body); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func FuzzSwitchedOff(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0, 8, 0, 1, 0, 2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		switchedOff(b)
		madeRouter(b)
	})
}
