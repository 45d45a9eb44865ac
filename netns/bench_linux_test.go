package netns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// plainThread calls fn on a thread that is thrown away: never on the process's first
// one, which the runtime parks instead of ending it, and whose namespace
// /proc/self/ns/net shows.
func plainThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- plainThread(fn)
			return
		}
		done <- fn()
	}()
	return <-done
}

// plainNew makes a namespace with bare system calls, on a thread that is thrown
// away, and leaves lo down.
func plainNew(b *testing.B) {
	err := plainThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		return f.Close()
	})
	if err != nil {
		b.Fatal(err)
	}
}

// plainVisit enters a namespace and comes back, with nothing checked.
func plainVisit(b *testing.B, fd int, fn func()) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			fn()
			unix.Setns(home, unix.CLONE_NEWNET)
			unix.Close(home)
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

func BenchmarkNew(b *testing.B) {
	netnstest.Need(b)
	b.Run("boxwire", func(b *testing.B) {
		for b.Loop() {
			ns, err := netns.New(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			ns.Close()
		}
	})
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			plainNew(b)
		}
	})
}

// BenchmarkCreate makes a named namespace and deletes it.
func BenchmarkCreate(b *testing.B) {
	f := netns.Dir(b.TempDir())
	netnstest.Need(b)
	b.Run("boxwire", func(b *testing.B) {
		for b.Loop() {
			ns, err := f.Create(b.Context(), "box")
			if err != nil {
				b.Fatal(err)
			}
			if err := ns.Delete(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plain", func(b *testing.B) {
		path := string(f) + "/plain"
		for b.Loop() {
			err := plainThread(func() error {
				err := unix.Unshare(unix.CLONE_NEWNET)
				if err == nil {
					err = os.WriteFile(path, nil, 0)
				}
				if err == nil {
					err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
				}
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
			if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	netnstest.Need(b)
	f := netns.Dir(b.TempDir())
	ns, err := f.Create(b.Context(), "box")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ns.Delete(context.Background()) })
	b.Run("boxwire", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ns, err := f.Open(b.Context(), "box")
			if err != nil {
				b.Fatal(err)
			}
			ns.Close()
		}
	})
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			fd, err := unix.Open(string(f)+"/box", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			unix.Close(fd)
		}
	})
}

func BenchmarkDo(b *testing.B) {
	ns := netnstest.New(b)
	b.Run("boxwire", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			netns.Do(b.Context(), ns, func(context.Context) (int, error) { return 0, nil })
		}
	})
	b.Run("plain", func(b *testing.B) {
		ns.WithFd(func(fd int) error {
			for b.Loop() {
				plainVisit(b, fd, func() {})
			}
			return nil
		})
	})
}

func BenchmarkDialUDP(b *testing.B) {
	ns := netnstest.New(b)
	b.Run("boxwire", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c, err := ns.Dial(b.Context(), "udp", "127.0.0.1:9")
			if err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
	})
	b.Run("plain", func(b *testing.B) {
		to := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}
		ns.WithFd(func(fd int) error {
			for b.Loop() {
				var s int
				plainVisit(b, fd, func() { s, _ = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) })
				if err := unix.Connect(s, to); err != nil {
					b.Fatal(err)
				}
				unix.Close(s)
			}
			return nil
		})
	})
}

// BenchmarkSysctlSet sets one setting while few and many namespaces are alive
// whose settings have been used, and which the kernel therefore has in its cache.
func BenchmarkSysctlSet(b *testing.B) {
	// Setting this one has no effect beyond itself; ip_forward takes the lock of all links.
	const key, path = "net.ipv4.ip_default_ttl", "/proc/sys/net/ipv4/ip_default_ttl"
	for _, alive := range []int{10, 1000} {
		spaces := make([]*netns.NS, alive)
		for i := range spaces {
			spaces[i] = netnstest.New(b)
			if err := spaces[i].SetSysctl(b.Context(), key, "64"); err != nil {
				b.Fatal(err)
			}
		}
		i := 0
		next := func() *netns.NS { i++; return spaces[i%alive] }
		b.Run(fmt.Sprintf("alive=%d/boxwire", alive), func(b *testing.B) {
			for b.Loop() {
				if err := next().SetSysctl(b.Context(), key, "64"); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("alive=%d/boxwire-first", alive), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				ns, err := netns.New(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := ns.SetSysctl(b.Context(), key, "64"); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				ns.Close()
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("alive=%d/plain", alive), func(b *testing.B) {
			for b.Loop() {
				next().WithFd(func(fd int) error {
					plainVisit(b, fd, func() {
						s, _ := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
						unix.Write(s, []byte("64"))
						unix.Close(s)
					})
					return nil
				})
			}
		})
	}
}

func BenchmarkPoolGet(b *testing.B) {
	netnstest.Need(b)
	p, err := netns.NewPool(8)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	b.Run("ready", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			for p.Ready() == 0 {
				runtime.Gosched()
			}
			b.StartTimer()
			ns, err := p.Get(b.Context())
			b.StopTimer()
			if err != nil {
				b.Fatal(err)
			}
			ns.Close()
			b.StartTimer()
		}
	})
	b.Run("burst", func(b *testing.B) {
		for b.Loop() {
			ns, err := p.Get(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			ns.Close()
		}
	})
}
