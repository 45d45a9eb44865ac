package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestARowThatCannotBeRunIsNoFailure(t *testing.T) {
	t.Setenv("BOXWIRE_REQUIRE_WITNESS", "")
	r, err := &row{name: "r"}, fmt.Errorf("the contender: %w", notRun("iptables is not installed"))
	res := newBout(1, true).result(r, err)
	if res.Error != "" || res.NotRun != "iptables is not installed" {
		t.Errorf("the result is %+v", res)
	}
	var out, page bytes.Buffer
	printResult(&out, res)
	section(&page, res)
	for _, text := range []string{out.String(), page.String()} {
		if !strings.Contains(text, "not run: iptables is not installed") {
			t.Errorf("the reason is not in %q", text)
		}
	}

	t.Setenv("BOXWIRE_REQUIRE_WITNESS", "1")
	if res := newBout(1, true).result(r, err); res.Error == "" {
		t.Errorf("where it must be run the result is %+v", res)
	}
}

func TestAContenderThatCannotBeRunIsNoted(t *testing.T) {
	t.Setenv("BOXWIRE_REQUIRE_WITNESS", "")
	b := newBout(1, true)
	for range 2 {
		if err := b.excuse("nft -f", notRun("nft is not installed")); err != nil {
			t.Error(err)
		}
	}
	if want := "Not run: nft -f, because nft is not installed."; len(b.notes) != 1 || b.notes[0] != want {
		t.Errorf("the notes are %q, want %q", b.notes, want)
	}
	broken := errors.New("broken")
	if err := b.excuse("nft -f", broken); !errors.Is(err, broken) {
		t.Errorf("another error becomes %v", err)
	}
	t.Setenv("BOXWIRE_REQUIRE_WITNESS", "1")
	if b.excuse("nft -f", notRun("nft is not installed")) == nil {
		t.Error("it is excused where it must be run")
	}
}

func TestWhatTheKernelLacksIsNoFailureAnywhere(t *testing.T) {
	t.Setenv("BOXWIRE_REQUIRE_WITNESS", "1")
	b := newBout(1, true)
	if err := b.excuse("vlan", fmt.Errorf("the bridge: %w", kernelLacks("CONFIG_X"))); err != nil {
		t.Error(err)
	}
	var out bytes.Buffer
	printResult(&out, b.result(&row{name: "r"}, nil))
	if want := "Not run: vlan, because the kernel lacks CONFIG_X."; !strings.Contains(out.String(), want) {
		t.Errorf("%q lacks %q", out.String(), want)
	}
}
