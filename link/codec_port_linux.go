package link

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// numPortOptions is the number of settings of a bridge port.
const numPortOptions = 26

// Forms of settings that are newer than the kernels that the package needs, and of those
// that the kernel does not report where they are 0.
var (
	u8Since518   = &special{codec: u8, since: "5.18"}
	u8Since62    = &special{codec: u8, since: "6.2"}
	u8Since64    = &special{codec: u8, since: "6.4"}
	u32Since512  = &special{codec: u32, since: "5.12"}
	u32Since63   = &special{codec: u32, since: "6.3"}
	backup       = &special{codec: u32, noZero: true}
	backupNHID66 = &special{codec: u32, noZero: true, since: "6.6"}
)

// fields declares the settings, by their names in PortOptions. It returns an array, for
// room on the caller's stack.
func (o *PortOptions) fields() [numPortOptions]field {
	return [...]field{
		{unix.IFLA_BRPORT_STATE, "State", &o.State, u8},
		{unix.IFLA_BRPORT_PRIORITY, "Priority", &o.Priority, u16},
		{unix.IFLA_BRPORT_COST, "Cost", &o.Cost, u32},
		{unix.IFLA_BRPORT_MODE, "Hairpin", &o.Hairpin, u8},
		{unix.IFLA_BRPORT_GUARD, "Guard", &o.Guard, u8},
		{unix.IFLA_BRPORT_PROTECT, "RootBlock", &o.RootBlock, u8},
		{unix.IFLA_BRPORT_FAST_LEAVE, "FastLeave", &o.FastLeave, u8},
		{unix.IFLA_BRPORT_LEARNING, "Learning", &o.Learning, u8},
		{unix.IFLA_BRPORT_UNICAST_FLOOD, "UnicastFlood", &o.UnicastFlood, u8},
		{unix.IFLA_BRPORT_PROXYARP, "ProxyARP", &o.ProxyARP, u8},
		{unix.IFLA_BRPORT_PROXYARP_WIFI, "ProxyARPWiFi", &o.ProxyARPWiFi, u8},
		{unix.IFLA_BRPORT_MULTICAST_ROUTER, "MulticastRouter", &o.MulticastRouter, u8},
		{unix.IFLA_BRPORT_MCAST_FLOOD, "MulticastFlood", &o.MulticastFlood, u8},
		{unix.IFLA_BRPORT_MCAST_TO_UCAST, "MulticastToUnicast", &o.MulticastToUnicast, u8},
		{unix.IFLA_BRPORT_VLAN_TUNNEL, "VLANTunnel", &o.VLANTunnel, u8},
		{unix.IFLA_BRPORT_BCAST_FLOOD, "BroadcastFlood", &o.BroadcastFlood, u8},
		{unix.IFLA_BRPORT_GROUP_FWD_MASK, "GroupForwardMask", &o.GroupForwardMask, u16},
		{unix.IFLA_BRPORT_NEIGH_SUPPRESS, "NeighbourSuppress", &o.NeighbourSuppress, u8},
		{unix.IFLA_BRPORT_ISOLATED, "Isolated", &o.Isolated, u8},
		{unix.IFLA_BRPORT_BACKUP_PORT, "BackupPort", &o.BackupPort, backup},
		{unix.IFLA_BRPORT_LOCKED, "Locked", &o.Locked, u8Since518},
		{unix.IFLA_BRPORT_MAB, "MAB", &o.MAB, u8Since62},
		{unix.IFLA_BRPORT_NEIGH_VLAN_SUPPRESS, "NeighbourVLANSuppress", &o.NeighbourVLANSuppress, u8Since64},
		{unix.IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT, "EHTHostsLimit", &o.EHTHostsLimit, u32Since512},
		{unix.IFLA_BRPORT_MCAST_MAX_GROUPS, "MaxGroups", &o.MaxGroups, u32Since63},
		{unix.IFLA_BRPORT_BACKUP_NHID, "BackupNextHop", &o.BackupNextHop, backupNHID66},
	}
}

// reported are the fields that the kernel reports and does not take.
func (p *Port) reported() [15]field {
	return [...]field{
		{unix.IFLA_BRPORT_NO, "", &p.Number, u16},
		{unix.IFLA_BRPORT_ID, "", &p.ID, u16},
		{unix.IFLA_BRPORT_ROOT_ID, "", &p.DesignatedRoot, bridgeID{}},
		{unix.IFLA_BRPORT_BRIDGE_ID, "", &p.DesignatedBridge, bridgeID{}},
		{unix.IFLA_BRPORT_DESIGNATED_PORT, "", &p.DesignatedPort, u16},
		{unix.IFLA_BRPORT_DESIGNATED_COST, "", &p.DesignatedCost, u16},
		{unix.IFLA_BRPORT_TOPOLOGY_CHANGE_ACK, "", &p.TopologyChange, u8},
		{unix.IFLA_BRPORT_CONFIG_PENDING, "", &p.ConfigPending, u8},
		{unix.IFLA_BRPORT_MESSAGE_AGE_TIMER, "", &p.MessageAgeTimer, ticks64},
		{unix.IFLA_BRPORT_FORWARD_DELAY_TIMER, "", &p.ForwardDelayTimer, ticks64},
		{unix.IFLA_BRPORT_HOLD_TIMER, "", &p.HoldTimer, ticks64},
		{unix.IFLA_BRPORT_MRP_RING_OPEN, "", &p.MRPRingOpen, u8},
		{unix.IFLA_BRPORT_MRP_IN_OPEN, "", &p.MRPInterconnectOpen, u8},
		{unix.IFLA_BRPORT_MCAST_EHT_HOSTS_CNT, "", &p.EHTHosts, u32},
		{unix.IFLA_BRPORT_MCAST_N_GROUPS, "", &p.Groups, u32},
	}
}

// bridgeID is a struct ifla_bridge_id.
type bridgeID struct{ readOnly }

func (bridgeID) parse(b []byte, v any, _ *store) { copy(v.(*BridgeID)[:], b) }

// decodePort reads the contents of IFLA_INFO_SLAVE_DATA of a bridge port, or of
// IFLA_PROTINFO.
func decodePort(p *Port, b []byte) error {
	*p = Port{}
	var in attrs
	err := in.index(b)
	reported, options := p.reported(), p.PortOptions.fields()
	in.decode(reported[:])
	in.decodeInto(options[:], new(store))
	return err
}

// appendPortOptions appends what is set, as attributes of a bridge port.
func appendPortOptions(b []byte, o *PortOptions) []byte {
	m, options := message{b: b}, o.fields()
	m.put(placeSlave, options[:])
	return m.b
}

// missing names the settings of o that after, which was read back, lacks.
func (o *PortOptions) missing(after *PortOptions) error {
	var names []string
	want, got := o.fields(), after.fields()
	for i := range want {
		s := want[i].special()
		w, asked := want[i].number()
		g, shown := got[i].number()
		switch {
		case !asked, shown && g == w, !shown && w == 0 && s.noZero:
		case !shown && s.since != "":
			names = append(names, fmt.Sprintf("%s (Linux >= %s)", want[i].name, s.since))
		default:
			names = append(names, want[i].name)
		}
	}
	if names == nil {
		return nil
	}
	return refuse.As(errors.ErrUnsupported, "the kernel did not take %s", strings.Join(names, ", "))
}

// undo returns what brings those settings of o back that are not as before.
func (o *PortOptions) undo(before, after *PortOptions) (undo PortOptions) {
	want, old, now, to := o.fields(), before.fields(), after.fields(), undo.fields()
	for i := range want {
		was, shown := old[i].number()
		is, _ := now[i].number()
		if _, asked := want[i].number(); asked && is != was && (shown || want[i].special().noZero) {
			to[i].set(&old[i])
		}
	}
	return undo
}

// as returns those settings of o with the values of before.
func (o *PortOptions) as(before *PortOptions) (as PortOptions) {
	want, old, to := o.fields(), before.fields(), as.fields()
	for i := range want {
		_, asked := want[i].number()
		if _, shown := old[i].number(); asked && (shown || want[i].special().noZero) {
			to[i].set(&old[i])
		}
	}
	return as
}

// number is the number of a field; ok is false where it is nil.
func (f *field) number() (n int64, ok bool) {
	e, _, ok := deref(f.value)
	switch {
	case !ok:
		return 0, false
	case e.CanInt():
		return e.Int(), true
	case e.CanUint():
		return int64(e.Uint()), true
	case e.Bool():
		return 1, true
	}
	return 0, true
}

// set gives the field the value of another, 0 where that is nil.
func (f *field) set(from *field) {
	to, v := reflect.ValueOf(f.value).Elem(), reflect.ValueOf(from.value).Elem()
	if v.IsNil() {
		v = reflect.New(v.Type().Elem())
	}
	to.Set(v)
}

// portNames names the attributes of a message that sets a port up.
func portNames(path []uint16) string {
	if path[0] != unix.IFLA_PROTINFO {
		return linkNames(path)
	}
	options := new(PortOptions).fields()
	if len(path) == 2 {
		if name := nameOf(options[:], path[1]); name != "" {
			return "IFLA_PROTINFO/" + name
		}
	}
	return "IFLA_PROTINFO"
}
