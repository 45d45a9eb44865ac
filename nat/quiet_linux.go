package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What [Network.PortGroup] asks for is done by a table of the family bridge. The networks' groups are
// recorded in the inet table, in the set port_group, and the bridge table follows from them: a set of
// the groups, and one rule. It is there while a network has a group.
//
// A group and not the name of the bridge, for two reasons. Kernels without CONFIG_NFT_BRIDGE_META do not
// tell the name. And it does not tell an uplink from the port of a box.

// quietTable is the name of the bridge table. No name of a NAT has its '/'.
func (n *NAT) quietTable() string { return n.table + "/quiet" }

// setGroups has each group twice in its keys: for the port that a report comes from, and the one that it
// would go to.
const setGroups = "groups"

var typeGroup = nft.Field{Type: 35, Len: 4, Order: 1}

// quietPart is what a transaction knows of the bridge table.
type quietPart struct {
	there   bool // it is there, and ours
	whole   bool // and has its set and its rule
	foreign bool // another program's, or a newer version's, has its name
	have    []item
}

// readQuiet reads the bridge table.
func (n *NAT) readQuiet(ctx context.Context, c nft.Conn) (p quietPart, err error) {
	c = c.In(unix.NFPROTO_BRIDGE)
	comment, err := c.TableComment(ctx, n.quietTable())
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	current, err := checkVersion(comment)
	if p.foreign = err != nil; p.foreign {
		return p, nil
	}
	p.there = true
	elems, err := c.Elements(ctx, n.quietTable(), setGroups)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	for _, e := range elems {
		p.have = append(p.have, item{setGroups, e})
	}
	if err == nil && current {
		b := nft.NewBatch(n.quietTable())
		b.In(unix.NFPROTO_BRIDGE)
		addQuietTable(b)
		p.whole, err = c.Holds(ctx, b)
	}
	return p, err
}

// addQuietTable adds the bridge table, of which the batch's next messages are.
func addQuietTable(b *nft.Batch) {
	const chain = "reports"
	b.AddTable(skeletonComment)
	b.AddChain(nft.Chain{Name: chain, Type: "filter", Hook: unix.NF_INET_FORWARD, Priority: -300})
	b.AddSet(nft.Set{Name: setGroups, Key: []nft.Field{typeGroup, typeGroup}})
	between := exprs{meta(expr.MetaKeyIIFGROUP, regA), meta(expr.MetaKeyOIFGROUP, regAfter4), in(setGroups)}
	b.AddRule(chain, rule(protocol(etherIPv6), between, icmp6(icmp6ListenerReport, icmp6ListenerDone, icmp6ListenerReport2).any(b), drop())...)
}

// changeQuiet adds to the batch what has the bridge table drop reports within the groups of the
// networks' items. Where it cannot be, reports are flooded.
func (n *NAT) changeQuiet(b *nft.Batch, p quietPart, items []item) {
	if p.foreign || n.noQuiet {
		return
	}
	var want []item
	for _, g := range groupsOf(items) {
		want = append(want, item{setGroups, nft.Element{Key: slices.Concat(host32(g), host32(g))}})
	}
	b.In(unix.NFPROTO_BRIDGE)
	b.Of(n.quietTable())
	switch {
	case len(want) > 0 && p.whole:
		changeItems(b, p.have, want)
	case len(want) > 0:
		if p.there {
			b.DeleteTable()
		}
		addQuietTable(b)
		addItems(b, want)
	case p.there:
		b.DeleteTable()
	}
	b.In(unix.NFPROTO_INET)
	b.Of(n.table)
}

// groupsOf returns the groups of the networks that the items are of, each once.
func groupsOf(items []item) (groups []uint32) {
	for _, it := range items {
		if it.set == setPortGroup && len(it.elem.Data) == 4 {
			groups = append(groups, binary.NativeEndian.Uint32(it.elem.Data))
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// quietNetwork is changeQuiet for a network whose items change.
func (n *NAT) quietNetwork(ctx context.Context, c nft.Conn, b *nft.Batch, iface string, had, want []item) error {
	if len(groupsOf(had))+len(groupsOf(want)) == 0 {
		return nil
	}
	all, err := n.readItems(ctx, c, setPortGroup)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(it item) bool { return it.network() == iface })
	p, err := n.readQuiet(ctx, c)
	n.changeQuiet(b, p, append(all, want...))
	return err
}

// checkQuiet checks for [Check] that the bridge table drops reports within the groups of networks. A
// missing table is no fault: the kernel may lack the family.
func (n *NAT) checkQuiet(ctx context.Context, c nft.Conn, nets []Network) error {
	p, err := n.readQuiet(ctx, c)
	if err != nil || !p.there {
		return err
	}
	if !p.whole {
		return fmt.Errorf("%w: another program changed the rules of table bridge %s", ErrDamaged, n.quietTable())
	}
	have := byKey(p.have)
	for _, net := range nets {
		g := host32(net.PortGroup)
		if _, ok := have[setKey{set: setGroups, key: string(slices.Concat(g, g))}]; !ok && net.PortGroup != 0 {
			return fmt.Errorf("%w: table bridge %s lacks the group of network %s", ErrDamaged, n.quietTable(), net.Interface)
		}
	}
	return nil
}

// lacksBridge reports whether a commit failed because the kernel lacks the family bridge. It is tried
// without the bridge table then.
func (n *NAT) lacksBridge(err error) bool {
	var refused *nft.Error
	if n.noQuiet || !errors.As(err, &refused) || refused.What != "table "+n.quietTable() {
		return false
	}
	n.noQuiet = refused.Err.Errno == unix.EOPNOTSUPP || refused.Err.Errno == unix.EAFNOSUPPORT
	return n.noQuiet
}

// deleteQuietTable deletes the table, if it is there and ours.
func (n *NAT) deleteQuietTable(ctx context.Context, c nft.Conn, b *nft.Batch) error {
	p, err := n.readQuiet(ctx, c)
	n.changeQuiet(b, p, nil)
	return err
}
