package testutil

import "testing"

func TestTheKernelsShareTheCases(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3, 4} {
		taken := map[int]bool{}
		for _, release := range []string{"5.10.0-32-amd64", "6.1.0-40-amd64", "6.12.30+deb13-amd64", "7.2.13+deb14-amd64"} {
			taken[turn(release)%n] = true
		}
		if len(taken) != n {
			t.Errorf("of %d cases, the kernels take %v", n, taken)
		}
	}
}
