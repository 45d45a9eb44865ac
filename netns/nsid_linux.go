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

// NSID returns the id by which this namespace knows another one (`ip netns list-id`). Link
// messages name the namespace of a veth's other end by it. Each namespace has ids of its
// own. A namespace without an id here is os.ErrNotExist.
func (ns *NS) NSID(ctx context.Context, other *NS) (int, error) {
	id, err := ns.nsid(ctx, other)
	if err == nil && id == noNSID {
		err = refuse.As(fs.ErrNotExist, "it has no id here")
	}
	if err != nil {
		return 0, &Error{Op: "netns.NSID", NS: ns.String(), Subject: "of " + other.String(), Err: err}
	}
	return id, nil
}

// AssignNSID gives another namespace an id in this one, for as long as both exist. A
// negative id is os.ErrInvalid. An id that is taken is os.ErrExist, and so is a namespace
// that has one.
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

// EnsureNSID returns the id of another namespace in this one. If it has none, the kernel
// chooses one.
func (ns *NS) EnsureNSID(ctx context.Context, other *NS) (int, error) {
	id, err := ns.nsid(ctx, other)
	if err == nil && id == noNSID {
		err = ns.newNSID(ctx, other, noNSID)
		if err == nil || errors.Is(err, fs.ErrExist) { // another program was faster
			id, err = ns.nsid(ctx, other)
		}
	}
	if err != nil {
		return 0, &Error{Op: "netns.EnsureNSID", NS: ns.String(), Subject: "for " + other.String(), Err: err}
	}
	return id, nil
}

// NSIDs lists the ids of other namespaces in this one, ascending.
func (ns *NS) NSIDs(ctx context.Context) ([]int, error) {
	ids, err := ns.nsids(ctx)
	if err != nil {
		return nil, &Error{Op: "netns.NSIDs", NS: ns.String(), Err: err}
	}
	return ids, nil
}

// OpenNSID returns a handle on the namespace with an id in this one. The kernel cannot open
// a namespace by its id, so OpenNSID searches those that [ListAll] finds. An unassigned id
// is os.ErrNotExist, and so is a namespace that ListAll does not find.
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
		return nil, refuse.As(fs.ErrNotExist, "no namespace has the id")
	}
	all, scanErr := ListAll(ctx)
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
	return nil, refuse.As(fs.ErrNotExist, "no process, mount or descriptor leads to the namespace with this id")
}

// file returns a path that the namespace can be opened at.
func (h Holder) file() string {
	switch h.Kind {
	case HolderThread:
		return fmt.Sprintf("/proc/%d/ns/net", h.Tid)
	case HolderDescriptor:
		return fmt.Sprintf("/proc/%d/fd/%d", h.Pid, h.Fd)
	case HolderMount:
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
	conn, err := ns.conn(unix.NETLINK_ROUTE)
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
	conn, err := ns.conn(unix.NETLINK_ROUTE)
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
