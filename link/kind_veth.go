package link

import (
	"encoding/binary"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Veth is a pair of Ethernet links: what is sent into one end comes out of the
// other. Deleting either end deletes both, and so does the end of either namespace.
// An end has a carrier while both ends are up.
//
// It needs the kernel's module veth. See veth(4) and VETH_INFO_PEER in
// linux/veth.h.
type Veth struct {
	// Peer is the other end. Its Name is required, and its Kind must be nil. Its
	// NS is the namespace in which it is made at once; nil is that of the outer
	// end. Its Index and Master are meant in that namespace. The kernel ignores
	// its Index unless the outer end has one, too, so Create refuses it without.
	Peer Spec
}

func (Veth) name() string { return "veth" }

func (v Veth) check(outer *Spec) error { return checkPeer("veth", &v.Peer, outer) }

func (v Veth) fields() (Kind, []field) {
	return &v, []field{{1, "VETH_INFO_PEER", &v.Peer, vethPeer}}
}

// oneQueue appends the numbers of queues of a veth whose spec does not have them.
func (s *Spec) oneQueue(b []byte) []byte {
	if s.TxQueues == 0 {
		b = nl.AppendU32(b, 31, 1) // IFLA_NUM_TX_QUEUES
	}
	if s.RxQueues == 0 {
		b = nl.AppendU32(b, 32, 1) // IFLA_NUM_RX_QUEUES
	}
	return b
}

// checkPeer checks the other end of a pair.
func checkPeer(kind string, peer, outer *Spec) error {
	if peer.Kind != nil {
		return refuse.Input("the peer of a %s must not have a Kind of its own", kind)
	}
	whole := *peer
	if whole.MTU == 0 {
		whole.MTU = outer.MTU
	}
	if err := whole.checkCommon(); err != nil {
		return &causeError{text: "peer: " + err.Error(), err: err}
	}
	if outer.MTU == 0 && peer.MTU != 0 && peer.MTU < minMTUIPv6 && slices.ContainsFunc(outer.Addrs, isIPv6) {
		return refuse.Input("the peer's MTU %d, which is the link's too, is too small for an IPv6 address (at least %d)", peer.MTU, minMTUIPv6)
	}
	if peer.Parent != (Ref{}) {
		return refuse.Input("the peer of a %s has no Parent", kind)
	}
	same := peer.NS == nil || (outer.NS != nil && peer.NS.Equal(outer.NS))
	if same && peer.Name == outer.Name {
		return refuse.Input("both ends are named %q in the same namespace", outer.Name)
	}
	if peer.Index != 0 && outer.Index == 0 {
		return refuse.Input("the peer asks for index %d and the outer end for none: the kernel would ignore it; give both an Index", peer.Index)
	}
	if same && peer.Index != 0 && peer.Index == outer.Index {
		return refuse.Input("both ends ask for index %d in the same namespace", outer.Index)
	}
	return nil
}

// peer is the other end of a pair: a whole struct ifinfomsg with attributes behind
// it, which the kernel does not report. Its flags must be 0: with IFF_UP the kernel
// refuses a veth with ENOTCONN, as the first end that it brings up has no peer yet.
// The kernel accepts and ignores the peer's IFLA_MASTER. Flags and master are set
// after the pair is made.
type peer struct {
	readOnly
	oneQueue bool // one queue each way is asked for if the spec has no number
	fd       int  // of the peer's namespace; -1: that of the message
}

// The forms of a peer in the namespace of the message.
var (
	vethPeer   = peerForm(true, -1)
	netkitPeer = peerForm(false, -1)
)

func peerForm(oneQueue bool, fd int) *special {
	return &special{codec: peer{oneQueue: oneQueue, fd: fd}, sure: oneQueue, newOnly: true}
}

func (peer) isSet(v any, _ bool) bool  { return v.(*Spec).Name != "" }
func (peer) parse([]byte, any, *store) {}

func (c peer) append(b []byte, v any) []byte {
	p := v.(*Spec)
	b = binary.NativeEndian.AppendUint32(append(b, 0, 0, 0, 0), uint32(p.Index))
	e := encoder{b: append(b, make([]byte, 8)...)}
	e.put(p.common())
	if b = e.b; c.oneQueue {
		b = p.oneQueue(b)
	}
	if c.fd >= 0 {
		b = nl.AppendU32(b, 28, uint32(c.fd)) // IFLA_NET_NS_FD
	}
	return b
}

// withPeerFD sets the descriptor of the peer's namespace.
func withPeerFD(fields []field, fd int) {
	for i := range fields {
		s := fields[i].special()
		if p, ok := s.codec.(peer); ok {
			fields[i].form = peerForm(p.oneQueue, fd)
		}
	}
}

// pairOf returns the other end that a kind asks for, or nil.
func pairOf(k Kind) *Spec {
	switch k := k.(type) {
	case Veth:
		return &k.Peer
	case Netkit:
		return &k.Peer
	}
	return nil
}

// pairUp gives an end of a pair that has no MTU that of the other.
func (s *Spec) pairUp() {
	p := pairOf(s.Kind)
	if p == nil || p.Name == "" || p.MTU == s.MTU {
		return
	}
	switch {
	case p.MTU == 0:
		p.MTU = s.MTU
	case s.MTU == 0:
		s.MTU = p.MTU
	}
	s.Kind = withPeer(s.Kind, *p)
}

// withPeer returns the kind with another spec for its other end.
func withPeer(k Kind, p Spec) Kind {
	switch k := k.(type) {
	case Veth:
		k.Peer = p
		return k
	case Netkit:
		k.Peer = p
		return k
	}
	return k
}
