//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// inVLANs says whether the container's port has VLANs of its own, so that the bridge
// has to filter by them.
func (c *config) inVLANs() bool { return c.VLAN != 0 || len(c.VLANTrunk) > 0 }

// vlans are those of the container's port. Frames without a tag are in the VLAN of
// the key "vlan", and in VLAN 1 where there is a trunk only.
func (c *config) vlans() []link.PortVLAN {
	if !c.inVLANs() {
		return nil
	}
	native := uint16(1)
	if c.VLAN != 0 {
		native = uint16(c.VLAN)
	}
	tagged := map[uint16]bool{}
	for _, t := range c.VLANTrunk {
		if t.ID != nil {
			tagged[uint16(*t.ID)] = true
		}
		if t.MinID != nil {
			for id := *t.MinID; id <= *t.MaxID; id++ {
				tagged[uint16(id)] = true
			}
		}
	}
	all := []link.PortVLAN{{ID: native, PVID: true, Untagged: true}}
	for id := uint16(1); id <= 4094; id++ {
		if !tagged[id] || id == native {
			continue
		}
		if before := &all[len(all)-1]; !before.PVID && max(before.ID, before.End)+1 == id {
			before.End = id
		} else {
			all = append(all, link.PortVLAN{ID: id})
		}
	}
	return all
}

// setVLANs gives the container's port its VLANs. The bridge has put it into the
// default one, which stays on demand.
func (c *config) setVLANs(ctx context.Context, port link.Link) error {
	if !c.inVLANs() {
		return nil
	}
	if c.PreserveDefaultVlan {
		return port.AddVLANs(ctx, c.vlans()...)
	}
	return port.SyncVLANs(ctx, c.vlans()...)
}

// lostVLAN says which VLAN of the container's port is gone, or is there and
// should not be; "" where none is.
func (c *config) lostVLAN(ctx context.Context, port link.Link) (string, error) {
	have, err := port.VLANs(ctx)
	if err != nil {
		return "", err
	}
	flat := func(all []link.PortVLAN) map[uint16]link.PortVLAN {
		ids := map[uint16]link.PortVLAN{}
		for _, v := range all {
			for id := v.ID; id <= max(v.ID, v.End); id++ {
				ids[id] = link.PortVLAN{ID: id, PVID: v.PVID, Untagged: v.Untagged}
			}
		}
		return ids
	}
	is, want := flat(have), flat(c.vlans())
	for id := uint16(1); id <= 4094; id++ {
		w, wanted := want[id]
		h, there := is[id]
		switch {
		case wanted && !there:
			return fmt.Sprintf("the VLAN %d is gone", id), nil
		case wanted && h != w:
			return fmt.Sprintf("the VLAN is %v, not %v", h, w), nil
		case there && !wanted && !c.PreserveDefaultVlan:
			return fmt.Sprintf("the VLAN %d is added", id), nil
		}
	}
	return "", nil
}

// segment is the name of the link that the host is in the network by: the bridge, or
// its link in the VLAN of the containers, or its end of the container's pair.
func (c *config) segment() string {
	if c.as == modePTP {
		return c.pair
	}
	if c.VLAN == 0 {
		return c.Bridge
	}
	return fmt.Sprintf("%s.%d", c.Bridge, c.VLAN)
}

// filter has a bridge filter by VLAN where the network needs it. One that others have
// made is theirs to change: its ports would leave each other.
func (b *bridge) filter(ctx context.Context, r *request) error {
	if !r.conf.inVLANs() {
		return nil
	}
	d, err := b.Details(ctx)
	if err != nil {
		return failed("reading the bridge's options", err)
	}
	if kind, ok := d.Spec.Kind.(link.Bridge); ok && kind.VLANFiltering != nil && *kind.VLANFiltering {
		return nil
	}
	if d.Spec.Alias != bridgeAlias {
		return invalid("the bridge does not filter by VLAN", "ip link set dev "+b.Name+" type bridge vlan_filtering 1")
	}
	_, err = b.Update(ctx, link.Spec{Kind: link.Bridge{VLANFiltering: new(true)}})
	b.filtered = err == nil
	return failed("having the bridge filter by VLAN", err)
}

// enter gives the host its link in the VLAN of the containers, where it is to be
// their gateway.
func (b *bridge) enter(ctx context.Context, r *request) error {
	b.gate = b.Link
	if r.conf.VLAN == 0 || !r.conf.IsGateway {
		return nil
	}
	id := uint16(r.conf.VLAN)
	gate, err := link.Get(ctx, r.host, r.conf.segment())
	if err == nil {
		if err := isGate(ctx, gate, b.Link, id); err != nil {
			return err
		}
		b.gate = gate
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return failed("looking at the bridge's link in the VLAN", err)
	}
	have, err := b.VLANs(ctx)
	if err != nil {
		return failed("reading the bridge's VLANs", err)
	}
	if !hasVLAN(have, id) {
		if err := b.AddVLANs(ctx, link.PortVLAN{ID: id}); err != nil {
			return failed("putting the host into the VLAN", err)
		}
		b.joined = true
	}
	gate, err = link.Create(ctx, r.host, link.Spec{
		Name: r.conf.segment(), Parent: b.Ref(), Kind: link.VLAN{ID: id}, Alias: bridgeAlias,
	})
	if err != nil {
		return failed("making the bridge's link in the VLAN", err)
	}
	b.gate, b.entered = gate, true
	return nil
}

// isGate refuses a link that is not the bridge's in the VLAN.
func isGate(ctx context.Context, gate, br link.Link, id uint16) error {
	d, err := gate.Details(ctx)
	if err != nil {
		return failed("reading the bridge's link in the VLAN", err)
	}
	if kind, ok := d.Spec.Kind.(link.VLAN); !ok || kind.ID != id || gate.ParentIndex != br.Index {
		return invalid("the name of the bridge's link in the VLAN is taken", fmt.Sprintf("%s is not the VLAN %d of %s", gate.Name, id, br.Name))
	}
	return nil
}

func hasVLAN(all []link.PortVLAN, id uint16) bool {
	return slices.ContainsFunc(all, func(v link.PortVLAN) bool { return v.ID <= id && id <= max(v.ID, v.End) })
}

// leave takes the host out of a VLAN that no port of the bridge is in any more. It
// keeps a link that the plugin has not made.
func leave(ctx context.Context, r *request, br link.Link, ports []link.Link) error {
	if r.conf.VLAN == 0 {
		return nil
	}
	id := uint16(r.conf.VLAN)
	for _, p := range ports {
		have, err := p.VLANs(ctx)
		if netns.IgnoreNotExist(err) != nil || hasVLAN(have, id) {
			return netns.IgnoreNotExist(err)
		}
	}
	gate, err := link.Get(ctx, r.host, r.conf.segment())
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	d, err := gate.Details(ctx)
	if err != nil || d.Spec.Alias != bridgeAlias {
		return netns.IgnoreNotExist(err)
	}
	return errors.Join(
		netns.IgnoreNotExist(gate.Delete(ctx)),
		netns.IgnoreNotExist(br.DeleteVLANs(ctx, link.PortVLAN{ID: id})),
	)
}
