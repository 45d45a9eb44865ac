//go:build linux

package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// removeBox takes away what a box has: ports, link, name, processes, and with the
// last box of a bridge the bridge. What is gone already is fine. The caller holds
// the lock.
func removeBox(ctx context.Context, host *netns.NS, b *box) error {
	var errs []error
	gw, err := openOldNAT(ctx, host)
	if gw != nil {
		err = gw.UnpublishOwner(ctx, b.Name)
		gw.Close()
	}
	errs = append(errs, netns.IgnoreNotExist(err))
	if b.HostLink != "" {
		errs = append(errs, netns.IgnoreNotExist(removeLink(ctx, host, b)))
	}
	errs = append(errs, removeSpace(ctx, host, b.Name))
	if b.Bridge == "" { // its link is gone, which said on which bridge it was
		return errors.Join(append(errs, dropUnused(ctx, host))...)
	}
	return errors.Join(append(errs, dropBridge(ctx, host, b.Bridge), dropTable(ctx, host))...)
}

// removeLink removes the box's bridge port, if it is that: another program may have
// taken the name.
func removeLink(ctx context.Context, host *netns.NS, b *box) error {
	l, err := link.Get(ctx, host, b.HostLink)
	if err != nil {
		return err
	}
	alias, err := aliasOf(ctx, l)
	if err != nil {
		return err
	}
	if p, ok := parsePortAlias(alias); (!ok || p.box != b.Name) && !halfPort(l, alias) {
		return nil
	}
	// This takes a link along that is made for limits.
	if err := l.SetRate(ctx, link.Limit{}, link.Limit{}); err != nil {
		return err
	}
	return l.Delete(ctx)
}

// removeSpace deletes the name of the box's namespace and ends the processes that
// a killed run has left in it. A namespace of that name that is no box, or one of
// another host, is left alone.
func removeSpace(ctx context.Context, host *netns.NS, name string) error {
	ns, _, err := openSpace(ctx, host, name)
	switch {
	case errors.Is(err, errNoBox):
		return nil
	case errors.Is(err, netns.ErrNotNamespace) && !leftFile(ctx, name):
		return nil
	case errors.Is(err, netns.ErrNotNamespace):
		return netns.IgnoreNotExist(netns.Delete(ctx, name))
	}
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	defer ns.Close()
	holders, err := ns.Holders(ctx)
	if errors.Is(err, os.ErrPermission) {
		err = nil // a process that is not ours to look into is none of the box's
	}
	for _, h := range holders {
		if h.Kind == netns.HolderProcess && h.Pid != os.Getpid() {
			err = errors.Join(err, kill(h.Pid))
		}
	}
	return errors.Join(err, netns.IgnoreNotExist(netns.Delete(ctx, name)))
}

// kill ends a process and waits until it has ended: the name of its network namespace
// may be mounted in its mount namespace alone, and can be removed only then.
func kill(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(fd)
		_, err = end(fd, unix.SIGKILL)
	}
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	return nil
}

// grace is how long a process has to end: on a slow machine, a run takes seconds to take its box away.
const grace = 30 * time.Second

// end sends a signal to the process of a pidfd and reports whether it has ended within the grace.
func end(fd int, sig unix.Signal) (bool, error) {
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		if err == unix.ESRCH {
			return true, nil
		}
		return false, err
	}
	for deadline := time.Now().Add(grace); time.Now().Before(deadline); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds())+1)
		if n == 1 || err != nil && err != unix.EINTR {
			return n == 1, err
		}
	}
	return false, nil
}

// rm removes boxes by name. One that runs is asked to end, and takes itself away.
func rm(ctx context.Context, host *netns.NS, names []string) error {
	if len(names) == 0 {
		return errors.New("rm: there is no name")
	}
	var errs []error
	for _, name := range names {
		if err := rmOne(ctx, host, name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func rmOne(ctx context.Context, host *netns.NS, name string) error {
	b, err := find(ctx, host, name)
	if err != nil {
		return err
	}
	if b.Pid != 0 {
		if err := stop(b); err != nil {
			return fmt.Errorf("box %s: ending process %d: %w", name, b.Pid, err)
		}
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := boxes(ctx, host)
	if err != nil {
		return err
	}
	for _, now := range all {
		if now.Name == name && now.Pid != 0 {
			return nil // it has gone, and its name was used again since
		}
	}
	return removeBox(ctx, host, b)
}

// stop asks the run of a box to end, and ends it when it does not within the grace.
func stop(b *box) error {
	fd, err := unix.PidfdOpen(b.Pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !b.run.alive() {
		return nil // the pid is another's by now
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if ended, err := end(fd, sig); ended || err != nil {
			return err
		}
	}
	return errors.New("it does not end")
}

// find returns a box by its name.
func find(ctx context.Context, host *netns.NS, name string) (*box, error) {
	all, err := boxes(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, b := range all {
		if b.Name == name {
			return b, nil
		}
	}
	return nil, fmt.Errorf("there is no box %s", name)
}

// gc removes the boxes whose runs are gone.
func gc(ctx context.Context, host *netns.NS, out io.Writer) error {
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := boxes(ctx, host)
	if err != nil {
		return err
	}
	var errs []error
	for _, b := range all {
		if b.Pid != 0 {
			continue
		}
		if err := removeBox(ctx, host, b); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(out, b.Name)
	}
	return errors.Join(append(errs, dropUnused(ctx, host))...)
}

// dropUnused removes bridges without boxes, networks without bridges and a table
// without networks: what a run has left that was killed or has failed half-way.
func dropUnused(ctx context.Context, host *netns.NS) error {
	bridges, err := ownBridges(ctx, host)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range bridges {
		errs = append(errs, dropBridge(ctx, host, name))
	}
	return errors.Join(append(errs, dropTable(ctx, host))...)
}
