package ct

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// A table is read as a whole where it is small, and filtered by the kernel where
// it is large. Either way brings the same.
func TestFlowsAreFoundInTablesOfEverySize(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns, table := tracked(t)
	send(t, ns, "127.0.0.1:53", "127.0.0.1:54", "127.0.0.2:53", "[::1]:53", "[::1]:54", "[::1]:56")
	for _, c := range []struct {
		targets []Target
		want    []string
	}{
		{[]Target{udp("0.0.0.0:53"), udp("[::]:53")}, []string{"127.0.0.1:53", "127.0.0.2:53", "[::1]:53"}},
		{[]Target{udp("0.0.0.0:54")}, []string{"127.0.0.1:54"}},
		{[]Target{udp("0.0.0.0:56"), udp("[::]:56"), udp("127.0.0.2:53")}, []string{"127.0.0.2:53", "[::1]:56"}},
	} {
		for _, entries := range []int{1, math.MaxInt32} {
			flows, err := table.find(t.Context(), c.targets, newMatcher(c.targets), entries)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range flows {
				got = append(got, f.Orig.Dst.String())
			}
			if slices.Sort(got); !slices.Equal(got, c.want) {
				t.Errorf("%+v in a table of %d: %v, want %v", c.targets, entries, got, c.want)
			}
		}
	}
}

// A filter for both families would make one dump of two. It is refused (5.8 to
// 7.2), and never taken for less than it says.
func TestKernelFiltersOneFamilyInADump(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns, table := tracked(t)
	send(t, ns, "127.0.0.1:53", "127.0.0.1:54", "[::1]:53")
	both := selection(udp("0.0.0.0:53"))
	both[0] = unix.AF_UNSPEC
	flows, err := table.dump(t.Context(), both, nil)
	if !errors.Is(err, unix.EOPNOTSUPP) && (err != nil || len(flows) != 2) {
		t.Errorf("%+v, %v", flows, err)
	}
}

// BenchmarkFlush flushes for targets that hold none of the flows that are there,
// in a table of few and of many.
func BenchmarkFlush(b *testing.B) {
	for _, n := range []int{0, 1, 4000, 50000} {
		ns, table := tracked(b)
		testutil.Flows(b, ns, n)
		for _, c := range []struct {
			name    string
			targets []Target
		}{
			{"filter", []Target{udp("127.0.0.1:53")}},
			{"unanswered", []Target{unanswered(udp("0.0.0.0:53"))}},
			{"walk", []Target{udp("0.0.0.0:53")}},
			{"walk-both-families", []Target{udp("0.0.0.0:53"), udp("[::]:53")}},
		} {
			b.Run(fmt.Sprintf("%s/flows=%d", c.name, n), func(b *testing.B) {
				for b.Loop() {
					if err := table.Flush(b.Context(), c.targets, everyAddr); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
