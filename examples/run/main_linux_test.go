package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// mainEnv makes the test binary the program itself.
const mainEnv = "BOXWIRE_RUN_MAIN_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) == "1" {
		main()
	}
	netnstest.Main(m)
}

const usage = `usage: run [flags] [--] CMD [ARG...]   run CMD in a box, wait, clean up
       run exec NAME CMD [ARG...]      run CMD in a box that exists
       run ls [-json]                  list the boxes
       run explain [flags] [NAME...]   say why a port or a box is not reached
       run rm NAME...                  remove boxes and all that is theirs
       run gc                          remove what killed runs have left

flags:
`

// What else the program does is tested where its code is.
func TestTheProgramIsTheRunner(t *testing.T) {
	t.Parallel()
	sh := tool.Path(t, "sh")
	host := netnstest.New(t)
	for _, test := range []struct {
		args   []string
		status int
		out    string // how it begins
		err    string
	}{
		{[]string{"-h"}, 0, usage, ""},
		{[]string{"-name", "by-main", "--", sh, "-c", "echo $0 out; exit 7", "the"}, 7, "the out\n", ""},
		{[]string{"rm", "nobody"}, 125, "", "run: there is no box nobody\n"},
	} {
		cmd := host.Command(t.Context(), "/proc/self/exe", test.args...)
		cmd.Env = append(os.Environ(), mainEnv+"=1")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if status := cmd.ProcessState.ExitCode(); status != test.status || !strings.HasPrefix(string(out), test.out) || stderr.String() != test.err {
			t.Errorf("run %q ended with %d, %q and %q, want %d, %q and %q", test.args, status, out, &stderr, test.status, test.out, test.err)
		}
	}
}
