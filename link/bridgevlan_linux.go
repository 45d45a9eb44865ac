package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// Constants of linux/if_bridge.h that golang.org/x/sys/unix lacks.
const (
	bridgeFlags      = 0 // IFLA_BRIDGE_FLAGS
	bridgeVLANInfo   = 2
	bridgeVLANTunnel = 3
	bridgeFlagsSelf  = 2

	tunnelID    = 1 // IFLA_BRIDGE_VLAN_TUNNEL_*
	tunnelVID   = 2
	tunnelFlags = 3

	vlanPVID       = 1 << 1 // BRIDGE_VLAN_INFO_*
	vlanUntagged   = 1 << 2
	vlanRangeBegin = 1 << 3
	vlanRangeEnd   = 1 << 4

	rtmNewVLAN, rtmGetVLAN = 112, 114 // Linux >= 5.6

	sizeofVLANMsg   = 8 // struct br_vlan_msg
	vlanEntry       = 1 // BRIDGE_VLANDB_ENTRY
	vlanEntryInfo   = 1 // BRIDGE_VLANDB_ENTRY_*
	vlanEntryRange  = 2
	vlanEntryState  = 3
	vlanEntryTunnel = 4 // Linux >= 5.7
	vlanTunnelID    = 1 // BRIDGE_VLANDB_TINFO_ID
)

// AddVLANs adds VLANs to a bridge port, or to a bridge itself. A VLAN that the link
// has gets the properties given. AddVLANs does all of it or nothing.
//
// A link that is no bridge and no port of one is os.ErrInvalid. A kernel without
// VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING) is errors.ErrUnsupported.
func (l Link) AddVLANs(ctx context.Context, vlans ...PortVLAN) error {
	return l.changeVLANs(ctx, "link.AddVLANs", vlans, func(s *vlanSet) error {
		s.add(vlans...)
		return nil
	})
}

// DeleteVLANs deletes VLANs of a bridge port, or of a bridge itself. ID and End
// find them. A range that is not there as a whole is os.ErrNotExist, and nothing is
// deleted.
func (l Link) DeleteVLANs(ctx context.Context, vlans ...PortVLAN) error {
	return l.changeVLANs(ctx, "link.DeleteVLANs", vlans, func(s *vlanSet) error {
		var missing []string
		for _, v := range vlans {
			if !s.remove(v) {
				missing = append(missing, PortVLAN{ID: v.ID, End: v.End}.String())
			}
		}
		if missing == nil {
			return nil
		}
		return refuse.As(os.ErrNotExist, "the link does not have VLAN %s", strings.Join(missing, ", "))
	})
}

// SyncVLANs makes the VLANs of a bridge port, or of a bridge itself, exactly those
// given. It deletes VLAN 1, which a bridge gives to every new port, unless that is
// given. Only differences are sent. SyncVLANs does all of it or nothing.
func (l Link) SyncVLANs(ctx context.Context, vlans ...PortVLAN) error {
	return l.changeVLANs(ctx, "link.SyncVLANs", vlans, func(s *vlanSet) error {
		*s = vlanSet{}
		s.add(vlans...)
		return nil
	})
}

// VLANs returns the VLANs of a bridge port, or of a bridge itself, in ascending
// order. VLANs with the same properties form a range.
func (l Link) VLANs(ctx context.Context) ([]PortVLAN, error) {
	err := l.bound()
	var list []PortVLAN
	if err == nil {
		var conn *nl.Conn
		if conn, err = route(l.ns); err == nil {
			list, err = readVLANs(ctx, conn, l.Index)
		}
	}
	if err != nil {
		return nil, fail.New("link.VLANs", l.ns, l.subject(), err)
	}
	return list, nil
}

// changeVLANs brings the link from the VLANs that it has to what edit makes of
// them, and reads the result back: the kernel ignores errors in a range.
func (l Link) changeVLANs(ctx context.Context, op string, vlans []PortVLAN, edit func(*vlanSet) error) error {
	err := l.bound()
	if err == nil {
		err = checkVLANs(vlans)
	}
	if err == nil && (len(vlans) > 0 || op == "link.SyncVLANs") {
		if ctx, err = changeContext(ctx); err == nil {
			err = l.editVLANs(ctx, edit)
		}
	}
	return fail.New(op, l.ns, l.subject(), err)
}

func (l Link) editVLANs(ctx context.Context, edit func(*vlanSet) error) error {
	conn, err := route(l.ns)
	if err != nil {
		return err
	}
	before, err := vlansOf(ctx, conn, l.Index)
	if err != nil {
		return err
	}
	want := *before
	if err := edit(&want); err != nil {
		return err
	}
	err = l.sendVLANs(ctx, conn, before, &want)
	now, rerr := vlansOf(ctx, conn, l.Index)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	if err == nil && *now != want {
		err = fmt.Errorf("the kernel did not do all of it: the VLANs are %v", now.ranges(every))
	}
	if err == nil {
		return nil
	}
	if uerr := l.sendVLANs(ctx, conn, now, before); uerr != nil {
		return errors.Join(err, fmt.Errorf("undoing the rest: %w", uerr))
	}
	return err
}

// maxVLANs is how many ranges stand in one message: with their tunnel ids, all that
// are possible do not fit into one attribute.
const maxVLANs = 500

// sendVLANs sends what leads from one set to another, in one send: a port's PVID has
// to go before another VLAN becomes it.
func (l Link) sendVLANs(ctx context.Context, conn *nl.Conn, from, to *vlanSet) error {
	gone := from.ranges(func(id int) bool { return to[id].ID == 0 })
	// A tunnel id that is there already would be refused (EEXIST).
	fresh := *to
	for id := range fresh {
		if fresh[id].Tunnel == from[id].Tunnel {
			fresh[id].Tunnel = 0
		}
	}
	set := fresh.ranges(func(id int) bool { return from[id] != to[id] })
	// A tunnel id is not changed in place: it is taken away first.
	untunnel := from.ranges(func(id int) bool { return from[id].Tunnel != 0 && to[id].ID != 0 && from[id].Tunnel != to[id].Tunnel })
	self := l.Kind == "bridge"
	var reqs []nl.Request
	add := func(typ uint16, list []PortVLAN, info bool) {
		for some := range slices.Chunk(list, maxVLANs) {
			reqs = append(reqs, vlanRequest(typ, l.Index, self, some, info))
		}
	}
	add(unix.RTM_DELLINK, gone, true)
	add(unix.RTM_DELLINK, untunnel, false)
	add(unix.RTM_SETLINK, set, true)
	if len(reqs) == 0 {
		return nil
	}
	err := conn.Exec(ctx, reqs, nil)
	if _, e, ok := refused(err); ok && e.Errno == unix.EINVAL && e.Msg == "" {
		for _, v := range set {
			if v.Tunnel != 0 {
				return &causeError{text: "the kernel does not take the tunnel ids; has the port VLANTunnel set? " + e.Error(), err: e}
			}
		}
	}
	return err
}

// vlanRequest builds a message of AF_BRIDGE with the VLANs, if info is set, and
// their tunnel ids. A flag marks a bridge's own.
func vlanRequest(typ uint16, index int, self bool, list []PortVLAN, info bool) nl.Request {
	b := appendIfInfo(make([]byte, 0, 64+24*len(list)), index, 0, 0)
	b[0] = unix.AF_BRIDGE
	b, at := nl.Begin(b, unix.IFLA_AF_SPEC)
	if self {
		b = nl.AppendU16(b, bridgeFlags, bridgeFlagsSelf)
	}
	for i := range list {
		v := &list[i]
		if !info {
			break
		}
		flags := uint16(0)
		if v.PVID {
			flags |= vlanPVID
		}
		if v.Untagged {
			flags |= vlanUntagged
		}
		if v.last() == v.ID {
			b = appendVLANInfo(b, flags, v.ID)
			continue
		}
		b = appendVLANInfo(b, flags|vlanRangeBegin, v.ID)
		b = appendVLANInfo(b, flags|vlanRangeEnd, v.End)
	}
	for i := range list {
		v := &list[i]
		if v.Tunnel == 0 || info && typ == unix.RTM_DELLINK {
			continue // a VLAN takes its tunnel id along
		}
		if v.last() == v.ID {
			b = appendVLANTunnel(b, 0, v.ID, v.Tunnel)
			continue
		}
		b = appendVLANTunnel(b, vlanRangeBegin, v.ID, v.Tunnel)
		b = appendVLANTunnel(b, vlanRangeEnd, v.End, v.Tunnel+uint32(v.End-v.ID))
	}
	nl.End(b, at)
	return nl.Request{Type: typ, Body: b, Names: linkNames}
}

// appendVLANInfo appends a struct bridge_vlan_info.
func appendVLANInfo(b []byte, flags, id uint16) []byte {
	var info [4]byte
	binary.NativeEndian.PutUint16(info[:], flags)
	binary.NativeEndian.PutUint16(info[2:], id)
	return nl.AppendAttr(b, bridgeVLANInfo, info[:])
}

func appendVLANTunnel(b []byte, flags, id uint16, tunnel uint32) []byte {
	b, at := nl.Begin(b, bridgeVLANTunnel)
	b = nl.AppendU32(b, tunnelID, tunnel)
	b = nl.AppendU16(b, tunnelVID, id)
	b = nl.AppendU16(b, tunnelFlags, flags)
	nl.End(b, at)
	return b
}

func every(int) bool { return true }

// vlansOf reads the VLANs of a link one by one.
func vlansOf(ctx context.Context, conn *nl.Conn, index int) (*vlanSet, error) {
	list, err := readVLANs(ctx, conn, index)
	if err != nil {
		return nil, err
	}
	s := new(vlanSet)
	s.add(list...)
	return s, nil
}

// readVLANs asks for the VLANs of one link with RTM_GETVLAN, which, unlike the
// link dump of AF_BRIDGE, the kernel filters by link.
func readVLANs(ctx context.Context, conn *nl.Conn, index int) ([]PortVLAN, error) {
	b := append(make([]byte, 0, sizeofVLANMsg), unix.AF_BRIDGE, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	var list []PortVLAN
	err := conn.Dump(ctx, nl.Request{Type: rtmGetVLAN, Body: b}, func() { list = list[:0] }, func(m nl.Message) (err error) {
		if m.Type == rtmNewVLAN {
			list, err = decodeVLANs(list, m.Body)
		}
		return err
	})
	var e *nl.Error
	if errors.As(err, &e) {
		switch e.Errno {
		case unix.EOPNOTSUPP:
			err = &causeError{text: "the kernel has no VLAN filtering in bridges (CONFIG_BRIDGE_VLAN_FILTERING, Linux >= 5.6): " + e.Error(), err: e}
		case unix.EINVAL:
			err = errNoPort
		}
	}
	return list, err
}

// decodeVLANs appends the VLANs in the body of an RTM_NEWVLAN message.
func decodeVLANs(list []PortVLAN, b []byte) ([]PortVLAN, error) {
	if len(b) < sizeofVLANMsg {
		return list, errShort
	}
	w := nl.Walk(b[sizeofVLANMsg:])
	for w.Next() {
		if w.Type() != vlanEntry {
			continue
		}
		v, err := decodeVLAN(w.Nested())
		if err != nil {
			return list, err
		}
		if v.ID != 0 && v.ID <= maxVLAN && v.End <= maxVLAN {
			list = append(list, v)
		}
	}
	return list, w.Err()
}

func decodeVLAN(w nl.Walker) (v PortVLAN, err error) {
	for w.Next() {
		switch w.Type() {
		case vlanEntryInfo:
			if d := w.Data(); len(d) >= 4 {
				flags := binary.NativeEndian.Uint16(d)
				v.ID = binary.NativeEndian.Uint16(d[2:])
				v.PVID, v.Untagged = flags&vlanPVID != 0, flags&vlanUntagged != 0
			}
		case vlanEntryRange:
			v.End = w.U16()
		case vlanEntryState:
			v.State = PortState(w.U8())
		case vlanEntryTunnel:
			t := w.Nested()
			for t.Next() {
				if t.Type() == vlanTunnelID {
					v.Tunnel = t.U32()
				}
			}
			if err := t.Err(); err != nil {
				return v, err
			}
		}
	}
	return v, w.Err()
}
