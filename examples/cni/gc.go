//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// gc removes the network's attachments that are not among the valid ones, and what
// a killed ADD has left. If the network then has no attachment, the bridge is
// removed, provided that the plugin has made it and it has no port.
func gc(ctx context.Context, r *request) error {
	if r.conf.as == modeLoopback { // each is in its container
		return nil
	}
	if r.conf.inside() {
		return gcInside(ctx, r)
	}
	valid := map[string]bool{} // by owner
	alive := map[string]bool{} // by the host's end
	for _, a := range r.conf.ValidAttachments {
		at := attachment{network: r.conf.Name, container: a.ContainerID, ifname: a.IfName}
		valid[at.owner()], alive[at.link()] = true, true
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	gone := func(alias string) bool {
		owner, _, ok := parseAlias(alias)
		return ok && strings.HasPrefix(owner, ownerPrefix(r.conf.Name)) && !valid[owner]
	}
	left := gcLinks(ctx, r, alive, gone)
	errs := []error{
		failed("removing links", left),
		failed("removing limits", sweepLimits(ctx, r.host, gone)),
	}
	if r.conf.pool != nil {
		errs = append(errs, r.gcPool(alive))
	}
	if r.conf.delegated() {
		errs = append(errs, gcDelegate(ctx, r))
	}
	if len(valid) == 0 && r.conf.as == modeBridge {
		errs = append(errs, failed("removing the bridge", dropBridge(ctx, r)))
	}
	gw, err := openOldNAT(ctx, r.host)
	if gw != nil {
		defer gw.Close()
		if left == nil { // a container that is still there keeps its policy
			errs = append(errs, deletePolicies(ctx, gw, func(owner string) bool {
				return strings.HasPrefix(owner, ownerPrefix(r.conf.Name)) && !valid[owner]
			}))
		}
		err = errors.Join(gcPorts(ctx, r, gw, valid), handOver(ctx, r.host, gw), r.gcPTP(ctx, gw), dropTable(ctx, r, gw))
	}
	return errors.Join(append(errs, failed("withdrawing ports", err))...)
}

// gcPool gives back the addresses of links that are not alive.
func (r *request) gcPool(alive map[string]bool) error {
	err := r.conf.pool.free(r.conf.Name, func(l string) bool { return !alive[l] })
	if errors.Is(err, errDamaged) && len(alive) == 0 { // no container has an address
		err = failed("removing the allocator's damaged state", os.Remove(r.conf.pool.path(r.conf.Name)))
	}
	return failed("giving addresses back", err)
}

// gcLinks deletes the host's ends that are not alive, all together.
func gcLinks(ctx context.Context, r *request, alive map[string]bool, gone func(alias string) bool) error {
	links, err := link.List(ctx, r.host, link.Filter{Kind: "veth"})
	if err != nil {
		return err
	}
	var dead []link.Link
	for _, l := range links {
		if !strings.HasPrefix(l.Name, linkPrefix) || alive[l.Name] {
			continue
		}
		d, err := l.Details(ctx)
		if err != nil {
			continue // gone meanwhile
		}
		if gone(d.Spec.Alias) || isUnnamed(d) {
			dead = append(dead, l)
			ifb, err := link.Get(ctx, r.host, ifbOf(l.Index))
			if err == nil {
				dead = append(dead, ifb)
			}
		}
	}
	if len(dead) == 0 {
		return nil
	}
	return netns.IgnoreNotExist(link.DeleteAll(ctx, dead...))
}

func gcPorts(ctx context.Context, r *request, gw *nat.NAT, valid map[string]bool) error {
	published, err := gw.ListPorts(ctx)
	if err != nil {
		return err
	}
	var dead []nat.Port
	for _, p := range published {
		if strings.HasPrefix(p.Owner, ownerPrefix(r.conf.Name)) && !valid[p.Owner] {
			dead = append(dead, p.Port)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	return netns.IgnoreNotExist(mended(ctx, gw, func() error { return gw.Unpublish(ctx, dead...) }))
}

// gcDelegate passes the request on. Many IPAM plugins do not know it yet.
func gcDelegate(ctx context.Context, r *request) error {
	knows, err := r.speaks(ctx, r.conf.CNIVersion)
	if err != nil {
		return failed("asking the IPAM plugin for its version", err)
	}
	if knows {
		_, err = r.ask(ctx, "GC")
	}
	return err
}
