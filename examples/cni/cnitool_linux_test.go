package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The directory of cnitool, CNI's own runtime for people, is in BOXWIRE_CNI_PLUGINS.
func TestCnitoolPlugsAContainerIn(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath(filepath.Join(os.Getenv("BOXWIRE_CNI_PLUGINS"), "cnitool"))
	if err != nil {
		t.Skipf("BOXWIRE_CNI_PLUGINS names no directory with cnitool: %v", err)
	}
	r := newRig(t, "")
	if err := os.WriteFile(filepath.Join(r.dir, "10-testnet.conflist"), r.list.Bytes, 0o644); err != nil {
		t.Fatal(err)
	}
	c := r.container("c1", "")
	// run runs the verbs, one after the other, with a /var/lib of their own, where
	// cnitool keeps what it knows.
	run := func(script string) (string, error) {
		t.Helper()
		cmd := r.host.Command(t.Context(), "sh", "-ec", `mount -t tmpfs none /var/lib; `+script)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		cmd.Env = append(os.Environ(), "CNI_PATH="+r.dir, "NETCONFPATH="+r.dir, "TOOL="+tool, "NETNS="+c.NetNS,
			`CAP_ARGS={`+publish8080+`}`, "CNI_ARGS=IP=10.89.0.77")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run(`$TOOL status testnet $NETNS; $TOOL add testnet $NETNS; $TOOL check testnet $NETNS; cp -r /var/lib/cni $CNI_PATH`)
	var result struct {
		IPs []struct{ Address string }
	}
	if err != nil || json.Unmarshal([]byte(out), &result) != nil || len(result.IPs) != 2 || result.IPs[0].Address != "10.89.0.77/24" {
		t.Fatalf("status, add and check: %v: %s", err, out)
	}
	serve(t, c)
	if err := reach(t, r.host, "10.89.0.1:8080", "c1"); err != nil {
		t.Error(err)
	}
	const before = `cp -r $CNI_PATH/cni /var/lib/cni; `
	if out, err := run(before + `ip link set dev boxwire0 down; if $TOOL check testnet $NETNS; then exit 9; fi; ip link set dev boxwire0 up`); err != nil || !strings.Contains(out, "bridge is down") {
		t.Errorf("check of a bridge that is down: %v: %s", err, out)
	}
	if out, err := run(before + `$TOOL del testnet $NETNS; $TOOL del testnet $NETNS; if $TOOL check testnet $NETNS; then exit 9; fi; $TOOL gc testnet $NETNS`); err != nil {
		t.Errorf("del and gc: %v: %s", err, out)
	}
	r.clean()
}
