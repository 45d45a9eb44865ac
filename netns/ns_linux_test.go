package netns_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestNewHasLoopbackUpAndNothingElse(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	var links []struct {
		Name  string   `json:"ifname"`
		Flags []string `json:"flags"`
	}
	testutil.JSON(t, ns, &links, "ip", "-j", "link")
	if len(links) != 1 || links[0].Name != "lo" || !strings.Contains(strings.Join(links[0].Flags, ","), "UP") {
		t.Errorf("links of a new namespace: %+v, want lo alone, up", links)
	}
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if home.Equal(ns) || home.ID() == ns.ID() {
		t.Errorf("the new namespace %v is the current one", ns)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil || st.Ino != home.ID().Ino {
		t.Errorf("Current has inode %d, the process %d (%v)", home.ID().Ino, st.Ino, err)
	}
	if want := fmt.Sprintf("net:[%d]", ns.ID().Ino); ns.String() != want {
		t.Errorf("String() = %q, want %q", ns, want)
	}
}

func TestCreateIsVisibleToIPNetns(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	testutil.Witness(t, "ip")
	ctx := t.Context()
	ns, err := netns.Create(ctx, "named")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if out := testutil.Run(t, home, "ip", "netns", "list"); !strings.Contains(out, "named") {
		t.Errorf("ip netns list prints %q", out)
	}
	if ns.Name() != "named" || ns.String() != "named" || ns.Path() != "/run/netns/named" {
		t.Errorf("Name, String, Path = %q, %q, %q", ns.Name(), ns, ns.Path())
	}
	if _, err := netns.Create(ctx, "named"); !errors.Is(err, os.ErrExist) {
		t.Errorf("Create of a name that exists: %v", err)
	}
	again, err := netns.Open(ctx, "named")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !again.Equal(ns) {
		t.Errorf("Open gives %v, Create gave %v", again.ID(), ns.ID())
	}
	if err := ns.Delete(ctx); err != nil {
		t.Error(err)
	}
	if err := netns.Delete(ctx, "named"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("second Delete: %v", err)
	}
	if err := netns.IgnoreNotExist(netns.Delete(ctx, "named")); err != nil {
		t.Errorf("IgnoreNotExist passes %v on", err)
	}
	if _, err := netns.Open(ctx, "named"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of what is deleted: %v", err)
	}
	if b, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(b), "/run/netns/named") {
		t.Errorf("the mount is left:\n%s", b)
	}
}

func TestOpenNameMadeByIP(t *testing.T) {
	t.Parallel()
	home := current(t)
	testutil.Run(t, home, "ip", "netns", "add", "byip")
	ns, err := netns.Open(t.Context(), "byip")
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if out := testutil.Run(t, home, "ip", "netns", "list"); strings.Contains(out, "byip") {
		t.Errorf("ip netns list still prints %q", out)
	}
}

func TestLeftoverOfAKilledCreate(t *testing.T) {
	t.Parallel()
	ns := mustCreate(t, "alive") // makes the directory
	defer ns.Delete(t.Context())
	if err := os.WriteFile("/run/netns/debris", nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := netns.Open(t.Context(), "debris"); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("Open: %v", err)
	}
	if _, err := netns.Create(t.Context(), "debris"); !errors.Is(err, os.ErrExist) {
		t.Errorf("Create: %v", err)
	}
	if err := netns.Delete(t.Context(), "debris"); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if _, err := os.Stat("/run/netns/debris"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", ".", "..", "a/b", "/", "a b", "a\tb", "a\nb", "a\x00b", strings.Repeat("n", 256)} {
		_, cerr := netns.Create(t.Context(), name)
		_, oerr := netns.Open(t.Context(), name)
		for _, err := range []error{cerr, oerr, netns.Delete(t.Context(), name)} {
			var e *netns.Error
			if !errors.Is(err, os.ErrInvalid) || !errors.As(err, &e) || e.Op == "" || e.Subject == "" {
				t.Errorf("name %q: %v", name, err)
			}
		}
	}
}

func TestOpenPathTellsWhatIsNoNamespace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, says string
		is         error
	}{
		{"", "empty", os.ErrInvalid},
		{filepath.Join(dir, "none"), "no such file", os.ErrNotExist},
		{dir, "directory", netns.ErrNotNamespace},
		{file, "this is a file", os.ErrInvalid},
		{fifo, "pipe", os.ErrInvalid},
		{"/dev/null", "device", os.ErrInvalid},
		{"/proc/self/ns/mnt", "mount namespace", netns.ErrOtherKind},
		{"/proc/self/ns/user", "user namespace", os.ErrInvalid},
		{"/proc/self/status", "not a namespace", os.ErrInvalid},
	} {
		ns, err := netns.OpenPath(t.Context(), tt.path)
		if !errors.Is(err, tt.is) || !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("OpenPath(%q) = %v, %v; want %q", tt.path, ns, err, tt.says)
		}
	}
	ns, err := netns.OpenPath(t.Context(), "/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if !ns.Equal(current(t)) {
		t.Errorf("/proc/self/ns/net is %v", ns.ID())
	}
}

func TestOpenPid(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	cmd := exec.Command(tool.Path(t, "sleep"), "60")
	start := func() (struct{}, error) { return struct{}{}, cmd.Start() }
	if _, err := netns.Do(t.Context(), ns, ignoreCtx(start)); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	got, err := netns.OpenPid(t.Context(), cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if !got.Equal(ns) {
		t.Errorf("process %d is in %v, want %v", cmd.Process.Pid, got.ID(), ns.ID())
	}
	if _, err := netns.OpenPid(t.Context(), 1<<30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a pid that is gone: %v", err)
	}
	if _, err := netns.OpenPid(t.Context(), 0); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("pid 0: %v", err)
	}
}

func TestUseAfterClose(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	ns, err := netns.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ns.Close(), ns.Close()); err != nil {
		t.Fatalf("Close twice: %v", err)
	}
	_, doErr := netns.Do(t.Context(), ns, ignoreCtx(func() (int, error) { return 0, nil }))
	_, dialErr := ns.Dial(t.Context(), "tcp", "127.0.0.1:1")
	_, listenErr := ns.Listen(t.Context(), "tcp", "127.0.0.1:0")
	_, packetErr := ns.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	_, nlErr := ns.DialNetlink(t.Context(), unix.NETLINK_ROUTE, nil)
	_, exErr := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	for i, err := range []error{doErr, dialErr, listenErr, packetErr, nlErr, exErr, ns.WithFd(func(int) error { return nil })} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("use %d after Close: %v", i, err)
		}
	}
	if err := (*netns.NS)(nil).WithFd(nil); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("nil handle: %v", err)
	}
}

// TestNoPermission runs the test binary as a user without any capability.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	ns := mustCreate(t, "guarded")
	defer ns.Delete(t.Context())
	runChild(t, "TestChildUnprivileged", aUser())
}

func TestChildUnprivileged(t *testing.T) {
	childOnly(t)
	_, newErr := netns.New(t.Context())
	_, createErr := netns.Create(t.Context(), "mine")
	ns, err := netns.Open(t.Context(), "guarded")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	_, doErr := netns.Do(t.Context(), ns, ignoreCtx(func() (int, error) { return 0, nil }))
	for i, err := range []error{newErr, createErr, doErr, netns.Delete(t.Context(), "guarded")} {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("%d: %v, want os.ErrPermission", i, err)
		}
	}
	if _, err := os.Stat("/run/netns/mine"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the failed Create left its file: %v", err)
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	cause := errors.New("because")
	for _, tt := range []struct {
		err  netns.Error
		want string
	}{
		{netns.Error{Op: "link.Create", NS: "web", Subject: "link web0", Err: cause}, "link.Create link web0 in netns web: because"},
		{netns.Error{Op: "netns.New", Err: cause}, "netns.New: because"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func current(t *testing.T) *netns.NS {
	t.Helper()
	netnstest.Need(t)
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func mustCreate(t *testing.T, name string) *netns.NS {
	t.Helper()
	netnstest.Need(t)
	ns, err := netns.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}
