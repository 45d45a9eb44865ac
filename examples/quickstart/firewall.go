//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/boxwire/boxwire/netns"
)

// dropEverything adds a table to ns with one rule that drops all incoming packets, as a box's own firewall might,
// and returns the function that removes it again.
//
// The nftables package knows nothing of Boxwire: it opens its socket in the namespace of the calling thread, so the
// calls run inside netns.Do.
func dropEverything(ctx context.Context, ns *netns.NS) (remove func(context.Context) error, err error) {
	table := &nftables.Table{Name: "own", Family: nftables.TableFamilyINet}
	err = inside(ctx, ns, func(c *nftables.Conn) error {
		c.AddTable(table)
		input := c.AddChain(&nftables.Chain{
			Name: "input", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: []expr.Any{
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}})
		return c.Flush()
	})
	return func(ctx context.Context) error {
		return inside(ctx, ns, func(c *nftables.Conn) error {
			c.DelTable(table)
			return c.Flush()
		})
	}, err
}

// dropped returns how many packets the counting drop rules of a chain in ns have dropped. A check that nothing comes
// back asks it whether anything went there in the first place.
func dropped(ctx context.Context, ns *netns.NS, table, chain string) (packets uint64, err error) {
	err = inside(ctx, ns, func(c *nftables.Conn) error {
		t := &nftables.Table{Name: table, Family: nftables.TableFamilyINet}
		rules, err := c.GetRules(t, &nftables.Chain{Name: chain, Table: t})
		for _, rule := range rules {
			packets += droppedBy(rule)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("counters of chain %s in %s: %w", chain, ns.Name(), err)
	}
	return packets, nil
}

// droppedBy returns a rule's counter if the rule drops, and 0 if it does not.
func droppedBy(rule *nftables.Rule) uint64 {
	var packets uint64
	for _, e := range rule.Exprs {
		switch e := e.(type) {
		case *expr.Counter:
			packets = e.Packets
		case *expr.Verdict:
			if e.Kind == expr.VerdictDrop {
				return packets
			}
		}
	}
	return 0
}

// tables returns the names of all nftables tables in ns.
func tables(ctx context.Context, ns *netns.NS) (names []string, err error) {
	err = inside(ctx, ns, func(c *nftables.Conn) error {
		all, err := c.ListTables()
		for _, t := range all {
			names = append(names, t.Name)
		}
		return err
	})
	return names, err
}

// inside runs fn with an nftables connection of its own inside ns.
func inside(ctx context.Context, ns *netns.NS, fn func(*nftables.Conn) error) error {
	_, err := netns.Do(ctx, ns, func(context.Context) (struct{}, error) {
		c, err := nftables.New()
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, fn(c)
	})
	return err
}
