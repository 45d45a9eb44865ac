//go:build linux

// Package firewalld has the scenes with firewalld: boxes on a host whose zones decide what is forwarded.
package firewalld

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/boxes"
	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

func TestMain(m *testing.M) { machine.Main(m) }

// host is a machine with firewalld and boxes.
type host struct {
	*machine.Machine
	*boxes.Host
	firewalld *machine.Daemon
	world     reach.World
}

// newHost starts firewalld, and then makes the boxes web, published on port 8080, and db, and run, a
// box of the program examples/run, published on port 8090.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{Machine: machine.New(t, machine.Config{
		Packages: []string{"firewalld", "dbus", "nftables", "iptables"}, Engine: "firewalld", Version: []string{"firewall-offline-cmd", "--version"},
	})}
	h.Run(t, "mkdir", "-p", "/run/dbus")
	bus := h.Daemon(t, "dbus-daemon", "--system", "--nofork", "--nopidfile")
	bus.Ready(t, func() error {
		out, err := h.Try("dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.ListNames")
		return said(out, err)
	})
	h.firewalld = h.Daemon(t, "firewalld", "--nofork", "--nopid")
	h.ready(t)

	h.Host = boxes.New(t, h.Machine.NS)
	web, db := h.Add(t, "web", 2, 8080), h.Add(t, "db", 3)
	boxes.Echo(t, web, ":7")
	h.Publish(t, "web", 2, 8007, 7)
	h.world = reach.World{
		Places:  map[string]*netns.NS{"lan": h.LAN, "host": h.Machine.NS, "web": web, "db": db, "run": h.runBox(t)},
		Targets: map[string]string{},
	}
	reach.Serve(t, h.LAN, "lan", ":80")
	reach.Serve(t, h.Machine.NS, "host", ":80")
	h.world.Add("lan", "192.0.2.1", "2001:db8:1::1", 80)
	for name, port := range map[string]uint16{"host": 80, ":8080": 8080, ":8090": 8090} {
		h.world.Add(name, "192.0.2.2", "2001:db8:1::2", port)
	}
	h.world.Add("web", "172.30.0.2", "fd30::2", 80)
	h.world.Add("db", "172.30.0.3", "fd30::3", 80)
	h.world.Add("run", "172.30.9.2", "fd30:9::2", 80)
	// The neighbour knows the way to the boxes, and must not reach them.
	boxes.Route(t, h.LAN, "192.0.2.2", "172.30.0.0/24", "172.30.9.0/24")
	boxes.Route(t, h.LAN, "2001:db8:1::2", "fd30::/64", "fd30:9::/64")
	return h
}

// said is an error with what the program wrote.
func said(out string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// ready waits until firewalld has loaded its rules.
func (h *host) ready(t *testing.T) {
	t.Helper()
	h.firewalld.Ready(t, func() error {
		if out, err := h.Try("firewall-cmd", "--state"); err != nil {
			return said(out, err)
		}
		return said(h.Try("nft", "list", "table", "inet", "firewalld"))
	})
}

// runBox starts examples/run with a box on a bridge of its own.
func (h *host) runBox(t *testing.T) *netns.NS {
	t.Helper()
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
	return ns
}

const (
	// closed is what firewalld leaves open to interfaces of its default zone.
	closed = `
	            lan  host  web  db   run
	both lan    .    lan   -    -    -
	tcp  host   -    host  -    -    -
	both :8080  web  web   web  web  web
	both :8090  run  run   run  run  run
	both web    -    web   web  web  -
	both db     -    db    db   db   -
	both run    -    run   -    -    run
	`
	// uplink is the same after the uplink was put into the zone by its name, as NetworkManager does:
	// interfaces of one zone forward to those that it names.
	uplink = `
	            lan  host  web  db   run
	both lan    .    lan   lan  lan  lan
	tcp  host   -    host  -    -    -
	both :8080  web  web   web  web  web
	both :8090  run  run   run  run  run
	both web    -    web   web  web  -
	both db     -    db    db   db   -
	both run    -    run   -    -    run
	`
	// open is the same with the bridges in the zone trusted.
	open = `
	            lan  host  web   db    run
	both lan    .    lan   lan   lan   lan
	tcp  host   -    host  host  host  host
	both :8080  web  web   web   web   web
	both :8090  run  run   run   run   run
	both web    -    web   web   web   -
	both db     -    db    db    db    -
	both run    -    run   -     -     run
	`
	// bridged is closed where the firewall sees what is bridged (br_netfilter): boxes do not reach
	// their siblings but by published ports.
	bridged = `
	            lan  host  web  db   run
	both lan    .    lan   -    -    -
	tcp  host   -    host  -    -    -
	both :8080  web  web   web  web  web
	both :8090  run  run   run  run  run
	both web    -    web   web  -    -
	both db     -    db    -    db   -
	both run    -    run   -    -    run
	`
)

// rules is a table without counters, by nft.
func (h *host) rules(t *testing.T, table string) string {
	t.Helper()
	return h.Run(t, "nft", "-s", "list", "table", "inet", table)
}

// same wants a table as it was.
func (h *host) same(t *testing.T, when, table, was string) {
	t.Helper()
	if now := h.rules(t, table); now != was {
		t.Errorf("%s, table inet %s is\n%s\nwant\n%s", when, table, now, was)
	}
}

// Boxes have no way out by firewalld's default zone, and their published ports answer. The command that
// ExplainOut names opens the way. Reload, restart and kill -9 of firewalld change nothing of ours, lose no
// visitor and end no connection. Delete changes nothing of firewalld's.
func TestZones(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ours := h.rules(t, "boxwire")
	visitors := func(while string, do func()) {
		t.Helper()
		stream := boxes.Connect(t, h.LAN, "192.0.2.2:8007")
		boxes.Visit(t, h.LAN, "192.0.2.2:8080", "web", while, do)
		stream.Check(t, "after "+while)
		h.same(t, "after "+while, "boxwire", ours)
	}
	h.world.CheckBoth(t, "in the default zone", closed)
	commands := h.explain(t)

	visitors("a reload", func() { h.Run(t, "firewall-cmd", "--reload") })
	h.world.CheckBoth(t, "after a reload", closed)
	if boxes.Bridged(t, h.Machine.NS, true) {
		h.world.CheckBoth(t, "with br_netfilter", bridged)
		boxes.Bridged(t, h.Machine.NS, false)
	}
	h.Run(t, "firewall-cmd", "--zone=public", "--add-interface=eth0")
	h.world.CheckBoth(t, "with the uplink in the zone public", uplink)
	h.Run(t, "firewall-cmd", "--set-default-zone=drop")
	h.world.CheckBoth(t, "with the default zone drop", closed)
	h.Run(t, "firewall-cmd", "--set-default-zone=public")

	for _, command := range commands {
		h.Run(t, "sh", "-c", command)
	}
	h.Run(t, "firewall-cmd", "--permanent", "--zone=trusted", "--add-interface=run0")
	h.Run(t, "firewall-cmd", "--reload")
	h.world.CheckBoth(t, "in the zone trusted", open)
	if causes := h.causes(t); len(causes) != 0 {
		t.Errorf("in the zone trusted: %v", causes)
	}

	boxes.Echo(t, h.LAN, ":7")
	out := boxes.Connect(t, h.world.Places["db"], "[2001:db8:1::1]:7")
	visitors("a reload in the zone trusted", func() { h.Run(t, "firewall-cmd", "--reload") })
	visitors("a restart", func() { h.firewalld.Restart(t); h.ready(t) })
	h.world.CheckBoth(t, "after a restart", open)
	visitors("kill -9", func() { h.firewalld.Kill(t) })
	h.world.CheckBoth(t, "while firewalld is dead", open)
	visitors("a start", func() { h.firewalld.Start(t); h.ready(t) })
	h.world.CheckBoth(t, "after a start", open)
	out.Check(t, "a box's own, after all that")

	theirs := h.rules(t, "firewalld")
	if err := h.NAT.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.same(t, "after Delete", "firewalld", theirs)
}

// causes is what Explain and ExplainOut say of the boxes of the library.
func (h *host) causes(t *testing.T) (all nat.Causes) {
	t.Helper()
	for box, at := range map[string]string{"172.30.0.2": "192.0.2.2", "fd30::2": "2001:db8:1::2"} {
		host := netip.MustParseAddr(at)
		for _, to := range []netip.Addr{{}, host} {
			causes, err := h.NAT.ExplainOut(t.Context(), netip.MustParseAddr(box), to)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, causes...)
		}
		causes, err := h.NAT.Explain(t.Context(), nat.Port{Proto: nat.TCP, Host: netip.AddrPortFrom(host, 8080)}, nat.Hints{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, causes...)
	}
	return all
}

// explain wants firewalld named as the cause for the ways out and to the host, in both families, and
// nothing for the published port. It returns the commands of the texts.
func (h *host) explain(t *testing.T) (commands []string) {
	t.Helper()
	causes := h.causes(t)
	for _, c := range causes {
		if c.Kind != nat.CauseForeignDrop || !c.Certain || !strings.Contains(c.Text, "firewalld") {
			t.Errorf("Explain: %v", c)
		}
	}
	if len(causes) != 4 {
		t.Fatalf("%d causes, want 4: %v", len(causes), causes)
	}
	for _, quoted := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(causes[0].Text, -1) {
		commands = append(commands, quoted[1])
	}
	return commands
}

// A policy of firewalld from a zone of the boxes opens the way out and not the host.
func TestPolicyFromAZone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, args := range []string{
		"--new-zone=boxes", "--zone=boxes --add-interface=boxwire0", "--zone=boxes --add-interface=run0",
		"--new-policy=out", "--policy=out --add-ingress-zone=boxes", "--policy=out --add-egress-zone=ANY", "--policy=out --set-target=ACCEPT",
	} {
		h.Run(t, "firewall-cmd", append([]string{"--permanent"}, strings.Fields(args)...)...)
	}
	h.Run(t, "firewall-cmd", "--reload")
	h.world.CheckBoth(t, "with a policy", uplink)
}
