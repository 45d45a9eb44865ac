package link

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"golang.org/x/sys/unix"
)

// WaitReachable waits until packets pass between the link and what it is plugged
// into, both ways, so that not even the first one is lost. Then the link and the
// other end of its pair are up and have a carrier, an end that is a port of a
// bridge forwards, and that bridge has a carrier. The link may be either end. The
// kernel drops packets until a moment after the last end came up; with the spanning
// tree protocol until twice the bridge's forward delay later.
//
// The addresses of [Create] and [Link.AddPrefixes] are usable before that.
// [Link.WaitAddr] waits for others. If another box had one of them a moment ago,
// neighbours have that box's hardware address cached: [Link.Announce] waits in the
// same way and then corrects them.
//
// If ctx ends first, the error says what is missing. A link that is deleted
// meanwhile is os.ErrNotExist. An end in another namespace counts if the caller has
// CAP_NET_ADMIN over that. To wait for it takes CAP_NET_BROADCAST. Without that
// capability, an end there that is a bridge port and does not forward yet is
// os.ErrPermission; any other end is ignored.
func (l Link) WaitReachable(ctx context.Context) error {
	err := l.bound()
	if err == nil {
		err = l.waitReachable(ctx)
	}
	return fail.New("link.WaitReachable", l.ns, l.subject(), err)
}

func (l Link) waitReachable(ctx context.Context) error {
	conn, err := route(l.ns)
	if err != nil {
		return err
	}
	r := reach{conn: conn, index: l.Index, far: true}
	if err := r.look(ctx); err != nil || r.missing == "" {
		return err
	}
	cfg := nl.EventConfig{Groups: []uint32{unix.RTNLGRP_LINK}, AllIDs: r.id != nl.NoID}
	events, err := nsconn.Subscribe(ctx, l.ns, unix.NETLINK_ROUTE, cfg)
	if cfg.AllIDs && errors.Is(err, os.ErrPermission) {
		if r.farPort {
			return fmt.Errorf("%s; to wait for that in another namespace takes CAP_NET_BROADCAST: %w", r.missing, err)
		}
		r.far, cfg.AllIDs = false, false
		events, err = nsconn.Subscribe(ctx, l.ns, unix.NETLINK_ROUTE, cfg)
	}
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		before := r.missing
		err := r.look(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("%s: %w", before, err)
		case err != nil || r.missing == "":
			return err
		}
		err = events.Receive(ctx, func(int, nl.Message) error { return nil })
		if err != nil && !errors.Is(err, nl.ErrOverflow) {
			return fmt.Errorf("%s: %w", r.missing, err)
		}
	}
}

// reach finds out what keeps packets from passing between a link and what it is
// plugged into.
type reach struct {
	conn  *nl.Conn
	index int
	far   bool // the other end in another namespace counts

	missing string // what is not as it should be; "" if nothing
	id      int    // of the other end's namespace; nl.NoID where it is this one
	farPort bool   // the other end has a master
}

func (r *reach) look(ctx context.Context) error {
	r.missing, r.id, r.farPort = "", nl.NoID, false
	near, err := r.end(ctx, nl.NoID, r.index)
	if err != nil || near.PeerIndex == 0 {
		return err
	}
	if r.id = near.LinkNSID; r.id != nl.NoID && !r.far {
		return nil
	}
	far, err := r.end(ctx, r.id, near.PeerIndex)
	if _, _, ok := refused(err); ok {
		return nil // it cannot be looked at, or has gone: then so will this end
	}
	r.farPort = far.Master != 0
	return err
}

// end looks at one end and at its master, in the namespace with the id.
func (r *reach) end(ctx context.Context, id, index int) (Link, error) {
	var port Port
	l, err := r.read(ctx, id, index, &port)
	if err != nil {
		return l, err
	}
	r.want(isReady(l), "link %s is %s", l.Name, l.OperState)
	if l.Master == 0 {
		return l, nil
	}
	if port.State != nil {
		r.want(*port.State == PortForwarding, "link %s is %s as the port of its bridge", l.Name, *port.State)
	}
	m, err := r.read(ctx, id, l.Master, nil)
	if _, _, ok := refused(err); ok {
		return l, nil // it has left its master, which is notified
	}
	r.want(isReady(m), "link %s, the master of %s, is %s", m.Name, l.Name, m.OperState)
	return l, err
}

// isReady reports whether a link passes packets. The kernel notifies first that there
// is a carrier, and makes use of it in the background; a pair and a bridge are UP
// from then on. Other kinds need not say so.
func isReady(l Link) bool {
	switch l.Kind {
	case "veth", "netkit", "bridge":
		return l.Up && l.OperState == OperUp
	}
	return l.Up && l.Running
}

func (r *reach) want(ok bool, format string, args ...any) {
	if !ok && r.missing == "" {
		r.missing = fmt.Sprintf(format, args...)
	}
}

// read reads a link in the namespace with the id, and what it is as the port of
// a bridge.
func (r *reach) read(ctx context.Context, id, index int, port *Port) (l Link, err error) {
	req := targetNamespace(getLink("", index), unix.IFLA_TARGET_NETNSID, id)
	err = r.conn.Call(ctx, req, func(m nl.Message) error {
		if err := decodeLink(&l, m.Body); err != nil || port == nil {
			return err
		}
		_, err := portOf(port, m.Body)
		return err
	})
	return l, err
}
