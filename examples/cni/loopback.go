//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// loopback is the name of the link in each namespace. CNI_IFNAME does not count, as
// with the reference plugin.
const loopback = "lo"

// addLoopback brings the container's loopback up. Behind another plugin it passes that
// one's result on.
func addLoopback(ctx context.Context, r *request) error {
	box, err := r.openBox(ctx)
	if err != nil {
		return err
	}
	defer box.Close()
	lo, err := link.Get(ctx, box, loopback)
	if err != nil {
		return failed("looking for the container's loopback", err)
	}
	if _, err := loopbackIPs(ctx, lo); err != nil {
		return err
	}
	if err := lo.SetUp(ctx); err != nil {
		return failed("bringing the container's loopback up", err)
	}
	if r.conf.PrevResult != nil {
		return types.PrintResult(r.conf.PrevResult, r.conf.CNIVersion)
	}
	ips, err := loopbackIPs(ctx, lo) // the kernel gives it those only now
	if err != nil {
		return err
	}
	return types.PrintResult(&current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: lo.Name, Mac: lo.MAC.String(), Sandbox: r.args.Netns}},
		IPs:        ips,
	}, r.conf.CNIVersion)
}

// loopbackIPs are the addresses of a loopback. One that is for the outside is refused,
// as the reference plugin does.
func loopbackIPs(ctx context.Context, lo link.Link) ([]*current.IPConfig, error) {
	addrs, err := lo.Addrs(ctx)
	if err != nil {
		return nil, failed("reading the addresses of the container's loopback", err)
	}
	var ips []*current.IPConfig
	for _, a := range addrs {
		if !a.Prefix.Addr().IsLoopback() {
			return nil, types.NewError(codeExists, "the container's loopback has an address that is none of the loopback's", fmt.Sprintf("%v on %s", a.Prefix, lo.Name))
		}
		ips = append(ips, &current.IPConfig{Interface: current.Int(0), Address: ipNet(a.Prefix)})
	}
	return ips, nil
}

// delLoopback takes the container's loopback down. That of a namespace that is gone is
// gone, too, and the host's own stays.
func delLoopback(ctx context.Context, r *request) error {
	box, err := netns.OpenPath(ctx, r.args.Netns)
	if err != nil {
		return nil
	}
	defer box.Close()
	if box.Equal(r.host) {
		return nil
	}
	lo, err := link.Get(ctx, box, loopback)
	if err == nil {
		err = lo.SetDown(ctx)
	}
	return failed("taking the container's loopback down", netns.IgnoreNotExist(err))
}

func checkLoopback(ctx context.Context, r *request) error {
	box, err := r.openBox(ctx)
	if err != nil {
		return err
	}
	defer box.Close()
	lo, err := link.Get(ctx, box, loopback)
	if err != nil {
		return lost("the container's loopback", err)
	}
	if !lo.Up {
		return drift("%s is down", lo.Name)
	}
	return nil
}
