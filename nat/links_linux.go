package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Per-link IPv4 settings (linux/ip.h: IPV4_DEVCONF_*).
const (
	confForwarding    = 1
	confRouteLocalnet = 26
)

// skipStats makes link replies shorter (linux/rtnetlink.h: RTEXT_FILTER_SKIP_STATS).
const skipStats = 8

// linkConf is a link with its IPv4 settings.
type linkConf struct {
	index      int
	name       string
	master     int // index of the bridge, bond, ... that it is a port of, or 0
	bridge     bool
	port       bool // it receives no IP packets itself: that of a bridge, bond or team, and an ifb
	isolated   bool // a bridge port that does not reach other isolated ones
	has4       bool // it has IPv4 settings
	forwarding bool
	localnet   bool
}

// readLinks reads the namespace's links, without lo.
func readLinks(ctx context.Context, ns *netns.NS) ([]linkConf, error) {
	c, err := ns.Exchange(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	var all []linkConf
	body := nl.AppendU32(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_EXT_MASK, skipStats)
	err = c.Dump(ctx, nl.Request{Type: unix.RTM_GETLINK, Body: body}, func() { all = all[:0] }, func(m nl.Message) error {
		l, flags, err := decodeLink(m.Body)
		if err == nil && flags&unix.IFF_LOOPBACK == 0 {
			all = append(all, l)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the links: %w", err)
	}
	return all, nil
}

func decodeLink(b []byte) (l linkConf, flags uint32, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return l, 0, errors.New("malformed reply: a link without its header")
	}
	l.index = int(int32(binary.NativeEndian.Uint32(b[4:]))) // struct ifinfomsg
	flags = binary.NativeEndian.Uint32(b[8:])
	w := nl.Walk(b[unix.SizeofIfInfomsg:])
	for w.Next() {
		switch w.Type() {
		case unix.IFLA_IFNAME:
			l.name = w.String()
		case unix.IFLA_MASTER:
			l.master = int(w.U32())
		case unix.IFLA_LINKINFO:
			info, kind, port := w.Nested(), "", nl.Walker{}
			for info.Next() {
				switch info.Type() {
				case unix.IFLA_INFO_KIND:
					switch info.String() {
					case "bridge":
						l.bridge = true
					case "ifb": // what passes it comes in by the link that it was redirected from
						l.port = true
					}
				case unix.IFLA_INFO_SLAVE_KIND:
					switch kind = info.String(); kind {
					case "bridge", "bond", "team":
						l.port = true
					}
				case unix.IFLA_INFO_SLAVE_DATA:
					port = info.Nested()
				}
			}
			for kind == "bridge" && port.Next() {
				if port.Type() == unix.IFLA_BRPORT_ISOLATED {
					l.isolated = port.U8() != 0
				}
			}
		case unix.IFLA_AF_SPEC:
			af := w.Nested()
			for af.Next() {
				if af.Type() == unix.AF_INET {
					l.decodeConf(af.Nested())
				}
			}
		}
	}
	return l, flags, w.Err()
}

// decodeConf reads IFLA_INET_CONF: 32 bits a setting, the first is number 1.
func (l *linkConf) decodeConf(w nl.Walker) {
	for w.Next() {
		if w.Type() != unix.IFLA_INET_CONF {
			continue
		}
		on := func(setting int) bool {
			at := 4 * (setting - 1)
			return at+4 <= len(w.Data()) && binary.NativeEndian.Uint32(w.Data()[at:]) != 0
		}
		l.has4, l.forwarding, l.localnet = true, on(confForwarding), on(confRouteLocalnet)
	}
}

// setting is one IPv4 setting of a link to change.
type setting struct {
	link  linkConf
	conf  uint16
	value uint32
}

// setConf4 changes IPv4 settings. Links that are gone are passed over.
func setConf4(ctx context.Context, ns *netns.NS, settings []setting) error {
	if len(settings) == 0 {
		return nil
	}
	c, err := ns.Exchange(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	reqs := make([]nl.Request, len(settings))
	for i, s := range settings {
		reqs[i] = setLinkConf(s)
	}
	for base := 0; base < len(reqs); {
		err := c.Exec(ctx, reqs[base:], nil)
		var some *nl.ExecError
		if !errors.As(err, &some) {
			return err
		}
		for _, f := range some.Failed {
			if !errors.Is(f.Err, os.ErrNotExist) {
				s := settings[base+f.Index]
				return fmt.Errorf("setting IPv4 setting %d of %s to %d: %w", s.conf, s.link.name, s.value, f.Err)
			}
		}
		base += some.Sent
	}
	return nil
}

// setLinkConf is the message for one setting. The same by way of /proc/sys costs
// more the more namespaces there are, and does not work where that is read-only.
func setLinkConf(s setting) nl.Request {
	b := make([]byte, 0, 48)
	b = append(b, unix.AF_UNSPEC, 0, 0, 0)
	// struct ifinfomsg: the index, then flags and their mask, both none.
	b = binary.NativeEndian.AppendUint32(b, uint32(s.link.index))
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b, spec := nl.Begin(b, unix.IFLA_AF_SPEC)
	b, inet := nl.Begin(b, unix.AF_INET)
	b, conf := nl.Begin(b, unix.IFLA_INET_CONF)
	b = nl.AppendU32(b, s.conf, s.value)
	nl.End(b, conf)
	nl.End(b, inet)
	nl.End(b, spec)
	return nl.Request{Type: unix.RTM_NEWLINK, Body: b}
}

// clearLocalnet switches route_localnet of a link off, if the link exists.
func clearLocalnet(ctx context.Context, ns *netns.NS, iface string) error {
	links, err := readLinks(ctx, ns)
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.name == iface {
			return setConf4(ctx, ns, []setting{{l, confRouteLocalnet, 0}})
		}
	}
	return nil
}
