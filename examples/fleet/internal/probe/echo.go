//go:build linux

package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// ErrNoAnswer says that nothing came back.
var ErrNoAnswer = errors.New("no answer")

const (
	echoTries = 3
	echoWait  = 300 * time.Millisecond // after each try; a target that answers ends it
)

// Echo sends ICMP or ICMPv6 echo requests from an address of the namespace, and returns nil when the target has answered one. The
// target's kernel answers: no program there has to run. It gives up after three requests in 900 ms, with ErrNoAnswer, or earlier
// when ctx is done. A zero from leaves the source to the kernel.
//
// It takes CAP_NET_RAW in the namespace's user namespace, or a group that net.ipv4.ping_group_range names; else the error is
// os.ErrPermission. A route that refuses the target is the errno, such as EHOSTUNREACH.
func Echo(ctx context.Context, ns *netns.NS, from, to netip.Addr) error {
	answers, err := EchoAll(ctx, ns, []netip.Addr{from}, []netip.Addr{to})
	if err != nil {
		return err
	}
	return answers[to]
}

// EchoAll is [Echo] for many targets at once, with one socket a family. Of the sources, the first of a target's family is used.
// The result has for each target nil, or why it did not answer. The error is that of a socket, or of an address that cannot be
// used, and nothing has been sent then.
func EchoAll(ctx context.Context, ns *netns.NS, from, to []netip.Addr) (map[netip.Addr]error, error) {
	return echoAll(ctx, ns, from, to, newMarker())
}

// echoAll sends requests with a nonce that a watch can look for.
func echoAll(ctx context.Context, ns *netns.NS, from, to []netip.Addr, nonce marker) (map[netip.Addr]error, error) {
	echoes := map[netns.Family]*echo{}
	defer func() {
		for _, e := range echoes {
			e.conn.Close()
		}
	}()
	for _, target := range to {
		if !target.IsValid() || target.Is4In6() || target.IsUnspecified() || target.IsMulticast() {
			return nil, fmt.Errorf("echo to %v: want the address of a host: %w", target, os.ErrInvalid)
		}
		f := familyOf(target)
		e := echoes[f]
		if e == nil {
			var err error
			if e, err = openEcho(ctx, ns, f, from, nonce); err != nil {
				return nil, fmt.Errorf("echo to %v: %w", target, err)
			}
			echoes[f] = e
		}
		e.waiting[target] = ErrNoAnswer
	}
	done := make(chan struct{})
	for _, e := range echoes {
		go func() {
			e.run(ctx)
			done <- struct{}{}
		}()
	}
	for range echoes {
		<-done
	}
	answers := make(map[netip.Addr]error, len(to))
	for _, target := range to {
		err, missing := echoes[familyOf(target)].waiting[target]
		if missing {
			err = fmt.Errorf("echo from %v to %v in %v: %w", echoes[familyOf(target)].from, target, ns, err)
		}
		answers[target] = err
	}
	return answers, ctx.Err()
}

// echo is one socket of EchoAll.
type echo struct {
	conn    net.PacketConn
	family  netns.Family
	raw     bool // the kernel does not choose the identifier and does not filter by it
	from    netip.Addr
	id      uint16
	nonce   []byte // in each request: other programs' replies, and late ones, do not have it
	waiting map[netip.Addr]error
}

// openEcho opens a raw socket, or else a ping socket, and binds it to the source of the family.
func openEcho(ctx context.Context, ns *netns.NS, f netns.Family, sources []netip.Addr, nonce marker) (*echo, error) {
	e, err := openEchoSocket(ctx, ns, f, sources, nonce, unix.SOCK_RAW)
	if errors.Is(err, os.ErrPermission) {
		var perr error
		if e, perr = openEchoSocket(ctx, ns, f, sources, nonce, unix.SOCK_DGRAM); perr != nil {
			return nil, fmt.Errorf("%w; without a raw socket net.ipv4.ping_group_range must name the group: %w", err, perr)
		}
		return e, nil
	}
	return e, err
}

// openEchoSocket opens a raw(7) socket, or a ping socket as icmp(7) describes: SOCK_DGRAM.
func openEchoSocket(ctx context.Context, ns *netns.NS, f netns.Family, sources []netip.Addr, nonce marker, kind int) (*echo, error) {
	e := &echo{family: f, raw: kind == unix.SOCK_RAW, nonce: nonce[:], waiting: map[netip.Addr]error{}}
	e.id = binary.BigEndian.Uint16(e.nonce)
	for _, a := range sources {
		if a.IsValid() && familyOf(a) == f {
			e.from = a
			break
		}
	}
	domain, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if f == netns.IPv6 {
		domain, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	file, err := ns.Socket(ctx, domain, kind, proto)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := e.prepare(file); err != nil {
		return nil, fmt.Errorf("from %v in %v: %w", e.from, ns, err)
	}
	if e.conn, err = net.FilePacketConn(file); err != nil {
		return nil, fmt.Errorf("from %v in %v: %w", e.from, ns, err)
	}
	return e, nil
}

// prepare binds the socket and lets only echo replies through.
func (e *echo) prepare(file *os.File) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = c.Control(func(fd uintptr) {
		if e.from.IsValid() {
			if serr = os.NewSyscallError("bind", unix.Bind(int(fd), sockaddr(e.from))); serr != nil {
				return
			}
		}
		switch {
		case !e.raw:
		case e.family == netns.IPv4:
			const icmpFilter = 1 // ICMP_FILTER of linux/icmp.h: a bit for each type that is kept out
			serr = os.NewSyscallError("setsockopt ICMP_FILTER", unix.SetsockoptInt(int(fd), unix.SOL_RAW, icmpFilter, -2))
		default:
			var filter unix.ICMPv6Filter
			for i := range filter.Data {
				filter.Data[i] = 1<<32 - 1
			}
			filter.Data[echoReply6/32] &^= 1 << (echoReply6 % 32)
			serr = os.NewSyscallError("setsockopt ICMPV6_FILTER", unix.SetsockoptICMPv6Filter(int(fd), unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &filter))
		}
	})
	return errors.Join(err, serr)
}

// run sends and listens until all have answered or the tries are over. waiting is then what did not answer.
func (e *echo) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { e.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for try := range echoTries {
		if ctx.Err() != nil || len(e.waiting) == 0 {
			return
		}
		// The kernel's receive buffer has room for some hundred replies, so reading goes on between the requests.
		sent := 0
		for target := range e.waiting {
			if err := e.send(target, uint16(try)); err != nil {
				e.waiting[target] = err
			} else {
				e.waiting[target] = ErrNoAnswer
			}
			if sent++; sent%64 == 0 {
				e.receive(ctx, time.Millisecond)
			}
		}
		e.receive(ctx, echoWait)
	}
}

func (e *echo) send(to netip.Addr, seq uint16) error {
	var err error
	m := e.request(seq)
	if e.raw {
		_, err = e.conn.WriteTo(m, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()})
	} else {
		_, err = e.conn.WriteTo(m, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 0)))
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// receive reads replies until the time is over or all have answered.
func (e *echo) receive(ctx context.Context, wait time.Duration) {
	e.conn.SetReadDeadline(time.Now().Add(wait))
	if ctx.Err() != nil {
		return // ctx may have ended before the deadline was set, and nothing would end the read early
	}
	buf := make([]byte, 512)
	for len(e.waiting) > 0 {
		n, from, err := e.conn.ReadFrom(buf)
		if err != nil {
			return // the time is over; ICMP errors are not reported to a socket without a peer
		}
		if e.answers(buf[:n]) {
			delete(e.waiting, addrOf(from))
		}
	}
}

const (
	echoRequest4, echoReply4 = 8, 0     // RFC 792
	echoRequest6, echoReply6 = 128, 129 // RFC 4443
)

// request is type, code, checksum, identifier, sequence number and the nonce. The kernel fills in the checksum of ICMPv6.
func (e *echo) request(seq uint16) []byte {
	m := make([]byte, 8, 8+nonceLen)
	m[0] = echoRequest4
	if e.family == netns.IPv6 {
		m[0] = echoRequest6
	}
	binary.BigEndian.PutUint16(m[4:], e.id)
	binary.BigEndian.PutUint16(m[6:], seq)
	m = append(m, e.nonce...)
	if e.family == netns.IPv4 {
		binary.BigEndian.PutUint16(m[2:], ^checksum(m, 0))
	}
	return m
}

// answers reports whether the message is a reply to one of the requests.
func (e *echo) answers(m []byte) bool {
	reply := byte(echoReply4)
	if e.family == netns.IPv6 {
		reply = echoReply6
	}
	return len(m) == 8+nonceLen && m[0] == reply && m[1] == 0 && (!e.raw || binary.BigEndian.Uint16(m[4:]) == e.id) &&
		binary.BigEndian.Uint16(m[6:]) < echoTries && bytes.Equal(m[8:], e.nonce)
}

// checksum adds up 16-bit words in ones' complement (RFC 1071).
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func familyOf(a netip.Addr) netns.Family {
	if a.Is4() {
		return netns.IPv4
	}
	return netns.IPv6
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()} // fleet's addresses have no zone
}

// addrOf is the address of a packet's sender.
func addrOf(a net.Addr) netip.Addr {
	var ip netip.Addr
	switch a := a.(type) {
	case *net.IPAddr:
		ip, _ = netip.AddrFromSlice(a.IP)
	case *net.UDPAddr:
		ip = a.AddrPort().Addr()
	}
	return ip.Unmap()
}
