//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// echoPort is the port that echo listens on.
const echoPort = 7777

// every is how often a prober asks, and so the error of what it measures.
const every = 2 * time.Millisecond

// linkAddrs are the addresses of a link by its name, none if there is no such link.
func linkAddrs(ctx context.Context, ns *netns.NS, name string) ([]netip.Prefix, error) {
	l, err := link.Get(ctx, ns, name)
	if err != nil {
		return nil, netns.IgnoreNotExist(err)
	}
	addrs, err := l.Addrs(ctx)
	var all []netip.Prefix
	for _, a := range addrs {
		all = append(all, a.Prefix)
	}
	return all, err
}

// echo sends every UDP packet back from where it came in, until it is closed.
func echo(ctx context.Context, ns *netns.NS) (net.PacketConn, error) {
	c, err := ns.ListenPacket(ctx, "udp4", fmt.Sprintf(":%d", echoPort))
	if err != nil {
		return nil, err
	}
	go func() {
		buf := make([]byte, 64)
		for {
			n, peer, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteTo(buf[:n], peer)
			}
		}
	}()
	return c, nil
}

// A prober asks one address of a namespace's again and again, by a socket that was opened before the time counts. Its packets carry
// the time at which they were sent.
type prober struct {
	conn net.PacketConn
	to   net.Addr

	mu    sync.Mutex // guards the following fields
	since time.Time  // packets that were sent before do not count
	at    time.Time  // when the first answer came that counts
	first chan struct{}
}

// newProber opens the socket. It asks nothing yet.
func newProber(ctx context.Context, ns *netns.NS) (*prober, error) {
	c, err := ns.ListenPacket(ctx, "udp4", ":0")
	if err != nil {
		return nil, err
	}
	return &prober{conn: c, first: make(chan struct{})}, nil
}

// hear notes the first answer.
func (p *prober) hear() {
	buf := make([]byte, 64)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		now := time.Now()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil || n != 8: // an error of an earlier packet
			continue
		}
		sent := time.Unix(0, int64(binary.BigEndian.Uint64(buf)))
		p.mu.Lock()
		ok := !sent.Before(p.since)
		if ok {
			p.at = now
		}
		p.mu.Unlock()
		if ok {
			close(p.first)
			return
		}
	}
}

// ask sends one packet. What the kernel refuses is asked again later.
func (p *prober) ask() {
	_, _ = p.conn.WriteTo(binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())), p.to)
}

// probeAll asks an address from all namespaces until all have an answer to a packet that was sent after since, and returns when
// each had it.
func probeAll(ctx context.Context, probers []*prober, to netip.Addr, since time.Time) ([]time.Time, error) {
	for _, p := range probers {
		p.to = net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, echoPort))
		p.since = since
		go p.hear()
	}
	waiting := append([]*prober{}, probers...)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for len(waiting) > 0 {
		still := waiting[:0]
		for _, p := range waiting {
			select {
			case <-p.first:
			default:
				p.ask()
				still = append(still, p)
			}
		}
		waiting = still
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d do not reach %v: %w", len(waiting), len(probers), to, ctx.Err())
		case <-tick.C:
		}
	}
	times := make([]time.Time, len(probers))
	for i, p := range probers {
		times[i] = p.at
	}
	return times, nil
}

// newProbers opens a prober in each namespace. close closes them.
func newProbers(ctx context.Context, spaces []*netns.NS) ([]*prober, error) {
	var all []*prober
	for _, ns := range spaces {
		p, err := newProber(ctx, ns)
		if err != nil {
			closeProbers(all)
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func closeProbers(all []*prober) {
	for _, p := range all {
		p.conn.Close()
	}
}
