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
func (c *creation) keepMAC(want net.HardwareAddr) error {
	for range 3 {
		if bytes.Equal(want, c.link.MAC) {
			return nil
		}
		if c.link.Master != 0 {
			if l, ok := c.end.look(c.ctx, c.link.Master); !ok || l.Kind != "bridge" {
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
	if bytes.Equal(want, c.link.MAC) {
		return nil
	}
	return fmt.Errorf("another program replaces its address %s, now by %s", want, c.link.MAC)
}
