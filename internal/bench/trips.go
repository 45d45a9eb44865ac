package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// many is how many short calls make one round; the figure is that of one call.
const many = 100

// visit goes into a namespace and comes back on a thread of its own, with bare
// system calls and nothing checked.
func visit(fd int, fn func()) error { return visitBetween(fd, fn, func() error { return nil }) }

// visitBetween looks at something before and after.
func visitBetween(fd int, fn func(), look func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := look()
		home := -1
		if err == nil {
			home, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err == nil {
			if err = unix.Setns(fd, unix.CLONE_NEWNET); err == nil {
				fn()
				err = errors.Join(unix.Setns(home, unix.CLONE_NEWNET), look())
			}
			unix.Close(home)
		}
		if err == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// whereabouts asks the kernel for what Do compares before and after a function:
// the thread's mount namespace, and whether it shares its root and working
// directory with the process's first thread.
func whereabouts() error {
	const kcmpFS = 3 // KCMP_FS
	var buf [64]byte
	if _, err := unix.Readlink("/proc/thread-self/ns/mnt", buf[:]); err != nil {
		return err
	}
	unix.RawSyscall6(unix.SYS_KCMP, uintptr(unix.Getpid()), uintptr(unix.Gettid()), kcmpFS, 0, 0, 0)
	return nil
}

// trip makes a contender of one short call.
func trip(name string, call func(ctx context.Context, i int) error) *contender {
	return &contender{name: name, round: func(ctx context.Context, i int) (time.Duration, error) {
		d, err := took(func() error {
			for j := range many {
				if err := call(ctx, i*many+j); err != nil {
					return err
				}
			}
			return nil
		})
		return d / many, err
	}}
}

const nameLooking = "floor, looking where the thread is"

var doRow = row{
	name: "do",
	work: "run a function in a namespace and come back; the floor checks nothing on the way out",
	unit: "call",
	n:    100,
	run: func(ctx context.Context, b *bout) error {
		ns, err := netns.New(ctx)
		if err != nil {
			return err
		}
		defer ns.Close()
		err = ns.WithFd(func(fd int) error {
			inside := 0
			where := func() {
				if unix.Getpid() > 0 {
					inside++
				}
			}
			return b.interleave(ctx, b.n,
				trip(nameBoxwire, func(ctx context.Context, _ int) error {
					_, err := netns.Do(ctx, ns, func(context.Context) (int, error) { where(); return inside, nil })
					return err
				}),
				trip(nameFloor, func(context.Context, int) error { return visit(fd, where) }),
				trip(nameLooking, func(context.Context, int) error { return visitBetween(fd, where, whereabouts) }),
			)
		})
		if err != nil {
			return err
		}
		b.atMost(nameBoxwire, nameFloor, 1.5)
		b.note("Do looks before and after where the thread is, so that one that a function has moved to other namespaces, or given a root of its own, is never used again: that is %.1f µs, %s / %s is %.2f.",
			micro(median(b.figures[nameLooking])-median(b.figures[nameFloor])), nameBoxwire, nameLooking, pairRatio(b.figures[nameBoxwire], b.figures[nameLooking]))
		return nil
	},
}

var dialRow = row{
	name: "dial",
	work: "open a UDP socket that is connected to an address, in a namespace",
	unit: "socket",
	n:    100,
	run: func(ctx context.Context, b *bout) error {
		ns, err := netns.New(ctx)
		if err != nil {
			return err
		}
		defer ns.Close()
		to := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}
		err = ns.WithFd(func(fd int) error {
			return b.interleave(ctx, b.n,
				trip(nameBoxwire, func(ctx context.Context, _ int) error {
					c, err := ns.Dial(ctx, "udp", "127.0.0.1:9")
					if err != nil {
						return err
					}
					return c.Close()
				}),
				trip(nameFloor, func(context.Context, int) error {
					s := -1
					var serr error
					err := visit(fd, func() { s, serr = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) })
					if err == nil {
						err = serr
					}
					if err == nil {
						err = unix.Connect(s, to)
					}
					if s >= 0 {
						unix.Close(s)
					}
					return err
				}),
			)
		})
		return err
	},
}

var sysctlRow = row{
	name: "sysctl",
	work: "set net.ipv4.ip_forward in namespace after namespace, with few and with many of them alive",
	unit: "set",
	n:    100,
	run: func(ctx context.Context, b *bout) error {
		const key, path = "net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"
		few, lots := 10, b.size(1000, 50)
		var spaces []*netns.NS
		defer func() {
			for _, ns := range spaces {
				ns.Close()
			}
		}()
		for _, alive := range []int{few, lots} {
			for len(spaces) < alive {
				ns, err := netns.New(ctx)
				if err != nil {
					return err
				}
				spaces = append(spaces, ns)
				if err := ns.SetSysctl(ctx, key, "0"); err != nil {
					return err
				}
			}
			value := [2]string{"0", "1"}
			err := b.interleave(ctx, b.n,
				trip(fmt.Sprintf("%s, %d alive", nameBoxwire, alive), func(ctx context.Context, i int) error {
					return spaces[i%alive].SetSysctl(ctx, key, value[i/alive%2])
				}),
				trip(fmt.Sprintf("%s, %d alive", nameFloor, alive), func(_ context.Context, i int) error {
					return spaces[i%alive].WithFd(func(ns int) error {
						var werr error
						err := visit(ns, func() { werr = writeFile(path, value[i/alive%2]) })
						if err == nil {
							err = werr
						}
						return err
					})
				}),
			)
			if err != nil {
				return err
			}
		}
		flat := fmt.Sprintf("%s, %d alive", nameBoxwire, lots)
		b.atMost(flat, fmt.Sprintf("%s, %d alive", nameBoxwire, few), 2)
		b.brief("set a sysctl in one of "+thousands(lots)+" namespaces", flat, fmt.Sprintf("%s, %d alive", nameFloor, lots))
		b.note("Flat means that a hundred times as many namespaces cost at most twice as much: the rest is the processor's cache.")
		return nil
	},
}

func writeFile(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(value))
	unix.Close(fd)
	return err
}
