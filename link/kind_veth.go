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

func (Veth) check(*Spec) error { return nil }

func (v Veth) fields() (Kind, []field) {
	return &v, []field{{1, "VETH_INFO_PEER", &otherEnd{spec: &v.Peer}, vethPeer}}
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
	err := peer.checkCommon()
	if err == nil && peer.MTU == 0 {
		err = checkMTU(outer.MTU, peer.Addrs)
	}
	if err != nil {
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

// otherEnd is the value of a field: the other end of a pair.
type otherEnd struct {
	spec  *Spec
	moved bool // it is made in another namespace than that of the message
	fd    int  // where that namespace's descriptor stands in the message
}

// peerForm is that of the other end of a pair: a whole struct ifinfomsg with attributes
// behind it, which the kernel does not report. Its flags must be 0: with IFF_UP the kernel
// refuses a veth with ENOTCONN, as the first end that it brings up has no peer yet.
// The kernel accepts and ignores the peer's IFLA_MASTER. Flags and master are set
// after the pair is made.
type peerForm struct {
	readOnly
	oneQueue bool // one queue each way is asked for if the spec has no number
}

var (
	vethPeer   = &special{codec: peerForm{oneQueue: true}, sure: true, newOnly: true}
	netkitPeer = &special{codec: peerForm{}, newOnly: true}
)

func (peerForm) isSet(v any, _ bool) bool  { return v.(*otherEnd).spec.Name != "" }
func (peerForm) parse([]byte, any, *store) {}

func (c peerForm) append(b []byte, v any) []byte {
	p := v.(*otherEnd)
	b = binary.NativeEndian.AppendUint32(append(b, 0, 0, 0, 0), uint32(p.spec.Index))
	m := message{b: append(b, 0, 0, 0, 0, 0, 0, 0, 0)}
	m.common(p.spec)
	if b = m.b; c.oneQueue {
		b = p.spec.oneQueue(b)
	}
	if p.moved {
		b = nl.AppendU32(b, 28, 0) // IFLA_NET_NS_FD
		p.fd = len(b) - 4
	}
	return b
}

// pairUp gives either end of a pair the MTU of the other, if it has no own.
func (s *Spec) pairUp(p *Spec) {
	switch {
	case p == nil || p.Name == "":
	case p.MTU == 0:
		p.MTU = s.MTU
	case s.MTU == 0:
		s.MTU = p.MTU
	}
}
