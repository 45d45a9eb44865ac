package nat

import (
	"net/netip"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Proxy is a relay in this process for what the kernel cannot translate; see [NAT.Proxy].
type Proxy struct {
	host, box netip.AddrPort
	proto     Proto
	proxy
}

// Addr returns the address and port that visitors use.
func (p *Proxy) Addr() netip.AddrPort { return p.host }

// String returns the proxy as "tcp [::1]:8080 -> 10.88.0.2:80".
func (p *Proxy) String() string {
	return Port{Proto: p.proto, Host: p.host, Box: p.box}.String()
}

// checkProxied refuses what cannot be proxied.
func (p Port) checkProxied() error {
	if p.Proto != TCP && p.Proto != UDP {
		return refuse.Input("the protocol is neither TCP nor UDP (%d)", uint8(p.Proto))
	}
	if p.HostLast != 0 || p.BoxLast != 0 {
		return refuse.Input("a range of ports is not proxied")
	}
	if p.Host.Addr() != netip.IPv6Loopback() {
		if err := checkEnd("host", p.Host, true); err != nil {
			return err
		}
	} else if p.Host.Port() == 0 {
		return refuse.Input("the host port is 0")
	}
	return checkEnd("box", p.Box, false)
}
