package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// The test binary is the plugin, and an IPAM plugin, where it is started by that
// name.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "boxwire", modeBridge, modePTP, modeMacvlan, modeIPVLAN, modeVLAN, modeHostDevice, modeTap, modeLoopback:
		main()
	case "fakeipam":
		fakeIPAM(version.All)
	case "oldipam": // which does not know GC yet
		fakeIPAM(version.PluginSupports("0.4.0", "1.0.0"))
	default:
		netnstest.Main(m)
	}
}

// fakeIPAM answers ADD with the key "answer" of its configuration, and notes in
// the file "notes" what it was asked.
func fakeIPAM(speaks version.PluginInfo) {
	var conf struct {
		CNIVersion string
		Valid      []types.GCAttachment `json:"cni.dev/valid-attachments"`
		IPAM       struct {
			Answer json.RawMessage
			Notes  string
			Fail   string
		}
	}
	stdin, _ := io.ReadAll(os.Stdin)
	json.Unmarshal(stdin, &conf)
	command := os.Getenv("CNI_COMMAND")
	if command == "VERSION" {
		speaks.Encode(os.Stdout)
		return
	}
	if f, err := os.OpenFile(conf.IPAM.Notes, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644); err == nil {
		fmt.Fprint(f, command, " ", os.Getenv("CNI_CONTAINERID"), os.Getenv("CNI_IFNAME"))
		for _, a := range conf.Valid {
			fmt.Fprint(f, a.ContainerID, a.IfName)
		}
		fmt.Fprintln(f)
		f.Close()
	}
	if strings.Contains(conf.IPAM.Fail, command) {
		types.NewError(types.ErrTryAgainLater, "no address today", "on purpose").Print()
		os.Exit(1)
	}
	if command == "ADD" {
		os.Stdout.Write(conf.IPAM.Answer)
	}
}

// inside executes plugins in a namespace, which is the host to them.
type inside struct {
	ns *netns.NS
	*version.PluginDecoder
}

func (i inside) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

func (i inside) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	cmd := i.ns.Command(ctx, path)
	cmd.Args[0] = path
	cmd.Env = env
	cmd.Stdin = strings.NewReader(string(stdin))
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return nil, err // not started
	}
	e := &types.Error{}
	if json.Unmarshal(out, e) != nil || e.Msg == "" {
		return nil, fmt.Errorf("%s: %v, output %q, stderr %q", path, err, out, exit.Stderr)
	}
	return nil, e
}

// A rig is a host with the plugin and a runtime.
type rig struct {
	testing.TB
	host *netns.NS
	cni  *libcni.CNIConfig
	dir  string // of plugins, state, pinned namespaces
	list *libcni.NetworkConfigList
}

// newRig makes a host whose network is the plugin's configuration: keys of conf
// on top of a bridge with the built-in allocator, both families.
func newRig(t testing.TB, conf string) *rig {
	return newRigOn(t, netnstest.New(t), conf)
}

func newRigOn(t testing.TB, host *netns.NS, conf string) *rig {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{TB: t, host: host, dir: t.TempDir()}
	for _, name := range []string{"boxwire", "fakeipam", "oldipam"} {
		if err := os.Symlink(exe, filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	paths := append([]string{r.dir}, filepath.SplitList(os.Getenv("BOXWIRE_CNI_PLUGINS"))...)
	r.cni = libcni.NewCNIConfigWithCacheDir(paths, r.cache(), inside{host, &version.PluginDecoder{}})
	r.configure(conf)
	return r
}

func (r *rig) cache() string { return filepath.Join(r.dir, "cache") }

func (r *rig) configure(conf string) { r.list = r.parse("testnet", "1.1.0", conf) }

func (r *rig) parse(name, version, conf string) *libcni.NetworkConfigList {
	r.Helper()
	plugin := map[string]any{
		"type": "boxwire", "isGateway": true, "isDefaultGateway": true, "ipMasq": true,
		"capabilities": map[string]bool{"portMappings": true, "bandwidth": true, "ips": true, "mac": true},
		"ipam": map[string]any{
			"type": "boxwire", "dataDir": filepath.Join(r.dir, "state"),
			"ranges": []any{
				[]any{map[string]any{"subnet": "10.89.0.0/24"}},
				[]any{map[string]any{"subnet": "fd89::/64"}},
			},
		},
	}
	if err := json.Unmarshal([]byte("{"+strings.ReplaceAll(conf, "DIR", r.dir)+"}"), &plugin); err != nil {
		r.Fatal(err)
	}
	b, _ := json.Marshal(map[string]any{"cniVersion": version, "name": name, "plugins": []any{plugin}})
	list, err := libcni.ConfListFromBytes(b)
	if err != nil {
		r.Fatal(err)
	}
	return list
}

// A container is a named namespace and what the runtime knows.
type container struct {
	*libcni.RuntimeConf
	ns *netns.NS
}

// container makes one, with capabilities in JSON.
func (r *rig) container(id, capabilities string) container {
	r.Helper()
	c := container{ns: netnstest.New(r), RuntimeConf: &libcni.RuntimeConf{ContainerID: id, IfName: "eth0"}}
	dir := netns.Dir(filepath.Join(r.dir, "netns"))
	pinned, err := dir.Pin(r.Context(), c.ns, id)
	if err != nil {
		r.Fatal(err)
	}
	c.NetNS = pinned.Path()
	pinned.Close()
	r.Cleanup(func() { dir.Delete(context.Background(), id) })
	if capabilities != "" {
		if err := json.Unmarshal([]byte("{"+capabilities+"}"), &c.CapabilityArgs); err != nil {
			r.Fatal(err)
		}
	}
	return c
}

func (r *rig) add(c container) *current.Result {
	r.Helper()
	res, err := r.cni.AddNetworkList(r.Context(), r.list, c.RuntimeConf)
	if err != nil {
		r.Fatalf("ADD %s: %v", c.ContainerID, err)
	}
	result, err := current.NewResultFromResult(res)
	if err != nil {
		r.Fatal(err)
	}
	return result
}

func (r *rig) del(c container) {
	r.Helper()
	if err := r.cni.DelNetworkList(context.WithoutCancel(r.Context()), r.list, c.RuntimeConf); err != nil {
		r.Errorf("DEL %s: %v", c.ContainerID, err)
	}
}

func (r *rig) check(c container) error {
	return r.cni.CheckNetworkList(r.Context(), r.list, c.RuntimeConf)
}

func (r *rig) gc(valid ...container) {
	r.Helper()
	args := &libcni.GCArgs{}
	for _, c := range valid {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: c.ContainerID, IfName: c.IfName})
	}
	if err := r.cni.GCNetworkList(r.Context(), r.list, args); err != nil {
		r.Errorf("GC: %v", err)
	}
}

// links are the names of the host's links but lo, by kind.
func (r *rig) links(kind string) (names []string) {
	r.Helper()
	all, err := link.List(context.WithoutCancel(r.Context()), r.host, link.Filter{Kind: kind})
	if err != nil {
		r.Fatal(err)
	}
	for _, l := range all {
		if l.Name != "lo" {
			names = append(names, l.Name)
		}
	}
	return names
}

// clean fails the test if anything is left on the host.
func (r *rig) clean() {
	r.Helper()
	if left := r.links(""); len(left) > 0 {
		r.Errorf("links are left: %v", left)
	}
	if out := r.nft("list", "ruleset"); strings.TrimSpace(out) != "" {
		r.Errorf("rules are left: %s", out)
	}
	if b, err := os.ReadFile(filepath.Join(r.dir, "state", "testnet.json")); err == nil && strings.Contains(string(b), "owner") {
		r.Errorf("leases are left: %s", b)
	}
}

// codeOf is the code of a CNI error, and 9999 of any other.
func codeOf(err error) uint {
	var e *types.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 9999
}

// serve answers HTTP in a container with its name.
func serve(t testing.TB, c container) {
	t.Helper()
	ln, err := c.ns.Listen(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, c.ContainerID) }))
}

// reach asks from within a namespace and says what is wrong with the answer.
func reach(t testing.TB, from *netns.NS, at, want string) error {
	client := http.Client{Transport: &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // one that hangs fails its test, and not all
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+at+"/", nil)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != want {
		return fmt.Errorf("%s answers %q (%v), want %q", at, b, err, want)
	}
	return nil
}

func addrOf(result *current.Result, i int) netip.Addr {
	a, _ := netip.AddrFromSlice(result.IPs[i].Address.IP)
	return a.Unmap()
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
