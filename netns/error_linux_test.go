package netns_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// Every method of a handle that is closed, and of one that there is not, returns an
// *Error with the cause; so do functions whose context is done.
func TestEveryErrorIsAnError(t *testing.T) {
	t.Parallel()
	other := netnstest.New(t)
	closed, err := netns.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	methods := map[string]func(context.Context, *netns.NS) error{
		"Do": func(ctx context.Context, ns *netns.NS) error {
			_, err := netns.Do(ctx, ns, func(context.Context) (int, error) { return 0, nil })
			return err
		},
		"Pin":       func(ctx context.Context, ns *netns.NS) error { _, err := netns.Pin(ctx, ns, "error"); return err },
		"Cookie":    func(ctx context.Context, ns *netns.NS) error { _, err := ns.Cookie(ctx); return err },
		"Owner":     func(_ context.Context, ns *netns.NS) error { _, err := ns.Owner(); return err },
		"OpenOwner": func(_ context.Context, ns *netns.NS) error { _, err := ns.OpenOwner(); return err },
		"Holders":   func(ctx context.Context, ns *netns.NS) error { _, err := ns.Holders(ctx); return err },
		"Sysctl": func(ctx context.Context, ns *netns.NS) error {
			_, err := ns.Sysctl(ctx, "net.ipv4.ip_forward")
			return err
		},
		"SetSysctl":  func(ctx context.Context, ns *netns.NS) error { return ns.SetSysctl(ctx, "net.ipv4.ip_forward", "1") },
		"NSID":       func(ctx context.Context, ns *netns.NS) error { _, err := ns.NSID(ctx, other); return err },
		"NSID of":    func(ctx context.Context, ns *netns.NS) error { _, err := other.NSID(ctx, ns); return err },
		"NSIDs":      func(ctx context.Context, ns *netns.NS) error { _, err := ns.NSIDs(ctx); return err },
		"AssignNSID": func(ctx context.Context, ns *netns.NS) error { return ns.AssignNSID(ctx, other, 3) },
		"EnsureNSID": func(ctx context.Context, ns *netns.NS) error { _, err := ns.EnsureNSID(ctx, other); return err },
		"OpenNSID":   func(ctx context.Context, ns *netns.NS) error { _, err := ns.OpenNSID(ctx, 3); return err },
		"Dial": func(ctx context.Context, ns *netns.NS) error {
			_, err := ns.Dial(ctx, "udp", "127.0.0.1:9")
			return err
		},
		"Dial of a name": func(ctx context.Context, ns *netns.NS) error {
			_, err := ns.Dial(ctx, "udp", "a.invalid:9")
			return err
		},
		"Listen": func(ctx context.Context, ns *netns.NS) error {
			_, err := ns.Listen(ctx, "tcp", "127.0.0.1:0")
			return err
		},
		"ListenPacket": func(ctx context.Context, ns *netns.NS) error { _, err := ns.ListenPacket(ctx, "udp", ":0"); return err },
		"Socket": func(ctx context.Context, ns *netns.NS) error {
			_, err := ns.Socket(ctx, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
			return err
		},
		"DialNetlink": func(ctx context.Context, ns *netns.NS) error {
			_, err := ns.DialNetlink(ctx, unix.NETLINK_ROUTE, nil)
			return err
		},
		"Command": func(ctx context.Context, ns *netns.NS) error {
			return ns.Command(context.WithoutCancel(ctx), "/bin/true").Run()
		},
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range methods {
		for _, c := range []struct {
			what string
			ctx  context.Context
			ns   *netns.NS
			want error
		}{
			{"closed", t.Context(), closed, os.ErrClosed},
			{"nil", t.Context(), nil, os.ErrInvalid},
			{"its context is done", over, other, context.Canceled},
		} {
			if c.ctx == over && (name == "Owner" || name == "OpenOwner" || name == "Command") {
				continue // take none
			}
			err := call(c.ctx, c.ns)
			var e *netns.Error
			if !errors.As(err, &e) || !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %T %v", name, c.what, err, err)
			}
			if _, plain := err.(*netns.Error); !plain {
				t.Errorf("%s, %s: a %T around it", name, c.what, err)
			}
		}
	}
	functions := map[string]error{}
	add := func(name string, _ any, err error) { functions[name] = err }
	ns, err := netns.Create(over, "error")
	add("Create", ns, err)
	ns, err = netns.Ensure(over, "error")
	add("Ensure", ns, err)
	ns, err = netns.Create(t.Context(), "")
	add("Create of no name", ns, err)
	ns, err = netns.Open(t.Context(), "nobody")
	add("Open", ns, err)
	ns, err = netns.OpenPath(t.Context(), "/nowhere")
	add("OpenPath", ns, err)
	ns, err = netns.OpenPid(t.Context(), -1)
	add("OpenPid", ns, err)
	ns, err = netns.OpenPidfd(t.Context(), -1)
	add("OpenPidfd", ns, err)
	ns, err = netns.OpenFd(-1)
	add("OpenFd", ns, err)
	ns, err = netns.Adopt(-1)
	add("Adopt", ns, err)
	ns, err = netns.OpenSocket(nil)
	add("OpenSocket", ns, err)
	ns, err = netns.OpenContainer(t.Context(), "")
	add("OpenContainer", ns, err)
	ns, err = netns.NewInUserNS(t.Context(), netns.UserNS{UIDs: []netns.IDMap{{}}})
	add("NewInUserNS", ns, err)
	pool, err := netns.NewPool(0)
	add("NewPool", pool, err)
	named, err := netns.Dir("x").List(t.Context())
	add("List", named, err)
	add("Delete", nil, netns.Delete(t.Context(), "nobody"))
	add("Rename", nil, netns.Rename(t.Context(), "nobody", "somebody"))
	all, err := netns.ListAll(over)
	add("ListAll", all, err)
	for _, err := range netns.Watch(over) {
		add("Watch", nil, err)
	}
	set := other.Command(t.Context(), "/bin/true")
	set.Stdout = os.Stderr
	out, err := set.Output()
	add("Output", out, err)
	for name, err := range functions {
		if _, plain := err.(*netns.Error); !plain {
			t.Errorf("%s: a %T: %v", name, err, err)
		}
	}
	// A program's own errors stay what they are.
	if err := other.Command(t.Context(), "/nowhere").Run(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
	var exit *exec.ExitError
	if err := other.Command(t.Context(), "/bin/sh", "-c", "exit 3").Run(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("a program that fails: %v", err)
	}
}
