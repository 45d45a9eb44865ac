package nl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrOverflow is what Events.Receive returns when the kernel had to drop
// messages, because they were not read fast enough.
var ErrOverflow = errors.New("events were lost: the receive buffer was full")

// NoID is the namespace id of an event from the socket's own namespace.
const NoID = -1

// An EventConfig says what an Events receives.
type EventConfig struct {
	Groups []uint32 // multicast groups: unix.RTNLGRP_LINK, ...

	// AllIDs asks for the events of all namespaces that have an id in the
	// socket's own (NETLINK_LISTEN_ALL_NSID, netlink(7)). It takes
	// CAP_NET_BROADCAST there.
	AllIDs bool

	// Buffer is the size of the receive buffer in bytes; 0 is 1 MiB. Without
	// CAP_NET_ADMIN it is at most net.core.rmem_max.
	Buffer int
}

// An Events is a netlink socket that receives multicast events. One goroutine at a time may
// use it.
type Events struct {
	sock socket // the runtime's poller knows it
	all  bool
	buf  []byte
	oob  [64]byte
	noob int
}

// Subscribe opens a socket of the family in the calling thread's namespace and
// joins the groups.
func Subscribe(family int, cfg EventConfig) (*Events, error) {
	nc, err := netlink.Dial(family, &netlink.Config{Strict: true})
	if err != nil {
		return nil, err
	}
	e := &Events{all: cfg.AllIDs, buf: make([]byte, 1<<16)}
	receive := unix.Read
	if e.all {
		receive = e.receiveID
	}
	if err = e.sock.init(nc, receive); err == nil {
		err = e.prepare(cfg)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return e, nil
}

// receiveID reads a datagram and the control message that comes with it.
func (e *Events) receiveID(fd int, b []byte) (n int, err error) {
	n, e.noob, _, _, err = unix.Recvmsg(fd, b, e.oob[:], 0)
	return n, err
}

func (e *Events) await(ctx context.Context) error { return e.sock.await(ctx, e.sock.file, e.sock.raw) }

// prepare sizes the buffer first, so that nothing is lost between joining and
// the first read.
func (e *Events) prepare(cfg EventConfig) error {
	size := cfg.Buffer
	if size == 0 {
		size = 1 << 20
	}
	var err error
	cerr := e.sock.raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size)
		}
		if err == nil && e.all {
			err = unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1)
		}
		for _, g := range cfg.Groups {
			if err == nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(g))
			}
		}
	})
	if err := errors.Join(err, cerr); err != nil {
		return fmt.Errorf("subscribing to events: %w", err)
	}
	return nil
}

// Close closes the socket. A Receive under way ends with an error.
func (e *Events) Close() error { return e.sock.file.Close() }

// Receive waits for the next datagram and hands its messages to each, with the id of the
// namespace that they come from, or NoID. It returns ErrOverflow once after events were
// lost. What is still queued then is older than the loss; see Skip.
func (e *Events) Receive(ctx context.Context, each func(id int, m Message) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b, err := e.sock.recv(ctx, e.buf, e.await)
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return ErrOverflow
	case err != nil:
		return err
	}
	return e.cut(b, each)
}

// Skip discards what is queued. After an overflow those events are older than the table
// that is read next, and would undo it.
func (e *Events) Skip(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.sock.drain(e.buf); err != nil {
		return fmt.Errorf("receiving: %w", err)
	}
	return nil
}

// cut splits a datagram into its messages.
func (e *Events) cut(b []byte, each func(id int, m Message) error) error {
	id := NoID
	if e.all {
		id = namespaceID(e.oob[:e.noob])
	}
	for m, next := cutMessage(b, 0); next > 0; m, next = cutMessage(b, next) {
		if err := each(id, m); err != nil {
			return err
		}
	}
	return nil
}

// namespaceID reads the control message that says where an event comes from. An
// event of the socket's own namespace has none.
func namespaceID(oob []byte) int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return NoID
	}
	for _, c := range msgs {
		if c.Header.Level == unix.SOL_NETLINK && c.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(c.Data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(c.Data)))
		}
	}
	return NoID
}
