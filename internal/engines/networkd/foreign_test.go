package networkd

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/scene"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// foreign adds routes, rules, next hops and neighbours by way of the library: some on the boxes' bridge, some on eth0, which
// networkd manages, and some on no link.
func foreign(t *testing.T, ns *netns.NS) {
	t.Helper()
	ctx := t.Context()
	box, lan := netip.MustParseAddr("172.30.0.2"), netip.MustParseAddr("192.0.2.1")
	to := func(s string, via netip.Addr) route.Route { return route.To(netip.MustParsePrefix(s), via) }
	byKernel := to("198.51.103.0/24", lan)
	byKernel.Protocol = route.ProtoKernel
	unreachable := route.Route{Dst: netip.MustParsePrefix("198.51.102.0/24"), Type: route.TypeUnreachable}
	inTable := route.Default(lan)
	inTable.Table = 100
	err := route.Add(ctx, ns, to("198.51.100.0/24", box), to("198.51.101.0/24", lan), unreachable, byKernel, inTable)
	if err == nil {
		err = route.AddRules(ctx, ns, route.Rule{From: netip.MustParsePrefix("172.30.9.0/24"), Table: 100, Priority: 1000})
	}
	for id, via := range map[uint32]netip.Addr{77: box, 78: lan} {
		name := map[uint32]string{77: scene.Front, 78: "eth0"}[id]
		l, lerr := link.Get(ctx, ns, name)
		err = errors.Join(err, lerr, route.AddNextHops(ctx, ns, route.NextHop{ID: id, Via: via, Dev: l.Index}))
		if id == 77 {
			err = errors.Join(err, l.AddNeighbours(ctx, link.Neighbour{Addr: netip.MustParseAddr("172.30.0.9"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}}))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What goes from the host's state, which foreign has added to. What leaves by the bridge of the boxes stays always.
var (
	// By a link that networkd manages. The link loses its address for a moment, so that the kernel removes all
	// routes, also those of the protocol kernel.
	byEth0 = []string{
		`^-route default via 192\.0\.2\.1 dev eth0 table 100`,
		`^-route 198\.51\.101\.0/24 via 192\.0\.2\.1 dev eth0`,
		`^-route 198\.51\.103\.0/24 via 192\.0\.2\.1 dev eth0 proto kernel`,
		nextHop,
	}
	// By a link that networkd manages, too. Before networkd 256 no setting keeps it.
	nextHop = `^-next hop id 78 via 192\.0\.2\.1 dev eth0`
	// By no link.
	byNone = []string{
		`^-route unreachable 198\.51\.102\.0/24`,
		`^-rule 1000: from 172\.30\.9\.0/24 lookup 100`,
	}
)

// At its start networkd takes away routes and rules of others. The boxes keep their connections: they have a fixed address
// outside, which survives that the link loses it for a moment, as masquerading does not.
func TestStartTakesForeignRoutes(t *testing.T) {
	t.Parallel()
	nd := start(t)
	before := (&scene.Host{M: nd.Machine, NS: nd.NS}).State(t)
	h := scene.NewSNAT(t, nd.Machine, 3)
	h.Check(t, "made beside networkd")
	plain := h.State(t)
	for _, step := range nd.steps(t) {
		foreign(t, h.NS)
		was := h.State(t)
		h.During(t, step.what, func() {
			step.do()
			nd.ready(t)
		})
		var gone []string
		if step.what != reloaded {
			gone = append(byEth0, byNone...)
		}
		scene.CheckState(t, step.what, was, h.State(t), nd.as252(gone)...)
		unforeign(nd)
		scene.CheckState(t, step.what, plain, h.State(t))
	}
	h.Reopen(t)
	h.Check(t, "our program begun anew")
	h.Remove(t)
	scene.CheckState(t, "removed", before, h.State(t))
}

// With the settings that the page "beside other programs" advises, networkd takes nothing away when it starts but, before its
// version 256, next hops of a link that it manages. Boxes may be masqueraded then.
func TestForeignRoutesAreKept(t *testing.T) {
	t.Parallel()
	nd := start(t, keepFile, stayFile, oursFile, allFile)
	h := scene.New(t, nd.Machine, 3)
	nd.ready(t)
	h.Check(t, "made beside networkd")
	run := h.Run(t)
	run.Check(t, "made beside networkd")
	nd.ready(t)
	plain := h.State(t)
	for _, step := range nd.steps(t) {
		if step.what == reconfigured {
			continue // see TestStartTakesForeignRoutes
		}
		foreign(t, h.NS)
		was := h.State(t)
		h.During(t, step.what, func() {
			step.do()
			nd.ready(t)
		})
		run.Check(t, step.what)
		var gone []string
		if step.what != reloaded {
			gone = []string{nextHop}
		}
		scene.CheckState(t, step.what, was, h.State(t), nd.as252(gone)...)
		unforeign(nd)
		scene.CheckState(t, step.what, plain, h.State(t))
	}
	h.Reopen(t)
	run.Kill(t)
	h.Check(t, "our programs begun anew")
	run.Check(t, "our programs begun anew")
	run.Stop(t)
	h.Check(t, "one of our programs at its end")
}

// unforeign takes away what is left of foreign.
func unforeign(h *host) {
	for _, command := range []string{
		"ip route flush root 198.51.100.0/22", "ip route flush table 100", "ip rule del priority 1000",
		"ip nexthop del id 77", "ip nexthop del id 78", "ip neigh del 172.30.0.9 dev boxwire0",
	} {
		args := strings.Fields(command)
		h.Try(args[0], args[1:]...) // it may be gone; the state is compared
	}
}
