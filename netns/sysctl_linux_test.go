package netns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// fileInside reads a file below /proc/sys/net on a thread in the namespace.
func fileInside(t *testing.T, ns *netns.NS, path string) string {
	t.Helper()
	v, err := netns.Do(t.Context(), ns, ignoreCtx(func() (string, error) {
		b, err := os.ReadFile("/proc/sys/net/" + path)
		return strings.TrimRight(string(b), "\n"), err
	}))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// isInside says whether a file is below /proc/sys/net in the namespace.
func isInside(t *testing.T, ns *netns.NS, path string) bool {
	t.Helper()
	_, err := netns.Do(t.Context(), ns, ignoreCtx(func() (os.FileInfo, error) { return os.Stat("/proc/sys/net/" + path) }))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestSysctlActsOnItsNamespaceAlone(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	for _, tt := range []struct{ key, path, value string }{
		{"net.ipv4.ip_forward", "ipv4/ip_forward", "1"},
		{"net/ipv4/ip_forward", "ipv4/ip_forward", "0"},
		{"net.ipv4.conf.lo.rp_filter", "ipv4/conf/lo/rp_filter", "2"},
		{"net.ipv6.conf.all.forwarding", "ipv6/conf/all/forwarding", "1"},
		{"net.ipv4.ip_local_port_range", "ipv4/ip_local_port_range", "20000\t30001"},
		{"net.core.somaxconn", "core/somaxconn", "77"},
		{"net.unix.max_dgram_qlen", "unix/max_dgram_qlen", "33"},
	} {
		if !testutil.KernelAtLeast(6, 12) && !isInside(t, b, tt.path) {
			continue // user namespaces did not always see all of net.core
		}
		if strings.HasPrefix(tt.path, "ipv6/") && !isInside(t, b, "ipv6") {
			continue // ipv6.disable=1
		}
		other := fileInside(t, b, tt.path)
		for range 2 { // opened, and open already
			if err := a.SetSysctl(t.Context(), tt.key, tt.value); err != nil {
				t.Fatal(err)
			}
			if got, err := a.Sysctl(t.Context(), tt.key); err != nil || got != tt.value {
				t.Errorf("%s = %q, %v; set to %q", tt.key, got, err, tt.value)
			}
			if got := fileInside(t, a, tt.path); got != tt.value {
				t.Errorf("%s is %q in the file, set to %q", tt.key, got, tt.value)
			}
		}
		if got := fileInside(t, b, tt.path); got != other {
			t.Errorf("%s of the other namespace went from %q to %q", tt.key, other, got)
		}
	}
}

// The file of a link's setting dies with the link; a link of the same name has
// another.
func TestSysctlOfALinkThatComesAgain(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	const key = "net.ipv4.conf.v0/7.rp_filter"
	for range 3 {
		if _, err := ns.Sysctl(t.Context(), key); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("without the link: %v", err)
		}
		testutil.Run(t, ns, "ip", "link", "add", "v0.7", "type", "veth", "peer", "name", "v1")
		if err := ns.SetSysctl(t.Context(), key, "2"); err != nil {
			t.Fatal(err)
		}
		if got := fileInside(t, ns, "ipv4/conf/v0.7/rp_filter"); got != "2" {
			t.Errorf("the file says %q", got)
		}
		if got, err := ns.Sysctl(t.Context(), key); err != nil || got != "2" {
			t.Errorf("got %q, %v", got, err)
		}
		testutil.Run(t, ns, "ip", "link", "del", "v0.7")
	}
}

func TestSysctlErrors(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	get := func(key string) error { _, err := ns.Sysctl(t.Context(), key); return err }
	set := func(key, value string) error { return ns.SetSysctl(t.Context(), key, value) }
	for i, tt := range []struct{ err, is error }{
		{get(""), os.ErrInvalid},
		{get("net"), os.ErrInvalid},
		{get("net."), os.ErrInvalid},
		{get("kernel.hostname"), os.ErrInvalid},
		{get("net/../kernel/hostname"), os.ErrInvalid},
		{get("net.ipv4./"), os.ErrInvalid},
		{get("net.ipv4..ip_forward"), os.ErrInvalid},
		{get("net.ipv4.none"), os.ErrNotExist},
		{get("net.none.none"), os.ErrNotExist},
		{get("net.none"), os.ErrNotExist},
		{get("net.ipv4.conf"), syscall.EISDIR},
		{set("net.ipv4.ip_forward", ""), os.ErrInvalid},
		{set("net.ipv4.ip_forward", "1\n2"), os.ErrInvalid},
		{set("net.ipv4.ip_forward", "many"), syscall.EINVAL},
		{set("net.ipv4.none", "1"), os.ErrNotExist},
		{set("net.ipv4.tcp_available_congestion_control", "x"), os.ErrPermission},
		{ns.SetSysctl(cancelled, "net.ipv4.ip_forward", "1"), context.Canceled},
	} {
		var e *netns.Error
		if !errors.Is(tt.err, tt.is) || !errors.As(tt.err, &e) {
			t.Errorf("%d: %v, want %v", i, tt.err, tt.is)
		}
	}
	if err := get("net.ipv4.ip_forward"); err != nil {
		t.Fatal(err)
	}
	ns.Close()
	if err := get("net.ipv4.ip_forward"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := (*netns.NS)(nil).Sysctl(t.Context(), "net.ipv4.ip_forward"); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("nil handle: %v", err)
	}
}

func TestSysctlReadOnly(t *testing.T) {
	netnstest.NeedIPv6(t)
	if !inChild(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}) {
		return
	}
	const sys = "/proc/sys"
	if err := unix.Mount(sys, sys, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(sys, unix.MNT_DETACH)
	if err := unix.Mount("", sys, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	ns := netnstest.New(t)
	err := ns.SetSysctl(t.Context(), "net.ipv4.ip_forward", "1")
	if !errors.Is(err, syscall.EROFS) || errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		t.Errorf("set: %v", err)
	}
	if !strings.Contains(fmt.Sprint(err), "/proc/sys is mounted read-only") {
		t.Errorf("the error does not say why: %v", err)
	}
	if err := ns.SetSysctl(t.Context(), "net.ipv4.none", "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a setting that is not there: %v", err)
	}
	if got, err := ns.Sysctl(t.Context(), "net.ipv4.ip_forward"); err != nil || got != "0" {
		t.Errorf("get: %q, %v", got, err)
	}
}

// TestSysctlKeepsFewFiles uses more settings than are kept open, at the same
// time.
func TestSysctlKeepsFewFiles(t *testing.T) {
	netnstest.Need(t)
	before := descriptors(t)
	ns := netnstest.New(t)
	var keys []string
	for _, link := range []string{"all", "default", "lo"} {
		for _, name := range strings.Fields(`accept_local accept_redirects accept_source_route arp_accept arp_announce
			arp_filter arp_ignore arp_notify bootp_relay disable_policy disable_xfrm force_igmp_version forwarding
			ignore_routes_with_linkdown log_martians mc_forwarding medium_id promote_secondaries proxy_arp proxy_arp_pvlan
			route_localnet rp_filter secure_redirects send_redirects shared_media src_valid_mark tag`) {
			keys = append(keys, "net.ipv4.conf."+link+"."+name)
		}
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range keys {
				if _, err := ns.Sysctl(t.Context(), keys[(i+w*11)%len(keys)]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if open := descriptors(t) - before; open > 64+8 {
		t.Errorf("%d descriptors are open for %d settings", open, len(keys))
	}
	ns.Close()
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after Close", before, after)
	}
}

func TestSysctlAllocations(t *testing.T) {
	ns := netnstest.New(t)
	if n := allocs.PerRun(t, 100, func() {
		if err := ns.SetSysctl(t.Context(), "net.ipv4.ip_forward", "1"); err != nil {
			t.Fatal(err)
		}
	}); n > 4 {
		t.Errorf("%v allocations to set an open setting, want 4 at most", n)
	}
}

// descriptors counts those of the process.
func descriptors(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
