package link

import (
	"fmt"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// VLAN is one VLAN of the link below (Spec.Parent, required): what is sent into
// it leaves the parent with a tag, and the parent's frames with that tag come
// out of it.
//
// Needs the kernel's module "8021q". See ip-link(8), IFLA_VLAN_* in
// linux/if_link.h (in parentheses).
type VLAN struct {
	ID       uint16       // 1 to 4094, required (ID)
	Protocol VLANProtocol // 802.1Q (PROTOCOL)

	ReorderHeader *bool // the tag is hidden from packet sockets; on (FLAGS)
	GVRP          *bool // registers itself with switches; off. Needs the kernel's CONFIG_VLAN_8021Q_GVRP (FLAGS)
	MVRP          *bool // the same by the newer protocol; off (FLAGS)
	LooseBinding  *bool // its state does not follow the parent's; off (FLAGS)
	BridgeBinding *bool // its carrier follows the bridge's ports that are in the VLAN; off. The parent is a bridge (FLAGS)

	// EgressQoS gives a packet's priority (SO_PRIORITY) the priority bits of
	// the tag, 0 to 7, and IngressQoS the other way round. Entries can be
	// added and replaced, but not removed. (EGRESS_QOS, INGRESS_QOS)
	EgressQoS, IngressQoS []VLANQoS
}

// VLANQoS is an entry of a VLAN's map of priorities.
type VLANQoS struct{ From, To uint32 }

// VLANProtocol is the EtherType of a VLAN tag.
type VLANProtocol uint16

const (
	VLAN8021Q  VLANProtocol = 0x8100 // customer tag, the usual one
	VLAN8021AD VLANProtocol = 0x88a8 // service tag, QinQ
)

// String returns the protocol as ip-link(8) writes it.
func (p VLANProtocol) String() string {
	switch p {
	case VLAN8021Q:
		return "802.1Q"
	case VLAN8021AD:
		return "802.1ad"
	}
	return fmt.Sprintf("VLANProtocol(%#x)", uint16(p))
}

func (VLAN) name() string { return "vlan" }

func (k VLAN) check(outer *Spec) error {
	if k.ID < 1 || k.ID > 4094 {
		return refuse.Input("VLAN %d is out of range (1 to 4094)", k.ID)
	}
	for _, q := range k.EgressQoS {
		if q.To > 7 {
			return refuse.Input("EgressQoS: %d is no priority of a tag (0 to 7)", q.To)
		}
	}
	for _, q := range k.IngressQoS {
		if q.From > 7 {
			return refuse.Input("IngressQoS: %d is no priority of a tag (0 to 7)", q.From)
		}
	}
	return needParent("a VLAN", outer)
}

func (k VLAN) options(o *options) Kind {
	number(o, 5, "IFLA_VLAN_PROTOCOL", 2|bigEndian, &k.Protocol)
	number(o, 1, "IFLA_VLAN_ID", 2, &k.ID)
	flagBits(o, 2, "IFLA_VLAN_FLAGS", &k.ReorderHeader, &k.GVRP, &k.LooseBinding, &k.MVRP, &k.BridgeBinding)
	qosMap(o, 4, "IFLA_VLAN_INGRESS_QOS", &k.IngressQoS)
	qosMap(o, 3, "IFLA_VLAN_EGRESS_QOS", &k.EgressQoS)
	return k
}

// flagBits are the bits of a struct of values and mask, from the lowest. The
// kernel reports a mask of all ones.
func flagBits(o *options, typ uint16, name string, bits ...**bool) {
	var value, mask uint32
	for i, p := range bits {
		if *p != nil {
			mask |= 1 << i
			if **p {
				value |= 1 << i
			}
		}
	}
	o.custom(typ, name, mask != 0,
		func() []byte { return pair(value, mask) },
		func(data []byte) {
			value, _, ok := cutPair(data)
			for i, p := range bits {
				if ok {
					*p = new(value&(1<<i) != 0)
				}
			}
		}, sameBits)
}

// qosMap is a list of struct ifla_vlan_qos_mapping, each in an attribute.
func qosMap(o *options, typ uint16, name string, p *[]VLANQoS) {
	const mapping = 1 // IFLA_VLAN_QOS_MAPPING
	parse := func(data []byte) (list []VLANQoS) {
		for w := nl.Walk(data); w.Next(); {
			if from, to, ok := cutPair(w.Data()); ok {
				list = append(list, VLANQoS{From: from, To: to})
			}
		}
		return list
	}
	o.custom(typ|nested, name, len(*p) > 0,
		func() (b []byte) {
			for _, q := range *p {
				b = nl.AppendAttr(b, mapping, pair(q.From, q.To))
			}
			return b
		},
		func(data []byte) { *p = parse(data) },
		func(want, have []byte) bool {
			m := map[uint32]uint32{}
			for _, q := range parse(have) {
				m[q.From] = q.To
			}
			for _, q := range parse(want) {
				if m[q.From] != q.To { // 0 is what is not listed
					return false
				}
			}
			return true
		})
}

// nested marks an attribute's type as holding attributes (NLA_F_NESTED).
const nested = 1 << 15
