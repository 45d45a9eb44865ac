package testutil

import (
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
)

// What a witness complains of is no part of its answer, unless it fails.
func TestWitnessesMayComplain(t *testing.T) {
	t.Parallel()
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var got []int
	if JSON(t, ns, &got, "sh", "-c", "echo of something >&2; echo [7]"); len(got) != 1 || got[0] != 7 {
		t.Errorf("JSON reads %v", got)
	}
	if out := Run(t, ns, "sh", "-c", "echo of something >&2; echo answer"); out != "answer\n" {
		t.Errorf("Run returns %q", out)
	}
	out, err := Try(t, ns, "sh", "-c", "echo answer; echo of the end >&2; exit 3")
	if err == nil || !strings.Contains(out, "answer") || !strings.Contains(out, "of the end") {
		t.Errorf("Try returns %q, %v", out, err)
	}
}
