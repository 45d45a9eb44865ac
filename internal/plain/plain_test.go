package plain

import (
	"os/exec"
	"testing"
)

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "eth0": "eth0", "möwe ü": "möwe ü", "\x1b[2J": `\x1b[2J`, "a\nb\r": `a\nb\r`, "\x9b": `�`, "\u202egnp": `\u202egnp`,
	} {
		if got := Text(text); got != want {
			t.Errorf("Text(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestWord(t *testing.T) {
	for word, want := range map[string]string{
		"eth0": "eth0", "": "''", "a;reboot": "'a;reboot'", "$(id)": "'$(id)'", "it's": `'it'\''s'`, "a\x1b": `$'a\x1b'`, "\xff'": `$'\xff\x27'`,
		"a b": "'a b'", "$(reboot)": "'$(reboot)'", "</script>": "'</script>'",
		"a\nb": `$'a\x0ab'`, "\x1b[0m": `$'\x1b\x5b0m'`, "\xff": `$'\xff'`, "ü": "'ü'", "a\u202eb": `$'a\xe2\x80\xaeb'`,
	} {
		got := Word(word)
		if got != want {
			t.Errorf("Word(%q) = %s, want %s", word, got, want)
		}
		if sh, err := exec.LookPath("bash"); err == nil {
			if out, err := exec.Command(sh, "-c", "printf %s "+got).Output(); err != nil || string(out) != word {
				t.Errorf("bash makes %q of %s (%v)", out, got, err)
			}
		}
	}
}
