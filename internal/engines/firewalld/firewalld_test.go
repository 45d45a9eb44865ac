//go:build linux

// Package firewalld has the scenes with firewalld: boxes on a host whose zones decide what is forwarded.
package firewalld

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

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
	places    []reach.Place
	targets   []reach.Target
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
		_, err := h.Try("dbus-send", "--system", "--print-reply", "--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.ListNames")
		return err
	})
	h.firewalld = h.Daemon(t, "firewalld", "--nofork", "--nopid")
	h.ready(t)
	h.Host = boxes.New(t, h.Machine.NS)
	web, db := h.Add(t, "web", 2, 8080), h.Add(t, "db", 3)
	run := h.runBox(t)
	reach.Serve(t, h.LAN, "lan", 80)
	reach.Serve(t, h.Machine.NS, "host", 80)
	h.places = []reach.Place{{Name: "lan", NS: h.LAN}, {Name: "host", NS: h.Machine.NS}, web, db, run}
	h.targets = []reach.Target{
		reach.To("lan", "192.0.2.1:80", "[2001:db8:1::1]:80"),
		reach.To("host", "192.0.2.2:80", "[2001:db8:1::2]:80").OverTCP(),
		reach.To(":8080", "192.0.2.2:8080", "[2001:db8:1::2]:8080"),
		reach.To(":8090", "192.0.2.2:8090", "[2001:db8:1::2]:8090"),
		reach.To("web", "172.30.0.2:80", "[fd30::2]:80"),
		reach.To("db", "172.30.0.3:80", "[fd30::3]:80"),
		reach.To("run", "172.30.9.2:80", "[fd30:9::2]:80"),
	}
	h.neighbourKnowsTheWay(t)
	return h
}

// ready waits until firewalld has loaded its rules.
func (h *host) ready(t *testing.T) {
	t.Helper()
	h.firewalld.Ready(t, func() error {
		if out, err := h.Try("firewall-cmd", "--state"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		_, err := h.Try("nft", "list", "table", "inet", "firewalld")
		return err
	})
}

// runBox starts examples/run with a box on a bridge of its own.
func (h *host) runBox(t *testing.T) reach.Place {
	t.Helper()
	h.Build(t, "./examples/run")
	d := h.Daemon(t, "run", "-name", "run", "-bridge", "run0", "-subnet", "172.30.9.0/24", "-subnet", "fd30:9::/64",
		"-p", "8090:80", "-p", "8090:80/udp", "sleep", "infinity")
	d.Ready(t, func() error {
		if out := h.Run(t, "run", "ls"); !strings.Contains(out, "172.30.9.2") {
			return errors.New(out)
		}
		return nil
	})
	ns, err := netns.OpenPath(t.Context(), h.Path("/run/netns/run"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	reach.Serve(t, ns, "run", 80)
	return reach.Place{Name: "run", NS: ns}
}

// neighbourKnowsTheWay gives LAN routes to the boxes, which it must not reach nevertheless.
func (h *host) neighbourKnowsTheWay(t *testing.T) {
	t.Helper()
	boxes.Route(t, h.LAN, "192.0.2.2", "172.30.0.0/24", "172.30.9.0/24")
	boxes.Route(t, h.LAN, "2001:db8:1::2", "fd30::/64", "fd30:9::/64")
}

const (
	// closed is what firewalld leaves open to interfaces of its default zone.
	closed = `
	      lan  host  :8080  :8090  web  db  run
	lan   .    -     web    run    -    -   -
	host  lan  host  web    run    web  db  run
	web   -    -     web    run    web  db  -
	db    -    -     web    run    web  db  -
	run   -    -     web    run    -    -   run
	`
	// uplink is the same after the uplink was put into the zone by its name, as NetworkManager does:
	// interfaces of one zone forward to those that it names.
	uplink = `
	      lan  host  :8080  :8090  web  db  run
	lan   .    -     web    run    -    -   -
	host  lan  host  web    run    web  db  run
	web   lan  -     web    run    web  db  -
	db    lan  -     web    run    web  db  -
	run   lan  -     web    run    -    -   run
	`
	// open is the same with the bridges in the zone trusted.
	open = `
	      lan  host  :8080  :8090  web  db  run
	lan   .    -     web    run    -    -   -
	host  lan  host  web    run    web  db  run
	web   lan  host  web    run    web  db  -
	db    lan  host  web    run    web  db  -
	run   lan  host  web    run    -    -   run
	`
	// bridged is closed where the firewall sees what is bridged (br_netfilter): boxes do not reach
	// their siblings but by published ports.
	bridged = `
	      lan  host  :8080  :8090  web  db  run
	lan   .    -     web    run    -    -   -
	host  lan  host  web    run    web  db  run
	web   -    -     web    run    web  -   -
	db    -    -     web    run    -    db  -
	run   -    -     web    run    -    -   run
	`
)

func (h *host) check(t *testing.T, when, want string) {
	t.Helper()
	reach.Check(t, when, h.places, h.targets, want)
}

// rules is a ruleset without counters, by nft.
func (h *host) rules(t *testing.T, of ...string) string {
	t.Helper()
	return h.Run(t, "nft", append([]string{"-s", "list"}, of...)...)
}

// Boxes have no way out by firewalld's default zone, their published ports answer, and what Explain
// says opens the way. Reload, restart and kill of firewalld change nothing of ours.
func TestZones(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ours := h.rules(t, "table", "inet", "boxwire")
	same := func(when string) {
		t.Helper()
		if now := h.rules(t, "table", "inet", "boxwire"); now != ours {
			t.Errorf("%s our table has become\n%s\nwant\n%s", when, now, ours)
		}
	}
	h.check(t, "in the default zone", closed)

	for _, box := range []string{"172.30.0.2", "fd30::2"} {
		causes, err := h.NAT.ExplainOut(t.Context(), netip.MustParseAddr(box), netip.Addr{})
		t.Log(causes, err)
	}
	causes, err := h.NAT.Explain(t.Context(), nat.Port{Proto: nat.TCP, Host: netip.MustParseAddrPort("192.0.2.2:8080")}, nat.Hints{From: netip.MustParseAddr("192.0.2.1")})
	t.Log(causes, err)

	h.visits(t, "a reload", func() { h.Run(t, "firewall-cmd", "--reload") })
	h.check(t, "after a reload", closed)
	same("after a reload")
	if boxes.Bridged(t, h.Machine.NS, true) {
		h.check(t, "with br_netfilter", bridged)
		boxes.Bridged(t, h.Machine.NS, false)
	}
	h.Run(t, "firewall-cmd", "--zone=public", "--add-interface=eth0")
	h.check(t, "with the uplink in the zone public", uplink)
	h.Run(t, "firewall-cmd", "--set-default-zone=drop")
	h.check(t, "with the default zone drop", closed)
	h.Run(t, "firewall-cmd", "--set-default-zone=public")

	for _, bridge := range []string{"boxwire0", "run0"} {
		h.Run(t, "firewall-cmd", "--permanent", "--zone=trusted", "--add-interface="+bridge)
	}
	h.Run(t, "firewall-cmd", "--reload")
	h.check(t, "in the zone trusted", open)
	same("in the zone trusted")

	h.visits(t, "a complete reload", func() { h.Run(t, "firewall-cmd", "--complete-reload") })
	h.check(t, "after a complete reload", open)
	h.visits(t, "a restart", func() { h.firewalld.Restart(t); h.ready(t) })
	h.check(t, "after a restart", open)
	h.visits(t, "kill -9", func() { h.firewalld.Kill(t) })
	h.check(t, "while firewalld is dead", open)
	h.firewalld.Start(t)
	h.ready(t)
	h.check(t, "after a start", open)
	same("after all")
	theirs := h.rules(t, "table", "inet", "firewalld")
	if err := h.NAT.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := h.rules(t, "table", "inet", "firewalld"); now != theirs {
		t.Errorf("after Delete, firewalld's table is\n%s\nwant\n%s", now, theirs)
	}
}

// visits has visitors from outside come all the time while something is done. All of them are answered,
// and connections from before stay.
func (h *host) visits(t *testing.T, while string, do func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	at := netip.MustParseAddrPort("192.0.2.2:8080")
	before, err := reach.Dial(ctx, h.LAN, "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if _, _, err := before.Ask(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				if name, _, err := reach.Ask(ctx, h.LAN, "tcp", at); err != nil || name != "web" {
					t.Errorf("a visitor during %s gets %q: %v", while, name, err)
				}
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	do()
	close(done)
	wg.Wait()
	if name, _, err := before.Ask(ctx); err != nil || name != "web" {
		t.Errorf("a connection from before %s gets %q: %v", while, name, err)
	}
}
