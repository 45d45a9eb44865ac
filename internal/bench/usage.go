package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A usage is what some work has kept processors busy with, in the program and
// in the kernel.
type usage struct {
	user, kernel, wall time.Duration
}

func (u usage) busy() time.Duration { return u.user + u.kernel }

// spent adds up what took has measured since it was last emptied.
var spent struct {
	sync.Mutex
	usage
}

// used is what the process has spent so far, with those that it has waited for.
func used() (u usage) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if unix.Getrusage(who, &r) == nil {
			u.user += time.Duration(r.Utime.Nano())
			u.kernel += time.Duration(r.Stime.Nano())
		}
	}
	return u
}

// took measures fn. Within another call it would count twice.
func took(fn func() error) (time.Duration, error) {
	before := used()
	begin := time.Now()
	err := fn()
	wall := time.Since(begin)
	after := used()
	spent.Lock()
	defer spent.Unlock()
	spent.user += after.user - before.user
	spent.kernel += after.kernel - before.kernel
	spent.wall += wall
	return wall, err
}

// turn lets a contender do one round, and files it if it counts.
func (b *bout) turn(ctx context.Context, c *contender, i int, counts bool) error {
	spent.Lock()
	spent.usage = usage{}
	spent.Unlock()
	d, err := c.round(ctx, i)
	if err != nil || !counts {
		return err
	}
	b.add(c.name, d)
	spent.Lock()
	defer spent.Unlock()
	if spent.wall == 0 {
		return nil
	}
	// A figure may be a part of what was measured: one box of 300, one call of 100.
	part := float64(d) / float64(spent.wall)
	sum := b.usages[c.name]
	sum.user += time.Duration(part * float64(spent.user))
	sum.kernel += time.Duration(part * float64(spent.kernel))
	sum.wall += d
	b.usages[c.name] = sum
	return nil
}

// ticks is how long a series has to keep processors busy until it is known how
// much of that was in the kernel: it looks at what a processor does a hundred
// times a second or more, at the clock's tick.
const ticks = 200 * time.Millisecond

// explain has the note about processor time speak of these series: it shows
// whose the difference between them is.
func (b *bout) explain(series ...string) {
	for _, name := range series {
		if b.has(name) && !slices.Contains(b.explained, name) {
			b.explained = append(b.explained, name)
		}
	}
}

// processors is that note, or nothing.
func (b *bout) processors() []string {
	if len(b.explained) == 0 {
		return nil
	}
	var all []string
	for _, name := range b.explained {
		u, n := b.usages[name], float64(len(b.figures[name]))
		text := fmt.Sprintf("%s for %.1f µs", name, micro(u.busy())/n)
		if u.busy() >= ticks {
			text += fmt.Sprintf(" (%.0f %% in the kernel)", 100*float64(u.kernel)/float64(u.busy()))
		}
		all = append(all, text)
	}
	return []string{"How long processors were busy, on average: " + strings.Join(all, "; ") + "."}
}
