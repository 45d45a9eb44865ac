package netns_test

import (
	"errors"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// New needs several descriptors, one after the other. Whichever of them there is not,
// it leaves none open.
func TestNewWithoutDescriptors(t *testing.T) {
	if !inChild(t, nil) {
		return
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for limit := uint64(4); limit < 200; limit++ {
		before := descriptors(t)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: old.Max}); err != nil {
			t.Fatal(err)
		}
		ns, err := netns.New(t.Context())
		if rerr := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); rerr != nil {
			t.Fatal(rerr)
		}
		if err == nil {
			ns.Close()
			if refused < 4 { // none at all, and one, two and three
				t.Errorf("refused %d times", refused)
			}
			return
		}
		refused++
		if !errors.Is(err, unix.EMFILE) {
			t.Errorf("limit %d: %v", limit, err)
		}
		if after := descriptors(t); after != before {
			t.Fatalf("limit %d: %d descriptors, then %d: %v", limit, before, after, err)
		}
	}
	t.Error("never enough")
}
