// Package nat connects boxes with the world outside their host: it publishes ports, masquerades, and closes what was not
// published.
//
// # A first port
//
// [Open] puts one nftables table into a namespace, which plays the host. A [Network] is what boxes share: a link of the host,
// commonly a bridge, and subnets. A [Port] is a port or a port range of the host that leads to a box.
//
//	gw, err := nat.Open(ctx, host, nat.Options{})
//	err = gw.AddNetwork(ctx, nat.Network{
//		Interface:  "boxwire0",
//		Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
//		Masquerade: true,
//	})
//	err = gw.Publish(ctx, nat.Port{
//		Proto: nat.TCP, Owner: "web",
//		Host:  netip.MustParseAddrPort("0.0.0.0:8080"),
//		Box:   netip.MustParseAddrPort("10.88.0.2:80"),
//	})
//
// The boxes can now reach each other, the host and external addresses. From outside and from other networks, only published
// ports are reached. A neighbour with a route to the boxes' addresses does not reach them. Package link makes the links and
// their addresses. HostLast makes a port a range, here the ports 10000 to 10999 of the host and the box:
//
//	err = gw.Publish(ctx, nat.Port{
//		Proto: nat.UDP, Owner: "rtp",
//		Host:  netip.MustParseAddrPort("0.0.0.0:10000"), HostLast: 10999,
//		Box:   netip.MustParseAddrPort("10.88.0.2:10000"),
//	})
//
// # From nft to nat
//
//	nft add rule ... dnat to, redirect   NAT.Publish; for a free port NAT.PublishFree
//	nft add rule ... masquerade, snat    Network.Masquerade, Network.SNAT, Network.VisitorSNAT
//	nft add rule ... drop between boxes  Network.Internal, Network.Isolated, Network.AllowTo
//	nft add rule ... accept dport        NAT.AddPinholes, for routed boxes
//	nft add rule ... saddr . daddr       NAT.SetPolicies, for each box
//	nft add rule bridge ... ether saddr  NAT.SetGuards, for each bridge port
//	nft add element ... timeout          NAT.Grant
//	nft add rule ... log                 NAT.ListDenied, NAT.WatchDenied
//	nft add rule ... maxseg size set     Network.ClampMSS, Network.MSS
//	nft -f                               NAT.Sync
//	nft list table, list set             NAT.ListPorts, NAT.ListNetworks, with counters
//	nft list tables                      ListTables; Options.ReadOnly, to look and never change
//	nft delete table                     NAT.Delete
//	nft -f again after a flush           NAT.Maintain
//	nft monitor trace                    NAT.Explain, NAT.ExplainOut
//	conntrack -L                         NAT.ListFlows
//
// # Begin with Sync
//
// All state is in the table; nothing is on disk. A restarted program opens the same table and sees the same ports. It begins
// with [NAT.Sync], which brings the table to a [State], whether the table is missing, damaged, left by a crash, or just different.
//
//	gw, err := nat.Open(ctx, host, nat.Options{})
//	defer gw.Close() // releases the host ports; what is published stays
//	err = gw.Sync(ctx, nat.State{Networks: networks, Ports: ports})
//
// Every change is one transaction for IPv4 and IPv6 together: an error means that nothing was changed. The cost of a change does
// not depend on the number of published single ports. [Check] reports whether the table is whole, and changes nothing.
//
// # Who has a port
//
// The owner of a port is a text that the caller chooses. No two ports overlap, and no other program of the host can bind a
// published one. The error of a conflict names the owner, or the program with its process id:
//
//	err := gw.Publish(ctx, port)
//	if errors.Is(err, os.ErrExist) {
//		log.Print(err) // ... the port is published for "db"
//	}
//	published, err := gw.ListPorts(ctx)     // owner, port, connections
//	flows, err := gw.ListFlows(ctx, boxAddr) // the connections of a box
//	err = gw.UnpublishOwner(ctx, "web")     // all ports of one owner
//	free, err := gw.PublishFree(ctx, port)  // a host port that is free
//
// # What boxes may do
//
// The fields of [Network] say what boxes may reach. A front end may reach the databases, which reach nothing:
//
//	front := nat.Network{Interface: "front0", Subnets: a, Masquerade: true, AllowTo: []string{"data0"}}
//	data := nat.Network{Interface: "data0", Subnets: b, Internal: true, Isolated: true}
//
// A network without Masquerade and SNAT is routed: its boxes keep their addresses, and a [Pinhole] opens one of their ports to
// all. [NAT.ListNetworks] reads everything back, with the number of dropped packets.
//
// Hosts that share a larger network trust each other's prefixes, which each has a route to. A published port may lead to a box of
// another host, whose answers come back by this one:
//
//	fleet := nat.Network{Interface: "boxwire0", Subnets: own, Masquerade: true, Trusted: pool, VisitorSNAT: gateway}
//	there := nat.Port{Proto: nat.TCP, Host: netip.MustParseAddrPort("0.0.0.0:8081"), Box: boxOfAnotherHost, Owner: "web"}
//
// # What each box may reach
//
// A [Policy] closes a box, but for its rules: here to all but HTTPS of one network and DNS of the host. In a network with Strict,
// a box without a policy reaches nothing.
//
//	err = gw.SetPolicies(ctx, nat.Policy{
//		Box: []netip.Addr{boxAddr}, Owner: "web",
//		Egress: &nat.Rules{Allow: []nat.Rule{
//			{Proto: nat.TCP, Peer: netip.MustParsePrefix("203.0.113.0/24"), Port: 443},
//			{Proto: nat.UDP, Host: true, Port: 53},
//		}},
//	})
//	err = gw.Grant(ctx, boxAddr, time.Minute, rule) // what a name has resolved to
//	denied, err := gw.ListDenied(ctx)               // what the box tried
//
// Boxes of one bridge reach each other past the firewall, and may pass for each other. A [Guard] binds a bridge port to the MAC
// and the addresses of its box, and has the host route what siblings send to each other. The order closes a box from its first
// frame: create the link, set the guard, set the policy, bring the link up.
//
//	err = gw.SetGuards(ctx, nat.Guard{Port: "web0", MAC: mac, Box: []netip.Addr{boxAddr}, Owner: "web"})
//	guards, err := gw.ListGuards(ctx) // with the number of forged frames
//
// # When a port does not answer
//
// A packet passes the chains of every table, so another firewall can drop what this table accepts. [NAT.Explain] names the
// rule, or another cause: forwarding that is off, for example, or a program that listens on the wrong address.
//
//	causes, err := gw.Explain(ctx, port, nat.Hints{Box: web})
//	fmt.Println(causes) // the policy of chain ip filter FORWARD drops connections to the port: ...
//
// [NAT.ExplainOut] does the same for the way out. [NAT.AcceptForward] makes the forward chain of Docker and ufw accept the boxes;
// it is the only call that changes a table of another program. [NAT.Maintain] restores the table after an `nft flush ruleset`.
//
// # Errors and kernels
//
// Errors are [github.com/boxwire/boxwire/netns.Error]. Bad input is os.ErrInvalid, and refused before anything is sent. A table
// that another program removed is os.ErrNotExist. A kernel without nftables is errors.ErrUnsupported. The minimum is Linux 5.10,
// with the modules nf_tables, nft_chain_nat, nft_masq, nft_fib_inet, nft_ct, nft_socket and nft_reject_inet.
//
// The details are in the documentation of [NAT] (the table, connections, other programs), [Network] (sources, forwarding,
// bridges) and [Port] (overlaps, reservations, ::1).
package nat
