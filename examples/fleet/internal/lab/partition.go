//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// partitionPriority is that of the rules by which the router keeps groups of several segments apart.
const partitionPriority = 100

// Partition splits the network: hosts of one group reach each other and the router, and nobody else. Hosts that are in no
// group are a group together. It takes the place of an earlier partition, and without groups the network is whole again.
// When it returns, no packet passes between the groups, and packets pass within them. Links keep their carrier: a host does
// not see that the network is split.
func (l *Lab) Partition(ctx context.Context, groups ...[]*Host) error {
	member := make(map[*Host]int) // 0: in no group
	for i, group := range groups {
		for _, h := range group {
			if h == nil || h.lab != l {
				return fmt.Errorf("lab.Partition: group %d has a host of another lab: %w", i, os.ErrInvalid)
			}
			if _, ok := member[h]; ok {
				return fmt.Errorf("lab.Partition: %s is in two groups: %w", h.Name, os.ErrInvalid)
			}
			member[h] = i + 1
		}
	}
	l.mu.Lock()
	hosts := append([]*Host(nil), l.Hosts...)
	l.mu.Unlock()
	if err := l.keepApart(ctx, hosts, member, len(groups)); err != nil {
		return fmt.Errorf("lab.Partition: %w", err)
	}
	for _, seg := range l.segments {
		if err := seg.split(ctx, hosts, member, len(groups)); err != nil {
			return fmt.Errorf("lab.Partition: segment %d: %w", seg.number+1, err)
		}
	}
	return nil
}

// keepApart makes the router drop what hosts of different groups send to each other through it.
func (l *Lab) keepApart(ctx context.Context, hosts []*Host, member map[*Host]int, groups int) error {
	rules := []route.Rule{}
	for _, a := range hosts {
		for _, b := range hosts {
			if groups == 0 || a.seg == b.seg || member[a] == member[b] {
				continue
			}
			for family, from := range valid(a.addrs) {
				to := b.addrs[family]
				rules = append(rules, route.Rule{
					Priority: partitionPriority, Action: route.ActionBlackhole, Protocol: labProtocol,
					From: netip.PrefixFrom(from.Addr(), from.Addr().BitLen()), To: netip.PrefixFrom(to.Addr(), to.Addr().BitLen()),
				})
			}
		}
	}
	_, err := route.SyncRules(ctx, l.Router, labProtocol, rules...)
	return err
}

// labProtocol marks the rules of a partition.
const labProtocol route.Protocol = 250

// split gives each group a bridge of its own. Each is joined to the core by an isolated port, so that it reaches the
// router, whose port is not isolated, and no other group.
func (s *segment) split(ctx context.Context, hosts []*Host, member map[*Host]int, groups int) error {
	old := s.parts
	s.parts = nil
	var bridges []link.Link // one for each group, that of no group first
	for i := range groups + 1 {
		if groups == 0 {
			bridges = append(bridges, s.core)
			break
		}
		b, err := s.part(ctx, i, old)
		if err != nil {
			return err
		}
		bridges = append(bridges, b)
	}
	for _, h := range hosts {
		if h.seg != s {
			continue
		}
		port, err := h.switchPort(ctx)
		if err != nil {
			return err
		}
		to := bridges[member[h]]
		if port.Master == to.Index {
			continue
		}
		if err := port.SetMaster(ctx, to.Ref()); err != nil {
			return err
		}
		if !port.Up {
			continue // it is cut
		}
		if err := port.WaitForwarding(ctx); err != nil {
			return err
		}
	}
	for _, b := range old { // with the pair to the core, which ends here
		up, err := link.Get(ctx, s.ns, "up-"+b.Name)
		if err == nil {
			err = up.Delete(ctx)
		}
		if err := netns.IgnoreNotExist(err); err != nil {
			return err
		}
		if err := b.Delete(ctx); err != nil {
			return err
		}
	}
	return nil
}

// part makes the bridge of a group. Its name differs from those of the partition before.
func (s *segment) part(ctx context.Context, group int, old []link.Link) (link.Link, error) {
	side := "a"
	if len(old) > 0 && old[0].Name[:1] == "a" {
		side = "b"
	}
	name := fmt.Sprintf("%s%d", side, group)
	b, err := link.Create(ctx, s.ns, bridgeSpec(name))
	if err != nil {
		return b, err
	}
	s.parts = append(s.parts, b)
	up, err := link.Create(ctx, s.ns, link.Spec{
		Name: "up-" + name, Up: true, Master: b.Ref(), MTU: 9000,
		Kind: link.Veth{Peer: link.Spec{
			Name: "core-" + name, Up: true, Master: s.core.Ref(), Port: link.PortOptions{Isolated: new(true)},
		}},
	})
	if err != nil {
		return b, err
	}
	return b, up.WaitReachable(ctx)
}
