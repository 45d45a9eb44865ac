package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"golang.org/x/sys/unix"
)

// Netavark's commands, beside what the library does for the same.
const (
	verbAttach = "attach and publish"
	verbDetach = "detach and withdraw"
)

var netavarkRow = row{
	name: "netavark",
	work: "attach a box to a bridge that is there and publish a port, and undo both: by the library in the calling process, and by setup and teardown of netavark, which is a process",
	unit: "call",
	n:    30,
	run: func(ctx context.Context, b *bout) error {
		for i, verb := range []string{verbAttach, verbDetach} {
			name := func(who string) string { return verb + ", " + who }
			var all []*contender
			for _, kind := range []struct {
				name string
				make func(context.Context, *course) (pluggable, error)
			}{{nameBoxwire, pluggedByLibrary}, {nameNetavark, pluggedByNetavark}} {
				c, err := plugged(ctx, name(kind.name), i, kind.make)
				if err == nil {
					all = append(all, c)
				} else if err = b.excuse(kind.name, err); err != nil {
					return errors.Join(err, closeAll(all))
				}
			}
			if err := b.interleave(ctx, b.n, all...); err != nil {
				return err
			}
			if b.has(name(nameNetavark)) {
				b.faster(name(nameBoxwire), name(nameNetavark), 1)
			}
			b.brief(verb+" a port of a box", name(nameBoxwire), "", [2]string{nameNetavark, name(nameNetavark)})
		}
		return nil
	},
}

// A pluggable attaches the namespace of a round to a host, and detaches it.
type pluggable struct {
	attach, detach func(ctx context.Context, ns *netns.NS, addr netip.Prefix) error
}

// plugged makes a contender whose figure is that of attach (0) or detach (1).
func plugged(ctx context.Context, name string, which int, make func(context.Context, *course) (pluggable, error)) (c *contender, err error) {
	on := &course{server: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, on.close())
		}
	}()
	if on.street, err = newStreet(ctx); err != nil {
		return nil, err
	}
	for _, ns := range []**netns.NS{&on.box, &on.sibling} {
		if *ns, err = netns.New(ctx); err != nil {
			return nil, err
		}
	}
	p, err := make(ctx, on)
	if err != nil {
		return nil, err
	}
	return &contender{name: name, close: on.close, round: func(ctx context.Context, i int) (d time.Duration, err error) {
		addr := boxAddr(2 + i) // the host knows the hardware address of the last one still
		ns, err := netns.New(ctx)
		if err != nil {
			return 0, err
		}
		defer ns.Close()
		var both [2]time.Duration
		for i, call := range []func(context.Context, *netns.NS, netip.Prefix) error{p.attach, p.detach} {
			if both[i], err = took(func() error { return call(ctx, ns, addr) }); err == nil {
				err = on.reaches(ctx, ns, i == 0)
			}
			if err != nil {
				return 0, err
			}
		}
		return both[which], nil
	}}, nil
}

// reaches checks whether the neighbour reaches a box by the host's port.
func (c *course) reaches(ctx context.Context, ns *netns.NS, want bool) error {
	const word = "box"
	if want {
		stop, err := say(ctx, ns, word)
		if err != nil {
			return err
		}
		return errors.Join(c.answers(ctx, extra.Host.Port(), word), stop())
	}
	if _, err := c.ask(ctx, extra.Host.Port()); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("the port is still published: connecting: %w", err)
	}
	return nil
}

func pluggedByLibrary(ctx context.Context, c *course) (pluggable, error) {
	if err := c.bridge(ctx); err != nil {
		return pluggable{}, err
	}
	br, err := link.Get(ctx, c.host, bridgeName)
	if err != nil {
		return pluggable{}, err
	}
	gw, err := c.openTable(ctx)
	if err != nil {
		return pluggable{}, err
	}
	port := func(addr netip.Prefix) nat.Port {
		p := extra
		p.Box = netip.AddrPortFrom(addr.Addr(), extra.Box.Port())
		return p
	}
	var eth link.Link
	return pluggable{
		func(ctx context.Context, ns *netns.NS, addr netip.Prefix) (err error) {
			eth, err = link.Create(ctx, c.host, link.Spec{
				Name: hostLink(2), Up: true, Master: br.Ref(),
				Kind: link.Veth{Peer: link.Spec{NS: ns, Name: "eth0", Up: true, Addrs: []netip.Prefix{addr}}},
			})
			if err == nil {
				err = route.Add(ctx, ns, route.Default(gateway))
			}
			if err == nil {
				err = gw.Publish(ctx, port(addr))
			}
			return err
		},
		func(ctx context.Context, _ *netns.NS, addr netip.Prefix) error {
			return errors.Join(gw.Unpublish(ctx, port(addr)), eth.Delete(ctx))
		},
	}, nil
}

func pluggedByNetavark(ctx context.Context, c *course) (pluggable, error) {
	n, err := newNetavark(c.host)
	if err == nil {
		err = n.run(ctx, "setup", "2", c.sibling, boxAddr(1).Addr(), nil) // makes the bridge
	}
	call := func(command string) func(context.Context, *netns.NS, netip.Prefix) error {
		return func(ctx context.Context, ns *netns.NS, addr netip.Prefix) error {
			return n.run(ctx, command, "3", ns, addr.Addr(), netavarkPorts("tcp"))
		}
	}
	return pluggable{call("setup"), call("teardown")}, err
}

// boxNetwork is the boxes' network.
func boxNetwork() nat.Network {
	return nat.Network{Interface: bridgeName, Masquerade: true, Subnets: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")}}
}

// openTable opens a table with the boxes' network.
func (c *course) openTable(ctx context.Context) (*nat.NAT, error) {
	gw, err := nat.Open(ctx, c.host, nat.Options{})
	if err != nil {
		return nil, err
	}
	c.ends = append(c.ends, gw.Close)
	return gw, gw.AddNetwork(ctx, boxNetwork())
}
