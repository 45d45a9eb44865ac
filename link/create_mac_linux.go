package link

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// drawMACs gives each end of the link that is to be made an address, where the
// kernel would draw one.
//
// p is the other end of a pair, or nil.
func (s *Spec) drawMACs(p *Spec) {
	if !hasOwnMAC(s.Kind) {
		return
	}
	if s.MAC == nil {
		s.MAC = randomMAC()
	}
	if p != nil && p.MAC == nil {
		p.MAC = randomMAC()
	}
}

// randomMAC draws a unicast address of those that are free for local use.
func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac) // never fails
	mac[0] = mac[0]&^1 | 2
	return mac
}

// keepMAC gives a TAP device its address again if another program has replaced it.
// The kernel makes the device with an address that it draws, and systemd-udevd,
// which was told of it, replaces one that it has seen drawn, a moment later. It does
// so once. A bond gives its ports its own address.
func (c *creation) keepMAC() error {
	for range 3 {
		want := c.spec.MAC
		if len(want) == 0 || bytes.Equal(want, c.link.MAC) {
			return nil
		}
		if c.link.Master != 0 {
			if l, ok := c.look(&c.end, c.link.Master); !ok || l.Kind != "bridge" {
				return nil
			}
		}
		set := nl.Request{Type: unix.RTM_NEWLINK, Names: linkNames, Body: nl.AppendAttr(appendIfInfo(nil, c.end.index, 0, 0), unix.IFLA_ADDRESS, want)}
		err := execChange(c.ctx, c.end.conn, []nl.Request{set, getLink("", c.end.index)}, func(i int, m nl.Message) error {
			if i == 0 {
				return nil
			}
			err := decodeLink(&c.link, m.Body)
			c.link.ns = c.end.ns
			return err
		})
		if _, e, ok := refused(err); ok && errors.Is(e, os.ErrNotExist) {
			return notExist("the link was made, and deleted by another program at once", e)
		}
		if err != nil {
			return err
		}
	}
	if bytes.Equal(c.spec.MAC, c.link.MAC) {
		return nil
	}
	return fmt.Errorf("another program replaces its address %s, now by %s", c.spec.MAC, c.link.MAC)
}
