package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

// aliasOf is the alias of a link as ip(8) has it, and whether it is up.
func aliasOf(t testing.TB, ns *netns.NS, name string) (alias string, up bool) {
	t.Helper()
	var links []struct {
		IfAlias string
		Flags   []string
	}
	testutil.JSON(t, ns, &links, "ip", "-j", "link", "show", name)
	return links[0].IfAlias, slices.Contains(links[0].Flags, "UP")
}

func TestADeviceOfTheHostGoesAndComesBack(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, conf, alias string }{
		{"by its name", `"device": "lan0"`, ""},
		{"by its hardware address", `"hwaddr": "02:00:00:00:1a:00"`, ""},
		{"with an alias", `"device": "lan0"`, "uplink of rack 7"},
		{"as the reference plugin", `"type": "host-device", "device": "lan0"`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, lan := onLAN(t, withIPAM+`"mode": "host-device", `+test.conf)
			testutil.Run(t, r.host, "ip", "link", "set", "lan0", "alias", test.alias)
			// Its name in the container is that of another link of the host.
			testutil.Run(t, r.host, "ip", "link", "add", "eth0", "type", "bridge")
			c := r.container("c1", "")
			result := r.add(c)
			if f := result.Interfaces; len(f) != 1 || f[0].Name != "eth0" || f[0].Mac != "02:00:00:00:1a:00" || f[0].Sandbox != c.NetNS || result.IPs[0].Address.String() != "10.89.0.2/24" {
				t.Errorf("the result is %v", result)
			}
			if alias, up := aliasOf(t, c.ns, "eth0"); alias != strings.TrimSpace("lan0 "+test.alias) || !up {
				t.Errorf("the container has it with the alias %q, up: %t", alias, up)
			}
			serve(t, c)
			for _, at := range []string{"10.89.0.2", "[fd89::2]"} {
				if err := reach(t, lan, at, "c1"); err != nil {
					t.Error(err)
				}
			}
			if err := r.check(c); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			other := r.container("other", "")
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, other.RuntimeConf); codeOf(err) != 7 || !strings.Contains(err.Error(), "no such device") {
				t.Errorf("another container's ADD: %v", err)
			}
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); codeOf(err) != codeExists {
				t.Errorf("the second ADD: %v", err)
			}
			r.del(other)
			for range 2 {
				r.del(c)
				if alias, up := aliasOf(t, r.host, "lan0"); alias != test.alias || up {
					t.Errorf("the host has it with the alias %q, up: %t", alias, up)
				}
			}
			testutil.Run(t, r.host, "ip", "link", "del", "eth0")
		})
	}
}

func TestADeviceThatCannotBeMovedStays(t *testing.T) {
	t.Parallel()
	const routed = `"ipam": {"type": "boxwire", "subnet": "10.89.0.0/24", "dataDir": "DIR/state", "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}]}`
	for _, test := range []struct{ name, conf, prepare, says string }{
		{"the name is taken", `"device": "lan0"`, "ip link add eth0 type bridge", "is taken"},
		{"a route cannot be", `"device": "lan0", ` + routed, "true", "unreachable"},
		{"there is no device", `"device": "nosuch0"`, "true", "nosuch0"},
		{"none is named", `"dns": {}`, "true", "needs device"},
		{"no hardware address", `"hwaddr": "nonsense"`, "true", "nonsense"},
		{"another one's", `"hwaddr": "02:00:00:00:00:99"`, "true", "02:00:00:00:00:99"},
		{"a path elsewhere", `"kernelpath": "/sys/devices/../../etc"`, "true", "below /sys/devices"},
		{"an empty bus", `"pciBusID": "0000:ff:1f.7"`, "true", "0000:ff:1f.7"},
		{"a bus elsewhere", `"pciBusID": "../../../etc"`, "true", "no device"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, _ := onLAN(t, withIPAM+`"mode": "host-device", `+test.conf)
			c := r.container("c1", "")
			if out, err := c.ns.Command(t.Context(), "sh", "-c", test.prepare).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			before := testutil.Run(t, c.ns, "ip", "-o", "link")
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("ADD: %v", err)
			}
			look := func() {
				if alias, up := aliasOf(t, r.host, "lan0"); alias != "" || !up {
					t.Errorf("the host has it with the alias %q, up: %t", alias, up)
				}
				if after := testutil.Run(t, c.ns, "ip", "-o", "link"); after != before {
					t.Errorf("the container had %s and has %s", before, after)
				}
			}
			look()
			r.del(c)
			look()
			if b, err := os.ReadFile(filepath.Join(r.dir, "state", "testnet.json")); err == nil && strings.Contains(string(b), "owner") {
				t.Errorf("leases are left: %s", b)
			}
		})
	}
}

// With the end of a container the kernel gives a device of hardware to the host, under
// the name that it had in the container or another one.
func TestADeviceThatTheKernelHasGivenBackGetsItsName(t *testing.T) {
	t.Parallel()
	r, _ := onLAN(t, withIPAM+`"mode": "host-device", "device": "lan0"`)
	c := r.container("c1", "")
	r.add(c)
	testutil.Run(t, c.ns, "ip", "link", "set", "eth0", "down")
	testutil.Run(t, c.ns, "ip", "link", "set", "eth0", "name", "dev7")
	moveLink(t, c.ns, "dev7", r.host)
	c.NetNS = filepath.Join(r.dir, "gone")
	r.del(c)
	if alias, _ := aliasOf(t, r.host, "lan0"); alias != "" {
		t.Errorf("it has the alias %q", alias)
	}
	r.del(c)
}

// What sysfs has of devices is made up: no machine of a test has them all.
func TestDevicesAreFoundByTheirBus(t *testing.T) {
	t.Parallel()
	sys := t.TempDir()
	for _, dir := range []string{"bus/pci/devices/0000:00:1f.6/net/enp0s31f6", "bus/pci/devices/0000:00:03.0/virtio0/net/ens3",
		"bus/pci/devices/0000:af:06.1", "bus/auxiliary/devices/mlx5_core.sf.4/net/eth4", "drivers/e1000e", "drivers/vfio-pci"} {
		if err := os.MkdirAll(filepath.Join(sys, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for id, driver := range map[string]string{"0000:00:1f.6": "e1000e", "0000:00:03.0": "e1000e", "0000:af:06.1": "vfio-pci"} {
		if err := os.Symlink(filepath.Join(sys, "drivers", driver), filepath.Join(sys, "bus/pci/devices", id, "driver")); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name, device, pci, id string
		want                  string
	}{
		{"a PCI device", "", "0000:00:1f.6", "", "bus/pci/devices/0000:00:1f.6/net"},
		{"one of virtio", "", "0000:00:03.0", "", "bus/pci/devices/0000:00:03.0/virtio0/net"},
		{"the runtime's", "", "", "0000:00:1f.6", "bus/pci/devices/0000:00:1f.6/net"},
		{"the runtime's before the network's", "", "0000:00:03.0", "0000:00:1f.6", "bus/pci/devices/0000:00:1f.6/net"},
		{"an auxiliary device", "", "", "mlx5_core.sf.4", "bus/auxiliary/devices/mlx5_core.sf.4/net"},
		{"one of a driver of user space", "", "0000:af:06.1", "", "DPDK"},
		{"a name before the bus", "eth7", "0000:00:1f.6", "", "eth7"},
		{"one that is not there", "", "", "0000:00:1e.0", "neither"},
	} {
		c := &config{}
		c.Device, c.PCIBusID, c.RuntimeConfig.DeviceID = test.device, test.pci, test.id
		d, err := c.findDevice(sys)
		got := d.name + strings.TrimPrefix(d.dir, sys+"/")
		if d.space {
			got = "DPDK"
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) || test.want != "neither" && got != test.want {
			t.Errorf("%s: it is %s, want %s", test.name, got, test.want)
		}
	}
}

// withBuses executes plugins where /sys/bus is another directory.
type withBuses struct {
	inside
	dir string
}

func (w withBuses) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	script := filepath.Join(w.dir, "plugin")
	line := fmt.Sprintf("#!/bin/sh\nexec unshare -m sh -c 'mount --bind %s/bus /sys/bus && exec %s'\n", w.dir, path)
	// A process that another test starts meanwhile would have it open for writing, too, and the kernel executes
	// no such script (ETXTBSY).
	syscall.ForkLock.RLock()
	err := os.WriteFile(script, []byte(line), 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	return w.inside.ExecPlugin(ctx, script, stdin, append(env, "PATH="+os.Getenv("PATH")))
}

// The whole of ADD, CHECK and DEL for devices that are found by their bus, by a made-up /sys/bus. One that a driver of user
// space has gets its addresses, and has no link.
func TestDevicesOfABusGoAndComeBack(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"unshare", "mount"} {
		testutil.Witness(t, program)
	}
	for _, test := range []struct {
		name, conf, capability string
		link                   bool
	}{
		{"an auxiliary device", `"mode": "host-device"`, `"deviceID": "mlx5_core.sf.4"`, true},
		{"a PCI device", `"mode": "host-device", "pciBusID": "0000:00:1f.6"`, "", true},
		{"a device of DPDK", `"mode": "host-device", "pciBusID": "0000:af:06.1"`, "", false},
		{"a device of DPDK, of the runtime", `"mode": "host-device"`, `"deviceID": "0000:af:06.1"`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			sys := t.TempDir()
			for _, dir := range []string{"bus/pci/devices/0000:00:1f.6/net/lan0", "bus/pci/devices/0000:af:06.1", "bus/auxiliary/devices/mlx5_core.sf.4/net/lan0", "bus/drivers/e1000e", "bus/drivers/vfio-pci"} {
				if err := os.MkdirAll(filepath.Join(sys, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for id, driver := range map[string]string{"0000:00:1f.6": "e1000e", "0000:af:06.1": "vfio-pci"} {
				if err := os.Symlink("../../../drivers/"+driver, filepath.Join(sys, "bus/pci/devices", id, "driver")); err != nil {
					t.Fatal(err)
				}
			}
			r, _ := onLAN(t, withIPAM+test.conf)
			r.cni = libcni.NewCNIConfigWithCacheDir([]string{r.dir}, r.cache(), withBuses{inside{r.host, &version.PluginDecoder{}}, sys})
			c := r.container("c1", test.capability)
			result := r.add(c)
			if len(result.Interfaces) != 1 || result.Interfaces[0].Name != "eth0" || result.Interfaces[0].Sandbox != c.NetNS || (result.Interfaces[0].Mac != "") != test.link ||
				len(result.IPs) == 0 || result.IPs[0].Address.String() != "10.89.0.2/24" {
				t.Errorf("the result is %v", result)
			}
			if out := testutil.Run(t, c.ns, "ip", "-o", "link"); strings.Contains(out, "eth0") != test.link {
				t.Errorf("the container has %s", out)
			}
			if err := r.check(c); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			for range 2 {
				r.del(c)
			}
			if out := testutil.Run(t, r.host, "ip", "-o", "link"); !strings.Contains(out, "lan0") {
				t.Errorf("the host has %s", out)
			}
			r.leftOnly(fmt.Sprint(r.links("")), c)
		})
	}
}

// A container that may change its links gets none of its own into the host in the device's place, and does
// not keep the device by another name or alias.
func TestAContainerGivesBackTheDeviceAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, does, lacks string }{
		{name: "a link of its own by the device's name", does: "link set eth0 down; link set eth0 name mine; link add eth0 type veth peer name other; link set eth0 alias lan1"},
		{name: "the device's alias on a link of its own", does: "link set eth0 down; link set eth0 name mine; link set mine alias x; link add eth0 type bridge; link set eth0 alias lan0"},
		{name: "another alias", does: "link set eth0 alias lan1"},
		{name: "no alias", does: "link set eth0 down; link set eth0 name mine; link set mine alias x"},
		{name: "the name of a link of the host", does: "link property add dev eth0 altname boxwire0; link property add dev eth0 altname enp7"},
		{name: "a port of its bridge", does: "link add br0 type bridge; link set eth0 master br0"},
		{name: "in the place of a device that it has deleted", lacks: "lan0", does: "link del eth0; link add eth0 index INDEX type veth peer name other; link set eth0 alias lan0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, _ := onLAN(t, withIPAM+`"mode": "host-device", "device": "lan0"`)
			testutil.Run(t, r.host, "ip", "link", "set", "lan0", "alias", "uplink")
			testutil.Run(t, r.host, "ip", "link", "add", "boxwire0", "type", "bridge")
			before := linkNames(t, r.host)
			c := r.container("c1", "")
			r.add(c)
			index, _, _ := strings.Cut(testutil.Run(t, c.ns, "ip", "-o", "link", "show", "eth0"), ":")
			for _, line := range strings.Split(strings.ReplaceAll(test.does, "INDEX", index), ";") {
				testutil.Run(t, c.ns, "ip", strings.Fields(line)...)
			}
			for range 2 {
				r.del(c)
				after := linkNames(t, r.host)
				if want := slices.DeleteFunc(slices.Clone(before), func(name string) bool { return name == test.lacks }); !slices.Equal(after, want) {
					t.Errorf("the host had the links %q, and has %q", before, after)
				}
				if test.lacks == "" {
					if alias, up := aliasOf(t, r.host, "lan0"); alias != "uplink" || up {
						t.Errorf("the host has it with the alias %q, up: %t", alias, up)
					}
				}
			}
		})
	}
}

// linkNames are the names of a namespace's links, in order.
func linkNames(t testing.TB, ns *netns.NS) (names []string) {
	t.Helper()
	var links []struct{ IfName string }
	testutil.JSON(t, ns, &links, "ip", "-j", "link", "show")
	for _, l := range links {
		names = append(names, l.IfName)
	}
	slices.Sort(names)
	return names
}
