package nat

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What [Network.Flowtable] asks for is done by an inet table of its own. The networks with the option
// are recorded in the set flowing of the table of the NAT, and the other one follows from them: a
// flowtable with its devices, sets of the networks, and a chain that adds flows. It is there while a
// network has the option.
//
// The flows of a flowtable do not pass the rules. What ends a flow deletes its entry of connection
// tracking, and the flowtable finds no flow whose entry is gone (flow_offload_lookup, nf_ct_is_dying).
// In addition, each change of a network or a guard rebuilds the table in its transaction. The commit
// takes the former flowtable off its devices (nf_tables_commit), so every flow passes the new rules, those
// of the bridge and the guard of sources among them, before it is in the flowtable again.

// flowTable is the name of the table. No name of a NAT has its '/'.
func (n *NAT) flowTable() string { return n.table + "/flowtable" }

// Parts of the table.
const (
	flowChain  = "add_flows"
	setFlowing = "networks"
	setInside  = "inside" // each of them twice: from the network to itself
)

// flowComment is not that of the NAT's own table: other programs would take it for one of their like.
const (
	flowPrefix  = "boxwire flowtable"
	flowVersion = 1 // of all that addFlowtable adds
)

// flowtable is the flowtable, with its devices.
func flowtable(devices []string) nft.Flowtable {
	return nft.Flowtable{Name: "flows", Counter: true, Devices: devices}
}

// flowPart is what a transaction knows of the table.
type flowPart struct {
	there   bool // it is there, and ours
	whole   bool // and has its chain, its rules, its sets and the flowtable
	foreign bool // another program's, or a newer version's, has its name
	have    []item
	devices []string
}

// readFlowtable reads the table.
func (n *NAT) readFlowtable(ctx context.Context, c nft.Conn) (p flowPart, err error) {
	table := n.flowTable()
	comment, err := c.TableComment(ctx, table)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	text, ours := strings.CutPrefix(comment, flowPrefix+" ")
	version, err := strconv.Atoi(text)
	if p.foreign = !ours || err != nil || version > flowVersion; p.foreign {
		return p, nil
	}
	p.there = true
	for _, set := range []string{setFlowing, setInside} {
		elems, err := c.Elements(ctx, table, set)
		if errors.Is(err, os.ErrNotExist) {
			return p, nil
		}
		if err != nil {
			return p, err
		}
		for _, e := range elems {
			p.have = append(p.have, item{set, e})
		}
	}
	b := nft.NewBatch(table)
	addFlowtable(b, nil)
	if p.whole, err = c.Holds(ctx, b); err != nil || !p.whole {
		return p, err
	}
	want := flowtable(nil)
	f, err := c.Flowtable(ctx, table, want.Name)
	if errors.Is(err, os.ErrNotExist) {
		p.whole = false
		return p, nil
	}
	p.devices = f.Devices
	p.whole = version == flowVersion && f.Priority == want.Priority && f.Counter == want.Counter
	return p, err
}

// addFlowtable adds the table, of which the batch's next messages are.
//
// The chain is behind those of all other firewalls, and so are its flows: firewalld's has the priority
// 10, that of iptables' table security 50.
func addFlowtable(b *nft.Batch, devices []string) {
	b.AddTable(fmt.Sprint(flowPrefix, " ", flowVersion))
	b.AddFlowtable(flowtable(devices))
	b.AddChain(nft.Chain{Name: flowChain, Type: "filter", Hook: unix.NF_INET_FORWARD, Priority: math.MaxInt32})
	b.AddSet(nft.Set{Name: setFlowing, Key: []nft.Field{typeIfname}})
	b.AddSet(nft.Set{Name: setInside, Key: []nft.Field{typeIfname, typeIfname}})
	// With br_netfilter, packets between the ports of a bridge are here, which the host does not route.
	inside := exprs{meta(expr.MetaKeyIIFNAME, regA), meta(expr.MetaKeyOIFNAME, regB), in(setInside)}
	b.AddRule(flowChain, rule(inside, accept())...)
	var protos []nft.Element
	for _, p := range []Proto{TCP, UDP} {
		protos = append(protos, nft.Element{Key: []byte{byte(p)}})
	}
	for _, match := range []exprs{iifIn(setFlowing), oifIn(setFlowing)} {
		set, id := b.AddAnonymous(nft.Set{Key: []nft.Field{typeProto}}, protos...)
		b.AddRule(flowChain, rule(ctState(expr.CtStateBitESTABLISHED), match, exprs{
			meta(expr.MetaKeyL4PROTO, regA), &expr.Lookup{SourceRegister: regA, SetName: set, SetID: id}, nft.FlowAdd(flowtable(nil).Name),
		})...)
	}
}

// flowItems returns the elements of the networks in the table.
func flowItems(networks []string) (items []item) {
	for _, name := range networks {
		key := ifname(name)
		items = append(items, item{setFlowing, nft.Element{Key: key}}, item{setInside, nft.Element{Key: slices.Concat(key, key)}})
	}
	return items
}

// flowing returns the networks with the option that the items are of, sorted.
func flowing(items []item) (networks []string) {
	for _, it := range items {
		if it.set == setFlowtable {
			networks = append(networks, nameOf(it.elem.Key))
		}
	}
	slices.Sort(networks)
	return slices.Compact(networks)
}

// changeFlowtable adds to the batch what has the table be as the networks need it, with these devices.
// With renew it is rebuilt. So it is if a device goes: the flows to a device without a hook stay in the
// flowtable.
func (n *NAT) changeFlowtable(b *nft.Batch, p flowPart, networks, devices []string, renew bool) error {
	if p.foreign && len(networks) > 0 {
		return refuse.As(os.ErrExist, "another program, or a newer version of this library, has the table inet %s, which the option Flowtable needs", n.flowTable())
	}
	b.In(unix.NFPROTO_INET)
	b.Of(n.flowTable())
	defer b.Of(n.table)
	switch {
	case len(networks) > 0 && p.whole && !renew && len(without(p.devices, devices)) == 0:
		changeItems(b, p.have, flowItems(networks))
		b.AddDevices(flowtable(without(devices, p.devices)))
	case len(networks) > 0:
		if p.there {
			b.DeleteTable()
		}
		addFlowtable(b, devices)
		addItems(b, flowItems(networks))
	case p.there:
		b.DeleteTable()
	}
	return nil
}

// without returns the names that are not among others.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(s string) bool { return slices.Contains(others, s) })
}

// has reports whether the table is as the networks need it, with whatever devices.
func (p flowPart) has(networks []string) bool {
	b := nft.NewBatch("")
	changeItems(b, p.have, flowItems(networks))
	return p.whole == (len(networks) > 0) && b.Len() == 0
}
