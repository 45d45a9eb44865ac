//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// servicePort is where each box and the outside answer, over TCP and UDP.
const servicePort = 7

// server answers whoever asks with its name and the address that it sees: "host1-box1 10.100.7.2".
type server struct {
	name string
	tcp  net.Listener
	udp  net.PacketConn
}

// serve starts a server in a namespace.
func (fl *fleet) serve(ctx context.Context, ns *netns.NS, name string) error {
	at := fmt.Sprintf(":%d", servicePort)
	tcp, err := ns.Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	udp, err := ns.ListenPacket(ctx, "udp", at)
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	s := &server{name, tcp, udp}
	fl.servers = append(fl.servers, s)
	go s.answerStreams()
	go s.answerPackets()
	return nil
}

func (s *server) close() {
	s.tcp.Close()
	s.udp.Close()
}

func (s *server) says(client net.Addr) string {
	return s.name + " " + netip.MustParseAddrPort(client.String()).Addr().Unmap().String()
}

func (s *server) answerStreams() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, s.says(c.RemoteAddr())) // it fits the empty send buffer
		c.Close()
	}
}

func (s *server) answerPackets() {
	buf := make([]byte, 64)
	for {
		_, client, err := s.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = s.udp.WriteTo([]byte(s.says(client)), client) // the client asks again
	}
}

// ask asks a server from inside a namespace, and returns what it says. network is tcp or udp. The dial is the whole difference
// to an ordinary program.
func ask(ctx context.Context, from *netns.NS, network string, to netip.AddrPort) (string, error) {
	c, err := from.Dial(ctx, network, to.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if network == "tcp" {
		says, err := io.ReadAll(io.LimitReader(c, 256))
		return string(says), err
	}
	buf := make([]byte, 256)
	for {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := c.Read(buf)
		if err == nil || !isTimeout(err) {
			return string(buf[:n]), err
		}
	}
}

// expect asks and returns an error unless that server answers and has seen that client.
func expect(ctx context.Context, from *netns.NS, network string, to netip.AddrPort, server string, client netip.Addr) error {
	got, err := ask(ctx, from, network, to)
	if err != nil {
		return fmt.Errorf("%s to %s %v: %w", from.Name(), network, to, err)
	}
	if want := server + " " + client.String(); got != want {
		return fmt.Errorf("%s to %s %v: got %q, want %q", from.Name(), network, to, got, want)
	}
	return nil
}

// expectRefusal returns an error unless the kernel says that the address is unreachable.
func expectRefusal(ctx context.Context, from *netns.NS, to netip.AddrPort) error {
	c, err := from.Dial(ctx, "tcp", to.String())
	if err == nil {
		c.Close()
		return fmt.Errorf("%v answers %s", to, from.Name())
	}
	if !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
		return fmt.Errorf("%s is not told that %v is unreachable: %w", from.Name(), to, err)
	}
	return nil
}

// silence is how long a dial waits that must get no answer. An answer in these namespaces takes well under a millisecond.
const silence = 150 * time.Millisecond

// expectDrop returns an error unless a box of a machine stays silent towards the outside, and it is the machine's rule that counts
// what is dropped. On a busy machine a try may be over before its packet is sent: then it is made again.
func (fl *fleet) expectDrop(ctx context.Context, m *machine, to netip.AddrPort) error {
	before, err := m.dropped(ctx)
	for err == nil {
		quick, cancel := context.WithTimeout(ctx, silence)
		says, aerr := ask(quick, fl.lab.Router, "tcp", to)
		cancel()
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("nothing for %v has come to %s: %w", to, m.host.Name, ctx.Err())
		case aerr == nil:
			return fmt.Errorf("%v answers the outside: %q", to, says)
		case !isTimeout(aerr):
			return fmt.Errorf("the outside to %v: %w, want silence", to, aerr)
		}
		var after uint64
		if after, err = m.dropped(ctx); after > before {
			return nil
		}
	}
	return err
}

// dropped is how many packets for boxes the machine has dropped because their port is not published.
func (m *machine) dropped(ctx context.Context) (uint64, error) {
	networks, err := m.gw.ListNetworks(ctx)
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, network := range networks {
		n += network.Drops.In
	}
	return n, nil
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
