// Package link makes, reads, changes and removes the links (network
// interfaces) of a network namespace, and their addresses.
//
// [Create] makes a link whole from a [Spec]: name, MTU, hardware address,
// master, addresses and, for a veth pair, the other end in another namespace.
// It either succeeds in everything or leaves nothing behind in either
// namespace:
//
//	eth, err := link.Create(ctx, host, link.Spec{
//		Name: "web0", Up: true, Master: br.Index,
//		Kind: link.Veth{Peer: link.Spec{
//			NS: web, Name: "eth0", Up: true,
//			Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.2/16")},
//		}},
//	})
//
// There is a type for each [Kind] of link, whose options are read back by
// [Link.Details]. Beside Create, which fails with os.ErrExist where there is such
// a link, [Ensure] changes one that is there to match and may be repeated, and
// [Link.Change] changes what is named. [DeleteAll] removes many links in the time
// of a few. What the kernel takes without a word and does not do is found out by
// reading back.
//
// # What a link has
//
// The methods of a [Link] change and read what belongs to it: addresses
// ([Link.AddAddr], and with all their properties [Link.AddAddrs]), neighbours
// ([Link.AddNeighbour]), its settings as a bridge port ([Link.SetPort]) and its
// VLANs there ([Link.SyncVLANs]), entries of forwarding databases, which say
// behind which port or host a hardware address is ([Link.AddFDB]), limits of
// its rate ([Link.SetRate]) and what it offloads ([Link.SetFeatures]). Those that
// take many things send them together. The verbs are the same everywhere: Add
// fails with os.ErrExist and then leaves nothing of the call behind, Replace
// also changes what is there, Delete goes on past what is missing and names it,
// Flush takes what a function chooses. What the kernel would pass over in
// silence is read back and told.
//
// # Events and waiting
//
// [Watch] yields the present state and then every change, and loses nothing for
// good: a reader that is too slow gets the whole state anew. [Link.WaitUp],
// [Link.WaitCarrier], [Link.WaitForwarding], [Link.WaitAddr] and
// [Link.WaitGone] sleep until the kernel tells of what they wait for.
// [Link.Announce] tells the neighbours of addresses that have come here.
//
// # Many boxes on one bridge
//
// With the kernel's defaults each further box on a bridge costs more than the one
// before, above all with IPv6: what a box sends to multicast groups when it comes
// up (looking for duplicates of its address, asking for routers, reporting groups)
// goes to every other box, and for each port that comes up a bridge that keeps
// account of multicast groups restarts two timers of every port. Neither has to
// be, where addresses are assigned by whoever makes the boxes:
//
//	br, err := link.Create(ctx, host, link.Spec{
//		Name: "boxwire0", Up: true, MAC: mac, Addrs: gateways,
//		Kind: link.Bridge{MulticastSnooping: new(false)},
//	})
//	eth, err := link.Create(ctx, host, link.Spec{
//		Name: "web0", Up: true, Master: br.Index,
//		Kind: link.Veth{Peer: link.Spec{
//			NS: web, Name: "eth0", Up: true, Addrs: addrs,
//			IPv6: link.IPv6Conf{AddrGenMode: new(link.AddrGenNone)},
//		}},
//	})
//
// The box then has no link-local IPv6 address, and its others are usable at once
// (see Spec.DAD); neighbour discovery finds it as soon as its port forwards, for
// which [Link.WaitForwarding] waits. BenchmarkAttachToCrowdedBridge has the
// figures. The other way is to let the bridge know the members of each group and
// send nothing else to boxes: Bridge.MulticastQuerier, and Spec.Port with
// MulticastFlood off. It keeps multicast streams to their members, but makes the
// bridge ask every box again for each port that comes up, and for IPv6 it works
// only once the bridge has a link-local address and has asked for the first time.
//
// What is left grows with the number of ports in the kernel itself: adding a port
// to a bridge walks over all others several times.
//
// # Namespaces and goroutines
//
// Every function takes the namespace it works in; none depends on the thread
// it is called from, and all may be called from many goroutines at once. A
// [Link] is a value: what the kernel said when it was read, and the namespace
// it was read in. Its methods act in that namespace by the link's index, so a
// rename by somebody else does not lead them astray. It does not follow later
// changes; read it again with [Get] or [ByIndex]. It does not keep its
// namespace alive: once the handle is closed, its methods return os.ErrClosed.
//
// # Errors
//
// Errors are *netns.Error: operation, namespace, subject and cause. Use
// errors.Is with os.ErrExist (the name is taken), os.ErrNotExist (no such
// link, master or address), os.ErrPermission (CAP_NET_ADMIN is missing in the
// namespace's user namespace), errors.ErrUnsupported (the kernel lacks the
// kind, or this is not Linux), os.ErrClosed (the namespace was closed),
// os.ErrInvalid (refused before anything was sent), [ErrInterrupted] (a list
// that was not complete) and the errors of ctx.
//
// # Cancellation
//
// A context that is done before a call means that nothing is sent. rtnetlink
// carries a request out inside the system call that sends it, so a change
// already handed over cannot be called back: calls that change something wait
// for the kernel's answer, and Create looks at ctx between its steps and undoes
// what was done. Reads stop at once.
//
// # Kernels
//
// Everything here works on Linux 5.4 and newer unless a comment says
// otherwise. On other systems each call returns an error that wraps
// errors.ErrUnsupported.
package link
