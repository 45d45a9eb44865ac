//go:build linux

package main

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
)

func TestJobIsRunToItsEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		script, want string
		status       int
	}{
		{"echo one; echo two >&2; pwd", "one\ntwo\n/\n", 0},
		{"printf 'no end of line'; exit 3", "no end of line", 3},
		{"echo $WORD; kill -9 $$", "said\n", 128 + 9},
		{"head -c 100000 /dev/zero | tr '\\0' x", strings.Repeat("x", 100000), 0},
	} {
		var got strings.Builder
		status, err := run(protocol.Job{Dir: "/", Args: []string{"/bin/sh", "-c", c.script}, Env: []string{"WORD=said", "PATH=/bin:/usr/bin"}},
			func(text string) { got.WriteString(text) })
		if err != nil || status != c.status || got.String() != c.want {
			t.Errorf("%s: status %d, %v, output %.80q, want %d, %.80q", c.script, status, err, got.String(), c.status, c.want)
		}
	}
	if _, err := run(protocol.Job{Dir: "/", Args: []string{"/no/such/program"}}, nil); err == nil {
		t.Error("a missing program ran")
	}
}

func TestJobIsNotWaitedForByWhatItLeaves(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	status, err := run(protocol.Job{Dir: "/", Args: []string{"/bin/sh", "-c", "sleep 60 & echo $!"}, Env: []string{"PATH=/bin:/usr/bin"}},
		func(text string) { got.WriteString(text) })
	if err != nil || status != 0 {
		t.Fatalf("status %d, %v", status, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(got.String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("what was left: %v", err)
	}
}
