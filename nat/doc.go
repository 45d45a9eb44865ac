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
// Of a network that was added, boxes reach each other, the host and, with
// masquerade, the outside. From outside, only published ports are reachable, not
// the boxes' addresses, even for a neighbour with a route to them. Different
// networks reach each other's published ports only. A port published on
// 127.0.0.1 is for the host itself: packets for or from 127.0.0.0/8 that come
// over any other link are dropped, those for the host's own services included.
// Rules of other programs are left alone; what another table drops, this one
// cannot bring back.
//
// IPv6 connections to ::1 cannot be translated by the kernel, so that ::1 is
// refused as a host address.
//
// # Forwarding
//
// AddNetwork makes the host forward, one link at a time and never by the global
// switch where the kernel can do without. Links that did not forward before are
// recorded in the sets flipped4 and flipped6, in the same transaction as the
// network and before the setting is written: what strangers send over them to be
// forwarded is dropped, so that the host becomes no router for its neighbours,
// and a crash at any point loses no fact. RemoveNetwork of the last network and
// Delete set the links back. A link that appears after AddNetwork gets the
// namespace's default (net.ipv4.conf.default.forwarding).
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
// when the kernel's answer was lost on the way.
//
// A table that another program removed is os.ErrNotExist for every method, and
// the error says so; Open installs it again.
//
// # Errors
//
// Errors have the shape of [github.com/boxwire/boxwire/netns.Error]. Bad input is
// os.ErrInvalid and refused before anything is sent. A kernel without nftables is
// errors.ErrUnsupported. The minimum is Linux 5.10.
package nat
