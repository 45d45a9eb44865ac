package link

import (
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

func (v Veth) check(outer *Spec) error {
	if v.Peer.Kind != nil {
		return refuse.Input("the peer of a veth must not have a Kind of its own")
	}
	if err := v.Peer.checkCommon(); err != nil {
		return &causeError{text: "peer: " + err.Error(), err: err}
	}
	same := v.Peer.NS == nil || (outer.NS != nil && v.Peer.NS.Equal(outer.NS))
	if same && v.Peer.Name == outer.Name {
		return refuse.Input("both ends are named %q in the same namespace", outer.Name)
	}
	if v.Peer.Index != 0 && outer.Index == 0 {
		return refuse.Input("the peer asks for index %d and the outer end for none: the kernel would ignore it; give both an Index", v.Peer.Index)
	}
	if same && v.Peer.Index != 0 && v.Peer.Index == outer.Index {
		return refuse.Input("both ends ask for index %d in the same namespace", outer.Index)
	}
	return nil
}
