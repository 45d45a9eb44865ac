package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
)

// guestSays returns a command that stands in for QEMU.
func guestSays(script string) *exec.Cmd { return exec.Command("sh", "-c", script) }

func TestGuestIsFollowedToItsEnd(t *testing.T) {
	t.Parallel()
	console := filepath.Join(t.TempDir(), "console")
	if err := os.WriteFile(console, []byte("Kernel panic - not syncing: Fatal exception\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const boot = `echo '{"Event":"boot","Text":"6.1.0"}'; echo '{"Event":"alive"}'; `
	for _, c := range []struct{ name, script, want string }{
		{"done", boot + `echo '{"Event":"done"}'`, ""},
		{"done and not powered off", boot + `echo '{"Event":"done"}'; exec sleep 60`, ""},
		{"panics", boot, "ended before its last test"},
		{"dies while it writes", boot + `printf '{"Event":"do'`, "ended before its last test"},
		{"hangs", boot + `exec sleep 60`, "the guest hangs: it said nothing for 300ms"},
		{"cannot go on", boot + `echo '{"Event":"fault","Text":"no /proc"}'; exec sleep 60`, "cannot go on: no /proc"},
		{"talks nonsense", boot + `echo nonsense; exec sleep 60`, `said "nonsense\n"`},
		{"does not start", `echo qemu: no such machine >&2; exit 1`, "qemu: no such machine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []protocol.Event
			err := watch(t.Context(), guestSays(c.script), console, 300*time.Millisecond, func(r protocol.Record) { got = append(got, r.Event) })
			if c.want == "" {
				if err != nil || fmt.Sprint(got) != "[boot]" {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "Kernel panic") {
				t.Errorf("%v, want %q and the console", err, c.want)
			}
		})
	}
}

func TestGuestIsStoppedWithItsContext(t *testing.T) {
	t.Parallel()
	late := errors.New("the guest took longer than it may")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := watch(ctx, guestSays(`echo '{"Event":"boot"}'; exec sleep 60`), os.DevNull, time.Minute, func(protocol.Record) { cancel(late) })
	if !errors.Is(err, late) {
		t.Errorf("watch: %v", err)
	}

	console := filepath.Join(t.TempDir(), "console")
	if err := os.WriteFile(console, []byte("soft lockup"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, late)
	defer stop()
	err = watch(ctx, guestSays(`exec sleep 60`), console, time.Minute, nil)
	if !errors.Is(err, late) || !strings.Contains(err.Error(), "soft lockup") {
		t.Errorf("watch: %v", err)
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	if got := lastLines("a\nb\nc\n", 2); got != "b\nc" {
		t.Errorf("lastLines: %q", got)
	}
	if got := lastLines("", 2); got != "" {
		t.Errorf("lastLines of nothing: %q", got)
	}
}
