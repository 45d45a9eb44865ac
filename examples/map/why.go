package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/plain"
	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/internal/topology/firewall"
)

// why says in the words of nat.Explain why a port does not answer. Ports of other firewalls have the
// words of the snapshot.
func why(ctx context.Context, s *topology.Snapshot, host uint64, p topology.Port) (string, error) {
	causes, err := firewall.Why(ctx, s, host, p)
	if errors.Is(err, firewall.ErrForeign) && p.Fault != "" {
		return p.Fault, nil
	}
	if len(causes) == 0 {
		return "", err
	}
	return causes.String(), err
}

// A wanted is a port that the command line asks about: 8080, 53/udp, 203.0.113.1:8080/tcp.
type wanted struct {
	addr  netip.Addr // the zero Addr is every one
	port  uint16
	proto string // "" is every one
}

func parseWanted(text string) (w wanted, err error) {
	bad := fmt.Errorf("-why %s: a port is 8080, 53/udp or 203.0.113.1:8080/tcp: %w", strconv.Quote(text), os.ErrInvalid)
	rest, proto, found := strings.Cut(text, "/")
	if found && proto != "tcp" && proto != "udp" {
		return w, bad
	}
	w.proto = proto
	if n, err := strconv.ParseUint(rest, 10, 16); err == nil && n > 0 {
		w.port = uint16(n)
		return w, nil
	}
	at, err := netip.ParseAddrPort(rest)
	if err != nil || at.Port() == 0 {
		return w, bad
	}
	w.addr, w.port = at.Addr(), at.Port()
	return w, nil
}

// is reports whether a port of the map is the wanted one.
func (w wanted) is(p *topology.Port) bool {
	last := max(p.Last, p.Host.Port())
	a := p.Host.Addr()
	return p.Host.Port() <= w.port && w.port <= last && (w.proto == "" || w.proto == p.Proto) &&
		(!w.addr.IsValid() || a == w.addr || a.IsUnspecified() && a.Is4() == w.addr.Is4())
}

// listens reports whether a program of a namespace waits at the wanted port.
func (w wanted) listens(n *topology.Namespace) bool {
	for _, l := range n.Listeners {
		if l.Addr.Port() == w.port && (w.proto == "" || w.proto == l.Proto) {
			return true
		}
	}
	return false
}

// writeWhy writes the way of a published port, and what is wrong with it. It reports whether the port
// is published at all.
func writeWhy(ctx context.Context, w io.Writer, s *topology.Snapshot, text string, ask explainer) (found bool, err error) {
	want, err := parseWanted(text)
	if err != nil {
		return false, err
	}
	var b strings.Builder
	for _, n := range s.Namespaces {
		for i := range n.Ports {
			p := &n.Ports[i]
			if !want.is(p) {
				continue
			}
			found = true
			if err := s.WriteWay(&b, n, p); err != nil {
				return found, err
			}
			asked := *p
			asked.Host, asked.Last = netip.AddrPortFrom(p.Host.Addr(), want.port), 0
			words, err := ask(ctx, s, n.Inode, asked)
			switch {
			case errors.Is(err, firewall.ErrForeign):
				b.WriteString("  the rules of other firewalls are not examined further\n")
			case errors.Is(err, os.ErrNotExist):
				b.WriteString("  it has just gone\n")
			case err != nil:
				b.WriteString("  it cannot be explained: " + plain.Text(err.Error()) + "\n")
			case words == "":
				b.WriteString("  no cause is found on this machine that it should not answer\n")
			default:
				for line := range strings.Lines(words) {
					b.WriteString("  cause: " + plain.Text(strings.TrimSpace(line)) + "\n")
				}
			}
		}
	}
	if !found {
		fmt.Fprintf(&b, "no namespace publishes port %s\n", text)
		for _, n := range s.Namespaces {
			if want.listens(n) {
				fmt.Fprintf(&b, "  but a program listens on it in %s\n", plain.Text(n.Title()))
			}
		}
	}
	_, err = io.WriteString(w, b.String())
	return found, err
}
