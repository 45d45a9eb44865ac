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
	if w.ports, err = w.gw.PublishFree(ctx, ports...); err != nil {
		return err
	}
	networks, err := w.gw.ListNetworks(ctx)
	for _, n := range networks {
		if n.Interface == o.bridge {
			w.network = append(w.network, n.Network)
		}
	}
	return err
}

// warn says which rule of another firewall of the host drops what goes to the box,
// such as Docker's policy for what is forwarded.
func (w *wired) warn(ctx context.Context, o *options, out io.Writer) error {
	for _, is4 := range []bool{true, false} {
		port, ok := w.probe(is4)
		if !ok {
			continue
		}
		causes, err := w.gw.Explain(ctx, port, nat.Hints{ForeignOnly: true})
		if err != nil {
			return fmt.Errorf("looking for other firewalls: %w", err)
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
func (w *wired) probe(is4 bool) (nat.Port, bool) {
	for _, p := range w.ports {
		if p.Host.Addr().Is4() == is4 && !p.Host.Addr().IsLoopback() {
			return p, true
		}
	}
	for _, a := range w.addrs {
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

// attend says what cuts the box off, and then keeps its network and ports in the
// firewall while its command runs, also across a flush of the ruleset. It makes uplinks
// forward that come later. The command need not wait for any of it. It returns a
// function that ends it.
func (w *wired) attend(ctx context.Context, o *options, out io.Writer) (end func()) {
	if w.gw == nil {
		return func() {}
	}
	say := func(err error) { fmt.Fprintf(out, "%s: %s\n", o.program.Name, oneLine(err)) }
	ctx, cancel := context.WithCancel(ctx)
	warned, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		if err := w.warn(ctx, o, out); err != nil {
			say(err)
		}
		close(warned)
		w.keep(ctx, o, say)
	}()
	return func() { <-warned; cancel(); <-ended }
}

// keep keeps the box's network and ports in the firewall.
func (w *wired) keep(ctx context.Context, o *options, say func(error)) {
	said := ""
	mine := nat.State{Networks: w.network, Ports: w.ports, Owners: func(owner string) bool { return owner == o.name }}
	for _, err := range w.gw.Maintain(ctx, func() nat.State { return mine }) {
		if err != nil && ctx.Err() == nil && said != err.Error() {
			said = err.Error()
			say(fmt.Errorf("keeping the firewall: %w", err))
		}
	}
}
