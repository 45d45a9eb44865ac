//go:build linux

package runner

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// A wired box is one that this run has made and removes.
type wired struct {
	run   mark // this one
	ns    *netns.NS
	gw    *nat.NAT   // nil without a bridge; holds the host ports while it is open
	ports []nat.Port // as they are published
	addrs []netip.Prefix

	network []nat.Network // the bridge's, as the firewall has it
}

// wire makes the box: all of it, or nothing.
func wire(ctx context.Context, host *netns.NS, o *options) (w *wired, err error) {
	unlock, err := lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	others, err := boxes(ctx, host)
	if err != nil {
		return nil, err
	}
	if others, err = freeName(ctx, host, o.name, others); err != nil {
		return nil, err
	}
	start, err := startTime(os.Getpid())
	if err != nil {
		return nil, err
	}
	w = &wired{run: mark{pid: os.Getpid(), start: start, host: host.ID().Ino}}
	defer func() {
		if err != nil {
			undo := context.WithoutCancel(ctx)
			err = errors.Join(err, w.remove(undo, host, o))
			w = nil
		}
	}()
	if w.ns, err = newSpace(ctx, w.run, o.name); err != nil {
		return w, err
	}
	if o.network == "none" {
		return w, nil
	}
	return w, w.plug(ctx, host, o, others)
}

// freeName makes sure that no box has the name, and removes what a killed run of
// that name has left.
func freeName(ctx context.Context, host *netns.NS, name string, others []*box) ([]*box, error) {
	for i, b := range others {
		if b.Name != name {
			continue
		}
		if b.Pid != 0 {
			return nil, fmt.Errorf("the name %s is taken by a box that process %d runs", name, b.Pid)
		}
		if err := removeBox(ctx, host, b); err != nil {
			return nil, err
		}
		return append(others[:i:i], others[i+1:]...), nil
	}
	return others, nil
}

// newSpace makes the box's namespace, marks it, and then gives it its name, so
// that there is no named one without a mark whenever a run is killed.
func newSpace(ctx context.Context, m mark, name string) (*netns.NS, error) {
	ns, err := netns.New(ctx)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	lo, err := link.Get(ctx, ns, "lo")
	if err != nil {
		return nil, err
	}
	if _, err := lo.Update(ctx, link.Spec{Alias: m.String()}); err != nil {
		return nil, err
	}
	pinned, err := netns.Pin(ctx, ns, name)
	if errors.Is(err, os.ErrExist) {
		if leftFile(ctx, name) { // by a run that was killed right here
			if err := netns.Delete(ctx, name); err != nil {
				return nil, err
			}
			return netns.Pin(ctx, ns, name)
		}
		return nil, fmt.Errorf("the name %s is taken by a network namespace that is no box of this host", name)
	}
	return pinned, err
}

// leftFile says whether a name is nothing but a file: neither here nor in another
// mount namespace is there a network namespace on it.
func leftFile(ctx context.Context, name string) bool {
	ns, err := netns.Open(ctx, name)
	ns.Close()
	if !errors.Is(err, netns.ErrNotNamespace) {
		return false
	}
	all, err := netns.ListAll(ctx)
	for _, info := range all {
		if slices.Contains(info.Names, netns.DefaultDir+"/"+name) {
			return false
		}
	}
	return err == nil || errors.Is(err, os.ErrPermission) // who may not be looked into sees other files
}

// plug connects the box with the bridge and publishes its ports.
func (w *wired) plug(ctx context.Context, host *netns.NS, o *options, others []*box) error {
	br, err := ensureBridge(ctx, host, o)
	if err != nil {
		return err
	}
	taken, err := link.ListAddrs(ctx, host)
	if err != nil {
		return err
	}
	addrs, err := chooseAddrs(o.subnets, o.ip, taken, others)
	if err != nil {
		return err
	}
	mac, err := chooseMAC(ctx, br, o.mac, others)
	if err != nil {
		return err
	}
	mtu := o.mtu
	if mtu == 0 || o.program.fixed() { // boxes on one bridge send each other packets of one size
		mtu = br.MTU
	}
	port, err := link.Create(ctx, host, link.Spec{
		Name: portName(o.name), Up: true, Master: br.Ref(), Group: portGroup, MTU: mtu,
		MAC: stableMAC(portName(o.name)), Alias: portAlias(o.name, w.run, mac, addrs),
		Port: link.PortOptions{Isolated: yes(o.isolate), Hairpin: yes(true)},
		Kind: link.Veth{Peer: link.Spec{
			NS: w.ns, Name: "eth0", Up: true, MTU: mtu, MAC: mac, Addrs: addrs,
		}},
	})
	if err != nil {
		return err
	}
	var routes []route.Route
	for i, s := range o.subnets {
		sameFamily := func(p netip.Prefix) bool { return p.Addr().Is4() == s.Addr().Is4() }
		if slices.IndexFunc(o.subnets, sameFamily) == i { // one way out for each family
			routes = append(routes, route.Default(gateway(s).Addr()))
		}
	}
	if err := route.Add(ctx, w.ns, routes...); err != nil {
		return err
	}
	if err := limit(ctx, port, o); err != nil {
		return err
	}
	if err := w.publish(ctx, host, o, addrs); err != nil {
		return err
	}
	if err := settle(ctx, br, port); err != nil {
		return err
	}
	w.addrs = addrs
	return announce(ctx, w.ns)
}

// announce corrects what the host and the other boxes remember of the addresses,
// which another box may have had until now.
func announce(ctx context.Context, ns *netns.NS) error {
	eth, err := link.Get(ctx, ns, "eth0")
	if err == nil {
		err = eth.Announce(ctx)
	}
	if errors.Is(err, os.ErrPermission) { // no CAP_NET_RAW: they find out by themselves
		return nil
	}
	return err
}

// settle waits until the bridge forwards for the box, and the host sends by a
// bridge that had no port yet: milliseconds, in which the box's first packets would
// be lost.
func settle(ctx context.Context, br, port link.Link) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := port.WaitForwarding(ctx)
	if err == nil {
		_, err = br.WaitCarrier(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // another program has switched the spanning tree protocol on
	}
	return err
}

// remove takes the box away.
func (w *wired) remove(ctx context.Context, host *netns.NS, o *options) error {
	err := removeBox(ctx, host, &box{Name: o.name, Bridge: o.bridge, HostLink: portName(o.name)})
	if w.gw != nil {
		w.gw.Close()
	}
	w.ns.Close()
	return err
}

// portName is the name of a box's bridge port: the box's own where that is short
// enough for a link.
func portName(box string) string {
	if len(box) <= 12 {
		return "bw-" + box
	}
	h := fnv.New64a()
	h.Write([]byte(box))
	return fmt.Sprintf("bw-%x", h.Sum(nil)[:6])
}

func yes(b bool) *bool { return &b }
