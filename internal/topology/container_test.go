package topology

import (
	"strings"
	"testing"
)

func TestContainerOf(t *testing.T) {
	t.Parallel()
	id, outer := strings.Repeat("0a1b", 16), strings.Repeat("f", 64)
	for cgroups, want := range map[string]Container{
		"":                   {},
		"0::/\n":             {},
		"0::/user.slice/x\n": {},
		"0::/system.slice/docker-" + id + ".scope\n":                                          {id, "docker"},
		"0::/machine.slice/libpod-" + id + ".scope/container\n":                               {id, "libpod"},
		"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope\n":            {id, "cri-containerd"},
		"12:cpu:/docker/" + id + "\n":                                                         {id, "docker"},
		"1:name=systemd:/kubepods/burstable/pod1/" + id + "\n":                                {id, ""},
		"0::/docker/" + outer + "/docker/" + id + "\n":                                        {id, "docker"},
		"0::/system.slice/docker-" + strings.ToUpper(id) + ".scope\n":                         {},
		"0::/system.slice/docker-" + id[1:] + ".scope\n":                                      {},
		"garbage\n0::\n:::::\n0::/system.slice/nerdctl-" + id + ".scope\n0::/docker-" + outer: {id, "nerdctl"},
	} {
		if got := containerOf(cgroups); got != want {
			t.Errorf("%q is of %+v, want %+v", cgroups, got, want)
		}
	}
}
