//go:build linux

package lab

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// Reach waits until a namespace reaches an address of another one, over TCP and over UDP: what it sends comes back. It opens
// ports there for that time. If ctx ends first, the error has the last reason for each protocol.
func Reach(ctx context.Context, from, to *netns.NS, addr netip.Addr) error {
	listen := netip.AddrPortFrom(addr, 0).String()
	var udp net.PacketConn
	var tcp net.Listener
	// The address may come yet.
	err := poll(ctx, func() (err error) {
		udp, err = to.ListenPacket(ctx, "udp", listen)
		return err
	})
	if err != nil {
		return fmt.Errorf("lab.Reach: %w", err)
	}
	defer udp.Close()
	if tcp, err = to.Listen(ctx, "tcp", listen); err != nil {
		return fmt.Errorf("lab.Reach: %w", err)
	}
	defer tcp.Close()
	go echoPackets(udp)
	go echoStreams(tcp)
	for _, target := range []net.Addr{udp.LocalAddr(), tcp.Addr()} {
		err := poll(ctx, func() error {
			try, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			return exchange(try, from, target)
		})
		if err != nil {
			return fmt.Errorf("lab.Reach: %v does not reach %s %v: %w", from, target.Network(), target, err)
		}
	}
	return nil
}

// exchange sends a word and reads it back.
func exchange(ctx context.Context, from *netns.NS, to net.Addr) error {
	c, err := from.Dial(ctx, to.Network(), to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	word := rand.Text()
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	back := make([]byte, len(word))
	if _, err := io.ReadFull(c, back); err != nil {
		return err
	}
	if string(back) != word {
		return fmt.Errorf("%q came back as %q", word, back)
	}
	return nil
}

func echoPackets(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, peer, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], peer) // the peer asks again
	}
}

func echoStreams(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.Copy(c, c)
		}()
	}
}

// WaitUnreachable waits until the kernel refuses packets from a namespace to an address, and returns its reason: EHOSTUNREACH,
// ENETUNREACH or EACCES, from a route of the namespace itself or an ICMP message of a router. A packet that is not answered, or
// that a closed port answers, is neither. A router answers a namespace that sends to unreachable addresses all the time (by a
// [Stream], say) seldom or never. In one case of five, Linux 6.18 kept silent towards a quiet namespace too, for ten seconds
// after its first answer; with net.ipv4.icmp_ratelimit=0 on the host that answers, it does not.
func WaitUnreachable(ctx context.Context, from *netns.NS, addr netip.Addr) (syscall.Errno, error) {
	var why syscall.Errno
	err := poll(ctx, func() (err error) {
		// A neighbour that does not answer is EHOSTUNREACH, too, once in three seconds. It is not twice in a row here.
		for range 2 {
			if why, err = refusal(ctx, from, addr); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("lab.WaitUnreachable: %v to %v: %w", from, addr, err)
	}
	return why, nil
}

// refusal is how the kernel refuses packets, or an error if it does not within a while.
//
// A Linux router that has no route answers a host once in two seconds after the first few times: ip_error() and the limit of
// ICMP (net.ipv4.icmp_ratelimit) each take a second's worth of one budget, which grows while the host is silent. A host that
// goes on sending more often than that gets no answer at all, so this sends again after more than two seconds. Both packets
// together take less time than a neighbour that does not answer.
func refusal(ctx context.Context, from *netns.NS, addr netip.Addr) (syscall.Errno, error) {
	const discard = 9 // nobody listens there
	c, err := from.DialWith(ctx, hearICMP(addr), "udp", netip.AddrPortFrom(addr, discard).String())
	if err != nil {
		return judge(err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for _, wait := range []time.Duration{2200 * time.Millisecond, 400 * time.Millisecond} {
		if _, err := c.Write([]byte("unreachable?")); err != nil {
			return judge(err)
		}
		c.SetReadDeadline(time.Now().Add(wait))
		if _, err := c.Read(make([]byte, 64)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return judge(err)
		}
	}
	return 0, errors.New("packets are neither refused nor answered")
}

// judge takes the reason out of an error that is a refusal.
func judge(err error) (syscall.Errno, error) {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES:
			return errno, nil
		}
	}
	return 0, fmt.Errorf("packets are not refused: %w", cmp.Or(err, errors.New("an answer came")))
}

// poll tries again until there is no error, a few milliseconds apart. If ctx ends first, the error is of ctx and has the
// last try's.
func poll(ctx context.Context, try func() error) error {
	pause := 2 * time.Millisecond
	var last error
	for {
		err := try()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil { // rather not the error that the end of ctx has made
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-time.After(pause):
		}
		pause = min(2*pause, 50*time.Millisecond)
	}
}
