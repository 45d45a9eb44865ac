package containerd

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/reach"
)

func TestContainerd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a machine")
	}
	p := build(t)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			e := start(t, v, p)
			before := e.state(t)
			t.Run("critest", e.critest)
			e.gc(t)
			e.same(t, "critest", before)
			e.scene(t)
		})
	}
	t.Run("upgrade", func(t *testing.T) {
		t.Parallel()
		upgrade(t, p)
	})
}

// same fails the test if the machine is not as it was.
func (e *engine) same(t *testing.T, after, before string) {
	t.Helper()
	if now := e.state(t); now != before {
		t.Errorf("before %s the machine had:\n%s\nand has now:\n%s", after, before, now)
	}
}

// scene has pods and a box of ours beside each other, through all that happens to them.
func (e *engine) scene(t *testing.T) {
	w := e.newBoxes(t)
	before := e.state(t)
	web, other := e.runPod(t, "web", 8080), e.runPod(t, "other")
	check(t, w, "pods and boxes", everyone, web, other)
	for _, end := range []struct {
		name string
		how  func(testing.TB)
	}{{"stopped", e.d.Stop}, {"killed", e.d.Kill}} {
		end.how(t)
		check(t, w, "containerd is "+end.name, everyone, web, other)
		e.d.Start(t)
		e.ready(t)
		for _, p := range []*pod{web, other} {
			if err := e.alive(p); err != nil {
				t.Errorf("after containerd was %s: the pod %s: %v", end.name, p.name, err)
			}
			if err := e.checkPod(t, p); err != nil {
				t.Errorf("after containerd was %s: CHECK of the pod %s: %v", end.name, p.name, err)
			}
		}
		check(t, w, "containerd was "+end.name+" and runs again", everyone, web, other)
	}
	t.Run("CHECK", func(t *testing.T) { e.notices(t, other) })
	t.Run("GC", func(t *testing.T) {
		e.collects(t, web, other)
		check(t, w, "after GC", everyone, web, other)
	})
	t.Run("a port that is taken", func(t *testing.T) { e.refuses(t, web) })
	if e.current {
		t.Run("STATUS", e.status)
	}
	web = e.restartPod(t, w, web, other)
	t.Run("killed while it plugs a pod in", func(t *testing.T) { e.killedWithin(t, w, web, other) })
	e.removePod(t, web)
	e.removePod(t, other)
	e.gc(t)
	e.same(t, "the pods", before)
	check(t, w, "no pods", ours)
}

// restartPod stops a pod and runs it again.
func (e *engine) restartPod(t *testing.T, w reach.World, web, other *pod) *pod {
	t.Helper()
	e.crictl(t, "stopp", web.id)
	check(t, w, "the pod web is stopped", withoutWeb, other)
	again := e.runPod(t, "web", 8080)
	check(t, w, "the pod web runs again", everyone, again, other)
	e.crictl(t, "rmp", web.id)
	check(t, w, "the pod web that was stopped is removed", everyone, again, other)
	return again
}

// notices checks that CHECK sees what is missing.
func (e *engine) notices(t *testing.T, p *pod) {
	e.m.Run(t, "nsenter", "--net="+p.path, "ip", "route", "del", "default")
	if err := e.checkPod(t, p); err == nil || !strings.Contains(err.Error(), `"code": 101`) {
		t.Errorf("CHECK of a pod without its default route: %v", err)
	}
	e.m.Run(t, "nsenter", "--net="+p.path, "ip", "route", "add", "default", "via", "172.30.7.1")
	if err := e.checkPod(t, p); err != nil {
		t.Errorf("CHECK of the pod with it again: %v", err)
	}
}

// collects checks that GC removes what nobody knows of, and nothing else.
func (e *engine) collects(t *testing.T, pods ...*pod) {
	t.Helper()
	before := e.state(t)
	e.m.Run(t, "ip", "netns", "add", "forgotten")
	ports := []map[string]any{{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}}
	if err := e.plugin(t, e.cni, map[string]any{"runtimeConfig": map[string]any{"portMappings": ports}},
		"CNI_COMMAND=ADD", "CNI_CONTAINERID=forgotten", "CNI_NETNS=/run/netns/forgotten", "CNI_IFNAME=eth0"); err != nil {
		t.Fatalf("ADD: %v", err)
	}
	if now := e.state(t); !strings.Contains(now, ". 8081 ") {
		t.Errorf("ADD leaves no port in:\n%s", now)
	}
	e.gc(t, pods...)
	e.m.Run(t, "ip", "netns", "del", "forgotten")
	e.same(t, "GC", before)
}

// refuses checks that a pod is refused whose port another has, and that nothing of it is left.
func (e *engine) refuses(t *testing.T, web *pod) {
	before := e.state(t)
	out, err := e.m.Try("crictl", "runp", e.sandbox(t, "late", 8080))
	if err == nil || !strings.Contains(out, web.id) {
		t.Errorf("a pod with a port that %s has: %v\n%s", web.id, err, out)
	}
	for _, id := range strings.Fields(e.crictl(t, "pods", "-q", "--name", "^late$")) {
		e.crictl(t, "rmp", "-f", id)
	}
	e.same(t, "a pod that is refused", before)
}

// status checks that containerd reports a network whose addresses are all assigned as not ready: it calls STATUS.
func (e *engine) status(t *testing.T) {
	const conf = "/etc/cni/net.d/10-boxwire.conflist"
	whole := e.list("172.30.7.0/24")
	small := strings.NewReplacer("172.30.7.0/24", "172.30.8.0/30", "podnet", "smallnet", "pods0", "small0", `, [{"subnet": "fd30:7::/64"}]`, "").Replace(whole)
	e.m.WriteFile(t, conf, small, 0o644)
	e.knows(t, "smallnet")
	if err := e.networkReady(); err != nil {
		t.Errorf("before a pod has the only address: %v", err)
	}
	id := e.crictl(t, "runp", e.sandbox(t, "only"))
	if err := e.networkReady(); err == nil || !strings.Contains(err.Error(), "no address can be assigned") {
		t.Errorf("with all addresses assigned: %v", err)
	}
	e.crictl(t, "rmp", "-f", id)
	if err := e.networkReady(); err != nil {
		t.Errorf("after the pod: %v", err)
	}
	if err := e.plugin(t, "1.1.0", map[string]any{"name": "smallnet", "bridge": "small0"}, "CNI_COMMAND=GC"); err != nil {
		t.Errorf("GC: %v", err)
	}
	e.m.WriteFile(t, conf, whole, 0o644)
	e.knows(t, "podnet")
}

// knows waits until containerd has read its network's configuration.
func (e *engine) knows(t *testing.T, what string) {
	t.Helper()
	machine.Until(t, "containerd reads the configuration of the network", func() error {
		if out, err := e.m.Try("crictl", "info"); err != nil || !strings.Contains(out, what) {
			return fmt.Errorf("%w: no %s in %s", err, what, out)
		}
		return nil
	})
}

// gate is a plugin that holds an ADD until a file is there, and fails then.
const gate = `#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion": "1.1.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}' ;;
ADD) : >/run/gate-held; while [ ! -e /run/gate-open ]; do sleep 0.05; done; exit 1 ;;
esac
`

// killedWithin kills containerd when a pod has its link, address and port, and nobody knows that yet. What is left must not
// keep another pod from the port, and goes with GC at the latest.
func (e *engine) killedWithin(t *testing.T, w reach.World, web, other *pod) {
	e.m.WriteFile(t, "/opt/cni/bin/gate", gate, 0o755)
	before := e.state(t)
	e.m.Run(t, "rm", "-f", "/run/gate-held", "/run/gate-open")
	e.network(t, "172.30.7.0/24", `{"type": "gate"}`)
	e.knows(t, "gate")
	cmd := e.m.Command("crictl", "runp", e.sandbox(t, "half", 8081))
	if err := e.m.Start(cmd); err != nil {
		t.Fatal(err)
	}
	machine.Until(t, "the pod is being plugged in", func() error { return e.exists("/run/gate-held") })
	e.d.Kill(t)
	if err := cmd.Wait(); err == nil {
		t.Error("crictl runp succeeds although containerd was killed")
	}
	e.network(t, "172.30.7.0/24")
	e.d.Start(t)
	e.ready(t)
	e.m.WriteFile(t, "/run/gate-open", "", 0o644)
	check(t, w, "containerd was killed while it plugged a pod in", everyone, web, other)
	for _, id := range strings.Fields(e.crictl(t, "pods", "-q", "--name", "^half$")) {
		e.crictl(t, "rmp", "-f", id)
	}
	e.gc(t, web, other)
	next := e.runPod(t, "next", 8081)
	e.removePod(t, next)
	e.same(t, "a killed ADD", before)
}

func (e *engine) exists(path string) error {
	_, err := e.m.Try("test", "-e", path)
	return err
}
