// Package plan says what a node's kernel must have for a fleet's Snapshot. It is pure: it reads and writes nothing, and the same
// input gives the same output in the same order. Package wire applies what it says.
//
// A node has one tunnel link, and one route for each prefix of a peer. How a packet gets to the peer is in the route:
//
//	tunnel     10.100.2.0/24 encap ip id 7 dst 192.0.2.2 ttl 64 dev fl0 src 10.100.1.1 mtu 1464
//	direct     10.100.2.0/24 via 192.0.2.2 dev eth0 src 10.100.1.1 mtu 1500
//	wireguard  10.100.2.0/24 dev fl0 src 10.100.1.1 mtu 1440, and a peer of the link with that prefix
//	down       unreachable 10.100.2.0/24
//
// Beneath them the pools and the node's own prefix are unreachable at the last metric: what is nobody's comes back with an error
// and does not leave by a default route.
package plan
