//go:build linux

package lab_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
)

// A ticker hears the clock of a process.
type ticker struct {
	t *testing.T
	c net.PacketConn
}

// tick waits for the next packet of a process that was sent after now.
func (k ticker) tick(pid int) {
	k.t.Helper()
	now := time.Now().UnixNano()
	k.c.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 64)
	for {
		n, _, err := k.c.ReadFrom(buf)
		if err != nil {
			k.t.Fatal(err)
		}
		var from int
		var at int64
		if _, err := fmt.Sscan(string(buf[:n]), &from, &at); err != nil {
			k.t.Fatal(err)
		}
		if from == pid && at > now {
			return
		}
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2}})
	a, b := l.Hosts[0], l.Hosts[1]
	c, err := b.NS.ListenPacket(t.Context(), "udp", b.Addr4().Addr().String()+":0")
	must(t, err)
	defer c.Close()
	k := ticker{t, c}

	p := a.Program("clock", c.LocalAddr().String())
	p.Env = []string{"CLOCK=wall"}
	if _, err := p.Wait(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("waiting before the start: %v", err)
	}
	must(t, p.Kill())
	must(t, p.Start())
	first := p.Pid()
	k.tick(first)
	if err := p.Start(); !errors.Is(err, os.ErrExist) {
		t.Errorf("started twice: %v", err)
	}
	want := fmt.Sprintf("clock in net:[%d] wall\n", a.NS.ID().Ino)
	must(t, p.WaitOutput(soon(t), want))

	must(t, p.Pause())
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", first))
	if err != nil || !strings.Contains(string(stat), ") T ") {
		t.Errorf("paused: %s, %v", stat, err)
	}
	must(t, p.Resume())
	k.tick(first)

	must(t, p.Pause())
	must(t, p.Kill()) // of a paused one
	if code, err := p.Wait(t.Context()); code != -1 || err != nil || p.Running() {
		t.Errorf("killed: %d, %v", code, err)
	}
	if err := p.Pause(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("paused when killed: %v", err)
	}
	must(t, p.Start())
	k.tick(p.Pid())
	if code, err := p.Stop(soon(t)); code != 7 || err != nil {
		t.Errorf("stopped: %d, %v", code, err)
	}
	if p.Output() != want+want {
		t.Errorf("it said %q in all", p.Output())
	}
}

func TestProcessThatFails(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{1}})
	p := l.Hosts[0].Program("fail", "a reason")
	must(t, p.Start())
	if code, err := p.Wait(soon(t)); code != 3 || err != nil || p.Output() != "fails because of a reason\n" {
		t.Errorf("%d, %v, %q", code, err, p.Output())
	}
	if err := p.WaitOutput(soon(t), "success"); err == nil || !strings.Contains(err.Error(), "it has ended") {
		t.Errorf("waiting for what it never prints: %v", err)
	}
	if err := l.Hosts[0].Program("nothing").Start(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unknown program: %v", err)
	}
	var b strings.Builder
	l.Dump(&b)
	for _, want := range []string{"host1", "fail on host1 (ended with status 3)", "fails because of a reason", "via 198.18.0.1"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in the dump:\n%s", want, b.String())
		}
	}
}
