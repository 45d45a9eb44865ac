// Package probe finds out why a node of a fleet is not reached.
//
// [Echo] asks a peer's kernel through the overlay. [Explain] names a [Cause]. It looks at this host's tunnel link and routes first,
// then at the peer's machine on the underlay, and then sends a few packets with a random marker through the tunnel. Packet sockets
// on both hosts count them where they pass:
//
//	this host    out of the overlay   fl0   1     8   fl0   answer arrives
//	             encapsulated         eth0  2     7   eth0
//	the peer     encapsulated         eth0  3     6   eth0
//	             into the overlay     fl0   4     5   fl0   its kernel answers
//
// The first place without a packet says where they end: between 2 and 3 it is the network, between 3 and 4 the peer's firewall.
// A packet socket also shows a wrong UDP checksum, before the kernel drops the packet for it without a word. That is what broken
// checksum offload looks like from outside: ICMP passes, or small packets do, and connections hang for a minute.
//
// # What a responder does
//
// A [Responder] runs in each agent and makes the peer's half possible. It is a UDP socket, by default on the port after the
// tunnel's, without authentication, and so it does nothing that a stranger could use:
//
//   - A reply is never longer than its request, so it amplifies nothing. Requests shorter than the fixed length are ignored.
//   - It answers 500 requests a second, and no more; of those that make the kernel read its routes, 10. [Self.Allow] may restrict it to the fleet's own addresses.
//   - It tells the node's ID and generation, the time, whether this host has a right way back to the asker's overlay address, and
//     counts of packets that carry a marker which the asker has chosen and sent itself. It changes nothing and sends to nobody else.
//   - It counts for one asker at a time, for five seconds at most, and the kernel hands it no packets but those with the marker.
//
// A reply can be forged by whoever is on the way. Nothing but the text of an explanation depends on it.
package probe
