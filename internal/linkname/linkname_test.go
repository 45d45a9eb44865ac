package linkname

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, good := range []string{"a", "eth0", "web0.100", "fifteen-bytes-x", "möwe"} {
		if err := Check(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", ".", "..", "sixteen-bytes-xx", "a/b", "a:1", "web%d", "a b", "a\tb", "a\nb", "a\x00b", "a\u00a0b", "à"} {
		for _, err := range []error{Check(bad), CheckAlt(bad)} {
			if !errors.Is(err, os.ErrInvalid) && !(err == nil && len(bad) == 16) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
	if err := Check("sixteen-bytes-xx"); err == nil {
		t.Error("16 bytes are accepted")
	}
	if err := CheckAlt(strings.Repeat("n", MaxAlt)); err != nil {
		t.Error(err)
	}
	if err := CheckAlt(strings.Repeat("n", MaxAlt+1)); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("an alternative name that is too long: %v", err)
	}
}
