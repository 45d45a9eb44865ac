//go:build linux

// Package netavark has the scenes with podman whose networks are netavark's, beside boxes of the library.
package netavark

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/boxes"
	"github.com/boxwire/boxwire/internal/engines/containers"
	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/netns"
)

func TestMain(m *testing.M) { machine.Main(m) }

// host is a machine with podman, networks of netavark, and boxes of the library.
type host struct {
	*machine.Machine
	ours   *boxes.Host
	podman *containers.Podman
	world  reach.World
}

// networks are netavark's: inner is --internal.
var networks = []string{"front", "back", "inner"}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{Machine: machine.New(t, machine.Config{
		Packages: append([]string{"netavark", "aardvark-dns"}, containers.Packages...), Engine: "netavark",
		Version: []string{"/usr/lib/podman/netavark", "--version"},
	})}
	h.podman = containers.New(t, h.Machine, "netavark")
	h.world = reach.World{
		Places:  map[string]*netns.NS{"lan": h.LAN, "host": h.Machine.NS},
		Targets: map[string]string{},
	}
	reach.Serve(t, h.LAN, "lan", ":80")
	reach.Serve(t, h.Machine.NS, "host", ":80")
	h.world.Add("lan", "192.0.2.1", "2001:db8:1::1", 80)
	h.world.Add("host", "192.0.2.2", "2001:db8:1::2", 80)
	for _, port := range []uint16{8070, 8080, 8090} {
		h.world.Add(fmt.Sprintf(":%d", port), "192.0.2.2", "2001:db8:1::2", port)
	}
	// The neighbour knows the way to boxes and containers.
	boxes.Route(t, h.LAN, "192.0.2.2", "172.30.0.0/16", "172.31.0.0/16")
	boxes.Route(t, h.LAN, "2001:db8:1::2", "fd30::/16", "fd31::/16")
	return h
}

// addOurs makes the boxes lib, published on port 8070 by the library, and run, published on port 8090 by the
// program examples/run.
func (h *host) addOurs(t *testing.T) {
	t.Helper()
	h.ours = boxes.New(t, h.Machine.NS)
	h.world.Places["lib"] = h.ours.Add(t, "lib", 2, 8070)
	h.world.Add("lib", "172.30.0.2", "fd30::2", 80)
	h.Build(t, "./examples/run")
	d := h.Daemon(t, "run", "-name", "run", "-bridge", "run0", "-subnet", "172.30.9.0/24", "-subnet", "fd30:9::/64",
		"-p", "8090:80", "-p", "8090:80/udp", "sleep", "infinity")
	d.Ready(t, func() error {
		if out, err := h.Try("run", "ls"); err != nil || !strings.Contains(out, "172.30.9.2") {
			return errors.New(out)
		}
		return nil
	})
	ns, err := netns.OpenPath(t.Context(), h.Path("/run/netns/run"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	reach.Serve(t, ns, "run", ":80")
	h.world.Places["run"] = ns
	h.world.Add("run", "172.30.9.2", "fd30:9::2", 80)
}

// addTheirs makes the containers web, published on port 8080, peer, other and sealed.
func (h *host) addTheirs(t *testing.T) {
	t.Helper()
	for i, name := range networks {
		args := []string{"network", "create", "--ipv6", "--disable-dns", "--subnet", fmt.Sprintf("172.31.%d.0/24", i+1), "--subnet", fmt.Sprintf("fd31:%d::/64", i+1)}
		if name == "inner" {
			args = append(args, "--internal")
		}
		h.podman.Do(t, append(args, name)...)
	}
	h.podman.Start(t, "web", "--network", "front", "-p", "8080:80", "-p", "8080:80/udp")
	h.podman.Start(t, "peer", "--network", "front")
	h.podman.Start(t, "other", "--network", "back")
	h.podman.Start(t, "sealed", "--network", "inner")
	h.know(t)
}

// know takes over the containers' namespaces and addresses. It keeps the bridges' hardware addresses as they
// are, as udev does on a host: otherwise they are the lowest of the ports', and change when a container goes.
// Its neighbours would then send to the old one for a while.
func (h *host) know(t *testing.T) {
	t.Helper()
	const pin = `for b in /sys/class/net/podman*; do ip link set "${b##*/}" address "$(cat $b/address)"; grep -q 3 $b/addr_assign_type; done`
	h.Run(t, "sh", "-ec", pin)
	for name, network := range map[string]string{"web": "front", "peer": "front", "other": "back", "sealed": "inner"} {
		h.world.Places[name] = h.podman.NS(t, name)
		v4, v6 := h.podman.Addrs(t, name, network)
		h.world.Add(name, v4, v6, 80)
	}
}

// table is who reaches whom. netavark keeps nobody from a container by its address, but for those of an
// internal network, whose bridge has no address.
const table = `
	              lan   host  lib   run   web   peer  other sealed
	both lan      .     lan   lan   lan   lan   lan   lan   -
	tcp  host     host  host  host  host  host  host  host  -
	both :8070    lib   lib   lib   lib   lib   lib   lib   -
	both :8090    run   run   run   run   run   run   run   -
	both :8080    web   web   web   web   web   web   web   -
	both lib      -     lib   lib   -     -     -     -     -
	both run      -     run   -     run   -     -     -     -
	both web      web   web   web   web   web   web   web   -
	both other    other other other other other other other -
	both sealed   -     -     -     -     -     -     -     sealed
`

// closed is table on a host that began to forward for boxes: the neighbour does not use it as a router.
var closed = strings.NewReplacer("both web      web ", "both web      -   ", "both other    other", "both other    -    ").Replace(table)

// iptables is netavark's rules, without counters and dates.
func (h *host) iptables(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(h.Run(t, "sh", "-c", "iptables-save; ip6tables-save")) {
		if !strings.HasPrefix(line, "#") {
			line, _, _ = strings.Cut(line, " [")
			b.WriteString(strings.TrimSpace(line) + "\n")
		}
	}
	return b.String()
}

// tables is the library's tables, without counters, and without the record of netavark's bridges: a bridge
// that is made again does not forward, or netavark has set it apart, and examples/run makes it forward as each
// link of the host.
func (h *host) tables(t *testing.T) string {
	t.Helper()
	text := h.Run(t, "sh", "-c", "nft -s list table inet boxwire; nft -s list table inet boxwire-run")
	text = regexp.MustCompile(`"podman[0-9]+"( \. "podman[0-9]+")?( comment "[^"]*")?,?\s*`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`,\s*\}`).ReplaceAllString(text, " }")
	return regexp.MustCompile(`\t*elements = \{ \}\n`).ReplaceAllString(text, "")
}

func same(t *testing.T, what, now, was string) {
	t.Helper()
	if now != was {
		t.Errorf("%s is\n%s\nwas\n%s", what, now, was)
	}
}

// Containers of netavark and boxes reach the same whoever came first, and whatever is restarted, reloaded,
// killed or flushed. Each leaves the other's rules as they were when it goes.
func TestBeside(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.addTheirs(t)
	theirs := h.iptables(t)
	h.addOurs(t)
	boxes.Echo(t, h.world.Places["lib"], ":7")
	h.ours.Publish(t, "lib", 2, 8007, 7)
	ours := h.tables(t)
	h.world.CheckBoth(t, "theirs first", table)
	same(t, "netavark's ruleset beside ours", h.iptables(t), theirs)

	stream := boxes.Connect(t, h.LAN, "192.0.2.2:8007")
	boxes.Visit(t, h.LAN, "192.0.2.2:8070", "lib", "podman network reload", func() { h.podman.Do(t, "network", "reload", "--all") })
	stream.Check(t, "after podman network reload")
	h.know(t)
	h.world.CheckBoth(t, "after podman network reload", table)
	boxes.Visit(t, h.LAN, "192.0.2.2:8070", "lib", "a restart of the containers", func() { h.podman.Do(t, "restart", "-t", "10", "--all") })
	h.know(t)
	h.world.CheckBoth(t, "after a restart of the containers", table)
	h.podman.Do(t, "kill", "-s", "KILL", "web")
	machine.Until(t, "the end of the rules of a killed container", func() error {
		if rules := h.iptables(t); strings.Contains(rules, "--dport 8080") {
			return errors.New(rules)
		}
		return nil
	})
	h.podman.Do(t, "start", "web")
	h.know(t)
	h.world.CheckBoth(t, "after kill -9 of a container", table)
	same(t, "our ruleset after all that", h.tables(t), ours)

	// The boxes of the program go with kill -9 of the program, and gc takes away what it leaves.
	h.Run(t, "run", "rm", "run")
	h.Run(t, "run", "gc")
	if err := h.ours.NAT.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.world.CheckBoth(t, "when ours have gone", `
		              lan   host  web   peer  other sealed
		both lan      .     lan   lan   lan   lan   -
		tcp  host     host  host  host  host  host  -
		both :8080    web   web   web   web   web   -
		both :8070    -     -     -     -     -     -
		both :8090    -     -     -     -     -     -
		both web      web   web   web   web   web   -
		both other    other other other other other -
		both sealed   -     -     -     -     -     sealed
	`)
	if now := h.iptables(t); sorted(now) != sorted(theirs) {
		t.Errorf("netavark's ruleset when ours has gone is\n%s\nwas\n%s", now, theirs)
	}
}

// sorted is a ruleset as a set of lines, without what a restart changes: the addresses and ids of containers.
func sorted(rules string) string {
	lines := slices.Sorted(strings.Lines(regexp.MustCompile("[0-9a-f]{64}|(172.31.1|fd31:1:)[.:][0-9]+").ReplaceAllString(rules, "X")))
	return strings.Join(lines, "")
}

// Ours first; then everything is flushed, and each brings back its own. A forward chain that drops
// is opened for ours by AcceptForward, and no further.
func TestBesideInTheOtherOrder(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.addOurs(t)
	h.addTheirs(t)
	h.world.CheckBoth(t, "ours first", closed)

	// examples/run repairs its table by itself, as NAT.Maintain does.
	h.Run(t, "nft", "flush", "ruleset")
	if err := h.ours.NAT.Sync(t.Context(), h.ours.State()); err != nil {
		t.Fatal(err)
	}
	h.podman.Do(t, "network", "reload", "--all")
	h.know(t)
	h.world.CheckBoth(t, "after nft flush ruleset", table)

	for _, tool := range []string{"iptables", "ip6tables"} {
		h.Run(t, tool, "-P", "FORWARD", "DROP")
	}
	// netavark 1.4 accepts what its containers begin, and not what is published.
	h.world.CheckBoth(t, "with the policy DROP", `
		              lan   host  lib   peer  sealed
		both lan      .     lan   -     lan   -
		both :8070    -     lib   -     lib   -
		both :8080    -     web   -     web   -
		both lib      -     lib   lib   -     -
		both web      -     web   -     web   -
	`)
	if err := h.ours.NAT.AcceptForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.world.CheckBoth(t, "with AcceptForward", `
		              lan   host  lib   peer  other sealed
		both lan      .     lan   lan   lan   lan   -
		both :8070    lib   lib   lib   lib   lib   -
		both :8080    -     web   -     web   web   -
		both lib      -     lib   lib   -     -     -
		both web      -     web   -     web   web   -
		both other    -     other -     other other -
		both sealed   -     -     -     -     -     sealed
	`)
	if err := h.ours.NAT.RevokeForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rules := h.iptables(t); strings.Contains(rules, "boxwire") {
		t.Errorf("after RevokeForward:\n%s", rules)
	}
	for _, tool := range []string{"iptables", "ip6tables"} {
		h.Run(t, tool, "-P", "FORWARD", "ACCEPT")
	}

	// Theirs go, and ours stay.
	ours := h.tables(t)
	h.podman.Remove(t, "--all")
	for _, name := range networks {
		h.podman.Do(t, "network", "rm", name)
	}
	same(t, "our ruleset when theirs have gone", h.tables(t), ours)
	h.world.CheckBoth(t, "when theirs have gone", `
		              lan   host  lib   run
		both lan      .     lan   lan   lan
		both :8070    lib   lib   lib   lib
		both :8090    run   run   run   run
		both :8080    -     -     -     -
		both lib      -     lib   lib   -
	`)
}
