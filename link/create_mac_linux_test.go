package link

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// assignTypes reads where the kernel has the hardware addresses of the namespace's
// links from, by the name of the link: what systemd-udevd decides by.
func assignTypes(t *testing.T, ns *netns.NS) map[string]string {
	t.Helper()
	types, err := netns.Do(t.Context(), ns, func(context.Context) (map[string]string, error) {
		// A sysfs shows the links of the namespace that it was mounted in.
		fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("fsopen: %w", err)
		}
		defer unix.Close(fs)
		if err := unix.FsconfigCreate(fs); err != nil {
			return nil, fmt.Errorf("fsconfig: %w", err)
		}
		mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
		if err != nil {
			return nil, fmt.Errorf("fsmount: %w", err)
		}
		defer unix.Close(mount)
		root := fmt.Sprintf("/proc/self/fd/%d/class/net", mount)
		entries, err := os.ReadDir(root)
		types := map[string]string{}
		for _, e := range entries {
			b, rerr := os.ReadFile(filepath.Join(root, e.Name(), "addr_assign_type"))
			if rerr != nil {
				continue // bonding_masters
			}
			types[e.Name()] = strings.TrimSpace(string(b))
		}
		return types, err
	})
	if err != nil {
		t.Skipf("no sysfs for a namespace can be mounted here: %v", err)
	}
	return types
}

// NET_ADDR_* in linux/netdevice.h.
const (
	macPermanent = "0"
	macRandom    = "1"
	macStolen    = "2"
	macSet       = "3"
)

// Without Spec.MAC, a link has an address that was set, so that nothing replaces
// it. Where the kernel takes over another link's address, it still does.
func TestCreateSetsAMAC(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		kind Kind
		want string // where the address is from; "": there is none
	}{
		{"bridge", Bridge{}, macSet},
		{"veth", Veth{Peer: Spec{Name: "peer"}}, macSet},
		{"dummy", Dummy{}, macSet},
		{"ifb", IFB{}, macSet},
		{"vrf", VRF{Table: 10}, macSet},
		{"macvlan", Macvlan{Mode: MacvlanBridge}, macSet},
		{"macvlan source", Macvlan{Mode: MacvlanSource}, macSet},
		{"macvlan passthru", Macvlan{Mode: MacvlanPassthru}, macSet}, // the parent's
		{"macvtap", Macvtap{}, macSet},
		{"macvtap passthru", Macvtap{Macvlan{Mode: MacvlanPassthru}}, macSet},
		{"vxlan", VXLAN{ID: new(uint32(1)), Port: 4789}, macSet},
		{"vxlan GPE", VXLAN{External: true, GPE: true, Port: 4790}, ""},
		{"geneve", Geneve{ID: new(uint32(1)), Remote: addr("192.0.2.1")}, macSet},
		{"tap", Tun{Tap: true, Persist: true}, macSet},
		{"tun", Tun{Persist: true}, ""},
		{"netkit L2", Netkit{Mode: new(NetkitL2), Peer: Spec{Name: "peer"}}, macSet},
		{"netkit L3", Netkit{Peer: Spec{Name: "peer"}}, ""},
		{"vlan", VLAN{ID: 5}, macStolen},
		{"ipvlan", IPVLAN{}, macPermanent},
		{"bond", Bond{}, macRandom}, // until it has a port
		{"wireguard", WireGuard{}, ""},
		{"gre", Other{Name: "gretap"}, macRandom},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			spec := Spec{Name: "l0", Up: true, Kind: tt.kind}
			switch tt.kind.(type) {
			case VLAN, IPVLAN, Macvlan, Macvtap:
				below := mustCreate(t, ns, Spec{Name: "below0", Up: true, Kind: Veth{Peer: Spec{Name: "below1"}}})
				spec.Parent = below.Ref()
			}
			l, err := Create(t.Context(), ns, spec)
			major, minor := 5, 4
			if _, ok := tt.kind.(Netkit); ok {
				major, minor = 6, 7
			}
			if _, ok := tt.kind.(Tun); ok {
				needTun(t, err)
			}
			testutil.NeedKernel(t, major, minor, tt.name, err)
			types := assignTypes(t, ns)
			for _, name := range []string{"l0", "peer"} {
				typ, ok := types[name]
				if !ok && name == "peer" {
					continue
				}
				now, err := Get(t.Context(), ns, name)
				if err != nil {
					t.Fatal(err)
				}
				if tt.want == "" {
					if len(now.MAC) != 0 && !bytes.Equal(now.MAC, make([]byte, 6)) {
						t.Errorf("%s has the address %s, from %s", name, now.MAC, typ)
					}
					continue
				}
				if typ != tt.want {
					t.Errorf("the address of %s is from %s, want %s", name, typ, tt.want)
				}
				if name == "l0" && !bytes.Equal(l.MAC, now.MAC) {
					t.Errorf("Create returned the address %s, the link has %s", l.MAC, now.MAC)
				}
				if tt.want == macSet && (now.MAC[0]&3 != 2 || checkMAC(now.MAC) != nil) {
					t.Errorf("%s has the address %s, which is not a local unicast one", name, now.MAC)
				}
			}
		})
	}
}

// No two links get the same address, and the caller's spec none.
func TestCreateDrawsEachMACAnew(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	seen := map[string]bool{}
	kind := Veth{Peer: Spec{Name: "b"}}
	spec := Spec{Name: "a", Kind: kind}
	for range 10 {
		l := mustCreate(t, ns, spec)
		for _, w := range ipLinks(t, ns) {
			if w.Name != "lo" && seen[w.MAC] {
				t.Errorf("%s has the address %s, which another link had", w.Name, w.MAC)
			}
			seen[w.MAC] = true
		}
		if spec.MAC != nil || !reflect.DeepEqual(spec.Kind, kind) {
			t.Fatalf("Create changed the spec: %+v", spec)
		}
		if err := l.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// An address that is given stays, and Ensure and Update leave the one that is there.
func TestMACGivenOrThereStays(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	want := map[string]net.HardwareAddr{"br0": mac(1), "a": mac(2), "b": mac(3)}
	given := mustCreate(t, ns, Spec{Name: "br0", MAC: want["br0"], Kind: Bridge{}})
	mustCreate(t, ns, Spec{Name: "a", MAC: want["a"], Kind: Veth{Peer: Spec{Name: "b", MAC: want["b"]}}})
	if _, err := Ensure(t.Context(), ns, Spec{Name: "br0", Up: true, Kind: Bridge{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(t.Context(), ns, Spec{Name: "a", Up: true, Kind: Veth{Peer: Spec{Name: "b", Up: true}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := given.Update(t.Context(), Spec{MTU: 1400}); err != nil {
		t.Fatal(err)
	}
	show := ipLinks(t, ns)
	for name, mac := range want {
		if show[name].MAC != mac.String() {
			t.Errorf("%s has the address %s, want %s", name, show[name].MAC, mac)
		}
	}
	first, err := Ensure(t.Context(), ns, Spec{Name: "br1", Kind: Bridge{}})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Ensure(t.Context(), ns, Spec{Name: "br1", Kind: Bridge{}})
	if err != nil || !bytes.Equal(first.MAC, again.MAC) {
		t.Errorf("Ensure made %s, and %s of it: %v", first.MAC, again.MAC, err)
	}
}

// A bridge keeps its address as ports come and go, lower ones too, so that a
// neighbour's entry for it stays right: one question is all that is ever asked.
func TestBridgeKeepsItsMAC(t *testing.T) {
	t.Parallel()
	ns, box := netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}, Addrs: prefixes("10.0.0.1/24")})
	mustCreate(t, ns, Spec{Name: "web0", Up: true, Master: br.Ref(), Kind: Veth{Peer: Spec{NS: box, Name: "eth0", Up: true, Addrs: prefixes("10.0.0.2/24")}}})
	if br.MAC == nil {
		t.Fatal("the bridge has no address")
	}
	for i := range 5 {
		low := mustCreate(t, ns, Spec{Name: "low", Up: true, Master: br.Ref(), MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(9 - i)}, Kind: Veth{Peer: Spec{Name: "other", Up: true}}})
		if got := ipLinks(t, ns)["br0"].MAC; got != br.MAC.String() {
			t.Errorf("with the port %s the bridge has the address %s, was made with %s", low.MAC, got, br.MAC)
		}
		if err := low.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := ipLinks(t, ns)["br0"].MAC; got != br.MAC.String() {
			t.Errorf("without the port the bridge has the address %s, was made with %s", got, br.MAC)
		}
	}
}
