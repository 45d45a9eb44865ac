package containerd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

// programs are what the scenes need besides Debian's packages.
type programs struct {
	dir    string // of containerd, its shim and ctr, of crictl and critest
	plugin string // examples/cni
	probe  string
	tools  string // the version of crictl and critest
	err    error  // why dir is not complete
}

// build builds the programs. What cannot be built of the module tools is missing, which only those who need it say.
func build(t *testing.T) *programs {
	t.Helper()
	p := &programs{
		dir:    machine.Cache(t, "containerd"),
		plugin: machine.BuildProgram(t, "./examples/cni"),
		probe:  machine.BuildProgram(t, "./internal/engines/probe"),
	}
	p.err = p.buildTools()
	return p
}

// buildTools builds the module tools. Tags leave out what no scene uses.
func (p *programs) buildTools() error {
	const containerd, critools = "github.com/containerd/containerd/v2", "sigs.k8s.io/cri-tools"
	version, err := inTools("list", "-m", "-f", "{{.Version}}", critools)
	if err != nil {
		return err
	}
	p.tools = strings.TrimSpace(version)
	flags := "-ldflags=-s -w -X " + critools + "/pkg/version.Version=" + p.tools
	if _, err := inTools("build", "-tags=no_btrfs,no_devmapper,no_zfs,no_tracing", flags, "-o", p.dir+"/",
		containerd+"/cmd/containerd", containerd+"/cmd/containerd-shim-runc-v2", containerd+"/cmd/ctr", critools+"/cmd/crictl"); err != nil {
		return err
	}
	_, err = inTools("test", "-c", flags, "-o", filepath.Join(p.dir, "critest"), critools+"/cmd/critest")
	return err
}

// inTools runs go in the module tools.
func inTools(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = "tools"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("go %s in the module tools: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), err
}
