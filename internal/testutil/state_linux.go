package testutil

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// State returns everything that ip, bridge and tc show of the namespaces, and their
// settings below /proc/sys/net, as a text to be compared. Counters and times are left
// out.
func State(t testing.TB, spaces ...*netns.NS) string {
	t.Helper()
	ip, bridge, tc := Witness(t, "ip"), Witness(t, "bridge"), Witness(t, "tc")
	var b strings.Builder
	for i, ns := range spaces {
		text, err := netns.Do(context.WithoutCancel(t.Context()), ns, func(context.Context) (string, error) {
			var b strings.Builder
			for _, c := range []struct{ tool, commands string }{
				{ip, "address show\nneighbour show nud all\nneighbour show proxy\nroute show table all\nrule show\n-6 rule show\nnexthop show\n"},
				{bridge, "fdb show\n"},
				{bridge, "vlan show\nvlan tunnelshow\n"},
				{tc, "qdisc show\n"},
			} {
				if err := show(&b, c.tool, c.commands); err != nil {
					return "", err
				}
			}
			err := settings(&b)
			return b.String(), err
		})
		if err != nil {
			t.Fatalf("reading the state of netns %s: %v", ns, err)
		}
		fmt.Fprintf(&b, "namespace %d\n%s", i, text)
	}
	return b.String()
}

// show runs commands of one tool and writes what they print, a line for each thing.
// What a kernel does not have, next hops or VLANs, is not shown.
func show(to *strings.Builder, tool, commands string) error {
	cmd := exec.Command(tool, "-d", "-j", "-force", "-batch", "-")
	cmd.Stdin = strings.NewReader(commands)
	out, err := cmd.Output()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		return err
	}
	var lines []string
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var list []any
		derr := d.Decode(&list)
		if derr == io.EOF || derr != nil && err != nil {
			break
		}
		if derr != nil {
			return fmt.Errorf("%s: %w\n%s", tool, derr, out)
		}
		for _, v := range list {
			if m, _ := v.(map[string]any); comesAndGoes(m) {
				continue
			}
			one, err := describe(lasting(v))
			if err != nil {
				return err
			}
			lines = append(lines, one...)
		}
	}
	if len(lines) == 0 && strings.HasPrefix(commands, "address") {
		return fmt.Errorf("%s shows no link: %w", tool, err)
	}
	slices.Sort(lines)
	fmt.Fprintf(to, "%s\n%s\n", filepath.Base(tool), strings.Join(lines, "\n"))
	return nil
}

// passing are what changes by itself.
var passing = []string{
	"gc_timer", "hello_timer", "tcn_timer", "topology_change_timer", "hold_timer", "message_age_timer", "forward_delay_timer",
	"used", "updated", "confirmed", "probes", "refcnt", "valid_life_time", "preferred_life_time", "expires",
	"qdisc", "tso_max_size", "tso_max_segs", // of a link, shown again as one, and of a bridge by its ports
	"bytes", "packets", "drops", "overlimits", "requeues", "backlog", "qlen",
}

// comesAndGoes reports whether the kernel makes and removes a thing by itself: a
// neighbour entry for a group that something was sent to, an address that a bridge has
// learned, the groups that a link is in, and the qdisc of a link that has none.
func comesAndGoes(m map[string]any) bool {
	mac, state := fmt.Sprint(m["mac"]), fmt.Sprint(m["state"])
	return state == "[NOARP]" || m["mac"] != nil && state == "" || m["type"] == "multicast" ||
		mac == "33:33:00:00:00:01" || strings.HasPrefix(mac, "01:00:5e:00:") || m["kind"] == "noqueue"
}

// describe returns the lines of one thing. Those of a link have a line for each
// property, so that a difference is short.
func describe(v any) (lines []string, err error) {
	m, _ := v.(map[string]any)
	if m["ifindex"] == nil {
		text, err := json.Marshal(v)
		return []string{string(text)}, err
	}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		if m, ok := v.(map[string]any); ok {
			for k, v := range m {
				walk(name+" "+k, v)
			}
			return
		}
		text, terr := json.Marshal(v)
		lines, err = append(lines, name+" "+string(text)), errors.Join(err, terr)
	}
	walk(fmt.Sprint(m["ifname"]), v)
	return lines, err
}

// lasting takes out of v what changes by itself.
func lasting(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range passing {
			delete(v, k)
		}
		if v["family"] == "inet6" && v["metric"] == 256.0 {
			delete(v, "metric") // the default, by its number
		}
		for k := range v {
			v[k] = lasting(v[k])
		}
	case []any:
		for i := range v {
			v[i] = lasting(v[i])
		}
	}
	return v
}

// settings writes those of the thread's namespace.
func settings(to *strings.Builder) error {
	for _, dir := range []string{"ipv4/conf", "ipv4/neigh", "ipv6/conf", "ipv6/neigh"} {
		err := filepath.WalkDir("/proc/sys/net/"+dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil // gone, or no IPv6
			}
			if text, err := readSetting(path); err == nil {
				_, name, _ := strings.Cut(path, "/sys/net/")
				fmt.Fprintf(to, "%s %s\n", name, bytes.TrimSpace(text))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readSetting reads a file of /proc/sys. An os.File would be polled for, which takes
// three times as long as the rest: there are thousands of files.
func readSetting(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	text := make([]byte, 4096)
	n, err := unix.Read(fd, text)
	return text[:max(n, 0)], err
}
