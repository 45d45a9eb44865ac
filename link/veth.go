package link

import (
	"encoding/binary"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Veth is a pair of Ethernet links joined back to back: what is sent into one
// end comes out of the other. Deleting either end deletes both, and so does
// the end of either namespace. An end has a carrier only while both are up.
//
// Needs the kernel's module "veth". See veth(4), VETH_INFO_PEER in
// linux/veth.h.
type Veth struct {
	// Peer is the other end. Its Name is required; its NS is the namespace
	// in which it is made, at once and not by a later move (nil: the same
	// namespace as the outer end). Index and Master are meant in that
	// namespace; the kernel heeds its Index only if the outer end has one,
	// too, so that Create refuses it otherwise. Its Kind must be nil.
	Peer Spec
}

func (Veth) name() string { return "veth" }

func (v Veth) check(outer *Spec) error { return checkPeer("veth", &v.Peer, outer) }

func (v Veth) options(o *options) Kind {
	o.peer(1, "VETH_INFO_PEER", &v.Peer, true)
	if o.do != decode {
		return nil // it is large
	}
	return v
}

// oneQueue appends the numbers of queues that a veth has if it is not told any.
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
	if err := peer.checkCommon(); err != nil {
		return &causeError{text: "peer: " + err.Error(), err: err}
	}
	if peer.Parent != 0 {
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

// peer is the other end of a pair: a whole struct ifinfomsg with attributes
// behind it, which the kernel does not give back. Its flags must stay 0: IFF_UP
// there makes the kernel refuse a veth with ENOTCONN, as the first end it brings
// up has no peer yet. The peer's IFLA_MASTER would be accepted and ignored. Both come
// with creation.settle. single gives the peer one queue each way where p says nothing.
func (o *options) peer(typ uint16, name string, p *Spec, single bool) {
	if o.do == encode && o.have != nil {
		return // it is there
	}
	o.custom(typ, name, p.Name != "", func() []byte {
		b := binary.NativeEndian.AppendUint32(make([]byte, 4, 128), uint32(p.Index))
		b = append(b, make([]byte, 8)...)
		in := options{do: encode, b: b}
		p.common(&in)
		if b = in.b; single {
			b = p.oneQueue(b)
		}
		if o.peerFD >= 0 {
			b = nl.AppendU32(b, 28, uint32(o.peerFD)) // IFLA_NET_NS_FD
		}
		return b
	}, nil, nil)
}

// pairOf returns the other end that a kind asks for, nil where there is none.
func pairOf(k Kind) *Spec {
	switch k := k.(type) {
	case Veth:
		return &k.Peer
	case Netkit:
		return &k.Peer
	}
	return nil
}
