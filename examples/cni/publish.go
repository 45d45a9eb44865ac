//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/nat"
	"github.com/containernetworking/cni/pkg/types"
)

// firewall lets the firewall know the network and the container's policy. It returns the
// table, and nil where the firewall has nothing to do.
func (r *request) firewall(ctx context.Context, l *lease) (*nat.NAT, error) {
	if !r.conf.needsNetwork() || len(l.addrs) == 0 {
		return nil, nil
	}
	gw, err := openNAT(ctx, r.host)
	if err != nil {
		return nil, err
	}
	if err = r.network(ctx, gw, l); err == nil {
		err = r.police(ctx, gw, l)
	}
	if err != nil {
		gw.Close()
		return nil, err
	}
	return gw, nil
}

// network lets the firewall know the network.
func (r *request) network(ctx context.Context, gw *nat.NAT, l *lease) error {
	if r.conf.as == modePTP {
		return failed("adding the container's link to the firewall", r.networkPTP(ctx, gw, l))
	}
	networks, err := gw.ListNetworks(ctx)
	if err == nil {
		err = gw.SetNetwork(ctx, r.conf.wantedNetwork(networks, l.subnets()))
	}
	return failed("adding the network to the firewall", err)
}

// publish publishes the container's ports. A nil table has none.
func (r *request) publish(ctx context.Context, gw *nat.NAT, l *lease) error {
	if gw == nil {
		return nil
	}
	ports, err := r.conf.ports(r.at.owner(), l.addrs)
	if err != nil {
		return err
	}
	if r.conf.AcceptForward {
		if err := gw.AcceptForward(ctx); err != nil {
			return failed("having the host's other firewall accept the network", err)
		}
	}
	if err := r.publishPorts(ctx, gw, ports); err != nil {
		return err
	}
	dropped, err := r.droppedByOthers(ctx, gw, l, ports)
	if err != nil {
		dropped = err.Error() // a look, and no part of the attachment
	}
	if dropped != "" {
		fmt.Fprintf(os.Stderr, "%s: %s is in the network, and cut off: %s\n", about, r.at.owner(), dropped)
	}
	return nil
}

// publishPorts publishes the ports, but for those that another attachment of the
// container has: for these it waits.
func (r *request) publishPorts(ctx context.Context, gw *nat.NAT, ports []nat.Port) error {
	if len(ports) == 0 {
		return nil
	}
	err := gw.Publish(ctx, ports...)
	if errors.Is(err, os.ErrExist) {
		published, lerr := gw.ListPorts(ctx)
		if lerr != nil {
			return failed("reading what is published", lerr)
		}
		free, held := r.heldByOther(published, ports)
		if len(held) > 0 {
			if err := r.wait(ctx, held); err != nil {
				return err
			}
			if err = nil; len(free) > 0 {
				err = gw.Publish(ctx, free...)
			}
		}
	}
	if errors.Is(err, os.ErrExist) {
		return types.NewError(codePortTaken, "a host port is taken", oneLine(err))
	}
	return failed("publishing the container's ports", err)
}

// droppedByOthers says which rule of another firewall drops what goes to the
// container, such as Docker's policy for what is forwarded; "" where none does.
func (r *request) droppedByOthers(ctx context.Context, gw *nat.NAT, l *lease, ports []nat.Port) (string, error) {
	for _, is4 := range []bool{true, false} {
		port, ok := probe(l, ports, is4)
		if !ok {
			continue
		}
		causes, err := gw.Explain(ctx, port, nat.Hints{ForeignOnly: true})
		if err != nil {
			return "", err
		}
		for _, c := range causes {
			if c.Kind == nat.CauseForeignDrop && c.Certain {
				hint := ""
				if !r.conf.AcceptForward {
					hint = `; the key "acceptForward" of this plugin adds it`
				}
				return c.Text + hint, nil
			}
		}
	}
	return "", nil
}

// probe is a port of the container to follow a packet to: a published one, or any.
func probe(l *lease, ports []nat.Port, is4 bool) (nat.Port, bool) {
	for _, p := range ports {
		if p.Host.Addr().Is4() == is4 && !p.Host.Addr().IsLoopback() {
			return p, true
		}
	}
	for _, a := range l.addrs {
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
