package containerd

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// variant is one of the two containerds.
type variant struct {
	name    string            // as BOXWIRE_ENGINES_ALLOW_MISSING has it
	current bool              // built from the module proxy, instead of Debian's
	cni     string            // the version of the CNI specification that it is given
	config  string            // /etc/containerd/config.toml
	passed  int               // specs of critest
	skipped map[string]string // the others, and why
	without []string          // those of them that critest would not skip by itself
}

// Containerd 1.6 has not heard of metrics yet, nor that nothing has to be done to stop what is not there.
const (
	idempotence = "[k8s.io] Idempotence "
	metrics     = "[k8s.io] PodSandbox runtime should support metrics operations "
	noMetrics   = "CRI Metrics endpoints not supported by this runtime version"
)

// Both leave the OOM scores of containers as they can be: the machine may lack CAP_SYS_RESOURCE.
var variants = []variant{
	{
		name: "containerd", cni: "1.0.0", passed: 22,
		without: []string{idempotence + "StopPodSandbox should not return an error if not found", idempotence + "StopContainer should not return an error if not found"},
		skipped: map[string]string{
			idempotence + "StopPodSandbox should not return an error if not found":         "",
			idempotence + "StopContainer should not return an error if not found":          "",
			metrics + "runtime should support returning metrics descriptors [Conformance]": noMetrics,
			metrics + "runtime should support listing pod sandbox metrics [Conformance]":   noMetrics,
		},
		config: `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  restrict_oom_score_adj = true
`,
	},
	{
		name: "containerd-v2", current: true, cni: "1.1.0", passed: 26,
		config: `version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '` + pauseImage + `'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
`,
	},
}

// currentPrograms are those of the current containerd.
var currentPrograms = []string{"containerd", "containerd-shim-runc-v2", "ctr"}

// engine is a containerd in a machine, whose pods get their network from the plugin.
type engine struct {
	variant
	t        *testing.T // whose end is the engine's
	m        *machine.Machine
	d        *machine.Daemon
	attempts int
	gw       *nat.NAT // of the boxes
}

// start makes a machine with a containerd.
func start(t *testing.T, v variant, p *programs) *engine {
	t.Helper()
	config := machine.Config{
		Name: "node", Engine: v.name, Controllers: true,
		Packages: []string{"containerd", "runc", "busybox-static", "iproute2", "nftables"},
	}
	if !v.current {
		config.Version = []string{"containerd", "--version"}
	}
	e := &engine{variant: v, t: t, m: machine.New(t, config)}
	if p.err != nil {
		e.m.Missing(t, p.err)
	}
	tools := []string{"crictl", "critest"}
	if v.current {
		tools = append(tools, currentPrograms...)
	}
	for _, name := range tools {
		e.m.Install(t, filepath.Join(p.dir, name))
	}
	if v.current {
		e.m.LogVersion(t, "containerd", "--version")
	}
	t.Logf("with %s, cri-tools %s", strings.TrimSpace(strings.ReplaceAll(e.m.Run(t, "runc", "--version"), "\n", "; ")), p.tools)
	plugin := e.m.Install(t, p.plugin)
	e.m.Run(t, "sh", "-ec", "mkdir -p /opt/cni/bin && mv "+plugin+" /opt/cni/bin/boxwire && ln -s boxwire /opt/cni/bin/loopback")
	e.network(t, "172.30.7.0/24")
	e.m.WriteFile(t, "/etc/containerd/config.toml", v.config, 0o644)
	e.m.WriteFile(t, "/etc/crictl.yaml", "runtime-endpoint: unix:///run/containerd/containerd.sock\nimage-endpoint: unix:///run/containerd/containerd.sock\n", 0o644)
	e.d = e.m.Daemon(t, "containerd")
	e.ready(t)
	e.importImages(t, p)
	return e
}

// ready waits until containerd answers and has its network.
func (e *engine) ready(t *testing.T) {
	t.Helper()
	e.d.Ready(t, func() error { return e.networkReady() })
}

// networkReady asks containerd for its condition.
func (e *engine) networkReady() error {
	out, err := e.m.Try("crictl", "info")
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	var info struct {
		Status struct {
			Conditions []struct {
				Type, Reason, Message string
				Status                bool
			}
		}
	}
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &info); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	for _, c := range info.Status.Conditions {
		if !c.Status && c.Type != "ContainerdHasNoDeprecationWarnings" {
			return fmt.Errorf("%s is false: %s: %s", c.Type, c.Reason, c.Message)
		}
	}
	return nil
}

// network configures the pods' network. More plugins may follow ours.
func (e *engine) network(t *testing.T, subnet4 string, more ...string) {
	t.Helper()
	e.m.WriteFile(t, "/etc/cni/net.d/10-boxwire.conflist", e.list(subnet4, more...), 0o644)
}

// list is the pods' network: both families, addresses by the plugin's own allocator.
func (e *engine) list(subnet4 string, more ...string) string {
	ranges := `[{"subnet": "` + subnet4 + `"}]`
	if netnstest.HasIPv6() {
		ranges += `, [{"subnet": "fd30:7::/64"}]`
	}
	return `{"cniVersion": "` + e.cni + `", "name": "podnet", "plugins": [` + strings.Join(append([]string{`{
		"type": "boxwire", "bridge": "pods0", "isDefaultGateway": true, "ipMasq": true,
		"capabilities": {"portMappings": true, "bandwidth": true, "ips": true, "mac": true},
		"ipam": {"type": "boxwire", "ranges": [` + ranges + `]}
	}`}, more...), ",") + `]}`
}
