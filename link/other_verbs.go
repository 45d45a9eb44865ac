//go:build !linux

package link

import (
	"context"
	"errors"
	"iter"
	"net/netip"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/netns"
)

// refuse returns the error of a verb that needs Linux: that of its arguments, if
// they are bad, as it would be there.
func (l Link) refuse(op string, bad error) error {
	err := l.bound()
	if err == nil {
		err = bad
	}
	if err == nil {
		err = errLinux
	}
	return fail.New(op, l.ns, subject(l.Name), err)
}

// SetPort changes the settings of a bridge port. It needs Linux.
func (l Link) SetPort(_ context.Context, o PortOptions) error {
	return l.refuse("link.SetPort", o.check())
}

// Port reads the link as a bridge port. It needs Linux.
func (l Link) Port(context.Context) (Port, error) {
	return Port{}, l.refuse("link.Port", nil)
}

// AddAddrs gives the link addresses in their full form. It needs Linux.
func (l Link) AddAddrs(_ context.Context, addrs ...Addr) error {
	return l.refuse("link.AddAddrs", checkFull(addrs))
}

// ReplaceAddr gives the link addresses or changes them. It needs Linux.
func (l Link) ReplaceAddr(_ context.Context, addrs ...Addr) error {
	return l.refuse("link.ReplaceAddr", checkFull(addrs))
}

// FlushAddrs takes addresses from the link. It needs Linux.
func (l Link) FlushAddrs(context.Context, func(Addr) bool) error {
	return l.refuse("link.FlushAddrs", nil)
}

// ListAddrs reads the addresses of all links. It needs Linux.
func ListAddrs(_ context.Context, ns *netns.NS) ([]Addr, error) {
	return nil, fail.New("link.ListAddrs", ns, "addresses", errLinux)
}

// AddNeighbour gives the link neighbours. It needs Linux.
func (l Link) AddNeighbour(_ context.Context, list ...Neighbour) error {
	return l.refuse("link.AddNeighbour", checkNeighbours(list))
}

// ReplaceNeighbour gives the link neighbours or changes them. It needs Linux.
func (l Link) ReplaceNeighbour(_ context.Context, list ...Neighbour) error {
	return l.refuse("link.ReplaceNeighbour", checkNeighbours(list))
}

// DeleteNeighbour takes neighbours from the link. It needs Linux.
func (l Link) DeleteNeighbour(_ context.Context, list ...Neighbour) error {
	return l.refuse("link.DeleteNeighbour", checkNeighbours(list))
}

// FlushNeighbours takes neighbours from the link. It needs Linux.
func (l Link) FlushNeighbours(context.Context, func(Neighbour) bool) error {
	return l.refuse("link.FlushNeighbours", nil)
}

// Neighbours reads the link's neighbours. It needs Linux.
func (l Link) Neighbours(context.Context) ([]Neighbour, error) {
	return nil, l.refuse("link.Neighbours", nil)
}

// ListNeighbours reads neighbours. It needs Linux.
func ListNeighbours(_ context.Context, ns *netns.NS, _ NeighbourFilter) ([]Neighbour, error) {
	return nil, fail.New("link.ListNeighbours", ns, "neighbours", errLinux)
}

// AddFDB makes entries of a forwarding database. It needs Linux.
func (l Link) AddFDB(_ context.Context, list ...FDBEntry) error {
	return l.refuse("link.AddFDB", checkFDB(list))
}

// AppendFDB adds destinations to entries. It needs Linux.
func (l Link) AppendFDB(_ context.Context, list ...FDBEntry) error {
	return l.refuse("link.AppendFDB", checkFDB(list))
}

// ReplaceFDB makes entries or changes them. It needs Linux.
func (l Link) ReplaceFDB(_ context.Context, list ...FDBEntry) error {
	return l.refuse("link.ReplaceFDB", checkFDB(list))
}

// DeleteFDB takes entries away. It needs Linux.
func (l Link) DeleteFDB(_ context.Context, list ...FDBEntry) error {
	return l.refuse("link.DeleteFDB", checkFDB(list))
}

// FlushFDB takes entries away. It needs Linux.
func (l Link) FlushFDB(context.Context, func(FDBEntry) bool) error {
	return l.refuse("link.FlushFDB", nil)
}

// ListFDB reads forwarding databases. It needs Linux.
func ListFDB(_ context.Context, ns *netns.NS, _ FDBFilter) ([]FDBEntry, error) {
	return nil, fail.New("link.ListFDB", ns, "forwarding database", errLinux)
}

// WaitUp waits until the link is up. It needs Linux.
func (l Link) WaitUp(context.Context) (Link, error) { return Link{}, l.refuse("link.WaitUp", nil) }

// WaitCarrier waits until the link has a carrier. It needs Linux.
func (l Link) WaitCarrier(context.Context) (Link, error) {
	return Link{}, l.refuse("link.WaitCarrier", nil)
}

// WaitForwarding waits until the link forwards as a bridge port. It needs Linux.
func (l Link) WaitForwarding(context.Context) error { return l.refuse("link.WaitForwarding", nil) }

// WaitGone waits until the link does not exist any more. It needs Linux.
func (l Link) WaitGone(context.Context) error { return l.refuse("link.WaitGone", nil) }

// WaitAddr waits until the link has addresses that can be used. It needs Linux.
func (l Link) WaitAddr(context.Context, ...netip.Addr) error { return l.refuse("link.WaitAddr", nil) }

// Watch yields an error. It needs Linux.
func Watch(_ context.Context, ns *netns.NS, topics ...Topic) iter.Seq2[Event, error] {
	return refuseWatch("link.Watch", ns, topics)
}

// WatchAll yields an error. It needs Linux.
func WatchAll(_ context.Context, ns *netns.NS, topics ...Topic) iter.Seq2[Event, error] {
	return refuseWatch("link.WatchAll", ns, topics)
}

func refuseWatch(op string, ns *netns.NS, topics []Topic) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		err := checkTopics(topics)
		if err == nil {
			err = errLinux
		}
		yield(Event{}, fail.New(op, ns, "events", err))
	}
}

// AddVLANs lets VLANs through a bridge port. It needs Linux.
func (l Link) AddVLANs(_ context.Context, vlans ...PortVLAN) error {
	return l.refuse("link.AddVLANs", checkVLANs(vlans))
}

// DeleteVLANs takes VLANs from a bridge port. It needs Linux.
func (l Link) DeleteVLANs(_ context.Context, vlans ...PortVLAN) error {
	return l.refuse("link.DeleteVLANs", checkVLANs(vlans))
}

// SyncVLANs makes the VLANs of a bridge port those given. It needs Linux.
func (l Link) SyncVLANs(_ context.Context, vlans ...PortVLAN) error {
	return l.refuse("link.SyncVLANs", checkVLANs(vlans))
}

// VLANs reads the VLANs of a bridge port. It needs Linux.
func (l Link) VLANs(context.Context) ([]PortVLAN, error) { return nil, l.refuse("link.VLANs", nil) }

// SetRate limits what passes through the link. It needs Linux.
func (l Link) SetRate(_ context.Context, egress, ingress Limit) error {
	return l.refuse("link.SetRate", errors.Join(egress.check("egress"), ingress.check("ingress")))
}

// Rates reads the limits of the link. It needs Linux.
func (l Link) Rates(context.Context) (egress, ingress Limit, err error) {
	return Limit{}, Limit{}, l.refuse("link.Rates", nil)
}

// Features reads the offload features of the link. It needs Linux.
func (l Link) Features(context.Context) ([]Feature, error) {
	return nil, l.refuse("link.Features", nil)
}

// SetFeatures switches offload features. It needs Linux.
func (l Link) SetFeatures(_ context.Context, set map[string]bool) error {
	return l.refuse("link.SetFeatures", checkFeatures(set))
}

// Announce tells the neighbours of the link's addresses. It needs Linux.
func (l Link) Announce(context.Context, ...netip.Addr) error { return l.refuse("link.Announce", nil) }
