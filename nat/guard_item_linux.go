package nat

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// guards are guards by their port.
type guards map[string]Guard

// items returns the elements of a guard. near is the MAC of the port itself, nil where the port does not
// exist: its box sends no IP then.
func (g Guard) items(near net.HardwareAddr) (items []item) {
	port := ifname(g.Port)
	add := func(set string, e nft.Element) { items = append(items, item{set, e}) }
	with := func(rest []byte) nft.Element { return nft.Element{Key: slices.Concat(port, rest)} }
	mac := func(m net.HardwareAddr) nft.Element { return with(append(slices.Clone(m), 0, 0)) }

	add(setArrived, nft.Element{Key: port})
	for i, text := range chunks(g.record()) {
		e := with(host32(uint32(i)))
		e.Comment = text
		add(setGuards, e)
	}
	add(setPorts, nft.Element{Key: port})
	add(setForgers, nft.Element{Key: port})
	add(setMACs, mac(g.MAC))
	for _, a := range append(slices.Clone(g.Box), g.linkLocal()) {
		set := setSource4
		if a.Is6() {
			set = setSource6
		}
		add(set, with(a.AsSlice()))
	}
	if len(near) == 6 {
		add(setLift, nft.Element{Key: port, Data: near})
		add(setBoxes, nft.Element{Key: g.MAC, Data: near, Comment: g.Port})
		add(setNear, mac(near))
	}
	return items
}

// port returns the port of the guard that an element is of.
func (it item) port() string {
	if it.set == setBoxes {
		return it.elem.Comment
	}
	return nameOf(it.elem.Key[:unix.IFNAMSIZ])
}

// changeGuardItems turns the elements in have into want, in both tables.
func changeGuardItems(b *nft.Batch, have, want []item) {
	haveInet, haveBridge := splitGuardItems(have)
	wantInet, wantBridge := splitGuardItems(want)
	changeItems(b, haveInet, wantInet)
	b.In(unix.NFPROTO_BRIDGE)
	changeItems(b, haveBridge, wantBridge)
	b.In(unix.NFPROTO_INET)
}

// splitGuardItems returns the elements of each table.
func splitGuardItems(items []item) (inet, bridge []item) {
	for _, it := range items {
		if it.set == setArrived {
			inet = append(inet, it)
		} else {
			bridge = append(bridge, it)
		}
	}
	return inet, bridge
}

// guardsOf returns the guards that the records among the items say.
func guardsOf(items []item) (guards, error) {
	records := make(map[string]map[uint32]string)
	for _, it := range items {
		if it.set != setGuards {
			continue
		}
		if len(it.elem.Key) != unix.IFNAMSIZ+4 {
			return nil, fmt.Errorf("set %s: malformed element: a key of %d bytes", it.set, len(it.elem.Key))
		}
		port := nameOf(it.elem.Key[:unix.IFNAMSIZ])
		if records[port] == nil {
			records[port] = make(map[uint32]string)
		}
		records[port][binary.NativeEndian.Uint32(it.elem.Key[unix.IFNAMSIZ:])] = it.elem.Comment
	}
	all := make(guards, len(records))
	for port, pieces := range records {
		text := ""
		for i := range len(pieces) {
			text += pieces[uint32(i)]
		}
		g, err := parseGuard(port, text)
		if err != nil {
			return nil, err
		}
		all[port] = g
	}
	return all, nil
}

// readGuards reads the guards of ports with all their elements. Its cost does not depend on the number
// of others.
func (n *NAT) readGuards(ctx context.Context, c nft.Conn, ports ...string) (guards, []item, error) {
	const atOnce = 2 // pieces
	c = c.In(unix.NFPROTO_BRIDGE)
	var records, items []item
	for first, left := uint32(0), ports; len(left) > 0; first += atOnce {
		var ask []nft.Query
		for _, p := range left {
			for i := first; i < first+atOnce; i++ {
				ask = append(ask, nft.Query{Set: setGuards, Key: slices.Concat(ifname(p), host32(i))})
			}
		}
		found, err := c.Lookup(ctx, n.table, ask...)
		if err != nil {
			return nil, nil, err
		}
		var more []string
		for i, e := range found {
			if e == nil {
				continue
			}
			records = append(records, item{setGuards, *e})
			if i%atOnce == atOnce-1 {
				more = append(more, left[i/atOnce])
			}
		}
		left = more
	}
	all, err := guardsOf(records)
	if err != nil {
		return nil, nil, damagedGuard(err)
	}
	names := slices.Sorted(maps.Keys(all))
	ask := make([]nft.Query, len(names))
	for i, p := range names {
		ask[i] = nft.Query{Set: setLift, Key: ifname(p)}
	}
	near, err := c.Lookup(ctx, n.table, ask...)
	for i, p := range names {
		var mac []byte
		if err == nil && near[i] != nil {
			mac = near[i].Data
		}
		items = append(items, all[p].items(mac)...)
	}
	return all, items, err
}

// readAllGuards reads the guards of the table, with what they have counted.
func (n *NAT) readAllGuards(ctx context.Context, c nft.Conn) ([]GuardState, error) {
	items, err := n.readSomeItems(ctx, c.In(unix.NFPROTO_BRIDGE), setGuards, setForgers)
	if err != nil {
		return nil, err
	}
	gs, err := guardsOf(items)
	if err != nil {
		return nil, damagedGuard(err)
	}
	forged := make(map[string]uint64)
	for _, it := range items {
		if it.set == setForgers {
			forged[nameOf(it.elem.Key)] = it.elem.Packets
		}
	}
	var all []GuardState
	for _, port := range slices.Sorted(maps.Keys(gs)) {
		all = append(all, GuardState{Guard: gs[port], Forged: forged[port]})
	}
	return all, nil
}

// damagedGuard says that a record cannot be read, and what to do.
func damagedGuard(err error) error {
	return fmt.Errorf("%w: %w (Sync restores it)", ErrDamaged, err)
}

// nearMACs returns the MACs of ports, without those of ports that do not exist.
func (n *NAT) nearMACs(ctx context.Context, ports []string) (map[string]net.HardwareAddr, error) {
	const few = 16 // whose links are read one by one
	macs := make(map[string]net.HardwareAddr, len(ports))
	if len(ports) > few {
		links, err := rtnl.Links(ctx, n.ns)
		for _, l := range links {
			macs[l.Name] = l.MAC
		}
		return macs, err
	}
	for _, p := range ports {
		l, err := rtnl.LinkByName(ctx, n.ns, p)
		if netns.IgnoreNotExist(err) != nil {
			return nil, err
		}
		if err == nil {
			macs[p] = l.MAC
		}
	}
	return macs, nil
}

func errNoGuard(port string) error {
	return refuse.As(os.ErrNotExist, "the port %s has no guard", port)
}

// guardedPorts returns the ports with guards.
func (n *NAT) guardedPorts(ctx context.Context) (map[string]bool, error) {
	c, err := n.conn()
	if err != nil {
		return nil, err
	}
	items, err := n.readSomeItems(ctx, c.In(unix.NFPROTO_BRIDGE), setPorts)
	ports := make(map[string]bool, len(items))
	for _, it := range items {
		ports[nameOf(it.elem.Key)] = true
	}
	return ports, err
}
