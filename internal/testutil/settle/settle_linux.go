package settle

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Namespaces waits until the kernel has removed the namespaces that have ended, wherever they were. It does
// so in the background, one batch after the other, which would disturb the next
// figures. A namespace that ends now is in the next batch at the earliest, and the
// kernel reports its end at the beginning of a batch: the end of a second one shows
// that the batch of the first is done. It waits two minutes at most.
//
// It listens in the namespace here, and gives namespaces of its own an id there. Only one call at a time may do so in
// a namespace: another fails.
func Namespaces(ctx context.Context, here *netns.NS) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for range 2 {
		if err := outlive(ctx, here); err != nil {
			return fmt.Errorf("waiting for the kernel to clear up: %w", err)
		}
	}
	return nil
}

// outlive makes a namespace, gives it an id, lets it go, and waits for the
// message that the id is gone.
func outlive(ctx context.Context, here *netns.NS) error {
	const id = 1 << 30 // far from those that the kernel gives
	events, err := nsconn.Subscribe(ctx, here, unix.NETLINK_ROUTE, nl.EventConfig{Groups: []uint32{unix.RTNLGRP_NSID}})
	if err != nil {
		return err
	}
	defer events.Close()
	if err := passing(ctx, here, id); err != nil {
		return err
	}
	gone := false
	for !gone {
		err := events.Receive(ctx, func(_ int, m nl.Message) error {
			gone = gone || m.Type == unix.RTM_DELNSID && mentionsID(m.Body, id)
			return nil
		})
		if err != nil && err != nl.ErrOverflow {
			return err
		}
	}
	return nil
}

func passing(ctx context.Context, here *netns.NS, id uint32) error {
	ns, err := netns.New(ctx)
	if err != nil {
		return err
	}
	defer ns.Close()
	conn, err := nsconn.Shared(here, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	return ns.WithFd(func(fd int) error {
		b := make([]byte, 4) // struct rtgenmsg
		b = nl.AppendU32(b, unix.NETNSA_NSID, id)
		b = nl.AppendU32(b, unix.NETNSA_FD, uint32(fd))
		return conn.Call(ctx, nl.Request{Type: unix.RTM_NEWNSID, Body: b}, nil)
	})
}

func mentionsID(body []byte, id uint32) bool {
	if len(body) < 4 {
		return false
	}
	for w := nl.Walk(body[4:]); w.Next(); {
		if w.Type() == unix.NETNSA_NSID && len(w.Data()) >= 4 {
			return binary.NativeEndian.Uint32(w.Data()) == id
		}
	}
	return false
}
