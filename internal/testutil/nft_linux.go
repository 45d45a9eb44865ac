package testutil

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// LoadNFT has nft load a file. Where protocols stand in a concatenation with ranges,
// nft before 1.1.3 converts the byte order of their one byte as if they were two,
// which newer kernels refuse (seen with 1.0.6 on 6.12.117 and 7.2.13): the test
// is skipped then.
func LoadNFT(t testing.TB, ns *netns.NS, file string) {
	t.Helper()
	out, err := Try(t, ns, "nft", "-f", file)
	if err == nil {
		return
	}
	if strings.Contains(out, "Invalid argument") { // maps as sets: see inMap of package nat
		NeedKernel(t, 6, 3, "lookups in maps without their data", unix.EINVAL)
	}
	var v [3]int
	version := Run(t, ns, "nft", "--version")
	if _, serr := fmt.Sscanf(version, "nftables v%d.%d.%d", &v[0], &v[1], &v[2]); serr != nil {
		t.Fatalf("nft --version: %v in %q", serr, version)
	}
	if strings.Contains(out, "meta l4proto") && strings.Contains(out, "Operation not supported") && slices.Compare(v[:], []int{1, 1, 3}) < 0 {
		t.Skipf("the witness nft is too old for this kernel: version %d.%d.%d", v[0], v[1], v[2])
	}
	if users, rerr := os.ReadFile("/proc/self/uid_map"); rerr == nil && strings.Contains(out, "Message too long") && !strings.Contains(string(users), "4294967295") {
		t.Skip("the witness nft sends no transaction of this size in a user namespace: it enlarges its buffer by SO_SNDBUFFORCE alone")
	}
	t.Fatalf("nft -f %s in netns %v: %v\n%s", file, ns, err, out)
}
