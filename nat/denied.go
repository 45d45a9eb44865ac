package nat

import (
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// Denial is a kind of packets that policies denied: those with the same addresses, protocol and
// destination port.
type Denial struct {
	// Ingress says that the destination's policy denied them; otherwise the source's did.
	Ingress bool

	// Proto is the protocol, ICMPv6 as 58.
	Proto Proto

	// Src and Dst are the addresses, without translation. Port is the destination port, 0 for
	// protocols without ports.
	Src, Dst netip.Addr
	Port     uint16

	// Packets is how many were denied since the first of them. It is 1 in an event of kind
	// EventChanged.
	Packets uint64

	// Ago is how long ago the last one was denied. It is 0 in an event of kind EventChanged.
	Ago time.Duration
}

// Box is the box whose policy denied.
func (d Denial) Box() netip.Addr {
	if d.Ingress {
		return d.Dst
	}
	return d.Src
}

// DenialEvent is a record of denied packets, a packet that was denied now, or a mark.
type DenialEvent struct {
	// Kind is netns.EventPresent for a record, netns.EventChanged for a packet, netns.EventSynced
	// for the end of the records, netns.EventResync where packets may have been lost: records
	// follow, and EventSynced.
	Kind netns.EventKind

	Denial // none with a mark
}
