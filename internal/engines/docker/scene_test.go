package docker

import (
	"net/netip"
	"regexp"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// everyone is who reaches whom when both are there. The columns are the LAN, the host, two boxes of ours, and containers
// of theirs: with a published port, without one, and in the internal network. The LAN has routes to all subnets. That
// containers get no UDP from the host's published port, and reach the host from the internal network, is Docker's doing.
const everyone = `
	             lan   host  web   db    open  shut  inner
	tcp pub4     web   web   web   web   web   web   -
	udp pub4     web   web   web   web   web   web   -
	tcp pub6     web   web   web   web   web   web   -
	udp pub6     web   web   web   web   web   web   -
	tcp web4     -     web   web   web   -     -     -
	udp web4     -     web   web   web   -     -     -
	tcp web6     -     web   web   web   -     -     -
	tcp db4      -     db    db    db    -     -     -
	tcp dpub4    open  open  open  open  open  open  -
	udp dpub4    open  open  open  open  -     -     -
	tcp dpub6    open  open  open  open  open  open  -
	tcp open4    open  open  open  open  open  open  -
	tcp open6    open  open  open  open  open  open  -
	tcp pod4     -     pod   -     -     pod   pod   -
	tcp shut4    -     shut  -     -     shut  shut  -
	udp shut4    -     shut  -     -     shut  shut  -
	tcp shut6    -     shut  -     -     shut  shut  -
	tcp inner4   -     inner -     -     -     -     inner
	udp inner4   -     inner -     -     -     -     inner
	tcp inner6   -     inner -     -     -     -     inner
	tcp lan4     lan   lan   lan@192.0.2.2 lan@192.0.2.2 lan@192.0.2.2 lan@192.0.2.2 -
	udp lan4     lan   lan   lan@192.0.2.2 lan@192.0.2.2 lan@192.0.2.2 lan@192.0.2.2 -
	tcp lan6     lan   lan   lan@2001:db8:1::2 lan@2001:db8:1::2 lan@2001:db8:1::2 lan@2001:db8:1::2 -
	tcp host4    host  host  host  host  host  host  host
`

// theirs is the part of it that is there without boxes.
const theirs = `
	             lan   host  open  shut  inner
	tcp pub4     -     -     -     -     -
	tcp dpub4    open  open  open  open  -
	udp dpub4    open  open  -     -     -
	tcp dpub6    open  open  open  open  -
	tcp open4    open  open  open  open  -
	tcp open6    open  open  open  open  -
	tcp pod4     -     pod   pod   pod   -
	tcp shut4    -     shut  shut  shut  -
	tcp shut6    -     shut  shut  shut  -
	tcp inner4   -     inner -     -     inner
	tcp inner6   -     inner -     -     inner
	tcp lan4     lan   lan   lan@192.0.2.2 lan@192.0.2.2 -
	tcp lan6     lan   lan   lan@2001:db8:1::2 lan@2001:db8:1::2 -
	tcp host4    host  host  host  host  host
`

// ours is the part of it that does not depend on Docker.
const ours = `
	             lan   host  web   db
	tcp pub4     web   web   web   web
	udp pub4     web   web   web   web
	tcp pub6     web   web   web   web
	udp pub6     web   web   web   web
	tcp web4     -     web   web   web
	tcp web6     -     web   web   web
	tcp db4      -     db    db    db
	tcp lan4     lan   lan   lan@192.0.2.2 lan@192.0.2.2
	tcp lan6     lan   lan   lan@2001:db8:1::2 lan@2001:db8:1::2
	tcp host4    host  host  host  host
`

// cutOff is ours as long as Docker's FORWARD drops what it does not know: with net.bridge.bridge-nf-call-iptables, which
// dockerd sets, also what goes from box to box.
const cutOff = `
	             lan   host  web   db
	tcp pub4     -     web   .     .
	tcp pub6     -     web   .     .
	tcp web4     -     web   web   -
	tcp web6     -     web   web   -
	tcp lan4     lan   lan   -     -
	tcp lan6     lan   lan   -     -
	tcp host4    host  host  host  host
`

// world is the names of the tables. Of boxes and engine one may be nil.
func world(t *testing.T, m *machine.Machine, b *boxes, e *engine) reach.World {
	t.Helper()
	w := reach.World{
		Places: map[string]*netns.NS{"lan": m.LAN, "host": m.NS},
		Targets: map[string]string{
			"pub4": "192.0.2.2:8080", "pub6": "[2001:db8:1::2]:8080",
			"web4": "172.30.0.2:80", "web6": "[fd30::2]:80", "db4": "172.30.0.3:80",
			"lan4": "192.0.2.1:80", "lan6": "[2001:db8:1::1]:80", "host4": "192.0.2.2:90",
		},
	}
	if b != nil {
		w.Places["web"], w.Places["db"] = b.web, b.db
	}
	if e == nil {
		return w
	}
	for _, name := range []string{"open", "shut", "inner"} {
		w.Places[name] = e.ns(t, name)
		w.Targets[name+"4"] = e.addr4(t, name) + ":80"
		w.Targets[name+"6"] = "[" + e.addr6(t, name) + "]:80"
	}
	w.Targets["pod4"] = e.addr4(t, "open") + ":81"
	w.Targets["dpub4"], w.Targets["dpub6"] = "192.0.2.2:8081", "[2001:db8:1::2]:8081"
	return w
}

// serveAround starts the servers of the LAN and of the host, and gives the LAN routes to everything behind the host.
func serveAround(t *testing.T, m *machine.Machine) {
	t.Helper()
	reach.Serve(t, m.LAN, "lan", ":80")
	reach.Serve(t, m.NS, "host", ":90")
	err := route.Add(t.Context(), m.LAN,
		route.Route{Dst: netip.MustParsePrefix("172.16.0.0/12"), Via: netip.MustParseAddr("192.0.2.2")},
		route.Route{Dst: netip.MustParsePrefix("fc00::/7"), Via: netip.MustParseAddr("2001:db8:1::2")})
	if err != nil {
		t.Fatal(err)
	}
}

// counters are what a listing has of packets.
var counters = regexp.MustCompile(`\[\d+:\d+\]|counter packets \d+ bytes \d+|(?m)^#.*$`)

// rules are the machine's rules without counters.
func rules(t *testing.T, m *machine.Machine) string {
	t.Helper()
	var all string
	for _, tool := range []string{"nft list ruleset", "iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
		all += tool + ":\n" + m.Run(t, "sh", "-c", tool)
	}
	return counters.ReplaceAllString(all, "")
}

// unchanged fails the test if the machine's rules are not those of before.
func unchanged(t *testing.T, m *machine.Machine, before string) {
	t.Helper()
	if after := rules(t, m); after != before {
		t.Errorf("the rules were:\n%s\nand are:\n%s", before, after)
	}
}
