package link

import (
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// VLAN is one VLAN of its Spec.Parent, which is required. What is sent into it
// leaves the parent with the tag, and frames of the parent with that tag come out
// of it.
//
//	v, err := link.Create(ctx, ns, link.Spec{
//		Name: "eth0.100", Up: true, Parent: link.Ref{Name: "eth0"}, Kind: link.VLAN{ID: 100},
//	})
//
// The VLANs of a bridge's ports are another thing: [Link.AddVLANs].
//
// It needs the kernel's module 8021q. A comment on a field gives its default last,
// and IFLA_VLAN_* of linux/if_link.h in parentheses. See ip-link(8).
type VLAN struct {
	ID       uint16       // 1 to 4094, required (ID)
	Protocol VLANProtocol // of the tag; VLAN8021Q (PROTOCOL)

	ReorderHeader *bool // hides the tag from packet sockets; on (FLAGS)
	GVRP          *bool // registers with switches by GVRP, CONFIG_VLAN_8021Q_GVRP; off (FLAGS)
	MVRP          *bool // registers with switches by MVRP, CONFIG_VLAN_8021Q_MVRP; off (FLAGS)
	LooseBinding  *bool // its state does not follow the parent's; off (FLAGS)
	BridgeBinding *bool // its carrier follows the ports in the VLAN, if the parent is a bridge; off (FLAGS)

	// EgressQoS maps the priority of a packet (SO_PRIORITY) to the priority bits
	// of the tag, 0 to 7. IngressQoS maps them back. Entries can be added and
	// replaced, but not removed. (EGRESS_QOS, INGRESS_QOS)
	EgressQoS, IngressQoS []VLANQoS
}

// VLANQoS is one entry of a VLAN's map of priorities.
type VLANQoS struct{ From, To uint32 }

// VLANProtocol is the EtherType of a VLAN tag.
type VLANProtocol uint16

// The values of VLANProtocol.
const (
	VLAN8021Q  VLANProtocol = 0x8100 // customer tag, the usual one
	VLAN8021AD VLANProtocol = 0x88a8 // service tag, QinQ
)

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

func (k VLAN) fields() (Kind, []field) {
	return &k, []field{
		{5, "IFLA_VLAN_PROTOCOL", &k.Protocol, be16},
		{1, "IFLA_VLAN_ID", &k.ID, u16},
		{2, "IFLA_VLAN_FLAGS", []**bool{&k.ReorderHeader, &k.GVRP, &k.LooseBinding, &k.MVRP, &k.BridgeBinding}, &maskedBits{}},
		{4 | nested, "IFLA_VLAN_INGRESS_QOS", &k.IngressQoS, qosMap{}},
		{3 | nested, "IFLA_VLAN_EGRESS_QOS", &k.EgressQoS, qosMap{}},
	}
}

// qosMap is a list of struct ifla_vlan_qos_mapping, each in an attribute.
type qosMap struct{}

func (qosMap) check(any) string         { return "" }
func (qosMap) isSet(v any, _ bool) bool { return len(*v.(*[]VLANQoS)) > 0 }

func (qosMap) append(b []byte, v any) []byte {
	const mapping = 1 // IFLA_VLAN_QOS_MAPPING
	for _, q := range *v.(*[]VLANQoS) {
		b = nl.AppendAttr(b, mapping, appendPair(nil, q.From, q.To))
	}
	return b
}

func (qosMap) parse(b []byte, v any, _ *store) {
	var list []VLANQoS
	for w := nl.Walk(b); w.Next(); {
		if from, to, ok := cutPair(w.Data()); ok {
			list = append(list, VLANQoS{From: from, To: to})
		}
	}
	*v.(*[]VLANQoS) = list
}

// equal looks for the entries of want. The kernel keeps those that there were.
func (c qosMap) equal(want, have []byte) bool {
	var w, h []VLANQoS
	c.parse(want, &w, nil)
	c.parse(have, &h, nil)
	m := map[uint32]uint32{}
	for _, q := range h {
		m[q.From] = q.To
	}
	for _, q := range w {
		if m[q.From] != q.To { // a priority that is not listed is 0
			return false
		}
	}
	return true
}
