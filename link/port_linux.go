package link

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// SetPort changes the settings of the link as a bridge port, all in one message,
// and reads them back. Either all of them hold afterwards or what they were
// before: kernels pass over settings that they do not know without a word, which
// is errors.ErrUnsupported here and names the kernel that brings the setting.
//
// A link that is not the port of a bridge is os.ErrInvalid, a BackupPort that is
// not a port of the same bridge is refused by the kernel (EINVAL).
func (l Link) SetPort(ctx context.Context, o PortOptions) error {
	const op = "link.SetPort"
	err := l.bound()
	if err == nil {
		err = o.check()
	}
	if err == nil && o != (PortOptions{}) {
		err = l.setPort(ctx, &o)
	}
	return fail.New(op, l.ns, l.subject(), err)
}

// Port reads the link as a port of its bridge. A link that is none is
// os.ErrInvalid.
func (l Link) Port(ctx context.Context) (Port, error) {
	var p Port
	err := l.bound()
	if err == nil {
		var conn *nl.Conn
		if conn, err = route(l.ns); err == nil {
			p, err = readPort(ctx, conn, l.Index)
		}
	}
	if err != nil {
		return Port{}, fail.New("link.Port", l.ns, l.subject(), err)
	}
	return p, nil
}

func (l Link) setPort(ctx context.Context, o *PortOptions) error {
	conn, err := route(l.ns)
	if err != nil {
		return err
	}
	return change(ctx, func(ctx context.Context) error {
		before, err := readPort(ctx, conn, l.Index)
		if err != nil {
			return err
		}
		err = conn.Call(ctx, setPort(l.Index, o), nil)
		after, rerr := readPort(ctx, conn, l.Index)
		switch {
		case rerr != nil:
			return errors.Join(err, rerr)
		case err != nil:
			err = explainPort(err, o)
		default:
			if err = o.missing(&after.PortOptions); err == nil {
				return nil
			}
		}
		undo := o.undo(&before.PortOptions, &after.PortOptions)
		if undo == (PortOptions{}) {
			return err
		}
		if uerr := conn.Call(ctx, setPort(l.Index, &undo), nil); uerr != nil {
			return errors.Join(err, fmt.Errorf("undoing the other settings: %w", uerr))
		}
		return err
	})
}

// explainPort says what the errnos of br_setport in the kernel stand for.
func explainPort(err error, o *PortOptions) error {
	var e *nl.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Errno == unix.EBUSY && o.State != nil:
		return &causeError{text: "the bridge runs the spanning tree protocol, which decides the port's state: " + e.Error(), err: e}
	case e.Errno == unix.ENETDOWN && o.State != nil:
		return &causeError{text: fmt.Sprintf("a port without a carrier cannot be %s: %v", *o.State, e), err: e}
	}
	return err
}

// readPort asks for the link and takes the bridge's part of the answer.
func readPort(ctx context.Context, conn *nl.Conn, index int) (p Port, err error) {
	isPort := false
	err = conn.Call(ctx, getLink("", index), func(m nl.Message) error {
		if len(m.Body) < unix.SizeofIfInfomsg {
			return errShort
		}
		w := nl.Walk(m.Body[unix.SizeofIfInfomsg:])
		for w.Next() {
			if w.Type() != unix.IFLA_LINKINFO {
				continue
			}
			in := w.Nested()
			for in.Next() {
				switch in.Type() {
				case unix.IFLA_INFO_SLAVE_KIND: // before the data, always
					isPort = in.String() == "bridge"
				case unix.IFLA_INFO_SLAVE_DATA:
					if !isPort {
						continue
					}
					if err := decodePort(&p, in.Data()); err != nil {
						return err
					}
				}
			}
			if err := in.Err(); err != nil {
				return err
			}
		}
		return w.Err()
	})
	if err == nil && !isPort {
		err = errNoPort
	}
	return p, err
}

// setPort builds the message of AF_BRIDGE, which goes to the bridge's own code
// and is refused for the ports of anything else. The same attributes in
// IFLA_INFO_SLAVE_DATA would be taken by whatever master the link has.
func setPort(index int, o *PortOptions) nl.Request {
	b := appendIfInfo(make([]byte, 0, 256), index, 0, 0)
	b[0] = unix.AF_BRIDGE
	b, at := nl.Begin(b, unix.IFLA_PROTINFO)
	b = appendPortOptions(b, o)
	nl.End(b, at)
	return nl.Request{Type: unix.RTM_SETLINK, Body: b, Names: portNames}
}

// missing names the settings of o that after, which was read back, lacks.
func (o *PortOptions) missing(after *PortOptions) error {
	var names []string
	for p := range o.asked() {
		want, _ := p.get(o)
		got, shown := p.get(after)
		switch {
		case shown && got == want, !shown && want == 0 && p.hidden:
		case !shown && p.since != "":
			names = append(names, fmt.Sprintf("%s (Linux >= %s)", p.name, p.since))
		default:
			names = append(names, p.name)
		}
	}
	if names == nil {
		return nil
	}
	return &causeError{text: "the kernel did not take " + strings.Join(names, ", "), is: errors.ErrUnsupported, err: errors.ErrUnsupported}
}

// undo returns what brings those settings of o back that are not as before.
func (o *PortOptions) undo(before, after *PortOptions) PortOptions {
	var undo PortOptions
	var s portStore
	for p := range o.asked() {
		old, shown := p.get(before)
		if now, _ := p.get(after); now != old && (shown || p.hidden) {
			p.set(&undo, &s, old)
		}
	}
	return undo
}

// decodePort reads the contents of IFLA_INFO_SLAVE_DATA of a bridge port, or of
// IFLA_PROTINFO.
func decodePort(p *Port, b []byte) error {
	var s *portStore
	*p = Port{}
	w := nl.Walk(b)
	for w.Next() {
		t := int(w.Type())
		if t < len(portOptions) && portOptions[t].attr != 0 {
			if s == nil {
				s = new(portStore) // all pointers of a port lead into one allocation
			}
			o := &portOptions[t]
			o.set(&p.PortOptions, s, o.value(&w))
			continue
		}
		switch t {
		case unix.IFLA_BRPORT_NO:
			p.Number = int(w.U16())
		case unix.IFLA_BRPORT_ID:
			p.ID = w.U16()
		case unix.IFLA_BRPORT_ROOT_ID:
			copy(p.DesignatedRoot[:], w.Data())
		case unix.IFLA_BRPORT_BRIDGE_ID:
			copy(p.DesignatedBridge[:], w.Data())
		case unix.IFLA_BRPORT_DESIGNATED_PORT:
			p.DesignatedPort = w.U16()
		case unix.IFLA_BRPORT_DESIGNATED_COST:
			p.DesignatedCost = int(w.U16())
		case unix.IFLA_BRPORT_TOPOLOGY_CHANGE_ACK:
			p.TopologyChange = w.U8() != 0
		case unix.IFLA_BRPORT_CONFIG_PENDING:
			p.ConfigPending = w.U8() != 0
		case unix.IFLA_BRPORT_MESSAGE_AGE_TIMER:
			p.MessageAgeTimer = clockTicks(w.U64())
		case unix.IFLA_BRPORT_FORWARD_DELAY_TIMER:
			p.ForwardDelayTimer = clockTicks(w.U64())
		case unix.IFLA_BRPORT_HOLD_TIMER:
			p.HoldTimer = clockTicks(w.U64())
		case unix.IFLA_BRPORT_MRP_RING_OPEN:
			p.MRPRingOpen = w.U8() != 0
		case unix.IFLA_BRPORT_MRP_IN_OPEN:
			p.MRPInterconnectOpen = w.U8() != 0
		case unix.IFLA_BRPORT_MCAST_EHT_HOSTS_CNT:
			p.EHTHosts = int(w.U32())
		case unix.IFLA_BRPORT_MCAST_N_GROUPS:
			p.Groups = int(w.U32())
		}
	}
	return w.Err()
}

// clockTicks converts from the kernel's user-visible clock, USER_HZ, which is 100
// on every architecture that Go runs on.
func clockTicks(n uint64) time.Duration { return time.Duration(n) * (time.Second / 100) }
