//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/boxwire/boxwire/nat"
)

// maxGrants bounds how many addresses and ports are open at the same time.
const maxGrants = 4096

// grants are the addresses that names have opened.
type grants struct {
	gw  *nat.NAT
	box []netip.Addr

	mu    sync.Mutex
	until map[grant]time.Time
}

// grant is an open port of an address.
type grant struct {
	addr netip.Addr
	service
}

// add opens ports of addresses for a time. Addresses of a family that the box does not have are
// ignored.
func (g *grants) add(ctx context.Context, addrs []netip.Addr, ports []service, lifetime time.Duration) error {
	var all []grant
	for _, a := range addrs {
		for _, p := range ports {
			if g.from(a).IsValid() {
				all = append(all, grant{a, p})
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(g.until, func(_ grant, until time.Time) bool { return until.Before(now) })
	if len(g.until)+len(all) > maxGrants {
		return fmt.Errorf("more than %d addresses are open", maxGrants)
	}
	if err := g.open(ctx, lifetime, all...); err != nil {
		return err
	}
	for _, one := range all {
		if until := now.Add(lifetime); until.After(g.until[one]) {
			g.until[one] = until
		}
	}
	return nil
}

// again opens what is open once more. Another program may have removed the table, and package nat
// does not restore grants.
func (g *grants) again(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for one, until := range g.until {
		if left := time.Until(until); left >= time.Second {
			if err := g.open(ctx, left, one); err != nil {
				return err
			}
		}
	}
	return nil
}

// open grants, a call for each family.
func (g *grants) open(ctx context.Context, lifetime time.Duration, all ...grant) error {
	rules := map[netip.Addr][]nat.Rule{}
	for _, one := range all {
		from := g.from(one.addr)
		peer := netip.PrefixFrom(one.addr, one.addr.BitLen())
		rules[from] = append(rules[from], nat.Rule{Peer: peer, Proto: one.proto, Port: one.port})
	}
	for from, some := range rules {
		if err := g.gw.Grant(ctx, from, lifetime, some...); err != nil {
			return err
		}
	}
	return nil
}

// from is the address of the box that has the family of another one.
func (g *grants) from(other netip.Addr) netip.Addr {
	for _, a := range g.box {
		if a.Is4() == other.Is4() {
			return a
		}
	}
	return netip.Addr{}
}
