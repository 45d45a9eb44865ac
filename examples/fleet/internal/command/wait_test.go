//go:build linux

package command

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

// An agent whose store is away waits, says so, and leaves the machine as it is. It joins when the store is there.
func TestAStoreThatAnswersLater(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2}})
	etcd := value(l.StartStore(t.Context(), l.Hosts[0]))(t)
	must(t, etcd.Kill())
	h := l.Hosts[1]
	before := kernel(t, h.NS)
	n := start(t, h, on(etcd)...)
	n.says(503, "the node has no prefix yet; the store is away: store "+etcd.Endpoints(), "refused")
	n.prints("the store is away")
	if code, body := n.get("/state"); code != 503 || !strings.Contains(body, "the store is away") {
		t.Errorf("/state is %d %q", code, body)
	}
	code, out := fleet(t, h, "ls", "-socket", n.socket)
	wantError(t, "ls", code, 1, out, "the node has no prefix yet; the store is away")
	if after := kernel(t, h.NS); after != before {
		t.Errorf("without a store the kernel has\n%s\nand had\n%s", after, before)
	}
	must(t, etcd.Restart(t.Context()))
	n.ready(0)
	n.says(200, "ready")
	n.prints("the store answers again")
	if times := strings.Count(n.Output(), "the store is away"); times > 3 {
		t.Errorf("it says %d times that the store is away:\n%s", times, n.Output())
	}
	// It is lost again: the node stays ready, and its kernel as it is.
	wired := kernel(t, h.NS)
	must(t, etcd.Kill())
	n.says(200, "ready; the store is away")
	if after := kernel(t, h.NS); after != wired {
		t.Errorf("after the store's end the kernel has\n%s\nand had\n%s", after, wired)
	}
}

// A pool that is full is waited for, and says who has it. Who is forgotten makes room.
func TestAPoolThatIsFull(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{3}})
	etcd := value(l.StartStore(t.Context(), l.Hosts[0]))(t)
	flags := append(on(etcd), "-pool", "10.100.0.0/24", "-size4", "25")
	a, b := start(t, l.Hosts[0], flags...), start(t, l.Hosts[1], flags...)
	s := a.ready(1)
	b.ready(1)
	before := kernel(t, l.Hosts[2].NS)
	c := start(t, l.Hosts[2], flags...)
	c.says(503, "pool [10.100.0.0/24]", "has no prefix of length 25 left", fmt.Sprint(s.Prefixes[0], " is of host1"), "is of host2", "fleet forget NODE")
	if after := kernel(t, l.Hosts[2].NS); after != before {
		t.Errorf("the kernel has\n%s\nand had\n%s", after, before)
	}
	must(t, b.Kill())
	forget := append([]string{"forget", "-name", "lab"}, on(etcd)...)
	poll(t, "host2 is forgotten", func() (bool, string) {
		code, out := fleet(t, l.Hosts[0], append(forget, "host2")...)
		if code != 0 {
			wantError(t, "forget a node that is alive", code, 1, out, "forget node host2", "its agent is alive", "stop it first")
		}
		return code == 0, out
	})
	if s := c.ready(1); s.Prefixes[0] == a.ready(1).Prefixes[0] {
		t.Errorf("two nodes have %v", s.Prefixes)
	}
}

// An agent of a machine that is not on the network yet joins when it is: an address, or the default route, comes later.
func TestAMachineWhoseNetworkComesLater(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{1}})
	for _, test := range []struct{ name, want, comes string }{
		{"an address", "no link is up and has an address that leads to other machines: waiting for one; -via names it", "addr add 192.0.2.1/24 dev up0"},
		{"the named link", `none of the links ["up1"] (-via) is up`, "link add up1 type bridge; addr add 192.0.2.1/24 dev up1; link set up1 up"},
		{"a link that is set up", "no link is up", "link set up0 down; addr add 192.0.2.1/24 dev up0; link set up0 up"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := value(l.AddHost(t.Context(), 0))(t)
			ip := func(commands string) {
				for c := range strings.SplitSeq(commands, "; ") {
					testutil.Run(t, h.NS, "ip", strings.Fields(c)...)
				}
			}
			ip("link del eth0; link add up0 type bridge; link set up0 up; link set lo up")
			args := []string{"-store", "embed"}
			if strings.Contains(test.comes, "up1") {
				args = append(args, "-via", "up1")
			}
			n := start(t, h, args...)
			n.says(503, "the node has no prefix yet", test.want)
			if _, err := os.Stat(filepath.Join(n.state, "status.json")); err == nil {
				t.Error("it has left a state for boxes")
			}
			if out := testutil.Run(t, h.NS, "ip", "link"); strings.Contains(out, "fl0") {
				t.Errorf("without a network it has made\n%s", out)
			}
			ip(test.comes)
			n.ready(0)
			n.stop()
		})
	}
	t.Run("a default route", func(t *testing.T) {
		h := value(l.AddHost(t.Context(), 0))(t)
		n := prepare(t, h, "-store", "embed")
		testutil.Run(t, h.NS, "ip", "route", "del", "default")
		testutil.Run(t, h.NS, "ip", "-6", "route", "del", "default")
		testutil.Run(t, h.NS, "ip", "link", "add", "up0", "mtu", "9000", "type", "bridge")
		testutil.Run(t, h.NS, "ip", "addr", "add", "192.0.2.1/24", "dev", "up0")
		testutil.Run(t, h.NS, "ip", "link", "set", "up0", "up")
		n.begin()
		if s := n.ready(0); s.MTU != 9000-36 {
			t.Errorf("without a default route the MTU is %d, want that of all links", s.MTU)
		}
		testutil.Run(t, h.NS, "ip", "route", "add", "default", "via", "198.18.0.1")
		poll(t, "the MTU of the default route's link", func() (bool, string) {
			s := n.ready(0)
			return s.MTU == 1500-36, fmt.Sprint(s.MTU)
		})
		n.stop()
	})
}

// With all defaults, a machine with a default route is a node by itself, with and without IPv6.
func TestDefaultsAreEnough(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{true, false} {
		t.Run(fmt.Sprint("IPv6 ", v6), func(t *testing.T) {
			t.Parallel()
			l := labtest.New(t, lab.Options{Segments: []int{1}})
			h := l.Hosts[0]
			if !v6 {
				must(t, netns.IgnoreNotExist(h.NS.SetSysctl(t.Context(), "net/ipv6/conf/all/disable_ipv6", "1")))
				must(t, netns.IgnoreNotExist(h.NS.SetSysctl(t.Context(), "net/ipv6/conf/default/disable_ipv6", "1")))
			}
			dir := t.TempDir()
			n := &node{t: t, host: h, state: dir + "/state", socket: dir + "/run/agent.sock"}
			n.Process = h.Program("fleet", "agent", "-name", "lab", "-state", n.state, "-socket", n.socket)
			n.begin()
			families := 2
			if !v6 {
				families = 1 // what the first node has is what the fleet gets
			}
			if s := n.ready(0); len(s.Prefixes) != families || s.MTU != 1464 {
				t.Errorf("the node is %+v", s)
			}
			if out := strings.TrimSpace(n.Output()); strings.Count(out, "\n") > 0 || !strings.Contains(out, "level=INFO msg=ready fleet=lab") {
				t.Errorf("it says %q; want that it is ready, and nothing else", out)
			}
			if out := testutil.Run(t, h.NS, "ss", "-Htln"); strings.TrimSpace(out) != "" {
				t.Errorf("others can connect to\n%s", out)
			}
			n.stop()
			if _, err := os.Stat(n.socket); !os.IsNotExist(err) {
				t.Errorf("after its end the socket is there: %v", err)
			}
		})
	}
}

// One machine has one agent. The second one says so, whatever it shares with the first.
func TestTwoAgentsOfOneMachine(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{1}})
	h := l.Hosts[0]
	n := start(t, h, "-store", "embed")
	n.ready(0)
	before := kernel(t, h.NS)
	other := h.Dir + "/other"
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"the same state and socket", nil, "another agent of this network namespace has the link fl0: one machine has one agent"},
		{"another state and socket", []string{"-state", other, "-socket", other + "/s"}, "has the link fl0: one machine has one agent"},
		{"another link", []string{"-link", "fl1"}, "has routes of protocol 201: one machine has one agent"},
		{"another link and protocol", []string{"-link", "fl1", "-protocol", "202"}, "-socket"},
		{"another link, protocol and socket", []string{"-link", "fl1", "-protocol", "202", "-socket", other + "/s"}, "DIR/state/etcd: another store uses the directory"},
		{"another link, protocol, state and socket", []string{"-link", "fl1", "-protocol", "202", "-state", other, "-socket", other + "/s"}, "-pool"},
	} {
		p := prepare(t, h, append([]string{"-store", "embed"}, test.args...)...)
		code, out := end(t, p.Process)
		wantError(t, test.name, code, 1, out, strings.ReplaceAll(test.want, "DIR", h.Dir))
		if after := kernel(t, h.NS); after != before {
			t.Errorf("%s: the kernel has\n%s\nand had\n%s", test.name, after, before)
		}
	}
	n.ready(0)
	// A killed one leaves its socket, which the next replaces.
	must(t, n.Kill())
	if _, err := os.Stat(n.socket); err != nil {
		t.Error(err)
	}
	code, out := fleet(t, h, "ls", "-socket", n.socket)
	wantError(t, "ls", code, 1, out, "no agent runs there", "refused")
	n.begin()
	n.ready(0)
	if info := value(os.Stat(n.socket))(t); info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket's mode is %v", info.Mode())
	}
	for _, private := range []string{"", "/etcd.sock", "/identity.json", "/etcd"} {
		if info := value(os.Stat(n.state + private))(t); private != "/etcd.sock" && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others may use %s: %v", n.state+private, info.Mode())
		}
	}
}

// Flags that contradict the fleet's config are named, at the first start and at any other, with and without the store.
func TestFlagsThatContradictTheFleet(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2}})
	etcd := value(l.StartStore(t.Context(), l.Hosts[0]))(t)
	a := start(t, l.Hosts[0], on(etcd)...)
	a.ready(0)
	contradict := []string{"-vni", "9", "-size4", "25"}
	want := "the fleet exists with another config: size4 is 24 and not 25, vni is 7 and not 9; leave out what differs to join it"
	before := kernel(t, l.Hosts[1].NS)
	for _, round := range []string{"a new node", "one that has joined", "one that has joined, and no store"} {
		h := l.Hosts[1]
		if round != "a new node" {
			n := start(t, h, on(etcd)...)
			n.ready(1)
			n.stop()
			before = kernel(t, h.NS)
		}
		if strings.HasSuffix(round, "no store") {
			must(t, etcd.Kill())
		}
		code, out := end(t, prepare(t, h, append(on(etcd), contradict...)...).Process)
		wantError(t, round, code, 1, lines(out, "fleet "), want)
		if after := kernel(t, h.NS); after != before {
			t.Errorf("%s: the kernel has\n%s\nand had\n%s", round, after, before)
		}
	}
}

// lines are those with a beginning: a log may be between them.
func lines(out, begin string) string {
	var all []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, begin) {
			all = append(all, line)
		}
	}
	return strings.Join(all, "")
}

// Garbage in the store is named and never applied. A config that cannot be read is waited out.
func TestGarbageInTheStore(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{3}})
	etcd := value(l.StartStore(t.Context(), l.Hosts[0]))(t)
	c := value(etcd.Client(l.Hosts[0]))(t)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patient)
	defer cancel()
	put := func(key, value string) {
		t.Helper()
		_, err := c.Put(ctx, "/boxwire/fleet/lab/"+key, value)
		must(t, err)
	}
	a, b := start(t, l.Hosts[0], on(etcd)...), start(t, l.Hosts[1], on(etcd)...)
	a.ready(1)
	b.ready(1)
	before := kernel(t, l.Hosts[0].NS)
	id := state.NewID().String()
	for key, value := range map[string]string{
		"node/" + id:             `{"version":1,"id":"` + id + `","name":"evil\u001b[2J","endpoints":["127.0.0.1"],"mtu":1,"prefixes":["0.0.0.0/0"]}`,
		"node/short":             `{}`,
		"claim/0.0.0.0-0":        `{"version":1,"node":"` + id + `"}`,
		"claim/10.100.300.0-24":  `{}`,
		"claim/10.100.77.0-24":   "\x00\xff\x1b[2J",
		"alive/" + id:            `[`,
		"dead/" + id:             `null`,
		"what/\x1b[31m/is\nthis": `x`,
	} {
		put(key, value)
	}
	for _, name := range []string{"node/short", "claim/10.100.300.0-24", "claim/10.100.77.0-24", "alive/" + id, "what/"} {
		a.prints(name)
	}
	if out := a.Output(); strings.ContainsAny(out, "\x1b\x00") {
		t.Errorf("a log has raw control characters: %q", out)
	}
	if s := a.ready(1); len(s.Peers) != 1 {
		t.Errorf("the peers are %+v", s.Peers)
	}
	poll(t, "the garbage is counted", func() (bool, string) {
		skipped := metric(t, a, "boxwire_fleet_skipped", nil)
		return skipped == 7, fmt.Sprint(skipped, " keys are skipped")
	})
	if after := kernel(t, l.Hosts[0].NS); after != before {
		t.Errorf("after garbage the kernel has\n%s\nand had\n%s", after, before)
	}

	// The config itself.
	good := value(c.Get(ctx, "/boxwire/fleet/lab/config"))(t)
	put("config", `{"version":1,"pools":["0.0.0.0/0"]}`)
	a.prints("key=config")
	n := start(t, l.Hosts[2], on(etcd)...)
	n.says(503, "config", "want")
	b.stop()
	b.begin()
	b.says(503, "config")
	if after := kernel(t, l.Hosts[0].NS); after != before {
		t.Errorf("after a garbage config the kernel has\n%s\nand had\n%s", after, before)
	}
	put("config", string(good.Kvs[0].Value))
	n.ready(2)
	a.ready(2)
	b.ready(2)
}
