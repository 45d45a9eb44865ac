package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	for flags, want := range map[string]string{
		"-allow example.org:443":               "[] [{example.org false {6 443}}]",
		"-allow Example.ORG.:443":              "[] [{example.org false {6 443}}]",
		"-allow *.example.org:443":             "[] [{example.org true {6 443}}]",
		"-allow udp_example.org:443":           "[] [{udp_example.org false {6 443}}]",
		"-allow udp example.org:443":           "[] [{example.org false {17 443}}]",
		"-allow localhost:80":                  "[] [{localhost false {6 80}}]",
		"-allow 203.0.113.0/24:22":             "[tcp 203.0.113.0/24 port 22] []",
		"-allow 203.0.113.7:8000-8010":         "[tcp 203.0.113.7/32 port 8000-8010] []",
		"-allow [2001:db8::/32]:22":            "[tcp 2001:db8::/32 port 22] []",
		"-allow udp [2001:db8::1]:53":          "[udp 2001:db8::1/128 port 53] []",
		"-allow udp host port 53":              "[udp host port 53] []",
		"-allow icmp 203.0.113.0/24":           "[icmp 203.0.113.0/24] []",
		"-allow 10.0.0.0/8 except 10.1.0.0/16": "[10.0.0.0/8 except 10.1.0.0/16] []",
	} {
		o, err := parseOptions(args(flags), io.Discard)
		if got := fmt.Sprintf("%v %v", o.allow.rules, o.allow.names); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", flags, got, err, want)
		}
	}
}

// args are the arguments of a flag and a command.
func args(flag string) []string {
	name, value, _ := strings.Cut(flag, " ")
	return []string{name, value, "--", "true"}
}

func TestResolvers(t *testing.T) {
	t.Parallel()
	o, err := parseOptions([]string{"-dns", "203.0.113.1", "-dns", "[2001:db8::1]:54", "true"}, io.Discard)
	if got := fmt.Sprint(o.resolvers); err != nil || got != "[203.0.113.1:53 [2001:db8::1]:54]" {
		t.Errorf("%s, %v", got, err)
	}
}

func TestBadOptionsAreRefusedByName(t *testing.T) {
	t.Parallel()
	for flags, want := range map[string]string{
		"-allow ":                                 "it is empty",
		"-allow example.org":                      `"example.org" lacks a port`,
		"-allow example.org:":                     `"example.org:" lacks a port`,
		"-allow 203.0.113.0/24":                   `"203.0.113.0/24" lacks a port`,
		"-allow tcp 203.0.113.0/24":               `"203.0.113.0/24" lacks a port`,
		"-allow udp host":                         "udp needs a port",
		"-allow tcp 10.0.0.0/8 except 10.0.0.0/9": "tcp needs a port",
		"-allow 203.0.113.7/24:22":                "203.0.113.0/24 is the prefix",
		"-allow 203.0.113.0/33:22":                `"203.0.113.0/33" is neither a prefix`,
		"-allow 2001:db8::1:443":                  "in brackets",
		"-allow [2001:db8::1]":                    "lacks a port",
		"-allow [example.org]:443":                "brackets are for addresses of IPv6",
		"-allow example.org/24:22":                `"example.org/24" is neither a prefix`,
		"-allow 999.1.1.1:22":                     `"999.1.1.1" is neither a prefix`,
		"-allow tcp example.org port 443":         `"example.org" is neither a prefix`,
		"-allow :443":                             `the name "" has 0 bytes`,
		"-allow *.:443":                           `the name "" has 0 bytes`,
		"-allow *:443":                            "'*' stands for",
		"-allow www.*.org:443":                    "'*' stands for",
		"-allow a..org:443":                       `the part ""`,
		"-allow -a.org:443":                       "begins or ends with '-'",
		"-allow bücher.example:443":               "xn--",
		"-allow exa$mple.org:443":                 `has '$'`,
		"-allow example.org:0":                    "1 to 65535",
		"-allow example.org:70000":                "1 to 65535",
		"-allow example.org:80-90":                "one number",
		"-allow 203.0.113.0/24:0":                 "not a number from 1",
		"-dns example.org":                        "neither an address nor",
		"-dns 203.0.113.1:0":                      "port 0",
		"-min-ttl 1ms":                            "-min-ttl 1ms is not between",
		"-min-ttl 48h":                            "-min-ttl 48h0m0s is not between",
		"-subnet 10.0.0.0/31":                     "-subnet 10.0.0.0/31",
		"-subnet fd00::/64":                       "an IPv4 prefix",
		"-subnet 10.0.0.1/24":                     "10.0.0.0/24 is the prefix",
		"-subnet ten":                             "-subnet",
	} {
		if _, err := parseOptions(args(flags), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", flags, err, want)
		} else if name, _, _ := strings.Cut(flags, " "); !strings.Contains(err.Error(), name) {
			t.Errorf("%s: the error does not name the flag: %v", flags, err)
		}
	}
	for _, none := range [][]string{{}, {"--"}, {"-allow", "example.org:443"}, {""}} {
		if _, err := parseOptions(none, io.Discard); err == nil || !strings.Contains(err.Error(), "command") {
			t.Errorf("%q: %v", none, err)
		}
	}
}

func TestPortsOfAName(t *testing.T) {
	t.Parallel()
	var a allowed
	for _, text := range []string{"example.org:443", "udp example.org:443", "*.example.org:80", "*.org:22"} {
		if err := a.add(text); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"example.org": "[{6 443} {17 443} {6 22}]", "a.example.org": "[{6 80} {6 22}]", "a.b.example.org": "[{6 80} {6 22}]",
		"notexample.org": "[{6 22}]", "org": "[]", "example.com": "[]", "": "[]", ".": "[]",
	} {
		if got := fmt.Sprint(a.ports(name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if len(a.rules) != 0 {
		t.Errorf("names became rules: %v", a.rules)
	}
}
