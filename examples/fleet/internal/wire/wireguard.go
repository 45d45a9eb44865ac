package wire

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/netns"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// sessionLife is how long after a handshake a session of WireGuard may carry packets (REJECT_AFTER_TIME in the kernel's
// drivers/net/wireguard/messages.h).
const sessionLife = 180 * time.Second

// endpoints is where a peer's endpoint was set to.
type endpoints struct{ to netip.AddrPort }

// inside calls fn with a client for the namespace: the generic netlink socket is opened on a thread that is in it.
func inside[T any](ctx context.Context, w *Wire, fn func(c *wgctrl.Client) (T, error)) (T, error) {
	return netns.Do(ctx, w.ns, func(context.Context) (v T, err error) {
		c, err := wgctrl.New()
		if err != nil {
			return v, err
		}
		v, err = fn(c)
		return v, errors.Join(err, c.Close())
	})
}

// device reads the WireGuard link.
func (w *Wire) device(ctx context.Context) (*wgtypes.Device, error) {
	return inside(ctx, w, func(c *wgctrl.Client) (*wgtypes.Device, error) { return c.Device(w.o.Link) })
}

// configure changes the WireGuard link.
func (w *Wire) configure(ctx context.Context, op string, cfg wgtypes.Config) error {
	_, err := inside(ctx, w, func(c *wgctrl.Client) (any, error) { return nil, c.ConfigureDevice(w.o.Link, cfg) })
	return w.fail(op, "WireGuard "+w.subject(), err)
}

// ensureDevice gives the WireGuard link its key and its port. Peers that it has keep their sessions.
func (w *Wire) ensureDevice(ctx context.Context, port uint16) error {
	const op = "Ensure"
	key, err := w.privateKey()
	if err != nil {
		return err
	}
	device, err := w.device(ctx)
	if err != nil {
		return w.fail(op, "WireGuard "+w.subject(), err)
	}
	var cfg wgtypes.Config
	if device.PrivateKey != key {
		cfg.PrivateKey = &key
	}
	if device.ListenPort != int(port) {
		cfg.ListenPort = new(int(port))
	}
	if cfg.PrivateKey == nil && cfg.ListenPort == nil {
		return nil
	}
	return w.configure(ctx, op, cfg)
}

// addPeers adds the peers of the plan that the link lacks, and changes those that differ. It returns those that have to go.
func (w *Wire) addPeers(ctx context.Context, p plan.Plan, did *PeerChanges) (late []wgtypes.Key, err error) {
	const op = "Apply"
	if !p.WireGuard {
		return nil, nil
	}
	device, err := w.device(ctx)
	if err != nil {
		return nil, w.fail(op, "WireGuard "+w.subject(), err)
	}
	have := make(map[wgtypes.Key]*wgtypes.Peer, len(device.Peers))
	for i := range device.Peers {
		have[device.Peers[i].PublicKey] = &device.Peers[i]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var cfg wgtypes.Config
	want := make(map[wgtypes.Key]bool, len(p.Peers))
	for _, peer := range p.Peers {
		want[peer.Key] = true
		if c, differs := w.difference(peer, have[peer.Key], time.Now()); differs {
			cfg.Peers = append(cfg.Peers, c)
			if have[peer.Key] == nil {
				did.Added++
			} else {
				did.Changed++
			}
		}
	}
	for _, peer := range device.Peers {
		if !want[peer.PublicKey] && !leads(peer, p.Kept) {
			late = append(late, peer.PublicKey)
		}
	}
	if len(cfg.Peers) > 0 {
		if err := w.configure(ctx, op, cfg); err != nil {
			return nil, err
		}
	}
	clear(w.set)
	for _, peer := range p.Peers {
		w.set[peer.Key] = endpoints{peer.Endpoint}
	}
	return late, nil
}

// difference returns what has to be changed of a peer. have is nil if there is none.
//
// The kernel sets a peer's endpoint to where its packets come from. So one that differs is set only if the plan's has changed, or
// if the peer has no session: what a live one uses works.
func (w *Wire) difference(want plan.Peer, have *wgtypes.Peer, now time.Time) (c wgtypes.PeerConfig, differs bool) {
	c = wgtypes.PeerConfig{PublicKey: want.Key, UpdateOnly: have != nil}
	set, known := w.set[want.Key]
	moved := known && set.to != want.Endpoint
	if have == nil || addrPort(have.Endpoint) != want.Endpoint && (moved || now.Sub(have.LastHandshakeTime) > sessionLife) {
		c.Endpoint = net.UDPAddrFromAddrPort(want.Endpoint)
		differs = true
	}
	if have == nil || !slices.Equal(prefixesOf(have), sorted(want.Allowed)) {
		c.ReplaceAllowedIPs = true
		for _, p := range want.Allowed {
			c.AllowedIPs = append(c.AllowedIPs, net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
		}
		differs = true
	}
	return c, differs
}

// deletePeers deletes peers that no route leads to any more.
func (w *Wire) deletePeers(ctx context.Context, keys []wgtypes.Key, did *PeerChanges) error {
	if len(keys) == 0 {
		return nil
	}
	var cfg wgtypes.Config
	for _, key := range keys {
		cfg.Peers = append(cfg.Peers, wgtypes.PeerConfig{PublicKey: key, Remove: true, UpdateOnly: true})
	}
	did.Deleted = len(keys)
	return w.configure(ctx, "Apply", cfg)
}

// leads reports whether a kept route leads to the peer.
func leads(peer wgtypes.Peer, kept []netip.Prefix) bool {
	return slices.ContainsFunc(prefixesOf(&peer), func(p netip.Prefix) bool { return slices.Contains(kept, p) })
}

// prefixesOf are the prefixes that a peer may use, sorted.
func prefixesOf(peer *wgtypes.Peer) []netip.Prefix {
	var all []netip.Prefix
	for _, n := range peer.AllowedIPs {
		a, _ := netip.AddrFromSlice(n.IP)
		bits, _ := n.Mask.Size()
		if n.IP.To4() != nil {
			a = a.Unmap()
		}
		all = append(all, netip.PrefixFrom(a, bits))
	}
	return sorted(all)
}

func sorted(prefixes []netip.Prefix) []netip.Prefix {
	return slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare)
}

// addrPort is an endpoint as the plan writes it.
func addrPort(a *net.UDPAddr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
