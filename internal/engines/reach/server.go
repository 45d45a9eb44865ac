package reach

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/netns"
)

// Server answers at a TCP and a UDP port. On a TCP connection it then sends back what it gets.
type Server struct {
	name string
	tcp  net.Listener
	udp  net.PacketConn
}

// Listen starts a server in a namespace, at an address like ":80".
func Listen(ctx context.Context, ns *netns.NS, name, address string) (*Server, error) {
	tcp, err := ns.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	udp, err := ns.ListenPacket(ctx, "udp", address)
	if err != nil {
		tcp.Close()
		return nil, err
	}
	s := &Server{name: name, tcp: tcp, udp: udp}
	go s.serveTCP()
	go s.serveUDP()
	return s, nil
}

// Serve is Listen for a test, which ends the server.
func Serve(t testing.TB, ns *netns.NS, name, address string) {
	t.Helper()
	s, err := Listen(t.Context(), ns, name, address)
	if err != nil {
		t.Fatalf("reach: %v", err)
	}
	t.Cleanup(s.Close)
}

// Close ends the server.
func (s *Server) Close() {
	s.tcp.Close()
	s.udp.Close()
}

func (s *Server) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if _, err := fmt.Fprintln(c, s.answer(c.RemoteAddr())); err == nil {
				_, _ = io.Copy(c, c) // for Hold
			}
		}()
	}
}

func (s *Server) serveUDP() {
	buf := make([]byte, 64)
	for {
		_, from, err := s.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		// The client asks again if this is lost.
		_, _ = fmt.Fprintln(packetWriter{s.udp, from}, s.answer(from))
	}
}

type packetWriter struct {
	net.PacketConn
	to net.Addr
}

func (w packetWriter) Write(p []byte) (int, error) { return w.WriteTo(p, w.to) }

// answer is the server's name and the address of who asks.
func (s *Server) answer(from net.Addr) Answer {
	ap, _ := netip.ParseAddrPort(from.String())
	return Answer{Server: s.name, Client: ap.Addr().Unmap()}
}
