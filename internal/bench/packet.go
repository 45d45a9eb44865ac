package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"time"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

var packetRow = row{
	name: "packet",
	work: "connect from outside through a published port, and send 16 MiB through the connection, with none, 1,000 and 50,000 ports published",
	unit: "connect or transfer",
	n:    40,
	run: func(ctx context.Context, b *bout) error {
		sizes := []int{0, b.size(1000, 50), b.size(50_000, 200)}
		var paths []*path
		defer func() {
			for _, p := range paths {
				p.close()
			}
		}()
		for _, n := range sizes {
			p, err := newPath(ctx, with(nameBoxwire, n))
			if err != nil {
				return err
			}
			paths = append(paths, p)
			if err := p.publish(ctx, n); err != nil {
				return err
			}
		}
		linear := sizes[1:]
		if _, err := tool("nft"); err != nil {
			if err := b.excuse(nameLinear, err); err != nil {
				return err
			}
			linear = nil
		}
		for _, n := range linear {
			p, err := newPath(ctx, with(nameLinear, n))
			if err != nil {
				return err
			}
			paths = append(paths, p)
			if err := p.linear(ctx, n); err != nil {
				return err
			}
		}
		for _, kind := range []func(*path) *contender{(*path).connects, (*path).transfers} {
			var all []*contender
			for _, p := range paths {
				all = append(all, kind(p))
			}
			if err := b.interleave(ctx, b.n, all...); err != nil {
				return err
			}
			for i := range sizes[1:] {
				b.atMost(all[i+1].name, all[0].name, 1.1)
			}
			if most := len(sizes) - 1; all[0].name == "connect, "+paths[0].name {
				b.brief("connect through one of "+thousands(sizes[most])+" published ports", all[most].name, "",
					[2]string{"a rule a port", "connect, " + with(nameLinear, sizes[most])})
			}
		}
		return nil
	},
}

const nameLinear = "a rule a port"

// A path leads from a neighbour through a host into a box.
type path struct {
	street
	name     string
	box      *netns.NS
	gw       *nat.NAT
	listener net.Listener
}

func newPath(ctx context.Context, name string) (p *path, err error) {
	p = &path{name: name}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.street, err = newStreet(ctx); err != nil {
		return p, err
	}
	if p.box, err = p.attach(ctx); err != nil {
		return p, err
	}
	if p.gw, err = nat.Open(ctx, p.host, nat.Options{NoReserve: true}); err != nil {
		return p, err
	}
	err = p.gw.AddNetwork(ctx, nat.Network{
		Interface: bridgeName, Masquerade: true,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
	})
	if err != nil {
		return p, err
	}
	p.listener, err = p.box.Listen(ctx, "tcp4", ":80")
	if err == nil {
		go serve(p.listener)
	}
	return p, err
}

// serve receives a transfer from each client and answers with one byte that it has
// arrived.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if _, err := io.CopyN(io.Discard, c, transfer); err == nil {
				c.Write([]byte{1})
			}
		}()
	}
}

func (p *path) close() {
	if p.listener != nil {
		p.listener.Close()
	}
	p.gw.Close()
	p.box.Close()
	p.street.close()
}

// publish publishes n ports beside the one that is used.
func (p *path) publish(ctx context.Context, n int) error {
	all := make([]nat.Port, n)
	for i := range all {
		all[i] = portOf(i)
	}
	if n > 0 {
		if err := p.gw.Publish(ctx, all...); err != nil {
			return err
		}
	}
	return p.gw.Publish(ctx, extra)
}

// linear does so with one rule a port, as iptables has them, the used one last.
func (p *path) linear(ctx context.Context, n int) error {
	var rules bytes.Buffer
	rules.WriteString("table ip linear {\n chain prerouting {\n  type nat hook prerouting priority dstnat - 1;\n")
	for i := range n {
		port := portOf(i)
		fmt.Fprintf(&rules, "  ip daddr %v tcp dport %d dnat to %v\n", port.Host.Addr(), port.Host.Port(), port.Box)
	}
	fmt.Fprintf(&rules, "  tcp dport %d dnat to %v\n }\n}\n", extra.Host.Port(), extra.Box)
	return within(p.host, func() error {
		cmd := exec.CommandContext(ctx, "nft", "-f", "-")
		cmd.Stdin = &rules
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	})
}

const (
	connects = 50
	transfer = 16 << 20
)

// connects makes a contender whose figure is one connect.
func (p *path) connects() *contender {
	to := &unix.SockaddrInet4{Port: int(extra.Host.Port()), Addr: netip.MustParseAddr(streetHost).As4()}
	return &contender{name: "connect, " + p.name, round: func(context.Context, int) (d time.Duration, err error) {
		werr := within(p.outside, func() error {
			d, err = took(func() error {
				for range connects {
					if err := connectOnce(to); err != nil {
						return fmt.Errorf("connecting: %w", err)
					}
				}
				return nil
			})
			return err
		})
		return d / connects, werr
	}}
}

// connectOnce resets the connection at the end, so that none is left waiting.
func connectOnce(to unix.Sockaddr) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if err := unix.SetsockoptLinger(s, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return err
	}
	for {
		if err := unix.Connect(s, to); err != unix.EINTR { // with a time limit, it is not restarted after a signal, but goes on
			return err
		}
	}
}

// transfers makes a contender whose figure is one transfer.
func (p *path) transfers() *contender {
	chunk := make([]byte, 1<<18)
	return &contender{name: "16 MiB, " + p.name, round: func(ctx context.Context, _ int) (time.Duration, error) {
		c, err := p.outside.Dial(ctx, "tcp4", netip.AddrPortFrom(netip.MustParseAddr(streetHost), extra.Host.Port()).String())
		if err != nil {
			return 0, err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return 0, err
		}
		return took(func() error {
			for range transfer / len(chunk) {
				if _, err := c.Write(chunk); err != nil {
					return err
				}
			}
			_, err := io.ReadFull(c, make([]byte, 1))
			return err
		})
	}}
}
