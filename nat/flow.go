package nat

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Flow is a connection that the kernel tracks: of TCP a connection, of UDP and
// the like a pair of addresses that lately exchanged packets.
type Flow struct {
	// Proto is the number of the protocol, which need not be one that can be
	// published: ICMP is 1.
	Proto Proto

	// Original has the addresses as they are in the packets of who began the
	// flow, before any translation; Reply as they are in the answers, before
	// theirs. Of a published port Original.Dst is the host's address and port,
	// and Reply.Src the box's. Protocols without ports have port 0.
	Original, Reply Tuple

	// State is the protocol's state as conntrack(8) names it, "ESTABLISHED" say;
	// "" for protocols without states.
	State string

	Answered bool          // packets went by in both directions
	Timeout  time.Duration // until the kernel forgets it, if no packet comes
	Mark     uint32

	// Sent and Received are what went in the original direction and back. They
	// are 0 unless Counted is set: the kernel counts only where the setting
	// net.netfilter.nf_conntrack_acct was 1 when the flow began.
	Counted        bool
	Sent, Received Traffic
}

// Tuple is the source and destination of packets.
type Tuple struct{ Src, Dst netip.AddrPort }

// Traffic is an amount of traffic; bytes include the IP headers.
type Traffic struct{ Packets, Bytes uint64 }

// String returns the flow as "tcp 203.0.113.9:40000 -> 203.0.113.1:8080 (10.88.0.2:80)
// ESTABLISHED"; what is translated stands in parentheses.
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
	return b.String()
}
