package netns

import (
	"errors"
	"os"
	"strings"
	"testing"
)

const (
	idA = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
	idB = "9ec39b91f3d70e1beff50a308f77067065ea6be0d91a3378375056cd4422cf3d"
	pod = "kubepods-burstable-pod6c2b1a7e_9c41_4f3d_8a55_0d6f2a7c9b10.slice"
)

// TestContainerInCgroup has the paths that the runtimes make, as /proc/PID/cgroup
// shows them.
func TestContainerInCgroup(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, lines, want string
		id                string // "" is none
	}{
		{"docker v1 cgroupfs", "12:pids:/docker/" + idA + "\n1:name=systemd:/docker/" + idA + "\n0::/system.slice/containerd.service\n", idA, idA},
		{"docker v1 systemd", "10:devices:/system.slice/docker-" + idA + ".scope\n", idA, idA},
		{"docker v2 systemd", "0::/system.slice/docker-" + idA + ".scope\n", idA, idA},
		{"docker v2 cgroupfs", "0::/docker/" + idA + "\n", idA, idA},
		{"docker rootless v2", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + idA + ".scope\n", idA, idA},
		{"docker with a cgroup parent", "4:memory:/build/ci/" + idA + "\n", idA, idA},
		{"docker seen from a sibling's cgroup namespace", "0::/../docker-" + idA + ".scope\n", idA, idA},
		{"docker, systemd inside", "0::/system.slice/docker-" + idA + ".scope/system.slice/nginx.service\n", idA, idA},
		{"docker, init inside", "0::/docker/" + idA + "/init.scope\n", idA, idA},
		{"debian's own, no directory", "10:net_prio:/" + idA + "\n", idA, idA},
		{"podman v2 systemd", "0::/machine.slice/libpod-" + idA + ".scope/container\n", idA, idA},
		{"podman v1 systemd", "9:cpuset:/machine.slice/libpod-" + idA + ".scope\n", idA, idA},
		{"podman rootless v2", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + idA + ".scope/container\n", idA, idA},
		{"podman cgroupfs", "0::/libpod_parent/libpod-" + idA + "\n", idA, idA},
		{"podman in a pod", "0::/machine.slice/machine-libpod_pod_" + idB + ".slice/libpod-" + idA + ".scope/container\n", idA, idA},
		{"podman's pod is no container", "0::/machine.slice/machine-libpod_pod_" + idB + ".slice/libpod-" + idA + ".scope/container\n", idB, ""},
		{"podman in a service", "0::/system.slice/web.service/libpod-payload-" + idA + "\n", idA, idA},
		{"podman's supervisor in a service", "0::/system.slice/web.service/supervisor\n", idA, ""},
		{"podman's monitor", "0::/machine.slice/libpod-conmon-" + idA + ".scope\n", idA, ""},
		{"containerd with kubelet, systemd", "0::/kubepods.slice/kubepods-burstable.slice/" + pod + "/cri-containerd-" + idA + ".scope\n", idA, idA},
		{"containerd with kubelet, cgroupfs", "8:blkio:/kubepods/besteffort/pod6c2b1a7e-9c41-4f3d-8a55-0d6f2a7c9b10/" + idA + "\n", idA, idA},
		{"containerd cgroupfs below systemd", "1:name=systemd:/system.slice/containerd.service/" + pod + ":cri-containerd:" + idA + "\n", idA, idA},
		{"kind: a container in a container", "0::/docker/" + idB + "/kubelet.slice/kubelet-kubepods.slice/cri-containerd-" + idA + ".scope\n", idA, idA},
		{"kind: not the outer one's", "0::/docker/" + idB + "/kubelet.slice/kubelet-kubepods.slice/cri-containerd-" + idA + ".scope\n", idB, ""},
		{"podman in docker: the monitor is the outer one's", "0::/docker/" + idB + "/libpod_parent/libpod-conmon-" + idA + "\n", idB, idB},
		{"nerdctl systemd", "0::/system.slice/nerdctl-" + idA + ".scope\n", idA, idA},
		{"nerdctl cgroupfs", "0::/default/" + idA + "\n", idA, idA},
		{"ctr", "0::/default/redis\n", "redis", "redis"},
		{"ctr v1", "5:freezer:/default/redis\n4:memory:/default/redis\n", "redis", "redis"},
		{"ctr, another name", "0::/default/redis-2\n", "redis", ""},
		{"ctr's namespace is no container", "0::/default/redis\n", "default", ""},
		{"a named scope", "0::/system.slice/nerdctl-my-redis.scope\n", "my-redis", "my-redis"},
		{"a named scope, the end of another name", "0::/system.slice/nerdctl-my-redis.scope\n", "redis", ""},
		{"a colon name", "1:name=systemd:/system.slice:containerd:redis\n", "redis", "redis"},
		{"CRI-O systemd", "0::/kubepods.slice/kubepods-burstable.slice/" + pod + "/crio-" + idA + ".scope\n", idA, idA},
		{"CRI-O systemd, container level", "0::/kubepods.slice/" + pod + "/crio-" + idA + ".scope/container\n", idA, idA},
		{"CRI-O cgroupfs", "3:cpu:/kubepods/besteffort/pod6c2b1a7e-9c41-4f3d-8a55-0d6f2a7c9b10/crio-" + idA + "\n", idA, idA},
		{"CRI-O's monitor", "0::/kubepods.slice/" + pod + "/crio-conmon-" + idA + ".scope\n", idA, ""},
		{"short id", "0::/system.slice/docker-" + idA + ".scope\n", idA[:12], idA},
		{"too short an id", "0::/system.slice/docker-" + idA + ".scope\n", idA[:11], ""},
		{"not the beginning", "0::/system.slice/docker-" + idA + ".scope\n", idA[1:20], ""},
		{"another container", "0::/system.slice/docker-" + idB + ".scope\n", idA, ""},
		{"a service of the host", "0::/system.slice/docker.service\n", "docker", ""},
		{"a session", "0::/user.slice/user-1000.slice/session-2.scope\n", "2", ""},
		{"the root", "0::/\n", idA, ""},
		{"nothing", "", idA, ""},
		{"malformed", "0:\n::\n/docker/" + idA, idA, ""},
	} {
		c, ok := containerOf(tt.lines, tt.want)
		if !ok {
			c.id = ""
		}
		if c.id != tt.id {
			t.Errorf("%s: %q in %q gives %q, want %q", tt.name, tt.want, tt.lines, c.id, tt.id)
		}
	}
}

// A cgroup that more can make counts for less.
func TestContainerClaims(t *testing.T) {
	t.Parallel()
	for path, rank := range map[string]int{
		"0::/system.slice/docker-" + idA + ".scope": 0,
		"0::/default/" + idA:                        0,
		"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + idA + ".scope":                        1,
		"0::/docker/" + idB + "/docker/" + idA:                                                                        2,
		"0::/user.slice/user-1000.slice/libpod-" + idB + ".scope/libpod-" + idA + ".scope":                            3,
		"2:cpu:/docker/" + idA + "\n1:name=systemd:/docker/" + idB + "/" + idA:                                        2,
		"0::/kubepods.slice/" + pod + "/cri-containerd-" + idB + ".scope/a/cri-containerd-" + idB + ".scope/x-" + idA: 4,
	} {
		if c, ok := containerOf(path+"\n", idA); !ok || c.rank != rank {
			t.Errorf("%s: %+v, %v, want rank %d", path, c, ok, rank)
		}
	}
}

func TestContainerOfMonitor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, args, want, id string
	}{
		{"shim", "/usr/bin/containerd-shim-runc-v2 -namespace moby -id " + idA + " -address /run/containerd/containerd.sock", idA[:12], idA},
		{"conmon", "/usr/bin/conmon --api-version 1 -c " + idA + " -u " + idA + " -r /usr/bin/crun", idA, idA},
		{"CRI-O's conmon", "/usr/libexec/crio/conmon --cid " + idA, idA, idA},
		{"named", "containerd-shim-runc-v2 -namespace default -id redis", "redis", "redis"},
		{"named otherwise", "containerd-shim-runc-v2 -namespace default -id redis-2", "redis", ""},
		{"another program", "grep -c " + idA, idA, ""},
		{"no id", "/usr/bin/conmon -c", idA, ""},
		{"a kernel thread", "", idA, ""},
	} {
		id, ok := monitored(strings.ReplaceAll(tt.args, " ", "\x00")+"\x00", tt.want)
		if !ok {
			id = ""
		}
		if id != tt.id {
			t.Errorf("%s: %q, want %q", tt.name, id, tt.id)
		}
	}
}

func TestBadContainerIDs(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "docker://", "a/b", "../x", "-x", "x-", "a b", "a\x00", "ä", "ssh.service", "x.slice", "init.scope", strings.Repeat("a", 77)} {
		if got, err := checkContainerID(id); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%q: %q, %v", id, got, err)
		}
	}
	for id, want := range map[string]string{idA: idA, "cri-o://" + idA: idA, "redis": "redis", "a.b_c-d": "a.b_c-d"} {
		if got, err := checkContainerID(id); err != nil || got != want {
			t.Errorf("%q: %q, %v", id, got, err)
		}
	}
}

func FuzzContainerInCgroup(f *testing.F) {
	f.Add("0::/system.slice/docker-"+idA+".scope\n", idA)
	f.Add("1:name=systemd:/a.slice:cri-containerd:"+idA+"\n", idA[:12])
	f.Fuzz(func(t *testing.T, cgroup, want string) {
		c, ok := containerOf(cgroup, want)
		if ok && c.id != want && !strings.HasPrefix(c.id, want) {
			t.Errorf("%q for %q", c.id, want)
		}
		monitored(cgroup, want)
	})
}
