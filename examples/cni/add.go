//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// add makes the attachment: all of it, or nothing.
func add(ctx context.Context, r *request) (err error) {
	if r.conf.as == modeLoopback {
		return addLoopback(ctx, r)
	}
	if err := r.conf.requested(r.args.Args); err != nil {
		return err
	}
	box, err := r.openBox(ctx)
	if err != nil {
		return err
	}
	defer box.Close()
	r.box = box.ID()
	if r.conf.inside() {
		return addInside(ctx, r, box)
	}
	if err := r.clear(ctx); err != nil {
		return err
	}
	l := &lease{}
	if r.conf.delegated() { // not under the lock: it takes its time
		if l, err = delegate(ctx, r); err != nil {
			return err
		}
	}
	unlock, err := lock()
	if err != nil {
		return errors.Join(err, release(ctx, r))
	}
	defer unlock()
	// Again under the lock: a second ADD must not undo what the first has made.
	if _, err := r.absent(ctx); err != nil {
		return err
	}
	br := &bridge{}
	defer func() {
		if err != nil {
			err = errors.Join(err, detach(ctx, r, br.made), br.restore(ctx, r), r.freed())
			r.withdrawAnswers(ctx)
		}
	}()
	if r.conf.pool != nil {
		if l, err = r.conf.pool.allocate(ctx, r); err != nil {
			return err
		}
	}
	if err := r.fits(ctx, box, l); err != nil {
		return err
	}
	if r.conf.as == modePTP {
		if err := l.fitsPTP(); err != nil {
			return err
		}
	} else if br, err = ensureBridge(ctx, r, l); err != nil {
		return err
	}
	result, err := r.wire(ctx, br, box, l)
	if err != nil {
		return err
	}
	if err := r.finish(ctx, result); err != nil {
		return err
	}
	return types.PrintResult(result, r.conf.CNIVersion)
}

// clear takes away what an ADD of this attachment has left that was killed, with its
// addresses, and makes sure that the attachment is not there.
func (r *request) clear(ctx context.Context) error {
	half, err := r.absent(ctx)
	if err != nil || !half {
		return err
	}
	unlock, err := lock() // the ADD may be under way
	if err != nil {
		return err
	}
	defer unlock()
	if half, err = r.absent(ctx); err != nil || !half {
		return err
	}
	defer r.withdrawAnswers(ctx)
	return errors.Join(detach(ctx, r, false), r.freed())
}

// openBox opens the container's namespace, which must not be the host's.
func (r *request) openBox(ctx context.Context) (*netns.NS, error) {
	box, err := netns.OpenPath(ctx, r.args.Netns)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetNS, "the container's network namespace cannot be opened", err.Error())
	}
	if box.Equal(r.host) {
		box.Close()
		return nil, types.NewError(types.ErrInvalidNetNS, "the container's network namespace is the host's", r.args.Netns)
	}
	return box, nil
}

// absent makes sure that the attachment is not there yet. Half of one is an ADD under
// way, or what one has left that was killed.
func (r *request) absent(ctx context.Context) (half bool, err error) {
	port, own, half, err := r.ours(ctx)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, failed("looking for the container's link", err)
	case !own:
		return false, types.NewError(codeExists, "the name of the container's link is taken", fmt.Sprintf("%s of the host is not the plugin's", port.Name))
	case !half:
		return false, types.NewError(codeExists, "the container is in the network already", fmt.Sprintf("%s, by the link %s of the host", r.at.owner(), port.Name))
	}
	return true, nil
}

// wire makes the pair and what belongs to it, and returns what has been made.
func (r *request) wire(ctx context.Context, br *bridge, box *netns.NS, l *lease) (*current.Result, error) {
	c := r.conf
	ptp := c.as == modePTP
	if err := r.checkMAC(ctx, br.Link); err != nil {
		return nil, err
	}
	mac, err := ownMAC(r.host, r.at.link())
	if err != nil {
		return nil, err
	}
	mtu := c.MTU
	if mtu == 0 && !ptp { // a smaller one would be the bridge's, too
		mtu = br.MTU
	}
	gw, err := r.firewall(ctx, l)
	if err != nil {
		return nil, err
	}
	if gw != nil {
		defer gw.Close()
	}
	var ipv6 link.IPv6Conf
	if hasIPv6(ctx, box, "default") {
		ipv6.AddrGenMode = new(link.AddrGenNone)
	}
	peer := link.Spec{NS: box, Name: r.at.ifname, Up: !c.DisableContainerInterface, MTU: mtu, MAC: c.mac, IPv6: ipv6}
	spec := link.Spec{
		Name: r.at.link(), Up: !c.late(), MTU: mtu, MAC: mac, Alias: r.at.alias() + " " + begun,
	}
	if !ptp { // which has no routes to its subnets
		spec.Master, spec.Port, spec.Group = br.Ref(), r.portOptions(ctx), portGroup
		peer.Addrs, peer.DAD = l.addrs, c.EnableDAD
	}
	spec.Kind = link.Veth{Peer: peer}
	port, err := link.Create(ctx, r.host, spec)
	if err != nil {
		return nil, failed("making the container's link", err)
	}
	eth, err := link.Get(ctx, box, r.at.ifname)
	if err != nil {
		return nil, failed("reading the container's link", err)
	}
	if c.late() {
		if err := r.secure(ctx, gw, port, eth, l); err != nil {
			return nil, err
		}
	}
	if ptp {
		if err := r.wirePTP(ctx, box, port, eth, l); err != nil {
			return nil, err
		}
	}
	if gw != nil && (ptp || c.Flowtable) { // the link forwards from now on, and is a device of the flowtable
		if err := r.network(ctx, gw, l); err != nil {
			return nil, err
		}
	}
	// The kernel takes its time until the bridge forwards.
	known := make(chan error, 1)
	go func() { known <- r.makeKnown(ctx, br, port, eth, l) }()
	err = r.equip(ctx, gw, box, port, eth, l)
	if kerr := <-known; err == nil {
		err = kerr
	}
	if err != nil {
		return nil, err
	}
	return r.result(br, port, eth, l), nil
}

// equip gives the pair what it has besides itself: routes, limits and published ports.
func (r *request) equip(ctx context.Context, gw *nat.NAT, box *netns.NS, port, eth link.Link, l *lease) error {
	if r.conf.IsDefaultGateway {
		l.addDefaults()
	}
	if err := l.addRoutes(ctx, box, eth.Index); err != nil {
		return failed("adding the container's routes", err)
	}
	if err := r.limit(ctx, port); err != nil {
		return failed("limiting the container's rate", err)
	}
	return r.publish(ctx, gw, l)
}

// makeKnown waits until the container is reached, and tells its neighbours.
func (r *request) makeKnown(ctx context.Context, br *bridge, port, eth link.Link, l *lease) error {
	if r.conf.DisableContainerInterface { // nothing comes or goes
		return nil
	}
	if r.conf.as != modePTP {
		if err := settle(ctx, br.gate, port); err != nil {
			return err
		}
	}
	if err := r.conf.detect(ctx, eth, l); err != nil {
		return err
	}
	return announce(ctx, eth)
}

// late says whether the container's port comes up only when more is set.
func (c *config) late() bool {
	return c.policy != nil && c.as != modePTP || c.inVLANs() || c.MacSpoofChk
}

// secure sets what the container's port needs before its first frame, and brings it up.
func (r *request) secure(ctx context.Context, gw *nat.NAT, port, eth link.Link, l *lease) error {
	if err := r.conf.setVLANs(ctx, port); err != nil {
		return failed("setting the VLANs of the container's port", err)
	}
	if err := r.conf.bindMAC(ctx, port, eth.MAC); err != nil {
		return err
	}
	if r.conf.policy != nil && r.conf.as != modePTP { // there, the network is the container's address
		if err := gw.SetGuards(ctx, r.guardOf(eth.MAC, l.addrs)); err != nil {
			return failed("guarding the container's link", err)
		}
	}
	return failed("bringing the container's link up", port.SetUp(ctx))
}

// detect waits for the duplicate address detection that enabledad asks for.
func (c *config) detect(ctx context.Context, eth link.Link, l *lease) error {
	var addrs []netip.Addr
	for _, a := range l.addrs {
		if a.Addr().Is6() {
			addrs = append(addrs, a.Addr())
		}
	}
	if !c.EnableDAD || len(addrs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return failed("duplicate address detection", eth.WaitAddr(ctx, addrs...))
}

// finish notes that the attachment is whole, with the container's hardware address.
func (r *request) finish(ctx context.Context, result *current.Result) error {
	port, err := link.Get(ctx, r.host, r.at.link())
	for _, f := range result.Interfaces {
		if err == nil && f.Sandbox != "" {
			_, err = port.Update(ctx, link.Spec{Alias: r.at.alias() + " " + f.Mac})
		}
	}
	return failed("giving the container's link its alias", err)
}

// announce corrects what the host and the bridge's other containers remember of the
// addresses, which another container may have had until now. It is no part of the
// attachment: without it, they find out by themselves within a minute. A link whose
// other side is not there yet is not waited for.
func announce(ctx context.Context, eth link.Link) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := eth.Announce(ctx)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, context.DeadlineExceeded) { // no CAP_NET_RAW
		return nil
	}
	return failed("announcing the container's addresses", err)
}

// settle waits until the bridge forwards for the container, a few milliseconds as
// a rule, so that its first packet arrives, and until a bridge that had no port yet
// has its carrier: what the host sends by it before is dropped. A bridge with the
// spanning tree protocol takes half a minute, which is not waited for.
func settle(ctx context.Context, gate, port link.Link) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := port.WaitForwarding(ctx)
	if err == nil {
		_, err = gate.WaitCarrier(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return failed("waiting for the bridge to forward", err)
}

// portOptions are the settings of the bridge's port. Isolated ports would also
// cut siblings off from each other's published ports where the firewall sees what
// is bridged; there it isolates by itself.
func (r *request) portOptions(ctx context.Context) link.PortOptions {
	seen, _ := r.host.Sysctl(ctx, "net.bridge.bridge-nf-call-iptables")
	o := link.PortOptions{
		// A container reaches its own published port only with it when the
		// firewall sees what is bridged.
		Hairpin:  new(r.conf.HairpinMode || len(r.conf.RuntimeConfig.PortMappings) > 0),
		Isolated: new(r.conf.PortIsolation || r.conf.Isolate && seen != "1"),
	}
	if r.conf.MacSpoofChk {
		o.Locked, o.Learning = new(true), new(false)
	}
	return o
}

// limit sets the rates. The link that carries one of them gets the owner's name,
// as it outlives the pair.
func (r *request) limit(ctx context.Context, port link.Link) error {
	egress, ingress := r.conf.rates()
	if egress == (link.Limit{}) && ingress == (link.Limit{}) {
		return nil
	}
	if err := port.SetRate(ctx, egress, ingress); err != nil {
		return err
	}
	ifb, err := link.Get(ctx, r.host, ifbOf(port.Index))
	if err == nil {
		_, err = ifb.Update(ctx, link.Spec{Alias: r.at.alias()})
	}
	return netns.IgnoreNotExist(err)
}

// ifbOf is the name of the link that limits what comes in; see link.SetRate.
func ifbOf(index int) string { return fmt.Sprintf("bwifb%d", index) }
