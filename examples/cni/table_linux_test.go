package main

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// Each test that the table of the reference plugins' tests names is there.
func TestTheTableOfReferenceTestsNamesTests(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, f := range files {
		source.WriteString(readFile(t, f))
	}
	names := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(readFile(t, "REFERENCE.md"), -1)
	if len(names) < 50 {
		t.Errorf("the table names %d tests", len(names))
	}
	for _, name := range names {
		if !strings.Contains(source.String(), "func "+name+"(t *testing.T)") {
			t.Errorf("there is no %s", name)
		}
	}
}

// Each case of the reference plugins' tests is in the table of its file, with a test or the reason for none, and no other is.
func TestEveryReferenceCaseIsInTheTable(t *testing.T) {
	t.Parallel()
	here := map[string]string{} // what the page says, by file and case
	file := ""
	for line := range strings.Lines(strings.ReplaceAll(readFile(t, "REFERENCE.md"), `\|`, "/")) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "## "); ok {
			file = name
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 2 || cells[1] == "here" || cells[1] == "cases" {
			continue
		}
		if strings.HasSuffix(file, "_test.go") {
			here[file+"\t"+cells[0]] = cells[1]
			continue
		}
		for theirs := range strings.SplitSeq(cells[1], "; ") { // of a plugin that comes behind this one
			here[cells[0]+"\t"+theirs] = "not applicable: "
		}
	}
	answer := regexp.MustCompile(`\bTest[A-Z]\w+|\bsame\b|^not applicable: `)
	for line := range strings.Lines(readFile(t, "testdata/reference-cases.txt")) {
		line = strings.TrimSpace(strings.ReplaceAll(line, "|", "/"))
		if strings.HasPrefix(line, "#") {
			continue
		}
		said, ok := here[line]
		delete(here, line)
		if !ok || !answer.MatchString(said) {
			t.Errorf("of %q the page says %q", line, said)
		}
	}
	for line := range here {
		t.Errorf("the reference plugins have no case %q", line)
	}
}

// referenceKeys are the keys that the reference plugins read of their configurations, of runtimeConfig and of ipam (main of
// April 2026), and those that they had before.
var referenceKeys = map[string]string{
	"bridge": `bridge isGateway isDefaultGateway forceAddress ipMasq ipMasqBackend mtu hairpinMode promiscMode vlan vlanTrunk preserveDefaultVlan
		macspoofchk enabledad disableContainerInterface portIsolation runtimeConfig.mac args.cni.mac`,
	"ptp":         "ipMasq ipMasqBackend mtu",
	"macvlan":     "master mode mtu mac linkInContainer bcqueuelen runtimeConfig.mac",
	"ipvlan":      "master mode mtu linkInContainer",
	"vlan":        "master vlanId mtu linkInContainer",
	"host-device": "device hwaddr kernelpath pciBusID runtimeConfig.deviceID",
	"tap":         "multiQueue mtu mac owner group selinuxContext bridge runtimeConfig.mac",
	"portmap":     "backend snat conditionsV4 conditionsV6 masqAll markMasqBit externalSetMarkChain runtimeConfig.portMappings",
	"firewall":    "backend iptablesAdminChainName firewalldZone ingressPolicy",
	"bandwidth":   "ingressRate ingressBurst egressRate egressBurst unshapedSubnets shapedSubnets runtimeConfig.bandwidth",
	"tuning":      "dataDir sysctl mac promisc mtu txQLen allmulti runtimeConfig.mac",
	"vrf":         "vrfname table",
	"sbr":         "table gateways addSourceHints",
	"host-local":  "ipam.type ipam.routes ipam.dataDir ipam.resolvConf ipam.ranges ipam.subnet ipam.rangeStart ipam.rangeEnd ipam.gateway runtimeConfig.ipRanges runtimeConfig.ips args.cni.ips",
	"static":      "ipam.addresses ipam.routes runtimeConfig.ips args.cni.ips",
	"dhcp":        "ipam.daemonSocketPath ipam.provide ipam.request ipam.priority",
	"all":         "name type cniVersion capabilities ipam dns prevResult",
}

// The plugin reads each key of the reference plugins, to obey it or to refuse it by name, and its README names it. snat is
// the one that needs nothing: it is named.
func TestEveryReferenceKeyIsRead(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"snat": true, "prevResult": true}
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			in := f.Type
			if in.Kind() == reflect.Pointer {
				in = in.Elem()
			}
			switch {
			case tag == "-":
			case tag != "":
				known[prefix+tag] = true
				if in.Kind() == reflect.Struct && (tag == "runtimeConfig" || tag == "args" || tag == "cni") {
					walk(prefix+tag+".", in)
				}
			case f.Anonymous && in.Kind() == reflect.Struct:
				walk(prefix, in)
			}
		}
	}
	walk("", reflect.TypeFor[config]())
	walk("ipam.", reflect.TypeFor[pool]())
	known["ipam.type"], known["runtimeConfig.ipRanges"] = known["ipam"], true // parsePool
	readme := readFile(t, "README.md")
	for plugin, keys := range referenceKeys {
		for key := range strings.FieldsSeq(keys) {
			if !known[key] {
				t.Errorf("the key %s of %s is not read", key, plugin)
			}
			name := key[strings.LastIndex(key, ".")+1:]
			if plugin != "all" && !strings.Contains(readme, "`"+name+"`") && !strings.Contains(readme, `"`+name+`"`) {
				t.Errorf("the README does not name %s of %s", name, plugin)
			}
		}
	}
}

func TestASetOfRangesIsGoneRound(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	set := []addrRange{
		{Subnet: netip.MustParsePrefix("10.1.0.0/29"), Start: addr("10.1.0.2"), End: addr("10.1.0.4")},
		{Subnet: netip.MustParsePrefix("10.2.0.0/29"), Start: addr("10.2.0.2"), End: addr("10.2.0.3")},
	}
	for i := range set {
		if err := set[i].complete(); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ name, last, taken, want string }{
		{"none was chosen yet", "", "", "10.1.0.2"},
		{"from the beginning", "10.1.0.2", "", "10.1.0.3"},
		{"from the end of a range", "10.1.0.4", "", "10.2.0.2"},
		{"from the end of the last", "10.2.0.3", "", "10.1.0.2"},
		{"past what is taken", "10.1.0.2", "10.1.0.3 10.1.0.4 10.2.0.2", "10.2.0.3"},
		{"round to itself", "10.1.0.3", "10.1.0.2 10.1.0.4 10.2.0.2 10.2.0.3", "10.1.0.3"},
		{"from one that is in no range any more", "10.9.0.9", "10.1.0.2", "10.1.0.3"},
		{"all are taken", "10.1.0.2", "10.1.0.2 10.1.0.3 10.1.0.4 10.2.0.2 10.2.0.3", "invalid IP"},
	} {
		last, _ := netip.ParseAddr(test.last)
		taken := map[netip.Addr]string{}
		for _, a := range strings.Fields(test.taken) {
			taken[addr(a)] = "another"
		}
		if got, _ := next(set, last, taken); got.String() != test.want {
			t.Errorf("%s: it is %v, want %s", test.name, got, test.want)
		}
	}
}

// What is not given of a range is that of host-local.
func TestRangesHaveDefaults(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	for _, test := range []struct {
		r                   addrRange
		start, end, gateway string
	}{
		{addrRange{Subnet: netip.MustParsePrefix("192.0.2.0/24")}, "192.0.2.1", "192.0.2.254", "192.0.2.1"},
		{addrRange{Subnet: netip.MustParsePrefix("192.0.2.0/25")}, "192.0.2.1", "192.0.2.126", "192.0.2.1"},
		{addrRange{Subnet: netip.MustParsePrefix("2001:db8:1::/64")}, "2001:db8:1::1", "2001:db8:1::ffff:ffff:ffff:ffff", "2001:db8:1::1"},
		{
			addrRange{Subnet: netip.MustParsePrefix("192.0.2.0/24"), Start: addr("192.0.2.40"), End: addr("192.0.2.50"), Gateway: addr("192.0.2.254")},
			"192.0.2.40", "192.0.2.50", "192.0.2.254",
		},
	} {
		if err := test.r.complete(); err != nil || test.r.Start != addr(test.start) || test.r.End != addr(test.end) || test.r.Gateway != addr(test.gateway) {
			t.Errorf("%v is %+v (%v), want %s to %s by %s", test.r.Subnet, test.r, err, test.start, test.end, test.gateway)
		}
	}
	for _, subnet := range []string{"192.0.2.12/24", "2001:db8:1::24:19ff:fee1:c44a/64", "2001:db8:24:19ff::/63", "192.168.127.0/23", "192.0.2.0/31"} {
		if err := (&addrRange{Subnet: netip.MustParsePrefix(subnet)}).complete(); codeOf(err) != 7 {
			t.Errorf("%s: %v", subnet, err)
		}
	}
	for _, r := range []addrRange{{Start: addr("192.0.3.0")}, {End: addr("192.0.4.0")}, {Start: addr("192.0.2.50"), End: addr("192.0.2.40")}} {
		r.Subnet = netip.MustParsePrefix("192.0.2.0/24")
		if err := r.complete(); codeOf(err) != 7 {
			t.Errorf("%v to %v: %v", r.Start, r.End, err)
		}
	}
}

func TestAnAddressIsInItsRange(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	v4 := addrRange{Subnet: netip.MustParsePrefix("192.0.2.0/24"), Start: addr("192.0.2.40"), End: addr("192.0.2.50"), Gateway: addr("192.0.2.254")}
	v6 := addrRange{Subnet: netip.MustParsePrefix("2001:db8:1::/64"), Start: addr("2001:db8:1::40"), End: addr("2001:db8:1::50"), Gateway: addr("2001:db8:1::1")}
	for a, want := range map[string]bool{
		"192.0.3.0": false, "192.0.2.39": false, "192.0.2.40": true, "192.0.2.50": true, "192.0.2.51": false, "192.0.2.254": false,
		"2001:db8:2::": false, "2001:db8:1::39": false, "2001:db8:1::40": true, "2001:db8:1::50": true, "2001:db8:1::51": false,
	} {
		r := v4
		if addr(a).Is6() {
			r = v6
		}
		if got := r.usable(addr(a)); got != want {
			t.Errorf("%s is in %v to %v: %t", a, r.Start, r.End, got)
		}
	}
}

// Two sets, and two ranges of one set, are refused for the same.
func TestOverlapOfRanges(t *testing.T) {
	t.Parallel()
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	for _, test := range []struct {
		name string
		a, b addrRange
		want bool
	}{
		{"non-overlapping", addrRange{Subnet: prefix("10.0.0.0/24")}, addrRange{Subnet: prefix("10.0.1.0/24")}, false},
		{"different families", addrRange{Subnet: prefix("0.0.0.0/24")}, addrRange{Subnet: prefix("::/24")}, false},
		{"identical", addrRange{Subnet: prefix("10.0.0.0/24")}, addrRange{Subnet: prefix("10.0.0.0/24")}, true},
		{"containing", addrRange{Subnet: prefix("10.0.0.0/20")}, addrRange{Subnet: prefix("10.0.1.0/24")}, true},
		{"parts of a subnet", addrRange{Subnet: prefix("10.0.0.0/24"), End: addr("10.0.0.127")}, addrRange{Subnet: prefix("10.0.0.0/24"), Start: addr("10.0.0.128")}, false},
		{"parts that overlap", addrRange{Subnet: prefix("10.0.0.0/24"), End: addr("10.0.0.127")}, addrRange{Subnet: prefix("10.0.0.0/24"), Start: addr("10.0.0.127")}, true},
	} {
		one, two := test.a, test.b
		for range 2 {
			p := pool{Ranges: [][]addrRange{{one}, {two}}}
			if err := p.check(); (err != nil) != test.want {
				t.Errorf("%s: %v", test.name, err)
			}
			if p = (pool{Ranges: [][]addrRange{{one, two}}}); test.name != "different families" {
				if err := p.check(); (err != nil) != test.want {
					t.Errorf("%s, in one set: %v", test.name, err)
				}
			} else if p.check() == nil {
				t.Error("a set has ranges of both families")
			}
			one, two = two, one
		}
	}
}
