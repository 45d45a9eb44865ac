package containerd

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// everyone is who reaches whom: from the LAN, which has routes to all subnets, from the host, from the pods web, with a
// published port, and other, and from the box db of ours, which is published, too.
const everyone = `
	             lan            host  web   other db
	tcp pub4     web@192.0.2.1  web   web   web   web
	udp pub4     web@192.0.2.1  web   web   web   web
	tcp pub6     web@2001:db8:1::1 web web  web   web
	udp pub6     web@2001:db8:1::1 web web  web   web
	tcp web4     -              web   web   web   -
	udp web4     -              web   web   web   -
	tcp web6     -              web   web   web   -
	tcp other4   -              other other other -
	udp other4   -              other other other -
	tcp other6   -              other other other -
	tcp boxpub4  db@192.0.2.1   db    db    db    db
	udp boxpub4  db@192.0.2.1   db    db    db    db
	tcp boxpub6  db             db    db    db    db
	tcp db4      -              db    -     -     db
	tcp db6      -              db    -     -     db
	tcp lan4     lan            lan   lan@192.0.2.2 lan@192.0.2.2 lan@192.0.2.2
	udp lan4     lan            lan   lan@192.0.2.2 lan@192.0.2.2 lan@192.0.2.2
	tcp lan6     lan            lan   lan@2001:db8:1::2 lan@2001:db8:1::2 lan@2001:db8:1::2
	tcp host4    host           host  host  host  host
`

// withoutWeb is the part of it that is there without the pod web.
const withoutWeb = `
	             lan            host  other db
	tcp pub4     -              -     -     -
	udp pub4     -              -     -     -
	tcp pub6     -              -     -     -
	tcp web4     -              -     -     -
	tcp other4   -              other other -
	tcp other6   -              other other -
	tcp boxpub4  db@192.0.2.1   db    db    db
	tcp boxpub6  db             db    db    db
	tcp lan4     lan            lan   lan@192.0.2.2 lan@192.0.2.2
	tcp host4    host           host  host  host
`

// ours is the part of it that is there without pods.
const ours = `
	             lan            host  db
	tcp pub4     -              -     -
	tcp web4     -              -     -
	tcp boxpub4  db@192.0.2.1   db    db
	udp boxpub4  db@192.0.2.1   db    db
	tcp boxpub6  db             db    db
	tcp db4      -              db    db
	tcp db6      -              db    db
	tcp lan4     lan            lan   lan@192.0.2.2
	tcp lan6     lan            lan   lan@2001:db8:1::2
	tcp host4    host           host  host
`

// theirs is the part of it that is there without boxes.
const theirs = `
	             lan            host  web   other
	tcp pub4     web@192.0.2.1  web   web   web
	udp pub4     web@192.0.2.1  web   web   web
	tcp pub6     web@2001:db8:1::1 web web  web
	tcp web4     -              web   web   web
	tcp web6     -              web   web   web
	tcp other4   -              other other other
	tcp boxpub4  -              -     -     -
	tcp db4      -              -     -     -
	tcp lan4     lan            lan   lan@192.0.2.2 lan@192.0.2.2
	tcp lan6     lan            lan   lan@2001:db8:1::2 lan@2001:db8:1::2
	tcp host4    host           host  host  host
`

// newBoxes wires the box db with the library, and the servers of the LAN and of the host. It returns what a
// table needs.
func (e *engine) newBoxes(t *testing.T) reach.World {
	t.Helper()
	ctx := t.Context()
	bridge, err := link.Create(ctx, e.m.NS, link.Spec{Name: "boxes0", Up: true, Kind: link.Bridge{}, Addrs: both("172.30.9.1/24", "fd30:9::1/64")})
	if err != nil {
		t.Fatal(err)
	}
	db, err := netns.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e.t.Cleanup(func() { db.Close() })
	_, err = link.Create(ctx, e.m.NS, link.Spec{
		Name: "db", Up: true, Master: bridge.Ref(), Port: link.PortOptions{Hairpin: new(true)},
		Kind: link.Veth{Peer: link.Spec{NS: db, Name: "eth0", Up: true, Addrs: both("172.30.9.2/24", "fd30:9::2/64")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	lo, err := link.Get(ctx, db, "lo")
	if err == nil {
		err = lo.SetUp(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	var ports []nat.Port
	for _, a := range both("172.30.9.1/32", "fd30:9::1/128") {
		if err := route.Add(ctx, db, route.Default(a.Addr())); err != nil {
			t.Fatal(err)
		}
		for _, proto := range []nat.Proto{nat.TCP, nat.UDP} {
			any := netip.IPv4Unspecified()
			if a.Addr().Is6() {
				any = netip.IPv6Unspecified()
			}
			ports = append(ports, nat.Port{Proto: proto, Host: netip.AddrPortFrom(any, 9090), Box: netip.AddrPortFrom(a.Addr().Next(), 80), Owner: "db"})
		}
	}
	gw, err := nat.Open(ctx, e.m.NS, nat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.t.Cleanup(func() { gw.Close() })
	e.gw = gw
	if err := gw.AddNetwork(ctx, nat.Network{Interface: "boxes0", Masquerade: true, Subnets: both("172.30.9.0/24", "fd30:9::/64")}); err != nil {
		t.Fatal(err)
	}
	if err := gw.Publish(ctx, ports...); err != nil {
		t.Fatal(err)
	}
	reach.Serve(e.t, db, "db", ":80")
	reach.Serve(e.t, e.m.LAN, "lan", ":80")
	reach.Serve(e.t, e.m.NS, "host", ":90")
	for _, to := range both("172.30.0.0/16", "fd30::/16") {
		via := netip.MustParseAddr("192.0.2.2")
		if to.Addr().Is6() {
			via = netip.MustParseAddr("2001:db8:1::2")
		}
		if err := route.Add(ctx, e.m.LAN, route.Route{Dst: to, Via: via}); err != nil {
			t.Fatal(err)
		}
	}
	return reach.World{
		Places: map[string]*netns.NS{"lan": e.m.LAN, "host": e.m.NS, "db": db},
		Targets: map[string]string{
			"pub4": "192.0.2.2:8080", "pub6": "[2001:db8:1::2]:8080", "boxpub4": "192.0.2.2:9090", "boxpub6": "[2001:db8:1::2]:9090",
			"db4": "172.30.9.2:80", "db6": "[fd30:9::2]:80", "web4": "172.30.7.2:80", "web6": "[fd30:7::2]:80",
			"lan4": "192.0.2.1:80", "lan6": "[2001:db8:1::1]:80", "host4": "192.0.2.2:90",
		},
	}
}

// records are the sets in which a table notes what it has to restore of the host's links. A table that goes leaves
// them to the next.
var records = regexp.MustCompile(`(?s)\tset (flipped4|flipped6|bridged) \{.*?\n\t\}`)

// pods are the rules of the pods' firewall, without the records.
func (e *engine) pods(t *testing.T) string {
	t.Helper()
	return records.ReplaceAllString(e.m.Run(t, "nft", "-s", "list", "table", "inet", "boxwire-cni"), "")
}

// removeBoxes removes all of ours. The pods' firewall must be as it was.
func (e *engine) removeBoxes(t *testing.T) {
	t.Helper()
	before := e.pods(t)
	err := e.gw.Delete(t.Context())
	for _, name := range []string{"db", "boxes0"} {
		l, gerr := link.Get(t.Context(), e.m.NS, name)
		if gerr == nil {
			gerr = l.Delete(t.Context())
		}
		err = errors.Join(err, gerr)
	}
	if err != nil {
		t.Fatalf("removing the boxes: %v", err)
	}
	if after := e.pods(t); after != before {
		t.Errorf("before the boxes were removed the pods had\n%s\nand have now\n%s", before, after)
	}
}

// both are prefixes of both families, or of the one that there is.
func both(four, six string) []netip.Prefix {
	all := []netip.Prefix{netip.MustParsePrefix(four)}
	if netnstest.HasIPv6() {
		all = append(all, netip.MustParsePrefix(six))
	}
	return all
}

// check checks a table, with the pods as they are now.
func check(t *testing.T, w reach.World, when, table string, pods ...*pod) {
	t.Helper()
	for _, p := range pods {
		w.Places[p.name] = p.ns
		w.Targets[p.name+"4"], w.Targets[p.name+"6"] = p.addr4+":80", "["+p.addr6+"]:80"
	}
	if !netnstest.HasIPv6() {
		var four []string
		for line := range strings.Lines(table) {
			if f := strings.Fields(line); len(f) < 2 || !strings.HasSuffix(f[1], "6") {
				four = append(four, line)
			}
		}
		table = strings.Join(four, "")
	}
	w.Check(t, when, table)
}
