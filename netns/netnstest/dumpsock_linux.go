package netnstest

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// socketLines lists the TCP and UDP sockets (sock_diag(7)).
func (d *dumper) socketLines() ([]string, error) {
	var all []string
	for _, kind := range []struct {
		name          string
		family, proto byte
	}{
		{"tcp", unix.AF_INET, unix.IPPROTO_TCP}, {"tcp6", unix.AF_INET6, unix.IPPROTO_TCP},
		{"udp", unix.AF_INET, unix.IPPROTO_UDP}, {"udp6", unix.AF_INET6, unix.IPPROTO_UDP},
	} {
		lines, err := d.sockets(kind.name, kind.family, kind.proto)
		if err != nil {
			return all, err
		}
		all = append(all, lines...)
	}
	return all, nil
}

func (d *dumper) sockets(name string, family, proto byte) ([]string, error) {
	// struct inet_diag_req_v2: family, protocol, extensions, padding, states, and
	// a socket's id, which is all zero.
	body := make([]byte, 56)
	body[0], body[1] = family, proto
	binary.NativeEndian.PutUint32(body[4:], 1<<12-1) // every state
	const header = 72                                // struct inet_diag_msg
	req := nl.Request{Type: unix.SOCK_DIAG_BY_FAMILY, Body: body}
	return d.read(unix.NETLINK_SOCK_DIAG, req, header, func(m nl.Message, _ nl.Walker) (string, error) {
		b := m.Body
		// family, state, timer, retransmissions; then the id: ports, addresses, ...
		from := endpoint(family, b[8:24], b[4:6])
		to := endpoint(family, b[24:40], b[6:8])
		return fmt.Sprintf("%s %s from %s to %s", name, socketState(b[1]), from, to), nil
	})
}

func endpoint(family byte, addr, port []byte) netip.AddrPort {
	if family == unix.AF_INET {
		addr = addr[:4]
	}
	return netip.AddrPortFrom(address(addr), binary.BigEndian.Uint16(port))
}

// socketState names a state of TCP (net/tcp_states.h); UDP has two of them.
func socketState(s byte) string {
	names := [...]string{"", "established", "syn-sent", "syn-received", "fin-wait-1", "fin-wait-2", "time-wait",
		"closed", "close-wait", "last-ack", "listening", "closing", "new"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprint(s)
}
