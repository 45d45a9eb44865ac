package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/vmtest/protocol"
)

// silence is how long a guest may say nothing before it counts as hung. It shows
// every five seconds that it runs, but the machine may be busy.
const silence = 2 * time.Minute

// consoleTail is how many lines of a failed guest's console are shown.
const consoleTail = 80

// boot boots a kernel with an initramfs and passes the guest's records on. It
// returns nil after the last one; a guest that ends or goes silent before is an
// error with the end of its console. The files it needs are made in dir.
func boot(ctx context.Context, k kernel, initramfs, dir string, kvm bool, record func(protocol.Record)) error {
	qemu, err := find("qemu-system-x86_64")
	if err != nil {
		return err
	}
	// One thread emulates all processors of a guest. With one for each, a guest dies
	// now and then where its kernel patches the code that another processor runs, and
	// two guests on two cores are slower.
	accel := "tcg,thread=single"
	if kvm {
		accel = "kvm"
	}
	console := consoleOf(dir)
	args := []string{
		"-nodefaults", "-no-reboot", "-display", "none", "-smp", "2", "-m", "1G", "-cpu", "max", "-accel", accel,
		"-kernel", k.image(), "-initrd", initramfs,
		"-append", "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic tsc=unstable " + k.parameter,
		"-serial", "file:" + console,
		"-serial", "stdio",
	}
	return watch(ctx, exec.Command(qemu, args...), console, silence, record)
}

// consoleOf is the file of the console of a guest whose files are in dir.
func consoleOf(dir string) string { return filepath.Join(dir, "console") }

// watch runs a guest whose records come from its standard output.
func watch(ctx context.Context, guest *exec.Cmd, console string, silence time.Duration, record func(protocol.Record)) error {
	var stderr strings.Builder
	guest.Stderr = &stderr
	stdout, err := guest.StdoutPipe()
	if err != nil {
		return err
	}
	if err := guest.Start(); err != nil {
		return err
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		r := bufio.NewReader(stdout)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	err = follow(ctx, lines, silence, record)
	guest.Process.Kill() // after its last record there is nothing to wait for
	for range lines {
	}
	guest.Wait()
	if err == nil || ctx.Err() == context.Canceled {
		return err
	}
	return fmt.Errorf("%w%s%s", err, indent(stderr.String()), indent(tail(console)))
}

// follow reads records until the last one.
func follow(ctx context.Context, lines <-chan string, silence time.Duration, record func(protocol.Record)) error {
	bound := time.NewTimer(silence)
	defer bound.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-bound.C:
			return fmt.Errorf("the guest hangs: it said nothing for %v", silence)
		case line, ok := <-lines:
			if !ok {
				return errors.New("the guest ended before its last test, by a panic perhaps")
			}
			bound.Reset(silence)
			var r protocol.Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				return fmt.Errorf("the guest said %q: %w", line, err)
			}
			switch r.Event {
			case protocol.Alive:
			case protocol.Fault:
				return fmt.Errorf("the guest cannot go on: %s", r.Text)
			case protocol.Done:
				return nil
			default:
				record(r)
			}
		}
	}
}

// tail returns the end of a guest's console.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return lastLines(strings.ReplaceAll(string(b), "\r", ""), consoleTail)
}

// lastLines returns the last n lines of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// indent sets lines apart from the text around them.
func indent(text string) string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return ""
	}
	return "\n    " + strings.ReplaceAll(text, "\n", "\n    ")
}
