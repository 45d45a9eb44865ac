package browser

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A program is a run of examples/map with -http.
type program struct {
	testing.TB
	cmd  *exec.Cmd
	base string // its URL, without the slash at the end
	errs strings.Builder
}

// serve runs the program at an address until the test ends.
func serve(t testing.TB, address string) *program {
	t.Helper()
	p := &program{TB: t}
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(os.Getenv(insideEnv), "map"), "-http", address)
	p.cmd.Stderr = &p.errs
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.stop()
		t.Fatalf("the program prints %q, %v, %s", line, err, &p.errs)
	}
	p.base = strings.TrimSuffix(line, "/\n")
	return p
}

// address is where the program listens.
func (p *program) address() string { return strings.TrimPrefix(p.base, "http://") }

// stop interrupts the program. It has to end well.
func (p *program) stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Signal(os.Interrupt)
	hanging := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer hanging.Stop()
	if err := p.cmd.Wait(); err != nil || p.errs.Len() > 0 {
		p.Errorf("the program ends with %v: %s", err, &p.errs)
	}
}

// kill ends the program without a word.
func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}
