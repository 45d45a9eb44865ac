package containerd

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
)

// pod is a sandbox with one container, which answers at port 80 with the pod's name.
type pod struct {
	name         string
	id           string
	addr4, addr6 string
	path         string    // of its network namespace, in the machine
	ns           *netns.NS // the same
	probe        int       // the pid of the container's process, in the machine
}

// crictl runs crictl and returns what it prints to its standard output.
func (e *engine) crictl(t *testing.T, args ...string) string {
	t.Helper()
	cmd := e.m.Command("crictl", args...)
	var out, log strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &log
	err := e.m.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("crictl %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), log.String())
	}
	return strings.TrimSpace(out.String())
}

// sandbox writes what a pod is, and returns the file's path. Ports of the host lead to port 80.
func (e *engine) sandbox(t *testing.T, name string, hostPorts ...int) string {
	t.Helper()
	e.attempts++
	type mapping struct {
		Protocol      int `json:"protocol"`
		ContainerPort int `json:"container_port"`
		HostPort      int `json:"host_port"`
	}
	mappings := []mapping{}
	for _, p := range hostPorts {
		mappings = append(mappings, mapping{0, 80, p}, mapping{1, 80, p}) // TCP, UDP
	}
	return e.writeJSON(t, "/tmp/"+name+"-pod.json", map[string]any{
		"metadata":      map[string]any{"name": name, "namespace": "default", "uid": name, "attempt": e.attempts},
		"log_directory": "/tmp/log", "port_mappings": mappings, "linux": map[string]any{},
	})
}

func (e *engine) writeJSON(t *testing.T, path string, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	e.m.WriteFile(t, path, string(b), 0o644)
	return path
}

// runPod runs a pod, and its container.
func (e *engine) runPod(t *testing.T, name string, hostPorts ...int) *pod {
	t.Helper()
	sandbox := e.sandbox(t, name, hostPorts...)
	container := e.writeJSON(t, "/tmp/"+name+".json", map[string]any{
		"metadata": map[string]any{"name": name, "attempt": e.attempts}, "image": map[string]any{"image": probeImage},
		"command": []string{"/bin/probe", "-name", name, "-listen", ":80"}, "log_path": name + ".log", "linux": map[string]any{},
	})
	p := &pod{name: name, id: e.crictl(t, "runp", sandbox)}
	box := e.crictl(t, "create", p.id, container, sandbox)
	e.crictl(t, "start", box)
	var inspected struct {
		Info struct{ Pid int }
	}
	e.inspect(t, &inspected, "inspect", box)
	p.probe = inspected.Info.Pid
	e.look(t, p)
	return p
}

// look reads a pod's network.
func (e *engine) look(t *testing.T, p *pod) {
	t.Helper()
	var inspected struct {
		Status struct {
			Network struct {
				IP            string
				AdditionalIPs []struct{ IP string }
			}
		}
		Info struct {
			RuntimeSpec struct {
				Linux struct {
					Namespaces []struct{ Type, Path string }
				}
			}
		}
	}
	e.inspect(t, &inspected, "inspectp", p.id)
	p.addr4 = inspected.Status.Network.IP
	for _, a := range inspected.Status.Network.AdditionalIPs {
		p.addr6 = a.IP
	}
	for _, n := range inspected.Info.RuntimeSpec.Linux.Namespaces {
		if n.Type == "network" {
			p.path = n.Path
		}
	}
	ns, err := netns.OpenPath(t.Context(), e.m.Path("/proc/"+strconv.Itoa(p.probe)+"/ns/net"))
	if err != nil {
		t.Fatalf("the namespace of the pod %s: %v", p.name, err)
	}
	p.ns = ns
	e.t.Cleanup(func() { ns.Close() })
}

// inspect asks crictl for what it knows of a pod (inspectp) or a container (inspect).
func (e *engine) inspect(t *testing.T, into any, verb, id string) {
	t.Helper()
	out := e.crictl(t, verb, "-o", "json", id)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("crictl %s %s: %v\n%s", verb, id, err, out)
	}
}

// removePod stops and removes a pod.
func (e *engine) removePod(t *testing.T, p *pod) {
	t.Helper()
	e.crictl(t, "stopp", p.id)
	e.crictl(t, "rmp", p.id)
}

// alive says whether the pod's process is the one that it began with.
func (e *engine) alive(p *pod) error {
	out, err := e.m.Try("cat", fmt.Sprintf("/proc/%d/cmdline", p.probe))
	if err == nil && !strings.Contains(out, p.name) {
		err = fmt.Errorf("process %d is %q", p.probe, out)
	}
	return err
}
