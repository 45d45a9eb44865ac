package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"golang.org/x/sys/unix"
)

// maxPicks bounds how many ports that the kernel thinks free are tried.
const maxPicks = 64

// PublishFree is [NAT.Publish] for ports with host port 0, for which it chooses
// free ones of the namespace's range for that (net.ipv4.ip_local_port_range): free
// of sockets and of what is published. It returns the ports as they are published
// then. Ports with a number are published as they are; a range has to have one.
func (n *NAT) PublishFree(ctx context.Context, ports ...Port) ([]Port, error) {
	const op = "nat.PublishFree"
	if p, err := checkFree(ports); err != nil {
		return nil, n.fail(op, p.String(), err)
	}
	if len(ports) == 0 {
		return nil, nil
	}
	culprit := portsSubject(ports)
	var chosen []Port
	err := n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error {
		p, err := n.publishFree(ctx, c, ports, &chosen)
		if p != (Port{}) {
			culprit = p.String()
		}
		return n.explain(ctx, c, err)
	})
	if err != nil {
		return nil, n.fail(op, culprit, err)
	}
	return chosen, nil
}

// publishFree tries choices until none of them is in the way of what is published.
func (n *NAT) publishFree(ctx context.Context, c nft.Conn, ports []Port, chosen *[]Port) (Port, error) {
	// Sockets that hold what was chosen in vain, so that it is not chosen again.
	var vain []socket
	defer func() {
		for _, f := range vain {
			f.Close()
		}
	}()
	for range maxPicks {
		all, picks, p, err := n.pick(ctx, ports)
		if err != nil {
			return p, err
		}
		*chosen = all
		for s, f := range picks {
			n.sockets[s] = f
		}
		_, _, overlaps := overlap(all)
		if !overlaps {
			p, err = n.publish(ctx, c, all)
		}
		if !overlaps && err == nil {
			if n.unreserved {
				n.retain(nil)
			}
			return p, nil
		}
		for s, f := range picks {
			delete(n.sockets, s)
			vain = append(vain, f)
		}
		var held errTaken
		_, picked := picks[spot{p.Proto, p.Host}]
		if err != nil && !(picked && errors.As(err, &held)) {
			return p, err // not for what was chosen
		}
	}
	return ports[0], fmt.Errorf("no free port in %d tries: %w", maxPicks, unix.EADDRINUSE)
}

// pick lets the kernel choose: a socket for each port without a number.
func (n *NAT) pick(ctx context.Context, ports []Port) (all []Port, picks map[spot]socket, culprit Port, err error) {
	picks = make(map[spot]socket)
	all = slices.Clone(ports)
	var spots []spot
	var of []int
	for i, p := range ports {
		if p.Host.Port() == 0 {
			spots, of = append(spots, spot{p.Proto, p.Host}), append(of, i)
		}
	}
	err = n.bind(ctx, spots, func(i int, f socket, err error) error {
		p := &all[of[i]]
		var number uint16
		if err == nil {
			number, err = f.number(p.Proto)
		}
		if err != nil {
			culprit = *p
			return err
		}
		p.Host = netip.AddrPortFrom(p.Host.Addr(), number)
		picks[spot{p.Proto, p.Host}] = f
		return nil
	})
	if err != nil {
		for _, f := range picks {
			f.Close()
		}
	}
	return all, picks, culprit, err
}

// number is the port that a socket of the protocol is bound to.
func (s socket) number(proto Proto) (uint16, error) {
	if s == noSocket {
		return 0, fmt.Errorf("choosing a port: the kernel has no %v for this family: %w", proto, errors.ErrUnsupported)
	}
	to, err := unix.Getsockname(int(s))
	switch to := to.(type) {
	case *unix.SockaddrInet4:
		return uint16(to.Port), nil
	case *unix.SockaddrInet6:
		return uint16(to.Port), nil
	}
	s.Close()
	return 0, fmt.Errorf("reading the chosen port: %w", os.NewSyscallError("getsockname", err))
}
