//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/version"
)

// Package invoke of CNI also runs plugins, but brings the libraries for HTTP and TLS along, and a third
// of the time that this plugin would take to start.

// ask runs the network's IPAM plugin for a verb, with the configuration and the environment of this
// one, and returns its answer. An error is that of the plugin, with its code.
func (r *request) ask(ctx context.Context, verb string) ([]byte, error) {
	path, err := r.findIPAM()
	if err != nil {
		return nil, err
	}
	return runPlugin(ctx, path, r.args.StdinData, append(os.Environ(), "CNI_COMMAND="+verb))
}

// findIPAM finds the network's IPAM plugin.
func (r *request) findIPAM() (string, error) {
	name := r.conf.IPAM.Type
	if strings.ContainsRune(name, filepath.Separator) {
		return "", fmt.Errorf("invalid plugin name: %s", name)
	}
	dirs := filepath.SplitList(os.Getenv("CNI_PATH"))
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("failed to find plugin %q in path %s", name, dirs)
}

// runPlugin runs a plugin. One that is being written is waited for.
func runPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	for try := 0; ; try++ {
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, path)
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, bytes.NewReader(stdin), &stdout, &stderr
		err := cmd.Run()
		switch {
		case err == nil:
			os.Stderr.Write(stderr.Bytes())
			return stdout.Bytes(), nil
		case !errors.Is(err, syscall.ETXTBSY) || try == 5:
			return nil, saidBy(err, stdout.Bytes(), stderr.Bytes())
		}
		time.Sleep(time.Second)
	}
}

// saidBy is the error that a plugin has printed.
func saidBy(err error, stdout, stderr []byte) error {
	said := &types.Error{}
	switch {
	case len(stdout) == 0 && len(stderr) == 0:
		said.Msg = fmt.Sprintf("netplugin failed with no error message: %v", err)
	case len(stdout) == 0:
		said.Msg = fmt.Sprintf("netplugin failed: %q: %v", stderr, err)
	default:
		if perr := json.Unmarshal(stdout, said); perr != nil {
			said.Msg = fmt.Sprintf("netplugin failed but error parsing its diagnostic message %q: %v", stdout, perr)
		}
	}
	return said
}

// readAnswer reads the result of an ADD. One without a version has that of the configuration.
func readAnswer(stdin, stdout []byte) (types.Result, error) {
	was, err := (&version.ConfigDecoder{}).Decode(stdin)
	if err != nil {
		return nil, err
	}
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(stdout, &answer); err != nil {
		return nil, fmt.Errorf("failed to unmarshal raw result: %w", err)
	}
	var is string
	if json.Unmarshal(answer["cniVersion"], &is) == nil && is != "" {
		return create.Create(is, stdout)
	}
	if answer == nil {
		answer = map[string]json.RawMessage{}
	}
	answer["cniVersion"], _ = json.Marshal(was)
	if stdout, err = json.Marshal(answer); err != nil {
		return nil, err
	}
	return create.Create(was, stdout)
}

// speaks reports whether the network's IPAM plugin has a version of CNI.
func (r *request) speaks(ctx context.Context, want string) (bool, error) {
	path, err := r.findIPAM()
	if err != nil {
		return false, err
	}
	stdin := fmt.Appendf(nil, `{"cniVersion":%q}`, version.Current())
	// Plugins of old want all of the environment.
	out, err := runPlugin(ctx, path, stdin, append(os.Environ(), "CNI_COMMAND=VERSION", "CNI_NETNS=dummy", "CNI_IFNAME=dummy", "CNI_PATH=dummy"))
	if err != nil {
		return false, err
	}
	info, err := (&version.PluginDecoder{}).Decode(out)
	if err != nil {
		return false, err
	}
	for _, v := range info.SupportedVersions() {
		if v == want {
			return true, nil
		}
	}
	return false, nil
}
