package netnstest

import (
	"github.com/boxwire/boxwire/internal/sockdiag"
	"golang.org/x/sys/unix"
)

// socketLines lists the TCP and UDP sockets.
func (d *dumper) socketLines() ([]string, error) {
	var lines []string
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		all, _, err := sockdiag.List(d.ctx, d.ns, sockdiag.Query{Proto: proto})
		if err != nil {
			return lines, err
		}
		for _, s := range all {
			lines = append(lines, s.String())
		}
	}
	return lines, nil
}
