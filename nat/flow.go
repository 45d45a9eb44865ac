package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Flow is an entry of the kernel's connection tracking: a TCP connection, or for UDP and other
// protocols two endpoints that exchanged packets lately.
type Flow struct {
	// Proto is the protocol. It may be one that cannot be published: ICMP is 1.
	Proto Proto

	// Original has the addresses of packets in the direction of the first one, before translation.
	// Reply has those of replies, before their translation. For a published port, Original.Dst is
	// the host's address and port, and Reply.Src the box's. Protocols without ports have port 0.
	Original, Reply Tuple

	// State is the protocol's state by its name in conntrack(8), e.g. "ESTABLISHED". It is "" for
	// protocols without states.
	State string

	Answered bool          // packets passed in both directions
	Timeout  time.Duration // until the kernel removes the entry, if no packet comes
	Mark     uint32

	// Offloaded says that the flow is in a flowtable ([Network.Flowtable], or another program's). Then the kernel
	// reports neither State nor Timeout.
	Offloaded bool

	// Sent counts the original direction, Received the reply direction. They are 0 unless Counted
	// is set: the kernel counts only flows that began while net.netfilter.nf_conntrack_acct was 1.
	Counted        bool
	Sent, Received Traffic
}

// Tuple is the source and destination of a packet.
type Tuple struct{ Src, Dst netip.AddrPort }

// Traffic is an amount of traffic. Bytes include the IP headers.
type Traffic struct{ Packets, Bytes uint64 }

// String returns the flow as "tcp 203.0.113.9:40000 -> 203.0.113.1:8080 (10.88.0.2:80)
// ESTABLISHED". Translated addresses are in parentheses.
func (f Flow) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v", f.Proto, f.Original.Src)
	if f.Reply.Dst != f.Original.Src {
		fmt.Fprintf(&b, " (%v)", f.Reply.Dst)
	}
	fmt.Fprintf(&b, " -> %v", f.Original.Dst)
	if f.Reply.Src != f.Original.Dst {
		fmt.Fprintf(&b, " (%v)", f.Reply.Src)
	}
	if f.State != "" {
		b.WriteString(" " + f.State)
	}
	if !f.Answered {
		b.WriteString(" unanswered")
	}
	if f.Offloaded {
		b.WriteString(" offloaded")
	}
	return b.String()
}
