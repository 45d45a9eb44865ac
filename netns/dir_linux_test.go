package netns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// mounted says whether something is mounted at path, as the kernel lists it.
func mounted(t *testing.T, path string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), " "+path+" ")
}

func TestDirectoryOfTheCallersChoice(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "run", "cni")
	f := netns.Dir(dir)
	ns, err := f.Create(ctx, "3f2a")
	if err != nil {
		t.Fatal(err)
	}
	path := dir + "/3f2a"
	if !mounted(t, path) || ns.Path() != path || ns.Name() != "3f2a" || ns.String() != path {
		t.Errorf("Path, Name, String = %q, %q, %q; mounted: %v", ns.Path(), ns.Name(), ns, mounted(t, path))
	}
	if _, err := netns.Open(ctx, "3f2a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the name is in %s, too: %v", netns.DefaultDir, err)
	}
	if _, err := f.Create(ctx, "3f2a"); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Create of a name that exists: %v", err)
	}
	for _, open := range []func() (*netns.NS, error){
		func() (*netns.NS, error) { return f.Open(ctx, "3f2a") },
		func() (*netns.NS, error) { return netns.Dir(dir+"/").Open(ctx, "3f2a") },
		func() (*netns.NS, error) { return netns.OpenPath(ctx, path) },
	} {
		again, err := open()
		if err != nil || !again.Equal(ns) {
			t.Errorf("opened again: %v, %v", again, err)
		}
		again.Close()
	}
	if err := ns.Delete(ctx); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 || mounted(t, path) {
		t.Errorf("left: %v, %v", left, err)
	}
	for _, bad := range []netns.Dir{"run/netns", ".", "/a\x00b"} {
		if _, err := bad.Create(ctx, "x"); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("directory %q: %v", bad, err)
		}
	}
}

func TestPinGivesANameToWhatExists(t *testing.T) {
	t.Parallel()
	ctx, f := t.Context(), netns.Dir(t.TempDir())
	ns := netnstest.New(t)
	cmd := exec.Command(tool.Path(t, "sleep"), "60")
	if _, err := netns.Do(ctx, ns, func(context.Context) (int, error) { return 0, cmd.Start() }); err != nil {
		t.Fatal(err)
	}
	stop := func() { cmd.Process.Kill(); cmd.Wait() }
	defer stop()
	byPid, err := netns.OpenPid(ctx, cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	named, err := f.Pin(ctx, byPid, "ofpid")
	if err != nil {
		t.Fatal(err)
	}
	if named.Name() != "ofpid" || !named.Equal(ns) {
		t.Errorf("named %v is %v, want %v", named, named.ID(), ns.ID())
	}
	if _, err := f.Pin(ctx, ns, "ofpid"); !errors.Is(err, os.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	stop()
	byPid.Close()
	named.Close()
	ns.Close() // now only the name holds it
	again, err := f.Open(ctx, "ofpid")
	if err != nil {
		t.Fatal(err)
	}
	if again.ID() != ns.ID() {
		t.Errorf("opened by its name, it is %v, want %v", again.ID(), ns.ID())
	}
	if err := again.Delete(ctx); err != nil {
		t.Error(err)
	}
	if _, err := f.Pin(ctx, ns, "closed"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed handle: %v", err)
	}
	if _, err := f.Pin(ctx, nil, "nil"); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("no handle: %v", err)
	}
	if left, _ := os.ReadDir(string(f)); len(left) > 0 {
		t.Errorf("left in the directory: %v", left)
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	testutil.Witness(t, "ip")
	ctx := t.Context()
	ns := mustCreate(t, "before")
	defer ns.Close()
	other := mustCreate(t, "taken")
	defer other.Delete(ctx)
	if err := netns.Rename(ctx, "before", "taken"); !errors.Is(err, os.ErrExist) {
		t.Errorf("to a name that is taken: %v", err)
	}
	if err := netns.Rename(ctx, "nobody", "after"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a name that is not there: %v", err)
	}
	if err := netns.Rename(ctx, "before", "a/b"); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("to what is no name: %v", err)
	}
	if err := netns.Rename(ctx, "before", "after"); err != nil {
		t.Fatal(err)
	}
	if out := testutil.Run(t, current(t), "ip", "netns", "list"); !strings.Contains(out, "after") || strings.Contains(out, "before") {
		t.Errorf("ip netns list prints %q", out)
	}
	after, err := netns.Open(ctx, "after")
	if err != nil || !after.Equal(ns) {
		t.Fatalf("%v, %v", after, err)
	}
	if err := after.Delete(ctx); err != nil {
		t.Error(err)
	}
}

// Delete removes names, and no directory that has other files.
func TestDeleteKeepsOtherFiles(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	dir := t.TempDir()
	f := netns.Dir(dir)
	if err := errors.Join(
		os.WriteFile(dir+"/content", []byte("precious"), 0o600),
		os.Mkdir(dir+"/directory", 0o700),
		os.WriteFile(dir+"/debris", nil, 0),
		os.Symlink("/proc/self/ns/net", dir+"/link"),
	); err != nil {
		t.Fatal(err)
	}
	for name, says := range map[string]string{"content": "content", "directory": "directory"} {
		err := f.Delete(t.Context(), name)
		if !errors.Is(err, netns.ErrNotNamespace) || !errors.Is(err, os.ErrInvalid) || !strings.Contains(fmt.Sprint(err), says) {
			t.Errorf("Delete of %s: %v", name, err)
		}
		if _, err := os.Lstat(dir + "/" + name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"debris", "link"} {
		if err := f.Delete(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}
