//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// addInside makes an attachment that the container has the whole of: all of it, or
// nothing.
func addInside(ctx context.Context, r *request, box *netns.NS) (err error) {
	if err := r.clearInside(ctx, box); err != nil {
		return err
	}
	l, chained, err := r.chained()
	if err != nil {
		return err
	}
	if r.conf.delegated() {
		if l, err = delegate(ctx, r); err != nil {
			return err
		}
	}
	made := false
	defer func() {
		if err == nil {
			return
		}
		if made {
			err = errors.Join(err, unplugInside(ctx, r, box))
		}
		if !chained {
			err = errors.Join(err, release(ctx, r))
		}
	}()
	if r.conf.pool != nil {
		unlock, err := lock()
		if err != nil {
			return err
		}
		l, err = r.conf.pool.allocate(ctx, r)
		unlock()
		if err != nil {
			return err
		}
	}
	eth, err := r.plug(ctx, box, l, &made)
	if err != nil {
		return err
	}
	if eth.Index != 0 { // a device of DPDK has no link
		if err := l.addRoutes(ctx, box, eth.Index); err != nil {
			return failed("adding the container's routes", err)
		}
	}
	if r.conf.as != modeHostDevice {
		if err := r.conf.detect(ctx, eth, l); err != nil {
			return err
		}
		if err := eth.SetAlias(ctx, r.at.alias()+" "+eth.MAC.String()); err != nil {
			return failed("giving the container's link its alias", err)
		}
	}
	if err := r.announceInside(ctx, eth, l); err != nil {
		return err
	}
	for _, ip := range l.ips {
		ip.Interface = current.Int(0)
	}
	result := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: r.at.ifname, Sandbox: r.args.Netns}},
		IPs:        l.ips, Routes: l.routes, DNS: l.dns,
	}
	if eth.Index != 0 {
		result.Interfaces[0].Mac, result.Interfaces[0].Mtu = eth.MAC.String(), eth.MTU
	}
	if isSet(r.conf.DNS) {
		result.DNS = r.conf.DNS
	}
	return types.PrintResult(result, r.conf.CNIVersion)
}

// announceInside announces the addresses on a network that hears it: a routed ipvlan has
// no ARP, and a tap no carrier before a program is at its other end.
func (r *request) announceInside(ctx context.Context, eth link.Link, l *lease) error {
	if len(l.addrs) == 0 || eth.Index == 0 || r.conf.linked == "l3" || r.conf.linked == "l3s" {
		return nil
	}
	now, err := link.ByIndex(ctx, eth.NS(), eth.Index)
	if err != nil || !now.Running {
		return failed("reading the container's link", err)
	}
	return announce(ctx, now)
}

// plug makes or moves the container's link, up and with its addresses.
func (r *request) plug(ctx context.Context, box *netns.NS, l *lease, made *bool) (link.Link, error) {
	if r.conf.as == modeHostDevice {
		return r.moveIn(ctx, box, l, made)
	}
	spec := link.Spec{
		Name: r.at.ifname, NS: box, Up: true, MTU: r.conf.MTU, MAC: r.conf.mac, Addrs: l.addrs, DAD: r.conf.EnableDAD,
		Alias: r.at.alias() + " " + begun,
	}
	from := r.host
	if r.conf.as == modeTap {
		from = box
		spec.Kind = link.Tun{Tap: true, Persist: true, MultiQueue: r.conf.MultiQueue, Owner: r.conf.Owner, Group: r.conf.Group}
		if r.conf.Bridge != "" {
			spec.Master = link.Ref{Name: r.conf.Bridge}
		}
	} else {
		if r.conf.LinkInContainer {
			from = box
		}
		parent, err := r.parent(ctx, from)
		if err != nil {
			return link.Link{}, err
		}
		if r.conf.MTU > parent.MTU {
			return link.Link{}, invalid("mtu is more than that of the master", fmt.Sprintf("%d, and %s has %d", r.conf.MTU, parent.Name, parent.MTU))
		}
		spec.Parent = parent.Ref()
		switch r.conf.as {
		case modeMacvlan:
			spec.Kind = link.Macvlan{Mode: macvlanModes[r.conf.linked], BroadcastQueue: r.conf.BcQueueLen}
		case modeVLAN:
			spec.Kind = link.VLAN{ID: uint16(*r.conf.VLANID)}
		default:
			spec.Kind = link.IPVLAN{Mode: ipvlanModes[r.conf.linked]}
			if spec.MAC != nil {
				return link.Link{}, invalid("an ipvlan has the hardware address of its master", spec.MAC.String())
			}
		}
	}
	eth, err := link.Create(ctx, from, spec)
	*made = err == nil
	if errors.Is(err, os.ErrNotExist) && spec.Master.Name != "" {
		return eth, invalid("the container has no such bridge", oneLine(err))
	}
	return eth, failed("making the container's link", err)
}

// chained is the lease of an ipvlan behind another plugin, whose addresses it takes.
func (r *request) chained() (*lease, bool, error) {
	l := &lease{}
	if r.conf.as != modeIPVLAN || r.conf.IPAM.Type != "" {
		return l, false, nil
	}
	var before *current.Result
	if r.conf.PrevResult != nil {
		var err error
		if before, err = current.NewResultFromResult(r.conf.PrevResult); err != nil {
			return nil, false, types.NewError(types.ErrDecodingFailure, "prevResult cannot be read", err.Error())
		}
	}
	if before == nil || len(before.IPs) == 0 {
		return nil, false, invalid("ipvlan needs ipam", "no plugin before it has assigned an address either")
	}
	if r.conf.Master == "" {
		if len(before.Interfaces) != 1 || before.Interfaces[0].Name == "" {
			return nil, false, invalid("ipvlan needs master", "the plugin before it has not one link with a name")
		}
		r.conf.Master = before.Interfaces[0].Name
	}
	l, err := newLease(before, false)
	return l, true, err
}

// clearInside makes sure that the container has no link of the name. It takes away one
// that an ADD of this attachment has left that was killed.
func (r *request) clearInside(ctx context.Context, box *netns.NS) error {
	l, err := link.Get(ctx, box, r.at.ifname)
	if errors.Is(err, os.ErrNotExist) {
		if r.conf.pool != nil {
			return release(ctx, r) // its address
		}
		return nil
	}
	if err != nil {
		return failed("looking for the container's link", err)
	}
	d, err := l.Details(ctx)
	if err != nil {
		return failed("looking for the container's link", err)
	}
	owner, rest, ok := parseAlias(d.Spec.Alias)
	switch {
	case ok && owner == r.at.owner() && rest == begun:
		return errors.Join(failed("removing what a killed ADD has left", l.Delete(ctx)), release(ctx, r))
	case ok && owner == r.at.owner():
		return types.NewError(codeExists, "the container is in the network already", fmt.Sprintf("%s, by its link %s", owner, l.Name))
	}
	return types.NewError(codeExists, "the name of the container's link is taken", fmt.Sprintf("the container has a link %s that is not the attachment's", l.Name))
}

// delInside removes an attachment that the container has the whole of. Without the
// container's namespace its link is gone, but for a device that the kernel has
// given back to the host.
func delInside(ctx context.Context, r *request) error {
	var err error
	box, oerr := netns.OpenPath(ctx, r.args.Netns)
	switch {
	case oerr != nil:
		if r.conf.as == modeHostDevice {
			err = errors.Join(r.givenBack(ctx), r.note(nil))
		}
	case !box.Equal(r.host):
		defer box.Close()
		err = unplugInside(ctx, r, box)
		r.withdrawAnswers(ctx)
	default:
		box.Close()
	}
	return errors.Join(err, release(ctx, r))
}

// unplugInside removes the container's link, or moves the device back. It keeps a link of
// another kind, and of another owner. One without an alias is what a killed ADD or
// the reference plugin has made.
func unplugInside(ctx context.Context, r *request, box *netns.NS) error {
	if r.conf.as == modeHostDevice {
		return r.takeBack(ctx, box)
	}
	l, err := link.Get(ctx, box, r.at.ifname)
	var d link.Details
	if err == nil {
		d, err = l.Details(ctx)
	}
	if err != nil {
		return failed("removing the container's link", netns.IgnoreNotExist(err))
	}
	owner, _, _ := parseAlias(d.Spec.Alias)
	if l.Kind != r.conf.linkKind() || d.Spec.Alias != "" && owner != r.at.owner() {
		return nil
	}
	return failed("removing the container's link", netns.IgnoreNotExist(l.Delete(ctx)))
}

// linkKind is what the kernel calls the container's link.
func (c *config) linkKind() string {
	if c.as == modeTap {
		return "tun"
	}
	return c.as
}

// checkInside compares the container's link with the configuration.
func (r *request) checkInside(ctx context.Context, box *netns.NS) error {
	if r.conf.as == modeHostDevice {
		return nil
	}
	l, err := link.Get(ctx, box, r.at.ifname)
	if err != nil {
		return lost("the container's link "+r.at.ifname, err)
	}
	d, err := l.Details(ctx)
	if err != nil {
		return lost("the container's link "+r.at.ifname, err)
	}
	if l.Kind != r.conf.linkKind() {
		return drift("%s is of kind %s", l.Name, l.Kind)
	}
	switch kind := d.Spec.Kind.(type) {
	case link.Macvlan:
		if kind.Mode != macvlanModes[r.conf.linked] {
			return drift("%s has the mode %v, not %v", l.Name, kind.Mode, macvlanModes[r.conf.linked])
		}
	case link.VLAN:
		if int(kind.ID) != *r.conf.VLANID {
			return drift("%s is in the VLAN %d, not %d", l.Name, kind.ID, *r.conf.VLANID)
		}
	case link.IPVLAN:
		if mode := ipvlanModes[r.conf.linked]; kind.Mode == nil || *kind.Mode != *mode {
			return drift("%s has the mode %v, not %v", l.Name, kind.Mode, mode)
		}
	}
	if r.conf.as == modeTap && r.conf.Bridge != "" {
		br, err := link.Get(ctx, box, r.conf.Bridge)
		if err != nil {
			return lost("the container's bridge "+r.conf.Bridge, err)
		}
		if l.Master != br.Index {
			return drift("%s is no port of %s", l.Name, br.Name)
		}
	}
	if r.conf.as == modeTap || r.conf.Master == "" {
		return nil
	}
	from := r.host
	if r.conf.LinkInContainer {
		from = box
	}
	if _, err := link.Get(ctx, from, r.conf.Master); err != nil {
		return lost("the master "+r.conf.Master, err)
	}
	return nil
}

// gcInside gives back the addresses of what is not valid. The links are in
// namespaces that are gone, or that only the runtime knows.
func gcInside(ctx context.Context, r *request) error {
	alive := map[string]bool{}
	for _, a := range r.conf.ValidAttachments {
		alive[attachment{network: r.conf.Name, container: a.ContainerID, ifname: a.IfName}.link()] = true
	}
	lost := r.changeLoans(func(o loan) bool {
		return strings.HasPrefix(o.Owner, ownerPrefix(r.conf.Name)) && o.Host == r.host.ID().Ino && !alive[linkOf(o.Owner)]
	}, nil)
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	errs := []error{lost}
	if r.conf.pool != nil {
		errs = append(errs, r.gcPool(alive))
	}
	if r.conf.delegated() {
		errs = append(errs, gcDelegate(ctx, r))
	}
	return errors.Join(errs...)
}

// isUsableName says whether a text can be the name of a link.
func isUsableName(s string) bool {
	return s != "" && len(s) <= 15 && !strings.ContainsAny(s, "/: \t\n%") && s != "." && s != ".."
}
