//go:build !linux

package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/netns"
)

var errLinux = &causeError{text: "links need Linux", err: errors.ErrUnsupported}

// Create makes a link. It needs Linux.
func Create(_ context.Context, ns *netns.NS, spec Spec) (Link, error) {
	err := spec.check(ns)
	if err == nil {
		err = errLinux
	}
	return Link{}, fail.New("link.Create", ns, subject(spec.Name), err)
}

// Get reads the link with the given name. It needs Linux.
func Get(_ context.Context, ns *netns.NS, name string) (Link, error) {
	return Link{}, fail.New("link.Get", ns, subject(name), errLinux)
}

// ByIndex reads the link with the given index. It needs Linux.
func ByIndex(_ context.Context, ns *netns.NS, index int) (Link, error) {
	return Link{}, fail.New("link.ByIndex", ns, subjectIndex(index), errLinux)
}

// ByAlias reads the links with the given alias. It needs Linux.
func ByAlias(_ context.Context, ns *netns.NS, alias string) ([]Link, error) {
	return nil, fail.New("link.ByAlias", ns, "link with alias "+alias, errLinux)
}

// ByMAC reads the links with the given hardware address. It needs Linux.
func ByMAC(_ context.Context, ns *netns.NS, mac net.HardwareAddr) ([]Link, error) {
	return nil, fail.New("link.ByMAC", ns, "link with hardware address "+mac.String(), errLinux)
}

// List reads all links of the namespace. It needs Linux.
func List(_ context.Context, ns *netns.NS, _ Filter) ([]Link, error) {
	return nil, fail.New("link.List", ns, "links", errLinux)
}

// Ensure makes sure that there is a link as spec says. It needs Linux.
func Ensure(_ context.Context, ns *netns.NS, spec Spec) (Link, error) {
	err := spec.check(ns)
	if err == nil {
		err = errLinux
	}
	return Link{}, fail.New("link.Ensure", ns, subject(spec.Name), err)
}

// Change makes the link match what s names. It needs Linux.
func (l Link) Change(context.Context, Spec) (Link, error) {
	return Link{}, fail.New("link.Change", l.ns, subject(l.Name), errLinux)
}

// DeleteAll removes links. It needs Linux.
func DeleteAll(context.Context, ...Link) error {
	return fail.New("link.DeleteAll", nil, "links", errLinux)
}

// SetMaster makes the link a port. It needs Linux.
func (l Link) SetMaster(context.Context, int) error {
	return fail.New("link.SetMaster", l.ns, subject(l.Name), errLinux)
}

// Move puts the link into another namespace. It needs Linux.
func (l Link) Move(context.Context, *netns.NS, MoveOptions) (Link, error) {
	return Link{}, fail.New("link.Move", l.ns, subject(l.Name), errLinux)
}

// OpenTun makes a TUN or TAP device. It needs Linux.
func OpenTun(_ context.Context, ns *netns.NS, spec Spec, _ int) (Link, []*os.File, error) {
	return Link{}, nil, fail.New("link.OpenTun", ns, subject(spec.Name), errLinux)
}

// OpenQueues attaches to a TUN or TAP device. It needs Linux.
func (l Link) OpenQueues(context.Context, int) ([]*os.File, error) {
	return nil, fail.New("link.OpenQueues", l.ns, subject(l.Name), errLinux)
}

// Details reads the link with everything the kernel says. It needs Linux.
func (l Link) Details(context.Context) (Details, error) {
	return Details{}, fail.New("link.Details", l.ns, subject(l.Name), errLinux)
}

// Stats reads what passed the link. It needs Linux.
func (l Link) Stats(context.Context) (Stats, error) {
	return Stats{}, fail.New("link.Stats", l.ns, subject(l.Name), errLinux)
}

// SetUp brings the link up. It needs Linux.
func (l Link) SetUp(context.Context) error {
	return fail.New("link.SetUp", l.ns, subject(l.Name), errLinux)
}

// SetDown takes the link down. It needs Linux.
func (l Link) SetDown(context.Context) error {
	return fail.New("link.SetDown", l.ns, subject(l.Name), errLinux)
}

// Delete removes the link. It needs Linux.
func (l Link) Delete(context.Context) error {
	return fail.New("link.Delete", l.ns, subject(l.Name), errLinux)
}

// AddAddr gives the link addresses. It needs Linux.
func (l Link) AddAddr(_ context.Context, addrs ...netip.Prefix) error {
	err := l.bound()
	if err == nil {
		err = checkAddrs(addrs)
	}
	if err == nil {
		err = errLinux
	}
	return fail.New("link.AddAddr", l.ns, subject(l.Name), err)
}

// DeleteAddr takes addresses from the link. It needs Linux.
func (l Link) DeleteAddr(context.Context, ...netip.Prefix) error {
	return fail.New("link.DeleteAddr", l.ns, subject(l.Name), errLinux)
}

// Addrs reads the link's addresses. It needs Linux.
func (l Link) Addrs(context.Context) ([]Addr, error) {
	return nil, fail.New("link.Addrs", l.ns, subject(l.Name), errLinux)
}
