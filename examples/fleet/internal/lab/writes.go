//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// A Change is one notification of the kernel that it has changed a link, an address, a route, a rule or a next hop.
type Change struct {
	Op   string // "new" or "delete"
	What string // "route 10.100.2.0/24 protocol 201", "link fl0", "address 10.100.1.1/32"

	// Port is the netlink port of the socket that asked for the change. It is 0 where the kernel acted by itself (a carrier
	// that went, say), and for some changes of links on kernels that do not tell.
	Port uint32
}

func (c Change) String() string { return fmt.Sprintf("%s %s (port %d)", c.Op, c.What, c.Port) }

// Writes records the changes of links, addresses, routes, rules and next hops of a namespace. It reads raw netlink, and none
// of what the library makes of it: two notifications are two changes, even if they say the same.
type Writes struct {
	ns   *netns.NS
	conn *netlink.Conn
	done chan struct{}

	mu      sync.Mutex // guards the following fields
	changes []Change
	marks   map[uint32]chan struct{} // closed when the mark is seen
	err     error                    // why the reader has ended
}

// groups are the multicast groups whose notifications count (linux/rtnetlink.h).
var groups = []uint32{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_NEXTHOP,
}

// CountWrites begins to record. Every change that begins after it returns is recorded. The caller has to call [Writes.Stop].
func CountWrites(ctx context.Context, ns *netns.NS) (*Writes, error) {
	conn, err := ns.DialNetlink(ctx, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	w := &Writes{ns: ns, conn: conn, done: make(chan struct{}), marks: make(map[uint32]chan struct{})}
	err = conn.SetReadBuffer(8 << 20) // what comes while the reader does not run
	for _, g := range groups {
		if err == nil {
			err = conn.JoinGroup(g)
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("lab.CountWrites: %w", err)
	}
	go w.read()
	return w, nil
}

// read records until the socket is closed.
func (w *Writes) read() {
	defer close(w.done)
	for {
		messages, err := w.conn.Receive()
		w.mu.Lock()
		for _, m := range messages {
			if id, ok := markID(m); ok {
				if seen := w.marks[id]; seen != nil && m.Header.Type == unix.RTM_DELNEXTHOP {
					close(seen)
					delete(w.marks, id)
				}
				continue
			}
			w.changes = append(w.changes, change(m))
		}
		if err != nil {
			w.err = err
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
	}
}

// Changes returns all changes that were complete when it was called. It makes a change itself, a next-hop object that no route
// uses, and waits until it sees that: the kernel reports changes in their order. That one is not among the changes.
func (w *Writes) Changes(ctx context.Context) ([]Change, error) {
	id := firstMark + nextMark.Add(1)%marks
	seen := make(chan struct{})
	w.mu.Lock()
	w.marks[id] = seen
	w.mu.Unlock()
	err := route.AddNextHops(ctx, w.ns, route.NextHop{ID: id, Family: netns.IPv4, Blackhole: true, Protocol: labProtocol})
	if err == nil {
		err = route.DeleteNextHops(ctx, w.ns, id)
	}
	if err != nil {
		return nil, fmt.Errorf("lab.Writes: %w", err)
	}
	select {
	case <-seen:
	case <-ctx.Done():
		return nil, fmt.Errorf("lab.Writes: the mark was not seen: %w", ctx.Err())
	case <-w.done:
		w.mu.Lock()
		defer w.mu.Unlock()
		return nil, fmt.Errorf("lab.Writes: changes may be lost: %w", w.err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Change(nil), w.changes...), nil
}

// Stop returns what Changes does, and ends the recording. Stopping again returns an error.
func (w *Writes) Stop(ctx context.Context) ([]Change, error) {
	changes, err := w.Changes(ctx)
	cerr := w.conn.Close()
	<-w.done
	return changes, errors.Join(err, cerr)
}

// Marks are next-hop objects with ids of this range.
const (
	firstMark = 0x4c414200
	marks     = 0x10000
)

var nextMark atomic.Uint32

// markID is the id of a next hop that is a mark.
func markID(m netlink.Message) (uint32, bool) {
	if m.Header.Type != unix.RTM_NEWNEXTHOP && m.Header.Type != unix.RTM_DELNEXTHOP {
		return 0, false
	}
	const sizeofNhmsg, nhaID = 8, 1 // linux/nexthop.h
	id, err := attribute(m.Data, sizeofNhmsg, nhaID)
	if err != nil || len(id) != 4 {
		return 0, false
	}
	n := binary.NativeEndian.Uint32(id)
	return n, n >= firstMark && n < firstMark+marks
}

// change says what a message is about.
func change(m netlink.Message) Change {
	c := Change{Op: "new", Port: m.Header.PID}
	switch m.Header.Type {
	case unix.RTM_DELLINK, unix.RTM_DELADDR, unix.RTM_DELROUTE, unix.RTM_DELRULE, unix.RTM_DELNEXTHOP:
		c.Op = "delete"
	}
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		name, _ := attribute(m.Data, unix.SizeofIfInfomsg, unix.IFLA_IFNAME)
		c.What = fmt.Sprintf("link %s", unix.ByteSliceToString(name))
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		addr, _ := attribute(m.Data, unix.SizeofIfAddrmsg, unix.IFA_ADDRESS)
		c.What = "address " + prefix(addr, m.Data)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		dst, _ := attribute(m.Data, unix.SizeofRtMsg, unix.RTA_DST)
		c.What = "route " + prefix(dst, m.Data)
		if len(m.Data) >= unix.SizeofRtMsg {
			c.What += fmt.Sprintf(" protocol %d", m.Data[5]) // rtm_protocol
		}
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		c.What = "rule"
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		c.What = "next hop"
	default:
		c.What = fmt.Sprintf("message of type %d", m.Header.Type)
	}
	return c
}

// prefix is an address with the length that ifaddrmsg and rtmsg have in their second byte.
func prefix(addr, message []byte) string {
	a, ok := netip.AddrFromSlice(addr)
	if len(message) < 2 || !ok {
		return "default"
	}
	return netip.PrefixFrom(a, int(message[1])).String()
}

// attribute is the value of the first attribute of a type behind a header of some size.
func attribute(message []byte, header int, typ uint16) ([]byte, error) {
	if len(message) < header {
		return nil, errors.New("the message is too short")
	}
	d, err := netlink.NewAttributeDecoder(message[header:])
	if err != nil {
		return nil, err
	}
	for d.Next() {
		if d.Type() == typ {
			return d.Bytes(), nil
		}
	}
	return nil, d.Err()
}
