package link

import (
	"iter"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

var errNoPort = refuse.Input("the link is not the port of a bridge")

// portOption is one setting of a bridge port: one list of them serves encoding,
// decoding, reading back and undoing.
type portOption struct {
	attr   uint16 // IFLA_BRPORT_*
	width  int    // of the attribute, in bytes
	name   string // the field
	since  string // the kernel that brought it, where that is newer than the package needs
	hidden bool   // the kernel leaves it out where it is 0

	get func(*PortOptions) (v uint32, ok bool)
	set func(*PortOptions, *portStore, uint32)
}

// portStore is what the pointers of a decoded Port lead to.
type portStore struct {
	flags    [numPortFlags]bool
	state    PortState
	router   MulticastRouter
	mask     uint16
	nextHop  uint32
	priority int
	cost     int
	hosts    int
	groups   int
	backup   int
}

// portFlags are the settings that are on or off, one byte each.
var portFlags = [...]struct {
	attr  uint16
	name  string
	since string
	field func(*PortOptions) **bool
}{
	{unix.IFLA_BRPORT_MODE, "Hairpin", "", func(o *PortOptions) **bool { return &o.Hairpin }},
	{unix.IFLA_BRPORT_GUARD, "Guard", "", func(o *PortOptions) **bool { return &o.Guard }},
	{unix.IFLA_BRPORT_PROTECT, "RootBlock", "", func(o *PortOptions) **bool { return &o.RootBlock }},
	{unix.IFLA_BRPORT_FAST_LEAVE, "FastLeave", "", func(o *PortOptions) **bool { return &o.FastLeave }},
	{unix.IFLA_BRPORT_LEARNING, "Learning", "", func(o *PortOptions) **bool { return &o.Learning }},
	{unix.IFLA_BRPORT_UNICAST_FLOOD, "UnicastFlood", "", func(o *PortOptions) **bool { return &o.UnicastFlood }},
	{unix.IFLA_BRPORT_PROXYARP, "ProxyARP", "", func(o *PortOptions) **bool { return &o.ProxyARP }},
	{unix.IFLA_BRPORT_PROXYARP_WIFI, "ProxyARPWiFi", "", func(o *PortOptions) **bool { return &o.ProxyARPWiFi }},
	{unix.IFLA_BRPORT_MCAST_FLOOD, "MulticastFlood", "", func(o *PortOptions) **bool { return &o.MulticastFlood }},
	{unix.IFLA_BRPORT_MCAST_TO_UCAST, "MulticastToUnicast", "", func(o *PortOptions) **bool { return &o.MulticastToUnicast }},
	{unix.IFLA_BRPORT_VLAN_TUNNEL, "VLANTunnel", "", func(o *PortOptions) **bool { return &o.VLANTunnel }},
	{unix.IFLA_BRPORT_BCAST_FLOOD, "BroadcastFlood", "", func(o *PortOptions) **bool { return &o.BroadcastFlood }},
	{unix.IFLA_BRPORT_NEIGH_SUPPRESS, "NeighbourSuppress", "", func(o *PortOptions) **bool { return &o.NeighbourSuppress }},
	{unix.IFLA_BRPORT_ISOLATED, "Isolated", "", func(o *PortOptions) **bool { return &o.Isolated }},
	{unix.IFLA_BRPORT_LOCKED, "Locked", "5.18", func(o *PortOptions) **bool { return &o.Locked }},
	{unix.IFLA_BRPORT_MAB, "MAB", "6.2", func(o *PortOptions) **bool { return &o.MAB }},
	{unix.IFLA_BRPORT_NEIGH_VLAN_SUPPRESS, "NeighbourVLANSuppress", "6.4", func(o *PortOptions) **bool { return &o.NeighbourVLANSuppress }},
}

const numPortFlags = len(portFlags)

// portOptions has each setting at the number of its attribute; the other entries
// are zero.
var portOptions = func() (list [unix.IFLA_BRPORT_BACKUP_NHID + 1]portOption) {
	for i, f := range portFlags {
		list[f.attr] = portOption{
			attr: f.attr, width: 1, name: f.name, since: f.since,
			get: func(o *PortOptions) (uint32, bool) {
				p := *f.field(o)
				if p == nil || !*p {
					return 0, p != nil
				}
				return 1, true
			},
			set: func(o *PortOptions, s *portStore, v uint32) {
				s.flags[i] = v != 0
				*f.field(o) = &s.flags[i]
			},
		}
	}
	for _, o := range [...]portOption{
		portNumber(unix.IFLA_BRPORT_STATE, 1, "State", "",
			func(o *PortOptions) **PortState { return &o.State }, func(s *portStore) *PortState { return &s.state }),
		portNumber(unix.IFLA_BRPORT_PRIORITY, 2, "Priority", "",
			func(o *PortOptions) **int { return &o.Priority }, func(s *portStore) *int { return &s.priority }),
		portNumber(unix.IFLA_BRPORT_COST, 4, "Cost", "",
			func(o *PortOptions) **int { return &o.Cost }, func(s *portStore) *int { return &s.cost }),
		portNumber(unix.IFLA_BRPORT_MULTICAST_ROUTER, 1, "MulticastRouter", "",
			func(o *PortOptions) **MulticastRouter { return &o.MulticastRouter }, func(s *portStore) *MulticastRouter { return &s.router }),
		portNumber(unix.IFLA_BRPORT_GROUP_FWD_MASK, 2, "GroupForwardMask", "",
			func(o *PortOptions) **uint16 { return &o.GroupForwardMask }, func(s *portStore) *uint16 { return &s.mask }),
		portNumber(unix.IFLA_BRPORT_BACKUP_PORT, 4, "BackupPort", "",
			func(o *PortOptions) **int { return &o.BackupPort }, func(s *portStore) *int { return &s.backup }),
		portNumber(unix.IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT, 4, "EHTHostsLimit", "5.12",
			func(o *PortOptions) **int { return &o.EHTHostsLimit }, func(s *portStore) *int { return &s.hosts }),
		portNumber(unix.IFLA_BRPORT_MCAST_MAX_GROUPS, 4, "MaxGroups", "6.3",
			func(o *PortOptions) **int { return &o.MaxGroups }, func(s *portStore) *int { return &s.groups }),
		portNumber(unix.IFLA_BRPORT_BACKUP_NHID, 4, "BackupNextHop", "6.6",
			func(o *PortOptions) **uint32 { return &o.BackupNextHop }, func(s *portStore) *uint32 { return &s.nextHop }),
	} {
		o.hidden = o.attr == unix.IFLA_BRPORT_BACKUP_PORT || o.attr == unix.IFLA_BRPORT_BACKUP_NHID
		list[o.attr] = o
	}
	return list
}()

func portNumber[T ~uint8 | ~uint16 | ~uint32 | ~int](attr uint16, width int, name, since string, field func(*PortOptions) **T, store func(*portStore) *T) portOption {
	return portOption{
		attr: attr, width: width, name: name, since: since,
		get: func(o *PortOptions) (uint32, bool) {
			p := *field(o)
			if p == nil {
				return 0, false
			}
			return uint32(*p), true
		},
		set: func(o *PortOptions, s *portStore, v uint32) {
			p := store(s)
			*p = T(v)
			*field(o) = p
		},
	}
}

// value reads the setting from the attribute that the walker stands at.
func (p *portOption) value(w *nl.Walker) uint32 {
	switch p.width {
	case 1:
		return uint32(w.U8())
	case 2:
		return uint32(w.U16())
	}
	return w.U32()
}

// asked yields the settings that are not nil.
func (o *PortOptions) asked() iter.Seq[*portOption] {
	return func(yield func(*portOption) bool) {
		for i := range portOptions {
			p := &portOptions[i]
			if p.attr == 0 {
				continue
			}
			if _, ok := p.get(o); ok && !yield(p) {
				return
			}
		}
	}
}

// appendPortOptions appends what is set, as attributes of a bridge port.
func appendPortOptions(b []byte, o *PortOptions) []byte {
	for p := range o.asked() {
		v, _ := p.get(o)
		switch p.width {
		case 1:
			b = nl.AppendU8(b, p.attr, uint8(v))
		case 2:
			b = nl.AppendU16(b, p.attr, uint16(v))
		default:
			b = nl.AppendU32(b, p.attr, v)
		}
	}
	return b
}

// portNames names the attributes of a message that sets a port up.
func portNames(path []uint16) string {
	if path[0] != unix.IFLA_PROTINFO {
		return linkNames(path)
	}
	s := "IFLA_PROTINFO"
	if len(path) == 2 && int(path[1]) < len(portOptions) && portOptions[path[1]].attr != 0 {
		return s + "/" + portOptions[path[1]].name
	}
	return s
}
