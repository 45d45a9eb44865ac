package main

import (
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
)

// args are of CNI_ARGS, in the runtime's form.
func args(s string) (all [][2]string) {
	for pair := range strings.SplitSeq(s, ";") {
		k, v, _ := strings.Cut(pair, "=")
		all = append(all, [2]string{k, v})
	}
	return all
}

func TestAddressesAreAskedForInThreeWays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, args, conf, capabilities, mac, ip string }{
		{"CNI_ARGS", "MAC=02:00:00:00:00:01;IP=10.89.0.41", "", "", "02:00:00:00:00:01", "10.89.0.41/24"},
		{"with a length", "IP=10.89.0.42/24", "", "", "", "10.89.0.42/24"},
		{"twice", "IP=10.89.0.50,10.89.0.50/24,::ffff:10.89.0.50", "", "", "", "10.89.0.50/24"},
		{"of IPv6, too", "IP=10.89.0.43,fd89::43", "", "", "", "10.89.0.43/24 fd89::43/64"},
		{"what is for others", "K8S_POD_NAME=web;IgnoreUnknown=1;MAC=02:00:00:00:00:04;IP=10.89.0.44", "", "", "02:00:00:00:00:04", "10.89.0.44/24"},
		{"without IgnoreUnknown", "GATEWAY=10.89.0.1;IP=10.89.0.45", "", "", "", "10.89.0.45/24"},
		{"args.cni goes before", "MAC=02:00:00:00:00:05;IP=nonsense", `"args": {"cni": {"ips": ["10.89.0.46"], "mac": "02:00:00:00:00:06"}}`, "", "02:00:00:00:00:06", "10.89.0.46/24"},
		{"capabilities go before both", "MAC=nonsense;IP=10.89.0.47", `"args": {"cni": {"ips": ["10.89.0.48"]}}`, `"ips": ["10.89.0.49"], "mac": "02:00:00:00:00:09"`, "02:00:00:00:00:09", "10.89.0.49/24"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, test.conf)
			c := r.container("c1", test.capabilities)
			c.Args = args(test.args)
			r.add(c)
			have := testutil.Run(t, c.ns, "ip", "addr", "show", "eth0")
			for _, want := range append(strings.Fields(test.ip), test.mac) {
				if !strings.Contains(have, want) {
					t.Errorf("the container has no %s: %s", want, have)
				}
			}
			if err := r.check(c); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			r.del(c)
			r.gc()
			r.clean()
		})
	}
}

func TestBadArgsAreRefusedByADDOnly(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args, says string
		code       uint
	}{
		{"MAC=nonsense", "nonsense", 4},
		{"MAC=01:00:5e:00:00:01", "unicast", 4},
		{"IP=nonsense", "nonsense", 4},
		{"IP=", "cannot be read", 4},
		{"IP=10.90.0.1", "in no range", 7},
		{"IP=fd89::5%eth0", "cannot be read", 4},
		{"IP=10.89.0.5,fd89::5%eth0", "fd89::5%eth0", 4},
	} {
		t.Run(test.args, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			c := r.container("c1", "")
			c.Args = args(test.args)
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); codeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
				t.Errorf("ADD: code %d: %v, want %d, %q", codeOf(err), err, test.code, test.says)
			}
			r.del(c)
			r.clean()
		})
	}
}
