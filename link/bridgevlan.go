package link

import (
	"fmt"

	"github.com/boxwire/boxwire/internal/refuse"
)

// maxVLAN is the last VLAN that can be used, IEEE 802.1Q.
const maxVLAN = 4094

// PortVLAN is a VLAN of a bridge port, or a range of them: frames of other VLANs do
// not pass the port. A bridge has VLANs itself, in which the host takes part. They
// count while Bridge.VLANFiltering is on. See bridge(8), "bridge vlan".
type PortVLAN struct {
	ID  uint16 // 1 to 4094
	End uint16 // the last of a range that begins with ID; 0: ID alone

	// PVID makes it the VLAN of frames that come in without a tag. A port has at
	// most one, and a range cannot be it.
	PVID bool

	// Untagged removes the tag from frames that go out.
	Untagged bool

	// Tunnel is the tunnel id (a VXLAN's VNI) that stands for the VLAN behind
	// the port; 0 is none. In a range the ids ascend with the VLANs. The port
	// needs PortOptions.VLANTunnel.
	Tunnel uint32

	// State is the VLAN's own spanning tree state. It is read only.
	State PortState
}

// last is the last VLAN of the range.
func (v *PortVLAN) last() uint16 { return max(v.ID, v.End) }

// String returns the range as bridge(8) shows it: "10-20 PVID Egress Untagged".
func (v PortVLAN) String() string {
	s := fmt.Sprint(v.ID)
	if v.End > v.ID {
		s = fmt.Sprintf("%d-%d", v.ID, v.End)
	}
	if v.PVID {
		s += " PVID"
	}
	if v.Untagged {
		s += " Egress Untagged"
	}
	return s
}

// checkVLANs refuses what the kernel would refuse without a reason.
func checkVLANs(list []PortVLAN) error {
	var seen [maxVLAN + 1]bool
	pvid := uint16(0)
	for i := range list {
		v := &list[i]
		switch {
		case v.ID < 1 || v.last() > maxVLAN:
			return refuse.Input("VLAN %s is out of range (1 to %d)", v, maxVLAN)
		case v.End != 0 && v.End < v.ID:
			return refuse.Input("VLANs %d to %d: the range ends before it begins", v.ID, v.End)
		case v.PVID && v.End > v.ID:
			return refuse.Input("VLANs %s: a range cannot be the PVID", v)
		case v.PVID && pvid != 0:
			return refuse.Input("VLANs %d and %d are both to be the PVID", pvid, v.ID)
		case v.Tunnel >= 1<<24 || v.Tunnel != 0 && v.Tunnel+uint32(v.last()-v.ID) >= 1<<24:
			return refuse.Input("VLAN %s: a tunnel id has 24 bits", v)
		}
		if v.PVID {
			pvid = v.ID
		}
		for id := v.ID; id <= v.last(); id++ {
			if seen[id] {
				return refuse.Input("VLAN %d appears twice", id)
			}
			seen[id] = true
		}
	}
	return nil
}

// vlanSet has the VLANs of a port one by one. A zero ID is a VLAN that the port
// lacks.
type vlanSet [maxVLAN + 1]PortVLAN

// add puts single VLANs of the ranges into the set.
func (s *vlanSet) add(list ...PortVLAN) {
	for _, v := range list {
		for id := v.ID; id <= v.last() && id <= maxVLAN; id++ {
			one := PortVLAN{ID: id, PVID: v.PVID, Untagged: v.Untagged}
			if v.Tunnel != 0 {
				one.Tunnel = v.Tunnel + uint32(id-v.ID)
			}
			if one.PVID { // there is one only
				for i := range s {
					s[i].PVID = false
				}
			}
			s[id] = one
		}
	}
}

// remove takes the VLANs of the range out, and reports whether all were there.
func (s *vlanSet) remove(v PortVLAN) bool {
	all := true
	for id := v.ID; id <= v.last(); id++ {
		all = all && s[id].ID != 0
		s[id] = PortVLAN{}
	}
	return all
}

// ranges puts together what runs on for which keep returns true: neighbours with
// the same properties, and tunnel ids that go up with them.
func (s *vlanSet) ranges(keep func(id int) bool) (list []PortVLAN) {
	for id := 1; id <= maxVLAN; id++ {
		v := s[id]
		if v.ID == 0 || !keep(id) {
			continue
		}
		if n := len(list); n > 0 {
			p := &list[n-1]
			step := uint32(0)
			if p.Tunnel != 0 {
				step = uint32(v.ID - p.ID)
			}
			if p.last() == v.ID-1 && !p.PVID && !v.PVID && p.Untagged == v.Untagged && (p.Tunnel == 0) == (v.Tunnel == 0) && v.Tunnel == p.Tunnel+step {
				p.End = v.ID
				continue
			}
		}
		list = append(list, v)
	}
	return list
}
