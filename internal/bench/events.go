package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// lastMTU ends a round: no other change sets it.
const lastMTU = 1234

var eventsRow = row{
	name: "events",
	work: "10,000 changes of a link are made and followed until the last is seen; the figure is one change",
	unit: "change",
	n:    10,
	run: func(ctx context.Context, b *bout) error {
		f, err := newFollowed(ctx, b.size(10_000, 500))
		if err != nil {
			return err
		}
		defer f.close()
		peer := f.contender(nameInPlace, f.followPeer)
		if err := b.interleave(ctx, b.n, f.contender(nameBoxwire, f.followBoxwire), f.contender(nameFloor, f.followFloor), peer); err != nil {
			return err
		}
		b.atMost(nameBoxwire, nameFloor, 1.3)
		b.brief("follow a change of a link", nameBoxwire, nameFloor, [2]string{"vishvananda/netlink", nameInPlace})
		b.note("Each has seen every one of the changes.")
		return nil
	},
}

// followed is a namespace with a link whose changes are followed.
type followed struct {
	ns       *netns.NS
	link     link.Link
	messages [][]byte // the changes, a hundred a send
	changes  int
	sock     *floor.Socket
}

func newFollowed(ctx context.Context, changes int) (f *followed, err error) {
	f = &followed{changes: changes}
	if f.ns, err = netns.New(ctx); err != nil {
		return f, err
	}
	f.link, err = link.Create(ctx, f.ns, link.Spec{Name: "a", Kind: link.Veth{Peer: link.Spec{Name: "b"}}})
	if err == nil {
		err = within(f.ns, func() (err error) {
			f.sock, err = floor.Open(unix.NETLINK_ROUTE)
			return err
		})
	}
	for i := 0; i < changes; i += 100 {
		var batch []byte
		for j := i; j < i+100; j++ {
			mtu, flags := uint32(1400+j%2), uint16(0)
			if j == changes-1 {
				mtu = lastMTU
			}
			if j == i+99 {
				flags = unix.NLM_F_ACK
			}
			batch = floor.Message(batch, unix.RTM_NEWLINK, flags, nl.AppendU32(floor.IfInfo(f.link.Index, false), unix.IFLA_MTU, mtu))
		}
		f.messages = append(f.messages, batch)
	}
	return f, err
}

func (f *followed) close() {
	f.sock.Close()
	f.ns.Close()
}

// make makes the changes.
func (f *followed) make() error {
	for _, m := range f.messages {
		if err := f.sock.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// contender measures from the first change until follow has seen the last. follow
// calls ready when it would not miss a change, and returns how many it has seen.
func (f *followed) contender(name string, follow func(ctx context.Context, ready func()) (int, error)) *contender {
	return &contender{name: name, round: func(ctx context.Context, _ int) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		start := make(chan struct{})
		type answer struct {
			seen int
			err  error
		}
		done := make(chan answer, 1)
		go func() {
			n, err := follow(ctx, func() { close(start) })
			done <- answer{n, err}
		}()
		select {
		case <-start:
		case a := <-done:
			return 0, errors.Join(a.err, errors.New("it ended before the first change"))
		}
		var a answer
		d, err := took(func() error {
			if err := f.make(); err != nil {
				return err
			}
			a = <-done
			return a.err
		})
		if err == nil && a.seen < f.changes {
			err = fmt.Errorf("it has seen %d of %d changes", a.seen, f.changes)
		}
		return d / time.Duration(f.changes), err
	}}
}

func (f *followed) followBoxwire(ctx context.Context, ready func()) (seen int, err error) {
	synced := false
	for e, err := range link.Watch(ctx, f.ns, link.TopicLinks) {
		switch {
		case err != nil:
			return seen, err
		case e.Kind == link.EventResync:
			return seen, errors.New("events were lost")
		case e.Kind == link.EventSynced:
			synced = true
			ready()
		case synced && e.Link != nil && e.Link.Index == f.link.Index:
			seen++
			if e.Link.MTU == lastMTU {
				return seen, nil
			}
		}
	}
	return seen, errors.New("the events ended")
}

func (f *followed) followFloor(_ context.Context, ready func()) (seen int, err error) {
	var sock *floor.Socket
	err = within(f.ns, func() (err error) {
		sock, err = floor.Follow(unix.RTNLGRP_LINK, 16<<20)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer sock.Close()
	ready()
	for {
		last := false
		err := sock.Receive(func(typ uint16, body []byte) {
			if typ != unix.RTM_NEWLINK || int(binary.NativeEndian.Uint32(body[4:])) != f.link.Index {
				return
			}
			seen++
			last = last || mtuOf(body[16:]) == lastMTU
		})
		if err != nil || last {
			return seen, err
		}
	}
}

func mtuOf(b []byte) uint32 {
	for len(b) >= 8 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[2:]) == unix.IFLA_MTU {
			return binary.NativeEndian.Uint32(b[4:])
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return 0
}

func (f *followed) followPeer(ctx context.Context, ready func()) (seen int, err error) {
	updates := make(chan netlink.LinkUpdate, 1000)
	done := make(chan struct{})
	defer close(done)
	failed := make(chan error, 16)
	err = f.ns.WithFd(func(fd int) error {
		handle := vnetns.NsHandle(fd)
		return netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
			Namespace: &handle, ReceiveBufferSize: 16 << 20, ReceiveBufferForceSize: true,
			ErrorCallback: func(err error) {
				select {
				case failed <- err:
				default:
				}
			},
		})
	})
	if err != nil {
		return 0, err
	}
	ready()
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return seen, errors.New("the events ended")
			}
			if u.Attrs().Index == f.link.Index && u.Header.Type == unix.RTM_NEWLINK {
				seen++
				if u.Attrs().MTU == lastMTU {
					return seen, nil
				}
			}
		case err := <-failed:
			return seen, err
		case <-ctx.Done():
			return seen, ctx.Err()
		}
	}
}
