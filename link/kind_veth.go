package link

import (
	"encoding/binary"

	"github.com/boxwire/boxwire/internal/nl"
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

// oneQueue appends the numbers of queues of an end whose spec has none. From Linux 5.15 on
// the kernel would make one each way for each possible processor.
func (m *message) oneQueue() {
	for _, t := range []uint16{31, 32} { // IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES
		if !m.sent[placeLink].has(t) {
			m.b = nl.AppendU32(m.b, t, 1)
		}
	}
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
	set := p.spec.settings()
	m.put(placeLink, set.common())
	if c.oneQueue {
		m.oneQueue()
	}
	if p.moved {
		m.b = nl.AppendU32(m.b, 28, 0) // IFLA_NET_NS_FD
		p.fd = len(m.b) - 4
	}
	return m.b
}
