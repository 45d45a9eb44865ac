// Package nat connects boxes with the world outside their host: it publishes ports, masquerades, and closes what was not
// published.
//
// # A first port
//
// [Open] puts one nftables table into a namespace, which plays the host. A [Network] is what boxes share: a link of the host,
// commonly a bridge, and subnets. A [Port] is a port or a port range of the host that leads to a box.
//
//	gw, err := nat.Open(ctx, host, nat.Options{})
//	subnets := []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")}
//	err = gw.AddNetwork(ctx, nat.Network{Interface: "boxwire0", Subnets: subnets, Masquerade: true})
//	err = gw.Publish(ctx, nat.Port{
//		Proto: nat.TCP, Owner: "web",
//		Host:  netip.MustParseAddrPort("0.0.0.0:8080"),
//		Box:   netip.MustParseAddrPort("10.88.0.2:80"),
//	})
//
// The boxes can now reach each other, the host and external addresses. From outside and from other networks, only published
// ports are reached, even by a neighbour with a route to the boxes. HostLast makes a port a range, here 10000 to 10999:
//
//	from, to := netip.MustParseAddrPort("0.0.0.0:10000"), netip.MustParseAddrPort("10.88.0.2:10000")
//	err = gw.Publish(ctx, nat.Port{Proto: nat.UDP, Host: from, HostLast: 10999, Box: to, Owner: "rtp"})
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
//	nft add flowtable, flow add          Network.Flowtable
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
// All state is in the table; nothing is on disk. A program begins with [NAT.Sync], which brings the table to a [State], whether
// the table is missing, damaged, left by a crash, or just different. [Check] reports the difference, and changes nothing.
//
//	gw, err := nat.Open(ctx, host, nat.Options{})
//	defer gw.Close() // releases the host ports; what is published stays
//	err = gw.Sync(ctx, nat.State{Networks: networks, Ports: ports})
//
// Every change is one transaction for IPv4 and IPv6 together: an error means that nothing was changed.
//
// # Who has a port
//
// The owner of a port is a text that the caller chooses. No two ports overlap, and no other program of the host can bind a
// published one. The error of a conflict (os.ErrExist) names the owner, or the program with its process id.
//
//	published, err := gw.ListPorts(ctx)      // owner, port, connections
//	flows, err := gw.ListFlows(ctx, boxAddr) // the connections of a box
//	err = gw.UnpublishOwner(ctx, "web")      // all ports of one owner
//	free, err := gw.PublishFree(ctx, port)   // a host port that is free
//
// # What boxes may reach
//
// The fields of [Network] say it for all boxes of a network: here a front end reaches the databases, which reach nothing.
//
//	front := nat.Network{Interface: "front0", Subnets: a, Masquerade: true, AllowTo: []string{"data0"}}
//	data := nat.Network{Interface: "data0", Subnets: b, Internal: true, Isolated: true}
//
// A network without Masquerade and SNAT is routed: its boxes keep their addresses, and a [Pinhole] opens one of their ports to
// all. Network.Trusted has the prefixes of other hosts of a larger network.
//
// A [Policy] closes one box, but for its rules. A [Guard] binds a bridge port to the addresses of its box, so that siblings on
// the bridge cannot pass for each other.
//
//	dns := nat.Rule{Proto: nat.UDP, Host: true, Port: 53}
//	err = gw.SetPolicies(ctx, nat.Policy{Box: box, Egress: &nat.Rules{Allow: []nat.Rule{dns}}, Owner: "web"})
//	err = gw.Grant(ctx, boxAddr, time.Minute, rule) // what a name has resolved to
//	denied, err := gw.ListDenied(ctx)               // what the box tried
//
// # When a port does not answer
//
// [NAT.Explain] names the cause: a rule of another firewall, or a program that listens on the wrong address. [NAT.ExplainOut]
// does so for the way out. [NAT.AcceptForward] makes the forward chain of Docker and ufw accept the boxes. [NAT.Maintain]
// restores the table after an `nft flush ruleset`.
//
//	causes, err := gw.Explain(ctx, port, nat.Hints{Box: web})
//	fmt.Println(causes) // the policy of chain ip filter FORWARD drops connections to the port: ...
//
// # Errors and kernels
//
// Errors are [github.com/boxwire/boxwire/netns.Error]. Bad input is os.ErrInvalid, and refused before anything is sent. A table
// that another program removed is os.ErrNotExist. A kernel without nftables is errors.ErrUnsupported. The minimum is Linux 5.10,
// with the modules nf_tables, nft_counter (a part of nf_tables in later kernels), nft_chain_nat, nft_nat, nft_masq, nft_fib_inet,
// nft_ct, nft_socket, nft_reject_inet and nf_conntrack_netlink. Policies need nft_limit, nft_log and nfnetlink_log, too. See [NAT]
// for connections and other programs, [Network] for forwarding and bridges, [Port] for overlaps, reservations and ::1.
package nat
