package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// programEnv makes the test binary the program, with a machine of which nothing is known.
const programEnv = "BOXWIRE_MAP_PROGRAM"

func TestMain(m *testing.M) {
	if args := os.Getenv(programEnv); args != "" {
		program(strings.Fields(args), machine, quiet())
	}
	os.Exit(m.Run())
}

// A signal ends the program at once, also while pages are open and others wait for the first snapshot.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), programEnv+"=-http 127.0.0.1:0")
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		base := strings.TrimSuffix(line, "/\n")
		if err != nil || !strings.HasPrefix(base, "http://127.0.0.1:") || strings.HasSuffix(base, ":0") {
			t.Fatalf("the program prints %q, %v, %s", line, err, &errs)
		}
		resp, err := http.Get(base + "/")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", resp, err)
		}
		resp.Body.Close()
		waiting := make(chan error, 1)
		go func() {
			resp, err := http.Get(base + "/events")
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			waiting <- err
		}()
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || errs.Len() > 0 {
			t.Errorf("after %v the program ends with %v, %q", signal, err, &errs)
		}
		<-waiting
	}
}
