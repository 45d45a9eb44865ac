package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestContendersTakeTurnsAfterAWarmUp(t *testing.T) {
	t.Parallel()
	var turns []string
	closed := 0
	make := func(name string) *contender {
		return &contender{
			name:  name,
			close: func() error { closed++; return nil },
			round: func(_ context.Context, i int) (time.Duration, error) {
				turns = append(turns, name)
				return time.Duration(i), nil
			},
		}
	}
	b := newBout(2, false)
	if err := b.interleave(t.Context(), 20, make("a"), make("b")); err != nil {
		t.Fatal(err)
	}
	first := 0 // how often a came first
	for i := 0; i < len(turns); i += 2 {
		if turns[i] == turns[i+1] {
			t.Errorf("one had two turns in a round: %v", turns)
		}
		if turns[i] == "a" {
			first++
		}
	}
	if rounds := warmUp + 20; len(turns) != 2*rounds || first < rounds/4 || first > rounds*3/4 {
		t.Errorf("%d turns, in %d rounds a came first: %v", len(turns), first, turns)
	}
	if !slices.Equal(b.order, []string{"a", "b"}) {
		t.Errorf("the table's order is %v", b.order)
	}
	if got := b.figures["a"]; len(got) != 20 || got[0] != warmUp || got[19] != warmUp+19 {
		t.Errorf("the figures of a are %v", got)
	}
	if closed != 2 {
		t.Errorf("%d contenders were closed, want 2", closed)
	}
}

func TestAContenderThatDidLessIsAnError(t *testing.T) {
	t.Parallel()
	less := errors.New("a route is missing")
	c := &contender{
		name:  "lazy",
		round: func(context.Context, int) (time.Duration, error) { return 1, nil },
		check: func(context.Context) error { return less },
	}
	if err := newBout(1, false).interleave(t.Context(), 1, c); !errors.Is(err, less) {
		t.Errorf("interleave returns %v", err)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	b := newBout(3, true)
	for i := range 3 {
		b.add("fast", time.Duration(10+i))
		b.add("slow", time.Duration(20+2*i)) // each round twice as long
	}
	b.atMost("fast", "slow", 0.5)
	b.atMost("slow", "fast", 1.9)
	b.faster("fast", "slow", 2)
	b.faster("slow", "fast", 2)
	for i, want := range []struct {
		value float64
		holds bool
	}{{0.5, true}, {2, false}, {2, true}, {0.5, false}} {
		if c := b.claims[i]; c.Value != want.value || c.Holds != want.holds {
			t.Errorf("claim %d is %+v, want %v and %t", i, c, want.value, want.holds)
		}
	}
	res := b.result(&row{name: "r"}, nil)
	if len(res.Series) != 2 || res.Series[0].Name != "fast" || res.Series[0].Median != 0.011 || res.Series[1].Max != 0.024 {
		t.Errorf("the result is %+v", res.Series)
	}
}

func TestGrowth(t *testing.T) {
	t.Parallel()
	b := newBout(4, true)
	for _, d := range []time.Duration{1, 1, 3, 3} {
		b.add("s", d*time.Millisecond)
	}
	b.grows("s", 2, 2)
	b.growth("s", "chart", "x", "y", 2)
	if c := b.claims[0]; c.Value != 3 || c.Holds {
		t.Errorf("the claim is %+v, want 3 and missed", c)
	}
	if c := b.curves[0]; !slices.Equal(c.Value, []Point{{2, 1}, {4, 3}}) {
		t.Errorf("the curve is %+v", c)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	got, err := choose("do, attach")
	if err != nil || len(got) != 2 || got[0] != &doRow || got[1] != &attachRow {
		t.Errorf("choose returns %v, %v", got, err)
	}
	if _, err := choose("do,nothing"); err == nil {
		t.Error("an unknown row is taken")
	}
}
