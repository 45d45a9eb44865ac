package ct

import (
	"net/netip"
	"time"
)

// Tuple is one direction of a flow. Protocols without ports have 0 there.
type Tuple struct {
	Proto    uint8
	Src, Dst netip.AddrPort
	ICMP     ICMP // of ICMP and ICMPv6
	Zone     uint16
}

// ICMP is what a tuple of ICMP or ICMPv6 has instead of ports.
type ICMP struct {
	Type, Code uint8
	ID         uint16
}

// Counter is what was counted in one direction, where accounting is on.
type Counter struct{ Packets, Bytes uint64 }

// Flow is an entry of the table.
type Flow struct {
	Orig, Reply Tuple
	Status      uint32 // IPS_* (linux/netfilter/nf_conntrack_common.h)
	State       uint8  // TCP_CONNTRACK_*, SCTP_CONNTRACK_* or CT_DCCP_*; 0 for none
	Timeout     time.Duration
	Mark        uint32
	Zone        uint16
	ID          uint32

	Counted  bool // the following two are counted
	Sent     Counter
	Received Counter
}

// v6 says which family the flow is of.
func (f *Flow) v6() bool { return f.Orig.Src.Addr().Is6() }

// Answered says whether packets went by in both directions.
func (f *Flow) Answered() bool { return f.Status&statusSeenReply != 0 }

// Offloaded says whether the flow is in a flowtable. The kernel then reports neither its state nor its
// timeout.
func (f *Flow) Offloaded() bool { return f.Status&statusOffload != 0 }
