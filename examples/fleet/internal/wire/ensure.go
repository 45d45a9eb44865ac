package wire

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/forwarding"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Self is Underlay and Ensure together: the node as [plan.For] takes it.
func (w *Wire) Self(ctx context.Context, id state.ID, cfg state.Config, prefixes []netip.Prefix) (plan.Self, error) {
	underlay, err := w.Underlay(ctx, cfg)
	if err != nil {
		return plan.Self{}, err
	}
	l, err := w.ensure(ctx, cfg, prefixes, underlay)
	if err != nil {
		return plan.Self{}, err
	}
	return plan.Self{ID: id, Prefixes: prefixes, Tunnel: l.Index, Underlay: underlay}, nil
}

// Ensure makes the tunnel link what it has to be, with the first address of each prefix and no others, and makes the host forward:
// IPv4 by the tunnel link and the underlay's links, IPv6 by the same where the kernel can (Linux 6.17), and else by its switch for
// all. The MTU is the largest that the underlay carries. An existing link that matches is not touched; other addresses and another
// MTU are changed in place.
//
// A link of that name that is not the fleet's is os.ErrExist. A link of the fleet that cannot become what is wanted, because its
// kind or port is another, is made anew.
func (w *Wire) Ensure(ctx context.Context, cfg state.Config, prefixes []netip.Prefix) (link.Link, error) {
	underlay, err := w.Underlay(ctx, cfg)
	if err != nil {
		return link.Link{}, err
	}
	return w.ensure(ctx, cfg, prefixes, underlay)
}

func (w *Wire) ensure(ctx context.Context, cfg state.Config, prefixes []netip.Prefix, underlay []plan.Underlay) (link.Link, error) {
	const op = "Ensure"
	w.changing.Lock()
	defer w.changing.Unlock()
	for _, p := range prefixes {
		if !cfg.Contains(p) {
			return link.Link{}, w.fail(op, "prefix "+p.String(), refuse.Input("it is not a node's prefix of the fleet's pools %v", cfg.Pools))
		}
	}
	spec := plan.Link(cfg, prefixes, plan.LinkMTU(cfg.Mode, underlay))
	spec.Name, spec.Alias = w.o.Link, w.alias()
	if cfg.Mode == state.WireGuard {
		if _, err := w.privateKey(); err != nil { // before anything is made
			return link.Link{}, err
		}
	}
	stale, err := w.existing(ctx, op, spec)
	if err != nil {
		return link.Link{}, err
	}
	if stale != nil && stale.Name != w.o.Link {
		if _, err := stale.Update(ctx, link.Spec{Name: w.o.Link}); err == nil { // before Linux 6.2 not of a link that is up
			if stale, err = w.existing(ctx, op, spec); err != nil {
				return link.Link{}, err
			}
		}
	}
	if stale != nil {
		if err := netns.IgnoreNotExist(stale.Delete(ctx)); err != nil {
			return link.Link{}, err
		}
	}
	l, err := link.Ensure(ctx, w.ns, spec)
	if err != nil {
		return link.Link{}, w.explain(ctx, op, cfg, err)
	}
	if err := tidy(ctx, l, spec.Addrs); err != nil {
		return link.Link{}, err
	}
	if cfg.Mode == state.WireGuard {
		if err := w.ensureDevice(ctx, cfg.Port); err != nil {
			return link.Link{}, err
		}
	}
	return l, w.forward(ctx, cfg, underlay)
}

// alias marks the tunnel link as the fleet's. The name in it tells the links of several fleets on one host apart.
func (w *Wire) alias() string { return "boxwire-fleet " + w.o.Link }

// existing looks at the link that has the tunnel link's name, or had it once. It returns the fleet's own if that cannot become what
// spec says, and an error if it is another's.
func (w *Wire) existing(ctx context.Context, op string, spec link.Spec) (*link.Link, error) {
	l, err := link.Get(ctx, w.ns, w.o.Link)
	if errors.Is(err, os.ErrNotExist) {
		return w.renamed(ctx, spec)
	}
	if err != nil {
		return nil, err
	}
	d, err := l.Details(ctx)
	if err != nil {
		return nil, netns.IgnoreNotExist(err)
	}
	fits := isLike(d.Spec.Kind, spec.Kind)
	switch {
	case d.Spec.Alias == w.alias() && !fits:
		return &l, nil
	case d.Spec.Alias == w.alias(), fits && d.Spec.Alias == "" && w.isBare(ctx, spec.Kind):
		return nil, nil
	}
	kind := l.Kind
	if kind == "" {
		kind = "hardware"
	}
	return nil, w.fail(op, w.subject(), refuse.As(os.ErrExist,
		"there is a link of that name which is not this fleet's (kind %s, alias %q): remove or rename it, or name another link for the fleet (-link)", kind, d.Spec.Alias))
}

// renamed finds the fleet's link under another name that somebody has given it. It keeps the UDP port, so that no second one can be
// made.
func (w *Wire) renamed(ctx context.Context, spec link.Spec) (*link.Link, error) {
	links, err := link.List(ctx, w.ns, link.Filter{AliasPrefix: w.alias()})
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if d, err := l.Details(ctx); err == nil && d.Spec.Alias == w.alias() {
			return &l, nil
		}
	}
	return nil, nil
}

// isLike reports whether a link of kind have can be made one of kind want in place.
func isLike(have, want link.Kind) bool {
	switch want := want.(type) {
	case link.VXLAN:
		v, ok := have.(link.VXLAN)
		return ok && v.External == want.External && v.GPE == want.GPE && v.Port == want.Port
	case link.WireGuard:
		_, ok := have.(link.WireGuard)
		return ok
	case link.Bridge:
		_, ok := have.(link.Bridge)
		return ok
	}
	return false
}

// isBare reports whether a link that fits and has no alias may be one of the fleet: the program was killed before it could give the
// alias. A WireGuard link with another key is not.
func (w *Wire) isBare(ctx context.Context, k link.Kind) bool {
	if _, ok := k.(link.WireGuard); !ok {
		return true
	}
	device, err := w.device(ctx)
	return err == nil && device.PrivateKey == (wgtypes.Key{}) && len(device.Peers) == 0
}

// tidy deletes the addresses of the link that are not wanted. The kernel's own link-local ones stay.
func tidy(ctx context.Context, l link.Link, want []netip.Prefix) error {
	addrs, err := l.Addrs(ctx)
	if err != nil {
		return err
	}
	var stale []netip.Prefix
	for _, a := range addrs {
		if !a.Prefix.Addr().IsLinkLocalUnicast() && !slices.Contains(want, a.Prefix) {
			stale = append(stale, a.Prefix)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	return netns.IgnoreNotExist(l.DeleteAddrs(ctx, stale...))
}

// forward makes the host forward packets that come in by the tunnel link and by the underlay.
func (w *Wire) forward(ctx context.Context, cfg state.Config, underlay []plan.Underlay) error {
	p, err := forwarding.Make(ctx, w.ns, []forwarding.Network{{
		IPv4: len(cfg.PoolsOf(netns.IPv4)) > 0, IPv6: len(cfg.PoolsOf(netns.IPv6)) > 0,
	}}, nil, forwarding.Options{})
	if err != nil {
		return w.fail("Ensure", "forwarding", err)
	}
	mine := slices.DeleteFunc(p.Changes, func(c forwarding.Change) bool {
		isMine := c.Link == w.o.Link || slices.ContainsFunc(underlay, func(u plan.Underlay) bool { return u.Name == c.Link })
		// The switch for all needs the changes of all links.
		return !isMine && (c.Setting == forwarding.IPv4Forwarding || c.Setting == forwarding.IPv6ForceForwarding)
	})
	if err := w.fail("Ensure", "forwarding", forwarding.Apply(ctx, w.ns, mine)); err != nil {
		return err
	}
	if cfg.Mode == state.Direct || cfg.Mode == state.Auto {
		return w.fail("Ensure", "neighbours", w.lookAgain(ctx, underlay))
	}
	return nil
}

// lookAgain makes a direct IPv6 route work again as soon as the peer is back. A kernel that forwards on some links only
// (force_forwarding) passes over a route whose gateway was not found, takes a wider one, and looks for the gateway again once in 60
// seconds: now once in a second. IPv4 and hosts that forward on all links have no such rule. A host whose settings are read-only
// goes on without.
func (w *Wire) lookAgain(ctx context.Context, underlay []plan.Underlay) error {
	for _, u := range underlay {
		key := "net/ipv6/conf/" + u.Name + "/router_probe_interval"
		now, err := w.ns.Sysctl(ctx, key)
		if seconds, _ := strconv.Atoi(now); err == nil && seconds > 1 {
			err = w.ns.SetSysctl(ctx, key, "1")
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) && !errors.Is(err, syscall.EROFS) {
			return err
		}
	}
	return nil
}
