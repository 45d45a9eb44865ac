package containerd

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// plugin runs the plugin as a CNI runtime does, with more keys in its configuration.
func (e *engine) plugin(t *testing.T, version string, keys map[string]any, env ...string) error {
	t.Helper()
	var list struct {
		Name    string
		Plugins []map[string]any
	}
	if err := json.Unmarshal([]byte(e.list("172.30.7.0/24")), &list); err != nil {
		t.Fatal(err)
	}
	conf := list.Plugins[0]
	conf["name"], conf["cniVersion"] = list.Name, version
	for k, v := range keys {
		conf[k] = v
	}
	b, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	cmd := e.m.Command("/opt/cni/bin/boxwire")
	cmd.Env = append(append(cmd.Env, "CNI_PATH=/opt/cni/bin"), env...)
	cmd.Stdin = strings.NewReader(string(b))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err = e.m.Start(cmd); err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out.String())
	}
	return nil
}

// gc collects the garbage of all but the pods.
func (e *engine) gc(t *testing.T, pods ...*pod) {
	t.Helper()
	valid := []map[string]string{}
	for _, p := range pods {
		valid = append(valid, map[string]string{"containerID": p.id, "ifname": "eth0"})
	}
	if err := e.plugin(t, "1.1.0", map[string]any{"cni.dev/valid-attachments": valid}, "CNI_COMMAND=GC"); err != nil {
		t.Errorf("GC: %v", err)
	}
}

// checkPod is CHECK of a pod, by what containerd has kept of its ADD.
func (e *engine) checkPod(t *testing.T, p *pod) error {
	t.Helper()
	var kept struct {
		Result         json.RawMessage
		CapabilityArgs map[string]any
	}
	if err := json.Unmarshal([]byte(e.m.ReadFile(t, "/var/lib/cni/results/podnet-"+p.id+"-eth0")), &kept); err != nil {
		t.Fatal(err)
	}
	capabilities := map[string]any{}
	for _, name := range []string{"portMappings", "bandwidth", "ips", "mac"} {
		if v, ok := kept.CapabilityArgs[name]; ok {
			capabilities[name] = v
		}
	}
	return e.plugin(t, e.cni, map[string]any{"prevResult": kept.Result, "runtimeConfig": capabilities},
		"CNI_COMMAND=CHECK", "CNI_CONTAINERID="+p.id, "CNI_NETNS="+p.path, "CNI_IFNAME=eth0")
}

// changing is what a listing has that is another each time.
var changing = regexp.MustCompile(`(?m)counter packets \d+ bytes \d+|expires \S+|^\d+: |<[A-Z,_-]*>|^$\n`)

// state is what the machine's network is made of, with what programs keep of it.
func (e *engine) state(t *testing.T) string {
	t.Helper()
	out := e.m.Run(t, "sh", "-c", `
		nft -s list ruleset
		ip -o link | sed 's/ state .*//'; ip -o addr | grep -v 'scope link'; ip route; ip -6 route | grep -v '^fe80'; ip rule
		find /run/netns /var/lib/cni/results -type f 2>/dev/null | sort
		grep -h '"owner"' /run/boxwire-cni/*.json 2>/dev/null
		sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding`)
	return changing.ReplaceAllString(out, "")
}
