// Package race has contenders do the same work in turns, on one machine and in one run, for benchmarks. Every box
// and container has port 80 published on port 8080 of the machine, IPv4 and TCP, and answers there with its name.
package race

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/testutil/settle"
)

// Contender is one way to do the work.
type Contender struct {
	// Name is one word.
	Name string

	// Round does the work once for a box of a name, checks that it is done, undoes it, and returns what the work
	// took.
	Round func(b *testing.B, name string) time.Duration

	// Base does the part of the work that is not compared. What it took is taken off. Nil takes nothing off.
	Base func(b *testing.B, name string) time.Duration
}

// Run has each contender do b.N rounds, in turns whose order changes. It reports the median of each contender in
// milliseconds, and how many times the first contender's that is: the median of the ratios turn by turn, because the
// rounds of a turn shared the same machine.
//
// Before each round and base the kernel is given the time to remove the namespaces of those before, which would
// otherwise be a part of what comes next.
func Run(b *testing.B, m *machine.Machine, contenders ...Contender) {
	b.Helper()
	took := map[string][]time.Duration{}
	order := rand.New(rand.NewPCG(1, 1))
	for i := range b.N {
		turn := slices.Clone(contenders)
		order.Shuffle(len(turn), func(i, j int) { turn[i], turn[j] = turn[j], turn[i] })
		for _, c := range turn {
			took[c.Name] = append(took[c.Name], c.turn(b, m, i))
		}
	}
	b.ReportMetric(0, "ns/op") // which would be all contenders together
	first := took[contenders[0].Name]
	for _, c := range contenders {
		all := took[c.Name]
		b.ReportMetric(median(all).Seconds()*1000, c.Name+"-ms")
		ratios := make([]float64, len(all))
		for i := range all {
			ratios[i] = float64(all[i]) / float64(first[i])
		}
		if c.Name != contenders[0].Name {
			b.ReportMetric(median(ratios), c.Name+"/"+contenders[0].Name)
		}
	}
}

// turn is one round, less the base. Which of the two comes first changes from turn to turn.
func (c Contender) turn(b *testing.B, m *machine.Machine, i int) (d time.Duration) {
	b.Helper()
	steps := []func(){
		func() { d += c.Round(b, fmt.Sprintf("%s-%d", c.Name, i)) },
		func() { d -= c.Base(b, fmt.Sprintf("%s-base-%d", c.Name, i)) },
	}
	if c.Base == nil {
		steps = steps[:1]
	} else if i%2 == 1 {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := settle.Namespaces(b.Context(), m.LAN); err != nil {
			b.Fatal(err)
		}
		step()
	}
	return d
}

// Took is how long a function runs.
func Took(fn func()) time.Duration {
	begin := time.Now()
	fn()
	return time.Since(begin)
}

// median is the middle value, of an even number the upper one.
func median[T ~int64 | ~float64](values []T) T {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}
