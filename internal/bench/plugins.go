package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The environment of the second run says where the plugins are, or why there are
// none.
const (
	pluginsEnv   = "BOXWIRE_BENCH_PLUGINS"
	noPluginsEnv = "BOXWIRE_BENCH_NO_PLUGINS"
)

// buildPlugins builds the CNI plugins that rows start into dir: the reference
// ones in the versions of go.mod, which names them as tools, and the example. It
// is done outside the namespaces, because Go may have to fetch what is missing.
func buildPlugins(ctx context.Context, dir string) error {
	mod, err := os.ReadFile("go.mod")
	if err != nil || !bytes.HasPrefix(mod, []byte("module github.com/boxwire/boxwire/internal/bench\n")) {
		return errors.New("the directory that the program is started in is not internal/bench, where they are built from")
	}
	for _, args := range [][]string{
		{"build", "-o", dir + "/", "tool"},
		{"build", "-o", dir + "/", "./nothing"},
		{"build", "-C", "../../examples/cni", "-buildvcs=false", "-o", filepath.Join(dir, "boxwire"), "."},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as its README says
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// pluginsEnviron is what the second run learns of buildPlugins.
func pluginsEnviron(dir string, err error) string {
	if err != nil {
		return noPluginsEnv + "=" + err.Error()
	}
	return pluginsEnv + "=" + dir
}

// pluginFolder returns where the plugins are, once what the reference ones need
// is there, too.
func pluginFolder() (string, error) {
	dir := os.Getenv(pluginsEnv)
	if dir == "" {
		return "", notRun("the CNI plugins were not built: " + os.Getenv(noPluginsEnv))
	}
	if _, err := tool("iptables"); err != nil {
		return "", err
	}
	return dir, nil
}

// tool finds a program that a contender runs.
func tool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", notRun(name + " is not installed")
	}
	return path, nil
}
