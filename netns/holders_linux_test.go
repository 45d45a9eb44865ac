package netns_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// holders leaves out other processes than the given one and this: one that another
// test is about to start has all descriptors until it executes its program.
func holders(t *testing.T, ns *netns.NS, pid int) []netns.Holder {
	t.Helper()
	h, err := ns.Holders(t.Context())
	if err != nil && !errors.Is(err, os.ErrPermission) { // other users' processes
		t.Fatal(err)
	}
	return slices.DeleteFunc(h, func(h netns.Holder) bool {
		return h.Kind != netns.HolderMount && h.Pid != pid && h.Pid != os.Getpid()
	})
}

// TestHoldersAfterDelete lets everything hold a namespace that can, and takes it
// away again.
func TestHoldersAfterDelete(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	sleep := tool.Path(t, "sleep")
	ctx, dir := t.Context(), t.TempDir()
	f := netns.Dir(dir)
	ns, err := f.Create(ctx, "held")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var cmd exec.Cmd
	want := func(kinds ...netns.HolderKind) []netns.Holder {
		t.Helper()
		pid := 0
		if cmd.Process != nil {
			pid = cmd.Process.Pid
		}
		h := holders(t, ns, pid)
		var got []netns.HolderKind
		for _, x := range h {
			got = append(got, x.Kind)
		}
		if !slices.Equal(got, kinds) {
			t.Errorf("holders %v, want the kinds %v", h, kinds)
		}
		return h
	}
	// The socket is the netlink connection that Create has opened.
	if h := want(netns.HolderSocket, netns.HolderMount); len(h) == 2 && h[1].Path != dir+"/held" {
		t.Errorf("mount at %q", h[0].Path)
	}
	if err := f.Delete(ctx, "held"); err != nil {
		t.Fatal(err)
	}
	want(netns.HolderSocket)

	cmd.Path, cmd.Args = sleep, []string{"sleep", "60"}
	if _, err := netns.Do(ctx, ns, func(context.Context) (int, error) { return 0, cmd.Start() }); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	ln, err := ns.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err = ns.WithFd(func(fd int) error {
		second, err := netns.OpenFd(fd)
		if err != nil {
			return err
		}
		defer second.Close()
		_, err = netns.Do(ctx, ns, func(context.Context) (int, error) {
			h := want(netns.HolderProcess, netns.HolderThread, netns.HolderDescriptor, netns.HolderSocket, netns.HolderSocket)
			if len(h) == 5 && (h[0].Pid != cmd.Process.Pid || h[0].Comm != "sleep" || h[1].Pid != os.Getpid()) {
				t.Errorf("processes: %v", h)
			}
			return 0, nil
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAllFindsWhatIsThere(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	ctx, dir := t.Context(), t.TempDir()
	ns, err := netns.Dir(dir).Create(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Delete(ctx)
	byPath, err := netns.OpenPath(ctx, dir+"/one") // its descriptor shows the path
	if err != nil {
		t.Fatal(err)
	}
	defer byPath.Close()
	all, err := netns.ListAll(ctx)
	if err != nil && !errors.Is(err, os.ErrPermission) {
		t.Fatal(err)
	}
	home := current(t)
	seen := map[netns.ID]netns.Info{}
	for _, info := range all {
		if _, twice := seen[info.ID]; twice {
			t.Errorf("%v is listed twice", info.ID)
		}
		seen[info.ID] = info
	}
	if got := seen[ns.ID()]; !slices.Equal(got.Names, []string{dir + "/one"}) || len(got.Pids) != 0 || ownDescriptors(got) != 2 {
		t.Errorf("the named one: %+v", got)
	}
	if got := seen[home.ID()]; !slices.Contains(got.Pids, os.Getpid()) {
		t.Errorf("the program's own: %+v", got)
	}
}

func ownDescriptors(info netns.Info) (n int) {
	for _, h := range info.Holders {
		if h.Kind == netns.HolderDescriptor && h.Pid == os.Getpid() {
			n++
		}
	}
	return n
}

func TestHolderText(t *testing.T) {
	t.Parallel()
	for _, h := range []netns.Holder{
		{Kind: netns.HolderProcess, Pid: 812, Comm: "nginx"},
		{Kind: netns.HolderThread, Pid: 812, Comm: "nginx", Tid: 7},
		{Kind: netns.HolderDescriptor, Pid: 812, Comm: "nginx", Fd: 7},
		{Kind: netns.HolderSocket, Pid: 812, Comm: "nginx", Fd: 7},
		{Kind: netns.HolderMount, Pid: 812, Comm: "nginx", Path: "/run/netns/7"},
	} {
		if s := h.String(); !strings.Contains(s, "process 812 (nginx)") || h.Kind != netns.HolderProcess && !strings.Contains(s, "7") {
			t.Errorf("%q", s)
		}
	}
}
