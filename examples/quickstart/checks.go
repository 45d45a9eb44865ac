//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/boxwire/boxwire/examples/internal/selfcheck"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// A check proves one promise, by real traffic or by what the kernel says. Its detail never holds a port, a time or an id
// that differs from run to run.
type check struct {
	name  string
	run   func(context.Context, *world) (detail string, err error)
	alone bool // changes what others look at: runs when all before it have ended, and before any after it
}

// checks are all but the last one, clean-up, which is cleanUp itself.
var checks = []check{
	{name: "isolated-interfaces", run: isolatedInterfaces},
	{name: "own-routes", run: ownRoutes},
	{name: "own-firewall", run: ownFirewall, alone: true},
	{name: "host-sees-veths", run: hostSeesVeths},
	{name: "same-port-twice", run: samePortTwice},
	{name: "published-from-host", run: publishedFromHost},
	{name: "published-from-outside", run: publishedFromOutside},
	{name: "published-ipv6", run: publishedIPv6},
	{name: "loopback-only", run: loopbackOnly},
	{name: "unpublished-closed", run: unpublishedClosed},
	{name: "masquerade", run: masquerade},
	{name: "shared-namespace", run: sharedNamespace},
	{name: "siblings", run: siblings},
	{name: "hairpin", run: hairpin},
}

// runChecks runs the checks, neighbours in the list at the same time, and reports them in order.
func runChecks(ctx context.Context, w *world, results *selfcheck.Report) {
	for i := 0; i < len(checks); {
		n := 1
		for !checks[i].alone && i+n < len(checks) && !checks[i+n].alone {
			n++
		}
		runTogether(ctx, w, checks[i:i+n], results)
		i += n
	}
}

func runTogether(ctx context.Context, w *world, group []check, results *selfcheck.Report) {
	type outcome struct {
		detail string
		err    error
	}
	outcomes := make([]chan outcome, len(group))
	for i, c := range group {
		outcomes[i] = make(chan outcome, 1)
		go func() {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			detail, err := c.run(ctx, w)
			outcomes[i] <- outcome{detail, err}
		}()
	}
	for i, c := range group {
		o := <-outcomes[i]
		results.Add(c.name, o.detail, o.err)
	}
}

// Each box has its own loopback and one end of a pair, and sees nothing of the host or of the other box.
func isolatedInterfaces(ctx context.Context, w *world) (string, error) {
	for _, box := range []*netns.NS{w.web1, w.web2} {
		names, err := linkNames(ctx, box)
		if err != nil {
			return "", err
		}
		if !slices.Equal(names, []string{"eth0", "lo"}) {
			return "", fmt.Errorf("%s has the links %v", box.Name(), names)
		}
	}
	return "web1 and web2 have lo and eth0 each, and nothing else", nil
}

// A route added in one box is in that box only.
func ownRoutes(ctx context.Context, w *world) (_ string, err error) {
	private := route.Route{Dst: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr(hostIn4)}
	if err := route.Add(ctx, w.web1, private); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, route.Delete(ctx, w.web1, private)) }()
	for _, ns := range []*netns.NS{w.web1, w.web2, w.host} {
		routes, err := route.List(ctx, ns, route.Filter{})
		if err != nil {
			return "", err
		}
		has := slices.ContainsFunc(routes, func(r route.Route) bool { return r.Dst == private.Dst })
		if want := ns == w.web1; has != want {
			return "", fmt.Errorf("%s has the route to %s: %t, want %t", ns.Name(), private.Dst, has, want)
		}
	}
	return "a route to " + private.Dst.String() + " added in web1 is in web1 only", nil
}

// A drop rule in one box's namespace stops that box only.
func ownFirewall(ctx context.Context, w *world) (_ string, err error) {
	remove, err := dropEverything(ctx, w.web2)
	if err != nil {
		return "", err
	}
	err = dropsAll(ctx, w.host, web2Addr4+":80", w.web2, "own", "input")
	err = errors.Join(err, expect(ctx, w.host, web1Addr4+":80", "web1", hostIn4))
	if err := errors.Join(err, remove(ctx)); err != nil {
		return "", err
	}
	if err := expect(ctx, w.host, web2Addr4+":80", "web2", hostIn4); err != nil {
		return "", fmt.Errorf("after the rule was removed: %w", err)
	}
	return "a drop rule in web2 silenced web2 and not web1; without it web2 answers", nil
}

// The host holds the other end of each box's pair, up, as a port of the bridge.
func hostSeesVeths(ctx context.Context, w *world) (string, error) {
	for _, name := range []string{"web1", "web2"} {
		l, err := link.Get(ctx, w.host, name)
		if err != nil {
			return "", err
		}
		if l.Kind != "veth" || l.Master != w.bridge.Index || !l.Up {
			return "", fmt.Errorf("link %s: kind %s, master %d, up %t; want veth, %d, true", name, l.Kind, l.Master, l.Up, w.bridge.Index)
		}
	}
	return "veth web1 and veth web2 are up, ports of " + bridgeName, nil
}

// Both boxes listen on port 80.
func samePortTwice(ctx context.Context, w *world) (string, error) {
	return "web1 and web2 both listen on :80 and answer as themselves", errors.Join(
		expect(ctx, w.host, web1Addr4+":80", "web1", hostIn4),
		expect(ctx, w.host, web2Addr4+":80", "web2", hostIn4))
}

// The host's own programs reach a published port on 127.0.0.1 and on the host's address.
func publishedFromHost(ctx context.Context, w *world) (string, error) {
	for _, addr := range []string{"127.0.0.1:8080", hostOut4 + ":8080"} {
		got, err := get(ctx, w.host, addr)
		if err != nil {
			return "", err
		}
		if got.server != "web1" {
			return "", fmt.Errorf("%s answered as %s", addr, got.server)
		}
	}
	return "127.0.0.1:8080 and " + hostOut4 + ":8080 reach web1", nil
}

// Visitors reach a published port, and the box sees who they are.
func publishedFromOutside(ctx context.Context, w *world) (string, error) {
	return hostOut4 + ":8080 reaches web1 and :8081 web2, which see " + outsideIP4, errors.Join(
		expect(ctx, w.outside, hostOut4+":8080", "web1", outsideIP4),
		expect(ctx, w.outside, hostOut4+":8081", "web2", outsideIP4))
}

// The same over IPv6.
func publishedIPv6(ctx context.Context, w *world) (string, error) {
	return "[" + hostOut6 + "]:8080 reaches web1 and :8081 web2, which see " + outsideIP6, errors.Join(
		expect(ctx, w.outside, "["+hostOut6+"]:8080", "web1", outsideIP6),
		expect(ctx, w.outside, "["+hostOut6+"]:8081", "web2", outsideIP6))
}

// A port published on 127.0.0.1 is for the host itself, even if a neighbour routes 127.0.0.1 to it.
func loopbackOnly(ctx context.Context, w *world) (string, error) {
	got, err := get(ctx, w.host, "127.0.0.1:9090")
	if err != nil {
		return "", err
	}
	if got.server != "web1" {
		return "", fmt.Errorf("127.0.0.1:9090 answered as %s", got.server)
	}
	if err := stopped(ctx, w, "127.0.0.1:9090", "guard"); err != nil {
		return "", err
	}
	return "127.0.0.1:9090 reaches web1 from the host; the outside is dropped", nil
}

// A neighbour that knows a way to a box's address cannot use it.
func unpublishedClosed(ctx context.Context, w *world) (string, error) {
	if err := stopped(ctx, w, web1Addr4+":80", "to_box"); err != nil {
		return "", err
	}
	return "the outside has a route to " + web1Addr4 + " and is dropped", nil
}

// stopped returns an error unless the outside gets nothing from addr and it was this chain of the host that dropped it.
func stopped(ctx context.Context, w *world, addr, chain string) error {
	return dropsAll(ctx, w.outside, addr, w.host, "boxwire", chain)
}

// dropsAll returns an error unless addr stays silent towards from and it is the chain's drop that counts what is sent
// there. On a busy machine a try may be over before its packet is sent: then it is made again.
func dropsAll(ctx context.Context, from *netns.NS, addr string, at *netns.NS, table, chain string) error {
	before, err := dropped(ctx, at, table, chain)
	if err != nil {
		return err
	}
	for range 20 {
		if err := expectSilence(ctx, from, addr); err != nil {
			return err
		}
		after, err := dropped(ctx, at, table, chain)
		if err != nil || after > before {
			return err
		}
	}
	return fmt.Errorf("nothing for %s has reached the chain %s of %s", addr, chain, at.Name())
}

// A box that calls out is seen with the host's address.
func masquerade(ctx context.Context, w *world) (string, error) {
	return "the outside sees " + hostOut4 + " and " + hostOut6 + " when web1 calls", errors.Join(
		expect(ctx, w.web1, outsideIP4+":80", "outside", hostOut4),
		expect(ctx, w.web1, "["+outsideIP6+"]:80", "outside", hostOut6))
}

// A second process in a box's namespace shares its loopback, as the containers of a pod do.
func sharedNamespace(ctx context.Context, w *world) (string, error) {
	got, err := getAsProcess(ctx, w.web1, "127.0.0.1:80")
	if err != nil {
		return "", err
	}
	if want := (answer{"web1", "127.0.0.1"}); got != want.String() {
		return "", fmt.Errorf("a second process in web1: got %q, want %q", got, want)
	}
	return "a second process in web1 reaches 127.0.0.1:80", nil
}

// Boxes of one network reach each other by address.
func siblings(ctx context.Context, w *world) (string, error) {
	return "web1 and web2 reach each other, over IPv4 and IPv6", errors.Join(
		expect(ctx, w.web1, web2Addr4+":80", "web2", web1Addr4),
		expect(ctx, w.web2, web1Addr4+":80", "web1", web2Addr4),
		expect(ctx, w.web1, "["+web2Addr6+"]:80", "web2", web1Addr6),
		expect(ctx, w.web2, "["+web1Addr6+"]:80", "web1", web2Addr6))
}

// A box reaches its sibling through the host's address and the published port, as any visitor would.
func hairpin(ctx context.Context, w *world) (string, error) {
	got, err := get(ctx, w.web1, hostOut4+":8081")
	if err != nil {
		return "", err
	}
	if got.server != "web2" {
		return "", fmt.Errorf("%s:8081 answered as %s", hostOut4, got.server)
	}
	return "web1 reaches web2 through " + hostOut4 + ":8081", nil
}

// linkNames returns the names of a namespace's links, sorted.
func linkNames(ctx context.Context, ns *netns.NS) ([]string, error) {
	links, err := link.List(ctx, ns, link.Filter{})
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.Name
	}
	slices.Sort(names)
	return names, err
}
