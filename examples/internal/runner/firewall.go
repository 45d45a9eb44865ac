//go:build linux

package runner

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// publish publishes the ports, all of them or none; the host ports are bound
// until the NAT is closed.
func (w *wired) publish(ctx context.Context, host *netns.NS, o *options, addrs []netip.Prefix) (err error) {
	if w.gw, err = openNAT(ctx, host); err != nil {
		return err
	}
	if o.accept {
		if err := w.gw.AcceptForward(ctx); err != nil {
			return err
		}
	}
	var ports []nat.Port
	for _, p := range o.publish {
		some, err := p.ports(o.name, addrs)
		if err != nil {
			return err
		}
		ports = append(ports, some...)
	}
	w.ports, err = w.gw.PublishFree(ctx, ports...)
	return err
}

// warn says which rule of another firewall of the host drops what goes to the box,
// such as Docker's policy for what is forwarded.
func (w *wired) warn(ctx context.Context, o *options, addrs []netip.Prefix, out io.Writer) error {
	for _, is4 := range []bool{true, false} {
		port, ok := w.probe(addrs, is4)
		if !ok {
			continue
		}
		causes, err := w.gw.Explain(ctx, port, nat.Hints{})
		if err != nil {
			return err
		}
		for _, c := range causes {
			if c.Kind == nat.CauseForeignDrop && c.Certain {
				fmt.Fprintf(out, "%s: box %s is cut off: %s (-accept-forward)\n", o.program.Name, o.name, c.Text)
				return nil
			}
		}
	}
	return nil
}

// probe is a port of the box to follow a packet to: a published one, or any.
func (w *wired) probe(addrs []netip.Prefix, is4 bool) (nat.Port, bool) {
	for _, p := range w.ports {
		if p.Host.Addr().Is4() == is4 && !p.Host.Addr().IsLoopback() {
			return p, true
		}
	}
	for _, a := range addrs {
		if a.Addr().Is4() == is4 {
			host := netip.IPv6Unspecified()
			if is4 {
				host = netip.IPv4Unspecified()
			}
			return nat.Port{Proto: nat.TCP, Host: netip.AddrPortFrom(host, 1), Box: netip.AddrPortFrom(a.Addr(), 1)}, true
		}
	}
	return nat.Port{}, false
}

// keep keeps the box's network and ports in the firewall while its command runs,
// also across a flush of the ruleset, and makes uplinks forward that come later. It
// returns a function that ends it.
func (w *wired) keep(ctx context.Context, o *options, out io.Writer) (end func(), err error) {
	if w.gw == nil {
		return func() {}, nil
	}
	networks, err := w.gw.ListNetworks(ctx)
	if err != nil {
		return nil, err
	}
	mine := nat.State{Ports: w.ports, Owners: func(owner string) bool { return owner == o.name }}
	for _, n := range networks {
		if n.Interface == o.bridge {
			mine.Networks = append(mine.Networks, n.Network)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		said := ""
		for _, err := range w.gw.Maintain(ctx, func() nat.State { return mine }) {
			if err != nil && ctx.Err() == nil && said != err.Error() {
				said = err.Error()
				fmt.Fprintf(out, "%s: keeping the firewall: %s\n", o.program.Name, oneLine(err))
			}
		}
	}()
	return func() { cancel(); <-ended }, nil
}
