// Package nat connects boxes with the world outside their host: published ports,
// masquerade, and a firewall that closes what was not published.
//
// # What it installs
//
// [Open] puts one nftables table of the inet family into a namespace, the one
// that plays the host: a fixed skeleton of chains, rules and empty sets, in one
// transaction. From then on all state is elements of those sets. Publishing a
// port is one element, adding a network at most eight, and the cost does not
// grow with what is there already. IPv4 and IPv6 share the table, so that a
// change is atomic across both, and [NAT.Delete] removes everything at once.
//
//	gw, err := nat.Open(ctx, host, nat.Options{})
//	err = gw.AddNetwork(ctx, nat.Network{Interface: "boxwire0", Subnets: subnets, Masquerade: true})
//	err = gw.Publish(ctx, nat.Port{Proto: nat.TCP, Host: host8080, Box: web80, Owner: "web"})
//
// The library keeps nothing on disk and nothing in memory that matters: a
// program that is started anew opens the same table, and [NAT.List] tells what
// is published, by whom. `nft list table inet boxwire` shows the same to a
// person; the owner is the element's comment.
//
// # What holds
//
// Of a network that was added, boxes reach each other, the host and the outside.
// From outside and from other networks, only published ports are reached, not the
// boxes' addresses, even by a neighbour with a route to them. A port published on
// 127.0.0.1 is for the host itself: packets for or from 127.0.0.0/8 that come over
// any other link are dropped, those for the host's own services included, whoever
// sends them. Packets that only pass the host on their way to another machine are
// not redirected, whatever port they are for.
//
// Rules of other programs are left alone; what another table drops, this one
// cannot bring back.
//
// Connections to ::1 cannot be translated by the kernel, nor those of IPv6 visitors
// to a box with IPv4 only: ::1 is refused as a host address. [NAT.Proxy] relays
// both within the process, at the price of the visitor's address.
//
// # Published ports
//
// A [Port] is of TCP, UDP or SCTP, of IPv4 or IPv6, on one address of the host, on
// all, or by [NAT.OnLink] on those of a link; single, or a range. [NAT.PublishFree]
// chooses a port that is free. Its owner is a text of the caller's; [NAT.Unpublish]
// takes ports from their owner only, and [NAT.UnpublishOwner] all of one's.
//
// No two published ports overlap: one on all addresses and one on a single address,
// a range and a port in it take each other's. The error names the holder. Where
// [Options.Alive] knows that the holder is gone, the port changes hands in one
// transaction. What a change costs does not depend on how many single ports are
// published; of ranges there should be hundreds at most.
//
// A published host port is also kept from other programs of the host, and one that
// such a program has already is refused with its name ([Options.NoReserve] leaves
// both to the caller):
//
//   - A port, or each of a range of up to 256, is bound by a socket that lets
//     nothing in. It is given back by Unpublish and [NAT.Close], and by the end of
//     the process; the next one's Sync takes it again.
//   - Longer ranges are put into net.ipv4.ip_local_reserved_ports, as far as the
//     kernel would give their ports away. What of it is ours is recorded in the
//     set listed.
//   - A NAT holds 4096 sockets at most, and no more than a quarter of the
//     descriptors that the process may have. Of ports beyond, it makes sure when
//     they are published that nobody has them, and no longer.
//
// [NAT.Sync] brings the table to a [State], whatever it is like before: missing,
// damaged, left by a crash, or just different. It is how a program begins. [Check]
// only says whether a table is there and whole, with all that a State has.
//
// # Networks
//
// A [Network] is what boxes share: an interface of the host, commonly a bridge,
// and subnets. Its options say what its boxes may do; [NAT.EnsureNetwork] changes
// them, and [NAT.Networks] reads them back with the number of packets that were
// dropped for the network's sake.
//
//   - Masquerade and SNAT give boxes the host's address outside. Without either
//     the network is routed: its boxes keep their addresses, and [Opening] says
//     which of their ports are reached there.
//   - Internal closes the way out, Isolated that from box to box, and Reaches opens
//     one to the boxes of another network.
//
// A box reaches its own published port, and a sibling's, through the host's
// address as everybody does. Only there, and from the host's 127.0.0.1, is the
// source address replaced by the bridge's: the answer would not come back by way
// of the host else. With br_netfilter (net.bridge.bridge-nf-call-iptables is 1) a
// bridge sends such packets straight back, which a box's own port needs hairpin
// mode of its bridge port for.
//
// Bridge ports are not this package's to set up: they come and go with their
// boxes. Who adds one sets its hairpin mode, and for a network that is Isolated
// its flag "isolated" unless bridge-nf-call-iptables is 1: then the firewall sees
// what is bridged and drops it, and the flag would also cut siblings off from each
// other's published ports.
//
// # Forwarding
//
// AddNetwork makes the host forward, one link at a time and never by the global
// switch where the kernel can do without. Links that did not forward before are
// recorded in the sets flipped4 and flipped6, in the same transaction as the
// network and before the setting is written: what strangers send over them to be
// forwarded is dropped, so that the host becomes no router for its neighbours,
// and a crash at any point loses no fact. RemoveNetwork of the last network and
// Delete set the links back, unless net.ipv4.ip_forward was set to 1 meanwhile.
//
// A link that comes after AddNetwork, be it the network's own interface or a new
// uplink, does not forward at once: the namespace's default for new links
// (net.ipv4.conf.default.forwarding) is not changed, because links of others would
// forward by it, too. It does after the next EnsureNetwork or [NAT.Sync], and
// [NAT.Keep] sees to it by itself.
//
// What only passes a bridge goes on passing it, also where br_netfilter shows it
// to this firewall (the set bridged).
//
// Packets that another program of the host translates to a machine of its own
// (its published ports) pass those links all the same. Where the machine is to be
// a router for others, say so (net.ipv4.ip_forward) before the first network is
// added: links that forward already are not recorded.
//
// For IPv4 the settings travel over netlink. For IPv6 they are written to
// /proc/sys, and only for a network with an IPv6 subnet: force_forwarding of the
// links where the kernel has it (6.17), else conf.all.forwarding, with accept_ra
// raised from 1 to 2 first where needed, because a forwarding host would lose the
// default route that router advertisements gave it.
//
// # Concurrency and other programs
//
// A NAT may be used from any goroutine, and several programs may work on one
// table. Every transaction names the generation of the ruleset that it was built
// on, and is built again if anyone committed in between. There is no state
// between success and failure: an error means that nothing was changed, also
// when the kernel's answer was lost on the way. Where something had to follow a
// transaction and could not, the error says that the change is made.
//
// Changes take turns in a namespace, also those of several programs: a lock file
// in /run, for a normal user in XDG_RUNTIME_DIR or the folder for temporary files,
// is there while a change is under way and no longer. A program that ends in the
// middle leaves it to the next to remove.
//
// A table that another program removed is os.ErrNotExist for every method, and
// the error says so; Open installs it again, and [NAT.Sync] with all that was in
// it. [NAT.Keep] does that by itself, within a moment of an `nft flush ruleset` or
// a firewall's reload.
//
// # Connections
//
// The kernel decides where a connection goes once, by its first packet. So what
// changes mappings ends the flows that are older than the change: a visitor over
// UDP who has sent in vain, or to the box before, reaches the right one with his
// next packet. They are found by protocol, host address and host port; flows to the
// same port of other machines, and TCP connections of the host's own programs,
// stay. In a namespace without any connection that takes nothing, and 0.1 ms (on
// Linux 6.11 and newer) for one IPv4 address and where TCP is published. The rest,
// on all addresses above all, takes 10 ms: the kernel has to look through its whole
// table, once for all ports of a call, or for each where it is large. [NAT.Flows]
// lists a box's connections.
//
// # Other firewalls
//
// A packet has to pass every table's chains. Where another firewall drops it, a
// published port does not answer, and no rule of this table can help: [NAT.Explain]
// names the rule, or whichever other cause there is, from forwarding that is off to
// a program that listens on the wrong address. [NAT.AcceptForward] is the one call
// that changes another program's table: it puts an accept for the boxes into
// iptables-nft's forward chain, which Docker and ufw set to drop.
//
// # Errors
//
// Errors have the shape of [github.com/boxwire/boxwire/netns.Error]. Bad input is
// os.ErrInvalid and refused before anything is sent. A kernel without nftables is
// errors.ErrUnsupported. The minimum is Linux 5.10.
package nat
