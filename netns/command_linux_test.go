package netns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestCommandStartsInTheNamespace(t *testing.T) {
	t.Parallel()
	tool.Path(t, "sh")
	tool.Path(t, "readlink")
	ns := netnstest.New(t)
	ctx := t.Context()
	want := fmt.Sprintf("net:[%d]\n", ns.ID().Ino)
	out, err := ns.Command(ctx, "readlink", "/proc/self/ns/net").Output()
	if err != nil || string(out) != want {
		t.Errorf("Output: %q, %v, want %q", out, err, want)
	}
	cmd := ns.Command(ctx, "sh", "-c", "cat; readlink /proc/self/ns/net >&2")
	cmd.Stdin = strings.NewReader("in ")
	out, err = cmd.CombinedOutput()
	if err != nil || string(out) != "in "+want {
		t.Errorf("CombinedOutput: %q, %v, want %q", out, err, "in "+want)
	}
	cmd = ns.Command(ctx, "readlink", "/proc/self/ns/net")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out, err = io.ReadAll(pipe)
	if werr := cmd.Wait(); err != nil || werr != nil || string(out) != want {
		t.Errorf("StdoutPipe: %q, %v, %v", out, err, werr)
	}
	_, err = ns.Command(ctx, "sh", "-c", "echo why >&2; exit 3").Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || string(exit.Stderr) != "why\n" {
		t.Errorf("a program that fails: %v", err)
	}
}

func TestCommandThatDoesNotStart(t *testing.T) {
	tool.Path(t, "true")
	ns := netnstest.New(t)
	before := descriptors(t)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	closed := netnstest.New(t)
	closed.Close()
	for i, tt := range []struct{ err, is error }{
		{ns.Command(t.Context(), "no-such-program").Run(), exec.ErrNotFound},
		{ns.Command(t.Context(), "/dev/null").Run(), os.ErrPermission},
		{ns.Command(done, "true").Run(), context.Canceled},
		{closed.Command(t.Context(), "true").Run(), os.ErrClosed},
	} {
		if !errors.Is(tt.err, tt.is) {
			t.Errorf("%d: %v, want %v", i, tt.err, tt.is)
		}
	}
	cmd := closed.Command(t.Context(), "true")
	if _, err := cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("with a pipe: %v", err)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestCommandEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := ns.Command(ctx, tool.Path(t, "sleep"), "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("the process has ended well")
	}
}
