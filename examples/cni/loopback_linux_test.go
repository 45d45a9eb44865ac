package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// loopbackOf has the plugin as containerd and CRI-O have "loopback": alone in a list of its
// own, and without keys. It returns a container to plug in.
func (r *rig) loopbackOf(id, version, plugins string) (*libcni.NetworkConfigList, container) {
	r.Helper()
	list, err := libcni.ConfListFromBytes([]byte(`{"cniVersion": "` + version + `", "name": "cni-loopback", "plugins": [` + plugins + `]}`))
	if err != nil {
		r.Fatal(err)
	}
	c := r.container(id, "")
	c.IfName = "lo"
	testutil.Run(r, c.ns, "ip", "link", "set", "lo", "down")
	return list, c
}

// hasUp says whether ip(8) shows the container's loopback as up.
func hasUp(t testing.TB, ns *netns.NS) bool {
	t.Helper()
	flags, _, _ := strings.Cut(testutil.Run(t, ns, "ip", "link", "show", "lo"), ">")
	return strings.Contains(flags, "UP")
}

func TestTheLoopbackPluginsPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.install(modeLoopback)
	for _, test := range []struct{ id, version, plugin string }{
		{"a", "0.3.1", `{"type": "loopback"}`},
		{"b", "1.1.0", `{"type": "loopback"}`},
		{"c", "1.0.0", `{"type": "boxwire", "mode": "loopback"}`},
	} {
		list, c := r.loopbackOf(test.id, test.version, test.plugin)
		res, err := r.cni.AddNetworkList(t.Context(), list, c.RuntimeConf)
		if err != nil {
			t.Fatalf("ADD by %s: %v", test.plugin, err)
		}
		if !hasUp(t, c.ns) {
			t.Errorf("%s leaves the loopback down", test.plugin)
		}
		result, err := current.NewResultFromResult(res)
		if err != nil {
			t.Fatal(err)
		}
		if len(result.Interfaces) != 1 || result.Interfaces[0].Name != "lo" || result.Interfaces[0].Sandbox != c.NetNS || result.Interfaces[0].Mac != "00:00:00:00:00:00" {
			t.Errorf("the result's links are %v", result.Interfaces)
		}
		want := []string{"127.0.0.1/8", "::1/128"}
		if addrs := testutil.Run(t, c.ns, "ip", "addr", "show", "lo"); !strings.Contains(addrs, "::1/128") {
			want = want[:1] // no IPv6
		}
		var got []string
		for _, ip := range result.IPs {
			got = append(got, ip.Address.String())
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("the result's addresses are %v, want %v", got, want)
		}
		if test.version != "0.3.1" { // which has no CHECK
			if err := r.cni.CheckNetworkList(t.Context(), list, c.RuntimeConf); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			testutil.Run(t, c.ns, "ip", "link", "set", "lo", "down")
			if err := r.cni.CheckNetworkList(t.Context(), list, c.RuntimeConf); codeOf(err) != codeDrift {
				t.Errorf("CHECK of a loopback that is down: %v", err)
			}
			testutil.Run(t, c.ns, "ip", "link", "set", "lo", "up")
		}
		if test.version == "1.1.0" {
			if err := r.cni.GetStatusNetworkList(t.Context(), list); err != nil {
				t.Errorf("STATUS: %v", err)
			}
			if err := r.cni.GCNetworkList(t.Context(), list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: c.ContainerID, IfName: "lo"}}}); err != nil {
				t.Errorf("GC: %v", err)
			}
			if !hasUp(t, c.ns) {
				t.Error("GC takes the loopback down")
			}
		}
		for range 2 {
			if err := r.cni.DelNetworkList(t.Context(), list, c.RuntimeConf); err != nil {
				t.Errorf("DEL: %v", err)
			}
			if hasUp(t, c.ns) {
				t.Error("DEL leaves the loopback up")
			}
		}
	}
	r.clean()
}

// The namespace may be gone, or unknown to the runtime.
func TestDelOfALoopbackThatIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.install(modeLoopback)
	list, c := r.loopbackOf("a", "1.0.0", `{"type": "loopback"}`)
	for _, path := range []string{"", c.NetNS + "-gone"} {
		c.NetNS = path
		if err := r.cni.DelNetworkList(t.Context(), list, c.RuntimeConf); err != nil {
			t.Errorf("DEL with the namespace %q: %v", path, err)
		}
	}
}

func TestALoopbackPassesOnWhatItGets(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.install(modeLoopback)
	list, c := r.loopbackOf("a", "1.0.0", `{"type": "fakeipam", "ipam": {"answer":
		{"cniVersion": "1.0.0", "interfaces": [{"name": "eth7", "sandbox": "x"}], "ips": [{"address": "192.0.2.7/24", "interface": 0}]}}}, {"type": "loopback"}`)
	res, err := r.cni.AddNetworkList(t.Context(), list, c.RuntimeConf)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := json.Marshal(res); !strings.Contains(string(b), "eth7") || !strings.Contains(string(b), "192.0.2.7/24") || strings.Contains(string(b), "127.0.0.1") {
		t.Errorf("the result is %s", b)
	}
	if !hasUp(t, c.ns) {
		t.Error("the loopback is down")
	}
}

func TestWhatALoopbackRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.install(modeLoopback)
	for key, keys := range map[string]string{
		"ipMasq":            `"ipMasq": true`,
		"mtu":               `"mtu": 1400`,
		"ipam":              `"ipam": {"type": "boxwire", "ranges": [[{"subnet": "10.0.0.0/24"}]]}`,
		"loopback has no m": `"mode": "bridge"`,
	} {
		list, c := r.loopbackOf("a-"+key[:3], "1.0.0", `{"type": "loopback", `+keys+`}`)
		_, err := r.cni.AddNetworkList(t.Context(), list, c.RuntimeConf)
		if codeOf(err) != types.ErrUnsupportedField && codeOf(err) != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", keys, err)
		}
		if hasUp(t, c.ns) {
			t.Errorf("%s: an ADD that is refused has brought the loopback up", keys)
		}
	}
	list, c := r.loopbackOf("b", "1.0.0", `{"type": "loopback"}`)
	testutil.Run(t, c.ns, "ip", "addr", "add", "192.0.2.7/32", "dev", "lo")
	if _, err := r.cni.AddNetworkList(t.Context(), list, c.RuntimeConf); err == nil || !strings.Contains(err.Error(), "192.0.2.7") {
		t.Errorf("ADD with another address on the loopback: %v", err)
	}
	// The host's own loopback is no container's: DEL would take it down.
	own, err := netns.Dir(r.dir+"/netns").Pin(t.Context(), r.host, "own")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Dir(r.dir+"/netns").Delete(context.Background(), "own") })
	lo, err := link.Get(t.Context(), r.host, "lo")
	if err == nil {
		err = lo.SetUp(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	c.NetNS = own.Path()
	own.Close()
	if _, err := r.cni.AddNetworkList(t.Context(), list, c.RuntimeConf); codeOf(err) != types.ErrInvalidNetNS {
		t.Errorf("ADD with the host's namespace: %v", err)
	}
	if err := r.cni.DelNetworkList(t.Context(), list, c.RuntimeConf); codeOf(err) != types.ErrInvalidNetNS || !hasUp(t, r.host) {
		t.Errorf("DEL with the host's namespace: %v, up: %v", err, hasUp(t, r.host))
	}
}
