//go:build linux

// Package ufw has the scenes with ufw: boxes on a host whose forward chain drops.
package ufw

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/boxes"
	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

func TestMain(m *testing.M) { machine.Main(m) }

// host is a machine with ufw and boxes.
type host struct {
	*machine.Machine
	*boxes.Host
	world reach.World
}

// newHost makes the boxes web, published on port 8080, and db.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{Machine: machine.New(t, machine.Config{
		Packages: []string{"ufw", "nftables", "iptables"}, Engine: "ufw", Version: []string{"ufw", "version"},
	})}
	h.Host = boxes.New(t, h.Machine.NS)
	web, db := h.Add(t, "web", 2, 8080), h.Add(t, "db", 3)
	boxes.Echo(t, web, ":7")
	h.Publish(t, "web", 2, 8007, 7)
	reach.Serve(t, h.LAN, "lan", ":80")
	reach.Serve(t, h.Machine.NS, "host", ":80")
	h.world = reach.World{
		Places:  map[string]*netns.NS{"lan": h.LAN, "host": h.Machine.NS, "web": web, "db": db},
		Targets: map[string]string{},
	}
	h.world.Add("lan", "192.0.2.1", "2001:db8:1::1", 80)
	for name, port := range map[string]uint16{"host": 80, ":8080": 8080} {
		h.world.Add(name, "192.0.2.2", "2001:db8:1::2", port)
	}
	h.world.Add("web", "172.30.0.2", "fd30::2", 80)
	h.world.Add("db", "172.30.0.3", "fd30::3", 80)
	boxes.Route(t, h.LAN, "192.0.2.2", "172.30.0.0/24")
	boxes.Route(t, h.LAN, "2001:db8:1::2", "fd30::/64")
	return h
}

const (
	// without is what the boxes have without ufw.
	without = `
	            lan   host  web   db
	both lan    .     lan   lan   lan
	tcp  host   host  host  host  host
	both :8080  web   web   web   web
	both web    -     web   web   web
	both db     -     db    db    db
	`
	// denied is what ufw leaves of it: the host reaches everything, and boxes of one bridge each other.
	denied = `
	            lan  host  web  db
	both lan    .    lan   -    -
	tcp  host   -    host  -    -
	both :8080  -    web   -    -
	both web    -    web   web  web
	both db     -    db    db   db
	`
	// accepted is after AcceptForward.
	accepted = `
	            lan  host  web  db
	both lan    .    lan   lan  lan
	tcp  host   -    host  -    -
	both :8080  web  web   web  web
	both web    -    web   web  web
	both db     -    db    db   db
	`
	// allowed is after AcceptForward and `ufw allow in on boxwire0`.
	allowed = `
	            lan  host  web   db
	both lan    .    lan   lan   lan
	tcp  host   -    host  host  host
	both :8080  web  web   web   web
	both web    -    web   web   web
	both db     -    db    db    db
	`
)

// save is the rules of iptables, without counters.
func (h *host) save(t *testing.T) string {
	t.Helper()
	return h.Run(t, "sh", "-c", "iptables-save; ip6tables-save")
}

// rules are the lines of save that are rules of a chain and have a text.
func (h *host) rules(t *testing.T, with string) (all []string) {
	t.Helper()
	for line := range strings.Lines(h.save(t)) {
		if strings.HasPrefix(line, "-A ") && strings.Contains(line, with) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

// ufw's default policies close the boxes' way in and out, Explain names its chain, and AcceptForward opens
// both, also after a reload.
func TestDefaultDeny(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.world.CheckBoth(t, "before ufw is enabled", without)
	h.Run(t, "ufw", "--force", "enable")
	h.Run(t, "ufw", "reload") // which adds rules to a chain that enable leaves empty
	h.world.CheckBoth(t, "after ufw was enabled", denied)
	theirs := h.save(t)

	to := map[string]string{"172.30.0.2": "192.0.2.2", "fd30::2": "2001:db8:1::2"}
	explain := func() (all nat.Causes) {
		t.Helper()
		for box, host := range to {
			out, err := h.NAT.ExplainOut(t.Context(), netip.MustParseAddr(box), netip.Addr{})
			port := nat.Port{Proto: nat.TCP, Host: netip.AddrPortFrom(netip.MustParseAddr(host), 8080)}
			in, err2 := h.NAT.Explain(t.Context(), port, nat.Hints{})
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			all = append(all, append(out, in...)...)
		}
		return all
	}
	causes := explain()
	if len(causes) != 4 {
		t.Errorf("Explain: %v", causes)
	}
	for _, c := range causes {
		if c.Kind != nat.CauseForeignDrop || !c.Certain || !strings.Contains(c.Text, "ufw") || !strings.Contains(c.Text, "AcceptForward") {
			t.Errorf("Explain: %v", c)
		}
	}

	if err := h.NAT.AcceptForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	if causes := explain(); len(causes) != 0 {
		t.Errorf("Explain after AcceptForward: %v", causes)
	}
	h.world.CheckBoth(t, "after AcceptForward", accepted)
	ours := h.rules(t, "table inet boxwire")
	stream := boxes.Connect(t, h.LAN, "192.0.2.2:8007")
	boxes.Visit(t, h.LAN, "192.0.2.2:8080", "web", "a reload", func() { h.Run(t, "ufw", "reload") })
	stream.Check(t, "after a reload")
	h.world.CheckBoth(t, "after a reload", accepted)
	if now := h.rules(t, "table inet boxwire"); strings.Join(now, "\n") != strings.Join(ours, "\n") {
		t.Errorf("after a reload AcceptForward's rules are\n%s\nwere\n%s", strings.Join(now, "\n"), strings.Join(ours, "\n"))
	}

	for box, host := range to {
		causes, err := h.NAT.ExplainOut(t.Context(), netip.MustParseAddr(box), netip.MustParseAddr(host))
		if err != nil || len(causes) != 1 || !strings.Contains(causes[0].Text, "`ufw allow in on boxwire0`") {
			t.Errorf("Explain of the host's services: %v, %v", causes, err)
		}
	}
	h.Run(t, "ufw", "allow", "in", "on", "boxwire0")
	h.world.CheckBoth(t, "after ufw allows the bridge", allowed)
	h.Run(t, "ufw", "delete", "allow", "in", "on", "boxwire0")

	if err := h.NAT.RevokeForward(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.world.CheckBoth(t, "after RevokeForward", denied)
	if now, was := stripped(h.save(t)), stripped(theirs); now != was {
		t.Errorf("of ufw's rules is gone\n%s\nand new\n%s", missing(was, now), missing(now, was))
	}

	// What a user of ufw does without AcceptForward.
	h.Run(t, "ufw", "route", "allow", "in", "on", "boxwire0")
	h.Run(t, "ufw", "route", "allow", "out", "on", "boxwire0")
	h.world.CheckBoth(t, "after ufw's routes allow the bridge", accepted)
	h.Run(t, "ufw", "--force", "reset")
	h.world.CheckBoth(t, "after ufw was reset", without)
}

// missing are the lines of a text that another does not have.
func missing(of, in string) string {
	has := map[string]bool{}
	for line := range strings.Lines(in) {
		has[line] = true
	}
	var b strings.Builder
	for line := range strings.Lines(of) {
		if !has[line] {
			b.WriteString(line)
		}
	}
	return b.String()
}

// stripped is a save without counters and dates.
func stripped(save string) string {
	var b strings.Builder
	for line := range strings.Lines(save) {
		if !strings.HasPrefix(line, "#") {
			line, _, _ = strings.Cut(line, " [")
			b.WriteString(strings.TrimSpace(line) + "\n")
		}
	}
	return b.String()
}
