//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/netns"
	"github.com/miekg/dns"
)

// maxPacket is the size of packets of DNS that no path cuts into pieces.
const maxPacket = 1232

// upstream are the resolvers of the host.
type upstream struct {
	host    *netns.NS
	servers []netip.AddrPort
}

// resolve asks one resolver after the other, until one has an answer.
func (u upstream) resolve(ctx context.Context, q dns.Question) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.Id, m.RecursionDesired, m.Question = dns.Id(), true, []dns.Question{q}
	m.SetEdns0(maxPacket, false)
	var last error
	for _, server := range u.servers {
		a, err := u.exchange(ctx, "udp", server, m)
		if err == nil && a.Truncated {
			a, err = u.exchange(ctx, "tcp", server, m)
		}
		if err == nil && (a.Rcode == dns.RcodeSuccess || a.Rcode == dns.RcodeNameError) {
			return a, nil
		}
		if err == nil {
			err = fmt.Errorf("resolver %v: %s", server, dns.RcodeToString[a.Rcode])
		}
		last = err
	}
	return nil, last
}

// exchange asks a resolver.
func (u upstream) exchange(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, patience/4)
	defer cancel()
	c, err := u.host.Dial(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	client := dns.Client{Net: network, Timeout: patience / 4}
	a, _, err := client.ExchangeWithConnContext(ctx, m, &dns.Conn{Conn: c, UDPSize: maxPacket})
	if err != nil {
		return nil, err
	}
	if !a.Response || len(a.Question) != 1 || normalName(a.Question[0].Name) != normalName(m.Question[0].Name) ||
		a.Question[0].Qtype != m.Question[0].Qtype {
		return nil, fmt.Errorf("resolver %v: the answer is to another question", server)
	}
	return a, nil
}
