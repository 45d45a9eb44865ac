package nat

import (
	"context"
	"slices"

	"github.com/boxwire/boxwire/internal/forwarding"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/netns"
)

// records are what the table says about links that this package made to forward, and which networks
// there are.
type records struct {
	nets  map[string]bool // by interface
	items []item          // in recordSets
}

// recordSets hold the links whose route_localnet was set, the bridges among those that did not
// forward, and those that did not forward.
var recordSets = []string{"localnet", "bridged", families[0].enabled, families[1].enabled}

// recordsOf returns the records among the items.
func recordsOf(items []item) records {
	r := records{nets: make(map[string]bool)}
	for _, it := range items {
		if it.set == "ifs" {
			r.nets[nameOf(it.elem.Key)] = true
		} else if slices.Contains(recordSets, it.set) {
			r.items = append(r.items, it)
		}
	}
	return r
}

func (n *NAT) readRecords(ctx context.Context, c nft.Conn) (records, error) {
	items, err := n.readItems(ctx, c, append([]string{"ifs"}, recordSets...)...)
	return recordsOf(items), err
}

// unneeded returns the records that no network needs: all of them after the last network, before
// that route_localnet of interfaces without a network.
func (r records) unneeded() records {
	if len(r.nets) == 0 {
		return r
	}
	some := records{nets: r.nets}
	for _, it := range r.items {
		if it.set == "localnet" && !r.nets[it.network()] {
			some.items = append(some.items, it)
		}
	}
	return some
}

// restoreLinks restores the links that no network needs, and then deletes their records. The
// setting comes before the record, because the record says what to restore. It follows the commit
// that removed the networks. If another program adds a network meanwhile, the links are made to
// forward again.
func (n *NAT) restoreLinks(ctx context.Context, c nft.Conn) error {
	return n.run(ctx, c, new(restoreLinksTx))
}

// routed returns the records of links that another program has made forward as well, by the global
// switch of a family: the host is a router then, and its neighbours may use it. A link that was off
// while the switch was on is not among them.
func (n *NAT) routed(ctx context.Context, c nft.Conn, r records) (all []item, err error) {
	for _, f := range families {
		var some []item
		for _, it := range r.items {
			if it.set == f.enabled && (f.v6 || it.elem.Comment != forwarding.NoteApart) {
				some = append(some, it)
			}
		}
		// The switch may be on for the sake of our networks.
		if len(some) == 0 || slices.ContainsFunc(some, isSwitch) {
			continue
		}
		name := "net.ipv4.ip_forward"
		if f.v6 {
			name = "net.ipv6.conf.all.forwarding"
		}
		on, err := n.ns.Sysctl(ctx, name)
		if err != nil {
			return nil, err
		}
		if on == "0" {
			continue
		}
		if f.v6 {
			if ours, err := n.othersSwitch(ctx, c); err != nil {
				return nil, err
			} else if ours {
				continue
			}
		}
		all = append(all, some...)
	}
	return all, nil
}

// yieldLinks restores the links that routed returns, which go on forwarding, and deletes their
// records.
func (n *NAT) yieldLinks(ctx context.Context, c nft.Conn) error {
	r, err := n.readRecords(ctx, c)
	if err != nil {
		return err
	}
	routed, err := n.routed(ctx, c, r)
	if err != nil || len(routed) == 0 {
		return err
	}
	return n.restoreLinks(ctx, c)
}

// restoreLinksTx restores links and deletes their records.
type restoreLinksTx struct {
	tableTx
	done records // of the restored links
}

// Build restores the links, and returns the batch that deletes their records.
func (tx *restoreLinksTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	r, err := tx.n.readRecords(ctx, tx.c)
	if err != nil {
		return nil, err
	}
	if len(r.nets) > 0 && len(tx.done.items) > 0 {
		if err := forwarding.Apply(ctx, tx.n.ns, tx.done.changes()); err != nil {
			return nil, err
		}
	}
	if tx.done, err = tx.n.unneeded(ctx, tx.c, r); err != nil {
		return nil, err
	}
	alone := tx.done
	if len(r.nets) == 0 {
		if alone, err = tx.n.handOver(ctx, tx.c, alone); err != nil {
			return nil, err
		}
	}
	if err := forwarding.Restore(ctx, tx.n.ns, alone.changes()); err != nil {
		return nil, err
	}
	b := nft.NewBatch(tx.n.table)
	deleteItems(b, tx.done.items)
	return b, nil
}

// Committed reports whether all unneeded records are deleted.
func (tx *restoreLinksTx) Committed(ctx context.Context) (bool, error) {
	r, err := tx.n.readRecords(ctx, tx.c)
	if err == nil {
		r, err = tx.n.unneeded(ctx, tx.c, r)
	}
	return len(r.items) == 0, err
}

// unneeded returns the records that no network needs, and those of a router's links.
func (n *NAT) unneeded(ctx context.Context, c nft.Conn, r records) (records, error) {
	some := r.unneeded()
	if len(r.nets) == 0 {
		return some, nil
	}
	routed, err := n.routed(ctx, c, r)
	some.items = append(some.items, routed...)
	return some, err
}

// finish forgets the records.
func (tx *restoreLinksTx) finish(context.Context) error {
	tx.n.learn(tx.done.items, nil)
	return nil
}

// explain ignores that the table is gone.
func (tx *restoreLinksTx) explain(_ context.Context, err error) error {
	return netns.IgnoreNotExist(err)
}

// changes are the changes of links that are recorded.
func (r records) changes() (all []forwarding.Change) {
	for _, it := range r.items {
		link := it.network()
		switch it.set {
		case families[0].enabled:
			all = append(all, forwarding.Change{Link: link, Setting: forwarding.IPv4Forwarding, From: '0', To: '1', Apart: it.elem.Comment == forwarding.NoteApart})
		case "localnet":
			all = append(all, forwarding.Change{Link: link, Setting: forwarding.IPv4RouteLocalnet, From: '0', To: '1'})
		case families[1].enabled:
			all = append(all, forwarding.ParseNotes(link, it.elem.Comment)...)
		}
	}
	forwarding.Sort(all)
	return all
}

// changeItem is the record of a change.
func changeItem(c forwarding.Change) item {
	key := ifname(c.Link)
	switch c.Setting {
	case forwarding.IPv4Forwarding:
		return item{families[0].enabled, nft.Element{Key: key, Comment: c.Note()}}
	case forwarding.IPv4RouteLocalnet:
		return item{"localnet", nft.Element{Key: key}}
	}
	return item{families[1].enabled, nft.Element{Key: key, Comment: c.Note()}}
}

// readLinks reads the namespace's links, without lo.
func readLinks(ctx context.Context, ns *netns.NS) ([]rtnl.Link, error) {
	links, err := rtnl.Links(ctx, ns)
	return slices.DeleteFunc(links, func(l rtnl.Link) bool { return l.IsLoopback() }), err
}

func names(elems []nft.Element) map[string]bool {
	m := make(map[string]bool, len(elems))
	for _, e := range elems {
		m[nameOf(e.Key)] = true
	}
	return m
}
