//go:build linux

package lab_test

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
)

var programs = map[string]func([]string) int{"clock": clockMain, "fail": failMain}

func TestMain(m *testing.M) {
	if os.Getenv(programTestEnv) != "" {
		lab.Main(programs)
		os.Exit(program())
	}
	labtest.Main(m, programs)
}

// clockMain tells the time to whoever listens on the address of its first argument: a packet a millisecond. SIGTERM ends it
// with status 7. It says where it runs first.
func clockMain(args []string) int {
	at, _ := os.Readlink("/proc/self/ns/net")
	fmt.Println("clock in", at, os.Getenv("CLOCK"))
	c, err := net.Dial("udp", args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	tick := time.NewTicker(time.Millisecond)
	for {
		select {
		case <-stop:
			return 7
		case now := <-tick.C:
			fmt.Fprintf(c, "%d %d", os.Getpid(), now.UnixNano())
		}
	}
}

func failMain(args []string) int {
	fmt.Fprintln(os.Stderr, "fails because of", args[0])
	return 3
}
