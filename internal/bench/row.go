package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// A row is one kind of work, done by several contenders.
type row struct {
	name string // of the command line and the table
	work string // what is done, in one line
	unit string // what one figure is the cost of: "box", "port", ...
	n    int    // rounds at full size; -n asks for others

	plugins bool // it starts the CNI plugins, which have to be built

	// run does the work with each contender and hands over the figures.
	run func(ctx context.Context, b *bout) error
}

// A contender is one way to do the work of a row. Everything but round is
// untimed.
type contender struct {
	name string

	// round does the work once and returns what it took: set-up and clean-up
	// that the work does not consist of are outside the measured time.
	round func(ctx context.Context, i int) (time.Duration, error)

	// check looks at what all rounds have left behind and returns an error if
	// it is not what the row asks for. Nil where round does so itself.
	check func(ctx context.Context) error

	// close takes apart what is left.
	close func() error

	// namespaces are what the part of each round took that made a namespace, in
	// rows where it is one.
	namespaces []time.Duration
}

// warmUp is how many rounds each contender does before the first that counts.
const warmUp = 3

// interleave runs the contenders in turn, A B C, B A C, C A B, n times, and files
// their figures. Whatever disturbs the machine for a while disturbs all of them; and
// as the order is another each time, none of them always comes behind the one that
// empties the caches, or leaves its garbage to be collected.
func (b *bout) interleave(ctx context.Context, n int, contenders ...*contender) (err error) {
	defer func() { err = errors.Join(err, closeAll(contenders)) }()
	before := 0 // of an earlier call: its orders were others
	for _, d := range b.figures {
		before += len(d)
	}
	order := rand.New(rand.NewPCG(1, uint64(before)))
	for i := range warmUp + n {
		turns := slices.Clone(contenders)
		if i != warmUp { // the table has them in the order of the first that counts
			order.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
		}
		for _, c := range turns {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := b.turn(ctx, c, i, i >= warmUp); err != nil {
				return fmt.Errorf("%s: round %d: %w", c.name, i, err)
			}
		}
	}
	for _, c := range contenders {
		if c.check == nil {
			continue
		}
		if err := c.check(ctx); err != nil {
			return fmt.Errorf("%s did not do the work: %w", c.name, err)
		}
	}
	return nil
}

// closeAll closes contenders and says what went wrong with any.
func closeAll(contenders []*contender) (err error) {
	for _, c := range contenders {
		if c.close == nil {
			continue
		}
		if cerr := c.close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("%s: clearing up: %w", c.name, cerr))
		}
	}
	return err
}
