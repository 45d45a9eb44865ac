//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/examples/internal/selfcheck"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// The addresses of the picture. 203.0.113.0/24 and 2001:db8::/32 are reserved for documentation.
const (
	bridgeName, uplinkName = "boxwire0", "uplink0"

	hostIn4, hostIn6       = "10.88.0.1", "fd88::1"         // the host, as its boxes see it
	web1Addr4, web1Addr6   = "10.88.0.2", "fd88::2"         // box web1
	web2Addr4, web2Addr6   = "10.88.0.3", "fd88::3"         // box web2
	hostOut4, hostOut6     = "203.0.113.1", "2001:db8:1::1" // the host, as the outside sees it
	outsideIP4, outsideIP6 = "203.0.113.2", "2001:db8:1::2" // the host's neighbour
	boxes4, boxes6         = "10.88.0.0/16", "fd88::/64"    // where boxes live
)

// A world is everything the quickstart wires together. The zero value is an empty one.
type world struct {
	host    *netns.NS // plays the machine
	outside *netns.NS // plays a neighbour of the machine
	web1    *netns.NS
	web2    *netns.NS

	bridge  link.Link
	gw      *nat.NAT
	servers []*http.Server
}

// build wires the world. On an error the caller cleans up what is there.
func (w *world) build(ctx context.Context) (err error) {
	if w.host, err = netns.Create(ctx, "host"); err != nil {
		return err
	}
	if w.outside, err = netns.Create(ctx, "outside"); err != nil {
		return err
	}
	w.bridge, err = link.Create(ctx, w.host, link.Spec{
		Name: bridgeName, Up: true, Kind: link.Bridge{},
		Addrs: []netip.Prefix{prefix(hostIn4, 16), prefix(hostIn6, 64)},
	})
	if err != nil {
		return err
	}
	uplink, err := link.Create(ctx, w.host, link.Spec{
		Name: uplinkName, Up: true,
		Addrs: []netip.Prefix{prefix(hostOut4, 24), prefix(hostOut6, 64)},
		Kind: link.Veth{Peer: link.Spec{
			NS: w.outside, Name: "eth0", Up: true,
			Addrs: []netip.Prefix{prefix(outsideIP4, 24), prefix(outsideIP6, 64)},
		}},
	})
	if err != nil {
		return err
	}
	if err := uplink.WaitReachable(ctx); err != nil {
		return err
	}
	if w.web1, err = w.box(ctx, "web1", prefix(web1Addr4, 16), prefix(web1Addr6, 64)); err != nil {
		return err
	}
	if w.web2, err = w.box(ctx, "web2", prefix(web2Addr4, 16), prefix(web2Addr6, 64)); err != nil {
		return err
	}
	if err := w.publish(ctx); err != nil {
		return err
	}
	if err := w.serve(ctx, w.outside, "outside"); err != nil {
		return err
	}
	return w.makeNosy(ctx)
}

// box creates a namespace, plugs it into the bridge, gives it its routes and starts a web server in it.
func (w *world) box(ctx context.Context, name string, addrs ...netip.Prefix) (*netns.NS, error) {
	box, err := netns.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	port, err := link.Create(ctx, w.host, link.Spec{
		Name: name, Up: true, Master: w.bridge.Ref(),
		Kind: link.Veth{Peer: link.Spec{NS: box, Name: "eth0", Up: true, Addrs: addrs}},
	})
	if err != nil {
		return box, err
	}
	err = route.Add(ctx, box,
		route.Default(netip.MustParseAddr(hostIn4)),
		route.Default(netip.MustParseAddr(hostIn6)))
	if err == nil {
		err = port.WaitReachable(ctx) // until then packets are lost in silence
	}
	if err != nil {
		return box, err
	}
	return box, w.serve(ctx, box, name)
}

// publish lets the boxes out through the host's addresses, and visitors in through its ports.
func (w *world) publish(ctx context.Context) (err error) {
	if w.gw, err = nat.Open(ctx, w.host, nat.Options{Name: "boxwire"}); err != nil {
		return err
	}
	err = w.gw.AddNetwork(ctx, nat.Network{
		Interface:  bridgeName,
		Subnets:    []netip.Prefix{netip.MustParsePrefix(boxes4), netip.MustParsePrefix(boxes6)},
		Masquerade: true,
	})
	if err != nil {
		return err
	}
	port := func(host, box, owner string) nat.Port {
		return nat.Port{Proto: nat.TCP, Host: netip.MustParseAddrPort(host), Box: netip.MustParseAddrPort(box), Owner: owner}
	}
	return w.gw.Publish(ctx,
		port("0.0.0.0:8080", web1Addr4+":80", "web1"),
		port("[::]:8080", "["+web1Addr6+"]:80", "web1"),
		port("0.0.0.0:8081", web2Addr4+":80", "web2"),
		port("[::]:8081", "["+web2Addr6+"]:80", "web2"),
		port("127.0.0.1:9090", web1Addr4+":80", "web1"), // for the host itself only
	)
}

// makeNosy makes the outside neighbour look for what is not published: it sends packets for the boxes' addresses, and for
// 127.0.0.1 too, to the host.
func (w *world) makeNosy(ctx context.Context) error {
	lo, err := link.Get(ctx, w.outside, "lo")
	if err != nil {
		return err
	}
	// While 127.0.0.0/8 is an address of its own, the kernel would keep such packets for itself.
	if err := lo.DeleteAddrs(ctx, netip.MustParsePrefix("127.0.0.1/8")); err != nil {
		return err
	}
	viaHost := netip.MustParseAddr(hostOut4)
	return route.Add(ctx, w.outside,
		route.Route{Dst: netip.MustParsePrefix(boxes4), Via: viaHost},
		route.Route{Dst: netip.MustParsePrefix("127.0.0.1/32"), Via: viaHost})
}

// cleanUp takes everything away, in the order a careful program would, and then looks at what is left.
func (w *world) cleanUp(ctx context.Context, before selfcheck.Leftovers) (string, error) {
	var errs []error
	for _, s := range w.servers {
		errs = append(errs, s.Close())
	}
	if w.gw != nil {
		errs = append(errs, w.gw.Delete(ctx))
	}
	if w.host != nil {
		errs = append(errs, w.deleteLinks(ctx), w.hostIsEmpty(ctx))
	}
	for _, ns := range []*netns.NS{w.web1, w.web2, w.outside, w.host} {
		if ns != nil {
			errs = append(errs, ns.Delete(ctx), ns.Close())
		}
	}
	errs = append(errs, before.NothingSince(ctx))
	return "no namespace, mount, link or table is left", errors.Join(errs...)
}

// hostIsEmpty returns an error unless the host has no link but lo and no table.
func (w *world) hostIsEmpty(ctx context.Context) error {
	names, err := linkNames(ctx, w.host)
	if err != nil {
		return err
	}
	tables, err := tables(ctx, w.host)
	if err != nil {
		return err
	}
	return errors.Join(selfcheck.Extra("links", []string{"lo"}, names), selfcheck.Extra("tables", nil, tables))
}

// deleteLinks deletes the host's links; the other ends of the pairs go with them.
func (w *world) deleteLinks(ctx context.Context) error {
	links, err := link.List(ctx, w.host, link.Filter{})
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		if l.Name == "lo" {
			continue
		}
		if err := l.Delete(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("delete %s: %w", l.Name, err))
		}
	}
	return errors.Join(errs...)
}

func prefix(addr string, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.MustParseAddr(addr), bits)
}
