package probe

// counts is how many packets with a marker a host has seen, by what carried the marker.
type counts [2]seen

const (
	byICMP = 0
	byUDP  = 1
)

// seen are the packets of one kind. Out is what left the host, In what came in; Link is the tunnel link, with the packets as the
// overlay has them, and Wire any other link, with the packets as the network between the hosts has them.
type seen struct {
	LinkOut, WireOut, WireIn, LinkIn int
	Zero                             int // of WireIn: UDP tunnel packets over IPv6 without a checksum, which only a socket that allows it accepts
	Bad                              int // of WireIn: the UDP checksum of the tunnel, or of the packet in it, is wrong
}
