package privilege_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/privilege"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

var (
	network = nat.Network{Interface: "br0", Subnets: []netip.Prefix{prefix("10.9.0.0/24")}, Masquerade: true}
	port    = nat.Port{Proto: nat.TCP, Host: netip.MustParseAddrPort("0.0.0.0:8080"), Box: netip.MustParseAddrPort("10.9.0.2:80"), Owner: "web"}
	free    = nat.Port{Proto: nat.TCP, Host: netip.MustParseAddrPort("0.0.0.0:0"), Box: netip.MustParseAddrPort("10.9.0.2:81"), Owner: "free"}
	policy  = nat.Policy{Box: []netip.Addr{netip.MustParseAddr("10.9.0.2")}, Owner: "web", Egress: &nat.Rules{}}
	guard   = nat.Guard{Port: "web9", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Box: policy.Box, Owner: "web"}
	granted = nat.Rule{Peer: netip.MustParsePrefix("192.0.2.1/32")}
	pinhole = nat.Pinhole{Proto: nat.TCP, Box: netip.MustParseAddrPort("10.9.0.2:82"), Owner: "web"}
)

var natVerbs = []verb{
	{name: "nat.Check", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return netns.IgnoreNotExist(nat.Check(ctx, ns, "table", nat.State{}))
	})},
	{name: "nat.Open", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(nat.Open(ctx, ns, nat.Options{Name: "table"}))
	})},
	{name: "nat.Open ReadOnly", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return closing(nat.Open(ctx, ns, nat.Options{Name: "table", ReadOnly: true}))
	})},
	{name: "nat.ListTables", needs: caps{privilege.NetAdmin}, call: in(func(ctx context.Context, ns *netns.NS) error {
		return second(nat.ListTables(ctx, ns))
	})},
	{name: "nat.NAT.AddNetwork", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return n.AddNetwork(ctx, network) })},
	{name: "nat.NAT.SetNetwork", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		with := network
		with.ClampMSS = true
		return n.SetNetwork(ctx, with)
	})},
	{name: "nat.NAT.ListNetworks", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return second(n.ListNetworks(ctx)) })},
	{name: "nat.NAT.Publish", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return n.Publish(ctx, port) })},
	{name: "nat.NAT.Publish below 1024", needs: caps{privilege.NetAdmin, privilege.NetBindService}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		low := port
		low.Host = netip.MustParseAddrPort("0.0.0.0:80")
		return n.Publish(ctx, low)
	})},
	{name: "nat.NAT.PublishFree", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return second(n.PublishFree(ctx, free)) })},
	{name: "nat.NAT.ExpandLink", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return second(n.ExpandLink(ctx, "br0", port)) })},
	{name: "nat.NAT.AddPinholes", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return n.AddPinholes(ctx, pinhole) })},
	{name: "nat.NAT.DeletePinholes", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return n.DeletePinholes(ctx, pinhole) })},
	{name: "nat.NAT.SetGuards", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		return netns.IgnoreNotExist(n.SetGuards(ctx, guard)) // there is no such port
	})},
	{name: "nat.NAT.DeleteGuards", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		return netns.IgnoreNotExist(n.DeleteGuards(ctx, guard.Port))
	})},
	{name: "nat.NAT.ListGuards", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return second(n.ListGuards(ctx)) })},
	{name: "nat.NAT.SetPolicies", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return n.SetPolicies(ctx, policy) })},
	{name: "nat.NAT.ListPolicies", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return second(n.ListPolicies(ctx)) })},
	{name: "nat.NAT.Grant", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		return n.Grant(ctx, policy.Box[0], time.Minute, granted)
	})},
	{name: "nat.NAT.ListDenied", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return second(n.ListDenied(ctx)) })},
	{name: "nat.NAT.WatchDenied", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		for _, err := range n.WatchDenied(ctx) {
			return err // of the first event
		}
		return nil
	})},
	{name: "nat.NAT.DeletePolicies", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return n.DeletePolicies(ctx, policy.Box...) })},
	{name: "nat.NAT.ListPorts", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return second(n.ListPorts(ctx)) })},
	{name: "nat.NAT.ListFlows", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return second(n.ListFlows(ctx)) })},
	{name: "nat.NAT.Explain", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		return second(n.Explain(ctx, port, nat.Hints{}))
	})},
	{name: "nat.NAT.ExplainOut", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		return second(n.ExplainOut(ctx, port.Box.Addr(), netip.Addr{}))
	})},
	{name: "nat.NAT.AcceptForward", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		return netns.IgnoreNotExist(n.AcceptForward(ctx)) // there is no other firewall
	})},
	{name: "nat.NAT.RevokeForward", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return n.RevokeForward(ctx) })},
	{name: "nat.NAT.Proxy", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		return closing(n.Proxy(ctx, port))
	})},
	{name: "nat.NAT.Maintain", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		repairs := n.Maintain(ctx, func() nat.State {
			cancel() // it keeps the state from here on
			return nat.State{Networks: []nat.Network{network}, Ports: []nat.Port{port}}
		})
		for _, err := range repairs {
			if err != nil && !errors.Is(err, context.Canceled) {
				return err
			}
		}
		return nil
	})},
	{name: "nat.NAT.Unpublish", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return n.Unpublish(ctx, port) })},
	{name: "nat.NAT.UnpublishOwner", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return n.UnpublishOwner(ctx, "free") })},
	{name: "nat.NAT.Sync", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		return n.Sync(ctx, nat.State{Networks: []nat.Network{network}, Ports: []nat.Port{port}})
	})},
	{name: "nat.NAT.DeleteNetwork", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error {
		if err := n.UnpublishOwner(ctx, "web"); err != nil {
			return err
		}
		return n.DeleteNetwork(ctx, "br0")
	})},
	{name: "nat.NAT.Delete", needs: caps{privilege.NetAdmin}, call: gateway(func(ctx context.Context, n *nat.NAT) error { return n.Delete(ctx) })},
}
