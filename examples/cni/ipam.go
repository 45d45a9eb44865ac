//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// A lease is what IPAM has assigned to an attachment.
type lease struct {
	ips    []*current.IPConfig
	addrs  []netip.Prefix // of ips
	gates  []netip.Addr   // of ips; the zero Addr where there is none
	routes []*types.Route
	onLink map[*types.Route]bool // whose gateway is there, though no subnet has it
	dns    types.DNS
}

// delegated says whether another plugin assigns the addresses.
func (c *config) delegated() bool { return c.IPAM.Type != "" && c.pool == nil }

// delegate asks the IPAM plugin for addresses.
func delegate(ctx context.Context, r *request) (*lease, error) {
	said, err := r.ask(ctx, "ADD")
	if err != nil {
		return nil, err // the plugin's own error, with its code
	}
	answer, err := readAnswer(r.args.StdinData, said)
	if err != nil {
		return nil, err
	}
	result, err := current.NewResultFromResult(answer)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the answer of the IPAM plugin cannot be read", err.Error())
	}
	if len(result.IPs) == 0 {
		return nil, invalid("the IPAM plugin has assigned no address", r.conf.IPAM.Type)
	}
	return newLease(result, r.conf.IsGateway)
}

// newLease reads IPAM's result. Where the bridge is to be the gateway and IPAM
// does not say by which address, it is the subnet's first.
func newLease(result *current.Result, gateway bool) (*lease, error) {
	l := &lease{ips: result.IPs, routes: result.Routes, dns: result.DNS}
	for _, ip := range result.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		ones, bits := ip.Address.Mask.Size()
		if !ok || bits == 0 {
			return nil, types.NewError(types.ErrDecodingFailure, "IPAM has assigned what is no address", ip.Address.String())
		}
		prefix := netip.PrefixFrom(addr.Unmap(), ones)
		if gateway && ip.Gateway == nil && !prefix.IsSingleIP() {
			ip.Gateway = net.IP(prefix.Masked().Addr().Next().AsSlice())
		}
		gate, _ := netip.AddrFromSlice(ip.Gateway)
		l.addrs, l.gates = append(l.addrs, prefix), append(l.gates, gate.Unmap())
	}
	return l, nil
}

// release gives the addresses back.
func release(ctx context.Context, r *request) error {
	switch {
	case r.conf.pool != nil:
		err := r.conf.pool.free(r.conf.Name, func(l string) bool { return l == r.at.link() })
		if errors.Is(err, errDamaged) { // then no address is noted that could be given back
			fmt.Fprintf(os.Stderr, "%s: the allocator's state: %s\n", about, oneLine(err))
			return nil
		}
		return failed("giving the container's addresses back", err)
	case r.conf.delegated():
		_, err := r.ask(ctx, "DEL")
		return err
	}
	return nil
}

// gateway is the lease's first gateway of a family.
func (l *lease) gateway(is4 bool) netip.Addr {
	for _, g := range l.gates {
		if g.IsValid() && g.Is4() == is4 {
			return g
		}
	}
	return netip.Addr{}
}

// subnets are those that the addresses are in, each once.
func (l *lease) subnets() []netip.Prefix {
	var all []netip.Prefix
	for _, a := range l.addrs {
		all = merge(all, []netip.Prefix{a.Masked()})
	}
	return all
}

// merge returns the prefixes of both lists that do not overlap; of two that do,
// the one in more.
func merge(have, more []netip.Prefix) []netip.Prefix {
	merged := append([]netip.Prefix(nil), more...)
next:
	for _, h := range have {
		for _, m := range more {
			if h.Overlaps(m) {
				continue next
			}
		}
		merged = append(merged, h)
	}
	return merged
}
