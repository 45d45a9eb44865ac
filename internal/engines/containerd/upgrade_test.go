package containerd

import (
	"path/filepath"
	"testing"
)

// upgrade replaces Debian's containerd with the current one under running pods, as an upgrade of a node does.
func upgrade(t *testing.T, p *programs) {
	old, current := variants[0], variants[1]
	e := start(t, old, p)
	before := e.state(t)
	w := e.newBoxes(t)
	web, other := e.runPod(t, "web", 8080), e.runPod(t, "other")
	check(t, w, "before the upgrade", everyone, web, other)
	e.d.Stop(t)
	for _, name := range currentPrograms {
		e.m.Install(t, filepath.Join(p.dir, name))
	}
	e.m.WriteFile(t, "/etc/containerd/config.toml", current.config, 0o644)
	e.variant = current
	e.network(t, "172.30.7.0/24")
	e.d.Start(t)
	e.ready(t)
	t.Log("upgraded to ", e.m.Run(t, "containerd", "--version"))
	for _, pod := range []*pod{web, other} {
		if err := e.alive(pod); err != nil {
			t.Errorf("after the upgrade: the pod %s: %v", pod.name, err)
		}
		if err := e.checkPod(t, pod); err != nil {
			t.Errorf("after the upgrade: CHECK of the pod %s: %v", pod.name, err)
		}
	}
	check(t, w, "after the upgrade", everyone, web, other)
	web = e.restartPod(t, w, web, other)
	e.removeBoxes(t)
	check(t, w, "no boxes", theirs, web, other)
	e.removePod(t, web)
	e.removePod(t, other)
	e.gc(t)
	e.same(t, "boxes and pods", before)
}
