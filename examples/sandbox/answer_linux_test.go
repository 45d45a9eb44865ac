package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestChain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		answer []string
		addrs  string
		ttl    time.Duration
		kept   int
	}{
		{"an address", []string{"a.test. 300 A 198.51.100.1"}, "[198.51.100.1]", 300 * time.Second, 1},
		{"upper case", []string{"A.Test. 300 A 198.51.100.1"}, "[198.51.100.1]", 300 * time.Second, 1},
		{"the shortest lifetime", []string{"a.test. 20 CNAME b.test.", "b.test. 300 AAAA 2001:db8::1"}, "[2001:db8::1]", 20 * time.Second, 2},
		{"CNAMEs in no order", []string{"c.test. 300 A 198.51.100.1", "b.test. 300 CNAME c.test.", "a.test. 300 CNAME b.test."}, "[198.51.100.1]", 300 * time.Second, 3},
		{"a loop", []string{"a.test. 300 CNAME b.test.", "b.test. 300 CNAME a.test."}, "[]", 300 * time.Second, 2},
		{"another name's", []string{"b.test. 300 A 198.51.100.1"}, "[]", maxTTL, 0},
		{"a huge lifetime", []string{"a.test. 4294967295 A 198.51.100.1"}, "[198.51.100.1]", maxTTL, 1},
		{"no lifetime", []string{"a.test. 0 A 198.51.100.1"}, "[198.51.100.1]", 0, 1},
		{"addresses that are not outside", []string{
			"a.test. 300 A 127.0.0.1", "a.test. 300 A 169.254.169.254", "a.test. 300 A 224.0.0.1", "a.test. 300 A 0.0.0.0",
			"a.test. 300 AAAA ::1", "a.test. 300 AAAA fe80::1", "a.test. 300 AAAA ff02::1", "a.test. 300 AAAA ::", "a.test. 300 AAAA ::ffff:127.0.0.1",
		}, "[]", maxTTL, 0},
		{"other records", []string{`a.test. 300 TXT "x"`}, "[]", 300 * time.Second, 1},
	} {
		var answer []dns.RR
		for _, text := range c.answer {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Fatal(err)
			}
			answer = append(answer, rr)
		}
		records, addrs, ttl := chain("a.test", answer)
		if got := fmt.Sprint(addrs); got != c.addrs || ttl != c.ttl || len(records) != c.kept {
			t.Errorf("%s: %s for %v, %d records, want %s for %v, %d records", c.name, got, ttl, len(records), c.addrs, c.ttl, c.kept)
		}
		for _, rr := range records {
			if rr.Header().Ttl > uint32(maxTTL/time.Second) {
				t.Errorf("%s: the box keeps %v", c.name, rr)
			}
		}
	}
}

func TestAChainIsFollowedToItsLimit(t *testing.T) {
	t.Parallel()
	var answer []dns.RR
	for i := 100; i > 0; i-- { // in the worst order
		rr, err := dns.NewRR(fmt.Sprintf("%d.test. 300 CNAME %d.test.", i-1, i))
		if err != nil {
			t.Fatal(err)
		}
		answer = append(answer, rr)
	}
	if records, _, _ := chain("0.test", answer); len(records) != maxChain+1 {
		t.Errorf("%d records", len(records))
	}
}
