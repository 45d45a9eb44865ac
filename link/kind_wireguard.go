package link

// WireGuard is a WireGuard tunnel: a link for IP packets without a hardware
// address. Keys and peers are given to it by others, such as the package
// golang.zx2c4.com/wireguard/wgctrl or wg(8).
//
// Its encrypted packets pass through the namespace in which it was made, also
// where Spec.NS puts the link itself into another: a box with no other way out
// than the tunnel.
//
// Needs Linux 5.6 and the kernel's module "wireguard". See ip-link(8).
type WireGuard struct{}

func (WireGuard) name() string { return "wireguard" }

func (WireGuard) check(outer *Spec) error { return noMAC("WireGuard", outer) }

func (k WireGuard) fields() (Kind, []field) { return &k, nil }
