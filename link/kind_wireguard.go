package link

// WireGuard is a WireGuard tunnel, a link for IP packets without a hardware
// address. This package makes the link; wg(8) and the package
// golang.zx2c4.com/wireguard/wgctrl set its keys and peers.
//
// The encrypted packets pass through the namespace given to Create, also if Spec.NS
// puts the link into another one. A box then has no way out but the tunnel.
//
// It needs Linux 5.6 and the kernel's module wireguard. See ip-link(8).
type WireGuard struct{}

func (WireGuard) name() string { return "wireguard" }

func (WireGuard) check(outer *Spec) error { return noMAC("WireGuard", outer) }

func (k WireGuard) fields() (Kind, []field) { return &k, nil }
