//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// sweep removes what killed runs have left: the networks without a policy of a run that goes on.
// The caller holds the lock, so that no run is half-way.
func sweep(ctx context.Context, host *netns.NS, gw *nat.NAT) error {
	policies, err := gw.ListPolicies(ctx)
	if err != nil {
		return err
	}
	networks, err := gw.ListNetworks(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range networks {
		var dead []netip.Addr
		live := false
		for _, p := range policies {
			if slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Contains(p.Box[0]) }) {
				live = live || alive(p.Owner)
				dead = append(dead, p.Box[0])
			}
		}
		if !live {
			errs = append(errs, endBehind(ctx, host, n.Interface), removeNetwork(ctx, host, gw, n.Interface, dead))
		}
	}
	return errors.Join(errs...)
}

// removeNetwork removes a box's link, policy and network. What is gone already is fine. The link
// goes first, so that nothing is open meanwhile.
func removeNetwork(ctx context.Context, host *netns.NS, gw *nat.NAT, name string, box []netip.Addr) error {
	l, err := ownLink(ctx, host, name)
	if err == nil {
		err = l.Delete(ctx)
	}
	errs := []error{netns.IgnoreNotExist(err)}
	if len(box) > 0 {
		err := gw.DeletePolicies(ctx, box[0])
		if errors.Is(err, nat.ErrDamaged) { // another program has changed the table: restore what it holds
			if err = gw.Sync(ctx, nat.State{Owners: func(string) bool { return false }}); err == nil {
				err = gw.DeletePolicies(ctx, box[0])
			}
		}
		errs = append(errs, netns.IgnoreNotExist(err))
	}
	return errors.Join(append(errs, netns.IgnoreNotExist(gw.DeleteNetwork(ctx, name)))...)
}

// ownLink finds a link that this program has made: anybody may have taken the name.
func ownLink(ctx context.Context, host *netns.NS, name string) (link.Link, error) {
	l, err := link.Get(ctx, host, name)
	if err == nil && (l.Kind != "veth" || !bytes.Equal(l.MAC, stableMAC(name))) {
		err = os.ErrNotExist
	}
	return l, err
}

// endBehind ends the processes in the box behind a link.
func endBehind(ctx context.Context, host *netns.NS, name string) error {
	l, err := ownLink(ctx, host, name)
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	ns, err := host.OpenNSID(ctx, l.LinkNSID)
	if errors.Is(err, os.ErrPermission) {
		return nil // no process that this one may look into is in it
	}
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	defer ns.Close()
	return endAll(ctx, ns)
}

// dropTable removes a table that has no networks.
func dropTable(ctx context.Context, gw *nat.NAT) error {
	networks, err := gw.ListNetworks(ctx)
	if err == nil && len(networks) == 0 {
		err = gw.Delete(ctx)
	}
	return netns.IgnoreNotExist(err)
}

// markFormat is the owner of a run's policy. Process ids are used again, so it has the time that
// the process began.
const markFormat = "pid %d start %d"

// ownMark is the mark of this run.
func ownMark() (string, error) {
	start, err := startTime(os.Getpid())
	return fmt.Sprintf(markFormat, os.Getpid(), start), err
}

// alive reports whether the run of a mark goes on.
func alive(mark string) bool {
	var pid int
	var start uint64
	if n, err := fmt.Sscanf(mark, markFormat, &pid, &start); err != nil || n != 2 {
		return true // it is another program's
	}
	now, err := startTime(pid)
	return err == nil && now == start
}

// startTime is when a process began, in clock ticks since boot (field 22 of /proc/PID/stat,
// proc(5)).
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name before it may hold blanks
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// endAll ends all processes in a box.
func endAll(ctx context.Context, ns *netns.NS) error {
	holders, err := ns.Holders(ctx)
	if errors.Is(err, os.ErrPermission) {
		err = nil // a process that is not ours to look into is none of the box's
	}
	for _, h := range holders {
		if h.Kind == netns.HolderProcess && h.Pid != os.Getpid() {
			err = errors.Join(err, kill(h.Pid))
		}
	}
	return err
}

// kill ends a process and waits until it has ended, for ten seconds at most.
func kill(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(fd)
		err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	for deadline := time.Now().Add(10 * time.Second); err == nil && time.Now().Before(deadline); {
		n, perr := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds())+1)
		if n == 1 {
			return nil
		}
		if perr != unix.EINTR {
			err = perr
		}
	}
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	return nil
}
