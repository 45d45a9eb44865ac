//go:build !linux

package nat

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/netns"
)

// memory is what a NAT keeps in memory: nothing.
type memory struct{}

type proxy struct{}

func unsupported(op string, ns *netns.NS, subject string) error {
	return fail.New(op, ns, subject, fmt.Errorf("nftables needs Linux: %w", errors.ErrUnsupported))
}

// Open returns errors.ErrUnsupported: it needs Linux.
func Open(_ context.Context, ns *netns.NS, opts Options) (*NAT, error) {
	opts, err := opts.checked()
	if err != nil {
		return nil, fail.New("nat.Open", ns, "table inet "+opts.Name, err)
	}
	return nil, unsupported("nat.Open", ns, "table inet "+opts.Name)
}

// Check returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func Check(_ context.Context, ns *netns.NS, name string, state State) error {
	table, err := tableName(name)
	subject := "table inet " + table
	if err == nil {
		_, subject, err = state.check()
	}
	if err != nil {
		return fail.New("nat.Check", ns, subject, err)
	}
	return unsupported("nat.Check", ns, "table inet "+table)
}

// Delete returns errors.ErrUnsupported: it needs Linux.
func (n *NAT) Delete(context.Context) error { return unsupported("nat.Delete", n.ns, n.String()) }

// AddNetwork returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) AddNetwork(_ context.Context, net Network) error {
	if _, err := net.checked(); err != nil {
		return fail.New("nat.AddNetwork", n.ns, "network "+net.Interface, err)
	}
	return unsupported("nat.AddNetwork", n.ns, "network "+net.Interface)
}

// EnsureNetwork returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) EnsureNetwork(_ context.Context, net Network) error {
	if _, err := net.checked(); err != nil {
		return fail.New("nat.EnsureNetwork", n.ns, "network "+net.Interface, err)
	}
	return unsupported("nat.EnsureNetwork", n.ns, "network "+net.Interface)
}

// RemoveNetwork returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) RemoveNetwork(_ context.Context, iface string) error {
	if err := checkInterface(iface); err != nil {
		return fail.New("nat.RemoveNetwork", n.ns, "network "+iface, err)
	}
	return unsupported("nat.RemoveNetwork", n.ns, "network "+iface)
}

// Networks returns errors.ErrUnsupported: it needs Linux.
func (n *NAT) Networks(context.Context) ([]NetworkState, error) {
	return nil, unsupported("nat.Networks", n.ns, n.String())
}

// AddOpening returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) AddOpening(_ context.Context, openings ...Opening) error {
	if o, err := checkOpenings(openings); err != nil {
		return fail.New("nat.AddOpening", n.ns, o.String(), err)
	}
	return unsupported("nat.AddOpening", n.ns, n.String())
}

// RemoveOpening returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) RemoveOpening(_ context.Context, openings ...Opening) error {
	if o, err := checkOpenings(openings); err != nil {
		return fail.New("nat.RemoveOpening", n.ns, o.String(), err)
	}
	return unsupported("nat.RemoveOpening", n.ns, n.String())
}

// Publish returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) Publish(_ context.Context, ports ...Port) error {
	if p, err := checkPorts(ports); err != nil {
		return fail.New("nat.Publish", n.ns, p.String(), err)
	}
	return unsupported("nat.Publish", n.ns, portsSubject(ports))
}

// PublishFree returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) PublishFree(_ context.Context, ports ...Port) ([]Port, error) {
	if p, err := checkFree(ports); err != nil {
		return nil, fail.New("nat.PublishFree", n.ns, p.String(), err)
	}
	return nil, unsupported("nat.PublishFree", n.ns, portsSubject(ports))
}

// OnLink returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) OnLink(_ context.Context, link string, port Port) ([]Port, error) {
	subject := fmt.Sprintf("%v on link %s", port, link)
	if err := checkOnLink(link, port); err != nil {
		return nil, fail.New("nat.OnLink", n.ns, subject, err)
	}
	return nil, unsupported("nat.OnLink", n.ns, subject)
}

// Unpublish returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) Unpublish(_ context.Context, ports ...Port) error {
	if p, err := checkPorts(ports); err != nil {
		return fail.New("nat.Unpublish", n.ns, p.String(), err)
	}
	return unsupported("nat.Unpublish", n.ns, portsSubject(ports))
}

// Close does nothing: there is nothing open.
func (n *NAT) Close() error { return nil }

// UnpublishOwner returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) UnpublishOwner(_ context.Context, owner string) error {
	subject := fmt.Sprintf("owner %q", owner)
	if err := checkOwner(owner); err != nil {
		return fail.New("nat.UnpublishOwner", n.ns, subject, err)
	}
	return unsupported("nat.UnpublishOwner", n.ns, subject)
}

// Sync returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) Sync(_ context.Context, desired State) error {
	if _, subject, err := desired.check(); err != nil {
		return fail.New("nat.Sync", n.ns, subject, err)
	}
	return unsupported("nat.Sync", n.ns, n.String())
}

// List returns errors.ErrUnsupported: it needs Linux.
func (n *NAT) List(context.Context) ([]Published, error) {
	return nil, unsupported("nat.List", n.ns, n.String())
}

// Flows returns errors.ErrUnsupported: it needs Linux.
func (n *NAT) Flows(context.Context, ...netip.Addr) ([]Flow, error) {
	return nil, unsupported("nat.Flows", n.ns, "flows")
}

// Keep returns errors.ErrUnsupported: it needs Linux.
func (n *NAT) Keep(context.Context, func() State) iter.Seq2[Repair, error] {
	return func(yield func(Repair, error) bool) { yield(Repair{}, unsupported("nat.Keep", n.ns, n.String())) }
}

// Explain returns errors.ErrUnsupported: it needs Linux.
func (n *NAT) Explain(_ context.Context, port Port, _ Hints) (Causes, error) {
	return nil, unsupported("nat.Explain", n.ns, port.String())
}

// AcceptForward returns errors.ErrUnsupported: it needs Linux.
func (n *NAT) AcceptForward(context.Context) error {
	return unsupported("nat.AcceptForward", n.ns, n.String())
}

// RevokeForward returns errors.ErrUnsupported: it needs Linux.
func (n *NAT) RevokeForward(context.Context) error {
	return unsupported("nat.RevokeForward", n.ns, n.String())
}

// Proxy returns errors.ErrUnsupported, or os.ErrInvalid for bad input.
func (n *NAT) Proxy(_ context.Context, port Port) (*Proxy, error) {
	if err := port.checkProxied(); err != nil {
		return nil, fail.New("nat.Proxy", n.ns, port.String(), err)
	}
	return nil, unsupported("nat.Proxy", n.ns, port.String())
}

// Close does nothing: there is nothing open.
func (p *Proxy) Close() error { return nil }
