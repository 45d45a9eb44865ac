package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"golang.org/x/sys/unix"
)

// A course is a host with two boxes and a neighbour, with the rules of one contender, and the sockets
// at both ends of a way through it.
type course struct {
	street
	way          ppsWay
	wiring       wiring
	box, sibling *netns.NS
	ends         []func() error // of what the wiring has begun

	udp, tcp []int // of the client, connected
	server   int   // UDP
	accepted []int // the server's ends of tcp
}

// A wiring connects the boxes of a course with addresses 10.88.0.2 and 10.88.0.3, and installs the rules:
// the port of extra is published for UDP and TCP, and the boxes have the host's address outside.
type wiring struct {
	name string
	peer bool // somebody uses these rules
	up   func(context.Context, *course) error
}

const siblingPort = 9000 // of servers that are not published

func newCourse(ctx context.Context, way ppsWay, w wiring) (c *course, err error) {
	c = &course{way: way, wiring: w, server: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
			c = nil
		}
	}()
	if c.street, err = newStreet(ctx); err != nil {
		return c, err
	}
	for _, ns := range []**netns.NS{&c.box, &c.sibling} {
		if *ns, err = netns.New(ctx); err != nil {
			return c, err
		}
	}
	// A neighbour who knows the way to the boxes answers them where no firewall hides them.
	err = route.Add(ctx, c.outside, route.Route{Dst: netip.MustParsePrefix("10.88.0.0/16"), Via: netip.MustParseAddr(streetHost)})
	if err != nil {
		return c, err
	}
	if err = w.up(ctx, c); err != nil {
		return c, err
	}
	return c, c.open()
}

// bridge connects the boxes as it is done by hand.
func (c *course) bridge(ctx context.Context) error {
	br, err := link.Create(ctx, c.host, link.Spec{
		Name: bridgeName, Up: true, Kind: link.Bridge{}, MAC: []byte{2, 0, 0, 0, 0, 1},
		Addrs: []netip.Prefix{netip.MustParsePrefix(gateway4 + "/16")},
	})
	for i, ns := range []*netns.NS{c.box, c.sibling} {
		if err == nil {
			_, err = link.Create(ctx, c.host, link.Spec{
				Name: hostLink(i), Up: true, Master: br.Ref(),
				Kind: link.Veth{Peer: link.Spec{NS: ns, Name: "eth0", Up: true, Addrs: []netip.Prefix{boxAddr(i)}}},
			})
		}
		if err == nil {
			err = route.Add(ctx, ns, route.Default(gateway))
		}
	}
	return err
}

// forward has the host forward.
func (c *course) forward(ctx context.Context) error {
	return c.host.SetSysctl(ctx, "net.ipv4.ip_forward", "1")
}

// ends of the way: where the client and the server are, what the client connects to, and what the server
// listens on.
func (c *course) route() (client, server *netns.NS, to *unix.SockaddrInet4, port int) {
	switch c.way {
	case toPublished:
		return c.outside, c.box, sockaddr(netip.MustParseAddr(streetHost), int(extra.Host.Port())), int(extra.Box.Port())
	case toOutside:
		return c.box, c.outside, sockaddr(netip.MustParseAddr(streetOutside), siblingPort), siblingPort
	}
	return c.box, c.sibling, sockaddr(boxAddr(1).Addr(), siblingPort), siblingPort
}

// open opens the sockets, and sends a packet through each.
func (c *course) open() (err error) {
	client, server, to, port := c.route()
	var listener int
	err = within(server, func() (err error) {
		if c.server, err = serving(unix.SOCK_DGRAM, port); err != nil {
			return err
		}
		if listener, err = serving(unix.SOCK_STREAM, port); err != nil {
			return err
		}
		return unix.Listen(listener, ppsFlows)
	})
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	return within(client, func() error {
		b := make([]byte, 128)
		for range ppsFlows {
			u, err := connected(unix.SOCK_DGRAM, to)
			if u >= 0 {
				c.udp = append(c.udp, u)
			}
			if err != nil {
				return err
			}
			t, err := connected(unix.SOCK_STREAM, to)
			if t >= 0 {
				c.tcp = append(c.tcp, t)
			}
			if err != nil {
				return fmt.Errorf("connecting: %w", err)
			}
			a, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			if err != nil {
				return err
			}
			c.accepted = append(c.accepted, a)
			if err := limited(a); err != nil {
				return err
			}
			// The answer confirms the flow.
			if _, err := unix.Write(u, ppsPayload); err != nil {
				return err
			}
			n, from, err := unix.Recvfrom(c.server, b, 0)
			if err != nil {
				return fmt.Errorf("the first packet has not arrived: %w", err)
			}
			if err := c.seen(from); err != nil {
				return err
			}
			if err := unix.Sendto(c.server, b[:n], 0, from); err != nil {
				return err
			}
			if _, err := receive(u, b); err != nil {
				return fmt.Errorf("the first answer has not arrived: %w", err)
			}
		}
		return nil
	})
}

// seen checks from where the server sees the client.
func (c *course) seen(from unix.Sockaddr) error {
	want := netip.MustParseAddr(streetOutside)
	switch {
	case c.way == toOutside && c.wiring.name != nameRouted:
		want = netip.MustParseAddr(streetHost)
	case c.way != toPublished:
		want = boxAddr(0).Addr()
	}
	if a, ok := from.(*unix.SockaddrInet4); !ok || netip.AddrFrom4(a.Addr) != want {
		return fmt.Errorf("the server is asked by %v, want %v", from, want)
	}
	return nil
}

func serving(kind, port int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(limited(fd), unix.Bind(fd, sockaddr(netip.IPv4Unspecified(), port)))
	}
	return fd, err
}

func connected(kind int, to unix.Sockaddr) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = limited(fd)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	return fd, err
}

// limited has a socket wait five seconds at most, and send at once.
func limited(fd int) error {
	for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &unix.Timeval{Sec: 5}); err != nil {
			return err
		}
	}
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

func (c *course) close() (err error) {
	for _, fds := range [][]int{c.udp, c.tcp, c.accepted, {c.server}} {
		for _, fd := range fds {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}
	for _, end := range c.ends {
		err = errors.Join(err, end())
	}
	c.box.Close()
	c.sibling.Close()
	c.street.close()
	return err
}
