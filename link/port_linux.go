package link

import (
	"context"
	"errors"
	"fmt"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// SetPort changes the settings of the link as a bridge port, in one message, and
// reads them back. If it fails, the settings are what they were. A kernel ignores
// settings that it does not know; that is errors.ErrUnsupported, and the error
// names the kernel that has the setting.
//
// A link that is no port of a bridge is os.ErrInvalid. The kernel refuses a
// BackupPort that is no port of the same bridge (EINVAL).
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

// Port returns the link's settings and state as a port of its bridge. A link that
// is no port of a bridge is os.ErrInvalid.
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
	if ctx, err = changeContext(ctx); err != nil {
		return err
	}
	before, err := readPort(ctx, conn, l.Index)
	if err != nil {
		return err
	}
	err = conn.Call(ctx, setPort(l.Index, o), nil)
	after, rerr := readPort(ctx, conn, l.Index)
	switch {
	case rerr != nil && err == nil:
		err = fmt.Errorf("reading the settings back: %w", rerr)
	case err != nil:
		err = explainPort(err, o)
	default:
		if err = o.missing(&after.PortOptions); err == nil {
			return nil
		}
	}
	undo := o.as(&before.PortOptions)
	if rerr == nil {
		undo = o.undo(&before.PortOptions, &after.PortOptions)
	}
	if undo == (PortOptions{}) {
		return err
	}
	if uerr := conn.Call(ctx, setPort(l.Index, &undo), nil); uerr != nil {
		return errors.Join(err, fmt.Errorf("undoing the other settings: %w", uerr))
	}
	return err
}

// explainPort says what the errnos of the kernel's br_setport mean.
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
	err = conn.Call(ctx, getLink("", index), func(m nl.Message) (err error) {
		isPort, err = portOf(&p, m.Body)
		return err
	})
	if err == nil && !isPort {
		err = errNoPort
	}
	return p, err
}

// portOf reads the bridge's part of a message about a link, and reports whether
// there is one.
func portOf(p *Port, body []byte) (isPort bool, err error) {
	if len(body) < unix.SizeofIfInfomsg {
		return false, errShort
	}
	w := nl.Walk(body[unix.SizeofIfInfomsg:])
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
				if err := decodePort(p, in.Data()); err != nil {
					return false, err
				}
			}
		}
		if err := in.Err(); err != nil {
			return false, err
		}
	}
	return isPort, w.Err()
}

// setPort builds the message of AF_BRIDGE. The bridge alone reads it, so the kernel
// refuses it for a port of another master. The same attributes in
// IFLA_INFO_SLAVE_DATA would reach any master.
func setPort(index int, o *PortOptions) nl.Request {
	b := appendIfInfo(make([]byte, 0, 256), index, 0, 0)
	b[0] = unix.AF_BRIDGE
	b, at := nl.Begin(b, unix.IFLA_PROTINFO)
	b = appendPortOptions(b, o)
	nl.End(b, at)
	return nl.Request{Type: unix.RTM_SETLINK, Body: b, Names: portNames}
}

var errNoPort = refuse.Input("the link is not the port of a bridge")
