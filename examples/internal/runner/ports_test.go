//go:build linux

package runner

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/nat"
)

func TestParsePublication(t *testing.T) {
	t.Parallel()
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("2001:db8::1")
	for text, want := range map[string]publication{
		"80":                        {box: 80, count: 1, proto: nat.TCP},
		"8080:80":                   {host: 8080, box: 80, count: 1, proto: nat.TCP},
		"8080:80/udp":               {host: 8080, box: 80, count: 1, proto: nat.UDP},
		"127.0.0.1:8080:80/sctp":    {addr: v4, host: 8080, box: 80, count: 1, proto: nat.SCTP},
		"9000-9009":                 {box: 9000, count: 10, proto: nat.TCP},
		"127.0.0.1::80":             {addr: v4, box: 80, count: 1, proto: nat.TCP},
		"[2001:db8::1]:8080:80":     {addr: v6, host: 8080, box: 80, count: 1, proto: nat.TCP},
		"[2001:db8::1]:80":          {addr: v6, box: 80, count: 1, proto: nat.TCP},
		"8000-8009:9000-9009":       {host: 8000, box: 9000, count: 10, proto: nat.TCP},
		"127.0.0.1:8000-8001:80-81": {addr: v4, host: 8000, box: 80, count: 2, proto: nat.TCP},
		"[2001:db8::1]:65535:65535": {addr: v6, host: 65535, box: 65535, count: 1, proto: nat.TCP},
		"1-65535:1-65535/udp":       {host: 1, box: 1, count: 65535, proto: nat.UDP},
		"[2001:db8::1]:80-81:80-81": {addr: v6, host: 80, box: 80, count: 2, proto: nat.TCP},
		"0.0.0.0:8080:80":           {addr: netip.IPv4Unspecified(), host: 8080, box: 80, count: 1, proto: nat.TCP},
		"[::]:8080:80":              {addr: netip.IPv6Unspecified(), host: 8080, box: 80, count: 1, proto: nat.TCP},
	} {
		want.text = text
		got, err := parsePublication(text)
		if err != nil || got != want {
			t.Errorf("parsePublication(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
}

func TestBadPublicationsAreNamed(t *testing.T) {
	t.Parallel()
	for text, reason := range map[string]string{
		"":                    `"" is no port`,
		"0:80":                `"0" is no port`,
		"8080:0":              `"0" is no port`,
		"8080:80/icmp":        `"icmp"`,
		"8080:80:90:100":      "too many colons",
		"here:8080:80":        `"here" is no address`,
		"[10.0.0.1]:8080:80":  "no IPv6 address",
		"[::1]":               "no port behind",
		"::1:8080:80":         "too many colons",
		"8000-8010:9000-9009": "different lengths",
		"8010-8000:80":        "ends before it begins",
		"65536:80":            `"65536" is no port`,
		"8080:80-":            `"" is no port`,
	} {
		_, err := parsePublication(text)
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), "-p "+text) {
			t.Errorf("parsePublication(%q): %v, want one that says %q", text, err, reason)
		}
	}
}
