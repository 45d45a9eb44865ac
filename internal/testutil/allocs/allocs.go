// Package allocs counts the allocations of what tests bound.
package allocs

import "testing"

// PerRun returns how often f allocates, on average of so many runs, as
// testing.AllocsPerRun does. It skips the test if the race detector is on: with
// it values escape, and a sync.Pool drops what it holds at random, so that the
// count is another in each run.
func PerRun(t *testing.T, runs int, f func()) float64 {
	t.Helper()
	if raceDetector {
		t.Skip("the race detector adds allocations of its own")
	}
	return testing.AllocsPerRun(runs, f)
}
