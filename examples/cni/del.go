//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// del removes the attachment. What is gone already, the container's namespace
// for one, is fine; one thing that cannot be removed does not keep the others.
func del(ctx context.Context, r *request) error {
	if r.conf.as == modeLoopback {
		return delLoopback(ctx, r)
	}
	if r.conf.inside() {
		return delInside(ctx, r)
	}
	unlock, err := r.lockDel()
	if err != nil {
		return err
	}
	err = detach(ctx, r, false)
	unlock()
	r.withdrawAnswers(ctx)
	return errors.Join(err, r.freed())
}

// lockDel locks out every ADD, but no other DEL, which shares nothing with this one: it changes
// elements of its own in the firewall, and the allocator has a lock of its own. Where a port may have
// to be handed over, and where a network goes with its container, it locks out all.
func (r *request) lockDel() (unlock func(), err error) {
	if r.conf.as != modeBridge {
		return lock()
	}
	if unlock, err = lockShared(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(waitingFile); errors.Is(err, fs.ErrNotExist) { // and only an ADD makes it
		r.shares = true
		return unlock, nil
	}
	unlock()
	return lock()
}

// detach removes what an attachment has. It gives the addresses back last, when no
// link answers for them any more. With bridge set it also removes the bridge, if
// the plugin has made it and it has no port. The caller holds the lock, and calls freed before
// the plugin ends.
func detach(ctx context.Context, r *request, bridge bool) error {
	gw, err := unplug(ctx, r)
	if gw != nil {
		defer gw.Close()
	}
	errs := []error{err, release(ctx, r)}
	if bridge {
		errs = append(errs, failed("removing the bridge", dropBridge(ctx, r)))
	}
	if gw != nil {
		errs = append(errs, failed("removing the table of published ports", dropTable(ctx, r, gw)))
	}
	return errors.Join(errs...)
}

// unplug removes the link, the ports and then the policy of an attachment. Ports that another one of
// the container waits for go over to it. It returns the table, if there is one.
func unplug(ctx context.Context, r *request) (*nat.NAT, error) {
	unlinked := make(chan error, 1)
	go func() { unlinked <- r.removeLink(ctx) }()
	gw, err := openOldNAT(ctx, r.host)
	if gw != nil {
		err = netns.IgnoreNotExist(mended(ctx, gw, func() error { return gw.UnpublishOwner(ctx, r.at.owner()) }))
	}
	gone := netns.IgnoreNotExist(<-unlinked)
	errs := []error{
		failed("withdrawing the container's ports", err),
		failed("removing the container's link", gone),
		r.wait(ctx, nil),
	}
	if gw != nil && gone == nil { // a container that is still there keeps its policy
		errs = append(errs, deletePolicies(ctx, gw, func(owner string) bool { return owner == r.at.owner() }))
	}
	if gw != nil {
		errs = append(errs, handOver(ctx, r.host, gw))
	}
	return gw, errors.Join(errs...)
}

// ours reads the host's end, if a link of its name is that: own is whether the
// attachment has made it, half whether its ADD has not come to its end.
func (r *request) ours(ctx context.Context) (port link.Link, own, half bool, err error) {
	if port, err = link.Get(ctx, r.host, r.at.link()); err != nil {
		return port, false, false, err
	}
	d, err := port.Details(ctx)
	if err != nil {
		return port, false, false, err
	}
	owner, rest, ok := parseAlias(d.Spec.Alias)
	half = isUnnamed(d) || ok && rest == begun
	return port, ok && owner == r.at.owner() || isUnnamed(d), half, nil
}

// isUnnamed says whether a link is a host's end that an ADD was killed over before
// it had its alias: the kernel takes the hardware address in the message that makes
// a link, and the alias in the next only.
func isUnnamed(d link.Details) bool {
	if d.Spec.Alias != "" || d.Kind != "veth" {
		return false
	}
	mac, err := ownMAC(d.NS(), d.Name)
	return err == nil && bytes.Equal(d.MAC, mac)
}

// removeLink deletes the pair, with the link that limits its rate. It keeps a link
// of that name that is not the plugin's.
func (r *request) removeLink(ctx context.Context) error {
	port, own, _, err := r.ours(ctx)
	if errors.Is(err, os.ErrNotExist) || err == nil && !own {
		return sweepLimits(ctx, r.host, func(alias string) bool { return alias == r.at.alias() })
	}
	if err != nil {
		return err
	}
	ifb, err := link.Get(ctx, r.host, ifbOf(port.Index))
	switch {
	case err == nil:
		return r.unlink(ctx, ifb, port)
	case errors.Is(err, os.ErrNotExist):
		return r.unlink(ctx, port)
	}
	return err
}

// unlink deletes links, the last of which is the host's end, and returns when they are gone from the
// host and the container. Packets, addresses, the name and the bridge's port are gone by then. The
// kernel frees the memory after a grace period, 10 to 30 ms later, and keeps the thread that deletes
// until then. Meanwhile the plugin does the rest; freed waits for the end of it.
func (r *request) unlink(ctx context.Context, links ...link.Link) error {
	deleted := make(chan error, 1)
	gone, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		var err error
		if len(links) == 1 {
			err = links[0].Delete(ctx)
		} else {
			err = link.DeleteAll(ctx, links...)
		}
		deleted <- err
		stop()
	}()
	if links[len(links)-1].WaitGone(gone) != nil { // or it ended first
		return <-deleted
	}
	r.unlinked = append(r.unlinked, deleted)
	return nil
}

// freed waits until the kernel has freed what unlink has deleted.
func (r *request) freed() error {
	var errs []error
	for _, deleted := range r.unlinked {
		errs = append(errs, failed("removing the container's link", netns.IgnoreNotExist(<-deleted)))
	}
	r.unlinked = nil
	return errors.Join(errs...)
}

// sweepLimits deletes the links that limited the rate of pairs that went with
// their namespace: those with an alias that gone knows, and those without any
// whose pair is not there.
func sweepLimits(ctx context.Context, host *netns.NS, gone func(alias string) bool) error {
	ifbs, err := link.List(ctx, host, link.Filter{Kind: "ifb"})
	if err != nil {
		return err
	}
	var dead []link.Link
	for _, l := range ifbs {
		if !strings.HasPrefix(l.Name, "bwifb") {
			continue
		}
		d, err := l.Details(ctx)
		if err != nil {
			continue // gone meanwhile
		}
		if gone(d.Spec.Alias) || d.Spec.Alias == "" && !hasPair(ctx, host, l) {
			dead = append(dead, l)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	return netns.IgnoreNotExist(link.DeleteAll(ctx, dead...))
}

// hasPair says whether the link is there that an ifb's name speaks of.
func hasPair(ctx context.Context, host *netns.NS, ifb link.Link) bool {
	links, err := link.List(ctx, host, link.Filter{})
	for _, l := range links {
		if ifbOf(l.Index) == ifb.Name {
			return true
		}
	}
	return err != nil
}
