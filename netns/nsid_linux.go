package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// rtgenmsg is the header of the messages about namespace ids
// (linux/net_namespace.h), with its padding.
const rtgenmsg = 4

const noNSID = unix.NETNSA_NSID_NOT_ASSIGNED

// NSID returns the id by which this namespace knows another one: the number that
// its link messages name the namespace of a veth's other end with (`ip netns
// list-id`). Ids are each namespace's own. One that has none here is
// os.ErrNotExist.
func (ns *NS) NSID(ctx context.Context, other *NS) (int, error) {
	id, err := ns.nsid(ctx, other)
	if err == nil && id == noNSID {
		err = fmt.Errorf("it has no id here: %w", fs.ErrNotExist)
	}
	if err != nil {
		return 0, &Error{Op: "netns.NSID", NS: ns.String(), Subject: "of " + other.String(), Err: err}
	}
	return id, nil
}

// AssignNSID gives another namespace an id in this one. It keeps it as long as
// both exist. An id below 0 is os.ErrInvalid; an id that is taken, and a
// namespace that has one, are os.ErrExist.
func (ns *NS) AssignNSID(ctx context.Context, other *NS, id int) error {
	var err error
	if id < 0 || id > math.MaxInt32 {
		err = refuse.Input("the id %d is not between 0 and %d", id, math.MaxInt32)
	} else {
		err = ns.newNSID(ctx, other, id)
	}
	if err != nil {
		return &Error{Op: "netns.AssignNSID", NS: ns.String(), Subject: fmt.Sprintf("id %d for %v", id, other), Err: err}
	}
	return nil
}

// EnsureNSID returns the id of another namespace in this one, and lets the kernel
// choose one if it has none.
func (ns *NS) EnsureNSID(ctx context.Context, other *NS) (int, error) {
	id, err := ns.nsid(ctx, other)
	if err == nil && id == noNSID {
		err = ns.newNSID(ctx, other, noNSID)
		if err == nil || errors.Is(err, fs.ErrExist) { // or somebody else has been quicker
			id, err = ns.nsid(ctx, other)
		}
	}
	if err != nil {
		return 0, &Error{Op: "netns.EnsureNSID", NS: ns.String(), Subject: "for " + other.String(), Err: err}
	}
	return id, nil
}

// NSIDs lists the ids that this namespace knows others by, ascending.
func (ns *NS) NSIDs(ctx context.Context) ([]int, error) {
	ids, err := ns.nsids(ctx)
	if err != nil {
		return nil, &Error{Op: "netns.NSIDs", NS: ns.String(), Err: err}
	}
	return ids, nil
}

// OpenNSID returns a handle on the namespace that has an id in this one. The
// kernel does not hand it out, so that it is looked for among those that [All]
// finds. An id that is not assigned, and a namespace that cannot be found, are
// os.ErrNotExist.
func (ns *NS) OpenNSID(ctx context.Context, id int) (*NS, error) {
	other, err := ns.openNSID(ctx, id)
	if err != nil {
		return nil, &Error{Op: "netns.OpenNSID", NS: ns.String(), Subject: fmt.Sprintf("id %d", id), Err: err}
	}
	return other, nil
}

func (ns *NS) openNSID(ctx context.Context, id int) (*NS, error) {
	ids, err := ns.nsids(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(ids, id) {
		return nil, fmt.Errorf("no namespace has the id: %w", fs.ErrNotExist)
	}
	all, scanErr := All(ctx)
	for _, info := range all {
		for _, h := range info.Holders {
			other, err := openFile(h.file())
			if err != nil {
				continue // gone since; or another holder will do
			}
			if got, err := ns.nsid(ctx, other); err == nil && got == id {
				other.path = ""
				return other, nil
			}
			other.Close()
			break
		}
	}
	if scanErr != nil {
		return nil, scanErr
	}
	return nil, fmt.Errorf("no process, mount or descriptor leads to the namespace with this id: %w", fs.ErrNotExist)
}

// file returns a path that the namespace can be opened at.
func (h Holder) file() string {
	switch h.Kind {
	case Thread:
		return fmt.Sprintf("/proc/%d/ns/net", h.Tid)
	case Descriptor:
		return fmt.Sprintf("/proc/%d/fd/%d", h.Pid, h.Fd)
	case Mount:
		return fmt.Sprintf("/proc/%d/root%s", h.Pid, h.Path)
	}
	return fmt.Sprintf("/proc/%d/ns/net", h.Pid)
}

// nsid returns the other's id, or noNSID.
func (ns *NS) nsid(ctx context.Context, other *NS) (int, error) {
	id := noNSID
	err := ns.callNSID(ctx, unix.RTM_GETNSID, other, nil, func(m nl.Message) (err error) {
		id, err = decodeNSID(m.Body)
		return err
	})
	return id, err
}

func (ns *NS) newNSID(ctx context.Context, other *NS, id int) error {
	return ns.callNSID(ctx, unix.RTM_NEWNSID, other, nl.AppendU32(nil, unix.NETNSA_NSID, uint32(int32(id))), nil)
}

func (ns *NS) callNSID(ctx context.Context, typ uint16, other *NS, attrs []byte, reply func(nl.Message) error) error {
	conn, err := ns.Exchange(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	return other.WithFd(func(fd int) error {
		body := append(make([]byte, rtgenmsg), attrs...)
		body = nl.AppendU32(body, unix.NETNSA_FD, uint32(fd))
		return conn.Call(ctx, nl.Request{Type: typ, Body: body}, reply)
	})
}

func (ns *NS) nsids(ctx context.Context) ([]int, error) {
	conn, err := ns.Exchange(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	var ids []int
	req := nl.Request{Type: unix.RTM_GETNSID, Body: make([]byte, rtgenmsg)}
	err = conn.Dump(ctx, req, func() { ids = ids[:0] }, func(m nl.Message) error {
		id, err := decodeNSID(m.Body)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(ids)
	return ids, nil
}

// decodeNSID reads the id in a message about one.
func decodeNSID(body []byte) (int, error) {
	if len(body) < rtgenmsg {
		return noNSID, fmt.Errorf("malformed reply: %d bytes", len(body))
	}
	id := int32(noNSID)
	w := nl.Walk(body[rtgenmsg:])
	for w.Next() {
		if w.Type() == unix.NETNSA_NSID {
			id = int32(w.U32())
		}
	}
	return int(id), w.Err()
}
